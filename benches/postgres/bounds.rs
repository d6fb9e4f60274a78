//! What does not grow with a table: the memory of a run, and its journal.

use std::collections::BTreeMap;

use serde_json::json;

use crate::bed::{Bed, PLAN, Plan, Statistics, run};
use crate::figure::{Figures, Wanted, mib};

/// Memory may be so much more, whichever is more: a share of it in percent, and KiB.
const MORE_PERCENT: u64 = 10;
const MORE_KIB: u64 = 6 * 1024;
/// The most that the journal of a run may take, in KiB, as its state store has it with everything else.
const JOURNAL_KIB_MAX: f64 = 1_024.0;
/// Rows that differ where a comparison is to find many.
const DIFFERING: u64 = 100_000;
const WORKERS: u32 = 4;
/// What a run answers that has found differences.
const DIFFERS: i32 = 7;

/// Half and twice the rows, copied and compared by four workers; and compared where many rows differ.
pub async fn bounds(bed: &Bed, figures: &mut Figures) {
    let plan = Plan { workers: WORKERS, verify_workers: Some(WORKERS), ..PLAN };
    let sizes = [bed.rows / 2, bed.rows * 2];
    let mut peaks: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut journals = Vec::new();
    for rows in sizes {
        let template = bed.template(rows, Statistics::Fresh).await;
        let mut medians: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for round in 0..bed.rounds {
            for differs in [false, true] {
                let database = bed.database(&template).await;
                database.to(plan, "sync");
                medians.entry("copy").or_default().push(database.to(plan, "copy"));
                let (what, code) = if differs {
                    let every = (rows / DIFFERING).max(1);
                    let sql =
                        format!("UPDATE leads_v2 SET status_code = 'other' WHERE id % {every} = 0");
                    run(&mut database.connect().await, &sql).await;
                    ("verify that finds 100,000 differences", DIFFERS)
                } else {
                    ("verify", 0)
                };
                medians.entry(what).or_default().push(database.ends(plan, "compare", code));
                journals.push(database.store_kib());
                database.gone().await;
            }
            eprintln!("bounds, {rows} rows, round {} of {}", round + 1, bed.rounds);
        }
        for (what, mut all) in medians {
            all.sort_unstable();
            peaks.entry(what).or_default().push(all[all.len() / 2]);
        }
    }
    for (what, peaks) in peaks {
        let [few, many] = peaks[..] else { continue };
        let most = few + (few * MORE_PERCENT / 100).max(MORE_KIB);
        let told = format!("memory of a {what}: {} rows beside {}", sizes[1], sizes[0]);
        let made_of = json!({ "peak_kib": peaks });
        let wanted = Wanted::AtMost(mib(most));
        figures.add(("bounds", &told), (mib(many), "MiB"), wanted, &made_of);
    }
    let largest = journals.iter().copied().max().unwrap_or_default();
    let made_of = json!({ "store_kib": journals });
    // Far below what a float holds exactly.
    #[allow(clippy::cast_precision_loss)]
    let measured = (largest as f64, "KiB");
    let told = format!("the state store of a run over {} rows", sizes[1]);
    figures.add(("bounds", &told), measured, Wanted::AtMost(JOURNAL_KIB_MAX), &made_of);
}
