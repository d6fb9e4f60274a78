//! The functions and triggers that keep two tables in step.
//!
//! A trigger only learns which keys changed. For each it reads the row as it is at that moment (never `NEW`, which is stale
//! when another trigger has changed the row since), among rows that this transaction has written (a client under REPEATABLE
//! READ that inserts a key anew still sees the dead row of another), and brings the other side's row to where it belongs.
//!
//! What is not certain at that moment is noted for `settle`, and the client sees no error that it wouldn't have without us:
//! - A client whose snapshot is older than a chunk deletes a row and doesn't see the copy.
//! - An update leaves the mapping's filter while the chunk that copies the row is open: the chunk's lock on the source row
//!   doesn't keep it out.
//! - Under REPEATABLE READ the copy's row has changed since the client's snapshot, and the server refuses to write it. A
//!   failure that SERIALIZABLE asks for (it comes with a detail) is never caught: the client must see it.
//!
//! Notes are only ever added. A note that is there already may be taken by `settle` a moment before the client commits, so
//! that relying on it would lose the key.
//!
//! With `both` there are such functions on both tables. Before one writes the other side it sets [`GUARD`] to the mapping
//! and the depth at which that write's triggers fire; the other side's function passes by only what has exactly this depth,
//! so that writes of users' triggers in between are followed. And what is right already is left alone.
//!
//! Absent on purpose: `NEW` and `OLD` in statements that read tables. A table may be called like that; keys get in as
//! parameters, whose names nobody else uses.

use super::catalogue::{literal, quote};
use super::marks::GUARD;
use super::planted::Fault;
use super::shape::{KeyPair, Shape, Write};
use super::sync_sql::{
    Function, Side, SyncSql, Trigger, all, body, cast, fires, function_name, is_guarded, removal,
    trigger_name,
};
use crate::run::{Direction, OnDelete};

/// What keeps two tables in step. `schema` is our own, quoted.
pub(super) fn table_sync(shape: &Shape, direction: Direction, schema: &str) -> SyncSql {
    let mut sync = Flow { shape, direction, schema, from: Side::Old }.sync();
    if direction == Direction::Both {
        let back = Flow { shape, direction, schema, from: Side::New }.sync();
        sync.functions.extend(back.functions);
        sync.triggers.extend(back.triggers);
    }
    sync
}

/// Where a key is: a function, and the letter of its parameters.
type Holder = (&'static str, char);

/// The key to bring in step.
const KEY: Holder = ("_key", 'k');
/// The key that a row had, and the one that it has now.
const MOVED_FROM: Holder = ("_move", 'j');
const MOVED_TO: Holder = ("_move", 'k');

/// Writes on one table, and what they do to the other.
struct Flow<'a> {
    shape: &'a Shape,
    direction: Direction,
    /// Our own schema, quoted.
    schema: &'a str,
    /// The table that clients write.
    from: Side,
}

impl Flow<'_> {
    fn to(&self) -> Side {
        self.from.other()
    }

    fn kind(&self, what: &str) -> String {
        format!("{}{what}", self.from.letter())
    }

    fn call(&self, what: &str) -> String {
        format!("{}.{}", self.schema, quote(&function_name(self.shape, &self.kind(what))))
    }

    fn sync(&self) -> SyncSql {
        let shape = self.shape;
        let function = |what: &str, parameters: String, returns, body| Function {
            name: function_name(shape, &self.kind(what)),
            parameters,
            returns,
            body,
        };
        let keys = |letter: &str| -> Vec<String> {
            let typed = |(at, pair): (usize, &KeyPair)| {
                format!("phasegate_{letter}{} {}", at + 1, pair.type_sql)
            };
            shape.keys.iter().enumerate().map(typed).collect()
        };
        let trigger = |what: &str, fires| Trigger {
            name: trigger_name(shape, &self.kind(what)),
            side: self.from,
            fires,
            columns: Vec::new(),
            function: function_name(shape, &self.kind(what)),
            argument: None,
        };
        let one =
            format!("{}, phasegate_event text, phasegate_passed boolean", keys("k").join(", "));
        let two = [keys("j"), keys("k")].concat().join(", ");
        let mut functions = vec![
            function("", String::new(), "trigger", self.row_body()),
            function("_key", one, "void", self.key_body()),
            function("_move", two, "boolean", self.move_body()),
        ];
        let row = fires::ROW | fires::INSERT | fires::UPDATE | fires::DELETE;
        let mut triggers = vec![trigger("", row)];
        if let Some(body) = self.truncate_body() {
            functions.push(function("_truncate", String::new(), "trigger", body));
            triggers.push(trigger("_truncate", fires::TRUNCATE));
        }
        SyncSql { functions, triggers }
    }

    /// Parameters of a function that hold a key, qualified by its name: a column may be called like one.
    fn parameters(&self, holder: Holder) -> Vec<String> {
        let function = quote(&function_name(self.shape, &self.kind(holder.0)));
        (1..=self.shape.keys.len())
            .map(|at| format!("{function}.phasegate_{}{at}", holder.1))
            .collect()
    }

    /// That a row under an alias has the key in parameters.
    fn key_is(&self, side: Side, alias: &str, holder: Holder) -> String {
        let names = self.shape.bare_key(side);
        let pairs = names.iter().zip(self.parameters(holder));
        all(&pairs.map(|(name, value)| format!("{alias}.{name} = {value}")).collect::<Vec<_>>())
    }

    /// Behind FROM: the source row of the key in parameters, as this transaction has written it.
    fn source(&self) -> String {
        let alias = quote(&self.shape.side(self.from).name);
        if Fault::NewInsteadOfReread.is_planted() {
            let (table, key) =
                (self.shape.side(self.from).sql(), self.key_is(self.from, &alias, KEY));
            let new = format!("nullif(current_setting('phasegate.new', true), '')::{table}");
            let filter = self.shape.and_filter(self.from);
            return format!("(SELECT ({new}).*) AS {alias} WHERE {key}{filter}");
        }
        format!(
            "{} WHERE {} AND age({alias}.xmin) <= age(pg_current_xact_id()::xid){}",
            self.shape.named(self.from),
            self.key_is(self.from, &alias, KEY),
            self.shape.and_filter(self.from),
        )
    }

    /// Behind FROM: the source row and its counterpart, under the names of the lists.
    fn pair(&self) -> String {
        let (shape, to) = (self.shape, self.to());
        let (olds, news) = (shape.old_list(self.direction), shape.new_list(self.direction));
        let (ours, theirs) = match self.from {
            Side::Old => (olds, news),
            Side::New => (news, olds),
        };
        let alias = quote(&shape.side(to).name);
        format!(
            "(SELECT {ours} FROM {}) AS phasegate_f, (SELECT {theirs} FROM {} WHERE {}) AS phasegate_o",
            self.source(),
            shape.named(to),
            self.key_is(to, &alias, KEY),
        )
    }

    /// Brings the other side's row of one key to where it belongs.
    fn key_body(&self) -> String {
        let mut lines = Vec::new();
        match self.direction {
            // A row that is new on its side has no counterpart, as a rule.
            Direction::Forward => {
                lines.push(format!(
                    "IF phasegate_event <> 'INSERT' THEN\n{}\nEND IF;",
                    self.update()
                ));
            }
            Direction::Both => lines.push(self.update()),
        }
        lines.push(self.insert_beside_others());
        lines.push(format!("IF FOUND THEN\n{}RETURN;\nEND IF;", self.stays_in_filter()));
        if let Some(removal) = self.removal() {
            lines.push(removal);
            if self.from == Side::Old {
                lines.push(format!(
                    "IF NOT FOUND AND phasegate_passed AND (phasegate_event = 'UPDATE' \
                     OR phasegate_event = 'DELETE' AND current_setting('transaction_isolation') <> 'read committed') THEN\n{}\nEND IF;",
                    self.note(&self.parameters(KEY))
                ));
            }
        }
        body("", &lines.join("\n"))
    }

    /// Writes the counterpart if it is there, and returns.
    fn update(&self) -> String {
        let (shape, to) = (self.shape, self.to());
        let table = shape.side(to).sql();
        let is = self.key_is(to, "phasegate_t", KEY);
        let written: Vec<(usize, &Write)> = shape.written_over(to).collect();
        let mut lines = Vec::new();
        let lock = format!("PERFORM 1 FROM {table} AS phasegate_t WHERE {is} FOR NO KEY UPDATE;");
        lines.push(match self.direction {
            // Whoever holds the row may be changing it now; what is right is judged by what they leave.
            Direction::Both => lock,
            // What an old snapshot shows of it may be right by chance, and be something else since: then this fails.
            Direction::Forward => format!(
                "IF current_setting('transaction_isolation') <> 'read committed' THEN\n{lock}\nEND IF;"
            ),
        });
        let returns = format!("IF FOUND THEN\n{}RETURN;\nEND IF;", self.stays_in_filter());
        if !written.is_empty() {
            let sets: Vec<String> = written
                .iter()
                .map(|(at, write)| {
                    let value = shape.value_in_pair(to, *at, self.direction);
                    format!("{} = {value}", quote(&write.column))
                })
                .collect();
            lines.push(format!(
                "UPDATE {table} AS phasegate_t SET {} FROM {} WHERE {is} AND NOT {};",
                sets.join(", "),
                self.pair(),
                shape.is_right(self.direction),
            ));
            lines.push(returns.clone());
        }
        lines.push(format!("PERFORM 1 FROM {};", self.pair()));
        lines.push(returns);
        lines.join("\n")
    }

    /// As [`insert`](Self::insert), where the table has further unique indexes. The server looks at its indexes in an order of
    /// its own: of a row that a chunk is making at this moment it may meet the entry of another index before that of the key,
    /// waits for the chunk, and reports what is the very same row as a duplicate. By then the row can be seen and written.
    fn insert_beside_others(&self) -> String {
        let table = self.shape.side(self.to());
        if table.indexes.iter().filter(|index| index.is_unique).count() < 2 {
            return self.insert();
        }
        format!(
            "BEGIN\n{}\nEXCEPTION WHEN unique_violation THEN\n{}\nRAISE;\nEND;",
            self.insert(),
            self.update(),
        )
    }

    /// Makes the counterpart. What a chunk has put there meanwhile is written over.
    fn insert(&self) -> String {
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
        let conflict = if sets.is_empty() {
            "DO NOTHING".to_owned()
        } else {
            format!("DO UPDATE SET {}", sets.join(", "))
        };
        format!(
            "INSERT INTO {} AS phasegate_t ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} ON CONFLICT ({}) {conflict};",
            shape.side(to).sql(),
            columns.join(", "),
            values.join(", "),
            self.source(),
            shape.bare_key(to).join(", "),
        )
    }

    /// What becomes of the counterpart of a row that is gone, or that the filter no longer lets pass.
    fn removal(&self) -> Option<String> {
        let (shape, to) = (self.shape, self.to());
        let table = shape.side(to);
        let which = format!(
            "{}{} AND NOT EXISTS (SELECT 1 FROM {})",
            self.key_is(to, &quote(&table.name), KEY),
            shape.and_filter(to),
            self.source(),
        );
        removal(shape, to, &which)
    }

    /// Refuses a write back that the filter would hide.
    fn stays_in_filter(&self) -> String {
        if self.from == Side::Old || self.shape.filter.is_none() {
            return String::new();
        }
        let alias = quote(&self.shape.old.name);
        let message = format!(
            "phasegate: the row would fall outside the mapping''s filter (mapping {})",
            self.shape.mapping
        );
        format!(
            "PERFORM 1 FROM {} WHERE {}{};\nIF NOT FOUND THEN\nRAISE EXCEPTION '{message}' USING ERRCODE = 'check_violation';\nEND IF;\n",
            self.shape.named(Side::Old),
            self.key_is(Side::Old, &alias, KEY),
            self.shape.and_filter(Side::Old),
        )
    }

    fn note(&self, key: &[String]) -> String {
        if Fault::NoTouchedKeys.is_planted() {
            return "NULL;".to_owned();
        }
        let touched = format!("{}.{}", self.schema, quote(&self.shape.touched_name()));
        format!(
            "INSERT INTO {touched} ({}) VALUES ({});",
            self.shape.mark_columns().join(", "),
            key.join(", ")
        )
    }

    /// Where the key of a row changed and its counterpart can follow, it does so as one row: its other columns, and what
    /// refers to it, stay with it.
    fn move_body(&self) -> String {
        let (shape, to) = (self.shape, self.to());
        let names = shape.bare_key(to);
        let sets: Vec<String> = names
            .iter()
            .zip(self.parameters(MOVED_TO))
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        let table = shape.side(to).sql();
        let alias = quote(&shape.side(self.from).name);
        let moved = format!(
            "UPDATE {table} AS phasegate_t SET {} WHERE {} AND NOT EXISTS (SELECT 1 FROM {} WHERE {} \
             AND age({alias}.xmin) <= age(pg_current_xact_id()::xid)) \
             AND NOT EXISTS (SELECT 1 FROM {table} AS phasegate_o WHERE {});\nRETURN FOUND;",
            sets.join(", "),
            self.key_is(to, "phasegate_t", MOVED_FROM),
            shape.named(self.from),
            self.key_is(self.from, &alias, MOVED_FROM),
            self.key_is(to, "phasegate_o", MOVED_TO),
        );
        // An old snapshot doesn't show the row that stands in the way. Whatever else is not unique fails again when the row
        // is made anew.
        let moved = format!(
            "IF current_setting('transaction_isolation') = 'read committed' THEN\n{moved}\nELSE\nBEGIN\n{moved}\n\
             EXCEPTION WHEN unique_violation THEN\nRETURN false;\nEND;\nEND IF;"
        );
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
        body("", &format!("{drawn}\n{moved}"))
    }

    /// The trigger for each row: finds out which keys changed.
    fn row_body(&self) -> String {
        let shape = self.shape;
        let key = |image: &str| -> Vec<String> {
            let names = shape.bare_key(self.from);
            let typed = names.iter().zip(&shape.keys);
            typed.map(|(name, pair)| format!("{image}.{name}::{}", pair.type_sql)).collect()
        };
        let (old, new) = (key("OLD").join(", "), key("NEW").join(", "));
        let pairs = shape.bare_key(self.from);
        let is_same =
            all(&pairs.iter().map(|name| format!("OLD.{name} = NEW.{name}")).collect::<Vec<_>>());
        let one = self.call("_key");
        let calls = format!(
            "IF TG_OP = 'INSERT' THEN\nPERFORM {one}({new}, 'INSERT', true);\n\
             ELSIF TG_OP = 'DELETE' THEN\nPERFORM {one}({old}, 'DELETE', phasegate_passed);\n\
             ELSIF phasegate_same THEN\nPERFORM {one}({new}, 'UPDATE', phasegate_passed);\n\
             ELSIF {}({old}, {new}) THEN\nPERFORM {one}({new}, 'UPDATE', phasegate_passed);\n\
             ELSE\nPERFORM {one}({old}, 'DELETE', phasegate_passed);\nPERFORM {one}({new}, 'INSERT', true);\nEND IF;",
            self.call("_move"),
        );
        let mut lines = Vec::new();
        if Fault::NewInsteadOfReread.is_planted() {
            lines
                .push("PERFORM set_config('phasegate.new', coalesce(NEW::text, ''), true);".into());
        }
        lines.push(format!("IF TG_OP = 'UPDATE' THEN\nphasegate_same := {is_same};\nEND IF;"));
        if let (Some(filter), Side::Old) = (&shape.filter, self.from) {
            lines.push(format!(
                "IF TG_OP <> 'INSERT' THEN\nphasegate_passed := EXISTS (SELECT 1 FROM (SELECT (OLD).*) AS {} WHERE {filter});\nEND IF;",
                quote(&shape.old.name)
            ));
        }
        lines.push(match self.from {
            Side::Old => self.caught(&calls, (&key("OLD"), &key("NEW"))),
            Side::New => calls,
        });
        let declare = "phasegate_same boolean := false;\nphasegate_passed boolean := true;\nphasegate_detail text;\n";
        self.guarded(declare, &lines.join("\n"))
    }

    /// Calls whose failure to see what happened since the client's snapshot leaves a note instead. What isn't seen may hold a
    /// value that must be unique as well; where it is truly another row's, putting the note right says so.
    ///
    /// Under READ COMMITTED what is in the way is there; but it may be the copy of a row that is gone, as long as that is only
    /// noted. Then this is noted, too.
    fn caught(&self, calls: &str, (old, new): (&[String], &[String])) -> String {
        let notes = format!(
            "IF TG_OP <> 'INSERT' THEN\n{}\nEND IF;\nIF TG_OP <> 'DELETE' AND NOT phasegate_same THEN\n{}\nEND IF;",
            self.note(old),
            self.note(new),
        );
        let table = self.shape.side(self.to());
        let seen = if table.indexes.iter().filter(|index| index.is_unique).count() < 2 {
            calls.to_owned()
        } else {
            format!(
                "BEGIN\n{calls}\nEXCEPTION WHEN unique_violation THEN\nPERFORM 1 FROM {}.{} LIMIT 1;\n\
                 IF NOT FOUND THEN\nRAISE;\nEND IF;\n{notes}\nEND;",
                self.schema,
                quote(&self.shape.touched_name()),
            )
        };
        format!(
            "IF current_setting('transaction_isolation') = 'read committed' THEN\n{seen}\nELSE\nBEGIN\n{calls}\n\
             EXCEPTION WHEN serialization_failure OR unique_violation THEN\n\
             GET STACKED DIAGNOSTICS phasegate_detail = PG_EXCEPTION_DETAIL;\n\
             IF SQLSTATE = '40001' AND phasegate_detail <> '' THEN\nRAISE;\nEND IF;\n{notes}\nEND;\nEND IF;",
        )
    }

    /// A trigger's body, which passes by what our own write on the other side has brought about.
    fn guarded(&self, declare: &str, inner: &str) -> String {
        if self.direction == Direction::Forward {
            return body(declare, &format!("{inner}\nRETURN NULL;"));
        }
        let (name, id) = (literal(GUARD), literal(&self.shape.id));
        let declare = format!(
            "{declare}phasegate_guard text := coalesce(current_setting({name}, true), '');\n"
        );
        body(
            &declare,
            &format!(
                "IF {} THEN\nRETURN NULL;\nEND IF;\n\
                 PERFORM set_config({name}, {id} || '/' || (pg_trigger_depth() + 1), true);\n{inner}\n\
                 PERFORM set_config({name}, phasegate_guard, true);\nRETURN NULL;",
                is_guarded(self.shape),
            ),
        )
    }

    /// Follows TRUNCATE: of the table, or of partitions alone. Its lock has kept chunks out, and the rows are gone.
    fn truncate_body(&self) -> Option<String> {
        let (shape, to) = (self.shape, self.to());
        let (table, source) = (shape.side(to), shape.side(self.from));
        let pairs = shape.named_key(to).into_iter().zip(shape.bare_key(self.from));
        let is_same: Vec<String> =
            pairs.map(|(ours, theirs)| format!("phasegate_s.{theirs} = {ours}")).collect();
        let which = format!(
            "NOT EXISTS (SELECT 1 FROM {} AS phasegate_s WHERE {}){}",
            source.sql(),
            all(&is_same),
            shape.and_filter(to)
        );
        let followed = removal(shape, to, &which)?;
        let message = format!(
            "phasegate: this TRUNCATE of {} can be followed under READ COMMITTED only (mapping {})",
            source.name.replace('%', "%%"),
            shape.mapping
        );
        let refused = format!(
            "RAISE EXCEPTION {} USING ERRCODE = 'feature_not_supported';",
            literal(&message)
        );
        // An old snapshot doesn't show what was copied since, but TRUNCATE takes that along.
        let is_whole =
            shape.on_delete == OnDelete::Delete && (to == Side::New || shape.filter.is_none());
        // Where the client's TRUNCATE names both tables there is nothing left, and the server would refuse another one.
        let blind = if is_whole {
            let is_filled = match table.kind {
                'p' => "true".to_owned(),
                _ => format!("pg_relation_size({}::regclass) > 0", literal(&table.sql())),
            };
            format!(
                "IF EXISTS (SELECT 1 FROM {}) THEN\n{refused}\nEND IF;\nIF {is_filled} THEN\nTRUNCATE {};\nEND IF;",
                source.sql(),
                table.sql(),
            )
        } else {
            refused
        };
        let inner = format!(
            "IF current_setting('transaction_isolation') = 'read committed' THEN\n{followed}\nELSE\n{blind}\nEND IF;"
        );
        Some(self.guarded("", &inner))
    }
}
