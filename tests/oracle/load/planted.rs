//! Faults that are planted in the program must be found: by the twin, by the plan's own comparison, or by what a client sees.
//!
//! What load alone finds soon is hunted with ever new seeds; what takes a crossing of two sessions is arranged. Each
//! arrangement is played without the fault, too, and then everything holds.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::play::Play;
use super::scene::Kind;
use super::stage::{Session, Stage};
use super::{Load, PLAIN};
use crate::oracle::{first_seed, say};
use crate::services;

/// How long a fault is hunted.
const HUNTED_FOR: Duration = Duration::from_mins(3);

/// What a hunt goes through: enough for clients and copy to meet, and soon over.
const SHORT: Load = Load { keys: 1_500, ends: false, ..PLAIN };

/// The same to where names have changed, of a copy that is not over before somebody looks.
const LONGER: Load = Load { keys: 3_000, ends: true, ..PLAIN };

/// Plays under load until the fault is found.
fn hunt(fault: &str, load: Load) {
    let Some(server) = services::postgres(fault) else { return };
    let armed = format!("postgres::planted::{fault}=return");
    let began = Instant::now();
    for seed in first_seed().. {
        say(&format!("{fault}: PHASEGATE_SEED={seed}"));
        if let Some(found) = Play::begin(&server, load, seed, &armed).finds() {
            let took = began.elapsed();
            return say(&format!("{fault}, PHASEGATE_SEED={seed}, found in {took:?}: {found}"));
        }
        assert!(
            began.elapsed() < HUNTED_FOR,
            "{fault} was never found; last PHASEGATE_SEED={seed}"
        );
    }
}

impl Play {
    /// Plays as far as the comparison at rest, or to where names have changed. What is wrong, if something is.
    fn finds(mut self) -> Option<String> {
        // Names change when they do, on a machine that has more to do, too.
        self.shared.patience_ms.store(30_000, Ordering::SeqCst);
        let mut ran = None;
        let goals: &[&str] = if self.load.ends {
            &["sync", "copy", "compare", "retire"]
        } else {
            &["sync", "copy", "compare"]
        };
        for goal in goals {
            let this = self.to(goal);
            if this.code != Some(0) {
                ran = Some(this);
                break;
            }
        }
        if self.load.ends && ran.is_none() {
            self.see_views_end();
        }
        let told = self.stop();
        if let Some(first) = told.first() {
            return Some(format!("a client saw {first}"));
        }
        if self.load.ends && ran.is_none() {
            let differing = self.differing(&self.load.kind.left());
            return (!differing.is_empty()).then(|| format!("the twin: {differing:?}"));
        }
        let ran = ran.unwrap_or_else(|| self.to("compare-at-rest"));
        // A copy that is not as its row says may hold what only one may have, and stop the plan before anybody compares: that is not
        // what is hunted.
        if ran.code == Some(1) && ran.stderr.contains("[23505]") {
            return None;
        }
        if ran.code != Some(0) {
            assert_eq!(ran.code, Some(7), "found by something else: {ran}");
            return Some("the plan's comparison".to_owned());
        }
        let differing = self.differing(&self.load.kind.compared());
        (!differing.is_empty()).then(|| format!("the twin: {differing:?}"))
    }
}

#[test]
fn no_row_lock() {
    hunt("no-row-lock", SHORT);
}

#[test]
fn no_touched_keys() {
    hunt("no-touched-keys", Load { snapshots: true, ..SHORT });
}

#[test]
fn new_instead_of_a_reread() {
    hunt("new-instead-of-reread", SHORT);
}

/// Under a view from before the last rows were copied the new table lacks them.
#[test]
fn names_that_change_at_once() {
    hunt("names-change-at-once", LONGER);
}

/// In place it is the new column that lacks its values.
#[test]
fn names_that_change_at_once_in_place() {
    hunt("names-change-at-once", Load { kind: Kind::InPlaceForward, ..LONGER });
}

/// In place a chunk that hasn't locked a row before it decides doesn't see what a client of the new shape has entered beside it.
#[test]
fn no_row_lock_in_place() {
    let Some(server) = services::postgres("no row lock in place") else { return };
    for fault in ["", "postgres::planted::no-row-lock=return"] {
        let found = (0..6).any(|_| chunk_writes_over(&server, fault));
        assert_eq!(found, !fault.is_empty(), "{fault:?}");
    }
}

fn chunk_writes_over(server: &str, fault: &'static str) -> bool {
    let stage = Stage::of(Kind::InPlaceBoth, server, fault);
    stage.to("sync", "").expect(0);
    let mut client = Session::new(&stage.database.url);
    client.say("BEGIN; UPDATE customers SET status_v2 = 'As It Is' WHERE id = 13");
    let ran = stage.commits_while_waited_for("copy", client).expect(0);
    let written = stage.database.value("SELECT status_v2 FROM customers WHERE id = 13");
    assert!(["As It Is", "as it is"].contains(&written.as_str()), "{written}: {ran}");
    written != "As It Is"
}

/// Without a ledger row in the rows' own transaction a chunk that dies between the two is lost.
#[test]
fn no_ledger_transaction() {
    let Some(server) = services::postgres("no ledger transaction") else { return };
    for (fault, code) in [("", 0), ("postgres::planted::no-ledger-transaction=return", 7)] {
        let stage = Stage::new(&server, fault);
        stage.to("sync", "").expect(0);
        let died = stage.to("copy", "postgres::after-commit::chunk=return");
        assert_eq!(died.code, None, "{died}");
        stage.to("compare", "").expect(code);
        assert_eq!(stage.is_alike(), code == 0, "{fault}");
    }
}

/// Triggers that come after the copy began: what was written in between is nobody's. The engine proves before that they are
/// there; only without that proof there is something to compare.
#[test]
fn triggers_installed_after_the_copy_began() {
    let Some(server) = services::postgres("late triggers") else { return };
    for (fault, codes) in [("", [6, 6]), ("postgres::planted::sync-unproven=return", [0, 7])] {
        let stage = Stage::new(&server, fault);
        stage.to("sync", "").expect(0);
        let triggers =
            "FROM pg_trigger WHERE tgrelid = 'customers'::regclass AND tgname LIKE '%phasegate%'";
        let made = stage.database.rows(&format!("SELECT pg_get_triggerdef(oid) {triggers}"));
        assert!(!made.is_empty());
        for drop in stage
            .database
            .rows(&format!("SELECT format('DROP TRIGGER %I ON customers', tgname) {triggers}"))
        {
            stage.database.run(&drop);
        }
        let began = stage.to("copy", "postgres::after-commit::chunk=9*off->return");
        assert_eq!(began.code, if codes[0] == 0 { None } else { Some(codes[0]) }, "{began}");
        stage.write("UPDATE TABLE SET status = 'LATE' WHERE id % 3 = 0");
        stage.write("DELETE FROM TABLE WHERE id % 11 = 0");
        stage.database.run(&made.join(";"));
        if codes[0] == 0 {
            stage.to("copy", "").expect(0);
            stage.to("compare", "").expect(codes[1]);
            assert!(!stage.is_alike());
        }
    }
}

/// A comparison that doesn't look for rows which only the new side has passes; the twin knows better.
#[test]
fn verify_in_one_direction() {
    let Some(server) = services::postgres("one direction") else { return };
    for (fault, code) in [("", 7), ("postgres::planted::verify-one-way=return", 0)] {
        let stage = Stage::new(&server, fault);
        stage.to("copy", "").expect(0);
        assert!(stage.is_alike());
        stage.database.run_as_superuser(
            "SET session_replication_role = replica; INSERT INTO customers_v2 VALUES (100000, 'nobody''s')",
        );
        stage.to("compare", "").expect(code);
        assert!(!stage.is_alike());
    }
}

/// A row was noted as one that the filter hides, and is shown again while its key is swept. A single statement that waits for the client
/// sees the copy that it left, but the row as it was.
#[test]
fn a_sweep_in_one_statement() {
    let Some(server) = services::postgres("a sweep in one statement") else { return };
    for fault in ["", "postgres::planted::sweep-in-one-statement=return"] {
        // The sweep waits for the client 0.3 s at most; where that is over before it is noticed there is another try.
        let found = (0..6).any(|_| sweep_loses_a_row(&server, fault));
        assert_eq!(found, !fault.is_empty(), "{fault:?}");
    }
}

fn sweep_loses_a_row(server: &str, fault: &'static str) -> bool {
    let stage = Stage::of(Kind::Filtered, server, fault);
    stage.to("sync", "").expect(0);
    let mut older = Session::new(&stage.database.url);
    older.say("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM customers LIMIT 1");
    stage.to("copy", "").expect(0);
    older.say("UPDATE customers SET status = 'CLOSED 9' WHERE id = 13; COMMIT");
    let noted = "SELECT sum((xpath('//c/text()', query_to_xml(format('SELECT count(*) AS c FROM phasegate.%I', relname), true, true, '')))[1]::text::int)
        FROM pg_class WHERE relnamespace = 'phasegate'::regnamespace AND relname LIKE 'touched%' AND relkind = 'r'";
    assert_eq!(stage.database.value(noted), "1", "the key was not noted");
    let mut newer = Session::new(&stage.database.url);
    newer.say("BEGIN; UPDATE customers SET status = 'AGAIN' WHERE id = 13");
    stage.database.run("UPDATE twin SET status = 'AGAIN' WHERE id = 13");
    let ran = stage.commits_while_waited_for("compare", newer);
    let is_lost = !stage.is_alike();
    ran.expect(if is_lost { 7 } else { 0 });
    is_lost
}
