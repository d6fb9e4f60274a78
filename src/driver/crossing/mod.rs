//! Mappings between two databases: what is asked of each side.
//!
//! The old side has its changes captured in an outbox ([`ChangeSource`]); a relay carries them to the new side
//! ([`ChangeSink`]), beside a copy of what was there before. Why nothing is lost and nothing comes back:
//! - A change has a version. Of one key, versions are in the order of commits; between keys they are not. It holds the whole row
//!   in the shape of the new side, as it was when the version was drawn.
//! - The new side keeps the version of every key that has changed, also of one that is gone, and writes a change only where its
//!   version is higher. A page of the copy writes nothing where a version is kept: whatever changed behind its reading stays.
//! - A change stays in the outbox until it is committed on the new side. What is taken twice does no harm.
//!
//! Absent on purpose: who carries changes and when, which is the engine's relay.

use std::fmt;

mod compare;
#[cfg(test)]
pub mod fake;
mod home;
mod pair;
mod stand_ins;
mod waiting;

pub use pair::{Crossing, Entered, Sides, of_mapping};

use async_trait::async_trait;

use super::ledger::Copy;
use super::{Applied, Basis, Copied, CopyState, Error, Fence, SyncState, Work};
use crate::copy::chunk::{Chunk, Key, Planned};
use crate::copy::row::{Datum, Row};
use crate::run::{Failure, HIDDEN, Mapping, MappingName, Parked, Private, Redact, RunId, StepId};

/// A mapping with what its rows carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossed {
    /// The mapping.
    pub mapping: Mapping,
    /// The names of all values of its rows, their keys aside: what a row doesn't have of them is null. A relationship with a key
    /// of its own has the keys of its ends among them, as [`end_name`] calls them.
    pub names: Vec<String>,
}

/// How rows of a relationship with a key of its own call a property that an end is known by.
#[must_use]
pub fn end_name(end: &str, property: &str) -> String {
    format!("{end}.{property}")
}

/// Rows of the old side, in the shape of the new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Those that can cross.
    pub rows: Vec<Row>,
    /// Those that can't.
    pub unfit: Vec<Unfit>,
}

/// Which rows of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Every one.
    All,
    /// Those of which no change is still to be applied: a change brings the others.
    Settled,
}

/// A row that can't cross as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Its key, as the server writes it.
    pub key: Vec<String>,
    /// What is in the way, by the column's name and without its value.
    pub reason: String,
}

/// A change of the old side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of one key, what has the highest counts.
    pub version: u64,
    /// Of which mapping.
    pub mapping: MappingName,
    /// What it says.
    pub what: What,
    /// How often it was refused before.
    pub tries: u32,
}

/// What a change says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The row is as follows, as a whole.
    Is(Row),
    /// There is no row of this key.
    Gone(Vec<Datum>),
    /// There is no row of a lower version at all, and the new side must take none any more: pages of the copy and rows that it
    /// doesn't know included.
    Emptied,
    /// The row is there, and can't cross.
    Unfit(Unfit),
}

/// How far the new side is behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Changes in the outbox.
    pub rows: u64,
    /// Whether these are more than were counted: then they are about so many.
    pub is_more: bool,
    /// How long ago the oldest of them was written, in milliseconds by the server's clock; none where there is none.
    pub oldest_ms: Option<u64>,
    /// How many bytes their images take.
    pub bytes: u64,
    /// How many of them are parked.
    pub parked: u64,
    /// Why one was refused last, of those that are still there. The new side may quote values in it.
    pub last_error: Option<String>,
}

impl Lag {
    /// Takes away what is to be hidden.
    pub fn redact(&mut self, redact: Redact) {
        if redact >= Redact::Values
            && let Some(why) = &mut self.last_error
        {
            HIDDEN.clone_into(why);
        }
    }

    /// Why one was refused last, as the end of a sentence and as what is data of it.
    pub(crate) fn refused(&self, before: &str) -> (String, Option<Private>) {
        match &self.last_error {
            Some(why) => (format!("{before}{why}"), Some(Private::value(why))),
            None => (String::new(), None),
        }
    }
}

/// A moment of the old side, by what had been written then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The last version that had been drawn.
    pub version: u64,
    /// The transactions that may have drawn that one, or one below, and had not ended.
    pub open: Vec<String>,
}

/// Rows of the old side and what is known of their changes, in one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// The rows of the keys that were asked for; keys without a row are left out.
    pub page: Page,
    /// For each key that was asked for: whether the outbox holds a change of it, or one that is about all rows.
    pub is_open: Vec<bool>,
}

/// The old side of mappings into other databases.
#[async_trait]
pub trait ChangeSource: Send + Sync + fmt::Debug {
    /// The mapping with what its rows carry now: with `copy: all` that is what the table has. Refused with the first thing that stands
    /// in the way of its rows.
    async fn crossed(&self, mapping: &Mapping) -> Result<Crossed, Error>;

    /// Begins to capture a mapping's changes, and enters that in the ledger, in one transaction, behind every transaction that was
    /// writing to the table.
    async fn capture(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
    ) -> Result<Applied, Error>;

    /// Ends it, likewise. Going back, and where the run is given up, what the outbox holds of it is void; else it is still to be
    /// applied, and the answer says how many changes those are.
    async fn end_capture(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
    ) -> Result<Applied, Error>;

    /// Whether everything that captures a mapping is in place.
    async fn capture_state(&self, mapping: &Mapping) -> Result<SyncState, Error>;

    /// The table's definition and what captures its changes.
    async fn capture_basis(&self, mapping: &Mapping) -> Result<Basis, Error>;

    /// How many rows there are to copy, about.
    async fn rows_about(&self, mapping: &Mapping) -> Result<u64, Error>;

    /// How many rows the mapping has, exactly.
    async fn rows_counted(&self, mapping: &Mapping) -> Result<u64, Error>;

    /// The largest key; `None` when there is no row.
    async fn last_key(&self, mapping: &Mapping) -> Result<Option<Key>, Error>;

    /// The keys of every `rows`-th row of a range, at most `count` of them: the ends of the next chunks. Fewer where the range has no
    /// more.
    async fn bounds(
        &self,
        mapping: &Mapping,
        range: &Chunk,
        (rows, count): (u32, u32),
    ) -> Result<Vec<Key>, Error>;

    /// The rows of a range of keys that the mapping's filter lets pass, in no order.
    async fn page(&self, mapping: &Mapping, of: (&Chunk, Rows)) -> Result<Page, Error>;

    /// The rows of some keys, and which of these keys have changes that are not applied, in one snapshot.
    async fn rows_of(&self, mapping: &Mapping, keys: &[Vec<Datum>]) -> Result<Settled, Error>;

    /// Which of some keys are those of rows that the mapping's filter lets pass, in the order of the keys.
    async fn which_exist(&self, mapping: &Mapping, keys: &[Vec<Datum>])
    -> Result<Vec<bool>, Error>;

    /// About so many rows, taken at random.
    async fn some_rows(&self, mapping: &Mapping, wanted: u32) -> Result<Page, Error>;

    /// Gives changes of some mappings, the lowest versions first: at most `most`, of one key only the highest version. None of those that
    /// the caller has in hand: nothing is marked, since whoever else has had some can finish with none of them.
    async fn claim(
        &self,
        fence: &Fence,
        mappings: &[Mapping],
        (most, in_hand): (u32, &[u64]),
    ) -> Result<Vec<Change>, Error>;

    /// Takes changes away that were applied, and those that they make void. Returns how many are gone by this.
    async fn applied(&self, fence: &Fence, versions: &[u64]) -> Result<u64, Error>;

    /// Says why the new side refused a change. Returns whether it is parked now, having been refused `most_tries`
    /// times: then it is claimed no more, until it is [retried](Self::retry_changes).
    async fn change_refused(
        &self,
        fence: &Fence,
        version: u64,
        (code, reason): (Option<&str>, &str),
        most_tries: u32,
    ) -> Result<bool, Error>;

    /// Has every parked change of a mapping claimed again. Returns how many those are.
    async fn retry_changes(&self, fence: &Fence, mapping: &Mapping) -> Result<u64, Error>;

    /// The parked changes of a mapping.
    async fn parked_changes(&self, mapping: &Mapping, most: u32) -> Result<Parked, Error>;

    /// Enters a change for each of some keys, as its row is now. Keys that no row can have are left out. Returns how many were
    /// entered. [`FailureClass::Contention`](crate::run::FailureClass::Contention) where clients have keys of them in hand: all
    /// can be entered again.
    async fn enqueue(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        keys: &[Vec<Datum>],
    ) -> Result<u64, Error>;

    /// How far the new side is behind in some mappings.
    async fn lag(&self, mappings: &[Mapping]) -> Result<Lag, Error>;

    /// This moment.
    async fn moment(&self) -> Result<Moment, Error>;

    /// Whether all changes of some mappings that had been written at a moment are applied; those that are parked are not.
    async fn is_drained(&self, moment: &Moment, mappings: &[Mapping]) -> Result<bool, Error>;

    /// The same where those that are parked count as if they were applied.
    async fn is_carried(&self, moment: &Moment, mappings: &[Mapping]) -> Result<bool, Error>;

    /// Takes the slot of a run's relay: whoever had it before can commit nothing any more. `relay` names the relay among those of all runs.
    async fn enter_relay(&self, relay: &RunId, token: u64) -> Result<Fence, Error>;
}

/// A row of the new side as it is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The rows of the keys that were asked for. What stands for a row that has not come yet has a value that no other row has
    /// ([`STUB`]).
    pub rows: Vec<Row>,
    /// For each key that was asked for the version that is kept of it; 0 where it has none.
    pub versions: Vec<u64>,
}

/// The name of the value that marks what stands for a row that has not come yet.
pub const STUB: &str = "phasegate_stub";

/// The new side of mappings out of other databases.
#[async_trait]
pub trait ChangeSink: Send + Sync + fmt::Debug {
    /// Prepares for a mapping's rows (constraints, what versions are kept in, whether the new side was empty) and enters that in the
    /// ledger. What is left of an earlier run is void.
    async fn open(&self, fence: &Fence, work: &Work, crossed: &Crossed) -> Result<Applied, Error>;

    /// Takes no change of a mapping any more: what comes is passed over. Nothing else is done.
    async fn shut(&self, fence: &Fence, crossed: &Crossed) -> Result<(), Error>;

    /// Ends that, removes versions and marks, and enters it in the ledger. Going back, the new side is emptied if it was empty before,
    /// and constraints that were made go.
    async fn close(&self, fence: &Fence, work: &Work, crossed: &Crossed) -> Result<Applied, Error>;

    /// Whether what [`open`](Self::open) made is there.
    async fn landing_state(&self, mapping: &Mapping) -> Result<SyncState, Error>;

    /// What constrains the new side.
    async fn landing_basis(&self, mapping: &Mapping) -> Result<String, Error>;

    /// A copy's row in the ledger; `None` before its first chunk was entered.
    async fn copy_row(&self, run: &RunId, step: &StepId) -> Result<Option<Copy>, Error>;

    /// Enters chunks in the ledger, in one transaction with the copy's row, which says what it is with them; refused as stale if
    /// the row is not what it was `before`. Folds chunks below the watermark.
    async fn enter_chunks(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        (before, copy, chunks): (Option<&Copy>, &Copy, &[Planned]),
    ) -> Result<CopyState, Error>;

    /// Writes the rows of a page of the copy that no change was applied of, and marks its chunk committed, in one transaction.
    async fn land_page(
        &self,
        fence: &Fence,
        work: &Work,
        crossed: &Crossed,
        (chunk, rows): (&Planned, Vec<Row>),
    ) -> Result<Copied, Error>;

    /// Applies changes in one transaction, each where its version is higher than the one that is kept of its key. Those of mappings
    /// that are shut are passed over. There may be several of one key. No change is [`What::Emptied`] or [`What::Unfit`].
    async fn land(&self, fence: &Fence, of: &[Crossed], changes: &[Change]) -> Result<(), Error>;

    /// Whether a failure of [`land`](Self::land) is about the rows that were to be written: then others can be, and time alone mends
    /// nothing. What is about the server is not, such as memory that everybody there shares.
    fn is_about_rows(&self, failure: &Failure) -> bool;

    /// Removes rows of lower versions than this one, in a bounded transaction, the first of which keeps all others away for good. Returns
    /// whether there may be more of them.
    async fn land_emptied(
        &self,
        fence: &Fence,
        crossed: &Crossed,
        version: u64,
    ) -> Result<bool, Error>;

    /// What there is of some keys. With `whole` rows carry everything that they have, and not only what the mapping writes.
    async fn held(
        &self,
        crossed: &Crossed,
        keys: &[Vec<Datum>],
        whole: bool,
    ) -> Result<Held, Error>;

    /// The end of the next chunk of so many rows behind `after`; `None` when the rest is one chunk.
    async fn held_bound(
        &self,
        crossed: &Crossed,
        after: Option<&Key>,
        rows: u32,
    ) -> Result<Option<Key>, Error>;

    /// The keys of the rows in a range, each once for each row.
    async fn held_keys(&self, crossed: &Crossed, chunk: &Chunk) -> Result<Vec<Vec<Datum>>, Error>;

    /// How many rows there are that have no key, or one that [`held_keys`](Self::held_keys) doesn't find.
    async fn held_unkeyed(&self, crossed: &Crossed) -> Result<u64, Error>;

    /// How many rows there are; those that stand for rows that have not come yet are counted, too.
    async fn held_count(&self, crossed: &Crossed) -> Result<u64, Error>;

    /// The keys of about so many rows, taken at random.
    async fn some_held(&self, crossed: &Crossed, wanted: u32) -> Result<Vec<Vec<Datum>>, Error>;

    /// Removes what stands for rows that have not come and that nothing refers to any more. Returns how many there still are.
    async fn sweep(&self, fence: &Fence, crossed: &Crossed) -> Result<u64, Error>;

    /// How many nodes of some labels stand for rows that have not come.
    async fn stubs(&self, labels: &[String]) -> Result<u64, Error>;

    /// Has nodes of some labels that stand for rows be nodes like all others: nothing will come for them any more.
    async fn unmark(&self, fence: &Fence, labels: &[String]) -> Result<(), Error>;

    /// Takes the slot of a run's relay, as [`ChangeSource::enter_relay`] does.
    async fn enter_relay(&self, relay: &RunId, token: u64) -> Result<Fence, Error>;
}
