//! Copies and comparisons, beside the least that the same work can cost.

use std::time::Instant;

use serde_json::json;

use crate::bed::{Bed, COLUMNS, Database, PLAN, Plan, Statistics, VALUES, run};
use crate::figure::{Figures, Wanted, median, mib, rounded};

/// The most memory that a run may take, in MiB.
const RSS_MIB_MAX: f64 = 64.0;
/// What memory may grow by from the smallest table to the largest and still count as flat, in MiB.
const RSS_FLAT_MIB: f64 = 8.0;
/// Rows of a chunk where both cases have the same chunks.
const CHUNK_ROWS: u64 = 20_000;

/// Table to table with one worker and with two, against one bare `INSERT … SELECT` of the same expressions. What two bare ones of
/// half the rows each reach says how much a second core is good for.
pub async fn copy(bed: &Bed, figures: &mut Figures) {
    let template = bed.template(bed.rows, Statistics::Fresh).await;
    let (whole, halves) = (
        ["true".to_owned()],
        [format!("id <= {}", bed.rows / 2), format!("id > {}", bed.rows / 2)],
    );
    let (mut bare, mut bare_two) = (Vec::new(), Vec::new());
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for round in 0..bed.rounds {
        for side in 0..4 {
            // Whoever is first in one round is not in the next.
            match (side + round) % 4 {
                0 => bare.push(bare_copy(bed, &template, &whole).await),
                3 => bare_two.push(bare_copy(bed, &template, &halves).await),
                1 => one.push(our_copy(bed, (&template, bed.rows), PLAN, figures).await),
                _ => {
                    let plan = Plan { workers: 2, ..PLAN };
                    two.push(our_copy(bed, (&template, bed.rows), plan, figures).await);
                }
            }
        }
        eprintln!("copy, round {} of {}", round + 1, bed.rounds);
    }
    let what = "table to table, 1 worker, against one bare INSERT … SELECT";
    let (ratio, made_of) = compare(&bare, &one);
    figures.add(("copy", what), (ratio, "of its speed"), Wanted::AtLeast(0.85), &made_of);
    let what = "the same with 2 workers";
    let (ratio, made_of) = compare(&bare, &two);
    figures.add(("copy", what), (ratio, "of its speed"), Wanted::AtLeast(1.25), &made_of);
    let what = "two bare INSERT … SELECT of half the rows each, at once";
    let (ratio, made_of) = compare(&bare, &bare_two);
    figures.add(("copy", what), (ratio, "of its speed"), Wanted::Nothing, &made_of);
}

/// What a side took: on the wall, and of the server's cores, in seconds.
#[derive(Clone, Copy)]
struct Took {
    wall_s: f64,
    cores_s: f64,
}

/// A ratio of medians, with what it was made of.
fn compare(bare: &[Took], ours: &[Took]) -> (f64, serde_json::Value) {
    let wall = |side: &[Took]| side.iter().map(|took| took.wall_s).collect::<Vec<_>>();
    let cores = |side: &[Took]| side.iter().map(|took| took.cores_s).collect::<Vec<_>>();
    let cores_ratio = median(&cores(bare)) / median(&cores(ours));
    let made_of = json!({
        "bare_s": rounded(&wall(bare)), "ours_s": rounded(&wall(ours)),
        "bare_server_cores_s": rounded(&cores(bare)), "ours_server_cores_s": rounded(&cores(ours)),
        "ratio_of_server_cores": rounded(&[cores_ratio])[0],
    });
    (median(&wall(bare)) / median(&wall(ours)), made_of)
}

/// One statement for each condition, all at once.
async fn bare_copy(bed: &Bed, template: &str, conditions: &[String]) -> Took {
    let database = bed.database(template).await;
    let mut clients = Vec::new();
    for _ in conditions {
        clients.push(database.connect().await);
    }
    let cores_s = bed.cores_s();
    let began = Instant::now();
    let mut copies = tokio::task::JoinSet::new();
    for (mut client, condition) in clients.into_iter().zip(conditions) {
        let sql = format!(
            "INSERT INTO leads_v2 ({COLUMNS}) SELECT {VALUES} FROM leads WHERE {condition}"
        );
        copies.spawn(async move { run(&mut client, &sql).await });
    }
    copies.join_all().await;
    let took = Took { wall_s: began.elapsed().as_secs_f64(), cores_s: bed.cores_s() - cores_s };
    database.gone().await;
    took
}

async fn our_copy(
    bed: &Bed,
    (template, rows): (&str, u64),
    plan: Plan,
    figures: &mut Figures,
) -> Took {
    let database = bed.database(template).await;
    database.to(plan, "sync");
    let took = our_copy_of(bed, &database, (plan, rows), figures);
    database.gone().await;
    took
}

fn our_copy_of(
    bed: &Bed,
    database: &Database<'_>,
    (plan, rows): (Plan, u64),
    figures: &mut Figures,
) -> Took {
    let cores_s = bed.cores_s();
    figures.peaks.push((rows, database.to(plan, "copy")));
    Took { wall_s: database.seconds("copy"), cores_s: bed.cores_s() - cores_s }
}

/// What fence, ledger and checkpoints add to the same chunks.
pub async fn ledger(bed: &Bed, figures: &mut Figures) {
    let template = bed.template(bed.rows, Statistics::Fresh).await;
    let plan = Plan { chunk_rows: "20000", ..PLAN };
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 0..bed.rounds {
        for side in 0..2 {
            if (side + round) % 2 == 0 {
                let database = bed.database(&template).await;
                let insert = |lo, hi| {
                    format!(
                        "INSERT INTO leads_v2 ({COLUMNS}) SELECT {VALUES} FROM leads
                         WHERE id > {lo} AND id <= {hi} ORDER BY id FOR KEY SHARE"
                    )
                };
                bare.push(bare_chunks(bed, &database, insert).await);
                database.gone().await;
            } else {
                ours.push(our_copy(bed, (&template, bed.rows), plan, figures).await);
            }
        }
        eprintln!("ledger, round {} of {}", round + 1, bed.rounds);
    }
    let (ratio, made_of) = compare(&bare, &ours);
    let percent = (1.0 / ratio - 1.0) * 100.0;
    let what = "ledger, fence and checkpoints, against the same chunks without";
    figures.add(("ledger", what), (percent, "% more time"), Wanted::AtMost(5.0), &made_of);
}

/// Seconds for chunks of a statement, each in a transaction, whose bounds are known. Their commits don't wait for the disk, as
/// ours don't.
async fn bare_chunks(
    bed: &Bed,
    database: &Database<'_>,
    statement: impl Fn(u64, u64) -> String,
) -> Took {
    let mut client = database.connect().await;
    run(&mut client, "SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off").await;
    run(&mut client, "SET synchronous_commit = off").await;
    let rows = rows_of(database).await.unwrap_or(bed.rows);
    let cores_s = bed.cores_s();
    let began = Instant::now();
    let mut lo = 0;
    while lo < rows {
        let hi = lo + CHUNK_ROWS;
        run(&mut client, &statement(lo, hi)).await;
        lo = hi;
    }
    Took { wall_s: began.elapsed().as_secs_f64(), cores_s: bed.cores_s() - cores_s }
}

/// How many rows a database's template says that it has.
async fn rows_of(database: &Database<'_>) -> Option<u64> {
    let mut client = database.connect().await;
    let row = sqlx::query("SELECT max(id) FROM leads").fetch_one(&mut client).await.unwrap();
    let rows: Option<i64> = sqlx::Row::get(&row, 0);
    rows.map(i64::unsigned_abs)
}

/// In place, against a bare chunked UPDATE of the same table with the trigger present.
pub async fn in_place(bed: &Bed, figures: &mut Figures) {
    let rows = bed.rows / 2;
    let template = bed.template(rows, Statistics::Fresh).await;
    let plan = Plan { in_place: true, ..PLAN };
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 0..bed.rounds {
        for side in 0..2 {
            let database = bed.database(&template).await;
            database.to(plan, "sync");
            if (side + round) % 2 == 0 {
                let update = |lo, hi| {
                    format!(
                        "UPDATE leads SET status_code = lower(status) WHERE id > {lo} AND id <= {hi}"
                    )
                };
                bare.push(bare_chunks(bed, &database, update).await);
            } else {
                ours.push(our_copy_of(bed, &database, (plan, rows), figures));
            }
            database.gone().await;
        }
        eprintln!("in place, round {} of {}", round + 1, bed.rounds);
    }
    let (ratio, made_of) = compare(&bare, &ours);
    let what = "in place, 1 worker, against a bare chunked UPDATE with the trigger present";
    figures.add(("in-place", what), (ratio, "of its speed"), Wanted::AtLeast(0.9), &made_of);
}

/// A full verify against the time of the copy.
pub async fn verify(bed: &Bed, figures: &mut Figures) {
    let template = bed.template(bed.rows, Statistics::Fresh).await;
    let mut shares = [Vec::new(), Vec::new()];
    let mut seconds = [Vec::new(), Vec::new()];
    for round in 0..bed.rounds {
        // Whoever is first in one round is not in the next.
        let order = if round % 2 == 0 { [(0, 1), (1, 2)] } else { [(1, 2), (0, 1)] };
        for (at, workers) in order {
            let plan = Plan { verify_workers: Some(workers), ..PLAN };
            let database = bed.database(&template).await;
            database.to(plan, "sync");
            figures.peaks.push((bed.rows, database.to(plan, "copy")));
            figures.peaks.push((bed.rows, database.to(plan, "compare")));
            let (copied, compared) = (database.seconds("copy"), database.seconds("compare"));
            shares[at].push(compared / copied * 100.0);
            seconds[at].push((copied, compared));
            database.gone().await;
        }
        eprintln!("verify, round {}: {seconds:.2?}", round + 1);
    }
    for (at, (workers, wanted)) in [(1, 40.0), (2, 25.0)].into_iter().enumerate() {
        let what =
            format!("full verify of both cases, {workers} worker(s), against the copy's time");
        let made_of = json!({ "copy_and_verify_s": seconds[at] });
        let share = median(&shares[at]);
        figures.add(("verify", &what), (share, "%"), Wanted::AtMost(wanted), &made_of);
    }
}

/// Rows per second whatever the table's size, with and without statistics.
pub async fn scale(bed: &Bed, figures: &mut Figures) {
    let sizes = [bed.rows / 20, bed.rows / 2, bed.rows * 2];
    let cases: Vec<(u64, Statistics)> = sizes
        .iter()
        .flat_map(|rows| [(*rows, Statistics::Fresh), (*rows, Statistics::None)])
        .collect();
    let mut rates = vec![Vec::new(); cases.len()];
    for round in 0..bed.rounds {
        for (at, (rows, statistics)) in cases.iter().enumerate() {
            let template = bed.template(*rows, *statistics).await;
            let seconds = our_copy(bed, (&template, *rows), PLAN, figures).await.wall_s;
            // Rows of a table, far below what a float holds exactly.
            #[allow(clippy::cast_precision_loss)]
            rates[at].push(*rows as f64 / seconds);
        }
        eprintln!("scale, round {}: {rates:.0?}", round + 1);
    }
    let medians: Vec<f64> = rates.iter().map(|rates| median(rates)).collect();
    let slowest = medians.iter().copied().fold(f64::INFINITY, f64::min);
    let fastest = medians.iter().copied().fold(0.0, f64::max);
    let rows_per_s: Vec<_> = cases
        .iter()
        .zip(&medians)
        .map(|((rows, statistics), rate)| json!([rows, format!("{statistics:?}"), rate.round()]))
        .collect();
    let what = "rows per second, slowest against fastest, over sizes, with and without ANALYZE";
    let slowest = (1.0 - slowest / fastest) * 100.0;
    let made_of = json!({ "rows_per_s": rows_per_s });
    figures.add(("scale", what), (slowest, "% less"), Wanted::AtMost(20.0), &made_of);
}

/// The most memory that any run took, of those that were measured.
pub fn rss(figures: &mut Figures) {
    let peaks: std::collections::BTreeMap<u64, f64> =
        figures.peaks.iter().fold(std::collections::BTreeMap::new(), |mut peaks, (rows, kib)| {
            let peak = peaks.entry(*rows).or_insert(0.0_f64);
            *peak = peak.max(mib(*kib));
            peaks
        });
    let most = peaks.values().copied().fold(0.0, f64::max);
    let made_of = json!({ "peak_mib_by_rows": peaks });
    let what = "the most memory of any run that was measured here";
    figures.add(("rss", what), (most, "MiB"), Wanted::AtMost(RSS_MIB_MAX), &made_of);
    if let (Some((fewest, small)), Some((rows, large))) =
        (peaks.first_key_value(), peaks.last_key_value())
        && fewest < rows
    {
        let what = format!("memory that {rows} rows take beyond {fewest} rows");
        let made_of = json!({ "peak_mib": [small, large] });
        figures.add(("rss", &what), (large - small, "MiB"), Wanted::AtMost(RSS_FLAT_MIB), &made_of);
    }
}
