//! Commands that need no database, as text and as documents.

use super::tool::Tool;

#[test]
fn the_version_is_one_line_or_one_document() {
    let tool = Tool::new();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(tool.run(&["version"]).code(0).out, format!("phasegate {version}\n"));
    assert_eq!(tool.run(&["--version"]).code(0).out, format!("phasegate {version}\n"));
    let document = tool.run(&["version", "--format", "json"]).code(0).document();
    assert_eq!(document["version"], version);
    assert_eq!(document["command"], "version");
}

#[test]
fn a_missing_state_store_is_unreachable_and_is_not_made_by_looking() {
    let tool = Tool::new();
    for command in ["status", "gates", "history", "pause"] {
        let ended = tool.run(&[command, "leads"]).code(69);
        assert_eq!(ended.out, "");
        assert!(ended.err.contains("--state"), "{}", ended.err);
    }
    let document = tool.run(&["status", "--format", "json"]).code(69).document();
    assert_eq!(document["exit"]["reason"], "unreachable");
    assert!(!tool.path().join(".phasegate").exists());
}

#[test]
fn a_damaged_state_store_is_said_to_be_damaged() {
    let tool = Tool::new();
    tool.file("state.db", &"not a database, but long enough to look like one. ".repeat(100));
    let ended = tool.run(&["status", "--state", "state.db"]).code(65);
    assert!(ended.err.contains("state.db"), "{}", ended.err);
}

#[test]
fn a_password_in_the_state_store_s_url_is_shown_nowhere() {
    let tool = Tool::new();
    let url = "postgres://me:hunter2@127.0.0.1:1/x?connect_timeout=1";
    for format in ["human", "json"] {
        for log_format in ["text", "json"] {
            let words =
                ["status", "-vvv", "--log-format", log_format, "--state", url, "--format", format];
            let ended = tool.run(&words).code(69);
            assert!(!ended.out.contains("hunter2"), "{}", ended.out);
            assert!(!ended.err.contains("hunter2"), "{}", ended.err);
        }
    }
}

#[test]
fn codes_are_explained() {
    let tool = Tool::new();
    let all = tool.run(&["explain", "--format", "json"]).code(0).document();
    let codes = all["codes"].as_array().unwrap();
    assert!(codes.len() > 20, "{all:#}");
    let first = codes[0]["code"].as_str().unwrap();
    let page = tool.run(&["explain", &first.to_lowercase()]).code(0);
    assert!(page.out.contains(first), "{}", page.out);
    let unknown = tool.run(&["explain", "P1O1"]).code(64);
    assert!(unknown.err.contains("did you mean P1"), "{}", unknown.err);
}
