//! A dry run as JUnit XML: one test case for each step, each database and the plan itself; errors are failures with code and
//! help, warnings are output, since JUnit knows no warnings.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::diagnostic::Severity;

use super::{DryRun, Noted, StepOutlook};

pub(super) fn render(run: &DryRun) -> String {
    let mut report = Report::new("phasegate dry-run");
    let mut suite = TestSuite::new(run.plan.clone().unwrap_or_else(|| run.file.clone()));
    suite.add_property(("environment", run.environment.as_str()));
    suite.add_property(("headline", run.headline().as_str()));
    let of_plan: Vec<&Noted> = run
        .findings
        .iter()
        .filter(|one| !run.steps.iter().any(|step| one.step.as_ref() == Some(&step.id)))
        .collect();
    let mut whole = case("the plan as a whole", &of_plan);
    whole.set_classname("plan");
    suite.add_test_case(whole);
    for step in &run.steps {
        let found: Vec<&Noted> = run.of_step(&step.id).collect();
        let mut case = case(&step.id, &found);
        case.set_classname(step.phase);
        case.add_property(("action", step.place().as_str()));
        case.add_property(("line", step.line.to_string().as_str()));
        if let Some(danger) = says(step) {
            case.add_property(("danger", danger.as_str()));
        }
        suite.add_test_case(case);
    }
    for target in &run.targets {
        let status = match &target.error {
            None => TestCaseStatus::success(),
            Some(error) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                let lines = error.causes.iter().chain(&error.help);
                let lines: Vec<&str> = lines.map(String::as_str).collect();
                status.set_message(error.message.as_str()).set_description(lines.join("\n"));
                status
            }
        };
        let mut case = TestCase::new(format!("target {}", target.name), status);
        case.set_classname("target");
        suite.add_test_case(case);
    }
    report.add_test_suite(suite);
    // Writing to a String fails only where a name can't be XML, which `XmlString` has seen to.
    report.to_string().unwrap_or_default()
}

/// What a step may destroy, and that it can't be undone.
fn says(step: &StepOutlook) -> Option<String> {
    let irreversible = step.irreversible.as_ref().map(|why| format!("can't be undone: {why}"));
    let parts: Vec<String> = step.danger.says().into_iter().chain(irreversible).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn case(name: &str, found: &[&Noted]) -> TestCase {
    let of = |severity: Severity| -> Vec<&Noted> {
        found.iter().copied().filter(|one| one.diagnostic.severity == severity).collect()
    };
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let status = match errors.first() {
        None => TestCaseStatus::success(),
        Some(first) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let codes: Vec<&str> = errors.iter().map(|one| one.diagnostic.code.as_str()).collect();
            status
                .set_type(codes.join(" "))
                .set_message(first.diagnostic.message.as_str())
                .set_description(all(&errors));
            status
        }
    };
    let mut case = TestCase::new(name, status);
    if !warnings.is_empty() {
        case.set_system_out(all(&warnings));
    }
    case
}

fn all(found: &[&Noted]) -> String {
    let each = found.iter().map(|one| {
        let help = one.diagnostic.help.as_ref();
        let help = help.map_or(String::new(), |help| format!("\nhelp: {help}"));
        format!("{}{help}", one.diagnostic)
    });
    each.collect::<Vec<_>>().join("\n\n")
}
