//! Windows and things that must be unused, through the binary.

use chrono::{Datelike as _, Days, NaiveDate};

use super::{gate, said};
use crate::bad_luck::sandbox;
use crate::sandbox::Sandbox;

/// Today in UTC, as the machine has it.
fn today() -> NaiveDate {
    chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()).date_naive()
}

fn weekday(date: NaiveDate) -> String {
    date.weekday().to_string().to_ascii_lowercase()
}

fn with(condition: &str) -> Sandbox {
    sandbox(&format!("      {condition}"))
}

#[test]
fn a_window_shuts_outside_its_days_and_says_when_it_opens() {
    // The day after tomorrow is shut now, and still is should midnight pass meanwhile.
    let later = today().checked_add_days(Days::new(2)).unwrap();
    let sandbox = with(&format!("window: {{ days: [{}], zone: UTC }}", weekday(later)));
    let stopped = sandbox.run(&["run", "plan.yaml"]).expect(4);
    let words = said(&stopped);
    assert!(words.contains(&format!("opens {} {later}", later.weekday())), "{words}");
    assert!(words.contains("--wait"), "{words}");
    let shown = gate(&sandbox, "ready", &[]);
    let window = shown["conditions"].as_array().unwrap();
    let window = window.iter().find(|one| one["condition"] == "window").unwrap();
    assert_eq!(window["verdict"], "fail", "{window:#}");
    assert_eq!(window["holds_at"], format!("{later}T00:00:00.000Z"), "{window:#}");
}

#[test]
fn a_window_is_open_on_its_days_and_a_freeze_shuts_it_with_its_reason() {
    let (yesterday, later) = (
        today().checked_sub_days(Days::new(1)).unwrap(),
        today().checked_add_days(Days::new(5)).unwrap(),
    );
    let freeze = format!("{{ from: {yesterday}, to: {later}, reason: year end closing }}");
    let frozen =
        with(&format!("window: {{ hours: \"00:00-24:00\", zone: UTC, freezes: [{freeze}] }}"));
    let stopped = frozen.run(&["run", "plan.yaml"]).expect(4);
    assert!(said(&stopped).contains("year end closing"), "{stopped}");
    // The same window without the freeze that holds now, taken over by an amendment.
    let plan = std::fs::read_to_string(frozen.path("plan.yaml")).unwrap();
    frozen.write("plan.yaml", &plan.replace(&freeze, "2001-01-01"));
    frozen.run(&["run", "plan.yaml"]).expect(6);
    frozen.run(&["amend", "customers", "plan.yaml", "--yes"]).expect(0);
    frozen.run(&["run", "plan.yaml"]).expect(0);
}

#[test]
fn a_window_that_makes_no_sense_is_a_finding() {
    for (window, words) in [
        ("{ days: [mon], zone: Europe/Berln }", "did you mean `Europe/Berlin`?"),
        ("{ days: [mon] }", "lacks `zone`"),
        ("{ days: [], zone: UTC }", "no day"),
        ("{ days: [monday], zone: UTC }", "`mon`"),
        ("{ hours: \"10:00-10:00\", zone: UTC }", "end as they begin"),
        ("{ hours: \"9-17\", zone: UTC }", "22:00-06:00"),
        ("{ zone: UTC }", "always open"),
        ("{ zone: UTC, freezes: [2026-02-30] }", "is no date"),
        ("{ zone: UTC, freezes: [2026-03-02..2026-03-01] }", "before it begins"),
        ("{ zone: UTC, freezes: [{ from: 2026-01-01, to: 2999-12-31 }] }", "never opens"),
    ] {
        let sandbox = with(&format!("window: {window}"));
        let found = sandbox.run(&["validate", "plan.yaml"]).expect(3);
        assert!(said(&found).contains(words), "{window}: {found}");
    }
}

#[test]
fn sqlite_keeps_no_counters_so_a_query_has_to_tell() {
    let sandbox = with("unused_for: { mapping: customers, for: 72h }");
    let found = sandbox.run(&["validate", "plan.yaml"]).expect(3);
    assert!(said(&found).contains("P508") && said(&found).contains("keeps no counters"), "{found}");
}

#[test]
fn a_query_that_tells_the_last_use_opens_once_that_is_long_enough_ago() {
    let query = "select strftime('%s', 'now') - max(at) from uses";
    let sandbox = with(&format!("unused_for: {{ target: app, query: \"{query}\", for: 1h }}"));
    sandbox.sql("app.db", "CREATE TABLE uses (at INTEGER)");
    // Nobody knows of any use: that is not the same as no use.
    let unknown = sandbox.run(&["run", "plan.yaml"]).expect(4);
    assert!(said(&unknown).contains("NULL, not the seconds since the last use"), "{unknown}");
    sandbox.sql("app.db", "INSERT INTO uses VALUES (strftime('%s', 'now') - 60)");
    let recent = sandbox.run(&["run", "plan.yaml"]).expect(4);
    assert!(said(&recent).contains("unused for 1h"), "{recent}");
    sandbox.sql("app.db", "UPDATE uses SET at = strftime('%s', 'now') - 3700");
    sandbox.run(&["run", "plan.yaml"]).expect(0);
}
