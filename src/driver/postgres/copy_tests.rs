//! Copying and comparing end to end: every kind of key and value, and clients that write meanwhile.
//!
//! What comes out is held against SQL that has nothing of the driver's.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::catalogue::quote;
use super::fixture::{Database, class, entered, mapping, work};
use super::shape::shape;
use super::{Postgres, marks};
use crate::copy::chunk::{Chunk, Planned, Walk};
use crate::copy::compare::Compared;
use crate::driver::{Copied, Error, Fence, Sink as _, Source as _, TxKind, Verifier as _, Window};
use crate::run::{Difference, Direction, FailureClass, Mapping, OnExisting, Way, Winner};

/// Tables of 1,000 rows, each with another kind of key, and a copy of each that is empty.
pub(super) const KEYS: [(&str, &[&str], &str, &str); 11] = [
    ("plain", &["id"], "id bigint", "x"),
    ("small", &["id"], "id integer", "x"),
    ("pair", &["a", "b"], "a bigint, b text", "x / 10, 'b' || x"),
    ("uid", &["id"], "id uuid", "md5(x::text)::uuid"),
    (
        "folded",
        &["k"],
        "k text COLLATE \"und-x-icu\"",
        "CASE x % 2 WHEN 0 THEN 'K' ELSE 'k' END || x",
    ),
    ("bytes", &["k"], "k bytea", "decode(md5(x::text), 'hex')"),
    ("money_", &["k"], "k numeric(10,2)", "x / 100.0"),
    ("at", &["k"], "k timestamptz", "timestamptz '1800-01-01' + x * interval '77 days 1.000001 s'"),
    ("padded", &["k"], "k char(12)", "'k' || x"),
    (
        "Order \"By\"",
        &["select", "Größe"],
        "\"select\" bigint, \"Größe\" varchar(40)",
        "x % 7, 'ü''\"' || x",
    ),
    (
        "a_name_of_sixty_three_bytes_which_is_all_that_postgresql_takes_",
        &["id"],
        "id date",
        "date '2000-01-01' + x",
    ),
];

pub(super) async fn tables() -> Option<Database> {
    let mut script = Vec::new();
    for (name, key, columns, values) in KEYS {
        for name in [name.to_owned(), copy_of(name)] {
            let (name, key): (_, Vec<String>) =
                (quote(&name), key.iter().map(|k| quote(k)).collect());
            let key = key.join(", ");
            script.push(format!("CREATE TABLE {name} ({columns}, n bigint, PRIMARY KEY ({key}));"));
        }
        let name = quote(name);
        script.push(format!(
            "INSERT INTO {name} SELECT {values}, x FROM generate_series(1, 1000) AS x;"
        ));
    }
    Database::with(&script.concat()).await
}

fn copy_of(name: &str) -> String {
    format!("{}2", name.get(..name.len() - 1).unwrap())
}

/// Each table with its key, mapped to its copy.
pub(super) fn mappings() -> Vec<Mapping> {
    KEYS.iter()
        .map(|(name, key, ..)| {
            let quoted = |name: &str| quote(name);
            mapping((&quoted(name), key), (&quoted(&copy_of(name)), key))
        })
        .collect()
}

/// Makes the tables of marks that a sync would have.
pub(super) async fn mark(postgres: &Postgres, fence: &Fence, mapping: &Mapping) {
    let mut tx = postgres.connections.begin(fence, TxKind::Install).await.unwrap();
    let shape = shape(tx.conn().unwrap(), mapping).await.unwrap();
    marks::create(&mut tx, &shape).await.unwrap();
    tx.commit().await.unwrap();
}

/// Copies everything by chunks of `rows` rows, with as many workers as there are fences behind the first one. A chunk that had
/// to yield is tried again. Returns the rows read and written.
pub(super) async fn copy_all(
    postgres: &Arc<Postgres>,
    fences: &[Fence],
    (mapping, direction): (&Mapping, Direction),
    rows: u32,
) -> (u64, u64) {
    let step = work("copy", Way::Forward);
    loop {
        let size = Window { rows, count: 8, is_fixed: true };
        let state = postgres.plan_chunks(&fences[0], &step, mapping, size).await.unwrap();
        if state.open.is_empty() && matches!(state.walk, Walk::Ended { .. }) {
            postgres.finish_copy(&fences[0], &step).await.unwrap();
            return (state.rows_read, state.rows_written);
        }
        let queue = Arc::new(tokio::sync::Mutex::new(state.open));
        let workers = fences[1..].iter().map(|fence| {
            let (postgres, queue, mapping) = (postgres.clone(), queue.clone(), mapping.clone());
            let (fence, step) = (fence.clone(), step.clone());
            tokio::spawn(async move {
                loop {
                    let Some(chunk) = queue.lock().await.pop() else { return };
                    loop {
                        let done =
                            postgres.copy_chunk(&fence, &step, &mapping, direction, &chunk).await;
                        match done {
                            Ok(_) => break,
                            Err(Error::Failed(failure))
                                if failure.class == FailureClass::Contention => {}
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                }
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await.unwrap();
        }
    }
}

/// Compares everything in chunks, as the engine does. Returns the sum and the number of chunks.
pub(super) async fn compare_all(
    postgres: &Postgres,
    mapping: &Mapping,
    direction: Direction,
) -> (Compared, u32) {
    let (mut sum, mut chunks, mut lo) = (Compared::default(), 0, None);
    loop {
        let hi = postgres.verify_bound(mapping, lo.as_ref(), 100).await.unwrap();
        let chunk = Chunk { lo: lo.clone(), hi: hi.clone() };
        sum.add(postgres.compare_chunk(mapping, direction, &chunk).await.unwrap());
        chunks += 1;
        if hi.is_none() {
            return (sum, chunks);
        }
        lo = hi;
    }
}

pub(super) fn shown(compared: &Compared) -> Vec<String> {
    let show = |d: &Difference| format!("{:?} {} {}", d.kind, d.key, d.columns.join("+"));
    compared.samples.iter().map(show).collect()
}

#[tokio::test]
async fn every_kind_of_key_is_copied_and_compared() {
    let Some(database) = tables().await else { return };
    let postgres = Arc::new(database.open().await);
    for (mapping, token) in mappings().iter().zip(1..) {
        let fences = entered(&postgres, token).await;
        database.run("DELETE FROM phasegate.copies; DELETE FROM phasegate.steps").await;
        let counts = copy_all(&postgres, &fences[..3], (mapping, Direction::Forward), 130).await;
        let (from, into) = (&mapping.from.table, &mapping.into.table);
        assert_eq!(counts, (1000, 1000), "{from}");
        let (sum, chunks) = compare_all(&postgres, mapping, Direction::Forward).await;
        assert!(sum.is_clean() && sum.rows == 1000 && chunks == 11, "{from}: {chunks} {sum:?}");
        let differ = format!(
            "SELECT count(*) FROM (({0} EXCEPT ALL {1}) UNION ALL ({1} EXCEPT ALL {0})) AS d",
            format_args!("SELECT * FROM {from}"),
            format_args!("SELECT * FROM {into}")
        );
        assert_eq!(database.number(&differ).await, 0, "{from}");
        database
            .run(&format!(
                "DELETE FROM {into} WHERE n % 100 = 7; UPDATE {into} SET n = -n WHERE n % 100 = 8;
            DELETE FROM {from} WHERE n % 100 = 9"
            ))
            .await;
        let (sum, _) = compare_all(&postgres, mapping, Direction::Forward).await;
        assert_eq!((sum.missing, sum.different, sum.extra), (10, 10, 10), "{from}");
        for chunk in [Chunk { lo: None, hi: None }] {
            let fence = &fences[0];
            let repaired = postgres.repair_chunk(fence, mapping, Direction::Forward, &chunk).await;
            assert_eq!(repaired.unwrap(), 30, "{from}");
        }
        assert!(compare_all(&postgres, mapping, Direction::Forward).await.0.is_clean(), "{from}");
        assert_eq!(database.number(&differ).await, 0, "{from}");
    }
}

#[tokio::test]
async fn partitioned_tables_of_other_schemas_are_copied_and_compared() {
    let Some(database) = Database::with(
        "CREATE SCHEMA \"Old.One\"; CREATE SCHEMA new;
         CREATE TABLE \"Old.One\".events (day date, id bigint, v text, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
         CREATE TABLE \"Old.One\".e1 PARTITION OF \"Old.One\".events FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
         CREATE TABLE \"Old.One\".e2 PARTITION OF \"Old.One\".events DEFAULT;
         CREATE TABLE new.events (day date, id bigint, v text, w text GENERATED ALWAYS AS (v || '!') STORED,
            PRIMARY KEY (day, id)) PARTITION BY HASH (id);
         CREATE TABLE new.n1 PARTITION OF new.events FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE new.n2 PARTITION OF new.events FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO \"Old.One\".events SELECT date '2024-01-01' + x % 60, x, 'V' FROM generate_series(1, 600) AS x",
    )
    .await else { return };
    let postgres = Arc::new(database.open().await);
    let fences = entered(&postgres, 1).await;
    let mut events =
        mapping((r#""Old.One".events"#, &["day", "id"]), ("new.events", &["day", "id"]));
    events.columns =
        vec![("v".into(), r#"lower(events.v) || coalesce("Old.One".events.v, '')"#.into())];
    events.filter = Some("events.id <> 13".into());
    let counts = copy_all(&postgres, &fences[..3], (&events, Direction::Forward), 70).await;
    assert_eq!(counts, (599, 599));
    database.run("UPDATE new.events SET v = 'x' WHERE id = 5; DELETE FROM \"Old.One\".events WHERE id = 6; DELETE FROM new.events WHERE id = 7").await;
    let (sum, _) = compare_all(&postgres, &events, Direction::Forward).await;
    let expected =
        ["Different \"2024-01-06\", 5 v", "Missing \"2024-01-08\", 7 ", "Extra \"2024-01-07\", 6 "];
    assert_eq!(shown(&sum), expected);
    let all = Chunk { lo: None, hi: None };
    let repaired = postgres.repair_chunk(&fences[0], &events, Direction::Forward, &all).await;
    assert_eq!(repaired.unwrap(), 3);
    let right = "SELECT count(*) FROM new.events JOIN \"Old.One\".events AS o USING (day, id) WHERE events.v = 'vV' AND w = 'vV!'";
    assert_eq!(database.number(right).await, 598);
    assert_eq!(database.number("SELECT count(*) FROM new.events").await, 598);
}

#[tokio::test]
async fn equal_keys_that_are_not_the_same_are_a_difference() {
    let Some(database) = Database::with(
        "CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE o (k text COLLATE folded PRIMARY KEY, n numeric(10,2)); CREATE TABLE p (LIKE o INCLUDING ALL);
         INSERT INTO o VALUES ('Ann', 1), ('bob', 2), ('Chloé', 3); INSERT INTO p VALUES ('ann', 1), ('bob', 2);
         CREATE TABLE a (k numeric PRIMARY KEY); CREATE TABLE b (LIKE a INCLUDING ALL);
         INSERT INTO a VALUES (1.0), (2.50); INSERT INTO b VALUES (1.0), (2.5)",
    )
    .await else { return };
    let postgres = Arc::new(database.open().await);
    let fences = entered(&postgres, 1).await;
    let people = mapping(("o", &["k"]), ("p", &["k"]));
    let (sum, _) = compare_all(&postgres, &people, Direction::Forward).await;
    assert_eq!(shown(&sum), ["Different \"Ann\" k", "Missing \"Chloé\" "]);
    let all = Chunk { lo: None, hi: None };
    let repaired = postgres.repair_chunk(&fences[0], &people, Direction::Forward, &all).await;
    assert_eq!(repaired.unwrap(), 2);
    assert_eq!(database.text("SELECT string_agg(k, ',' ORDER BY k) FROM p").await, "Ann,bob,Chloé");
    let numbers = mapping(("a", &["k"]), ("b", &["k"]));
    let (sum, _) = compare_all(&postgres, &numbers, Direction::Forward).await;
    assert_eq!(shown(&sum), ["Different \"2.50\" k"]);
    if database.number("SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'").await
        == 0
    {
        use std::io::Write as _;
        writeln!(
            std::io::stderr(),
            "NOT RUN: citext is not installed (Debian: postgresql-contrib)"
        )
        .unwrap();
        return;
    }
    database
        .run("CREATE EXTENSION citext; CREATE TABLE c (k citext PRIMARY KEY, v citext); CREATE TABLE d (LIKE c INCLUDING ALL);
            INSERT INTO c SELECT 'K' || x, 'V' FROM generate_series(1, 300) AS x; INSERT INTO d VALUES ('k7', 'V'), ('K8', 'v')")
        .await;
    let texts = mapping(("c", &["k"]), ("d", &["k"]));
    let counts = copy_all(&postgres, &fences[..2], (&texts, Direction::Forward), 90).await;
    assert_eq!(counts, (300, 298));
    let (sum, _) = compare_all(&postgres, &texts, Direction::Forward).await;
    assert_eq!(shown(&sum), ["Different \"K7\" k", "Different \"K8\" v"]);
}

#[tokio::test]
async fn values_are_compared_as_they_are_stored_whatever_their_type() {
    let types = [
        ("numeric", "1.0", "1.00"),
        ("double precision", "0", "'-0'"),
        ("real", "'NaN'", "NULL"),
        ("json", "'{\"a\":1}'", "'{\"a\": 1}'"),
        ("jsonb", "'{\"a\":1, \"b\":2}'", "'{\"b\":2}'"),
        ("point", "'(1,2)'", "'(1,3)'"),
        ("interval", "'1 day'", "'24 hours'"),
        ("char(5)", "'ab'", "'ac'"),
        ("text COLLATE folded", "'Ann'", "'ann'"),
        ("varchar(3)", "'abc'", "'abd'"),
        ("bytea", "'\\x00ff'", "'\\x00fe'"),
        ("timestamptz", "'2024-02-29 UTC'", "'infinity'"),
        ("int[]", "'{1,NULL,3}'", "'{1,2,3}'"),
        ("mood", "'sad'", "'glad'"),
        ("bit(4)", "'1010'", "'1011'"),
        ("text", "repeat('x', 100000)", "repeat('x', 100001)"),
        ("boolean", "NULL", "false"),
    ];
    let (mut columns, mut values, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for (at, (kind, value, other)) in types.iter().enumerate() {
        columns.push(format!(", c{at} {kind}"));
        values.push(format!(", {value}"));
        others.push(format!("UPDATE p SET c{at} = {other} WHERE id = {};", at + 100));
    }
    let (columns, values) = (columns.concat(), values.concat());
    let Some(database) = Database::with(&format!(
        "CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TYPE mood AS ENUM ('sad', 'glad');
         CREATE TABLE o (id int PRIMARY KEY {columns}); CREATE TABLE p (LIKE o INCLUDING ALL);
         INSERT INTO o SELECT x {values} FROM generate_series(1, 200) AS x"
    ))
    .await else { return };
    let postgres = Arc::new(database.open().await);
    let fences = entered(&postgres, 1).await;
    let mapping = mapping(("o", &["id"]), ("p", &["id"]));
    let counts = copy_all(&postgres, &fences[..3], (&mapping, Direction::Forward), 60).await;
    assert_eq!(counts, (200, 200));
    assert!(compare_all(&postgres, &mapping, Direction::Forward).await.0.is_clean());
    database.run(&others.concat()).await;
    let (sum, _) = compare_all(&postgres, &mapping, Direction::Forward).await;
    let expected: Vec<String> =
        (0..types.len()).map(|at| format!("Different {} c{at}", at + 100)).collect();
    assert_eq!(shown(&sum), expected);
    let all = Chunk { lo: None, hi: None };
    let repaired = postgres.repair_chunk(&fences[0], &mapping, Direction::Forward, &all).await;
    assert_eq!(repaired.unwrap(), types.len() as u64);
    assert!(compare_all(&postgres, &mapping, Direction::Forward).await.0.is_clean());
}

/// A sync in a few lines: it learns which keys changed and reads their rows anew. Right for clients under READ COMMITTED.
const SYNC: &str = "
    CREATE FUNCTION sync_one(k bigint) RETURNS void LANGUAGE sql AS $$
        INSERT INTO leads_v2 (id, status_code, n) SELECT id, lower(status), n FROM leads WHERE id = k AND n IS NOT NULL
            ON CONFLICT (id) DO UPDATE SET status_code = excluded.status_code, n = excluded.n;
        DELETE FROM leads_v2 WHERE id = k AND NOT EXISTS (SELECT 1 FROM leads WHERE id = k AND n IS NOT NULL);
    $$;
    CREATE FUNCTION sync() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP <> 'INSERT' THEN PERFORM sync_one(OLD.id); END IF;
        IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND NEW.id <> OLD.id) THEN PERFORM sync_one(NEW.id); END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER sync AFTER INSERT OR UPDATE OR DELETE ON leads FOR EACH ROW EXECUTE FUNCTION sync();";

/// Writes to `leads` until told to stop: inserts, updates, deletes and key changes, drawn from a seed. A deadlock or lock
/// timeout is the client's to see: none may happen.
async fn write_meanwhile(mut client: PgConnection, seed: u64, stop: Arc<AtomicBool>) -> u64 {
    let (mut state, mut writes) = (seed, 0);
    let mut next = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % 6_000
    };
    while !stop.load(Ordering::Relaxed) || writes < 200 {
        let (what, one, two) = (next() % 5, next(), next());
        let sql = match what {
            0 => format!("INSERT INTO leads VALUES ({one}, 'New', {two}) ON CONFLICT DO NOTHING"),
            1 => format!("UPDATE leads SET status = 'At{two}', n = {two} WHERE id = {one}"),
            2 => format!("DELETE FROM leads WHERE id = {one}"),
            3 => format!(
                "UPDATE leads SET id = {two} WHERE id = {one} AND NOT EXISTS (SELECT 1 FROM leads WHERE id = {two})"
            ),
            _ => format!("UPDATE leads SET status = NULL WHERE id BETWEEN {one} AND {}", one + 3),
        };
        let done = sqlx::query(AssertSqlSafe(sql)).execute(&mut client).await;
        match done.as_ref().err().and_then(super::error::code) {
            // Two writers gave a row the same new key: theirs alone.
            Some("23505") => {}
            _ => {
                done.unwrap();
            }
        }
        writes += 1;
    }
    client.close().await.unwrap();
    writes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_beside_writers_leaves_both_sides_equal() {
    let Some(database) = Database::with(&format!(
        "CREATE TABLE leads (id bigint PRIMARY KEY, status text, n numeric);
         CREATE TABLE leads_v2 (id bigint PRIMARY KEY, status_code text, n numeric);
         INSERT INTO leads SELECT x, 'Open', x / 3.0 FROM generate_series(1, 5000) AS x; {SYNC}"
    ))
    .await
    else {
        return;
    };
    let postgres = Arc::new(database.open().await);
    let fences = entered(&postgres, 1).await;
    let mut mapping = mapping(("leads", &["id"]), ("leads_v2", &["id"]));
    mapping.columns = vec![("status_code".into(), "lower(status)".into())];
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for seed in [11, 23] {
        let client = database.client().await;
        writers.push(tokio::spawn(write_meanwhile(client, seed, stop.clone())));
    }
    let (read, written) =
        copy_all(&postgres, &fences[..3], (&mapping, Direction::Forward), 50).await;
    // Both sides are equal in every snapshot, while the writers still write.
    let (live, _) = compare_all(&postgres, &mapping, Direction::Forward).await;
    stop.store(true, Ordering::Relaxed);
    let mut written_by_clients = 0;
    for writer in writers {
        written_by_clients += writer.await.unwrap();
    }
    assert!(live.is_clean(), "{:?}", shown(&live));
    let (sum, _) = compare_all(&postgres, &mapping, Direction::Forward).await;
    assert!(sum.is_clean(), "{:?}", shown(&sum));
    let (old, new) =
        ("SELECT id, lower(status), n FROM leads", "SELECT id, status_code, n FROM leads_v2");
    let differ = format!(
        "SELECT count(*) FROM (({old} EXCEPT ALL {new}) UNION ALL ({new} EXCEPT ALL {old})) AS d"
    );
    assert_eq!(database.number(&differ).await, 0);
    assert_eq!(
        database.number("SELECT count(*) FROM leads").await,
        i64::try_from(sum.rows).unwrap()
    );
    assert!(
        written_by_clients >= 400 && read > 3_000 && written > 1_000 && written <= read,
        "{read} {written}"
    );
}

/// Copies a chunk in a task of its own.
fn copy_beside(
    postgres: &Arc<Postgres>,
    fence: &Fence,
    (mapping, direction): (&Mapping, Direction),
    chunk: &Planned,
) -> tokio::task::JoinHandle<Result<Copied, Error>> {
    let (postgres, fence) = (postgres.clone(), fence.clone());
    let (mapping, chunk) = (mapping.clone(), chunk.clone());
    tokio::spawn(async move {
        let step = work("copy", Way::Forward);
        postgres.copy_chunk(&fence, &step, &mapping, direction, &chunk).await
    })
}

/// Waits until a session of the database waits for a lock, or a task has ended.
async fn until_it_waits<T>(database: &Database, task: &tokio::task::JoinHandle<T>) {
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while database.number(waits).await == 0 && !task.is_finished() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_written_over_is_never_older_than_what_a_client_wrote_while_it_waited() {
    let Some(database) = Database::with(
        "CREATE TABLE o (id bigint PRIMARY KEY, v text); CREATE TABLE p (LIKE o INCLUDING ALL);
         INSERT INTO o SELECT x, 'v' || x FROM generate_series(1, 10) AS x; INSERT INTO p SELECT x, 'stale' FROM generate_series(1, 5) AS x;
         CREATE FUNCTION held_up() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_advisory_xact_lock(6); RETURN NEW; END';
         CREATE TRIGGER held_up BEFORE INSERT ON p FOR EACH ROW WHEN (NEW.id = 6) EXECUTE FUNCTION held_up()",
    )
    .await else { return };
    let postgres = Arc::new(database.open().await);
    let fences = entered(&postgres, 1).await;
    let mut pairs = mapping(("o", &["id"]), ("p", &["id"]));
    pairs.on_existing = OnExisting::Update;
    let (step, size) = (work("copy", Way::Forward), Window { rows: 100, count: 1, is_fixed: true });
    let planned = postgres.plan_chunks(&fences[0], &step, &pairs, size).await.unwrap();
    // The chunk is held up behind row 3, which it has passed and is still to write over.
    let mut client = database.client().await;
    sqlx::raw_sql("SELECT pg_advisory_lock(6)").execute(&mut client).await.unwrap();
    let whole = (&pairs, Direction::Forward);
    let copying = copy_beside(&postgres, &fences[1], whole, &planned.open[0]);
    until_it_waits(&database, &copying).await;
    // A client's update and what its trigger makes of it. The chunk has locked the row, and is the one to give way.
    let both =
        "BEGIN; UPDATE o SET v = 'fresh' WHERE id = 3; UPDATE p SET v = 'fresh' WHERE id = 3;
        SELECT pg_advisory_unlock(6)";
    sqlx::raw_sql(both).execute(&mut client).await.unwrap();
    until_it_waits(&database, &copying).await;
    sqlx::raw_sql("COMMIT").execute(&mut client).await.unwrap();
    let mut copied = copying.await.unwrap();
    if matches!(&copied, Err(Error::Failed(f)) if f.class == FailureClass::Contention) {
        copied = copy_beside(&postgres, &fences[1], whole, &planned.open[0]).await.unwrap();
    }
    let copied = copied.unwrap();
    assert_eq!((copied.rows_read, copied.rows_written), (10, 9));
    assert_eq!(database.text("SELECT v FROM p WHERE id = 3").await, "fresh");
    assert!(compare_all(&postgres, &pairs, Direction::Forward).await.0.is_clean());
}

#[tokio::test]
async fn in_place_the_copy_leaves_alone_what_a_new_client_wrote_while_it_waited() {
    let Some(database) = Database::with(
        "CREATE TABLE p (id bigint PRIMARY KEY, a text, b text, c text, other int DEFAULT 0);
         INSERT INTO p SELECT x, 'A' || x, NULL, 'c' FROM generate_series(1, 10) AS x",
    )
    .await
    else {
        return;
    };
    let postgres = Arc::new(database.open().await);
    let fences = entered(&postgres, 1).await;
    let mut people = mapping(("p", &["id"]), ("p", &["id"]));
    people.columns = vec![("b".into(), "lower(a)".into())];
    people.reverse = vec![("a".into(), "upper(b)".into())];
    mark(&postgres, &fences[0], &people).await;
    let step = work("copy", Way::Forward);
    let size = Window { rows: 100, count: 1, is_fixed: true };
    let planned = postgres.plan_chunks(&fences[0], &step, &people, size).await.unwrap();
    let id = shape(&mut database.client().await, &people).await.unwrap().id;
    let mut client = database.client().await;
    let write = format!(
        "BEGIN; UPDATE p SET b = 'MiXed', a = 'MIXED' WHERE id = 4; INSERT INTO phasegate.kept_{id} VALUES (0, 4)"
    );
    sqlx::raw_sql(AssertSqlSafe(write)).execute(&mut client).await.unwrap();
    let copying = copy_beside(&postgres, &fences[1], (&people, Direction::Both), &planned.open[0]);
    until_it_waits(&database, &copying).await;
    // And one that changes a row's old side, as its trigger would carry over.
    sqlx::raw_sql("UPDATE p SET a = 'Late', b = 'late' WHERE id = 5; COMMIT")
        .execute(&mut client)
        .await
        .unwrap();
    let mut copied = copying.await.unwrap();
    // A machine so slow that the chunk gave up: then it is tried again, as the engine does.
    if matches!(&copied, Err(Error::Failed(f)) if f.class == FailureClass::Contention) {
        copied = postgres
            .copy_chunk(&fences[1], &step, &people, Direction::Both, &planned.open[0])
            .await;
    }
    let copied = copied.unwrap();
    assert_eq!((copied.rows_read, copied.rows_written), (10, 8));
    let rows = "SELECT string_agg(id || coalesce(b, '-') || other || c, ' ' ORDER BY id) FROM p WHERE id BETWEEN 3 AND 6";
    assert_eq!(database.text(rows).await, "3a30c 4MiXed0c 5late0c 6a60c");
    let (sum, _) = compare_all(&postgres, &people, Direction::Both).await;
    assert!(sum.is_clean() && sum.rows == 10, "{sum:?}");
    // A kept row that no side bears out is wrong, and so is one that nobody has kept.
    database.run("UPDATE p SET b = 'odd' WHERE id IN (4, 7)").await;
    let (sum, _) = compare_all(&postgres, &people, Direction::Both).await;
    assert_eq!(shown(&sum), ["Different 4 b", "Different 7 b"]);
    let all = Chunk { lo: None, hi: None };
    people.winner = Winner::Old;
    let repaired = postgres.repair_chunk(&fences[0], &people, Direction::Both, &all).await;
    assert_eq!(repaired.unwrap(), 2);
    assert!(compare_all(&postgres, &people, Direction::Both).await.0.is_clean());
    assert_eq!(database.number(&format!("SELECT count(*) FROM phasegate.kept_{id}")).await, 0);
}

#[tokio::test]
async fn a_key_that_the_sync_has_noted_is_undecided_until_it_is_put_right() {
    let Some(database) = Database::with(
        "CREATE TABLE o (id int PRIMARY KEY, v text); CREATE TABLE p (LIKE o INCLUDING ALL);
         INSERT INTO o SELECT x, 'v' FROM generate_series(1, 50) AS x; INSERT INTO p SELECT * FROM o;
         DELETE FROM o WHERE id = 7; DELETE FROM p WHERE id = 8; UPDATE p SET v = 'w' WHERE id = 9",
    )
    .await else { return };
    let postgres = database.open().await;
    let fences = entered(&postgres, 1).await;
    let pairs = mapping(("o", &["id"]), ("p", &["id"]));
    let (sum, _) = compare_all(&postgres, &pairs, Direction::Forward).await;
    assert_eq!(shown(&sum), ["Missing 8 ", "Different 9 v", "Extra 7 "]);
    mark(&postgres, &fences[0], &pairs).await;
    let id = shape(&mut database.client().await, &pairs).await.unwrap().id;
    database.run(&format!("INSERT INTO phasegate.touched_{id} VALUES (7), (8), (9), (10)")).await;
    let (sum, _) = compare_all(&postgres, &pairs, Direction::Forward).await;
    assert_eq!((sum.pending, sum.missing, sum.extra, sum.different), (3, 0, 0, 0));
    assert!(!sum.is_clean());
    database.run("DELETE FROM p WHERE id = 7; INSERT INTO p VALUES (8, 'v')").await;
    database.run(&format!("DELETE FROM phasegate.touched_{id} WHERE k1 < 9")).await;
    let (sum, _) = compare_all(&postgres, &pairs, Direction::Forward).await;
    assert_eq!((sum.pending, shown(&sum).len()), (1, 0));
    assert_eq!(
        class(
            postgres
                .repair_chunk(
                    &fences[0],
                    &mapping(("o", &["id"]), ("none", &["id"])),
                    Direction::Forward,
                    &Chunk { lo: None, hi: None }
                )
                .await
        ),
        FailureClass::Stale
    );
}
