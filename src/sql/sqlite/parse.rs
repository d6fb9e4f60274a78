//! `sqlparser`, made to read a little more of SQLite than it does by itself.
//!
//! Where it fails, the text is tried again in words that it knows (see `dialect`).

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, ObjectName, Query, Statement, TableFactor, Visit as _, Visitor};
use sqlparser::dialect::SQLiteDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token as ParserToken;

use super::{dialect, in_main};
use crate::bounds::sql::SQLITE_DEPTH_MAX;

/// One statement.
pub(super) fn statement(text: &str) -> Result<Statement, String> {
    twice(text, |text| {
        let mut statements = Parser::parse_sql(&SQLiteDialect {}, text)?;
        match (statements.pop(), statements.is_empty()) {
            (Some(statement), true) => Ok(statement),
            _ => Err(ParserError::ParserError("it is not one statement".to_owned())),
        }
    })
}

/// One expression, with nothing behind it.
pub(in crate::sql) fn expression(text: &str) -> Result<Expr, String> {
    twice(text, |text| {
        let mut parser = Parser::new(&SQLiteDialect {}).try_with_sql(text)?;
        let expression = parser.parse_expr()?;
        parser.expect_token(&ParserToken::EOF)?;
        Ok(expression)
    })
}

/// The tables that a query names; none of one that can't be read.
pub(super) fn tables(query: &str) -> Vec<String> {
    statement(query).map(|statement| relations(&statement)).unwrap_or_default()
}

/// The tables that a statement names, its own CTEs and table functions left out.
pub(super) fn relations(statement: &Statement) -> Vec<String> {
    let mut names = Relations::default();
    let _ = statement.visit(&mut names);
    let Relations { mut found, hidden } = names;
    found.retain(|name| !hidden.iter().any(|hidden| hidden.eq_ignore_ascii_case(name)));
    found
}

/// A name as SQLite means it; its last two parts at most.
pub(super) fn name_of(name: &ObjectName) -> String {
    let mut parts = name.0.iter().rev().filter_map(|part| part.as_ident());
    let last = parts.next().map(|ident| ident.value.clone()).unwrap_or_default();
    in_main(parts.next().map(|ident| ident.value.clone()), last)
}

#[derive(Default)]
struct Relations {
    found: Vec<String>,
    hidden: Vec<String>,
}

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.hidden.extend(ctes.map(|cte| cte.alias.name.value.clone()));
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        self.found.push(name_of(relation));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: Some(_), .. } = factor {
            self.hidden.push(name_of(name));
        }
        ControlFlow::Continue(())
    }
}

/// Parses a text, and where that fails, the same in standard words.
fn twice<T>(text: &str, parse: impl Fn(&str) -> Result<T, ParserError>) -> Result<T, String> {
    // The parser never sees a comment: one that it ended elsewhere than SQLite does would hide what runs.
    let text = dialect::without_comments(text).ok_or("a string, name or comment has no end")?;
    if dialect::depth(&text) > SQLITE_DEPTH_MAX {
        return Err(in_words(&ParserError::RecursionLimitExceeded));
    }
    let error = match parse(&text) {
        Ok(parsed) => return Ok(parsed),
        Err(error) => error,
    };
    match dialect::standard(&text).map(|text| parse(&text)) {
        Some(Ok(parsed)) => Ok(parsed),
        _ => Err(in_words(&error)),
    }
}

fn in_words(error: &ParserError) -> String {
    match error {
        // Its own places are those of the text without comments, and help nobody.
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
            text.split(" at Line: ").next().unwrap_or_default().to_owned()
        }
        ParserError::RecursionLimitExceeded => "it is nested too deeply".to_owned(),
    }
}
