//! How long a step that locks clients' tables has held clients up, for people to see.
//!
//! The time runs from asking for the first lock, since whoever comes then queues up behind us, to the end of the commit. What
//! attempts before have waited in vain is added: clients stood behind those as well.
//!
//! Absent on purpose: the ledger, which is written inside the transaction that is measured. After a crash the time is not known.

use std::sync::{Mutex, PoisonError};

use super::Postgres;
use super::connection::Tx;
use crate::driver::{Applied, Error, Work};
use crate::run::{StepId, Way, duration, plural};

/// Attempts that had to be given up, by step.
#[derive(Debug, Default)]
pub(super) struct Holds {
    vain: Mutex<Vec<Vain>>,
}

/// What attempts at a step held clients up for nothing.
#[derive(Clone, Debug)]
struct Vain {
    step: StepId,
    way: Way,
    us: u64,
    attempts: u64,
}

impl Holds {
    fn give_up(&self, work: &Work, us: u64) {
        let mut vain = self.vain.lock().unwrap_or_else(PoisonError::into_inner);
        match vain.iter_mut().find(|it| it.step == work.step && it.way == work.way) {
            Some(known) => {
                known.us = known.us.saturating_add(us);
                known.attempts += 1;
            }
            None => {
                let (step, way) = (work.step.clone(), work.way);
                vain.push(Vain { step, way, us, attempts: 1 });
            }
        }
    }

    fn take(&self, work: &Work) -> Option<Vain> {
        let mut vain = self.vain.lock().unwrap_or_else(PoisonError::into_inner);
        let at = vain.iter().position(|it| it.step == work.step && it.way == work.way)?;
        Some(vain.swap_remove(at))
    }
}

impl Postgres {
    /// Ends the transaction of a piece of work that locked clients' tables, and says in its detail how long it held them.
    pub(super) async fn finish_held(
        &self,
        tx: Tx<'_>,
        work: &Work,
        done: Result<Applied, Error>,
    ) -> Result<Applied, Error> {
        let since = tx.locked_since();
        match super::dual_write::finish(tx, done).await {
            Ok(applied) => Ok(self.tell_held(work, since.map(|it| it.elapsed_us()), applied)),
            Err(error) => {
                if let Some(since) = since {
                    self.holds.give_up(work, since.elapsed_us());
                }
                Err(error)
            }
        }
    }

    /// Says how long clients were held, before whatever else there is to say.
    pub(super) fn tell_held(&self, work: &Work, us: Option<u64>, mut applied: Applied) -> Applied {
        if let Some(us) = us.filter(|_| !applied.before) {
            let said = said(us, self.holds.take(work).as_ref());
            applied.detail = Some(match applied.detail {
                Some(detail) => format!("{said}; {detail}"),
                None => said,
            });
        }
        applied
    }
}

fn said(us: u64, vain: Option<&Vain>) -> String {
    // Rounded up: nobody was held for 0 ms.
    let ms = |us: u64| duration(us.div_ceil(1_000).max(1));
    match vain {
        None => format!("clients were held for {}", ms(us)),
        Some(vain) => format!(
            "clients were held for {}, and for {} by {} that had to give up",
            ms(us),
            ms(vain.us),
            plural(vain.attempts, "attempt"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::work;
    use super::*;

    #[test]
    fn what_was_held_in_vain_is_told_once() {
        let (holds, sync) = (Holds::default(), work("sync", Way::Forward));
        assert_eq!(said(12_300, holds.take(&sync).as_ref()), "clients were held for 13ms");
        holds.give_up(&sync, 600_000);
        holds.give_up(&sync, 900_000);
        holds.give_up(&work("sync", Way::Back), 7_000_000);
        let told = "clients were held for 1ms, and for 1s 500ms by 2 attempts that had to give up";
        assert_eq!(said(0, holds.take(&sync).as_ref()), told);
        assert!(holds.take(&sync).is_none());
    }
}
