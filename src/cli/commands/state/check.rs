//! `state check`: the whole store is read, and each run is judged by itself.

use serde_json::{Value, json};

use crate::cli::answer::{Answer, Failure};
use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::cli::trouble;
use crate::cli::wiring;
use crate::report::{Colour, Tone, words};
use crate::store::FlawKind;
use crate::store::check::{Checked, Report, check};

pub async fn perform(session: &Session) -> Result<Answer, Failure> {
    let settings = session.settings_for_run()?;
    let mut archive = wiring::open_archive(settings.state.as_ref().map_err(Clone::clone)?).await?;
    let location = archive.location();
    let report =
        check(archive.as_mut()).await.map_err(|error| trouble::opening(&error, &location))?;
    let help = help(&report, &settings.program);
    let mut human = human(&report, session.printer.result_colour());
    for line in &help {
        human.push_str(line);
        human.push('\n');
    }
    let exit = if report.is_whole() { Exit::Done } else { Exit::Damaged };
    let runs = report.runs.iter().map(document).collect();
    Ok(Answer::done(human)
        .exiting(exit)
        .with("store", json!({ "location": report.location, "identity": report.identity }))
        .with("database", json!({ "ok": report.database.is_empty(), "findings": report.database }))
        .with("runs", Value::Array(runs))
        .with("leases", json!(report.leases))
        .with("help", json!(help)))
}

fn human(report: &Report, colour: Colour) -> String {
    let line = |is_good: bool, sentence: &str| {
        let (word, tone) = if is_good { ("ok:", Tone::Good) } else { ("WRONG:", Tone::Bad) };
        format!("{} {}\n", colour.paint(tone, word), words::visible(sentence))
    };
    let identity = report.identity.as_deref().unwrap_or("unknown");
    let mut text = format!("State store {} (identity {identity})\n", report.location);
    if report.database.is_empty() {
        text += &line(true, "the database can be read, and finds nothing wrong with itself");
    }
    for finding in &report.database {
        text += &line(false, finding);
    }
    for run in &report.runs {
        if run.is_whole() {
            let over = if run.ended { ", over" } else { "" };
            let records = words::plural(run.records as u64, "record");
            text += &line(true, &format!("{}: {records}{over}", name(run)));
        }
        if let Some(flaw) = &run.flaw {
            text += &line(false, &flaw.sentence(&run.run));
        }
        for lease in &run.leases {
            text += &line(false, lease);
        }
    }
    for lease in &report.leases {
        text += &line(false, lease);
    }
    if report.runs.is_empty() && report.is_whole() {
        text += "There are no runs.\n";
    }
    text
}

fn name(run: &Checked) -> String {
    match &run.of {
        Some((plan, environment)) => {
            format!("run {} of {plan} in environment {environment}", run.run)
        }
        None => format!("run {}", run.run),
    }
}

/// What to do next; nothing where all is well.
fn help(report: &Report, program: &str) -> Vec<String> {
    if report.is_whole() {
        return Vec::new();
    }
    if report.is_only_newer() {
        return vec![
            "Nothing was changed. Use the version of phasegate that wrote it, or a newer one; runs that are ok go on with this one."
                .to_owned(),
        ];
    }
    let mut help = Vec::new();
    let whole: Vec<&str> =
        report.runs.iter().filter(|run| run.flaw.is_none()).map(|run| run.run.as_str()).collect();
    let is_damaged = report.runs.iter().any(|run| run.flaw.is_some());
    if is_damaged || !report.database.is_empty() {
        help.push(
            "Nothing was changed. Bring the state store back from a backup, and keep the damaged one."
                .to_owned(),
        );
        if !whole.is_empty() {
            help.push(format!(
                "`{program} state export {} --out FILE` saves the runs whose journals hold; `state import FILE` takes them into another store.",
                whole.join(" ")
            ));
        }
        if is_damaged && report.database.is_empty() {
            help.push("Runs that are ok go on as before.".to_owned());
        }
    } else {
        help.push(
            "The journals hold. A lease that can't be keeps others from its run at most until it lapses; check the clock of this machine."
                .to_owned(),
        );
    }
    help
}

fn document(run: &Checked) -> Value {
    let (plan, environment) = run.of.clone().unzip();
    json!({
        "run": run.run,
        "plan": plan,
        "environment": environment,
        "records": run.records,
        "ended": run.ended,
        "ok": run.is_whole(),
        "flaw": run.flaw.as_ref().map(|flaw| json!({
            "record": flaw.version,
            "kind": match flaw.kind { FlawKind::Damaged => "damaged", FlawKind::Newer => "newer" },
            "text": flaw.sentence(&run.run),
        })),
        "leases": run.leases,
    })
}
