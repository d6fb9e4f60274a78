//! Putting the old shape aside, taking that back, and removing it: [`Retirer`] for PostgreSQL.
//!
//! Invariants:
//! - Each happens in one transaction with the ledger, with both tables locked against everybody, the old one first. Our
//!   triggers go before anything is renamed and come back, under the new names, after it: no client ever meets one that
//!   names what isn't there.
//! - Nothing is put aside unless the sync was in place until then and every noted key was put right: both sides are equal at
//!   that moment.
//! - What follows the old table by its identity (views, foreign keys of others, functions whose body the catalogue reads)
//!   would go on using what was put aside. It is refused, by name; so is everything that we know no name for.
//! - A forward `retire` is taken back only where both sides are proven equal under the lock, or the loss was accepted.
//!
//! Absent on purpose: making what the new table lacks by a build or a scan. `retire` refuses with the statements.

use async_trait::async_trait;

use super::catalogue::quote;
use super::connection::{Tx, TxKind};
use super::dependents::{Dependent, dependents};
use super::dual_write::{done_before, finish, lock_in_order, sync_state_in};
use super::guard_sql::{self, LetGo};
use super::rename::{self, run};
use super::settle::{direction, settle_in};
use super::shape::{Shape, shape};
use super::shape_sql::{Pick, Statements};
use super::surroundings::around;
use super::survey::Side;
use super::sync_objects::{install_triggers, remove_sync, remove_triggers};
use super::{Postgres, counterpart, handover, ledger, verify};
use crate::copy::chunk::Chunk;
use crate::driver::{Applied, Error, Fence, Losses, Retirer, SyncState, Work};
use crate::run::{Direction, FailureClass, Mapping, Permit, RetireShape, RetiredColumn, RunId};

#[async_trait]
impl Retirer for Postgres {
    async fn retire(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        direction: Direction,
        shape: &RetireShape,
    ) -> Result<Applied, Error> {
        let mut tx = self.begin_alone(fence, work, TxKind::Retire).await?;
        let done = async {
            if let Some(applied) = done_before(&mut tx, fence, work).await? {
                return Ok(applied);
            }
            let retiring = Retiring { mapping, direction, shape };
            let detail = retire(&mut tx, &retiring, fence.run()).await?;
            ledger::record(&mut tx, fence, work, (0, Some(detail))).await
        }
        .await;
        finish(tx, done).await
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
        let mut tx = self.begin_alone(fence, work, TxKind::Unretire).await?;
        let retiring = Retiring { mapping, direction, shape };
        let done = async {
            if let Some(applied) = done_before(&mut tx, fence, work).await? {
                return Ok(applied);
            }
            unretire(&mut tx, &retiring, losses).await?;
            ledger::record(&mut tx, fence, work, (0, None)).await
        }
        .await;
        let applied = finish(tx, done).await?;
        self.check_taken_back(fence, mapping).await?;
        Ok(applied)
    }

    async fn drop_retired(
        &self,
        fence: &Fence,
        work: &Work,
        mapping: &Mapping,
        shape: &RetireShape,
        permit: Permit,
    ) -> Result<Applied, Error> {
        if *permit.step() != work.step {
            let message = format!("the permit is for {}, not for {}", permit.step(), work.step);
            return Err(Error::failed(FailureClass::Unsafe, message));
        }
        let mut tx = self.begin_alone(fence, work, TxKind::Drop).await?;
        let done = async {
            if let Some(applied) = done_before(&mut tx, fence, work).await? {
                return Ok(applied);
            }
            let detail = drop_retired(&mut tx, mapping, shape).await?;
            ledger::record(&mut tx, fence, work, (0, Some(detail))).await
        }
        .await;
        finish(tx, done).await
    }
}

/// What is put aside, or taken back.
struct Retiring<'a> {
    mapping: &'a Mapping,
    direction: Direction,
    shape: &'a RetireShape,
}

impl Postgres {
    async fn begin_alone(&self, fence: &Fence, work: &Work, kind: TxKind) -> Result<Tx<'_>, Error> {
        self.connections.begin_waiting(fence, kind, work.lock_timeout_ms).await
    }

    /// Checks the foreign keys that an undone `retire` took back, each in a transaction of its own, since that reads the
    /// whole table; then what kept their definitions goes. Done again after an interruption, it goes on where it was.
    async fn check_taken_back(&self, fence: &Fence, mapping: &Mapping) -> Result<(), Error> {
        let mut reader = self.connections.read().await?;
        let before = shape(reader.conn()?, mapping).await?;
        reader.release().await;
        let mut tx = self.connections.begin(fence, TxKind::Unretire).await?;
        let keys = guard_sql::let_go(&mut tx, &before).await?;
        tx.roll_back().await;
        for key in keys {
            let mut tx = self.connections.begin(fence, TxKind::Unretire).await?;
            let sql = format!(
                "ALTER TABLE {} VALIDATE CONSTRAINT {}",
                before.old.sql(),
                quote(&key.name)
            );
            match run(tx.conn()?, "check a foreign key that was taken back", sql).await {
                Ok(()) => {
                    tx.commit().await?;
                }
                // It holds for what is written from now on; that rows from before break it is for people to mend.
                Err(error) if error.class() == Some(FailureClass::Refused) => {
                    tracing::warn!(key = %key.name, %error, "a foreign key stays NOT VALID");
                    tx.roll_back().await;
                }
                Err(error) => {
                    tx.roll_back().await;
                    return Err(error);
                }
            }
        }
        let mut tx = self.connections.begin(fence, TxKind::Unretire).await?;
        let gone = guard_sql::remove_function(&mut tx, &before).await;
        finish(tx, gone).await
    }
}

/// A failure that the plan's author can mend.
fn in_the_way(mapping: &Mapping, what: &str, items: &[String]) -> Error {
    let message = format!("mapping {}: {what}", mapping.name);
    let mut error = Error::failed(FailureClass::Refused, message);
    if let Error::Failed(failure) = &mut error {
        failure.detail = Some(items.join(";\n"));
    }
    error
}

/// Locks both tables of a mapping against everybody, in the order of triggers and chunks, and reads its shape then.
async fn lock(tx: &mut Tx<'_>, mapping: &Mapping) -> Result<Shape, Error> {
    // Says what isn't there in a sentence of its own.
    let before = shape(tx.conn()?, mapping).await?;
    let direction = direction(tx.conn()?, &before).await?;
    let mut names = vec![&mapping.from.table];
    if !mapping.is_in_place() {
        names.push(&mapping.into.table);
    }
    lock_in_order(tx, &names, (direction, "ACCESS EXCLUSIVE")).await?;
    shape(tx.conn()?, mapping).await
}

async fn sides(tx: &mut Tx<'_>, shape: &Shape) -> Result<(Side, Side), Error> {
    let schema = tx.schema().to_owned();
    let old = around(tx.conn()?, shape.old.oid, &schema).await?;
    let new = around(tx.conn()?, shape.new.oid, &schema).await?;
    Ok((
        Side { table: shape.old.clone(), around: old.into() },
        Side { table: shape.new.clone(), around: new.into() },
    ))
}

/// Puts right what is noted, and sees that the sync is whole: then both sides are equal.
async fn make_equal(
    tx: &mut Tx<'_>,
    shape: &Shape,
    direction: Direction,
) -> Result<SyncState, Error> {
    let schema = tx.schema().to_owned();
    let state = sync_state_in(tx.conn()?, shape, direction, &schema).await?;
    if state == SyncState::Active {
        settle_in(tx, shape, direction).await?;
    }
    Ok(state)
}

async fn retire(tx: &mut Tx<'_>, what: &Retiring<'_>, run_id: &RunId) -> Result<String, Error> {
    let (mapping, direction) = (what.mapping, what.direction);
    let before = lock(tx, mapping).await?;
    if let SyncState::Broken(why) = make_equal(tx, &before, direction).await? {
        let message = format!("mapping {}: the sync is not in place: {why}", mapping.name);
        return Err(Error::failed(FailureClass::Stale, message)
            .with_help("put it back (rollback and run again), copy and verify anew"));
    }
    let (old, new) = sides(tx, &before).await?;
    let mut said = match what.shape {
        RetireShape::Table { take_name, .. } => {
            check_table(tx, mapping, (&old, &new, &before), *take_name).await?
        }
        RetireShape::Columns(columns) => check_columns(tx, what, (&old, columns)).await?,
    };
    match direction {
        Direction::Both => remove_triggers(tx, &before).await?,
        Direction::Forward => remove_sync(tx, &before).await?,
    }
    match what.shape {
        RetireShape::Table { old_name, take_name } => {
            if *take_name {
                counterpart::carry_rights(tx, &old, &new).await?;
            }
            let pairs = counterpart::pairs(&before);
            said.extend(handover::hand_over(tx.conn()?, (&old, &new), &pairs).await?);
            rename::table(tx.conn()?, &old.table, old_name).await?;
            said.insert(0, format!("{} is now {old_name}", mapping.from.table));
            if *take_name {
                rename::table(tx.conn()?, &new.table, &mapping.from.table).await?;
                said.insert(1, format!("{} is now {}", mapping.into.table, mapping.from.table));
            }
        }
        RetireShape::Columns(columns) => {
            let pairs = column_pairs(columns);
            said.extend(handover::hand_over(tx.conn()?, (&old, &old), &pairs).await?);
            rename::columns(tx.conn()?, &old.table, columns).await?;
            for (at, it) in columns.iter().enumerate() {
                said.insert(at, format!("{} is now {}", it.column, it.old_name));
            }
        }
    }
    let after = shape(tx.conn()?, &mapping.retired(what.shape)).await?;
    match (direction, what.shape) {
        (Direction::Both, _) => install_triggers(tx, &after, direction).await?,
        (Direction::Forward, RetireShape::Table { .. }) => {
            let keys: Vec<_> = old.around.foreign_keys().cloned().collect();
            guard_sql::install(tx, &after, (run_id, &keys)).await?;
        }
        (Direction::Forward, RetireShape::Columns(_)) => {}
    }
    Ok(said.join("; "))
}

/// The columns put aside that others take the names of.
fn column_pairs(columns: &[RetiredColumn]) -> Vec<(String, String)> {
    let pair = |it: &RetiredColumn| Some((it.column.clone(), it.take_name.clone()?));
    columns.iter().filter_map(pair).collect()
}

/// What is in the way of putting a table aside. Returns what is worth saying.
async fn check_table(
    tx: &mut Tx<'_>,
    mapping: &Mapping,
    (old, new, shape): (&Side, &Side, &Shape),
    take_name: bool,
) -> Result<Vec<String>, Error> {
    let schema = tx.schema().to_owned();
    let found = dependents(tx.conn()?, &old.table, None, &schema).await?;
    let mut tied: Vec<String> =
        found.iter().filter(|it| it.is_certain()).map(Dependent::said).collect();
    if !old.around.parents.is_empty() {
        tied.push(format!("it is a part of {}", old.around.parents.join(", ")));
    }
    if !tied.is_empty() {
        let what = format!(
            "these would go on using {} once it is put aside; drop them, or make them anew on {}, first",
            old.table.name, new.table.name
        );
        return Err(in_the_way(mapping, &what, &tied));
    }
    if take_name {
        let lacks = counterpart::missing(shape, old, new);
        if !lacks.is_empty() {
            let what = format!(
                "{} lacks what {} has; run these statements (or drop what is not wanted any more) first",
                new.table.name, old.table.name
            );
            return Err(in_the_way(mapping, &what, &lacks));
        }
    }
    let by_name: Vec<String> = found.iter().map(|it| it.name.clone()).collect();
    if by_name.is_empty() {
        return Ok(Vec::new());
    }
    let then = if take_name { "use the new table from now on" } else { "don't find it any more" };
    Ok(vec![format!(
        "what names {} in its text will {then}: {}",
        old.table.name,
        by_name.join(", ")
    )])
}

/// What is in the way of putting columns aside.
async fn check_columns(
    tx: &mut Tx<'_>,
    what: &Retiring<'_>,
    (old, columns): (&Side, &[RetiredColumn]),
) -> Result<Vec<String>, Error> {
    let (mapping, schema) = (what.mapping, tx.schema().to_owned());
    let names: Vec<&str> = columns.iter().map(|it| it.column.as_str()).collect();
    let found = dependents(tx.conn()?, &old.table, Some(&names), &schema).await?;
    // Parts of the table itself go on with the column that they are over; `drop` looks at them again.
    let is_part = |it: &Dependent| {
        matches!(it.kind.as_str(), "index" | "statistics")
            || it.kind == "constraint" && it.name.ends_with(&format!("on table {}", old.table.name))
    };
    let tied: Vec<String> =
        found.iter().filter(|it| it.is_certain() && !is_part(it)).map(Dependent::said).collect();
    if !tied.is_empty() {
        let what = format!(
            "these would go on using {} of {} once put aside; drop them, or make them anew, first",
            names.join(", "),
            old.table.name
        );
        return Err(in_the_way(mapping, &what, &tied));
    }
    // In place, both ways, our trigger fills them; else a client of the new shape leaves them out.
    let is_filled = what.direction == Direction::Both && mapping.is_in_place();
    let needed: Vec<String> = names
        .iter()
        .filter_map(|name| old.table.column(name))
        .filter(|column| column.not_null && column.default.is_none() && column.identity.is_none())
        .map(|column| {
            format!(
                "ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL",
                old.table.sql(),
                quote(&column.name)
            )
        })
        .collect();
    if !is_filled && !needed.is_empty() {
        let what =
            "clients of the new shape could not insert rows any more; run these statements first";
        return Err(in_the_way(mapping, what, &needed));
    }
    let keys: Vec<String> = old
        .around
        .foreign_keys()
        .filter(|key| key.columns.iter().any(|column| names.contains(&column.as_str())))
        .map(|key| format!("ALTER TABLE {} DROP CONSTRAINT {}", old.table.sql(), quote(&key.name)))
        .collect();
    if what.direction == Direction::Forward && !keys.is_empty() {
        let what = "foreign keys of columns put aside would refuse deletes for values that nobody uses; run these statements first";
        return Err(in_the_way(mapping, what, &keys));
    }
    let by_name: Vec<String> =
        found.iter().filter(|it| !it.is_certain()).map(|it| it.name.clone()).collect();
    if by_name.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![format!("named in the text of {}", by_name.join(", "))])
}

async fn unretire(tx: &mut Tx<'_>, what: &Retiring<'_>, losses: Losses) -> Result<(), Error> {
    let (mapping, direction) = (what.mapping, what.direction);
    let aside = lock(tx, &mapping.retired(what.shape)).await?;
    if losses == Losses::Refused {
        match direction {
            Direction::Forward => prove_equal(tx, &aside).await?,
            Direction::Both => {
                if let SyncState::Broken(why) = make_equal(tx, &aside, direction).await? {
                    return Err(lost(&aside, &format!("the sync is not in place: {why}")));
                }
            }
        }
    }
    let (old, new) = sides(tx, &aside).await?;
    let keys = guard_sql::let_go(tx, &aside).await?;
    match direction {
        Direction::Both => remove_triggers(tx, &aside).await?,
        Direction::Forward => {
            remove_sync(tx, &aside).await?;
            if matches!(what.shape, RetireShape::Table { .. }) {
                guard_sql::remove_triggers(tx, &aside).await?;
            }
        }
    }
    take_back(tx, &old, &keys).await?;
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
    // What a forward `retire` ended begins again: the dual-write step, which still stands, is undone by itself.
    let before = shape(tx.conn()?, mapping).await?;
    install_triggers(tx, &before, direction).await
}

/// Gives a table its foreign keys again, for what is written from now on.
async fn take_back(tx: &mut Tx<'_>, old: &Side, keys: &[LetGo]) -> Result<(), Error> {
    for key in keys {
        let definition = super::stricter::bare(&key.definition);
        // A partitioned table takes none that isn't checked.
        let not_valid = if old.table.kind == 'p' { "" } else { " NOT VALID" };
        let sql = format!(
            "ALTER TABLE {} ADD CONSTRAINT {} {definition}{not_valid}",
            old.table.sql(),
            quote(&key.name)
        );
        run(tx.conn()?, "give the table its foreign key again", sql).await?;
    }
    Ok(())
}

fn lost(shape: &Shape, why: &str) -> Error {
    let message = format!("mapping {}: {why}", shape.mapping);
    Error::failed(FailureClass::Unsafe, message)
        .with_help(format!("to give them up, add --accept-loss {}", shape.mapping))
}

/// Nothing was written to the new side alone.
async fn prove_equal(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    let schema = tx.schema().to_owned();
    let statements = Statements::of(tx.conn()?, &schema, (shape, Direction::Forward)).await?;
    let everything = Chunk { lo: None, hi: None };
    let found = verify::compare(tx.conn()?, &statements, &Pick::Chunk(&everything)).await?;
    if found.is_clean() {
        return Ok(());
    }
    Err(lost(
        shape,
        &format!(
            "since retire, writes reached the new side alone: {} rows are missing there, {} are only there, {} differ",
            found.missing, found.extra, found.different
        ),
    ))
}

async fn drop_retired(
    tx: &mut Tx<'_>,
    mapping: &Mapping,
    retired: &RetireShape,
) -> Result<String, Error> {
    let aside = lock(tx, &mapping.retired(retired)).await?;
    remove_sync(tx, &aside).await?;
    let schema = tx.schema().to_owned();
    match retired {
        RetireShape::Table { old_name, .. } => {
            guard_sql::remove_triggers(tx, &aside).await?;
            guard_sql::remove_function(tx, &aside).await?;
            let (old, new) = sides(tx, &aside).await?;
            handover::hand_over(tx.conn()?, (&old, &new), &counterpart::pairs(&aside)).await?;
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
            let drops: Vec<String> =
                names.iter().map(|name| format!("DROP COLUMN {}", quote(name))).collect();
            let sql = format!("ALTER TABLE {} {}", aside.old.sql(), drops.join(", "));
            run(tx.conn()?, "drop the columns put aside", sql).await?;
            Ok(format!("{} of {} gone{}", names.join(", "), aside.old.name, by_name(&found)))
        }
    }
}

fn refuse_tied(mapping: &Mapping, found: &[Dependent]) -> Result<(), Error> {
    let tied: Vec<String> =
        found.iter().filter(|it| it.is_certain()).map(Dependent::said).collect();
    if tied.is_empty() {
        return Ok(());
    }
    let what = format!("something still depends on what {} put aside", mapping.from.table);
    Err(in_the_way(mapping, &what, &tied))
}

/// Functions that named what is gone, as the end of a sentence.
fn by_name(found: &[Dependent]) -> String {
    let names: Vec<&str> =
        found.iter().filter(|it| !it.is_certain()).map(|it| it.name.as_str()).collect();
    match names.as_slice() {
        [] => String::new(),
        names => format!("; still named in the text of {}", names.join(", ")),
    }
}
