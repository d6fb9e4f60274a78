//! Several workers, one of which can't get on.

use super::{Bed, MOVE};

/// How far chunks may be copied beyond the first that is not: four for each of four workers, itself included.
const AHEAD: i64 = 16;
/// The chunk that is held up, of two rows each.
const HELD: i64 = 10;

#[test]
fn a_chunk_that_is_held_up_bounds_the_others_and_a_resume_skips_what_went_past_it() {
    let plan = MOVE.replace("rows: 20", "rows: 2");
    let Some(bed) = Bed::new("a straggler", &plan) else { return };
    bed.phasegate(&["run", "plan.yaml", "--to", "sync"]).expect(0);
    let mut client = bed.client(&bed.name);
    bed.on(&mut client, "BEGIN; DELETE FROM public.leads WHERE id = 20");
    let mut run = bed.sandbox.command(&["run", "plan.yaml", "--to", "copy"]);
    let mut run = run.env("APP_URL", bed.app()).spawn().unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'phasegate%' AND wait_event_type = 'Lock'";
    let copied = "SELECT count(*) FROM public.leads_v2";
    let all = 2 * (HELD - 1 + AHEAD - 1);
    bed.until("SELECT count(*) FROM pg_class WHERE relname = 'leads_v2'");
    bed.until(&format!("SELECT (({copied}) = {all})::int"));
    // It is tried again twice, and nobody goes further meanwhile.
    for _ in 0..2 {
        bed.until(waits);
        bed.until(&format!("SELECT (({waits}) = 0)::int"));
    }
    assert_eq!(bed.number(copied), all);
    let chunks = bed.number("SELECT count(*) FROM phasegate.chunks");
    // Those ahead, and what is planned behind them: a window of eight for each worker, and one more for each.
    assert!(chunks <= AHEAD + 4 * 8 + 4, "the ledger has {chunks} chunks");
    run.kill().unwrap();
    run.wait().unwrap();

    bed.on(&mut client, "ROLLBACK");
    let past = format!("SELECT count(*) FROM phasegate.chunks WHERE committed AND seq > {HELD}");
    assert_eq!(bed.number(&past), AHEAD - 1);
    // If its chunk were copied again, this row would be there again.
    bed.run("DELETE FROM public.leads_v2 WHERE id = 25");
    bed.phasegate(&["run", "plan.yaml", "--to", "copy"]).expect(0);
    assert_eq!(bed.number(copied), 399);
    assert_eq!(bed.number("SELECT count(*) FROM public.leads_v2 WHERE id = 20"), 1);
    let detail = bed.number("SELECT rows FROM phasegate.steps WHERE step = 'copy'");
    assert_eq!(detail, 400, "every row is counted once");
}
