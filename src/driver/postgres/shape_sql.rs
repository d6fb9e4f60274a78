//! The SQL that a shape comes down to where rows are copied, compared and repaired.
//!
//! Invariants:
//! - There is one text for "this column is as the mapping says", that of `same`, which triggers have as well.
//! - Expressions are evaluated over their own table alone, and the results meet under names that they can't see: `k…` the old
//!   side's key, `w…` the values for the new side, `o…` the old side's columns that are written back; `q…` the new side's key,
//!   `n…` its columns, `r…` the values for the old side.
//! - Which rows a statement is about is a [`Pick`]: a range by the key's index, or single keys. Its values are bound by the
//!   same [`Pick`], in the same order on both sides.
//!
//! Absent on purpose: running any of it, and the triggers' text.

use sqlx::postgres::PgConnection;

use super::catalogue::{Table, quote};
use super::cells::{Bound, bind_chunk, bind_keys};
use super::connection::Tx;
use super::ledger::has_table;
use super::planted::Fault;
use super::same::{held_by, same, stored_by};
use super::shape::{Part, Shape, Write};
use crate::bounds::message::VALUE_CHARS_MAX;
use crate::copy::chunk::{Chunk, Key};
use crate::driver::Error;
use crate::run::{Direction, OnDelete};

/// Has a transaction's statements find rows by the key's index whatever the statistics say: without any, the planner takes
/// a range of a composite key for a ninth of the table, and reads all of it for each chunk. `$1` and `$2` are a setting of the
/// caller's own.
///
/// `plan_cache_mode` is left as it is: triggers that fire would plan each of their statements anew for each row.
pub(super) const BY_INDEX: &str = "SELECT set_config('enable_seqscan', 'off', true), \
     set_config('enable_bitmapscan', 'off', true), set_config($1, $2, true)";

/// Which of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Old,
    New,
}

/// Which rows of both sides a statement is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pick<'a> {
    /// Those of a range of keys.
    Chunk(&'a Chunk),
    /// Those of some keys.
    Keys(&'a [Key]),
}

/// What a comparison finds of a row, as the number that stands for it in SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Right = 0,
    Missing = 1,
    Different = 2,
    Extra = 3,
    /// Not as it should be, and noted as to be put right.
    Pending = 4,
}

/// Conditions that must all hold.
pub(super) fn all(conditions: &[String]) -> String {
    if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") }
}

pub(super) fn list(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().collect::<Vec<_>>().join(", ")
}

/// Names with a letter and a number each.
fn numbered(letter: &str, places: impl IntoIterator<Item = usize>) -> Vec<String> {
    places.into_iter().map(|at| format!("{letter}{at}")).collect()
}

impl Pick<'_> {
    /// The condition on rows of one side.
    pub(super) fn sql(&self, shape: &Shape, which: Which) -> String {
        let row = key_row(&shape.key_names(which));
        match self {
            Self::Chunk(chunk) => {
                let width = shape.keys.len();
                let bound = |from: usize| {
                    let cast = |(at, pair): (usize, &super::shape::KeyPair)| {
                        format!("${}::text::{}", from + at + 1, pair.bound_sql())
                    };
                    key_row(&shape.keys.iter().enumerate().map(cast).collect::<Vec<_>>())
                };
                let mut conditions = Vec::new();
                if chunk.lo.is_some() {
                    conditions.push(format!("{row} > {}", bound(0)));
                }
                if chunk.hi.is_some() {
                    let from = if chunk.lo.is_some() { width } else { 0 };
                    conditions.push(format!("{row} <= {}", bound(from)));
                }
                all(&conditions)
            }
            Self::Keys(_) => {
                let arrays = list((1..=shape.keys.len()).map(|at| format!("${at}::text[]")));
                let names = list(numbered("u", 0..shape.keys.len()));
                let casts = shape
                    .keys
                    .iter()
                    .enumerate()
                    .map(|(at, pair)| format!("phasegate_u.u{at}::{}", pair.bound_sql()));
                format!(
                    "{row} IN (SELECT {} FROM unnest({arrays}) AS phasegate_u ({names}))",
                    list(casts)
                )
            }
        }
    }

    /// Binds what the condition refers to.
    pub(super) fn bind<'q>(&self, query: Bound<'q>, shape: &Shape) -> Bound<'q> {
        match self {
            Self::Chunk(chunk) => bind_chunk(query, chunk),
            Self::Keys(keys) => bind_keys(query, keys, shape.keys.len()),
        }
    }
}

/// The column of a write, qualified by its table, as it is compared.
fn held_in(table: &Table, write: &Write) -> String {
    held_by(table, write, &format!("{}.{}", table.sql(), quote(&write.column)))
}

/// A key as a value to compare.
fn key_row(columns: &[String]) -> String {
    if columns.len() == 1 { columns[0].clone() } else { format!("({})", columns.join(", ")) }
}

impl Shape {
    /// One of the tables.
    pub(super) fn side(&self, which: Which) -> &Table {
        match which {
            Which::Old => &self.old,
            Which::New => &self.new,
        }
    }

    /// The names of a table's key columns, quoted and qualified by the table.
    pub(super) fn key_names(&self, which: Which) -> Vec<String> {
        let table = self.side(which).sql();
        self.bare_key(which).iter().map(|name| format!("{table}.{name}")).collect()
    }

    /// The names of a table's key columns, quoted.
    pub(super) fn bare_key(&self, which: Which) -> Vec<String> {
        self.keys
            .iter()
            .map(|pair| {
                quote(match which {
                    Which::Old => &pair.old,
                    Which::New => &pair.new,
                })
            })
            .collect()
    }

    /// The mapping's filter as a further condition on rows of the old side.
    pub(super) fn filter_sql(&self, which: Which) -> String {
        match (&self.filter, which) {
            (Some(filter), Which::Old) => format!(" AND {filter}"),
            _ => String::new(),
        }
    }

    /// What is written into the new side beside its key.
    pub(super) fn written_beside_key(&self) -> impl Iterator<Item = (usize, &Write)> {
        let is_key = |write: &Write| self.keys.iter().any(|pair| pair.new == write.column);
        self.writes.iter().enumerate().filter(move |(_, write)| !is_key(write))
    }

    /// What follows FROM for rows of one side.
    pub(super) fn rows_sql(&self, which: Which, pick: &Pick<'_>) -> String {
        format!(
            "{} WHERE {}{}",
            self.side(which).sql(),
            pick.sql(self, which),
            self.filter_sql(which)
        )
    }
}

/// The statements of a mapping kept in step in a direction.
#[derive(Clone, Debug)]
pub(super) struct Statements<'a> {
    pub shape: &'a Shape,
    direction: Direction,
    /// The tables of marks, qualified and quoted, where they are there.
    kept: Option<String>,
    touched: Option<String>,
}

impl<'a> Statements<'a> {
    /// Those of a transaction that copies, under a sync whose tables of marks are there.
    pub(super) fn of_sync(tx: &Tx<'_>, shape: &'a Shape, direction: Direction) -> Self {
        let (kept, touched) = (tx.ours(&shape.kept_name()), tx.ours(&shape.touched_name()));
        Self { shape, direction, kept: Some(kept), touched: Some(touched) }
    }

    /// Those of a connection, whether a sync is in or not: without one no part is kept and no key noted. `schema` is our own.
    pub(super) async fn of(
        conn: &mut PgConnection,
        schema: &str,
        (shape, direction): (&'a Shape, Direction),
    ) -> Result<Self, Error> {
        let mut statements = Self { shape, direction, kept: None, touched: None };
        let ours = |name: &str| format!("{schema}.{}", quote(name));
        let (kept, touched) = (ours(&shape.kept_name()), ours(&shape.touched_name()));
        if has_table(conn, &touched).await? {
            statements.touched = Some(touched);
        }
        if has_table(conn, &kept).await? {
            statements.kept = Some(kept);
        }
        Ok(statements)
    }

    /// Whether what is right in place is told by marks beside the row, so that the row must be locked before they are read.
    pub(super) fn reads_marks(&self) -> bool {
        self.shape.in_place && self.direction == Direction::Both
    }

    /// What is read of the old side.
    fn old_list(&self) -> String {
        let shape = self.shape;
        let keys = shape.key_names(Which::Old);
        let mut items: Vec<String> =
            keys.iter().enumerate().map(|(at, name)| format!("{name} AS k{at}")).collect();
        let values = shape.writes.iter().enumerate();
        items.extend(
            values.map(|(at, w)| format!("{} AS w{at}", stored_by(&shape.new, w, &w.value))),
        );
        if self.direction == Direction::Both {
            let columns = shape.reverse.iter().enumerate();
            items.extend(
                columns.map(|(at, write)| format!("{} AS o{at}", held_in(&shape.old, write))),
            );
        }
        list(items)
    }

    /// What is read of the new side.
    fn new_list(&self) -> String {
        let shape = self.shape;
        let keys = shape.key_names(Which::New);
        let mut items: Vec<String> =
            keys.iter().enumerate().map(|(at, name)| format!("{name} AS q{at}")).collect();
        let columns = shape.writes.iter().enumerate();
        items.extend(columns.map(|(at, write)| format!("{} AS n{at}", held_in(&shape.new, write))));
        if self.direction == Direction::Both {
            let values = shape.reverse.iter().enumerate();
            items.extend(
                values.map(|(at, w)| format!("{} AS r{at}", stored_by(&shape.old, w, &w.value))),
            );
        }
        list(items)
    }

    /// Rows of both sides side by side, as what follows FROM. In place there is one table, and `join` is not used.
    pub(super) fn pairs(&self, join: &str, pick: &Pick<'_>) -> String {
        let shape = self.shape;
        let (olds, news) = (self.old_list(), self.new_list());
        let old_rows = shape.rows_sql(Which::Old, pick);
        if shape.in_place {
            return format!("(SELECT {olds}, {news} FROM {old_rows}) AS phasegate_pair");
        }
        let keys: Vec<String> = (0..shape.keys.len()).map(|at| format!("k{at} = q{at}")).collect();
        format!(
            "(SELECT {olds} FROM {old_rows}) AS phasegate_old {join} (SELECT {news} FROM {}) AS phasegate_new ON {}",
            shape.rows_sql(Which::New, pick),
            all(&keys)
        )
    }

    /// Groups of columns that are right or wrong together, as places in the shape's writes.
    pub(super) fn groups(&self) -> Vec<Vec<usize>> {
        let parts = || self.shape.parts.iter().map(|part| part.writes.clone());
        match self.direction {
            Direction::Forward => vec![(0..self.shape.writes.len()).collect()],
            Direction::Both => parts().filter(|writes| !writes.is_empty()).collect(),
        }
    }

    /// The part that a group is, with its number; none when all columns are one group.
    fn part_of(&self, group: &[usize]) -> Option<(usize, &Part)> {
        let is_its = |part: &Part| part.writes == group;
        let found = self.shape.parts.iter().enumerate().find(|(_, part)| is_its(part));
        found.filter(|_| self.direction == Direction::Both)
    }

    /// That a group of a pair is right: new = f(old), or with `both` old = g(new), in place only where a client of the new
    /// shape is known to have written it.
    pub(super) fn is_right(&self, group: &[usize]) -> String {
        let forward =
            same(&numbered("n", group.iter().copied()), &numbered("w", group.iter().copied()));
        let Some((at, part)) = self.part_of(group) else { return forward };
        let back = match (part.reverse.is_empty(), part.is_constant()) {
            (true, true) => "true".to_owned(),
            (true, false) => "false".to_owned(),
            (false, _) => same(
                &numbered("o", part.reverse.iter().copied()),
                &numbered("r", part.reverse.iter().copied()),
            ),
        };
        if !self.shape.in_place {
            // What no column of the old side has a say in is the new side's own.
            return if part.is_constant() {
                "true".to_owned()
            } else {
                format!("({forward} OR {back})")
            };
        }
        let keys = numbered("k", 0..self.shape.keys.len());
        match self.is_kept(at, &keys) {
            Some(kept) => format!("({forward} OR ({kept} AND {back}))"),
            None => forward,
        }
    }

    /// That a pair is right in all its groups.
    pub(super) fn is_all_right(&self) -> String {
        all(&self.groups().iter().map(|group| self.is_right(group)).collect::<Vec<_>>())
    }

    /// That a client of the new shape wrote a part of a row in place; none where nobody keeps such marks.
    fn is_kept(&self, part: usize, keys: &[String]) -> Option<String> {
        let kept = self.kept.as_ref()?;
        // The marks' own names would hide those of the keys, which begin with the same letter.
        let marks = numbered("m", 0..self.shape.keys.len());
        let equal: Vec<String> = marks
            .iter()
            .zip(keys)
            .map(|(mark, key)| format!("phasegate_kept.{mark} = {key}"))
            .collect();
        Some(format!(
            "EXISTS (SELECT 1 FROM {kept} AS phasegate_kept (part, {}) WHERE phasegate_kept.part = {part} AND {})",
            list(marks),
            all(&equal)
        ))
    }

    /// That a trigger has noted a key.
    fn is_touched(&self, keys: &[String]) -> String {
        let Some(touched) = &self.touched else { return "false".to_owned() };
        let marks = self.shape.mark_columns();
        let equal: Vec<String> = marks
            .iter()
            .zip(keys)
            .map(|(mark, key)| format!("phasegate_touched.{mark} = {key}"))
            .collect();
        format!("EXISTS (SELECT 1 FROM {touched} AS phasegate_touched WHERE {})", all(&equal))
    }

    /// What each picked pair is: its key `x…`, whether each side has it (`k0`, `q0`), `found`; for people, which groups are not
    /// right (`wrong`), which of the written columns are not the same (`differ`), and their values (`shown`: four texts for each
    /// column, the beginning and the length of what it should hold, then of what it holds).
    ///
    /// These are arrays, since a row of all of that may have more columns than the server allows. They are worked out only
    /// where they are asked for, and each grows with the columns and not with their square.
    ///
    /// OFFSET keeps the planner from taking the query apart, which would work out every comparison once for each use of it.
    pub(super) fn judged(&self, pick: &Pick<'_>) -> String {
        let shape = self.shape;
        let (right, missing) = (Found::Right as u8, Found::Missing as u8);
        let (different, extra) = (Found::Different as u8, Found::Extra as u8);
        let keys = (0..shape.keys.len()).map(|at| format!("coalesce(k{at}, q{at}) AS x{at}"));
        let not = |right: String| format!("NOT {right}");
        let wrong = list(self.groups().iter().map(|group| not(self.is_right(group))));
        let columns = 0..shape.writes.len();
        let differ = list(columns.map(|at| not(same(&numbered("n", [at]), &numbered("w", [at])))));
        let shown = list((0..shape.writes.len()).map(|at| {
            let text = |of: &str| {
                let text = format!("(CAST({of}{at} AS pg_catalog.text) COLLATE \"C\")");
                format!(
                    "pg_catalog.left({text}, {VALUE_CHARS_MAX}), CAST(pg_catalog.length({text}) AS pg_catalog.text)"
                )
            };
            format!("{}, {}", text("w"), text("n"))
        }));
        let arrays = format!(
            "ARRAY[{wrong}]::pg_catalog.bool[] AS wrong, ARRAY[{differ}]::pg_catalog.bool[] AS differ, \
             ARRAY[{shown}]::pg_catalog.text[] AS shown"
        );
        let of_both =
            format!("CASE WHEN {} THEN {right} ELSE {different} END", self.is_all_right());
        let found = if shape.in_place {
            of_both
        } else {
            let of_new = match self.extra_left() {
                Some(left) => format!("CASE WHEN {left} THEN {extra} ELSE {right} END"),
                None => right.to_string(),
            };
            format!(
                "CASE WHEN q0 IS NULL THEN {missing} WHEN k0 IS NULL THEN {of_new} ELSE {of_both} END"
            )
        };
        let join = if Fault::VerifyOneWay.is_planted() { "LEFT JOIN" } else { "FULL JOIN" };
        let pairs = self.pairs(join, pick);
        let columns = list(keys.chain([arrays]));
        format!(
            "(SELECT *, CASE WHEN as_it_is > {right} AND {} THEN {} ELSE as_it_is END AS found \
             FROM (SELECT k0, q0, {columns}, {found} AS as_it_is FROM {pairs} OFFSET 0) AS phasegate_judged \
             OFFSET 0) AS phasegate_found",
            self.is_touched(&numbered("x", 0..shape.keys.len())),
            Found::Pending as u8
        )
    }

    /// What makes a row of the new side extra when its source is gone; none when it may stay.
    fn extra_left(&self) -> Option<String> {
        match self.shape.on_delete {
            OnDelete::Delete => Some("true".to_owned()),
            OnDelete::Nullify => {
                let left = self.shape.written_beside_key().map(|(at, _)| format!("n{at}"));
                let left = list(left);
                Some(if left.is_empty() {
                    "false".to_owned()
                } else {
                    format!("num_nonnulls({left}) > 0")
                })
            }
            OnDelete::Ignore => None,
        }
    }

    /// Locks rows of one side in the order of their keys, and counts them.
    pub(super) fn lock(&self, which: Which, pick: &Pick<'_>) -> String {
        let (rows, order) =
            (self.shape.rows_sql(which, pick), self.shape.key_names(which).join(", "));
        let lock = if Fault::NoRowLock.is_planted() { "" } else { " FOR NO KEY UPDATE" };
        format!(
            "SELECT count(*) FROM (SELECT 1 FROM {rows} ORDER BY {order}{lock}) AS phasegate_locked"
        )
    }

    /// Counts rows of the old side.
    pub(super) fn count(&self, pick: &Pick<'_>) -> String {
        format!("SELECT count(*) FROM {}", self.shape.rows_sql(Which::Old, pick))
    }

    /// Writes the columns of rows that both sides have and that aren't right, group by group; none when the new side has its
    /// key only.
    ///
    /// To another table the rows of both sides must be locked before: what the statement finds is of its own moment. In place
    /// everything but the marks stands in the row itself, which is read again when it had to be waited for, so that with
    /// `forward` nothing need be locked; with `both` it must be.
    pub(super) fn update(&self, pick: &Pick<'_>) -> Option<String> {
        let groups = self.groups();
        if groups.iter().all(Vec::is_empty) {
            return None;
        }
        Some(if self.shape.in_place {
            self.update_in_place(&groups, pick)
        } else {
            self.update_over(&groups, pick)
        })
    }

    fn update_over(&self, groups: &[Vec<usize>], pick: &Pick<'_>) -> String {
        let shape = self.shape;
        let (mut sets, mut rights) = (Vec::new(), Vec::new());
        for (number, group) in groups.iter().enumerate() {
            rights.push(format!("{} AS s{number}", self.is_right(group)));
            for at in group {
                let column = quote(&shape.writes[*at].column);
                sets.push(format!(
                    "{column} = CASE WHEN phasegate_wrong.s{number} THEN phasegate_wrong.n{at} ELSE phasegate_wrong.w{at} END"
                ));
            }
        }
        let names = shape.bare_key(Which::New);
        let key = names.iter().enumerate();
        let key: Vec<String> = key
            .map(|(at, name)| format!("phasegate_target.{name} = phasegate_wrong.q{at}"))
            .collect();
        let right: Vec<String> =
            (0..groups.len()).map(|at| format!("phasegate_wrong.s{at}")).collect();
        format!(
            "UPDATE {} AS phasegate_target SET {} FROM (SELECT *, {} FROM {} OFFSET 0) AS phasegate_wrong \
             WHERE {} AND NOT ({})",
            shape.new.sql(),
            list(sets),
            list(rights),
            self.pairs("JOIN", pick),
            all(&key),
            all(&right)
        )
    }

    fn update_in_place(&self, groups: &[Vec<usize>], pick: &Pick<'_>) -> String {
        let shape = self.shape;
        let table = shape.new.sql();
        let (mut sets, mut stand) = (Vec::new(), Vec::new());
        for group in groups {
            let writes = || group.iter().map(|at| &shape.writes[*at]);
            let held: Vec<String> = writes().map(|write| held_in(&shape.new, write)).collect();
            let values: Vec<String> =
                writes().map(|write| stored_by(&shape.new, write, &write.value)).collect();
            let mut stands = same(&held, &values);
            let kept = self
                .part_of(group)
                .and_then(|(part, _)| self.is_kept(part, &shape.key_names(Which::Old)));
            if let Some(kept) = kept {
                stands = format!("({stands} OR {kept})");
            }
            for write in writes() {
                let column = quote(&write.column);
                // A single group that stands has its row left out.
                sets.push(if groups.len() == 1 {
                    format!("{column} = {}", write.value)
                } else {
                    format!(
                        "{column} = CASE WHEN {stands} THEN {table}.{column} ELSE {} END",
                        write.value
                    )
                });
            }
            stand.push(stands);
        }
        let rows = format!("{}{}", pick.sql(shape, Which::Old), shape.filter_sql(Which::Old));
        format!("UPDATE {table} SET {} WHERE {rows} AND NOT ({})", list(sets), all(&stand))
    }

    /// Takes away what the old side hasn't got (or empties its columns, or neither, as the mapping says), unless it is noted: its row
    /// may have gone to another key, where the copy is to follow. The rows of the new side must be locked before.
    pub(super) fn remove_extra(&self, pick: &Pick<'_>) -> Option<String> {
        let shape = self.shape;
        let table = shape.new.sql();
        let (olds, news) = (shape.key_names(Which::Old), shape.key_names(Which::New));
        let equal: Vec<String> =
            olds.iter().zip(&news).map(|(old, new)| format!("{old} = {new}")).collect();
        let rows = format!(
            "{} AND NOT EXISTS (SELECT 1 FROM {} WHERE {}{}) AND NOT {}",
            pick.sql(shape, Which::New),
            shape.old.sql(),
            all(&equal),
            shape.filter_sql(Which::Old),
            self.is_touched(&news),
        );
        match shape.on_delete {
            OnDelete::Delete => Some(format!("DELETE FROM {table} WHERE {rows}")),
            OnDelete::Nullify => {
                let columns = || shape.written_beside_key().map(|(_, w)| quote(&w.column));
                let left = list(columns().map(|column| format!("{table}.{column}")));
                let sets = list(columns().map(|column| format!("{column} = NULL")));
                (!sets.is_empty()).then(|| {
                    format!("UPDATE {table} SET {sets} WHERE {rows} AND num_nonnulls({left}) > 0")
                })
            }
            OnDelete::Ignore => None,
        }
    }

    /// Takes the marks of parts away that aren't right, so that they are copied anew.
    pub(super) fn forget_kept(&self, pick: &Pick<'_>) -> Vec<String> {
        let Some(kept) = self.kept.as_ref().filter(|_| self.shape.in_place) else {
            return Vec::new();
        };
        let marks = key_row(&self.shape.mark_columns());
        let keys = list(numbered("k", 0..self.shape.keys.len()));
        let pairs = self.pairs("JOIN", pick);
        let groups = self.groups();
        let parts = groups.iter().filter_map(|group| Some((self.part_of(group)?.0, group)));
        parts
            .map(|(part, group)| {
                format!(
                    "DELETE FROM {kept} WHERE part = {part} AND {marks} IN (SELECT {keys} FROM {pairs} WHERE NOT {})",
                    self.is_right(group)
                )
            })
            .collect()
    }
}
