//! Keys and values that are to be hidden stand nowhere: not in what is said, logged or recorded, whoever makes the sentence.

use crate::crossing::bed::{Bed as Crossing, LONG, PLAN as CROSSING};
use crate::examples::database::Database;
use crate::failures::signal;
use crate::sandbox::{Ran, Sandbox, wait_for};
use crate::services;

/// Stands in a key.
const KEY: &str = "ann.secret@example.org";
/// Stands in a value beside it.
const VALUE: &str = "confidential-99";

const PLAN: &str = r#"apiVersion: phasegate/v1
kind: Plan
metadata:
  name: leads
targets:
  app:
    engine: ENGINE
    url: "${env:APP_URL}"
mappings:
  leads:
    from: { target: app, table: leads, key: [email] }
    into: { target: app, table: leads_v2 }
    columns:
      status: EXPRESSION
steps:
  - id: create
    phase: expand
    target: app
    sql: CREATE TABLE leads_v2 (email varchar(80) NOT NULL PRIMARY KEY, status TYPE, CONSTRAINT calm CHECK (CHECKED))
    undo:
      sql: DROP TABLE leads_v2
  - id: sync
    phase: dual-write
    dual_write: { mapping: leads, direction: forward }
  - id: copy
    phase: backfill
    backfill:
      mapping: leads
PARK  - id: compare
    phase: verify
    verify: { mapping: leads, method: full }
"#;

/// What stops the row: its type, the constraint and the expression.
#[derive(Clone, Copy)]
enum Refused {
    /// By a constraint, whose error has a detail with the row on PostgreSQL.
    Constraint,
    /// By a type, whose error quotes the value in its message.
    Type,
}

struct Bed {
    sandbox: Sandbox,
    server: Option<Database>,
}

impl Bed {
    fn new(server: Option<Database>, refused: Refused, park: &str) -> Self {
        let bed = Self { sandbox: Sandbox::new(), server };
        let (kind, checked) = match refused {
            Refused::Constraint => ("varchar(80)", "length(status) < 10"),
            Refused::Type => ("int", "status > 0"),
        };
        let expression = match refused {
            Refused::Constraint => "lower(status)",
            Refused::Type => "CAST(status AS int)",
        };
        let engine = if bed.server.is_some() { "postgres" } else { "sqlite" };
        let plan = PLAN
            .replace("ENGINE", engine)
            .replace("EXPRESSION", expression)
            .replace("TYPE", kind)
            .replace("CHECKED", checked)
            .replace("PARK", park);
        bed.sandbox.write("plan.yaml", &plan);
        bed.sql(&format!(
            "CREATE TABLE leads (email varchar(80) NOT NULL PRIMARY KEY, status varchar(80));
             INSERT INTO leads VALUES ('a', '1'), ('{KEY}', '{VALUE}'), ('z', '2')"
        ));
        bed
    }

    fn sql(&self, statements: &str) {
        match &self.server {
            Some(server) => server.run(statements),
            None => self.sandbox.sql("app.db", statements),
        }
    }

    fn phasegate(&self, args: &[&str]) -> Ran {
        let url = self.server.as_ref().map_or("sqlite://app.db", |server| server.url.as_str());
        self.sandbox.run_with(args, "APP_URL", url)
    }

    /// Everything that is kept and shown of the run.
    fn everything(&self, redact: &[&str]) -> String {
        let mut all = String::new();
        for command in [
            &["status", "leads"][..],
            &["status", "leads", "--format", "json"],
            &["status", "leads", "--parked", "--format", "json"],
            &["history", "leads"],
            &["history", "leads", "--format", "json"],
            &["events", "leads"],
            &["gates", "leads"],
        ] {
            let ran = self.phasegate(&[command, redact, &["-vvv"]].concat());
            all.extend([ran.stdout, ran.stderr]);
        }
        all
    }

    fn journal(&self) -> String {
        [".phasegate/state.db", ".phasegate/state.db-wal"]
            .into_iter()
            .map(|file| std::fs::read(self.sandbox.path(file)).unwrap_or_default())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }
}

fn beds(test: &str, refused: Refused, park: &str) -> Vec<Bed> {
    let server = services::postgres(test).map(|server| Database::on(&server, "SELECT 1"));
    let server = server.map(|server| Bed::new(Some(server), refused, park));
    // There a text that is no number is 0, which the constraint refuses.
    let file = Bed::new(None, refused, park);
    [file].into_iter().chain(server).collect()
}

fn said(ran: &Ran) -> String {
    format!("{}{}", ran.stdout, ran.stderr)
}

#[track_caller]
fn stands(text: &str, what: &str, expected: bool) {
    assert_eq!(text.contains(what), expected, "{what} in\n{text}");
}

#[test]
fn a_row_that_can_not_be_copied_is_named_and_told_of_as_far_as_it_may_be() {
    for refused in [Refused::Constraint, Refused::Type] {
        for redact in [&[][..], &["--redact"], &["--redact=keys"]] {
            for bed in beds("redacted errors", refused, "") {
                let ran = bed.phasegate(&[&["run", "plan.yaml", "-vvv"], redact].concat());
                let all =
                    format!("{}{}{}", said(&ran.expect(1)), bed.everything(&[]), bed.journal());
                stands(&all, "can't be copied", true);
                stands(&all, KEY, redact != ["--redact=keys"]);
                // SQLite's own words quote no value.
                stands(&all, VALUE, redact.is_empty() && bed.server.is_some());
                // What was recorded can still be kept from being shown.
                let hidden = bed.everything(&["--redact=keys"]);
                stands(&hidden, "can't be copied", true);
                stands(&hidden, KEY, false);
                stands(&hidden, VALUE, false);
                bed.phasegate(&["history", "leads", "--verify", "--redact=keys"]).expect(0);
            }
        }
    }
}

#[test]
fn parked_rows_are_hidden_and_so_is_the_one_that_is_too_many() {
    for (most, code) in [(5, 7), (1, 1)] {
        let park = format!("      on_row_error: park\n      park_max: {most}\n");
        for bed in beds("redacted parking", Refused::Type, &park) {
            bed.sql(&format!("INSERT INTO leads VALUES ('b.secret@example.org', '{VALUE}')"));
            let ran = bed.phasegate(&["run", "plan.yaml", "-vvv", "--redact=keys"]);
            let all =
                said(&ran.expect(code)) + &bed.everything(&["--redact=keys"]) + &bed.journal();
            stands(&all, "parked", true);
            stands(&all, "secret@example.org", false);
            stands(&all, VALUE, false);
        }
    }
}

#[test]
fn what_going_back_would_lose_is_named_as_far_as_it_may_be() {
    for redact in [&[][..], &["--redact"], &["--redact=keys"]] {
        for bed in beds("redacted losses", Refused::Constraint, "") {
            bed.phasegate(&["run", "plan.yaml", "--to", "sync"]).expect(0);
            bed.sql(&format!(
                "INSERT INTO leads_v2 VALUES ('{KEY}', 'mine'), ('only.{KEY}', 'mine')"
            ));
            let back = ["rollback", "leads", "--yes", "-vvv"];
            let ran = bed.phasegate(&[&back, redact].concat()).expect(9);
            let all = said(&ran) + &bed.everything(&[]) + &bed.journal();
            stands(&all, "2 rows on the new side of leads differ", true);
            stands(&all, KEY, redact != ["--redact=keys"]);
            stands(&said(&ran), "their keys: (redacted)", redact == ["--redact=keys"]);
            // What was recorded can still be kept from being shown.
            let hidden = bed.everything(&["--redact=keys"]);
            stands(&hidden, "their keys: (redacted)", true);
            stands(&hidden, KEY, false);
            bed.phasegate(&["rollback", "leads", "--yes", "--accept-loss", "leads"]).expect(0);
            bed.phasegate(&["history", "leads", "--verify", "--redact=keys"]).expect(0);
        }
    }
}

#[test]
fn a_way_back_that_does_not_lead_back_tells_of_a_row_as_far_as_it_may() {
    let Some(server) = services::postgres("redacted findings") else { return };
    let plan = PLAN
        .replace("ENGINE", "postgres")
        .replace("EXPRESSION", "upper(status)\n    reverse: { status: lower(status) || 'x' }")
        .replace("TYPE", "varchar(80)")
        .replace("CHECKED", "true")
        .replace("PARK", "")
        .replace("direction: forward", "direction: both");
    let schema = format!(
        "CREATE TABLE leads (email varchar(80) NOT NULL PRIMARY KEY, status varchar(80));
         INSERT INTO leads VALUES ('{KEY}', '{VALUE}')"
    );
    for redact in [&[][..], &["--redact"], &["--redact=keys"]] {
        let bed = Bed { sandbox: Sandbox::new(), server: Some(Database::on(&server, &schema)) };
        bed.sandbox.write("plan.yaml", &plan);
        for command in [&["run", "plan.yaml"][..], &["dry-run", "plan.yaml", "--depth", "probe"]] {
            for format in [&[][..], &["--format", "json"]] {
                let ran = bed.phasegate(&[command, redact, format, &["-vvv"]].concat());
                let all = said(&ran.expect(3)) + &bed.journal();
                stands(&all, "does not lead back", true);
                stands(&all, KEY, redact != ["--redact=keys"]);
                stands(&all, &VALUE.to_uppercase(), redact.is_empty());
            }
        }
    }
}

#[test]
fn what_a_gate_could_not_read_is_told_without_values() {
    let Some(server) = services::postgres("redacted gates") else { return };
    let plan = r#"apiVersion: phasegate/v1
kind: Plan
metadata:
  name: leads
targets:
  app:
    engine: postgres
    url: "${env:APP_URL}"
steps:
  - id: note
    phase: expand
    target: app
    sql: CREATE TABLE note (id int)
    undo:
      sql: DROP TABLE note
  - id: ready
    phase: contract
    gate:
      query: { target: app, query: "SELECT max(status::int) FROM leads", expect: 1 }
"#;
    let schema = format!("CREATE TABLE leads (status text); INSERT INTO leads VALUES ('{VALUE}')");
    for redact in [&[][..], &["--redact"]] {
        let bed = Bed { sandbox: Sandbox::new(), server: Some(Database::on(&server, &schema)) };
        bed.sandbox.write("plan.yaml", plan);
        let ran = bed.phasegate(&[&["run", "plan.yaml", "-vvv"], redact].concat());
        let gates = bed.phasegate(&[&["gates", "leads"], redact].concat());
        let all = said(&ran.expect(4)) + &said(&gates) + &bed.journal();
        stands(&all, VALUE, redact.is_empty());
    }
}

#[test]
fn why_the_new_side_refused_a_change_is_told_as_far_as_it_may_be() {
    let Some(bed) = Crossing::example() else { return };
    let plan = std::fs::read_to_string(bed.graph.sandbox.path(CROSSING)).unwrap();
    bed.graph.sandbox.write(CROSSING, &plan.replace("max_rows: 1000000", "max_rows: 100"));
    bed.graph.cypher("CREATE CONSTRAINT one_name FOR (u:User) REQUIRE u.name IS UNIQUE");
    bed.phasegate(&["run", CROSSING, "--to", "sync-follows"]).expect(0);
    bed.database.run(&format!("UPDATE users SET name = '{VALUE}' WHERE id IN (1, 2)"));
    let relay = bed.relay();
    assert!(wait_for(LONG, || bed.carried("users")["parked"] == 1), "{}", bed.status());
    signal(relay.0.id(), "STOP");
    for redact in [&[][..], &["--redact"], &["--redact=keys"]] {
        for format in [&[][..], &["--format", "json"]] {
            let ran = bed.phasegate(&[&["status", "social-graph"], format, redact].concat());
            let said = said(&ran.expect(0));
            stands(&said, "failed", true);
            stands(&said, VALUE, redact.is_empty());
        }
    }
    // With those that nobody carries it is too many, and that is recorded.
    bed.database.run("UPDATE users SET bio = 'waits' WHERE id > 100");
    let run = ["run", CROSSING, "--to", "copy-users", "--redact", "-vvv"];
    let ran = bed.phasegate(&run).expect(1);
    let journal = [".phasegate/state.db", ".phasegate/state.db-wal"]
        .map(|file| std::fs::read(bed.graph.sandbox.path(file)).unwrap_or_default())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    stands(&said(&ran), "over its limit", true);
    stands(&(said(&ran) + &journal), VALUE, false);
}
