//! How TRUNCATE of one side reaches the other. No trigger sees the rows that it takes.
//!
//! Invariants:
//! - Of the old side as a whole TRUNCATE is followed behind it, by what has no source any more. Its lock has kept chunks out.
//! - Whatever else is emptied is followed before it, by the keys that are about to go: a partition takes the counterparts of its
//!   own rows alone, and rows of the old side that aren't copied yet outlive whatever is emptied of the new one.
//! - What is noted of the old side is left to `settle` where a partition is emptied. Where the new side is emptied as a whole,
//!   rows that clients made or moved go along although only a note has brought them there so far.
//! - An old snapshot says nothing of what was written since, and TRUNCATE takes that along. There it is followed by a TRUNCATE
//!   of the other side, and only where files and locks prove that nothing is left, and nothing is lost that wasn't copied.
//!   Everything else is refused.
//! - A partition that was detached has kept its triggers, and is none of ours any more.
//!
//! Absent on purpose: bounds of partitions. A row of the old side that is only noted as moved into the range of a partition of
//! the new side outlives the TRUNCATE of that partition.

use super::catalogue::{Table, literal};
use super::marks::{ENDED, MOVED};
use super::sync_sql::{Side, Trigger, all, fires, function_name, removal, trigger_name};
use super::trigger_sql::Flow;
use crate::run::OnDelete;

/// Says in a transaction which table's TRUNCATE is still to be looked at when it is done.
const EMPTYING: &str = "phasegate.emptying";

/// What foreign keys refuse.
const TIED: &str = "foreign_key_violation OR restrict_violation";

impl Flow<'_> {
    /// The triggers that call the function.
    pub(super) fn truncate_triggers(&self) -> Vec<Trigger> {
        let trigger = |what: &str, when| Trigger {
            name: trigger_name(self.shape, &self.kind(what)),
            side: self.from,
            fires: when | fires::TRUNCATE,
            columns: Vec::new(),
            function: function_name(self.shape, &self.kind("_truncate")),
            argument: None,
        };
        let mut triggers = vec![trigger("_truncate", 0)];
        if self.from == Side::New || self.source_table().kind == 'p' {
            triggers.push(trigger("_empty", fires::BEFORE));
        }
        triggers
    }

    /// Follows TRUNCATE: of the table, or of partitions alone.
    pub(super) fn truncate_body(&self) -> Option<String> {
        let (seen, unseen) = match self.from {
            Side::Old => (self.old_emptied()?, self.old_emptied_unseen()),
            Side::New => (self.new_emptied()?, self.new_emptied_unseen()),
        };
        let inner = format!(
            "IF current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN\n{seen}\nELSE\n{unseen}\nEND IF;"
        );
        Some(self.guarded(("phasegate_rel text;\n", &self.only_partitions()), &inner))
    }

    fn source_table(&self) -> &Table {
        self.shape.side(self.from)
    }

    /// That the table as a whole is emptied.
    fn is_root(&self) -> String {
        format!("TG_RELID = {}::regclass", literal(&self.source_table().sql()))
    }

    /// Ends the function for what was a partition. Asked from below, so that no other partition is locked.
    fn only_partitions(&self) -> String {
        let table = self.source_table();
        if table.kind != 'p' {
            return String::new();
        }
        format!(
            "IF NOT EXISTS (SELECT 1 FROM pg_partition_ancestors(TG_RELID) AS phasegate_p (phasegate_relid) \
             WHERE phasegate_p.phasegate_relid = {}::regclass) THEN\nRETURN NULL;\nEND IF;\n",
            literal(&table.sql())
        )
    }

    /// Under READ COMMITTED. Where foreign keys refuse what follows, since the table that refers to this one is emptied in the
    /// same statement and comes after it, every key of it is noted.
    fn old_emptied(&self) -> Option<String> {
        let (shape, to) = (self.shape, self.to());
        let which = format!("{}{}", self.has_no_source(), shape.and_filter(to));
        let whole = removal(shape, to, &which)?;
        let noted = format!("{}{which};", self.noting());
        let whole = format!("BEGIN\n{whole}\nEXCEPTION WHEN {TIED} THEN\n{noted}\nEND;");
        if self.source_table().kind != 'p' {
            return Some(whole);
        }
        let part = format!(
            "{}\nBEGIN\n{}\nEXCEPTION WHEN {TIED} THEN\n{}\nEND;",
            self.emptied(),
            self.by_emptied(&self.removing()?, &self.and_not_noted()),
            self.by_emptied(&self.noting(), ""),
        );
        let is_root = self.is_root();
        Some(format!(
            "IF TG_WHEN = 'AFTER' AND {is_root} THEN\n{whole}\nELSIF TG_WHEN = 'BEFORE' AND NOT {is_root} THEN\n{part}\nEND IF;"
        ))
    }

    /// Under READ COMMITTED. What refers to the old side's rows may be emptied in the same statement as the old side itself,
    /// which nobody knows before: there it is looked at again when all is done.
    fn new_emptied(&self) -> Option<String> {
        let to = self.to();
        let table = self.shape.side(to);
        let left = format!(
            "SELECT 1 FROM {} WHERE true{}",
            self.shape.named(to),
            self.shape.and_filter(to)
        );
        let refused = format!(
            "RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation', MESSAGE = {};",
            literal(&format!(
                "phasegate: other tables refer to rows of {} that this TRUNCATE would delete (mapping {})",
                table.name, self.shape.mapping
            ))
        );
        Some(format!(
            "IF TG_WHEN = 'BEFORE' THEN\n{}\nBEGIN\n{}\nIF {} THEN\n{}\nEND IF;\n\
             EXCEPTION WHEN {TIED} THEN\n\
             IF EXISTS ({}) THEN\nRAISE;\nEND IF;\n\
             PERFORM set_config({emptying}, TG_RELID::text, true);\nEND;\n\
             ELSIF current_setting({emptying}, true) = TG_RELID::text THEN\n\
             PERFORM set_config({emptying}, '', true);\nIF EXISTS ({left}) THEN\n{refused}\nEND IF;\nEND IF;",
            self.emptied(),
            self.by_emptied(&self.removing()?, &self.shape.and_filter(to)),
            self.is_root(),
            self.remove_noted()?,
            free(table),
            emptying = literal(EMPTYING),
        ))
    }

    /// Under an old snapshot. What was copied since goes along. Where the client's TRUNCATE names both tables there is nothing
    /// left, and the server would refuse another one.
    fn old_emptied_unseen(&self) -> String {
        let table = self.shape.side(self.to());
        if self.shape.on_delete != OnDelete::Delete {
            return self.refused();
        }
        format!(
            "IF TG_WHEN = 'AFTER' THEN\nIF {} THEN\n{}\nEND IF;\n{}\nEND IF;",
            self.is_left(),
            self.refused(),
            self.truncated(table),
        )
    }

    /// Under an old snapshot: where everything was copied by then, under a sync that was there already, what came since came to
    /// both sides.
    fn new_emptied_unseen(&self) -> String {
        let (shape, to) = (self.shape, self.to());
        let table = shape.side(to);
        if shape.filter.is_some() {
            return self.refused();
        }
        let is_root = self.is_root();
        format!(
            "IF TG_WHEN = 'BEFORE' THEN\nIF {is_root} AND (NOT EXISTS (SELECT 1 FROM pg_trigger AS phasegate_g \
             WHERE phasegate_g.tgrelid = TG_RELID AND phasegate_g.tgname = TG_NAME AND phasegate_g.tgfoid = {}::regprocedure) \
             OR EXISTS ({} SELECT 1 FROM {} WHERE {} AND NOT {})) THEN\n{refused}\nEND IF;\n\
             ELSIF {is_root} THEN\nIF {} THEN\n{refused}\nEND IF;\n{}\nELSIF {} THEN\n{refused}\nEND IF;",
            literal(&format!("{}()", self.call("_truncate"))),
            self.with_noted(),
            shape.named(to),
            self.has_no_source(),
            self.is_among_noted(),
            self.is_left(),
            self.truncated(table),
            is_filled(table),
            refused = self.refused(),
        )
    }

    /// Empties a table that isn't empty. Where another one refers to it the server doesn't, whatever rows that has.
    fn truncated(&self, table: &Table) -> String {
        format!(
            "IF {} THEN\nBEGIN\nTRUNCATE {};\nEXCEPTION WHEN feature_not_supported THEN\n{}\nEND;\nEND IF;",
            is_filled(table),
            table.sql(),
            self.refused(),
        )
    }

    fn refused(&self) -> String {
        let message = format!(
            "phasegate: this TRUNCATE of {} can be followed under READ COMMITTED only (mapping {})",
            self.source_table().name,
            self.shape.mapping
        );
        format!(
            "RAISE EXCEPTION USING ERRCODE = 'feature_not_supported', MESSAGE = {};",
            literal(&message)
        )
    }

    /// That a row of the other side, under its table's bare name, has the key of one under an alias.
    fn is_same(&self, alias: &str) -> String {
        let pairs = self.shape.named_key(self.to()).into_iter().zip(self.shape.bare_key(self.from));
        all(&pairs.map(|(ours, theirs)| format!("{alias}.{theirs} = {ours}")).collect::<Vec<_>>())
    }

    fn has_no_source(&self) -> String {
        format!(
            "NOT EXISTS (SELECT 1 FROM {} AS phasegate_s WHERE {})",
            self.source_table().sql(),
            self.is_same("phasegate_s")
        )
    }

    /// What removes rows of the other side, up to the condition.
    fn removing(&self) -> Option<String> {
        removal(self.shape, self.to(), "").map(|text| text.trim_end_matches(';').to_owned())
    }

    /// What notes keys of the other side, up to the condition.
    fn noting(&self) -> String {
        let typed = self.shape.named_key(self.to()).into_iter().zip(&self.shape.keys);
        let keys: Vec<String> =
            typed.map(|(key, pair)| format!("{key}::{}", pair.type_sql)).collect();
        format!(
            "INSERT INTO {} ({}, event) SELECT {}, {} FROM {} WHERE ",
            self.touched(),
            self.shape.mark_columns().join(", "),
            keys.join(", "),
            literal(ENDED),
            self.shape.named(self.to()),
        )
    }

    /// Finds out what stands behind FROM for the table that is emptied. Rights on a partition, and row security of it, are its
    /// own; those on the table as a whole are known to do.
    fn emptied(&self) -> String {
        let root = self.source_table().sql();
        if self.source_table().kind != 'p' {
            return format!("phasegate_rel := {};", literal(&root));
        }
        let within = format!(
            "(SELECT phasegate_r.* FROM {root} AS phasegate_r WHERE phasegate_r.tableoid IN \
             (SELECT phasegate_p.relid FROM pg_partition_tree("
        );
        format!(
            "phasegate_rel := CASE WHEN has_table_privilege(TG_RELID, 'SELECT') AND NOT row_security_active(TG_RELID) \
             THEN TG_RELID::regclass::text ELSE {} || TG_RELID || {} END;",
            literal(&within),
            literal("::oid::regclass) AS phasegate_p))"),
        )
    }

    /// Runs a statement for the rows of the other side that have a key of the table that is emptied.
    fn by_emptied(&self, head: &str, further: &str) -> String {
        format!(
            "EXECUTE {} || phasegate_rel || {};",
            literal(&format!("{head}EXISTS (SELECT 1 FROM ")),
            literal(&format!(" AS phasegate_s WHERE {}){further}", self.is_same("phasegate_s"))),
        )
    }

    /// That a row of the other side, under its table's bare name, has the key in columns of a mark under an alias.
    fn is_marked(&self, alias: &str) -> String {
        let pairs = self.shape.named_key(self.to()).into_iter().zip(self.shape.mark_columns());
        all(&pairs.map(|(ours, mark)| format!("{alias}.{mark} = {ours}")).collect::<Vec<_>>())
    }

    fn and_not_noted(&self) -> String {
        format!(
            " AND NOT EXISTS (SELECT 1 FROM {} AS phasegate_n WHERE {})",
            self.touched(),
            self.is_marked("phasegate_n")
        )
    }

    /// The keys of rows that only a note brings to the new side: they were made there, or came from one that is there.
    fn with_noted(&self) -> String {
        let (touched, marks) = (self.touched(), self.shape.mark_columns());
        let origins = self.shape.origin_columns();
        let of = |alias: &str, names: &[String]| -> Vec<String> {
            names.iter().map(|name| format!("{alias}.{name}")).collect()
        };
        let equal = |ours: &[String], theirs: &[String]| {
            let pairs = ours.iter().zip(theirs);
            all(&pairs.map(|(ours, theirs)| format!("{ours} = {theirs}")).collect::<Vec<_>>())
        };
        let came_from = of("phasegate_n", &origins);
        format!(
            "WITH RECURSIVE phasegate_c ({names}) AS (SELECT {keys} FROM {touched} AS phasegate_n WHERE phasegate_n.event = {ended} \
             OR phasegate_n.event = {moved} AND EXISTS (SELECT 1 FROM {} AS phasegate_s WHERE {}) \
             UNION SELECT {keys} FROM {touched} AS phasegate_n JOIN phasegate_c AS phasegate_b ON {} WHERE phasegate_n.event = {moved})",
            self.source_table().sql(),
            equal(&of("phasegate_s", &self.shape.bare_key(self.from)), &came_from),
            equal(&of("phasegate_b", &marks), &came_from),
            names = marks.join(", "),
            keys = of("phasegate_n", &marks).join(", "),
            ended = literal(ENDED),
            moved = literal(MOVED),
        )
    }

    fn is_among_noted(&self) -> String {
        format!("EXISTS (SELECT 1 FROM phasegate_c WHERE {})", self.is_marked("phasegate_c"))
    }

    fn remove_noted(&self) -> Option<String> {
        let which = format!("{}{}", self.is_among_noted(), self.shape.and_filter(self.to()));
        let removed = removal(self.shape, self.to(), &which)?;
        Some(format!(
            "IF EXISTS (SELECT 1 FROM {}) THEN\n{} {removed}\nEND IF;",
            self.touched(),
            self.with_noted()
        ))
    }

    /// That the table that was emptied may still have rows. Of partitions an old snapshot doesn't show what others put in since:
    /// their locks and their files do.
    fn is_left(&self) -> String {
        let table = self.source_table();
        if table.kind != 'p' {
            return format!("EXISTS (SELECT 1 FROM {})", table.sql());
        }
        format!("(EXISTS ({}) OR {})", free(table), is_filled(table))
    }
}

/// A query for what of a table this session doesn't keep everybody else out of.
fn free(table: &Table) -> String {
    let name = literal(&table.sql());
    let all = if table.kind == 'p' {
        format!(
            "SELECT phasegate_p.relid::oid FROM pg_partition_tree({name}::regclass) AS phasegate_p"
        )
    } else {
        format!("SELECT {name}::regclass::oid")
    };
    format!(
        "{all} EXCEPT SELECT phasegate_l.relation FROM pg_locks AS phasegate_l WHERE phasegate_l.locktype = 'relation' \
         AND phasegate_l.pid = pg_backend_pid() AND phasegate_l.mode = 'AccessExclusiveLock' AND phasegate_l.granted \
         AND phasegate_l.database = (SELECT phasegate_d.oid FROM pg_database AS phasegate_d WHERE phasegate_d.datname = current_database())"
    )
}

/// That a table's files aren't empty. A partition that is elsewhere has none.
fn is_filled(table: &Table) -> String {
    let name = literal(&table.sql());
    if table.kind != 'p' {
        return format!("pg_relation_size({name}::regclass) > 0");
    }
    format!(
        "EXISTS (SELECT 1 FROM pg_partition_tree({name}::regclass) AS phasegate_p WHERE phasegate_p.isleaf \
         AND (pg_relation_filenode(phasegate_p.relid) IS NULL OR pg_relation_size(phasegate_p.relid) > 0))"
    )
}
