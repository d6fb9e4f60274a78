//! What SQLite's catalogue says of tables: columns, keys, indexes, triggers, foreign keys.
//!
//! Names are compared as SQLite does, without regard to the case of ASCII letters, and given as the catalogue spells them.
//! Absent on purpose: judging what was found, which is `introspect`'s, and reading CREATE statements beyond one word.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::error::failed;
use crate::driver::Error;

/// A table (or what stands in its place) as the catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// Its name as the catalogue spells it.
    pub name: String,
    pub kind: TableKind,
    /// The statement that made it.
    pub sql: String,
    pub without_rowid: bool,
    pub strict: bool,
    /// In their order.
    pub columns: Vec<Column>,
    /// Those of UNIQUE and PRIMARY KEY constraints too; not the rowid itself.
    pub indexes: Vec<Index>,
    /// Ours too; sorted by name.
    pub triggers: Vec<Trigger>,
    /// From this table to others.
    pub foreign_keys: Vec<ForeignKey>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableKind {
    Table,
    View,
    Virtual,
    /// A table that belongs to a virtual one.
    Shadow,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// The declared type as written; empty where there is none.
    pub declared: String,
    pub affinity: Affinity,
    /// Declared NOT NULL. (Of a primary key's columns only those of WITHOUT ROWID and STRICT tables and the rowid are
    /// never NULL: see [`Table::may_be_null`].)
    pub not_null: bool,
    pub default: Option<String>,
    /// The place in the primary key, counted from 1.
    pub primary_key: Option<u32>,
    pub generated: Generated,
}

/// Whether a column is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generated {
    No,
    Virtual,
    Stored,
    /// A hidden column of a virtual table.
    Hidden,
}

/// How SQLite converts what is stored in a column: <https://www.sqlite.org/datatype3.html#determination_of_column_affinity>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub name: String,
    pub unique: bool,
    pub origin: IndexOrigin,
    pub partial: bool,
    /// Its key, without the rowid or primary key that SQLite appends.
    pub columns: Vec<IndexColumn>,
    /// The statement that made it; none for the index of a constraint.
    pub sql: Option<String>,
}

/// Where an index comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IndexOrigin {
    CreateIndex,
    UniqueConstraint,
    PrimaryKey,
}

/// A column of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexColumn {
    /// `None`: an expression.
    pub name: Option<String>,
    pub collation: String,
    pub descending: bool,
}

/// A trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trigger {
    pub name: String,
    pub sql: String,
}

/// A foreign key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ForeignKey {
    /// The table it points to.
    pub table: String,
    /// Column here, and column there; `None` there: the primary key.
    pub columns: Vec<(String, Option<String>)>,
    pub on_update: String,
    pub on_delete: String,
}

impl Table {
    /// The column of a name.
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| same_name(&column.name, name))
    }

    /// The column that is the rowid: an INTEGER PRIMARY KEY of a rowid table.
    pub(super) fn rowid_alias(&self) -> Option<&Column> {
        if self.without_rowid || self.kind != TableKind::Table {
            return None;
        }
        let mut keyed = self.columns.iter().filter(|column| column.primary_key.is_some());
        let only = keyed.next().filter(|_| keyed.next().is_none())?;
        // `INTEGER PRIMARY KEY DESC` is no alias, and has an index of its own instead.
        let has_index = self.indexes.iter().any(|index| index.origin == IndexOrigin::PrimaryKey);
        (only.declared.eq_ignore_ascii_case("integer") && !has_index).then_some(only)
    }

    /// Whether its rows have a rowid.
    pub(super) fn has_rowid(&self) -> bool {
        self.kind == TableKind::Table && !self.without_rowid
    }

    /// Whether a column can hold NULL.
    pub(super) fn may_be_null(&self, column: &Column) -> bool {
        let is_rowid = self.rowid_alias().is_some_and(|alias| alias.name == column.name);
        let is_key = column.primary_key.is_some() && (self.without_rowid || self.strict);
        !(column.not_null || is_rowid || is_key)
    }

    /// Every set of columns that identifies a row: unique, never NULL, not partial, not an expression. In index order.
    pub(super) fn identities(&self) -> Vec<Vec<&str>> {
        let mut found: Vec<Vec<&str>> = Vec::new();
        if let Some(alias) = self.rowid_alias() {
            found.push(vec![&alias.name]);
        }
        for index in self.indexes.iter().filter(|index| index.unique && !index.partial) {
            let columns: Option<Vec<&Column>> = index
                .columns
                .iter()
                .map(|part| part.name.as_deref().and_then(|name| self.column(name)))
                .collect();
            let Some(columns) = columns else { continue };
            let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            if columns.iter().all(|column| !self.may_be_null(column)) && !found.contains(&names) {
                found.push(names);
            }
        }
        found
    }

    /// Whether ids are drawn so that none is ever used twice.
    pub(super) fn is_autoincrement(&self) -> bool {
        self.rowid_alias().is_some() && self.sql.to_ascii_uppercase().contains("AUTOINCREMENT")
    }

    /// Triggers that are not ours.
    pub(super) fn user_triggers(&self) -> impl Iterator<Item = &Trigger> {
        self.triggers.iter().filter(|trigger| !is_ours(&trigger.name))
    }
}

/// Whether two names are one for SQLite.
pub(super) fn same_name(one: &str, two: &str) -> bool {
    one.eq_ignore_ascii_case(two)
}

/// Whether an object is one of ours.
pub(super) fn is_ours(name: &str) -> bool {
    name.get(..super::ledger::PREFIX.len())
        .is_some_and(|start| same_name(start, super::ledger::PREFIX))
}

/// An identifier as SQL text.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The affinity of a declared type.
pub(super) fn affinity(declared: &str, is_strict: bool) -> Affinity {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    if is_strict && declared == "ANY" {
        Affinity::Blob
    } else if has("INT") {
        Affinity::Integer
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Affinity::Text
    } else if has("BLOB") || declared.is_empty() {
        Affinity::Blob
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Affinity::Real
    } else {
        Affinity::Numeric
    }
}

/// The names of tables and views, without SQLite's and ours.
pub(super) async fn names(conn: &mut SqliteConnection) -> Result<Vec<String>, Error> {
    let rows = sqlx::query(
        "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE 'phasegate\\_%' ESCAPE '\\'
         ORDER BY name",
    )
    .fetch_all(conn)
    .await
    .map_err(failed("read the catalogue"))?;
    rows.iter().map(|row| text(row, "name")).collect()
}

/// A table or view by its name, or `None` when there is none.
pub(super) async fn table(conn: &mut SqliteConnection, name: &str) -> Result<Option<Table>, Error> {
    let row = sqlx::query(
        "SELECT l.name AS name, l.type AS type, l.wr AS wr, l.strict AS strict, coalesce(s.sql, '') AS sql
         FROM pragma_table_list AS l
         JOIN sqlite_schema AS s ON s.name = l.name AND s.type IN ('table', 'view')
         WHERE l.schema = 'main' AND l.name = ?1 COLLATE NOCASE",
    )
    .bind(name)
    .fetch_optional(&mut *conn)
    .await
    .map_err(failed("read the catalogue"))?;
    let Some(row) = row else { return Ok(None) };
    let name = text(&row, "name")?;
    let strict = flag(&row, "strict")?;
    let kind = match text(&row, "type")?.as_str() {
        "view" => TableKind::View,
        "virtual" => TableKind::Virtual,
        "shadow" => TableKind::Shadow,
        _ => TableKind::Table,
    };
    Ok(Some(Table {
        kind,
        sql: text(&row, "sql")?,
        without_rowid: flag(&row, "wr")?,
        strict,
        columns: match columns(conn, &name, strict).await {
            // A view whose tables are gone has no columns that anybody could read, and is in nobody's way.
            Err(_) if kind == TableKind::View => Vec::new(),
            columns => columns?,
        },
        indexes: indexes(conn, &name).await?,
        triggers: triggers(conn, &name).await?,
        foreign_keys: foreign_keys(conn, &name).await?,
        name,
    }))
}

async fn columns(
    conn: &mut SqliteConnection,
    table: &str,
    is_strict: bool,
) -> Result<Vec<Column>, Error> {
    let rows = sqlx::query(
        "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid",
    )
    .bind(table)
    .fetch_all(conn)
    .await
    .map_err(failed("read the catalogue"))?;
    rows.iter()
        .map(|row| {
            let declared = text(row, "type")?;
            Ok(Column {
                name: text(row, "name")?,
                affinity: affinity(&declared, is_strict),
                declared,
                not_null: flag(row, "notnull")?,
                default: row.try_get("dflt_value").map_err(failed("read the catalogue"))?,
                primary_key: u32::try_from(number(row, "pk")?).ok().filter(|place| *place > 0),
                generated: match number(row, "hidden")? {
                    0 => Generated::No,
                    2 => Generated::Virtual,
                    3 => Generated::Stored,
                    _ => Generated::Hidden,
                },
            })
        })
        .collect()
}

async fn indexes(conn: &mut SqliteConnection, table: &str) -> Result<Vec<Index>, Error> {
    let rows = sqlx::query(
        "SELECT i.seq AS seq, i.name AS name, i.\"unique\" AS is_unique, i.origin AS origin,
                i.partial AS is_partial, s.sql AS sql
         FROM pragma_index_list(?1) AS i
         LEFT JOIN sqlite_schema AS s ON s.type = 'index' AND s.name = i.name
         ORDER BY i.name",
    )
    .bind(table)
    .fetch_all(&mut *conn)
    .await
    .map_err(failed("read the catalogue"))?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let name = text(&row, "name")?;
        let parts = sqlx::query(
            "SELECT name, \"desc\" AS is_desc, coll FROM pragma_index_xinfo(?1) WHERE key = 1 ORDER BY seqno",
        )
        .bind(&name)
        .fetch_all(&mut *conn)
        .await
        .map_err(failed("read the catalogue"))?;
        let columns: Result<_, Error> = parts
            .iter()
            .map(|part| {
                Ok(IndexColumn {
                    name: part.try_get("name").map_err(failed("read the catalogue"))?,
                    collation: text(part, "coll")?,
                    descending: flag(part, "is_desc")?,
                })
            })
            .collect();
        found.push(Index {
            name,
            unique: flag(&row, "is_unique")?,
            origin: match text(&row, "origin")?.as_str() {
                "pk" => IndexOrigin::PrimaryKey,
                "u" => IndexOrigin::UniqueConstraint,
                _ => IndexOrigin::CreateIndex,
            },
            partial: flag(&row, "is_partial")?,
            columns: columns?,
            sql: row.try_get("sql").map_err(failed("read the catalogue"))?,
        });
    }
    Ok(found)
}

async fn triggers(conn: &mut SqliteConnection, table: &str) -> Result<Vec<Trigger>, Error> {
    let rows = sqlx::query(
        "SELECT name, sql FROM sqlite_schema
         WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE ORDER BY name",
    )
    .bind(table)
    .fetch_all(conn)
    .await
    .map_err(failed("read the catalogue"))?;
    rows.iter()
        .map(|row| Ok(Trigger { name: text(row, "name")?, sql: text(row, "sql")? }))
        .collect()
}

async fn foreign_keys(conn: &mut SqliteConnection, table: &str) -> Result<Vec<ForeignKey>, Error> {
    let rows = sqlx::query(
        "SELECT id, \"table\" AS other, \"from\" AS here, \"to\" AS there, on_update, on_delete
         FROM pragma_foreign_key_list(?1) ORDER BY id, seq",
    )
    .bind(table)
    .fetch_all(conn)
    .await
    .map_err(failed("read the catalogue"))?;
    let mut found: Vec<(i64, ForeignKey)> = Vec::new();
    for row in rows {
        let id = number(&row, "id")?;
        let there = row.try_get("there").map_err(failed("read the catalogue"))?;
        let pair = (text(&row, "here")?, there);
        match found.last_mut() {
            Some((last, key)) if *last == id => key.columns.push(pair),
            _ => found.push((
                id,
                ForeignKey {
                    table: text(&row, "other")?,
                    columns: vec![pair],
                    on_update: text(&row, "on_update")?,
                    on_delete: text(&row, "on_delete")?,
                },
            )),
        }
    }
    Ok(found.into_iter().map(|(_, key)| key).collect())
}

fn text(row: &SqliteRow, column: &str) -> Result<String, Error> {
    row.try_get(column).map_err(failed("read the catalogue"))
}

fn number(row: &SqliteRow, column: &str) -> Result<i64, Error> {
    row.try_get(column).map_err(failed("read the catalogue"))
}

fn flag(row: &SqliteRow, column: &str) -> Result<bool, Error> {
    Ok(number(row, column)? != 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::fixture::Database;
    use super::*;

    #[test]
    fn affinities_follow_the_declared_type_in_sqlites_order() {
        let table = [
            ("INT", Affinity::Integer),
            ("CHARINT", Affinity::Integer),
            ("FLOATING POINT", Affinity::Integer),
            ("varchar(20)", Affinity::Text),
            ("CLOB", Affinity::Text),
            ("", Affinity::Blob),
            ("blob", Affinity::Blob),
            ("DOUBLE", Affinity::Real),
            ("FLOAT", Affinity::Real),
            ("STRING", Affinity::Numeric),
            ("DECIMAL(10,5)", Affinity::Numeric),
            ("ANY", Affinity::Numeric),
        ];
        for (declared, expected) in table {
            assert_eq!(affinity(declared, false), expected, "{declared}");
        }
        assert_eq!(affinity("ANY", true), Affinity::Blob);
    }

    #[tokio::test]
    async fn a_table_is_read_whole_whatever_its_names() {
        let database = Database::with(
            r#"CREATE TABLE parent (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID;
            CREATE TABLE "Odd ""name""" (
                Id INTEGER PRIMARY KEY AUTOINCREMENT, "select" TEXT NOT NULL DEFAULT 'x' UNIQUE,
                a, b, twice INT AS (Id * 2) STORED, half INT AS (Id / 2),
                FOREIGN KEY (a, b) REFERENCES parent ON DELETE CASCADE);
            CREATE UNIQUE INDEX "ix 1" ON "Odd ""name""" ("select" COLLATE NOCASE DESC, lower(a)) WHERE b > 0;
            CREATE TRIGGER theirs AFTER INSERT ON "Odd ""name""" BEGIN SELECT 1; END;
            CREATE TRIGGER phasegate_1 AFTER INSERT ON "Odd ""name""" BEGIN SELECT 1; END;"#,
        )
        .await;
        let mut client = database.client().await;
        let table = table(&mut client, "ODD \"NAME\"").await.unwrap().unwrap();
        assert_eq!(table.name, "Odd \"name\"");
        assert_eq!(
            (table.kind, table.without_rowid, table.strict),
            (TableKind::Table, false, false)
        );
        assert!(table.is_autoincrement() && table.has_rowid());
        assert_eq!(table.rowid_alias().unwrap().name, "Id");
        let column = table.column("SELECT").unwrap();
        assert!(column.not_null && column.default.as_deref() == Some("'x'"));
        assert_eq!(table.column("twice").unwrap().generated, Generated::Stored);
        assert_eq!(table.column("half").unwrap().generated, Generated::Virtual);
        assert_eq!(table.identities(), [vec!["Id"], vec!["select"]]);
        let index = table.indexes.iter().find(|index| index.name == "ix 1").unwrap();
        assert!(index.unique && index.partial && index.origin == IndexOrigin::CreateIndex);
        let parts: Vec<_> = index
            .columns
            .iter()
            .map(|part| (part.name.as_deref(), part.collation.as_str(), part.descending))
            .collect();
        assert_eq!(parts, [(Some("select"), "NOCASE", true), (None, "BINARY", false)]);
        let key = &table.foreign_keys[0];
        assert_eq!((key.table.as_str(), key.on_delete.as_str()), ("parent", "CASCADE"));
        assert_eq!(key.columns, [("a".into(), None), ("b".into(), None)]);
        let names: Vec<&str> = table.user_triggers().map(|trigger| trigger.name.as_str()).collect();
        assert_eq!((names, table.triggers.len()), (vec!["theirs"], 2));
        assert_eq!(super::table(&mut client, "none").await.unwrap(), None);
        database.run("CREATE VIEW broken AS SELECT x FROM gone").await;
        let broken = super::table(&mut client, "broken").await.unwrap().unwrap();
        assert_eq!((broken.kind, broken.columns.len()), (TableKind::View, 0));
        database.run("DROP VIEW broken").await;
        assert_eq!(super::names(&mut client).await.unwrap(), ["Odd \"name\"", "parent"]);
    }
}
