//! How far other databases are behind: conditions that a relay fulfils.
//!
//! Absent on purpose: whether a relay is at work. What it would have to carry is what counts, and who holds its lease may have stopped.

use std::collections::BTreeMap;

use super::super::name::TargetName;
use super::super::words::{duration, plural};
use super::asked::{lag_needed, rows_needed};
use super::{Condition, ConditionKind, ConditionVerdict, Observations};

/// Changes of one database that others lack, parked ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// How many; about, where not all were counted.
    pub rows: u64,
    /// Whether not all were counted.
    pub is_more: bool,
    /// How long ago the oldest was written, in milliseconds; none where there is none.
    pub oldest_ms: Option<u64>,
}

/// Whether no change waits for longer than it may.
pub(super) fn lag(max_ms: u64, seen: &Observations) -> Condition {
    let condition = Condition::new(ConditionKind::RelayLag, lag_needed(max_ms));
    judged(condition, seen, |all| all.oldest_ms.is_none_or(|oldest| oldest <= max_ms))
}

/// Whether no more changes wait than may.
pub(super) fn rows(max: u64, seen: &Observations) -> Condition {
    let condition = Condition::new(ConditionKind::RelayRows, rows_needed(max));
    judged(condition, seen, |all| all.rows <= max)
}

fn judged(condition: Condition, seen: &Observations, holds: impl Fn(&Behind) -> bool) -> Condition {
    let Some(known) = &seen.behind else {
        return condition.judged(ConditionVerdict::Unknown, "not looked at yet");
    };
    if known.is_empty() {
        return condition.judged(ConditionVerdict::Pass, "nothing is captured");
    }
    match together(known) {
        Err(why) => condition.judged(ConditionVerdict::Unknown, why),
        Ok(all) => {
            let verdict = if holds(&all) { ConditionVerdict::Pass } else { ConditionVerdict::Fail };
            condition.judged(verdict, words(&all))
        }
    }
}

/// What is behind in all databases; or why that isn't known of one.
fn together(known: &BTreeMap<TargetName, Result<Behind, String>>) -> Result<Behind, String> {
    let mut all = Behind::default();
    for (target, one) in known {
        let one =
            one.as_ref().map_err(|why| format!("what waits in {target} is not known: {why}"))?;
        all.rows = all.rows.saturating_add(one.rows);
        all.is_more |= one.is_more;
        all.oldest_ms = all.oldest_ms.max(one.oldest_ms);
    }
    Ok(all)
}

fn words(all: &Behind) -> String {
    if all.rows == 0 {
        return "nothing waits".to_owned();
    }
    let about = if all.is_more { "about " } else { "" };
    let verb = if all.rows == 1 { "waits" } else { "wait" };
    let oldest = match all.oldest_ms {
        Some(ms) if all.rows == 1 => format!(", for {}", duration(ms)),
        Some(ms) => format!(", the oldest for {}", duration(ms)),
        None => String::new(),
    };
    format!("{about}{} {verb}{oldest}", plural(all.rows, "change"))
}
