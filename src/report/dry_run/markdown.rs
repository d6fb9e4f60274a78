//! A dry run as Markdown, for the comment of a pull request or a job's summary: a table, and details folded away.
//!
//! Whatever comes from a plan or a database stands in a code span or a fenced block whose fence is longer than any run of
//! backticks in it, or is escaped: it can't make links, images or headings.

use std::fmt::Write as _;

use crate::bounds::message::PAGE_CHARS_MAX;
use crate::diagnostic::Severity;
use crate::report::words::visible;

use super::{Depth, DryRun, Look, Noted, StatementOutlook, StepOutlook, UndoKind};

pub(super) fn render(run: &DryRun) -> String {
    let mut text = format!("### Dry run: {}\n\n", escaped(&run.headline()));
    // A plan with errors is never taken to a database.
    let what = match (run.depth, &run.plan) {
        (Depth::Render, _) | (_, None) => "no database was asked",
        (Depth::Probe, Some(_)) => "databases were read, nothing was changed",
    };
    let digest = run.digest.as_deref().and_then(|digest| digest.get(..12)).unwrap_or("?");
    let _ = writeln!(
        text,
        "{} · environment {} · digest {} · {what}\n",
        code(&run.file),
        code(&run.environment),
        code(digest),
    );
    let _ = writeln!(text, "**{}**\n", escaped(&run.verdict()));
    text.push_str(&problems(run));
    text.push_str(&overview(run));
    let details: String = run.steps.iter().map(details).chain(looks(run)).collect();
    if text.len() + details.len() <= PAGE_CHARS_MAX {
        text.push_str(&details);
    } else {
        text.push_str("_The details are too long for a comment: `--format human` shows them._\n");
    }
    text
}

fn problems(run: &DryRun) -> String {
    let mut text = String::new();
    for target in &run.targets {
        let Some(error) = &target.error else { continue };
        let _ = writeln!(text, "- ❌ {}", escaped(&error.message));
        for line in error.causes.iter().chain(&error.help) {
            let _ = writeln!(text, "  - {}", escaped(line));
        }
    }
    for found in &run.findings {
        text.push_str(&finding(found));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn finding(found: &Noted) -> String {
    let diagnostic = &found.diagnostic;
    let sign = match diagnostic.severity {
        Severity::Error => "❌",
        Severity::Warning => "⚠️",
    };
    let place = diagnostic.location.as_ref().map(|at| format!("{}:{}", at.file, at.line));
    let place = place.map_or(String::new(), |place| format!(" ({})", code(&place)));
    let help = diagnostic.help.as_ref().map_or(String::new(), |help| {
        if help.contains('\n') || is_statement(help) {
            fenced(help, "  ")
        } else {
            format!("  {}\n", escaped(help))
        }
    });
    format!(
        "- {sign} {} {}{place}\n{help}",
        code(diagnostic.code.as_str()),
        escaped(&diagnostic.message)
    )
}

/// Whether a help is a statement to be run, which begins with a word in capitals, and no sentence.
fn is_statement(help: &str) -> bool {
    let first = help.split_whitespace().next().unwrap_or_default();
    first.len() > 2 && first.bytes().all(|byte| byte.is_ascii_uppercase())
}

fn overview(run: &DryRun) -> String {
    if run.steps.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "| wave | step | phase | does | locks | danger | undo |\n|---|---|---|---|---|---|---|\n",
    );
    for step in &run.steps {
        let point = run.point_of_no_return.as_ref() == Some(&step.id);
        let point = if point { " **point of no return**" } else { "" };
        let mut locks: Vec<String> = step
            .all_locks()
            .map(|lock| format!("{}: {}, {}", code(&lock.object), lock.mode, lock.work))
            .collect();
        locks.dedup();
        let _ = writeln!(
            text,
            "| {} | {}{point} | {} | {} | {} | {} | {} |",
            step.wave,
            code(&step.id),
            step.phase,
            escaped(&step.place()),
            locks.join("<br>").replace('|', "\\|"),
            step.danger.says().map_or(String::new(), |danger| escaped(&danger)),
            undo(step),
        );
    }
    text.push('\n');
    text
}

const fn undo(step: &StepOutlook) -> &'static str {
    match step.undo.kind {
        UndoKind::Nothing => "nothing to undo",
        UndoKind::Statements => "statements",
        UndoKind::Derived => "by the engine",
        UndoKind::Impossible => "**impossible**",
    }
}

fn details(step: &StepOutlook) -> String {
    let mut text = format!(
        "<details><summary>{} (line {})</summary>\n\n",
        html(&format!("{}: {}", step.id, step.place())),
        step.line
    );
    if let Some(description) = &step.description {
        let _ = writeln!(text, "{}\n", escaped(description));
    }
    for does in &step.does {
        let _ = writeln!(text, "- {}", escaped(does));
    }
    for lock in &step.locks {
        let words = format!("{} ({}); {}: {}", lock.mode, lock.waiting, lock.work, lock.reason);
        let _ = writeln!(text, "- locks {}: {}", code(&lock.object), escaped(&words));
    }
    for statement in &step.statements {
        text.push_str(&of_statement(statement));
    }
    if let Some(gate) = &step.gate {
        let _ = writeln!(text, "- lets go {}", code(&gate.releases.join(", ")));
        for one in &gate.conditions {
            let policy = if one.from_policy { " (from policy)" } else { "" };
            let words = format!("{}: {}{policy}", one.condition, one.needed);
            let _ = writeln!(text, "- needs {}", escaped(&words));
        }
    } else {
        let _ = writeln!(text, "\nUndo: {}\n", escaped(&step.undo.says));
        step.undo.statements.iter().for_each(|one| text.push_str(&of_statement(one)));
    }
    text.push_str("\n</details>\n\n");
    text
}

fn of_statement(statement: &StatementOutlook) -> String {
    let place = match &statement.file {
        Some(file) => format!("{}:{}", file, statement.line),
        None => format!("line {}", statement.line),
    };
    let mut text = format!("\n{}\n{}", escaped(&place), fenced(&statement.text, ""));
    if let Some(danger) = statement.danger.says() {
        let _ = writeln!(text, "- {}", escaped(&danger));
    }
    for lock in &statement.locks {
        let words = format!("{} ({}); {}: {}", lock.mode, lock.waiting, lock.work, lock.reason);
        let _ = writeln!(text, "- locks {}: {}", code(&lock.object), escaped(&words));
    }
    text
}

fn looks(run: &DryRun) -> impl Iterator<Item = String> {
    run.targets.iter().filter_map(|target| Some(of_look(&target.name, target.look.as_ref()?)))
}

fn of_look(name: &str, look: &Look) -> String {
    let title = html(&format!("target {name}: {}", look.server));
    let mut text = format!("<details><summary>{title}</summary>\n\n{}\n\n", code(&look.identity));
    if !look.tables.is_empty() {
        text.push_str("| table | rows | size | indexes | owner |\n|---|---|---:|---:|---|\n");
        for row in &look.tables {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                code(&row.table).replace('|', "\\|"),
                escaped(&row.rows),
                row.size,
                row.indexes,
                escaped(&row.owner)
            );
        }
        text.push('\n');
    }
    for line in &look.lines {
        let _ = writeln!(text, "- **{}**: {}", escaped(&line.topic), escaped(&line.text));
    }
    text.push_str("\n</details>\n\n");
    text
}

/// A code span that holds whatever it is given.
fn code(text: &str) -> String {
    let fence = "`".repeat(longest_run(text) + 1);
    let text = visible(text).replace('\n', " ");
    let blank = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{blank}{text}{blank}{fence}")
}

fn fenced(text: &str, indent: &str) -> String {
    let fence = "`".repeat(longest_run(text).max(2) + 1);
    let mut block = format!(
        "{indent}{fence}sql
"
    );
    for line in visible(text).lines() {
        let _ = writeln!(block, "{indent}{line}");
    }
    let _ = writeln!(block, "{indent}{fence}");
    block
}

fn longest_run(text: &str) -> usize {
    let mut runs = text.split(|c| c != '`').map(str::len);
    runs.next().into_iter().chain(runs).max().unwrap_or(0)
}

/// Prose in which nothing means anything to Markdown or HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in html(text).chars() {
        if "\\`*_[]#|!~@".contains(c) {
            out.push('\\');
        }
        out.push(if c == '\n' { ' ' } else { c });
    }
    out
}

fn html(text: &str) -> String {
    visible(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
