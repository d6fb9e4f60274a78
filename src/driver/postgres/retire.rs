//! Putting the old shape aside, and removing it: [`Retirer`] for PostgreSQL.
//!
//! Invariants:
//! - Each happens in one transaction with the ledger, with both tables locked against everybody, the old one first, and
//!   with them whatever else changes. All waits for these locks together are shorter than the server takes to look for
//!   deadlocks. What is in the way is found before any lock is asked for.
//! - Our triggers go before anything is renamed and come back, under the new names, after it: no client ever meets one that
//!   names what isn't there.
//! - Nothing is put aside unless the sync was in place until then and every noted key was put right, and no client has a view
//!   of the database from before that (`snapshots`): both sides are equal for everybody.
//! - Nor while a row is parked, nor is anything dropped then: that is seen under the locks, too.
//! - Nor unless it is the sync under which the sides were compared: what a gate saw of that is looked at again under the locks,
//!   here and where something is dropped.
//! - What follows the old table by its identity and not by its name is carried over in the same transaction, or refused by
//!   name; so is everything that we know no name for.
//! - In place, what tells rows apart (primary key, replica identity) and numbers them (identity) passes to the new columns, or
//!   the whole is refused.
//! - Foreign keys that went over are checked right after it; the step is done when they are.
//!
//! Absent on purpose: making what the new table lacks by a build or a scan. `retire` refuses with the statements.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Row as _};

use super::carried::{Broken, Carried, Holder, in_the_way, narrow, referenced, widen};
use super::carry::Names;
use super::catalogue::{name_sql, quote};
use super::connection::Tx;
use super::defaults::inherited;
use super::dependents::{Dependent, dependents};
use super::dual_write::{done_before, sync_state_in};
use super::error::{failed, refused};
use super::locks::lock_all;
use super::park::none_parked;
use super::passes::as_compared;
use super::remade::Remade;
use super::rename::{self, run};
use super::retirable::{Outside, Retiring, check, check_free, sides};
use super::settle::{Last, is_noted_just_now, none_noted};
use super::settle_sql::Seen;
use super::shape::{Shape, shape};
use super::sync_objects::{install_triggers, remove_sync, remove_triggers};
use super::tied::{by_name, tied};
use super::{
    Postgres, carry, counterpart, guard_sql, handover, identifying, ledger, outbox, uncarried,
    written,
};
use crate::bounds::postgres::RETIRE_TRIES_MAX;
use crate::driver::{Applied, Error, Fence, Losses, Retirer, SyncState, TxKind, Work};
use crate::run::{
    Direction, FailureClass, Mapping, Permit, Retire, RetireShape, RetiredColumn, RunId,
};

#[async_trait]
impl Retirer for Postgres {
    async fn retire(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
        retired: &Retire,
    ) -> Result<Applied, Error> {
        let Retire { shape, known, .. } = retired;
        let retiring = Retiring { mapping, direction, shape, known };
        let mut tries = 1;
        loop {
            match self.retire_once(fence, work, &retiring).await {
                // Whether clients note a key just then is a matter of luck, and to rest makes it no better.
                Err(error) if is_noted_just_now(&error) && tries < RETIRE_TRIES_MAX => tries += 1,
                retired => return retired,
            }
        }
    }

    async fn unretire(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
        shape: &RetireShape,
        losses: Losses,
    ) -> Result<Applied, Error> {
        self.take_back(fence, work, &Retiring { mapping, direction, shape, known: &[] }, losses)
            .await
    }

    async fn drop_retired(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        shape: &RetireShape,
        permit: Permit,
    ) -> Result<Applied, Error> {
        is_for(&permit, work)?;
        // With `both` clients of the old shape may have written what the sync could only note.
        let last = if self.is_done_before(fence, work).await? {
            Last::Nothing
        } else {
            self.settle_last(fence, &mapping.retired(shape)).await?
        };
        let mut tx = self.begin_alone(fence, work, TxKind::Drop).await?;
        let done = async {
            if let Some(applied) = done_before(&mut tx, fence, work).await? {
                return Ok(applied);
            }
            let detail = drop_retired(&mut tx, (mapping, work), (shape, last)).await?;
            ledger::record(&mut tx, fence, work, (0, Some(detail))).await
        }
        .await;
        self.finish_held(tx, work, done).await
    }

    async fn drop_old(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        others: &[Mapping],
        permit: Permit,
    ) -> Result<Applied, Error> {
        is_for(&permit, work)?;
        if mapping.is_pushdown() {
            let message =
                format!("the old side of {} is removed behind a `retire` only", mapping.name);
            return Err(Error::failed(FailureClass::Refused, message));
        }
        outbox::drop_old(self, (fence, work), mapping, others).await
    }
}

/// Sees that a permit is for this piece of work.
fn is_for(permit: &Permit, work: &Work) -> Result<(), Error> {
    if *permit.step() == work.step {
        return Ok(());
    }
    let message = format!("the permit is for {}, not for {}", permit.step(), work.step);
    Err(Error::failed(FailureClass::Unsafe, message))
}

impl Postgres {
    async fn retire_once(
        &self,
        fence: &Fence,
        work: &Work,
        retiring: &Retiring<'_>,
    ) -> Result<Applied, Error> {
        self.prepare_to_retire(fence, work, retiring).await?;
        let mut tx = self.begin_alone(fence, work, TxKind::Retire).await?;
        let done = async {
            if let Some(applied) = done_before(&mut tx, fence, work).await? {
                return Ok((applied, Carried::kept(&mut tx, fence.run(), &work.step).await?));
            }
            let (detail, carried) = retire(&mut tx, retiring, (fence.run(), work)).await?;
            self.connections.moments.stands(retiring.mapping)?;
            carried.keep(&mut tx, fence, work).await?;
            let applied = ledger::record(&mut tx, fence, work, (0, Some(detail))).await?;
            Ok((applied, carried))
        }
        .await;
        let (done, carried) = match done {
            Ok((applied, carried)) => (Ok(applied), carried),
            Err(error) => (Err(error), Carried::default()),
        };
        let applied = self.finish_held(tx, work, done).await?;
        self.check_keys(fence, work, (&carried.keys, Broken::Fails)).await?;
        Ok(applied)
    }

    pub(super) async fn begin_alone(
        &self,
        fence: &Fence,
        work: &Work,
        kind: TxKind,
    ) -> Result<Tx<'_>, Error> {
        self.connections.begin_waiting(fence, kind, work.lock_timeout_ms).await
    }

    /// Whether the ledger has a piece of work, or there is nothing to undo.
    pub(super) async fn is_done_before(&self, fence: &Fence, work: &Work) -> Result<bool, Error> {
        let mut tx = self.begin_alone(fence, work, TxKind::Watch).await?;
        let found = done_before(&mut tx, fence, work).await;
        tx.roll_back().await;
        Ok(found?.is_some())
    }

    /// Sees that nothing is in the way, and waits for those who would miss rows under the new names.
    async fn prepare_to_retire(
        &self,
        fence: &Fence,
        work: &Work,
        what: &Retiring<'_>,
    ) -> Result<(), Error> {
        if self.is_done_before(fence, work).await? {
            return Ok(());
        }
        let schema = self.connections.schema().to_owned();
        let mut reader = self.connections.read().await?;
        let looked = shape(reader.conn()?, what.mapping).await?;
        let outside = Outside::of(reader.conn()?, what, &looked).await?;
        check(reader.conn()?, what, (&looked, &outside, &schema)).await?;
        let state = sync_state_in(reader.conn()?, &looked, what.direction, &schema).await?;
        reader.release().await;
        if let SyncState::Broken(why) = state {
            return Err(unsynced(what.mapping, &why));
        }
        self.try_views(fence, work, (what, &looked)).await?;
        self.outlast(fence, work, what.mapping).await
    }

    /// Sees that views can be made again over a new table, which the server says only once the names are the new ones.
    async fn try_views(
        &self,
        fence: &Fence,
        work: &Work,
        (what, looked): (&Retiring<'_>, &Shape),
    ) -> Result<(), Error> {
        if what.columns().is_some() {
            return Ok(());
        }
        let mut tx = self.begin_alone(fence, work, TxKind::Watch).await?;
        let tried = uncarried::tried(&mut tx, looked).await;
        tx.roll_back().await;
        let tried = tried?;
        if tried.is_empty() {
            return Ok(());
        }
        let message = format!(
            "these can't be made again on {}; drop them, or have them show the old type (a cast), first",
            looked.new.name
        );
        Err(in_the_way(&looked.mapping, &message, &tried))
    }
}

fn unsynced(mapping: &Mapping, why: &str) -> Error {
    let message = format!("mapping {}: the sync is not in place: {why}", mapping.name);
    Error::failed(FailureClass::Stale, message)
        .with_help("put it back (rollback and run again), copy and verify anew")
}

/// Locks the tables of a mapping against everybody, in the order of triggers and chunks, and then what else changes.
pub(super) async fn lock(
    tx: &mut Tx<'_>,
    mapping: &Mapping,
    others: &[Holder],
) -> Result<(), Error> {
    let mut statements =
        vec![format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", name_sql(&mapping.from.table))];
    if !mapping.is_in_place() {
        let lock = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", name_sql(&mapping.into.table));
        statements.push(lock);
    }
    statements.extend(others.iter().map(Holder::lock));
    lock_all(tx, &statements).await
}

/// Sees that the sync is whole and nothing is noted: then both sides are equal.
pub(super) async fn are_equal(
    tx: &mut Tx<'_>,
    shape: &Shape,
    direction: Direction,
) -> Result<SyncState, Error> {
    let schema = tx.schema().to_owned();
    let state = sync_state_in(tx.conn()?, shape, direction, &schema).await?;
    if state == SyncState::Active {
        none_noted(tx, shape, Seen::InAllViews).await?;
    }
    Ok(state)
}

async fn retire(
    tx: &mut Tx<'_>,
    what: &Retiring<'_>,
    (run_id, work): (&RunId, &Work),
) -> Result<(String, Carried), Error> {
    let (mapping, direction) = (what.mapping, what.direction);
    let schema = tx.schema().to_owned();
    let (before, outside, mut said) = hold(tx, what).await?;
    as_compared(tx, mapping, work).await?;
    if let SyncState::Broken(why) = are_equal(tx, &before, direction).await? {
        return Err(unsynced(mapping, &why));
    }
    none_parked(tx, &before).await?;
    match direction {
        Direction::Both => remove_triggers(tx, &before).await?,
        Direction::Forward => remove_sync(tx, &before).await?,
    }
    let mut carried = Carried::default();
    let done = match what.shape {
        RetireShape::Table { old_name, take_name } => {
            let names = Names { old: old_name, takes: *take_name };
            table(tx, what, (&before, &outside, names), &mut carried).await?
        }
        RetireShape::Columns(all) => {
            columns(tx, what, (&before, &outside, all), &mut carried).await?
        }
    };
    said.splice(0..0, done);
    let after = shape(tx.conn()?, &mapping.retired(what.shape)).await?;
    check_free(tx.conn()?, what, (&after.old, &schema)).await?;
    match direction {
        Direction::Both => install_triggers(tx, &after, direction).await?,
        Direction::Forward => {
            if matches!(what.shape, RetireShape::Table { .. }) {
                guard_sql::install(tx, &after, run_id).await?;
            }
            written::watch(tx, &after).await?;
        }
    }
    Ok((said.join("; "), carried))
}

/// Sees that nothing is in the way, locks everything, and sees it again.
async fn hold(
    tx: &mut Tx<'_>,
    what: &Retiring<'_>,
) -> Result<(Shape, Outside, Vec<String>), Error> {
    let schema = tx.schema().to_owned();
    let looked = shape(tx.conn()?, what.mapping).await?;
    let outside = Outside::of(tx.conn()?, what, &looked).await?;
    check(tx.conn()?, what, (&looked, &outside, &schema)).await?;
    check_references(tx, &looked, &outside).await?;
    let mut others = outside.holders();
    if what.direction == Direction::Forward {
        others.extend(referenced(tx.conn()?, (looked.old.oid, looked.new.oid)).await?);
    }
    lock(tx, what.mapping, &others).await?;
    let now = shape(tx.conn()?, what.mapping).await?;
    if Outside::of(tx.conn()?, what, &now).await? != outside {
        let message = format!("what depends on {} changed just now", now.old.name);
        return Err(Error::failed(FailureClass::Contention, message));
    }
    let said = check(tx.conn()?, what, (&now, &outside, &schema)).await?;
    Ok((now, outside, said))
}

/// Where a mapping leaves rows out, rows of other tables must not refer to these.
async fn check_references(tx: &mut Tx<'_>, shape: &Shape, outside: &Outside) -> Result<(), Error> {
    let mut broken = Vec::new();
    for key in &outside.keys {
        let Some(question) = key.orphans(shape) else { continue };
        let row = sqlx::query(AssertSqlSafe(question))
            .fetch_one(tx.conn()?)
            .await
            .map_err(|error| refused(&error))?;
        if row.try_get(0).map_err(failed("look for rows that refer to others"))? {
            broken.push(format!("foreign key {}", key.said()));
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    let message = format!("rows refer to rows of {} that the mapping leaves out", shape.old.name);
    Err(in_the_way(&shape.mapping, &message, &broken).with_help(
        "delete those rows or have them refer to others, drop the foreign key, or have the mapping's where keep what they refer to",
    ))
}

/// Lets the foreign keys of what is put aside go where nobody writes to it any more.
async fn let_keys_go(
    tx: &mut Tx<'_>,
    what: &Retiring<'_>,
    before: &Shape,
    carried: &mut Carried,
) -> Result<(), Error> {
    if what.direction == Direction::Both {
        return Ok(());
    }
    let schema = tx.schema().to_owned();
    let (old, _) = sides(tx.conn()?, before, &schema).await?;
    let of_it = |name: &String| {
        what.columns().is_none_or(|columns| columns.iter().any(|it| it.column == *name))
    };
    let keys = old.around.foreign_keys().filter(|key| key.columns.iter().any(of_it));
    let keys: Vec<_> = keys.cloned().collect();
    let path = narrow(tx.conn()?).await?;
    carry::let_go(tx, (&before.old, &keys), carried).await?;
    widen(tx.conn()?, path).await
}

/// Puts a table aside; another one takes its place.
async fn table(
    tx: &mut Tx<'_>,
    what: &Retiring<'_>,
    (before, outside, names): (&Shape, &Outside, Names<'_>),
    carried: &mut Carried,
) -> Result<Vec<String>, Error> {
    let (mapping, schema) = (what.mapping, tx.schema().to_owned());
    let mut gifts = carry::of_table(tx.conn()?, before, (names, what.direction)).await?;
    gifts.extend(outside.remade.iter().map(Remade::gift));
    let is_named_so = names.takes || !gifts.is_empty();
    // What is said of these keys has been read by now.
    let_keys_go(tx, what, before, carried).await?;
    let path = narrow(tx.conn()?).await?;
    for key in &outside.keys {
        key.go(tx, before, carried).await?;
    }
    widen(tx.conn()?, path).await?;
    rename::table(tx.conn()?, &before.old, names.old).await?;
    let mut said = vec![format!("{} is now {}", mapping.from.table, names.old)];
    if is_named_so {
        // What is given finds the new table by the old one's name, for a moment if it doesn't keep it.
        rename::table(tx.conn()?, &before.new, &mapping.from.table).await?;
    }
    let path = narrow(tx.conn()?).await?;
    for gift in gifts {
        carried.give(tx, gift).await?;
    }
    widen(tx.conn()?, path).await?;
    if names.takes {
        said.push(format!("{} is now {}", mapping.into.table, mapping.from.table));
    } else if is_named_so {
        rename_back(tx, before).await?;
    }
    said.extend(outside.said(if names.takes { &mapping.from.table } else { &mapping.into.table }));
    let after = shape(tx.conn()?, &mapping.retired(what.shape)).await?;
    let (old, new) = sides(tx.conn()?, &after, &schema).await?;
    let pairs = counterpart::pairs(&after);
    said.extend(handover::hand_over(tx.conn()?, (&old, &new), &pairs).await?);
    Ok(said)
}

/// Gives the new table its own name again.
async fn rename_back(tx: &mut Tx<'_>, before: &Shape) -> Result<(), Error> {
    let sql = format!(
        "ALTER TABLE {}.{} RENAME TO {}",
        quote(&before.new.schema),
        quote(&before.old.name),
        quote(&before.new.name)
    );
    run(tx.conn()?, "rename the table", sql).await
}

/// Puts columns aside; others take their names.
async fn columns(
    tx: &mut Tx<'_>,
    what: &Retiring<'_>,
    (before, outside, columns): (&Shape, &Outside, &[RetiredColumn]),
    carried: &mut Carried,
) -> Result<Vec<String>, Error> {
    let_keys_go(tx, what, before, carried).await?;
    let schema = tx.schema().to_owned();
    let mut said: Vec<String> =
        columns.iter().map(|it| format!("{} is now {}", it.column, it.old_name)).collect();
    if before.in_place {
        said.extend(give_defaults(tx, (before, columns), carried).await?);
    }
    let gifts = if before.in_place {
        carry::of_columns(tx.conn()?, before, columns).await?
    } else {
        Vec::new()
    };
    let path = narrow(tx.conn()?).await?;
    for gift in gifts {
        carried.give(tx, gift).await?;
    }
    widen(tx.conn()?, path).await?;
    // A column may only now have a sequence.
    let (old, _) = sides(tx.conn()?, before, &schema).await?;
    let pairs = column_pairs(columns);
    said.extend(handover::hand_over(tx.conn()?, (&old, &old), &pairs).await?);
    let path = narrow(tx.conn()?).await?;
    rename::columns(tx.conn()?, &old.table, columns).await?;
    for remade in &outside.remade {
        carried.give(tx, remade.gift()).await?;
    }
    widen(tx.conn()?, path).await?;
    said.extend(outside.said(&before.old.name));
    Ok(said)
}

/// Gives columns that take others' names what the mapping makes of those columns' defaults. Returns what there is to say.
async fn give_defaults(
    tx: &mut Tx<'_>,
    (before, columns): (&Shape, &[RetiredColumn]),
    carried: &mut Carried,
) -> Result<Vec<String>, Error> {
    let mut said = Vec::new();
    for default in inherited(tx.conn()?, before, columns).await? {
        match default.gift(&before.old.sql()) {
            Some(gift) => carried.give(tx, gift).await?,
            None => said.push(format!(
                "{} gets no default like {}: until drop the sync fills it",
                default.column, default.was
            )),
        }
    }
    Ok(said)
}

/// The columns put aside that others take the names of.
fn column_pairs(columns: &[RetiredColumn]) -> Vec<(String, String)> {
    let pair = |it: &RetiredColumn| Some((it.column.clone(), it.take_name.clone()?));
    columns.iter().filter_map(pair).collect()
}

/// The tables of a mapping that was retired, held against it; where one changed meanwhile so that the mapping fits no more,
/// without what is mapped: to drop what was put aside takes no more than the two tables.
async fn aside(tx: &mut Tx<'_>, mapping: &Mapping) -> Result<Shape, Error> {
    match shape(tx.conn()?, mapping).await {
        Err(error) if error.class() == Some(FailureClass::Refused) => {
            tracing::debug!(%error, "the mapping fits its tables no more");
            Shape::of_tables(tx.conn()?, mapping).await
        }
        other => other,
    }
}

async fn drop_retired(
    tx: &mut Tx<'_>,
    (mapping, work): (&Mapping, &Work),
    (retired, last): (&RetireShape, Last),
) -> Result<String, Error> {
    let after = mapping.retired(retired);
    // Says what isn't there in a sentence of its own.
    let looked = aside(tx, &after).await?;
    let others = match retired {
        RetireShape::Table { .. } => {
            referenced(tx.conn()?, (looked.old.oid, looked.new.oid)).await?
        }
        RetireShape::Columns(_) => Vec::new(),
    };
    lock(tx, &after, &others).await?;
    as_compared(tx, &after, work).await?;
    let aside = aside(tx, &after).await?;
    if last == Last::Nothing {
        none_noted(tx, &aside, Seen::Now).await?;
        none_parked(tx, &aside).await?;
    }
    remove_sync(tx, &aside).await?;
    written::unwatch(tx, &aside).await?;
    let schema = tx.schema().to_owned();
    match retired {
        RetireShape::Table { old_name, take_name } => {
            guard_sql::remove_triggers(tx, &aside).await?;
            guard_sql::remove_function(tx, &aside).await?;
            if *take_name {
                carry::let_draw(tx, &aside).await?;
            }
            let (old, new) = sides(tx.conn()?, &aside, &schema).await?;
            let pairs = handover::drawing_together(&old, &new, counterpart::pairs(&aside));
            handover::hand_over(tx.conn()?, (&old, &new), &pairs).await?;
            let found = dependents(tx.conn()?, &aside.old, None, &schema).await?;
            refuse_tied(mapping, &found)?;
            run(tx.conn()?, "drop the table put aside", format!("DROP TABLE {}", aside.old.sql()))
                .await?;
            Ok(format!("{old_name} is gone{}", by_name(&found)))
        }
        RetireShape::Columns(columns) => {
            let names: Vec<&str> = columns.iter().map(|it| it.old_name.as_str()).collect();
            let found = dependents(tx.conn()?, &aside.old, Some(&names), &schema).await?;
            refuse_tied(mapping, &found)?;
            let (old, _) = sides(tx.conn()?, &aside, &schema).await?;
            let marks = identifying::goes_along(&old, &names);
            if !marks.is_empty() {
                let what = "this would go with the columns, though it is the whole table's";
                return Err(in_the_way(mapping.name.as_str(), what, &marks));
            }
            if aside.in_place {
                let taken = columns.iter().filter(|it| it.take_name.is_some());
                let pairs: Vec<_> =
                    taken.map(|it| (it.old_name.clone(), it.column.clone())).collect();
                handover::hand_over(tx.conn()?, (&old, &old), &pairs).await?;
            }
            let drops: Vec<String> =
                names.iter().map(|name| format!("DROP COLUMN {}", quote(name))).collect();
            let sql = format!("ALTER TABLE {} {}", aside.old.sql(), drops.join(", "));
            run(tx.conn()?, "drop the columns put aside", sql).await?;
            Ok(format!("{} of {} gone{}", names.join(", "), aside.old.name, by_name(&found)))
        }
    }
}

fn refuse_tied(mapping: &Mapping, found: &[Dependent]) -> Result<(), Error> {
    let tied = tied(found);
    if tied.is_empty() {
        return Ok(());
    }
    let what = format!("something still depends on what {} put aside", mapping.from.table);
    Err(in_the_way(mapping.name.as_str(), &what, &tied))
}
