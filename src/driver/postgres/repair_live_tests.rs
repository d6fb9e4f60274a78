//! Many clients of every isolation level at once, while rows of the copy are spoilt and repaired among them.
//!
//! Every client notes in a twin, in the transaction of its write, what it made of a row. Whatever of the copy is spoilt is of
//! rows that no client of the new shape has written, so that everything noted must stand at the end. Nothing is repaired once
//! the clients have ended: what a repair did wrong is not mended by the next one.
#![allow(clippy::unwrap_used, missing_docs)]

use sqlx::postgres::PgConnection;

use super::fixture::mapping as plain_mapping;
use super::sync_tests::{Bed, both_leads, id, leads, say};
use crate::copy::chunk::{Cell, Chunk, Key};
use crate::driver::{DualWriter as _, Error, Verifier as _};
use crate::run::{CopyColumns, Direction, FailureClass, Mapping};

const CLIENTS: u64 = 6;
const WRITES: u64 = 50;
/// Few enough that clients and repairs meet.
const IDS: u64 = 32;
/// Rows that are spoilt and repaired at once.
const RANGE: u64 = 8;

const TWIN: &str = "CREATE TABLE twin (id bigint PRIMARY KEY, side text, v text);";
const TABLES: &str = "
    CREATE TABLE leads (id bigint PRIMARY KEY, email text, status text, other int);
    CREATE TABLE leads_v2 (id bigint PRIMARY KEY, email text, status_code text, note text);
    INSERT INTO leads SELECT n, 'e', 'Open' FROM generate_series(1, 32) AS n;
    INSERT INTO leads_v2 SELECT n, 'e', 'open' FROM generate_series(1, 32) AS n;";
const PEOPLE: &str = "
    CREATE TABLE people (id bigint PRIMARY KEY, status text, status_code text);
    INSERT INTO people SELECT n, 'Open', 'open' FROM generate_series(1, 32) AS n;";

fn people() -> Mapping {
    Mapping {
        copy: CopyColumns::Listed,
        columns: vec![("status_code".into(), "lower(status)".into())],
        reverse: vec![("status".into(), "initcap(status_code)".into())],
        ..plain_mapping(("people", &["id"]), ("people", &["id"]))
    }
}

/// Numbers that look random and come again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What a client writes, which values it writes, and how the twin calls it.
#[derive(Clone, Copy)]
struct Side {
    table: &'static str,
    column: &'static str,
    name: &'static str,
}

fn sides(bed: &Bed) -> Vec<Side> {
    let (old, new) =
        if bed.mapping.is_in_place() { ("people", "people") } else { ("leads", "leads_v2") };
    let mut sides = vec![Side { table: old, column: "status", name: "old" }];
    if bed.direction == Direction::Both {
        sides.push(Side { table: new, column: "status_code", name: "new" });
    }
    sides
}

/// A write of a row, with its note.
fn write(dice: &mut Dice, Side { table, column, name }: Side) -> String {
    let id = dice.roll(IDS + 4) + 1;
    // What the other shape would make of it is something else.
    let value = format!("{}{}", if name == "new" { "nEw" } else { "Old" }, dice.roll(1_000_000));
    let note = |write: String, gone: bool| {
        let (side, value) = if gone { ("gone", "NULL") } else { (name, &*format!("'{value}'")) };
        format!(
            "WITH w AS ({write} RETURNING id) INSERT INTO twin SELECT id, '{side}', {value} FROM w \
             ON CONFLICT (id) DO UPDATE SET side = EXCLUDED.side, v = EXCLUDED.v"
        )
    };
    let delete = format!("DELETE FROM {table} WHERE id = {id}");
    let insert = format!(
        "INSERT INTO {table} (id, {column}) VALUES ({id}, '{value}') ON CONFLICT (id) DO UPDATE SET {column} = EXCLUDED.{column}"
    );
    match dice.roll(6) {
        0..=2 => note(format!("UPDATE {table} SET {column} = '{value}' WHERE id = {id}"), false),
        3 => note(delete, true),
        4 => note(insert, false),
        _ => format!("{}; {}", note(delete, true), note(insert, false)),
    }
}

/// Plays a client. Returns what it was refused.
async fn play(mut client: PgConnection, seed: u64, side: Side) -> Vec<String> {
    let (mut dice, mut refused) = (Dice(seed), Vec::new());
    for _ in 0..WRITES {
        let isolation = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
            [usize::try_from(dice.roll(3)).unwrap()];
        let end = if dice.roll(5) == 0 { "ROLLBACK" } else { "COMMIT" };
        let first = write(&mut dice, side);
        let script = format!(
            "BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM {}; SELECT pg_sleep(0.01); {first}; SELECT pg_sleep(0.005); {end}",
            side.table
        );
        if let Err(error) = say(&mut client, &script).await {
            refused.push(error.as_database_error().unwrap().code().unwrap().into_owned());
            say(&mut client, "ROLLBACK").await.unwrap();
        }
    }
    refused
}

/// Spoils the copies of a range, but not those that a client of the new shape wrote.
fn spoil(bed: &Bed, (lo, hi): (u64, u64)) -> String {
    let new = if bed.mapping.is_in_place() { "people" } else { "leads_v2" };
    let theirs = format!(
        "id > {lo} AND id <= {hi} AND NOT EXISTS (SELECT FROM twin WHERE twin.id = {new}.id AND side = 'new')"
    );
    let more = if bed.mapping.is_in_place() {
        String::new()
    } else {
        format!(
            "DELETE FROM {new} WHERE id % 3 = 1 AND {theirs};
             INSERT INTO {new} (id, status_code) SELECT n, 'extra' FROM generate_series({lo} + 1, {hi}) AS n
             WHERE n % 2 = 0 AND NOT EXISTS (SELECT FROM twin WHERE twin.id = n AND side = 'new') ON CONFLICT DO NOTHING;"
        )
    };
    format!(
        "BEGIN; SET LOCAL lock_timeout = '200ms'; SELECT set_config('phasegate.guard', '{}', true);
         SELECT 1 FROM {new} WHERE id > {lo} AND id <= {hi} ORDER BY id FOR UPDATE;
         UPDATE {new} SET status_code = 'bad' WHERE id % 3 <> 1 AND {theirs}; {more} COMMIT",
        id(&leads())
    )
}

/// Repairs a range, and settles, as the engine does. Returns the rows repaired.
async fn repair(bed: &Bed, (lo, hi): (u64, u64)) -> u64 {
    let key = |id: u64| Some(Key(vec![Cell::Integer(i64::try_from(id).unwrap())]));
    let range = Chunk { lo: key(lo), hi: key(hi) };
    loop {
        // It yields to clients; what it leaves is taken up again.
        let _ = bed.postgres.settle(&bed.fence, &bed.mapping).await;
        match bed.postgres.repair_chunk(&bed.fence, &bed.mapping, bed.direction, &range).await {
            Ok(rows) => return rows,
            Err(Error::Failed(failure)) if failure.class == FailureClass::Contention => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Rows that are not what the twin says, or what they were before.
fn lost(bed: &Bed) -> String {
    let (old, new) =
        if bed.mapping.is_in_place() { ("people", "people") } else { ("leads", "leads_v2") };
    format!(
        "SELECT count(*) FROM generate_series(1, {IDS} + 4) AS n
         LEFT JOIN {old} AS o ON o.id = n LEFT JOIN {new} AS w ON w.id = n LEFT JOIN twin ON twin.id = n
         WHERE CASE coalesce(side, 'none')
           WHEN 'gone' THEN o.id IS NOT NULL OR w.id IS NOT NULL
           WHEN 'old' THEN o.status IS DISTINCT FROM v OR w.status_code IS DISTINCT FROM lower(v)
           WHEN 'new' THEN w.status_code IS DISTINCT FROM v OR o.status IS DISTINCT FROM initcap(v)
           ELSE (o.status IS DISTINCT FROM 'Open' OR w.status_code IS DISTINCT FROM 'open') <> (n > {IDS})
             OR (n > {IDS} AND (o.id IS NOT NULL OR w.id IS NOT NULL)) END"
    )
}

#[tokio::test]
async fn clients_write_the_very_rows_under_repair_and_nothing_of_it_is_lost() {
    for (setup, mapping, direction) in [
        (TABLES, leads(), Direction::Forward),
        (TABLES, both_leads(), Direction::Both),
        (PEOPLE, people(), Direction::Both),
    ] {
        let Some(bed) = Bed::with(&format!("{TWIN} {setup}"), mapping, direction).await else {
            return;
        };
        let of_sides = sides(&bed);
        let mut clients = tokio::task::JoinSet::new();
        for at in 0..CLIENTS {
            let side = of_sides[usize::try_from(at).unwrap() % of_sides.len()];
            clients.spawn(play(bed.client().await, 7_000 + at, side));
        }
        let mut spoiler = bed.client().await;
        let (mut repaired, mut rounds, mut refused) = (0, 0, Vec::new());
        // At least two rounds, whoever is faster.
        while !clients.is_empty() || rounds < 2 {
            for lo in (0..IDS + 4).step_by(usize::try_from(RANGE).unwrap()) {
                let range = (lo, lo + RANGE);
                if say(&mut spoiler, &spoil(&bed, range)).await.is_err() {
                    say(&mut spoiler, "ROLLBACK").await.unwrap();
                }
                repaired += repair(&bed, range).await;
            }
            rounds += 1;
            while let Some(done) = clients.try_join_next() {
                refused.extend(done.unwrap());
            }
        }
        while bed.settle().await > 0 {}
        let place = format!("{direction:?}, {rounds} rounds, {repaired} repaired");
        assert!(repaired >= 5, "{place}");
        let compared =
            bed.postgres.compare_chunk(&bed.mapping, direction, &Chunk { lo: None, hi: None });
        let compared = compared.await.unwrap();
        assert!(compared.is_clean(), "{place}: {compared:?}");
        assert_eq!(bed.number(&lost(&bed)).await, 0, "{place}");
        // Who writes two tables, or one row's two halves, from both ends may deadlock with others who do.
        let known =
            |code: &String| code == "40001" || (direction == Direction::Both && code == "40P01");
        assert!(refused.iter().all(known), "{place}: {refused:?}");
    }
}
