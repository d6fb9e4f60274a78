//! What `retire` gave the side that lives on, and how it is taken back: a list, kept in the ledger from the same transaction
//! on.
//!
//! Invariants:
//! - What is given is entered together with the statement that takes it back, which holds under the names from before
//!   `retire`. Taken back is in the opposite order, so that each statement finds what it found.
//! - A definition in a statement is qualified throughout: both ways it is run with an empty `search_path`.
//! - What somebody else removed meanwhile is not made again, and what can't be taken back any more is said, unless clients
//!   would go wrong without it: then the whole is refused.
//! - Foreign keys come NOT VALID and are checked afterwards, each in a transaction of its own. Which ones is on the list, so
//!   that whoever comes back after an interruption goes on with them.

use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::Postgres;
use super::catalogue::quote;
use super::connection::Tx;
use super::error::{code, damaged, failed, refused};
use super::ledger;
use crate::driver::{Error, Fence, TxKind, Work};
use crate::run::{FailureClass, RunId, StepId, Way};

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Carried {
    given: Vec<Given>,
    /// Foreign keys to check after `retire`.
    pub(super) keys: Vec<Key>,
    /// Foreign keys to check after `retire` was taken back.
    pub(super) keys_back: Vec<Key>,
}

/// One thing that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    what: String,
    /// The relation that it is on, where that is neither of the two.
    on: Option<Holder>,
    role: Option<String>,
    back: String,
    need: Need,
}

/// Whether clients would go wrong if something could not be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Need {
    Must,
    May,
}

/// A relation beside the two of a mapping that something is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Holder {
    /// Qualified and quoted.
    pub name: String,
    /// Quoted; of a view only, which can't be locked by LOCK TABLE without the tables in it.
    pub owner: Option<String>,
}

impl Holder {
    /// The statement that locks it against everybody, and nothing else.
    pub(super) fn lock(&self) -> String {
        match &self.owner {
            // Nothing is changed, as its owner it has already.
            Some(owner) => format!("ALTER TABLE {} OWNER TO {owner}", self.name),
            None => format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", self.name),
        }
    }
}

/// A foreign key, by the table that has it and its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    pub table_oid: u32,
    pub name: String,
}

/// Something to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gift {
    /// What it is, behind "could not carry over a".
    pub what: String,
    pub on: Option<Holder>,
    /// Who has to do it, quoted, where that is not the acting role.
    pub role: Option<String>,
    pub forward: String,
    pub back: String,
    pub need: Need,
}

/// The entry of the ledger that holds the list of a `retire`.
fn entry(step: &StepId) -> StepId {
    StepId::new(format!("{step}/carried"))
}

/// Has names in statements stand for what they are qualified with alone. Returns the path as it was.
pub(super) async fn narrow(conn: &mut PgConnection) -> Result<String, Error> {
    let doing = "set the search path";
    let row = sqlx::query(
        "WITH was AS MATERIALIZED (SELECT current_setting('search_path') AS path)
         SELECT was.path, set_config('search_path', '', true) FROM was",
    )
    .fetch_one(conn)
    .await
    .map_err(failed(doing))?;
    row.try_get(0).map_err(failed(doing))
}

/// Takes that back.
pub(super) async fn widen(conn: &mut PgConnection, path: String) -> Result<(), Error> {
    sqlx::query("SELECT set_config('search_path', $1, true)")
        .bind(path)
        .execute(conn)
        .await
        .map(|_| ())
        .map_err(failed("set the search path"))
}

/// Runs statements as a role.
async fn run_as(
    conn: &mut PgConnection,
    role: Option<&str>,
    statements: &str,
) -> Result<(), sqlx::Error> {
    let sql = match role {
        None => statements.to_owned(),
        Some(role) => {
            let row = sqlx::query("SELECT current_setting('role')").fetch_one(&mut *conn).await?;
            let was: String = row.try_get(0)?;
            let was = if was == "none" { was } else { quote(&was) };
            format!("SET LOCAL ROLE {role}; {statements}; SET LOCAL ROLE {was}")
        }
    };
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.map(|_| ())
}

/// An error of a statement that the catalogue's own words made.
fn could_not(doing: &str, what: &str, error: &sqlx::Error) -> Error {
    let mut error = refused(error);
    if let Error::Failed(failure) | Error::Unknown(failure) = &mut error {
        failure.message = format!("could not {doing} a {what}: {}", failure.message);
    }
    error
}

impl Carried {
    /// Gives something, and enters how it is taken back. The path is [`narrow`].
    pub(super) async fn give(&mut self, tx: &mut Tx<'_>, gift: Gift) -> Result<(), Error> {
        let done = run_as(tx.conn()?, gift.role.as_deref(), &gift.forward).await;
        done.map_err(|error| {
            let detail = gift.forward.clone();
            let mut error = could_not("carry over", &gift.what, &error);
            if let Error::Failed(failure) = &mut error {
                failure.detail = Some(match failure.detail.take() {
                    Some(more) => format!("{more}; {detail}"),
                    None => detail,
                });
            }
            error.with_help("change or drop it, or make it on the new one by hand, first")
        })?;
        let Gift { what, on, role, back, need, .. } = gift;
        self.given.push(Given { what, on, role, back, need });
        Ok(())
    }

    /// The relations beside the two that taking back will lock, of those that are there.
    pub(super) async fn holders(&self, conn: &mut PgConnection) -> Result<Vec<Holder>, Error> {
        let mut holders: Vec<Holder> = Vec::new();
        for holder in self.given.iter().filter_map(|given| given.on.as_ref()) {
            if !holders.contains(holder) && ledger::has_table(conn, &holder.name).await? {
                holders.push(holder.clone());
            }
        }
        Ok(holders)
    }

    /// Takes everything back. Returns what could not be, which does no harm. The path is [`narrow`].
    pub(super) async fn take_back(&self, tx: &mut Tx<'_>) -> Result<Vec<String>, Error> {
        let mut left = Vec::new();
        for given in self.given.iter().rev() {
            if let Some(holder) = &given.on
                && !ledger::has_table(tx.conn()?, &holder.name).await?
            {
                left.push(format!("{} is gone", holder.name));
                continue;
            }
            savepoint(tx, "SAVEPOINT back").await?;
            match run_as(tx.conn()?, given.role.as_deref(), &given.back).await {
                Ok(()) => savepoint(tx, "RELEASE SAVEPOINT back").await?,
                Err(error) if given.need == Need::May && can_stay(&error) => {
                    savepoint(tx, "ROLLBACK TO SAVEPOINT back").await?;
                    let why = could_not("take back", &given.what, &error);
                    left.push(why.to_string());
                }
                Err(error) => {
                    let help = format!(
                        "it was changed since, as it seems, or what it needs was; make it as it was ({}), or drop it, then retry",
                        given.back.split_whitespace().collect::<Vec<_>>().join(" ")
                    );
                    return Err(could_not("take back", &given.what, &error).with_help(help));
                }
            }
        }
        Ok(left)
    }

    /// Enters the list in the ledger.
    pub(super) async fn keep(
        &self,
        tx: &mut Tx<'_>,
        fence: &Fence,
        work: &Work,
    ) -> Result<(), Error> {
        let list = serde_json::to_string(self)
            .map_err(|error| damaged(format!("what was carried over can't be noted: {error}")))?;
        let entry = Work { step: entry(&work.step), ..work.clone() };
        ledger::record(tx, fence, &entry, (0, Some(list))).await.map(|_| ())
    }

    /// The list of a `retire`, as the ledger has it; an empty one where there is none.
    pub(super) async fn kept(tx: &mut Tx<'_>, run: &RunId, step: &StepId) -> Result<Self, Error> {
        let found = ledger::applied(tx, run, &entry(step), Way::Forward).await?;
        let Some(list) = found.and_then(|it| it.detail) else { return Ok(Self::default()) };
        serde_json::from_str(&list).map_err(|error| {
            damaged(format!("the ledger's list of what was carried over is none: {error}"))
        })
    }
}

async fn savepoint(tx: &mut Tx<'_>, sql: &'static str) -> Result<(), Error> {
    sqlx::query(sql).execute(tx.conn()?).await.map(|_| ()).map_err(failed("mark the place"))
}

/// Whether a failure is about the thing itself, and not the server's or the connection's.
fn can_stay(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(code.get(..2), Some("42" | "2B" | "0L" | "0P" | "22")))
}

/// What becomes of a foreign key that rows from before break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The step fails, and goes on once somebody mended the rows.
    Fails,
    /// It holds for what is written from now on, and that is said.
    Stays,
}

impl Postgres {
    /// Checks foreign keys that are NOT VALID yet, each in a transaction of its own, since that reads a whole table. Done
    /// again, it goes on where it was.
    pub(super) async fn check_keys(
        &self,
        fence: &Fence,
        work: &Work,
        (keys, broken): (&[Key], Broken),
    ) -> Result<(), Error> {
        for key in keys {
            let kind = TxKind::Validate;
            let mut tx = self.connections.begin_waiting(fence, kind, work.lock_timeout_ms).await?;
            let Some(table) = waits(tx.conn()?, key).await? else {
                tx.roll_back().await;
                continue;
            };
            let sql = format!("ALTER TABLE {table} VALIDATE CONSTRAINT {}", quote(&key.name));
            match sqlx::query(AssertSqlSafe(sql)).execute(tx.conn()?).await {
                Ok(_) => {
                    tx.commit().await?;
                }
                Err(error) if broken == Broken::Stays && code(&error) == Some("23503") => {
                    tracing::warn!(key = %key.name, %error, "a foreign key stays NOT VALID");
                    tx.roll_back().await;
                }
                Err(error) => {
                    let what = format!("foreign key {} of {table}", key.name);
                    let error = could_not("check", &what, &error).with_help(
                        "it holds for what is written from now on; mend the rows that break it, then retry",
                    );
                    return Err(tx.give_up(error).await);
                }
            }
        }
        Ok(())
    }
}

/// The table of a key that is not checked yet, qualified and quoted.
async fn waits(conn: &mut PgConnection, key: &Key) -> Result<Option<String>, Error> {
    let doing = "see whether a foreign key was checked";
    let row = sqlx::query(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_constraint k
         JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE k.conrelid = $1::bigint::oid AND k.conname = $2 AND NOT k.convalidated",
    )
    .bind(i64::from(key.table_oid))
    .bind(&key.name)
    .fetch_optional(conn)
    .await
    .map_err(failed(doing))?;
    row.map(|row| row.try_get(0)).transpose().map_err(failed(doing))
}

/// An error that says what is in the way, with all of it as its detail.
pub(super) fn in_the_way(mapping: &str, what: &str, items: &[String]) -> Error {
    let mut error = Error::failed(FailureClass::Refused, format!("mapping {mapping}: {what}"));
    if let Error::Failed(failure) = &mut error {
        failure.detail = Some(items.join(";\n"));
    }
    error
}

/// The tables that foreign keys of the old table refer to: to let a key go, or to drop it with its table, the server locks them
/// too. Those that this role may not lock by itself are waited for then.
pub(super) async fn referenced(
    conn: &mut PgConnection,
    (old, new): (u32, u32),
) -> Result<Vec<Holder>, Error> {
    let doing = "read the foreign keys of the table";
    let rows = sqlx::query(
        "SELECT DISTINCT format('%I.%I', n.nspname, c.relname) FROM pg_constraint k
         JOIN pg_class c ON c.oid = k.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conrelid = $1::bigint::oid
           AND k.confrelid NOT IN ($1::bigint::oid, $2::bigint::oid)
           AND has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE') ORDER BY 1",
    )
    .bind(i64::from(old))
    .bind(i64::from(new))
    .fetch_all(conn)
    .await
    .map_err(failed(doing))?;
    let holder = |row: &PgRow| Ok(Holder { name: row.try_get(0)?, owner: None });
    rows.iter().map(holder).collect::<Result<_, _>>().map_err(failed(doing))
}
