//! Putting right the keys that triggers could only note.
//!
//! A batch is one READ COMMITTED transaction. It takes its notes first, with all others of the keys that rows came from or went to:
//! who stands where is told by all of them together, so that they are never split, and a batch may become as large as that.
//! Then it locks the source rows, and takes what was noted of them until it had them; what is noted later is another note, and
//! stays. Then it locks the copies, in the order of triggers and chunks, and only the next statement, which sees everything that was
//! committed before it had the locks, decides: a copy without a source row goes, the others are made as their source says. A source
//! row that is being inserted can't be locked; the client that inserts it comes to its copy after us and makes it anew, or before us,
//! and then we wait for it.
//!
//! What the server refuses stays noted and is tried again, as long as that makes a difference:
//! - A value that must be unique may be held by the copy of another noted row, and that one's by the next: all of them are taken
//!   out and put in again at once.
//! - Rows of other mappings may refer to the copy, or it to them: their notes are put right as well.
//!
//! What is refused even so is parked with the reason where the plan lets rows be parked; else it is an error that names the
//! keys.
//!
//! Absent on purpose: waiting. A lock that isn't had in time is the caller's to try again; nothing of the batch stays.

use std::collections::BTreeSet;

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres as Sqlx, Row as _};

use super::Postgres;
use super::connection::{Connections, Tx};
use super::dual_write::finish;
use super::error::{code, failed, failure};
use super::moves::{Followed, follow_moves};
use super::noted::{Note, is_any_astray, put_back};
use super::settle_sql::{
    How, Seed, Seen, TRADABLE, all_notes, is_any_wrong, locks, statements, take_notes,
};
use super::shape::{Shape, shape};
use super::sink::is_of_a_row;
use super::stuck::{Stuck, park_or_refuse};
use super::sync_sql::trigger_name;
use super::{ledger, marks, patience};
use crate::bounds::postgres::{
    BATCH_NOTES, MANY_NOTES, NOTES_UNDER_LOCK_MAX, PASSES_MAX, SETTLED_MAX, STUCK_MAX,
    THOROUGH_NOTES,
};
use crate::clock::Stopwatch;
use crate::driver::{Error, Fence, TxKind};
use crate::run::{Direction, Failure, FailureClass, Mapping};

pub(super) const DOING: &str = "put noted keys right";
const NOTED_JUST_NOW: &str = "keys were noted just now that are to be put right first";

/// What came of going over the notes of a mapping.
#[derive(Default)]
pub(super) struct Swept {
    /// Notes that were put right.
    pub righted: u64,
    /// Keys that still are noted afterwards.
    pub left: u64,
    stuck: Vec<Stuck>,
}

/// How much is done to find out which keys of a batch are to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Care {
    /// Where keys are in each other's way, none of the batch is told from the others.
    Quick,
    Thorough,
}

/// Puts right what is noted now, and with it what other mappings have noted and this has to wait for. Returns how many keys
/// of the mapping are noted afterwards.
pub(super) async fn settle(
    at: (&Connections, &Fence),
    mapping: &Mapping,
    beside: &[Mapping],
) -> Result<u64, Error> {
    // Each round may free what the next one goes on with, from mapping to mapping.
    let idle_max = if beside.is_empty() { 0 } else { beside.len() + 1 };
    let (mut least, mut idle) = (usize::MAX, 0);
    loop {
        let swept = go_over(at, mapping).await?;
        if swept.stuck.is_empty() {
            return Ok(swept.left);
        }
        if swept.stuck.len() < least {
            (least, idle) = (swept.stuck.len(), 0);
        } else {
            idle += 1;
        }
        if idle > idle_max {
            park_or_refuse(at, mapping, swept.stuck).await?;
            (least, idle) = (usize::MAX, 0);
        }
        for other in beside {
            match go_over(at, other).await {
                Ok(_) => {}
                // Its own steps say what is wrong with it.
                Err(Error::Failed(failure))
                    if matches!(failure.class, FailureClass::Refused | FailureClass::Stale) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Goes over the notes of a mapping once.
pub(super) async fn go_over(at: (&Connections, &Fence), mapping: &Mapping) -> Result<Swept, Error> {
    let mut reader = at.0.read().await?;
    let shape = shape(reader.conn()?, mapping).await?;
    let touched = reader.ours(&shape.touched_name());
    let noted = count_noted(reader.conn()?, &touched).await?;
    let direction = direction(reader.conn()?, &shape).await?;
    reader.release().await;
    if noted == 0 {
        return Ok(Swept::default());
    }
    let of = (&shape, direction);
    let mut swept = sweep(at, of, mapping, (noted, Care::Quick)).await?;
    if !swept.stuck.is_empty() {
        let (righted, stuck) = (swept.righted, number(swept.stuck.len()));
        if trade_alone(at, of, mapping, &swept.stuck).await? {
            swept = Swept { righted: righted + stuck, ..Swept::default() };
        } else {
            let noted = still_noted(at.0, &touched).await?;
            swept = sweep(at, of, mapping, (noted, Care::Thorough)).await?;
            swept.righted += righted;
        }
    }
    swept.left = still_noted(at.0, &touched).await?;
    Ok(swept)
}

async fn still_noted(connections: &Connections, touched: &str) -> Result<u64, Error> {
    let mut reader = connections.read().await?;
    let noted = count_noted(reader.conn()?, touched).await?;
    reader.release().await;
    Ok(noted)
}

pub(super) fn number(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Puts right as many notes as there were, a batch in each transaction.
async fn sweep(
    (connections, fence): (&Connections, &Fence),
    (shape, direction): (&Shape, Direction),
    mapping: &Mapping,
    (mut noted, care): (u64, Care),
) -> Result<Swept, Error> {
    let (mut swept, mut seen) = (Swept::default(), BTreeSet::new());
    let mut behind = i64::MIN;
    let all = if care == Care::Quick { BATCH_NOTES } else { THOROUGH_NOTES };
    let mut most = all;
    while noted > 0 && swept.stuck.len() < STUCK_MAX {
        let mut tx = connections.begin(fence, TxKind::Settle).await?;
        let settled = settle_some(&mut tx, (shape, direction), (behind, care, most)).await;
        connections.moments.wrote(mapping);
        let settled = finish(tx, settled).await;
        connections.moments.wrote(mapping);
        let (taken, last, stuck) = match settled {
            Err(error) if patience::is_out(&error) && most > 1 => {
                most /= 2;
                continue;
            }
            settled => settled?,
        };
        most = (most * 2).min(all);
        let Some(last) = last else { break };
        behind = last;
        noted = noted.saturating_sub(taken);
        swept.righted += taken.saturating_sub(number(stuck.len()));
        // A key may be noted again behind its own note.
        swept.stuck.extend(stuck.into_iter().filter(|it| seen.insert(it.key.clone())));
    }
    Ok(swept)
}

impl Postgres {
    /// Puts right whatever is noted, with a few tries: clients may note more meanwhile. A few notes are left to be looked at under the
    /// lock that keeps clients out: what these note may be right as it is, and more tries would find no end of it.
    pub(super) async fn settle_all(&self, fence: &Fence, mapping: &Mapping) -> Result<(), Error> {
        let mut left = 0;
        for _ in 0..SETTLED_MAX {
            left = settle((&self.connections, fence), mapping, &[]).await?;
            if left == 0 {
                return Ok(());
            }
        }
        if left <= NOTES_UNDER_LOCK_MAX {
            return Ok(());
        }
        let message = "clients keep changing the very keys that are being put right";
        Err(Error::failed(FailureClass::Contention, message))
    }

    /// The same before the sync ends, with which the notes go. Where the mapping fits its tables no more nothing can be put right,
    /// and it ends all the same.
    pub(super) async fn settle_last(
        &self,
        fence: &Fence,
        mapping: &Mapping,
    ) -> Result<Last, Error> {
        let mut reader = self.connections.read().await?;
        let fits = shape(reader.conn()?, mapping).await;
        reader.release().await;
        match fits {
            Err(error) if error.class() == Some(FailureClass::Refused) => {
                tracing::warn!(%error, "what the sync of {} could only note is left", mapping.name);
                Ok(Last::Left)
            }
            Err(error) => Err(error),
            Ok(_) => self.settle_all(fence, mapping).await.map(|()| Last::Nothing),
        }
    }
}

/// What is noted when a sync ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// Nothing, unless it was noted since.
    Nothing,
    /// What can't be put right.
    Left,
}

/// Sees that nothing wrong is noted, under a lock that keeps clients out. What was noted since [`Postgres::settle_all`] is put right
/// in another attempt: whoever waits for the lock may have a view of the database already, which wouldn't have it. What is
/// right as it is was written by clients alone, who note much of that where their snapshots are old; it may have been wrong between two
/// of them, and where names are about to change nobody may have a view of that.
pub(super) async fn none_noted(tx: &mut Tx<'_>, shape: &Shape, seen: Seen) -> Result<(), Error> {
    let touched = tx.ours(&shape.touched_name());
    let noted = count_noted(tx.conn()?, &touched).await?;
    if noted == 0
        || (noted <= NOTES_UNDER_LOCK_MAX && !is_wrong(tx.conn()?, shape, (&touched, seen)).await?)
    {
        return Ok(());
    }
    Err(Error::failed(FailureClass::Contention, NOTED_JUST_NOW).with_help(
        "retry; or have clients write less under REPEATABLE READ and SERIALIZABLE for a moment, keys above all",
    ))
}

/// Whether an error says that keys were noted while a lock was waited for.
pub(super) fn is_noted_just_now(error: &Error) -> bool {
    matches!(error, Error::Failed(failure) if failure.message == NOTED_JUST_NOW)
}

async fn is_wrong(
    conn: &mut PgConnection,
    shape: &Shape,
    (touched, seen): (&str, Seen),
) -> Result<bool, Error> {
    if shape.in_place {
        return Ok(true);
    }
    let notes = sqlx::query(AssertSqlSafe(all_notes(shape, touched))).fetch_all(&mut *conn).await;
    let notes = read(shape, &notes.map_err(failed(DOING))?)?;
    if is_any_astray(conn, shape, &notes).await? {
        return Ok(true);
    }
    let asked = is_any_wrong(shape, direction(conn, shape).await?, touched, seen);
    let row = sqlx::query(AssertSqlSafe(asked)).persistent(false).fetch_one(conn).await;
    row.and_then(|row| row.try_get(0)).map_err(failed("look at noted keys"))
}

/// How many notes there are; none where there is no table of them.
pub(super) async fn count_noted(conn: &mut PgConnection, touched: &str) -> Result<u64, Error> {
    if !ledger::has_table(conn, touched).await? {
        return Ok(0);
    }
    let row = sqlx::query(AssertSqlSafe(format!("SELECT count(*) FROM {touched}")))
        .fetch_one(conn)
        .await
        .map_err(failed("count noted keys"))?;
    ledger::unsigned(row.try_get(0).map_err(failed("count noted keys"))?)
}

/// Which way the sync goes that stands now.
pub(super) async fn direction(conn: &mut PgConnection, shape: &Shape) -> Result<Direction, Error> {
    let is_both: bool = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = $1::bigint::oid AND tgname = $2)",
    )
    .bind(i64::from(shape.new.oid))
    .bind(trigger_name(shape, "b"))
    .fetch_one(conn)
    .await
    .and_then(|row| row.try_get(0))
    .map_err(failed("read the catalogue"))?;
    Ok(if is_both { Direction::Both } else { Direction::Forward })
}

/// Takes some notes behind a place in their order and puts their keys right, but for those that the server refuses, of which is noted
/// again what is to be done. Returns how many notes were taken, and the place of the last of the first ones.
async fn settle_some(
    tx: &mut Tx<'_>,
    (shape, direction): (&Shape, Direction),
    (behind, care, most): (i64, Care, u32),
) -> Result<(u64, Option<i64>, Vec<Stuck>), Error> {
    let take = take_notes(shape, &tx.ours(&shape.touched_name()), Seed::First(most));
    let rows = sqlx::query(AssertSqlSafe(take)).bind(behind).fetch_all(tx.conn()?).await;
    let rows = rows.map_err(failed(DOING))?;
    let last = rows.first().map_or(Ok(None), |row| row.try_get(4)).map_err(failed(DOING))?;
    let notes = read(shape, &rows)?;
    if notes.is_empty() || shape.in_place {
        return Ok((number(notes.len()), last, Vec::new()));
    }
    let (notes, mut keys) = prepare(tx, shape, (notes, Vec::new())).await?;
    let Followed { mut stuck, held, undone } = follow_moves(tx, shape, &notes).await?;
    keys.retain(|key| !held.contains(key));
    stuck.extend(put_all_right(tx.conn()?, (shape, direction), care, keys).await?);
    if let Some(first) = notes.first().filter(|_| !stuck.is_empty()) {
        put_back(tx, shape, (first.at, undone), &stuck).await?;
    }
    Ok((number(notes.len()), last, stuck))
}

fn read(shape: &Shape, rows: &[PgRow]) -> Result<Vec<Note>, Error> {
    let note = |row| Note::of_row(row, shape.keys.len());
    rows.iter().map(note).collect::<Result<_, _>>().map_err(failed(DOING))
}

/// Puts keys right whose rows are locked; gives those that the server refuses.
async fn put_all_right(
    conn: &mut PgConnection,
    (shape, direction): (&Shape, Direction),
    care: Care,
    keys: Vec<Vec<String>>,
) -> Result<Vec<Stuck>, Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let written = statements(shape, direction, How::Written);
    let Err(failure) = put_right(conn, &written, &keys).await? else {
        return Ok(Vec::new());
    };
    if !is_held(&failure) {
        return apart(conn, &written, &keys).await;
    }
    if is_tradable(conn, shape).await? && trade_here(conn, (shape, direction), &keys).await? {
        return Ok(Vec::new());
    }
    if care == Care::Quick {
        let each =
            keys.into_iter().map(|key| Stuck { key, failure: failure.clone(), is_moving: false });
        return Ok(each.collect());
    }
    apart(conn, &written, &keys).await
}

/// As [`trade`], in a transaction of its own, of which nothing stays where that is refused.
async fn trade_alone(
    (connections, fence): (&Connections, &Fence),
    of: (&Shape, Direction),
    mapping: &Mapping,
    stuck: &[Stuck],
) -> Result<bool, Error> {
    if !stuck.iter().all(|it| is_held(&it.failure)) {
        return Ok(false);
    }
    let mut tx = connections.begin(fence, TxKind::Settle).await?;
    match trade(&mut tx, of, stuck).await {
        Ok(true) => {
            connections.moments.wrote(mapping);
            let traded = finish(tx, Ok(true)).await;
            connections.moments.wrote(mapping);
            traded
        }
        Ok(false) => {
            tx.roll_back().await;
            Ok(false)
        }
        Err(error) => Err(tx.give_up(error).await),
    }
}

/// Puts right keys that are in each other's way, all at once. Whether that went well; where not, their notes may be gone.
async fn trade(
    tx: &mut Tx<'_>,
    (shape, direction): (&Shape, Direction),
    stuck: &[Stuck],
) -> Result<bool, Error> {
    if !is_tradable(tx.conn()?, shape).await? {
        return Ok(false);
    }
    let keys = stuck.iter().map(|it| it.key.clone()).collect();
    let (notes, keys) = prepare(tx, shape, (Vec::new(), keys)).await?;
    if !follow_moves(tx, shape, &notes).await?.stuck.is_empty() {
        return Ok(false);
    }
    trade_here(tx.conn()?, (shape, direction), &keys).await
}

/// Takes copies out and puts them in again. A client of the new shape who waits for one would find it gone, and write nothing: so
/// with `both` they wait for the table.
async fn trade_here(
    conn: &mut PgConnection,
    (shape, direction): (&Shape, Direction),
    keys: &[Vec<String>],
) -> Result<bool, Error> {
    if direction == Direction::Both {
        let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", shape.new.sql());
        sqlx::query(AssertSqlSafe(lock)).execute(&mut *conn).await.map_err(failed(DOING))?;
    }
    Ok(put_right(conn, &statements(shape, direction, How::Traded), keys).await?.is_ok())
}

/// Locks the rows of keys, and has what is written to their copies not mirrored. Returns their notes in order, with those that were
/// made until the source rows were locked, and the keys of all of them.
async fn prepare(
    tx: &mut Tx<'_>,
    shape: &Shape,
    (mut notes, mut keys): (Vec<Note>, Vec<Vec<String>>),
) -> Result<(Vec<Note>, Vec<Vec<String>>), Error> {
    marks::guard(tx, shape).await?;
    if notes.len().max(keys.len()) <= MANY_NOTES {
        patience::begin(tx).await?;
    } else {
        patience::hardly(tx).await?;
    }
    let take = take_notes(shape, &tx.ours(&shape.touched_name()), Seed::Keys);
    let [sources, copies] = locks(shape);
    let mut known: BTreeSet<Vec<String>> = keys.iter().cloned().collect();
    let mut more = std::mem::take(&mut notes);
    loop {
        let found = more.iter().flat_map(Note::keys).filter(|key| known.insert((*key).clone()));
        keys.extend(found.cloned().collect::<Vec<_>>());
        notes.append(&mut more);
        // Whoever held a row may have changed its key, and notes of that tell who stands where. From here on they can't be held.
        let columns = columns_of(&keys);
        lock(tx, sources.clone(), &columns).await?;
        let rows = bound(take.clone(), &columns).fetch_all(tx.conn()?).await;
        more = read(shape, &rows.map_err(|error| patience::yielded(failed(DOING)(error)))?)?;
        if more.is_empty() {
            break;
        }
    }
    lock(tx, copies, &columns_of(&keys)).await?;
    patience::had(tx.conn()?).await.map_err(failed(DOING))?;
    notes.sort_by_key(|note| note.at);
    Ok((notes, keys))
}

async fn lock(tx: &mut Tx<'_>, sql: Option<String>, columns: &[Vec<String>]) -> Result<(), Error> {
    let Some(sql) = sql else { return Ok(()) };
    let watch = Stopwatch::start();
    let locked = bound(sql, columns).execute(tx.conn()?).await;
    locked.map_err(|error| patience::yielded(failed(DOING)(error)))?;
    patience::spent(tx.conn()?, watch.elapsed_ms()).await.map_err(failed(DOING))
}

async fn is_tradable(conn: &mut PgConnection, shape: &Shape) -> Result<bool, Error> {
    let asked = sqlx::query(TRADABLE).bind(i64::from(shape.new.oid)).fetch_one(conn).await;
    asked.and_then(|row| row.try_get(0)).map_err(failed(DOING))
}

/// Puts keys right in halves, down to the single ones that are refused. One may be in the way of another until it is right, so
/// that what failed is tried again while that frees some.
async fn apart(
    conn: &mut PgConnection,
    sqls: &[String],
    keys: &[Vec<String>],
) -> Result<Vec<Stuck>, Error> {
    let (mut open, mut passes) = (keys.to_vec(), 0);
    loop {
        passes += 1;
        let before = open.len();
        if passes % 2 == 0 {
            // What waits for the next one goes backwards at once.
            open.reverse();
        }
        let (mut stuck, mut ranges) = (Vec::new(), vec![open]);
        while let Some(mut range) = ranges.pop() {
            let Err(failure) = put_right(conn, sqls, &range).await? else { continue };
            let behind = range.split_off(range.len().div_ceil(2));
            if behind.is_empty() {
                stuck.extend(range.pop().map(|key| Stuck { key, failure, is_moving: false }));
            } else {
                ranges.extend([behind, range]);
            }
        }
        if stuck.is_empty() || stuck.len() == before || passes == PASSES_MAX {
            return Ok(stuck);
        }
        open = stuck.into_iter().map(|it| it.key).collect();
    }
}

/// Puts keys right, or leaves all of them as they were where a row refuses.
async fn put_right(
    conn: &mut PgConnection,
    sqls: &[String],
    keys: &[Vec<String>],
) -> Result<Result<(), Failure>, Error> {
    let say = async |conn: &mut PgConnection, words: &'static str| {
        sqlx::query(words).execute(conn).await.map(|_| ()).map_err(failed(DOING))
    };
    say(conn, "SAVEPOINT phasegate_noted").await?;
    let columns = columns_of(keys);
    let tried = async {
        for sql in sqls {
            bound(sql.clone(), &columns).execute(&mut *conn).await?;
        }
        // What waits for the end of the transaction would undo all of it.
        sqlx::query("SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *conn).await
    }
    .await;
    match tried {
        Ok(_) => say(conn, "RELEASE SAVEPOINT phasegate_noted").await.map(Ok),
        Err(error) if code(&error).is_some_and(is_of_a_row) => {
            say(conn, "ROLLBACK TO SAVEPOINT phasegate_noted").await?;
            Ok(Err(failure(&error)))
        }
        Err(error) => Err(failed(DOING)(error)),
    }
}

/// A statement about keys, of which columns are given.
pub(super) fn bound(sql: String, columns: &[Vec<String>]) -> Query<'_, Sqlx, PgArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
    for column in columns {
        query = query.bind(column);
    }
    query
}

/// Columns from keys.
pub(super) fn columns_of(keys: &[Vec<String>]) -> Vec<Vec<String>> {
    let width = keys.first().map_or(0, Vec::len);
    (0..width).map(|at| keys.iter().map(|key| key[at].clone()).collect()).collect()
}

/// Whether a value is another row's that may be only one's.
fn is_held(failure: &Failure) -> bool {
    matches!(failure.code.as_deref(), Some("23505" | "23P01"))
}

/// Whether a row of another table is in the way, or missing.
pub(super) fn is_tied(failure: &Failure) -> bool {
    matches!(failure.code.as_deref(), Some("23503" | "23001"))
}
