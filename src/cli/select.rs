//! Which run is meant: by id, by a unique beginning of it, or by its plan's name.

use crate::run::{EnvironmentName, RunId};
use crate::store::RunHeader;

use super::answer::Failure;
use super::suggest;

/// The run that was typed. `runs` are newest first. A plan's name means its newest unfinished run, else its newest; in
/// `environment`, where one is known.
pub fn choose(
    runs: &[RunHeader],
    typed: &str,
    environment: Option<&EnvironmentName>,
) -> Result<RunId, Failure> {
    if let Some(run) = runs.iter().find(|run| run.run.as_str() == typed) {
        return Ok(run.run.clone());
    }
    if let Some(run) = newest(runs, typed, environment) {
        return Ok(run.run.clone());
    }
    let begins: Vec<&RunHeader> =
        runs.iter().filter(|run| run.run.as_str().starts_with(typed)).collect();
    match begins.as_slice() {
        [run] => Ok(run.run.clone()),
        [] => Err(unknown(runs, typed)),
        several => {
            let ids: Vec<&str> = several.iter().map(|run| run.run.as_str()).collect();
            Err(Failure::usage(format!("{typed} is the beginning of several runs"))
                .help(format!("type more of one: {}", ids.join(", "))))
        }
    }
}

/// A plan's newest unfinished run, else its newest.
#[must_use]
pub fn newest<'a>(
    runs: &'a [RunHeader],
    plan: &str,
    environment: Option<&EnvironmentName>,
) -> Option<&'a RunHeader> {
    let of_plan = || {
        runs.iter().filter(|run| {
            run.plan == plan && environment.is_none_or(|wanted| run.environment == *wanted)
        })
    };
    of_plan().find(|run| !run.ended).or_else(|| of_plan().next())
}

fn unknown(runs: &[RunHeader], typed: &str) -> Failure {
    let failure = Failure::usage(format!("no run is called {typed}"));
    if runs.is_empty() {
        return failure.help("this state store has no runs yet; `phasegate run PLAN` starts one");
    }
    let mut names: Vec<&str> = runs.iter().map(|run| run.plan.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    failure.help(suggest::help(typed, &names))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::cli::exit::Exit;
    use crate::run::Timestamp;

    fn header(id: &str, plan: &str, environment: &str, ended: bool) -> RunHeader {
        RunHeader {
            run: RunId::new(id),
            plan: plan.to_owned(),
            environment: environment.into(),
            started_at: Timestamp::default(),
            ended,
        }
    }

    fn runs() -> Vec<RunHeader> {
        vec![
            header("0199-c1", "leads", "staging", true),
            header("0199-b2", "leads", "staging", false),
            header("0199-a3", "leads", "production", true),
            header("0188-d4", "orders", "staging", true),
        ]
    }

    #[test]
    fn a_name_means_the_newest_unfinished_run_then_the_newest() {
        let table = [
            ("leads", None, "0199-b2"),
            ("leads", Some("production"), "0199-a3"),
            ("orders", None, "0188-d4"),
            ("0199-c1", Some("production"), "0199-c1"),
            ("0188", None, "0188-d4"),
        ];
        for (typed, environment, expected) in table {
            let environment = environment.map(EnvironmentName::new);
            let chosen = choose(&runs(), typed, environment.as_ref()).unwrap();
            assert_eq!(chosen.as_str(), expected, "{typed} {environment:?}");
        }
    }

    #[test]
    fn what_names_several_runs_or_none_is_a_usage_error_that_helps() {
        let several = choose(&runs(), "0199", None).unwrap_err();
        assert_eq!(several.exit, Exit::Usage);
        assert!(several.help[0].contains("0199-a3"), "{:?}", several.help);
        let none = choose(&runs(), "lead", None).unwrap_err();
        assert_eq!(none.help, ["did you mean leads?"]);
        assert!(choose(&[], "lead", None).unwrap_err().help[0].contains("no runs yet"));
    }
}
