//! Claims, fences, statements: [`Session`] for SQLite.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Row as _};

use super::error::refused;
use super::{Sqlite, canonical, cells, chunks, claim, ledger, script};
use crate::bounds::sqlite::{CHUNK_TIME_MAX_MS, COPY_WORKERS};
use crate::copy::chunk::Cell;
use crate::driver::{
    Applied, Capabilities, Claim, Error, Fence, Head, Holder, Identity, Remnant, Session, TxKind,
    Work,
};
use crate::run::{Digest, Ending, FailureClass, RunId, Runnable, StepId, Value, Way};

#[async_trait]
impl Session for Sqlite {
    fn capabilities(&self) -> Capabilities {
        Capabilities { copy_workers: COPY_WORKERS, chunk_time_max_ms: CHUNK_TIME_MAX_MS }
    }

    async fn identity(&self) -> Result<Identity, Error> {
        let system = canonical(self.connections.file()).display().to_string();
        // SQLite has no roles: whoever may write the file may do all.
        Ok(Identity { system, database: "main".to_owned(), role: String::new() })
    }

    async fn holder(&self, claim: &Claim) -> Result<Option<Holder>, Error> {
        let mut reader = self.connections.read().await?;
        let mut holder = claim::elsewhere(reader.conn(), claim).await?;
        if holder.is_none() {
            holder = claim::holder(reader.conn(), &claim.run).await?;
        }
        reader.release().await;
        Ok(holder)
    }

    async fn enter(&self, claim: &Claim, token: u64) -> Result<Vec<Fence>, Error> {
        let mut tx = self.connections.begin_unfenced(TxKind::Enter, &[]).await?;
        let slots_count = claim.parallel.max(1) * (1 + COPY_WORKERS);
        match claim::enter(tx.conn(), claim, token, slots_count).await {
            Ok(fences) => {
                tx.commit().await?;
                Ok(fences)
            }
            Err(error) => {
                tx.roll_back().await;
                Err(error)
            }
        }
    }

    async fn keep_plan(&self, fence: &Fence, plan: &Digest) -> Result<(), Error> {
        let mut tx = self.connections.begin(fence, TxKind::Enter).await?;
        match claim::keep_plan(tx.conn(), fence.run(), plan).await {
            Ok(()) => tx.commit().await.map(|_| ()),
            Err(error) => {
                tx.roll_back().await;
                Err(error)
            }
        }
    }

    async fn leave(&self, fence: &Fence, ending: Ending, head: &Head) -> Result<(), Error> {
        let mut tx = self.connections.begin_unfenced(TxKind::Leave, &[]).await?;
        if claim::has_left(tx.conn(), fence.run()).await? {
            tx.roll_back().await;
            return Ok(());
        }
        ledger::check_fence(tx.conn(), fence).await?;
        claim::leave(tx.conn(), fence.run(), ending, head).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn entered_by(&self, run: &RunId) -> Result<Option<(String, u32)>, Error> {
        let mut reader = self.connections.read().await?;
        let by = claim::entered_by(reader.conn(), run).await?;
        reader.release().await;
        Ok(by)
    }

    async fn head(&self, run: &RunId) -> Result<Option<Head>, Error> {
        let mut reader = self.connections.read().await?;
        let head = ledger::head(reader.conn(), run).await?;
        reader.release().await;
        Ok(head)
    }

    async fn value(&self, query: &str) -> Result<Value, Error> {
        let mut reader = self.connections.read().await?;
        let sql = as_subquery(query, 2);
        let rows = sqlx::query(AssertSqlSafe(sql))
            .persistent(false)
            .fetch_all(reader.conn())
            .await
            .map_err(|error| refused(&error))?;
        reader.release().await;
        let refuse = |message: &str| {
            Error::failed(FailureClass::Refused, message)
                .with_help("write a query that gives exactly one row with one column")
        };
        let row = match rows.as_slice() {
            [row] => row,
            [] => return Err(refuse("the query gave no row")),
            _ => return Err(refuse("the query gave more than one row")),
        };
        if row.columns().len() != 1 {
            let names: Vec<&str> = row.columns().iter().map(sqlx::Column::name).collect();
            return Err(refuse(&format!("the query gave the columns {}", names.join(", "))));
        }
        match cells::cell(row, 0)? {
            Cell::Null => Ok(Value::Null),
            Cell::Integer(number) => Ok(Value::Integer(number)),
            Cell::Real(number) => Ok(Value::Real(number)),
            Cell::Text(text) => Ok(Value::Text(text)),
            Cell::Blob(_) => Err(refuse("the query gave a BLOB, which can't be compared")),
        }
    }

    async fn execute(
        &self,
        fence: &Fence,
        work: &Work,
        script: Runnable<'_>,
    ) -> Result<Applied, Error> {
        let mut tx = self.connections.begin(fence, TxKind::Execute).await?;
        let conn = tx.conn();
        if let Some(before) = ledger::applied(conn, fence.run(), &work.step, work.way).await? {
            tx.roll_back().await;
            return Ok(before);
        }
        // Nothing of ours is ever in doubt here.
        if work.is_told_done() {
            tx.roll_back().await;
            return Err(work.unmarked());
        }
        // A copy that did not come to its end is in the ledger by its chunks.
        let is_undone_before_done = work.way == Way::Back
            && ledger::applied(conn, fence.run(), &work.step, Way::Forward).await?.is_none()
            && chunks::load(conn, fence.run(), &work.step).await?.is_none();
        let recorded = if is_undone_before_done {
            let detail = Some("it had not been done, so there was nothing to undo".to_owned());
            ledger::record(conn, fence, work, 0, detail).await
        } else {
            tx.close_afterwards();
            let conn = tx.conn();
            match script::run(conn, script.script(), work.way).await {
                Ok(rows) => ledger::record(conn, fence, work, rows, None).await,
                Err(error) => Err(error),
            }
        };
        match recorded {
            Ok(applied) => {
                tx.commit().await?;
                Ok(applied)
            }
            Err(error) => {
                tx.roll_back().await;
                Err(error)
            }
        }
    }

    async fn entry(&self, run: &RunId, step: &StepId, way: Way) -> Result<Option<Applied>, Error> {
        let mut reader = self.connections.read().await?;
        let conn = reader.conn();
        let entry = if ledger::has_table(conn, "phasegate_steps").await? {
            ledger::applied(conn, run, step, way).await?
        } else {
            None
        };
        reader.release().await;
        Ok(entry)
    }

    async fn remnants(&self, plan: &str) -> Result<Vec<Remnant>, Error> {
        let mut reader = self.connections.read().await?;
        let remnants = claim::remnants(reader.conn(), plan).await?;
        reader.release().await;
        Ok(remnants)
    }

    async fn cancel(&self) {
        self.connections.cancel();
    }

    async fn close(&self) {
        self.connections.close().await;
    }
}

/// A query as the FROM of another, so that it can only be one statement, and one that reads.
pub(super) fn as_subquery(query: &str, rows_max: u32) -> String {
    let query = query.trim_end().trim_end_matches(';');
    // The line break ends a comment at the query's end.
    format!("SELECT * FROM (\n{query}\n) LIMIT {rows_max}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use sqlx::Connection as _;

    use super::super::fixture::{Database, claim, class, entered, head, script, work};
    use super::*;
    use crate::driver::Holder;
    use crate::run::Script;

    async fn execute(
        sqlite: &Sqlite,
        fence: &Fence,
        work: &Work,
        script: &Script,
    ) -> Result<Applied, Error> {
        sqlite.execute(fence, work, Runnable::new(&work.step, script, None).unwrap()).await
    }

    #[tokio::test]
    async fn a_script_and_its_ledger_row_are_one_and_are_done_once() {
        let database = Database::with("CREATE TABLE t (id INTEGER PRIMARY KEY, n)").await;
        let sqlite = database.open().await;
        let (fence, _) = entered(&sqlite, 1).await;
        let step = work("grow", Way::Forward);
        let statements = script(&[
            "INSERT INTO t (n) VALUES (1), (2), (3)",
            "CREATE TABLE other (x)",
            "UPDATE t SET n = n + 1 WHERE n > 1",
            "CREATE INDEX t_n ON t (n)",
        ]);
        let first = execute(&sqlite, &fence, &step, &statements).await.unwrap();
        assert_eq!(first, Applied { before: false, rows: 5, detail: None });
        assert!(sqlite.is_applied(fence.run(), &step.step, Way::Forward).await.unwrap());
        let again = execute(&sqlite, &fence, &step, &statements).await.unwrap();
        assert_eq!(again, Applied { before: true, rows: 5, detail: None });
        assert_eq!(database.number("SELECT sum(n) FROM t").await, 1 + 3 + 4);
        assert_eq!(sqlite.head(fence.run()).await.unwrap(), Some(head(7)));
    }

    #[tokio::test]
    async fn a_failing_statement_leaves_nothing_and_says_where_it_stands() {
        let database = Database::with("CREATE TABLE leads (id INTEGER PRIMARY KEY, email)").await;
        let sqlite = database.open().await;
        let (fence, _) = entered(&sqlite, 1).await;
        let step = work("s", Way::Forward);
        let table = [
            ("INSERT INTO leeds VALUES (1)", "no such table: leeds", Some("the table leads")),
            ("UPDATE leads SET emial = 1", "no such column: emial", Some("the column email")),
            (
                "INSERT INTO leads (emal) VALUES (1)",
                "no column named emal",
                Some("the column email"),
            ),
            ("SELEC 1", "syntax error", None),
            ("INSERT INTO leads VALUES (?1, 2)", "placeholder", None),
        ];
        for (statement, message, meant) in table {
            let statements = script(&["INSERT INTO leads (email) VALUES ('x')", statement]);
            let error = execute(&sqlite, &fence, &step, &statements).await.unwrap_err();
            let Error::Failed(failure) = error else { panic!("{error:?}") };
            assert!(failure.message.contains(message), "{}", failure.message);
            assert_eq!(failure.line, Some(11), "{statement}");
            assert_eq!(failure.class, FailureClass::Refused);
            assert_eq!(
                failure.help.as_deref().map(|help| help.contains(meant.unwrap_or("?"))),
                meant.map(|_| true)
            );
            assert_eq!(database.number("SELECT count(*) FROM leads").await, 0);
        }
        assert!(!sqlite.is_applied(fence.run(), &step.step, Way::Forward).await.unwrap());
    }

    #[tokio::test]
    async fn no_statement_can_end_our_transaction() {
        let database = Database::with("CREATE TABLE t (n)").await;
        let sqlite = database.open().await;
        let (fence, _) = entered(&sqlite, 1).await;
        let step = work("s", Way::Forward);
        for ending in
            [&["COMMIT"][..], &["END"], &["ROLLBACK"], &["ROLLBACK", "BEGIN"], &["COMMIT", "BEGIN"]]
        {
            let mut statements = vec!["INSERT INTO t VALUES (1)"];
            statements.extend(ending);
            statements.push("INSERT INTO t VALUES (2)");
            let result = execute(&sqlite, &fence, &step, &script(&statements)).await;
            assert_eq!(class(result), FailureClass::Refused, "{ending:?}");
            assert_eq!(database.number("SELECT count(*) FROM t").await, 0, "{ending:?}");
        }
        let fine = script(&["INSERT INTO t VALUES (3)"]);
        assert_eq!(execute(&sqlite, &fence, &step, &fine).await.unwrap().rows, 1);
    }

    #[tokio::test]
    async fn a_script_leaves_no_settings_and_no_temporary_objects_behind() {
        let database = Database::with("CREATE TABLE t (n)").await;
        let sqlite = database.open().await;
        let (fence, _) = entered(&sqlite, 1).await;
        let odd = script(&[
            "CREATE TEMP TRIGGER twice AFTER INSERT ON t BEGIN DELETE FROM t; END",
            "PRAGMA query_only = ON",
        ]);
        // `query_only` stops our own ledger row too: the step fails as a whole.
        let first = execute(&sqlite, &fence, &work("a", Way::Forward), &odd).await;
        assert_eq!(class(first), FailureClass::NotPermitted);
        let odd = script(&["CREATE TEMP TRIGGER twice AFTER INSERT ON t BEGIN DELETE FROM t; END"]);
        execute(&sqlite, &fence, &work("b", Way::Forward), &odd).await.unwrap();
        let insert = script(&["INSERT INTO t VALUES (1)"]);
        execute(&sqlite, &fence, &work("c", Way::Forward), &insert).await.unwrap();
        assert_eq!(database.number("SELECT count(*) FROM t").await, 1);
    }

    #[tokio::test]
    async fn undoing_what_was_never_done_does_nothing() {
        let database = Database::with("CREATE TABLE t (n)").await;
        let sqlite = database.open().await;
        let (fence, _) = entered(&sqlite, 1).await;
        let back = work("s", Way::Back);
        let undo = script(&["DROP TABLE t"]);
        let applied = execute(&sqlite, &fence, &back, &undo).await.unwrap();
        assert_eq!((applied.before, applied.rows), (false, 0));
        assert_eq!(database.number("SELECT count(*) FROM t").await, 0);

        execute(&sqlite, &fence, &work("u", Way::Forward), &script(&["CREATE TABLE u (n)"]))
            .await
            .unwrap();
        let undo = script(&["DROP TABLE u"]);
        let back = work("u", Way::Back);
        assert!(!execute(&sqlite, &fence, &back, &undo).await.unwrap().before);
        assert!(execute(&sqlite, &fence, &back, &undo).await.unwrap().before);
        assert!(sqlite.is_applied(fence.run(), &back.step, Way::Back).await.unwrap());
    }

    #[tokio::test]
    async fn whoever_took_over_shuts_the_earlier_runner_out() {
        let database = Database::with("CREATE TABLE t (n)").await;
        let old = database.open().await;
        let new = database.open().await;
        let (stale, _) = entered(&old, 5).await;
        let (fence, worker) = entered(&new, 6).await;
        assert_eq!((fence.slot(), worker.slot(), fence.token()), (0, 1, 6));
        let insert = script(&["INSERT INTO t VALUES (1)"]);
        let step = work("s", Way::Forward);
        let fenced = Error::Fenced { ours: 5, newest: 6 };
        assert_eq!(execute(&old, &stale, &step, &insert).await, Err(fenced.clone()));
        assert_eq!(old.leave(&stale, Ending::Aborted, &head(9)).await, Err(fenced.clone()));
        assert_eq!(old.enter(&claim("r1"), 5).await, Err(fenced));
        assert_eq!(database.number("SELECT count(*) FROM t").await, 0);
        assert!(execute(&new, &fence, &step, &insert).await.is_ok());
        // A token that was never written is a mistake of ours or damage, never a right.
        let forged = Fence::new(fence.run().clone(), 0, 7);
        assert_eq!(
            class(execute(&new, &forged, &work("x", Way::Forward), &insert).await),
            FailureClass::Damaged
        );
    }

    #[tokio::test]
    async fn one_run_has_the_database_at_a_time() {
        let database = Database::with("").await;
        let sqlite = database.open().await;
        assert_eq!(sqlite.holder(&claim("r1")).await.unwrap(), None);
        let (fence, _) = entered(&sqlite, 1).await;
        entered(&sqlite, 1).await; // entering again is fine
        let other = claim("r2");
        let held = sqlite.enter(&other, 1).await.unwrap_err();
        let Error::Held(holder) = held else { panic!("{held:?}") };
        assert_eq!(Some(*holder.clone()), sqlite.holder(&other).await.unwrap());
        let Holder { run, plan, store, host, pid, .. } = *holder;
        assert_eq!(
            (run.as_str(), &*plan, &*store, &*host, pid),
            ("r1", "leads-v2", "store-1", "here", 42)
        );
        assert_eq!(database.number("SELECT count(*) FROM phasegate_runs").await, 1);
        sqlite.leave(&fence, Ending::Completed, &head(9)).await.unwrap();
        sqlite.enter(&other, 1).await.unwrap();
    }

    #[tokio::test]
    async fn leaving_removes_all_but_the_runs_row_and_can_be_repeated() {
        let database = Database::with("CREATE TABLE t (n)").await;
        let sqlite = database.open().await;
        let (fence, _) = entered(&sqlite, 1).await;
        execute(
            &sqlite,
            &fence,
            &work("s", Way::Forward),
            &script(&["INSERT INTO t VALUES (1), (2)"]),
        )
        .await
        .unwrap();
        database.run("CREATE TABLE phasegate_touched (x); CREATE TABLE phasegated (x);
            CREATE TRIGGER phasegate_1 AFTER INSERT ON t BEGIN INSERT INTO phasegate_touched VALUES (1); END").await;
        sqlite.leave(&fence, Ending::RolledBack, &head(9)).await.unwrap();
        let ours = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'phasegate\\_%' ESCAPE '\\'";
        assert_eq!(database.number(ours).await, 1);
        assert_eq!(database.number("SELECT count(*) FROM phasegated").await, 0);
        let row =
            "SELECT count(*) FROM phasegate_runs WHERE state = 'rolled_back' AND rows_total = 2
                   AND head_version = 9 AND ended_at IS NOT NULL";
        assert_eq!(database.number(row).await, 1);
        sqlite.leave(&fence, Ending::RolledBack, &head(9)).await.unwrap();
        assert_eq!(
            class(execute(&sqlite, &fence, &work("x", Way::Forward), &script(&[])).await),
            FailureClass::Stale
        );
        // The process died before it could record the end: it enters once more and leaves again.
        let (fence, _) = entered(&sqlite, 2).await;
        sqlite.leave(&fence, Ending::RolledBack, &head(9)).await.unwrap();
        assert_eq!(database.number(row).await, 1);
        assert_eq!(sqlite.head(fence.run()).await.unwrap(), Some(head(9)));
    }

    #[tokio::test]
    async fn a_future_that_is_dropped_leaves_no_transaction_open() {
        let database = Database::with("CREATE TABLE t (n)").await;
        let sqlite = database.open().await;
        let (fence, _) = entered(&sqlite, 1).await;
        let endless = script(&[
            "INSERT INTO t VALUES (1)",
            "INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c",
        ]);
        let step = work("s", Way::Forward);
        let run = execute(&sqlite, &fence, &step, &endless);
        assert!(tokio::time::timeout(Duration::from_millis(100), run).await.is_err());
        let fine = script(&["INSERT INTO t VALUES (2)"]);
        assert_eq!(execute(&sqlite, &fence, &step, &fine).await.unwrap().rows, 1);
        assert_eq!(database.number("SELECT sum(n) FROM t").await, 2);
    }

    #[tokio::test]
    async fn cancelling_interrupts_what_runs() {
        let database = Database::with("CREATE TABLE t (n)").await;
        let sqlite = database.open().await;
        let (fence, _) = entered(&sqlite, 1).await;
        let endless =
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c";
        let writes = script(&["INSERT INTO t VALUES (1)", endless]);
        let step = work("s", Way::Forward);
        let write = execute(&sqlite, &fence, &step, &writes);
        let read = sqlite.value(endless);
        let cancel = async {
            while sqlite.connections.busy_count() < 2 {
                tokio::task::yield_now().await;
            }
            sqlite.cancel().await;
        };
        let (write, read, ()) = tokio::join!(write, read, cancel);
        assert_eq!(class(write), FailureClass::Cancelled);
        assert_eq!(class(read), FailureClass::Cancelled);
        assert_eq!(sqlite.value("SELECT count(*) FROM t").await.unwrap(), Value::Integer(0));
        let fine = script(&["INSERT INTO t VALUES (2)"]);
        assert_eq!(execute(&sqlite, &fence, &step, &fine).await.unwrap().rows, 1);
    }

    #[tokio::test]
    async fn another_writer_makes_us_yield() {
        let database = Database::with("CREATE TABLE t (n)").await;
        let sqlite = database.open().await;
        let (fence, _) = entered(&sqlite, 1).await;
        let mut client = database.client().await;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut client).await.unwrap();
        let insert = script(&["INSERT INTO t VALUES (1)"]);
        let step = work("s", Way::Forward);
        assert_eq!(class(execute(&sqlite, &fence, &step, &insert).await), FailureClass::Contention);
        sqlx::query("ROLLBACK").execute(&mut client).await.unwrap();
        // A reader that holds on makes COMMIT itself wait, in the journal mode that SQLite begins with.
        sqlx::query("BEGIN").execute(&mut client).await.unwrap();
        sqlx::query("SELECT * FROM t").fetch_all(&mut client).await.unwrap();
        assert_eq!(class(execute(&sqlite, &fence, &step, &insert).await), FailureClass::Contention);
        client.close().await.unwrap();
        assert!(!execute(&sqlite, &fence, &step, &insert).await.unwrap().before);
        assert_eq!(database.number("SELECT count(*) FROM t").await, 1);
    }

    #[tokio::test]
    async fn a_full_disk_is_told_and_leaves_nothing() {
        let database = Database::with("CREATE TABLE t (x)").await;
        let sqlite = database.open().await;
        let (fence, _) = entered(&sqlite, 1).await;
        let big = script(&[
            "PRAGMA max_page_count = 40",
            "INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 1000) SELECT randomblob(1000) FROM c",
        ]);
        let step = work("s", Way::Forward);
        assert_eq!(class(execute(&sqlite, &fence, &step, &big).await), FailureClass::Full);
        assert_eq!(database.number("SELECT count(*) FROM t").await, 0);
        assert!(!sqlite.is_applied(fence.run(), &step.step, Way::Forward).await.unwrap());
    }

    #[tokio::test]
    async fn files_that_can_not_be_used_are_told_apart() {
        let database = Database::with("CREATE TABLE t (n)").await;
        let gone = format!("sqlite:{}/gone.db", database.folder.path().display());
        assert_eq!(class(Sqlite::open(&gone).await), FailureClass::Unreachable);
        assert!(!database.folder.path().join("gone.db").exists());

        let text = database.folder.path().join("text.db");
        std::fs::write(
            &text,
            "this is no database, though it is long enough to look at ".repeat(20),
        )
        .unwrap();
        assert_eq!(
            class(Sqlite::open(&format!("sqlite:{}", text.display())).await),
            FailureClass::Damaged
        );

        let read_only = Sqlite::open(&database.url("?mode=ro")).await.unwrap();
        assert_eq!(class(read_only.enter(&claim("r1"), 1).await), FailureClass::NotPermitted);
        assert_eq!(read_only.value("SELECT count(*) FROM t").await.unwrap(), Value::Integer(0));

        for url in [
            "sqlite::memory:",
            "sqlite:x?mode=memory",
            "postgres://u:secret@h/d",
            "sqlite:x?password=secret",
            "sqlite:",
        ] {
            let error = Sqlite::open(url).await.unwrap_err();
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
        let error = Sqlite::open("sqlite://ann:secret@host/app.db").await.unwrap_err();
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }

    #[tokio::test]
    async fn a_damaged_page_is_told_as_damage() {
        let database = Database::with("CREATE TABLE t (x); CREATE TABLE u (x);
            INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 5000) SELECT randomblob(100) FROM c").await;
        let mut bytes = std::fs::read(database.file()).unwrap();
        for byte in bytes.iter_mut().skip(4096 * 3) {
            *byte = 0xaa;
        }
        std::fs::write(database.file(), bytes).unwrap();
        let sqlite = database.open().await;
        assert_eq!(
            class(sqlite.value("SELECT sum(length(x)) FROM t").await),
            FailureClass::Damaged
        );
    }

    #[tokio::test]
    async fn rwc_makes_file_and_folder_at_the_first_write_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b/app.db");
        let sqlite = Sqlite::open(&format!("sqlite:{}?mode=rwc", file.display())).await.unwrap();
        assert_eq!(sqlite.holder(&claim("r1")).await.unwrap(), None);
        assert_eq!(sqlite.head(&"r1".into()).await.unwrap(), None);
        assert!(!sqlite.is_applied(&"r1".into(), &"s".into(), Way::Forward).await.unwrap());
        assert_eq!(
            sqlite.value("SELECT count(*) FROM sqlite_schema").await.unwrap(),
            Value::Integer(0)
        );
        assert!(!file.exists() && !folder.path().join("a").exists());
        let before = sqlite.identity().await.unwrap();
        entered(&sqlite, 1).await;
        assert!(file.exists());
        assert_eq!(
            sqlite.value("SELECT count(*) FROM phasegate_runs").await.unwrap(),
            Value::Integer(1)
        );
        assert!(before.system.ends_with("app.db") && before.database == "main");
        assert_eq!(sqlite.identity().await.unwrap(), before);
    }

    #[tokio::test]
    async fn a_query_gives_one_value_and_changes_nothing() {
        let database = Database::with("CREATE TABLE t (n); INSERT INTO t VALUES (1), (2)").await;
        let sqlite = database.open().await;
        let good = [
            ("SELECT count(*) FROM t;", Value::Integer(2)),
            ("SELECT 0.5 -- half", Value::Real(0.5)),
            ("WITH x AS (SELECT 'a' AS v) SELECT v FROM x", Value::Text("a".into())),
            ("SELECT NULL", Value::Null),
            ("VALUES (7)", Value::Integer(7)),
        ];
        for (query, value) in good {
            assert_eq!(sqlite.value(query).await.unwrap(), value, "{query}");
        }
        let bad = [
            "SELECT n FROM t",
            "SELECT n FROM t WHERE n > 5",
            "SELECT 1, 2",
            "SELECT x'00'",
            "DELETE FROM t",
            "DELETE FROM t RETURNING n",
            "PRAGMA query_only = OFF",
            "SELECT 1) ; DELETE FROM t; SELECT * FROM (SELECT 1",
            "SELECT 1) ; PRAGMA query_only = OFF; DELETE FROM t; SELECT * FROM (SELECT 1",
            "SELECT missing FROM t",
        ];
        for query in bad {
            let result = sqlite.value(query).await;
            assert!(result.is_err(), "{query}: {result:?}");
            assert_eq!(database.number("SELECT count(*) FROM t").await, 2, "{query}");
        }
    }
}
