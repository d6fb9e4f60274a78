//! The statements that put noted keys right.
//!
//! Keys are bound as one list of texts for each column, so that a statement is about as many of them as its caller says.
//! Absent on purpose: which keys those are, and what happens when the server refuses, which is `settle`'s.

use super::catalogue::quote;
use super::marks::{MADE, OUT};
use super::planted::Fault;
use super::shape::{KeyPair, Shape};
use super::snapshots::LOOKS_UP;
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

/// Where the taking of notes begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seed {
    /// With so many of the first notes behind a place in their order, which is bound.
    First(u32),
    /// With those of the bound keys.
    Keys,
}

/// Takes notes, and with them all those of keys that rows came from or went to as far as notes know: each with its place, its event,
/// how deep in triggers and by which transaction it was made, its key and where that came from; and the last place of the first ones.
pub(super) fn take_notes(shape: &Shape, touched: &str, seed: Seed) -> String {
    let (marks, origins) = (shape.mark_columns(), shape.origin_columns());
    let of = |alias: &str, names: &[String]| -> String {
        names.iter().map(|name| format!("{alias}.{name}")).collect::<Vec<_>>().join(", ")
    };
    let equal = |names: &[String]| -> String {
        let pairs = names.iter().zip(&marks);
        let pairs = pairs.map(|(name, mark)| format!("phasegate_n.{name} = phasegate_r.{mark}"));
        pairs.collect::<Vec<_>>().join(" AND ")
    };
    let is_from = format!("phasegate_n.{} IS NOT NULL", origins[0]);
    let (first, last) = match seed {
        Seed::First(most) => (
            format!(
                "phasegate_b AS MATERIALIZED (SELECT * FROM {touched} WHERE at > $1 ORDER BY at LIMIT {most}), \
                 phasegate_k ({0}) AS (SELECT {0} FROM phasegate_b UNION SELECT {1} FROM phasegate_b WHERE {2} IS NOT NULL)",
                marks.join(", "),
                origins.join(", "),
                origins[0],
            ),
            "(SELECT max(at) FROM phasegate_b)",
        ),
        Seed::Keys => {
            let first = format!(
                "phasegate_k AS (SELECT {} FROM unnest({}) AS phasegate_u ({}))",
                collated(shape).join(", "),
                lists(shape),
                marks.join(", "),
            );
            (first, "NULL::bigint")
        }
    };
    // Each note is found by an index, one key after the other, however many there are.
    format!(
        "WITH RECURSIVE {first}, phasegate_r ({names}) AS (SELECT {names} FROM phasegate_k UNION \
         SELECT phasegate_l.* FROM phasegate_r CROSS JOIN LATERAL (\
         SELECT {came} FROM {touched} AS phasegate_n WHERE {at_key} AND {is_from} UNION ALL \
         SELECT {went} FROM {touched} AS phasegate_n WHERE {at_origin}) AS phasegate_l) \
         DELETE FROM {touched} WHERE ctid = ANY (ARRAY(SELECT phasegate_l.ctid FROM phasegate_r CROSS JOIN LATERAL \
         (SELECT phasegate_n.ctid FROM {touched} AS phasegate_n WHERE {at_key} OFFSET 0) AS phasegate_l)) \
         RETURNING {}",
        note_columns(shape, last),
        names = marks.join(", "),
        came = of("phasegate_n", &origins),
        went = of("phasegate_n", &marks),
        at_key = equal(&marks),
        at_origin = equal(&origins),
    )
}

/// All notes, as [`take_notes`] has them and in order; they stay.
pub(super) fn all_notes(shape: &Shape, touched: &str) -> String {
    format!("SELECT {} FROM {touched} ORDER BY at", note_columns(shape, "NULL::bigint"))
}

fn note_columns(shape: &Shape, last: &str) -> String {
    let texts = |columns: &[String]| -> String {
        columns.iter().map(|column| format!("{column}::text")).collect::<Vec<_>>().join(", ")
    };
    format!(
        "at, event, depth, xact, {last}, (extract(epoch FROM said) * 1000000)::bigint, {}, {}",
        texts(&shape.mark_columns()),
        texts(&shape.origin_columns()),
    )
}

/// Which of the bound keys are the same, by numbers, and whether there are copies and rows of them; in the order in which they are
/// bound.
pub(super) fn numbered(shape: &Shape) -> String {
    let marks = shape.mark_columns();
    format!(
        "SELECT dense_rank() OVER (ORDER BY {names}) - 1, EXISTS (SELECT 1 FROM {} WHERE {}), EXISTS (SELECT 1 FROM {} WHERE {}{}) \
         FROM (SELECT phasegate_u.at, {} FROM unnest({}) WITH ORDINALITY AS phasegate_u ({names}, at)) AS phasegate_s \
         ORDER BY phasegate_s.at",
        shape.named(Side::New),
        is_noted(&shape.named_key(Side::New), &marks),
        shape.named(Side::Old),
        is_noted(&shape.named_key(Side::Old), &marks),
        shape.and_filter(Side::Old),
        collated(shape).join(", "),
        lists(shape),
        names = marks.join(", "),
    )
}

/// Bound keys, of `phasegate_u`, as the tables of marks have them.
fn collated(shape: &Shape) -> Vec<String> {
    let marks = shape.mark_columns();
    let typed = |(pair, mark): (&KeyPair, &String)| {
        let collation = shape.old.column(&pair.old).and_then(|column| column.collation.clone());
        let collate = collation.map_or_else(String::new, |name| format!(" COLLATE {name}"));
        format!("(phasegate_u.{mark}::{}{collate}) AS {mark}", pair.type_sql)
    };
    shape.keys.iter().zip(&marks).map(typed).collect()
}

/// The lists that bound keys are in.
fn lists(shape: &Shape) -> String {
    let lists: Vec<String> = (1..=shape.keys.len()).map(|at| format!("${at}::text[]")).collect();
    lists.join(", ")
}

/// Takes the notes of the bound keys away.
pub(super) fn forget_notes(shape: &Shape, touched: &str) -> String {
    let marks = shape.mark_columns();
    let noted: Vec<String> = marks.iter().map(|mark| format!("phasegate_s.{mark}")).collect();
    format!(
        "DELETE FROM {touched} WHERE event IS NULL AND ({}) IN (SELECT {} FROM {})",
        marks.join(", "),
        noted.join(", "),
        keys(shape),
    )
}

/// Notes again what is still to be done: `$1` to `$3` are its place, its event and its depth, and the others its key and where that
/// came from.
pub(super) fn note_again(shape: &Shape, touched: &str) -> String {
    let columns = [shape.mark_columns(), shape.origin_columns()].concat();
    let types = shape.keys.iter().chain(&shape.keys);
    let values: Vec<String> = types
        .enumerate()
        .map(|(at, pair)| format!("${}::text::{}", at + 4, pair.type_sql))
        .collect();
    format!(
        "INSERT INTO {touched} (at, event, depth, xact, {}) VALUES ($1, $2, $3, 0, {})",
        columns.join(", "),
        values.join(", "),
    )
}

/// The age of the oldest view of the database that anybody else looks up names by, in transactions.
fn views() -> String {
    format!(
        " CROSS JOIN (SELECT max(age(a.backend_xmin)) AS phasegate_age FROM pg_stat_activity AS a WHERE {LOOKS_UP}) AS phasegate_v"
    )
}

/// Whether a view may show something else of a noted key than there is now: it is no newer than what was written of it last. A row that
/// was changed and is gone doesn't tell when it went. A copy that came to its key or went from it together with its row was right in
/// all of them.
const UNSURE: &str = " OR phasegate_age IS NOT NULL AND NOT phasegate_m AND (phasegate_c AND phasegate_here IS NULL OR phasegate_age >= \
     least(age(phasegate_xf), age(phasegate_xo), txid_current() - phasegate_x))";

/// For whom what is noted has to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Whoever looks from now on.
    Now,
    /// Whoever has a view of the database already, too.
    InAllViews,
}

/// Whether the copy of a key that is noted holds something else than its row says, or did so in somebody's view: for whoever sees to it
/// that nobody writes meanwhile.
pub(super) fn is_any_wrong(
    shape: &Shape,
    direction: Direction,
    touched: &str,
    seen: Seen,
) -> String {
    let marks = shape.mark_columns();
    let list = marks.join(", ");
    let side = |side: Side, items: &str, written: &str| {
        let key = shape.named_key(side);
        let is_it: Vec<String> = key
            .iter()
            .zip(&marks)
            .map(|(name, mark)| format!("{name} = phasegate_s.{mark}"))
            .collect();
        let filter = shape.and_filter(side);
        format!(
            "SELECT {items}, {}.xmin AS {written} FROM {} WHERE {}{filter}",
            quote(&shape.side(side).name),
            shape.named(side),
            is_it.join(" AND ")
        )
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
    let (views, unsure) = match seen {
        Seen::Now => (String::new(), ""),
        Seen::InAllViews => (views(), UNSURE),
    };
    format!(
        "SELECT EXISTS (SELECT 1 FROM (SELECT {list}, max(xact) AS phasegate_x, bool_or(event IS NULL) AS phasegate_c, \
         bool_and(coalesce(event IN ('{MADE}', '{OUT}'), false)) AS phasegate_m \
         FROM {touched} GROUP BY {list}) AS phasegate_s \
         LEFT JOIN LATERAL ({} LIMIT 1) AS phasegate_f ON true LEFT JOIN LATERAL ({} LIMIT 1) AS phasegate_o ON true{views} \
         WHERE CASE WHEN phasegate_here IS NULL THEN {left} ELSE phasegate_there IS NOT NULL AND {} END IS NOT TRUE{unsure})",
        side(Side::Old, &shape.old_list(direction), "phasegate_xf"),
        side(Side::New, &shape.new_list(direction), "phasegate_xo"),
        shape.is_right(direction),
    )
}

/// Whether copies may be taken out for a moment: foreign keys that would do more than to look on when a row goes, and what they
/// would do, is not undone when it comes back. `$1` is the new table.
pub(super) const TRADABLE: &str = "SELECT NOT EXISTS (SELECT FROM pg_constraint \
     WHERE contype = 'f' AND confdeltype <> 'a' AND confrelid IN \
     (SELECT $1::bigint::oid UNION ALL SELECT relid FROM pg_partition_tree($1::bigint::oid::regclass)))";

/// The keys that are bound, each once, as what follows FROM.
pub(super) fn keys(shape: &Shape) -> String {
    let marks = shape.mark_columns();
    let typed: Vec<String> = shape
        .keys
        .iter()
        .zip(&marks)
        .map(|(pair, mark)| format!("phasegate_u.{mark}::{} AS {mark}", pair.type_sql))
        .collect();
    format!(
        "(SELECT DISTINCT {} FROM unnest({}) AS phasegate_u ({})) AS phasegate_s",
        typed.join(", "),
        lists(shape),
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
pub(super) fn locks(shape: &Shape) -> [Option<String>; 2] {
    if Fault::SweepInOneStatement.is_planted() {
        return [None, None];
    }
    [Side::Old, Side::New].map(|side| Some(lock(shape, side, "FOR UPDATE")))
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
