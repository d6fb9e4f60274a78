//! The same plan in several environments, each with its policy.

use super::*;

const PROJECT: &str = "\
apiVersion: phasegate/v1
kind: Project
groups:
  release: [ana, ben]
  dba: [dee]
environments:
  staging:
    state: .phasegate/staging.db
    targets:
      app: { url: \"sqlite://${env:STAGING_DB}\" }
    policy: { longest_wait: 5s }
  production:
    production: true
    policy:
      destructive:
        approvals: [{ group: dba, count: 1 }, { group: release, count: 1 }]
        verified_within: 5m
        author_may_approve: false
  signed:
    policy: { identity: ssh }
";

fn project() -> Project {
    Project::parse(Path::new("phasegate.yaml"), PROJECT.into()).unwrap()
}

fn load_in(text: &str, environment: &str) -> Result<Loaded, Findings> {
    let environment = EnvironmentName::new(environment);
    plan::parse(Path::new("plan.yaml"), text.into(), Some(&project()), &environment)
}

#[test]
fn policy_is_added_to_the_gates_in_front_of_destruction_and_marked() {
    let text = quickstart().source.text.to_string();
    let loaded = load_in(&text, "production").unwrap_or_else(|f| panic!("{}", shown(&f)));
    let Action::Gate(gate) = &step(&loaded, "ready-to-switch").action else { panic!() };
    assert_eq!(gate.verified_within_ms, Some(300_000));
    assert_eq!(gate.approvals.len(), 2);
    assert_eq!(gate.from_policy, ["verified_within", "approvals:dba", "approvals:release"]);
    let policy = loaded.pin.program.policy();
    assert!(policy.production);
    assert_eq!(policy.author_may_approve, Some(false));
    assert_eq!(policy.groups.as_ref().unwrap().len(), 2);
    let free = quickstart();
    assert_ne!(step(&free, "ready-to-switch").digest, step(&loaded, "ready-to-switch").digest);
    assert_eq!(free.pin.program.digest(), loaded.pin.program.digest());
}

#[test]
fn an_environment_says_where_targets_are() {
    let loaded = load_in(&quickstart().source.text, "staging").unwrap();
    let target = loaded.pin.program.targets().values().next().unwrap();
    assert_eq!(target.url, "sqlite://${env:STAGING_DB}");
    assert_eq!(loaded.pin.program.policy().longest_wait_ms, Some(5_000));
}

#[test]
fn what_the_environment_does_not_allow_is_found() {
    let text = quickstart().source.text.to_string();
    let found = |text: &str, environment| codes(&load_in(text, environment).unwrap_err());
    assert_eq!(found(&text, "prod"), BTreeSet::from(["P704"]));
    assert_eq!(found(&text, "signed"), BTreeSet::from(["P904"]));
    let asking = |group: &str, count: u32| {
        text.replace(
                "      verified_within: 15m",
                &format!("      approvals: [{{ group: {group}, count: {count} }}]\n      verified_within: 15m"),
            )
    };
    assert_eq!(found(&asking("dbas", 1), "staging"), BTreeSet::from(["P702"]));
    assert_eq!(found(&asking("dba", 2), "staging"), BTreeSet::from(["P703"]));
    // Both members would be needed, so that neither may start the run: a warning besides.
    assert_eq!(found(&asking("release", 2), "production"), BTreeSet::from(["P703", "P706"]));
    let reviewed = text
        .replace("    undo:\n      sql: DROP", "    reviewed: by me\n    undo:\n      sql: DROP");
    // The only member of dba would be needed, who then may not start the run: a warning besides.
    assert_eq!(found(&reviewed, "production"), BTreeSet::from(["P701", "P703"]));
}

#[test]
fn without_a_project_there_is_only_the_default_environment() {
    let environment = EnvironmentName::new("production");
    let path = Path::new("plans/quickstart.yaml");
    let findings = plan::load(path, None, &environment).unwrap_err();
    assert_eq!(codes(&findings), BTreeSet::from(["P704"]));
}

#[test]
fn the_project_is_found_upwards_from_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("phasegate.yaml"), PROJECT).unwrap();
    let deep = folder.path().join("a/b");
    std::fs::create_dir_all(&deep).unwrap();
    let found = Project::find(&deep.join("plan.yaml"), None).unwrap().unwrap();
    let names: Vec<&str> = found.environment_names().map(EnvironmentName::as_str).collect();
    assert_eq!(names, ["production", "signed", "staging"]);
    let missing = Project::find(&deep, Some(Path::new("none.yaml"))).unwrap_err();
    assert!(missing.is_unreadable);
}
