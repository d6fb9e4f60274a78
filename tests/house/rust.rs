//! Rust source as far as the house rules need it: words without comments and strings, paths, and what is test code.

/// A word or sign of the source, with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// A source file.
pub struct Source {
    /// Relative to the package, with `/`.
    pub path: String,
    pub text: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// The module this file is, from the crate's root: `src/sql/split.rs` is `[sql, split]`.
    pub fn module(&self) -> Vec<String> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut parts: Vec<String> = inner.split('/').map(str::to_owned).collect();
        if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
            parts.pop();
        }
        parts
    }

    /// Its path without what marks it as a file of Rust: a module's own folder is named so, too.
    pub fn stem(&self) -> &str {
        self.path.trim_end_matches(".rs").trim_end_matches("/mod")
    }

    /// Where the modules that it declares stand: a crate's root has them beside itself.
    pub fn folder(&self) -> &str {
        let is_root = self.module().is_empty();
        let beside = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if is_root { beside } else { self.stem() }
    }

    /// The room it stands in; none for the crate's root.
    pub fn room(&self) -> Option<String> {
        self.module().first().cloned()
    }

    pub fn tokens(&self) -> Vec<Token> {
        tokens(&self.text)
    }

    /// The stems of tests' modules that it names by their files: `#[path = "x_tests.rs"]`, beside itself.
    pub fn tests_by_path(&self) -> Vec<String> {
        let beside = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let marked = self.text.split("#[cfg(test)]\n#[path = \"").skip(1);
        let files = marked.filter_map(|rest| rest.split_once(".rs\"]"));
        files.map(|(name, _)| format!("{beside}/{name}")).collect()
    }
}

/// The words and signs of a text, `::` being one sign. Comments, strings and lifetimes are left out.
pub fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut line, mut found) = (0, 1, Vec::new());
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => line_end(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => comment_end(&chars, at),
            '"' => string_end(&chars, at),
            '\'' => quote_end(&chars, at),
            'r' | 'b' | 'c' if let Some(end) = prefixed_string_end(&chars, at) => end,
            first if first.is_alphanumeric() || first == '_' => {
                let end = word_end(&chars, at);
                found.push(Token { text: chars[at..end].iter().collect(), line });
                end
            }
            ':' if chars.get(at + 1) == Some(&':') => {
                found.push(Token { text: "::".to_owned(), line });
                at + 2
            }
            sign => {
                if !sign.is_whitespace() {
                    found.push(Token { text: sign.to_string(), line });
                }
                at + 1
            }
        };
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    found
}

fn line_end(chars: &[char], at: usize) -> usize {
    (at..chars.len()).find(|at| chars[*at] == '\n').unwrap_or(chars.len())
}

fn word_end(chars: &[char], at: usize) -> usize {
    let goes_on = |at: &usize| chars[*at].is_alphanumeric() || chars[*at] == '_';
    (at..chars.len()).find(|at| !goes_on(at)).unwrap_or(chars.len())
}

fn comment_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn string_end(chars: &[char], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// Behind a character, or behind the quote of a lifetime.
fn quote_end(chars: &[char], at: usize) -> usize {
    if chars.get(at + 1) == Some(&'\\') {
        let close = (at + 3..chars.len()).find(|at| chars[*at] == '\'');
        return close.map_or(chars.len(), |close| close + 1);
    }
    if chars.get(at + 2) == Some(&'\'') { at + 3 } else { word_end(chars, at + 1) }
}

/// Behind `b"…"`, `r"…"`, `br#"…"#` and their like, if one begins here.
fn prefixed_string_end(chars: &[char], at: usize) -> Option<usize> {
    let prefix_end = (at..chars.len()).find(|at| !matches!(chars[*at], 'r' | 'b' | 'c'))?;
    let is_raw = chars[at..prefix_end].contains(&'r');
    let quote = (prefix_end..chars.len()).find(|at| chars[*at] != '#')?;
    let hashes = quote - prefix_end;
    if chars[quote] != '"' || prefix_end - at > 2 || (!is_raw && hashes > 0) {
        return None;
    }
    if !is_raw {
        return Some(string_end(chars, quote));
    }
    let closes = |at: &usize| {
        chars[*at] == '"' && (1..=hashes).all(|hash| chars.get(at + hash) == Some(&'#'))
    };
    Some((quote + 1..chars.len()).find(closes).map_or(chars.len(), |at| at + 1 + hashes))
}

/// What is left of a file without its tests.
pub struct WithoutTests {
    pub tokens: Vec<Token>,
    /// Lines that tests take.
    pub test_lines: usize,
    /// Modules that are only there for tests, and stand in files of their own.
    pub test_modules: Vec<String>,
}

/// Takes out every item marked `#[cfg(test)]`, alone or with what else must be.
pub fn without_tests(tokens: &[Token]) -> WithoutTests {
    const MARKS: [&[&str]; 2] = [
        &["#", "[", "cfg", "(", "test", ")", "]"],
        &["#", "[", "cfg", "(", "all", "(", "test", ","],
    ];
    let mut left = WithoutTests { tokens: Vec::new(), test_lines: 0, test_modules: Vec::new() };
    let mut at = 0;
    while at < tokens.len() {
        let has = |mark: &&[&str]| (at..).zip(*mark).all(|(at, text)| is(tokens, at, text));
        if !MARKS.iter().any(has) {
            left.tokens.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let end = item_end(tokens, at);
        let last = tokens[end - 1].line;
        left.test_lines += last - tokens[at].line + 1;
        let words: Vec<&str> = tokens[at..end].iter().map(|token| token.text.as_str()).collect();
        if let [.., "mod", name, ";"] = words.as_slice() {
            left.test_modules.push((*name).to_owned());
        }
        at = end;
    }
    left
}

fn is(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.text == text)
}

/// Behind the item that begins here with its other attributes: at the end of its braces, or at its semicolon.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while is(tokens, at, "#") {
        at = closing(tokens, at + 1);
    }
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            ";" => return at + 1,
            "{" => return closing(tokens, at),
            "(" | "[" => at = closing(tokens, at),
            _ => at += 1,
        }
    }
    at
}

/// Behind the bracket that closes the one here.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// A path as written, `use` groups taken apart, with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub segments: Vec<String>,
    pub line: usize,
    /// How many `mod name { … }` of its file it stands in.
    pub inner: usize,
}

/// Every path of at least two segments.
pub fn paths(tokens: &[Token]) -> Vec<Path> {
    let mut found = Vec::new();
    // Where the modules end that are open here.
    let mut ends: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        ends.retain(|end| at < *end);
        if is(tokens, at, "mod") && is(tokens, at + 2, "{") {
            ends.push(closing(tokens, at + 2));
        }
        let begins = is_word(&tokens[at].text) && is(tokens, at + 1, "::");
        let goes_on = at > 0 && is(tokens, at - 1, "::");
        if begins && !goes_on {
            let from = found.len();
            at = tree(tokens, at, &[], &mut found);
            found[from..].iter_mut().for_each(|path| path.inner = ends.len());
        } else {
            at += 1;
        }
    }
    found
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Reads a path or group that begins here behind `prefix`; returns where it ends.
fn tree(tokens: &[Token], start: usize, prefix: &[String], found: &mut Vec<Path>) -> usize {
    let mut segments = prefix.to_vec();
    let mut at = start;
    while at < tokens.len() {
        let text = tokens[at].text.as_str();
        if text == "{" && at > start {
            at += 1;
            while at < tokens.len() && !is(tokens, at, "}") {
                let is_part = is_word(&tokens[at].text) && !is(tokens, at, "as");
                at = if is_part { tree(tokens, at, &segments, found) } else { at + 1 };
                // `as name` renames and names nothing.
                if is(tokens, at, "as") {
                    at += 2;
                }
            }
            return at + 1;
        }
        if !is_word(text) && text != "*" {
            break;
        }
        if text != "self" || segments.is_empty() {
            segments.push(text.to_owned());
        }
        at += 1;
        if !is(tokens, at, "::") {
            break;
        }
        at += 1;
    }
    if segments.len() > 1 {
        found.push(Path { segments, line: tokens[start].line, inner: 0 });
    }
    at.max(start + 1)
}
