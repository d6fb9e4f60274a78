//! What an amendment means for a drive that is under way.

use super::Drive;
use crate::bounds::engine::ANSWER_WITHIN_MS;
use crate::engine::event::Event;
use crate::engine::patience::{patiently, within};
use crate::engine::start::{all_claimed, at};
use crate::engine::{Error, is_signalled};
use crate::run::{self, Refusal, RefusalKind};
use crate::store::Entry;

impl Drive<'_> {
    /// Tells those who watch what has been recorded, and minds what it means for this drive: after an amendment the goal is
    /// that of the new plan, and its databases must still be those that were opened, and what it works on there what was claimed.
    pub(super) fn learn(&mut self, entries: &[Entry]) -> Result<(), Error> {
        for entry in entries {
            let event = Event::Recorded(Box::new(entry.clone()));
            self.ctx.observer.observe(&event, self.state());
        }
        let is_amended =
            |entry: &Entry| matches!(entry.record.event, run::Event::PlanAmended { .. });
        if entries.iter().any(is_amended) {
            let program = self.journal.state.program();
            self.goal = self.goal.within(program);
            let other = if *program.targets() == self.targets {
                (all_claimed(program) != self.claimed).then_some("objects")
            } else {
                Some("databases")
            };
            if let Some(other) = other {
                return Err(Error::Refused(Refusal {
                    kind: RefusalKind::Stale,
                    message: format!(
                        "the plan was amended meanwhile, and works on other {other} now"
                    ),
                    help: Some("`phasegate run PLAN` goes on with them".to_owned()),
                }));
            }
            self.amended = self.slots.keys().cloned().collect();
        }
        Ok(())
    }

    /// Writes down in each target which plan the run has now, before a step of it begins there: where the journal is lost, that says
    /// which plan the ledger is about. Nothing begins where every slot is taken, so there it can wait.
    pub(super) async fn keep_plan(&mut self) -> Result<(), Error> {
        let plan = self.state().program().digest().clone();
        for target in self.amended.clone() {
            let fence = self.block(&target).and_then(|(_, fences)| fences.into_iter().next());
            let Some((fence, driver)) = fence.zip(self.ctx.drivers.get(&target)) else { continue };
            let kept = patiently(|| is_signalled(self.ctx), || driver.keep_plan(&fence, &plan));
            within(ANSWER_WITHIN_MS, kept).await.map_err(|source| at(&target, source))?;
            self.amended.remove(&target);
        }
        Ok(())
    }
}
