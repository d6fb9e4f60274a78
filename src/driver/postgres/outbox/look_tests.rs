//! What the survey finds of mappings into another database, and that it finds nothing of what such mappings don't need.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::crossing;
use crate::driver::postgres::fixture::Database;
use crate::driver::{
    CreatedObject, Introspect as _, Purpose, Severity, Survey, SurveyedMapping, TableUse,
};
use crate::run::{CopyColumns, Direction, End, Ends, Mapping, RowKind};

const SCHEMA: &str = "
    CREATE TABLE people (id bigint PRIMARY KEY, email text, status text, team int, balance numeric, at timestamptz);
    CREATE TABLE fine (id bigint PRIMARY KEY, email text, team int);
    CREATE TABLE days (day date PRIMARY KEY, v int);
    CREATE UNLOGGED TABLE loose (id int PRIMARY KEY);
    CREATE TABLE bare (id int, v int);
    CREATE VIEW hot AS SELECT * FROM people;
    CREATE FOREIGN DATA WRAPPER none; CREATE SERVER far FOREIGN DATA WRAPPER none;
    CREATE TABLE parted (id int NOT NULL) PARTITION BY RANGE (id);
    CREATE TABLE near PARTITION OF parted FOR VALUES FROM (0) TO (1);
    CREATE DOMAIN deadline AS date;
    CREATE TABLE odd (id int, part text, day date, until deadline, at timestamptz, span interval, clock time, zoned timetz, words text[], days date[], n text, PRIMARY KEY (id, part));
    INSERT INTO odd VALUES
      (1, 'a', 'infinity', '2024-01-01', '-infinity', '1 day', '24:00', '23:59:59+01', '{a}', '{2024-01-01}', '1'),
      (2, 'b', '2024-01-01', 'infinity', 'now', '1 day', '12:00', '24:00+01', '{NULL}', '{infinity}', 'secret'),
      (3, 'c', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
      (4, 'd', '-infinity', NULL, NULL, NULL, NULL, NULL, '{{a},{b}}', '{}', '7');
    CREATE TABLE even AS SELECT * FROM odd WHERE id = 3; ALTER TABLE even ADD PRIMARY KEY (id, part);
    -- A table that is called as the label of the new side.
    CREATE TABLE \"Person\" (id int, must int NOT NULL);";

fn survey(mapping: Mapping) -> Survey {
    let step = "s".into();
    let direction = Some(Direction::Forward);
    Survey { mappings: vec![SurveyedMapping { step, mapping, direction }], ..Survey::default() }
}

#[tokio::test]
async fn mappings_into_another_database_are_looked_at_on_this_side_alone() {
    let Some(database) = Database::with(SCHEMA).await else { return };
    let postgres = database.open().await;
    let all =
        |table: &str, key: &str| Mapping { copy: CopyColumns::All, ..crossing(table, &[key], &[]) };
    let listed = |columns: &[(&str, &str)]| crossing("people", &["id"], columns);
    let mut filtered = listed(&[]);
    filtered.filter = Some("statsu = 'x'".into());
    let mut ends = listed(&[]);
    let end = |value: &str| End { node: "Team".into(), key: vec![("id".into(), value.into())] };
    ends.into.kind = RowKind::Relationship(Box::new(Ends { start: end("team"), end: end("tema") }));
    for (mapping, expected) in [
        (all("fine", "id"), &[][..]),
        (listed(&[("mail", "lower(email)")]), &[]),
        (
            all("people", "id"),
            &[
                "D222 balance would be of type numeric, which a graph has nothing for | say under `properties` how it is carried, such as `balance: balance::text`",
            ],
        ),
        (
            listed(&[("b", "balance * 2")]),
            &[
                "D222 b would be of type numeric | write (balance * 2)::text",
                "D223 b: where this expression fails",
            ],
        ),
        (listed(&[("n", "status::int")]), &["D223 n: where this expression fails"]),
        (listed(&[("n", "at::text")]), &["D215 the expression of property n is not immutable"]),
        (listed(&[("n", "random()")]), &["D215 the expression of property n uses"]),
        (
            listed(&[("n", "emial")]),
            &[
                "D205 the expression of property n does not fit people: column \"emial\" does not exist | Perhaps you meant to reference the column",
            ],
        ),
        (filtered, &["D205 the expression of where does not fit people"]),
        (ends, &["D205 the expression of end.id does not fit people"]),
        (all("peolpe", "id"), &["D201 there is no table peolpe | did you mean people?"]),
        (all("fine", "idd"), &["D203 the table fine has no column idd"]),
        (all("bare", "id"), &["D204 the key (id) of bare does not identify rows"]),
        (all("days", "day"), &["D222 the key column day is of type date"]),
        (all("hot", "id"), &["D202 hot is a view"]),
        (all("loose", "id"), &["D219 loose is unlogged"]),
    ] {
        let found = postgres.survey(&survey(mapping.clone())).await.unwrap();
        let said: Vec<String> = found
            .iter()
            .map(|it| {
                format!("{} {} | {}", it.code, it.message, it.help.as_deref().unwrap_or_default())
            })
            .collect();
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for (said, expected) in said.iter().zip(expected) {
            let is_it = expected.split(" | ").all(|part| said.contains(part));
            assert!(is_it, "{said}\n{expected}");
        }
    }
    // Partitions abroad.
    database.run("ALTER TABLE parted ADD PRIMARY KEY (id)").await;
    assert_eq!(postgres.survey(&survey(all("parted", "id"))).await, Ok(vec![]));
}

#[tokio::test]
async fn rows_that_can_not_cross_are_counted_before_the_first_change() {
    let Some(database) = Database::with(SCHEMA).await else { return };
    let postgres = database.open().await;
    let of = |table: &str, columns: &[(&str, &str)]| crossing(table, &["id", "part"], columns);
    let all = Mapping { copy: CopyColumns::All, ..of("odd", &[]) };
    let found = postgres.survey(&survey(all.clone())).await.unwrap();
    let said: Vec<&str> = found.iter().map(|it| it.message.as_str()).collect();
    assert_eq!(
        said,
        [
            "day: of 2 rows of odd the value is infinite, which no other database has",
            "until: of 1 row of odd the value is infinite, which no other database has",
            "at: of 1 row of odd the value is infinite, which no other database has",
            "clock: of 1 row of odd the value is 24:00:00, which no other database has",
            "zoned: of 1 row of odd the value is 24:00:00, which no other database has",
            "words: of 2 rows of odd the value is a list of lists, or has a NULL or another value in it that a graph can't hold",
            "days: of 1 row of odd the value is a list of lists, or has a NULL or another value in it that a graph can't hold",
        ]
    );
    assert!(found.iter().all(|it| it.code == "D224" && it.severity == Severity::Error));
    // What it says to do finds the rows, and helps.
    let help = found[0].help.as_deref().unwrap();
    let list = help.rsplit_once(": ").unwrap().1;
    let ids = format!("SELECT string_agg(id::text, ' ' ORDER BY id) FROM ({list}) AS found");
    assert_eq!(database.text(&ids).await, "1 4", "{help}");
    let mut mended = of("odd", &[("day", "CASE WHEN isfinite(day) THEN day END")]);
    let found = postgres.survey(&survey(mended.clone())).await.unwrap();
    assert!(found.iter().all(|it| it.severity == Severity::Warning), "{found:?}");
    mended.columns[0].1 = "day".into();
    mended.filter = Some("isfinite(day)".into());
    let found = postgres.survey(&survey(mended)).await.unwrap();
    assert!(found.iter().all(|it| it.severity == Severity::Warning), "{found:?}");
    let even = Mapping { copy: CopyColumns::All, ..of("even", &[]) };
    assert_eq!(postgres.survey(&survey(even)).await, Ok(vec![]));
    // An expression that fails for a row, whose value is nobody's business.
    let found = postgres.survey(&survey(of("odd", &[("n", "n::int")]))).await.unwrap();
    let failing = found.iter().find(|it| it.severity == Severity::Error).unwrap();
    assert!(failing.code == "D205" && failing.message.contains("\"secret\""), "{failing:?}");
    assert!(!failing.private.is_empty());
    // What takes longer than a look may is said not to be known, and is in nobody's way.
    database
        .run("CREATE FUNCTION public.slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(11); RETURN $1; END'")
        .await;
    let found = postgres.survey(&survey(of("odd", &[("n", "public.slow(id)")]))).await.unwrap();
    let said: Vec<_> = found.iter().map(|it| (it.code, it.severity)).collect();
    assert!(said.contains(&("D224", Severity::Warning)), "{found:?}");
    assert!(found.iter().all(|it| it.severity == Severity::Warning), "{found:?}");
}

#[tokio::test]
async fn what_a_step_makes_is_there_and_a_dry_run_shows_the_old_side() {
    let Some(database) = Database::with(SCHEMA).await else { return };
    let postgres = database.open().await;
    let mut of = survey(crossing("later", &["id"], &[("n", "x")]));
    of.created = vec![CreatedObject { table: "later".into(), column: None }];
    assert_eq!(postgres.survey(&of).await, Ok(vec![]));
    // A column that comes by then may be of any type.
    let mut of = survey(crossing("fine", &["id"], &[("n", "x")]));
    of.created = vec![CreatedObject { table: "fine".into(), column: Some("x".into()) }];
    assert_eq!(postgres.survey(&of).await, Ok(vec![]));
    let mut of = survey(crossing("fine", &["id"], &[("mail", "email")]));
    let used = |table: &str, purpose| TableUse { step: "s".into(), table: table.into(), purpose };
    of.uses = vec![used("fine", Purpose::Sync), used("Nothing", Purpose::Write)];
    let probed = postgres.probe(&of).await.unwrap();
    assert_eq!(
        (probed.findings, probed.unseen, probed.notes),
        (vec![], None, Vec::<String>::new())
    );
    assert_eq!(probed.tables.iter().map(|it| it.table.as_str()).collect::<Vec<_>>(), ["fine"]);
    assert_eq!(probed.mappings.len(), 1);
    // Two of them may write what looks like the same.
    let mut of = survey(crossing("fine", &["id"], &[("mail", "email")]));
    of.mappings.push(of.mappings[0].clone());
    of.mappings[1].mapping.name = "again".into();
    assert_eq!(postgres.survey(&of).await, Ok(vec![]));
}
