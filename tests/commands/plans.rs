//! Commands on plans and project files, without a database.

use serde_json::Value;

use super::tool::Tool;
use crate::bad_luck::{APPROVAL, plan};

const PROJECT: &str = "\
apiVersion: phasegate/v1
kind: Project
groups:
  dba: [dee, dora]
environments:
  staging:
    state: staging.db
  strict:
    policy: { identity: os }
";

fn tool() -> Tool {
    let tool = Tool::new();
    tool.file("plan.yaml", &plan(APPROVAL));
    tool
}

#[test]
fn a_good_plan_is_said_to_be_valid() {
    let tool = tool();
    let said = tool.run(&["validate", "plan.yaml"]).code(0);
    assert!(said.out.contains("Plan customers is valid"), "{}", said.out);
    let document = tool.run(&["validate", "plan.yaml", "--format", "json"]).code(0).document();
    assert_eq!(document["plan"], "customers");
    assert_eq!(document["valid"], true);
    assert!(document["digest"].as_str().unwrap().len() == 64, "{document:#}");
    assert!(!tool.path().join(".phasegate").exists(), "looking made a state store");
}

#[test]
fn findings_are_a_result_with_places_and_help() {
    let tool = tool();
    let bad = plan(APPROVAL).replacen("phase: expand", "phase: expnd", 1);
    tool.file("plan.yaml", &bad);
    let said = tool.run(&["validate", "plan.yaml"]).code(3);
    assert!(said.out.contains("plan.yaml:") && said.out.contains("did you mean"), "{}", said.out);
    assert!(!said.out.contains('\u{1b}'), "no colour in a pipe");
    let document = tool.run(&["validate", "plan.yaml", "--format", "json"]).code(3).document();
    assert_eq!(document["valid"], false);
    let first = &document["findings"][0];
    for key in ["code", "severity", "message", "help"] {
        assert!(first[key].is_string(), "{key} in {first:#}");
    }
    for key in ["line", "column"] {
        assert!(first["location"][key].is_u64(), "{key} in {first:#}");
    }
    // The same findings stop a run, before anything is opened or made.
    let run = tool.run(&["run", "plan.yaml"]).code(3);
    assert_eq!(run.out, "");
    assert!(!tool.path().join(".phasegate").exists());
}

#[test]
fn a_plan_that_is_not_there_is_unreadable_and_no_finding() {
    let said = tool().run(&["validate", "nowhere.yaml"]).code(65);
    assert!(said.err.contains("nowhere.yaml"), "{}", said.err);
    assert_eq!(said.out, "");
}

#[test]
fn graphs_have_every_step_in_every_form() {
    let tool = tool();
    let document = tool.run(&["graph", "plan.yaml", "--format", "json"]).code(0).document();
    let ids: Vec<&str> =
        document["nodes"].as_array().unwrap().iter().map(|n| n["id"].as_str().unwrap()).collect();
    assert!(ids.len() >= 5, "{ids:?}");
    for format in ["human", "text", "mermaid", "dot"] {
        let text = tool.run(&["graph", "plan.yaml", "--format", format]).code(0).out;
        for id in &ids {
            assert!(text.contains(id), "{id} in {format}:\n{text}");
        }
    }
    let human = tool.run(&["graph", "plan.yaml"]).code(0).out;
    assert_eq!(human, tool.run(&["graph", "plan.yaml", "--format", "text"]).code(0).out);
}

#[test]
fn the_schema_is_a_result_as_it_is_and_framed_as_a_document() {
    let tool = Tool::new();
    for kind in ["plan", "project"] {
        let bare: Value = serde_json::from_str(&tool.run(&["schema", kind]).code(0).out).unwrap();
        let framed = tool.run(&["schema", kind, "--format", "json"]).code(0).document();
        assert_eq!(framed["schema"], bare);
    }
}

#[test]
fn an_environment_is_asked_for_where_any_is_defined() {
    let tool = tool();
    tool.file("phasegate.yaml", PROJECT);
    let asked = tool.run(&["validate", "plan.yaml"]).code(64);
    assert!(asked.err.contains("--env staging"), "{}", asked.err);
    tool.run(&["status"]).code(64);
    let slip = tool.run(&["validate", "plan.yaml", "--env", "stagign"]).code(64);
    assert!(slip.err.contains("did you mean staging?"), "{}", slip.err);
    let valid = tool.run(&["validate", "plan.yaml", "--env", "staging"]).code(0);
    assert!(valid.out.contains("in environment staging"), "{}", valid.out);
    // The environment says where the state store is; one that is named on the command line needs none.
    let status = tool.run(&["status", "--env", "staging"]).code(69);
    assert!(status.err.contains("staging.db"), "{}", status.err);
    tool.run(&["status", "--state", "other.db"]).code(69);
    let nowhere = Tool::new();
    nowhere.file("plan.yaml", &plan(APPROVAL));
    nowhere.run(&["validate", "plan.yaml", "--env", "staging"]).code(64);
}

/// CI checks plans for production without being trusted with production's state store.
#[test]
fn a_plan_is_checked_without_the_state_store_of_its_environment() {
    let tool = tool();
    tool.file("phasegate.yaml", &PROJECT.replace("staging.db", "\"${env:NOBODY_SETS_THIS}\""));
    tool.run(&["validate", "plan.yaml", "--env", "staging"]).code(0);
    tool.run(&["graph", "plan.yaml", "--env", "staging"]).code(0);
    for words in [&["run", "plan.yaml", "--env", "staging"][..], &["status", "--env", "staging"]] {
        let said = tool.run(words).code(64);
        assert!(said.err.contains("NOBODY_SETS_THIS"), "{}", said.err);
    }
}

#[test]
fn a_claimed_name_is_not_permitted_where_accounts_count() {
    let tool = tool();
    tool.file("phasegate.yaml", PROJECT);
    let said = tool.run(&["pause", "customers", "--env", "strict", "--as", "ana"]).code(77);
    assert!(said.err.contains("--as"), "{}", said.err);
}

#[test]
fn a_project_file_with_findings_is_no_project_file() {
    let tool = tool();
    tool.file("phasegate.yaml", &PROJECT.replace("groups:", "gruops:"));
    let said = tool.run(&["validate", "plan.yaml", "--env", "staging"]).code(3);
    assert!(said.err.contains("groups") || said.out.contains("groups"), "{}", said.err);
}
