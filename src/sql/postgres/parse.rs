//! squawk's parser, kept from what would bring it down, and names as PostgreSQL means them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use squawk_syntax::ast::{self, AstNode as _, Stmt};
use squawk_syntax::{SourceFile, SyntaxKind, SyntaxNode};

use super::super::Dialect;
use super::super::token::{self, Kind, Token};
use super::super::written_name;
use crate::bounds::sql::{POSTGRES_CHAIN_MAX, POSTGRES_NESTED_MAX};

/// One statement; the error is a sentence for people.
pub(super) fn statement(text: &str) -> Result<SyntaxNode, String> {
    let text = without_bodies(text).ok_or("a string, name or comment has no end")?;
    if is_too_deep(&text) {
        return Err("it is nested too deeply".to_owned());
    }
    if merges_partitions(&text) {
        return Err("MERGE PARTITIONS can't be read yet".to_owned());
    }
    // The parser gives up with a panic where it sees itself standing still. No text is known to bring it there but the one
    // refused above; whatever else does is a statement that can't be read.
    let parsed = catch_unwind(AssertUnwindSafe(|| {
        let parsed = SourceFile::parse(&text);
        let error = parsed.errors().first().map(|error| error.message().to_owned());
        (parsed.tree(), error)
    }));
    let Ok((file, error)) = parsed else {
        return Err("the parser gives up on it".to_owned());
    };
    if let Some(error) = error {
        return Err(error);
    }
    let mut statements = file.stmts().filter(|stmt| !matches!(stmt, Stmt::EmptyStmt(_)));
    match (statements.next(), statements.next()) {
        (Some(statement), None) => Ok(statement.syntax().clone()),
        _ => Err("it is not one statement".to_owned()),
    }
}

/// One expression, read as the only value of a SELECT.
pub(super) fn expression(text: &str) -> Result<SyntaxNode, String> {
    let tokens = token::tokens(Dialect::Postgres, text, 1).map_err(|error| error.message)?;
    if tokens.is_empty() {
        return Err("there is nothing".to_owned());
    }
    // A comment at its end must not take the parenthesis behind it along.
    let select = statement(&format!("SELECT ({text}\n)"))?;
    let is_only_clause = select.kind() == SyntaxKind::SELECT && select.children().count() == 1;
    let list = select.first_child().and_then(|clause| child(&clause, SyntaxKind::TARGET_LIST));
    let targets: Vec<SyntaxNode> = list.iter().flat_map(SyntaxNode::children).collect();
    let value = targets.first().and_then(SyntaxNode::first_child);
    match (value, targets.len()) {
        (Some(value), 1) if is_only_clause && value.kind() == SyntaxKind::PAREN_EXPR => Ok(value),
        _ => Err("it is not one expression".to_owned()),
    }
}

/// The text with the bodies of routines emptied. They are text of another language, and the parser would read them as deep
/// as they go.
fn without_bodies(text: &str) -> Option<String> {
    let tokens = token::tokens(Dialect::Postgres, text, 1).ok()?;
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is_word(text, word));
    let kind = if is(1, "or") && is(2, "replace") { 3 } else { 1 };
    let is_routine = is(0, "create") && (is(kind, "function") || is(kind, "procedure"));
    if !is_routine && !is(0, "do") {
        return Some(text.to_owned());
    }
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for token in &tokens {
        let is_body = token.kind == Kind::Text && {
            let body = token.text(text);
            body.starts_with('$') || body.contains(char::is_whitespace)
        };
        if is_body {
            // Behind an E or U& this is still a string.
            out.push_str(text.get(copied..token.start)?);
            out.push_str("''");
            copied = token.end;
        }
    }
    out.push_str(text.get(copied..)?);
    Some(out)
}

/// `ALTER TABLE … MERGE PARTITIONS`, at which the parser can stand still for ever. A column may be called so.
fn merges_partitions(text: &str) -> bool {
    const NAME_FOLLOWS: [&str; 8] =
        ["column", "add", "drop", "alter", "rename", "to", "exists", "constraint"];
    let tokens = token::tokens(Dialect::Postgres, text, 1).unwrap_or_default();
    tokens.first().is_some_and(|token| token.is_word(text, "alter"))
        && tokens.windows(2).any(|pair| match pair {
            [before, merge] => {
                merge.is_word(text, "merge")
                    && !before.is_punct(text, "(")
                    && !NAME_FOLLOWS.iter().any(|word| before.is_word(text, word))
            }
            _ => false,
        })
}

/// What stands between two brackets, or two commas or semicolons inside them.
#[derive(Default)]
struct Group {
    words: usize,
    prefixes: usize,
    /// The longest chain and the deepest nesting so far.
    longest: usize,
    deepest: usize,
    /// Of the brackets since the last comma.
    inner_chain: usize,
    inner_depth: usize,
}

impl Group {
    fn end_part(&mut self) {
        self.longest = self.longest.max(self.words + self.inner_chain);
        self.deepest = self.deepest.max(self.prefixes + self.inner_depth);
        (self.words, self.prefixes, self.inner_chain, self.inner_depth) = (0, 0, 0, 0);
    }

    fn close(mut self, outer: &mut Self) {
        self.end_part();
        outer.inner_chain = outer.inner_chain.max(self.longest + 1);
        outer.inner_depth = outer.inner_depth.max(self.deepest + 1);
    }
}

/// Whether the parser, or whoever walks its tree, could go too deep.
fn is_too_deep(text: &str) -> bool {
    let tokens = token::tokens(Dialect::Postgres, text, 1).unwrap_or_default();
    let mut outer: Vec<Group> = Vec::new();
    let mut group = Group::default();
    let mut before: Option<&Token> = None;
    for token in &tokens {
        match token.text(text) {
            "(" | "[" if token.kind == Kind::Punct => outer.push(std::mem::take(&mut group)),
            ")" | "]" if token.kind == Kind::Punct => {
                let mut around = outer.pop().unwrap_or_default();
                group.close(&mut around);
                group = around;
            }
            "," | ";" if token.kind == Kind::Punct => group.end_part(),
            _ => {
                group.words += 1;
                group.prefixes += usize::from(goes_deeper(text, token, before));
            }
        }
        before = Some(token);
    }
    while let Some(mut around) = outer.pop() {
        group.close(&mut around);
        group = around;
    }
    group.end_part();
    group.longest > POSTGRES_CHAIN_MAX || group.deepest > POSTGRES_NESTED_MAX
}

/// Whether what begins here is read inside what stands before it: NOT, CASE, ON of a join, and a sign without a value in
/// front of it.
fn goes_deeper(text: &str, token: &Token, before: Option<&Token>) -> bool {
    const WORDS: [&str; 6] = ["not", "case", "join", "explain", "operator", "between"];
    if token.kind != Kind::Punct {
        return WORDS.iter().any(|word| token.is_word(text, word));
    }
    before.is_some_and(|before| {
        let is_apart = before.end < token.start;
        let is_sign = before.kind == Kind::Punct && !matches!(before.text(text), ")" | "]" | ".");
        is_apart && (is_sign || before.is_word(text, "not"))
    })
}

/// The nodes of a kind in a tree, itself included.
pub(super) fn descendants(
    node: &SyntaxNode,
    kind: SyntaxKind,
) -> impl Iterator<Item = SyntaxNode> + use<> {
    node.descendants().filter(move |node| node.kind() == kind)
}

/// The first of a node's own children of a kind.
pub(super) fn child(node: &SyntaxNode, kind: SyntaxKind) -> Option<SyntaxNode> {
    node.children().find(|node| node.kind() == kind)
}

/// Whether a node has a child of this kind, token or node.
pub(super) fn has(node: &SyntaxNode, kind: SyntaxKind) -> bool {
    node.children_with_tokens().any(|element| element.kind() == kind)
}

/// A simple name as the catalogue spells it.
pub(super) fn name(node: &SyntaxNode) -> String {
    ast::normalize_name_node(node)
}

/// The first name in a node, without the schema `public`.
pub(super) fn qualified(node: &SyntaxNode) -> Option<String> {
    let mut parts = parts(node)?;
    let last = parts.pop()?;
    let schema = parts.pop();
    Some(unschemed(schema.as_deref(), &last))
}

/// A name as mappings write it, without the schema `public`.
pub(super) fn unschemed(schema: Option<&str>, name: &str) -> String {
    written_name(schema.filter(|schema| *schema != "public"), name)
}

/// The parts of the first name in a node.
pub(super) fn parts(node: &SyntaxNode) -> Option<Vec<String>> {
    let is_path = |kind| matches!(kind, SyntaxKind::PATH | SyntaxKind::PATH_REF);
    let path = node.descendants().find(|node| is_path(node.kind()))?;
    let segments = path.descendants().filter(|node| {
        matches!(node.kind(), SyntaxKind::PATH_SEGMENT | SyntaxKind::PATH_SEGMENT_REF)
    });
    Some(segments.map(|segment| name(&segment)).collect())
}

/// The names of all children of a kind.
pub(super) fn all_named(node: &SyntaxNode, kind: SyntaxKind) -> Vec<String> {
    node.children()
        .filter(|child| child.kind() == kind)
        .filter_map(|child| qualified(&child))
        .collect()
}
