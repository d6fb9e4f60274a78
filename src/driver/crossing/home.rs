//! What is asked of one side alone: the one that the step works on, or the one that the question is about.

use async_trait::async_trait;

use super::pair::{Crossing, Entered};
use super::{ChangeSink, ChangeSource};
use crate::copy::throttle::Part;
use crate::driver::{
    Applied, Capabilities, Claim, Error, Fence, Finding, Head, Holder, Identity, Introspect,
    Probed, Remnant, Session, Signals, Survey, TableSize, Work,
};
use crate::run::{Digest, Ending, Gauge, RunId, Runnable, StepId, Traced, Usage, Value, Way};

#[async_trait]
impl Session for Crossing {
    fn capabilities(&self) -> Capabilities {
        self.home().capabilities()
    }

    async fn identity(&self) -> Result<Identity, Error> {
        self.home().identity().await
    }

    async fn lineage(&self) -> Result<Option<String>, Error> {
        self.home().lineage().await
    }

    async fn holder(&self, claim: &Claim) -> Result<Option<Holder>, Error> {
        self.home().holder(claim).await
    }

    async fn enter(&self, claim: &Claim, token: u64) -> Result<Vec<Fence>, Error> {
        self.home().enter(claim, token).await
    }

    async fn keep_plan(&self, fence: &Fence, plan: &Digest) -> Result<(), Error> {
        self.home().keep_plan(fence, plan).await
    }

    async fn leave(&self, fence: &Fence, ending: Ending, head: &Head) -> Result<(), Error> {
        self.home().leave(fence, ending, head).await
    }

    async fn head(&self, run: &RunId) -> Result<Option<Head>, Error> {
        self.home().head(run).await
    }

    async fn value(&self, query: &str) -> Result<Value, Error> {
        self.home().value(query).await
    }

    async fn execute(
        &self,
        fence: &Fence,
        work: &Work,
        script: Runnable<'_>,
    ) -> Result<Applied, Error> {
        self.home().execute(fence, work, script).await
    }

    async fn remnants(&self, plan: &str) -> Result<Vec<Remnant>, Error> {
        self.home().remnants(plan).await
    }

    async fn entry(&self, run: &RunId, step: &StepId, way: Way) -> Result<Option<Applied>, Error> {
        self.home().entry(run, step, way).await
    }

    async fn is_applied(&self, run: &RunId, step: &StepId, way: Way) -> Result<bool, Error> {
        Ok(match self.entered {
            Entered::Home => self.home().is_applied(run, step, way).await?,
            Entered::Both => {
                self.old.is_applied(run, step, way).await?
                    && self.new.is_applied(run, step, way).await?
            }
        })
    }

    async fn ended(&self, fence: &Fence, step: &StepId, way: Way) -> Result<(), Error> {
        if matches!(self.entered, Entered::Home) {
            return self.home().ended(fence, step, way).await;
        }
        let [old, new] = self.fences(fence)?;
        self.old.ended(old, step, way).await?;
        self.new.ended(new, step, way).await
    }

    async fn traced(&self, run: &RunId, step: &StepId, way: Way) -> Result<Traced, Error> {
        if matches!(self.entered, Entered::Home) {
            return self.home().traced(run, step, way).await;
        }
        let old = self.old.traced(run, step, way).await?;
        Ok(old.and(self.new.traced(run, step, way).await?))
    }

    async fn cancel(&self) {
        self.old.cancel().await;
        self.new.cancel().await;
    }

    async fn close(&self) {
        self.old.close().await;
        self.new.close().await;
    }

    fn change_source(&self) -> Option<&dyn ChangeSource> {
        self.old.change_source()
    }

    fn change_sink(&self) -> Option<&dyn ChangeSink> {
        self.new.change_sink()
    }

    fn told(&self, error: Error) -> Error {
        self.new.told(self.old.told(error))
    }
}

#[async_trait]
impl Introspect for Crossing {
    async fn survey(&self, survey: &Survey) -> Result<Vec<Finding>, Error> {
        let mut found = self.old.survey(survey).await?;
        found.extend(self.new.survey(survey).await?);
        Ok(found)
    }

    async fn probe(&self, survey: &Survey) -> Result<Probed, Error> {
        self.home().probe(survey).await
    }

    async fn fingerprint(&self, tables: &[String]) -> Result<Digest, Error> {
        self.home().fingerprint(tables).await
    }

    async fn usage(&self, table: &str) -> Result<Usage, Error> {
        self.old.usage(table).await
    }

    async fn size(&self, table: &str) -> Result<TableSize, Error> {
        self.home().size(table).await
    }
}

#[async_trait]
impl Signals for Crossing {
    async fn gauge(&self, gauge: Gauge, tables: &[String]) -> Result<Vec<Part>, Error> {
        self.home().gauge(gauge, tables).await
    }
}
