//! The functions and triggers that write changes of a table to the outbox.
//!
//! A trigger only learns which keys changed. For each it draws a version and reads the row as it is at that moment (never `NEW`,
//! which is stale when another trigger has changed the row since), among rows that this transaction has written (a client under
//! REPEATABLE READ that makes a key anew still sees the dead row of another). No such row: the key is gone.
//!
//! Why the highest version of a key is right:
//! - Whoever changes a key holds its row's lock, or the place of its key in the unique index, from before the trigger on until the
//!   transaction ends. So of two transactions that draw versions of one key, the second draws after the first has ended.
//! - Within a transaction the last change of a key fires its trigger behind all others of that key, since triggers fire in the order
//!   of events, and those of a statement inside a trigger before the triggers that are still to come. What it reads is how things stay.
//! - The version is drawn by the statement that inserts the change. So whoever has drawn one holds a lock on the outbox until the
//!   end, and who has none has drawn none: what `lag` and `enqueue` go by.
//!
//! An UPDATE that leaves every column that the mapping reads as it was, to the last bit, is passed over: the image would be the
//! one that the last change, or the copy, has. That is so only for expressions over columns of the row by functions that are known;
//! for all others every UPDATE counts.
//!
//! TRUNCATE of the whole table is one change, whatever its size, with an empty key and no image. The table is locked against
//! everybody, so all that was drawn before is void and all that comes is drawn behind. What triggers of others have put into the
//! table by then follows it row by row. TRUNCATE of a partition alone is a change for each of its rows, and is refused where the client's
//! snapshot is older than some of them may be.
//!
//! Absent on purpose: catching errors. Where an expression fails for a row, the client's write fails: a change that was left out
//! would be missed by nobody but a comparison.

use super::Resolved;
use super::mapped::carries;
use super::tables::{SEQUENCE, TABLE};
use crate::driver::postgres::catalogue::{Column, literal, quote};
use crate::driver::postgres::shape_sql::{Which as Side, all};
use crate::driver::postgres::sync_sql::{
    Function, SyncSql, Trigger, fires, function_name, labelled, trigger_name,
};
use crate::driver::postgres::trigger_sql::{is_kept, ours_body};
use crate::sql::{Dialect, calls_known_only, column_refs};

/// Says in a transaction which mapping's table is being emptied as a whole. Anybody can set it, so it counts only with the lock that
/// emptying the whole table takes; and that lock alone says nothing, since a client may take it and empty one partition.
const EMPTYING: &str = "phasegate.outbox_emptying";

/// What captures a mapping. `schema` is our own, quoted.
pub(super) fn capture_sql(of: &Resolved, schema: &str) -> SyncSql {
    let (shape, text) = (of.shape(), Text { of, schema });
    let function = |what: &str, parameters: &str, returns, body| Function {
        name: function_name(shape, what),
        parameters: parameters.to_owned(),
        returns,
        body,
        also: None,
    };
    let trigger = |what: &str, function: &str, fires| Trigger {
        name: trigger_name(shape, what),
        side: Side::Old,
        fires,
        columns: Vec::new(),
        function: function_name(shape, function),
        argument: None,
    };
    let row = fires::ROW | fires::INSERT | fires::UPDATE | fires::DELETE;
    let mut triggers =
        vec![trigger("o", "o", row), trigger("o_truncate", "o_truncate", fires::TRUNCATE)];
    if text.is_partitioned() {
        triggers.push(trigger("o_empty", "o_truncate", fires::TRUNCATE | fires::BEFORE));
    }
    SyncSql {
        functions: vec![
            function("o", "", "trigger", text.row_body()),
            function("o_ours", "phasegate_x xid", "boolean", ours_body()),
            function("o_truncate", "", "trigger", text.truncate_body()),
        ],
        triggers,
    }
}

/// What is written of a mapping.
struct Text<'a> {
    of: &'a Resolved,
    /// Our own schema, quoted.
    schema: &'a str,
}

impl Text<'_> {
    fn is_partitioned(&self) -> bool {
        self.of.shape().old.kind == 'p'
    }

    fn label(&self) -> String {
        function_name(self.of.shape(), "o")
    }

    /// The variables that hold a key.
    fn variables(&self) -> Vec<String> {
        let label = quote(&self.label());
        (1..=self.of.shape().keys.len()).map(|at| format!("{label}.phasegate_k{at}")).collect()
    }

    fn names(&self) -> Vec<String> {
        self.of.shape().bare_key(Side::Old)
    }

    /// The trigger for each row.
    fn row_body(&self) -> String {
        let shape = self.of.shape();
        let keys = shape.keys.iter().enumerate();
        let declare: Vec<String> =
            keys.map(|(at, pair)| format!("phasegate_k{} {};\n", at + 1, pair.type_sql)).collect();
        let declare = format!("{}phasegate_same boolean := false;\n", declare.concat());
        let same: Vec<String> =
            self.names().iter().enumerate().map(|(at, name)| self.same(at, name)).collect();
        let passed = self.unchanged().map_or_else(String::new, |unchanged| {
            format!("IF phasegate_same AND {unchanged} THEN\nRETURN NULL;\nEND IF;\n")
        });
        let note = self.note();
        let (old, new) = (self.take("OLD"), self.take("NEW"));
        let inner = format!(
            "{carries}IF TG_OP = 'UPDATE' THEN\nphasegate_same := {};\n{passed}END IF;\n\
             IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND NOT phasegate_same THEN\n{old}{note}\nEND IF;\n\
             IF TG_OP <> 'DELETE' THEN\n{new}{note}\nEND IF;\nRETURN NULL;",
            all(&same),
            carries = carries(&self.of.carries()),
        );
        labelled(&self.label(), &declare, &inner)
    }

    /// That an UPDATE left a key's column as it was: what is equal but written in another way is another key on the new side.
    fn same(&self, at: usize, name: &str) -> String {
        if self.of.is_loose(at) {
            format!("OLD.{name}::text COLLATE \"C\" = NEW.{name}::text COLLATE \"C\"")
        } else {
            format!("OLD.{name} = NEW.{name}")
        }
    }

    /// That an UPDATE left everything that the mapping reads as it was; none where that can't be told.
    fn unchanged(&self) -> Option<String> {
        let table = &self.of.shape().old;
        let captured = &self.of.captured;
        let expressions = captured.columns.iter().map(|(_, value)| value).chain(&captured.filter);
        let mut names = std::collections::BTreeSet::new();
        for expression in expressions {
            if !calls_known_only(Dialect::Postgres, expression) {
                return None;
            }
            names.extend(column_refs(Dialect::Postgres, expression).ok()?);
        }
        let columns: Option<Vec<&Column>> = names.iter().map(|name| table.column(name)).collect();
        let columns = columns?;
        if columns.iter().any(|column| column.is_generated) {
            return None;
        }
        Some(all(&columns.into_iter().map(is_kept).collect::<Vec<_>>()))
    }

    fn take(&self, image: &str) -> String {
        let names = self.names();
        let take =
            |(at, name): (usize, &String)| format!("phasegate_k{} := {image}.{name};\n", at + 1);
        names.iter().enumerate().map(take).collect()
    }

    fn outbox(&self) -> String {
        format!(
            "INSERT INTO {}.{} (version, mapping, key, image, bytes)",
            self.schema,
            quote(TABLE)
        )
    }

    fn version(&self) -> String {
        format!("nextval({}::regclass)", literal(&format!("{}.{}", self.schema, quote(SEQUENCE))))
    }

    fn id(&self) -> String {
        literal(&self.of.captured.id)
    }

    /// Notes the key in the variables. The image is read once, though it is used twice: OFFSET keeps the planner from copying it.
    fn note(&self) -> String {
        let shape = self.of.shape();
        let alias = quote(&shape.old.name);
        let variables = self.variables();
        let mut is_it = Vec::new();
        for (at, (name, value)) in shape.named_key(Side::Old).iter().zip(&variables).enumerate() {
            is_it.push(format!("{name} = {value}"));
            if self.of.is_loose(at) {
                is_it.push(format!("{name}::text COLLATE \"C\" = {value}::text COLLATE \"C\""));
            }
        }
        // Under READ COMMITTED there is no other row of the key; an older view may show one that others have deleted since.
        is_it.push(format!(
            "({alias}.xmax = 0 OR current_setting('transaction_isolation') = 'read committed' OR {}.{}({alias}.xmin))",
            self.schema,
            quote(&function_name(shape, "o_ours"))
        ));
        let keys: Vec<String> = variables.iter().map(|value| format!("{value}::text")).collect();
        format!(
            "{outbox} SELECT {version}, {id}, ARRAY[{keys}]::text[], phasegate_i.image, \
             coalesce(pg_column_size(phasegate_i.image), 0) \
             FROM (SELECT (SELECT {image} FROM {table} WHERE {is_it}{filter}) AS image OFFSET 0) AS phasegate_i;",
            outbox = self.outbox(),
            version = self.version(),
            id = self.id(),
            keys = keys.join(", "),
            image = self.of.image(),
            table = shape.named(Side::Old),
            is_it = all(&is_it),
            filter = shape.and_filter(Side::Old),
        )
    }

    /// TRUNCATE of the table, or of partitions alone. A partition that was detached has kept its triggers, and is none of ours.
    fn truncate_body(&self) -> String {
        let shape = self.of.shape();
        let (table, emptying, id) = (literal(&shape.old.sql()), literal(EMPTYING), self.id());
        let whole = format!(
            "{outbox} VALUES ({version}, {id}, '{{}}', NULL, 0);\n{rest}",
            outbox = self.outbox(),
            version = self.version(),
            rest = self.note_all(),
        );
        if !self.is_partitioned() {
            return labelled(&self.label(), "", &format!("{whole}\nRETURN NULL;"));
        }
        let refused = literal(&format!(
            "phasegate: TRUNCATE of a partition of {} can't be followed under an older snapshot; empty it at READ COMMITTED",
            shape.old.name
        ));
        let inner = format!(
            "IF NOT EXISTS (SELECT 1 FROM pg_partition_ancestors(TG_RELID) AS phasegate_p (phasegate_relid) \
             WHERE phasegate_p.phasegate_relid = {table}::regclass) THEN\nRETURN NULL;\nEND IF;\n\
             IF TG_RELID = {table}::regclass THEN\n\
             IF TG_WHEN = 'BEFORE' THEN\nPERFORM set_config({emptying}, {id}, true);\nELSE\n\
             PERFORM set_config({emptying}, '', true);\n{whole}\nEND IF;\n\
             ELSIF TG_WHEN = 'BEFORE' AND NOT (coalesce(current_setting({emptying}, true), '') = {id} AND EXISTS (\
             SELECT 1 FROM pg_locks AS phasegate_l WHERE phasegate_l.locktype = 'relation' \
             AND phasegate_l.relation = {table}::regclass AND phasegate_l.pid = pg_backend_pid() \
             AND phasegate_l.mode = 'AccessExclusiveLock' AND phasegate_l.granted)) THEN\n\
             IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN\n\
             RAISE EXCEPTION USING ERRCODE = 'feature_not_supported', MESSAGE = {refused};\nEND IF;\n{part}\nEND IF;\nRETURN NULL;",
            part = self.note_gone(),
        );
        labelled(&self.label(), "", &inner)
    }

    /// Notes every row that is there.
    fn note_all(&self) -> String {
        let shape = self.of.shape();
        let keys: Vec<String> =
            shape.named_key(Side::Old).iter().map(|name| format!("{name}::text")).collect();
        format!(
            "{outbox} SELECT {version}, {id}, phasegate_i.key, phasegate_i.image, pg_column_size(phasegate_i.image) \
             FROM (SELECT ARRAY[{keys}]::text[] AS key, {image} AS image FROM {table} WHERE true{filter} OFFSET 0) AS phasegate_i;",
            outbox = self.outbox(),
            version = self.version(),
            id = self.id(),
            keys = keys.join(", "),
            image = self.of.image(),
            table = shape.named(Side::Old),
            filter = shape.and_filter(Side::Old),
        )
    }

    /// Notes the keys of the table that the trigger stands on as gone.
    fn note_gone(&self) -> String {
        let keys: Vec<String> = self.names().iter().map(|name| format!("{name}::text")).collect();
        let sql = format!(
            "{} SELECT {}, {}, ARRAY[{}]::text[], NULL, 0 FROM ",
            self.outbox(),
            self.version(),
            self.id(),
            keys.join(", ")
        );
        format!("EXECUTE {} || TG_RELID::regclass::text;", literal(&sql))
    }
}
