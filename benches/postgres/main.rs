//! What PostgreSQL's copy, verify and sync cost, each beside the least that the same work can cost.
//!
//! `cargo bench --bench postgres` starts a server of its own, set up as one is in production ([`bed::SETTINGS`], which are
//! printed), and measures every case; `cargo bench --bench postgres -- copy verify` measures those. Ours is what a run does: the
//! binary carries a plan, journal and lease included, and a step's time is the journal's. Rounds of both sides take turns, each on
//! a fresh copy of one database, and medians are compared, so that neither has the warmer cache or the quieter minute.
//!
//! `--json` prints one document instead of lines. `PHASEGATE_BENCH_ROWS` (2000000) and `PHASEGATE_BENCH_ROUNDS` (5) change what is
//! measured. A figure that misses what is wanted is printed as missed; the exit code is 0 all the same, since a bench measures and
//! does not judge.
//!
//! Absent on purpose: absolute times as a promise. They are printed, and hold for the machine that printed them.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod bed;
mod bounds;
mod client;
mod copies;
mod figure;
mod live;

use figure::Figures;

/// What can be measured, by name.
const CASES: [&str; 9] =
    ["copy", "ledger", "in-place", "verify", "trigger", "stall", "scale", "bounds", "rss"];

#[tokio::main]
async fn main() {
    let mut names = Vec::new();
    let mut is_json = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            // Cargo says it to every bench.
            "--bench" => {}
            "--json" => is_json = true,
            name if CASES.contains(&name) => names.push(name.to_owned()),
            other => {
                eprintln!("no case is called {other}; there are: {}", CASES.join(", "));
                std::process::exit(64);
            }
        }
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|known| known == name);
    let bed = bed::Bed::start().await;
    let mut figures = Figures::new(&bed, is_json);
    if wanted("copy") || wanted("rss") {
        copies::copy(&bed, &mut figures).await;
    }
    if wanted("ledger") {
        copies::ledger(&bed, &mut figures).await;
    }
    if wanted("in-place") {
        copies::in_place(&bed, &mut figures).await;
    }
    if wanted("verify") {
        copies::verify(&bed, &mut figures).await;
    }
    if wanted("trigger") {
        live::trigger(&bed, &mut figures).await;
    }
    if wanted("stall") {
        live::stall(&bed, &mut figures).await;
    }
    if wanted("scale") {
        copies::scale(&bed, &mut figures).await;
    }
    if wanted("bounds") {
        bounds::bounds(&bed, &mut figures).await;
    }
    if wanted("rss") {
        copies::rss(&mut figures);
    }
    figures.end();
}
