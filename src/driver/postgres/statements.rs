//! A script whose statements run each by itself, because the server refuses some of them inside a transaction.
//!
//! Invariants:
//! - A statement that may be in a transaction is in one of its own, together with its mark in the ledger: done once.
//! - Before any other the ledger has its mark, with the session that runs it, written under the fence in that very session;
//!   a second mark when it is done. What is marked as begun and not as done is never repeated blindly: its session is ended
//!   first, then the catalogue is asked, and where that can't tell it is [`Error::Ambiguous`]: an operator says what came of it, which
//!   [`answered`](super::answered) enters in the mark.
//! - While a statement runs outside a transaction, its session has none open and holds no lock of ours. Who takes over ends
//!   it and waits until it is gone.
//!
//! The marks are rows of the ledger's `steps` called `<step>/statement/<n>`; the step's own row replaces them at the end.

use sqlx::{AssertSqlSafe, Row as _};

use super::connection::{Bare, SessionId, Tx};
use super::error::{failed, is_lost, is_refused_unrun, unknown};
use super::ledger::{self, signed, unsigned, way_name};
use super::leftovers::{self, IndexState};
use super::{Postgres, hints};
use crate::bounds::postgres::{GONE_LOOK_EVERY, ONCE_LOCK_MS, STATEMENT_GONE_WITHIN_MS};
use crate::clock::Stopwatch;
use crate::driver::{Applied, Error, Fence, TxKind, Work};
use crate::run::{FailureClass, Script, Statement, Way};
use crate::sql::{Alone, alone, runs_code};

/// What the ledger has of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mark {
    None,
    /// Begun, in this session.
    Begun {
        session: SessionId,
        /// Whether an attempt before had failed and left something.
        is_again: bool,
    },
    /// Done, with the rows it changed.
    Done(u64),
    /// It failed, and has left something all the same: it is done once more, and undone like something that was done.
    InPart,
}

/// Everything that the statements of one step share.
struct Steps<'a> {
    postgres: &'a Postgres,
    fence: &'a Fence,
    work: &'a Work,
    file: Option<&'a str>,
    notes: Vec<String>,
}

/// Runs a script's statements, and enters the step in the ledger when all are done.
pub(super) async fn each(
    postgres: &Postgres,
    fence: &Fence,
    work: &Work,
    script: &Script,
) -> Result<Applied, Error> {
    let bare = postgres.connections.bare(fence).await?;
    let mut tx = bare.begin(fence, TxKind::Execute, None).await?;
    if let Some(before) = ledger::applied(&mut tx, fence.run(), &work.step, work.way).await? {
        tx.roll_back().await;
        return Ok(before);
    }
    let was_done = ledger::applied(&mut tx, fence.run(), &work.step, Way::Forward).await?.is_some();
    let was_begun = was_done || has_marks(&mut tx, fence, work, Way::Forward).await?;
    if work.way == Way::Back && !was_begun {
        let detail = Some("it had not been done, so there was nothing to undo".to_owned());
        let applied = ledger::record(&mut tx, fence, work, (0, detail)).await?;
        tx.commit().await?;
        return Ok(applied);
    }
    let mut bare = rolled_back(tx).await?;
    end_begun(&mut bare, fence, work).await?;
    let mut steps =
        Steps { postgres, fence, work, file: script.file.as_deref(), notes: Vec::new() };
    let mut rows = 0;
    for (at, statement) in script.statements.iter().enumerate() {
        let (changed, next) = steps.one(bare, at, statement).await?;
        rows += changed;
        bare = next;
    }
    let mut tx = bare.begin(fence, TxKind::Execute, None).await?;
    forget_marks(&mut tx, fence, work).await?;
    let detail = (!steps.notes.is_empty()).then(|| steps.notes.join("; "));
    let applied = ledger::record(&mut tx, fence, work, (rows, detail)).await?;
    tx.commit().await?;
    Ok(applied)
}

impl Steps<'_> {
    /// Runs one statement, unless it is done. Returns the rows it changed, and the session for the next.
    async fn one<'b>(
        &mut self,
        mut bare: Bare<'b>,
        at: usize,
        statement: &Statement,
    ) -> Result<(u64, Bare<'b>), Error> {
        let kind = alone(&statement.text);
        let mark = mark(&mut bare, self.fence, self.work, at).await?;
        match (&kind, mark) {
            (Alone::Session, _) => {
                self.run(&mut bare, statement).await.map_err(|failed| failed.error)?;
                Ok((0, bare))
            }
            (_, Mark::Done(rows)) => Ok((rows, bare)),
            (Alone::InTransaction | Alone::Validates, _) => {
                self.in_transaction(bare, at, statement, &kind).await
            }
            (Alone::Control, _) => Err(located(control(), statement, self.file)),
            (_, mark) => self.outside(bare, at, statement, (&kind, mark)).await,
        }
    }

    /// In a transaction of its own with its mark.
    async fn in_transaction<'b>(
        &mut self,
        bare: Bare<'b>,
        at: usize,
        statement: &Statement,
        kind: &Alone,
    ) -> Result<(u64, Bare<'b>), Error> {
        let mut tx = bare.begin(self.fence, TxKind::Execute, self.work.lock_timeout_ms).await?;
        let done = match *kind {
            Alone::Validates => without_lock_timeout(&mut tx).await,
            _ => Ok(()),
        };
        let done = match done {
            Ok(()) => match self.work.way {
                Way::Forward => {
                    super::script::run_one(&mut tx, statement).await.map(|rows| (rows, None))
                }
                Way::Back => super::script::undo_one(&mut tx, statement).await,
            },
            Err(error) => Err(error),
        };
        match done {
            Ok((rows, note)) => {
                self.notes.extend(note);
                write_mark(&mut tx, self.fence, self.work, (at, &Mark::Done(rows))).await?;
                Ok((rows, tx.commit_bare().await?))
            }
            Err(error) => {
                let error = tx.give_up(error).await;
                Err(hints::explain(self.postgres, error, statement, self.file).await)
            }
        }
    }

    /// Outside any transaction, between two marks.
    async fn outside<'b>(
        &mut self,
        mut bare: Bare<'b>,
        at: usize,
        statement: &Statement,
        (kind, mark): (&Alone, Mark),
    ) -> Result<(u64, Bare<'b>), Error> {
        let was_begun = matches!(mark, Mark::Begun { .. });
        // What the catalogue shows is asked of the catalogue.
        let before_left = *kind == Alone::Opaque
            && matches!(mark, Mark::InPart | Mark::Begun { is_again: true, .. });
        let plan = match self.look(&mut bare, statement, (kind, was_begun)).await {
            Ok(plan) => plan,
            Err(error) => return Err(located(error, statement, self.file)),
        };
        let Plan::Run { leftovers, instead } = plan else {
            return Ok((0, self.marked(bare, at, &Mark::Done(0)).await?));
        };
        let begun = Mark::Begun { session: bare.session().clone(), is_again: before_left };
        let mut bare = self.marked(bare, at, &begun).await?;
        let lock_ms = match kind {
            Alone::BuildsIndex(_)
            | Alone::DropsIndex(_)
            | Alone::Reindexes(_)
            | Alone::Detaches { .. } => 0,
            _ => self.work.lock_timeout_ms.unwrap_or(ONCE_LOCK_MS).max(1),
        };
        let watcher = bare.wait_for_locks(lock_ms).await?;
        let changed = async {
            for name in &leftovers {
                let conn = bare.conn().map_err(Failed::before)?;
                let dropped = leftovers::drop_index(conn, name).await;
                // It is there as it was, or gone: of itself the statement has done nothing yet.
                dropped
                    .map_err(|error| Failed { error: given(&error, statement), has_run: true })?;
            }
            let text = instead.as_deref().unwrap_or(&statement.text);
            let statement = Statement { text: text.to_owned(), line: statement.line };
            self.run(&mut bare, &statement).await
        };
        let changed = changed.await.map_err(|failed| Failed {
            error: watcher.explain(failed.error),
            has_run: failed.has_run,
        });
        drop(watcher);
        let rows = match changed {
            Ok(rows) => rows,
            // Whether it was done is found out by whoever comes next.
            Err(Failed { error: error @ Error::Unknown(_), .. }) => return Err(error),
            Err(Failed { error, has_run }) => {
                // The server has said that it was not done, so there is nothing to be found out but what it left.
                let has_left =
                    before_left || has_run && self.has_left(&mut bare, statement, kind).await;
                let mark = if has_left { Mark::InPart } else { Mark::None };
                if let Ok(bare) = self.marked(bare, at, &mark).await {
                    bare.close().await;
                }
                return Err(hints::explain(self.postgres, error, statement, self.file).await);
            }
        };
        self.notes.extend(leftovers.iter().map(|name| leftovers::dropped(name)));
        if let Alone::BuildsIndex(index) = kind
            && !matches!(leftovers::index(bare.conn()?, index).await?, Some(IndexState::Valid))
        {
            let message = "the index was built and is not valid";
            return Err(located(
                Error::failed(FailureClass::Refused, message),
                statement,
                self.file,
            ));
        }
        Ok((rows, self.marked(bare, at, &Mark::Done(rows)).await?))
    }

    /// Whether a statement that ran and failed may have left something: an index that is not valid, a partition that is half detached,
    /// what a procedure committed before.
    async fn has_left(&self, bare: &mut Bare<'_>, statement: &Statement, kind: &Alone) -> bool {
        let Ok(conn) = bare.conn() else { return true };
        match kind {
            Alone::Opaque => runs_code(&statement.text),
            Alone::DropsIndex(name) => leftovers::is_invalid(conn, name).await.unwrap_or(true),
            Alone::Reindexes(Some(what)) => {
                leftovers::rebuilt(conn, what).await.map_or(true, |left| !left.is_empty())
            }
            Alone::BuildsIndex(index) => !matches!(
                leftovers::index(conn, index).await,
                Ok(None | Some(IndexState::Absent | IndexState::Valid))
            ),
            Alone::Detaches { parent, partition } => !matches!(
                leftovers::partition(conn, parent, partition).await,
                Ok(None | Some(false))
            ),
            _ => false,
        }
    }

    /// What the catalogue says is to be done for a statement.
    async fn look(
        &self,
        bare: &mut Bare<'_>,
        statement: &Statement,
        (kind, was_begun): (&Alone, bool),
    ) -> Result<Plan, Error> {
        let run = |leftovers| Plan::Run { leftovers, instead: None };
        Ok(match kind {
            Alone::BuildsIndex(index) => match leftovers::index(bare.conn()?, index).await? {
                None => return Err(unnamed()),
                Some(IndexState::Building(pid)) => {
                    return Err(leftovers::building(index.name.as_deref().unwrap_or(""), pid));
                }
                Some(IndexState::Valid) if was_begun => Plan::IsDone,
                Some(IndexState::Invalid(name)) => run(vec![name]),
                Some(IndexState::Valid | IndexState::Absent) => run(Vec::new()),
            },
            Alone::DropsIndex(name) if was_begun || self.work.way == Way::Back => {
                if leftovers::is_there(bare.conn()?, name).await? {
                    run(Vec::new())
                } else {
                    Plan::IsDone
                }
            }
            Alone::Reindexes(Some(what)) => run(leftovers::rebuilt(bare.conn()?, what).await?),
            Alone::Detaches { parent, partition } => {
                match leftovers::partition(bare.conn()?, parent, partition).await? {
                    None if was_begun => Plan::IsDone,
                    Some(true) => Plan::Run {
                        leftovers: Vec::new(),
                        instead: Some(format!(
                            "ALTER TABLE {parent} DETACH PARTITION {partition} FINALIZE"
                        )),
                    },
                    None | Some(false) => run(Vec::new()),
                }
            }
            Alone::Opaque if was_begun => return Err(undecided(statement)),
            _ => run(Vec::new()),
        })
    }

    /// Runs a text outside any transaction. An answer that did not come is [`Error::Unknown`].
    async fn run(&self, bare: &mut Bare<'_>, statement: &Statement) -> Result<u64, Failed> {
        let conn = bare.conn().map_err(Failed::before)?;
        let done = sqlx::query(AssertSqlSafe(statement.text.clone()))
            .persistent(false)
            .execute(conn)
            .await;
        done.map(|done| done.rows_affected()).map_err(|error| Failed {
            error: given(&error, statement),
            has_run: !is_refused_unrun(&error),
        })
    }

    /// Writes a statement's mark under the fence, in the session that runs it.
    async fn marked<'b>(&self, bare: Bare<'b>, at: usize, mark: &Mark) -> Result<Bare<'b>, Error> {
        let mut tx = bare.begin(self.fence, TxKind::Execute, None).await?;
        match write_mark(&mut tx, self.fence, self.work, (at, mark)).await {
            Ok(()) => tx.commit_bare().await,
            Err(error) => Err(tx.give_up(error).await),
        }
    }
}

/// A statement that failed.
struct Failed {
    error: Error,
    /// Whether any of it may have run.
    has_run: bool,
}

impl Failed {
    const fn before(error: Error) -> Self {
        Self { error, has_run: false }
    }
}

/// What is to be done for a statement.
enum Plan {
    /// Nothing: it was done, and only the mark was lost.
    IsDone,
    /// It is run, or what ends it, after indexes that it left behind before were dropped.
    Run { leftovers: Vec<String>, instead: Option<String> },
}

/// An error of a statement outside a transaction.
fn given(error: &sqlx::Error, statement: &Statement) -> Error {
    if is_lost(error) { unknown(error) } else { super::script::at_statement(error, statement) }
}

fn located(error: Error, statement: &Statement, file: Option<&str>) -> Error {
    hints::located(error, statement, file)
}

fn control() -> Error {
    Error::failed(FailureClass::Refused, "a step begins and ends its transactions by itself")
        .with_help("remove the statement; `transaction: none` commits after each statement")
}

fn unnamed() -> Error {
    Error::failed(FailureClass::Refused, "an index that is built concurrently needs a name")
        .with_help("name it, so that a run which goes on can tell whether it is there")
}

fn undecided(statement: &Statement) -> Error {
    Error::Ambiguous(format!(
        "the connection was lost while the statement of line {} ran ({}), and nothing in the database tells whether it was done",
        statement.line,
        super::wait::shown(&statement.text),
    ))
}

async fn without_lock_timeout(tx: &mut Tx<'_>) -> Result<(), Error> {
    let set = sqlx::query("SET LOCAL lock_timeout = 0").execute(tx.conn()?).await;
    set.map(|_| ()).map_err(failed("prepare the connection"))
}

/// Rolls back, and goes on in the same session.
async fn rolled_back(tx: Tx<'_>) -> Result<Bare<'_>, Error> {
    tx.give_up_bare().await.ok_or_else(|| {
        Error::failed(FailureClass::Unreachable, "the connection broke before anything was done")
    })
}

fn mark_name(work: &Work, at: usize) -> String {
    format!("{}/statement/{}", work.step, at + 1)
}

async fn mark(bare: &mut Bare<'_>, fence: &Fence, work: &Work, at: usize) -> Result<Mark, Error> {
    let sql = format!(
        "SELECT rows, detail FROM {} WHERE run_id = $1 AND step = $2 AND way = $3",
        bare.ours("steps")
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(fence.run().as_str())
        .bind(mark_name(work, at))
        .bind(way_name(work.way))
        .fetch_optional(bare.conn()?)
        .await
        .map_err(failed("read the ledger"))?;
    let Some(row) = row else { return Ok(Mark::None) };
    let rows = row.try_get(0).map_err(failed("read the ledger"))?;
    let detail: Option<String> = row.try_get(1).map_err(failed("read the ledger"))?;
    Ok(match (detail.as_deref(), detail.as_deref().and_then(session_in)) {
        (said, Some(session)) => {
            let is_again = said.is_some_and(|said| said.ends_with(AGAIN));
            Mark::Begun { session, is_again }
        }
        (Some(IN_PART), None) => Mark::InPart,
        (_, None) => Mark::Done(unsigned(rows)?),
    })
}

/// How the detail of a mark begins of what was begun and isn't known to have ended.
pub(super) const BEGUN: &str = "begun in session ";

/// How it ends where an attempt before had failed and left something.
pub(super) const AGAIN: &str = ", after an attempt that has left something";

/// The detail of a mark of what failed and has left something.
pub(super) const IN_PART: &str = "failed, and has left something";

/// The session that a mark names.
pub(super) fn session_in(detail: &str) -> Option<SessionId> {
    let named = detail.strip_prefix(BEGUN)?;
    let (pid, began) = named.strip_suffix(AGAIN).unwrap_or(named).split_once(" of ")?;
    Some(SessionId { pid: pid.parse().ok()?, began: began.to_owned() })
}

async fn write_mark(
    tx: &mut Tx<'_>,
    fence: &Fence,
    work: &Work,
    (at, mark): (usize, &Mark),
) -> Result<(), Error> {
    let (rows, detail) = match mark {
        Mark::None => return remove_mark(tx, fence, work, at).await,
        Mark::Begun { session, is_again } => {
            let again = if *is_again { AGAIN } else { "" };
            (0, Some(format!("{BEGUN}{} of {}{again}", session.pid, session.began)))
        }
        Mark::Done(rows) => (*rows, None),
        Mark::InPart => (0, Some(IN_PART.to_owned())),
    };
    let sql = format!(
        "INSERT INTO {} (run_id, step, way, rows, detail, token, head_version, committed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp())
         ON CONFLICT (run_id, step, way) DO UPDATE SET rows = excluded.rows, detail = excluded.detail,
            token = excluded.token, head_version = excluded.head_version, committed_at = excluded.committed_at",
        tx.ours("steps")
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(fence.run().as_str())
        .bind(mark_name(work, at))
        .bind(way_name(work.way))
        .bind(signed(rows))
        .bind(detail)
        .bind(signed(fence.token()))
        .bind(signed(work.head.version))
        .execute(tx.conn()?)
        .await
        .map(|_| ())
        .map_err(failed("mark the statement in the ledger"))
}

async fn remove_mark(tx: &mut Tx<'_>, fence: &Fence, work: &Work, at: usize) -> Result<(), Error> {
    let steps = tx.ours("steps");
    let sql = format!("DELETE FROM {steps} WHERE run_id = $1 AND step = $2 AND way = $3");
    sqlx::query(AssertSqlSafe(sql))
        .bind(fence.run().as_str())
        .bind(mark_name(work, at))
        .bind(way_name(work.way))
        .execute(tx.conn()?)
        .await
        .map(|_| ())
        .map_err(failed("mark the statement in the ledger"))
}

/// Whether statements of a step are marked.
pub(super) async fn has_marks(
    tx: &mut Tx<'_>,
    fence: &Fence,
    work: &Work,
    way: Way,
) -> Result<bool, Error> {
    let steps = tx.ours("steps");
    let sql = format!(
        "SELECT EXISTS (SELECT FROM {steps} WHERE run_id = $1 AND starts_with(step, $2) AND way = $3)"
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(fence.run().as_str())
        .bind(format!("{}/statement/", work.step))
        .bind(way_name(way))
        .fetch_one(tx.conn()?)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("read the ledger"))
}

/// Removes a step's marks: going forward those of this way, going back all.
async fn forget_marks(tx: &mut Tx<'_>, fence: &Fence, work: &Work) -> Result<(), Error> {
    let steps = tx.ours("steps");
    let sql = format!(
        "DELETE FROM {steps} WHERE run_id = $1 AND starts_with(step, $2) AND (way = $3 OR $3 = 'back')"
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(fence.run().as_str())
        .bind(format!("{}/statement/", work.step))
        .bind(way_name(work.way))
        .execute(tx.conn()?)
        .await
        .map(|_| ())
        .map_err(failed("enter the step in the ledger"))
}

/// Ends the sessions in which statements of this step were begun and not seen to end, and waits until they are gone: what
/// they were doing must be over before the catalogue is asked what came of it.
pub(super) async fn end_begun(
    bare: &mut Bare<'_>,
    fence: &Fence,
    work: &Work,
) -> Result<(), Error> {
    let steps = bare.ours("steps");
    let sql = format!(
        "SELECT detail FROM {steps} WHERE run_id = $1 AND starts_with(step, $2) AND detail IS NOT NULL"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(fence.run().as_str())
        .bind(format!("{}/statement/", work.step))
        .fetch_all(bare.conn()?)
        .await
        .map_err(failed("read the ledger"))?;
    for row in rows {
        let detail: String = row.try_get(0).map_err(failed("read the ledger"))?;
        if let Some(session) = session_in(&detail) {
            end(bare, &session).await?;
        }
    }
    Ok(())
}

async fn end(bare: &mut Bare<'_>, session: &SessionId) -> Result<(), Error> {
    let watch = Stopwatch::start();
    while leftovers::is_alive(bare.conn()?, session).await? {
        if watch.elapsed_ms() > STATEMENT_GONE_WITHIN_MS {
            let message = format!("session {} of an earlier attempt has not ended", session.pid);
            return Err(Error::failed(FailureClass::Contention, message)
                .with_help("it is being ended; look at it in pg_stat_activity"));
        }
        leftovers::end_session(bare.conn()?, session).await?;
        tokio::time::sleep(GONE_LOOK_EVERY).await;
    }
    Ok(())
}

#[cfg(test)]
#[path = "statements_tests.rs"]
mod tests;
