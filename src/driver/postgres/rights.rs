//! What the role may do with what a plan touches, and the statements that would let it.
//!
//! Absent on purpose: trying it. Whoever owns the objects grants the rights; we only ask the catalogue.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::catalogue::{self, quote};
use super::error::failed;
use crate::driver::probed::Right;
use crate::driver::{Error, Finding, Purpose, Severity, Survey, TableUse};
use crate::run::{Direction, StepId};

/// The role lacks a right.
pub(super) const NO_RIGHT: &str = "D212";
/// Row security hides rows from the role.
pub(super) const HIDDEN_ROWS: &str = "D213";

/// What only the owner may do: its members, too.
const OWNER: &str = "owner";

/// What the role may do with one table.
#[allow(clippy::struct_excessive_bools)] // each is a right that the catalogue answers yes or no to
struct Held {
    /// Qualified and quoted.
    table: String,
    owner: String,
    schema: String,
    can_read: bool,
    can_read_some: bool,
    can_insert: bool,
    can_update: bool,
    can_delete: bool,
    is_owner: bool,
    can_create: bool,
    is_hidden: bool,
}

const HELD: &str = "\
SELECT format('%I.%I', n.nspname, c.relname), quote_ident(pg_get_userbyid(c.relowner)), quote_ident(n.nspname),
       has_table_privilege(c.oid, 'SELECT'), has_any_column_privilege(c.oid, 'SELECT'),
       has_table_privilege(c.oid, 'INSERT'), has_table_privilege(c.oid, 'UPDATE'), has_table_privilege(c.oid, 'DELETE'),
       pg_has_role(c.relowner, 'USAGE'), has_schema_privilege(n.oid, 'CREATE'), row_security_active(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)";

/// The rights that the steps of a plan need, and what of them is lacking. `schema` is our own, quoted.
pub(super) async fn rights(
    conn: &mut PgConnection,
    survey: &Survey,
    schema: &str,
) -> Result<(Vec<Right>, Vec<Finding>), Error> {
    let derived;
    let uses = if survey.uses.is_empty() {
        derived = uses_of(survey);
        &derived
    } else {
        &survey.uses
    };
    let (mut rights, mut findings) = (Vec::new(), Vec::new());
    let role = role(conn).await?;
    if let Some(step) = first_step(survey) {
        let (right, finding) = our_schema(conn, step, (schema, &role)).await?;
        rights.push(right);
        findings.extend(finding);
    }
    for used in uses {
        if let Some(finding) = closed_schema(conn, used, &role).await? {
            findings.push(finding);
            continue;
        }
        let Some(held) = held(conn, &used.table).await? else { continue };
        let (needed, lacking) = held.judge(used.purpose);
        for lack in &lacking {
            let message = match lack.right {
                OWNER => format!("{role} does not own {}", lack.on),
                right => format!("{role} lacks {right} on {}", lack.on),
            };
            let finding = error(used, NO_RIGHT, message, lack.grant(&role));
            if !findings.iter().any(|one: &Finding| one.message == finding.message) {
                findings.push(finding);
            }
        }
        if held.is_hidden && !matches!(used.purpose, Purpose::Named | Purpose::Change) {
            let message = format!(
                "row level security on {} holds for {role}, so that it may not see every row",
                held.table
            );
            // An owner is bound by FORCE alone.
            let instead = if held.is_owner {
                format!("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY", held.table)
            } else {
                format!("run the plan as {}", held.owner)
            };
            let advice =
                format!("{instead}, or have an administrator run ALTER ROLE {role} BYPASSRLS");
            let finding = error(used, HIDDEN_ROWS, message, advice);
            if !findings.iter().any(|one: &Finding| one.message == finding.message) {
                findings.push(finding);
            }
        }
        let lacking = lacking.into_iter().map(|lack| lack.right.to_owned()).collect();
        let needed = needed.into_iter().map(|lack| lack.right.to_owned()).collect();
        rights.push(Right { step: used.step.clone(), object: used.table.clone(), needed, lacking });
    }
    Ok((rights, findings))
}

/// What the mappings of a plan need where nobody says more: the sync's rights, or a copy's.
fn uses_of(survey: &Survey) -> Vec<TableUse> {
    let mut uses = Vec::new();
    for surveyed in &survey.mappings {
        let (from, into) = (&surveyed.mapping.from.table, &surveyed.mapping.into.table);
        let mut add = |table: &String, purpose| {
            uses.push(TableUse { step: surveyed.step.clone(), table: table.clone(), purpose });
        };
        match surveyed.direction {
            Some(Direction::Forward) => add(from, Purpose::Sync),
            Some(Direction::Both) => {
                add(from, Purpose::Sync);
                add(into, Purpose::Sync);
            }
            None => add(from, Purpose::Read),
        }
        if surveyed.mapping.is_pushdown() {
            add(into, Purpose::Write);
        }
    }
    uses
}

fn first_step(survey: &Survey) -> Option<&StepId> {
    let of_mappings = survey.mappings.first().map(|surveyed| &surveyed.step);
    let of_uses = survey.uses.first().map(|used| &used.step);
    of_mappings.or(of_uses).or_else(|| survey.queries.first().map(|(step, _)| step))
}

fn error(used: &TableUse, code: &'static str, message: String, help: String) -> Finding {
    let (severity, step) = (Severity::Error, used.step.clone());
    Finding { severity, step, code, message, help: Some(help), private: Vec::new() }
}

async fn role(conn: &mut PgConnection) -> Result<String, Error> {
    sqlx::query("SELECT quote_ident(current_user)")
        .fetch_one(conn)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("read who we are"))
}

/// A schema that a table is named in, and that the role may not look into.
async fn closed_schema(
    conn: &mut PgConnection,
    used: &TableUse,
    role: &str,
) -> Result<Option<Finding>, Error> {
    let (Some(schema), _) = catalogue::parts(&used.table) else { return Ok(None) };
    if may_enter(conn, &schema).await? {
        return Ok(None);
    }
    let schema = quote(&schema);
    let message = format!("{role} lacks USAGE on schema {schema}");
    let help = format!("GRANT USAGE ON SCHEMA {schema} TO {role}");
    Ok(Some(error(used, NO_RIGHT, message, help)))
}

/// Whether a schema may be looked into; one that isn't there may.
pub(super) async fn may_enter(conn: &mut PgConnection, schema: &str) -> Result<bool, Error> {
    sqlx::query(
        "SELECT coalesce((SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = $1), true)",
    )
    .bind(schema)
    .fetch_one(conn)
    .await
    .and_then(|row| row.try_get(0))
    .map_err(failed("read the rights on a schema"))
}

async fn held(conn: &mut PgConnection, table: &str) -> Result<Option<Held>, Error> {
    let doing = "read the rights on a table";
    let row = sqlx::query(HELD)
        .bind(catalogue::name_sql(table))
        .fetch_optional(conn)
        .await
        .map_err(failed(doing))?;
    let Some(row) = row else { return Ok(None) };
    let text = |at: usize| row.try_get::<String, _>(at).map_err(failed(doing));
    let flag = |at: usize| row.try_get::<bool, _>(at).map_err(failed(doing));
    Ok(Some(Held {
        table: text(0)?,
        owner: text(1)?,
        schema: text(2)?,
        can_read: flag(3)?,
        can_read_some: flag(4)?,
        can_insert: flag(5)?,
        can_update: flag(6)?,
        can_delete: flag(7)?,
        is_owner: flag(8)?,
        can_create: flag(9)?,
        is_hidden: flag(10)?,
    }))
}

/// A right on something.
struct Need {
    right: &'static str,
    on: String,
    /// Who could give it by membership: the owner.
    owner: String,
}

impl Need {
    /// The statement that gives it.
    fn grant(&self, role: &str) -> String {
        match self.right {
            OWNER => format!("GRANT {} TO {role}", self.owner),
            right => format!("GRANT {right} ON {} TO {role}", self.on),
        }
    }
}

impl Held {
    /// What a purpose needs, and what of it is lacking.
    fn judge(&self, purpose: Purpose) -> (Vec<Need>, Vec<Need>) {
        let on_table: &[(&'static str, bool)] = match purpose {
            Purpose::Named => &[],
            Purpose::Read => &[("SELECT", self.can_read || self.can_read_some)],
            Purpose::Insert => &[("INSERT", self.can_insert)],
            Purpose::Update => &[("UPDATE", self.can_update)],
            Purpose::Delete => &[("DELETE", self.can_delete)],
            Purpose::Write => &[
                ("SELECT", self.can_read),
                ("INSERT", self.can_insert),
                ("UPDATE", self.can_update),
                ("DELETE", self.can_delete),
            ],
            Purpose::Change | Purpose::Sync | Purpose::Retire | Purpose::Drop => {
                &[(OWNER, self.is_owner)]
            }
        };
        let need = |right: &'static str, on: String| Need { right, on, owner: self.owner.clone() };
        let (mut needed, mut lacking) = (Vec::new(), Vec::new());
        for (right, has) in on_table {
            needed.push(need(right, self.table.clone()));
            if !has {
                lacking.push(need(right, self.table.clone()));
            }
        }
        // Renaming a table takes the right to make one.
        if purpose == Purpose::Retire {
            let on = format!("SCHEMA {}", self.schema);
            needed.push(need("CREATE", on.clone()));
            if !self.can_create {
                lacking.push(need("CREATE", on));
            }
        }
        (needed, lacking)
    }
}

/// Whether our own schema is there and ours to use, or can be made.
async fn our_schema(
    conn: &mut PgConnection,
    step: &StepId,
    (schema, role): (&str, &str),
) -> Result<(Right, Option<Finding>), Error> {
    let doing = "read the rights on our schema";
    let row = sqlx::query(
        "SELECT to_regnamespace($1) IS NOT NULL,
                coalesce(has_schema_privilege(to_regnamespace($1)::oid, 'USAGE'), false),
                coalesce(has_schema_privilege(to_regnamespace($1)::oid, 'CREATE'), false),
                has_database_privilege(current_database(), 'CREATE'), quote_ident(current_database())",
    )
    .bind(schema)
    .fetch_one(conn)
    .await
    .map_err(failed(doing))?;
    let flag = |at: usize| row.try_get::<bool, _>(at).map_err(failed(doing));
    let (is_there, can_use, can_create, can_make) = (flag(0)?, flag(1)?, flag(2)?, flag(3)?);
    let database: String = row.try_get(4).map_err(failed(doing))?;
    let (object, checks) = if is_there {
        (format!("schema {schema}"), vec![("USAGE", can_use), ("CREATE", can_create)])
    } else {
        (format!("database {database}"), vec![("CREATE", can_make)])
    };
    let needed: Vec<String> = checks.iter().map(|(right, _)| (*right).to_owned()).collect();
    let lacking: Vec<String> =
        checks.iter().filter(|(_, has)| !has).map(|(right, _)| (*right).to_owned()).collect();
    let finding = (!lacking.is_empty()).then(|| {
        let rights = lacking.join(", ");
        let help = if is_there {
            format!("GRANT {rights} ON SCHEMA {schema} TO {role}")
        } else {
            format!(
                "GRANT CREATE ON DATABASE {database} TO {role}, or CREATE SCHEMA {schema} AUTHORIZATION {role}"
            )
        };
        let message = format!("{role} lacks {rights} on {object}, where our own tables go");
        let (severity, step) = (Severity::Error, step.clone());
        let (help, private) = (Some(help), Vec::new());
        Finding { severity, step, code: NO_RIGHT, message, help, private }
    });
    Ok((Right { step: step.clone(), object, needed, lacking }, finding))
}
