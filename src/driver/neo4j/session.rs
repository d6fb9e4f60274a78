//! Claims, fences, statements: [`Session`] for Neo4j.

use async_trait::async_trait;
use neo4rs::{BoltType, query};

use super::connection::Ask as _;
use super::error::failed;
use super::ledger::{self, get};
use super::{Neo4j, answered, claim, script};
use crate::bounds::copying::CHUNK_TIME_MAX_MS;
use crate::bounds::neo4j::COPY_WORKERS;
use crate::driver::crossing::ChangeSink;
use crate::driver::{
    Applied, Capabilities, Claim, Error, Fence, Head, Holder, Identity, Remnant, Session, TxKind,
    Work,
};
use crate::run::{
    Digest, Ending, FailureClass, Marked, RunId, Runnable, Script, StepId, Value, Way,
};

#[async_trait]
impl Session for Neo4j {
    fn capabilities(&self) -> Capabilities {
        Capabilities { copy_workers: COPY_WORKERS, chunk_time_max_ms: CHUNK_TIME_MAX_MS }
    }

    async fn identity(&self) -> Result<Identity, Error> {
        let mut reader = self.connections.read().await?;
        let ask = query("CALL db.info() YIELD id, name RETURN id, name");
        let rows = reader.rows(ask).await.map_err(failed("read who the server is"))?;
        let row =
            rows.first().ok_or_else(|| super::error::damaged("the server has no database"))?;
        let (system, database) = (get(row, "id")?, get(row, "name")?);
        reader.release();
        Ok(Identity { system, database, role: self.connections.user().to_owned() })
    }

    /// A database that was made anew has another store id. One that was started from an older copy of the same store can't be told from it.
    async fn lineage(&self) -> Result<Option<String>, Error> {
        let Identity { system, database, .. } = self.identity().await?;
        Ok(Some(format!("store {system} of database {database}")))
    }

    async fn holder(&self, claim: &Claim) -> Result<Option<Holder>, Error> {
        match claim::elsewhere(&self.connections, claim).await? {
            Some(holder) => Ok(Some(holder)),
            None => claim::holder(&self.connections, &claim.run).await,
        }
    }

    async fn enter(&self, claim: &Claim, token: u64) -> Result<Vec<Fence>, Error> {
        // What is open under an earlier token of ours must not be taken for a rival's.
        self.connections.close();
        claim::enter(self, claim, token, claim.parallel.max(1) * (1 + COPY_WORKERS)).await
    }

    async fn keep_plan(&self, fence: &Fence, plan: &Digest) -> Result<(), Error> {
        let mut tx = self.connections.begin(fence, TxKind::Enter).await?;
        claim::keep_plan(&mut tx, fence.run(), plan).await?;
        tx.commit().await
    }

    async fn leave(&self, fence: &Fence, ending: Ending, head: &Head) -> Result<(), Error> {
        if !claim::has_left(&self.connections, fence.run()).await? {
            claim::close(&self.connections, fence, (ending, head)).await?;
        }
        claim::tidy(&self.connections).await
    }

    async fn head(&self, run: &RunId) -> Result<Option<Head>, Error> {
        let mut reader = self.connections.read().await?;
        let head = ledger::head(&mut reader, run).await?;
        reader.release();
        Ok(head)
    }

    async fn value(&self, text: &str) -> Result<Value, Error> {
        let refuse = |message: String| {
            Error::failed(FailureClass::Refused, message)
                .with_help("write a query that gives exactly one row with one column")
        };
        let mut reader = self.connections.read().await?;
        let rows = reader.first(query(text), 2).await.map_err(failed("ask the query"))?;
        reader.release();
        let row = match rows.as_slice() {
            [row] => row,
            [] => return Err(refuse("the query gave no row".to_owned())),
            _ => return Err(refuse("the query gave more than one row".to_owned())),
        };
        let keys: Vec<String> = row.keys().into_iter().map(|key| key.value.clone()).collect();
        let [key] = keys.as_slice() else {
            return Err(refuse(format!("the query gave the columns {}", keys.join(", "))));
        };
        match get::<BoltType>(row, key)? {
            BoltType::Null(_) => Ok(Value::Null),
            BoltType::Boolean(it) => Ok(Value::Boolean(it.value)),
            BoltType::Integer(it) => Ok(Value::Integer(it.value)),
            BoltType::Float(it) => Ok(Value::Real(it.value)),
            BoltType::String(it) => Ok(Value::Text(it.value)),
            _ => Err(refuse(format!(
                "{key} is no number, text or truth value, and can't be compared"
            ))),
        }
    }

    async fn execute(
        &self,
        fence: &Fence,
        work: &Work,
        script: Runnable<'_>,
    ) -> Result<Applied, Error> {
        Box::pin(script::run(self, fence, work, script.script())).await
    }

    async fn entry(&self, run: &RunId, step: &StepId, way: Way) -> Result<Option<Applied>, Error> {
        let mut reader = self.connections.read().await?;
        let applied = ledger::applied(&mut reader, run, step.as_str(), way).await?;
        reader.release();
        Ok(applied)
    }

    async fn remnants(&self, plan: &str) -> Result<Vec<Remnant>, Error> {
        claim::remnants(&self.connections, plan).await
    }

    async fn ended(&self, fence: &Fence, step: &StepId, way: Way) -> Result<(), Error> {
        match self.done(fence, (step.as_str(), way)).await {
            // Where nothing can be written, nothing is about to be committed.
            Err(Error::Failed(refused)) if refused.class == FailureClass::NotPermitted => Ok(()),
            done => done.map(|_| ()),
        }
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
        self.connections.cancel();
    }

    async fn close(&self) {
        self.connections.close();
    }

    fn change_sink(&self) -> Option<&dyn ChangeSink> {
        Some(self)
    }
}
