//! Rows of the old side in the shape of the new one: those of a range of keys, and those of single keys.
//!
//! Invariants:
//! - A page is read by one statement at READ COMMITTED. What changes afterwards has a version above 0 and wins.
//! - A page for a copy leaves out what has changes that are not applied: these bring it. Were it written as it is now, those would take it
//!   back to what it was before, for a while. The row and its changes are seen in one snapshot, which has both or neither.
//! - Nothing else is left out without a word: a row that can't cross is told with its key ([`Unfit`]).
//! - Keys that no row of the table can have, such as text for a number, are the keys of no row, and no error.
//!
//! Absent on purpose: bounds, which the driver's `source` finds.

use std::collections::{BTreeMap, HashSet};

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::Resolved;
use super::capture::BY_INDEX;
use super::form::{PINNED, Scalar};
use super::tables::TABLE;
use crate::copy::chunk::{Cell, Chunk, Key};
use crate::copy::row::{Datum, Row};
use crate::driver::Error;
use crate::driver::crossing::{Page, Rows, Unfit};
use crate::driver::postgres::Postgres;
use crate::driver::postgres::catalogue::literal;
use crate::driver::postgres::error::{failed, refused};
use crate::driver::postgres::shape_sql::{Pick, Which};
use crate::driver::postgres::verify::sample;
use crate::run::Mapping;

/// The rows of a range of keys that the mapping's filter lets pass, in no order.
pub(super) async fn page(
    postgres: &Postgres,
    mapping: &Mapping,
    (chunk, which): (&Chunk, Rows),
) -> Result<Page, Error> {
    let mut reader = postgres.connections.read().await?;
    let of = postgres.resolved(reader.conn()?, mapping).await?;
    pin(reader.conn()?).await?;
    let outbox = reader.ours(TABLE);
    let but = match which {
        Rows::All => String::new(),
        Rows::Settled => of.and_settled(&outbox),
    };
    let page = read_rows(reader.conn()?, &of, (&Pick::Chunk(chunk), &but)).await?;
    reader.release().await;
    Ok(page)
}

/// About so many rows, taken at random.
pub(super) async fn some(
    postgres: &Postgres,
    mapping: &Mapping,
    wanted: u32,
) -> Result<Page, Error> {
    let mut reader = postgres.connections.snapshot_of(&[&mapping.from.table]).await?;
    let of = postgres.resolved(reader.conn()?, mapping).await?;
    let keys = sample(reader.conn()?, (mapping, &of.shape), wanted).await?;
    pin(reader.conn()?).await?;
    let page = read_rows(reader.conn()?, &of, (&Pick::Keys(&keys), "")).await?;
    reader.release().await;
    Ok(page)
}

/// Which of some keys are those of rows that the mapping's filter lets pass, in the order of the keys.
pub(super) async fn which_exist(
    postgres: &Postgres,
    mapping: &Mapping,
    keys: &[Vec<Datum>],
) -> Result<Vec<bool>, Error> {
    let mut reader = postgres.connections.read().await?;
    let of = postgres.resolved(reader.conn()?, mapping).await?;
    let (asked, _) = of.asked(keys);
    let pick = Pick::Keys(&asked);
    let sql = format!("SELECT {} FROM {}", of.key_list(), of.shape.rows_sql(Which::Old, &pick));
    pin(reader.conn()?).await?;
    let query = pick.bind(sqlx::query(AssertSqlSafe(sql)), &of.shape);
    let rows = query.fetch_all(reader.conn()?).await.map_err(|error| refused(&error))?;
    reader.release().await;
    let found: HashSet<Vec<String>> =
        rows.iter().map(|row| of.key_in(row)).collect::<Result<_, _>>()?;
    let exists = |key: &Vec<Datum>| of.key_texts(key).is_some_and(|key| found.contains(&key));
    Ok(keys.iter().map(exists).collect())
}

/// Reads rows on a connection that is [`pin`]ned, with a further condition.
pub(super) async fn read_rows(
    conn: &mut PgConnection,
    of: &Resolved,
    (pick, and): (&Pick<'_>, &str),
) -> Result<Page, Error> {
    let mut columns = vec![of.key_list()];
    columns.extend(of.texts());
    let rows = of.shape.rows_sql(Which::Old, pick);
    let sql = format!("SELECT {} FROM {rows}{and}", columns.join(", "));
    let query = pick.bind(sqlx::query(AssertSqlSafe(sql)), &of.shape);
    let rows = query.fetch_all(conn).await.map_err(|error| refused(&error))?;
    let mut page = Page { rows: Vec::with_capacity(rows.len()), unfit: Vec::new() };
    let width = of.keys.len();
    for row in &rows {
        let text = |at| row.try_get::<Option<&str>, _>(at).map_err(failed("read a row"));
        let mut key = Vec::with_capacity(width);
        for at in 0..width {
            key.push(text(at)?.unwrap_or_default());
        }
        let mut values = Vec::with_capacity(of.forms.len());
        for at in 0..of.forms.len() {
            values.push(text(width + at)?);
        }
        match of.row(&key, &values) {
            Ok(row) => page.rows.push(row),
            Err(unfit) => page.unfit.push(unfit),
        }
    }
    Ok(page)
}

/// Has the rest of a transaction write values as triggers do, and find rows by the key's index whatever the statistics say.
pub(super) async fn pin(conn: &mut PgConnection) -> Result<(), Error> {
    let settings = PINNED.iter().chain(&BY_INDEX);
    let set: Vec<String> =
        settings.map(|(name, value)| format!("set_config('{name}', '{value}', true)")).collect();
    let sql = format!("SELECT {}", set.join(", "));
    let done = sqlx::query(AssertSqlSafe(sql)).execute(conn).await;
    done.map(|_| ()).map_err(failed("prepare to read rows"))
}

impl Resolved {
    /// The key's columns as texts, in a list.
    pub(super) fn key_list(&self) -> String {
        let names = self.shape.key_names(Which::Old);
        names.iter().map(|name| format!("{name}::text")).collect::<Vec<_>>().join(", ")
    }

    /// That a row has no change in the outbox. A subquery for each row finds it by the index, which is all that is left to the planner under
    /// [`pin`], whatever the statistics say of a table that is empty at one moment and long at the next.
    fn and_settled(&self, outbox: &str) -> String {
        let names = self.shape.named_key(Which::Old);
        // As bytes, as the triggers have written them: some collations hash what is equal to them alike.
        let text = |name: &String| format!("{name}::text COLLATE \"C\"");
        let key = names.iter().map(text).collect::<Vec<_>>().join(", ");
        format!(
            " AND (SELECT true FROM {outbox} AS phasegate_o WHERE phasegate_o.mapping = {id} \
             AND hash_array_extended(phasegate_o.key, 0) = hash_array_extended(ARRAY[{key}]::text[], 0) \
             AND phasegate_o.key = ARRAY[{key}]::text[] LIMIT 1) IS NULL",
            id = literal(&self.captured.id),
        )
    }

    /// The key in the first columns of a row.
    pub(super) fn key_in(&self, row: &PgRow) -> Result<Vec<String>, Error> {
        (0..self.keys.len()).map(|at| row.try_get(at).map_err(failed("read a key"))).collect()
    }

    /// A row from the texts of its key and of its values.
    pub(super) fn row(&self, key: &[&str], values: &[Option<&str>]) -> Result<Row, Unfit> {
        let unfit = |reason: String| Unfit {
            key: key.iter().map(|text| (*text).to_owned()).collect(),
            reason,
        };
        let key = self.key(key)?;
        if values.len() != self.forms.len() {
            return Err(unfit("the row was written for another version of the mapping".to_owned()));
        }
        let mut row = Row { key, values: BTreeMap::new() };
        for (((name, _), form), text) in self.captured.columns.iter().zip(&self.forms).zip(values) {
            let Some(text) = text else { continue };
            let value = form.read(text).map_err(|why| unfit(format!("{name} {why}")))?;
            row.values.insert(name.clone(), value);
        }
        Ok(row)
    }

    /// A key from its texts.
    pub(super) fn key(&self, texts: &[&str]) -> Result<Vec<Datum>, Unfit> {
        let unfit = |reason: String| Unfit {
            key: texts.iter().map(|text| (*text).to_owned()).collect(),
            reason,
        };
        if texts.len() != self.keys.len() {
            return Err(unfit("the row was written for another key of the mapping".to_owned()));
        }
        let read = |(at, (scalar, text)): (usize, (&Scalar, &&str))| {
            scalar.read(text).map_err(|why| unfit(format!("{} {why}", self.captured.key[at])))
        };
        self.keys.iter().zip(texts).enumerate().map(read).collect()
    }

    /// The texts of a key as the server writes them; none where no row of the table can have it.
    pub(super) fn key_texts(&self, key: &[Datum]) -> Option<Vec<String>> {
        if key.len() != self.keys.len() {
            return None;
        }
        let text = |(at, datum): (usize, &Datum)| match (datum, self.keys[at]) {
            (Datum::Integer(number), Scalar::Integer) => Some(number.to_string()),
            (Datum::Text(text), Scalar::Text | Scalar::Padded) => {
                let is_uuid = self.shape.keys[at].type_sql == "uuid";
                let as_written = |uuid: uuid::Uuid| uuid.hyphenated().to_string() == *text;
                let can_be =
                    if is_uuid { text.parse().is_ok_and(as_written) } else { !text.contains('\0') };
                can_be.then(|| text.clone())
            }
            _ => None,
        };
        key.iter().enumerate().map(text).collect()
    }

    /// Keys that rows can have, to ask for, and their texts.
    pub(super) fn asked(&self, keys: &[Vec<Datum>]) -> (Vec<Key>, HashSet<Vec<String>>) {
        let texts: HashSet<Vec<String>> =
            keys.iter().filter_map(|key| self.key_texts(key)).collect();
        let cells = |key: &Vec<String>| Key(key.iter().cloned().map(Cell::Text).collect());
        (texts.iter().map(cells).collect(), texts)
    }
}
