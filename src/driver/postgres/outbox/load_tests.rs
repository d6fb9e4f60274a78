//! Many clients at once, and a relay that is ended again and again: at the end the new side has what the table has.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::fixture::{Bed, Sink, crossing, say};
use crate::copy::chunk::{Cell, Chunk, Key};
use crate::copy::row::Datum;
use crate::driver::Error;
use crate::driver::Fence;
use crate::driver::crossing::{Change, ChangeSource as _, Rows};
use crate::driver::postgres::Postgres;
use crate::driver::postgres::error::code;
use crate::driver::postgres::fixture::entered;
use crate::run::Mapping;

const WRITERS: u64 = 8;
const KEYS: u64 = 60;
const SECONDS: u64 = 5;
/// More relays than these follow each other, and more keys are repaired.
const TOKENS: u64 = 3;
const REPAIRED: u64 = 10;
/// Transactions that clients commit at least.
const WRITTEN: u64 = 100;

const HOT: &str = "CREATE TABLE hot (id bigint PRIMARY KEY, v text, n int, note text);
    INSERT INTO hot SELECT n, 'first', 0 FROM generate_series(1, 60) AS n;
    CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF NEW.note = 'again' THEN UPDATE hot SET v = v || '+', note = NULL WHERE id = NEW.id; END IF; RETURN NULL; END $$;
    CREATE TRIGGER aaa AFTER INSERT OR UPDATE ON hot FOR EACH ROW EXECUTE FUNCTION again();";

/// The same sequence for the same beginning: xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn key(&mut self) -> u64 {
        self.below(KEYS) + 1
    }

    fn statement(&mut self) -> String {
        let (one, two, n) = (self.key(), self.key(), self.below(1_000_000));
        if self.below(60) == 0 {
            // It waits for everybody, and everybody for it.
            return "SET LOCAL lock_timeout = '20ms'; TRUNCATE hot".to_owned();
        }
        match self.below(12) {
            0 | 1 => format!("UPDATE hot SET v = 'u{n}', n = {n} WHERE id = {one}"),
            2 => format!("UPDATE hot SET v = 'a{n}', note = 'again' WHERE id IN ({one}, {two})"),
            3 | 4 => format!("DELETE FROM hot WHERE id = {one}"),
            5 | 6 => format!("INSERT INTO hot VALUES ({one}, 'i{n}', {n}) ON CONFLICT DO NOTHING"),
            7 => format!(
                "INSERT INTO hot VALUES ({one}, 'c{n}', {n}) ON CONFLICT (id) DO UPDATE SET v = excluded.v, n = NULL"
            ),
            8 => format!(
                "UPDATE hot SET id = {two} WHERE id = {one} AND NOT EXISTS (SELECT 1 FROM hot WHERE id = {two})"
            ),
            9 => format!(
                "SAVEPOINT s; DELETE FROM hot WHERE id = {one}; INSERT INTO hot VALUES ({one}, 's{n}', {n}); ROLLBACK TO s"
            ),
            10 => format!(
                "SAVEPOINT s; DELETE FROM hot WHERE id = {one}; INSERT INTO hot VALUES ({one}, 'r{n}', {n}); RELEASE s"
            ),
            _ => format!(
                "MERGE INTO hot h USING (VALUES ({one}), ({two})) AS w (id) ON h.id = w.id AND {one} <> {two} WHEN MATCHED AND h.n % 2 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET v = 'm{n}', n = {n}"
            ),
        }
    }
}

/// Writes until it is told to stop. Returns how many transactions were committed.
async fn writes(
    mut client: PgConnection,
    seed: u64,
    (stop, done): (Arc<AtomicBool>, Arc<AtomicU64>),
) -> u64 {
    let (mut dice, mut committed) = (Dice(seed * 7_919 + 12_345), 0);
    while !stop.load(Ordering::Relaxed) {
        let isolation = ["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
            [usize::try_from(dice.below(4)).unwrap()];
        let mut script = format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM hot LIMIT 1");
        for _ in 0..=dice.below(3) {
            script = format!("{script}; {}", dice.statement());
            // Commits come in another order than versions.
            if dice.below(4) == 0 {
                script = format!(
                    "{script}; SELECT pg_sleep({})",
                    [0.002, 0.02][usize::try_from(dice.below(2)).unwrap()]
                );
            }
        }
        let end = if dice.below(8) == 0 { "ROLLBACK" } else { "COMMIT" };
        match say(&mut client, &format!("{script}; {end}")).await {
            Ok(()) => {
                let one = u64::from(end == "COMMIT");
                committed += one;
                done.fetch_add(one, Ordering::Relaxed);
            }
            // Whom the server asks to try again, who lost a race for a key, or who waited in vain.
            Err(error) if matches!(code(&error), Some("40001" | "40P01" | "23505" | "55P03")) => {
                say(&mut client, "ROLLBACK").await.unwrap();
            }
            Err(error) => panic!("{script}: {error}"),
        }
    }
    committed
}

/// Changes are claimed while others are in hand, and applied, until there is nothing left after the writers have stopped. Now and then they are ended: in the middle of
/// a claim, with what they had claimed, or when they had applied and not said so. Their successors have a higher token.
async fn relays(
    (postgres, of): (&Postgres, &Mapping),
    sink: &mut Sink,
    (stop, newest): (&AtomicBool, &Mutex<Option<Fence>>),
) -> u64 {
    let (mut dice, mut token) = (Dice(4_711), 1);
    let mut fences = entered(postgres, token).await;
    let of = [of.clone()];
    loop {
        let is_last = stop.load(Ordering::Relaxed);
        let most = u32::try_from(dice.below(80)).unwrap() + 1;
        let claims = async {
            let one = postgres.claim(&fences[1], &of, (most, &[])).await?;
            let in_hand: Vec<u64> = one.iter().map(|change| change.version).collect();
            let other = postgres.claim(&fences[2], &of, (most, &in_hand)).await?;
            Ok::<_, Error>((one, other))
        };
        let end = if is_last { 9 } else { dice.below(10) };
        let claimed = if end == 0 {
            tokio::time::timeout(Duration::from_millis(dice.below(4)), claims).await.ok()
        } else {
            Some(claims.await)
        };
        if let Some(claimed) = claimed {
            let (one, other) = claimed.unwrap();
            let versions =
                |changes: &[Change]| changes.iter().map(|it| it.version).collect::<Vec<_>>();
            let (ones, others) = (versions(&one), versions(&other));
            assert!(ones.iter().all(|version| !others.contains(version)), "given to both");
            if one.is_empty() && other.is_empty() && is_last {
                return token;
            }
            if end != 1 {
                // The order says nothing.
                for change in other.iter().rev().chain(&one) {
                    sink.change(change);
                }
                if end != 2 {
                    let (one, other) = tokio::join!(
                        postgres.applied(&fences[1], &ones),
                        postgres.applied(&fences[2], &others)
                    );
                    one.unwrap();
                    other.unwrap();
                    continue;
                }
            }
        }
        token += 1;
        // Who takes over ends sessions until there are none left.
        *newest.lock().unwrap() = None;
        fences = entered(postgres, token).await;
        *newest.lock().unwrap() = Some(fences[0].clone());
    }
}

/// A naive relay, as a warning: it reads what is behind the last version that it has seen.
async fn naively(
    mut client: PgConnection,
    stop: &AtomicBool,
    rows: &mut BTreeMap<i64, Option<String>>,
) {
    let mut last = 0_i64;
    loop {
        let is_last = stop.load(Ordering::Relaxed);
        let sql = "SELECT version, key[1]::bigint, image[1] FROM phasegate.outbox WHERE version > $1 AND key <> '{}' ORDER BY version";
        let found = sqlx::query(sql).bind(last).fetch_all(&mut client).await.unwrap();
        if found.is_empty() && is_last {
            return;
        }
        for row in found {
            last = row.get(0);
            rows.insert(row.get(1), row.get(2));
        }
    }
}

async fn load(
    bed: &Bed,
    (stop, done): (&Arc<AtomicBool>, &Arc<AtomicU64>),
    enough: impl Fn() -> bool + Send + 'static,
) -> (Vec<tokio::task::JoinHandle<u64>>, tokio::task::JoinHandle<()>) {
    let mut writers = Vec::new();
    for seed in 1..=WRITERS {
        writers.push(tokio::spawn(writes(
            bed.client().await,
            seed,
            (Arc::clone(stop), Arc::clone(done)),
        )));
    }
    let told = Arc::clone(stop);
    let timer = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(SECONDS)).await;
        // A machine that has more to do takes longer to come as far.
        for _ in 0..600 {
            if enough() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        told.store(true, Ordering::Relaxed);
    });
    (writers, timer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_the_new_side_ends_as_the_table_does() {
    let mapping = crossing("hot", &["id"], &[("v", "v"), ("n", "n")]);
    let Some(bed) = Bed::with(HOT, mapping).await else { return };
    let (stop, done) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
    let pages = Arc::new(AtomicU64::new(0));
    let newest = Arc::new(Mutex::new(Some(bed.fence().clone())));
    let repaired = Arc::new(AtomicU64::new(0));
    let written = Arc::new(AtomicU64::new(0));
    let enough = {
        let (newest, repaired) = (Arc::clone(&newest), Arc::clone(&repaired));
        let written = Arc::clone(&written);
        move || {
            let token = newest.lock().unwrap().as_ref().map_or(0, Fence::token);
            let [repaired, written] = [&repaired, &written].map(|it| it.load(Ordering::Relaxed));
            token > TOKENS && repaired > REPAIRED && written > WRITTEN
        }
    };
    let (writers, timer) = load(&bed, (&stop, &written), enough).await;
    // The copy goes on meanwhile; what it has read is applied late, after changes that came behind it.
    let copy = async {
        let mut read = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let at = i64::try_from(pages.fetch_add(1, Ordering::Relaxed) % 6).unwrap() * 10;
            let bound = |at: i64| Some(Key(vec![Cell::Integer(at)]));
            let chunk = Chunk { lo: bound(at), hi: bound(at + 10) };
            read.push(bed.postgres.page(&bed.of, (&chunk, Rows::All)).await.unwrap());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        read
    };
    let mut sink = Sink::default();
    let relay = relays((&bed.postgres, &bed.of), &mut sink, (&done, &newest));
    // Keys are repaired that need no repair, whether they have a row or not.
    let repair = async {
        let mut dice = Dice(815);
        while !stop.load(Ordering::Relaxed) {
            let key = |_| vec![Datum::Integer(i64::try_from(dice.key()).unwrap())];
            let keys: Vec<Vec<Datum>> = (0..4).map(key).collect();
            let fence = newest.lock().unwrap().clone();
            // Clients have some of them in hand, or another has taken over.
            if let Some(fence) = fence {
                let some = bed.postgres.enqueue(&fence, &bed.of, &keys).await.unwrap_or(0);
                repaired.fetch_add(some, Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let writing = async {
        timer.await.unwrap();
        let mut committed = 0;
        for writer in writers {
            committed += writer.await.unwrap();
        }
        committed
    };
    // What is repaired last is entered when the writers have ended, and is to be carried as well.
    let changing = async {
        let (committed, ()) = tokio::join!(writing, repair);
        done.store(true, Ordering::Relaxed);
        committed
    };
    let (read, token, committed) = tokio::join!(copy, relay, changing);
    for page in read {
        sink.page(page);
    }
    let mut rows =
        bed.postgres.page(&bed.of, (&Chunk { lo: None, hi: None }, Rows::All)).await.unwrap().rows;
    rows.sort();
    assert_eq!(sink.rows(), rows, "{committed} transactions, {token} relays");
    let repaired = repaired.load(Ordering::Relaxed);
    let is_enough = committed > WRITTEN && token > TOKENS && repaired > REPAIRED;
    assert!(is_enough, "{committed} {token} {repaired}");
    assert_eq!(bed.changes().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_behind_the_last_version_loses_changes_under_the_same_load() {
    let mapping = crossing("hot", &["id"], &[("v", "v"), ("n", "n")]);
    let Some(bed) = Bed::with(HOT, mapping).await else { return };
    let (stop, done) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
    let (writers, timer) = load(&bed, (&stop, &Arc::default()), || true).await;
    let mut rows = BTreeMap::new();
    let relay = naively(bed.client().await, &done, &mut rows);
    let writing = async {
        timer.await.unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(relay, writing);
    // It has been at it the whole time, and has not seen all that there is.
    let seen: Vec<i64> = rows.keys().copied().collect();
    assert!(!seen.is_empty());
    let sql = "SELECT DISTINCT ON (key[1]) key[1]::bigint, image[1] FROM phasegate.outbox WHERE key <> '{}' ORDER BY key[1], version DESC";
    let truth = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut bed.client().await).await.unwrap();
    let wrong = truth.iter().filter(|row| rows.get(&row.get(0)) != Some(&row.get(1)));
    assert!(wrong.count() > 0, "a naive cursor lost nothing: the load is too tame for this test");
}
