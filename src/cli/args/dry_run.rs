//! What is typed behind `dry-run`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::PlanArg;

/// `dry-run`.
#[derive(Clone, Debug, Args)]
pub struct DryRun {
    /// The plan.
    #[command(flatten)]
    pub plan: PlanArg,
    /// How deep to look: render or probe
    #[arg(
        long,
        value_enum,
        value_name = "DEPTH",
        default_value = "render",
        hide_possible_values = true
    )]
    pub depth: Depth,
    /// Writes the result to a file, too, as human, json, junit, markdown or github; may be repeated
    #[arg(long = "report", value_name = "KIND=FILE", value_parser = report_file)]
    pub reports: Vec<ReportFile>,
    /// Which findings end it with 3: error or warning
    #[arg(
        long,
        value_enum,
        value_name = "SEVERITY",
        default_value = "error",
        hide_possible_values = true
    )]
    pub fail_on: FailOn,
}

/// How deep a dry run looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Depth {
    /// At the plan and its files.
    Render,
    /// At the databases, too.
    Probe,
}

/// Which findings make a dry run fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Errors.
    Error,
    /// Warnings as well.
    Warning,
}

/// A file that a result is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportFile {
    /// In which form.
    pub kind: ReportKind,
    /// Where.
    pub file: PathBuf,
}

/// Forms of a result in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportKind {
    /// Text for people.
    Human,
    /// One JSON document.
    Json,
    /// JUnit XML.
    Junit,
    /// Markdown.
    Markdown,
    /// GitHub's workflow commands.
    Github,
}

fn report_file(typed: &str) -> Result<ReportFile, String> {
    let kinds = "human, json, junit, markdown or github";
    let (kind, file) = typed
        .split_once('=')
        .filter(|(_, file)| !file.is_empty())
        .ok_or_else(|| format!("write it as KIND=FILE, where KIND is {kinds}"))?;
    let kind = ReportKind::from_str(kind, false)
        .map_err(|_| format!("there is no kind {kind}: it is {kinds}"))?;
    Ok(ReportFile { kind, file: file.into() })
}
