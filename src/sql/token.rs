//! Text into tokens: just enough to know where strings, names, comments and statements end.
//!
//! Tokens are byte ranges of the text they were read from. Comments and blanks are no tokens.

use super::{Dialect, SplitError};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword, an unquoted name or a number.
    Word,
    /// A name in quotes. In MySQL `"…"` is a string and in SQLite it may be one; both are counted as names here.
    Quoted,
    /// A string.
    Text,
    /// A single other character, or a comment that MySQL executes.
    Punct,
}

/// A part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// What it is.
    pub(super) kind: Kind,
    /// Its first byte.
    pub(super) start: usize,
    /// The byte behind its last.
    pub(super) end: usize,
    /// The line it starts on.
    pub(super) line: u32,
}

impl Token {
    /// The token as written.
    pub(super) fn text<'a>(&self, source: &'a str) -> &'a str {
        source.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether it is this keyword (or this unquoted name).
    pub(super) fn is_word(&self, source: &str, word: &str) -> bool {
        self.kind == Kind::Word && self.text(source).eq_ignore_ascii_case(word)
    }

    /// Whether it is this character.
    pub(super) fn is_punct(&self, source: &str, punct: &str) -> bool {
        self.kind == Kind::Punct && self.text(source) == punct
    }

    /// The name that a quoted or unquoted identifier means. SQLite takes `'name'` for a name too where one is wanted.
    pub(super) fn name(&self, source: &str) -> Option<String> {
        let text = self.text(source);
        if self.kind == Kind::Word {
            return Some(text.to_owned());
        }
        if self.kind == Kind::Punct {
            return None;
        }
        let close = text.chars().next_back()?;
        let inner = text.get(1..text.len().checked_sub(close.len_utf8())?)?;
        Some(inner.replace(&format!("{close}{close}"), &close.to_string()))
    }
}

/// The tokens of a text whose first line is line `first_line` of whatever it stands in.
pub(super) fn tokens(
    dialect: Dialect,
    source: &str,
    first_line: u32,
) -> Result<Vec<Token>, SplitError> {
    match tokens_until(dialect, source, first_line) {
        (_, Some(error)) => Err(error),
        (tokens, None) => Ok(tokens),
    }
}

/// The same up to what can't be read, if there is anything.
pub(super) fn tokens_until(
    dialect: Dialect,
    source: &str,
    first_line: u32,
) -> (Vec<Token>, Option<SplitError>) {
    let mut lexer = Lexer { dialect, source, bytes: source.as_bytes(), at: 0, line: first_line };
    if source.starts_with('\u{feff}') {
        lexer.at = '\u{feff}'.len_utf8();
    }
    let mut tokens: Vec<Token> = Vec::new();
    while let Some(byte) = lexer.peek(0) {
        let (start, line) = (lexer.at, lexer.line);
        match lexer.next(byte, tokens.last()) {
            Ok(Some(kind)) => tokens.push(Token { kind, start, end: lexer.at, line }),
            Ok(None) => {}
            Err(error) => return (tokens, Some(error)),
        }
    }
    (tokens, None)
}

/// Whether a backslash takes the next character's meaning away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backslash {
    Escapes,
    Plain,
}

struct Lexer<'a> {
    dialect: Dialect,
    source: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: u32,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn starts_with(&self, text: &str) -> bool {
        self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(text.as_bytes()))
    }

    fn step(&mut self) {
        if self.peek(0) == Some(b'\n') {
            self.line = self.line.saturating_add(1);
        }
        self.at += 1;
    }

    fn skip(&mut self, bytes: usize) {
        for _ in 0..bytes {
            self.step();
        }
    }

    /// Moves behind what begins here, and says what it was; `None` for blanks and comments.
    fn next(&mut self, byte: u8, before: Option<&Token>) -> Result<Option<Kind>, SplitError> {
        match byte {
            0 => Err(SplitError {
                line: self.line,
                message: "there is a NUL byte in the script".to_owned(),
                help: "remove it: databases end a statement there, without a word".to_owned(),
            }),
            b' ' | b'\t' | b'\n' | b'\r' | 0x0c => {
                self.step();
                Ok(None)
            }
            _ if self.cypher_blank() > 0 => {
                self.skip(self.cypher_blank());
                Ok(None)
            }
            b'-' if self.starts_line_comment() => Ok(self.line_comment()),
            b'/' if self.dialect == Dialect::Cypher && self.peek(1) == Some(b'/') => {
                Ok(self.line_comment())
            }
            b'#' if self.dialect == Dialect::Mysql => Ok(self.line_comment()),
            b'/' if self.peek(1) == Some(b'*') => self.block_comment(),
            b'\'' if self.dialect == Dialect::Cypher => self.text(b'\'').map(Some),
            b'\'' => self.string(before).map(Some),
            b'"' if self.dialect == Dialect::Cypher => self.text(b'"').map(Some),
            b'"' => self.delimited(b'"', self.double_quote_escapes()).map(Some),
            b'`' if matches!(self.dialect, Dialect::Sqlite | Dialect::Mysql | Dialect::Cypher) => {
                self.delimited(b'`', Backslash::Plain).map(Some)
            }
            b'[' if matches!(self.dialect, Dialect::Sqlite | Dialect::Sqlserver) => {
                self.bracketed().map(Some)
            }
            b'$' if self.dialect == Dialect::Postgres => self.dollar().map(Some),
            _ if self.is_word_byte(byte) => {
                while self.peek(0).is_some_and(|b| self.is_word_byte(b) || b == b'$')
                    && self.cypher_blank() == 0
                {
                    self.step();
                }
                Ok(Some(Kind::Word))
            }
            _ => {
                self.step();
                Ok(Some(Kind::Punct))
            }
        }
    }

    fn starts_line_comment(&self) -> bool {
        // In MySQL `5--3` is a subtraction: the comment wants a blank behind its dashes. In Cypher `(a)--(b)` is a pattern.
        self.peek(1) == Some(b'-')
            && self.dialect != Dialect::Cypher
            && (self.dialect != Dialect::Mysql
                || self.peek(2).is_none_or(|byte| byte.is_ascii_whitespace()))
    }

    fn line_comment(&mut self) -> Option<Kind> {
        // To SQLite and MySQL a lone carriage return is a character like others: the comment goes on.
        let ends_at_return = matches!(self.dialect, Dialect::Cypher | Dialect::Postgres);
        let ends = |byte| byte == b'\n' || ends_at_return && byte == b'\r';
        while self.peek(0).is_some_and(|byte| !ends(byte)) {
            self.step();
        }
        None
    }

    fn block_comment(&mut self) -> Result<Option<Kind>, SplitError> {
        let line = self.line;
        let is_executed = self.dialect == Dialect::Mysql
            && matches!((self.peek(2), self.peek(3)), (Some(b'!'), _) | (Some(b'M'), Some(b'!')));
        let nests = matches!(self.dialect, Dialect::Postgres | Dialect::Sqlserver);
        self.skip(2);
        let mut depth = 1_u32;
        while depth > 0 {
            if self.starts_with("*/") {
                depth -= 1;
                self.skip(2);
            } else if nests && self.starts_with("/*") {
                depth += 1;
                self.skip(2);
            } else if self.peek(0).is_some() {
                self.step();
            } else {
                return Err(unterminated(line, "comment", "*/"));
            }
        }
        Ok(is_executed.then_some(Kind::Punct))
    }

    /// A string in single quotes. `before` tells PostgreSQL's `E'…'`, where a backslash escapes.
    fn string(&mut self, before: Option<&Token>) -> Result<Kind, SplitError> {
        let is_escape_string = self.dialect == Dialect::Postgres
            && before.is_some_and(|token| token.end == self.at && token.is_word(self.source, "e"));
        let backslash = if is_escape_string || self.dialect == Dialect::Mysql {
            Backslash::Escapes
        } else {
            Backslash::Plain
        };
        let line = self.line;
        self.until(b'\'', backslash).ok_or_else(|| unterminated(line, "string", "'"))?;
        Ok(Kind::Text)
    }

    /// Cypher's strings, in which a quote is never doubled.
    fn text(&mut self, close: u8) -> Result<Kind, SplitError> {
        let line = self.line;
        self.step();
        loop {
            match self.peek(0) {
                None => return Err(unterminated(line, "string", &char::from(close).to_string())),
                Some(b'\\') => {
                    self.step();
                    if self.peek(0).is_some() {
                        self.step();
                    }
                }
                Some(byte) => {
                    self.step();
                    if byte == close {
                        return Ok(Kind::Text);
                    }
                }
            }
        }
    }

    /// How many bytes a blank of Cypher has here beside those that are blanks everywhere; 0 where there is none.
    fn cypher_blank(&self) -> usize {
        if self.dialect != Dialect::Cypher {
            return 0;
        }
        let rest = self.source.get(self.at..).unwrap_or_default();
        let next = rest.chars().next().filter(|it| is_cypher_blank(*it));
        next.map_or(0, char::len_utf8)
    }

    /// Letters, digits, underscores and everything beyond ASCII, which all these databases allow in names. Cypher allows control
    /// characters in them, too.
    fn is_word_byte(&self, byte: u8) -> bool {
        is_word_byte(byte)
            || self.dialect == Dialect::Cypher && matches!(byte, 0x01..=0x08 | 0x0e..=0x1b | 0x7f)
    }

    fn double_quote_escapes(&self) -> Backslash {
        if self.dialect == Dialect::Mysql { Backslash::Escapes } else { Backslash::Plain }
    }

    fn delimited(&mut self, close: u8, backslash: Backslash) -> Result<Kind, SplitError> {
        let line = self.line;
        let shown = char::from(close).to_string();
        self.until(close, backslash).ok_or_else(|| unterminated(line, "quoted name", &shown))?;
        Ok(Kind::Quoted)
    }

    fn bracketed(&mut self) -> Result<Kind, SplitError> {
        let line = self.line;
        let closed = if self.dialect == Dialect::Sqlserver {
            self.until(b']', Backslash::Plain)
        } else {
            // SQLite knows no way to write a bracket inside brackets.
            self.step();
            while self.peek(0).is_some_and(|byte| byte != b']') {
                self.step();
            }
            self.peek(0).map(|_| self.step())
        };
        closed.ok_or_else(|| unterminated(line, "quoted name", "]"))?;
        Ok(Kind::Quoted)
    }

    /// Moves from an opening quote behind the closing one; a doubled one stands for itself.
    fn until(&mut self, close: u8, backslash: Backslash) -> Option<()> {
        self.step();
        loop {
            let byte = self.peek(0)?;
            if byte == b'\\' && backslash == Backslash::Escapes {
                self.step();
                self.peek(0)?;
                self.step();
            } else if byte == close && self.peek(1) == Some(close) {
                self.skip(2);
            } else {
                self.step();
                if byte == close {
                    return Some(());
                }
            }
        }
    }

    /// PostgreSQL's `$tag$ … $tag$`, or a parameter's dollar.
    fn dollar(&mut self) -> Result<Kind, SplitError> {
        let rest = self.source.get(self.at..).unwrap_or_default();
        let tag = rest.get(1..).and_then(|behind| behind.split_once('$')).map(|(tag, _)| tag);
        let is_tag = |tag: &str| {
            tag.bytes().all(is_word_byte) && !tag.starts_with(|first: char| first.is_ascii_digit())
        };
        let Some(tag) = tag.filter(|tag| is_tag(tag)) else {
            self.step();
            return Ok(Kind::Punct);
        };
        let fence = format!("${tag}$");
        let inside = rest.get(fence.len()..).unwrap_or_default();
        let line = self.line;
        let length = inside.find(&fence).ok_or_else(|| unterminated(line, "string", &fence))?;
        self.skip(length + 2 * fence.len());
        Ok(Kind::Text)
    }
}

/// What Neo4j's own lexer takes for a blank (`SPACE` in its grammar), without those that are blanks in every dialect. All else
/// beyond ASCII may be a part of a name there: combining marks and currencies are.
const fn is_cypher_blank(it: char) -> bool {
    matches!(
        it,
        '\u{b}'
            | '\u{1c}'..='\u{1f}'
            | '\u{a0}'
            | '\u{1680}'
            | '\u{2000}'..='\u{200a}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{202f}'
            | '\u{205f}'
            | '\u{3000}'
    )
}

/// Letters, digits, underscores and everything beyond ASCII.
const fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn unterminated(line: u32, what: &str, close: &str) -> SplitError {
    SplitError {
        line,
        message: format!("the {what} that begins on line {line} has no end"),
        help: format!("close it with {close}"),
    }
}
