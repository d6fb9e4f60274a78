//! The functions that bring the other side's row of one key to where it belongs, and let a counterpart follow a changed key.
//!
//! Invariants:
//! - A source row counts only as this transaction has written it.
//! - With `both` the counterpart is locked in one statement and judged in the next.
//! - A row of the old side that the mapping's filter hides is never written from the new side: what would do so is refused.
//!
//! Absent on purpose: which keys changed, which is the row trigger's in `trigger_sql`.

use super::catalogue::{Index, literal, quote};
use super::marks::{ENDED, LEFT, MOVED, Noted};
use super::planted::Fault;
use super::same::{held_by, same, stored_by};
use super::shape::{Shape, Write};
use super::sync_sql::{Side, all, body, cast, removal};
use super::trigger_sql::{Flow, Holder, KEY, MOVED_FROM, MOVED_TO};
use crate::run::{Direction, OnDelete};

impl Flow<'_> {
    /// Behind FROM: the source row of a key, as this transaction has written it.
    pub(super) fn source(&self, holder: Holder) -> String {
        let alias = quote(&self.shape.side(self.from).name);
        if Fault::NewInsteadOfReread.is_planted() {
            let (table, key) =
                (self.shape.side(self.from).sql(), self.key_is(self.from, &alias, holder));
            let new = format!("nullif(current_setting('phasegate.new', true), '')::{table}");
            let filter = self.shape.and_filter(self.from);
            return format!("(SELECT ({new}).*) AS {alias} WHERE {key}{filter}");
        }
        format!(
            "{} WHERE {} AND {}{}",
            self.shape.named(self.from),
            self.key_is(self.from, &alias, holder),
            self.is_ours(&alias),
            self.shape.and_filter(self.from),
        )
    }

    /// That a row of a key that this transaction has written is the one that it wrote. Under READ COMMITTED there is no other.
    /// An older view may show one beside it, or instead of it, that others have deleted since: in such a row they left who did.
    pub(super) fn is_ours(&self, alias: &str) -> String {
        format!(
            "({alias}.xmax = 0 OR current_setting('transaction_isolation') = 'read committed' OR {}({alias}.xmin))",
            self.call("_ours"),
        )
    }

    /// Behind FROM: the source row and its counterpart, under the names of the lists.
    pub(super) fn pair(&self, holder: Holder) -> String {
        let (shape, to) = (self.shape, self.to());
        let (olds, news) = (shape.old_list(self.direction), shape.new_list(self.direction));
        let (ours, theirs) = match self.from {
            Side::Old => (olds, news),
            Side::New => (news, olds),
        };
        let alias = quote(&shape.side(to).name);
        format!(
            "(SELECT {ours} FROM {}) AS phasegate_f, (SELECT {theirs} FROM {} WHERE {}) AS phasegate_o",
            self.source(holder),
            shape.named(to),
            self.key_is(to, &alias, holder),
        )
    }

    /// Brings the other side's row of one key to where it belongs. What happened to the key is `INSERT`, `UPDATE`, `DELETE`,
    /// `CAME` (from another key), `MISSED` (an UPDATE whose counterpart was not to be changed), or `GONE` (there is no source row).
    pub(super) fn key_body(&self) -> String {
        let mut lines: Vec<String> = self.ended().into_iter().chain(self.unsettled()).collect();
        lines.push(self.deleted());
        match self.direction {
            // A row that is new on its side has no counterpart, as a rule.
            Direction::Forward => {
                // What an old snapshot shows of it may be right by chance, and be something else since: then this fails.
                lines.push(format!(
                    "IF phasegate_event IN ('UPDATE', 'DELETE') THEN\n\
                     IF current_setting('transaction_isolation') <> 'read committed' THEN\n{}\nEND IF;\n{}\nEND IF;\n\
                     IF phasegate_event NOT IN ('INSERT', 'GONE') THEN\n{}\nEND IF;",
                    self.lock(),
                    self.change(KEY).map_or_else(
                        || "NULL;".to_owned(),
                        |change| format!("{change}\n{}", self.done())
                    ),
                    self.is_there(),
                ));
                let insert = self.insert_beside_others();
                lines.push(format!(
                    "IF phasegate_event <> 'GONE' THEN\n{}\n{insert}\n{}\nEND IF;",
                    self.on_the_way(),
                    self.done()
                ));
            }
            Direction::Both => {
                lines.extend(self.taken());
                lines.push(self.update());
                lines.push(self.on_the_way());
                lines.extend(self.gone());
                lines.push(self.insert_beside_others());
                lines.push(self.done());
                if self.to() == Side::Old {
                    // Somebody made a row of this key meanwhile.
                    lines.extend(self.taken());
                    lines.push(self.update());
                }
            }
        }
        if let Some(removal) = self.removal(KEY) {
            lines.push(removal);
            if self.from == Side::Old {
                // A chunk that is under way may have read the row as it was, and bring its copy back.
                lines.push(format!(
                    "IF phasegate_passed AND phasegate_event IN ('UPDATE', 'MISSED') THEN\n{}\nEND IF;",
                    self.note(&self.parameters(KEY), Noted::Changed)
                ));
            }
        }
        lines.push("RETURN true;".to_owned());
        body("", &lines.join("\n"))
    }

    /// Where a row is still on its way to this key, its copy is not made anew: it comes with that row. So may one that a trigger
    /// writes, which is done before the row that it fires for is followed.
    fn on_the_way(&self) -> String {
        if self.from == Side::New {
            return String::new();
        }
        format!(
            "IF phasegate_event IN ('UPDATE', 'MISSED') AND (pg_trigger_depth() > 1 OR {}) THEN\n{}\nRETURN true;\nEND IF;",
            self.is_noted(KEY, &[MOVED]),
            self.note(&self.parameters(KEY), Noted::Changed),
        )
    }

    /// A row that comes from nowhere ends what came to its key before: that one is gone.
    fn ended(&self) -> Option<String> {
        (self.from == Side::Old).then(|| {
            format!(
                "IF phasegate_event = 'INSERT' AND {} THEN\n{}\nEND IF;",
                self.is_noted(KEY, &[MOVED]),
                self.note(&self.parameters(KEY), Noted::Ended),
            )
        })
    }

    /// What to do first where a row was deleted: as a rule it is gone, and its counterpart goes too.
    fn deleted(&self) -> String {
        let removal = self.removal(KEY);
        let removed = removal.as_ref().map_or_else(String::new, |removal| {
            format!("{removal}\nIF FOUND THEN\nRETURN true;\nEND IF;\n")
        });
        let noted = if self.from == Side::Old && removal.is_some() {
            format!(
                "IF phasegate_passed AND current_setting('transaction_isolation') <> 'read committed' THEN\n{}\nEND IF;\n",
                self.note(&self.parameters(KEY), Noted::Ended)
            )
        } else {
            String::new()
        };
        format!(
            "IF phasegate_event = 'DELETE' THEN\n{removed}{}PERFORM 1 FROM {};\n\
             IF NOT FOUND THEN\n{noted}RETURN true;\nEND IF;\nEND IF;",
            self.gone_elsewhere(),
            self.source(KEY)
        )
    }

    /// Ends the function of a key where the statement before found its row.
    fn done(&self) -> String {
        format!("IF FOUND THEN\n{}RETURN true;\nEND IF;", self.stays_in_filter())
    }

    /// Ends it where both rows are there and right. That they are there is not enough: a chunk may have committed a copy of what
    /// the source was, after the statement before had looked for one.
    fn is_there(&self) -> String {
        format!("PERFORM 1 FROM {} WHERE {};\n{}", self.pair(KEY), all(&self.stays()), self.done())
    }

    /// The statement that writes the counterpart if it is there and not right, where there is anything to write.
    pub(super) fn change(&self, holder: Holder) -> Option<String> {
        let (shape, to, stays) = (self.shape, self.to(), self.stays());
        let sets: Vec<String> = shape
            .written_over(to)
            .map(|(at, write)| {
                let value = shape.value_in_pair(to, at, (self.direction, &stays));
                format!("{} = {value}", quote(&write.column))
            })
            .collect();
        // Forward there is nothing to work out over the counterpart, so that it need not be read twice.
        let (rows, right) = match self.direction {
            Direction::Forward => (
                format!(
                    "(SELECT {} FROM {}) AS phasegate_f",
                    shape.old_list(self.direction),
                    self.source(holder)
                ),
                self.holds_already(),
            ),
            Direction::Both => (self.pair(holder), format!("({})", all(&stays))),
        };
        (!sets.is_empty()).then(|| {
            format!(
                "UPDATE {} AS phasegate_t SET {} FROM {rows} WHERE {} AND NOT {right};",
                shape.side(to).sql(),
                sets.join(", "),
                self.key_is(to, "phasegate_t", holder),
            )
        })
    }

    /// That parts of the counterpart stay as they are: those that are right, and with `both` those of which the client has changed
    /// nothing. These may be another client's, who was followed to the other side or will be.
    fn stays(&self) -> Vec<String> {
        let rights = self.shape.rights(self.direction);
        if self.direction == Direction::Forward {
            return rights;
        }
        let parts = rights.iter().enumerate();
        parts
            .map(|(at, right)| {
                format!("(NOT coalesce(phasegate_parts[{}], true) OR {right})", at + 1)
            })
            .collect()
    }

    /// Forward: that the counterpart has what would be written.
    fn holds_already(&self) -> String {
        let new = &self.shape.new;
        let writes = || self.shape.writes.iter().enumerate();
        let held = |(_, write): (usize, &Write)| {
            held_by(new, write, &format!("phasegate_t.{}", quote(&write.column)))
        };
        let value =
            |(at, write): (usize, &Write)| stored_by(new, write, &format!("phasegate_w{at}"));
        same(&writes().map(held).collect::<Vec<_>>(), &writes().map(value).collect::<Vec<_>>())
    }

    /// Locks the counterpart.
    fn lock(&self) -> String {
        format!(
            "PERFORM 1 FROM {} AS phasegate_t WHERE {} FOR NO KEY UPDATE;",
            self.shape.side(self.to()).sql(),
            self.key_is(self.to(), "phasegate_t", KEY),
        )
    }

    /// With `both`: writes the counterpart if it is there, and ends the function.
    fn update(&self) -> String {
        let change = self
            .change(KEY)
            .map_or_else(String::new, |change| format!("{change}\n{}\n", self.done()));
        // Whoever holds the row may be changing it now; what is right is judged by what they leave.
        format!(
            "{}\nIF FOUND THEN\n{}{change}{}\nEND IF;",
            self.lock(),
            self.was_in_filter(),
            self.is_there(),
        )
    }

    /// Whether the other side may have a row of the key that the mapping doesn't see.
    fn may_hide(&self) -> bool {
        self.to() == Side::Old && self.shape.filter.is_some()
    }

    /// As [`insert`](Self::insert), where that may be told of a duplicate that is none. By then the row can be seen and
    /// written.
    fn insert_beside_others(&self) -> String {
        if !self.is_beside_others {
            return self.insert(KEY);
        }
        let again = match self.direction {
            Direction::Forward => {
                let change = self
                    .change(KEY)
                    .map_or_else(String::new, |change| format!("{change}\n{}\n", self.done()));
                format!("{change}{}", self.is_there())
            }
            Direction::Both => {
                let taken = self.taken().map_or_else(String::new, |taken| format!("{taken}\n"));
                format!("{taken}{}", self.update())
            }
        };
        format!(
            "BEGIN\n{}\nEXCEPTION WHEN unique_violation OR exclusion_violation THEN\n{again}\nRAISE;\nEND;",
            self.insert(KEY),
        )
    }

    /// Makes the counterpart. What a chunk has put there meanwhile is written over; what others may have put there is left.
    pub(super) fn insert(&self, holder: Holder) -> String {
        let (shape, to) = (self.shape, self.to());
        let mut columns = shape.bare_key(to);
        let mut values = shape.named_key(self.from);
        let mut sets = Vec::new();
        for (_, write) in shape.written_beside_keys(to) {
            columns.push(quote(&write.column));
            values.push(cast(write));
        }
        for (_, write) in shape.written_over(to) {
            sets.push(format!("{0} = EXCLUDED.{0}", quote(&write.column)));
        }
        let conflict = if sets.is_empty() || to == Side::Old {
            "DO NOTHING".to_owned()
        } else {
            format!("DO UPDATE SET {}", sets.join(", "))
        };
        format!(
            "INSERT INTO {} AS phasegate_t ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} ON CONFLICT ({}) {conflict};",
            shape.side(to).sql(),
            columns.join(", "),
            values.join(", "),
            self.source(holder),
            shape.bare_key(to).join(", "),
        )
    }

    /// What becomes of the counterpart of a row that is gone, or that the filter no longer lets pass.
    pub(super) fn removal(&self, holder: Holder) -> Option<String> {
        let (shape, to) = (self.shape, self.to());
        let table = shape.side(to);
        let which = format!(
            "{}{} AND NOT EXISTS (SELECT 1 FROM {})",
            self.key_is(to, &quote(&table.name), holder),
            shape.and_filter(to),
            self.source(holder),
        );
        removal(shape, to, &which)
    }

    /// Refuses a write back that the filter would hide.
    fn stays_in_filter(&self) -> String {
        if !self.may_hide() {
            return String::new();
        }
        let alias = quote(&self.shape.old.name);
        format!(
            "PERFORM 1 FROM {} WHERE {}{};\nIF NOT FOUND THEN\n{}\nEND IF;\n",
            self.shape.named(Side::Old),
            self.key_is(Side::Old, &alias, KEY),
            self.shape.and_filter(Side::Old),
            self.refuse("the row would fall outside the mapping's filter"),
        )
    }

    /// Refuses a write back over a row that the filter hides: it is another one, and nobody's copy.
    pub(super) fn was_in_filter(&self) -> String {
        let Some(filter) = self.shape.filter.as_ref().filter(|_| self.may_hide()) else {
            return String::new();
        };
        let alias = quote(&self.shape.old.name);
        let message = format!(
            "{} has another row of this key, outside the mapping's filter",
            self.shape.old.name
        );
        format!(
            "PERFORM 1 FROM {} WHERE {} AND {filter} IS NOT TRUE;\nIF FOUND THEN\n{}\nEND IF;\n",
            self.shape.named(Side::Old),
            self.key_is(Side::Old, &alias, KEY),
            self.refuse(&message),
        )
    }

    fn refuse(&self, message: &str) -> String {
        let message =
            format!("phasegate: {message} (mapping {})", self.shape.mapping).replace('%', "%%");
        format!("RAISE EXCEPTION {} USING ERRCODE = 'check_violation';", literal(&message))
    }

    /// Where the key of a row changed and its counterpart can follow, it does so as one row: its other columns, and what
    /// refers to it, stay with it. Whether it did; NULL where that was noted.
    pub(super) fn move_body(&self) -> String {
        let (shape, to) = (self.shape, self.to());
        let table = shape.side(to).sql();
        let columns: Vec<String> = shape
            .keys
            .iter()
            .map(|pair| literal(if to == Side::Old { &pair.old } else { &pair.new }))
            .collect();
        // The server writes an identity that is always generated by itself alone.
        let drawn = format!(
            "IF EXISTS (SELECT 1 FROM pg_attribute AS phasegate_a WHERE phasegate_a.attrelid = {}::regclass \
             AND phasegate_a.attname IN ({}) AND phasegate_a.attidentity = 'a') THEN\nRETURN false;\nEND IF;",
            literal(&table),
            columns.join(", "),
        );
        // Another trigger may have changed the key again, and was followed before.
        let alias = quote(&shape.side(self.from).name);
        let is_there = format!(
            "PERFORM 1 FROM {} WHERE {} AND {};\nIF NOT FOUND THEN\nRETURN false;\nEND IF;",
            shape.named(self.from),
            self.key_is(self.from, &alias, MOVED_TO),
            self.is_ours(&alias),
        );
        let noted = if self.from == Side::Old {
            format!(
                "IF {} OR {} THEN\n{}\nEND IF;",
                self.is_noted(MOVED_FROM, &[MOVED]),
                self.is_noted(MOVED_TO, &[MOVED, LEFT]),
                self.note_move()
            )
        } else {
            String::new()
        };
        let crossed = self.crossed();
        body("", &format!("{crossed}{drawn}\n{noted}\n{is_there}\n{}", self.moved_at_any_level()))
    }

    /// Notes a changed key, and ends the function.
    fn note_move(&self) -> String {
        let (from, to) = (self.parameters(MOVED_FROM), self.parameters(MOVED_TO));
        format!(
            "{}\n{}\nRETURN NULL;",
            self.note(&from, Noted::Left),
            self.note(&to, Noted::Moved(&from))
        )
    }

    /// An old snapshot doesn't show the row that stands in the way. Whatever else is not unique fails again when the row is
    /// made anew.
    fn moved_at_any_level(&self) -> String {
        let moved = self.moved();
        let (tried, failed) = match self.from {
            Side::New => (format!("{moved}\nRETURN false;"), "RETURN false;".to_owned()),
            Side::Old => (self.moved_if_seen(&moved), self.note_move()),
        };
        format!(
            "IF current_setting('transaction_isolation') = 'read committed' THEN\n{moved}\n{}\nELSE\nBEGIN\n{tried}\n\
             EXCEPTION WHEN unique_violation THEN\n{failed}\nEND;\nEND IF;",
            self.blocked(),
        )
    }

    /// Gives the counterpart its new key, and ends the function where that could be done.
    fn moved(&self) -> String {
        let (shape, to) = (self.shape, self.to());
        let names = shape.bare_key(to);
        let sets: Vec<String> = names
            .iter()
            .zip(self.parameters(MOVED_TO))
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        let table = shape.side(to).sql();
        let seen = if self.may_hide() {
            format!(
                " AND EXISTS (SELECT 1 FROM {} WHERE {}{})",
                shape.named(to),
                self.key_is(to, &quote(&shape.side(to).name), MOVED_FROM),
                shape.and_filter(to),
            )
        } else {
            String::new()
        };
        // Whoever has the new key may be the copy of a row that is gone, which is only noted.
        let freed = if self.frees() {
            format!(
                "IF {} THEN\nDELETE FROM {table} AS phasegate_t WHERE {} AND EXISTS (SELECT 1 FROM {table} AS phasegate_o WHERE {});\nEND IF;\n",
                self.is_noted(MOVED_TO, &[ENDED]),
                self.key_is(to, "phasegate_t", MOVED_TO),
                self.key_is(to, "phasegate_o", MOVED_FROM),
            )
        } else {
            String::new()
        };
        // Another row may have come to the key that this one had. As a rule it is followed by itself, behind this one.
        let again = match self.from {
            Side::Old => self.note(&self.parameters(MOVED_FROM), Noted::Changed),
            Side::New => format!(
                "IF {} THEN\nPERFORM {}({}, 'UPDATE', true{});\nEND IF;",
                self.came_before(),
                self.call("_key"),
                self.parameters(MOVED_FROM).join(", "),
                self.all_parts(),
            ),
        };
        let again =
            format!("PERFORM 1 FROM {};\nIF FOUND THEN\n{again}\nEND IF;", self.source(MOVED_FROM));
        format!(
            "{freed}UPDATE {table} AS phasegate_t SET {} WHERE {}{seen} \
             AND NOT EXISTS (SELECT 1 FROM {table} AS phasegate_o WHERE {});\n\
             IF FOUND THEN\n{again}\nRETURN true;\nEND IF;",
            sets.join(", "),
            self.key_is(to, "phasegate_t", MOVED_FROM),
            self.key_is(to, "phasegate_o", MOVED_TO),
        )
    }

    /// Whether a copy in the way may be deleted.
    fn frees(&self) -> bool {
        self.from == Side::Old && self.shape.on_delete == OnDelete::Delete
    }

    /// Where the counterpart couldn't follow. What is in its way then may follow itself, later: a trigger that writes other rows does
    /// so before the row that it fires for is followed. Such rows may come to their keys one after the other, last one first.
    fn blocked(&self) -> String {
        if self.from == Side::New {
            return self.not_followed();
        }
        if !self.frees() {
            return "RETURN false;".to_owned();
        }
        let table = self.shape.side(self.to()).sql();
        let (from, to) = (self.parameters(MOVED_FROM), self.parameters(MOVED_TO));
        format!(
            "PERFORM 1 FROM {table} AS phasegate_t WHERE {};\nIF FOUND THEN\n{}\nEND IF;\n\
             IF pg_trigger_depth() > 1 THEN\n{}\n{}\nEND IF;\nRETURN false;",
            self.key_is(self.to(), "phasegate_t", MOVED_FROM),
            self.note_move(),
            self.note(&from, Noted::Left),
            self.note(&to, Noted::Moved(&from)),
        )
    }

    /// Where an old snapshot shows no copy there may be one, which new clients hold on to. It is made under the old key: where
    /// one is there the server refuses that, and the client has to try again.
    fn moved_if_seen(&self, moved: &str) -> String {
        let (shape, to) = (self.shape, self.to());
        let mut columns = shape.bare_key(to);
        let mut values = self.parameters(MOVED_FROM);
        for (_, write) in shape.written_beside_keys(to) {
            columns.push(quote(&write.column));
            values.push(cast(write));
        }
        format!(
            "{moved}\nINSERT INTO {} AS phasegate_t ({}) SELECT {} FROM {} ON CONFLICT ({}) DO NOTHING;\n{moved}\n{}",
            shape.side(to).sql(),
            columns.join(", "),
            values.join(", "),
            self.source(MOVED_TO),
            shape.bare_key(to).join(", "),
            self.blocked(),
        )
    }
}

/// Whether a table has another index than the key's in which there may be one row of a value only. Of a row that a chunk is making
/// at this moment the server then meets that index's entry as well, waits for the chunk, and reports what is the very same row as a
/// duplicate: it goes on to the other indexes when it has met the key's entry, too.
pub(super) fn is_beside_others(shape: &Shape, side: Side) -> bool {
    let (table, keys) = (shape.side(side), shape.bare_key(side));
    let is_key = |index: &Index| {
        let mut names = index.columns.iter().flatten().map(|name| quote(name));
        index.is_identity()
            && index.columns.len() == keys.len()
            && names.all(|name| keys.contains(&name))
    };
    table.indexes.iter().any(|it| (it.is_unique || it.is_exclusion) && !is_key(it))
}

/// Whether this transaction, or one within it, is the one that an xid in a row stands for. An xid from before ours is not; of the
/// others those that others had are over, or the row could not be seen. A row that was frozen long ago may have an xid that is
/// still to come, which the server says by an error.
pub(super) fn ours_body() -> String {
    body(
        "phasegate_behind bigint := age(pg_current_xact_id()::xid)::bigint - age(phasegate_x);\n",
        "IF phasegate_behind <= 0 THEN\nRETURN phasegate_behind = 0;\nEND IF;\nBEGIN\n\
         RETURN coalesce(pg_xact_status((pg_current_xact_id()::text::bigint + phasegate_behind)::text::xid8) = 'in progress', false);\n\
         EXCEPTION WHEN invalid_parameter_value THEN\nRETURN false;\nEND;",
    )
}
