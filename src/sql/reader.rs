//! Reading tokens from left to right.

use super::token::{Kind, Token};

/// A place in the tokens of a statement.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    source: &'a str,
    rest: &'a [Token],
}

impl<'a> Reader<'a> {
    /// At the first of these tokens of `source`.
    pub(super) const fn new(source: &'a str, tokens: &'a [Token]) -> Self {
        Self { source, rest: tokens }
    }

    /// The tokens not read yet.
    pub(super) const fn rest(&self) -> &'a [Token] {
        self.rest
    }

    /// The text not read yet, from the next token to the end of the last.
    pub(super) fn rest_text(&self) -> &'a str {
        match (self.rest.first(), self.rest.last()) {
            (Some(first), Some(last)) => self.source.get(first.start..last.end).unwrap_or_default(),
            _ => "",
        }
    }

    /// Whether everything was read.
    pub(super) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether the next token is this keyword.
    pub(super) fn sees(&self, word: &str) -> bool {
        self.rest.first().is_some_and(|token| token.is_word(self.source, word))
    }

    /// Reads these keywords, all or none.
    pub(super) fn eats(&mut self, words: &[&str]) -> bool {
        let mut ahead = *self;
        for word in words {
            if !ahead.sees(word) {
                return false;
            }
            ahead.skip();
        }
        *self = ahead;
        true
    }

    /// Reads this character if it is next.
    pub(super) fn eats_punct(&mut self, punct: &str) -> bool {
        let is_next = self.rest.first().is_some_and(|token| token.is_punct(self.source, punct));
        if is_next {
            self.skip();
        }
        is_next
    }

    /// Reads a name, quoted or not.
    pub(super) fn name(&mut self) -> Option<String> {
        let name = self.rest.first()?.name(self.source)?;
        self.skip();
        Some(name)
    }

    /// Reads a keyword in lower case.
    pub(super) fn word(&mut self) -> Option<String> {
        let token = self.rest.first().filter(|token| token.kind == Kind::Word)?;
        self.skip();
        Some(token.text(self.source).to_ascii_lowercase())
    }

    /// Skips a token.
    pub(super) fn skip(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    /// Skips to the first token that is this keyword; nothing is read if there is none.
    pub(super) fn skip_to(&mut self, word: &str) -> bool {
        let at = self.rest.iter().position(|token| token.is_word(self.source, word));
        self.rest = at.and_then(|at| self.rest.get(at..)).unwrap_or(self.rest);
        at.is_some()
    }

    /// Whether a token of this source is this character.
    pub(super) fn is_punct(&self, token: &Token, punct: &str) -> bool {
        token.is_punct(self.source, punct)
    }

    /// The tokens before the one at `at`, counted from here.
    pub(super) fn up_to(&self, at: usize) -> Self {
        Self { source: self.source, rest: self.rest.get(..at).unwrap_or_default() }
    }

    /// The tokens behind the one at `at`, counted from here.
    pub(super) fn behind(&self, at: usize) -> Self {
        Self { source: self.source, rest: self.rest.get(at + 1..).unwrap_or_default() }
    }
}
