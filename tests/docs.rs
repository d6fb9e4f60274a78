//! The pages under `docs/` say what is so: the tutorial is followed word for word, and the reference names every key.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::sandbox::Sandbox;

fn page(name: &str) -> String {
    std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The fenced blocks of a page: language, the last line of prose before it, text.
fn blocks(page: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut before = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push((language.to_owned(), before.clone(), body.join("\n")));
        } else if !line.trim().is_empty() {
            line.clone_into(&mut before);
        }
    }
    found
}

/// The words of a line as a shell splits them; nothing but double quotes is used in the tutorial.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    parts
        .flat_map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().map(ToOwned::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

/// What a command of the tutorial prints. The shell of SQLite isn't needed: the same is done by the library.
fn follow(sandbox: &Sandbox, line: &str) -> String {
    let (command, comment) = line.split_once('#').unwrap_or((line, ""));
    let typed = words(command);
    let typed: Vec<&str> = typed.iter().map(String::as_str).collect();
    match typed.as_slice() {
        ["sqlite3", database, "<", file] => {
            sandbox.sql(database, &std::fs::read_to_string(sandbox.path(file)).unwrap());
            String::new()
        }
        ["sqlite3", database, query] if query.starts_with("SELECT") => {
            sandbox.rows(database, query).join("\n")
        }
        ["sqlite3", database, statement] => {
            sandbox.sql(database, statement);
            String::new()
        }
        ["phasegate", arguments @ ..] => {
            let code = comment.trim().strip_prefix("exits with ");
            let code = code.map_or(0, |text| text[..1].parse().unwrap());
            let ran = sandbox.run(arguments).expect(code);
            format!("{}\n{}", ran.stdout, ran.stderr)
        }
        _ => panic!("nobody knows how to follow {line}"),
    }
}

fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_tutorial_is_followed_word_for_word() {
    let sandbox = Sandbox::new();
    let mut commands = 0;
    let mut digest = String::new();
    for (language, before, text) in blocks(&page("docs/getting-started.md")) {
        match language.as_str() {
            "yaml" | "sql" => {
                let name = before.split('`').nth(1).unwrap();
                sandbox.write(name, &text);
            }
            "console" => {
                let mut printed = String::new();
                for line in text.lines() {
                    if let Some(command) = line.strip_prefix("$ ") {
                        // The reader puts the digest that was shown where the page can only say so.
                        printed = plain(&follow(&sandbox, &command.replace("DIGEST", &digest)));
                        commands += 1;
                        let shown = printed.split_once("digest ").map(|(_, rest)| &rest[..8]);
                        digest = shown.unwrap_or(&digest).to_owned();
                    } else {
                        assert!(printed.contains(&plain(line)), "{line:?} is not in {printed}");
                    }
                }
            }
            _ => {}
        }
    }
    assert!(commands >= 8, "only {commands} commands were found");
}

fn keys(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::Object(properties) if name == "properties" => {
                        found.extend(properties.keys().cloned());
                        properties.values().for_each(|value| keys(value, found));
                    }
                    _ => keys(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn the_reference_names_every_key() {
    let text = page("docs/plans.md");
    let mut all = BTreeSet::new();
    for schema in ["docs/plan.schema.json", "docs/project.schema.json"] {
        keys(&serde_json::from_str(&page(schema)).unwrap(), &mut all);
    }
    assert!(all.len() > 50, "{all:?}");
    let names: BTreeSet<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let missing: Vec<&String> = all.iter().filter(|key| !names.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "docs/plans.md says nothing of {missing:?}");
}

#[test]
fn the_plan_in_the_readme_is_valid() {
    let (_, _, text) =
        blocks(&page("README.md")).into_iter().find(|(language, ..)| language == "yaml").unwrap();
    let sandbox = Sandbox::new();
    sandbox.write("plan.yaml", &text);
    sandbox.run(&["validate", "plan.yaml"]).expect(0);
}

#[test]
fn links_lead_somewhere() {
    let root = env!("CARGO_MANIFEST_DIR");
    let pages = std::fs::read_dir(format!("{root}/docs")).unwrap();
    let mut pages: Vec<String> = pages
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_string_lossy()))
        .filter(|name| name.to_ascii_lowercase().ends_with(".md"))
        .collect();
    pages.push("README.md".to_owned());
    for name in pages {
        let folder = std::path::Path::new(root).join(&name);
        let text = page(&name);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let is_elsewhere = file.is_empty() || link.contains("://");
            let is_there = is_elsewhere || folder.parent().unwrap().join(file).exists();
            assert!(is_there, "{name} links to {link}");
        }
    }
}
