//! What is in the way of putting an old shape aside, and what goes over with it: looked at before any lock is taken, and again
//! under the locks.
//!
//! Invariants:
//! - Everything that the catalogue ties to the old shape is carried over, made again, already there on the new one, or in the
//!   way: then it is named with the reason. What we know no name for is in the way.
//! - What can't be told from the catalogue (functions whose text names the old shape) is in the way until the plan says that
//!   it is known, and is said then.
//!
//! Absent on purpose: doing any of it.

use sqlx::postgres::PgConnection;

use super::carried::{Holder, in_the_way, narrow, widen};
use super::carry::Names;
use super::catalogue::{Table, quote};
use super::counterpart::{missing, missing_columns, missing_statistics};
use super::defaults::inherited;
use super::dependents::{Dependent, dependents};
use super::error::failed;
use super::incoming::{self, Going};
use super::remade::{self, Remade};
use super::shape::Shape;
use super::surroundings::around;
use super::survey::Side;
use super::uncarried::{self, Takes};
use super::{by_name, carry, carry_sql, identifying, partitioned, stays};
use crate::driver::Error;
use crate::run::{Direction, FailureClass, Mapping, RetireShape, RetiredColumn};

/// What is put aside, or taken back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retiring<'a> {
    pub mapping: &'a Mapping,
    pub direction: Direction,
    pub shape: &'a RetireShape,
    /// Functions that name the old shape in their text, which the plan says are known.
    pub known: &'a [String],
}

impl Retiring<'_> {
    /// The columns put aside, where it isn't the whole table.
    pub(super) const fn columns(&self) -> Option<&[RetiredColumn]> {
        match self.shape {
            RetireShape::Columns(columns) => Some(columns.as_slice()),
            RetireShape::Table { .. } => None,
        }
    }
}

/// What goes over beside what is on the two tables themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outside {
    pub remade: Vec<Remade>,
    pub keys: Vec<Going>,
}

impl Outside {
    /// What goes over when this is put aside.
    pub(super) async fn of(
        conn: &mut PgConnection,
        what: &Retiring<'_>,
        shape: &Shape,
    ) -> Result<Self, Error> {
        let Some(columns) = what.columns() else {
            let remade = remade::remade(conn, shape.old.oid, None).await?.into_iter();
            let against = |it: Remade| it.held_against(&shape.old, Some(&shape.new));
            return Ok(Self {
                remade: remade.map(against).collect(),
                keys: incoming::going(conn, shape).await?,
            });
        };
        let number = |it: &RetiredColumn| shape.old.column(&it.column).map(|column| column.number);
        let numbers: Vec<i16> = columns.iter().filter_map(number).collect();
        // Where nothing takes a name, nothing can be read in its place.
        let all_taken = columns.iter().all(|it| it.take_name.is_some());
        let remade = if all_taken && shape.in_place {
            let remade = remade::remade(conn, shape.old.oid, Some(&numbers)).await?.into_iter();
            remade.map(|it| it.held_against(&shape.old, None)).collect()
        } else {
            Vec::new()
        };
        Ok(Self { remade, keys: Vec::new() })
    }

    /// The relations to lock for it, each once.
    pub(super) fn holders(&self) -> Vec<Holder> {
        let keys = self.keys.iter().map(Going::holder);
        let mut all: Vec<Holder> =
            self.remade.iter().map(|it| it.holder().clone()).chain(keys).collect();
        all.sort();
        all.dedup();
        all
    }

    fn problems(&self) -> Vec<String> {
        let remade = self.remade.iter().filter_map(|it| it.problem.clone());
        remade.chain(self.keys.iter().filter_map(|it| it.problem.clone())).collect()
    }

    /// It, for people.
    pub(super) fn said(&self, into: &str) -> Vec<String> {
        let mut said = Vec::new();
        for what in ["view", "policy"] {
            let names: Vec<&str> = self
                .remade
                .iter()
                .filter(|it| it.what == what)
                .map(|it| it.name.as_str())
                .collect();
            if !names.is_empty() {
                said.push(format!("{what} {} made again", names.join(", ")));
            }
        }
        let keys: Vec<String> = self.keys.iter().map(Going::said).collect();
        if !keys.is_empty() {
            said.push(format!("foreign key {} refers to {into}", keys.join(", ")));
        }
        said
    }
}

/// Both tables with what stands around them, in definitions that are qualified throughout.
pub(super) async fn sides(
    conn: &mut PgConnection,
    shape: &Shape,
    schema: &str,
) -> Result<(Side, Side), Error> {
    let path = narrow(conn).await?;
    let old = around(conn, shape.old.oid, schema).await?;
    let new = around(conn, shape.new.oid, schema).await?;
    widen(conn, path).await?;
    Ok((
        Side { table: shape.old.clone(), around: old.into() },
        Side { table: shape.new.clone(), around: new.into() },
    ))
}

/// Refuses where something is in the way. Returns what is worth saying.
pub(super) async fn check(
    conn: &mut PgConnection,
    what: &Retiring<'_>,
    (shape, outside, schema): (&Shape, &Outside, &str),
) -> Result<Vec<String>, Error> {
    let (old, new) = sides(conn, shape, schema).await?;
    match what.shape {
        RetireShape::Table { take_name, .. } => {
            let mut said = check_table(conn, what, (shape, outside, schema), (&old, &new)).await?;
            if *take_name {
                check_counterparts(conn, what, shape, (&old, &new)).await?;
                said.extend(stays::stays(conn, shape).await?);
            }
            Ok(said)
        }
        RetireShape::Columns(columns) => {
            check_columns(conn, what, (shape, schema), (&old, columns)).await
        }
    }
}

async fn check_table(
    conn: &mut PgConnection,
    what: &Retiring<'_>,
    (shape, outside, schema): (&Shape, &Outside, &str),
    (old, new): (&Side, &Side),
) -> Result<Vec<String>, Error> {
    let found = dependents(conn, &old.table, None, schema).await?;
    let goes_over = |it: &Dependent| matches!(it.kind.as_str(), "view" | "policy" | "foreign key");
    let mut tied: Vec<String> =
        found.iter().filter(|it| it.is_certain() && !goes_over(it)).map(Dependent::said).collect();
    tied.extend(outside.problems());
    let takes_name = matches!(what.shape, RetireShape::Table { take_name: true, .. });
    let takes = if takes_name { Takes::Name } else { Takes::Nothing };
    tied.extend(uncarried::problems(conn, shape, takes).await?);
    if !old.around.parents.is_empty() {
        tied.push(format!("it is a part of {}", old.around.parents.join(", ")));
    }
    tied.extend(partitioned::problems(conn, shape).await?);
    // What is tied to a partition alone follows that partition, which is put aside with the rest.
    for name in partitions(conn, shape).await? {
        let Some(part) = super::catalogue::table(conn, &name).await? else { continue };
        let found = dependents(conn, &part, None, schema).await?;
        let of_it = found.iter().filter(|it| !by_name::is_known(it, what.known));
        tied.extend(of_it.map(|it| format!("{} (on the partition {})", it.said(), part.name)));
    }
    if takes_name {
        let rules = old.around.rules.iter().filter(|rule| !new.around.rules.contains(rule));
        tied.extend(rules.map(|rule| format!("rule {rule} on {}", old.table.name)));
    }
    if let RetireShape::Table { old_name, take_name: false } = what.shape
        && !outside.remade.is_empty()
    {
        // What reads the new table from now on would read it without the old one's protection.
        let names = Names { old: old_name, takes: true };
        let gifts = carry::of_table(conn, shape, (names, what.direction)).await?;
        let lacks = |kind: &str| gifts.iter().any(|gift| gift.what == kind);
        if ["owner", "grant", "policy"].into_iter().any(lacks) {
            tied.extend(outside.remade.iter().map(|it| {
                format!(
                    "{} {}, which would read {} without the owner, grants or policies of {}: give them to it first",
                    it.what, it.name, new.table.name, old.table.name
                )
            }));
        }
    }
    let mut named = by_name::unknown(&found, (what.shape, what.known));
    if takes_name {
        let found = dependents(conn, &new.table, None, schema).await?;
        let tables = (old.table.name.as_str(), new.table.name.as_str());
        named.extend(by_name::astray(&found, tables, what.known));
    }
    if tied.is_empty() && named.is_empty() {
        return Ok(known(what, &old.table.name, &found));
    }
    let message = if tied.is_empty() {
        "functions name in their text what gets another name".to_owned()
    } else {
        format!(
            "these would go on using {} once it is put aside, or be lost with it; drop them, or make them anew on {}, first",
            old.table.name, new.table.name
        )
    };
    tied.extend(named);
    Err(in_the_way(what.mapping.name.as_str(), &message, &tied))
}

/// The partitions of a table, at every level, as a mapping would write them.
async fn partitions(conn: &mut PgConnection, shape: &Shape) -> Result<Vec<String>, Error> {
    if shape.old.kind != 'p' {
        return Ok(Vec::new());
    }
    let doing = "read the catalogue";
    let rows = sqlx::query_as::<_, (String,)>(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_partition_tree($1::bigint::oid::regclass) AS p
         JOIN pg_class c ON c.oid = p.relid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.level > 0 ORDER BY c.oid",
    )
    .bind(i64::from(shape.old.oid))
    .fetch_all(conn)
    .await
    .map_err(failed(doing))?;
    Ok(rows.into_iter().map(|(name,)| name).collect())
}

/// Functions that name the table in their text, as the plan knows.
fn known(what: &Retiring<'_>, table: &str, found: &[Dependent]) -> Vec<String> {
    let names: Vec<&str> =
        found.iter().filter(|it| !it.is_certain()).map(|it| it.name.as_str()).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let takes_name = matches!(what.shape, RetireShape::Table { take_name: true, .. });
    let then = if takes_name { "use the new table from now on" } else { "don't find it any more" };
    vec![format!("what names {table} in its text will {then}: {}", names.join(", "))]
}

/// What the new table of a mapping must have to be taken for the old one.
async fn check_counterparts(
    conn: &mut PgConnection,
    what: &Retiring<'_>,
    shape: &Shape,
    (old, new): (&Side, &Side),
) -> Result<(), Error> {
    let mut lacks = missing(shape, old, new);
    lacks.extend(missing_statistics(conn, shape).await?);
    lacks.extend(partitioned::missing(conn, shape).await?);
    if lacks.is_empty() {
        return check_replica_identity(conn, what, shape, (old, new)).await;
    }
    let message = format!(
        "{} lacks what {} has; run these statements (or drop what is not wanted any more) first",
        new.table.name, old.table.name
    );
    Err(in_the_way(what.mapping.name.as_str(), &message, &lacks))
}

/// What writes to the log of the old row goes over, or is there: all indexes are that go over.
async fn check_replica_identity(
    conn: &mut PgConnection,
    what: &Retiring<'_>,
    shape: &Shape,
    (old, new): (&Side, &Side),
) -> Result<(), Error> {
    let RetireShape::Table { old_name, .. } = what.shape else { return Ok(()) };
    if old.around.replica_identity != 'i' || new.around.replica_identity != 'd' {
        return Ok(());
    }
    let names = Names { old: old_name, takes: true };
    let gifts = carry::of_table(conn, shape, (names, what.direction)).await?;
    if gifts.iter().any(|gift| gift.what == carry_sql::REPLICA_IDENTITY_SAID) {
        return Ok(());
    }
    let (old, new) = (&old.table, &new.table);
    let message = format!(
        "mapping {}: the replica identity of {} is an index over what {} has not, or has otherwise",
        what.mapping.name, old.name, new.name
    );
    let help = format!(
        "give {} one first: ALTER TABLE {} REPLICA IDENTITY USING INDEX, or FULL",
        new.name,
        new.sql()
    );
    Err(Error::failed(FailureClass::Refused, message).with_help(help))
}

/// What is in the way of putting columns aside.
async fn check_columns(
    conn: &mut PgConnection,
    what: &Retiring<'_>,
    (shape, schema): (&Shape, &str),
    (old, columns): (&Side, &[RetiredColumn]),
) -> Result<Vec<String>, Error> {
    let mapping = what.mapping.name.as_str();
    let names: Vec<&str> = columns.iter().map(|it| it.column.as_str()).collect();
    let found = dependents(conn, &old.table, Some(&names), schema).await?;
    let outside = Outside::of(conn, what, shape).await?;
    let goes_over = |it: &Dependent| {
        matches!(it.kind.as_str(), "view" | "policy") && !outside.remade.is_empty()
    };
    // Its own parts go on with the column that they are over; `drop` looks at them again.
    let is_tied = |it: &&Dependent| it.is_certain() && !it.is_own && !goes_over(it);
    let mut tied: Vec<String> = found.iter().filter(is_tied).map(Dependent::said).collect();
    tied.extend(outside.problems());
    tied.extend(by_name::unknown(&found, (what.shape, what.known)));
    tied.extend(identifying::exclusions(old, columns).map(identifying::said_of_exclusion));
    tied.extend(identifying::problems(old, (columns, what.direction)));
    if !tied.is_empty() {
        let message = format!(
            "these would go on using {} of {} once put aside; drop them, or make them anew, first",
            names.join(", "),
            old.table.name
        );
        return Err(in_the_way(mapping, &message, &tied));
    }
    if shape.in_place {
        let mut lacks = missing_columns(old, columns);
        // With both ways the sync goes on filling what clients leave out.
        let unknown = inherited(conn, shape, columns).await?.into_iter();
        for it in unknown.filter(|it| it.is.is_none() && what.direction == Direction::Forward) {
            let (on, name) = (old.table.sql(), quote(&it.column));
            lacks.push(format!("ALTER TABLE {on} ALTER COLUMN {name} SET DEFAULT {}", it.was));
        }
        if !lacks.is_empty() {
            let message = "what takes the old columns' names lacks what they have; run these statements (or drop what is not \
                 wanted any more) first";
            return Err(in_the_way(mapping, message, &lacks));
        }
    }
    check_inserts(what, (old, columns))?;
    let known: Vec<&str> =
        found.iter().filter(|it| !it.is_certain()).map(|it| it.name.as_str()).collect();
    if known.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![format!("named in the text of {}", known.join(", "))])
}

/// Clients of the new shape leave the old columns out.
fn check_inserts(
    what: &Retiring<'_>,
    (old, columns): (&Side, &[RetiredColumn]),
) -> Result<(), Error> {
    let mapping = what.mapping.name.as_str();
    let names: Vec<&str> = columns.iter().map(|it| it.column.as_str()).collect();
    let on = old.table.sql();
    // In place, both ways, our trigger fills them; else a client of the new shape leaves them out.
    let is_filled = what.direction == Direction::Both && what.mapping.is_in_place();
    let needed: Vec<String> = names
        .iter()
        .filter_map(|name| old.table.column(name))
        .filter(|column| column.not_null && column.default.is_none() && column.identity.is_none())
        .map(|column| {
            format!("ALTER TABLE {on} ALTER COLUMN {} DROP NOT NULL", quote(&column.name))
        })
        .collect();
    if !is_filled && !needed.is_empty() {
        let what =
            "clients of the new shape could not insert rows any more; run these statements first";
        return Err(in_the_way(mapping, what, &needed));
    }
    Ok(())
}

/// Sees, behind the renames, that nothing goes on using what was put aside: the catalogue has the last word on what was made
/// again. `old` is the table with what was put aside, under the names of now.
pub(super) async fn check_free(
    conn: &mut PgConnection,
    what: &Retiring<'_>,
    (old, schema): (&Table, &str),
) -> Result<(), Error> {
    let names = |columns: &'_ [RetiredColumn]| -> Vec<String> {
        columns.iter().map(|it| it.old_name.clone()).collect()
    };
    let names = what.columns().map(names);
    let names: Option<Vec<&str>> =
        names.as_ref().map(|names| names.iter().map(String::as_str).collect());
    let found = dependents(conn, old, names.as_deref(), schema).await?;
    let tied: Vec<String> =
        found.iter().filter(|it| it.is_certain() && !it.is_own).map(Dependent::said).collect();
    if tied.is_empty() {
        return Ok(());
    }
    let aside =
        names.map_or_else(|| old.name.clone(), |it| format!("{} of {}", it.join(", "), old.name));
    let message = format!(
        "these would go on using {aside}, though made again from their own text; drop them, or make them anew, first"
    );
    Err(in_the_way(what.mapping.name.as_str(), &message, &tied))
}
