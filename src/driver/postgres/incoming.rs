//! Foreign keys of other tables to one that is put aside: they go over to the new table.
//!
//! Invariants:
//! - A key goes over in the transaction that puts the old table aside, NOT VALID, so that no row is read while clients wait;
//!   from then on it holds for every write. It is checked right after that. One that was not valid before stays so.
//! - Where an author has made the same key to the new table already, it takes the old one's place and its name.
//!
//! Absent on purpose: keys of columns whose values the mapping changes. They are refused.

use serde::Deserialize;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::carried::{Carried, Gift, Holder, Key, Need};
use super::catalogue::{Table, quote};
use super::connection::Tx;
use super::counterpart;
use super::error::{damaged, failed};
use super::shape::Shape;
use crate::driver::Error;

/// A foreign key of another table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Incoming {
    pub name: String,
    pub table_oid: u32,
    /// Qualified and quoted.
    pub table: String,
    /// For people.
    pub shown: String,
    /// `relkind` of that table.
    kind: char,
    /// Quoted.
    owner: String,
    pub is_ours: bool,
    /// Its columns, quoted, as a list.
    columns: String,
    /// Conditions for its columns to refer to something, each with the column's place.
    column_names: Vec<String>,
    pub referenced: Vec<String>,
    /// What stands behind the referenced columns.
    tail: String,
    pub is_valid: bool,
    comment: Option<String>,
}

/// `$1`: the table that they point to. Columns that SET NULL is for came with PostgreSQL 15: before, the name is `older`'s.
const INCOMING: &str = "\
SELECT coalesce(jsonb_agg(jsonb_build_object('name', k.conname, 'table_oid', k.conrelid::bigint,
    'table', format('%I.%I', n.nspname, c.relname), 'shown', c.oid::regclass::text, 'kind', c.relkind,
    'owner', quote_ident(pg_get_userbyid(c.relowner)), 'is_ours', pg_has_role(c.relowner, 'USAGE'),
    'columns', (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY u.at) FROM unnest(k.conkey) WITH ORDINALITY u (num, at)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num),
    'column_names', ARRAY(SELECT a.attname FROM unnest(k.conkey) WITH ORDINALITY u (num, at)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY u.at),
    'referenced', ARRAY(SELECT a.attname FROM unnest(k.confkey) WITH ORDINALITY u (num, at)
        JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY u.at),
    'tail', CASE k.confmatchtype WHEN 'f' THEN ' MATCH FULL' ELSE '' END
        || CASE k.confupdtype WHEN 'r' THEN ' ON UPDATE RESTRICT' WHEN 'c' THEN ' ON UPDATE CASCADE'
             WHEN 'n' THEN ' ON UPDATE SET NULL' WHEN 'd' THEN ' ON UPDATE SET DEFAULT' ELSE '' END
        || CASE k.confdeltype WHEN 'r' THEN ' ON DELETE RESTRICT' WHEN 'c' THEN ' ON DELETE CASCADE'
             WHEN 'n' THEN ' ON DELETE SET NULL' WHEN 'd' THEN ' ON DELETE SET DEFAULT' ELSE '' END
        || coalesce(' (' || (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY u.at)
             FROM unnest((SELECT confdelsetcols FROM pg_constraint x WHERE x.oid = k.oid)) WITH ORDINALITY u (num, at)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num) || ')', '')
        || CASE WHEN k.condeferrable THEN ' DEFERRABLE' ELSE '' END
        || CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END,
    'is_valid', k.convalidated, 'comment', obj_description(k.oid, 'pg_constraint')) ORDER BY c.oid, k.conname), '[]')::text
FROM (SELECT NULL::int2[] AS confdelsetcols) AS older, pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.confrelid = $1::bigint::oid AND k.conparentid = 0";

/// The foreign keys that point to a table, its own included.
pub(super) async fn to(conn: &mut PgConnection, table: &Table) -> Result<Vec<Incoming>, Error> {
    let doing = "read the foreign keys to the table";
    let row = sqlx::query(INCOMING)
        .bind(i64::from(table.oid))
        .fetch_one(conn)
        .await
        .map_err(failed(doing))?;
    let text: String = row.try_get(0).map_err(failed(doing))?;
    serde_json::from_str(&text)
        .map_err(|error| damaged(format!("the catalogue answered something unknown: {error}")))
}

/// The other tables that have foreign keys to a table, qualified and quoted.
pub(super) async fn tables(conn: &mut PgConnection, table: &Table) -> Result<Vec<String>, Error> {
    let keys = to(conn, table).await?.into_iter();
    Ok(keys.filter(|key| key.table_oid != table.oid).map(|key| key.table).collect())
}

impl Incoming {
    /// The statements that make it again of a table's columns that have the same names.
    pub(super) fn statements(&self, into: &Table) -> Vec<String> {
        let (table, name) = (&self.table, quote(&self.name));
        // A partitioned table takes none that isn't checked at once.
        let not_valid = if self.kind == 'p' { "" } else { " NOT VALID" };
        let make = add(table, &self.name, &definition(self, into, &self.referenced));
        let comment = self.comment.as_ref().map(|text| {
            let text = super::catalogue::literal(text);
            format!("COMMENT ON CONSTRAINT {name} ON {table} IS {text}")
        });
        [Some(format!("{make}{not_valid}")), comment].into_iter().flatten().collect()
    }
}

/// A key that goes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Going {
    key: Incoming,
    /// The columns of the new table that it will refer to.
    referenced: Vec<String>,
    /// The name of the same key to the new table, where there is one already.
    twin: Option<String>,
    /// Why it can't go over.
    pub problem: Option<String>,
}

/// The keys that would go over to the new table of a mapping.
pub(super) async fn going(conn: &mut PgConnection, shape: &Shape) -> Result<Vec<Going>, Error> {
    let there = to(conn, &shape.new).await?;
    let mut all = Vec::new();
    for key in to(conn, &shape.old).await? {
        if key.table_oid != shape.old.oid {
            all.push(over(shape, key, &there));
        }
    }
    Ok(all)
}

fn over(shape: &Shape, key: Incoming, there: &[Incoming]) -> Going {
    let pairs = counterpart::pairs(shape);
    let new_name =
        |old: &String| pairs.iter().find(|(name, _)| name == old).map(|(_, new)| new.clone());
    let referenced: Option<Vec<String>> = key.referenced.iter().map(new_name).collect();
    let Some(referenced) = referenced else {
        let problem = format!(
            "foreign key {} of {} refers to columns of {} whose values {} does not have",
            key.name, key.shown, shape.old.name, shape.new.name
        );
        return Going { key, referenced: Vec::new(), twin: None, problem: Some(problem) };
    };
    let is_twin = |it: &&Incoming| {
        it.table_oid == key.table_oid
            && it.columns == key.columns
            && it.referenced == referenced
            && it.tail == key.tail
            && (it.is_valid || !key.is_valid)
    };
    let twin = there.iter().find(is_twin).map(|it| it.name.clone());
    let problem = problem(shape, &key, (&referenced, twin.is_some()));
    Going { key, referenced, twin, problem }
}

fn problem(
    shape: &Shape,
    key: &Incoming,
    (referenced, has_twin): (&[String], bool),
) -> Option<String> {
    let (name, on) = (&key.name, &key.shown);
    if !key.is_ours {
        return Some(format!("foreign key {name} of {on}, which belongs to {}", key.owner));
    }
    let is_unique = shape.new.indexes.iter().any(|index| {
        index.is_identity()
            && index.columns.len() == referenced.len()
            && index.columns.iter().flatten().all(|column| referenced.contains(column))
    });
    if !is_unique {
        return Some(format!(
            "foreign key {name} of {on}: nothing makes ({}) of {} unique",
            referenced.join(", "),
            shape.new.name
        ));
    }
    (key.kind == 'p' && !has_twin).then(|| {
        format!(
            "foreign key {name} of {on}, which is partitioned and takes none that isn't checked at once: {}",
            add(&key.table, "", &definition(key, &shape.new, referenced))
        )
    })
}

fn definition(key: &Incoming, into: &Table, referenced: &[String]) -> String {
    let columns: Vec<String> = referenced.iter().map(|name| quote(name)).collect();
    format!(
        "FOREIGN KEY ({}) REFERENCES {} ({}){}",
        key.columns,
        into.sql(),
        columns.join(", "),
        key.tail
    )
}

fn add(table: &str, name: &str, definition: &str) -> String {
    if name.is_empty() {
        return format!("ALTER TABLE {table} ADD {definition}");
    }
    format!("ALTER TABLE {table} ADD CONSTRAINT {} {definition}", quote(name))
}

impl Going {
    /// What is locked for it.
    pub(super) fn holder(&self) -> Holder {
        Holder { name: self.key.table.clone(), owner: None }
    }

    /// It, for people.
    pub(super) fn said(&self) -> String {
        format!("{} of {}", self.key.name, self.key.shown)
    }

    /// Whether rows refer to what the new table doesn't have: a question that reads the whole table. None where they can't.
    pub(super) fn orphans(&self, shape: &Shape) -> Option<String> {
        if shape.filter.is_none() || !self.key.is_valid || self.twin.is_some() {
            return None;
        }
        let columns: Vec<String> =
            self.key.column_names.iter().map(|name| format!("f.{}", quote(name))).collect();
        let pairs = columns.iter().zip(&self.referenced);
        let is_same: Vec<String> =
            pairs.map(|(column, name)| format!("t.{} = {column}", quote(name))).collect();
        Some(format!(
            "SELECT EXISTS (SELECT FROM {} AS f WHERE ({}) IS NOT NULL AND NOT EXISTS (SELECT FROM {} AS t WHERE {}))",
            self.key.table,
            columns.join(", "),
            shape.new.sql(),
            is_same.join(" AND ")
        ))
    }

    /// Sends it over, under the names from before the renames.
    pub(super) async fn go(
        &self,
        tx: &mut Tx<'_>,
        shape: &Shape,
        carried: &mut Carried,
    ) -> Result<(), Error> {
        let (key, table, name) = (&self.key, &self.key.table, quote(&self.key.name));
        // A partitioned table takes none that isn't checked at once.
        let not_valid = if key.kind == 'p' { "" } else { " NOT VALID" };
        let forth = definition(key, &shape.new, &self.referenced);
        let back = definition(key, &shape.old, &key.referenced);
        let comment = key.comment.as_ref().map_or_else(String::new, |text| {
            let text = super::catalogue::literal(text);
            format!("; COMMENT ON CONSTRAINT {name} ON {table} IS {text}")
        });
        let (forward, back) = match &self.twin {
            Some(twin) => (
                format!(
                    "ALTER TABLE {table} DROP CONSTRAINT {name}; ALTER TABLE {table} RENAME CONSTRAINT {} TO {name}",
                    quote(twin)
                ),
                format!(
                    "ALTER TABLE {table} RENAME CONSTRAINT {name} TO {}; {}{not_valid}{comment}",
                    quote(twin),
                    add(table, &key.name, &back)
                ),
            ),
            None => (
                format!(
                    "ALTER TABLE {table} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} {forth}{not_valid}{comment}"
                ),
                format!(
                    "ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}, ADD CONSTRAINT {name} {back}{not_valid}{comment}"
                ),
            ),
        };
        let what = format!("foreign key ({})", self.said());
        let on = Some(self.holder());
        carried.give(tx, Gift { what, on, role: None, forward, back, need: Need::Must }).await?;
        let checked = Key { table_oid: key.table_oid, name: key.name.clone() };
        if key.is_valid {
            carried.keys_back.push(checked.clone());
            carried.keys.push(checked);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use sqlx::Connection as _;

    use super::super::catalogue;
    use super::super::fixture::{Database, OLDER};
    use super::*;

    #[tokio::test]
    async fn keys_are_told_whole_and_by_an_older_catalogue_too() {
        let setup = "CREATE TABLE t (a int, b int, PRIMARY KEY (b, a));
            CREATE TABLE n (x int, y int, CONSTRAINT k FOREIGN KEY (y, x) REFERENCES t MATCH FULL ON UPDATE CASCADE
                ON DELETE SET NULL (x) DEFERRABLE INITIALLY DEFERRED);";
        let Some(database) = Database::with(&format!("{setup}{OLDER}")).await else { return };
        let mut conn = database.client().await;
        let table = catalogue::table(&mut conn, "t").await.unwrap().unwrap();
        for (path, listed) in [("pg_catalog", " (x)"), ("older, pg_catalog", "")] {
            sqlx::query("SELECT set_config('search_path', $1, false)")
                .bind(path)
                .execute(&mut conn)
                .await
                .unwrap();
            let found = to(&mut conn, &table).await.unwrap();
            assert_eq!(found.len(), 1);
            let tail = format!(
                " MATCH FULL ON UPDATE CASCADE ON DELETE SET NULL{listed} DEFERRABLE INITIALLY DEFERRED"
            );
            assert_eq!(
                (found[0].columns.as_str(), found[0].tail.as_str()),
                ("y, x", tail.as_str())
            );
            assert_eq!(found[0].referenced, ["b", "a"]);
        }
        conn.close().await.unwrap();
        database.gone().await;
    }
}
