//! Reading typed values off nodes: every accessor reports what is wrong and gives `None`, so that a reader goes on and finds
//! everything at once.

use crate::bounds::document::{DURATION_MAX, NAME_BYTES_MAX};
use crate::bounds::message::WRITTEN_CHARS_MAX;
use crate::diagnostic::{SECRET_NAMES, known as codes};

use super::node::{At, Entry, Kind, Node, Span};
use super::reports::Reports;
use super::suggest::{advice, nearest};

/// A secret under a key of its own: there is no such key, and its value must not be shown.
fn refuse_secret(entry: &Entry, reports: &mut Reports) {
    let is_reference =
        matches!(&entry.value.kind, Kind::Text { text, .. } if text.starts_with("${"));
    if nearest(&entry.key.value, &SECRET_NAMES).is_some() && !is_reference {
        let message = format!("a secret stands in plain text under `{}`", entry.key.value);
        reports
            .error(codes::LITERAL_SECRET, entry.value.span, message)
            .help("put `${env:NAME}` or `${file:path}` into the `url`; and change the secret, since it was written down");
    }
}

/// A map whose keys have been checked against those it may have.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// Where the map begins.
    pub span: Span,
    what: &'static str,
    known: &'static [&'static str],
    entries: &'a [Entry],
}

impl<'a> Fields<'a> {
    /// Opens a map, reporting keys that it may not have. `what` completes "in …".
    pub fn open(
        node: &'a Node,
        what: &'static str,
        known: &'static [&'static str],
        reports: &mut Reports,
    ) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else {
            reports
                .error(
                    codes::WRONG_TYPE,
                    node.span,
                    format!("{what} is a map, not {}", node.what()),
                )
                .help(format!("write it with its keys: {}", known.join(", ")));
            return None;
        };
        for entry in entries {
            let key = entry.key.value.as_str();
            if !known.contains(&key) {
                let message = format!("`{key}` is not a key of {what}");
                reports
                    .error(codes::UNKNOWN_KEY, entry.key.span, message)
                    .help(advice(key, known.iter().copied()));
                refuse_secret(entry, reports);
            }
        }
        Some(Self { span: node.span, what, known, entries })
    }

    /// The node of a key, if it is there.
    pub fn get(&self, key: &str) -> Option<&'a Node> {
        debug_assert!(self.known.contains(&key), "{key} is read and not known in {}", self.what);
        self.entries.iter().find(|entry| entry.key.value == key).map(|entry| &entry.value)
    }

    /// The place of a key, if it is there; that of the map otherwise.
    pub fn key_span(&self, key: &str) -> Span {
        self.entries.iter().find(|e| e.key.value == key).map_or(self.span, |e| e.key.span)
    }

    /// The node of a key that must be there.
    pub fn required(&self, key: &str, reports: &mut Reports) -> Option<&'a Node> {
        let node = self.get(key);
        if node.is_none() {
            let message = format!("{} lacks `{key}`", self.what);
            reports.error(codes::MISSING_KEY, self.span, message).help(format!("add `{key}: …`"));
        }
        node
    }

    /// Text under a key that may be missing.
    pub fn text(&self, key: &str, reports: &mut Reports) -> Option<At<String>> {
        text(self.get(key)?, &format!("`{key}`"), reports)
    }

    /// Text under a key that must be there.
    pub fn required_text(&self, key: &str, reports: &mut Reports) -> Option<At<String>> {
        text(self.required(key, reports)?, &format!("`{key}`"), reports)
    }

    /// A name under a key that must be there.
    pub fn required_name(&self, key: &str, reports: &mut Reports) -> Option<At<String>> {
        self.required_text(key, reports)
    }

    /// A duration in milliseconds under a key that may be missing.
    pub fn duration(&self, key: &str, reports: &mut Reports) -> Option<At<u64>> {
        duration(self.get(key)?, key, reports)
    }

    /// A whole number under a key that may be missing.
    pub fn count(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<u32>,
        reports: &mut Reports,
    ) -> Option<At<u32>> {
        count(self.get(key)?, key, range, reports)
    }

    /// True or false under a key that may be missing.
    pub fn boolean(&self, key: &str, reports: &mut Reports) -> Option<At<bool>> {
        let node = self.get(key)?;
        match node.kind {
            Kind::Bool(value) => Some(At { value, span: node.span }),
            _ => {
                let message = format!("`{key}` is true or false, not {}", node.what());
                reports
                    .error(codes::WRONG_TYPE, node.span, message)
                    .help("write `true` or `false`");
                None
            }
        }
    }

    /// One of some words under a key that may be missing.
    pub fn word<T: Copy>(
        &self,
        key: &str,
        words: &[(&str, T)],
        reports: &mut Reports,
    ) -> Option<At<T>> {
        word(self.get(key)?, key, words, reports)
    }
}

/// One of some words.
pub fn word<T: Copy>(
    node: &Node,
    key: &str,
    words: &[(&str, T)],
    reports: &mut Reports,
) -> Option<At<T>> {
    let typed = text(node, &format!("`{key}`"), reports)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == typed.value) {
        return Some(At { value: *value, span: typed.span });
    }
    let listed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let message = format!("`{key}` can't be `{}`: it is {}", shown(&typed.value), either(&listed));
    let help = match nearest(&typed.value, &listed) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write {}", either(&listed)),
    };
    reports.error(codes::UNKNOWN_WORD, typed.span, message).help(help);
    None
}

/// `a, b or c`.
fn either(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// At most the first characters of what somebody wrote, on one line, for a message.
pub fn shown(text: &str) -> String {
    let mut short: String = text
        .chars()
        .take(WRITTEN_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(WRITTEN_CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

/// Text that isn't empty.
pub fn text(node: &Node, what: &str, reports: &mut Reports) -> Option<At<String>> {
    match &node.kind {
        Kind::Text { text, .. } if !text.trim().is_empty() => {
            Some(At { value: text.clone(), span: node.span })
        }
        Kind::Text { .. } => {
            reports
                .error(codes::WRONG_TYPE, node.span, format!("{what} is empty"))
                .help("write what is meant, or remove the key");
            None
        }
        Kind::Null => {
            reports
                .error(codes::WRONG_TYPE, node.span, format!("{what} has no value"))
                .help("write what is meant, or remove the key");
            None
        }
        _ => {
            let message = format!("{what} is text, not {}", node.what());
            reports
                .error(codes::WRONG_TYPE, node.span, message)
                .help("put it in quotes if it is meant as text");
            None
        }
    }
}

/// An expression: text, or a bare constant.
pub fn expression(node: &Node, what: &str, reports: &mut Reports) -> Option<At<String>> {
    match &node.kind {
        Kind::Bool(_) | Kind::Integer(_) | Kind::Real(_) => {
            Some(At { value: node.to_json().to_string(), span: node.span })
        }
        _ => text(node, what, reports),
    }
}

/// A duration in milliseconds.
pub fn duration(node: &Node, key: &str, reports: &mut Reports) -> Option<At<u64>> {
    let written = match &node.kind {
        Kind::Text { text, .. } => text.clone(),
        Kind::Integer(0) => return Some(At { value: 0, span: node.span }),
        _ => {
            let message = format!("`{key}` is a duration with its unit, not {}", node.what());
            let example = if let Kind::Integer(n) = node.kind { n.to_string() } else { "5".into() };
            reports
                .error(codes::BAD_DURATION, node.span, message)
                .help(format!("write {example}s, {example}m or {example}h"));
            return None;
        }
    };
    let parsed = humantime::parse_duration(&written);
    let ms = parsed
        .as_ref()
        .ok()
        .filter(|d| **d <= DURATION_MAX)
        .and_then(|d| u64::try_from(d.as_millis()).ok());
    match ms {
        Some(value) if value > 0 || parsed.is_ok_and(|d| d.is_zero()) => {
            Some(At { value, span: node.span })
        }
        _ => {
            let message = format!("`{}` is not a duration from 1ms to 10 years", shown(&written));
            reports
                .error(codes::BAD_DURATION, node.span, message)
                .help("durations look like 100ms, 5s, 10m, 1h, 3days");
            None
        }
    }
}

/// A whole number in a range.
pub fn count(
    node: &Node,
    key: &str,
    range: std::ops::RangeInclusive<u32>,
    reports: &mut Reports,
) -> Option<At<u32>> {
    let Kind::Integer(written) = node.kind else {
        let message = format!("`{key}` is a whole number, not {}", node.what());
        reports.error(codes::WRONG_TYPE, node.span, message).help("write it in digits");
        return None;
    };
    match u32::try_from(written).ok().filter(|value| range.contains(value)) {
        Some(value) => Some(At { value, span: node.span }),
        None => {
            let (least, most) = (range.start(), range.end());
            let message = format!("`{key}` is from {least} to {most}, not {written}");
            reports
                .error(codes::OUT_OF_RANGE, node.span, message)
                .help("write a number in that range");
            None
        }
    }
}

/// A finite number.
pub fn real(node: &Node, key: &str, reports: &mut Reports) -> Option<f64> {
    match node.kind {
        Kind::Real(value) => Some(value),
        // Counts that people write are far below 2^53, and a bound that is off in the 16th digit bounds the same.
        #[allow(clippy::cast_precision_loss)]
        Kind::Integer(value) => Some(value as f64),
        _ => {
            let message = format!("`{key}` is a number, not {}", node.what());
            reports.error(codes::WRONG_TYPE, node.span, message).help("write it in digits");
            None
        }
    }
}

/// The items of a list.
pub fn list<'a>(node: &'a Node, what: &str, reports: &mut Reports) -> Option<&'a [Node]> {
    match &node.kind {
        Kind::List(items) => Some(items),
        _ => {
            let message = format!("{what} is a list, not {}", node.what());
            reports
                .error(codes::WRONG_TYPE, node.span, message)
                .help("write `[a, b]`, or one item per line after `- `");
            None
        }
    }
}

/// A list of texts.
pub fn texts(node: &Node, what: &str, reports: &mut Reports) -> Option<Vec<At<String>>> {
    let items = list(node, what, reports)?;
    Some(
        items
            .iter()
            .filter_map(|item| text(item, &format!("an item of {what}"), reports))
            .collect(),
    )
}

/// The entries of a map with free keys.
pub fn entries<'a>(node: &'a Node, what: &str, reports: &mut Reports) -> Option<&'a [Entry]> {
    match &node.kind {
        Kind::Map(entries) => Some(entries),
        _ => {
            let message = format!("{what} is a map, not {}", node.what());
            reports
                .error(codes::WRONG_TYPE, node.span, message)
                .help("write `name: …` on lines of their own");
            None
        }
    }
}

/// Which characters a name may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// Plans and steps: a-z, 0-9 and hyphens.
    Hyphens,
    /// Targets, mappings, groups, environments and captured values: underscores and capitals as well.
    Words,
}

/// Reports a name that can't be used.
pub fn check_name(name: &At<String>, what: &str, alphabet: Alphabet, reports: &mut Reports) {
    let text = name.value.as_str();
    let fits = |c: char| match alphabet {
        Alphabet::Hyphens => c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-',
        Alphabet::Words => c.is_ascii_alphanumeric() || c == '-' || c == '_',
    };
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && text.chars().all(fits) && text.len() <= NAME_BYTES_MAX {
        return;
    }
    let letters = match alphabet {
        Alphabet::Hyphens => "a-z, 0-9 and hyphens",
        Alphabet::Words => "letters, digits, hyphens and underscores",
    };
    let message = format!("`{}` can't be the name of {what}", shown(text));
    let mut usable: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(NAME_BYTES_MAX)
        .collect();
    usable = usable.trim_matches('-').to_owned();
    let example = if usable.is_empty() { String::new() } else { format!(", such as `{usable}`") };
    reports.error(codes::BAD_NAME, name.span, message).help(format!(
        "use {letters}, beginning with a letter or digit, at most {NAME_BYTES_MAX} bytes{example}"
    ));
}
