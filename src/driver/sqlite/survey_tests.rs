//! What the survey finds, on tables made for it. Every finding stands here with the words that name its cause.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{Database, mapping};
use crate::driver::{CreatedObject, Introspect as _, Survey, SurveyedMapping};
use crate::run::{CopyColumns, Direction, Mapping, OnDelete};

const SCHEMA: &str = "
    CREATE TABLE leads (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, status TEXT, score INT);
    CREATE TABLE leads_v2 (id INTEGER PRIMARY KEY, email TEXT NOT NULL, status TEXT, score INT, status_code TEXT);
    CREATE TABLE loose (k TEXT PRIMARY KEY, n INT UNIQUE, m INT NOT NULL);
    CREATE TABLE tight (k TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE pairs (a INT NOT NULL, b INT NOT NULL, c INT NOT NULL, PRIMARY KEY (a, b));
    CREATE UNIQUE INDEX pairs_partial ON pairs (c) WHERE c > 0;
    CREATE UNIQUE INDEX pairs_expression ON pairs (abs(c));
    CREATE TABLE folded (k TEXT COLLATE NOCASE NOT NULL);
    CREATE UNIQUE INDEX folded_k ON folded (k COLLATE BINARY);
    CREATE TABLE sound (k TEXT COLLATE NOCASE NOT NULL);
    CREATE UNIQUE INDEX sound_k ON sound (k);
    CREATE VIEW leads_view AS SELECT * FROM leads;
    CREATE TABLE strict_one (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, status TEXT, score TEXT, must INT NOT NULL) STRICT;
    CREATE TABLE narrow (id INTEGER PRIMARY KEY, email INT NOT NULL, status TEXT NOT NULL UNIQUE, score INT);";

async fn findings(
    mappings: Vec<Mapping>,
    created: &[(&str, Option<&str>)],
    queries: &[&str],
) -> Vec<String> {
    let database = Database::with(SCHEMA).await;
    let sqlite = database.open().await;
    let survey = Survey {
        mappings: mappings
            .into_iter()
            .map(|mapping| {
                let both = !mapping.reverse.is_empty();
                let direction = if both { Direction::Both } else { Direction::Forward };
                SurveyedMapping { step: "s".into(), mapping, direction: Some(direction) }
            })
            .collect(),
        created: created
            .iter()
            .map(|(table, column)| CreatedObject {
                table: (*table).into(),
                column: column.map(Into::into),
            })
            .collect(),
        queries: queries.iter().map(|query| ("q".into(), (*query).to_owned())).collect(),
        ..Survey::default()
    };
    let found = sqlite.survey(&survey).await.unwrap();
    found
        .into_iter()
        .map(|finding| {
            format!("{} {} | {}", finding.code, finding.message, finding.help.unwrap_or_default())
        })
        .collect()
}

fn leads() -> Mapping {
    mapping(("leads", &["id"]), ("leads_v2", &["id"]))
}

async fn only(mapping: Mapping) -> String {
    let found = findings(vec![mapping], &[], &[]).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    found.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_sound_mapping_has_no_findings() {
    let sound = Mapping {
        columns: vec![("status_code".into(), "lower(status) -- folded".into())],
        reverse: vec![("status".into(), "upper(status_code)".into())],
        filter: Some("score > 0 OR leads.score IS NULL".into()),
        ..leads()
    };
    assert_eq!(findings(vec![sound], &[], &["SELECT count(*) FROM leads;"]).await, [""; 0]);
}

#[tokio::test]
async fn missing_tables_and_columns_come_with_what_was_meant() {
    let mut one = leads();
    one.from.table = "leeds".into();
    one.from.key = vec!["id".into()];
    assert_eq!(only(one).await, "D201 there is no table leeds | did you mean leads?");
    let mut two = leads();
    two.columns = vec![("status_cod".into(), "status".into())];
    assert_eq!(
        only(two).await,
        "D203 the table leads_v2 has no column status_cod | did you mean status_code?"
    );
    let mut three = leads();
    three.columns = vec![("status_code".into(), "lower(statsu)".into())];
    let found = only(three).await;
    assert!(
        found.starts_with("D205 ")
            && found.ends_with("no such column: statsu | did you mean status?"),
        "{found}"
    );
    let mut four = leads();
    four.from.key = vec!["idd".into()];
    assert!(only(four).await.starts_with("D203 the table leads has no column idd"));
    let mut five = leads();
    five.from.table = "leads_view".into();
    assert!(only(five).await.starts_with("D202 leads_view is a view"));
    let mut six = leads();
    six.reverse = vec![("statuss".into(), "status_code".into())];
    assert!(only(six).await.starts_with("D203 the table leads has no column statuss"));
}

#[tokio::test]
async fn only_expressions_over_one_row_are_accepted() {
    for bad in ["max(score)", "status, score", "lower(", "nope(status)"] {
        let mut mapping = leads();
        mapping.columns = vec![("status_code".into(), bad.into())];
        assert!(only(mapping).await.starts_with("D205 "), "{bad}");
    }
    let filter = Mapping { filter: Some("count(*) > 1".into()), ..leads() };
    assert!(only(filter).await.starts_with("D205 the expression of where"));
}

#[tokio::test]
async fn what_the_plan_creates_counts_as_present() {
    let mut mapping = leads();
    mapping.into.table = "leads_v3".into();
    mapping.columns = vec![("anything".into(), "status".into())];
    let created = [("LEADS_V3", None), ("leads", Some("fresh"))];
    assert_eq!(
        findings(vec![mapping.clone()], &created, &["SELECT anything FROM leads_v3"]).await,
        [""; 0]
    );
    mapping.into.table = "leads".into();
    mapping.columns = vec![("fresh".into(), "status".into())];
    mapping.reverse = vec![("status".into(), "fresh".into())];
    assert_eq!(
        findings(vec![mapping.clone()], &created, &["SELECT fresh FROM leads"]).await,
        [""; 0]
    );
    assert_eq!(findings(vec![mapping], &[], &["SELECT fresh FROM leads"]).await.len(), 3);
}

#[tokio::test]
async fn keys_that_identify_nothing_are_refused_with_the_candidates() {
    let table = [
        (
            "loose",
            &["k"][..],
            "k may be NULL | loose has no unique key that is never NULL: add one",
        ),
        ("loose", &["n"], "n may be NULL | loose has no"),
        ("loose", &["m"], "is not unique by a constraint or a full index | loose has no"),
        ("pairs", &["b", "a"], "only in another order of its columns | use key: [a, b]"),
        ("pairs", &["c"], "is not unique by a constraint or a full index | use key: [a, b]"),
        ("pairs", &["a"], "is not unique by a constraint or a full index | use key: [a, b]"),
        ("leads", &["status"], "status may be NULL | use key: [id] or [email]"),
        (
            "folded",
            &["k"],
            "another collation than its columns compare by (NOCASE) | add a UNIQUE index without COLLATE",
        ),
    ];
    for (name, key, expected) in table {
        let mut mapping = mapping((name, key), ("leads_v2", &["id"]));
        mapping.copy = CopyColumns::Listed;
        let found = findings(vec![mapping], &[], &[]).await;
        let found = found.iter().find(|finding| finding.starts_with("D204")).unwrap();
        assert!(found.contains(expected), "{name} {key:?}: {found}");
    }
    for (name, key) in [
        ("tight", &["k"][..]),
        ("pairs", &["A", "b"]),
        ("leads", &["email"]),
        ("sound", &["k"]),
        ("strict_one", &["id"]),
    ] {
        let in_place = mapping((name, key), (name, key));
        let found = findings(vec![in_place], &[], &[]).await;
        // Nothing is listed, which only the last look at a mapping notices: the key was found sound.
        assert_eq!(found, ["D211 mapping leads: no column is mapped | "], "{name} {key:?}");
    }
}

#[tokio::test]
async fn a_stricter_new_side_is_found_before_it_stops_a_client() {
    let mut narrow = leads();
    narrow.into.table = "narrow".into();
    let found = findings(vec![narrow.clone()], &[], &[]).await;
    let codes: Vec<&str> = found.iter().map(|finding| &finding[..4]).collect();
    assert_eq!(codes, ["D207", "D209", "D208"], "{found:#?}");
    assert!(found[0].contains("CAST(email AS INT)"), "{}", found[0]);
    narrow.columns = vec![
        ("email".into(), "CAST(email AS INT)".into()),
        ("status".into(), "coalesce(status, id)".into()),
    ];
    assert_eq!(findings(vec![narrow], &[], &[]).await, [""; 0]);
    let mut strict = leads();
    strict.into.table = "strict_one".into();
    let found = findings(vec![strict], &[], &[]).await;
    let codes: Vec<&str> = found.iter().map(|finding| &finding[..4]).collect();
    assert_eq!(codes, ["D207", "D206"], "{found:#?}");
}

#[tokio::test]
async fn only_what_changes_values_or_never_works_stops_a_run() {
    let database = Database::with(SCHEMA).await;
    let sqlite = database.open().await;
    for (table, expected) in [
        ("narrow", "D207 Error, D209 Warning, D208 Warning"),
        ("strict_one", "D207 Warning, D206 Error"),
    ] {
        let mut mapping = leads();
        mapping.into.table = table.into();
        let direction = Some(Direction::Forward);
        let mappings = vec![SurveyedMapping { step: "s".into(), mapping, direction }];
        let survey = Survey { mappings, ..Survey::default() };
        let found = sqlite.survey(&survey).await.unwrap();
        let said: Vec<String> =
            found.iter().map(|it| format!("{} {:?}", it.code, it.severity)).collect();
        assert_eq!(said.join(", "), expected);
    }
}

#[tokio::test]
async fn what_the_sync_can_not_do_is_found_before_the_first_change() {
    let mut literal = leads();
    literal.columns = vec![("status_code".into(), "coalesce(status, \"none\")".into())];
    let found = only(literal).await;
    assert!(found.starts_with("D2") && found.contains("none"), "{found}");
    let mut kept = leads();
    kept.reverse = vec![("score".into(), "score + 0".into())];
    kept.on_delete = OnDelete::Ignore;
    let found = only(kept).await;
    assert!(found.starts_with("D211 ") && found.contains("on_delete must be delete"), "{found}");
}

#[tokio::test]
async fn queries_are_prepared_and_not_run() {
    let table = [
        ("SELECT count(*) FROM leeds", "no such table: leeds | did you mean the table leads?"),
        ("SELECT emial FROM leads", "no such column: emial | did you mean the column email?"),
        ("DELETE FROM leads", "syntax error"),
        ("PRAGMA journal_mode = wal", "syntax error"),
    ];
    for (query, expected) in table {
        let found = findings(vec![], &[], &[query]).await;
        assert!(found[0].starts_with("D210 ") && found[0].contains(expected), "{query}: {found:?}");
    }
}
