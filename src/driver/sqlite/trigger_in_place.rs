//! The triggers that keep columns of one table in step.
//!
//! Forward, every write of a row leaves its target columns as the mapping says.
//!
//! With `both` it depends on who wrote, part by part (a part is a group of columns that depend on each other): a changed
//! column of one side brings the other side's after it; if both changed, the mapping's winner. A client of the new shape
//! that names a target column without changing it has written it too, so that its NULL over a value not yet converted
//! stands: it is found by `UPDATE OF`. What such a client wrote and the mapping would have otherwise is entered in the
//! table of kept keys, which the copy passes by. A change of the key alone converts the row, and so does what
//! brings it into the mapping's filter. An inserted row belongs to the side that differs from its defaults; if
//! both do, to the mapping's winner; else to the old one.
//!
//! Nothing depends on the order of triggers, and nothing on whether they fire inside each other: the entry in the table of
//! kept keys is made before the old columns are written, and what is kept and agrees is left alone.

use super::catalogue::{Affinity, Generated, quote, same_name};
use super::shape::{Part, Shape};
use super::shape_sql::{KEPT, Naming, Which, all, any, literal};
use super::trigger_sql::{TOUCHED, TriggerSql, note, noted_for, noted_key, shares, trigger};
use crate::run::{Direction, Winner};

/// The triggers that keep columns of one table in step.
pub(super) fn in_place_triggers(shape: &Shape, direction: Direction) -> Vec<TriggerSql> {
    match direction {
        Direction::Forward => forward_triggers(shape),
        Direction::Both => both_triggers(shape),
    }
}

fn forward_triggers(shape: &Shape) -> Vec<TriggerSql> {
    let key = shape.trigger_key(Which::Old, "NEW");
    let pair = shape.pair_of(Direction::Forward, &key, &key);
    let wrong = format!(
        "EXISTS (SELECT 1 FROM {pair} WHERE NOT ({}))",
        shape.is_right(Direction::Forward, Naming::Pair)
    );
    let columns: Vec<String> = shape.writes.iter().map(|write| quote(&write.column)).collect();
    let values: Vec<String> = (0..columns.len()).map(|at| format!("w{at}")).collect();
    let write = format!(
        "UPDATE {} SET ({}) = (SELECT {} FROM {pair}) WHERE {} AND {wrong}",
        shape.table(Which::Old),
        columns.join(", "),
        values.join(", "),
        shape.key_is(Which::Old, &key),
    );
    let mut body = note_risks(shape, &key);
    body.push(write);
    body.extend(check_risks(shape, &key));
    body.push(refuse(shape, &wrong));
    let make = |kind, head| trigger(shape, Which::Old, kind, head, Some(wrong.clone()), &body);
    vec![make("ai", "AFTER INSERT"), make("au", "AFTER UPDATE")]
}

fn refuse(shape: &Shape, wrong: &str) -> String {
    let message = format!(
        "phasegate: the columns of {} could not be kept in step (mapping {})",
        shape.old.table, shape.mapping
    );
    format!("SELECT RAISE(ABORT, {}) WHERE {wrong}", literal(&message))
}

/// Notes which other rows our own write would replace, were the client's statement an `OR REPLACE`.
fn note_risks(shape: &Shape, key: &[String]) -> Vec<String> {
    let table = shape.table(Which::Old);
    let written = |column: &str| {
        let write = shape.writes.iter().find(|write| same_name(&write.column, column));
        write.map(|write| write.value.clone())
    };
    let at_risk = shape
        .old
        .uniques
        .iter()
        .filter(|unique| unique.reads.iter().any(|column| written(column).is_some()));
    at_risk
        .map(|unique| {
            let values: Vec<String> = unique
                .reads
                .iter()
                .enumerate()
                .map(|(at, column)| {
                    let own = || format!("{table}.{}", quote(column));
                    format!("{} AS phasegate_v{at}", written(column).unwrap_or_else(own))
                })
                .collect();
            let image = |column: &str| {
                let at = unique.reads.iter().position(|read| read == column).unwrap_or_default();
                format!("v.phasegate_v{at}")
            };
            let what = format!(
                "(SELECT {} FROM {table} WHERE {}{}) AS v, {table} WHERE {} AND NOT ({})",
                values.join(", "),
                shape.key_is(Which::Old, key),
                shape.and_filter(Which::Old),
                shares(unique, &table, image),
                shape.key_is(Which::Old, key),
            );
            note(shape, "risk-old", key, &shape.key(Which::Old), &what)
        })
        .collect()
}

/// Refuses the client's statement if our own write removed another row.
fn check_risks(shape: &Shape, key: &[String]) -> Vec<String> {
    if note_risks(shape, key).is_empty() {
        return Vec::new();
    }
    let mine = noted_for(shape, "risk-old", key);
    let lost = format!(
        "EXISTS (SELECT 1 FROM {TOUCHED} WHERE {mine} AND NOT EXISTS (SELECT 1 FROM {} WHERE {}))",
        shape.table(Which::Old),
        shape.key_is(Which::Old, &noted_key(shape)),
    );
    vec![refuse(shape, &lost), format!("DELETE FROM {TOUCHED} WHERE {mine}")]
}

/// One part of a row of `NEW`'s key.
struct PartOf<'a> {
    shape: &'a Shape,
    at: usize,
    part: &'a Part,
    key: Vec<String>,
}

impl PartOf<'_> {
    fn pair(&self) -> String {
        self.shape.pair_of(Direction::Both, &self.key, &self.key)
    }

    /// That the row is in the mapping and the condition holds of this part.
    fn is(&self, condition: &str) -> String {
        format!("EXISTS (SELECT 1 FROM {} WHERE {condition})", self.pair())
    }

    fn forward(&self) -> String {
        self.shape.forward_holds(self.part, Naming::Pair)
    }

    /// Enters the part as kept, if the mapping would have it otherwise.
    fn keep(&self, when: &str) -> String {
        let width = self.key.len();
        let columns: Vec<String> = (1..=width).map(|at| format!("k{at}")).collect();
        format!(
            "INSERT INTO {KEPT} (mapping, part, {}) SELECT {}, {}, {} WHERE {when} AND {} AND NOT {}",
            columns.join(", "),
            literal(&self.shape.id),
            self.at,
            self.key.join(", "),
            self.is(&format!("NOT ({})", self.forward())),
            self.shape.is_kept(self.at, &self.key),
        )
    }

    /// Takes the part off the kept ones, if the mapping would have it as it is.
    fn unkeep(&self) -> String {
        let mine = self.shape.kept_key(Some(self.at), &self.key);
        format!("DELETE FROM {KEPT} WHERE {mine} AND {}", self.is(&self.forward()))
    }

    /// Brings the old columns after the new ones.
    fn write_back(&self, when: &str) -> Option<String> {
        let places = &self.part.reverse;
        let columns: Vec<String> =
            places.iter().map(|at| quote(&self.shape.reverse[*at].column)).collect();
        let values: Vec<String> = places.iter().map(|at| format!("r{at}")).collect();
        let back = self.shape.back_holds(self.part, Naming::Pair);
        (!places.is_empty()).then(|| {
            format!(
                "UPDATE {} SET ({}) = (SELECT {} FROM {}) WHERE {} AND {when} AND {}",
                self.shape.table(Which::Old),
                columns.join(", "),
                values.join(", "),
                self.pair(),
                self.shape.key_is(Which::Old, &self.key),
                self.is(&format!("NOT ({}) AND NOT ({back})", self.forward())),
            )
        })
    }

    /// Brings the new columns after the old ones, but for a part that is kept and agrees.
    fn write_forward(&self, when: &str) -> Option<String> {
        let places = &self.part.writes;
        let columns: Vec<String> =
            places.iter().map(|at| quote(&self.shape.writes[*at].column)).collect();
        let values: Vec<String> = places.iter().map(|at| format!("w{at}")).collect();
        (!places.is_empty()).then(|| {
            format!(
                "UPDATE {} SET ({}) = (SELECT {} FROM {}) WHERE {} AND {when} AND {}",
                self.shape.table(Which::Old),
                columns.join(", "),
                values.join(", "),
                self.pair(),
                self.shape.key_is(Which::Old, &self.key),
                self.is(&format!("NOT {}", self.right())),
            )
        })
    }

    fn right(&self) -> String {
        self.shape.part_is_right(self.at, Direction::Both, Naming::Pair)
    }

    /// What follows a write: `new` says whether it counts as the new side's, `old` whether as the old side's.
    ///
    /// Each column is written twice over, the second time only if a user's trigger has changed the row in between.
    fn follow(&self, new: &str, old: &str) -> Vec<String> {
        let either = format!("({new} OR {old})");
        let mut body = vec![self.keep(new)];
        for _ in 0..2 {
            body.extend(self.write_back(new));
            body.extend(self.write_forward(old));
        }
        body.push(self.unkeep());
        body.push(refuse(
            self.shape,
            &format!("{either} AND {}", self.is(&format!("NOT {}", self.right()))),
        ));
        body
    }

    /// That a column of the part changed, on the new side or on the old one.
    fn changed(&self, which: Which) -> String {
        let columns: Vec<&String> = match which {
            Which::New => {
                self.part.writes.iter().map(|at| &self.shape.writes[*at].column).collect()
            }
            Which::Old => self.part.old_columns.iter().collect(),
        };
        let changed = |column: &&String| {
            let name = quote(column);
            format!(
                "OLD.{name} IS NOT NEW.{name} COLLATE BINARY OR typeof(OLD.{name}) <> typeof(NEW.{name})"
            )
        };
        any(&columns.iter().map(changed).collect::<Vec<_>>())
    }

    /// That an inserted row has something other than the default in a column of the part.
    fn is_given(&self, which: Which) -> String {
        let columns: Vec<&String> = match which {
            Which::New => {
                self.part.writes.iter().map(|at| &self.shape.writes[*at].column).collect()
            }
            Which::Old => self.part.old_columns.iter().collect(),
        };
        let given = |name: &&String| {
            let column = self.shape.old.column(name);
            let default = column.and_then(|column| column.default.clone());
            let default = format!("({}\n)", default.as_deref().unwrap_or("NULL"));
            let name = quote(name);
            let stored = match column.map(|column| column.affinity) {
                Some(Affinity::Text) => format!("CAST({default} AS TEXT)"),
                Some(Affinity::Real) => format!("CAST({default} AS REAL)"),
                Some(Affinity::Integer | Affinity::Numeric) => {
                    format!("CAST({default} AS NUMERIC)")
                }
                Some(Affinity::Blob) | None => default.clone(),
            };
            format!(
                "(NEW.{name} IS NOT {default} COLLATE BINARY AND NEW.{name} IS NOT {stored} COLLATE BINARY)"
            )
        };
        any(&columns.iter().map(given).collect::<Vec<_>>())
    }
}

/// That the row was outside the mapping's filter until now.
fn entered(shape: &Shape) -> String {
    let Some(filter) = &shape.filter else { return "0".to_owned() };
    let columns: Vec<String> = shape
        .old
        .columns
        .iter()
        .filter(|column| column.generated != Generated::Hidden)
        .map(|column| format!("OLD.{0} AS {0}", quote(&column.name)))
        .collect();
    format!(
        "NOT EXISTS (SELECT 1 FROM (SELECT {}) AS {} WHERE {filter})",
        columns.join(", "),
        shape.table(Which::Old)
    )
}

fn both_triggers(shape: &Shape) -> Vec<TriggerSql> {
    let new = shape.trigger_key(Which::Old, "NEW");
    let old = shape.trigger_key(Which::Old, "OLD");
    let parts: Vec<PartOf<'_>> = shape
        .parts
        .iter()
        .enumerate()
        .map(|(at, part)| PartOf { shape, at, part, key: new.clone() })
        .collect();
    let make = |kind: &str, head: &str, condition, body: &[String]| {
        trigger(shape, Which::Old, kind, head, condition, body)
    };
    let forget = |key: &[String]| format!("DELETE FROM {KEPT} WHERE {}", shape.kept_key(None, key));
    let mut triggers = Vec::new();

    let mut inserted = vec![forget(&new)];
    inserted.extend(note_risks(shape, &new));
    for part in &parts {
        let (news, olds) = (part.is_given(Which::New), part.is_given(Which::Old));
        let is_new = match shape.winner {
            Winner::New if !part.part.reverse.is_empty() => news,
            Winner::New | Winner::Old => format!("({news} AND NOT {olds})"),
        };
        inserted.extend(part.follow(&is_new, &format!("NOT {is_new}")));
    }
    inserted.extend(check_risks(shape, &new));
    triggers.push(make("ai", "AFTER INSERT", None, &inserted));

    let same: Vec<String> =
        old.iter().zip(&new).map(|(old, new)| format!("{old} IS {new} COLLATE BINARY")).collect();
    let moved = format!("NOT ({})", all(&same));
    let sets: Vec<String> =
        new.iter().enumerate().map(|(at, key)| format!("k{} = {key}", at + 1)).collect();
    let mut updated = vec![
        format!("{} AND {moved}", forget(&new)),
        format!(
            "UPDATE {KEPT} SET {} WHERE {} AND {moved}",
            sets.join(", "),
            shape.kept_key(None, &old)
        ),
    ];
    updated.extend(note_risks(shape, &new));
    for part in &parts {
        let (news, olds) = (part.changed(Which::New), part.changed(Which::Old));
        let is_kept = shape.is_kept(part.at, &new);
        // Outside the filter nobody kept the sides in step, so a row that comes into it is converted, whatever was written.
        let alone = format!(
            "(NOT {news} AND NOT {olds} AND ({moved} OR {}) AND NOT {is_kept})",
            entered(shape)
        );
        let (is_new, is_old) = match shape.winner {
            Winner::New => (news.clone(), format!("(({olds} AND NOT {news}) OR {alone})")),
            Winner::Old => (format!("({news} AND NOT {olds})"), format!("({olds} OR {alone})")),
        };
        updated.extend(part.follow(&is_new, &is_old));
    }
    updated.extend(check_risks(shape, &new));
    triggers.push(make("au", "AFTER UPDATE", None, &updated));

    for part in parts.iter().filter(|part| !part.part.writes.is_empty()) {
        let columns: Vec<String> =
            part.part.writes.iter().map(|at| quote(&shape.writes[*at].column)).collect();
        let unchanged =
            format!("NOT {} AND NOT {}", part.changed(Which::New), part.changed(Which::Old));
        let head = format!("AFTER UPDATE OF {}", columns.join(", "));
        triggers.push(make(
            &format!("am{}", part.at),
            &head,
            Some(unchanged),
            &part.follow("1", "0"),
        ));
    }
    triggers.push(make("ad", "AFTER DELETE", None, &[forget(&old)]));
    triggers
}
