//! How rows of one relation become rows of another, with the names that hold at this moment of a run.

use serde::{Deserialize, Serialize};

use super::action::RetireShape;
use super::name::{MappingName, TargetName};

/// A mapping between two relations. The expressions are in the source database's own language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Its name in the plan.
    pub name: MappingName,
    /// Where rows come from.
    pub from: Relation,
    /// Where rows go.
    pub into: Relation,
    /// Which columns are copied besides those listed.
    pub copy: CopyColumns,
    /// Column of `into` and the expression over the source row that gives its value, in plan order.
    pub columns: Vec<(String, String)>,
    /// Column of `from` and the expression over the target row that gives its value; only with `direction: both`.
    pub reverse: Vec<(String, String)>,
    /// Which side wins when one statement writes both.
    pub winner: Winner,
    /// Restricts the rows, as an expression over the source row.
    pub filter: Option<String>,
    /// What happens to rows that stood in `into` before.
    pub on_existing: OnExisting,
    /// What a deleted source row does to its copy.
    pub on_delete: OnDelete,
    /// What becomes of rows that the new side refuses.
    #[serde(default, skip_serializing_if = "Parking::is_none")]
    pub parking: Parking,
}

/// What becomes of rows that the new side refuses: they are parked with the reason, or fail whoever writes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parking {
    /// How many rows the engine may park; `None`: the first one fails the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_max: Option<u32>,
    /// Whether a client's write that can't be mirrored is parked, and the client never fails for it.
    #[serde(default)]
    pub writes: bool,
}

impl Parking {
    /// Whether nothing is parked.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A table, or what takes its place in a graph, with its identifying key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// The database it is in.
    pub target: TargetName,
    /// Its name, as written in the plan: may be qualified by a schema where the database has them. In a graph it is a label, or the
    /// type of relationships.
    pub table: String,
    /// The key columns or properties, in order; those of `from` and `into` correspond by position. A relationship between nodes
    /// that are mapped has none: it is known by its ends.
    pub key: Vec<String>,
    /// What its rows are.
    #[serde(default, skip_serializing_if = "RowKind::is_table")]
    pub kind: RowKind,
}

/// What the rows of a relation are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// Rows of a table.
    #[default]
    Table,
    /// Nodes of a label.
    Node,
    /// Relationships of a type between nodes of two labels.
    Relationship(Box<Ends>),
}

impl RowKind {
    /// Whether they are rows of a table.
    #[must_use]
    pub const fn is_table(&self) -> bool {
        matches!(self, Self::Table)
    }
}

/// Between what a relationship is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// The node that it leaves.
    pub start: End,
    /// The node that it comes to.
    pub end: End,
}

/// One end of a relationship.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The label of the node.
    pub node: String,
    /// The properties that the node is known by, each with the expression over the source row that gives its value. Where rows come
    /// from, the expression is the property's own name.
    pub key: Vec<(String, String)>,
}

/// Which columns a mapping carries beside those it lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyColumns {
    /// All columns that have the same name on both sides.
    All,
    /// Only the listed ones (and the key).
    Listed,
}

/// Which side of a two-way mapping wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Winner {
    /// The new shape.
    New,
    /// The old shape.
    Old,
}

/// What the copy does with a row of `into` that was there before dual-write began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExisting {
    /// It stays as it is.
    Keep,
    /// Its mapped columns are written over.
    Update,
}

/// What a deleted source row does to its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDelete {
    /// The copy is deleted too.
    Delete,
    /// The mapped columns of the copy become NULL.
    Nullify,
    /// The copy stays.
    Ignore,
}

impl Mapping {
    /// Whether both sides are the same table, so that only listed columns are written.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        !self.is_of_graph()
            && self.from.target == self.into.target
            && self.from.table == self.into.table
    }

    /// Whether it is about nodes or relationships of a graph, on either side.
    #[must_use]
    pub const fn is_of_graph(&self) -> bool {
        !self.from.kind.is_table() || !self.into.kind.is_table()
    }

    /// Whether both sides are in one database, so that rows never leave it.
    #[must_use]
    pub fn is_pushdown(&self) -> bool {
        self.from.target == self.into.target
    }

    /// The mapping under the names that hold after a `retire` of this shape.
    ///
    /// Expressions follow: a column's name in them is replaced wherever it stands as a word, a table's where a dot
    /// follows it.
    #[must_use]
    pub fn retired(&self, shape: &RetireShape) -> Self {
        let mut after = self.clone();
        match shape {
            RetireShape::Table { old_name, take_name } => {
                let vacated = std::mem::replace(&mut after.from.table, old_name.clone());
                let olds = [(vacated.clone(), old_name.clone())];
                after.rewrite_forward(|text| renamed(text, &olds, Names::Qualifiers));
                if *take_name {
                    let news = [(after.into.table.clone(), vacated.clone())];
                    after.rewrite_back(|text| renamed(text, &news, Names::Qualifiers));
                    after.into.table = vacated;
                }
            }
            RetireShape::Columns(columns) => {
                let aside = columns.iter().map(|it| (it.column.clone(), it.old_name.clone()));
                let mut names: Vec<(String, String)> = aside.collect();
                for (name, _) in &mut after.reverse {
                    rename(name, &names);
                }
                for taken in columns {
                    if let Some(name) = &taken.take_name {
                        names.push((name.clone(), taken.column.clone()));
                    }
                }
                let taken: Vec<(String, String)> = names.split_off(columns.len());
                for (name, _) in &mut after.columns {
                    rename(name, &taken);
                }
                if self.is_in_place() {
                    names.extend(taken);
                    after.rewrite_forward(|text| renamed(text, &names, Names::Columns));
                    after.rewrite_back(|text| renamed(text, &names, Names::Columns));
                } else {
                    after.rewrite_forward(|text| renamed(text, &names, Names::Columns));
                    after.rewrite_back(|text| renamed(text, &taken, Names::Columns));
                }
            }
        }
        after
    }

    fn rewrite_forward(&mut self, rewrite: impl Fn(&str) -> String) {
        for (_, expression) in &mut self.columns {
            *expression = rewrite(expression);
        }
        if let Some(filter) = &mut self.filter {
            *filter = rewrite(filter);
        }
    }

    fn rewrite_back(&mut self, rewrite: impl Fn(&str) -> String) {
        for (_, expression) in &mut self.reverse {
            *expression = rewrite(expression);
        }
    }
}

fn rename(name: &mut String, names: &[(String, String)]) {
    if let Some((_, new)) = names.iter().find(|(old, _)| old.eq_ignore_ascii_case(name)) {
        name.clone_from(new);
    }
}

/// Which words of an expression are names to replace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Those that no dot follows.
    Columns,
    /// Those that a dot follows.
    Qualifiers,
}

/// An expression with names replaced, all at once. Text in single quotes and comments stay as they are.
fn renamed(expression: &str, names: &[(String, String)], which: Names) -> String {
    let mut out = String::with_capacity(expression.len());
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
        let (length, name) = match first {
            '\'' => (closing(rest, '\''), None),
            '"' | '`' => {
                let length = closing(rest, first);
                let doubled = format!("{first}{first}");
                let name =
                    rest[1..length].trim_end_matches(first).replace(&doubled, &first.to_string());
                (length, Some(name))
            }
            '-' if rest.starts_with("--") => (rest.find('\n').unwrap_or(rest.len()), None),
            '/' if rest.starts_with("/*") => {
                (rest.find("*/").map_or(rest.len(), |at| at + 2), None)
            }
            c if is_word(c) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                (length, Some(rest[..length].to_owned()))
            }
            c => (c.len_utf8(), None),
        };
        let is_qualifier = rest[length..].trim_start().starts_with('.');
        let is_asked = is_qualifier == (which == Names::Qualifiers);
        let new = name.filter(|_| is_asked).and_then(|name| {
            names.iter().find(|(old, _)| old.eq_ignore_ascii_case(&name)).map(|(_, new)| new)
        });
        match new {
            Some(new) => {
                out.push('"');
                out.push_str(&new.replace('"', "\"\""));
                out.push('"');
            }
            None => out.push_str(&rest[..length]),
        }
        rest = &rest[length..];
    }
    out
}

/// The length of a quoted word at the beginning of `text`; a doubled quote does not end it.
fn closing(text: &str, quote: char) -> usize {
    let mut at = quote.len_utf8();
    while let Some(found) = text[at..].find(quote) {
        at += found + quote.len_utf8();
        if !text[at..].starts_with(quote) {
            return at;
        }
        at += quote.len_utf8();
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_at_once_and_only_where_they_are_names() {
        let names = [("a".to_owned(), "a_old".to_owned()), ("a_v2".to_owned(), "a".to_owned())];
        let cases = [
            ("lower(A) || a_v2", "lower(\"a_old\") || \"a\""),
            ("'a it''s a' || \"a\" -- a\n", "'a it''s a' || \"a_old\" -- a\n"),
            ("a.b + t.a + ab", "a.b + t.\"a_old\" + ab"),
            ("/* a */ `a` || \"say \"\"a\"", "/* a */ \"a_old\" || \"say \"\"a\""),
        ];
        for (text, expected) in cases {
            assert_eq!(renamed(text, &names, Names::Columns), expected);
        }
        assert_eq!(renamed("a.b + a", &names, Names::Qualifiers), "\"a_old\".b + a");
    }
}
