//! A dry run as GitHub's workflow commands: each finding beside its line of the plan.
//!
//! The form is that of <https://docs.github.com/actions/reference/workflow-commands-for-github-actions>. A message may have line
//! breaks, as `%0A`; whatever else could end a command or a parameter is escaped, so that nothing in a plan or a database
//! can give a command of its own.

use crate::diagnostic::Severity;
use crate::report::words::visible;

use super::{DangerKind, DryRun, Noted};

pub(super) fn render(run: &DryRun) -> String {
    let mut text = String::new();
    for found in &run.findings {
        text.push_str(&of_finding(run, found));
    }
    for target in &run.targets {
        let Some(error) = &target.error else { continue };
        let lines = std::iter::once(&error.message).chain(&error.causes).chain(&error.help);
        let message: Vec<&str> = lines.map(String::as_str).collect();
        let title = format!("target {} could not be looked at", target.name);
        text.push_str(&command("error", &run.file, (1, &title), &message.join("\n")));
    }
    for step in &run.steps {
        if step.danger.kind == DangerKind::Destructive || step.irreversible.is_some() {
            let title = match &run.point_of_no_return {
                Some(point) if *point == step.id => format!("point of no return: {}", step.id),
                _ => format!("destructive: {}", step.id),
            };
            let why = step.danger.says().or_else(|| step.irreversible.clone()).unwrap_or_default();
            text.push_str(&command("notice", &run.file, (step.line, &title), &why));
        }
    }
    let title = run.headline();
    text.push_str(&command("notice", &run.file, (1, &title), &run.verdict()));
    text
}

fn of_finding(run: &DryRun, found: &Noted) -> String {
    let diagnostic = &found.diagnostic;
    let kind = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let (file, line) = diagnostic
        .location
        .as_ref()
        .map_or((run.file.as_str(), 1), |location| (&*location.file, location.line));
    let title = format!("{} {}", diagnostic.code, diagnostic.code.title());
    let help = diagnostic.help.as_ref().map_or(String::new(), |help| format!("\nhelp: {help}"));
    command(kind, file, (line, &title), &format!("{}{help}", diagnostic.message))
}

fn command(kind: &str, file: &str, (line, title): (u32, &str), message: &str) -> String {
    format!(
        "::{kind} file={},line={line},title={}::{}\n",
        parameter(file.trim_start_matches("./")),
        parameter(title),
        data(message)
    )
}

fn data(text: &str) -> String {
    visible(text).replace('%', "%25").replace('\n', "%0A")
}

fn parameter(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
