//! What the old table has and the new one lacks, and clients would miss once the new one has its name.
//!
//! What can be made only by a build or a scan, or by the author's decision, must be there before `retire`: it is refused
//! with the statements that make it. Grants and the owner are carried over here. Columns that the mapping changes or leaves
//! out have their own, or none.

use super::catalogue::{Index, Table, literal, quote};
use super::connection::Tx;
use super::rename::run;
use super::shape::Shape;
use super::stricter::{bare, behind_using};
use super::surroundings::{Grant, Policy};
use super::survey::Side;
use crate::driver::Error;

/// The statements that would make what is missing.
pub(super) fn missing(shape: &Shape, old: &Side, new: &Side) -> Vec<String> {
    let on = new.table.sql();
    let mut statements = Vec::new();
    for index in old.table.indexes.iter().filter(|index| index.is_valid) {
        if is_carried_index(shape, index, &old.table) && !serves(&new.table, index) {
            let unique = if index.is_unique { "UNIQUE " } else { "" };
            let behind = behind_using(&index.definition);
            statements.push(format!("CREATE {unique}INDEX CONCURRENTLY ON {on} USING {behind}"));
        }
    }
    for constraint in old.around.constraints.iter().filter(|it| matches!(it.kind, 'c' | 'f' | 'x'))
    {
        let has = new.around.constraints.iter().any(|other| {
            other.kind == constraint.kind && bare(&other.definition) == bare(&constraint.definition)
        });
        if !has && constraint.columns.iter().all(|column| is_carried(shape, column)) {
            let definition = bare(&constraint.definition);
            let not_valid = if constraint.kind == 'x' { "" } else { " NOT VALID" };
            statements.push(format!(
                "ALTER TABLE {on} ADD CONSTRAINT {} {definition}{not_valid}",
                quote(&constraint.name)
            ));
        }
    }
    statements.extend(generated_keys(shape, old, new));
    for trigger in old.around.user_triggers().filter(|trigger| trigger.enabled != 'D') {
        let has = new.around.user_triggers().any(|it| it.form == trigger.form && it.enabled != 'D');
        if !has {
            let made = trigger.form.replacen(
                "TRIGGER % ",
                &format!("TRIGGER {} ", quote(&trigger.name)),
                1,
            );
            statements.push(made.replacen(" ON % ", &format!(" ON {on} "), 1));
        }
    }
    if old.table.row_security && !new.table.row_security {
        statements.push(format!("ALTER TABLE {on} ENABLE ROW LEVEL SECURITY"));
    }
    if old.table.force_row_security && !new.table.force_row_security {
        statements.push(format!("ALTER TABLE {on} FORCE ROW LEVEL SECURITY"));
    }
    let lacks = |policy: &&Policy| !new.around.policies.contains(policy);
    statements
        .extend(old.around.policies.iter().filter(lacks).map(|policy| create_policy(policy, &on)));
    for publication in &old.around.publications {
        if !new.around.publications.contains(publication) {
            statements.push(format!("ALTER PUBLICATION {} ADD TABLE {on}", quote(publication)));
        }
    }
    let identity = old.around.replica_identity;
    if identity != new.around.replica_identity {
        let what = match identity {
            'f' => "FULL".to_owned(),
            'n' => "NOTHING".to_owned(),
            'd' => "DEFAULT".to_owned(),
            _ => "USING INDEX …".to_owned(),
        };
        statements.push(format!("ALTER TABLE {on} REPLICA IDENTITY {what}"));
    }
    statements
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
    let behind = behind_using(&index.definition);
    let words = || behind.split(|char: char| !(char.is_alphanumeric() || char == '_'));
    let named = old.columns.iter().filter(|column| {
        words().any(|word| word == column.name)
            || behind.contains(&quote(&column.name))
            || index.columns.iter().flatten().any(|name| *name == column.name)
    });
    named.into_iter().all(|column| is_carried(shape, &column.name))
}

/// Whether a table has an index that does for an index of the other one.
fn serves(table: &Table, index: &Index) -> bool {
    table.indexes.iter().filter(|other| other.is_valid).any(|other| {
        let is_enough = !index.is_unique || other.is_unique;
        let is_same = behind_using(&other.definition) == behind_using(&index.definition);
        // `CREATE UNIQUE INDEX` and a constraint differ in nothing that clients notice.
        is_same && is_enough
    })
}

/// Columns whose values the old table draws and the new one doesn't.
fn generated_keys(shape: &Shape, old: &Side, new: &Side) -> Vec<String> {
    let mut statements = Vec::new();
    for sequence in &old.around.sequences {
        let column = pairs(shape).into_iter().find(|(old, _)| *old == sequence.column);
        let Some((_, column)) = column else { continue };
        let Some(target) = new.table.column(&column) else { continue };
        if target.identity.is_none() && target.default.is_none() {
            statements.push(format!(
                "ALTER TABLE {} ALTER COLUMN {} SET DEFAULT nextval({})",
                new.table.sql(),
                quote(&column),
                literal(&sequence.name)
            ));
        }
    }
    statements.sort();
    statements.dedup();
    statements
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

fn create_policy(policy: &Policy, on: &str) -> String {
    let kind = if policy.is_permissive { "PERMISSIVE" } else { "RESTRICTIVE" };
    let command = match policy.command {
        'r' => "SELECT",
        'a' => "INSERT",
        'w' => "UPDATE",
        'd' => "DELETE",
        _ => "ALL",
    };
    let using = policy.using.as_ref().map_or_else(String::new, |it| format!(" USING ({it})"));
    let check = policy.check.as_ref().map_or_else(String::new, |it| format!(" WITH CHECK ({it})"));
    format!(
        "CREATE POLICY {} ON {on} AS {kind} FOR {command} TO {}{using}{check}",
        quote(&policy.name),
        policy.roles.join(", ")
    )
}

/// Gives the new table the old one's owner and grants. What it was granted itself stays.
pub(super) async fn carry_rights(tx: &mut Tx<'_>, old: &Side, new: &Side) -> Result<(), Error> {
    let on = new.table.sql();
    if old.table.owner != new.table.owner {
        let sql = format!("ALTER TABLE {on} OWNER TO {}", quote(&old.table.owner));
        run(tx.conn()?, "give the new table the old one's owner", sql).await?;
    }
    for grant in &old.around.grants {
        let is_there = new.around.grants.contains(grant);
        let is_column = grant.column.as_ref().is_some_and(|name| new.table.column(name).is_none());
        if !is_there && !is_column {
            run(tx.conn()?, "give the new table the old one's grants", give(grant, &on)).await?;
        }
    }
    Ok(())
}

fn give(grant: &Grant, on: &str) -> String {
    let column =
        grant.column.as_ref().map_or_else(String::new, |name| format!(" ({})", quote(name)));
    let option = if grant.is_grantable { " WITH GRANT OPTION" } else { "" };
    format!("GRANT {}{column} ON {on} TO {}{option}", grant.privilege, grant.grantee)
}
