//! A copy that is paused, resumed and tuned while it runs: what is under way finishes, and the next chunk is already otherwise.
//!
//! A function in the mapping lets rows through up to the number that a sequence holds, so that a test says which chunk may end;
//! nothing here depends on how long anything takes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr};

use super::{Bed, MOVE, mentions};

/// Waits in the row that comes next, and not for a lock, which it would give up.
const PACED: &str = "
    CREATE SEQUENCE public.allowed MINVALUE 0;
    CREATE FUNCTION public.paced(id int, email text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
    BEGIN
        LOOP
            EXIT WHEN (SELECT last_value FROM public.allowed) >= id;
            PERFORM pg_sleep(0.02);
        END LOOP;
        RETURN email;
    END $$;";

const UNDER_WAY: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event = 'PgSleep' AND application_name LIKE 'phasegate %'";

/// A process that drives a run, and what it says.
struct Driver {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Driver {
    fn of(bed: &Bed, args: &[&str]) -> Self {
        let mut child = bed.spawn(args);
        let said = BufReader::new(child.stderr.take().unwrap());
        Self { child, said }
    }

    /// Reads on until a line has these words in it: whoever says it has taken up what it says.
    #[track_caller]
    fn until_said(&mut self, words: &str) {
        let mut line = String::new();
        while self.said.read_line(&mut line).unwrap() > 0 {
            if line.contains(words) {
                return;
            }
            line.clear();
        }
        panic!("it ended without saying {words:?}");
    }

    #[track_caller]
    fn ended(mut self, code: i32) {
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(code), "{rest}");
    }
}

impl Drop for Driver {
    /// It would wait for ever where a test has failed.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bed {
    fn paced(test: &str, backfill: &str) -> Option<Self> {
        let plan = MOVE
            .replace(
                "table: leads_v2 }\n",
                "table: leads_v2 }\n    columns:\n      email: paced(id, email)\n",
            )
            .replace("      workers: 4\n      chunk: { rows: 20 }\n", backfill);
        let bed = Self::new(test, &plan)?;
        bed.run(PACED);
        bed.run(&format!("GRANT SELECT ON public.allowed TO {}", bed.name));
        Some(bed)
    }

    fn allow(&self, id: i64) {
        self.run(&format!("SELECT setval('public.allowed', {id})"));
    }

    /// How many chunks are under way, each of which waits for a row.
    fn under_way(&self) -> i64 {
        self.number(UNDER_WAY)
    }

    fn until_under_way(&self, chunks: i64) {
        self.until(&format!("SELECT (({UNDER_WAY}) = {chunks})::int"));
    }

    fn rows(&self) -> i64 {
        self.number("SELECT count(*) FROM leads_v2")
    }

    /// Waits until all rows up to a key are copied, and one chunk behind it is under way; gives the last key of that one.
    fn next_chunk_behind(&self, id: i64) -> i64 {
        self.until(&format!("SELECT (count(*) = {id})::int FROM leads_v2"));
        self.until_under_way(1);
        self.number(&format!(
            "SELECT coalesce((SELECT (hi::jsonb -> 0 ->> 'integer')::int FROM phasegate.chunks
             WHERE (lo::jsonb -> 0 ->> 'integer')::int = {id}), 0)"
        ))
    }
}

#[test]
fn a_pause_lets_the_chunks_under_way_finish_and_begins_none() {
    let backfill = "      workers: 2\n      chunk: { rows: 20 }\n";
    let Some(bed) = Bed::paced("a pause while chunks run", backfill) else { return };
    let mut run = Driver::of(&bed, &["run", "plan.yaml"]);
    bed.until("SELECT count(*) FROM pg_class WHERE relname = 'leads_v2'");
    bed.until_under_way(2);
    bed.phasegate(&["pause", "leads", "--reason", "lunch", "--as", "ana"]).expect(0);
    run.until_said("paused lunch");
    bed.allow(400);
    run.ended(8);
    assert_eq!(bed.rows(), 40, "what was under way, and nothing more");
    assert_eq!(bed.copy()["rows_done"], 40);
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'phasegate %'
        AND datname = current_database()";
    assert_eq!(bed.number(open), 0, "a session outlived the pause");
    // As long as it is paused nothing goes on but by `resume`.
    bed.phasegate(&["run", "plan.yaml"]).expect(8);
    assert_eq!(bed.rows(), 40);

    // If a chunk were copied again, this row would be there again.
    bed.run("DELETE FROM leads_v2 WHERE id = 7");
    bed.phasegate(&["resume", "leads", "--to", "copy", "--as", "ben"]).expect(0);
    assert_eq!(bed.rows(), 399);
    assert_eq!(bed.copy()["rows_done"], 400, "every row is counted once");
    let history = bed.phasegate(&["history", "leads"]).expect(0);
    mentions(&history, &["ana", "paused the run: lunch", "ben", "resumed the run"]);
}

#[test]
fn workers_and_sizes_are_otherwise_with_the_next_chunk() {
    let backfill = "      workers: 1\n      chunk: { rows: 20, time: 100ms }\n";
    let Some(bed) = Bed::paced("tuned chunk by chunk", backfill) else { return };
    let mut run = Driver::of(&bed, &["run", "plan.yaml", "--to", "copy"]);
    bed.until("SELECT count(*) FROM pg_class WHERE relname = 'leads_v2'");
    bed.until_under_way(1);
    let first = "SELECT (hi::jsonb -> 0 ->> 'integer')::int FROM phasegate.chunks WHERE lo IS NULL";
    assert_eq!(bed.number(first), 20);
    let mut tune = |settings: &[&str], words: &str| {
        bed.phasegate(&[&["tune", "leads"][..], settings].concat()).expect(0);
        run.until_said(&format!("tuned copy: {words}"));
    };
    // More workers begin at once, beside the chunk that is under way.
    tune(&["--workers", "3"], "3 workers");
    bed.until_under_way(3);
    // Fewer: those under way finish, and then there is one.
    tune(&["--workers", "1"], "1 worker");
    bed.allow(60);
    assert_eq!(bed.next_chunk_behind(60), 80);
    for _ in 0..5 {
        assert!(bed.under_way() <= 1);
    }
    // What was planned for 20 rows each is planned anew.
    tune(&["--chunk-rows", "7"], "chunks of 7 rows");
    bed.allow(80);
    assert_eq!(bed.next_chunk_behind(80), 87);
    tune(&["--chunk-rows", "auto"], "chunks of automatic size");
    bed.allow(87);
    assert_eq!(bed.next_chunk_behind(87), 287, "200 rows, as long as nobody knows better");
    // A tenth of the time is a tenth of the rows, at once.
    tune(&["--chunk-time", "10ms"], "chunks of 10ms");
    bed.allow(287);
    assert_eq!(bed.next_chunk_behind(287), 307);
    tune(&["--chunk-rows", "40", "--workers", "2"], "2 workers, chunks of 40 rows");
    bed.until_under_way(2);
    let second = "SELECT (hi::jsonb -> 0 ->> 'integer')::int FROM phasegate.chunks
        WHERE (lo::jsonb -> 0 ->> 'integer')::int = 307";
    assert_eq!(bed.number(second), 347);
    let tuning = bed.copy()["tuning"].clone();
    assert_eq!(
        (&tuning["workers"], &tuning["chunk_rows"], &tuning["chunk_time_ms"]),
        (&2.into(), &40.into(), &10.into()),
        "{tuning}"
    );
    bed.allow(400);
    run.ended(0);
    assert_eq!(bed.rows(), 400);
    assert_eq!(bed.copy()["rows_done"], 400);
    let history = bed.phasegate(&["history", "leads"]).expect(0);
    for words in ["3 workers", "chunks of 7 rows", "chunks of automatic size", "chunks of 10ms"] {
        mentions(&history, &[&format!("copy: tuned: {words}")]);
    }
}

#[test]
fn what_is_tuned_while_nobody_drives_holds_from_the_first_chunk_on() {
    let backfill = "      workers: 1\n      chunk: { rows: 20 }\n";
    let Some(bed) = Bed::paced("tuned while paused", backfill) else { return };
    let mut run = Driver::of(&bed, &["run", "plan.yaml"]);
    bed.until("SELECT count(*) FROM pg_class WHERE relname = 'leads_v2'");
    bed.until_under_way(1);
    bed.phasegate(&["pause", "leads"]).expect(0);
    run.until_said("paused");
    bed.allow(20);
    run.ended(8);
    let planned = "SELECT count(*) FROM phasegate.chunks WHERE NOT committed";
    assert!(bed.number(planned) > 0, "nothing was planned ahead, which is what this is about");
    bed.phasegate(&["tune", "leads", "--chunk-rows", "5", "--workers", "2"]).expect(0);
    let run = Driver::of(&bed, &["resume", "leads", "--to", "copy"]);
    bed.until_under_way(2);
    let sizes = "SELECT count(*) FROM phasegate.chunks WHERE NOT committed
        AND (hi::jsonb -> 0 ->> 'integer')::int - (lo::jsonb -> 0 ->> 'integer')::int <> 5";
    assert_eq!(bed.number(sizes), 0);
    bed.allow(400);
    run.ended(0);
    assert_eq!(bed.rows(), 400);
}
