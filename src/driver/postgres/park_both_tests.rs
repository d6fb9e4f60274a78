//! Rows that can't be copied, beside clients that go on writing: of both shapes, and many at once.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::postgres::PgConnection;

use super::Postgres;
use super::error::code;
use super::fixture::{Database, entered, mapping, work};
use super::sync_tests::say;
use crate::driver::{DualWriter as _, Fence, Parker as _, Source as _, SyncState, Window};
use crate::run::{CopyColumns, Direction, FailureClass, Mapping, Parking, Way};

/// Rows of which each tenth can't be copied.
const TABLES: &str = "
    CREATE TABLE leads (id int PRIMARY KEY, n text);
    CREATE TABLE leads_v2 (id int PRIMARY KEY, amount int);
    INSERT INTO leads SELECT x, CASE WHEN x % 10 = 0 THEN 'x' ELSE x::text END FROM generate_series(1, 200) AS x;";
const IN_PLACE: &str = "
    CREATE TABLE leads (id int PRIMARY KEY, n text, amount int);
    INSERT INTO leads SELECT x, CASE WHEN x % 10 = 0 THEN 'x' ELSE x::text END FROM generate_series(1, 200) AS x;";

/// The keys of rows that can't be copied, and of those that aren't as they should be.
const BAD: &str =
    "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM leads WHERE n !~ '^[0-9]+$'";
const WRONG: &str = "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM leads FULL JOIN leads_v2 USING (id)
    WHERE n IS DISTINCT FROM amount::text";
const WRONG_IN_PLACE: &str = "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM leads WHERE n IS DISTINCT FROM amount::text";

fn leads(into: &str) -> Mapping {
    Mapping {
        copy: CopyColumns::Listed,
        columns: vec![("amount".into(), "n::int".into())],
        reverse: vec![("n".into(), "amount::text".into())],
        parking: Parking { rows_max: Some(1_000), writes: false },
        ..mapping(("leads", &["id"]), (into, &["id"]))
    }
}

struct Bed {
    database: Database,
    postgres: Postgres,
    fences: Vec<Fence>,
    mapping: Mapping,
    direction: Direction,
}

impl Bed {
    async fn with(setup: &str, mapping: Mapping, direction: Direction) -> Option<Self> {
        let database = Database::with(setup).await?;
        let postgres = database.open().await;
        let fences = entered(&postgres, 1).await;
        let sync = work("sync", Way::Forward);
        postgres.install(&fences[0], &sync, &mapping, direction).await.unwrap();
        Some(Self { database, postgres, fences, mapping, direction })
    }

    /// Copies everything in chunks of ten rows.
    async fn copy(&self) {
        let (step, size) =
            (work("copy", Way::Forward), Window { rows: 10, count: 40, is_fixed: true });
        let fence = &self.fences[1];
        let chunks = self.postgres.plan_chunks(fence, &step, &self.mapping, size).await.unwrap();
        for chunk in chunks.open {
            // A client may hold a row for longer than a chunk waits.
            while let Err(error) = self
                .postgres
                .copy_parking(fence, &step, &self.mapping, self.direction, (&chunk, 1_000))
                .await
            {
                assert_eq!(error.class(), Some(FailureClass::Contention), "{error}");
            }
        }
    }

    async fn settle(&self) {
        while self.postgres.settle(&self.fences[0], &self.mapping).await.unwrap() > 0 {}
    }

    async fn retry(&self) -> u64 {
        self.postgres.retry_parked(&self.fences[0], &self.mapping, self.direction).await.unwrap()
    }

    /// The keys of the parked rows, in their order.
    async fn parked(&self) -> String {
        let parked = self.postgres.parked(&self.mapping, self.direction, 1_000).await.unwrap();
        let mut keys: Vec<u32> =
            parked.rows.iter().map(|row| row.key[0].1.parse().unwrap()).collect();
        keys.sort_unstable();
        keys.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
    }

    async fn text(&self, query: &str) -> String {
        self.database.text(&format!("({query})")).await
    }
}

#[tokio::test]
async fn with_both_a_client_of_the_old_shape_takes_its_row_off_and_one_of_the_new_is_told() {
    for (setup, into, wrong) in [(TABLES, "leads_v2", WRONG), (IN_PLACE, "leads", WRONG_IN_PLACE)] {
        let Some(bed) = Bed::with(setup, leads(into), Direction::Both).await else { return };
        bed.copy().await;
        assert_eq!(bed.parked().await, bed.text(BAD).await, "{into}");
        assert_eq!(bed.text(wrong).await, bed.text(BAD).await, "{into}");
        // The trigger holds what a client of the new shape writes against the old side, which can't be worked out: it is told.
        let new = if into == "leads" {
            "UPDATE leads SET amount = 55 WHERE id = 10"
        } else {
            "INSERT INTO leads_v2 VALUES (10, 55)"
        };
        let mut client = bed.database.client().await;
        let told = say(&mut client, new).await.unwrap_err();
        assert_eq!(code(&told), Some("22P02"), "{into}");
        let mended =
            "UPDATE leads SET n = '10' WHERE id = 10; UPDATE leads SET n = NULL WHERE id = 20;
            UPDATE leads SET n = '40' WHERE id = 40; DELETE FROM leads WHERE id = 30";
        bed.database.run(mended).await;
        // From then on the row is anybody's.
        let new = new.replace(
            "INSERT INTO leads_v2 VALUES (10, 55)",
            "UPDATE leads_v2 SET amount = 55 WHERE id = 10",
        );
        bed.database.run(&new).await;
        bed.settle().await;
        let still = "50,60,70,80,90,100,110,120,130,140,150,160,170,180,190,200";
        assert_eq!(bed.parked().await, still, "{into}");
        assert_eq!(bed.retry().await, 16, "{into}");
        assert_eq!(bed.parked().await, still, "{into}");
        assert_eq!(bed.text(wrong).await, still, "{into}");
        let rows = "SELECT string_agg(coalesce(n, '-'), ',' ORDER BY id) FROM leads WHERE id IN (10, 20, 30, 40)";
        assert_eq!(bed.text(rows).await, "55,-,40", "{into}");
        // A key that goes away with its row, and one that comes with another row.
        bed.database
            .run("UPDATE leads SET id = 1050, n = '7' WHERE id = 50; INSERT INTO leads VALUES (50, '8')")
            .await;
        bed.database.run("UPDATE leads SET n = '9' WHERE n = 'x'").await;
        bed.settle().await;
        assert_eq!(bed.retry().await, 0, "{into}");
        assert_eq!((bed.parked().await, bed.text(wrong).await), (String::new(), String::new()));
        let state = bed.postgres.sync_state(&bed.mapping, bed.direction).await.unwrap();
        assert_eq!(state, SyncState::Active);
    }
}

/// What a client does next, by a number that is drawn.
fn statement(drawn: u64, direction: Direction, in_place: bool) -> String {
    let (id, to) = (1 + drawn % 60, 1 + drawn / 256 % 60);
    let n = drawn / 65_536 % 1_000;
    let spoilt = direction == Direction::Forward && n.is_multiple_of(5);
    let n_old = if spoilt { "x".to_owned() } else { n.to_string() };
    match drawn / 7 % 8 {
        0 => format!("DELETE FROM leads WHERE id = {id}"),
        1 => format!(
            "INSERT INTO leads (id, n) VALUES ({id}, '{n_old}') ON CONFLICT (id) DO NOTHING"
        ),
        2 => format!(
            "INSERT INTO leads (id, n) VALUES ({id}, '{n_old}') ON CONFLICT (id) DO UPDATE SET n = EXCLUDED.n"
        ),
        3 => format!(
            "UPDATE leads SET id = {to} WHERE id = {id} AND NOT EXISTS (SELECT FROM leads WHERE id = {to})"
        ),
        4 if direction == Direction::Both && in_place => {
            format!("UPDATE leads SET amount = {n} WHERE id = {id}")
        }
        4 if direction == Direction::Both => {
            format!(
                "INSERT INTO leads_v2 VALUES ({id}, {n}) ON CONFLICT (id) DO UPDATE SET amount = {n}"
            )
        }
        5 => format!("BEGIN; UPDATE leads SET n = '{n_old}' WHERE id = {id}; ROLLBACK"),
        _ => format!("UPDATE leads SET n = '{n_old}' WHERE id = {id}"),
    }
}

/// Writes until it is told to end. A client may be told of a deadlock, of a key that another one has taken meanwhile, and where no
/// write is parked, that the row it gives another key has no number.
async fn write(
    mut client: PgConnection,
    mut drawn: u64,
    (direction, in_place): (Direction, bool),
    ends: Arc<AtomicBool>,
) -> u64 {
    let mut done = 0;
    while !ends.load(Ordering::Relaxed) {
        // Knuth's MMIX generator.
        drawn =
            drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let script = statement(drawn >> 16, direction, in_place);
        match say(&mut client, &script).await {
            Ok(()) => done += 1,
            Err(error) => {
                let code = code(&error).map(str::to_owned);
                let is_fine =
                    matches!(code.as_deref(), Some("40P01" | "23505" | "40001" | "22P02"));
                assert!(is_fine, "{script}: {error}");
                say(&mut client, "ROLLBACK").await.unwrap();
            }
        }
    }
    done
}

/// Whoever writes meanwhile, in the end those rows are parked that can't be copied, and no others; and what is not is as it should be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_writing_clients_what_cannot_be_copied_is_parked_and_nothing_else() {
    for (setup, into, direction) in [
        (TABLES, "leads_v2", Direction::Forward),
        (IN_PLACE, "leads", Direction::Forward),
        (TABLES, "leads_v2", Direction::Both),
        (IN_PLACE, "leads", Direction::Both),
    ] {
        let case = format!("{into}, {direction:?}");
        let in_place = into == "leads";
        let wrong = if in_place { WRONG_IN_PLACE } else { WRONG };
        let mapping = leads(into);
        let parking = Parking { writes: direction == Direction::Forward, ..mapping.parking };
        let mapping = Mapping { parking, ..mapping };
        let few = setup.replace("generate_series(1, 200)", "generate_series(1, 60)");
        let Some(bed) = Bed::with(&few, mapping, direction).await else { return };
        let ends = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for seed in 1..=4 {
            let client = bed.database.client().await;
            let of = (direction, in_place);
            clients.push(tokio::spawn(write(client, seed, of, ends.clone())));
        }
        bed.copy().await;
        // Rows are put right and tried again while clients write to them; what others hold stays for the next time.
        let settled = bed.postgres.settle(&bed.fences[0], &bed.mapping).await.map(|_| 0);
        let retried = bed.postgres.retry_parked(&bed.fences[0], &bed.mapping, direction).await;
        for error in [settled, retried].into_iter().filter_map(Result::err) {
            assert_eq!(error.class(), Some(FailureClass::Contention), "{case}: {error}");
        }
        ends.store(true, Ordering::Relaxed);
        let mut written = 0;
        for client in clients {
            written += client.await.unwrap();
        }
        assert!(written > 0, "{case}");
        bed.settle().await;
        bed.retry().await;
        assert_eq!(bed.parked().await, bed.text(BAD).await, "{case}");
        assert_eq!(bed.text(&bad_or(wrong)).await, "", "{case}");
        bed.database.run("UPDATE leads SET n = '1' WHERE n !~ '^[0-9]+$'").await;
        bed.settle().await;
        assert_eq!(bed.retry().await, 0, "{case}");
        assert_eq!((bed.parked().await, bed.text(wrong).await), (String::new(), String::new()));
    }
}

/// Rows that are wrong without a reason: what can be copied differs, or what can't be is nowhere.
fn bad_or(wrong: &str) -> String {
    let reason = "(n IS NULL OR n ~ '^[0-9]+$' OR id NOT IN (SELECT id FROM leads))";
    format!("{wrong} AND {reason}")
}
