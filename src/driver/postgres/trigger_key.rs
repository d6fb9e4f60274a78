//! The functions that bring the other side's row of one key to where it belongs.
//!
//! Invariants:
//! - A source row counts only as this transaction has written it.
//! - With `both` the counterpart is locked in one statement and judged in the next.
//! - A row of the old side that the mapping's filter hides is never written from the new side: what would do so is refused.
//!
//! Absent on purpose: which keys changed, which is the row trigger's in `trigger_sql`, and how a counterpart follows, which is
//! `trigger_move`'s.

use super::catalogue::{Index, literal, quote};
use super::marks::{ENDED, LEFT, MOVED, Noted};
use super::planted::Fault;
use super::same::{held_by, same, stored_by};
use super::shape::{Shape, Write};
use super::sync_sql::{Side, all, body, cast, removal};
use super::trigger_sql::{Flow, Holder, KEY};
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
            if self.from == Side::Old && self.direction == Direction::Forward {
                // The copy that stands there is the one of a row that had this key before, and is to go where that went.
                lines.push(format!(
                    "IF {} THEN\n{}\nRETURN true;\nEND IF;",
                    self.is_noted(KEY, &[MOVED, LEFT, ENDED]),
                    self.note(&self.parameters(KEY), Noted::Changed)
                ));
            }
            lines.push(removal);
            if self.from == Side::Old {
                // A chunk that is under way may have read the row as it was, and bring its copy back. What an old view doesn't show may
                // stand there.
                let key = self.parameters(KEY);
                lines.push(format!(
                    "IF phasegate_passed AND phasegate_event IN ('UPDATE', 'MISSED') THEN\n\
                     IF FOUND OR current_setting('transaction_isolation') = 'read committed' THEN\n{}\nELSE\n{}\nEND IF;\nEND IF;",
                    self.note(&key, Noted::Out),
                    self.note(&key, Noted::Changed),
                ));
            }
        }
        lines.push("RETURN true;".to_owned());
        body("", &lines.join("\n"))
    }

    /// Where a row is still on its way to this key, its copy is not made anew: it comes with that row. So may one that a trigger
    /// writes, which is done before the row that it fires for is followed. A copy that is made of a row while notes tell that others
    /// went from its key is noted as its own. A row that the filter hides as it did before has no copy.
    fn on_the_way(&self) -> String {
        if self.from == Side::New {
            return String::new();
        }
        let key = self.parameters(KEY);
        let (changed, made) = (self.note(&key, Noted::Changed), self.note(&key, Noted::Made));
        let made = match self.direction {
            Direction::Forward => format!(
                "{}\nIF FOUND THEN\n{made}\nELSE\n{changed}\nEND IF;\nRETURN true;",
                self.inserting(KEY, "DO NOTHING"),
            ),
            Direction::Both => made,
        };
        let stays_out = if self.shape.filter.is_some() {
            format!(
                "IF phasegate_event IN ('UPDATE', 'MISSED') AND pg_trigger_depth() > 1 AND NOT phasegate_passed \
                 AND NOT EXISTS (SELECT 1 FROM {}) THEN\nRETURN true;\nEND IF;\n",
                self.source(KEY),
            )
        } else {
            String::new()
        };
        format!(
            "{stays_out}IF phasegate_event IN ('UPDATE', 'MISSED') AND (pg_trigger_depth() > 1 OR {}) THEN\n{changed}\nRETURN true;\nEND IF;\n\
             IF phasegate_event <> 'INSERT' AND {} THEN\n{made}\nEND IF;",
            self.is_noted(KEY, &[MOVED]),
            self.is_noted(KEY, &[LEFT, ENDED]),
        )
    }

    /// A row that comes from nowhere ends what came to its key before: that one is gone. A copy that stands there still is that one's, or
    /// is to go to another key: only where there is none, one is made. An old view shows no notes of that, but maybe the copy.
    ///
    /// With `both` clients of the new shape are to see the row at once. There a copy that is to go to another key is written over, and
    /// takes along what only the new side has.
    fn ended(&self) -> Option<String> {
        let key = self.parameters(KEY);
        let (end, made) = (self.note(&key, Noted::Ended), self.note(&key, Noted::Made));
        if self.from == Side::New {
            return None;
        }
        let comes = match self.direction {
            Direction::Forward => {
                let insert = self.inserting(KEY, "DO NOTHING");
                format!(
                    "IF {} THEN\n{end}\n{insert}\nIF FOUND THEN\n{made}\nEND IF;\nRETURN true;\nEND IF;\n\
                     IF pg_trigger_depth() = 1 AND current_setting('transaction_isolation') <> 'read committed' THEN\n{insert}\n{}\n{end}\n\
                     RETURN true;\nEND IF;",
                    self.is_noted(KEY, &[MOVED, LEFT, ENDED]),
                    self.done(),
                )
            }
            Direction::Both => {
                let out = if self.frees() { self.out("") } else { String::new() };
                format!(
                    "IF {} THEN\n{end}\nIF NOT EXISTS (SELECT 1 FROM {} AS phasegate_t WHERE {}) THEN\n{made}\nEND IF;\n\
                     ELSIF {} THEN\n{out}{end}\n{made}\nEND IF;",
                    self.is_noted(KEY, &[MOVED, LEFT]),
                    self.shape.side(self.to()).sql(),
                    self.key_is(self.to(), "phasegate_t", KEY),
                    self.is_noted(KEY, &[ENDED]),
                )
            }
        };
        Some(format!("IF phasegate_event = 'INSERT' THEN\n{comes}\nEND IF;"))
    }

    /// Whether a copy in the way may be deleted.
    pub(super) fn frees(&self) -> bool {
        self.from == Side::Old && self.shape.on_delete == OnDelete::Delete
    }

    /// Takes a copy out that is none of the row that has its key now; `then` is done behind it. What only looks on when a row goes
    /// keeps it.
    fn out(&self, then: &str) -> String {
        format!(
            "BEGIN\nDELETE FROM {} AS phasegate_t WHERE {};\n{then}\
             EXCEPTION WHEN foreign_key_violation OR restrict_violation THEN NULL;\nEND;\n",
            self.shape.side(self.to()).sql(),
            self.key_is(self.to(), "phasegate_t", KEY),
        )
    }

    /// What to do first where a row was deleted: as a rule it is gone, and its counterpart goes too.
    fn deleted(&self) -> String {
        let removal = self.removal(KEY);
        let removed = removal.as_ref().map_or_else(String::new, |removal| {
            format!("{removal}\nIF FOUND THEN\nRETURN true;\nEND IF;\n")
        });
        let noted = if self.from == Side::Old && removal.is_some() {
            // A copy that the server takes along is gone, or the client was told that it can't be.
            format!(
                "IF phasegate_passed AND current_setting('transaction_isolation') <> 'read committed' THEN\n\
                 IF NOT {} THEN\n{}\nEND IF;\nEND IF;\n",
                self.goes_along("confdeltype"),
                self.note(&self.parameters(KEY), Noted::Ended)
            )
        } else {
            String::new()
        };
        // The copy that stands there may be another row's, while notes tell who stood where: of one that came to a key that another
        // had left, these tell that it came.
        let come: &[&str] = match self.direction {
            Direction::Forward => &[MOVED, ENDED],
            Direction::Both => &[MOVED],
        };
        // A row that the mapping doesn't see has none.
        let hidden = if self.from == Side::Old && self.shape.filter.is_some() {
            format!(
                "IF NOT phasegate_passed AND {} THEN\nRETURN true;\nEND IF;\n",
                self.is_noted(KEY, &[LEFT])
            )
        } else {
            String::new()
        };
        let ended = if self.from == Side::Old {
            format!(
                "IF {} THEN\n{}\nRETURN true;\nEND IF;\n",
                self.is_noted(KEY, come),
                self.note(&self.parameters(KEY), Noted::Ended)
            )
        } else {
            String::new()
        };
        // One statement may delete a row and make another one of its key, which is not the one that the copy is of.
        let replaced = if self.frees() {
            self.out(&format!(
                "IF NOT FOUND AND current_setting('transaction_isolation') <> 'read committed' THEN\n{}\nRETURN true;\nEND IF;\n",
                self.note(&self.parameters(KEY), Noted::Ended),
            ))
        } else {
            String::new()
        };
        format!(
            "IF phasegate_event = 'DELETE' THEN\n{ended}{hidden}{removed}{}PERFORM 1 FROM {};\n\
             IF NOT FOUND THEN\n{noted}RETURN true;\nEND IF;\n{replaced}END IF;",
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
    pub(super) fn may_hide(&self) -> bool {
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
        let written = self.shape.written_over(self.to());
        let sets: Vec<String> =
            written.map(|(_, write)| format!("{0} = EXCLUDED.{0}", quote(&write.column))).collect();
        let conflict = if sets.is_empty() || self.to() == Side::Old {
            "DO NOTHING".to_owned()
        } else {
            format!("DO UPDATE SET {}", sets.join(", "))
        };
        self.inserting(holder, &conflict)
    }

    /// The same, with what is done where one is there.
    fn inserting(&self, holder: Holder, conflict: &str) -> String {
        let (shape, to) = (self.shape, self.to());
        let mut columns = shape.bare_key(to);
        let mut values = shape.named_key(self.from);
        for (_, write) in shape.written_beside_keys(to) {
            columns.push(quote(&write.column));
            values.push(cast(write));
        }
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
