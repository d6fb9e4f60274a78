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

use super::catalogue::{Table, literal, quote};
use super::marks::GUARD;
use super::shape::{Part, Shape, Write};
pub(super) use super::shape_sql::Which as Side;
use crate::run::{Direction, OnDelete};

/// What names of triggers of ours begin with: behind every other name, since PostgreSQL fires them by name.
pub(super) const TRIGGER_PREFIX: &str = "zzzz_phasegate_";

/// Bits of `pg_trigger.tgtype`.
pub(super) mod fires {
    pub const ROW: i16 = 1;
    pub const BEFORE: i16 = 2;
    pub const INSERT: i16 = 4;
    pub const DELETE: i16 = 8;
    pub const UPDATE: i16 = 16;
    pub const TRUNCATE: i16 = 32;
}

impl Side {
    /// The other one.
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Old => Self::New,
            Self::New => Self::Old,
        }
    }

    /// Its letter in the names of our objects.
    const fn letter(self) -> &'static str {
        match self {
            Self::Old => "a",
            Self::New => "b",
        }
    }
}

/// A function of a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    /// Its bare name.
    pub name: String,
    /// The list of its parameters.
    pub parameters: String,
    /// What it returns; a function that returns `trigger` runs as its owner.
    pub returns: &'static str,
    pub body: String,
}

/// A trigger of a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trigger {
    pub name: String,
    /// The table that it stands on.
    pub side: Side,
    /// When it fires, in the bits of [`fires`].
    pub fires: i16,
    /// The columns of an UPDATE that it asks for; none: all.
    pub columns: Vec<String>,
    /// The bare name of its function.
    pub function: String,
    /// What its function is told.
    pub argument: Option<String>,
}

/// Everything of ours that keeps a mapping in step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SyncSql {
    pub functions: Vec<Function>,
    pub triggers: Vec<Trigger>,
}

impl Trigger {
    /// The words between the trigger's name and its table.
    pub(super) fn head(&self) -> String {
        let mut events = Vec::new();
        for (bit, word) in [
            (fires::INSERT, "INSERT"),
            (fires::UPDATE, "UPDATE"),
            (fires::DELETE, "DELETE"),
            (fires::TRUNCATE, "TRUNCATE"),
        ] {
            if self.fires & bit != 0 {
                events.push(word.to_owned());
            }
        }
        if !self.columns.is_empty() {
            let columns: Vec<String> = self.columns.iter().map(|name| quote(name)).collect();
            events = vec![format!("UPDATE OF {}", columns.join(", "))];
        }
        let when = if self.fires & fires::BEFORE == 0 { "AFTER" } else { "BEFORE" };
        format!("{when} {}", events.join(" OR "))
    }

    /// Whether it fires for each row, so that PostgreSQL gives every partition its own.
    pub(super) const fn is_for_rows(&self) -> bool {
        self.fires & fires::ROW != 0
    }
}

/// The name of a function of a mapping.
pub(super) fn function_name(shape: &Shape, kind: &str) -> String {
    format!("phasegate_{}_{kind}", shape.id)
}

/// The name of a trigger of a mapping.
pub(super) fn trigger_name(shape: &Shape, kind: &str) -> String {
    format!("{TRIGGER_PREFIX}{}_{kind}", shape.id)
}

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

/// That a column holds, byte for byte, what storing the value in it would give.
pub(super) fn same(stored: &str, value: &str) -> String {
    format!("ROW({stored})::record *= ROW({value})::record")
}

/// Conditions that must all hold.
pub(super) fn all(conditions: &[String]) -> String {
    if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") }
}

/// Conditions of which one must hold.
pub(super) fn any(conditions: &[String]) -> String {
    if conditions.is_empty() {
        "false".to_owned()
    } else {
        format!("({})", conditions.join(" OR "))
    }
}

/// That a trigger fires for a write of ours: the engine's own statements fire it at depth 1 under the bare id.
pub(super) fn is_guarded(shape: &Shape) -> String {
    let id = literal(&shape.id);
    format!(
        "(coalesce(current_setting({}, true), '') = CASE pg_trigger_depth() WHEN 1 THEN {id} ELSE {id} || '/' || pg_trigger_depth() END)",
        literal(GUARD)
    )
}

impl Shape {
    /// A table as what follows FROM, so that its columns, and its bare name, can be seen.
    pub(super) fn named(&self, side: Side) -> String {
        let table = self.side(side);
        format!("{} AS {}", table.sql(), quote(&table.name))
    }

    /// The names of a table's key columns under its bare name.
    pub(super) fn named_key(&self, side: Side) -> Vec<String> {
        let alias = quote(&self.side(side).name);
        self.bare_key(side).iter().map(|name| format!("{alias}.{name}")).collect()
    }

    /// What is written into a table from the other one.
    pub(super) fn written(&self, side: Side) -> &[Write] {
        match side {
            Side::New => &self.writes,
            Side::Old => &self.reverse,
        }
    }

    /// What is written into a table beside its key.
    pub(super) fn written_beside_keys(&self, side: Side) -> impl Iterator<Item = (usize, &Write)> {
        let keys = self.bare_key(side);
        let is_key = move |write: &Write| keys.contains(&quote(&write.column));
        self.written(side).iter().enumerate().filter(move |(_, write)| !is_key(write))
    }

    /// What is written over in a table's rows: the server draws identities of its own alone.
    pub(super) fn written_over(&self, side: Side) -> impl Iterator<Item = (usize, &Write)> {
        let table = self.side(side);
        let is_drawn = |write: &Write| {
            table.column(&write.column).is_some_and(|column| column.identity == Some('a'))
        };
        self.written(side).iter().enumerate().filter(move |(_, write)| !is_drawn(write))
    }

    /// The filter as a further condition on rows of the old side.
    pub(super) fn and_filter(&self, side: Side) -> String {
        match (&self.filter, side) {
            (Some(filter), Side::Old) => format!(" AND {filter}"),
            _ => String::new(),
        }
    }

    /// What is read of the old side: values for the new one `phasegate_w…`, and with `both` the
    /// columns `phasegate_o…` that are written back.
    pub(super) fn old_list(&self, direction: Direction) -> String {
        let alias = quote(&self.old.name);
        let mut items = vec!["true AS phasegate_here".to_owned()];
        items.extend(
            self.writes.iter().enumerate().map(|(at, w)| format!("{} AS phasegate_w{at}", cast(w))),
        );
        if direction == Direction::Both {
            let columns = self.reverse.iter().enumerate();
            items.extend(
                columns.map(|(at, w)| format!("{alias}.{} AS phasegate_o{at}", quote(&w.column))),
            );
        }
        items.join(", ")
    }

    /// What is read of the new side: its columns `phasegate_n…`, and with `both` the values `phasegate_r…` for the
    /// old side.
    pub(super) fn new_list(&self, direction: Direction) -> String {
        let alias = quote(&self.new.name);
        let mut items = vec!["true AS phasegate_there".to_owned()];
        let columns = self.writes.iter().enumerate();
        items.extend(
            columns.map(|(at, w)| format!("{alias}.{} AS phasegate_n{at}", quote(&w.column))),
        );
        if direction == Direction::Both {
            let values = self.reverse.iter().enumerate();
            items.extend(values.map(|(at, w)| format!("{} AS phasegate_r{at}", cast(w))));
        }
        items.join(", ")
    }

    /// That the new side's columns of a part are as the old side says, in the names of the lists.
    pub(super) fn forward_holds(&self, part: &Part) -> String {
        let holds = |at: &usize| {
            same(
                &format!("phasegate_n{at}"),
                &stored(&self.new, &self.writes[*at], &format!("phasegate_w{at}")),
            )
        };
        all(&part.writes.iter().map(holds).collect::<Vec<_>>())
    }

    /// That the old side's columns of a part are as the new side says, likewise.
    pub(super) fn back_holds(&self, part: &Part) -> String {
        if part.reverse.is_empty() {
            return if part.is_alone() { "true" } else { "false" }.to_owned();
        }
        let holds = |at: &usize| {
            same(
                &format!("phasegate_o{at}"),
                &stored(&self.old, &self.reverse[*at], &format!("phasegate_r{at}")),
            )
        };
        all(&part.reverse.iter().map(holds).collect::<Vec<_>>())
    }

    /// That a part of a pair of rows is right: new = f(old), or with `both` old = g(new).
    pub(super) fn part_is_right(&self, part: &Part, direction: Direction) -> String {
        let forward = self.forward_holds(part);
        match direction {
            Direction::Forward => format!("({forward})"),
            Direction::Both if part.is_alone() => "true".to_owned(),
            Direction::Both => format!("({forward} OR ({}))", self.back_holds(part)),
        }
    }

    /// That a pair of rows is right in all its parts.
    pub(super) fn is_right(&self, direction: Direction) -> String {
        let parts: Vec<String> =
            self.parts.iter().map(|part| self.part_is_right(part, direction)).collect();
        format!("({})", all(&parts))
    }

    /// A column's value in a pair for one side: what the other side says, but for parts that are right as they are.
    pub(super) fn value_in_pair(&self, to: Side, at: usize, direction: Direction) -> String {
        let (theirs, ours) = match to {
            Side::New => (format!("phasegate_w{at}"), format!("phasegate_n{at}")),
            Side::Old => (format!("phasegate_r{at}"), format!("phasegate_o{at}")),
        };
        if direction == Direction::Forward {
            return theirs;
        }
        let is_in = |part: &&Part| match to {
            Side::New => part.writes.contains(&at),
            Side::Old => part.reverse.contains(&at),
        };
        match self.parts.iter().find(is_in) {
            Some(part) => {
                let right = self.part_is_right(part, direction);
                format!("CASE WHEN {right} THEN {ours} ELSE {theirs} END")
            }
            None => theirs,
        }
    }
}

impl Part {
    /// Whether nothing of the old side has to do with it.
    pub(super) fn is_alone(&self) -> bool {
        self.old_columns.is_empty() && self.reverse.is_empty()
    }
}

/// A value as it may stand in a list: a bare literal has no type of its own there.
pub(super) fn cast(write: &Write) -> String {
    if write.is_plain {
        return write.value.clone();
    }
    // Without a length these words mean a length of 1 in a cast.
    let type_sql = match write.type_sql.as_str() {
        "character" => "bpchar",
        "character[]" => "bpchar[]",
        "bit" => "\"bit\"",
        "bit[]" => "\"bit\"[]",
        other => other,
    };
    format!("CAST({} AS {type_sql})", write.value)
}

/// A value as it would be after storing it in its column. Only types that are built in are called by their declaration:
/// another one's name may not be on the path.
pub(super) fn stored(table: &Table, write: &Write, value: &str) -> String {
    let column = table.column(&write.column);
    let declared = column.map(|column| column.declared.as_str()).filter(|it| it.contains('('));
    match declared {
        Some(declared) if !write.type_sql.contains('.') => format!("CAST({value} AS {declared})"),
        _ => value.to_owned(),
    }
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
            let typed = |(at, pair): (usize, &super::shape::KeyPair)| {
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
        lines.push(self.insert());
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
        if self.direction == Direction::Both {
            // Whoever holds the row may be changing it now; what is right is judged by what they leave.
            lines.push(format!(
                "PERFORM 1 FROM {table} AS phasegate_t WHERE {is} FOR NO KEY UPDATE;"
            ));
        }
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

    /// Calls whose failure to see what happened since the client's snapshot leaves a note instead.
    fn caught(&self, calls: &str, (old, new): (&[String], &[String])) -> String {
        format!(
            "IF current_setting('transaction_isolation') = 'read committed' THEN\n{calls}\nELSE\nBEGIN\n{calls}\n\
             EXCEPTION WHEN serialization_failure THEN\n\
             GET STACKED DIAGNOSTICS phasegate_detail = PG_EXCEPTION_DETAIL;\n\
             IF phasegate_detail <> '' THEN\nRAISE;\nEND IF;\n\
             IF TG_OP <> 'INSERT' THEN\n{}\nEND IF;\nIF TG_OP <> 'DELETE' AND NOT phasegate_same THEN\n{}\nEND IF;\nEND;\nEND IF;",
            self.note(old),
            self.note(new),
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

/// A function's text.
pub(super) fn body(declare: &str, inner: &str) -> String {
    let declare = if declare.is_empty() { String::new() } else { format!("DECLARE\n{declare}") };
    format!("\n#variable_conflict use_column\n{declare}BEGIN\n{inner}\nEND\n")
}

/// The statement for rows of one side whose counterpart is gone. `which` sees the table under its bare name.
pub(super) fn removal(shape: &Shape, to: Side, which: &str) -> Option<String> {
    let table = shape.named(to);
    match (shape.on_delete, to) {
        (OnDelete::Delete, _) | (_, Side::Old) => {
            Some(format!("DELETE FROM {table} WHERE {which};"))
        }
        (OnDelete::Nullify, Side::New) => {
            let sets: Vec<String> = shape
                .written_beside_keys(to)
                .map(|(_, write)| format!("{} = NULL", quote(&write.column)))
                .collect();
            (!sets.is_empty())
                .then(|| format!("UPDATE {table} SET {} WHERE {which};", sets.join(", ")))
        }
        (OnDelete::Ignore, Side::New) => None,
    }
}
