//! What goes over with a table's or a column's name and is nothing but catalogue: rights, policies, comments, publications,
//! how rows and columns are kept, defaults.
//!
//! Invariants:
//! - It is read while the names are the old ones and given when the new table has the name, so that what it says of the table
//!   is then said of the new one.
//! - What the new side has of its own stays.
//!
//! Absent on purpose: what takes a build or a scan, which is `counterpart`'s.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::carried::{Carried, Gift, Key, Need, narrow, widen};
use super::carry_sql;
use super::catalogue::{Table, parts, quote};
use super::connection::Tx;
use super::counterpart;
use super::error::failed;
use super::shape::Shape;
use super::surroundings::Constraint;
use crate::driver::Error;
use crate::run::{Direction, RetiredColumn};

/// Columns of both sides that answer to each other, and whether the second has the first one's values.
struct Pairs {
    olds: Vec<String>,
    news: Vec<String>,
    carried: Vec<bool>,
}

impl Pairs {
    /// Of two tables: keys, and what has the same name.
    fn of(shape: &Shape) -> Self {
        let carried = counterpart::pairs(shape);
        let mut pairs = Self { olds: Vec::new(), news: Vec::new(), carried: Vec::new() };
        for (old, new) in &carried {
            pairs.add(old, new, true);
        }
        for column in &shape.new.columns {
            let is_known = pairs.news.contains(&column.name) || pairs.olds.contains(&column.name);
            if !is_known && shape.old.column(&column.name).is_some() {
                pairs.add(&column.name, &column.name, false);
            }
        }
        pairs
    }

    /// Of one table, where columns take the names of others.
    fn of_columns(columns: &[RetiredColumn]) -> Self {
        let mut pairs = Self { olds: Vec::new(), news: Vec::new(), carried: Vec::new() };
        for retired in columns {
            if let Some(taken) = &retired.take_name {
                pairs.add(&retired.column, taken, false);
            }
        }
        pairs
    }

    fn add(&mut self, old: &str, new: &str, is_carried: bool) {
        self.olds.push(old.to_owned());
        self.news.push(new.to_owned());
        self.carried.push(is_carried);
    }
}

/// The names that a table and its successor get.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    /// What the old table is called afterwards.
    pub old: &'a str,
    /// Whether the new one is called as the old one was.
    pub takes: bool,
}

/// What a table that takes the old one's place is given.
pub(super) async fn of_table(
    conn: &mut PgConnection,
    shape: &Shape,
    (names, direction): (Names<'_>, Direction),
) -> Result<Vec<Gift>, Error> {
    let (_, name) = parts(names.old);
    let aside = format!("{}.{}", quote(&shape.old.schema), quote(&name));
    let goes_on = direction == Direction::Both;
    let queries: Vec<String> = if names.takes {
        carry_sql::of_tables().collect()
    } else {
        carry_sql::of_nameless().collect()
    };
    read(conn, shape, (&Pairs::of(shape), queries, aside, goes_on)).await
}

/// Who may draw from what the old table draws from, may draw from what the new one does: for a table that gets its own
/// sequence back only when the old one goes.
pub(super) async fn let_draw(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    let queries = vec![carry_sql::of_sequences()];
    let all = (&Pairs::of(shape), queries, shape.old.sql(), false);
    for gift in read(tx.conn()?, shape, all).await? {
        super::rename::run(tx.conn()?, "grant what the old sequence granted", gift.forward).await?;
    }
    Ok(())
}

/// What columns that take others' names are given, under the names from before.
pub(super) async fn of_columns(
    conn: &mut PgConnection,
    shape: &Shape,
    columns: &[RetiredColumn],
) -> Result<Vec<Gift>, Error> {
    let pairs = Pairs::of_columns(columns);
    if pairs.olds.is_empty() {
        return Ok(Vec::new());
    }
    let queries: Vec<String> = carry_sql::of_columns().collect();
    // Comments come by the table that a column is in, which for columns of `copy: listed` is the old one's.
    read(conn, shape, (&pairs, queries, shape.old.sql(), false)).await
}

async fn read(
    conn: &mut PgConnection,
    shape: &Shape,
    (pairs, queries, aside, goes_on): (&Pairs, Vec<String>, String, bool),
) -> Result<Vec<Gift>, Error> {
    let doing = "read what goes over with the name";
    let path = narrow(conn).await?;
    let mut gifts = Vec::new();
    for query in queries {
        let rows = sqlx::query(AssertSqlSafe(query))
            .bind(i64::from(shape.old.oid))
            .bind(i64::from(shape.new.oid))
            .bind(&pairs.olds)
            .bind(&pairs.news)
            .bind(&pairs.carried)
            .bind(&aside)
            .bind(goes_on)
            .fetch_all(&mut *conn)
            .await
            .map_err(failed(doing))?;
        for row in rows {
            gifts.push(gift(&row).map_err(failed(doing))?);
        }
    }
    widen(conn, path).await?;
    Ok(gifts)
}

fn gift(row: &PgRow) -> Result<Gift, sqlx::Error> {
    let what: String = row.try_get(0)?;
    Ok(Gift {
        on: None,
        role: row.try_get(1)?,
        forward: row.try_get(2)?,
        back: row.try_get(3)?,
        need: if what == carry_sql::PRIMARY_KEY_SAID { Need::Must } else { Need::May },
        what,
    })
}

/// Lets the foreign keys of a table go that nobody writes to any more: they would refuse deletes in the tables they point to,
/// for rows that nobody uses. Under the names from before the renames.
pub(super) async fn let_go(
    tx: &mut Tx<'_>,
    (table, keys): (&Table, &[Constraint]),
    carried: &mut Carried,
) -> Result<(), Error> {
    for key in keys {
        let name = quote(&key.name);
        let definition = super::stricter::bare(&key.definition);
        // A partitioned table takes none that isn't checked at once.
        let not_valid = if table.kind == 'p' { "" } else { " NOT VALID" };
        let comment = key.comment.as_ref().map_or_else(String::new, |text| {
            let text = super::catalogue::literal(text);
            format!("; COMMENT ON CONSTRAINT {name} ON {} IS {text}", table.sql())
        });
        let gift = Gift {
            what: format!("foreign key ({})", key.name),
            on: None,
            role: None,
            forward: format!("ALTER TABLE {} DROP CONSTRAINT {name}", table.sql()),
            back: format!(
                "ALTER TABLE {} ADD CONSTRAINT {name} {definition}{not_valid}{comment}",
                table.sql()
            ),
            need: Need::Must,
        };
        carried.give(tx, gift).await?;
        if definition == key.definition {
            let (table_oid, name) = (table.oid, key.name.clone());
            carried.keys_back.push(Key { table_oid, name });
        }
    }
    Ok(())
}
