//! What the old table has and the new one lacks: indexes and triggers that would be gone from under clients once the new
//! table stands in the old one's place.
//!
//! Absent on purpose: constraints. Those of the new table are the author's, and verify shows that its rows keep to them.

use super::catalogue::{Index, IndexOrigin, Table, Trigger, quote, same_name};
use super::expression::{Word, index_parts, words};
use super::shape::Shape;

/// The statements that would make what is missing.
pub(super) fn missing(shape: &Shape, old: &Table, new: &Table) -> Vec<String> {
    let indexes = old.indexes.iter().filter_map(|index| missing_index(shape, index, old, new));
    let triggers = old.user_triggers().filter_map(|trigger| missing_trigger(trigger, old, new));
    indexes.chain(triggers).collect()
}

/// A part of an index under the new table's names; `None` where the mapping does not carry its column as it is.
fn carried(shape: &Shape, column: &str, new: &Table) -> Option<String> {
    let key = shape.keys.iter().find(|pair| same_name(&pair.old, column));
    let name = key.map_or(column, |pair| pair.new.as_str());
    let is_written = shape.writes.iter().any(|write| {
        same_name(&write.column, name)
            && super::expression::only_column(write.value.trim_matches(['(', ')', '\n']))
                .is_some_and(|source| same_name(&source, column))
    });
    let carried = key.is_some() || is_written;
    new.column(name).filter(|_| carried).map(|column| column.name.clone())
}

fn missing_index(shape: &Shape, index: &Index, old: &Table, new: &Table) -> Option<String> {
    if let Some(create) = &index.sql
        && (index.partial || index.columns.iter().any(|part| part.name.is_none()))
    {
        let wanted = normal(behind_on(create), &old.name, &new.name);
        let has = new.indexes.iter().any(|other| {
            let made = other.sql.as_deref().map(|sql| normal(behind_on(sql), &old.name, &new.name));
            made.is_some_and(|made| made == wanted) && other.unique == index.unique
        });
        let reads_carried = index_parts(create).iter().all(|part| {
            let reads = super::expression::reads(part, old.columns.iter().map(|c| c.name.as_str()));
            reads.iter().all(|column| carried(shape, column, new).is_some())
        });
        return (!has && reads_carried).then(|| {
            let unique = if index.unique { "UNIQUE " } else { "" };
            let behind = behind_on(create).trim_start();
            let behind = &behind[behind.find('(').unwrap_or(0)..];
            format!(
                "CREATE {unique}INDEX {} ON {} {behind}",
                new_name(&index.name, new),
                quote(&new.name)
            )
        });
    }
    let parts: Option<Vec<(String, String)>> = index
        .columns
        .iter()
        .map(|part| Some((carried(shape, part.name.as_deref()?, new)?, part.collation.clone())))
        .collect();
    // A column that the mapping changes or leaves out has its own indexes, or none.
    let parts = parts?;
    let is_the_rowid = |table: &Table| {
        parts.len() == 1 && table.rowid_alias().is_some_and(|alias| alias.name == parts[0].0)
    };
    let serves = |other: &Index| {
        let begins = other.columns.len() >= parts.len()
            && other.columns.iter().zip(&parts).all(|(there, (name, collation))| {
                there.name.as_deref().is_some_and(|there| same_name(there, name))
                    && same_name(&there.collation, collation)
            });
        let is_exact = other.columns.len() == parts.len();
        begins && !other.partial && (!index.unique || (other.unique && is_exact))
    };
    if is_the_rowid(new) || new.indexes.iter().any(serves) {
        return None;
    }
    let unique = if index.unique { "UNIQUE " } else { "" };
    let columns: Vec<String> = parts
        .iter()
        .map(|(name, collation)| format!("{} COLLATE {}", quote(name), quote(collation)))
        .collect();
    let name = match index.origin {
        IndexOrigin::CreateIndex => index.name.clone(),
        IndexOrigin::UniqueConstraint | IndexOrigin::PrimaryKey => format!("{}_key", old.name),
    };
    let name = new_name(&name, new);
    Some(format!("CREATE {unique}INDEX {name} ON {} ({})", quote(&new.name), columns.join(", ")))
}

fn missing_trigger(trigger: &Trigger, old: &Table, new: &Table) -> Option<String> {
    let wanted = normal(behind_name(trigger), &old.name, &new.name);
    let has =
        new.user_triggers().any(|other| normal(behind_name(other), &old.name, &new.name) == wanted);
    (!has).then(|| {
        let body = replaced(behind_name(trigger), &old.name, &new.name);
        format!("CREATE TRIGGER {}{body}", new_name(&trigger.name, new))
    })
}

/// A name for the new table's own index or trigger: those of one database are all different.
fn new_name(name: &str, new: &Table) -> String {
    quote(&format!("{}_{name}", new.name))
}

/// What stands behind ON in the statement that makes an index.
fn behind_on(create: &str) -> &str {
    let on = words(create).into_iter().find(|spanned| is_name(&spanned.word, "on"));
    on.map_or(create, |on| &create[on.end..])
}

/// What stands behind the name in the statement that makes a trigger.
fn behind_name(trigger: &Trigger) -> &str {
    let name =
        words(&trigger.sql).into_iter().find(|spanned| is_name(&spanned.word, &trigger.name));
    name.map_or(trigger.sql.as_str(), |name| &trigger.sql[name.end..])
}

fn is_name(word: &Word, wanted: &str) -> bool {
    matches!(word, Word::Name(name) | Word::Quoted(name) if same_name(name, wanted))
}

/// SQL with one name in place of another.
pub(super) fn replaced(sql: &str, from: &str, to: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut at = 0;
    for spanned in words(sql).iter().filter(|spanned| is_name(&spanned.word, from)) {
        out.push_str(&sql[at..spanned.start]);
        out.push_str(&quote(to));
        at = spanned.end;
    }
    out.push_str(&sql[at..]);
    out
}

/// SQL as words, with either table's name as the same word: what is equal then does the same on both.
pub(super) fn normal(sql: &str, old: &str, new: &str) -> Vec<String> {
    words(sql)
        .iter()
        .map(|spanned| match &spanned.word {
            word if is_name(word, old) || is_name(word, new) => "\0table".to_owned(),
            Word::Name(name) | Word::Quoted(name) => name.to_ascii_lowercase(),
            Word::Literal | Word::Mark(_) => sql[spanned.start..spanned.end].to_owned(),
        })
        .collect()
}
