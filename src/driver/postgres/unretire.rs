//! Taking back what `retire` put aside.
//!
//! Invariants:
//! - It happens only where both sides are proven equal, or the loss was accepted by the mapping's name. With `both` the sync was
//!   there all the time, and what it could only note was put right for everybody (`snapshots`), as in `retire`; but a write
//!   may have passed it by, while a trigger was switched off or with a partition that came.
//! - The proof takes no lock: both sides are compared while clients work. Under the lock it is only seen that this rests on the same
//!   tables and triggers, and with `both` that nothing is noted, with `forward` that nothing was written since `retire`
//!   (`written`): clients that write to the new side make it fail, and rightly so.
//! - Everything that went over goes back: the catalogue is as it was before, but for what others changed meanwhile.
//!
//! Absent on purpose: bringing back what clients wrote to the new side alone.

use super::carried::{Broken, Carried, narrow, widen};
use super::connection::Tx;
use super::dual_write::done_before;
use super::rename;
use super::retirable::{Retiring, sides};
use super::retire::{are_equal, lock};
use super::shape::shape;
use super::sync_objects::{install_triggers, remove_sync, remove_triggers};
use super::{Postgres, counterpart, guard_sql, handover, ledger, returning, written};
use crate::driver::lost::lost;
use crate::driver::{Applied, Basis, Error, Fence, Losses, SyncState, TxKind, Work};
use crate::run::{Direction, FailureClass, RetireShape, RetiredColumn};

impl Postgres {
    /// Takes back what was put aside.
    pub(super) async fn take_back(
        &self,
        fence: &Fence,
        work: &Work,
        what: &Retiring<'_>,
        losses: Losses,
    ) -> Result<Applied, Error> {
        let mut basis = None;
        if losses == Losses::Refused && !self.is_done_before(fence, work).await? {
            basis = Some(self.compare_aside(fence, what).await?);
            if what.direction == Direction::Both {
                self.outlast(fence, work, &what.mapping.retired(what.shape)).await?;
            }
        }
        let mut tx = self.begin_alone(fence, work, TxKind::Unretire).await?;
        let done = async {
            if let Some(applied) = done_before(&mut tx, fence, work).await? {
                return Ok((applied, Carried::kept(&mut tx, fence.run(), &work.step).await?));
            }
            let done = unretire(&mut tx, what, (fence, work), (losses, basis.as_ref())).await?;
            if losses == Losses::Refused && what.direction == Direction::Both {
                self.connections.moments.stands(what.mapping)?;
            }
            Ok(done)
        }
        .await;
        let (done, carried) = match done {
            Ok((applied, carried)) => (Ok(applied), carried),
            Err(error) => (Err(error), Carried::default()),
        };
        let applied = self.finish_held(tx, work, done).await?;
        self.check_keys(fence, work, (&carried.keys_back, Broken::Stays)).await?;
        Ok(applied)
    }
}

async fn unretire(
    tx: &mut Tx<'_>,
    what: &Retiring<'_>,
    (fence, work): (&Fence, &Work),
    (losses, basis): (Losses, Option<&Basis>),
) -> Result<(Applied, Carried), Error> {
    let (mapping, direction) = (what.mapping, what.direction);
    let after = mapping.retired(what.shape);
    let schema = tx.schema().to_owned();
    // Says what isn't there in a sentence of its own.
    let looked = shape(tx.conn()?, &after).await?;
    let mut carried = Carried::kept(tx, fence.run(), &work.step).await?;
    let mut holders = carried.holders(tx.conn()?).await?;
    let keys = returning::returning(tx.conn()?, what, &looked).await?;
    holders.extend(returning::holders(&keys, &looked));
    lock(tx, &after, &holders).await?;
    let aside = shape(tx.conn()?, &after).await?;
    if returning::returning(tx.conn()?, what, &aside).await? != keys {
        let message = format!("foreign keys to {} changed just now", aside.old.name);
        return Err(Error::failed(FailureClass::Contention, message));
    }
    if losses == Losses::Refused {
        match direction {
            Direction::Forward => {
                if let Some(why) = written::uncertain(tx, &aside).await? {
                    return Err(lost(mapping.name.as_str(), &why));
                }
            }
            Direction::Both => {
                if let SyncState::Broken(why) = are_equal(tx, &aside, direction).await? {
                    let why = format!("the sync is not in place: {why}");
                    return Err(lost(mapping.name.as_str(), &why));
                }
            }
        }
        if let Some(basis) = basis {
            written::rests_on(tx, &after, basis).await?;
        }
    }
    let (old, new) = sides(tx.conn()?, &aside, &schema).await?;
    match direction {
        Direction::Both => remove_triggers(tx, &aside).await?,
        Direction::Forward => {
            remove_sync(tx, &aside).await?;
            written::unwatch(tx, &aside).await?;
            if matches!(what.shape, RetireShape::Table { .. }) {
                guard_sql::remove_triggers(tx, &aside).await?;
                guard_sql::remove_function(tx, &aside).await?;
            }
        }
    }
    match what.shape {
        RetireShape::Table { take_name, .. } => {
            let pairs: Vec<_> =
                counterpart::pairs(&aside).into_iter().map(|(old, new)| (new, old)).collect();
            handover::hand_over(tx.conn()?, (&new, &old), &pairs).await?;
            if *take_name {
                rename::table(tx.conn()?, &new.table, &mapping.into.table).await?;
            }
            rename::table(tx.conn()?, &old.table, &mapping.from.table).await?;
        }
        RetireShape::Columns(columns) => {
            let back = |it: &RetiredColumn| {
                it.take_name.as_ref().map(|_| (it.column.clone(), it.old_name.clone()))
            };
            let pairs: Vec<_> = columns.iter().filter_map(back).collect();
            handover::hand_over(tx.conn()?, (&old, &old), &pairs).await?;
            rename::columns_back(tx.conn()?, &old.table, columns).await?;
        }
    }
    let path = narrow(tx.conn()?).await?;
    returning::let_go(tx, &keys).await?;
    let mut left = carried.take_back(tx).await?;
    widen(tx.conn()?, path).await?;
    // What a forward `retire` ended begins again: the dual-write step, which still stands, is undone by itself.
    let before = shape(tx.conn()?, mapping).await?;
    let (unchecked, said) = returning::make_again(tx, &keys, &before).await?;
    carried.keys_back.extend(unchecked);
    left.extend(said);
    install_triggers(tx, &before, direction).await?;
    let detail = (!left.is_empty()).then(|| left.join("; "));
    let applied = ledger::record(tx, fence, work, (0, detail)).await?;
    Ok((applied, carried))
}
