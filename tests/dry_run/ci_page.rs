//! The jobs of `docs/ci.md` do what the page says: their commands are taken from it and run, with a SQLite file for staging.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{PLAN, SCHEMA, UP};
use crate::sandbox::{Ran, Sandbox};

/// The YAML documents of the page by the file that their first line names.
fn file(name: &str) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ci.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let first = format!("# {name}\n");
    blocks.find(|block| block.starts_with(&first)).unwrap_or_else(|| panic!("no {name}")).to_owned()
}

fn yaml(name: &str) -> Value {
    serde_yaml::from_str(&file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A repository as the page describes it: two plans, the project file, and a `cargo` that installs the program just built.
struct Repository {
    sandbox: Sandbox,
}

impl Repository {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        sandbox.write("phasegate.yaml", &file("phasegate.yaml"));
        sandbox.write("plans/leads.yaml", PLAN);
        let small = "apiVersion: phasegate/v1\nkind: Plan\nmetadata: { name: small }\ntargets:\n  app: { engine: sqlite }\nsteps:\n  - id: one\n    phase: expand\n    sql: CREATE TABLE t (x)\n    undo: { sql: DROP TABLE t }\n";
        sandbox.write("plans/small.yaml", small);
        sandbox.write("plans/up.sql", UP);
        sandbox.sql("app.db", SCHEMA);
        let cargo = format!(
            "#!/bin/sh\n[ \"$*\" = 'install --locked --path tools/phasegate' ] || exit 9\ncp '{}' \"$BIN/phasegate\"\n",
            env!("CARGO_BIN_EXE_phasegate")
        );
        executable(&sandbox.write("bin/cargo", &cargo));
        Self { sandbox }
    }

    /// Runs a script of a job as its CI does.
    fn run(&self, script: &str, staging: &str) -> Ran {
        assert!(
            !script.contains("${{"),
            "an expression in a script is code of whoever fills it in"
        );
        let bin = self.sandbox.path("bin");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let output = Command::new("bash")
            .args(["-e", "-o", "pipefail", "-c", script])
            .current_dir(self.sandbox.path("."))
            .env_remove("PHASEGATE_STATE")
            .env("PATH", path)
            .env("BIN", &bin)
            .env("STAGING_URL", staging)
            .env("GITHUB_STEP_SUMMARY", self.sandbox.path("summary.md"))
            .output()
            .unwrap();
        output.into()
    }

    fn staging(&self) -> String {
        format!("sqlite:{}", self.sandbox.path("app.db").display())
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.sandbox.path(name))
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

fn executable(file: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The scripts of the GitHub job with their names.
fn github() -> Vec<(String, String)> {
    let job = &yaml(".github/workflows/migrations.yaml")["jobs"]["dry-run"];
    let steps = job["steps"].as_array().unwrap();
    let scripts = steps.iter().filter_map(|step| {
        Some((step["name"].as_str()?.to_owned(), step["run"].as_str()?.to_owned()))
    });
    scripts.collect()
}

#[test]
fn the_github_job_renders_probes_and_writes_its_summary() {
    let repository = Repository::new();
    let steps = github();
    let names: Vec<&str> = steps.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Install phasegate", "Render every plan", "Probe staging", "Summary"]);
    for (name, script) in &steps {
        // The secret is for the probe; everything else does without.
        let staging = if name == "Probe staging" { repository.staging() } else { String::new() };
        let ran = repository.run(script, &staging).expect(0);
        if name == "Probe staging" {
            assert!(ran.stdout.contains("::warning file=plans/leads.yaml,line="), "{ran}");
        }
    }
    let summary = repository.read("summary.md");
    assert_eq!(summary.matches("### Dry run: ").count(), 4, "{summary}");
    let junit = repository.read("reports/leads.probe.xml");
    assert!(
        junit.contains("<testcase name=\"copy\"") && junit.contains("failures=\"0\""),
        "{junit}"
    );
    assert!(!repository.sandbox.path(".phasegate").exists(), "no state store was made");
}

#[test]
fn the_github_job_fails_by_the_exit_code_and_still_looks_at_every_plan() {
    let repository = Repository::new();
    repository.sandbox.sql("app.db", "DROP VIEW hot; DROP TABLE leads");
    let steps = github();
    let script = |name: &str| &steps.iter().find(|(known, _)| known == name).unwrap().1;
    repository.run(script("Install phasegate"), "").expect(0);
    repository.run(script("Render every plan"), "").expect(0);
    let ran = repository.run(script("Probe staging"), &repository.staging()).expect(3);
    assert!(ran.stdout.contains("::error file=plans/leads.yaml,line="), "{ran}");
    assert!(ran.stdout.contains("plan small"), "the plan behind it was looked at, too: {ran}");
    repository.run(script("Probe staging"), "sqlite:nowhere.db").expect(69);
    repository.sandbox.write(
        "plans/leads.yaml",
        &PLAN.replace("phase: expand\n    sql:", "phase: expnd\n    sql:"),
    );
    repository.run(script("Render every plan"), "").expect(3);
}

#[test]
fn the_gitlab_job_does_the_same() {
    let repository = Repository::new();
    let job = &yaml(".gitlab-ci.yml")["dry-run"];
    let lines = |key: &str| -> Vec<String> {
        job[key].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
    };
    let script = [lines("before_script"), lines("script")].concat().join("\n");
    repository.run(&script, &repository.staging()).expect(0);
    assert_eq!(job["artifacts"]["reports"]["junit"], "reports/*.xml");
    for name in ["leads", "small"] {
        assert!(repository.read(&format!("reports/{name}.xml")).starts_with("<?xml"));
        assert!(repository.read(&format!("reports/{name}.md")).contains("databases were read"));
    }
    repository.run(&script, "").expect(0);
    assert!(repository.read("reports/leads.md").contains("no database was asked"));
    repository.sandbox.sql("app.db", "DROP VIEW hot; DROP TABLE leads");
    repository.run(&script, &repository.staging()).expect(3);
}
