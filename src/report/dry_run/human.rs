//! A dry run for people: wave by wave, then the databases, then what was found.

use std::fmt::Write as _;

use crate::diagnostic::{self, Diagnostic, Style};
use crate::report::layout::{WIDTH, labelled};
use crate::report::paint::{Colour, Tone};
use crate::report::table::{Alignment, Table};
use crate::report::words::visible;

use super::{
    DangerKind, Depth, DryRun, GateOutlook, LockOutlook, Look, StatementOutlook, StepOutlook,
    TargetOutlook, UndoKind,
};

pub(super) fn render(run: &DryRun, colour: Colour) -> String {
    let mut text = heading(run, colour);
    for (at, wave) in run.waves.iter().enumerate() {
        text.push('\n');
        let together = if wave.len() > 1 { ", at the same time" } else { "" };
        text.push_str(&colour.paint(Tone::Strong, &format!("wave {}{together}", at + 1)));
        text.push('\n');
        for step in run.steps.iter().filter(|step| step.wave == at + 1) {
            if run.point_of_no_return.as_ref() == Some(&step.id) {
                text.push_str(&rule("point of no return", colour));
            }
            text.push_str(&of_step(step, colour));
        }
    }
    for target in &run.targets {
        text.push_str(&of_target(target, colour));
    }
    text.push('\n');
    let style = match colour {
        Colour::On => Style::Colour,
        Colour::Off => Style::Plain,
    };
    let found: Vec<_> = run.findings.iter().map(|one| shown(&one.diagnostic)).collect();
    text.push_str(&diagnostic::render_all(&found, &run.sources, style));
    text.push_str(&ending(run, colour));
    text
}

/// A finding whose words can't move the cursor: they may come from a database.
fn shown(found: &Diagnostic) -> Diagnostic {
    let mut found = found.clone();
    found.message = visible(&found.message);
    found.help = found.help.as_deref().map(visible);
    found
}

fn heading(run: &DryRun, colour: Colour) -> String {
    let Some(plan) = &run.plan else { return String::new() };
    let what = match run.depth {
        Depth::Render => "no database was asked",
        Depth::Probe => "databases were read and nothing was changed",
    };
    let digest = run.digest.as_deref().and_then(|digest| digest.get(..12)).unwrap_or("?");
    let first = format!("Dry run of plan {plan} from {}", visible(&run.file));
    format!(
        "{}\nenvironment {}, digest {digest}; {what}\n{}\n",
        colour.paint(Tone::Strong, &first),
        visible(&run.environment),
        visible(&run.headline()),
    )
}

fn ending(run: &DryRun, colour: Colour) -> String {
    let is_bad = run.count(diagnostic::Severity::Error) > 0
        || run.targets.iter().any(|target| target.error.is_some());
    let tone = match (is_bad, run.findings.is_empty()) {
        (true, _) => Tone::Bad,
        (false, false) => Tone::Warn,
        (false, true) => Tone::Good,
    };
    format!("{}\n", colour.paint(tone, &visible(&run.verdict())))
}

fn rule(words: &str, colour: Colour) -> String {
    let line = format!("  ==== {words} {}", "=".repeat(WIDTH - words.len() - 8));
    format!("{}\n", colour.paint(Tone::Bad, &line))
}

fn of_step(step: &StepOutlook, colour: Colour) -> String {
    let mut text = format!(
        "  {}  {}, {}, line {}\n",
        colour.paint(Tone::Strong, &visible(&step.id)),
        step.phase,
        visible(&step.place()),
        step.line
    );
    if let Some(description) = &step.description {
        text.push_str(&labelled("    ", &visible(description)));
    }
    let mut say = |label: &str, words: &str, tone: Tone| {
        text.push_str(&colour.paint(tone, &labelled(&format!("    {label:<7} "), &visible(words))));
    };
    if step.statements.is_empty()
        && let Some(danger) = step.danger.says()
    {
        say("danger", &danger, tone_of(step.danger.kind));
    }
    for (at, does) in step.does.iter().enumerate() {
        say(if at == 0 { "does" } else { "" }, does, Tone::Plain);
    }
    text.push_str(&of_statements(&step.statements, colour));
    text.push_str(&of_locks(&step.locks, "    "));
    if let Some(gate) = &step.gate {
        text.push_str(&of_gate(gate));
    } else {
        text.push_str(&of_undo(step, colour));
    }
    text
}

const fn tone_of(kind: DangerKind) -> Tone {
    match kind {
        DangerKind::None | DangerKind::Reviewed => Tone::Plain,
        DangerKind::Destructive => Tone::Bad,
        DangerKind::Unknown => Tone::Warn,
    }
}

/// Statements, with the file that they are from in front of the first of it.
fn of_statements(statements: &[StatementOutlook], colour: Colour) -> String {
    let mut text = String::new();
    let mut known: Option<&str> = None;
    for statement in statements {
        if statement.file.as_deref() != known
            && let Some(file) = &statement.file
        {
            text.push_str(&labelled("    from    ", &visible(file)));
        }
        known = statement.file.as_deref();
        text.push_str(&of_statement(statement, colour));
    }
    text
}

/// A statement with its line in front, as an editor shows it.
fn of_statement(statement: &StatementOutlook, colour: Colour) -> String {
    let mut text = labelled(&format!("{:>10}  ", statement.line), &visible(&statement.text));
    let margin = " ".repeat(12);
    if let Some(danger) = statement.danger.says() {
        let line = labelled(&margin, &visible(&danger));
        text.push_str(&colour.paint(tone_of(statement.danger.kind), &line));
    }
    if let Some(why) = &statement.outside_transaction {
        let words = format!("runs outside a transaction: {why}");
        text.push_str(&labelled(&margin, &visible(&words)));
    }
    text.push_str(&of_locks(&statement.locks, &margin));
    text
}

/// Locks, those that are alike in one line.
fn of_locks(locks: &[LockOutlook], margin: &str) -> String {
    let mut said: Vec<(String, Vec<&str>)> = Vec::new();
    for lock in locks {
        let words = format!("{} ({}); {}", lock.mode, lock.waiting, work(lock));
        match said.iter_mut().find(|(known, _)| *known == words) {
            Some((_, objects)) => objects.push(&lock.object),
            None => said.push((words, vec![&lock.object])),
        }
    }
    let lines = said.iter().map(|(words, objects)| {
        let words = format!("{}: {words}", objects.join(", "));
        labelled(&format!("{margin}locks   "), &visible(&words))
    });
    lines.collect()
}

/// What happens to the rows, and why; said once where the reason says the same.
fn work(lock: &LockOutlook) -> String {
    if lock.rewrite == "none" && lock.reason.starts_with("only the catalogue changes") {
        return lock.reason.clone();
    }
    if lock.rewrite == "index_build" && lock.reason == "the index is built from every row" {
        return lock.work.clone();
    }
    format!("{}: {}", lock.work, lock.reason)
}

fn of_gate(gate: &GateOutlook) -> String {
    let mut text = labelled("    lets go ", &visible(&gate.releases.join(", ")));
    for (at, condition) in gate.conditions.iter().enumerate() {
        let label = if at == 0 { "    asks    " } else { "            " };
        let policy = if condition.from_policy { " (from policy)" } else { "" };
        let words = format!("{}: {}{policy}", condition.condition, condition.needed);
        text.push_str(&labelled(label, &visible(&words)));
    }
    if let Some(length) = &gate.approvals_expire_after {
        text.push_str(&labelled("            ", &format!("an approval counts for {length}")));
    }
    text
}

fn of_undo(step: &StepOutlook, colour: Colour) -> String {
    let undo = &step.undo;
    let tone = if undo.kind == UndoKind::Impossible { Tone::Bad } else { Tone::Plain };
    let mut text = colour.paint(tone, &labelled("    undo    ", &visible(&undo.says)));
    text.push_str(&of_statements(&undo.statements, colour));
    text
}

fn of_target(target: &TargetOutlook, colour: Colour) -> String {
    let mut text = String::new();
    let name = colour.paint(Tone::Strong, &format!("target {}", visible(&target.name)));
    if let Some(error) = &target.error {
        let _ = writeln!(text, "\n{name}: {}", colour.paint(Tone::Bad, "not seen"));
        text.push_str(&labelled("  error   ", &visible(&error.message)));
        for cause in &error.causes {
            text.push_str(&labelled("  cause   ", &visible(cause)));
        }
        for help in &error.help {
            text.push_str(&labelled("  help    ", &visible(help)));
        }
    }
    if let Some(look) = &target.look {
        let words = format!("{}, {}; looked at in {} ms", look.server, look.identity, look.took_ms);
        let label = format!("target {}", visible(&target.name));
        let laid = labelled(&format!("{label}: "), &visible(&words));
        text.push('\n');
        text.push_str(&laid.replacen(&label, &name, 1));
        text.push_str(&of_look(look, colour));
    }
    text
}

fn of_look(look: &Look, colour: Colour) -> String {
    let mut text = String::new();
    if !look.tables.is_empty() {
        let (left, right) = (Alignment::Left, Alignment::Right);
        let columns =
            [("table", left), ("size", right), ("indexes", right), ("owner", left), ("rows", left)];
        let mut table = Table::new(colour, &columns);
        for row in &look.tables {
            let cell = |words: &str| (words.to_owned(), Tone::Plain);
            table.row(&[
                cell(&row.table),
                cell(&row.size),
                cell(&row.indexes),
                cell(&row.owner),
                cell(&row.rows),
            ]);
        }
        text.push_str(&table.render());
    }
    let width = look.lines.iter().map(|line| line.topic.chars().count()).max().unwrap_or(0).min(24);
    for line in &look.lines {
        let label = format!("  {:<width$}  ", visible(&line.topic));
        text.push_str(&labelled(&label, &visible(&line.text)));
    }
    text
}
