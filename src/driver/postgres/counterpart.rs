//! What the old shape has and the new one lacks, and clients would miss once the new one has its name: what takes a build or a
//! scan, so that it must be there before `retire`, as the statements that make it.
//!
//! Invariants:
//! - No statement keeps clients waiting for as long as it takes to read a table, but where the server knows no other way (an
//!   index of a partitioned table).
//! - Columns that a mapping between tables changes or leaves out have their own, or none. A column that takes another one's
//!   name has what that one had.
//! - A constraint that is made of an index is asked for as that constraint, checked when the old one is: an index alone refuses
//!   what the constraint would have taken until COMMIT, and no client can name it.
//! - Triggers are made and disabled: `retire` gives them the mode of the old ones. Until then they would fire for what is copied.
//!
//! Absent on purpose: what is nothing but catalogue, which `carry` brings along. Extended statistics are not: they are empty
//! until ANALYZE has read the table.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::catalogue::{Index, Table, quote};
use super::definition::{self, renamed, same};
use super::error::failed;
use super::shape::Shape;
use super::stricter::{bare, behind_using};
use super::surroundings::{Constraint, Surroundings, TriggerFacts};
use super::survey::Side;
use super::{deferrable, identifying};
use crate::bounds::sql::NAME_STEM_BYTES;
use crate::driver::Error;
use crate::run::RetiredColumn;

/// The statements that would make what the new table of a mapping lacks.
pub(super) fn missing(shape: &Shape, old: &Side, new: &Side) -> Vec<String> {
    let target = Target { table: &new.table, around: &new.around, of: &old.table.name };
    let mut statements = Vec::new();
    for index in old.table.indexes.iter().filter(|index| index.is_valid) {
        if is_carried_index(shape, index, &old.table) {
            let constraint = of_index(&old.around, index).cloned();
            statements.extend(target.like(index, constraint, behind_using(&index.definition)));
        }
    }
    for constraint in needed(&old.around) {
        if constraint.columns.iter().all(|column| is_carried(shape, column)) {
            let definition = of_another(constraint, &old.around.name, &new.around.name);
            statements.extend(target.constraint(constraint, &definition));
        }
    }
    for column in old.table.columns.iter().filter(|column| column.not_null) {
        if is_carried(shape, &column.name) {
            statements.extend(target.not_null(&column.name));
        }
    }
    let on = new.table.sql();
    for trigger in old.around.user_triggers() {
        if !new.around.user_triggers().any(|it| it.form == trigger.form) {
            // On one line, so that both are sent as one: in between it would fire.
            let (made, name) = (made_on(trigger, &on), quote(&trigger.name));
            statements.push(format!("{made}; ALTER TABLE {on} DISABLE TRIGGER {name}"));
        }
    }
    statements
}

/// The statements that would make what columns lack that take others' names in one table.
pub(super) fn missing_columns(side: &Side, columns: &[RetiredColumn]) -> Vec<String> {
    let target = Target { table: &side.table, around: &side.around, of: &side.table.name };
    let taken = |name: &str| {
        let it = columns.iter().find(|it| it.column == name);
        it.and_then(|it| it.take_name.as_deref())
    };
    let is_over =
        |index: &Index| columns.iter().any(|it| it.take_name.is_some() && names(index, &it.column));
    let mut statements = Vec::new();
    for index in side.table.indexes.iter().filter(|index| index.is_valid && is_over(index)) {
        let behind = renamed(behind_using(&index.definition), &taken);
        let constraint = of_index(&side.around, index)
            .map(|it| Constraint { definition: with_names(it, &taken), ..it.clone() });
        let is_identity = index.is_replica_identity && side.around.replica_identity == 'i';
        if index.is_primary || is_identity && constraint.is_none() {
            statements.extend(identifying::missing(side, index, &behind));
        } else {
            statements.extend(target.like(index, constraint, &behind));
        }
    }
    for constraint in needed(&side.around) {
        if constraint.kind != 'x' && constraint.columns.iter().any(|name| taken(name).is_some()) {
            let definition = with_names(constraint, &taken);
            statements.extend(target.constraint(constraint, &definition));
        }
    }
    for retired in columns {
        let Some(new) = &retired.take_name else { continue };
        let of = |name: &str| side.table.column(name);
        let (Some(was), Some(_)) = (of(&retired.column), of(new)) else { continue };
        if was.not_null {
            statements.extend(target.not_null(new));
        }
    }
    statements
}

/// Constraints that rows are held against, but for those that come with an index of theirs.
fn needed(around: &Surroundings) -> impl Iterator<Item = &Constraint> {
    around.constraints.iter().filter(|it| matches!(it.kind, 'c' | 'f' | 'x'))
}

/// A constraint's definition for another table than that of the name `old`; a foreign key to its own table is one there too.
fn of_another(constraint: &Constraint, old: &str, new: &str) -> String {
    let definition = bare(&constraint.definition);
    if !constraint.is_to_itself {
        return definition.to_owned();
    }
    let references = |name: &str| format!(" REFERENCES {name}(");
    definition.replacen(&references(old), &references(new), 1)
}

/// The statement that makes a trigger on another table.
fn made_on(trigger: &TriggerFacts, on: &str) -> String {
    let name = format!("TRIGGER {} ", quote(&trigger.name));
    trigger.form.replacen("TRIGGER % ", &name, 1).replacen(" ON % ", &format!(" ON {on} "), 1)
}

/// A constraint's definition with other names for the table's own columns.
fn with_names<'n>(constraint: &Constraint, new_name: &impl Fn(&str) -> Option<&'n str>) -> String {
    let definition = bare(&constraint.definition);
    // Behind it stand columns of another table.
    match definition.split_once(" REFERENCES ") {
        Some((own, others)) if constraint.kind == 'f' => {
            format!("{} REFERENCES {others}", renamed(own, new_name))
        }
        _ => renamed(definition, new_name),
    }
}

/// The constraint that is made of an index.
pub(super) fn of_index<'a>(around: &'a Surroundings, index: &Index) -> Option<&'a Constraint> {
    // The server keeps both under one name.
    let made = |it: &&Constraint| matches!(it.kind, 'p' | 'u' | 'x') && it.name == index.name;
    around.constraints.iter().find(made)
}

/// What has to have something.
struct Target<'a> {
    table: &'a Table,
    around: &'a Surroundings,
    /// The name of the table that has it.
    of: &'a str,
}

impl Target<'_> {
    /// What makes an index as another one, and the constraint that is made of that. `constraint` has its definition for here.
    fn like(&self, index: &Index, constraint: Option<Constraint>, behind: &str) -> Vec<String> {
        match constraint {
            // It builds its own.
            Some(constraint) if constraint.kind == 'x' => Vec::new(),
            Some(constraint) if constraint.kind == 'u' => self.unique(&constraint, behind),
            Some(constraint) => self.index(index, behind, deferrable::tail(&constraint.definition)),
            None => self.index(index, behind, ""),
        }
    }

    /// What makes a UNIQUE constraint whose index has `behind` behind USING; nothing where there is one.
    fn unique(&self, like: &Constraint, behind: &str) -> Vec<String> {
        let tail = deferrable::tail(&like.definition);
        let alike: Vec<(&Index, Option<&Constraint>)> = self
            .table
            .indexes
            .iter()
            .filter(|it| it.is_valid && it.is_unique && same(behind_using(&it.definition), behind))
            .map(|it| (it, of_index(self.around, it)))
            .collect();
        let serves = |it: &Constraint| deferrable::tail(&it.definition) == tail;
        if alike.iter().any(|(_, of)| of.is_some_and(serves)) {
            return Vec::new();
        }
        let (on, name) = (self.table.sql(), self.free_relation(&like.name));
        // One that is checked at another moment would go on refusing.
        let other = alike.iter().filter_map(|(_, of)| *of).find(|of| of.kind == 'u');
        let instead =
            other.map_or_else(String::new, |it| format!("DROP CONSTRAINT {}, ", quote(&it.name)));
        if self.table.kind == 'p' {
            let (name, definition) = (quote(&name), &like.definition);
            return vec![format!("ALTER TABLE {on} {instead}ADD CONSTRAINT {name} {definition}")];
        }
        let standing = alike.iter().find(|(_, of)| of.is_none()).map(|(index, _)| &index.name);
        let name = quote(standing.unwrap_or(&name));
        let make = format!("CREATE UNIQUE INDEX CONCURRENTLY {name} ON {on} USING {behind}");
        let mut statements: Vec<String> = standing.is_none().then_some(make).into_iter().collect();
        statements.push(format!(
            "ALTER TABLE {on} {instead}ADD CONSTRAINT {name} UNIQUE USING INDEX {name}{tail}"
        ));
        statements
    }

    /// What makes an index as another one; nothing where there is one. `tail`: when a primary key of it is checked.
    fn index(&self, index: &Index, behind: &str, tail: &str) -> Vec<String> {
        let alike =
            |other: &&Index| other.is_valid && same(behind_using(&other.definition), behind);
        // A table has one primary key; beside another one, what is unique and not NULL does as well.
        let serves = |other: &&Index| {
            let is_as_strict = other.is_unique && (other.is_immediate || !index.is_immediate);
            (!index.is_unique || is_as_strict)
                && (!index.is_primary || other.is_primary || self.has_primary_key())
        };
        if self.table.indexes.iter().filter(alike).any(|other| serves(&other)) {
            return Vec::new();
        }
        let on = self.table.sql();
        let unique = if index.is_unique { "UNIQUE " } else { "" };
        // Of a partitioned table each partition's would have to be built apart.
        let how = if self.table.kind == 'p' { "" } else { "CONCURRENTLY " };
        if !index.is_primary || self.table.kind == 'p' || self.has_primary_key() {
            return vec![format!("CREATE {unique}INDEX {how}ON {on} USING {behind}")];
        }
        let is_free = |it: &&Index| it.is_identity() && of_index(self.around, it).is_none();
        let standing = self.table.indexes.iter().filter(alike).find(is_free);
        if let Some(standing) = standing {
            return vec![format!(
                "ALTER TABLE {on} ADD PRIMARY KEY USING INDEX {}{tail}",
                quote(&standing.name)
            )];
        }
        let name = quote(&cut(&format!("{}_primary", self.table.name)));
        vec![
            format!("CREATE UNIQUE INDEX CONCURRENTLY {name} ON {on} USING {behind}"),
            format!("ALTER TABLE {on} ADD PRIMARY KEY USING INDEX {name}{tail}"),
        ]
    }

    fn has_primary_key(&self) -> bool {
        self.table.indexes.iter().any(|index| index.is_primary)
    }

    /// What makes a constraint of this definition, checked if the other one is.
    fn constraint(&self, like: &Constraint, definition: &str) -> Vec<String> {
        let on = self.table.sql();
        let is_checked = bare(&like.definition) == like.definition;
        let there: Vec<&Constraint> = self
            .around
            .constraints
            .iter()
            .filter(|it| it.kind == like.kind && same(bare(&it.definition), definition))
            .collect();
        if there.iter().any(|it| !is_checked || bare(&it.definition) == it.definition) {
            return Vec::new();
        }
        let validate = |name: &str| format!("ALTER TABLE {on} VALIDATE CONSTRAINT {}", quote(name));
        if let Some(unchecked) = there.first() {
            return vec![validate(&unchecked.name)];
        }
        let name = match like.kind {
            'x' => self.free_relation(&like.name),
            _ => self.free_name(&like.name),
        };
        let add = format!("ALTER TABLE {on} ADD CONSTRAINT {} {definition}", quote(&name));
        if like.kind == 'x' || like.kind == 'f' && self.table.kind == 'p' {
            return vec![add];
        }
        let mut statements = vec![format!("{add} NOT VALID")];
        if is_checked {
            statements.push(validate(&name));
        }
        statements
    }

    /// What makes a column NOT NULL without reading the table under a strong lock: the server takes a checked constraint for
    /// proof.
    fn not_null(&self, column: &str) -> Vec<String> {
        let is_open = self.table.column(column).is_some_and(|column| !column.not_null);
        if !is_open {
            return Vec::new();
        }
        let (on, name) = (self.table.sql(), quote(column));
        let proof = quote(&proof_of(column));
        vec![
            format!("ALTER TABLE {on} ADD CONSTRAINT {proof} CHECK ({name} IS NOT NULL) NOT VALID"),
            format!("ALTER TABLE {on} VALIDATE CONSTRAINT {proof}"),
            format!("ALTER TABLE {on} ALTER COLUMN {name} SET NOT NULL"),
            format!("ALTER TABLE {on} DROP CONSTRAINT {proof}"),
        ]
    }

    /// A name for a constraint that no other one of the table has.
    fn free_name(&self, name: &str) -> String {
        let is_taken = |name: &str| self.around.constraints.iter().any(|it| it.name == name);
        Self::free(name, is_taken)
    }

    /// The same for one that is made of an index, which has its name in the schema, where the old one's stands: as the server
    /// calls it by itself, after the table.
    fn free_relation(&self, name: &str) -> String {
        let own = &self.table.name;
        let name = match name.strip_prefix(self.of).filter(|rest| rest.starts_with('_')) {
            Some(rest) => format!("{own}{rest}"),
            None if self.of == own => name.to_owned(),
            None => format!("{own}_{name}"),
        };
        let is_taken = |name: &str| {
            self.around.constraints.iter().any(|it| it.name == name)
                || self.table.indexes.iter().any(|it| it.name == name)
        };
        Self::free(&cut(&name), is_taken)
    }

    /// A name like another that is not taken.
    fn free(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
        let mut free = name.to_owned();
        let mut number = 1;
        while is_taken(&free) {
            number += 1;
            free = format!("{}_{number}", cut(name).trim_end_matches('_'));
        }
        free
    }
}

/// The name of the check by which a column is proven to be set.
pub(super) fn proof_of(column: &str) -> String {
    cut(&format!("{column}_is_set"))
}

/// A name that leaves room for a few more letters below the server's 63 bytes.
fn cut(name: &str) -> String {
    let mut end = name.len().min(NAME_STEM_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

/// Extended statistics that the new table of a mapping lacks.
const STATISTICS: &str = "\
WITH s AS (
  SELECT x.stxrelid, x.stxname, n.nspname, substring(pg_get_statisticsobjdef(x.oid) FROM ' ON (.*) FROM ') AS columns,
         (SELECT string_agg(CASE k WHEN 'd' THEN 'ndistinct' WHEN 'f' THEN 'dependencies' WHEN 'm' THEN 'mcv' END, ', ')
          FROM unnest(x.stxkind) k WHERE k <> 'e') AS kinds,
         ARRAY(SELECT a.attname::text FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
               WHERE d.classid = 'pg_statistic_ext'::regclass AND d.objid = x.oid AND d.refclassid = 'pg_class'::regclass
                 AND d.refobjid = x.stxrelid) AS names
  FROM pg_statistic_ext x JOIN pg_namespace n ON n.oid = x.stxnamespace WHERE x.stxrelid IN ($1::bigint::oid, $2::bigint::oid)
)
SELECT format('CREATE STATISTICS %I.%I%s ON %s FROM %s', o.nspname, left($3 || '_' || o.stxname, 63),
              coalesce(' (' || o.kinds || ')', ''), o.columns, $5)
FROM s AS o WHERE o.stxrelid = $1::bigint::oid AND o.names <@ $4::text[] AND NOT EXISTS (
  SELECT FROM s AS n WHERE n.stxrelid = $2::bigint::oid AND n.columns = o.columns
    AND n.kinds IS NOT DISTINCT FROM o.kinds) ORDER BY o.stxname";

/// The statements that make the extended statistics which the new table lacks. They are of use once ANALYZE has run. It need
/// not be there yet.
pub(super) async fn missing_statistics(
    conn: &mut PgConnection,
    shape: &Shape,
) -> Result<Vec<String>, Error> {
    let doing = "read the extended statistics";
    let carried: Vec<String> = shape
        .old
        .columns
        .iter()
        .filter(|column| is_carried(shape, &column.name))
        .map(|column| column.name.clone())
        .collect();
    let rows = sqlx::query(STATISTICS)
        .bind(i64::from(shape.old.oid))
        .bind(i64::from(shape.new.oid))
        .bind(&shape.new.name)
        .bind(carried)
        .bind(shape.new.sql())
        .fetch_all(conn)
        .await
        .map_err(failed(doing))?;
    let mut statements: Vec<String> =
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed(doing))?;
    if !statements.is_empty() {
        statements.push(format!("ANALYZE {}", shape.new.sql()));
    }
    Ok(statements)
}

/// Whether a column of the old table is in the new one under its name, unchanged.
fn is_carried(shape: &Shape, column: &str) -> bool {
    if shape.keys.iter().any(|pair| pair.old == column && pair.new == column) {
        return true;
    }
    let value = format!("({}\n)", quote(column));
    shape.writes.iter().any(|write| {
        write.column == column && (write.value == value || write.value == format!("({column}\n)"))
    })
}

/// Whether every column that an index is over, or that its condition names, is carried.
fn is_carried_index(shape: &Shape, index: &Index, old: &Table) -> bool {
    let mut named = old.columns.iter().filter(|column| names(index, &column.name));
    named.all(|column| is_carried(shape, &column.name))
}

/// Whether an index is over a column, or names it in an expression or its condition.
pub(super) fn names(index: &Index, column: &str) -> bool {
    definition::names(behind_using(&index.definition), column)
        || index.columns.iter().flatten().any(|name| name == column)
}

/// Columns of the old side, each with the column of the new side that has its values.
pub(super) fn pairs(shape: &Shape) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> =
        shape.keys.iter().map(|pair| (pair.old.clone(), pair.new.clone())).collect();
    for column in &shape.old.columns {
        let is_known = pairs.iter().any(|(old, _)| *old == column.name);
        if !is_known && is_carried(shape, &column.name) {
            pairs.push((column.name.clone(), column.name.clone()));
        }
    }
    pairs
}
