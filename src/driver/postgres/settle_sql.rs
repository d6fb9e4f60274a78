//! The statements that put noted keys right.
//!
//! Keys are bound as one list of texts for each column, so that a statement is about as many of them as its caller says.
//! Absent on purpose: which keys those are, and what happens when the server refuses, which is `settle`'s.

use super::catalogue::quote;
use super::planted::Fault;
use super::shape::{KeyPair, Shape};
use super::sync_sql::{Side, cast, removal};
use crate::run::{Direction, OnDelete};

/// How copies that are there become as their sources say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Each where it is.
    Written,
    /// All of them are taken out and put in again by one statement, with what only the new side has of them: values that must be
    /// unique can go from row to row, which the server refuses row by row.
    Traded,
}

/// Takes the first notes behind a place in their order: each with that place, its event, its key and where that came from.
pub(super) fn take_notes(shape: &Shape, touched: &str, notes_max: u32) -> String {
    let texts = |columns: Vec<String>| -> String {
        let text = |column: &String| format!("{column}::text");
        columns.iter().map(text).collect::<Vec<_>>().join(", ")
    };
    format!(
        "DELETE FROM {touched} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {touched} WHERE at > $1 ORDER BY at LIMIT {notes_max})) \
         RETURNING at, event, {}, {}",
        texts(shape.mark_columns()),
        texts(shape.origin_columns()),
    )
}

/// What makes a second copy of a row under its new key, with all that the new side has of it; the bound texts are as those of
/// [`follow`].
pub(super) fn double(shape: &Shape) -> String {
    let (table, names) = (shape.new.sql(), shape.bare_key(Side::New));
    let typed = |at: usize| format!("${}::text::{}", at + 1, shape.keys[at % names.len()].type_sql);
    let columns = || shape.new.columns.iter().filter(|column| !column.is_generated);
    let value = |name: String| match names.iter().position(|key| *key == name) {
        Some(at) => typed(at),
        None => format!("phasegate_t.{name}"),
    };
    let is_it: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(at, name)| format!("phasegate_t.{name} = {}", typed(names.len() + at)))
        .collect();
    format!(
        "INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {table} AS phasegate_t WHERE {} ON CONFLICT ({}) DO NOTHING",
        columns().map(|column| quote(&column.name)).collect::<Vec<_>>().join(", "),
        columns().map(|column| value(quote(&column.name))).collect::<Vec<_>>().join(", "),
        is_it.join(" AND "),
        names.join(", "),
    )
}

/// Foreign keys that lead to the new table (`$1`) and do something to what refers to a row when that goes: their tables and
/// columns, and the columns that they refer to.
pub(super) const ACTING: &str = "SELECT k.conrelid::regclass::text, \
     ARRAY(SELECT quote_ident(a.attname) FROM unnest(k.conkey) WITH ORDINALITY AS c (n, at) \
       JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.n ORDER BY c.at), \
     ARRAY(SELECT quote_ident(a.attname) FROM unnest(k.confkey) WITH ORDINALITY AS c (n, at) \
       JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = c.n ORDER BY c.at) \
     FROM pg_constraint k WHERE k.contype = 'f' AND k.confdeltype <> 'a' AND k.confdeltype <> 'r' AND k.confrelid IN \
     (SELECT $1::bigint::oid UNION ALL SELECT relid FROM pg_partition_tree($1::bigint::oid::regclass))";

/// Whether rows of a table refer to the copy of a key, which is bound.
pub(super) fn is_referred_to(
    shape: &Shape,
    table: &str,
    (from, to): (&[String], &[String]),
) -> String {
    let names = shape.bare_key(Side::New);
    let is_it: Vec<String> = names
        .iter()
        .zip(&shape.keys)
        .enumerate()
        .map(|(at, (name, pair))| {
            format!("phasegate_t.{name} = ${}::text::{}", at + 1, pair.type_sql)
        })
        .collect();
    let refers: Vec<String> = from
        .iter()
        .zip(to)
        .map(|(from, to)| format!("phasegate_r.{from} = phasegate_t.{to}"))
        .collect();
    format!(
        "SELECT EXISTS (SELECT 1 FROM {} AS phasegate_t JOIN {table} AS phasegate_r ON {} WHERE {})",
        shape.new.sql(),
        refers.join(" AND "),
        is_it.join(" AND "),
    )
}

/// Whether there is a copy of the bound key.
pub(super) fn has_copy(shape: &Shape) -> String {
    let pairs = shape.bare_key(Side::New).into_iter().zip(&shape.keys).enumerate();
    let is_it: Vec<String> = pairs
        .map(|(at, (name, pair))| format!("{name} = ${}::text::{}", at + 1, pair.type_sql))
        .collect();
    format!("SELECT EXISTS (SELECT 1 FROM {} WHERE {})", shape.new.sql(), is_it.join(" AND "))
}

/// Takes the notes of the bound keys away.
pub(super) fn forget_notes(shape: &Shape, touched: &str) -> String {
    let marks = shape.mark_columns();
    let noted: Vec<String> = marks.iter().map(|mark| format!("phasegate_s.{mark}")).collect();
    format!(
        "DELETE FROM {touched} WHERE ({}) IN (SELECT {} FROM {})",
        marks.join(", "),
        noted.join(", "),
        keys(shape),
    )
}

/// Puts a note back at its place: `$1` and `$2` are that and its event, and the others its key and where that came from.
pub(super) fn note_again(shape: &Shape, touched: &str) -> String {
    let columns = [shape.mark_columns(), shape.origin_columns()].concat();
    let types = shape.keys.iter().chain(&shape.keys);
    let values: Vec<String> = types
        .enumerate()
        .map(|(at, pair)| format!("${}::text::{}", at + 3, pair.type_sql))
        .collect();
    format!(
        "INSERT INTO {touched} (at, event, {}) VALUES ($1, $2, {})",
        columns.join(", "),
        values.join(", "),
    )
}

/// Whether a key that is noted is not right: for whoever sees to it that nobody writes meanwhile.
pub(super) fn is_any_wrong(shape: &Shape, direction: Direction, touched: &str) -> String {
    let marks = shape.mark_columns();
    let list = marks.join(", ");
    let side = |side: Side, items: &str| {
        let key = shape.named_key(side);
        let is_it: Vec<String> = key
            .iter()
            .zip(&marks)
            .map(|(name, mark)| format!("{name} = phasegate_s.{mark}"))
            .collect();
        let filter = shape.and_filter(side);
        format!("SELECT {items} FROM {} WHERE {}{filter}", shape.named(side), is_it.join(" AND "))
    };
    let left = match shape.on_delete {
        OnDelete::Delete => "phasegate_there IS NULL".to_owned(),
        OnDelete::Nullify => {
            let of_key = shape.bare_key(Side::New);
            let written = shape.writes.iter().enumerate();
            let beside = written.filter(|(_, write)| !of_key.contains(&quote(&write.column)));
            let values: Vec<String> = beside.map(|(at, _)| format!("phasegate_n{at}")).collect();
            if values.is_empty() {
                "true".to_owned()
            } else {
                format!("num_nonnulls({}) = 0", values.join(", "))
            }
        }
        OnDelete::Ignore => "true".to_owned(),
    };
    format!(
        "SELECT EXISTS (SELECT 1 FROM (SELECT DISTINCT {list} FROM {touched}) AS phasegate_s \
         LEFT JOIN LATERAL ({} LIMIT 1) AS phasegate_f ON true LEFT JOIN LATERAL ({} LIMIT 1) AS phasegate_o ON true \
         WHERE CASE WHEN phasegate_here IS NULL THEN {left} ELSE phasegate_there IS NOT NULL AND {} END IS NOT TRUE)",
        side(Side::Old, &shape.old_list(direction)),
        side(Side::New, &shape.new_list(direction)),
        shape.is_right(direction),
    )
}

/// Whether of a key an event (`$2`) is noted on one side of a place in the order of notes (`$1`, and `side` of it).
pub(super) fn is_noted_still(shape: &Shape, touched: &str, side: char) -> String {
    let pairs = shape.mark_columns().into_iter().zip(&shape.keys).enumerate();
    let is_it: Vec<String> = pairs
        .map(|(at, (mark, pair))| format!("{mark} = ${}::text::{}", at + 3, pair.type_sql))
        .collect();
    format!(
        "SELECT EXISTS (SELECT 1 FROM {touched} WHERE at {side} $1 AND event = $2 AND {})",
        is_it.join(" AND "),
    )
}

/// Whether the server would let a statement of ours give a copy another key: it writes an identity that is always generated by
/// itself alone.
pub(super) fn can_move(shape: &Shape) -> bool {
    let is_drawn = |pair: &KeyPair| {
        shape.new.column(&pair.new).is_some_and(|column| column.identity == Some('a'))
    };
    !shape.keys.iter().any(is_drawn)
}

/// What gives the copy of a row its new key where nobody has it, and what makes way for it where it is there; the bound texts are
/// that key, and then the one that it had.
pub(super) fn follow(shape: &Shape) -> [String; 2] {
    let table = shape.new.sql();
    let names = shape.bare_key(Side::New);
    let typed = |first: usize| -> Vec<String> {
        let pairs = shape.keys.iter().enumerate();
        pairs.map(|(at, pair)| format!("${}::text::{}", first + at, pair.type_sql)).collect()
    };
    let (to, from) = (typed(1), typed(1 + names.len()));
    let is = |alias: &str, key: &[String]| -> String {
        let pairs = names.iter().zip(key).map(|(name, value)| format!("{alias}.{name} = {value}"));
        pairs.collect::<Vec<_>>().join(" AND ")
    };
    let sets: Vec<String> =
        names.iter().zip(&to).map(|(name, value)| format!("{name} = {value}")).collect();
    let there = |key: &[String]| {
        format!("EXISTS (SELECT 1 FROM {table} AS phasegate_o WHERE {})", is("phasegate_o", key))
    };
    [
        format!(
            "UPDATE {table} AS phasegate_t SET {} WHERE {} AND NOT {}",
            sets.join(", "),
            is("phasegate_t", &from),
            there(&to)
        ),
        format!(
            "DELETE FROM {table} AS phasegate_t WHERE {} AND {}",
            is("phasegate_t", &to),
            there(&from)
        ),
    ]
}

/// Whether copies may be taken out for a moment: foreign keys that would do more than to look on when a row goes, and what they
/// would do, is not undone when it comes back. `$1` is the new table.
pub(super) const TRADABLE: &str = "SELECT NOT EXISTS (SELECT FROM pg_constraint \
     WHERE contype = 'f' AND confdeltype <> 'a' AND confrelid IN \
     (SELECT $1::bigint::oid UNION ALL SELECT relid FROM pg_partition_tree($1::bigint::oid::regclass)))";

/// The keys that are bound, each once, as what follows FROM.
fn keys(shape: &Shape) -> String {
    let marks = shape.mark_columns();
    let typed: Vec<String> = shape
        .keys
        .iter()
        .zip(&marks)
        .map(|(pair, mark)| format!("phasegate_u.{mark}::{} AS {mark}", pair.type_sql))
        .collect();
    let lists: Vec<String> = (1..=marks.len()).map(|at| format!("${at}::text[]")).collect();
    format!(
        "(SELECT DISTINCT {} FROM unnest({}) AS phasegate_u ({})) AS phasegate_s",
        typed.join(", "),
        lists.join(", "),
        marks.join(", "),
    )
}

/// That columns are the key of a note.
fn is_noted(columns: &[String], marks: &[String]) -> String {
    let pairs = columns.iter().zip(marks);
    pairs
        .map(|(column, mark)| format!("{column} = phasegate_s.{mark}"))
        .collect::<Vec<_>>()
        .join(" AND ")
}

fn lock(shape: &Shape, side: Side, strength: &str) -> String {
    let alias = quote(&shape.side(side).name);
    let key = shape.named_key(side);
    format!(
        "SELECT 1 FROM {}, {} WHERE {} ORDER BY {} {strength} OF {alias}",
        shape.named(side),
        keys(shape),
        is_noted(&key, &shape.mark_columns()),
        key.join(", "),
    )
}

/// What puts the bound keys right, in order, once their rows are locked.
pub(super) fn statements(shape: &Shape, direction: Direction, how: How) -> Vec<String> {
    let marks = shape.mark_columns();
    let (olds, news) = (shape.named_key(Side::Old), shape.named_key(Side::New));
    let noted: Vec<String> = marks.iter().map(|mark| format!("phasegate_s.{mark}")).collect();
    let has_source = format!(
        "EXISTS (SELECT 1 FROM {} WHERE {}{})",
        shape.named(Side::Old),
        is_noted(&olds, &marks),
        shape.and_filter(Side::Old),
    );
    let gone = format!(
        "({}) IN (SELECT {} FROM {} WHERE NOT {has_source})",
        news.join(", "),
        noted.join(", "),
        keys(shape),
    );
    if Fault::SweepInOneStatement.is_planted() {
        return removal(shape, Side::New, &gone).into_iter().collect();
    }
    let changed = match how {
        How::Written => update(shape, direction),
        How::Traded => trade(shape, direction),
    };
    let removed = removal(shape, Side::New, &gone);
    removed.into_iter().chain(changed).chain([insert(shape)]).collect()
}

/// What locks the rows of the bound keys before anything is decided: the sources, then their copies. A chunk that is still open
/// holds its sources by their keys alone, and its copies can't be seen: it is waited for.
pub(super) fn locks(shape: &Shape) -> Vec<String> {
    if Fault::SweepInOneStatement.is_planted() {
        return Vec::new();
    }
    vec![lock(shape, Side::Old, "FOR UPDATE"), lock(shape, Side::New, "FOR UPDATE")]
}

/// Behind FROM: the sources of the bound keys as `phasegate_f` and their copies as `phasegate_o`; and that one is the other's.
fn pairs(shape: &Shape, direction: Direction) -> (String, String) {
    let marks = shape.mark_columns();
    let side = |side: Side, list: &str, alias: &str, filter: &str| {
        let key = shape.named_key(side);
        let named: Vec<String> = key
            .iter()
            .zip(&marks)
            .map(|(name, mark)| format!("{name} AS phasegate_{mark}"))
            .collect();
        let noted: Vec<String> = marks.iter().map(|mark| format!("phasegate_s.{mark}")).collect();
        format!(
            "(SELECT {}, {list} FROM {} WHERE ({}) IN (SELECT {} FROM {}){filter}) AS {alias}",
            named.join(", "),
            shape.named(side),
            key.join(", "),
            noted.join(", "),
            keys(shape),
        )
    };
    let others: Vec<String> =
        marks.iter().map(|mark| format!("phasegate_o.phasegate_{mark}")).collect();
    let both = format!(
        "{}, {}",
        side(Side::Old, &shape.old_list(direction), "phasegate_f", &shape.and_filter(Side::Old)),
        side(Side::New, &shape.new_list(direction), "phasegate_o", ""),
    );
    (both, joined(&marks, "phasegate_f", &others))
}

/// That columns are the key that something has under an alias.
fn joined(marks: &[String], alias: &str, columns: &[String]) -> String {
    let pairs = columns.iter().zip(marks);
    pairs
        .map(|(column, mark)| format!("{column} = {alias}.phasegate_{mark}"))
        .collect::<Vec<_>>()
        .join(" AND ")
}

/// The key columns of the copies under an alias.
fn key_of_copies(shape: &Shape, alias: &str) -> Vec<String> {
    shape.bare_key(Side::New).iter().map(|name| format!("{alias}.{name}")).collect()
}

/// Makes the copies that are there as their sources say.
fn update(shape: &Shape, direction: Direction) -> Option<String> {
    let rights = shape.rights(direction);
    let sets: Vec<String> = shape
        .written_over(Side::New)
        .map(|(at, write)| {
            let value = shape.value_in_pair(Side::New, at, (direction, &rights));
            format!("{} = {value}", quote(&write.column))
        })
        .collect();
    let (both, is_pair) = pairs(shape, direction);
    let targets = key_of_copies(shape, "phasegate_t");
    (!sets.is_empty()).then(|| {
        format!(
            "UPDATE {} AS phasegate_t SET {} FROM {both} WHERE {is_pair} AND {} AND NOT {}",
            shape.new.sql(),
            sets.join(", "),
            joined(&shape.mark_columns(), "phasegate_f", &targets),
            shape.is_right(direction),
        )
    })
}

/// The same, taking them out and putting them in again. They are put in by the order of their keys, so that all of them are out
/// before the first comes back.
fn trade(shape: &Shape, direction: Direction) -> Option<String> {
    let marks = shape.mark_columns();
    let written: Vec<(usize, String)> =
        shape.written_over(Side::New).map(|(at, write)| (at, write.column.clone())).collect();
    if written.is_empty() {
        return None;
    }
    let rights = shape.rights(direction);
    let (both, is_pair) = pairs(shape, direction);
    let keys = marks.iter().map(|mark| format!("phasegate_f.phasegate_{mark}"));
    let values = written.iter().map(|(at, _)| {
        format!("{} AS phasegate_v{at}", shape.value_in_pair(Side::New, *at, (direction, &rights)))
    });
    let worked_out: Vec<String> = keys.chain(values).collect();
    let given: Vec<String> =
        written.iter().map(|(at, _)| format!("phasegate_e.phasegate_v{at}")).collect();
    let columns = || shape.new.columns.iter().filter(|column| !column.is_generated);
    let value = |name: &String| match written.iter().find(|(_, column)| column == name) {
        Some((at, _)) => format!("phasegate_g.phasegate_v{at}"),
        None => format!("phasegate_g.{}", quote(name)),
    };
    Some(format!(
        "WITH phasegate_e AS MATERIALIZED (SELECT {} FROM {both} WHERE {is_pair} AND NOT {}), \
         phasegate_g AS (DELETE FROM {table} AS phasegate_t USING phasegate_e WHERE {} RETURNING phasegate_t.*, {}) \
         INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM phasegate_g ORDER BY {}",
        worked_out.join(", "),
        shape.is_right(direction),
        joined(&marks, "phasegate_e", &key_of_copies(shape, "phasegate_t")),
        given.join(", "),
        columns().map(|column| quote(&column.name)).collect::<Vec<_>>().join(", "),
        columns().map(|column| value(&column.name)).collect::<Vec<_>>().join(", "),
        key_of_copies(shape, "phasegate_g").join(", "),
        table = shape.new.sql(),
    ))
}

/// Makes the copies that are missing. One that a chunk has made meanwhile is right: its source is locked.
fn insert(shape: &Shape) -> String {
    let mut columns = shape.bare_key(Side::New);
    let mut values = shape.named_key(Side::Old);
    for (_, write) in shape.written_beside_keys(Side::New) {
        columns.push(quote(&write.column));
        values.push(cast(write));
    }
    let noted: Vec<String> =
        shape.mark_columns().iter().map(|mark| format!("phasegate_s.{mark}")).collect();
    format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} WHERE ({}) IN (SELECT {} FROM {}){} ON CONFLICT ({}) DO NOTHING",
        shape.new.sql(),
        columns.join(", "),
        values.join(", "),
        shape.named(Side::Old),
        shape.named_key(Side::Old).join(", "),
        noted.join(", "),
        keys(shape),
        shape.and_filter(Side::Old),
        shape.bare_key(Side::New).join(", "),
    )
}
