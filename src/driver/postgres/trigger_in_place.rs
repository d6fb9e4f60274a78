//! The functions and triggers that keep columns of one table in step.
//!
//! They fire before the row is written and after everybody else's, so that what they see is what will be stored.
//!
//! Forward, every write of a row leaves its target columns as the mapping says; where clients' writes may be parked, one whose
//! expressions can't be worked out leaves them as they were, and a note of it.
//!
//! With `both` it depends on who wrote, part by part (a part is a group of columns that depend on each other): a changed
//! column of one side brings the other side's after it; if both changed, the mapping's winner. A client of the new shape
//! that names a target column without changing it has written it too, so that its NULL over a value not yet converted
//! stands: a trigger for each part, `UPDATE OF` its columns, finds that out first. What such a client wrote and the mapping
//! would have otherwise is entered in the table of kept keys, which the copy passes by. A change of the key alone converts
//! the row. An inserted row belongs to the side that differs from its defaults; if both do, to the mapping's winner; else to the
//! old one.
//! A row that a client brings into the mapping's filter is converted, whatever it wrote of it: outside nobody kept its sides
//! in step.
//!
//! Keys of an UPDATE are kept before the row is written, under the key it had, and follow it afterwards. Those of an INSERT
//! are kept only once the row is there: before that it may turn out to be another one's conflict.
//!
//! A row that moves to another partition is deleted and inserted. Its sides agree by then, and what agrees is left alone; a part
//! that is kept is entered under the new key as one that is on its way, so that the insertion leaves it as it is.

use super::catalogue::{Column, quote};
use super::given;
use super::shape::{Part, Shape};
use super::sync_sql::{
    Function, Side, SyncSql, Trigger, all, any, body, cast, fires, function_name, is_guarded,
    trigger_name,
};
use super::trigger_sql::{OF_A_ROW, reason};
use crate::run::{Direction, Winner};

/// What keeps columns of one table in step. `schema` is our own, quoted.
pub(super) fn in_place_sync(shape: &Shape, direction: Direction, schema: &str) -> SyncSql {
    let ours = |name: &str| format!("{schema}.{}", quote(name));
    let place =
        InPlace { shape, kept: ours(&shape.kept_name()), parked: ours(&shape.parked_name()) };
    match direction {
        Direction::Forward => place.forward(),
        Direction::Both => place.both(),
    }
}

struct InPlace<'a> {
    shape: &'a Shape,
    /// The table of kept keys.
    kept: String,
    /// The table of parked rows.
    parked: String,
}

impl InPlace<'_> {
    fn forward(&self) -> SyncSql {
        let shape = self.shape;
        let values: Vec<String> = shape
            .writes
            .iter()
            .enumerate()
            .map(|(at, write)| format!("{} AS phasegate_w{at}", cast(write)))
            .collect();
        let sets: Vec<String> =
            (0..shape.writes.len()).map(|at| set(Side::New, shape, at)).collect();
        let convert = format!(
            "SELECT {} INTO phasegate_r FROM {};\nIF FOUND THEN\n{}\nEND IF;",
            values.join(", "),
            self.row(),
            sets.join("\n"),
        );
        let (declare, convert) = self.parking(convert);
        let inner = format!("{convert}\nRETURN NEW;");
        let mut sync = SyncSql::default();
        self.add(
            &mut sync,
            ("w", fires::BEFORE | fires::ROW | fires::INSERT | fires::UPDATE),
            Vec::new(),
            body(&format!("phasegate_r record;\n{declare}"), &inner),
        );
        sync
    }

    /// Where clients' writes may be parked, what the row's content is to blame for leaves the target columns as the client has
    /// them, and the row's key among the parked ones.
    fn parking(&self, convert: String) -> (&'static str, String) {
        if !self.shape.parks_writes {
            return ("", convert);
        }
        let park = format!(
            "INSERT INTO {} ({}, code, reason) VALUES ({}, SQLSTATE, phasegate_detail);",
            self.parked,
            self.shape.mark_columns().join(", "),
            self.key("NEW").join(", ")
        );
        let caught =
            format!("BEGIN\n{convert}\nEXCEPTION WHEN {OF_A_ROW} THEN\n{}\n{park}\nEND;", reason());
        ("phasegate_detail text;\n", caught)
    }

    fn add(
        &self,
        sync: &mut SyncSql,
        (kind, fires): (&str, i16),
        columns: Vec<String>,
        body: String,
    ) {
        let name = function_name(self.shape, kind);
        sync.triggers.push(Trigger {
            name: trigger_name(self.shape, kind),
            side: Side::Old,
            fires,
            columns,
            function: name.clone(),
            argument: None,
        });
        let parameters = String::new();
        sync.functions.push(Function { name, parameters, returns: "trigger", body, also: None });
    }

    /// Behind FROM: the row to be written, if the filter lets it pass.
    fn row(&self) -> String {
        let filter = self.shape.filter.as_ref();
        let filter = filter.map_or_else(String::new, |filter| format!(" WHERE {filter}"));
        format!("(SELECT (NEW).*) AS {}{filter}", quote(&self.shape.old.name))
    }

    fn both(&self) -> SyncSql {
        let mut sync = SyncSql::default();
        let update = fires::BEFORE | fires::ROW | fires::UPDATE;
        for (at, part) in self.shape.parts.iter().enumerate() {
            if part.writes.is_empty() {
                continue;
            }
            let columns =
                part.writes.iter().map(|at| self.shape.writes[*at].column.clone()).collect();
            self.add(&mut sync, (&format!("m{at}"), update), columns, self.mention_body(at));
        }
        self.add(&mut sync, ("w", update | fires::INSERT), Vec::new(), self.write_body());
        let after = fires::ROW | fires::INSERT | fires::UPDATE | fires::DELETE;
        self.add(&mut sync, ("k", after), Vec::new(), self.keep_body());
        self.add(&mut sync, ("truncate", fires::TRUNCATE), Vec::new(), self.truncate_body());
        sync
    }

    /// A trigger's body, which passes by what the engine itself writes.
    fn guarded(&self, inner: &str, result: &str) -> String {
        let declare = "phasegate_r record;\nphasegate_new boolean;\nphasegate_old boolean;\n\
             phasegate_is_new boolean;\nphasegate_is_old boolean;\nphasegate_moved boolean := false;\nphasegate_entered boolean := false;\n";
        let declare = format!("{declare}{} text;\n", given::DEFAULT);
        let guard = is_guarded(self.shape);
        body(
            &declare,
            &format!("IF {guard} THEN\nRETURN {result};\nEND IF;\n{inner}\nRETURN {result};"),
        )
    }

    /// Reads what the mapping and its reverse make of the row to be written, in one part.
    fn read(&self, part: &Part) -> String {
        let shape = self.shape;
        let mut items: Vec<String> =
            part.writes.iter().map(|at| format!("phasegate_w{at}")).collect();
        items.extend(part.reverse.iter().map(|at| format!("phasegate_r{at}")));
        items.push(format!("{} AS phasegate_forward", shape.forward_holds(part)));
        items.push(format!("{} AS phasegate_back", shape.back_holds(part)));
        format!(
            "SELECT {} INTO phasegate_r FROM (SELECT {}, {} FROM {}) AS phasegate_p;",
            items.join(", "),
            shape.old_list(Direction::Both),
            shape.new_list(Direction::Both),
            self.row(),
        )
    }

    fn sets(&self, side: Side, part: &Part) -> String {
        let places = match side {
            Side::New => &part.writes,
            Side::Old => &part.reverse,
        };
        places.iter().map(|at| set(side, self.shape, *at)).collect::<Vec<_>>().join("\n")
    }

    fn key(&self, image: &str) -> Vec<String> {
        self.shape.bare_key(Side::Old).iter().map(|name| format!("{image}.{name}")).collect()
    }

    /// That a kept key is that of an image of the row.
    fn is_kept_key(&self, image: &str) -> String {
        let marks = self.shape.mark_columns();
        let pairs = marks.iter().zip(self.key(image));
        all(&pairs.map(|(mark, key)| format!("phasegate_q.{mark} = {key}")).collect::<Vec<_>>())
    }

    fn is_kept(&self, at: usize) -> String {
        format!(
            "EXISTS (SELECT 1 FROM {} AS phasegate_q WHERE phasegate_q.part = {at} AND {})",
            self.kept,
            self.is_kept_key("OLD")
        )
    }

    fn keep(&self, at: usize, image: &str) -> String {
        format!(
            "INSERT INTO {} (part, {}) VALUES ({at}, {}) ON CONFLICT DO NOTHING;",
            self.kept,
            self.shape.mark_columns().join(", "),
            self.key(image).join(", "),
        )
    }

    fn unkeep(&self, at: usize) -> String {
        format!(
            "DELETE FROM {} AS phasegate_q WHERE phasegate_q.part = {at} AND {};",
            self.kept,
            self.is_kept_key("OLD")
        )
    }

    /// A part's number while its row is on its way to another partition. It is looked for there alone.
    fn on_its_way(at: usize) -> String {
        format!("-{}", at + 1)
    }

    /// Behind an UPDATE of a part: where that is kept and the row may go to another partition.
    fn take_along(&self, at: usize) -> String {
        if self.shape.old.kind != 'p' {
            return String::new();
        }
        format!(
            "\nIF phasegate_moved AND {} THEN\nINSERT INTO {} (part, {}) VALUES ({}, {}) ON CONFLICT DO NOTHING;\nEND IF;",
            self.is_kept(at),
            self.kept,
            self.shape.mark_columns().join(", "),
            Self::on_its_way(at),
            self.key("NEW").join(", "),
        )
    }

    /// What is done about a part of an inserted row, unless that comes from another partition with what is kept.
    fn unless_taken_along(&self, at: usize, follow: String) -> String {
        if self.shape.old.kind != 'p' {
            return follow;
        }
        format!(
            "DELETE FROM {} AS phasegate_q WHERE phasegate_q.part = {} AND {};\nIF NOT FOUND THEN\n{follow}\nEND IF;",
            self.kept,
            Self::on_its_way(at),
            self.is_kept_key("NEW"),
        )
    }

    fn forget(&self, image: &str) -> String {
        format!("DELETE FROM {} AS phasegate_q WHERE {};", self.kept, self.is_kept_key(image))
    }

    /// Columns of one side of a part that clients write.
    fn columns<'b>(&'b self, side: Side, part: &'b Part) -> Vec<&'b str> {
        let shape = self.shape;
        let names: Vec<&str> = match side {
            Side::New => part.writes.iter().map(|at| shape.writes[*at].column.as_str()).collect(),
            Side::Old => part.old_columns.iter().map(String::as_str).collect(),
        };
        let is_theirs = |name: &&str| shape.old.column(name).is_some_and(|it| !it.is_generated);
        names.into_iter().filter(is_theirs).collect()
    }

    /// That a column of one side of a part changed.
    fn changed(&self, side: Side, part: &Part) -> String {
        let changed = |name: &&str| {
            let name = quote(name);
            format!("ROW(OLD.{name})::record *<> ROW(NEW.{name})::record")
        };
        any(&self.columns(side, part).iter().map(changed).collect::<Vec<_>>())
    }

    /// The same, as the catalogue has them.
    fn found(&self, side: Side, part: &Part) -> Vec<&Column> {
        let columns = self.columns(side, part);
        columns.into_iter().filter_map(|name| self.shape.old.column(name)).collect()
    }

    /// A client of the new shape named a part's columns and changed nothing.
    fn mention_body(&self, at: usize) -> String {
        let part = &self.shape.parts[at];
        let inner = format!(
            "IF NOT {} AND NOT {} THEN\n{}\nIF FOUND AND NOT phasegate_r.phasegate_forward THEN\n{}\nEND IF;\nEND IF;",
            self.changed(Side::New, part),
            self.changed(Side::Old, part),
            self.read(part),
            self.write_back(at, part),
        );
        self.guarded(&inner, "NEW")
    }

    /// Every write: one side's columns follow the other's.
    fn write_body(&self) -> String {
        let keys = self.shape.bare_key(Side::Old);
        let moved: Vec<String> = keys.iter().map(|key| format!("OLD.{key} <> NEW.{key}")).collect();
        let parts = self.shape.parts.iter().enumerate();
        let (mut updates, mut inserts) = (Vec::new(), Vec::new());
        for (at, part) in parts.filter(|(_, part)| !part.writes.is_empty()) {
            updates.push(self.follow_update(at, part));
            inserts.push(self.unless_taken_along(at, self.follow_insert(part)));
        }
        let inner = format!(
            "IF TG_OP = 'UPDATE' THEN\nphasegate_moved := {};\n{}{}\nELSE\n{}\nEND IF;",
            any(&moved),
            self.entered(),
            updates.join("\n"),
            inserts.join("\n"),
        );
        self.guarded(&inner, "NEW")
    }

    /// Finds out whether the row was outside the filter until now.
    fn entered(&self) -> String {
        let alias = quote(&self.shape.old.name);
        let filter = self.shape.filter.as_ref();
        filter.map_or_else(String::new, |filter| {
            format!(
                "phasegate_entered := NOT EXISTS (SELECT 1 FROM (SELECT (OLD).*) AS {alias} WHERE {filter});\n"
            )
        })
    }

    fn follow_update(&self, at: usize, part: &Part) -> String {
        let (is_new, is_old) = match self.shape.winner {
            Winner::New => ("phasegate_new", "(phasegate_old AND NOT phasegate_new)"),
            Winner::Old => ("(phasegate_new AND NOT phasegate_old)", "phasegate_old"),
        };
        let alone = format!(
            "(phasegate_moved AND NOT phasegate_new AND NOT phasegate_old AND NOT {})",
            self.is_kept(at)
        );
        format!(
            "phasegate_new := {};\nphasegate_old := {};\nphasegate_is_new := {is_new};\n\
             phasegate_is_old := {is_old} OR {alone} OR (phasegate_entered AND NOT phasegate_new);\n\
             IF phasegate_is_new OR phasegate_is_old THEN\n{}\nIF NOT FOUND THEN\nNULL;\n\
             ELSIF phasegate_r.phasegate_forward THEN\n{unkeep}\nELSIF phasegate_is_new THEN\n{}\n\
             ELSIF NOT (phasegate_r.phasegate_back AND {}) THEN\n{}\n{unkeep}\nEND IF;\nEND IF;{}",
            self.changed(Side::New, part),
            self.changed(Side::Old, part),
            self.read(part),
            self.write_back(at, part),
            self.is_kept(at),
            self.sets(Side::New, part),
            self.take_along(at),
            unkeep = self.unkeep(at),
        )
    }

    /// Brings the old columns after the new ones, and keeps the part if the mapping would still have it otherwise.
    fn write_back(&self, at: usize, part: &Part) -> String {
        format!(
            "IF NOT phasegate_r.phasegate_back THEN\n{}\n{}\nEND IF;\n\
             IF phasegate_r.phasegate_forward THEN\n{}\nELSE\n{}\nEND IF;",
            nothing_if_empty(self.sets(Side::Old, part)),
            self.read(part),
            self.unkeep(at),
            self.keep(at, "OLD"),
        )
    }

    fn follow_insert(&self, part: &Part) -> String {
        let agrees = if part.reverse.is_empty() {
            "false"
        } else {
            "phasegate_new AND phasegate_r.phasegate_back"
        };
        let is_new = match self.shape.winner {
            Winner::New if !part.reverse.is_empty() => "phasegate_new",
            Winner::New | Winner::Old => "phasegate_new AND NOT phasegate_old",
        };
        let (table, new, old) =
            (&self.shape.old, self.found(Side::New, part), self.found(Side::Old, part));
        let both: Vec<&Column> = new.iter().chain(&old).copied().collect();
        format!(
            "{}\nIF FOUND AND NOT phasegate_r.phasegate_forward THEN\n{}\n{}\n{}\n\
             IF {is_new} THEN\nIF NOT phasegate_r.phasegate_back THEN\n{}\nEND IF;\n\
             ELSIF NOT ({agrees}) THEN\n{}\nEND IF;\nEND IF;",
            self.read(part),
            given::refuse_if_older(table, &both),
            given::given(table, &new, "phasegate_new"),
            given::given(table, &old, "phasegate_old"),
            nothing_if_empty(self.sets(Side::Old, part)),
            self.sets(Side::New, part),
        )
    }

    /// After the write: kept keys follow their rows, and those of inserted rows are entered.
    fn keep_body(&self) -> String {
        let keys = self.shape.bare_key(Side::Old);
        let moved: Vec<String> = keys.iter().map(|key| format!("OLD.{key} <> NEW.{key}")).collect();
        let sets: Vec<String> = self
            .shape
            .mark_columns()
            .iter()
            .zip(self.key("NEW"))
            .map(|(mark, key)| format!("{mark} = {key}"))
            .collect();
        let follow = format!(
            "IF {} THEN\n{}\nUPDATE {} AS phasegate_q SET {} WHERE {};\nEND IF;",
            any(&moved),
            self.forget("NEW"),
            self.kept,
            sets.join(", "),
            self.is_kept_key("OLD"),
        );
        let parts = self.shape.parts.iter().enumerate();
        let entered: Vec<String> = parts
            .filter(|(_, part)| !part.writes.is_empty())
            .map(|(at, part)| {
                format!(
                    "{}\nIF FOUND AND NOT phasegate_r.phasegate_forward THEN\n{}\nEND IF;",
                    self.read(part),
                    self.keep(at, "NEW")
                )
            })
            .collect();
        let inner = format!(
            "IF TG_OP = 'UPDATE' THEN\n{follow}\nELSIF TG_OP = 'DELETE' THEN\n{}\nELSE\n{}\n{}\nEND IF;",
            self.forget("OLD"),
            self.forget("NEW"),
            entered.join("\n"),
        );
        self.guarded(&inner, "NULL")
    }

    fn truncate_body(&self) -> String {
        let names = self.shape.bare_key(Side::Old);
        let pairs = names.iter().zip(self.shape.mark_columns());
        let is: Vec<String> =
            pairs.map(|(name, mark)| format!("phasegate_t.{name} = phasegate_q.{mark}")).collect();
        body(
            "",
            &format!(
                "DELETE FROM {} AS phasegate_q WHERE NOT EXISTS (SELECT 1 FROM {} AS phasegate_t WHERE {});\nRETURN NULL;",
                self.kept,
                self.shape.old.sql(),
                all(&is)
            ),
        )
    }
}

/// Stores a value that was read in the row to be written.
fn set(side: Side, shape: &Shape, at: usize) -> String {
    let (column, value) = match side {
        Side::New => (&shape.writes[at].column, format!("phasegate_w{at}")),
        Side::Old => (&shape.reverse[at].column, format!("phasegate_r{at}")),
    };
    format!("NEW.{} := phasegate_r.{value};", quote(column))
}

fn nothing_if_empty(statements: String) -> String {
    if statements.is_empty() { "NULL;".to_owned() } else { statements }
}
