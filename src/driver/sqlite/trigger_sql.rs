//! The triggers that keep two tables in step.
//!
//! A trigger only learns which keys changed. For each it reads the row as it is at that moment (never `NEW`, which is
//! stale when another trigger has changed the row since) and brings the other side's row to where it belongs: written,
//! inserted, or removed. It ends by looking at what came of it, because a client's `OR IGNORE` or `OR REPLACE` overrides
//! conflict handling in here too, and rows would go missing without a word; `RAISE(ABORT)` it can't override.
//!
//! Rows that a client's `OR REPLACE` removes through another unique key fire no delete trigger. A BEFORE trigger notes the
//! keys that share one with the row to come, and the AFTER trigger removes the copies of those that are gone. Where the
//! statement skips the row in between (`OR IGNORE`, `DO NOTHING`), a note is left over, which means nothing and which
//! `settle` removes.
//!
//! With `both` there are such triggers on both tables, and nothing guards against a circle but the rule itself: a trigger
//! leaves alone what is right, and every statement of a trigger leaves its row right. So writes of users' triggers in
//! between are followed, whichever row they touch.
//!
//! Absent on purpose: `OR FAIL`. A client that uses it keeps half of a failed statement, with or without us; where only the
//! new side refuses a row, verify finds the difference. And with `recursive_triggers` off, which is the default, SQLite
//! doesn't run a trigger inside itself: a user's trigger on the written table that writes other rows of the first one is
//! refused by `install`.

use super::catalogue::quote;
use super::shape::{Shape, Side, Unique};
use super::shape_sql::{Naming, Which, all, any, literal};
use crate::run::{Direction, OnDelete};

/// Keys noted by triggers for later.
pub(super) const TOUCHED: &str = "phasegate_touched";

/// What notes of copies that differ for the moment are marked with.
pub(super) const PENDING: &str = "pending";

/// A trigger of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TriggerSql {
    pub name: String,
    /// The table it stands on.
    pub which: Which,
    pub sql: String,
}

/// When a trigger fires: the words behind its name, up to the table.
pub(super) fn trigger(
    shape: &Shape,
    which: Which,
    kind: &str,
    head: &str,
    condition: Option<String>,
    body: &[String],
) -> TriggerSql {
    let side = match which {
        Which::Old => "a",
        Which::New => "b",
    };
    let name = format!("phasegate_{}_{side}_{kind}", shape.id);
    let when = condition.map_or_else(String::new, |condition| format!(" WHEN {condition}"));
    let sql = format!(
        "CREATE TRIGGER {} {head} ON {} FOR EACH ROW{when} BEGIN\n{};\nEND",
        quote(&name),
        shape.table(which),
        body.join(";\n")
    );
    TriggerSql { name, which, sql }
}

/// The triggers that keep two tables in step.
pub(super) fn table_triggers(shape: &Shape, direction: Direction) -> Vec<TriggerSql> {
    let mut triggers = Flow { shape, direction, from: Which::Old }.triggers();
    if direction == Direction::Both {
        triggers.extend(Flow { shape, direction, from: Which::New }.triggers());
    }
    triggers
}

/// The condition of a row of notes: made for the row of `key` by a statement on `side`.
pub(super) fn noted_for(shape: &Shape, side: &str, key: &[String]) -> String {
    let mut conditions = vec![
        format!("{TOUCHED}.mapping = {}", literal(&shape.id)),
        format!("{TOUCHED}.side = {}", literal(side)),
    ];
    let columns = key.iter().enumerate();
    conditions.extend(columns.map(|(at, value)| format!("{TOUCHED}.b{} IS +{value}", at + 1)));
    all(&conditions)
}

/// The columns of a note that hold the noted key.
pub(super) fn noted_key(shape: &Shape) -> Vec<String> {
    (1..=shape.keys.len()).map(|at| format!("{TOUCHED}.k{at}")).collect()
}

/// The statement that notes keys: `what` follows FROM and WHERE, and `found` are its key columns.
pub(super) fn note(
    shape: &Shape,
    side: &str,
    by: &[String],
    found: &[String],
    what: &str,
) -> String {
    let width = shape.keys.len();
    let columns: Vec<String> = (1..=width)
        .map(|at| format!("b{at}"))
        .chain((1..=width).map(|at| format!("k{at}")))
        .collect();
    let values: Vec<String> = by.iter().chain(found).cloned().collect();
    let known: Vec<String> = found
        .iter()
        .enumerate()
        .map(|(at, key)| format!("{TOUCHED}.k{} IS +{key}", at + 1))
        .collect();
    format!(
        "INSERT INTO {TOUCHED} (mapping, side, {}) SELECT {}, {}, {} FROM {what} \
         AND NOT EXISTS (SELECT 1 FROM {TOUCHED} WHERE {} AND {})",
        columns.join(", "),
        literal(&shape.id),
        literal(side),
        values.join(", "),
        noted_for(shape, side, by),
        all(&known),
    )
}

/// That rows of `side`'s table share a unique key with the row that `image` stands for, an expression for each column.
pub(super) fn shares(unique: &Unique, table: &str, image: impl Fn(&str) -> String) -> String {
    let aliases: Vec<String> = unique
        .reads
        .iter()
        .map(|column| format!("{} AS {}", image(column), quote(column)))
        .collect();
    let conditions: Vec<String> = unique
        .parts
        .iter()
        .map(|(part, collation)| {
            // The rowid is no column of its own, so nothing is read but itself.
            let column = unique.reads.iter().find(|column| quote(column) == *part);
            let is_name = column.is_some() || unique.reads.is_empty();
            let theirs = if is_name {
                image(column.map_or(part.trim_matches('"'), String::as_str))
            } else {
                format!("(SELECT {part} FROM (SELECT {}) AS {table})", aliases.join(", "))
            };
            let ours = if is_name { format!("{table}.{part}") } else { part.clone() };
            format!("{ours} = {theirs} COLLATE {}", quote(collation))
        })
        .collect();
    all(&conditions)
}

/// Writes on one table, and what they do to the other.
pub(super) struct Flow<'a> {
    pub(super) shape: &'a Shape,
    direction: Direction,
    /// The table that clients write.
    pub(super) from: Which,
}

impl Flow<'_> {
    fn side(&self, which: Which) -> &Side {
        match which {
            Which::Old => &self.shape.old,
            Which::New => &self.shape.new,
        }
    }

    fn triggers(&self) -> Vec<TriggerSql> {
        let make = |kind: &str, head: &str, condition, body: &[String]| {
            trigger(self.shape, self.from, kind, head, condition, body)
        };
        let new = self.shape.trigger_key(self.from, "NEW");
        let old = self.shape.trigger_key(self.from, "OLD");
        let changed = format!("NOT {}", self.shape.keys_are_equal(&old, &new));
        let mut triggers = Vec::new();

        let uniques = &self.side(self.from).uniques;
        if !uniques.is_empty() {
            let notes: Vec<String> = uniques.iter().map(|u| self.note_victims(u, None)).collect();
            triggers.push(make("bi", "BEFORE INSERT", None, &notes));
        }
        for (at, unique) in uniques.iter().enumerate() {
            let differs: Vec<String> = unique
                .parts
                .iter()
                .map(|(part, _)| format!("OLD.{part} IS NOT NEW.{part} COLLATE BINARY"))
                .collect();
            let condition = unique.is_plain.then(|| any(&differs));
            let notes = [self.note_victims(unique, Some(&old))];
            triggers.push(make(&format!("bu{at}"), "BEFORE UPDATE", condition, &notes));
        }

        let mut inserted = self.remove_victims(&self.made_for_inserted(&new));
        inserted.extend(self.sync(&new));
        triggers.push(make("ai", "AFTER INSERT", None, &inserted));

        let mut updated = self.remove_victims(&noted_for(self.shape, self.tag(), &new));
        updated.extend(self.was_in_filter(&old, Some(&changed)));
        updated.push(self.move_key(&old, &new, &changed));
        updated.extend(self.remove(&old, Some(&changed)));
        updated.push(self.check(&old, Some(&changed)));
        updated.extend(self.sync(&new));
        triggers.push(make("au", "AFTER UPDATE", None, &updated));

        let mut deleted = self.remove(&old, None);
        deleted.push(self.check(&old, None));
        triggers.push(make("ad", "AFTER DELETE", None, &deleted));
        triggers
    }

    /// What notes of this table's victims are marked with.
    const fn tag(&self) -> &'static str {
        match self.from {
            Which::Old => "old",
            Which::New => "new",
        }
    }

    /// What notes of rows that our own writes may have removed are marked with.
    const fn risk_tag(&self) -> &'static str {
        match self.from {
            Which::Old => "risk-new",
            Which::New => "risk-old",
        }
    }

    /// Notes which rows the one to come could replace. `except` is the key of the row that is updated.
    fn note_victims(&self, unique: &Unique, except: Option<&[String]>) -> String {
        let (shape, table) = (self.shape, self.shape.table(self.from));
        let new = shape.trigger_key(self.from, "NEW");
        let by = if except.is_none() && self.side(self.from).key_is_drawn {
            vec!["NULL".to_owned(); new.len()]
        } else {
            new.clone()
        };
        let found = shape.key(self.from);
        let shares = shares(unique, &table, |column| format!("NEW.{}", quote(column)));
        let but = shape.keys_are_equal(&found, except.unwrap_or(&new));
        note(shape, self.tag(), &by, &found, &format!("{table} WHERE {shares} AND NOT {but}"))
    }

    /// Which notes were made for an inserted row. Before the insert a rowid yet to be given reads as -1, and a drawn
    /// default as something else.
    fn made_for_inserted(&self, new: &[String]) -> String {
        let mine = noted_for(self.shape, self.tag(), new);
        let unknown = if self.side(self.from).key_is_rowid {
            "-1"
        } else if self.side(self.from).key_is_drawn {
            "NULL"
        } else {
            return mine;
        };
        let unknown = vec![unknown.to_owned(); new.len()];
        format!("({mine} OR {})", noted_for(self.shape, self.tag(), &unknown))
    }

    /// Removes the copies of noted rows that are gone, and the notes.
    fn remove_victims(&self, mine: &str) -> Vec<String> {
        if self.side(self.from).uniques.is_empty() {
            return Vec::new();
        }
        let mut statements =
            remove_gone(self.shape, self.from, mine).into_iter().collect::<Vec<_>>();
        statements.push(format!("DELETE FROM {TOUCHED} WHERE {mine}"));
        statements
    }

    /// Where the key of a row changed and its copy can follow, it does so as one row: its other columns and what refers
    /// to it stay with it.
    fn move_key(&self, old: &[String], new: &[String], changed: &str) -> String {
        let (shape, to) = (self.shape, self.from.other());
        let mut columns = shape.key_names(to);
        let mut values: Vec<String> = new.to_vec();
        for (at, write) in shape.written_beside_key(to) {
            columns.push(quote(&write.column));
            values.push(self.value(at));
        }
        let (old_key, new_key) = match self.from {
            Which::Old => (new, old),
            Which::New => (old, new),
        };
        let pair = shape.pair(
            self.direction,
            &shape.key_is(Which::Old, old_key),
            &shape.key_is(Which::New, new_key),
        );
        format!(
            "UPDATE {} SET ({}) = (SELECT {} FROM {pair}) WHERE {} AND {changed} AND NOT {} AND {} \
             AND NOT EXISTS (SELECT 1 FROM {} WHERE {})",
            shape.table(to),
            columns.join(", "),
            values.join(", "),
            shape.key_is(to, old),
            shape.has(self.from, old),
            shape.has(self.from, new),
            shape.table(to),
            shape.key_is(to, new),
        )
    }

    /// A column's new value in a pair: what the mapping says, but for parts that are right as they are.
    fn value(&self, at: usize) -> String {
        let (theirs, ours) = match self.from {
            Which::Old => (format!("w{at}"), format!("n{at}")),
            Which::New => (format!("r{at}"), format!("o{at}")),
        };
        if self.direction == Direction::Forward {
            return theirs;
        }
        let is_in = |part: &super::shape::Part| match self.from {
            Which::Old => part.writes.contains(&at),
            Which::New => part.reverse.contains(&at),
        };
        match self.shape.parts.iter().position(is_in) {
            Some(part) => {
                let right = self.shape.part_is_right(part, self.direction, Naming::Pair);
                format!("CASE WHEN {right} THEN {ours} ELSE {theirs} END")
            }
            None => theirs,
        }
    }

    /// Removes the copy of a row that is gone or that the filter no longer lets pass.
    fn remove(&self, key: &[String], condition: Option<&str>) -> Vec<String> {
        let (shape, to) = (self.shape, self.from.other());
        let condition = condition.map_or_else(String::new, |condition| format!(" AND {condition}"));
        let which =
            format!("{}{condition} AND NOT {}", shape.key_is(to, key), shape.has(self.from, key));
        removal(shape, to, &which).into_iter().collect()
    }

    /// Brings the other side's row of a key to where it belongs.
    fn sync(&self, key: &[String]) -> Vec<String> {
        let (shape, to) = (self.shape, self.from.other());
        let mut statements = self.remove(key, None);
        statements.extend(self.was_in_filter(key, None));
        statements.extend(self.note_risks(key));
        let (stand_by, still_there) = self.watch_filter(key);
        statements.extend(stand_by);
        let written: Vec<(usize, String)> =
            shape.written(to).iter().enumerate().map(|(at, w)| (at, quote(&w.column))).collect();
        let right = shape.is_right_at(self.direction, key, key);
        if !written.is_empty() {
            let columns: Vec<&str> = written.iter().map(|(_, column)| column.as_str()).collect();
            let values: Vec<String> = written.iter().map(|(at, _)| self.value(*at)).collect();
            let pair = shape.pair(
                self.direction,
                &shape.key_is(Which::Old, key),
                &shape.key_is(Which::New, key),
            );
            statements.push(format!(
                "UPDATE {} SET ({}) = (SELECT {} FROM {pair}) WHERE {} AND {} AND NOT {right}",
                shape.table(to),
                columns.join(", "),
                values.join(", "),
                shape.key_is(to, key),
                shape.has(self.from, key),
            ));
        }
        let (columns, values) = shape.insertion(to);
        statements.push(format!(
            "INSERT INTO {} ({columns}) SELECT {values} FROM {} WHERE {}{} AND NOT EXISTS (SELECT 1 FROM {} WHERE {})",
            shape.table(to),
            shape.table(self.from),
            shape.key_is(self.from, key),
            shape.and_filter(self.from),
            shape.table(to),
            shape.key_is(to, key),
        ));
        statements.extend(self.check_risks(key));
        statements.extend(still_there);
        statements.extend(self.defer(key));
        statements.push(self.check(key, None));
        statements
    }

    /// Notes which rows of the other side our own write would replace, were the client's statement an `OR REPLACE`.
    fn note_risks(&self, key: &[String]) -> Vec<String> {
        let (shape, to) = (self.shape, self.from.other());
        let (table, source) = (shape.table(to), shape.table(self.from));
        let value = |column: &str| {
            let pairs = shape.key_names(to).into_iter().zip(shape.key(self.from));
            let writes = shape.written(to).iter().map(|w| (quote(&w.column), w.value.clone()));
            pairs.chain(writes).find(|(name, _)| *name == quote(column)).map(|(_, value)| value)
        };
        let at_risk = |unique: &&Unique| {
            !unique.reads.is_empty() && unique.reads.iter().all(|column| value(column).is_some())
        };
        let note_one = |unique: &Unique| {
            let values: Vec<String> = unique
                .reads
                .iter()
                .enumerate()
                .map(|(at, column)| {
                    format!("{} AS phasegate_v{at}", value(column).unwrap_or_default())
                })
                .collect();
            let image = |column: &str| {
                let at = unique.reads.iter().position(|read| read == column).unwrap_or_default();
                format!("v.phasegate_v{at}")
            };
            let is = format!("{}{}", shape.key_is(self.from, key), shape.and_filter(self.from));
            // A row that has no source any more may go.
            let what = format!(
                "(SELECT {} FROM {source} WHERE {is}) AS v, {table} WHERE {} AND NOT ({}) AND {}",
                values.join(", "),
                shares(unique, &table, image),
                shape.key_is(to, key),
                shape.has(self.from, &shape.key(to)),
            );
            note(shape, self.risk_tag(), key, &shape.key(to), &what)
        };
        self.side(to).uniques.iter().filter(at_risk).map(note_one).collect()
    }

    /// Notes a copy that differs where users have triggers on its table, and takes the note back when it no longer does.
    ///
    /// A trigger that stands on both tables (as `retire` asks) may have changed the copy already and the row itself not
    /// yet; then the write of the row that is to come mends it. Otherwise `settle` tries once more, and verify shows it.
    fn defer(&self, key: &[String]) -> Vec<String> {
        if self.direction == Direction::Both {
            return Vec::new();
        }
        let shape = self.shape;
        let mine = noted_for(shape, PENDING, key);
        let right = shape.is_right_at(self.direction, key, key);
        let found = shape.key(Which::New);
        let what = format!(
            "{} WHERE {} AND {} AND NOT {right} AND {}",
            shape.table(Which::New),
            shape.key_is(Which::New, key),
            shape.has(Which::Old, key),
            self.has_users_triggers(),
        );
        let done = format!("(NOT {} OR {right})", shape.has(Which::Old, key));
        vec![
            format!("DELETE FROM {TOUCHED} WHERE {mine} AND {done}"),
            note(shape, PENDING, key, &found, &what),
        ]
    }

    /// That users have triggers on the written table, as things are when the trigger runs.
    fn has_users_triggers(&self) -> String {
        format!(
            "EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND tbl_name = {} COLLATE NOCASE \
             AND substr(name, 1, 10) <> 'phasegate_')",
            literal(&self.side(self.from.other()).table)
        )
    }

    /// Refuses the client's statement if a row that has its source lost its copy.
    fn check_risks(&self, key: &[String]) -> Vec<String> {
        if self.note_risks(key).is_empty() {
            return Vec::new();
        }
        let (shape, to) = (self.shape, self.from.other());
        let mine = noted_for(shape, self.risk_tag(), key);
        let noted = noted_key(shape);
        let message = format!(
            "phasegate: the row would replace another one in {} (mapping {})",
            self.side(to).table,
            shape.mapping
        );
        vec![
            format!(
                "SELECT RAISE(ABORT, {}) WHERE EXISTS (SELECT 1 FROM {TOUCHED} WHERE {mine} \
                 AND NOT EXISTS (SELECT 1 FROM {} WHERE {}))",
                literal(&message),
                shape.table(to),
                shape.key_is(to, &noted),
            ),
            format!("DELETE FROM {TOUCHED} WHERE {mine}"),
        ]
    }

    /// Refuses the client's statement if the other side's row is not where it belongs.
    fn check(&self, key: &[String], condition: Option<&str>) -> String {
        let (shape, to) = (self.shape, self.from.other());
        let has = shape.has(self.from, key);
        let right = shape.is_right_at(self.direction, key, key);
        let wrong = match self.direction {
            Direction::Forward => format!(
                "({has} AND NOT {right} AND NOT ({} AND {}))",
                shape.has(to, key),
                self.has_users_triggers()
            ),
            Direction::Both => format!("({has} AND NOT {right})"),
        };
        let stays = match shape.on_delete {
            OnDelete::Delete => format!(" OR (NOT {has} AND {})", shape.has(to, key)),
            OnDelete::Nullify | OnDelete::Ignore => String::new(),
        };
        let condition = condition.map_or_else(String::new, |condition| format!("{condition} AND "));
        let message = format!(
            "phasegate: the row of {} could not be kept in step (mapping {})",
            self.side(to).table,
            shape.mapping
        );
        format!("SELECT RAISE(ABORT, {}) WHERE {condition}({wrong}{stays})", literal(&message))
    }
}

/// What becomes of rows whose source is gone. With `both` a row of the old side goes only if the filter lets it pass.
fn removal(shape: &Shape, to: Which, which: &str) -> Option<String> {
    let table = shape.table(to);
    match (shape.on_delete, to) {
        (OnDelete::Delete, _) | (_, Which::Old) => {
            Some(format!("DELETE FROM {table} WHERE {which}{}", shape.and_filter(to)))
        }
        (OnDelete::Nullify, Which::New) => {
            let columns: Vec<String> =
                shape.written_beside_key(to).map(|(_, write)| quote(&write.column)).collect();
            let sets: Vec<String> = columns.iter().map(|name| format!("{name} = NULL")).collect();
            let left: Vec<String> =
                columns.iter().map(|name| format!("{table}.{name} IS NOT NULL")).collect();
            (!columns.is_empty()).then(|| {
                format!("UPDATE {table} SET {} WHERE {which} AND {}", sets.join(", "), any(&left))
            })
        }
        (OnDelete::Ignore, Which::New) => None,
    }
}

/// The statements that try once more to make noted copies right, and forget those that are.
pub(super) fn settle_pending(shape: &Shape) -> Vec<String> {
    let mine = all(&[
        format!("{TOUCHED}.mapping = {}", literal(&shape.id)),
        format!("{TOUCHED}.side = {}", literal(PENDING)),
    ]);
    let noted = noted_key(shape);
    let right = shape.is_right_at(Direction::Forward, &noted, &noted);
    let mut statements = Vec::new();
    if !shape.writes.is_empty() {
        let columns: Vec<String> = shape.writes.iter().map(|w| quote(&w.column)).collect();
        let values: Vec<&str> = shape.writes.iter().map(|w| w.value.as_str()).collect();
        let key = shape.key(Which::New);
        statements.push(format!(
            "UPDATE {} SET ({}) = (SELECT {} FROM {} WHERE {}{}) WHERE {} IN (SELECT {} FROM {TOUCHED} WHERE {mine} AND NOT {right}) AND {}",
            shape.table(Which::New),
            columns.join(", "),
            values.join(", "),
            shape.table(Which::Old),
            shape.key_is(Which::Old, &key),
            shape.and_filter(Which::Old),
            shape.key_row(Which::New),
            noted.join(", "),
            shape.has(Which::Old, &key),
        ));
    }
    statements.push(format!(
        "DELETE FROM {TOUCHED} WHERE {mine} AND (NOT {} OR {right})",
        shape.has(Which::Old, &noted)
    ));
    statements
}

/// Removes the other side's rows for noted keys that are gone from `from`. `mine` says which notes.
pub(super) fn remove_gone(shape: &Shape, from: Which, mine: &str) -> Option<String> {
    let noted = noted_key(shape);
    let which = format!(
        "{} IN (SELECT {} FROM {TOUCHED} WHERE {mine} AND NOT {})",
        shape.key_row(from.other()),
        noted.join(", "),
        shape.has(from, &noted),
    );
    removal(shape, from.other(), &which)
}
