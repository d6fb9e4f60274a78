//! The statements of a step, each in the transaction that it needs.
//!
//! Statements that change data are in one transaction with the step's entry in the ledger. Those that change indexes and constraints
//! are in one of their own, since the server refuses both in one, and what commits by itself is in none. Around these the ledger has
//! marks, which are entries called `<step>/part/<n>`:
//! - Before a change of schema it has the names that there were, and which transaction it is made in. Where the answer was lost, or we
//!   died, the names that there are now tell whether it was done: all of it or nothing, as the transaction is one.
//! - What commits by itself, part after part, is marked as begun and as done. What was begun and isn't known to have ended is
//!   [`Error::Ambiguous`]: nothing tells how far it came, and an operator says what came of it, which [`answered`] enters in the
//!   mark. What failed keeps a mark, as what it had committed stays.
//!
//! Indexes that a step makes are waited for until they are online; those of others are not looked at.

use std::collections::BTreeSet;

use neo4rs::query;
use serde::{Deserialize, Serialize};

use super::connection::{Alone, Ask as _, Reader, Tx};
use super::error::{at_statement, damaged, failed, is_lost, unknown};
use super::ledger::{PREFIX, await_index, forget, get, record, way_name};
use super::{Neo4j, answered, claim};
use crate::bounds::neo4j::ONLINE_WITHIN_S;
use crate::driver::{Applied, Error, Fence, TxKind, Work};
use crate::run::{FailureClass, Script, Statement, StepId, Way, is_transient};
use crate::sql::cypher::{SchemaChange, Section, quoted, schema_change, section};

/// Statements that go together.
struct Part<'a> {
    kind: Section,
    statements: Vec<&'a Statement>,
}

/// Statements in the order of the script, those together that may be. What only reads goes with what stands before it.
fn parts(script: &Script) -> Vec<Part<'_>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    for statement in &script.statements {
        let kind = section(&statement.text);
        match parts.last_mut() {
            Some(last)
                if last.kind != Section::ByItself
                    && (kind == last.kind || kind == Section::Reads) =>
            {
                last.statements.push(statement);
            }
            Some(last) if last.kind == Section::Reads && kind != Section::ByItself => {
                last.kind = kind;
                last.statements.push(statement);
            }
            _ => parts.push(Part { kind, statements: vec![statement] }),
        }
    }
    parts
}

/// The statements of a part, by its number.
pub(super) fn statements_of(script: &Script, number: usize) -> Vec<&Statement> {
    parts(script).into_iter().nth(number).map_or_else(Vec::new, |part| part.statements)
}

/// How the names begin of a step's marks.
pub(super) fn begin_of(step: &StepId) -> String {
    format!("{step}/part/")
}

/// Runs a script, unless the ledger has it.
pub(super) async fn run(
    neo4j: &Neo4j,
    fence: &Fence,
    work: &Work,
    script: &Script,
) -> Result<Applied, Error> {
    answered::settle(neo4j, fence, work).await?;
    let step = work.step.as_str();
    let begins = begin_of(&work.step);
    if let Some(before) = neo4j.done_before(fence, work).await? {
        return Ok(before);
    }
    let was_done =
        work.way == Way::Forward || neo4j.done(fence, (step, Way::Forward)).await?.is_some();
    let mut tx = neo4j.connections.begin(fence, TxKind::Execute).await?;
    if work.is_told_done() && !has_marks(&mut tx, fence, (&begins, work.way)).await? {
        tx.roll_back().await;
        return Err(work.unmarked());
    }
    if !was_done && !has_marks(&mut tx, fence, (&begins, Way::Forward)).await? {
        let detail = Some("it had not been done, so there was nothing to undo".to_owned());
        let applied = record(&mut tx, fence, (step, work), (0, detail)).await?;
        tx.commit().await?;
        return Ok(applied);
    }
    let parts = parts(script);
    if let [Part { kind: Section::Data | Section::Reads, statements }] = parts.as_slice() {
        let rows = in_transaction(&mut tx, statements).await?;
        let applied = record(&mut tx, fence, (step, work), (rows, None)).await?;
        tx.commit().await?;
        return Ok(applied);
    }
    tx.roll_back().await;
    let mut rows = 0;
    for (at, part) in parts.iter().enumerate() {
        let one = One { neo4j, fence, work, name: format!("{begins}{at}") };
        rows += match part.kind {
            Section::Data | Section::Reads => one.data(&part.statements).await?,
            Section::Schema => one.schema(&part.statements).await?,
            Section::ByItself => one.by_itself(part.statements.first().copied()).await?,
        };
    }
    let mut tx = neo4j.connections.begin(fence, TxKind::Execute).await?;
    forget(&mut tx, fence, (&begins, work.way)).await?;
    let applied = record(&mut tx, fence, (step, work), (rows, None)).await?;
    tx.commit().await?;
    Ok(applied)
}

async fn has_marks(
    tx: &mut Tx<'_>,
    fence: &Fence,
    (begins, way): (&str, Way),
) -> Result<bool, Error> {
    let ask = query(
        "MATCH (s:phasegate_steps {run_id: $run, way: $way}) WHERE s.step STARTS WITH $begins RETURN 1 AS one LIMIT 1",
    )
    .param("run", fence.run().as_str())
    .param("way", way_name(way))
    .param("begins", begins);
    Ok(!tx.rows(ask).await.map_err(failed("read the ledger"))?.is_empty())
}

async fn in_transaction(tx: &mut Tx<'_>, statements: &[&Statement]) -> Result<u64, Error> {
    let mut rows = 0;
    for statement in statements {
        rows += tx.run(query(&statement.text)).await.map_err(|e| at_statement(&e, statement))?;
    }
    Ok(rows)
}

/// What the mark of something that commits by itself says in its detail when it is begun.
pub(super) const BEGUN: &str = "begun";
/// And when the server has said that it failed: parts of it may be committed, so that there may be something to undo, and it may be
/// tried again.
pub(super) const IN_PART: &str = "in part";
/// What that of a change of schema says when an operator has said that it was done: what it made may not be online yet.
pub(super) const TOLD_DONE: &str = "told done";

/// What that of a change of schema says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Begun {
    /// The indexes and constraints before it.
    before: Names,
    /// The transaction that it is made in.
    pub(super) transaction: String,
}

/// Changes indexes and constraints for a step, under a name in the ledger, and waits until they are online.
pub(super) async fn change_schema(
    neo4j: &Neo4j,
    (fence, work): (&Fence, &Work),
    name: String,
    texts: &[String],
) -> Result<(), Error> {
    answered::settle(neo4j, fence, work).await?;
    let statement = |text: &String| Statement { text: text.clone(), line: 1 };
    let statements: Vec<Statement> = texts.iter().map(statement).collect();
    let one = One { neo4j, fence, work, name };
    one.schema(&statements.iter().collect::<Vec<_>>()).await.map(|_| ())
}

/// A part of a step, by its name in the ledger.
struct One<'a> {
    neo4j: &'a Neo4j,
    fence: &'a Fence,
    work: &'a Work,
    name: String,
}

impl One<'_> {
    async fn data(&self, statements: &[&Statement]) -> Result<u64, Error> {
        let before = self.neo4j.done(self.fence, (&self.name, self.work.way)).await?;
        // A mark with a detail is of something else that was begun here.
        if let Some(before) = before.filter(|before| before.detail.is_none()) {
            return Ok(before.rows);
        }
        let mut tx = self.neo4j.connections.begin(self.fence, TxKind::Execute).await?;
        let rows = in_transaction(&mut tx, statements).await?;
        record(&mut tx, self.fence, (&self.name, self.work), (rows, None)).await?;
        tx.commit().await?;
        Ok(rows)
    }

    /// The mark of the part: what it says, where it is begun and not done.
    async fn begun(&self) -> Result<Mark, Error> {
        let mark = self.neo4j.done(self.fence, (&self.name, self.work.way)).await?;
        Ok(match mark {
            None => Mark::None,
            Some(Applied { rows, detail: None, .. }) => Mark::Done(rows),
            Some(Applied { detail: Some(said), .. }) => Mark::Begun(said),
        })
    }

    async fn mark(&self, rows: u64, said: Option<String>) -> Result<(), Error> {
        let mut tx = self.neo4j.connections.begin(self.fence, TxKind::Execute).await?;
        record(&mut tx, self.fence, (&self.name, self.work), (rows, said)).await?;
        tx.commit().await
    }

    async fn schema(&self, statements: &[&Statement]) -> Result<u64, Error> {
        let connections = &self.neo4j.connections;
        let mark = self.begun().await?;
        let begun = match &mark {
            Mark::Begun(said) if said != TOLD_DONE => {
                let begun: Begun = serde_json::from_str(said)
                    .map_err(|_| damaged(format!("the mark {} can't be read", self.name)))?;
                // Its answer was lost, and it may still be under way: what there is tells only once it has ended.
                let own = vec![begun.transaction.clone()];
                claim::end_all(self.neo4j, (self.fence.run(), 0), own).await?;
                Some(begun)
            }
            _ => None,
        };
        let mut reader = connections.read().await?;
        let now = names(&mut reader).await?;
        reader.release();
        let (before, is_done) = match (mark, begun) {
            (Mark::Done(_), _) => return Ok(0),
            (Mark::None, _) => (now.clone(), false),
            (Mark::Begun(_), None) => (now.clone(), true),
            (Mark::Begun(_), Some(begun)) => {
                let is_done = was_done(statements, (&begun.before, &now))?;
                (if is_done { begun.before } else { now.clone() }, is_done)
            }
        };
        if !is_done {
            let mut tx = connections.begin_unfenced(TxKind::Execute).await?;
            // It holds no slot: from here on who takes over knows it, and who was taken over can't come here.
            let begun = Begun { before: now, transaction: tx.named().await? };
            let said = serde_json::to_string(&begun).map_err(|error| damaged(error.to_string()))?;
            self.mark(0, Some(said)).await?;
            let done = match in_transaction(&mut tx, statements).await {
                Ok(_) => tx.commit().await,
                Err(error) => {
                    tx.roll_back().await;
                    Err(error)
                }
            };
            if let Err(error) = done {
                // COMMIT was not sent, or was refused, so there is nothing to undo. Where the mark can't go, the next attempt tells that by
                // the names.
                if matches!(error, Error::Failed(_)) {
                    let _ = self.unmark().await;
                }
                return Err(error);
            }
        }
        let mut reader = connections.read().await?;
        for name in made(&mut reader, statements, &before.indexes).await? {
            if let Err(error) = await_index(&mut reader, &name, ONLINE_WITHIN_S).await {
                let failure = failure(&mut reader, &name).await?;
                return Err(failure.unwrap_or_else(|| failed("wait for indexes")(error)));
            }
        }
        reader.release();
        self.mark(0, None).await?;
        Ok(0)
    }

    async fn by_itself(&self, statement: Option<&Statement>) -> Result<u64, Error> {
        let Some(statement) = statement else { return Ok(0) };
        // Before the mark: where there is none to be had, nothing was sent.
        let ready = self.neo4j.connections.ready().await?;
        match self.begun().await? {
            Mark::Done(rows) => return Ok(rows),
            Mark::Begun(said) if said != IN_PART => {
                return Err(Error::Ambiguous(format!(
                    "the statement of line {} commits part after part, and the connection was lost, or we ended, while it ran: \
                     nothing tells how far it came",
                    statement.line
                )));
            }
            Mark::None | Mark::Begun(_) => self.mark(0, Some(BEGUN.to_owned())).await?,
        }
        match ready.alone(self.fence, &statement.text).await? {
            Alone::Done(rows) => {
                self.mark(rows, None).await?;
                Ok(rows)
            }
            Alone::Failed(error) if is_lost(&error) => Err(unknown(&error)),
            Alone::Failed(error) => self.in_part(at_statement(&error, statement)).await,
            Alone::InVain => self.in_part(passing(statement)).await,
        }
    }

    /// The server has said that a statement failed of which parts may be committed: there is nothing to be found out, and it isn't tried
    /// again by itself, whatever it failed for.
    async fn in_part<T>(&self, error: Error) -> Result<T, Error> {
        self.mark(0, Some(IN_PART.to_owned())).await?;
        let Error::Failed(mut failure) = error else { return Err(error) };
        if is_transient(failure.class) {
            failure.class = FailureClass::Refused;
        }
        failure.detail = Some("what it had committed before that stays".to_owned());
        failure.help.get_or_insert_with(|| "see what it wrote, then `phasegate retry`".to_owned());
        Err(Error::Failed(failure))
    }

    async fn unmark(&self) -> Result<(), Error> {
        let mut tx = self.neo4j.connections.begin(self.fence, TxKind::Execute).await?;
        forget(&mut tx, self.fence, (&self.name, self.work.way)).await?;
        tx.commit().await
    }
}

/// The error of a statement of which only that is known.
fn passing(statement: &Statement) -> Error {
    let message = "it met a deadlock, or a lock or memory that was not had in time";
    match Error::failed(FailureClass::Contention, message) {
        Error::Failed(mut failure) => {
            failure.line = Some(statement.line);
            Error::Failed(failure)
        }
        other => other,
    }
}

/// What the ledger has of a part.
enum Mark {
    None,
    Begun(String),
    Done(u64),
}

/// The names of all indexes, constraints' own included, and of all constraints, but for ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Names {
    indexes: BTreeSet<String>,
    constraints: BTreeSet<String>,
}

impl Names {
    fn has(&self, name: &str, is_constraint: bool) -> bool {
        if is_constraint { &self.constraints } else { &self.indexes }.contains(name)
    }

    /// How many there are more than before. A server that ends while it makes a constraint leaves its index behind, which is none of
    /// them.
    fn since<'a>(&'a self, before: &'a Self, is_constraint: bool) -> BTreeSet<&'a String> {
        if is_constraint {
            self.constraints.difference(&before.constraints).collect()
        } else {
            let new = self.indexes.difference(&before.indexes);
            new.filter(|name| !self.constraints.contains(*name)).collect()
        }
    }
}

pub(super) async fn names(reader: &mut Reader<'_>) -> Result<Names, Error> {
    let mut names = Names::default();
    for (text, kind) in [
        ("SHOW INDEXES YIELD name", &mut names.indexes),
        ("SHOW CONSTRAINTS YIELD name", &mut names.constraints),
    ] {
        let rows =
            reader.rows(query(text)).await.map_err(failed("list indexes and constraints"))?;
        for row in &rows {
            let name: String = get(row, "name")?;
            if !name.starts_with(PREFIX) {
                kind.insert(name);
            }
        }
    }
    Ok(names)
}

/// Which of the names that a change of schema makes or takes away there are now.
pub(super) fn changed(statements: &[&Statement], now: &Names) -> Vec<String> {
    let changes = statements.iter().filter_map(|statement| schema_change(&statement.text));
    let named = changes.filter_map(|change| Some((change.name?, change.is_constraint)));
    let told = named.map(|(name, is_constraint)| {
        let kind = if is_constraint { "constraint" } else { "index" };
        let is = if now.has(&name, is_constraint) { "is there now" } else { "is not there now" };
        format!("{kind} {name} {is}")
    });
    told.collect()
}

/// Whether a change of schema whose end nobody heard of was done, by the names from before it and those that there are now.
fn was_done(statements: &[&Statement], (before, now): (&Names, &Names)) -> Result<bool, Error> {
    if before == now {
        return Ok(false);
    }
    let changes = statements.iter().filter_map(|statement| schema_change(&statement.text));
    // What is fine where there is nothing to do may be done again.
    let changes: Vec<SchemaChange> = changes.filter(|change| !change.is_lenient).collect();
    let (mut is_done, mut is_not) = (0, 0);
    for is_constraint in [false, true] {
        let mut new = now.since(before, is_constraint);
        let mut nameless = 0;
        for change in changes.iter().filter(|change| change.is_constraint == is_constraint) {
            match &change.name {
                None => nameless += 1,
                Some(name) => {
                    new.remove(name);
                    let is = now.has(name, is_constraint) == change.makes;
                    *if is { &mut is_done } else { &mut is_not } += 1;
                }
            }
        }
        *if new.len() >= nameless { &mut is_done } else { &mut is_not } += nameless;
    }
    match (is_done, is_not) {
        (0, _) => Ok(false),
        (_, 0) => Ok(true),
        _ => Err(Error::Ambiguous(
            "indexes or constraints were changed by somebody else while we were away: some of what the step makes is there and some \
             isn't; see SHOW INDEXES and SHOW CONSTRAINTS"
                .to_owned(),
        )),
    }
}

/// The indexes that statements have made, constraints' own included, or would have, had they not been there: by what they are called,
/// or, where one of them says no name, by not having been there before.
async fn made(
    reader: &mut Reader<'_>,
    statements: &[&Statement],
    before: &BTreeSet<String>,
) -> Result<Vec<String>, Error> {
    let changes = statements.iter().filter_map(|statement| schema_change(&statement.text));
    let (named, nameless): (Vec<_>, Vec<_>) =
        changes.map(|change| change.name).partition(Option::is_some);
    let named: BTreeSet<String> = named.into_iter().flatten().collect();
    let rows = reader.rows(query("SHOW INDEXES YIELD name")).await;
    let rows = rows.map_err(failed("list indexes and constraints"))?;
    let mut made: Vec<String> =
        rows.iter().map(|row| get(row, "name")).collect::<Result<_, _>>()?;
    made.retain(|name| {
        let is_new = !nameless.is_empty() && !before.contains(name);
        !name.starts_with(PREFIX) && (named.contains(name) || is_new)
    });
    Ok(made)
}

/// Why an index could not be built, if that is so.
async fn failure(reader: &mut Reader<'_>, name: &str) -> Result<Option<Error>, Error> {
    let ask = query(
        "SHOW INDEXES YIELD name, state, failureMessage WHERE state = 'FAILED' AND name = $name RETURN failureMessage AS why",
    );
    let rows = reader.rows(ask.param("name", name)).await.map_err(failed("look at indexes"))?;
    let Some(row) = rows.first() else { return Ok(None) };
    let why: String = get(row, "why")?;
    let why = why.lines().next().unwrap_or_default().to_owned();
    let message = format!("index {name} could not be built: {why}");
    Ok(Some(
        Error::failed(FailureClass::Refused, message)
            .with_help(format!("DROP INDEX {}, then retry", quoted(name))),
    ))
}
