//! What the server reads otherwise than it is written: escapes, which it replaces before it reads anything, and characters that may
//! be blanks to one of its versions and not to another.

use crate::sql::Dialect;
use crate::sql::token::{Kind, Token, tokens};

use super::CLAUSES;

/// Words that destroy or write, beside those that a statement may begin with.
const INSIDE: [&str; 4] = ["remove", "nodetach", "null", "transactions"];

/// Why a text may mean something else to the server than it says, as the rest of a sentence that begins with "it has".
pub(super) fn disguise(source: &str) -> Option<String> {
    let all = tokens(Dialect::Cypher, source, 1).unwrap_or_default();
    if let Some(shown) = meaningful_escape(source).or_else(|| escape_in_name(source, &all)) {
        return Some(format!("the escape {shown}, which the server replaces before it reads it"));
    }
    let word = all.iter().map(|token| (token, token.text(source)));
    let mut doubtful = word.filter(|(token, text)| token.kind == Kind::Word && hides_a_word(text));
    let (_, text) = doubtful.next()?;
    Some(format!("{}, in which the server may see a blank", text.escape_debug()))
}

/// An escape in the place of a character that means something: the server replaces it wherever it stands, so that it may end a
/// string or a comment, or part two words.
fn meaningful_escape(source: &str) -> Option<&str> {
    let escapes = source.match_indices("\\u").chain(source.match_indices("\\U"));
    escapes.map(|(at, _)| source.get(at..at + 6).unwrap_or_default()).find(|escape| {
        let code = u32::from_str_radix(escape.get(2..).unwrap_or_default(), 16).ok();
        let it = code.and_then(char::from_u32);
        it.is_none_or(|it| it.is_ascii() || !it.is_alphanumeric())
    })
}

/// An escape in a name: what is called so can't be recognised where it is written otherwise.
fn escape_in_name<'a>(source: &'a str, all: &[Token]) -> Option<&'a str> {
    all.iter().find_map(|token| {
        let text = token.text(source);
        match token.kind {
            Kind::Quoted => text.find("\\u").or_else(|| text.find("\\U")),
            Kind::Punct => (text == "\\").then_some(0),
            Kind::Word | Kind::Text => None,
        }
        .map(|at| source.get(token.start + at..token.start + at + 6).unwrap_or("\\"))
    })
}

/// Whether a word has a keyword in it beside a character that is neither letter nor digit.
fn hides_a_word(text: &str) -> bool {
    let is_plain = |it: char| it.is_alphanumeric() || it == '_' || it == '$';
    text.contains(|it| !is_plain(it))
        && text
            .split(|it| !is_plain(it))
            .any(|piece| CLAUSES.iter().chain(&INSIDE).any(|word| piece.eq_ignore_ascii_case(word)))
}
