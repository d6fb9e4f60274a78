//! Random clients under a live sync, with a copy going on between their statements. What must hold at the end is said in
//! SQL of its own, and for `forward` the old table must hold what it would hold without us.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use sqlx::Row as _;
use sqlx::{AssertSqlSafe, Executor as _};

use super::cells;
use super::dual_write::{resolve, settle_noted};
use super::shape_sql::copy_sql;
use super::sync_tests::{Bed, mapping, reversed};
use crate::copy::chunk::{Cell, Chunk, Key};
use crate::run::{Direction, Mapping, OnExisting, Winner};

/// Chunks of two ids each, and an open end.
const BOUNDS: [i64; 4] = [2, 4, 6, 8];

#[derive(Clone, Debug)]
enum Act {
    /// A client's statement.
    Say(String),
    /// The next chunk of the copy.
    Copy,
}

fn id() -> impl Strategy<Value = String> {
    (1..9_i64).prop_map(|id| id.to_string())
}

fn one_of(values: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(values).prop_map(str::to_owned)
}

fn email() -> impl Strategy<Value = String> {
    one_of(&["'a'", "'b'", "'c'", "'A'", "NULL"])
}

fn status() -> impl Strategy<Value = String> {
    one_of(&["'Open'", "'open'", "'won'", "'WON'", "NULL", "''"])
}

fn number() -> impl Strategy<Value = String> {
    one_of(&["1", "1.0", "'1'", "x'31'", "NULL", "-0.5", "9007199254740993"])
}

fn conflict() -> impl Strategy<Value = String> {
    one_of(&["", "", "OR REPLACE", "OR IGNORE", "OR ABORT", "OR ROLLBACK"])
}

/// A statement on a table whose third column is called `code`.
fn statement(table: &'static str, code: &'static str) -> impl Strategy<Value = String> {
    let row = || (id(), email(), status(), number());
    prop_oneof![
        4 => (conflict(), row(), any::<bool>()).prop_map(move |(or, (id, e, s, n), known)| {
            let id = if known { id } else { "NULL".to_owned() };
            format!("INSERT {or} INTO {table} (id, email, {code}, n) VALUES ({id}, {e}, {s}, {n})")
        }),
        1 => (conflict(), row(), row()).prop_map(move |(or, a, b)| format!(
            "INSERT {or} INTO {table} (id, email, {code}, n) VALUES ({}, {}, {}, {}), ({}, {}, {}, {})",
            a.0, a.1, a.2, a.3, b.0, b.1, b.2, b.3
        )),
        2 => (row(), any::<bool>()).prop_map(move |((id, e, s, n), nothing)| format!(
            "INSERT INTO {table} (id, email, {code}, n) VALUES ({id}, {e}, {s}, {n}) ON CONFLICT DO {}",
            if nothing { "NOTHING".to_owned() } else { format!("UPDATE SET {code} = excluded.{code}, n = 1") }
        )),
        3 => (conflict(), id(), status()).prop_map(move |(or, id, s)| {
            format!("UPDATE {or} {table} SET {code} = {s} WHERE id = {id}")
        }),
        2 => (conflict(), id(), email(), number()).prop_map(move |(or, id, e, n)| {
            format!("UPDATE {or} {table} SET email = {e}, n = {n} WHERE id <= {id}")
        }),
        2 => (conflict(), id(), id(), status()).prop_map(move |(or, a, b, s)| {
            format!("UPDATE {or} {table} SET id = {a}, {code} = {s} WHERE id = {b}")
        }),
        1 => conflict().prop_map(move |or| format!("UPDATE {or} {table} SET id = id + 1")),
        1 => conflict().prop_map(move |or| format!("UPDATE {or} {table} SET id = -id WHERE id > 6")),
        2 => id().prop_map(move |id| format!("DELETE FROM {table} WHERE id = {id}")),
        1 => Just(format!("DELETE FROM {table} WHERE email IS NULL OR n = 1")),
    ]
}

/// Statements of one client: alone, in a transaction, or in one that is rolled back.
fn act(table: &'static str, code: &'static str) -> impl Strategy<Value = Act> {
    let one = || statement(table, code);
    prop_oneof![
        8 => one().prop_map(Act::Say),
        1 => (one(), one(), any::<bool>()).prop_map(|(a, b, stays)| {
            Act::Say(format!("BEGIN; {a}; {b}; {}", if stays { "COMMIT" } else { "ROLLBACK" }))
        }),
        1 => (one(), one()).prop_map(|(a, b)| {
            Act::Say(format!("BEGIN; SAVEPOINT s; {a}; ROLLBACK TO s; {b}; COMMIT"))
        }),
        3 => Just(Act::Copy),
    ]
}

/// The bed and how far its copy has come.
struct Walk {
    bed: Bed,
    next: usize,
    /// Queries that count what must not be.
    wrong: &'static [&'static str],
}

impl Walk {
    async fn copy(&mut self) {
        if self.next > BOUNDS.len() {
            return;
        }
        let key = |at: usize| BOUNDS.get(at).map(|id| Key(vec![Cell::Integer(*id)]));
        let lo = self.next.checked_sub(1).and_then(key);
        let chunk = Chunk { lo, hi: key(self.next) };
        let shape = resolve(&mut self.bed.conn, &self.bed.mapping).await.unwrap().shape;
        let sql = copy_sql(&shape, self.bed.direction, &chunk);
        cells::bind_chunk(sqlx::query(AssertSqlSafe(sql)), &chunk)
            .execute(&mut self.bed.conn)
            .await
            .unwrap();
        self.next += 1;
    }

    /// Says it as a client that rolls back what fails. Returns whether it went through.
    async fn say(bed: &mut Bed, sql: &str) -> bool {
        let done = bed.try_run(sql).await.is_ok();
        if !done {
            let _ = bed.try_run("ROLLBACK").await;
        }
        done
    }

    async fn count(&mut self, sql: &str) -> i64 {
        self.bed.conn.fetch_one(AssertSqlSafe(sql.to_owned())).await.unwrap().get(0)
    }

    /// Every query finds nothing wrong.
    async fn check(&mut self) {
        for wrong in self.wrong {
            assert_eq!(self.count(wrong).await, 0, "{wrong}");
        }
    }

    async fn finish(&mut self) {
        while self.next <= BOUNDS.len() {
            self.copy().await;
        }
        // What is left over means nothing: everything holds before it is settled, too.
        self.check().await;
        let shape = resolve(&mut self.bed.conn, &self.bed.mapping).await.unwrap().shape;
        assert_eq!(settle_noted(&mut self.bed.conn, &shape).await.unwrap(), 0);
        self.check().await;
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

const OLD: &str =
    "CREATE TABLE leads (id INTEGER PRIMARY KEY, email TEXT UNIQUE, status TEXT, n, own TEXT);
     INSERT INTO leads (id, email, status, n) VALUES (1, 'a', 'Open', 1), (2, 'b', 'won', '1'), (3, NULL, NULL, x'31'),
        (5, 'e', 'Lost', 1.0), (6, 'f', 'Open', NULL), (8, 'g', 'x', 2);";

fn leads() -> Mapping {
    let columns = [("status_code", "lower(status)")];
    reversed(mapping("leads", "leads_v2", &columns), &[("status", "status_code")])
}

const UNEQUAL: &str = "SELECT count(*) FROM leads AS l FULL JOIN leads_v2 AS v ON v.id = l.id
    WHERE l.id IS NULL OR v.id IS NULL OR v.email IS NOT l.email OR typeof(v.n) IS NOT typeof(l.n) OR v.n IS NOT l.n";

const CODES: &str =
    "SELECT count(*) FROM leads JOIN leads_v2 USING (id) WHERE status_code IS NOT lower(status)";

const CODES_BOTH: &str = "SELECT count(*) FROM leads JOIN leads_v2 USING (id)
    WHERE status_code IS NOT lower(status) AND status IS NOT status_code";

const PEOPLE_FORWARD: &str = "SELECT count(*) FROM people WHERE code IS NOT lower(status)";

const PEOPLE_BOTH: &str =
    "SELECT count(*) FROM people WHERE code IS NOT lower(status) AND status IS NOT code";

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn forward_the_copy_equals_the_source_and_clients_notice_nothing(
        acts in prop::collection::vec(act("leads", "status"), 1..40),
        recursive in any::<bool>(),
        is_unique in any::<bool>(),
        update in any::<bool>(),
    ) {
        run(async {
            let unique = if is_unique { "UNIQUE" } else { "" };
            let schema = format!("PRAGMA recursive_triggers = {recursive}; {OLD}
                CREATE TABLE leads_v2 (id INTEGER PRIMARY KEY, email TEXT {unique}, status_code TEXT, n);");
            let mut mapping = leads();
            if update {
                mapping.on_existing = OnExisting::Update;
            }
            let bed = Bed::live(&schema, mapping.clone(), Direction::Forward).await;
            let mut control = Bed::new(&schema, mapping, Direction::Forward).await;
            let mut walk = Walk { bed, next: 0, wrong: &[UNEQUAL, CODES] };
            for act in &acts {
                match act {
                    Act::Copy => walk.copy().await,
                    Act::Say(sql) => {
                        let with_us = Walk::say(&mut walk.bed, sql).await;
                        let without = Walk::say(&mut control, sql).await;
                        assert_eq!(with_us, without, "{sql}");
                    }
                }
            }
            walk.finish().await;
            let columns = "id, email, status, n";
            assert_eq!(walk.bed.rows("leads", columns).await, control.rows("leads", columns).await);
        });
    }

    #[test]
    fn both_ways_the_sides_agree_whoever_writes(
        acts in prop::collection::vec(
            prop_oneof![act("leads", "status"), act("leads_v2", "status_code")], 1..40),
        recursive in any::<bool>(),
        is_unique in any::<bool>(),
    ) {
        run(async {
            let unique = if is_unique { "UNIQUE" } else { "" };
            let schema = format!("PRAGMA recursive_triggers = {recursive}; {OLD}
                CREATE TABLE leads_v2 (id INTEGER PRIMARY KEY, email TEXT {unique}, status_code TEXT, n);");
            let bed = Bed::live(&schema, leads(), Direction::Both).await;
            let mut walk = Walk { bed, next: 0, wrong: &[UNEQUAL, CODES_BOTH] };
            for act in &acts {
                match act {
                    Act::Copy => walk.copy().await,
                    Act::Say(sql) => { Walk::say(&mut walk.bed, sql).await; }
                }
            }
            walk.finish().await;
        });
    }

    #[test]
    fn in_place_both_shapes_agree_whoever_writes(
        acts in prop::collection::vec(prop_oneof![act("people", "status"), act("people", "code")], 1..40),
        recursive in any::<bool>(),
        forward in any::<bool>(),
        old_wins in any::<bool>(),
    ) {
        run(async {
            let schema = format!("PRAGMA recursive_triggers = {recursive};
                CREATE TABLE people (id INTEGER PRIMARY KEY, email TEXT UNIQUE, status TEXT, n, code TEXT);
                INSERT INTO people (id, email, status) VALUES (1, 'a', 'Open'), (2, 'b', 'won'), (3, NULL, NULL), (6, 'c', 'X');");
            let columns = [("code", "lower(status)")];
            let mut mapping = reversed(mapping("people", "people", &columns), &[("status", "code")]);
            if old_wins {
                mapping.winner = Winner::Old;
            }
            let direction = if forward { Direction::Forward } else { Direction::Both };
            let bed = Bed::live(&schema, mapping, direction).await;
            let wrong: &[&str] = if forward { &[PEOPLE_FORWARD] } else { &[PEOPLE_BOTH] };
            let mut walk = Walk { bed, next: 0, wrong };
            for act in &acts {
                match act {
                    Act::Copy => walk.copy().await,
                    Act::Say(sql) => { Walk::say(&mut walk.bed, sql).await; }
                }
            }
            walk.finish().await;
        });
    }

    /// What a new client said last of a row in place stands, and what an old client said last as well.
    #[test]
    fn in_place_the_last_word_stands(
        words in prop::collection::vec((any::<bool>(), 1..4_i64, status(), any::<bool>()), 1..20),
        recursive in any::<bool>(),
    ) {
        run(async {
            let schema = format!("PRAGMA recursive_triggers = {recursive};
                CREATE TABLE people (id INTEGER PRIMARY KEY, status TEXT, code TEXT);
                INSERT INTO people (id, status) VALUES (1, 'Open'), (2, 'won'), (3, NULL);");
            let columns = [("code", "lower(status)")];
            let mapping = reversed(mapping("people", "people", &columns), &[("status", "code")]);
            let bed = Bed::live(&schema, mapping, Direction::Both).await;
            let mut walk = Walk { bed, next: 0, wrong: &[] };
            for (is_new, id, word, copies) in &words {
                let column = if *is_new { "code" } else { "status" };
                walk.bed.run(&format!("UPDATE people SET {column} = {word} WHERE id = {id}")).await;
                if *copies {
                    walk.copy().await;
                }
                let stands = format!("SELECT count(*) FROM people WHERE id = {id} AND {column} IS {word}");
                assert_eq!(walk.count(&stands).await, 1);
            }
            walk.finish().await;
            for id in 1..4_i64 {
                let Some((is_new, _, word, _)) = words.iter().rev().find(|(_, of, _, _)| *of == id) else { continue };
                let column = if *is_new { "code" } else { "status" };
                let stands = format!("SELECT count(*) FROM people WHERE id = {id} AND {column} IS {word}");
                assert_eq!(walk.count(&stands).await, 1);
            }
        });
    }
}
