//! What the new side's functions refuse: writes of clients of the new shape whose row of the old side is not the one that they
//! mean. They may try again (40001) when a run has put right what was only noted, or copied what wasn't.
//!
//! Invariants:
//! - A copy of whose key a note says that its row went, ended, or comes yet stands for no row until that is put right: nothing
//!   that clients do to it reaches the old side, or is done at all. What they do may be about another row by then.
//! - What is noted is looked at before anything is written, and again behind a lock that was waited for: whoever held it may have
//!   noted something.
//! - A row of the old side never takes another one's place: where a row of the new side comes to a key that the old side has still
//!   got a row of, that one isn't copied yet, or goes later in the same statement.
//!
//! Absent on purpose: clients whose view is older than a note. What the note is about has changed the old side's row since, so that
//! the server refuses to write it.

use super::catalogue::{literal, quote};
use super::marks::{ENDED, LEFT, MOVED};
use super::sync_sql::Side;
use super::trigger_sql::{Flow, Holder, KEY, MOVED_FROM, MOVED_TO};

impl Flow<'_> {
    /// What to refuse of a key before anything is done to the old side. That a copy is deleted whose row is gone is no more than
    /// what the note will do.
    pub(super) fn unsettled(&self) -> Option<String> {
        (self.from == Side::New).then(|| {
            let refused = self.is_being_changed();
            format!(
                "IF (CASE WHEN phasegate_event IN ('INSERT', 'CAME') THEN {} WHEN phasegate_event = 'DELETE' THEN {} OR {} AND {} ELSE {} END) \
                 THEN\n{refused}\nEND IF;",
                self.is_noted(KEY, &[LEFT, ENDED, MOVED]),
                self.is_noted(KEY, &[LEFT]),
                self.is_noted(KEY, &[ENDED]),
                self.has_old(KEY),
                self.is_noted(KEY, &[LEFT, ENDED]),
            )
        })
    }

    /// The same where no row of the old side was found, for which another client may have been waited.
    pub(super) fn gone(&self) -> Option<String> {
        (self.from == Side::New).then(|| {
            format!(
                "IF phasegate_event = 'UPDATE' AND {} THEN\n{}\nEND IF;",
                self.is_noted(KEY, &[LEFT, ENDED]),
                self.is_being_changed(),
            )
        })
    }

    /// The same of a row that was deleted.
    pub(super) fn gone_elsewhere(&self) -> String {
        if self.from == Side::Old {
            return String::new();
        }
        let is_left = self.is_noted(KEY, &[LEFT]);
        format!("IF {is_left} THEN\n{}\nEND IF;\n", self.is_being_changed())
    }

    /// A row that a client of the new shape makes is not the one that the old side has under its key, which isn't copied yet: the
    /// client has to come again when it is.
    /// What goes from one partition to another is deleted and made again, and is right by now.
    pub(super) fn taken(&self) -> Option<String> {
        (self.from == Side::New).then(|| {
            format!(
                "IF phasegate_event IN ('INSERT', 'CAME') THEN\n{}PERFORM 1 FROM {} WHERE NOT {};\n\
                 IF FOUND THEN\n{}\nEND IF;\nEND IF;",
                self.was_in_filter(),
                self.pair(KEY),
                self.shape.is_right(self.direction),
                self.is_not_copied(),
            )
        })
    }

    /// What to refuse of a changed key before anything is done to the old side: its row can't follow where the old side has
    /// another one, and would be taken for that.
    pub(super) fn crossed(&self) -> String {
        if self.from == Side::Old {
            return String::new();
        }
        let alias = quote(&self.shape.new.name);
        format!(
            "IF {} OR {} THEN\n{}\nEND IF;\n\
             IF EXISTS (SELECT 1 FROM {} WHERE {} AND {}) AND {} AND {} THEN\n{}\nEND IF;\n",
            self.is_noted(MOVED_FROM, &[LEFT, ENDED]),
            self.is_noted(MOVED_TO, &[LEFT, ENDED, MOVED]),
            self.is_being_changed(),
            self.shape.named(Side::New),
            self.key_is(Side::New, &alias, MOVED_TO),
            self.is_ours(&alias),
            self.has_old(MOVED_FROM),
            self.has_old(MOVED_TO),
            self.is_not_copied(),
        )
    }

    /// Where the row of the old side couldn't follow a changed key, and another client may have been waited for.
    pub(super) fn not_followed(&self) -> String {
        format!(
            "IF {} THEN\n{}\nEND IF;\nRETURN false;",
            self.is_noted(MOVED_FROM, &[LEFT, ENDED]),
            self.is_being_changed(),
        )
    }

    /// That another row has come to the key that a row had, and was followed already: a trigger wrote it before the
    /// row that it fired for was followed. What the same statement brought there is followed by itself, behind this one: made
    /// here, it would be in the way of the very row that has to go there.
    pub(super) fn came_before(&self) -> String {
        let table = self.shape.new.sql();
        format!(
            "EXISTS (SELECT 1 FROM {table} AS phasegate_a, {table} AS phasegate_b WHERE {} AND {} AND {} AND {} \
             AND phasegate_a.cmin::text::bigint > phasegate_b.cmin::text::bigint)",
            self.key_is(Side::New, "phasegate_a", MOVED_FROM),
            self.is_ours("phasegate_a"),
            self.key_is(Side::New, "phasegate_b", MOVED_TO),
            self.is_ours("phasegate_b"),
        )
    }

    /// That the old side has a row of a key that the mapping sees.
    fn has_old(&self, holder: Holder) -> String {
        let alias = quote(&self.shape.old.name);
        format!(
            "EXISTS (SELECT 1 FROM {} WHERE {}{})",
            self.shape.named(Side::Old),
            self.key_is(Side::Old, &alias, holder),
            self.shape.and_filter(Side::Old),
        )
    }

    fn is_being_changed(&self) -> String {
        self.try_again(&format!("the key of this row of {} is being changed", self.shape.new.name))
    }

    fn is_not_copied(&self) -> String {
        self.try_again(&format!(
            "{} has another row of this key, which is not copied yet",
            self.shape.old.name
        ))
    }

    fn try_again(&self, message: &str) -> String {
        let message =
            format!("phasegate: {message} (mapping {})", self.shape.mapping).replace('%', "%%");
        format!("RAISE EXCEPTION {} USING ERRCODE = 'serialization_failure';", literal(&message))
    }
}
