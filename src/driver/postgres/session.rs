//! Claims, fences, statements: [`Session`] for PostgreSQL.

use async_trait::async_trait;
use sqlx::Row as _;

use super::error::failed;
use super::{Postgres, answered, claim, ledger, script, statements, value};
use crate::bounds::copying::CHUNK_TIME_MAX_MS;
use crate::bounds::postgres::{COPY_WORKERS, GONE_LOOK_EVERY, GONE_WITHIN_MS};
use crate::clock::Stopwatch;
use crate::driver::crossing::ChangeSource;
use crate::driver::{
    Applied, Capabilities, Claim, Error, Fence, Head, Holder, Identity, Remnant, Session, TxKind,
    Work,
};
use crate::run::{
    Digest, Ending, Marked, RunId, Runnable, Script, StepId, Transaction, Value, Way,
};

impl Postgres {
    /// Ends the sessions of earlier runners of a run, and waits until they are gone and their locks with them.
    pub(super) async fn end_earlier(&self, run: &RunId, token: u64) -> Result<(), Error> {
        let mut reader = self.connections.read().await?;
        let watch = Stopwatch::start();
        while claim::end_earlier_sessions(&mut reader, run, token).await? > 0 {
            if watch.elapsed_ms() > GONE_WITHIN_MS {
                return Err(claim::not_gone(&mut reader, run, token).await);
            }
            tokio::time::sleep(GONE_LOOK_EVERY).await;
        }
        reader.release().await;
        Ok(())
    }
}

#[async_trait]
impl Session for Postgres {
    fn capabilities(&self) -> Capabilities {
        Capabilities { copy_workers: COPY_WORKERS, chunk_time_max_ms: CHUNK_TIME_MAX_MS }
    }

    async fn identity(&self) -> Result<Identity, Error> {
        let mut reader = self.connections.read().await?;
        let row = sqlx::query(
            "SELECT (SELECT system_identifier::text FROM pg_control_system()), current_database()::text, current_user::text",
        )
        .fetch_one(reader.conn()?)
        .await
        .map_err(failed("read who the server is"))?;
        let text = |at| row.try_get::<String, _>(at).map_err(failed("read who the server is"));
        let identity = Identity { system: text(0)?, database: text(1)?, role: text(2)? };
        reader.release().await;
        Ok(identity)
    }

    /// A promoted standby writes another timeline, and so does a server that was restored to a moment. The database is known by its number,
    /// which one that was made anew under the old name doesn't have.
    async fn lineage(&self) -> Result<Option<String>, Error> {
        let mut reader = self.connections.read().await?;
        let timeline = reader.timeline()?;
        let row = sqlx::query(
            "SELECT (SELECT system_identifier::text FROM pg_control_system()), oid::text FROM pg_database
             WHERE datname = current_database()",
        )
        .fetch_one(reader.conn()?)
        .await
        .map_err(failed("read who the server is"))?;
        let text = |at| row.try_get::<String, _>(at).map_err(failed("read who the server is"));
        let (system, database) = (text(0)?, text(1)?);
        reader.release().await;
        Ok(Some(format!("timeline {timeline} of system {system}, database {database}")))
    }

    async fn answers(&self) -> Result<(), Error> {
        self.connections.answers().await
    }

    async fn holder(&self, claim: &Claim) -> Result<Option<Holder>, Error> {
        let mut reader = self.connections.read().await?;
        let mut holder = claim::elsewhere(&mut reader, claim).await?;
        if holder.is_none() {
            holder = claim::holder(&mut reader, claim).await?;
        }
        reader.release().await;
        Ok(holder)
    }

    async fn enter(&self, claim: &Claim, token: u64) -> Result<Vec<Fence>, Error> {
        // What is open under an earlier token of ours must not be taken for a rival's.
        self.connections.close().await;
        // Before anybody's session is ended: those of another store that has the run now are not earlier ones.
        let mut reader = self.connections.read().await?;
        let elsewhere = claim::elsewhere(&mut reader, claim).await?;
        reader.release().await;
        if let Some(holder) = elsewhere {
            return Err(Error::Held(Box::new(holder)));
        }
        self.end_earlier(&claim.run, token).await?;
        let mut tx = self.connections.begin_unfenced(TxKind::Enter).await?;
        let schema = self.connections.schema().to_owned();
        let entered = match ledger::create(&mut tx, &schema).await {
            Ok(()) => {
                let slots_count = claim.parallel.max(1) * (1 + COPY_WORKERS);
                claim::enter(&mut tx, claim, token, slots_count).await
            }
            Err(error) => Err(error),
        };
        match entered {
            Ok(fences) => {
                tx.commit().await?;
                // Who had checked its token just before the new one was written, and then left its transaction, runs on:
                // from here on nobody can any more, so those that still do are the last.
                self.end_earlier(&claim.run, token).await?;
                Ok(fences)
            }
            Err(error) => Err(tx.give_up(error).await),
        }
    }

    async fn keep_plan(&self, fence: &Fence, plan: &Digest) -> Result<(), Error> {
        let mut tx = self.connections.begin(fence, TxKind::Enter).await?;
        match claim::keep_plan(&mut tx, fence.run(), plan).await {
            Ok(()) => tx.commit().await.map(|_| ()),
            Err(error) => Err(tx.give_up(error).await),
        }
    }

    async fn leave(&self, fence: &Fence, ending: Ending, head: &Head) -> Result<(), Error> {
        let mut tx = self.connections.begin_unfenced(TxKind::Leave).await?;
        if claim::has_left(&mut tx, fence.run()).await? {
            tx.roll_back().await;
            return Ok(());
        }
        let left = match ledger::check_fence(&mut tx, fence).await {
            Ok(()) => claim::leave(&mut tx, fence.run(), ending, head).await,
            Err(error) => Err(error),
        };
        match left {
            Ok(()) => tx.commit().await.map(|_| ()),
            Err(error) => Err(tx.give_up(error).await),
        }
    }

    async fn head(&self, run: &RunId) -> Result<Option<Head>, Error> {
        let mut reader = self.connections.read().await?;
        let head = ledger::head(&mut reader, run).await?;
        reader.release().await;
        Ok(head)
    }

    async fn value(&self, query: &str) -> Result<Value, Error> {
        value::of(self, query).await
    }

    async fn execute(
        &self,
        fence: &Fence,
        work: &Work,
        script: Runnable<'_>,
    ) -> Result<Applied, Error> {
        answered::settle(self, fence, work).await?;
        match script.script().transaction {
            Transaction::Auto => script::transactional(self, fence, work, script.script()).await,
            Transaction::None => statements::each(self, fence, work, script.script()).await,
        }
    }

    async fn entry(&self, run: &RunId, step: &StepId, way: Way) -> Result<Option<Applied>, Error> {
        let mut reader = self.connections.read().await?;
        let applied = ledger::applied_before(&mut reader, run, step, way).await?;
        reader.release().await;
        Ok(applied)
    }

    async fn remnants(&self, plan: &str) -> Result<Vec<Remnant>, Error> {
        let mut reader = self.connections.read().await?;
        let remnants = claim::remnants(&mut reader, plan).await?;
        reader.release().await;
        Ok(remnants)
    }

    async fn marks(
        &self,
        run: &RunId,
        step: &StepId,
        script: Option<(Way, &Script)>,
    ) -> Result<Vec<Marked>, Error> {
        answered::marks(self, (run, step), script).await
    }

    async fn cancel(&self) {
        self.connections.cancel().await;
    }

    async fn close(&self) {
        self.connections.close().await;
    }

    fn change_source(&self) -> Option<&dyn ChangeSource> {
        Some(self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::super::fixture::{Database, class, entered, script, work};
    use super::*;
    use crate::run::FailureClass;

    #[tokio::test]
    async fn a_script_and_its_ledger_row_are_one_and_are_done_once() {
        let setup = "CREATE TABLE t (id bigserial PRIMARY KEY, n int)";
        let Some(database) = Database::with(setup).await else { return };
        let postgres = database.open().await;
        let fences = entered(&postgres, 1).await;
        let step = work("grow", Way::Forward);
        let statements = script(&[
            "INSERT INTO t (n) VALUES (1), (2), (3)",
            "CREATE TABLE other (x int)",
            "UPDATE t SET n = n + 1 WHERE n > 1",
        ]);
        let run = || Runnable::new(&step.step, &statements, None).unwrap();
        let first = postgres.execute(&fences[0], &step, run()).await.unwrap();
        assert_eq!(first, Applied { before: false, rows: 5, detail: None });
        let again = postgres.execute(&fences[0], &step, run()).await.unwrap();
        assert_eq!(again, Applied { before: true, rows: 5, detail: None });
        assert_eq!(database.number("SELECT sum(n) FROM t").await, 1 + 3 + 4);

        let failing = script(&["INSERT INTO t (n) VALUES (9)", "SELECT 1,\n nothing FROM t"]);
        let step = work("fail", Way::Forward);
        let run = Runnable::new(&step.step, &failing, None).unwrap();
        let failed = postgres.execute(&fences[0], &step, run).await;
        let Err(Error::Failed(failure)) = failed else { panic!("{failed:?}") };
        assert_eq!((failure.code.as_deref(), failure.line), (Some("42703"), Some(12)));
        assert_eq!(database.number("SELECT count(*) FROM t WHERE n = 9").await, 0);

        let newer = entered(&database.open().await, 2).await;
        assert_eq!(newer[0].token(), 2);
        let late = work("late", Way::Forward);
        let run = Runnable::new(&late.step, &statements, None).unwrap();
        assert!(postgres.execute(&fences[0], &late, run).await.is_err());
        let other = super::super::fixture::claim("r2");
        assert!(matches!(postgres.enter(&other, 1).await, Err(Error::Held(_))));
        let head = super::super::fixture::head(9);
        database.open().await.leave(&newer[0], Ending::Completed, &head).await.unwrap();
        assert_eq!(database.number("SELECT count(*) FROM phasegate.runs").await, 1);
        let left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'phasegate'::regnamespace AND relkind = 'r'";
        assert_eq!(database.number(left).await, 1);
        assert_eq!(class(postgres.value("SELECT 1, 2").await), FailureClass::Refused);
    }
}
