//! Many clients of every isolation level at once, with a copy and settling going on among them.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use sqlx::postgres::{PgConnection, PgDatabaseError};

use super::sync_tests::{Bed, both_leads, chunk, leads, say};
use crate::driver::DualWriter as _;
use crate::run::{Direction, Mapping};

const CLIENTS: u64 = 6;
const STATEMENTS: u64 = 60;
/// Few enough ids that clients meet, and enough that later writes don't mend what went wrong.
const IDS: u64 = 96;

const TABLES: &str = "
    CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
    CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text, note text);
    INSERT INTO leads SELECT n, 'e' || n, 'Open' FROM generate_series(1, 96) AS n;";

/// Numbers that look random and come again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn statement(dice: &mut Dice, (table, status): (&str, &str)) -> String {
    let (id, other) = (dice.roll(IDS) + 1, dice.roll(IDS) + 1);
    let value = ["Open", "Won", "Gone", "LOST"][usize::try_from(dice.roll(4)).unwrap()];
    match dice.roll(8) {
        0 | 1 => format!("UPDATE {table} SET {status} = '{value}' WHERE id = {id}"),
        2 => format!("UPDATE {table} SET email = 'm{other}' WHERE id = {id}"),
        3 => format!("DELETE FROM {table} WHERE id = {id}"),
        4 => format!(
            "INSERT INTO {table} (id, email, {status}) VALUES ({id}, 'n', '{value}') ON CONFLICT DO NOTHING"
        ),
        5 => format!(
            "INSERT INTO {table} (id, email, {status}) VALUES ({id}, 'i', '{value}') ON CONFLICT (id) DO UPDATE SET {status} = EXCLUDED.{status}"
        ),
        6 => format!(
            "UPDATE {table} SET id = {other} WHERE id = {id} AND NOT EXISTS (SELECT 1 FROM {table} WHERE id = {other})"
        ),
        _ => format!(
            "DELETE FROM {table} WHERE id = {id}; INSERT INTO {table} (id, email, {status}) VALUES ({id}, 'r', '{value}')"
        ),
    }
}

/// What clients were refused, by code and table.
type Refused = BTreeMap<(String, String), u32>;

async fn work(mut client: PgConnection, seed: u64, table: (&'static str, &'static str)) -> Refused {
    let mut dice = Dice(seed);
    let mut refused = Refused::new();
    for _ in 0..STATEMENTS {
        let isolation = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
            [usize::try_from(dice.roll(3)).unwrap()];
        let (first, last) = (statement(&mut dice, table), dice.roll(4));
        // Long enough for a chunk to come in between.
        let pause = if isolation == "READ COMMITTED" { 0.0 } else { 0.02 };
        let end = if last == 0 { "ROLLBACK" } else { "COMMIT" };
        let script = format!(
            "BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM {}; SELECT pg_sleep({pause}); {first}; {end}",
            table.0
        );
        if let Err(error) = say(&mut client, &script).await {
            let given = error.as_database_error().unwrap().downcast_ref::<PgDatabaseError>();
            let key = (given.code().to_owned(), given.table().unwrap_or_default().to_owned());
            *refused.entry(key).or_default() += 1;
            say(&mut client, "ROLLBACK").await.unwrap();
        }
    }
    refused
}

/// Runs the clients, with chunks between them, and settles. Returns what clients were refused.
async fn live(bed: &Bed, seed: u64, filter: &str) -> Refused {
    let mut clients = tokio::task::JoinSet::new();
    for at in 0..CLIENTS {
        let table = match bed.direction {
            Direction::Both if at % 2 == 1 => ("leads_v2", "status_code"),
            _ => ("leads", "status"),
        };
        clients.spawn(work(bed.client().await, seed * 100 + at, table));
    }
    let mut copier = bed.client().await;
    for lo in (0..IDS).step_by(4) {
        let copy = chunk(&format!("{filter} AND id > {lo} AND id <= {}", lo + 4));
        loop {
            let script = format!(
                "BEGIN; SET LOCAL lock_timeout = '300ms'; {copy}; SELECT pg_sleep(0.03); COMMIT"
            );
            if say(&mut copier, &script).await.is_ok() {
                break;
            }
            say(&mut copier, "ROLLBACK").await.unwrap();
        }
        // It yields to clients as chunks do; what it leaves is taken up again.
        let _ = bed.postgres.settle(&bed.fence, &bed.mapping).await;
    }
    let mut refused = Refused::new();
    while let Some(done) = clients.join_next().await {
        for (key, count) in done.unwrap() {
            *refused.entry(key).or_default() += count;
        }
    }
    say(&mut copier, &chunk(&format!("{filter} AND id > {IDS}"))).await.unwrap();
    assert_eq!(bed.settle().await, 0);
    refused
}

#[tokio::test]
async fn after_everything_the_copy_is_exact_and_no_client_was_refused_more_than_alone() {
    for seed in 1..=3 {
        for filter in ["true", "status <> 'Gone'"] {
            let mapping = Mapping { filter: Some(filter.to_owned()), ..leads() };
            let Some(bed) = Bed::with(TABLES, mapping, Direction::Forward).await else { return };
            let refused = live(&bed, seed, filter).await;
            let wrong = format!(
                "SELECT count(*) FROM (
                  (SELECT id, email, lower(status) FROM leads WHERE {filter} EXCEPT SELECT id, email, status_code FROM leads_v2)
                  UNION ALL
                  (SELECT id, email, status_code FROM leads_v2 EXCEPT SELECT id, email, lower(status) FROM leads WHERE {filter})) AS d"
            );
            assert_eq!(bed.number(&wrong).await, 0, "seed {seed}, {filter}");
            // Alone they would run into each other's rows, and nothing else.
            let alone = |(code, table): &(String, String)| {
                code == "40001" || code == "23505" && table == "leads"
            };
            assert!(refused.keys().all(alone), "seed {seed}, {filter}: {refused:?}");
        }
    }
}

#[tokio::test]
async fn clients_of_both_shapes_leave_both_sides_right() {
    for seed in 4..=6 {
        let Some(bed) = Bed::with(TABLES, both_leads(), Direction::Both).await else { return };
        let refused = live(&bed, seed, "true").await;
        let wrong = "SELECT count(*) FROM leads FULL JOIN leads_v2 USING (id)
            WHERE leads.ctid IS NULL OR leads_v2.ctid IS NULL OR leads.email IS DISTINCT FROM leads_v2.email
               OR (lower(status) IS DISTINCT FROM status_code AND status IS DISTINCT FROM initcap(status_code))";
        assert_eq!(bed.number(wrong).await, 0, "seed {seed}: {refused:?}");
        // A writer of the old side and one of the new side may wait for each other.
        let known =
            |(code, _): &(String, String)| matches!(code.as_str(), "40001" | "40P01" | "23505");
        assert!(refused.keys().all(known), "seed {seed}: {refused:?}");
    }
}
