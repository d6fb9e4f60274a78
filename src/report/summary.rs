//! The table at the end of a drive: what each step did, how long it took, and what to try next.

use crate::bounds::message::SUMMARY_DETAIL_CHARS_MAX;
use crate::run::{State, Timestamp};

use super::advice::Advice;
use super::paint::{Colour, Tone};
use super::status;
use super::steps::{self, StepRow};
use super::table::{Alignment, Table};
use super::words;

/// The summary of a run as its driver leaves it.
#[must_use]
pub fn render(state: &State, advice: &Advice, now: Timestamp, colour: Colour) -> String {
    let rows = steps::rows(state, &[], now);
    let mut text = String::from("\n");
    text.push_str(&table(&rows, colour));
    text.push_str(&status::differences(state));
    text.push('\n');
    text.push_str(&colour.paint(advice.tone, &words::visible(&advice.sentence)));
    text.push('\n');
    let lines = advice.lines(colour);
    if !lines.is_empty() {
        text.push_str("\nWhat to try next:\n");
        text.push_str(&lines);
    }
    text
}

fn table(rows: &[StepRow], colour: Colour) -> String {
    let (left, right) = (Alignment::Left, Alignment::Right);
    let columns = [
        ("phase", left),
        ("step", left),
        ("action", left),
        ("result", left),
        ("rows", right),
        ("time", right),
        ("detail", left),
    ];
    let mut table = Table::new(colour, &columns);
    let mut last = None;
    for row in rows {
        let phase = if last == Some(row.phase) { "" } else { row.phase.as_str() };
        last = Some(row.phase);
        let time = row.took_ms.map_or_else(|| "-".to_owned(), words::duration);
        let detail = row
            .detail
            .as_deref()
            .map_or_else(String::new, |text| words::clipped(text, SUMMARY_DETAIL_CHARS_MAX));
        table.row(&[
            (phase.to_owned(), Tone::Plain),
            (row.id.to_string(), Tone::Strong),
            (row.action.to_owned(), Tone::Plain),
            (row.standing.as_str().to_owned(), row.standing.tone()),
            (row.rows_text(), Tone::Plain),
            (time, Tone::Plain),
            (detail, Tone::Dim),
        ]);
    }
    table.render()
}
