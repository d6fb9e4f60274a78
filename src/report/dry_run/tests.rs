//! Every form holds what it must, and nothing in a plan or a database can break out of it.

use super::*;
use crate::diagnostic::{Location, known as codes};
use crate::report::Colour;

/// What somebody might write into a name, a message or a statement to be taken for something else.
const HOSTILE: &str = "x` | <img src=y> ](z) **b**\n::error::mine\r\n%0A]]></failure>\u{1b}[31m";

fn lock(object: &str) -> LockOutlook {
    LockOutlook {
        object: object.into(),
        mode: "ACCESS EXCLUSIVE".into(),
        waiting: "reads and writes wait".into(),
        rewrite: "none",
        work: "changes the catalogue only".into(),
        reason: "a rename takes it".into(),
    }
}

fn step(id: &str, wave: usize) -> StepOutlook {
    StepOutlook {
        id: id.into(),
        phase: "contract",
        action: "retire",
        target: Some("app".into()),
        line: 12,
        wave,
        needs: Vec::new(),
        description: None,
        does: vec!["renames leads to leads_old".into()],
        statements: Vec::new(),
        locks: vec![lock("leads"), lock("leads_v2")],
        danger: Danger { kind: DangerKind::None, reason: None },
        irreversible: None,
        undo: UndoOutlook {
            kind: UndoKind::Derived,
            says: "renames back".into(),
            statements: vec![],
        },
        gate: None,
        behind: Vec::new(),
    }
}

fn noted(diagnostic: Diagnostic, step: Option<&str>) -> Noted {
    let location = Location { file: "p,l:n.yaml".into(), line: 12, column: 1, length: 0 };
    Noted { diagnostic: diagnostic.at(location), step: step.map(Into::into), target: None }
}

fn sample() -> DryRun {
    let mut drop = step("drop", 2);
    drop.irreversible = Some("it is over".into());
    drop.danger = Danger { kind: DangerKind::Destructive, reason: Some(HOSTILE.into()) };
    drop.statements = vec![StatementOutlook {
        text: format!("DROP TABLE leads -- ```{HOSTILE}"),
        file: Some("down.sql".into()),
        line: 3,
        danger: Danger { kind: DangerKind::Unknown, reason: Some("DO".into()) },
        outside_transaction: Some("CONCURRENTLY".into()),
        locks: vec![lock("leads")],
    }];
    let row = TableRow {
        table: HOSTILE.into(),
        rows: "7 (counted)".into(),
        size: "1 KiB".into(),
        indexes: "2 KiB".into(),
        owner: "ann".into(),
    };
    let look = Look {
        server: "PostgreSQL 15".into(),
        identity: "app of 7 as ann".into(),
        took_ms: 3,
        tables: vec![row],
        lines: vec![Line { topic: "session".into(), text: HOSTILE.into() }],
        facts: Map::new(),
    };
    let failed = TargetError {
        message: "target other: refused".into(),
        causes: vec![HOSTILE.into()],
        help: vec!["start it".into()],
    };
    let target = |name: &str, look, error| TargetOutlook {
        name: name.into(),
        engine: "PostgreSQL".into(),
        url: "${env:URL}".into(),
        look,
        error,
    };
    DryRun {
        file: "p,l:n.yaml".into(),
        plan: Some("leads".into()),
        digest: Some("0123456789abcdef".into()),
        environment: "default".into(),
        depth: Depth::Probe,
        steps: vec![step("retire", 1), step("other", 1), drop],
        waves: vec![vec!["retire".into(), "other".into()], vec!["drop".into()]],
        point_of_no_return: Some("drop".into()),
        targets: vec![target("app", Some(look), None), target("other", None, Some(failed))],
        findings: vec![
            noted(Diagnostic::error(codes::NO_TABLE, HOSTILE).with_help(HOSTILE), Some("retire")),
            noted(Diagnostic::warning(codes::LONG_LOCK, "leads is locked"), Some("retire")),
            noted(Diagnostic::error(codes::NO_URL, "of the plan"), None),
        ],
        sources: Vec::new(),
    }
}

#[test]
fn people_read_waves_the_point_of_no_return_and_what_was_found() {
    let text = sample().human(Colour::Off);
    let order = [
        "wave 1, at the same time",
        "  retire  contract, retire on app, line 12",
        "locks   leads, leads_v2: ACCESS EXCLUSIVE (reads and writes wait); changes the catalogue",
        "wave 2",
        "==== point of no return ====",
        "  drop  contract",
        "from    down.sql",
        "target app: PostgreSQL 15",
        "target other: not seen",
        "D201",
        "could not be looked at: other, 2 errors, 1 warning",
    ];
    let mut rest = text.as_str();
    for part in order {
        let (_, after) = rest
            .split_once(part)
            .unwrap_or_else(|| panic!("{part} is not where it should be:\n{text}"));
        rest = after;
    }
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(sample().human(Colour::On).contains('\u{1b}'));
}

#[test]
fn each_workflow_command_is_one_line_and_nothing_adds_another() {
    let text = sample().github();
    assert!(text.lines().all(|line| line.starts_with("::")), "{text}");
    let of = |kind: &str| text.lines().filter(|line| line.starts_with(kind)).count();
    assert_eq!((of("::error "), of("::warning "), of("::notice ")), (3, 1, 2), "{text}");
    let first = text.lines().next().unwrap();
    assert!(
        first.starts_with("::error file=p%2Cl%3An.yaml,line=12,title=D201 a table isn't there::x`"),
        "{first}"
    );
    assert!(first.contains("%0Ahelp: ") && first.contains("%250A"), "{first}");
}

#[test]
fn junit_has_a_case_for_each_step_and_target_with_errors_as_failures() {
    let text = sample().junit();
    assert!(text.contains("tests=\"6\" failures=\"2\" errors=\"1\""), "{text}");
    assert!(text.contains("<failure message=\"x`") && text.contains("type=\"D201\""), "{text}");
    assert!(text.contains("help: ") && text.contains("P418"), "{text}");
    let closing = text.matches("</failure>").count();
    assert_eq!(closing, 2, "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn markdown_can_not_be_broken_out_of() {
    let text = sample().markdown();
    // Prose is escaped; what stands in code is taken as it is.
    let prose: Vec<&str> = text.lines().filter(|line| line.starts_with("- ")).collect();
    assert!(prose.len() >= 5, "{text}");
    for line in prose {
        assert!(!line.contains("<img") && !line.contains(" ](z)"), "{line}");
    }
    assert!(text.contains("| ``x` \\| <img src=y>"), "{text}");
    assert!(text.contains("````"), "the fence is longer than the one in the statement: {text}");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| 1 |")).collect();
    assert_eq!(rows.len(), 2, "{text}");
    assert!(text.contains("| 2 | `drop` **point of no return** | contract |"), "{text}");
    assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
    let unescaped = |line: &str| {
        line.char_indices().filter(|(at, c)| *c == '|' && !line[..*at].ends_with('\\')).count()
    };
    for line in text.lines().filter(|line| line.starts_with("| ") && line.contains("contract")) {
        assert_eq!(unescaped(line), 8, "{line}");
    }
}

#[test]
fn details_that_are_too_long_for_a_comment_are_left_out_and_that_is_said() {
    let mut run = sample();
    run.steps[0].does = vec!["word ".repeat(20_000)];
    let text = run.markdown();
    assert!(text.len() < 65_536 && text.contains("too long for a comment"), "{}", text.len());
}

#[test]
fn a_file_that_is_no_plan_says_so_in_every_form() {
    let mut run = sample();
    run.plan = None;
    run.steps.clear();
    run.waves.clear();
    run.targets.clear();
    run.findings.truncate(1);
    assert_eq!(run.headline(), "p,l:n.yaml is no valid plan");
    assert!(run.human(Colour::Off).contains("1 error"));
    assert!(run.junit().contains("failures=\"1\""));
    assert!(run.github().starts_with("::error "));
    assert!(run.markdown().contains("`D201`"));
}

#[test]
fn the_document_says_everything_under_names_that_stay() {
    let document = sample().document();
    assert_eq!(document["point_of_no_return"], "drop");
    assert_eq!(document["steps"][2]["statements"][0]["danger"]["kind"], "unknown");
    assert_eq!(document["steps"][0]["locks"][0]["rewrite"], "none");
    assert_eq!(document["findings"][0]["code"], "D201");
    assert_eq!(document["findings"][0]["step"], "retire");
    assert_eq!(document["targets"][0]["look"]["server"], "PostgreSQL 15");
    assert_eq!(document["depth"], "probe");
}

#[test]
fn markdown_fences_statements_and_leaves_sentences_alone() {
    let helped = |help: &str| {
        let mut run = sample();
        let mut diagnostic = Diagnostic::warning(codes::DEPENDENTS, "a message".to_owned());
        diagnostic.help = Some(help.to_owned());
        run.findings = vec![noted(diagnostic, None)];
        run.markdown()
    };
    let said = helped("retire advances it; without retire do so before");
    assert!(said.contains("\n  retire advances it; without retire do so before\n"), "{said}");
    let said = helped("GRANT SELECT ON leads TO app");
    assert!(said.contains("```sql\n  GRANT SELECT ON leads TO app\n"), "{said}");
}

#[test]
fn no_database_is_said_to_be_read_for_a_plan_that_was_none() {
    let mut run = sample();
    run.depth = Depth::Probe;
    assert!(run.markdown().contains("databases were read"));
    run.plan = None;
    assert!(run.markdown().contains("no database was asked"), "{}", run.markdown());
}
