//! How PostgreSQL runs a statement that a plan takes out of the transaction.
//!
//! What the server runs in a transaction is run in one of its own, so that the ledger knows for certain what became of it.
//! The rest is told apart by what can be found out afterwards: from the catalogue, by doing it again, or not at all.
//!
//! Absent on purpose: whether a statement may destroy, which is `classify`'s.

use super::Dialect;
use super::reader::Reader;
use super::token::{Kind, tokens};

/// What becomes of a statement that is run by itself. Names are as the statement writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alone {
    /// It may be in a transaction.
    InTransaction,
    /// It may be, and reads a whole table under a weak lock.
    Validates,
    /// It sets something for the statements behind it.
    Session,
    /// CREATE INDEX CONCURRENTLY.
    BuildsIndex(NewIndex),
    /// DROP INDEX CONCURRENTLY, of this index.
    DropsIndex(String),
    /// REINDEX of a table or an index, or of more than that.
    Reindexes(Option<Reindexed>),
    /// DETACH PARTITION … CONCURRENTLY.
    Detaches {
        /// The partitioned table.
        parent: String,
        /// Its partition.
        partition: String,
    },
    /// Doing it once more does no harm.
    Repeatable,
    /// It begins or ends transactions, which is not a statement's business here.
    Control,
    /// Nothing tells afterwards whether it was done.
    Opaque,
}

/// What a REINDEX is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reindexed {
    /// One index.
    Index(String),
    /// Every index of a table.
    Table(String),
}

/// An index that a statement makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewIndex {
    /// Its name; `None`: the server makes one up.
    pub name: Option<String>,
    /// Its table.
    pub table: String,
    /// Whether the table may be written meanwhile.
    pub is_concurrent: bool,
}

/// How PostgreSQL runs a statement.
#[must_use]
pub fn alone(statement: &str) -> Alone {
    // A text that has no tokens is refused by the server too.
    let Ok(all) = tokens(Dialect::Postgres, statement, 1) else { return Alone::InTransaction };
    let mut reader = Reader::new(statement, &all);
    if let Some(index) = new_index(statement, &mut reader.clone()) {
        let concurrent = index.is_concurrent;
        return if concurrent { Alone::BuildsIndex(index) } else { Alone::InTransaction };
    }
    let first = reader.word().unwrap_or_default();
    let second = reader.clone().word().unwrap_or_default();
    match (first.as_str(), second.as_str()) {
        ("set", "transaction" | "local" | "constraints") => Alone::InTransaction,
        ("set" | "reset" | "discard", _) => Alone::Session,
        (
            "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release",
            _,
        )
        | ("prepare", "transaction") => Alone::Control,
        ("drop", "index") => dropped_index(statement, &mut reader),
        ("reindex", _) => reindexed(statement, &mut reader),
        ("alter", "table") => altered(statement, &mut reader),
        ("vacuum" | "analyze" | "analyse" | "checkpoint" | "cluster" | "load", _)
        | ("alter", "system") => Alone::Repeatable,
        ("call" | "do", _)
        | ("create" | "drop" | "alter", "database" | "tablespace" | "subscription") => {
            Alone::Opaque
        }
        _ => Alone::InTransaction,
    }
}

/// Whether a statement runs code that may commit by itself: a procedure, or an anonymous block.
#[must_use]
pub fn runs_code(statement: &str) -> bool {
    let Ok(all) = tokens(Dialect::Postgres, statement, 1) else { return false };
    Reader::new(statement, &all).word().is_some_and(|first| first == "call" || first == "do")
}

/// The index that a statement makes, concurrently or not.
#[must_use]
pub fn index_made(statement: &str) -> Option<NewIndex> {
    let all = tokens(Dialect::Postgres, statement, 1).ok()?;
    new_index(statement, &mut Reader::new(statement, &all))
}

/// Kinds of things that all databases of a server share, and that are in a catalogue by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// A database.
    Database,
    /// A place for files.
    Tablespace,
    /// A subscription, which only its own database sees.
    Subscription,
}

/// What a statement makes or removes of these, by its name as written. Nothing where it changes one that is there before and
/// after.
#[must_use]
pub fn shared_object(statement: &str) -> Option<(Shared, String)> {
    let all = tokens(Dialect::Postgres, statement, 1).ok()?;
    let mut reader = Reader::new(statement, &all);
    if !matches!(reader.word()?.as_str(), "create" | "drop") {
        return None;
    }
    let kind = match reader.word()?.as_str() {
        "database" => Shared::Database,
        "tablespace" => Shared::Tablespace,
        "subscription" => Shared::Subscription,
        _ => return None,
    };
    reader.eats(&["if", "exists"]);
    Some((kind, path(statement, &mut reader)?))
}

fn new_index(source: &str, reader: &mut Reader<'_>) -> Option<NewIndex> {
    if !reader.eats(&["create", "index"]) && !reader.eats(&["create", "unique", "index"]) {
        return None;
    }
    let is_concurrent = reader.eats(&["concurrently"]);
    reader.eats(&["if", "not", "exists"]);
    let name = if reader.sees("on") { None } else { Some(path(source, reader)?) };
    if !reader.eats(&["on", "only"]) && !reader.eats(&["on"]) {
        return None;
    }
    Some(NewIndex { name, table: path(source, reader)?, is_concurrent })
}

/// Behind `DROP`.
fn dropped_index(source: &str, reader: &mut Reader<'_>) -> Alone {
    if !reader.eats(&["index", "concurrently"]) {
        return Alone::InTransaction;
    }
    reader.eats(&["if", "exists"]);
    path(source, reader).map_or(Alone::Opaque, Alone::DropsIndex)
}

/// Behind `REINDEX`.
fn reindexed(source: &str, reader: &mut Reader<'_>) -> Alone {
    let in_brackets = reader.rest().iter().position(|token| reader.is_punct(token, ")"));
    if let (true, Some(at)) = (reader.eats_punct("("), in_brackets) {
        // One was eaten already.
        *reader = reader.behind(at - 1);
    }
    let what = reader.word();
    reader.eats(&["concurrently"]);
    let name = path(source, reader);
    Alone::Reindexes(match (what.as_deref(), name) {
        (Some("index"), Some(name)) => Some(Reindexed::Index(name)),
        (Some("table"), Some(name)) => Some(Reindexed::Table(name)),
        _ => None,
    })
}

/// Behind `ALTER`.
fn altered(source: &str, reader: &mut Reader<'_>) -> Alone {
    reader.skip();
    reader.eats(&["if", "exists"]);
    reader.eats(&["only"]);
    let Some(parent) = path(source, reader) else { return Alone::InTransaction };
    if reader.sees("validate") {
        return Alone::Validates;
    }
    if !reader.eats(&["detach", "partition"]) {
        return Alone::InTransaction;
    }
    match path(source, reader) {
        Some(partition) if reader.sees("concurrently") => Alone::Detaches { parent, partition },
        _ => Alone::InTransaction,
    }
}

/// A name with its schema, as written.
fn path(source: &str, reader: &mut Reader<'_>) -> Option<String> {
    let start = reader.rest().first()?.start;
    let mut end;
    loop {
        let token = reader.rest().first()?;
        if !matches!(token.kind, Kind::Word | Kind::Quoted) {
            return None;
        }
        end = token.end;
        reader.skip();
        if !reader.eats_punct(".") {
            return source.get(start..end).map(str::to_owned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: Option<&str>, table: &str) -> NewIndex {
        NewIndex { name: name.map(str::to_owned), table: table.to_owned(), is_concurrent: true }
    }

    #[test]
    fn what_can_t_be_in_a_transaction_is_told_apart() {
        let table = [
            (
                "create unique index concurrently if not exists \"A b\" on only crm.\"Leads\" (x)",
                Alone::BuildsIndex(index(Some("\"A b\""), "crm.\"Leads\"")),
            ),
            (
                "CREATE INDEX CONCURRENTLY ON leads(lower(email))",
                Alone::BuildsIndex(index(None, "leads")),
            ),
            ("CREATE INDEX i ON t (x)", Alone::InTransaction),
            (
                "DROP INDEX CONCURRENTLY IF EXISTS public.i",
                Alone::DropsIndex("public.i".to_owned()),
            ),
            ("DROP INDEX i", Alone::InTransaction),
            (
                "REINDEX (VERBOSE) INDEX CONCURRENTLY i",
                Alone::Reindexes(Some(Reindexed::Index("i".to_owned()))),
            ),
            (
                "REINDEX TABLE CONCURRENTLY a.t",
                Alone::Reindexes(Some(Reindexed::Table("a.t".to_owned()))),
            ),
            ("REINDEX SYSTEM db", Alone::Reindexes(None)),
            (
                "/* x */ ALTER TABLE p DETACH PARTITION s.p1 CONCURRENTLY",
                Alone::Detaches { parent: "p".to_owned(), partition: "s.p1".to_owned() },
            ),
            ("ALTER TABLE p DETACH PARTITION p1", Alone::InTransaction),
            ("ALTER TABLE ONLY t VALIDATE CONSTRAINT c", Alone::Validates),
            ("ALTER TABLE validate ADD x int", Alone::InTransaction),
            ("ALTER TYPE mood ADD VALUE 'meh'", Alone::InTransaction),
            ("VACUUM (ANALYZE) t", Alone::Repeatable),
            ("SET maintenance_work_mem = '1GB'", Alone::Session),
            ("SET LOCAL x = 1", Alone::InTransaction),
            ("COMMIT", Alone::Control),
            ("PREPARE TRANSACTION 'x'", Alone::Control),
            ("PREPARE q AS SELECT 1", Alone::InTransaction),
            ("CALL p()", Alone::Opaque),
            ("CREATE DATABASE d", Alone::Opaque),
            ("UPDATE t SET x = 'vacuum'", Alone::InTransaction),
        ];
        for (statement, expected) in table {
            assert_eq!(alone(statement), expected, "{statement}");
        }
        let made = shared_object("create database \"A b\" OWNER x");
        assert_eq!(made, Some((Shared::Database, "\"A b\"".to_owned())));
        let gone = shared_object("DROP SUBSCRIPTION IF EXISTS s");
        assert_eq!(gone, Some((Shared::Subscription, "s".to_owned())));
        for other in ["ALTER DATABASE d SET x = 1", "CREATE TABLE database (x int)", "CALL p()"] {
            assert_eq!(shared_object(other), None, "{other}");
        }
        let plain = index_made("CREATE INDEX IF NOT EXISTS i ON t (x)");
        assert!(plain.is_some_and(|i| !i.is_concurrent && i.name.as_deref() == Some("i")));
    }
}
