//! Reading statements as SQLite does.
//!
//! The statement's first words decide what reads it: definitions, whose grammar is small, are read from tokens here;
//! statements over rows by `sqlparser`. A definition can't change a row, so how much of it is understood only decides how
//! much is said of it; a statement over rows that can't be read is *unknown*, or destructive if its first word says so.

mod define;
mod dialect;
mod parse;
mod rows;
#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests;
mod trigger;

pub(super) use parse::expression;

use crate::run::Hazard;

use super::Dialect;
use super::facts::Facts;
use super::reader::Reader;
use super::token::{self, Kind, Token};

/// The prefix of our own objects in SQLite, which has no schemas to keep them apart.
const OURS: &str = "phasegate_";

/// PRAGMAs that only tell something, whether or not they are given an argument.
const TELLING_PRAGMAS: [&str; 17] = [
    "collation_list",
    "compile_options",
    "data_version",
    "database_list",
    "foreign_key_check",
    "foreign_key_list",
    "freelist_count",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "module_list",
    "page_count",
    "pragma_list",
    "quick_check",
    "table_info",
];

/// What one statement does.
pub(super) fn classify(statement: &str) -> Facts {
    let tokens = match token::tokens(Dialect::Sqlite, statement, 1) {
        Ok(tokens) => tokens,
        Err(error) => return Facts::unknown(error.message),
    };
    let tokens = without_last_semicolons(statement, &tokens);
    let mut facts = by_first_word(statement, tokens);
    complain_of_ours(&mut facts, statement, tokens);
    complain_of_parameters(&mut facts, statement, tokens);
    facts
}

fn without_last_semicolons<'a>(source: &str, tokens: &'a [Token]) -> &'a [Token] {
    let count = tokens.iter().rev().take_while(|token| token.is_punct(source, ";")).count();
    tokens.get(..tokens.len() - count).unwrap_or_default()
}

fn by_first_word(source: &str, tokens: &[Token]) -> Facts {
    let mut reader = Reader::new(source, tokens);
    if define::is_trigger(reader) {
        return trigger::facts(reader);
    }
    if tokens.iter().any(|token| token.is_punct(source, ";")) {
        return Facts::unknown("it is more than one statement");
    }
    let whole = reader;
    let Some(first) = reader.word() else {
        return if reader.is_at_end() { Facts::harmless() } else { unreadable() };
    };
    match first.as_str() {
        "create" => define::create(reader),
        "alter" => define::alter(reader),
        "drop" => define::drop(reader),
        "select" | "values" | "with" | "insert" | "replace" | "update" | "delete" => {
            rows::facts(whole)
        }
        "analyze" | "reindex" | "explain" => Facts::harmless(),
        "pragma" => pragma(reader),
        "begin" | "commit" | "end" | "rollback" | "savepoint" | "release" => refused(
            &format!("{} has no place in a step", first.to_ascii_uppercase()),
            "leave it out: the statements of a step run in one transaction, together with its row in the ledger",
        ),
        "attach" | "detach" => refused(
            &format!("{} has no place in a step", first.to_ascii_uppercase()),
            "name the other file as a target of its own",
        ),
        "vacuum" => refused(
            "VACUUM can't run in a transaction",
            "run it by hand before or after the run; `VACUUM INTO` makes a copy at any time",
        ),
        _ => unreadable(),
    }
}

fn unreadable() -> Facts {
    Facts::unknown("it doesn't begin as a statement of SQLite does")
}

/// Of a statement that can't be run in a step, and would do what nobody can tell if it were.
fn refused(message: &str, help: &str) -> Facts {
    let mut facts = Facts::unknown(message);
    facts.complain(message, help);
    facts
}

fn pragma(mut reader: Reader<'_>) -> Facts {
    let mut name = reader.name().unwrap_or_default();
    if reader.eats_punct(".") {
        name = reader.name().unwrap_or_default();
    }
    let name = name.to_ascii_lowercase();
    let tells = TELLING_PRAGMAS.contains(&name.as_str())
        || matches!(name.as_str(), "table_list" | "table_xinfo");
    // `defer_foreign_keys` ends with the transaction, and `optimize` only gathers statistics.
    if tells || matches!(name.as_str(), "defer_foreign_keys" | "optimize") {
        return Facts::harmless();
    }
    let sets = reader.eats_punct("=") || reader.eats_punct("(");
    if !sets && !matches!(name.as_str(), "incremental_vacuum" | "wal_checkpoint" | "shrink_memory")
    {
        return Facts::harmless();
    }
    refused(
        &format!("PRAGMA {name} changes the database file or the connection, not data"),
        "set it by hand, or in whatever opens the database; a step's connection is not kept",
    )
}

/// Our own objects are none of a plan's business. Strings count where a name is wanted: SQLite takes them for names there.
fn complain_of_ours(facts: &mut Facts, source: &str, tokens: &[Token]) {
    const NAME_FOLLOWS: [&str; 9] =
        ["table", "into", "from", "update", "join", "on", "trigger", "index", "view"];
    let mut before: Option<&Token> = None;
    for token in tokens {
        let is_name = match token.kind {
            Kind::Word | Kind::Quoted => true,
            Kind::Text => before.is_some_and(|before| {
                before.is_punct(source, ".")
                    || NAME_FOLLOWS.iter().any(|word| before.is_word(source, word))
            }),
            Kind::Punct => false,
        };
        if let Some(name) = token.name(source).filter(|_| is_name)
            && name.get(..OURS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OURS))
        {
            facts.complain(
                format!("{name} is named like the bookkeeping of a run"),
                format!("use another name: those that begin with {OURS} are kept for it"),
            );
        }
        before = Some(token);
    }
}

/// Nothing binds parameters in a script, and SQLite takes an unbound one for NULL.
fn complain_of_parameters(facts: &mut Facts, source: &str, tokens: &[Token]) {
    let mut rest = tokens.iter().peekable();
    while let Some(token) = rest.next() {
        let touches_word =
            rest.peek().is_some_and(|next| next.start == token.end && next.kind == Kind::Word);
        let is_parameter = token.is_punct(source, "?")
            || (touches_word && [":", "@", "$", "#"].iter().any(|p| token.is_punct(source, p)));
        if is_parameter {
            facts.complain(
                "there is a parameter in it, which would be NULL",
                "write the value itself; text stands in single quotes",
            );
        }
    }
}

/// A table name without SQLite's name for the main database.
fn in_main(schema: Option<String>, name: String) -> String {
    match schema {
        Some(schema) if !schema.eq_ignore_ascii_case("main") => format!("{schema}.{name}"),
        _ => name,
    }
}

/// Reads `[schema.]name`.
fn qualified(reader: &mut Reader<'_>) -> Option<String> {
    let first = reader.name()?;
    if reader.eats_punct(".") {
        return Some(in_main(Some(first), reader.name()?));
    }
    Some(first)
}

/// Destructive, with what it does.
fn destructive(what: String) -> Hazard {
    Hazard::Destructive(what)
}
