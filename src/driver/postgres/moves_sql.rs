//! The statements that have copies follow changed keys, and end.
//!
//! Absent on purpose: what becomes of which copy, which is worked out in `replay`, and what happens when the server refuses, which
//! is `moves`'.

use super::catalogue::{literal, quote};
use super::settle_sql::keys;
use super::shape::{KeyPair, Shape};
use super::sync_sql::Side;

/// Takes the copies of the bound keys away.
pub(super) fn end(shape: &Shape) -> String {
    let noted: Vec<String> =
        shape.mark_columns().iter().map(|mark| format!("phasegate_s.{mark}")).collect();
    format!(
        "DELETE FROM {} WHERE ({}) IN (SELECT {} FROM {})",
        shape.new.sql(),
        shape.bare_key(Side::New).join(", "),
        noted.join(", "),
        keys(shape),
    )
}

/// Leaves nothing in the copy of a bound key of what only the new side has, where that has anything.
pub(super) fn reset(shape: &Shape) -> Option<String> {
    let names = shape.bare_key(Side::New);
    let is_written = |name: &String| shape.writes.iter().any(|write| quote(&write.column) == *name);
    let own = shape.new.columns.iter().filter(|it| !it.is_generated && it.identity.is_none());
    let own = own.map(|column| quote(&column.name));
    let own = own.filter(|name| !names.contains(name) && !is_written(name));
    let sets: Vec<String> = own.map(|name| format!("{name} = DEFAULT")).collect();
    let key: Vec<String> = shape
        .keys
        .iter()
        .enumerate()
        .map(|(at, pair)| format!("${}::text::{}", at + 1, pair.type_sql))
        .collect();
    (!sets.is_empty()).then(|| {
        format!(
            "UPDATE {} AS phasegate_t SET {} WHERE {}",
            shape.new.sql(),
            sets.join(", "),
            has_key("phasegate_t", &names, &key)
        )
    })
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

/// Foreign keys that lead to the new table (`$1`) and have what refers to a row follow its key, as [`ACTING`] has them.
pub(super) const FOLLOWING: &str = "SELECT k.conrelid::regclass::text, \
     ARRAY(SELECT quote_ident(a.attname) FROM unnest(k.conkey) WITH ORDINALITY AS c (n, at) \
       JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.n ORDER BY c.at), \
     ARRAY(SELECT quote_ident(a.attname) FROM unnest(k.confkey) WITH ORDINALITY AS c (n, at) \
       JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = c.n ORDER BY c.at) \
     FROM pg_constraint k WHERE k.contype = 'f' AND k.confupdtype = 'c' AND k.conparentid = 0 \
     AND k.confrelid = $1::bigint::oid";

/// Has rows of a table refer to the copy of a key instead of that of another one, as the server does where that key is given to it.
/// The bound texts are as those of [`follow`].
pub(super) fn refer(shape: &Shape, table: &str, (from, to): (&[String], &[String])) -> String {
    let names = shape.bare_key(Side::New);
    let typed = |first: usize| -> Vec<String> {
        let pairs = shape.keys.iter().enumerate();
        pairs.map(|(at, pair)| format!("${}::text::{}", first + at, pair.type_sql)).collect()
    };
    let pairs = || from.iter().zip(to);
    let sets: Vec<String> =
        pairs().map(|(from, to)| format!("{from} = phasegate_t.{to}")).collect();
    let refers: Vec<String> =
        pairs().map(|(from, to)| format!("phasegate_r.{from} = phasegate_o.{to}")).collect();
    format!(
        "UPDATE {table} AS phasegate_r SET {} FROM {new} AS phasegate_t, {new} AS phasegate_o WHERE {} AND {} AND {}",
        sets.join(", "),
        has_key("phasegate_t", &names, &typed(1)),
        has_key("phasegate_o", &names, &typed(1 + names.len())),
        refers.join(" AND "),
        new = shape.new.sql(),
    )
}

/// Whether rows of a table refer to the copy of a key, which is bound; where a transaction is given, those that were written by it or
/// later ones.
pub(super) fn is_referred_to(
    shape: &Shape,
    table: &str,
    (from, to): (&[String], &[String]),
    since: Option<i64>,
) -> String {
    let since = since.map_or_else(String::new, |since| {
        format!(" AND txid_current() - age(phasegate_r.xmin) >= {since}")
    });
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
        "SELECT EXISTS (SELECT 1 FROM {} AS phasegate_t JOIN {table} AS phasegate_r ON {} WHERE {}{since})",
        shape.new.sql(),
        refers.join(" AND "),
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

/// What gives the copy of a row its new key where nobody has it; the texts that are bound are that key, and then the one that it had.
/// Where the server would not let it be written, it is taken out and put in again.
pub(super) fn follow(shape: &Shape) -> String {
    let names = shape.bare_key(Side::New);
    let typed = |first: usize| -> Vec<String> {
        let pairs = shape.keys.iter().enumerate();
        pairs.map(|(at, pair)| format!("${}::text::{}", first + at, pair.type_sql)).collect()
    };
    let (to, from) = (typed(1), typed(1 + names.len()));
    let table = shape.new.sql();
    let is_free = format!(
        "NOT EXISTS (SELECT 1 FROM {table} AS phasegate_o WHERE {})",
        has_key("phasegate_o", &names, &to)
    );
    if can_move(shape) {
        return format!("{} AND {is_free}", given(shape, &to, &from));
    }
    let columns = || shape.new.columns.iter().filter(|column| !column.is_generated);
    let value = |name: String| match names.iter().position(|key| *key == name) {
        Some(at) => to[at].clone(),
        None => format!("phasegate_g.{name}"),
    };
    format!(
        "WITH phasegate_g AS (DELETE FROM {table} AS phasegate_t WHERE {} AND {is_free} RETURNING phasegate_t.*) \
         INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM phasegate_g",
        has_key("phasegate_t", &names, &from),
        columns().map(|column| quote(&column.name)).collect::<Vec<_>>().join(", "),
        columns().map(|column| value(quote(&column.name))).collect::<Vec<_>>().join(", "),
    )
}

/// The statements that give copies other keys, each a pair of the one that it has and the new one.
pub(super) fn follow_at_once(shape: &Shape, moves: &[(&Vec<String>, &Vec<String>)]) -> String {
    let typed = |key: &Vec<String>| -> Vec<String> {
        let pairs = shape.keys.iter().zip(key);
        pairs.map(|(pair, text)| format!("{}::{}", literal(text), pair.type_sql)).collect()
    };
    let each = moves.iter().map(|(from, to)| given(shape, &typed(to), &typed(from)));
    each.collect::<Vec<_>>().join(";\n")
}

fn given(shape: &Shape, to: &[String], from: &[String]) -> String {
    let names = shape.bare_key(Side::New);
    let sets: Vec<String> =
        names.iter().zip(to).map(|(name, value)| format!("{name} = {value}")).collect();
    format!(
        "UPDATE {} AS phasegate_t SET {} WHERE {}",
        shape.new.sql(),
        sets.join(", "),
        has_key("phasegate_t", &names, from),
    )
}

fn has_key(alias: &str, names: &[String], key: &[String]) -> String {
    let pairs = names.iter().zip(key).map(|(name, value)| format!("{alias}.{name} = {value}"));
    pairs.collect::<Vec<_>>().join(" AND ")
}
