//! What `retire` will ask for, told at the first look: the statements that make what the new side must have by then.
//!
//! Invariants:
//! - Where the new side stands, they are what `retire` would be refused with if it came now.
//! - Where the plan makes it, it is taken to have the columns that the mapping speaks of, its key, and what `LIKE` brings where
//!   a statement of the plan says so. What else the plan makes isn't read from its text, and the finding says that.
//!
//! Absent on purpose: refusing. Between the first look and `retire` an author may run the statements at any time.

use std::sync::Arc;

use sqlx::postgres::PgConnection;

use super::catalogue::{Column, Index, Table, name_sql, parts, same_table};
use super::counterpart::{missing, missing_columns, missing_statistics};
use super::gaps::NOT_BROUGHT;
use super::shape::Shape;
use super::stricter::Found;
use super::surroundings::{Constraint, Surroundings};
use super::survey::Side;
use super::uncarried::{self, Takes};
use super::{definition, identifying};
use crate::driver::{Error, Severity, Survey, SurveyedMapping};
use crate::run::{Direction, Mapping, RetireShape, RetiredColumn};
use crate::sql::{self, Dialect};

/// What the retirement of a mapping will ask for and doesn't find.
pub(super) async fn asked(
    conn: &mut PgConnection,
    survey: &Survey,
    mapping: &Mapping,
    (from, into): (&Side, Option<&Side>),
) -> Result<Vec<Found>, Error> {
    match retired(survey, mapping) {
        Some(RetireShape::Columns(columns)) if mapping.is_in_place() => {
            Ok(of_columns(from, columns).into_iter().collect())
        }
        Some(RetireShape::Table { take_name: true, .. }) => match into {
            Some(into) => of_table(conn, mapping, (from, into)).await,
            None => of_promised(conn, survey, mapping, from).await,
        },
        _ => Ok(Vec::new()),
    }
}

/// What `retire` puts aside of a mapping.
pub(super) fn retired<'s>(survey: &'s Survey, mapping: &Mapping) -> Option<&'s RetireShape> {
    let retired = survey.retired.iter().find(|(name, _)| *name == mapping.name);
    retired.map(|(_, shape)| shape)
}

fn found(message: String, lacks: &[String]) -> Option<Found> {
    let help = lacks.join(";\n");
    (!lacks.is_empty()).then_some((Severity::Warning, NOT_BROUGHT, message, Some(help)))
}

/// What tells the rows apart and columns in one table can't take over, so that no statement helps.
pub(super) fn refused(side: &Side, (survey, surveyed): (&Survey, &SurveyedMapping)) -> Vec<Found> {
    let Some(RetireShape::Columns(columns)) = retired(survey, &surveyed.mapping) else {
        return Vec::new();
    };
    let direction = surveyed.direction.unwrap_or(Direction::Forward);
    let found = |(severity, problem): (Severity, String)| {
        let help = "change that first, or put other columns aside".to_owned();
        (severity, NOT_BROUGHT, stands(&problem), Some(help))
    };
    let problems = identifying::problems(side, (columns, direction)).into_iter();
    let problems = problems.map(|problem| (Severity::Warning, problem));
    // Unless a statement of the plan may let it go, there is no way on.
    let exclusions = identifying::exclusions(side, columns).map(|it| {
        let is_named =
            survey.scripts.iter().flat_map(|(_, script)| &script.statements).any(|one| {
                one.text.to_ascii_uppercase().contains("DROP")
                    && one.text.contains(it.name.as_str())
            });
        let severity = if is_named { Severity::Warning } else { Severity::Error };
        (severity, identifying::said_of_exclusion(it))
    });
    problems.chain(exclusions).map(found).collect()
}

fn stands(problem: &str) -> String {
    format!("retire is refused while this stands: {problem}")
}

/// What can't go over to a new table.
async fn uncarried(conn: &mut PgConnection, shape: &Shape) -> Result<Vec<Found>, Error> {
    let mut problems = uncarried::problems(conn, shape, Takes::Name).await?;
    if shape.new.oid != 0 {
        problems.extend(uncarried::doubts(conn, shape).await?);
    }
    let found = |problem: String| {
        let help = format!("drop it, or make it anew on {}, before retire", shape.new.name);
        (Severity::Warning, NOT_BROUGHT, stands(&problem), Some(help))
    };
    Ok(problems.into_iter().map(found).collect())
}

/// For columns that take the names of others in one table.
fn of_columns(side: &Side, columns: &[RetiredColumn]) -> Option<Found> {
    let mut table = Table::clone(&side.table);
    let mut is_promised = false;
    for retired in columns {
        let (Some(was), Some(name)) = (side.table.column(&retired.column), &retired.take_name)
        else {
            continue;
        };
        if table.column(name).is_none() {
            is_promised = true;
            table.columns.push(nullable(was, name));
        }
    }
    let side = Side { table: Arc::new(table), around: Arc::clone(&side.around) };
    let lacks = missing_columns(&side, columns);
    let taken: Vec<&str> = columns.iter().filter_map(|it| it.take_name.as_deref()).collect();
    let (taken, table) = (taken.join(", "), &side.table.name);
    let message = if is_promised {
        format!(
            "{taken} of {table} must have what the columns have whose names it takes, or retire is refused; what the plan makes \
             of it by then can be left out"
        )
    } else {
        format!(
            "{taken} of {table} lacks what the columns have whose names it takes, and retire is refused until it has"
        )
    };
    found(message, &lacks)
}

/// A column like another, of which nothing is known but its name.
fn nullable(like: &Column, name: &str) -> Column {
    Column {
        name: name.to_owned(),
        not_null: false,
        default: None,
        identity: None,
        is_generated: false,
        ..like.clone()
    }
}

/// For a new table that stands.
async fn of_table(
    conn: &mut PgConnection,
    mapping: &Mapping,
    (from, into): (&Side, &Side),
) -> Result<Vec<Found>, Error> {
    let shape = Shape::resolve(mapping, Arc::clone(&from.table), Arc::clone(&into.table));
    let Ok(shape) = shape else { return Ok(Vec::new()) };
    let mut lacks = missing(&shape, from, into);
    lacks.extend(missing_statistics(conn, &shape).await?);
    let message = format!(
        "{} lacks what {} has and a build or a scan makes, and retire is refused until it has",
        into.table.name, from.table.name
    );
    let mut all: Vec<Found> = found(message, &lacks).into_iter().collect();
    all.extend(uncarried(conn, &shape).await?);
    Ok(all)
}

/// For one that the plan makes.
async fn of_promised(
    conn: &mut PgConnection,
    survey: &Survey,
    mapping: &Mapping,
    from: &Side,
) -> Result<Vec<Found>, Error> {
    let made = made(survey, mapping);
    let into = promised(mapping, from, &made);
    let shape = Shape::resolve(mapping, Arc::clone(&from.table), Arc::clone(&into.table));
    let Ok(shape) = shape else { return Ok(Vec::new()) };
    let mut lacks = missing(&shape, from, &into);
    if made.like.is_none_or(|like| !like.statistics) {
        lacks.extend(missing_statistics(conn, &shape).await?);
    }
    let (old, new) = (&from.table.name, &into.table.name);
    let message = match made.like {
        Some(_) => format!(
            "{new} won't have what {old} has, a build or a scan makes and LIKE doesn't bring, and retire is refused until it has"
        ),
        None => format!(
            "{new} must have what {old} has and a build or a scan makes, or retire is refused; what the plan makes of it by then \
             can be left out"
        ),
    };
    let mut all: Vec<Found> = found(message, &lacks).into_iter().collect();
    all.extend(uncarried(conn, &shape).await?);
    Ok(all)
}

/// How a plan makes a table, as far as its statements tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Made {
    is_partitioned: bool,
    like: Option<Like>,
    /// The statements that make it and change it, in small letters.
    texts: String,
}

impl Made {
    /// Whether the table may have a column of this name: a statement names it, or takes them from somewhere else.
    fn may_have(&self, column: &str) -> bool {
        let is_word = |char: char| char.is_alphanumeric() || char == '_';
        let column = column.to_lowercase();
        let is_there = |(at, _): (usize, &str)| {
            let (before, behind) = (&self.texts[..at], &self.texts[at + column.len()..]);
            !before.ends_with(is_word) && !behind.starts_with(is_word)
        };
        self.like.is_some()
            || self.texts.is_empty()
            || self.texts.contains('*')
            || self.texts.match_indices(&column).any(is_there)
    }

    /// The definition of the key's index, without what a plan that makes it by itself doesn't say.
    fn key_as_said(&self, definition: &str) -> String {
        if self.like.is_some_and(|like| like.indexes) {
            return definition.to_owned();
        }
        let unsaid = |word: &str| !self.texts.contains(word.trim().to_lowercase().as_str());
        let mut end = definition.len();
        for word in [" INCLUDE (", " WITH ("] {
            end = definition.find(word).filter(|_| unsaid(word)).map_or(end, |at| at.min(end));
        }
        definition[..end].to_owned()
    }
}

/// What `LIKE` brings beside columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "as the statement says them, each on its own")]
struct Like {
    indexes: bool,
    constraints: bool,
    statistics: bool,
}

fn made(survey: &Survey, mapping: &Mapping) -> Made {
    let (old, new) = (&mapping.from.table, &mapping.into.table);
    let mut made = Made::default();
    for statement in survey.scripts.iter().flat_map(|(_, script)| &script.statements) {
        let text = statement.text.as_str();
        let facts = sql::classify(Dialect::Postgres, text);
        let mut makes = facts.creates.iter().chain(&facts.ensures);
        let makes = makes.any(|it| it.column.is_none() && same_table(&it.table, new));
        if !makes && !facts.tables.iter().any(|table| same_table(table, new)) {
            continue;
        }
        made.texts.push_str(&text.to_lowercase());
        made.texts.push('\n');
        if makes {
            let upper = text.to_ascii_uppercase();
            let words: Vec<&str> = upper.split_ascii_whitespace().collect();
            made.is_partitioned |= words.windows(2).any(|two| two == ["PARTITION", "BY"]);
            made.like = made.like.or_else(|| like(text, old));
        }
    }
    made
}

/// What a statement brings by `LIKE` from a table.
fn like(text: &str, table: &str) -> Option<Like> {
    let upper = text.to_ascii_uppercase();
    let mut at = 0;
    while let Some(found) = upper[at..].find("LIKE") {
        at += found + "LIKE".len();
        let name = first_name(&text[at..]);
        let behind = upper[at..].trim_start().get(name.len()..).unwrap_or_default();
        if same_table(&meant(name), table) {
            return Some(options(behind));
        }
    }
    None
}

/// A name as the catalogue spells it, its quotes left where they are.
fn meant(name: &str) -> String {
    let mut is_quoted = false;
    let folded = |char: char| {
        is_quoted ^= char == '"';
        if is_quoted { char } else { char.to_ascii_lowercase() }
    };
    name.chars().map(folded).collect()
}

/// The name, maybe qualified and in quotes, that a text begins with.
fn first_name(text: &str) -> &str {
    let text = text.trim_start();
    let mut is_quoted = false;
    let is_end = |char: char| {
        is_quoted ^= char == '"';
        !is_quoted && (char.is_whitespace() || matches!(char, ',' | ')' | '('))
    };
    text.find(is_end).map_or(text, |end| &text[..end])
}

/// The options behind `LIKE` and its table, in capitals.
fn options(behind: &str) -> Like {
    let end = behind.find([',', ')']).unwrap_or(behind.len());
    let words: Vec<&str> = behind[..end].split_ascii_whitespace().collect();
    let mut like = Like::default();
    for pair in words.chunks_exact(2) {
        let is_included = pair[0] == "INCLUDING";
        for (name, option) in [
            ("INDEXES", &mut like.indexes),
            ("CONSTRAINTS", &mut like.constraints),
            ("STATISTICS", &mut like.statistics),
        ] {
            if pair[1] == name || pair[1] == "ALL" {
                *option = is_included;
            }
        }
    }
    like
}

/// The table that the plan will have made.
fn promised(mapping: &Mapping, from: &Side, made: &Made) -> Side {
    let (schema, name) = parts(&mapping.into.table);
    let like = made.like.unwrap_or_default();
    let indexes = indexes(mapping, &from.table, made);
    // An index and what is made of it have one name.
    let is_brought = |it: &&Constraint| match it.kind {
        'c' => like.constraints,
        'p' | 'u' | 'x' => indexes.iter().any(|index| index.name == it.name),
        _ => false,
    };
    let constraints = from.around.constraints.iter().filter(is_brought);
    let around = Surroundings {
        name: name_sql(&mapping.into.table),
        constraints: constraints.cloned().collect(),
        references: Vec::new(),
        triggers: Vec::new(),
        policies: Vec::new(),
        publications: Vec::new(),
        grants: Vec::new(),
        sequences: Vec::new(),
        parents: Vec::new(),
        children: 0,
        replica_identity: 'd',
        rules: Vec::new(),
    };
    let table = Table {
        oid: 0,
        schema: schema.unwrap_or_else(|| from.table.schema.clone()),
        name,
        kind: if made.is_partitioned { 'p' } else { 'r' },
        is_partition: false,
        columns: columns(mapping, &from.table, made),
        indexes,
        triggers: Vec::new(),
        ..Table::clone(&from.table)
    };
    Side { table: Arc::new(table), around: Arc::new(around) }
}

/// Its columns: the old one's, but for those that the mapping gives another name, and what the mapping writes.
fn columns(mapping: &Mapping, from: &Table, made: &Made) -> Vec<Column> {
    let keys = || mapping.from.key.iter().zip(&mapping.into.key);
    let is_listed = |name: &str| mapping.columns.iter().any(|(listed, _)| listed == name);
    let is_renamed = |name: &str| {
        let elsewhere =
            |(to, value): &(String, String)| to != name && value.trim().trim_matches('"') == name;
        !is_listed(name)
            && (mapping.columns.iter().any(elsewhere)
                || keys().any(|(old, new)| old == name && new != name))
    };
    let mut columns: Vec<Column> = from
        .columns
        .iter()
        .filter(|it| !is_renamed(&it.name) && made.may_have(&it.name))
        .cloned()
        .collect();
    if made.like.is_none() {
        columns = columns.iter().map(|it| nullable(it, &it.name)).collect();
    }
    let listed = mapping.columns.iter().map(|(name, _)| (None, name));
    for (old, name) in keys().map(|(old, new)| (Some(old), new)).chain(listed) {
        let like = old.and_then(|old| from.column(old)).or_else(|| from.columns.first());
        if let Some(like) = like
            && !columns.iter().any(|it| it.name == *name)
        {
            columns.push(nullable(like, name));
        }
    }
    for column in columns.iter_mut().filter(|it| mapping.into.key.contains(&it.name)) {
        column.not_null = true;
    }
    columns
}

/// Its indexes: the key's, and those that `LIKE` brings.
fn indexes(mapping: &Mapping, from: &Table, made: &Made) -> Vec<Index> {
    let like = made.like.unwrap_or_default();
    let (old, new) = (&mapping.from.key, &mapping.into.key);
    let new_name = |name: &str| {
        let at = old.iter().position(|old| old == name);
        at.and_then(|at| new.get(at)).map(String::as_str)
    };
    let is_key = |index: &Index| {
        index.is_identity()
            && index.columns.len() == old.len()
            && index.columns.iter().flatten().all(|name| old.contains(name))
    };
    let key = from.indexes.iter().find(|index| is_key(index)).map(|index| Index {
        columns: new.iter().cloned().map(Some).collect(),
        definition: if old == new {
            made.key_as_said(&index.definition)
        } else {
            made.key_as_said(&definition::renamed(&index.definition, &new_name))
        },
        ..index.clone()
    });
    let brought = from.indexes.iter().filter(|index| like.indexes && !is_key(index));
    key.into_iter().chain(brought.cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_like_brings_is_read_from_the_statement() {
        let all = Like { indexes: true, constraints: true, statistics: true };
        let cases = [
            ("CREATE TABLE v2 (LIKE leads INCLUDING ALL)", Some(all)),
            ("create table v2 (like public.leads including all, code text)", Some(all)),
            (
                "CREATE TABLE v2 (LIKE leads INCLUDING ALL EXCLUDING INDEXES)",
                Some(Like { indexes: false, ..all }),
            ),
            (
                "CREATE TABLE v2 (LIKE \"leads\" INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
                Some(Like { constraints: true, ..Like::default() }),
            ),
            ("CREATE TABLE v2 (LIKE leads)", Some(Like::default())),
            ("CREATE TABLE v2 (id int, CHECK (a LIKE 'leads'))", None),
            ("CREATE TABLE v2 (LIKE leads_old INCLUDING ALL)", None),
            ("CREATE TABLE v2 (LIKE \"Leads\" INCLUDING ALL)", None),
        ];
        for (text, expected) in cases {
            assert_eq!(like(text, "leads"), expected, "{text}");
        }
        assert_eq!(
            like(
                "CREATE TABLE v2 (LIKE \"Sales Data\".\"Order\" INCLUDING ALL)",
                "Sales Data.Order"
            ),
            Some(all)
        );
    }
}
