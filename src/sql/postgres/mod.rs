//! Reading statements as PostgreSQL does.
//!
//! squawk's parser makes a tree of every statement; the kind of its root decides who reads it. What isn't listed, and what
//! the parser doesn't read, is *unknown*, or destructive where a word alone says so.
//!
//! Decisions:
//! - Names are spelled as the catalogue spells them: unquoted ones in lower case. A name without a schema and one in `public`
//!   are the same.
//! - Locks are those on the tables that the statement names, by PostgreSQL's documentation, and proved on a server by a
//!   test. Absent: locks on tables that only the catalogue knows, such as the table of a dropped index, partitions, the
//!   other end of a foreign key that goes, and what a trigger or a view reaches.
//! - A function that is called now has to be known. One that is only named for later (a default, the body of a view or
//!   function) does nothing yet; but a trigger's is met by every writer, so making the trigger is *unknown*.
//! - Temporary tables are nothing that the plan made: they are gone with the connection, and a later step that names one
//!   finds the lasting table of that name.

mod alter;
mod columns;
mod control;
mod create;
mod drop;
mod functions;
mod maintain;
mod parse;
mod privileges;
mod rows;
mod settings;
#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests;
mod types;

pub(super) use columns::{calls_known_only, column_refs};
pub(super) use control::wrapped;

use squawk_syntax::{SyntaxKind, SyntaxNode};

use crate::run::Hazard;

use super::Dialect;
use super::facts::{Change, Facts, LockMode, RowWork, TableLock};
use super::token::{self, Kind, Token};

/// What one statement does.
pub(super) fn classify(statement: &str) -> Facts {
    let tokens = match token::tokens(Dialect::Postgres, statement, 1) {
        Ok(tokens) => tokens,
        Err(error) => return Facts::unknown(error.message),
    };
    if tokens.iter().all(|token| token.is_punct(statement, ";")) {
        return Facts::harmless();
    }
    let mut facts = match control::refused(statement, &tokens) {
        Some(facts) => facts,
        None => match parse::statement(statement) {
            Ok(node) => {
                let mut facts = Facts::harmless();
                read(&node, &mut facts);
                facts
            }
            Err(reason) => unread(statement, &tokens, &reason),
        },
    };
    control::complain_of_ours(&mut facts, statement, &tokens);
    control::complain_of_parameters(&mut facts, statement, &tokens);
    facts
}

/// Reads a statement of any kind.
fn read(node: &SyntaxNode, facts: &mut Facts) {
    let kind = node.kind();
    if is_rows(kind) {
        return rows::read(node, facts);
    }
    let is_read = create::read(node, facts)
        || alter::read(node, facts)
        || drop::read(node, facts)
        || maintain::read(node, facts)
        || privileges::read(node, facts)
        || settings::read(node, facts);
    if !is_read {
        let what = format!("{kind:?}").replace('_', " ");
        facts.endanger(Hazard::Unknown(format!("what {what} does can't be told from its text")));
    }
}

const fn is_rows(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::SELECT
            | SyntaxKind::SELECT_INTO
            | SyntaxKind::COMPOUND_SELECT
            | SyntaxKind::PAREN_SELECT
            | SyntaxKind::VALUES
            | SyntaxKind::TABLE
            | SyntaxKind::INSERT
            | SyntaxKind::UPDATE
            | SyntaxKind::DELETE
            | SyntaxKind::MERGE
    )
}

/// Of a statement that the parser doesn't read: destructive where its words say so.
fn unread(source: &str, tokens: &[Token], reason: &str) -> Facts {
    let mut facts = Facts::unknown(format!("it can't be read: {reason}"));
    let is = |word: &str| tokens.first().is_some_and(|token| token.is_word(source, word));
    let names = |words: [&'static str; 3]| {
        words.into_iter().find(|word| tokens.iter().any(|token| token.is_word(source, word)))
    };
    let verb = if is("with") || is("explain") {
        names(["delete", "update", "merge"])
    } else if is("alter") {
        names(["drop", "detach", "type"])
    } else {
        ["drop", "truncate", "delete", "update", "merge"].into_iter().find(|verb| is(verb))
    };
    if let Some(verb) = verb {
        let verb = verb.to_ascii_uppercase();
        let what = format!("there is {verb} in it, and it can't be read further: {reason}");
        facts.endanger(Hazard::Destructive(what));
    }
    facts
}

/// Of a statement that can't be run in a step, and would do what nobody can tell if it were.
fn refused(message: &str, help: &str) -> Facts {
    let mut facts = Facts::unknown(message);
    facts.complain(message, help);
    facts
}

/// Notes a lock on a table.
fn lock(
    facts: &mut Facts,
    table: &str,
    (mode, work): (LockMode, RowWork),
    reason: impl Into<String>,
) {
    facts.mention(table);
    facts.lock(TableLock { table: table.to_owned(), mode, work, reason: reason.into() });
}

/// Notes that it destroys.
fn destroys(facts: &mut Facts, what: impl Into<String>) {
    facts.endanger(Hazard::Destructive(what.into()));
}

/// Notes that it takes along whatever depends on what goes, if it says so.
fn cascades(facts: &mut Facts, node: &SyntaxNode) {
    if parse::has(node, SyntaxKind::CASCADE) {
        destroys(
            facts,
            "CASCADE drops whatever depends on it, and the text doesn't tell what that is",
        );
        facts.changes.push(Change::Cascade);
    }
}

/// Notes that it can't be told what it does.
fn is_unknown(facts: &mut Facts, why: impl Into<String>) {
    facts.endanger(Hazard::Unknown(why.into()));
}

/// Whether a token is a name, quoted or not.
const fn is_name(token: &Token) -> bool {
    matches!(token.kind, Kind::Word | Kind::Quoted)
}
