//! What clients notice: of the sync's trigger, and of a copy that goes on beside them.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::PgConnection;

use crate::bed::{Bed, PLAN, Plan, Statistics, run};
use crate::client::{Clients, Random, percentile, update};
use crate::figure::{Figures, Wanted, median, rounded};

/// Rows that a client updates in each part of a round.
const UPDATES: u32 = 2_000;
/// How long clients write alone, to see how long their writes take then.
const BASELINE: Duration = Duration::from_secs(5);

/// A client's single-row update with the sync's trigger against one without.
///
/// The client does not wait for the disk (`synchronous_commit = off`): that wait is the same on both sides and would hide what the
/// trigger costs.
pub async fn trigger(bed: &Bed, figures: &mut Figures) {
    let rows = bed.rows / 20;
    let template = bed.template(rows, Statistics::Fresh).await;
    let database = bed.database(&template).await;
    database.to(PLAN, "copy");
    let mut client = database.connect().await;
    run(&mut client, "VACUUM ANALYZE").await;
    run(&mut client, "SET synchronous_commit = off").await;
    let mut random = Random(1);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..bed.rounds * 2 {
        for side in 0..2 {
            if (side + round) % 2 == 0 {
                run(&mut client, "ALTER TABLE leads ENABLE TRIGGER USER").await;
                with.push(updates(&mut client, rows, &mut random).await);
            } else {
                run(&mut client, "ALTER TABLE leads DISABLE TRIGGER USER").await;
                without.push(updates(&mut client, rows, &mut random).await);
            }
        }
    }
    drop(client);
    database.gone().await;
    let times = median(&with) / median(&without);
    let made_of = json!({ "with_us": rounded(&with), "without_us": rounded(&without) });
    let what = "a client's single-row update with the sync's trigger, against one without";
    figures.add(("trigger", what), (times, "times its time"), Wanted::AtMost(2.5), &made_of);
}

/// Microseconds that an update takes.
async fn updates(client: &mut PgConnection, rows: u64, random: &mut Random) -> f64 {
    for _ in 0..UPDATES / 10 {
        update(client, random.below(rows) + 1).await;
    }
    let began = Instant::now();
    for _ in 0..UPDATES {
        update(client, random.below(rows) + 1).await;
    }
    began.elapsed().as_secs_f64() * 1e6 / f64::from(UPDATES)
}

/// How long clients' writes take during a backfill, for several chunk times and workers.
pub async fn stall(bed: &Bed, figures: &mut Figures) {
    let template = bed.template(bed.rows, Statistics::Fresh).await;
    for (chunk_ms, workers) in [(25, 1), (100, 1), (400, 1), (100, 2), (100, 4)] {
        let plan = Plan { chunk_ms, workers, ..PLAN };
        let (mut beyond, mut seen) = (Vec::new(), Vec::new());
        for _ in 0..bed.rounds {
            let database = bed.database(&template).await;
            database.to(plan, "sync");
            let clients = Clients::start(&database.url, bed.rows);
            tokio::time::sleep(BASELINE).await;
            let alone = clients.end().await;
            let clients = Clients::start(&database.url, bed.rows);
            figures
                .peaks
                .push((bed.rows, tokio::task::block_in_place(|| database.to(plan, "copy"))));
            let beside = clients.end().await;
            beyond.push(percentile(&beside, 100) - percentile(&alone, 100));
            let of = |sorted: &[f64]| rounded(&[50, 99, 100].map(|p| percentile(sorted, p)));
            seen.push(
                json!({ "alone_ms": of(&alone), "beside_ms": of(&beside), "writes": beside.len(),
                "copy_s": database.seconds("copy") }),
            );
            database.gone().await;
        }
        eprintln!("stall, chunks of {chunk_ms} ms, {workers} worker(s): {beyond:.1?}");
        let what = format!(
            "a client's longest write beside the copy (chunks of {chunk_ms} ms, {workers} worker(s)), beyond its longest alone"
        );
        let most = Duration::from_millis(2 * chunk_ms).as_secs_f64() * 1_000.0;
        let made_of = json!({ "p50_p99_max": seen });
        // The longest of all rounds: a stall in one of them is one.
        let longest = beyond.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        figures.add(("stall", &what), (longest, "ms"), Wanted::AtMost(most), &made_of);
    }
}
