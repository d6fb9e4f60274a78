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
//! - Foreign keys of the other side's table, or to it, don't hold at that moment: what the row refers to isn't copied yet, is
//!   noted itself, or is followed later in the same statement or transaction; or the copy of a row that is gone refers to it.
//!
//! A row whose key changed is noted with both its keys, so that its copy follows it later as one row, with what only the new
//! side has of it and what refers to it; and while that is only noted, its further ways are noted, too.
//!
//! Notes are only ever added. A note that is there already may be taken by `settle` a moment before the client commits, so
//! that relying on it would lose the key.
//!
//! With `both` there are such functions on both tables. Before one writes the other side it sets [`GUARD`] to the mapping
//! and the depth at which that write's triggers fire; the other side's function passes by only what has exactly this depth,
//! so that writes of users' triggers in between are followed. And what is right already is left alone.
//!
//! A row that an UPDATE leaves as it was, as far as the mapping reads it, is left alone: its copy is as right as it was, and
//! where there is none yet the copy brings it. What happens most often (one row written forward under READ COMMITTED) is done by
//! the trigger's own function in one statement; everything else by functions that it calls. Blocks that catch errors are
//! subtransactions, which cost everybody, and are entered only where there is an error to expect.
//!
//! Where clients' writes may be parked (`on_error: park`), what the row's content is to blame for is caught as well: the key is
//! entered with the reason among the parked ones, and the copy stays as it was.
//!
//! Absent on purpose: `NEW` and `OLD` in statements that read tables. A table may be called like that; keys get in as
//! parameters or variables that are qualified by the function's name, which nobody else uses.

use super::catalogue::{Column, literal, quote};
use super::marks::{ENDED, GUARD, LEFT, MADE, MOVED, Noted, OUT};
use super::planted::Fault;
use super::shape::{KeyPair, Part, Shape, is_exact};
use super::sync_sql::{
    Function, Side, SyncSql, Trigger, all, body, fires, function_name, is_guarded, labelled,
    trigger_name,
};
use super::trigger_key::is_beside_others;
use crate::bounds::message::REASON_CHARS_MAX;
use crate::run::Direction;
use crate::sql::{Dialect, calls_known_only, column_refs};

/// What keeps two tables in step. `schema` is our own, quoted.
pub(super) fn table_sync(shape: &Shape, direction: Direction, schema: &str) -> SyncSql {
    let flow = |from: Side| Flow::of((shape, direction), schema, from);
    let mut sync = flow(Side::Old).sync();
    if direction == Direction::Both {
        let back = flow(Side::New).sync();
        sync.functions.extend(back.functions);
        sync.triggers.extend(back.triggers);
    }
    sync
}

/// What a row's content may be to blame for, as functions catch it: `is_of_a_row` has the same classes.
pub(super) const OF_A_ROW: &str = "cardinality_violation OR data_exception OR integrity_constraint_violation OR \
     with_check_option_violation OR program_limit_exceeded OR plpgsql_error";

/// Takes down what was said of it, as `parking::reason` does.
pub(super) fn reason() -> String {
    format!(
        "GET STACKED DIAGNOSTICS phasegate_detail = PG_EXCEPTION_DETAIL;\n\
     phasegate_detail := left(CASE WHEN starts_with(phasegate_detail, 'Key ') \
     THEN SQLERRM || ' (' || rtrim(phasegate_detail, '.') || ')' ELSE SQLERRM END, {REASON_CHARS_MAX});"
    )
}

/// Where a key is: a function, and the letter of its parameters.
pub(super) type Holder = (&'static str, char);

/// The key to bring in step, in the function that does it and in the trigger's own.
pub(super) const KEY: Holder = ("_key", 'k');
const HERE: Holder = ("", 'k');
/// The key that a row had, and the one that it has now.
pub(super) const MOVED_FROM: Holder = ("_move", 'j');
pub(super) const MOVED_TO: Holder = ("_move", 'k');

/// That an UPDATE left a column as it was, to the last bit.
pub(super) fn is_kept(column: &Column) -> String {
    let name = quote(&column.name);
    if is_exact(column) {
        format!("OLD.{name} IS NOT DISTINCT FROM NEW.{name}")
    } else {
        format!("ROW(OLD.{name})::record *= ROW(NEW.{name})::record")
    }
}

/// Writes on one table, and what they do to the other.
pub(super) struct Flow<'a> {
    pub(super) shape: &'a Shape,
    pub(super) direction: Direction,
    /// Our own schema, quoted.
    schema: &'a str,
    /// The table that clients write.
    pub(super) from: Side,
    /// Whether another unique index may come before the key's.
    pub(super) is_beside_others: bool,
}

impl<'a> Flow<'a> {
    fn of((shape, direction): (&'a Shape, Direction), schema: &'a str, from: Side) -> Self {
        let is_beside_others = is_beside_others(shape, from.other());
        Self { shape, direction, schema, from, is_beside_others }
    }

    /// The same for a table to which its first other unique index has come since, or which has lost its last.
    const fn rebuilt(&self) -> Self {
        Self { is_beside_others: !self.is_beside_others, ..*self }
    }

    pub(super) fn to(&self) -> Side {
        self.from.other()
    }

    pub(super) fn kind(&self, what: &str) -> String {
        format!("{}{what}", self.from.letter())
    }

    pub(super) fn call(&self, what: &str) -> String {
        format!("{}.{}", self.schema, quote(&function_name(self.shape, &self.kind(what))))
    }

    fn sync(&self) -> SyncSql {
        let shape = self.shape;
        let function =
            |what: &str, parameters: String, returns, body: &dyn Fn(&Self) -> String| Function {
                name: function_name(shape, &self.kind(what)),
                parameters,
                returns,
                body: body(self),
                also: Some(body(&self.rebuilt())),
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
        let parts = match self.direction {
            Direction::Forward => "",
            Direction::Both => ", phasegate_parts boolean[]",
        };
        let one = format!(
            "{}, phasegate_event text, phasegate_passed boolean{parts}",
            keys("k").join(", ")
        );
        let own = match self.direction {
            Direction::Forward => vec!["phasegate_own boolean".to_owned()],
            Direction::Both => Vec::new(),
        };
        let two = [keys("j"), keys("k"), own].concat().join(", ");
        let mut functions = vec![
            function("", String::new(), "trigger", &Self::row_body),
            function("_key", one, "boolean", &Self::key_body),
            function("_move", two, "boolean", &Self::move_body),
            function("_ours", "phasegate_x xid".to_owned(), "boolean", &|_| ours_body()),
        ];
        let row = fires::ROW | fires::INSERT | fires::UPDATE | fires::DELETE;
        let mut triggers = vec![trigger("", row)];
        if let Some(body) = self.truncate_body() {
            functions.push(function("_truncate", String::new(), "trigger", &|_| body.clone()));
            triggers.extend(self.truncate_triggers());
        }
        SyncSql { functions, triggers }
    }

    /// Parameters of a function that hold a key, qualified by its name: a column may be called like one.
    pub(super) fn parameters(&self, holder: Holder) -> Vec<String> {
        let function = quote(&function_name(self.shape, &self.kind(holder.0)));
        (1..=self.shape.keys.len())
            .map(|at| format!("{function}.phasegate_{}{at}", holder.1))
            .collect()
    }

    /// That a row under an alias has the key in parameters.
    pub(super) fn key_is(&self, side: Side, alias: &str, holder: Holder) -> String {
        let names = self.shape.bare_key(side);
        let pairs = names.iter().zip(self.parameters(holder));
        all(&pairs.map(|(name, value)| format!("{alias}.{name} = {value}")).collect::<Vec<_>>())
    }

    pub(super) fn touched(&self) -> String {
        format!("{}.{}", self.schema, quote(&self.shape.touched_name()))
    }

    pub(super) fn note(&self, key: &[String], what: Noted<'_>) -> String {
        if Fault::NoTouchedKeys.is_planted() {
            return "NULL;".to_owned();
        }
        let mut columns = self.shape.mark_columns();
        let mut values = key.to_vec();
        let event = match what {
            Noted::Changed => None,
            Noted::Ended => Some(ENDED),
            Noted::Made => Some(MADE),
            Noted::Out => Some(OUT),
            Noted::Left => Some(LEFT),
            Noted::Moved(origin) => {
                columns.extend(self.shape.origin_columns());
                values.extend_from_slice(origin);
                Some(MOVED)
            }
        };
        if let Some(event) = event {
            columns.push("event".to_owned());
            values.push(literal(event));
        }
        let (columns, values) = (columns.join(", "), values.join(", "));
        format!("INSERT INTO {} ({columns}) VALUES ({values});", self.touched())
    }

    /// That of a key one of these events is noted.
    pub(super) fn is_noted(&self, key: Holder, events: &[&str]) -> String {
        let marks = self.shape.mark_columns();
        let pairs = marks.iter().zip(self.parameters(key));
        let is_it: Vec<String> =
            pairs.map(|(mark, value)| format!("phasegate_n.{mark} = {value}")).collect();
        let events: Vec<String> = events.iter().map(|event| literal(event)).collect();
        format!(
            "EXISTS (SELECT 1 FROM {} AS phasegate_n WHERE {} AND phasegate_n.event IN ({}))",
            self.touched(),
            all(&is_it),
            events.join(", "),
        )
    }

    /// Columns of an image of the row, as parameters take them.
    fn key_of(&self, image: &str) -> Vec<String> {
        let names = self.shape.bare_key(self.from);
        let typed = names.iter().zip(&self.shape.keys);
        typed.map(|(name, pair)| format!("{image}.{name}::{}", pair.type_sql)).collect()
    }

    /// The columns that what is written on the other side depends on; none where it may be the row as a whole.
    fn followed(&self) -> Option<Vec<&Column>> {
        let table = self.shape.side(self.from);
        let mut names = std::collections::BTreeSet::new();
        let values = self.shape.written(self.to()).iter().map(|write| write.value.as_str());
        let filter = self.shape.filter.as_deref().filter(|_| self.from == Side::Old);
        for value in values.chain(filter) {
            match column_refs(Dialect::Postgres, value) {
                Ok(found)
                    if found.iter().all(|name| table.column(name).is_some())
                        && calls_known_only(Dialect::Postgres, value) =>
                {
                    names.extend(found);
                }
                _ => return None,
            }
        }
        // A trigger may see no value of a column that is worked out when it is read.
        if table.columns.iter().any(|column| column.is_generated && names.contains(&column.name)) {
            return None;
        }
        Some(table.columns.iter().filter(|column| names.contains(&column.name)).collect())
    }

    /// That an UPDATE left what is followed as it was, to the last bit.
    fn unchanged(&self) -> String {
        let Some(mut columns) = self.followed() else { return "OLD *= NEW".to_owned() };
        // What takes longer is compared last.
        columns.sort_by_key(|column| !is_exact(column));
        all(&columns.into_iter().map(is_kept).collect::<Vec<_>>())
    }

    /// The trigger for each row: finds out which keys changed.
    fn row_body(&self) -> String {
        let pairs = self.shape.bare_key(self.from);
        let is_same =
            all(&pairs.iter().map(|name| format!("OLD.{name} = NEW.{name}")).collect::<Vec<_>>());
        let mut first = format!(
            "IF TG_OP = 'UPDATE' THEN\nphasegate_same := {is_same};\n\
             IF phasegate_same AND {} THEN\nRETURN NULL;\nEND IF;\nEND IF;\n",
            self.unchanged()
        );
        if Fault::NewInsteadOfReread.is_planted() {
            first.push_str("PERFORM set_config('phasegate.new', coalesce(NEW::text, ''), true);\n");
        }
        let calls = format!("{}{}", self.passed(), self.calls());
        let inner = match (self.from, self.direction) {
            (Side::New, _) => self.calls(),
            (Side::Old, Direction::Both) => self.caught(&calls, &calls),
            (Side::Old, Direction::Forward) => self.caught(&self.at_once(), &calls),
        };
        let inner = if self.from == Side::Old { self.parked(&inner) } else { inner };
        let mut declare = "phasegate_same boolean := false;\nphasegate_passed boolean := true;\n\
             phasegate_done boolean;\nphasegate_detail text;\nphasegate_noted boolean;\nphasegate_tied boolean;\n"
            .to_owned();
        if self.direction == Direction::Forward {
            let keys = self.shape.keys.iter().enumerate();
            declare.extend(
                keys.map(|(at, pair)| format!("phasegate_k{} {};\n", at + 1, pair.type_sql)),
            );
        }
        self.guarded((&declare, &first), &inner)
    }

    /// Finds out whether the filter let the row pass that was there before.
    fn passed(&self) -> String {
        match &self.shape.filter {
            Some(filter) if self.from == Side::Old => format!(
                "IF TG_OP <> 'INSERT' THEN\nphasegate_passed := EXISTS (SELECT 1 FROM (SELECT (OLD).*) AS {} WHERE {filter});\nEND IF;\n",
                quote(&self.shape.old.name)
            ),
            _ => String::new(),
        }
    }

    fn call_key(&self, image: &str, event: &str) -> String {
        self.call_key_with(image, event, self.all_parts())
    }

    fn call_key_with(&self, image: &str, event: &str, parts: &str) -> String {
        let passed = if event == "INSERT" { "true" } else { "phasegate_passed" };
        format!(
            "phasegate_done := {}({}, '{event}', {passed}{parts});",
            self.call("_key"),
            self.key_of(image).join(", ")
        )
    }

    /// With `both`, what the function of a key is told where a row is new as a whole.
    pub(super) const fn all_parts(&self) -> &'static str {
        match self.direction {
            Direction::Forward => "",
            Direction::Both => ", NULL",
        }
    }

    /// With `both`, what it is told of an UPDATE: for each part whether anything of it was changed.
    fn changed_parts(&self) -> String {
        if self.direction == Direction::Forward {
            return String::new();
        }
        let (shape, table) = (self.shape, self.shape.side(self.from));
        let changed = |part: &Part| {
            let columns = match self.from {
                Side::Old => part.old_columns.clone(),
                Side::New => part.new_columns(&shape.writes, &shape.reverse, table),
            };
            let columns = table.columns.iter().filter(|column| columns.contains(&column.name));
            let same: Vec<String> = columns.map(is_kept).collect();
            format!("NOT ({})", all(&same))
        };
        let parts: Vec<String> = shape.parts.iter().map(changed).collect();
        format!(", ARRAY[{}]::boolean[]", parts.join(", "))
    }

    /// A changed key: its counterpart follows, or one goes and another comes, or that is left for later.
    fn call_move(&self) -> String {
        let own = match self.direction {
            Direction::Forward => format!(
                ", current_setting('transaction_isolation') <> 'read committed' AND {}(OLD.xmin)",
                self.call("_ours")
            ),
            Direction::Both => String::new(),
        };
        format!(
            "phasegate_done := {}({}, {}{own});\nIF phasegate_done THEN\n{}\nELSIF NOT phasegate_done THEN\n{}\n{}\nEND IF;",
            self.call("_move"),
            self.key_of("OLD").join(", "),
            self.key_of("NEW").join(", "),
            self.call_key("NEW", "UPDATE"),
            self.call_key("OLD", "DELETE"),
            self.call_key("NEW", "CAME"),
        )
    }

    fn calls(&self) -> String {
        format!(
            "IF TG_OP = 'INSERT' THEN\n{}\nELSIF TG_OP = 'DELETE' THEN\n{}\nELSIF phasegate_same THEN\n{}\nELSE\n{}\nEND IF;",
            self.call_key("NEW", "INSERT"),
            self.call_key("OLD", "DELETE"),
            self.call_key_with("NEW", "UPDATE", &self.changed_parts()),
            self.call_move(),
        )
    }

    /// The same with what happens most often done here, in one statement.
    fn at_once(&self) -> String {
        let take = |image: &str| {
            let pairs = self.parameters(HERE).into_iter().zip(self.key_of(image));
            let taken: Vec<String> =
                pairs.map(|(to, value)| format!("{to} := {value};\n")).collect();
            taken.concat()
        };
        let changed = match self.change(HERE) {
            Some(change) => format!(
                "{}{change}\nIF NOT FOUND THEN\n{}{}\nEND IF;",
                take("NEW"),
                self.passed(),
                self.call_key("NEW", "MISSED")
            ),
            None => format!("{}{}", self.passed(), self.call_key("NEW", "UPDATE")),
        };
        // No chunk has seen a row that is new.
        let inserted = format!(
            "{}{}\nIF NOT FOUND THEN\n{}\nEND IF;",
            take("NEW"),
            self.insert(HERE),
            self.call_key("NEW", "GONE")
        );
        let again = format!(
            "PERFORM 1 FROM {};\nIF FOUND THEN\n{}\nEND IF;",
            self.source(HERE),
            self.call_key("OLD", "DELETE")
        );
        let removed = match self.removal(HERE) {
            Some(removal) => format!("{removal}\nIF NOT FOUND THEN\n{again}\nEND IF;"),
            None => again,
        };
        format!(
            "IF phasegate_same THEN\n{changed}\nELSIF TG_OP = 'INSERT' THEN\n{inserted}\n\
             ELSIF TG_OP = 'DELETE' THEN\n{}{removed}\nELSE\n{}{}\nEND IF;",
            take("OLD"),
            self.passed(),
            self.call_move(),
        )
    }

    /// Calls whose failure to see what happened since the client's snapshot leaves a note instead, and what is done where that
    /// can't be. What isn't seen may hold a value that must be unique as well; where it is truly another row's, putting the
    /// note right says so.
    ///
    /// Under READ COMMITTED what is in the way is there; but it may be the copy of a row that is gone, as long as that is only
    /// noted. Then this is noted, too. Whoever could be in the way of this row had to commit its note before: both write the same
    /// source row, or the same value of the source's own unique index.
    ///
    /// Keys that rows hand on, and what triggers write while the row that they fire for is not followed yet, may be in each other's
    /// way for a moment: that is noted, too.
    ///
    /// What foreign keys refuse is noted at every level: each row is followed by itself, and the one that it refers to may come
    /// to its copy later.
    fn caught(&self, at_once: &str, calls: &str) -> String {
        let notes = self.notes();
        // Clients of the new shape may hold on to the copy by its key: whoever changes that has to see it, as in one table.
        let told = match self.direction {
            Direction::Forward => "phasegate_detail <> ''",
            Direction::Both => {
                "(phasegate_detail <> '' OR TG_OP = 'UPDATE' AND NOT phasegate_same)"
            }
        };
        let tied = "foreign_key_violation OR restrict_violation";
        let held = "unique_violation OR exclusion_violation";
        let parked = if self.shape.park_max.is_some() {
            let parked = format!("{}.{}", self.schema, quote(&self.shape.parked_name()));
            format!(" OR EXISTS (SELECT 1 FROM {parked})")
        } else {
            String::new()
        };
        let seen = format!(
            "SELECT EXISTS (SELECT 1 FROM {}){parked} OR pg_trigger_depth() > 1 OR TG_OP = 'UPDATE' AND NOT phasegate_same, {} \
             INTO phasegate_noted, phasegate_tied;\n\
             IF NOT (phasegate_noted OR phasegate_tied) THEN\n{at_once}\nELSE\nBEGIN\n{calls}\n\
             EXCEPTION WHEN {held} OR {tied} THEN\n\
             IF SQLSTATE IN ('23505', '23P01') AND NOT phasegate_noted THEN\nRAISE;\nEND IF;\n{notes}\nEND;\nEND IF;",
            self.touched(),
            self.is_tied(),
        );
        format!(
            "IF current_setting('transaction_isolation') = 'read committed' THEN\n{seen}\nELSE\nBEGIN\n{calls}\n\
             EXCEPTION WHEN serialization_failure OR {held} OR {tied} THEN\n\
             GET STACKED DIAGNOSTICS phasegate_detail = PG_EXCEPTION_DETAIL;\n\
             IF SQLSTATE = '40001' AND {told} THEN\nRAISE;\nEND IF;\n{notes}\nEND;\nEND IF;",
        )
    }

    /// Notes whatever happened to the row.
    fn notes(&self) -> String {
        let (old, new) = (self.key_of("OLD"), self.key_of("NEW"));
        format!(
            "IF TG_OP = 'INSERT' THEN\n{}\nELSIF TG_OP = 'DELETE' THEN\n{}\nELSIF phasegate_same THEN\n{}\nELSE\n{}\n{}\nEND IF;",
            self.note(&new, Noted::Ended),
            self.note(&old, Noted::Ended),
            self.note(&new, Noted::Changed),
            self.note(&old, Noted::Left),
            self.note(&new, Noted::Moved(&old)),
        )
    }

    /// Whether foreign keys are on the other side's table, or lead to it. They come and go while the sync lives, so that the
    /// catalogue is asked each time, by its index. Of a partitioned table they may be on its partitions.
    fn is_tied(&self) -> String {
        let table = self.shape.side(self.to());
        if table.kind == 'p' {
            return "true".to_owned();
        }
        format!(
            "EXISTS (SELECT 1 FROM pg_catalog.pg_trigger AS phasegate_g WHERE phasegate_g.tgrelid = {}::regclass \
             AND phasegate_g.tgconstrrelid <> 0)",
            literal(&table.sql())
        )
    }

    /// A statement for the key of the row, or that which it had.
    fn of_key(&self, statement: impl Fn(&[String]) -> String) -> String {
        format!(
            "IF TG_OP = 'DELETE' THEN\n{}\nELSE\n{}\nEND IF;",
            statement(&self.key_of("OLD")),
            statement(&self.key_of("NEW")),
        )
    }

    /// The same, where the row's content may be to blame: then it is parked. That its key changed is noted, since it stays the same row.
    fn parked(&self, inner: &str) -> String {
        if !self.shape.parks_writes {
            return inner.to_owned();
        }
        let parked = format!("{}.{}", self.schema, quote(&self.shape.parked_name()));
        let park = |key: &[String]| {
            format!(
                "INSERT INTO {parked} ({}, code, reason) VALUES ({}, SQLSTATE, phasegate_detail);",
                self.shape.mark_columns().join(", "),
                key.join(", ")
            )
        };
        let (old, new) = (self.key_of("OLD"), self.key_of("NEW"));
        format!(
            "BEGIN\n{inner}\nEXCEPTION WHEN {OF_A_ROW} THEN\n{}\n{}\n\
             IF TG_OP = 'UPDATE' AND NOT phasegate_same THEN\n{}\n{}\nEND IF;\nEND;",
            reason(),
            self.of_key(park),
            self.note(&old, Noted::Left),
            self.note(&new, Noted::Moved(&old)),
        )
    }

    /// A trigger's body, which passes by what our own write on the other side has brought about.
    pub(super) fn guarded(&self, (declare, first): (&str, &str), inner: &str) -> String {
        let label = function_name(self.shape, self.from.letter());
        if self.direction == Direction::Forward {
            return labelled(&label, declare, &format!("{first}{inner}\nRETURN NULL;"));
        }
        let (name, id) = (literal(GUARD), literal(&self.shape.id));
        let declare = format!("{declare}phasegate_guard text;\nphasegate_set text;\n");
        labelled(
            &label,
            &declare,
            &format!(
                "{first}IF {} THEN\nRETURN NULL;\nEND IF;\n\
                 phasegate_guard := coalesce(current_setting({name}, true), '');\n\
                 phasegate_set := set_config({name}, {id} || '/' || (pg_trigger_depth() + 1), true);\n{inner}\n\
                 phasegate_set := set_config({name}, phasegate_guard, true);\nRETURN NULL;",
                is_guarded(self.shape),
            ),
        )
    }
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
