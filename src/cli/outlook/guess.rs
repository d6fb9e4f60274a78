//! How long a copy may take: a guess that says what it is made from.
//!
//! A probe may only read, so it times a read of some rows in key order. What copying a row takes beyond reading it was measured
//! (`docs/performance.md`, "What a dry run guesses with"); the guess is that range, and says so. Absent on purpose: what other
//! clients, replicas and throttles do to it, and any guess of a copy into another database.

use crate::driver::probed::{Sample, TableFacts};
use crate::report::words;
use crate::run::{Backfill, ChunkRows, Engine, Mapping};

/// How many times as long as reading it copying a row took, at least and at most.
const fn times_of_a_read(engine: Engine) -> (u64, u64) {
    match engine {
        Engine::Sqlite => (2, 6),
        Engine::Postgres | Engine::Neo4j | Engine::Redis | Engine::Sqlserver | Engine::Mysql => {
            (15, 50)
        }
    }
}

/// A copy that is guessed at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy<'a> {
    /// The step.
    pub step: &'a str,
    /// How.
    pub backfill: &'a Backfill,
    /// Of what.
    pub mapping: &'a Mapping,
    /// On which product.
    pub engine: Engine,
}

impl Copy<'_> {
    /// How many rows, chunks and how long, in one sentence.
    pub(super) fn says(&self, table: &TableFacts, sample: Option<Sample>) -> String {
        let Some(rows) = &table.rows else {
            return format!("{}: how many rows there are isn't known", self.step);
        };
        let most = if self.mapping.filter.is_some() { "at most " } else { "" };
        let counted =
            format!("{}: {most}{} ({})", self.step, words::plural(rows.rows, "row"), rows.basis);
        if !self.mapping.is_pushdown() {
            return format!(
                "{counted}; how long that takes depends on {}, too, and isn't guessed",
                self.mapping.into.target
            );
        }
        let Some(sample) = sample.filter(|sample| sample.rows > 0 && rows.rows > 0) else {
            return format!("{counted}; there was nothing to time");
        };
        let (least, longest) = times_of_a_read(self.engine);
        let (quick, slow) =
            (self.takes_ms(rows.rows, sample, least), self.takes_ms(rows.rows, sample, longest));
        format!(
            "{counted}, in {}; between {} and {} where nobody is in the way: a read of {} by the key took {}, \
             and copying a row takes {least} to {longest} times as long (docs/performance.md)",
            self.chunks(rows.rows, sample),
            words::duration(quick),
            words::duration(slow),
            words::plural(u64::from(sample.rows), "row"),
            words::duration(sample.took_us.div_ceil(1_000)),
        )
    }

    /// How long all rows take, with the rests between chunks.
    fn takes_ms(&self, rows: u64, sample: Sample, times: u64) -> u64 {
        let read_us = rows.saturating_mul(sample.took_us.max(1)) / u64::from(sample.rows.max(1));
        let chunks = rows.div_ceil(self.chunk_rows(sample, times).max(1));
        let rests = chunks.saturating_mul(self.backfill.pause_between_ms);
        (read_us.saturating_mul(times) / 1_000).saturating_add(rests)
    }

    /// How many rows a chunk holds: as the plan says, or as many as fit into its time.
    fn chunk_rows(&self, sample: Sample, times: u64) -> u64 {
        match self.backfill.chunk_rows {
            ChunkRows::Fixed(rows) => u64::from(rows),
            ChunkRows::Auto => {
                let budget_us = self.backfill.chunk_time_ms.saturating_mul(1_000);
                let row_ns = sample.took_us.saturating_mul(1_000) / u64::from(sample.rows.max(1));
                let rows = budget_us.saturating_mul(1_000) / row_ns.saturating_mul(times).max(1);
                rows.clamp(
                    u64::from(crate::bounds::copying::MIN_ROWS),
                    u64::from(crate::bounds::copying::MAX_ROWS),
                )
            }
        }
    }

    fn chunks(&self, rows: u64, sample: Sample) -> String {
        let (least, longest) = times_of_a_read(self.engine);
        let few = rows.div_ceil(self.chunk_rows(sample, least).max(1));
        let many = rows.div_ceil(self.chunk_rows(sample, longest).max(1));
        if few == many {
            return words::plural(few, "chunk");
        }
        format!("{} to {}", words::count(few), words::plural(many, "chunk"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::driver::probed::Estimate;
    use crate::run::{CopyColumns, OnDelete, OnExisting, Relation, Winner};

    fn mapping() -> Mapping {
        let relation = |table: &str| Relation {
            target: "app".into(),
            table: table.into(),
            key: vec!["id".into()],
            kind: crate::run::RowKind::Table,
        };
        Mapping {
            name: "leads".into(),
            from: relation("leads"),
            into: relation("leads_v2"),
            copy: CopyColumns::All,
            columns: Vec::new(),
            reverse: Vec::new(),
            winner: Winner::New,
            filter: None,
            on_existing: OnExisting::Keep,
            on_delete: OnDelete::Delete,
            parking: crate::run::Parking::default(),
        }
    }

    fn says(chunk_rows: ChunkRows, rows: u64, sample: Option<Sample>) -> String {
        let backfill = Backfill {
            mapping: "leads".into(),
            chunk_rows,
            chunk_time_ms: 100,
            workers: 1,
            pause_between_ms: 10,
            park_max: None,
            throttle: Vec::new(),
            max_throttled_for_ms: None,
        };
        let rows = Some(Estimate { rows, basis: "counted".into() });
        let table = TableFacts { table: "leads".into(), rows, ..TableFacts::default() };
        let engine = Engine::Postgres;
        Copy { step: "copy", backfill: &backfill, mapping: &mapping(), engine }.says(&table, sample)
    }

    #[test]
    fn a_guess_says_what_it_is_made_from() {
        // 2 µs to read a row: 1,000,000 rows take 30 s to 100 s, and 100 rests of 10 ms.
        let sample = Some(Sample { rows: 5_000, took_us: 10_000 });
        let fixed = says(ChunkRows::Fixed(10_000), 1_000_000, sample);
        assert_eq!(
            fixed,
            "copy: 1,000,000 rows (counted), in 100 chunks; between 31.0s and 1m 41s where nobody is in the way: \
             a read of 5,000 rows by the key took 10ms, and copying a row takes 15 to 50 times as long \
             (docs/performance.md)"
        );
        // 100 ms hold 3,333 rows at 30 µs each, 1,000 at 100 µs.
        let auto = says(ChunkRows::Auto, 1_000_000, sample);
        assert!(auto.contains("in 301 to 1,000 chunks; between 33.0s and 1m 50s"), "{auto}");
    }

    #[test]
    fn what_was_not_timed_is_not_guessed() {
        assert_eq!(
            says(ChunkRows::Auto, 0, None),
            "copy: 0 rows (counted); there was nothing to time"
        );
        let huge = says(ChunkRows::Auto, u64::MAX, Some(Sample { rows: 1, took_us: u64::MAX }));
        assert!(huge.contains("chunks"), "{huge}");
    }
}
