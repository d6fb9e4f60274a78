//! What an operator says came of a part of a step of which nothing in the graph tells: the marks that they are shown, and their
//! answer in the marks.
//!
//! Invariants:
//! - An answer is about what was begun before it was given. What was begun since has a newer mark, and is in doubt anew.
//! - An answer is entered under the fence, before anything else is done. Entering it once more changes nothing, so we may end anywhere.
//! - What commits part after part and was not done to its end may have left some of its parts: its mark goes on saying so, and it is
//!   undone like something that was done.

use neo4rs::{Row, query};

use super::Neo4j;
use super::connection::{Ask as _, Reader};
use super::error::failed;
use super::ledger::{get, way_name};
use super::script::{BEGUN, IN_PART, TOLD_DONE, begin_of, changed, names};
use crate::driver::ledger::signed;
use crate::driver::{Error, Fence, TxKind, Work};
use crate::run::{Marked, Resolution, RunId, Script, StepId, Way};

/// Enters an operator's answer in the mark that it is about.
pub(super) async fn settle(neo4j: &Neo4j, fence: &Fence, work: &Work) -> Result<(), Error> {
    let Some(answer) = work.resolved else { return Ok(()) };
    let (of_itself, of_schema) = match answer.outcome {
        Resolution::Applied => ("SET s.detail = null", "SET s.detail = $told"),
        Resolution::NotApplied => ("SET s.detail = $in_part", "DELETE s"),
    };
    let which = "MATCH (s:phasegate_steps {run_id: $run, way: $way}) \
         WHERE s.step STARTS WITH $begins AND s.head_version < $version AND s.detail";
    let mut tx = neo4j.connections.begin(fence, TxKind::Execute).await?;
    for text in
        [format!("{which} = $begun {of_itself}"), format!("{which} STARTS WITH '{{' {of_schema}")]
    {
        let enter = query(&text)
            .param("run", fence.run().as_str())
            .param("way", way_name(answer.way))
            .param("begins", begin_of(&work.step))
            .param("version", signed(answer.version))
            .param("begun", BEGUN)
            .param("in_part", IN_PART)
            .param("told", TOLD_DONE);
        tx.run(enter).await.map_err(failed("enter the answer in the ledger"))?;
    }
    tx.commit().await
}

/// The marks of a step's parts.
pub(super) async fn marks(
    neo4j: &Neo4j,
    (run, step): (&RunId, &StepId),
    script: Option<(Way, &Script)>,
) -> Result<Vec<Marked>, Error> {
    let mut reader = neo4j.connections.read().await?;
    let ask = query(
        "MATCH (s:phasegate_steps {run_id: $run}) WHERE s.step STARTS WITH $begins \
         RETURN substring(s.step, size($begins)) AS part, s.way AS way, s.detail AS detail, \
         toString(s.committed_at) AS at ORDER BY way DESC, size(part), part",
    )
    .param("run", run.as_str())
    .param("begins", begin_of(step));
    let rows = reader.rows(ask).await.map_err(failed("read the ledger"))?;
    let mut marks = Vec::with_capacity(rows.len());
    for row in &rows {
        marks.push(mark(&mut reader, row, script).await?);
    }
    reader.release();
    Ok(marks)
}

async fn mark(
    reader: &mut Reader<'_>,
    row: &Row,
    script: Option<(Way, &Script)>,
) -> Result<Marked, Error> {
    let (part, way): (String, String) = (get(row, "part")?, get(row, "way")?);
    let detail: Option<String> = get(row, "detail")?;
    let at: Option<String> = get(row, "at")?;
    let number = part.parse::<usize>().ok();
    let way = if way == way_name(Way::Back) { Way::Back } else { Way::Forward };
    let statements = match (script, number) {
        (Some((of, script)), Some(number)) if of == way => {
            super::script::statements_of(script, number)
        }
        _ => Vec::new(),
    };
    let mut seen = Vec::new();
    let (stands, is_open) = match detail.as_deref() {
        None | Some(TOLD_DONE) => ("done", false),
        Some(IN_PART) => ("not done to its end, and to be done again", false),
        Some(BEGUN) => {
            seen.push("it commits part after part, and nothing tells how far it came".to_owned());
            ("begun, and not seen to end", true)
        }
        Some(_) => {
            let now = names(reader).await?;
            seen.extend(changed(&statements, &now));
            ("begun, and not seen to end", true)
        }
    };
    Ok(Marked {
        way,
        part: match number {
            Some(number) => format!("part {}", number + 1),
            None => format!("its {part}"),
        },
        lines: statements.iter().map(|statement| statement.line).collect(),
        stands: stands.to_owned(),
        is_open,
        has_left: !is_open,
        at: at.unwrap_or_default(),
        seen,
    })
}

#[cfg(test)]
#[path = "answered_tests.rs"]
mod tests;
