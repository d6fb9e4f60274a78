//! A script into its statements.
//!
//! What is executed is each statement's own text, so the parts are cut out of the script and never put together anew.
//!
//! Absent: client commands that are no SQL (`DELIMITER`, `GO`, `\i`), and the compound bodies of MySQL and SQL Server,
//! which are refused by name rather than cut in the wrong place.

use crate::run::Statement;

use super::Dialect;
use super::token::{self, Token};

/// Why a script can't be split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SplitError {
    /// The line, counted as the caller counts.
    pub line: u32,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// The statements of a script, whose first line is line `first_line` of the plan or file it stands in.
///
/// Empty statements are dropped, comments before a statement belong to none, and the last semicolon may be missing.
pub fn split(dialect: Dialect, text: &str, first_line: u32) -> Result<Vec<Statement>, SplitError> {
    let tokens = token::tokens(dialect, text, first_line)?;
    let mut statements = Vec::new();
    let mut rest = tokens.as_slice();
    while !rest.is_empty() {
        let (own, after) = rest.split_at(length(dialect, text, rest)?);
        if let (Some(first), Some(last)) = (own.first(), own.last()) {
            let text = text.get(first.start..last.end).unwrap_or_default().to_owned();
            statements.push(Statement { text, line: first.line });
        }
        rest = after.get(1..).unwrap_or_default();
    }
    Ok(statements)
}

/// How many of the tokens make up the first statement, its semicolon not counted.
fn length(dialect: Dialect, text: &str, tokens: &[Token]) -> Result<usize, SplitError> {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|t| t.is_word(text, word));
    let plain = tokens.iter().position(|t| t.is_punct(text, ";")).unwrap_or(tokens.len());
    if !is(0, "create") {
        return Ok(plain);
    }
    match dialect {
        Dialect::Sqlite => {
            let kind = if is(1, "temp") || is(1, "temporary") { 2 } else { 1 };
            if is(kind, "trigger") { trigger(text, tokens) } else { Ok(plain) }
        }
        Dialect::Postgres => {
            let kind = if is(1, "or") && is(2, "replace") { 3 } else { 1 };
            let is_routine = is(kind, "function") || is(kind, "procedure");
            if is_routine { routine(text, tokens) } else { Ok(plain) }
        }
        Dialect::Mysql | Dialect::Sqlserver => {
            let own = tokens.get(..plain).unwrap_or_default();
            match own.iter().find(|token| token.is_word(text, "begin")) {
                Some(token) => Err(SplitError {
                    line: token.line,
                    message: format!("bodies of {} routines can't be read yet", dialect.name()),
                    help: "create the routine outside of the plan".to_owned(),
                }),
                None => Ok(plain),
            }
        }
    }
}

/// SQLite's CREATE TRIGGER ends at the first `; END` with nothing behind it: each statement of a body has a semicolon, and
/// the END of a CASE never follows one. `sqlite3_complete()` goes by the same rule.
fn trigger(text: &str, tokens: &[Token]) -> Result<usize, SplitError> {
    const MAY_STAND_IN_A_BODY: [&str; 8] =
        ["insert", "update", "delete", "replace", "select", "with", "values", "end"];
    let first_line = tokens.first().map_or(1, |token| token.line);
    let unended = |line: u32| SplitError {
        line,
        message: format!("the trigger that begins on line {first_line} has no END of its own"),
        help: "end its body with `END;`, and each statement in it with a semicolon".to_owned(),
    };
    for (at, token) in tokens.iter().enumerate() {
        if !token.is_punct(text, ";") {
            continue;
        }
        let Some(next) = tokens.get(at + 1) else { break };
        let ends = tokens.get(at + 2).is_none_or(|behind| behind.is_punct(text, ";"));
        if next.is_word(text, "end") && ends {
            return Ok(at + 2);
        }
        if !MAY_STAND_IN_A_BODY.iter().any(|word| next.is_word(text, word)) {
            return Err(unended(next.line));
        }
    }
    Err(unended(first_line))
}

/// PostgreSQL's CREATE FUNCTION may have a body of plain statements between BEGIN ATOMIC and END.
fn routine(text: &str, tokens: &[Token]) -> Result<usize, SplitError> {
    let mut depth = 0_u32;
    let mut before: Option<&Token> = None;
    for (at, token) in tokens.iter().enumerate() {
        if token.is_punct(text, ";") && depth == 0 {
            return Ok(at);
        }
        let begins = token.is_word(text, "atomic")
            && before.is_some_and(|before| before.is_word(text, "begin"));
        if begins || (depth > 0 && token.is_word(text, "case")) {
            depth += 1;
        } else if depth > 0 && token.is_word(text, "end") {
            depth -= 1;
        }
        before = Some(token);
    }
    if depth == 0 {
        return Ok(tokens.len());
    }
    let line = tokens.first().map_or(1, |token| token.line);
    Err(SplitError {
        line,
        message: format!("the function that begins on line {line} has no END"),
        help: "end its body with `END;`".to_owned(),
    })
}
