//! How long a plan of 1,000 steps takes to validate, and how many times a bare YAML parse of the same text that is.
//!
//! The promise is 50 ms in release. `cargo bench --bench validate` fails if it is broken.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use phasegate::plan::{self, DEFAULT_ENVIRONMENT};
use phasegate::run::EnvironmentName;

/// Mappings of the plan, with seven steps each.
const MAPPINGS: usize = 143;

/// The promise.
const MOST: Duration = Duration::from_millis(50);

const ROUNDS: usize = 41;

fn main() {
    let text = generated(MAPPINGS);
    let steps = text.matches("  - id: ").count();
    let parse = best(|| drop(black_box(serde_yaml::from_str::<serde_yaml::Value>(&text).unwrap())));
    let validate = best(|| drop(black_box(validate(&text))));
    println!(
        "{steps} steps, {} KiB: validated in {:.1} ms, {:.1} times a bare parse ({:.1} ms)",
        text.len() / 1024,
        validate.as_secs_f64() * 1e3,
        validate.as_secs_f64() / parse.as_secs_f64(),
        parse.as_secs_f64() * 1e3,
    );
    let twice = generated(MAPPINGS * 2);
    let longer = best(|| drop(black_box(self::validate(&twice))));
    println!(
        "twice the steps: {:.1} ms, {:.2} times as long",
        longer.as_secs_f64() * 1e3,
        longer.as_secs_f64() / validate.as_secs_f64()
    );
    assert!(validate <= MOST, "a plan of {steps} steps must validate in {MOST:?}");
}

fn validate(text: &str) -> plan::Loaded {
    let environment = EnvironmentName::new(DEFAULT_ENVIRONMENT);
    let loaded = plan::parse(Path::new("generated.yaml"), text.into(), None, &environment);
    loaded.unwrap_or_else(|findings| panic!("{findings}"))
}

/// The best of many rounds: on a machine that others use too, only that says what the work itself takes.
fn best(mut work: impl FnMut()) -> Duration {
    let round = |_| {
        let began = Instant::now();
        work();
        began.elapsed()
    };
    (0..ROUNDS).map(round).min().unwrap_or_default()
}

/// A plan that moves so many tables: every kind of step, half of them side by side.
fn generated(mappings: usize) -> String {
    let mut plan = "apiVersion: phasegate/v1\nkind: Plan\nmetadata:\n  name: generated\ntargets:\n  app:\n    engine: sqlite\n    url: sqlite://app.db\nmappings:\n".to_owned();
    for at in 0..mappings {
        write!(
            plan,
            "  t{at}:\n    from: {{ target: app, table: t{at}, key: [id] }}\n    into: {{ target: app, table: t{at}_v2 }}\n    columns:\n      email: lower(trim(email))\n      status: CASE status WHEN 'A' THEN 'active' ELSE 'closed' END\n"
        )
        .unwrap();
    }
    plan.push_str("steps:\n");
    for at in 0..mappings {
        write!(
            plan,
            "  - id: create-{at}\n    phase: expand\n    needs: []\n    description: The new shape of t{at}\n    sql: |\n      CREATE TABLE t{at}_v2 (id INTEGER PRIMARY KEY, email TEXT CHECK (email = lower(email)), status TEXT);\n      CREATE INDEX t{at}_v2_email ON t{at}_v2 (email);\n    undo:\n      sql: DROP TABLE t{at}_v2\n"
        )
        .unwrap();
    }
    for at in 0..mappings {
        write!(plan, "  - id: sync-{at}\n    phase: dual-write\n    needs: [create-{at}]\n    dual_write:\n      mapping: t{at}\n      direction: forward\n").unwrap();
    }
    for at in 0..mappings {
        write!(plan, "  - id: copy-{at}\n    phase: backfill\n    needs: [sync-{at}]\n    backfill:\n      mapping: t{at}\n      chunk: {{ rows: auto, time: 50ms }}\n").unwrap();
    }
    for at in 0..mappings {
        write!(plan, "  - id: compare-{at}\n    phase: verify\n    needs: [copy-{at}]\n    verify:\n      mapping: t{at}\n      method: full\n").unwrap();
    }
    for at in 0..mappings {
        write!(
            plan,
            "  - id: ready-{at}\n    phase: contract\n    needs: [compare-{at}]\n    gate:\n      approvals:\n        - group: dba\n          count: 1\n      verified_within: 1h\n      soak: {{ after: compare-{at}, for: 24h }}\n  - id: retire-{at}\n    phase: contract\n    retire: {{ mapping: t{at}, old_name: t{at}_old, take_name: true }}\n  - id: drop-{at}\n    phase: contract\n    drop: {{ mapping: t{at} }}\n    irreversible: every row lives on in the new table\n"
        )
        .unwrap();
    }
    plan
}
