//! From bytes to a located tree. The only file that knows YAML crates.
//!
//! Two readers look at every document. A pass over the events of `saphyr` knows where each value stands, so it makes the tree
//! and refuses what must not be: duplicate and merge keys, tags, aliases that expand without bound, several documents. Then
//! `serde_yaml` reads the same text, and both must agree on every value: a value that readers of YAML read differently is a
//! finding, since the next tool may take it for the other.
//!
//! Invariants: bounded in bytes, depth and nodes, before anything is built; no recursion over the input's depth beyond
//! [`LEVELS_MAX`].

use std::collections::{HashMap, HashSet};

use saphyr::Scalar;
use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};
use serde_json::Value;

use crate::bounds::document::{FILE_BYTES_MAX, LEVELS_MAX, NODES_MAX};
use crate::diagnostic::known as codes;

use super::node::{At, Entry, Kind, Node, Span};
use super::reports::Reports;

/// A document: its tree, and its value as the second reader sees it.
#[derive(Debug)]
pub struct Read {
    /// The tree with places.
    pub root: Node,
    /// The value without places.
    pub value: Value,
}

/// Turns bytes into text, or says why not.
pub fn decode(bytes: Vec<u8>, reports: &mut Reports) -> Result<String, String> {
    let start = Span { line: 1, column: 1, length: 0 };
    if bytes.len() > FILE_BYTES_MAX {
        let mib = bytes.len().div_ceil(FILE_BYTES_MAX);
        reports
            .error(codes::TOO_LARGE, start, format!("the file has more than 1 MiB ({mib} MiB)"))
            .help("split the plan, or load rows by a query instead of listing them");
        return Err(String::new());
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let before = &error.as_bytes()[..valid];
        let line = before.split(|byte| *byte == b'\n').count();
        let column = String::from_utf8_lossy(before.rsplit(|b| *b == b'\n').next().unwrap_or(&[]))
            .chars()
            .count();
        let span = Span { line: number(line), column: number(column + 1), length: 1 };
        reports
            .error(codes::NOT_UTF8, span, format!("byte {valid} is no UTF-8"))
            .help("save the file as UTF-8");
        text
    })
}

/// Reads a document. None if nothing useful can be made of it; the reports say why.
pub fn read(text: &str, reports: &mut Reports) -> Option<Read> {
    let found = reports.error_count();
    let root = Builder::new(text, reports).build()?;
    if reports.error_count() > found {
        // The second reader would only repeat in fewer words what was found. The tree is still worth checking.
        let value = root.to_json();
        return Some(Read { root, value });
    }
    let value: Value = match serde_yaml::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            let span = error.location().map_or(root.span, |place| Span {
                line: number(place.line()),
                column: number(place.column()),
                length: 1,
            });
            reports
                .error(codes::AMBIGUOUS, span, "readers of YAML disagree about this")
                .help(format!("one of them says: {error}; quote it or write it plainly"));
            return None;
        }
    };
    if let Some(node) = root.first_difference(&value) {
        reports
            .error(codes::AMBIGUOUS, node.span, "readers of YAML read this value differently")
            .help("put it in quotes if it is text; write numbers without leading zeros");
    }
    Some(Read { root, value })
}

/// A count as the tree keeps it; documents are bounded far below the limit.
fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A collection that isn't closed yet.
enum Open {
    List {
        items: Vec<Node>,
        is_flow: bool,
        anchor: usize,
        span: Span,
        nodes_before: usize,
    },
    Map {
        entries: Vec<Entry>,
        key: Option<Key>,
        is_flow: bool,
        anchor: usize,
        span: Span,
        nodes_before: usize,
    },
}

/// A key that waits for its value.
struct Key {
    text: At<String>,
    is_usable: bool,
}

/// Builds the tree from events, with an explicit stack.
struct Builder<'a, 'r> {
    text: &'a str,
    /// Byte offset of each character; empty when every character is one byte.
    offsets: Vec<usize>,
    reports: &'r mut Reports,
    stack: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
}

impl<'a, 'r> Builder<'a, 'r> {
    fn new(text: &'a str, reports: &'r mut Reports) -> Self {
        let offsets = if text.is_ascii() {
            Vec::new()
        } else {
            text.char_indices().map(|(at, _)| at).collect()
        };
        let (stack, anchors) = (Vec::new(), HashMap::new());
        Self { text, offsets, reports, stack, anchors, nodes: 0, root: None }
    }

    fn build(mut self) -> Option<Node> {
        let text = self.text;
        let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str(text);
        let mut documents = 0;
        while let Some(event) = parser.next_event() {
            let (event, place) = match event {
                Ok(event) => event,
                Err(error) => {
                    self.syntax_error(&error);
                    return None;
                }
            };
            let span = Self::span(&place);
            if matches!(event, Event::DocumentStart(_)) {
                documents += 1;
                if documents > 1 {
                    self.reports
                        .error(codes::SEVERAL_DOCUMENTS, span, "a second document begins here")
                        .help("put each plan into a file of its own");
                    return self.root;
                }
            }
            self.take(event, span, &place)?;
        }
        let is_empty = self.root.as_ref().is_none_or(|root| matches!(root.kind, Kind::Null));
        if is_empty {
            let start = Span { line: 1, column: 1, length: 0 };
            self.reports
                .error(codes::EMPTY, start, "the file holds no document")
                .help("`phasegate explain P104` shows the least that a plan holds");
            return None;
        }
        self.root
    }

    fn syntax_error(&mut self, error: &saphyr_parser::ScanError) {
        let mark = error.marker();
        let span = Span { line: number(mark.line()), column: number(mark.col() + 1), length: 1 };
        let cut = match self.stack.last() {
            Some(Open::Map { is_flow: true, entries, .. }) => {
                entries.last().map(|entry| (Some(&entry.key.value), &entry.value))
            }
            Some(Open::List { is_flow: true, items, .. }) => items.last().map(|item| (None, item)),
            _ => None,
        };
        if let Some((key, Node { kind: Kind::Text { text, .. }, .. })) = cut
            && is_cut(text)
        {
            let begun = key.map_or(String::new(), |key| format!("{key}: ")) + text + ", …";
            self.cut(span, &begun);
            return;
        }
        if let Some(span) = self.tab_in_indent(span.line) {
            self.reports
                .error(codes::SYNTAX, span, "this is not YAML: a tab stands in the indent")
                .help("indent with spaces; most editors can be told to");
            return;
        }
        self.reports
            .error(codes::SYNTAX, span, format!("this is not YAML: {}", error.info()))
            .help("look at the indent, the quotes and the colons of this line and the one before");
    }

    /// The tab that a reader stumbled over. It may say so at the value before it, on the line above.
    fn tab_in_indent(&self, line: u32) -> Option<Span> {
        (line..).zip(self.text.lines().skip(line.saturating_sub(1) as usize)).take(2).find_map(
            |(line, text)| {
                let indent = text.chars().take_while(|c| matches!(c, ' ' | '\t'));
                let at = indent.clone().position(|c| c == '\t')?;
                Some(Span { line, column: number(at + 1), length: 1 })
            },
        )
    }

    /// One event. None when reading can't go on.
    fn take(&mut self, event: Event<'_>, span: Span, place: &saphyr_parser::Span) -> Option<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), span);
                self.scalar(&text, style, anchor, span)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), span);
                let (items, is_flow) = (Vec::new(), self.begins_with('[', place));
                let nodes_before = self.nodes;
                self.open(Open::List { items, is_flow, anchor, span, nodes_before }, span)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), span);
                let (entries, key, is_flow) = (Vec::new(), None, self.begins_with('{', place));
                let nodes_before = self.nodes;
                self.open(Open::Map { entries, key, is_flow, anchor, span, nodes_before }, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, span),
            _ => Some(()),
        }
    }

    fn refuse_tag(&mut self, tag: Option<&saphyr_parser::Tag>, span: Span) {
        if let Some(tag) = tag {
            self.reports
                .error(codes::TAG, span, format!("the tag `{tag}` is not allowed"))
                .help("remove the tag; quote a value that is to be text");
        }
    }

    fn open(&mut self, open: Open, span: Span) -> Option<()> {
        if self.stack.len() >= LEVELS_MAX {
            self.reports
                .error(codes::TOO_DEEP, span, format!("nested more than {LEVELS_MAX} levels"))
                .help("no plan needs that; look for brackets that aren't closed");
            return None;
        }
        self.stack.push(open);
        Some(())
    }

    fn close(&mut self) -> Option<()> {
        match self.stack.pop()? {
            Open::List { mut items, is_flow, anchor, span, nodes_before } => {
                if is_flow {
                    self.join_cut_items(&mut items);
                }
                let node = Node { span: Span { length: 1, ..span }, kind: Kind::List(items) };
                self.put(node, anchor, nodes_before)
            }
            Open::Map { mut entries, is_flow, anchor, span, nodes_before, .. } => {
                if is_flow {
                    self.join_cut_values(&mut entries);
                }
                self.drop_duplicates(&mut entries);
                let span = match entries.first() {
                    Some(first) => first.key.span,
                    None => Span { length: 1, ..span },
                };
                self.put(Node { span, kind: Kind::Map(entries) }, anchor, nodes_before)
            }
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, span: Span) -> Option<()> {
        // The place of a block scalar is its first line that isn't blank; the blank ones before it are part of the text.
        let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
        let blank =
            if is_block { text.bytes().take_while(|byte| *byte == b'\n').count() } else { 0 };
        let first_line = span.line.saturating_sub(number(blank));
        if let Some(Open::Map { key: key @ None, .. }) = self.stack.last_mut() {
            let is_usable = !(style == ScalarStyle::Plain && text == "<<");
            *key = Some(Key { text: At { value: text.to_owned(), span }, is_usable });
            if !is_usable {
                self.reports
                    .error(codes::MERGE_KEY, span, "merge keys (`<<`) are not allowed")
                    .help("write the keys out where they are needed");
            }
            return self.count(1, span);
        }
        let plain = || Kind::Text { text: text.to_owned(), first_line };
        let kind = match style {
            ScalarStyle::Plain if text.is_empty() => Kind::Null,
            ScalarStyle::Plain => match Scalar::parse_from_cow(text.into()) {
                Scalar::Null => Kind::Null,
                Scalar::Boolean(value) => Kind::Bool(value),
                Scalar::Integer(value) => Kind::Integer(value),
                Scalar::FloatingPoint(value) if value.is_finite() => Kind::Real(*value),
                _ => plain(),
            },
            _ => plain(),
        };
        let nodes_before = self.nodes;
        self.put(Node { span, kind }, anchor, nodes_before)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Option<()> {
        let Some((node, nodes)) = self.anchors.get(&anchor) else {
            self.reports
                .error(codes::ALIAS, span, "this alias stands inside the value that it names")
                .help("write the value out");
            return None;
        };
        let (mut node, nodes) = (node.clone(), *nodes);
        node.span = span;
        self.count(nodes, span)?;
        self.put(node, 0, self.nodes)
    }

    /// Counts values, so that neither a large file nor a small one full of aliases takes more memory than we allow.
    fn count(&mut self, more: usize, span: Span) -> Option<()> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes <= NODES_MAX {
            return Some(());
        }
        self.reports
            .error(codes::TOO_DEEP, span, format!("the document has more than {NODES_MAX} values"))
            .help("aliases (`*name`) repeat whole values: write fewer of them");
        None
    }

    /// Puts a finished value where it belongs.
    fn put(&mut self, node: Node, anchor: usize, nodes_before: usize) -> Option<()> {
        self.count(1, node.span)?;
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - nodes_before));
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { key: key @ None, .. }) => {
                let text = At { value: String::new(), span: node.span };
                *key = Some(Key { text, is_usable: false });
                self.reports
                    .error(codes::WRONG_TYPE, node.span, format!("{} can't be a key", node.what()))
                    .help("keys are text");
            }
            Some(Open::Map { entries, key, .. }) => {
                if let Some(Key { text: key, is_usable: true }) = key.take() {
                    entries.push(Entry { key, value: node });
                }
            }
        }
        Some(())
    }

    fn drop_duplicates(&mut self, entries: &mut Vec<Entry>) {
        let mut seen: HashSet<&str> = HashSet::with_capacity(entries.len());
        let keep: Vec<bool> = entries.iter().map(|e| seen.insert(&e.key.value)).collect();
        if keep.iter().all(|keep| *keep) {
            return;
        }
        for (entry, keep) in entries.iter().zip(&keep) {
            if *keep {
                continue;
            }
            let key = &entry.key;
            let message = format!("the key `{}` is written twice", key.value);
            let added = self.reports.error(codes::DUPLICATE_KEY, key.span, message);
            let added = added.help("remove one of the two, or rename it");
            if let Some(first) = entries.iter().find(|other| other.key.value == key.value) {
                added.related(first.key.span, "first written here");
            }
        }
        let mut keep = keep.into_iter();
        entries.retain(|_| keep.next().unwrap_or(true));
    }

    /// `{ a: f(x, y) }` reads as `a: f(x` and a key `y)` without a value: says so once, and takes the pieces together.
    fn join_cut_values(&mut self, entries: &mut Vec<Entry>) {
        let mut joined: Vec<Entry> = Vec::with_capacity(entries.len());
        for entry in entries.drain(..) {
            let is_tail = matches!(entry.value.kind, Kind::Null);
            if let Some(before) = joined.last_mut().filter(|_| is_tail)
                && let Kind::Text { text, .. } = &mut before.value.kind
                && is_cut(text)
            {
                text.push_str(", ");
                text.push_str(&entry.key.value);
                if !is_cut(text) {
                    let (span, key, text) = (entry.key.span, &before.key.value, text.clone());
                    self.cut(span, &format!("{key}: {text}"));
                }
                continue;
            }
            joined.push(entry);
        }
        *entries = joined;
    }

    fn join_cut_items(&mut self, items: &mut Vec<Node>) {
        let mut joined: Vec<Node> = Vec::with_capacity(items.len());
        for item in items.drain(..) {
            if let Kind::Text { text: tail, .. } = &item.kind
                && let Some(Node { kind: Kind::Text { text, .. }, .. }) = joined.last_mut()
                && is_cut(text)
            {
                text.push_str(", ");
                text.push_str(tail);
                if !is_cut(text) {
                    let text = text.clone();
                    self.cut(item.span, &format!("- {text}"));
                }
                continue;
            }
            joined.push(item);
        }
        *items = joined;
    }

    fn cut(&mut self, span: Span, whole: &str) {
        self.reports
            .error(codes::CUT_EXPRESSION, span, "the comma before this ended the expression")
            .help(format!("inside {{ }} and [ ] a comma ends a value; write it on a line of its own:\n  {whole}"));
    }

    fn span(place: &saphyr_parser::Span) -> Span {
        let (start, end) = (place.start, place.end);
        let length = if start.line() == end.line() { end.index() - start.index() } else { 0 };
        Span { line: number(start.line()), column: number(start.col() + 1), length: number(length) }
    }

    /// Whether a collection begins with this character: tells flow style from block style.
    fn begins_with(&self, character: char, place: &saphyr_parser::Span) -> bool {
        let index = place.start.index();
        let offset = if self.offsets.is_empty() { Some(&index) } else { self.offsets.get(index) };
        offset.and_then(|at| self.text.get(*at..)).is_some_and(|rest| rest.starts_with(character))
    }
}

/// Whether brackets are opened that aren't closed.
fn is_cut(text: &str) -> bool {
    let opened = text.matches(['(', '[']).count();
    let closed = text.matches([')', ']']).count();
    opened > closed
}

/// The value of a document that is known to be good.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) fn value_for_tests(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}
