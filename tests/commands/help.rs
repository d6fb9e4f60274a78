//! Help, and the pages that repeat it.

use std::fs;
use std::path::{Path, PathBuf};

use phasegate::cli::exit::Exit;

use super::tool::Tool;

const COMMANDS: [&str; 26] = [
    "validate", "graph", "dry-run", "run", "advance", "pause", "resume", "retry", "abort",
    "rollback", "amend", "tune", "resolve", "relay", "gates", "approve", "reject", "revoke",
    "status", "history", "events", "lock", "state", "schema", "explain", "version",
];

/// Those of a command that has commands of its own, which stand behind it.
const OF_LOCK: [&str; 2] = ["lock list", "lock release"];
const OF_STATE: [&str; 4] = ["state check", "state export", "state import", "state adopt"];

fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

const GLOBAL: &str = "\nGlobal options:";

/// The help of the program and of each command, as `docs/commands.md` has it: the options that all share stand there once.
fn reference() -> String {
    let tool = Tool::new();
    let mut text = String::new();
    let commands = COMMANDS.iter().flat_map(|command| {
        let own: &[&str] = match *command {
            "state" => &OF_STATE,
            "lock" => &OF_LOCK,
            _ => &[],
        };
        std::iter::once(command).chain(own)
    });
    for command in [""].iter().chain(commands) {
        let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let help = tool.run(&words).code(0);
        assert_eq!(help.err, "", "help is a result");
        let (own, _global) =
            help.out.split_once(GLOBAL).expect("every command has the global options");
        let shown = if command.is_empty() { &help.out } else { own };
        let title = if command.is_empty() { "phasegate" } else { command };
        let section = format!("## {title}\n\n```text\n{}\n```\n\n", shown.trim_end());
        text.push_str(&section);
    }
    format!("{}\n", text.trim_end())
}

/// With `PHASEGATE_BLESS=1` the page is written anew instead.
#[test]
fn the_page_of_commands_repeats_the_help() {
    let path = page("commands.md");
    let text = fs::read_to_string(&path).unwrap();
    let at = text.find("## phasegate").unwrap_or(text.len());
    let (before, written) = text.split_at(at);
    let reference = reference();
    if std::env::var_os("PHASEGATE_BLESS").is_some() {
        fs::write(&path, format!("{}\n\n{reference}", before.trim_end())).unwrap();
        return;
    }
    assert_eq!(
        written, reference,
        "run the tests once with PHASEGATE_BLESS=1, and read the change"
    );
}

#[test]
fn the_program_lists_exactly_these_commands() {
    let help = Tool::new().run(&["--help"]).code(0).out;
    let listed: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(listed, COMMANDS);
}

#[test]
fn the_page_of_exit_codes_has_each_code_with_its_reason() {
    let text = fs::read_to_string(page("exit-codes.md")).unwrap();
    let rows: Vec<(u8, String)> = text
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let code = cells.next()?.parse().ok()?;
            Some((code, cells.next()?.trim_matches('`').to_owned()))
        })
        .collect();
    let known: Vec<(u8, String)> =
        Exit::ALL.iter().map(|exit| (exit.code(), exit.reason().to_owned())).collect();
    assert_eq!(rows, known);
}

#[test]
fn what_makes_no_sense_answers_64_on_stderr() {
    let tool = Tool::new();
    let lines: [&[&str]; 6] = [
        &[],
        &["frobnicate"],
        &["run"],
        &["status", "--nonsense"],
        &["run", "plan.yaml", "--wait", "soon"],
        &["version", "--format", "mermaid"],
    ];
    for words in lines {
        let ended = tool.run(words).code(64);
        assert_eq!(ended.out, "", "{words:?}");
        assert!(!ended.err.is_empty(), "{words:?}");
    }
}

#[test]
fn what_makes_no_sense_is_a_document_too() {
    let ended = Tool::new().run(&["run", "--format", "json"]).code(64);
    let document = ended.document();
    assert_eq!(document["exit"]["reason"], "usage");
    assert!(document["error"]["message"].is_string(), "{document:#}");
    assert_eq!(ended.err, "");
}
