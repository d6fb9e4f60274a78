//! Making and removing the functions and triggers of a sync, and what stands in their way.
//!
//! Everything here happens inside a transaction of the caller, whose tables are locked or become so.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use super::catalogue::{Table, literal, quote};
use super::connection::Tx;
use super::dual_write::{run, sync_sql};
use super::error::{failed, refused};
use super::shape::{Shape, Write, reads};
use super::surroundings::around;
use super::sync_sql::{Function, Side, Trigger, cast, function_name};
use super::sync_state::{OwnTrigger, hidden_rows, late_trigger, own_triggers};
use super::{deferrable, marks, sequences};
use crate::driver::Error;
use crate::run::{Direction, FailureClass, OnDelete};

/// Settings that expressions may depend on, as our own sessions have them, so that a client's don't matter.
const PINNED: &str = " SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' \
     SET bytea_output = 'hex' SET extra_float_digits = 1 SET standard_conforming_strings = on SET transform_null_equals = off \
     SET lc_monetary FROM CURRENT SET lc_numeric FROM CURRENT SET lc_time FROM CURRENT";

/// Makes the tables of marks, the functions and the triggers of a sync, in place of any that were there. Marks stay.
pub(super) async fn install_triggers(
    tx: &mut Tx<'_>,
    shape: &Shape,
    direction: Direction,
) -> Result<(), Error> {
    remove_triggers(tx, shape).await?;
    marks::create(tx, shape).await?;
    let schema = tx.schema().to_owned();
    let sync = sync_sql(shape, direction, &schema);
    let owner = Owner::of(tx.conn()?, shape, &schema).await?;
    owner.let_in(tx, shape, &schema).await?;
    let settings = settings(tx.conn()?, shape).await?;
    for function in &sync.functions {
        let name = format!("{schema}.{}", quote(&function.name));
        let is_trigger = function.returns == "trigger";
        let settings = if is_trigger { settings.as_str() } else { "" };
        let statements = make_function(function, &name, settings);
        for sql in statements {
            run(tx.conn()?, "make a function of the sync", sql).await?;
        }
        owner.take(tx, &name, function).await?;
    }
    owner.let_out(tx, &schema).await?;
    if direction == Direction::Both && !shape.in_place {
        sequences::share(tx, shape).await?;
    }
    for trigger in &sync.triggers {
        make_trigger(tx, shape, &schema, trigger).await?;
    }
    Ok(())
}

pub(super) fn make_function(function: &Function, name: &str, settings: &str) -> [String; 2] {
    [
        format!(
            "CREATE FUNCTION {name}({}) RETURNS {} LANGUAGE plpgsql{settings} AS {}",
            function.parameters,
            function.returns,
            literal(&function.body),
        ),
        format!("REVOKE ALL ON FUNCTION {name}({}) FROM PUBLIC", function.parameters),
    ]
}

/// How the functions that triggers call run: as their owner, along the schemas that the session which makes them sees.
async fn settings(conn: &mut PgConnection, shape: &Shape) -> Result<String, Error> {
    let path = search_path(conn).await?;
    let computes = |writes: &[Write]| writes.iter().any(|write| !write.is_plain);
    let is_computed = computes(&shape.writes) || computes(&shape.reverse) || shape.filter.is_some();
    let pinned = if is_computed { PINNED } else { "" };
    Ok(format!(" SECURITY DEFINER SET search_path = {path}{pinned}"))
}

/// The path that names in expressions are looked up along: the server's own schema first, and temporary objects last.
pub(super) async fn search_path(conn: &mut PgConnection) -> Result<String, Error> {
    sqlx::query(
        "SELECT 'pg_catalog, ' || coalesce((SELECT string_agg(quote_ident(s.name), ', ' ORDER BY s.at) || ', ' \
         FROM unnest(current_schemas(false)) WITH ORDINALITY AS s (name, at) WHERE s.name <> 'pg_catalog'), '') || 'pg_temp'",
    )
    .fetch_one(conn)
    .await
    .and_then(|row| row.try_get(0))
    .map_err(failed("read the search path"))
}

/// Schemas on that path, quoted, in which everybody may make objects: a better match for a name in an expression would be
/// called with the rights of the tables' owner.
pub(super) async fn open_schemas(conn: &mut PgConnection) -> Result<Vec<String>, Error> {
    let rows = sqlx::query(
        "SELECT DISTINCT quote_ident(n.nspname) FROM pg_namespace n, aclexplode(n.nspacl) AS a
         WHERE n.nspname = ANY (current_schemas(false)) AND a.grantee = 0 AND a.privilege_type = 'CREATE' ORDER BY 1",
    )
    .fetch_all(conn)
    .await
    .map_err(failed("look for open schemas"))?;
    rows.iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()
        .map_err(failed("look for open schemas"))
}

/// Makes a trigger that fires under `session_replication_role = replica` too. PostgreSQL gives partitions their own triggers
/// for rows; for statements they are made here.
async fn make_trigger(
    tx: &mut Tx<'_>,
    shape: &Shape,
    schema: &str,
    trigger: &Trigger,
) -> Result<(), Error> {
    let table = shape.side(trigger.side);
    let mut tables = vec![table.sql()];
    if !trigger.is_for_rows() {
        tables.extend(partitions(tx.conn()?, table).await?);
    }
    let level = if trigger.is_for_rows() { "ROW" } else { "STATEMENT" };
    for table in tables {
        let name = quote(&trigger.name);
        let create = format!(
            "CREATE TRIGGER {name} {} ON {table} FOR EACH {level} EXECUTE FUNCTION {schema}.{}({})",
            trigger.head(),
            quote(&trigger.function),
            trigger.argument.as_deref().map_or_else(String::new, literal),
        );
        run(tx.conn()?, "make a trigger of the sync", create).await?;
        let always = format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}");
        run(tx.conn()?, "make a trigger of the sync", always).await?;
    }
    Ok(())
}

/// The partitions below a table, at every level.
pub(super) async fn partitions(
    conn: &mut PgConnection,
    table: &Table,
) -> Result<Vec<String>, Error> {
    let rows = sqlx::query(
        "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
         FROM pg_partition_tree($1::bigint::oid::regclass) AS p JOIN pg_class c ON c.oid = p.relid
         JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE p.level > 0 AND c.relkind IN ('r', 'p') ORDER BY c.oid",
    )
    .bind(i64::from(table.oid))
    .fetch_all(conn)
    .await
    .map_err(failed("read the catalogue"))?;
    rows.iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()
        .map_err(failed("read the catalogue"))
}

/// Removes the triggers of a mapping, and then their functions. What they noted stays. A table that took another's name, or that was
/// a partition, may have some, too.
pub(super) async fn remove_triggers(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    drop_triggers(tx, shape).await?;
    let schema = tx.schema().to_owned();
    let rows = sqlx::query(
        "SELECT p.oid::regprocedure::text FROM pg_proc p
         WHERE p.pronamespace = to_regnamespace($1) AND starts_with(p.proname, $2)",
    )
    .bind(schema)
    .bind(function_name(shape, ""))
    .fetch_all(tx.conn()?)
    .await
    .map_err(failed("read the catalogue"))?;
    for row in rows {
        let name: String = row.try_get(0).map_err(failed("read the catalogue"))?;
        run(tx.conn()?, "remove a function of the sync", format!("DROP FUNCTION {name}")).await?;
    }
    Ok(())
}

/// Removes the triggers of a sync, and leaves their functions.
pub(super) async fn drop_triggers(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    let schema = tx.schema().to_owned();
    for OwnTrigger { name, table, .. } in own_triggers(tx.conn()?, shape, &schema).await? {
        let sql = format!("DROP TRIGGER {} ON {table}", quote(&name));
        run(tx.conn()?, "remove a trigger of the sync", sql).await?;
    }
    Ok(())
}

/// Removes everything of a sync.
pub(super) async fn remove_sync(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    remove_triggers(tx, shape).await?;
    sequences::part(tx, shape).await?;
    marks::drop(tx, shape).await
}

/// Who the functions run as: the owner of the old table.
pub(super) struct Owner {
    pub(super) name: String,
    /// Whether that is somebody else than the role that makes them.
    pub(super) is_other: bool,
    /// Whether that role may not make anything in our schema by itself.
    pub(super) needs_create: bool,
}

impl Owner {
    pub(super) async fn of(
        conn: &mut PgConnection,
        shape: &Shape,
        schema: &str,
    ) -> Result<Self, Error> {
        let name = shape.old.owner.clone();
        let row = sqlx::query(
            "SELECT $1 <> current_user, pg_has_role(current_user, $1, 'MEMBER'),
                    has_schema_privilege($1, to_regnamespace($2), 'CREATE'), current_user::text",
        )
        .bind(&name)
        .bind(schema)
        .fetch_one(&mut *conn)
        .await
        .map_err(failed("look for the table's owner"))?;
        let told = |at| row.try_get::<bool, _>(at).map_err(failed("look for the table's owner"));
        if !told(1)? {
            let role: String = row.try_get(3).map_err(failed("look for the table's owner"))?;
            let message =
                format!("{} belongs to {name}, which {role} is no member of", shape.old.name);
            return Err(Error::failed(FailureClass::NotPermitted, message).with_help(format!(
                "GRANT {} TO {}, or run as the owner",
                quote(&name),
                quote(&role)
            )));
        }
        let owner = Self { name, is_other: told(0)?, needs_create: !told(2)? };
        owner.check_rights(conn, shape).await?;
        Ok(owner)
    }

    /// The owner must be able to read and write both tables whole: row security would hide rows without an error.
    async fn check_rights(&self, conn: &mut PgConnection, shape: &Shape) -> Result<(), Error> {
        for table in [&shape.old, &shape.new] {
            let row = sqlx::query(
                "SELECT bool_and(has_table_privilege($1, $2::bigint::oid, p))
                 FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p",
            )
            .bind(&self.name)
            .bind(i64::from(table.oid))
            .fetch_one(&mut *conn)
            .await
            .map_err(failed("look for privileges"))?;
            if !row.try_get::<bool, _>(0).map_err(failed("look for privileges"))? {
                let message = format!("{} may not read and write {}", self.name, table.name);
                return Err(Error::failed(FailureClass::NotPermitted, message).with_help(format!(
                    "GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {}",
                    table.sql(),
                    quote(&self.name)
                )));
            }
        }
        if let Some(message) = hidden_rows(conn, shape).await? {
            return Err(Error::failed(FailureClass::NotPermitted, message)
                .with_help("let a role with BYPASSRLS own the tables while the sync is active"));
        }
        Ok(())
    }

    /// Lets the owner reach what the functions write to.
    async fn let_in(&self, tx: &mut Tx<'_>, shape: &Shape, schema: &str) -> Result<(), Error> {
        if !self.is_other {
            return Ok(());
        }
        let name = quote(&self.name);
        let tables = [shape.touched_name(), shape.kept_name(), shape.parked_name()];
        let tables = tables.map(|table| tx.ours(&table)).join(", ");
        let create = if self.needs_create { ", CREATE" } else { "" };
        for sql in [
            format!("GRANT USAGE{create} ON SCHEMA {schema} TO {name}"),
            format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {name}"),
        ] {
            run(tx.conn()?, "let the table's owner into our schema", sql).await?;
        }
        Ok(())
    }

    pub(super) async fn take(
        &self,
        tx: &mut Tx<'_>,
        name: &str,
        function: &Function,
    ) -> Result<(), Error> {
        if !self.is_other {
            return Ok(());
        }
        let to = quote(&self.name);
        let sql = format!("ALTER FUNCTION {name}({}) OWNER TO {to}", function.parameters);
        run(tx.conn()?, "give a function to the table's owner", sql).await.map(|_| ())
    }

    /// Takes back what was needed only to give the functions away.
    pub(super) async fn let_out(&self, tx: &mut Tx<'_>, schema: &str) -> Result<(), Error> {
        if !self.is_other || !self.needs_create {
            return Ok(());
        }
        let sql = format!("REVOKE CREATE ON SCHEMA {schema} FROM {}", quote(&self.name));
        run(tx.conn()?, "take back a privilege", sql).await.map(|_| ())
    }
}

/// What stands in the way of keeping a mapping in step.
pub(super) async fn check_sync(
    tx: &mut Tx<'_>,
    shape: &Shape,
    direction: Direction,
) -> Result<(), Error> {
    can_follow(shape, direction)?;
    check_name(tx, shape).await?;
    if !shape.in_place {
        let schema = tx.schema().to_owned();
        let new = around(tx.conn()?, shape.new.oid, &schema).await?;
        if let Some((message, help)) = deferrable::problem(&new) {
            return Err(unsafe_because(shape, &message).with_help(help));
        }
    }
    for side in [Side::Old, Side::New] {
        check_inheritance(tx.conn()?, shape, side).await?;
    }
    if shape.in_place
        && let Some((table, name)) = late_trigger(tx.conn()?, shape).await?
    {
        let message = format!(
            "the trigger {name} on {table} would fire after ours, and may change the row again"
        );
        return Err(unsafe_because(shape, &message)
            .with_help("give it a name that sorts before zzzz_phasegate"));
    }
    try_expressions(tx, shape, direction).await
}

/// A sync of the same name that follows other tables, such as one that an earlier run left live, would end by this one's beginning.
pub(super) async fn check_name(tx: &mut Tx<'_>, shape: &Shape) -> Result<(), Error> {
    let schema = tx.schema().to_owned();
    let own = own_triggers(tx.conn()?, shape, &schema).await?;
    let mut tables: Vec<&str> =
        own.iter().filter(|it| !it.is_on_side).map(|it| it.table.as_str()).collect();
    tables.dedup();
    if tables.is_empty() {
        return Ok(());
    }
    let message = format!("a sync of this name is live on {}", tables.join(", "));
    Err(unsafe_because(shape, &message).with_help(
        "end that one first (rollback of its run, or stop_dual_write), or give this mapping another name",
    ))
}

fn unsafe_because(shape: &Shape, what: &str) -> Error {
    Error::failed(FailureClass::Unsafe, format!("mapping {}: {what}", shape.mapping))
}

/// Whether a sync can follow a mapping, by the mapping and its tables alone.
pub(super) fn can_follow(shape: &Shape, direction: Direction) -> Result<(), Error> {
    if direction == Direction::Both {
        check_both(shape)?;
    }
    if shape.in_place { check_generated(shape, direction) } else { Ok(()) }
}

fn check_both(shape: &Shape) -> Result<(), Error> {
    if shape.on_delete != OnDelete::Delete && !shape.in_place {
        return Err(unsafe_because(
            shape,
            "with direction: both a deleted row has to go on both sides, so on_delete must be delete",
        ));
    }
    for part in &shape.parts {
        if part.reverse.is_empty() && !part.writes.is_empty() && !part.is_alone() {
            let column = &shape.writes[part.writes[0]].column;
            let message = format!(
                "nothing says how a write of {column} gets back to {}",
                part.old_columns.join(", ")
            );
            return Err(unsafe_because(shape, &message)
                .with_help("add the column to reverse, or use direction: forward"));
        }
    }
    Ok(())
}

/// Tables that inherit from a mapped one have rows of it, and no trigger of ours.
pub(super) async fn check_inheritance(
    conn: &mut PgConnection,
    shape: &Shape,
    side: Side,
) -> Result<(), Error> {
    let table = shape.side(side);
    if table.kind != 'r' {
        return Ok(());
    }
    let heirs: bool =
        sqlx::query("SELECT EXISTS (SELECT 1 FROM pg_inherits WHERE inhparent = $1::bigint::oid)")
            .bind(i64::from(table.oid))
            .fetch_one(conn)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(failed("read the catalogue"))?;
    if heirs {
        let message = format!(
            "other tables inherit from {}, and their rows would not be followed",
            table.name
        );
        return Err(
            unsafe_because(shape, &message).with_help("map a table that nothing inherits from")
        );
    }
    Ok(())
}

/// Columns that the server computes are computed after triggers have seen the row.
fn check_generated(shape: &Shape, direction: Direction) -> Result<(), Error> {
    let generated: Vec<&str> = shape
        .old
        .columns
        .iter()
        .filter(|column| column.is_generated)
        .map(|column| column.name.as_str())
        .collect();
    let mut expressions: Vec<&str> =
        shape.writes.iter().map(|write| write.value.as_str()).collect();
    expressions.extend(shape.filter.as_deref());
    if direction == Direction::Both {
        expressions.extend(shape.reverse.iter().map(|write| write.value.as_str()));
    }
    for expression in expressions {
        if let Some(column) = reads(expression, generated.iter().copied()).first() {
            let message =
                format!("{column} is generated, and has no value yet when the row is written");
            return Err(unsafe_because(shape, &message)
                .with_help("write the expression that generates it instead"));
        }
    }
    Ok(())
}

/// Lets the server plan every expression over its own table, along the functions' path: in a function a name that is wrong,
/// or a type that doesn't fit, would show only when a client writes.
async fn try_expressions(
    tx: &mut Tx<'_>,
    shape: &Shape,
    direction: Direction,
) -> Result<(), Error> {
    let conn = tx.conn()?;
    let path = search_path(conn).await?;
    let before: String = sqlx::query("SELECT current_setting('search_path')")
        .fetch_one(&mut *conn)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("read the search path"))?;
    run(conn, "set the search path", format!("SET LOCAL search_path = {path}")).await?;
    let mut tried = vec![(Side::Old, &shape.writes)];
    if direction == Direction::Both {
        tried.push((Side::New, &shape.reverse));
    }
    for (side, writes) in tried {
        for write in writes {
            try_one(conn, shape, (side, write)).await?;
        }
    }
    if let Some(filter) = &shape.filter {
        let sql = format!("SELECT 1 FROM {} WHERE {filter} LIMIT 0", shape.named(Side::Old));
        explain(conn, sql).await.map_err(|error| of_expression(shape, filter, &error))?;
    }
    sqlx::query("SELECT set_config('search_path', $1, true)")
        .bind(before)
        .execute(conn)
        .await
        .map(|_| ())
        .map_err(failed("set the search path"))
}

async fn try_one(
    conn: &mut PgConnection,
    shape: &Shape,
    (side, write): (Side, &Write),
) -> Result<(), Error> {
    let sql = format!("SELECT {} FROM {} LIMIT 0", cast(write), shape.named(side));
    explain(conn, sql).await.map_err(|error| of_expression(shape, &write.value, &error))
}

async fn explain(conn: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    conn.execute(AssertSqlSafe(format!("EXPLAIN {sql}"))).await.map(|_| ())
}

fn of_expression(shape: &Shape, expression: &str, error: &sqlx::Error) -> Error {
    let mut error = refused(error);
    let inner = expression.strip_prefix('(').and_then(|rest| rest.strip_suffix("\n)"));
    if let Error::Failed(failure) = &mut error {
        failure.message = format!(
            "mapping {}: the expression {} can't be evaluated: {}",
            shape.mapping,
            inner.unwrap_or(expression),
            failure.message
        );
    }
    error
}
