//! `history`: who did what, and when; with `--verify`, held against the heads that the targets keep.

use serde_json::{Value, json};

use crate::bounds::store::PAGE_RECORDS;
use crate::cli::answer::{Answer, Failure};
use crate::cli::args::History;
use crate::cli::drive::Cockpit;
use crate::cli::exit::Exit;
use crate::cli::session::{OpenRun, Session};
use crate::cli::trouble;
use crate::driver::{Head, Holder};
use crate::engine;
use crate::report::{Tone, history};
use crate::run::TargetName;
use crate::store::Entry;

pub async fn perform(session: &Session, args: &History) -> Result<Answer, Failure> {
    let run = session.open(&args.run.run).await?;
    let entries = entries(&run, 0).await?;
    let colour = session.printer.result_colour();
    let mut human = history::render(&entries, colour);
    let documents: Vec<Value> = entries.iter().map(history::document).collect();
    let mut answer = Answer::done(String::new())
        .with("run", json!(run.id))
        .with("plan", json!(run.state().program().plan()))
        .with("records", Value::Array(documents));
    if args.verify {
        let proofs = prove(session, &run, &entries).await?;
        human.push('\n');
        for proof in &proofs {
            let (word, tone) = proof.verdict.shown();
            human += &colour.paint(tone, word);
            human.push(' ');
            human += &proof.sentence;
            human.push('\n');
        }
        answer.exit = proofs.iter().map(|proof| proof.verdict.exit()).max().unwrap_or(Exit::Done);
        let documents = proofs.iter().map(Proof::document).collect();
        answer = answer.with("verify", Value::Array(documents));
    }
    answer.human = human;
    Ok(answer)
}

/// All records behind a version. The store checks their chain as it reads them.
pub async fn entries(run: &OpenRun, after_version: u64) -> Result<Vec<Entry>, Failure> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = entries.last().map_or(after_version, |entry| entry.record.version);
        let page = run.desk.store.read(&run.id, after, PAGE_RECORDS).await;
        let page = page.map_err(|error| trouble::of_store(&error, &run.desk))?;
        let is_last = page.len() < PAGE_RECORDS as usize;
        entries.extend(page);
        if is_last {
            return Ok(entries);
        }
    }
}

/// What one check showed.
struct Proof {
    target: Option<TargetName>,
    verdict: ProofVerdict,
    sentence: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ProofVerdict {
    Proved,
    CannotTell,
    Unreachable,
    /// Another store has the run, and what it recorded since isn't here.
    Elsewhere,
    Broken,
}

impl ProofVerdict {
    const fn shown(self) -> (&'static str, Tone) {
        match self {
            Self::Proved => ("proved:", Tone::Good),
            Self::CannotTell | Self::Unreachable => ("can't be told:", Tone::Warn),
            Self::Elsewhere => ("elsewhere:", Tone::Warn),
            Self::Broken => ("BROKEN:", Tone::Bad),
        }
    }

    const fn exit(self) -> Exit {
        match self {
            Self::Proved | Self::CannotTell => Exit::Done,
            Self::Elsewhere => Exit::Held,
            Self::Broken => Exit::Damaged,
            Self::Unreachable => Exit::Unreachable,
        }
    }
}

impl Proof {
    fn document(&self) -> Value {
        let verdict = match self.verdict {
            ProofVerdict::Proved => "proved",
            ProofVerdict::CannotTell => "unknown",
            ProofVerdict::Unreachable => "unreachable",
            ProofVerdict::Elsewhere => "elsewhere",
            ProofVerdict::Broken => "broken",
        };
        json!({ "target": self.target, "verdict": verdict, "text": self.sentence })
    }
}

async fn prove(session: &Session, run: &OpenRun, entries: &[Entry]) -> Result<Vec<Proof>, Failure> {
    let mut proofs = vec![Proof {
        target: None,
        verdict: ProofVerdict::Proved,
        sentence: format!(
            "each of the {} records carries the hash of the one before it",
            entries.len()
        ),
    }];
    let cockpit = Cockpit::open(session, &run.desk, run.state().pin(), &run.line).await?;
    for (target, driver) in &cockpit.ctx.drivers {
        let proof = match driver.head(&run.id).await {
            Ok(head) => {
                let proof = held_against(target, head.as_ref(), entries);
                let newest = run.state().version();
                let lies_behind = head.is_some_and(|head| head.version > newest);
                if proof.verdict == ProofVerdict::Broken && lies_behind {
                    let holder = engine::driven_elsewhere(&cockpit.ctx, run.state(), target).await;
                    holder.map_or(proof, |holder| elsewhere(target, &holder))
                } else {
                    proof
                }
            }
            Err(error) => Proof {
                target: Some(target.clone()),
                verdict: ProofVerdict::Unreachable,
                sentence: format!("target {target} did not answer: {error}"),
            },
        };
        proofs.push(proof);
    }
    cockpit.close().await;
    Ok(proofs)
}

/// What another store recorded since it has the run is not missing here.
fn elsewhere(target: &TargetName, holder: &Holder) -> Proof {
    Proof {
        target: Some(target.clone()),
        verdict: ProofVerdict::Elsewhere,
        sentence: format!(
            "target {target} knows records of another state store that has the run since: {}",
            holder.store
        ),
    }
}

/// The head that a target keeps is the newest record that was durable when the target was last changed: the journal must
/// have exactly that record. What came after it in the journal has no witness in the target.
fn held_against(target: &TargetName, head: Option<&Head>, entries: &[Entry]) -> Proof {
    let of = |verdict, sentence| Proof { target: Some(target.clone()), verdict, sentence };
    let Some(head) = head else {
        return of(
            ProofVerdict::CannotTell,
            format!("target {target} keeps no head of this run: nothing was changed there"),
        );
    };
    let newest = entries.last().map_or(0, |entry| entry.record.version);
    let found = entries.iter().find(|entry| entry.record.version == head.version);
    match found {
        Some(entry) if entry.hash == head.hash => {
            let after = newest.saturating_sub(head.version);
            let rest = match after {
                0 => String::new(),
                1 => "; the record after it has no witness there".to_owned(),
                more => format!("; the {more} records after it have no witness there"),
            };
            of(
                ProofVerdict::Proved,
                format!("target {target} knows the journal up to record {}{rest}", head.version),
            )
        }
        Some(_) => of(
            ProofVerdict::Broken,
            format!("record {} is not the one that target {target} knows", head.version),
        ),
        None => of(
            ProofVerdict::Broken,
            format!(
                "target {target} knows record {}, and the journal ends at {newest}",
                head.version
            ),
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::run::{Actor, Digest, Event, Record, Timestamp};

    fn entry(version: u64) -> Entry {
        let by = Actor { name: "ana".into(), proof: crate::run::Proof::Claimed, host: "h".into() };
        let record = Record { version, at: Timestamp::default(), by, event: Event::Resumed };
        Entry { record, hash: Digest::of_bytes(&version.to_le_bytes()) }
    }

    #[test]
    fn a_head_proves_what_it_names_and_nothing_after_it() {
        let entries = [entry(1), entry(2), entry(3)];
        let head = |version: u64, of: u64| Head { version, hash: entry(of).hash };
        let table = [
            (None, ProofVerdict::CannotTell),
            (Some(head(3, 3)), ProofVerdict::Proved),
            (Some(head(2, 2)), ProofVerdict::Proved),
            (Some(head(2, 1)), ProofVerdict::Broken),
            (Some(head(4, 4)), ProofVerdict::Broken),
        ];
        for (head, verdict) in table {
            let proof = held_against(&"app".into(), head.as_ref(), &entries);
            assert!(proof.verdict == verdict, "{head:?}: {}", proof.sentence);
        }
        let proof = held_against(&"app".into(), Some(&head(1, 1)), &entries);
        assert!(proof.sentence.contains("2 records after it"), "{}", proof.sentence);
    }
}
