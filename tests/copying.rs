//! Tables of every kind of key and shape, moved and changed in place through the binary on a real server, while a client
//! writes to each of them and to a twin that nothing of ours touches.
//!
//! What is there at the end is held against the twins by SQL that has nothing of the program's.

use std::fmt::Write as _;

use crate::examples::database::Database;
use crate::sandbox::{Ran, Sandbox};
use crate::services;

mod cases;
mod client;

use cases::{Case, FOLLOWED_SHAPES, IN_PLACE, KEYS, SHAPES};
use client::Client;

/// Rows of each table.
const ROWS: u32 = 300;

/// What every case may need.
const BEFORE: &str = "CREATE SCHEMA kept; CREATE SCHEMA \"Else.Where\"; CREATE EXTENSION citext;
    CREATE TYPE mood AS ENUM ('sad', 'glad', 'mad');
    CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);";

const HEAD: &str = "apiVersion: phasegate/v1
kind: Plan
metadata: { name: matrix }
targets:
  app:
    engine: postgres
    url: \"${env:APP_URL}\"
mappings:
";

/// Whether what a case maps is another table, or columns of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tables { both: bool },
    InPlace { both: bool },
}

/// Copied one way.
const COPIED: Kind = Kind::Tables { both: false };
/// Kept in step both ways.
const FOLLOWED: Kind = Kind::Tables { both: true };

/// A database with the tables of some cases and their twins, and a plan over all of them.
struct Bed {
    database: Database,
    sandbox: Sandbox,
    cases: &'static [Case],
}

impl Bed {
    fn new(test: &str, cases: &'static [Case], kind: Kind) -> Option<Self> {
        let server = services::postgres(test)?;
        let mut setup = BEFORE.to_owned();
        for case in cases {
            setup.push_str(&case.setup(ROWS));
        }
        let database = Database::on(&server, &setup);
        let sandbox = Sandbox::new();
        sandbox.write("plan.yaml", &plan(cases, kind));
        Some(Self { database, sandbox, cases })
    }

    fn phasegate(&self, args: &[&str]) -> Ran {
        self.sandbox.run_with(args, "APP_URL", &self.database.url)
    }

    /// Every table has exactly what its twin has, as the mapping makes it where `moved`.
    #[track_caller]
    fn check(&self, moved: bool) {
        let mut differ = Vec::new();
        for case in self.cases {
            let (twin, now) = if moved { case.compared() } else { case.compared_unmoved() };
            let both = format!(
                "SELECT count(*) FROM (({twin} EXCEPT ALL {now}) UNION ALL ({now} EXCEPT ALL {twin})) AS d"
            );
            let count = self.database.value(&both);
            if count != "0" {
                differ.push(format!("{}: {count}", case.id));
            }
            assert_ne!(self.database.value(&format!("SELECT count(*) FROM ({now}) AS n")), "0");
        }
        assert!(differ.is_empty(), "rows unlike their twins': {differ:?}");
        assert_eq!(self.database.ours(), ["phasegate.runs"]);
    }
}

/// A plan that moves every case from the first step to the last.
fn plan(cases: &[Case], kind: Kind) -> String {
    let mut text = HEAD.to_owned();
    for case in cases {
        text.push_str(&case.mapping(kind));
    }
    text.push_str("steps:\n");
    let mut all = |steps: &dyn Fn(&Case) -> String| {
        for case in cases {
            text.push_str(&steps(case));
        }
    };
    all(&|case| case.expand(kind));
    let (Kind::Tables { both } | Kind::InPlace { both }) = kind;
    // What has no way back goes one way.
    let is_both = |case: &Case| both && !case.wide.2.is_empty();
    all(&|case| {
        let (id, direction) = (case.id, if is_both(case) { "both" } else { "forward" });
        format!(
            "  - id: sync-{id}\n    phase: dual-write\n    dual_write: {{ mapping: {id}, direction: {direction} }}\n"
        )
    });
    all(&|case| {
        let id = case.id;
        format!(
            "  - id: copy-{id}\n    phase: backfill\n    backfill: {{ mapping: {id}, workers: 2, chunk: {{ rows: 60 }} }}\n"
        )
    });
    all(&|case| {
        let id = case.id;
        format!(
            "  - id: compare-{id}\n    phase: verify\n    verify: {{ mapping: {id}, method: full }}\n"
        )
    });
    let gate = |id: &str| {
        format!("  - id: {id}\n    phase: contract\n    gate: {{ verified_within: 1h }}\n")
    };
    let mut text = text + &gate("ready");
    for case in cases {
        text.push_str(&case.retire(kind));
    }
    text.push_str(&gate("sure"));
    for case in cases {
        write!(
            text,
            "  - id: drop-{0}\n    phase: contract\n    drop: {{ mapping: {0} }}\n    irreversible: every row lives on\n",
            case.id
        )
        .unwrap();
    }
    text
}

fn last_retire(cases: &[Case]) -> String {
    format!("retire-{}", cases.last().unwrap().id)
}

/// Runs the whole plan while the client writes.
fn through(bed: &Bed) {
    let client = Client::at_work(bed);
    let ran = bed.phasegate(&["run", "plan.yaml"]);
    client.ends_well(&ran);
    ran.expect(0);
    bed.check(true);
}

/// Settings of a role that change how keys look as text.
const ODD_SETTINGS: [&str; 5] = [
    "DateStyle = 'German, DMY'",
    "TimeZone = 'Asia/Kathmandu'",
    "IntervalStyle = 'sql_standard'",
    "bytea_output = 'escape'",
    "extra_float_digits = -15",
];

#[test]
fn tables_of_every_kind_of_key_are_moved_while_a_client_writes() {
    let Some(bed) = Bed::new("kinds of keys", KEYS, COPIED) else { return };
    through(&bed);
}

#[test]
fn tables_of_every_kind_of_key_are_moved_whatever_their_role_s_settings() {
    let Some(bed) = Bed::new("odd settings", KEYS, COPIED) else { return };
    let owner = bed.database.owner();
    for setting in ODD_SETTINGS {
        bed.database.run(&format!("ALTER ROLE {owner} SET {setting}"));
    }
    through(&bed);
}

#[test]
fn tables_that_change_their_shape_are_moved_while_a_client_writes() {
    let Some(bed) = Bed::new("changed shapes", SHAPES, COPIED) else { return };
    through(&bed);
    // What is drawn next follows what was drawn before.
    for table in ["always", "bydefault", "serial"] {
        let drawn = format!("INSERT INTO {table} (v) VALUES ('drawn') RETURNING id");
        assert_eq!(bed.database.value(&drawn), "700001", "{table}");
    }
    let moved = "SELECT relkind FROM pg_class WHERE oid = 'listed'::regclass";
    assert_eq!(bed.database.value(moved), "p");
}

#[test]
fn columns_of_tables_of_every_kind_of_key_are_changed_in_place_while_a_client_writes() {
    let kind = Kind::InPlace { both: false };
    let Some(bed) = Bed::new("in place", KEYS, kind) else { return };
    through(&bed);
}

/// Runs the plan until every case was moved, and all the way back, while the client writes. Nothing is lost.
fn there_and_back(bed: &Bed) {
    let client = Client::at_work(bed);
    let ran = bed.phasegate(&["run", "plan.yaml", "--to", &last_retire(bed.cases)]);
    let back = bed.phasegate(&["rollback", "matrix", "--yes"]);
    client.ends_well(&back);
    ran.expect(0);
    back.expect(0);
    bed.check(false);
}

#[test]
fn tables_of_every_kind_of_key_are_followed_both_ways_moved_and_moved_back() {
    let Some(bed) = Bed::new("both ways", KEYS, FOLLOWED) else { return };
    there_and_back(&bed);
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE '%v2%' OR relname LIKE '%_old'";
    assert_eq!(bed.database.value(left), "0");
    // And once more, to the end.
    let client = Client::at_work(&bed);
    let ran = bed.phasegate(&["run", "plan.yaml", "--new"]);
    client.ends_well(&ran);
    ran.expect(0);
    bed.check(true);
}

#[test]
fn tables_that_change_their_shape_are_followed_both_ways_moved_and_moved_back() {
    let Some(bed) = Bed::new("shapes both ways", FOLLOWED_SHAPES, FOLLOWED) else { return };
    there_and_back(&bed);
}

#[test]
fn columns_that_are_followed_both_ways_are_changed_in_place_and_changed_back() {
    let kind = Kind::InPlace { both: true };
    let Some(bed) = Bed::new("in place both ways", IN_PLACE, kind) else { return };
    // What changed one way only stays so from its retirement on, unless its loss is accepted.
    there_and_back(&bed);
    let added = "SELECT count(*) FROM pg_attribute WHERE attname IN ('n_wide', 'n_old')";
    assert_eq!(bed.database.value(added), "0");
    // And once more, to the end.
    let client = Client::at_work(&bed);
    let ran = bed.phasegate(&["run", "plan.yaml", "--new"]);
    client.ends_well(&ran);
    ran.expect(0);
    bed.check(true);
    let wide = "SELECT count(*) FROM pg_attribute WHERE attname = 'n' AND atttypid = 'bigint'::regtype
        AND attrelid IN (SELECT oid FROM pg_class WHERE relnamespace <> 'kept'::regnamespace AND NOT relispartition)";
    let widened = bed.cases.iter().filter(|case| case.wide.0 == "bigint").count();
    assert_eq!(bed.database.value(wide), widened.to_string());
}

#[test]
fn tables_that_were_copied_are_as_before_after_a_rollback() {
    let Some(bed) = Bed::new("rolled back", SHAPES, COPIED) else { return };
    let client = Client::at_work(&bed);
    let ran = bed.phasegate(&["run", "plan.yaml", "--to", "verify"]);
    let back = bed.phasegate(&["rollback", "matrix", "--yes"]);
    client.ends_well(&back);
    ran.expect(0);
    back.expect(0);
    bed.check(false);
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE '%v2%'";
    assert_eq!(bed.database.value(left), "0");
}
