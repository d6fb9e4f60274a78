//! The README has a paragraph about each example plan, with the command that runs it.

fn text(name: &str) -> String {
    std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn every_example_plan_has_its_paragraph_its_beginning_and_its_command() {
    let readme = text("README.md");
    let mut plans = 0;
    for entry in std::fs::read_dir(format!("{}/plans", env!("CARGO_MANIFEST_DIR"))).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".yaml") else { continue };
        plans += 1;
        let command = format!("run plans/{name}.yaml");
        assert!(readme.contains(&command), "the README doesn't say how to run {name}");
        if name != "quickstart" {
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
            let begins = ["sql", "cypher"].map(|ends| format!("plans/{name}/before.{ends}"));
            let before = begins.into_iter().find(|file| root.join(file).exists());
            let before = before.unwrap_or_else(|| panic!("{name} has no beginning"));
            assert!(readme.contains(&format!("`plans/{name}.yaml`")), "no paragraph on {name}");
            assert!(text(&format!("plans/{name}.yaml")).contains(&before), "{name}");
            assert!(!text(&before).is_empty());
        }
    }
    assert!(plans >= 7, "only {plans} plans were found");
}

#[test]
fn every_example_plan_is_valid_and_warns_only_of_what_it_explains() {
    let sandbox = crate::sandbox::Sandbox::new();
    let root = env!("CARGO_MANIFEST_DIR");
    for entry in std::fs::read_dir(format!("{root}/plans")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let ran = sandbox.run(&["validate", path.to_str().unwrap()]).expect(0);
        let warnings = format!("{ran}").matches("warning[").count();
        let expected = EXPLAINED
            .iter()
            .find(|(plan, _)| path.ends_with(plan))
            .map_or(0, |(_, warnings)| *warnings);
        assert_eq!(warnings, expected, "{}: {ran}", path.display());
    }
}

/// How many warnings a plan explains in its comments.
const EXPLAINED: [(&str, usize); 2] =
    [("plans/session-tags.yaml", 1), ("plans/add-required-column.yaml", 1)];
