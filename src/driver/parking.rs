//! Rows that can't be copied: what a driver does with them, and what its databases share in doing it.

use async_trait::async_trait;

use crate::bounds::copying::PARKED_PASSES_MAX;
use crate::bounds::message::REASON_CHARS_MAX;
use crate::copy::chunk::{Key, Planned};
use crate::run::{Direction, Failure, Mapping, Parked, Private};

use super::{Copied, Error, Fence, Work};

/// Rows that can't be copied, kept apart until they can.
#[async_trait]
pub trait Parker: Send + Sync {
    /// Copies one chunk as [`Sink::copy_chunk`](super::Sink::copy_chunk) does, but for the rows that can't be copied: these are parked, in the same
    /// transaction. Refused when the mapping would have more than `most` of them; then nothing of the chunk is done.
    async fn copy_parking(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
        (chunk, most): (&Planned, u32),
    ) -> Result<Copied, Error>;

    /// Tries every parked row of a mapping again, by the same statements as the copy. Those that are written now, or that the
    /// old side has no more, are parked no longer. Returns how many still are.
    async fn retry_parked(
        &self,
        fence: &Fence,
        mapping: &Mapping,
        direction: Direction,
    ) -> Result<u64, Error>;

    /// The parked rows of a mapping, but for those that are right by now: a client has mended them, or removed them. Changes
    /// nothing. None where the mapping keeps no such rows, whether its tables are there or not.
    async fn parked(
        &self,
        mapping: &Mapping,
        direction: Direction,
        most: u32,
    ) -> Result<Parked, Error>;
}

/// A row that can't be copied, and what its database said of it.
pub(super) struct Refusal {
    pub(super) key: Key,
    pub(super) failure: Failure,
}

/// How often all parked rows are tried again: as long as that frees some, since rows that refer to each other free one another,
/// and at most [`PARKED_PASSES_MAX`] times.
pub(super) struct Passes {
    tried: u32,
    in_vain: u32,
    left: u64,
}

impl Passes {
    /// Over so many parked rows.
    pub(super) const fn over(left: u64) -> Self {
        Self { tried: 0, in_vain: 0, left }
    }

    /// The order of the next pass. None where no row is left, and where neither order frees one any more.
    pub(super) const fn next(&self) -> Option<Along> {
        let is_over = self.left == 0 || self.in_vain == 2 || self.tried == PARKED_PASSES_MAX;
        if is_over { None } else { Some(Along::of_pass(self.tried)) }
    }

    /// A pass left so many.
    pub(super) const fn passed(&mut self, left: u64) {
        self.in_vain = if left < self.left { 0 } else { self.in_vain + 1 };
        self.tried += 1;
        self.left = left;
    }

    /// How many are left.
    pub(super) const fn left(&self) -> u64 {
        self.left
    }
}

/// In which order parked rows are gone through. Tried again they are in turns forth and back, so that of rows that refer to each
/// other those that are referred to come first in one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Along {
    Forth,
    Back,
}

impl Along {
    /// The order of a pass, counted from 0.
    const fn of_pass(pass: u32) -> Self {
        if pass.is_multiple_of(2) { Self::Forth } else { Self::Back }
    }

    /// What follows an order in SQL, and how what comes later compares.
    pub(super) const fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Forth => ("", ">"),
            Self::Back => (" DESC", "<"),
        }
    }
}

/// The reason of a failure as it is kept with a parked row: what the database said, and the values that stood in the way where
/// it names them. A detail that shows the whole row is left out.
pub(super) fn reason(failure: &Failure) -> String {
    let detail = failure.detail.as_deref().filter(|detail| detail.starts_with("Key "));
    let text = match detail {
        Some(detail) => format!("{} ({})", failure.message, detail.trim_end_matches('.')),
        None => failure.message.clone(),
    };
    text.chars().take(REASON_CHARS_MAX as usize).collect()
}

/// The error of a copy that one row stops: its key in words, and its table.
pub(super) fn uncopied((key, table): (&str, &str), mut failure: Failure) -> Error {
    failure.message = format!("the row with {key} of {table} can't be copied: {}", failure.message);
    failure.help = Some("mend the row or the mapping's expressions, then retry".to_owned());
    failure.private.push(Private::key(key));
    Error::Failed(failure)
}

/// The error of a copy that has parked as many rows as it may.
pub(super) fn too_many_parked(
    most: u32,
    table: &str,
    (key, mut failure): (&str, Failure),
) -> Error {
    failure.private.push(Private::key(key));
    let noun = if most == 1 { "row" } else { "rows" };
    let message = format!(
        "more than {most} {noun} of {table} can't be copied, which is as many as may be parked; the next is the row with \
         {key}: {}",
        failure.message
    );
    let help = "see `phasegate status RUN --parked`, mend the rows or what refuses them, then retry; `park_max` allows more";
    Error::Failed(Failure { message, help: Some(help.to_owned()), ..failure })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The orders of the passes over so many rows, of which each pass leaves so many.
    fn orders(over: u64, left: &[u64]) -> Vec<Along> {
        let mut passes = Passes::over(over);
        let mut orders = Vec::new();
        while let Some(along) = passes.next() {
            orders.push(along);
            passes.passed(left.get(orders.len() - 1).copied().unwrap_or(passes.left()));
        }
        orders
    }

    #[test]
    fn rows_are_tried_again_forth_and_back_until_neither_frees_one() {
        use Along::{Back, Forth};

        assert_eq!(orders(0, &[]), []);
        assert_eq!(orders(3, &[0]), [Forth]);
        assert_eq!(orders(3, &[]), [Forth, Back]);
        assert_eq!(orders(3, &[3, 2]), [Forth, Back, Forth, Back]);
        let slowly: Vec<u64> = (0..100).map(|pass| 100 - pass).collect();
        assert_eq!(orders(101, &slowly).len(), 20, "not for ever");
    }
}
