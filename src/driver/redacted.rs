//! A database seen through `--redact` and `policy.redact`: the same database, whose errors and findings come without what is to
//! be hidden; and whose advice names the role that acts there.
//!
//! Everything that a command records, logs or shows of a database comes through here, so this is the one place where what a
//! database says of rows is kept back. Those who make a sentence mark what of it is data
//! ([`Private`](crate::run::Private)); what they give as data (differences, parked rows) their readers hide themselves.
//!
//! Every method has to be passed on, those with a body in the trait too: a test compares this file with the traits.

use async_trait::async_trait;

use super::crossing::{ChangeSink, ChangeSource};
use super::{
    Applied, Basis, Capabilities, Claim, Copied, CopyState, DualWriter, Error, Fence, Finding,
    Gone, Head, Holder, Identity, Introspect, Losses, Parker, Probed, Remnant, Retirer, Session,
    SharedDriver, Signals, Sink, Source, Survey, SyncState, TableSize, Verifier, Window, Work,
};
use crate::copy::chunk::{Chunk, Key, Planned};
use crate::copy::compare::Compared;
use crate::copy::throttle::Part;
use crate::run::{
    Digest, Direction, Ending, Gauge, Mapping, Marked, Method, Parked, Permit, Redact, Retire,
    RetireShape, RunId, Runnable, Script, StepId, Traced, Usage, Value, Way,
};

/// A database whose errors hide something.
#[derive(Debug)]
pub struct Redacted {
    inner: SharedDriver,
    redact: Redact,
    /// The role, as SQL has it, where the database knows roles.
    role: Option<String>,
}

/// The same database, whose advice names the role that acts, as SQL has it.
pub(super) fn acting_as(driver: SharedDriver, role: String) -> SharedDriver {
    std::sync::Arc::new(Redacted { inner: driver, redact: Redact::Nothing, role: Some(role) })
}

/// The same database, of which nothing is said that is to be hidden.
#[must_use]
pub fn redacted(driver: SharedDriver, redact: Redact) -> SharedDriver {
    if redact.is_nothing() {
        return driver;
    }
    std::sync::Arc::new(Redacted { inner: driver, redact, role: None })
}

impl Redacted {
    fn hide<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        answer.map_err(|error| self.hidden(error))
    }

    fn hidden(&self, error: Error) -> Error {
        let error = error.redacted(self.redact);
        match &self.role {
            Some(role) => error.naming(role),
            None => error,
        }
    }
}

#[async_trait]
impl Session for Redacted {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn identity(&self) -> Result<Identity, Error> {
        self.hide(self.inner.identity().await)
    }

    async fn lineage(&self) -> Result<Option<String>, Error> {
        self.hide(self.inner.lineage().await)
    }

    async fn answers(&self) -> Result<(), Error> {
        self.hide(self.inner.answers().await)
    }

    async fn holder(&self, claim: &Claim) -> Result<Option<Holder>, Error> {
        self.hide(self.inner.holder(claim).await)
    }

    async fn enter(&self, claim: &Claim, token: u64) -> Result<Vec<Fence>, Error> {
        self.hide(self.inner.enter(claim, token).await)
    }

    async fn keep_plan(&self, fence: &Fence, plan: &Digest) -> Result<(), Error> {
        self.hide(self.inner.keep_plan(fence, plan).await)
    }

    async fn leave(&self, fence: &Fence, ending: Ending, head: &Head) -> Result<(), Error> {
        self.hide(self.inner.leave(fence, ending, head).await)
    }

    async fn entered_by(&self, run: &RunId) -> Result<Option<(String, u32)>, Error> {
        self.hide(self.inner.entered_by(run).await)
    }

    async fn head(&self, run: &RunId) -> Result<Option<Head>, Error> {
        self.hide(self.inner.head(run).await)
    }

    async fn value(&self, query: &str) -> Result<Value, Error> {
        self.hide(self.inner.value(query).await)
    }

    async fn execute(
        &self,
        fence: &Fence,
        work: &Work,
        script: Runnable<'_>,
    ) -> Result<Applied, Error> {
        self.hide(self.inner.execute(fence, work, script).await)
    }

    async fn entry(&self, run: &RunId, step: &StepId, way: Way) -> Result<Option<Applied>, Error> {
        self.hide(self.inner.entry(run, step, way).await)
    }

    async fn is_applied(&self, run: &RunId, step: &StepId, way: Way) -> Result<bool, Error> {
        self.hide(self.inner.is_applied(run, step, way).await)
    }

    async fn remnants(&self, plan: &str) -> Result<Vec<Remnant>, Error> {
        self.hide(self.inner.remnants(plan).await)
    }

    async fn ended(&self, fence: &Fence, step: &StepId, way: Way) -> Result<(), Error> {
        self.hide(self.inner.ended(fence, step, way).await)
    }

    async fn traced(&self, run: &RunId, step: &StepId, way: Way) -> Result<Traced, Error> {
        self.hide(self.inner.traced(run, step, way).await)
    }

    async fn marks(
        &self,
        run: &RunId,
        step: &StepId,
        script: Option<(Way, &Script)>,
    ) -> Result<Vec<Marked>, Error> {
        self.hide(self.inner.marks(run, step, script).await)
    }

    async fn cancel(&self) {
        self.inner.cancel().await;
    }

    async fn close(&self) {
        self.inner.close().await;
    }

    fn change_source(&self) -> Option<&dyn ChangeSource> {
        self.inner.change_source()
    }

    fn change_sink(&self) -> Option<&dyn ChangeSink> {
        self.inner.change_sink()
    }

    fn told(&self, error: Error) -> Error {
        self.hidden(self.inner.told(error))
    }
}

#[async_trait]
impl Introspect for Redacted {
    async fn survey(&self, survey: &Survey) -> Result<Vec<Finding>, Error> {
        let mut found = self.hide(self.inner.survey(survey).await)?;
        for finding in &mut found {
            finding.redact(self.redact);
        }
        Ok(found)
    }

    async fn probe(&self, survey: &Survey) -> Result<Probed, Error> {
        let mut probed = self.hide(self.inner.probe(survey).await)?;
        for finding in &mut probed.findings {
            finding.redact(self.redact);
        }
        Ok(probed)
    }

    async fn fingerprint(&self, tables: &[String]) -> Result<Digest, Error> {
        self.hide(self.inner.fingerprint(tables).await)
    }

    async fn usage(&self, table: &str) -> Result<Usage, Error> {
        self.hide(self.inner.usage(table).await)
    }

    async fn size(&self, table: &str) -> Result<TableSize, Error> {
        self.hide(self.inner.size(table).await)
    }
}

#[async_trait]
impl Signals for Redacted {
    async fn gauge(&self, gauge: Gauge, tables: &[String]) -> Result<Vec<Part>, Error> {
        self.hide(self.inner.gauge(gauge, tables).await)
    }
}

#[async_trait]
impl DualWriter for Redacted {
    async fn watch(&self, fence: &Fence, work: &Work, mapping: &Mapping) -> Result<(), Error> {
        self.hide(self.inner.watch(fence, work, mapping).await)
    }

    async fn install(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
    ) -> Result<Applied, Error> {
        self.hide(self.inner.install(fence, work, mapping, direction).await)
    }

    async fn remove(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
    ) -> Result<Applied, Error> {
        self.hide(self.inner.remove(fence, work, mapping, direction).await)
    }

    async fn sync_state(
        &self,
        mapping: &Mapping,
        direction: Direction,
    ) -> Result<SyncState, Error> {
        self.hide(self.inner.sync_state(mapping, direction).await)
    }

    async fn gone(&self, mapping: &Mapping) -> Result<Gone, Error> {
        self.hide(self.inner.gone(mapping).await)
    }

    async fn settle(&self, fence: &Fence, mapping: &Mapping) -> Result<u64, Error> {
        self.hide(self.inner.settle(fence, mapping).await)
    }

    async fn settle_among(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        beside: &[Mapping],
    ) -> Result<u64, Error> {
        self.hide(self.inner.settle_among(fence, mapping, beside).await)
    }
}

#[async_trait]
impl Source for Redacted {
    async fn estimate(&self, mapping: &Mapping) -> Result<u64, Error> {
        self.hide(self.inner.estimate(mapping).await)
    }

    async fn plan_chunks(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        size: Window,
    ) -> Result<CopyState, Error> {
        self.hide(self.inner.plan_chunks(fence, work, mapping, size).await)
    }

    async fn forget_chunks(&self, fence: &Fence, work: &Work, after: u64) -> Result<(), Error> {
        self.hide(self.inner.forget_chunks(fence, work, after).await)
    }
}

#[async_trait]
impl Sink for Redacted {
    async fn copy_state(&self, run: &RunId, step: &StepId) -> Result<CopyState, Error> {
        self.hide(self.inner.copy_state(run, step).await)
    }

    async fn copy_chunk(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
        chunk: &Planned,
    ) -> Result<Copied, Error> {
        self.hide(self.inner.copy_chunk(fence, work, mapping, direction, chunk).await)
    }

    async fn finish_copy(&self, fence: &Fence, work: &Work) -> Result<Applied, Error> {
        self.hide(self.inner.finish_copy(fence, work).await)
    }
}

#[async_trait]
impl Parker for Redacted {
    async fn copy_parking(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
        (chunk, most): (&Planned, u32),
    ) -> Result<Copied, Error> {
        let copied = self.inner.copy_parking(fence, work, mapping, direction, (chunk, most));
        self.hide(copied.await)
    }

    async fn retry_parked(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        direction: Direction,
    ) -> Result<u64, Error> {
        self.hide(self.inner.retry_parked(fence, mapping, direction).await)
    }

    async fn parked(
        &self,
        mapping: &Mapping,
        direction: Direction,
        most: u32,
    ) -> Result<Parked, Error> {
        let mut parked = self.hide(self.inner.parked(mapping, direction, most).await)?;
        parked.redact(self.redact);
        Ok(parked)
    }
}

#[async_trait]
impl Verifier for Redacted {
    async fn verify_bound(
        &self,
        mapping: &Mapping,
        after: Option<&Key>,
        rows: u32,
    ) -> Result<Option<Key>, Error> {
        self.hide(self.inner.verify_bound(mapping, after, rows).await)
    }

    async fn compare_chunk(
        &self,
        mapping: &Mapping,
        direction: Direction,
        chunk: &Chunk,
    ) -> Result<Compared, Error> {
        let compared = self.inner.compare_chunk(mapping, direction, chunk).await;
        self.hide(compared).map(|compared| self.hide_samples(compared))
    }

    async fn compare_losing(
        &self,
        mapping: &Mapping,
        direction: Direction,
        chunk: &Chunk,
    ) -> Result<Compared, Error> {
        let compared = self.inner.compare_losing(mapping, direction, chunk).await;
        self.hide(compared).map(|compared| self.hide_samples(compared))
    }

    async fn compare_partly(
        &self,
        mapping: &Mapping,
        direction: Direction,
        method: Method,
    ) -> Result<Compared, Error> {
        let compared = self.inner.compare_partly(mapping, direction, method).await;
        self.hide(compared).map(|compared| self.hide_samples(compared))
    }

    async fn basis(&self, mapping: &Mapping) -> Result<Basis, Error> {
        self.hide(self.inner.basis(mapping).await)
    }

    async fn kept_pass(&self, run: &RunId, step: &StepId) -> Result<Option<String>, Error> {
        self.hide(self.inner.kept_pass(run, step).await)
    }

    async fn keep_pass(
        &self,
        fence: &Fence,
        step: &StepId,
        pass: Option<&str>,
    ) -> Result<(), Error> {
        self.hide(self.inner.keep_pass(fence, step, pass).await)
    }

    async fn repair_chunk(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        direction: Direction,
        chunk: &Chunk,
    ) -> Result<u64, Error> {
        self.hide(self.inner.repair_chunk(fence, mapping, direction, chunk).await)
    }
}

#[async_trait]
impl Retirer for Redacted {
    async fn retire(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
        retire: &Retire,
    ) -> Result<Applied, Error> {
        self.hide(self.inner.retire(fence, work, mapping, direction, retire).await)
    }

    async fn unretire(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
        shape: &RetireShape,
        losses: Losses,
    ) -> Result<Applied, Error> {
        self.hide(self.inner.unretire(fence, work, mapping, direction, shape, losses).await)
    }

    async fn drop_retired(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        shape: &RetireShape,
        permit: Permit,
    ) -> Result<Applied, Error> {
        self.hide(self.inner.drop_retired(fence, work, mapping, shape, permit).await)
    }

    async fn drop_old(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        others: &[Mapping],
        permit: Permit,
    ) -> Result<Applied, Error> {
        self.hide(self.inner.drop_old(fence, work, mapping, others, permit).await)
    }
}

impl Redacted {
    fn hide_samples(&self, mut compared: Compared) -> Compared {
        compared.samples.iter_mut().for_each(|one| one.redact(self.redact));
        compared
    }
}

#[cfg(test)]
mod tests {
    /// The names of the functions with `self` in a text, as they follow each other.
    fn methods(text: &str) -> Vec<&str> {
        let lines = text.lines().map(str::trim_start);
        let named = lines
            .filter_map(|line| line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ")));
        named.filter_map(|rest| rest.split(['(', '<']).next()).collect()
    }

    #[test]
    fn every_method_of_a_driver_is_passed_on() {
        let here = include_str!("redacted.rs");
        let here = here.split("#[cfg(test)]").next().unwrap_or_default();
        let passed_on = methods(here);
        let mut promised = Vec::new();
        for file in [include_str!("mod.rs"), include_str!("parking.rs")] {
            let file = file.split("\nmod tests {").next().unwrap_or_default();
            for block in file.split("#[async_trait]").skip(1) {
                promised.extend(methods(block.split("\n}\n").next().unwrap_or_default()));
            }
        }
        assert!(promised.len() > 30, "{promised:?}");
        for method in promised {
            assert!(passed_on.contains(&method), "{method} is not passed on");
            assert!(here.contains(&format!("self.inner.{method}(")), "{method} is not passed on");
        }
    }
}
