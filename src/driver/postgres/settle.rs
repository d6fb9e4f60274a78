//! Putting right the keys that triggers could only note.
//!
//! A batch is one READ COMMITTED transaction. It takes its notes first: what is noted meanwhile is another note, and stays.
//! Then it locks the source rows, then the copies, in the order of triggers and chunks, and only the next statement, which
//! sees everything that was committed before it had the locks, decides: a copy without a source row goes, the others are
//! made as their source says. A source row that is being inserted can't be locked; the client that inserts it comes to its
//! copy after us and makes it anew, or before us, and then we wait for it.
//!
//! Absent on purpose: retries. A lock that isn't had in time is the caller's to try again; nothing of the batch stays.

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres as Sqlx, Row as _};

use super::Postgres;
use super::catalogue::quote;
use super::connection::{Connections, Tx, TxKind};
use super::dual_write::finish;
use super::error::{code, failed};
use super::planted::Fault;
use super::shape::{Shape, shape};
use super::sink::is_of_a_row;
use super::snapshots::Moments;
use super::sync_sql::{Side, cast, removal, trigger_name};
use super::{ledger, marks};
use crate::driver::{Error, Fence};
use crate::run::{Direction, FailureClass, Mapping};

/// Keys put right in one transaction.
const BATCH_KEYS: u32 = 500;
/// How often noted keys are put right before it is given up.
const SETTLED_MAX: u32 = 5;

/// Puts right what is noted now. Returns how many keys are noted afterwards.
pub(super) async fn settle(
    (connections, moments): (&Connections, &Moments),
    fence: &Fence,
    mapping: &Mapping,
) -> Result<u64, Error> {
    let mut reader = connections.read().await?;
    let shape = shape(reader.conn()?, mapping).await?;
    let touched = reader.ours(&shape.touched_name());
    let mut noted = count_noted(reader.conn()?, &touched).await?;
    let direction = direction(reader.conn()?, &shape).await?;
    reader.release().await;
    while noted > 0 {
        let mut tx = connections.begin(fence, TxKind::Settle).await?;
        let settled = settle_some(&mut tx, &shape, direction).await;
        moments.wrote(mapping);
        let taken = finish(tx, settled).await?;
        moments.wrote(mapping);
        if taken == 0 {
            break;
        }
        noted = noted.saturating_sub(taken);
    }
    let mut reader = connections.read().await?;
    let left = count_noted(reader.conn()?, &touched).await?;
    reader.release().await;
    Ok(left)
}

impl Postgres {
    /// Puts right whatever is noted, with a few tries: clients may note more meanwhile.
    pub(super) async fn settle_all(&self, fence: &Fence, mapping: &Mapping) -> Result<(), Error> {
        for _ in 0..SETTLED_MAX {
            if settle((&self.connections, &self.moments), fence, mapping).await? == 0 {
                return Ok(());
            }
        }
        let message = "clients keep changing the very keys that are being put right";
        Err(Error::failed(FailureClass::Contention, message))
    }

    /// The same before the sync ends, with which the notes go: where a row refuses, or the mapping fits its tables no more, it
    /// ends all the same.
    pub(super) async fn settle_last(
        &self,
        fence: &Fence,
        mapping: &Mapping,
    ) -> Result<Last, Error> {
        match self.settle_all(fence, mapping).await {
            Ok(()) => Ok(Last::Nothing),
            Err(error) if error.class() == Some(FailureClass::Refused) => {
                tracing::warn!(%error, "what the sync of {} could only note is left", mapping.name);
                Ok(Last::Left)
            }
            Err(error) => Err(error),
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

/// Sees that nothing is noted, under a lock that keeps clients out. What was noted since [`Postgres::settle_all`] is put right
/// in another attempt: whoever waits for the lock may have a view of the database already, which wouldn't have it.
pub(super) async fn none_noted(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    let touched = tx.ours(&shape.touched_name());
    if count_noted(tx.conn()?, &touched).await? == 0 {
        return Ok(());
    }
    let message = "keys were noted just now that are to be put right first";
    Err(Error::failed(FailureClass::Contention, message))
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

/// Takes some notes and puts their keys right. Returns how many notes were taken.
async fn settle_some(tx: &mut Tx<'_>, shape: &Shape, direction: Direction) -> Result<u64, Error> {
    let doing = "put noted keys right";
    let take = take_notes(shape, &tx.ours(&shape.touched_name()));
    let row =
        sqlx::query(AssertSqlSafe(take)).fetch_one(tx.conn()?).await.map_err(failed(doing))?;
    let taken = ledger::unsigned(row.try_get(0).map_err(failed(doing))?)?;
    if taken == 0 || shape.in_place {
        return Ok(taken);
    }
    let keys: Vec<Vec<String>> = (1..=shape.keys.len())
        .map(|at| row.try_get(at))
        .collect::<Result<_, _>>()
        .map_err(failed(doing))?;
    marks::guard(tx, shape).await?;
    let (sqls, conn) = (statements(shape, direction), tx.conn()?);
    if put_right(conn, &sqls, &keys).await?.is_err() {
        one_by_one(conn, &sqls, &keys).await?;
    }
    Ok(taken)
}

/// Puts keys right each by itself: one may be in the way of another until it is right, so that what failed is tried again as long
/// as something went well.
async fn one_by_one(
    conn: &mut PgConnection,
    sqls: &[String],
    keys: &[Vec<String>],
) -> Result<(), Error> {
    let mut open: Vec<usize> = (0..keys.first().map_or(0, Vec::len)).collect();
    loop {
        let (before, mut left, mut last) = (open.len(), Vec::new(), None);
        for at in open {
            let one: Vec<Vec<String>> =
                keys.iter().map(|column| vec![column[at].clone()]).collect();
            if let Err(error) = put_right(conn, sqls, &one).await? {
                left.push(at);
                last = Some(error);
            }
        }
        match last {
            None => return Ok(()),
            Some(error) if left.len() == before => {
                return Err(failed("put noted keys right")(error));
            }
            Some(_) => open = left,
        }
    }
}

/// Puts keys right, or leaves all of them as they were where a row refuses.
async fn put_right(
    conn: &mut PgConnection,
    sqls: &[String],
    keys: &[Vec<String>],
) -> Result<Result<(), sqlx::Error>, Error> {
    let doing = "put noted keys right";
    let say = async |conn: &mut PgConnection, words: &'static str| {
        sqlx::query(words).execute(conn).await.map(|_| ()).map_err(failed(doing))
    };
    say(conn, "SAVEPOINT phasegate_noted").await?;
    for sql in sqls {
        match bound(sql.clone(), keys).execute(&mut *conn).await {
            Ok(_) => {}
            Err(error) if code(&error).is_some_and(is_of_a_row) => {
                say(conn, "ROLLBACK TO SAVEPOINT phasegate_noted").await?;
                return Ok(Err(error));
            }
            Err(error) => return Err(failed(doing)(error)),
        }
    }
    say(conn, "RELEASE SAVEPOINT phasegate_noted").await.map(Ok)
}

fn bound(sql: String, keys: &[Vec<String>]) -> Query<'_, Sqlx, PgArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
    for column in keys {
        query = query.bind(column);
    }
    query
}

/// Takes notes: their number, and their keys as a list of texts for each column.
fn take_notes(shape: &Shape, touched: &str) -> String {
    let marks = shape.mark_columns();
    let texts: Vec<String> =
        marks.iter().map(|mark| format!("coalesce(array_agg({mark}::text), '{{}}')")).collect();
    format!(
        "WITH phasegate_n AS (DELETE FROM {touched} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {touched} LIMIT {BATCH_KEYS})) \
         RETURNING {}) SELECT count(*), {} FROM phasegate_n",
        marks.join(", "),
        texts.join(", "),
    )
}

/// The keys that are bound, each once, as what follows FROM.
fn keys(shape: &Shape) -> String {
    let marks = shape.mark_columns();
    let typed: Vec<String> = shape
        .keys
        .iter()
        .zip(&marks)
        .map(|(pair, mark)| format!("phasegate_u.{mark}::{} AS {mark}", pair.type_sql))
        .collect();
    let lists: Vec<String> = (1..=marks.len()).map(|at| format!("${at}::text[]")).collect();
    format!(
        "(SELECT DISTINCT {} FROM unnest({}) AS phasegate_u ({})) AS phasegate_s",
        typed.join(", "),
        lists.join(", "),
        marks.join(", "),
    )
}

/// That columns are the key of a note.
fn is_noted(columns: &[String], marks: &[String]) -> String {
    let pairs = columns.iter().zip(marks);
    pairs
        .map(|(column, mark)| format!("{column} = phasegate_s.{mark}"))
        .collect::<Vec<_>>()
        .join(" AND ")
}

fn lock(shape: &Shape, side: Side, strength: &str) -> String {
    let alias = quote(&shape.side(side).name);
    let key = shape.named_key(side);
    format!(
        "SELECT 1 FROM {}, {} WHERE {} ORDER BY {} {strength} OF {alias}",
        shape.named(side),
        keys(shape),
        is_noted(&key, &shape.mark_columns()),
        key.join(", "),
    )
}

/// What puts the bound keys right, in order.
fn statements(shape: &Shape, direction: Direction) -> Vec<String> {
    let marks = shape.mark_columns();
    let (olds, news) = (shape.named_key(Side::Old), shape.named_key(Side::New));
    let noted: Vec<String> = marks.iter().map(|mark| format!("phasegate_s.{mark}")).collect();
    let has_source = format!(
        "EXISTS (SELECT 1 FROM {} WHERE {}{})",
        shape.named(Side::Old),
        is_noted(&olds, &marks),
        shape.and_filter(Side::Old),
    );
    let gone = format!(
        "({}) IN (SELECT {} FROM {} WHERE NOT {has_source})",
        news.join(", "),
        noted.join(", "),
        keys(shape),
    );
    if Fault::SweepInOneStatement.is_planted() {
        return removal(shape, Side::New, &gone).into_iter().collect();
    }
    let mut statements =
        vec![lock(shape, Side::Old, "FOR SHARE"), lock(shape, Side::New, "FOR UPDATE")];
    statements.extend(removal(shape, Side::New, &gone));
    statements.extend(update(shape, direction));
    statements.push(insert(shape));
    statements
}

/// Makes the copies that are there as their sources say.
fn update(shape: &Shape, direction: Direction) -> Option<String> {
    let marks = shape.mark_columns();
    let sets: Vec<String> = shape
        .written_over(Side::New)
        .map(|(at, write)| {
            let value = shape.value_in_pair(Side::New, at, direction);
            format!("{} = {value}", quote(&write.column))
        })
        .collect();
    let side = |side: Side, list: &str, alias: &str, filter: &str| {
        let key = shape.named_key(side);
        let named: Vec<String> = key
            .iter()
            .zip(&marks)
            .map(|(name, mark)| format!("{name} AS phasegate_{mark}"))
            .collect();
        let noted: Vec<String> = marks.iter().map(|mark| format!("phasegate_s.{mark}")).collect();
        format!(
            "(SELECT {}, {list} FROM {} WHERE ({}) IN (SELECT {} FROM {}){filter}) AS {alias}",
            named.join(", "),
            shape.named(side),
            key.join(", "),
            noted.join(", "),
            keys(shape),
        )
    };
    let joined = |alias: &str, names: Vec<String>| {
        let pairs = names.into_iter().zip(&marks);
        pairs
            .map(|(name, mark)| format!("{name} = {alias}.phasegate_{mark}"))
            .collect::<Vec<_>>()
            .join(" AND ")
    };
    let others = marks.iter().map(|mark| format!("phasegate_o.phasegate_{mark}")).collect();
    let targets =
        shape.bare_key(Side::New).iter().map(|name| format!("phasegate_t.{name}")).collect();
    (!sets.is_empty()).then(|| {
        format!(
            "UPDATE {} AS phasegate_t SET {} FROM {}, {} WHERE {} AND {} AND NOT {}",
            shape.new.sql(),
            sets.join(", "),
            side(
                Side::Old,
                &shape.old_list(direction),
                "phasegate_f",
                &shape.and_filter(Side::Old)
            ),
            side(Side::New, &shape.new_list(direction), "phasegate_o", ""),
            joined("phasegate_f", others),
            joined("phasegate_f", targets),
            shape.is_right(direction),
        )
    })
}

/// Makes the copies that are missing. One that a chunk has made meanwhile is right: its source is locked.
fn insert(shape: &Shape) -> String {
    let mut columns = shape.bare_key(Side::New);
    let mut values = shape.named_key(Side::Old);
    for (_, write) in shape.written_beside_keys(Side::New) {
        columns.push(quote(&write.column));
        values.push(cast(write));
    }
    let noted: Vec<String> =
        shape.mark_columns().iter().map(|mark| format!("phasegate_s.{mark}")).collect();
    format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} WHERE ({}) IN (SELECT {} FROM {}){} ON CONFLICT ({}) DO NOTHING",
        shape.new.sql(),
        columns.join(", "),
        values.join(", "),
        shape.named(Side::Old),
        shape.named_key(Side::Old).join(", "),
        noted.join(", "),
        keys(shape),
        shape.and_filter(Side::Old),
        shape.bare_key(Side::New).join(", "),
    )
}
