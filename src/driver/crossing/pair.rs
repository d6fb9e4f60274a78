//! Both databases of a mapping as one: what the engine asks of a mapping's database it asks of this.
//!
//! Invariants:
//! - A chunk's page is read on the old side, and written on the new one in one transaction with its mark in the ledger there.
//! - Capture begins when the new side is ready for changes, and ends before it is shut. Where changes are not void they are applied
//!   first.
//! - What has work on both sides is done when both ledgers say so; the one whose work comes last is written last.
//!
//! Absent on purpose: carrying changes. While no relay runs they stay in the outbox, and whoever waits for them here says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::{ChangeSink, ChangeSource, Crossed, Rows};
use crate::bounds::relay::{DRAINED_LOOK_EVERY, DRAINED_WITHIN_MS};
use crate::clock::Stopwatch;
use crate::copy::chunk::{Chunk, Key, Planned};
use crate::copy::compare::Compared;
use crate::driver::ledger::Copy;
use crate::driver::{
    Applied, Basis, Copied, CopyState, DualWriter, Error, Fence, Gone, Losses, Parker, Retirer,
    SharedDriver, Sink, Source, SyncState, Verifier, Window, Work, gives_up,
};
use crate::run::{
    Direction, Failure, FailureClass, Mapping, Method, Parked, Permit, Private, Retire,
    RetireShape, RunId, StepId, TargetName, Way, plural,
};

/// Where a step is entered in a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// On the side that it works on alone.
    Home,
    /// On both.
    Both,
}

/// The two databases of a mapping.
#[derive(Debug)]
pub struct Crossing {
    pub(super) old: SharedDriver,
    pub(super) new: SharedDriver,
    /// Whether the step's own side, which its fences are of, is the new one.
    pub(super) is_home_new: bool,
    pub(super) entered: Entered,
    /// A fence of the other side.
    beside: Option<Fence>,
    /// All mappings between these two that are kept in step.
    pub(super) live: Vec<Mapping>,
}

/// How a step works on both sides.
#[derive(Clone, Debug)]
pub struct Sides {
    /// The database that the step's fences are of.
    pub home: TargetName,
    /// Where it is entered.
    pub entered: Entered,
    /// A fence of the other database.
    pub beside: Option<Fence>,
    /// All mappings that are kept in step.
    pub live: Vec<Mapping>,
}

/// The database of a mapping, or both as one; none where one is not among those that were opened.
#[must_use]
pub fn of_mapping(
    drivers: &BTreeMap<TargetName, SharedDriver>,
    mapping: &Mapping,
    sides: Sides,
) -> Option<SharedDriver> {
    let (old, new) = (drivers.get(&mapping.from.target)?, drivers.get(&mapping.into.target)?);
    if mapping.is_pushdown() {
        return Some(old.clone());
    }
    let is_alike = |other: &Mapping| {
        other.from.target == mapping.from.target && other.into.target == mapping.into.target
    };
    let mut live = sides.live;
    live.retain(is_alike);
    Some(Arc::new(Crossing {
        old: old.clone(),
        new: new.clone(),
        is_home_new: sides.home == mapping.into.target,
        entered: sides.entered,
        beside: sides.beside,
        live,
    }))
}

impl Crossing {
    pub(super) fn source(&self) -> Result<&dyn ChangeSource, Error> {
        let refuse = || Error::failed(FailureClass::Refused, "this database can't be copied from");
        self.old.change_source().ok_or_else(refuse)
    }

    pub(super) fn sink(&self) -> Result<&dyn ChangeSink, Error> {
        let refuse = || Error::failed(FailureClass::Refused, "this database can't be copied into");
        self.new.change_sink().ok_or_else(refuse)
    }

    /// An answer of the old side.
    pub(super) fn of_old<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        answer.map_err(|error| self.old.told(error))
    }

    /// An answer of the new side.
    pub(super) fn of_new<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        answer.map_err(|error| self.new.told(error))
    }

    pub(super) const fn home(&self) -> &SharedDriver {
        if self.is_home_new { &self.new } else { &self.old }
    }

    /// The fences of both sides, the old one's first.
    pub(super) fn fences<'a>(&'a self, own: &'a Fence) -> Result<[&'a Fence; 2], Error> {
        let beside = self.beside.as_ref().ok_or_else(|| {
            let message = "the other database of the mapping was not entered for this run";
            Error::failed(FailureClass::Stale, message)
        })?;
        Ok(if self.is_home_new { [beside, own] } else { [own, beside] })
    }

    pub(super) async fn crossed(&self, mapping: &Mapping) -> Result<Crossed, Error> {
        self.of_old(self.source()?.crossed(mapping).await)
    }

    /// The mapping, also where its table is gone, or is no more what the mapping says of it: then, with the reason, nobody knows
    /// what its rows carry.
    async fn crossed_or_not(&self, mapping: &Mapping) -> Result<(Crossed, Option<Failure>), Error> {
        match self.crossed(mapping).await {
            Ok(crossed) => Ok((crossed, None)),
            Err(Error::Failed(failure))
                if matches!(failure.class, FailureClass::Stale | FailureClass::Refused) =>
            {
                Ok((Crossed { mapping: mapping.clone(), names: Vec::new() }, Some(failure)))
            }
            Err(other) => Err(other),
        }
    }
}

#[async_trait]
impl DualWriter for Crossing {
    async fn install(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        _: Direction,
    ) -> Result<Applied, Error> {
        let [old, new] = self.fences(fence)?;
        let crossed = self.crossed(mapping).await?;
        let opened = self.of_new(self.sink()?.open(new, work, &crossed).await)?;
        let captured = self.of_old(self.source()?.capture(old, work, mapping).await)?;
        let said: Vec<String> = opened.detail.into_iter().chain(captured.detail).collect();
        let detail = (!said.is_empty()).then(|| said.join("; "));
        Ok(Applied { before: opened.before && captured.before, rows: 0, detail })
    }

    async fn remove(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        _: Direction,
    ) -> Result<Applied, Error> {
        let [old, new] = self.fences(fence)?;
        let (source, sink) = (self.source()?, self.sink()?);
        let (crossed, unread) = self.crossed_or_not(mapping).await?;
        let is_void = work.way == Way::Back || gives_up(&work.step).is_some();
        if is_void {
            // First, so that nothing that the relay has in hand comes behind.
            self.of_new(sink.shut(new, &crossed).await)?;
            self.of_old(source.end_capture(old, work, mapping).await)?;
        } else if !self.new.is_applied(new.run(), &work.step, work.way).await? {
            if let Some(why) = &unread {
                // While it lasts, so that the table can still be put back as it was.
                self.none_unread(mapping, why).await?;
            }
            self.of_old(source.end_capture(old, work, mapping).await)?;
            match &unread {
                Some(why) => self.none_unread(mapping, why).await?,
                None => self.carried_over(new, &crossed).await?,
            }
            return self.closed((new, work), &crossed).await;
        }
        self.of_new(sink.close(new, work, &crossed).await)
    }

    async fn sync_state(&self, mapping: &Mapping, _: Direction) -> Result<SyncState, Error> {
        let captured = self.of_old(self.source()?.capture_state(mapping).await)?;
        let landing = self.of_new(self.sink()?.landing_state(mapping).await)?;
        let wrong: Vec<String> = [captured, landing]
            .into_iter()
            .filter_map(|state| match state {
                SyncState::Active => None,
                SyncState::Broken(why) => Some(why),
            })
            .collect();
        Ok(if wrong.is_empty() { SyncState::Active } else { SyncState::Broken(wrong.join("; ")) })
    }

    async fn gone(&self, mapping: &Mapping) -> Result<Gone, Error> {
        match self.crossed_or_not(mapping).await? {
            (crossed, Some(why)) if why.class == FailureClass::Stale => {
                let rows = self.of_new(self.sink()?.held_count(&crossed).await)?;
                Ok(Gone::Old { has_rows: rows > 0 })
            }
            // A table that the mapping doesn't fit any more is still there.
            _ => Ok(Gone::Nothing),
        }
    }

    /// Nothing is only noted here: what was captured is waited for.
    async fn settle(&self, _: &Fence, mapping: &Mapping) -> Result<u64, Error> {
        if self.drained(std::slice::from_ref(mapping)).await? {
            return Ok(0);
        }
        Err(self.behind(mapping).await?)
    }
}

#[async_trait]
impl Source for Crossing {
    async fn estimate(&self, mapping: &Mapping) -> Result<u64, Error> {
        self.of_old(self.source()?.rows_about(mapping).await)
    }

    async fn plan_chunks(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        size: Window,
    ) -> Result<CopyState, Error> {
        let (source, sink) = (self.source()?, self.sink()?);
        let before = self.of_new(sink.copy_row(fence.run(), &work.step).await)?;
        let mut copy = match &before {
            Some(copy) => copy.clone(),
            None => Copy::up_to(self.of_old(source.last_key(mapping).await)?),
        };
        let mut chunks = Vec::new();
        if let Some(rest) = copy.rest() {
            let wanted = (size.rows, size.count);
            let found = self.of_old(source.bounds(mapping, &rest, wanted).await)?;
            let is_short = found.len() < size.count as usize;
            let ends = found.into_iter().map(Some).chain(is_short.then_some(None));
            for hi in ends {
                let Some(rest) = copy.rest() else { break };
                chunks.push(copy.next(rest, hi));
            }
        }
        let entered = (before.as_ref(), &copy, chunks.as_slice());
        self.of_new(sink.enter_chunks(fence, work, mapping, entered).await)
    }
}

#[async_trait]
impl Sink for Crossing {
    async fn copy_state(&self, run: &RunId, step: &StepId) -> Result<CopyState, Error> {
        self.new.copy_state(run, step).await
    }

    async fn copy_chunk(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        _: Direction,
        chunk: &Planned,
    ) -> Result<Copied, Error> {
        let crossed = self.crossed(mapping).await?;
        let page =
            self.of_old(self.source()?.page(mapping, (&chunk.chunk, Rows::Settled)).await)?;
        if let Some(unfit) = page.unfit.first() {
            let key = unfit.key.join(", ");
            let message = format!("the row of {key} can't be copied: {}", unfit.reason);
            let mut error = Error::failed(FailureClass::Refused, message)
                .with_help("mend the row, or leave it out by the mapping's `where`; then retry");
            if let Error::Failed(failure) = &mut error {
                failure.private.push(Private::key(&key));
            }
            return Err(self.old.told(error));
        }
        between_reading_and_writing();
        let landed = self.sink()?.land_page(fence, work, &crossed, (chunk, page.rows)).await;
        // Its time is that of the new side alone: reading keeps nobody waiting.
        self.of_new(landed)
    }

    async fn finish_copy(&self, fence: &Fence, work: &Work) -> Result<Applied, Error> {
        self.new.finish_copy(fence, work).await
    }
}

/// Where a test holds up a page that was read and is not written yet.
#[cfg(feature = "failpoints")]
fn between_reading_and_writing() {
    fail::fail_point!("crossing::page-read");
}

#[cfg(not(feature = "failpoints"))]
const fn between_reading_and_writing() {}

#[async_trait]
impl Parker for Crossing {
    async fn copy_parking(
        &self,
        _: &Fence,
        _: &Work,
        mapping: &Mapping,
        _: Direction,
        _: (&Planned, u32),
    ) -> Result<Copied, Error> {
        let message = format!("rows of mapping {} can't be parked by a copy", mapping.name);
        Err(Error::failed(FailureClass::Refused, message))
    }

    async fn retry_parked(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        _: Direction,
    ) -> Result<u64, Error> {
        let [old, _] = self.fences(fence)?;
        let retried = self.of_old(self.source()?.retry_changes(old, mapping).await)?;
        let watch = Stopwatch::start();
        loop {
            let lag = self.lag(mapping).await?;
            // Refused again, or applied.
            if retried == 0 || lag.rows == lag.parked || watch.elapsed_ms() > DRAINED_WITHIN_MS {
                return Ok(lag.parked);
            }
            tokio::time::sleep(DRAINED_LOOK_EVERY).await;
        }
    }

    async fn parked(&self, mapping: &Mapping, _: Direction, most: u32) -> Result<Parked, Error> {
        self.of_old(self.source()?.parked_changes(mapping, most).await)
    }
}

#[async_trait]
impl Verifier for Crossing {
    async fn verify_bound(
        &self,
        mapping: &Mapping,
        after: Option<&Key>,
        rows: u32,
    ) -> Result<Option<Key>, Error> {
        self.bound(mapping, after, rows).await
    }

    async fn compare_chunk(
        &self,
        mapping: &Mapping,
        _: Direction,
        chunk: &Chunk,
    ) -> Result<Compared, Error> {
        Ok(self.compared(mapping, chunk, false).await?.0)
    }

    async fn compare_losing(
        &self,
        mapping: &Mapping,
        _: Direction,
        chunk: &Chunk,
    ) -> Result<Compared, Error> {
        Ok(self.compared(mapping, chunk, true).await?.0)
    }

    async fn compare_partly(
        &self,
        mapping: &Mapping,
        _: Direction,
        method: Method,
    ) -> Result<Compared, Error> {
        match method {
            Method::Counts | Method::Full => self.counted(mapping).await,
            Method::Sample(wanted) => self.sampled(mapping, wanted).await,
        }
    }

    async fn basis(&self, mapping: &Mapping) -> Result<Basis, Error> {
        let mut basis = self.of_old(self.source()?.capture_basis(mapping).await)?;
        basis.tables.push('\n');
        basis.tables.push_str(&self.of_new(self.sink()?.landing_basis(mapping).await)?);
        Ok(basis)
    }

    async fn kept_pass(&self, run: &RunId, step: &StepId) -> Result<Option<String>, Error> {
        self.new.kept_pass(run, step).await
    }

    async fn keep_pass(
        &self,
        fence: &Fence,
        step: &StepId,
        pass: Option<&str>,
    ) -> Result<(), Error> {
        self.new.keep_pass(fence, step, pass).await
    }

    /// What differs is entered in the outbox as it is on the old side now, and goes the way of every change.
    async fn repair_chunk(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        _: Direction,
        chunk: &Chunk,
    ) -> Result<u64, Error> {
        let [old, _] = self.fences(fence)?;
        let (_, keys) = self.compared(mapping, chunk, false).await?;
        let entered = self.of_old(self.source()?.enqueue(old, mapping, &keys).await)?;
        if entered < keys.len() as u64 {
            let message = format!(
                "{} of the new side have keys that no row of {} can have",
                plural(keys.len() as u64 - entered, "row"),
                mapping.from.table
            );
            return Err(Error::failed(FailureClass::Refused, message)
                .with_help("see the differences, and remove those rows on the new side"));
        }
        Ok(entered)
    }
}

fn none_across<T>() -> Result<T, Error> {
    let message = "nothing is put aside where a mapping goes into another database";
    Err(Error::failed(FailureClass::Refused, message))
}

#[async_trait]
impl Retirer for Crossing {
    async fn retire(
        &self,
        _: &Fence,
        _: &Work,
        _: &Mapping,
        _: Direction,
        _: &Retire,
    ) -> Result<Applied, Error> {
        none_across()
    }

    async fn unretire(
        &self,
        _: &Fence,
        _: &Work,
        _: &Mapping,
        _: Direction,
        _: &RetireShape,
        _: Losses,
    ) -> Result<Applied, Error> {
        none_across()
    }

    async fn drop_retired(
        &self,
        _: &Fence,
        _: &Work,
        _: &Mapping,
        _: &RetireShape,
        _: Permit,
    ) -> Result<Applied, Error> {
        none_across()
    }

    /// The old side goes with what captures its changes. What is captured before is applied before the new side is shut.
    async fn drop_old(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        others: &[Mapping],
        permit: Permit,
    ) -> Result<Applied, Error> {
        let [old, new] = self.fences(fence)?;
        let crossed = self.crossed_or_not(mapping).await?.0;
        let is_dropped = self.old.is_applied(old.run(), &work.step, work.way).await?;
        if !is_dropped {
            self.carried_over(new, &crossed).await?;
        }
        let dropped = self.old.drop_old(old, work, mapping, others, permit).await?;
        self.carried_over(new, &crossed).await?;
        self.closed((new, work), &crossed).await?;
        Ok(dropped)
    }
}
