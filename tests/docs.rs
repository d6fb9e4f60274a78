//! The pages under `docs/` say what is so: the tutorial and the drills are followed word for word, and the reference names every key.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::examples::database::programs;
use crate::failures::signal;
use crate::sandbox::{Ran, Sandbox, wait_for};
use crate::services;

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

/// Where the tutorial is followed: a folder, and what was exported in it.
struct Terminal {
    sandbox: Sandbox,
    exported: Vec<(String, String)>,
    /// The folder of the private server that the tutorial starts: one of this test's own stands in its place.
    server: PathBuf,
    /// The process in the background.
    job: Option<Child>,
}

impl Terminal {
    /// What the tutorial calls the folder of its server.
    const SERVER: &str = "/tmp/phasegate-shop";

    fn new() -> Self {
        let name = format!("phasegate-shop-{}", uuid::Uuid::now_v7().simple());
        let clone = ("CLONE".to_owned(), env!("CARGO_MANIFEST_DIR").to_owned());
        Self {
            sandbox: Sandbox::new(),
            exported: vec![clone],
            server: std::env::temp_dir().join(name),
            job: None,
        }
    }

    /// What a command of the tutorial prints. The shell of SQLite isn't needed: the same is done by the library.
    fn follow(&mut self, line: &str) -> String {
        let (command, comment) = line.split_once("   #").unwrap_or((line, ""));
        let typed = words(command);
        let typed: Vec<&str> = typed.iter().map(String::as_str).collect();
        let code = comment.trim().strip_prefix("exits with ").map_or(0, |text| {
            let digits = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
            text[..digits].parse().unwrap()
        });
        match typed.as_slice() {
            ["sqlite3", database, "<", file] => {
                let text = std::fs::read_to_string(self.sandbox.path(file)).unwrap();
                self.sandbox.sql(database, &text);
                String::new()
            }
            ["sqlite3", database, query] if query.starts_with("SELECT") => {
                self.sandbox.rows(database, query).join("\n")
            }
            ["sqlite3", database, statement] => {
                // The shell's folder is not the test's.
                let here = format!("VACUUM INTO '{}/", self.sandbox.path("").display());
                self.sandbox.sql(database, &statement.replace("VACUUM INTO '", &here));
                String::new()
            }
            ["phasegate", arguments @ .., "&"] => {
                self.start(arguments);
                String::new()
            }
            ["phasegate", arguments @ ..] => {
                let mut command = self.sandbox.command(arguments);
                let ran = command.envs(self.exported.clone()).output().unwrap();
                printed(&Ran::from(ran).expect(code))
            }
            ["kill", "-9", "%1"] => {
                let mut job = self.job.take().unwrap();
                job.kill().unwrap();
                job.wait().unwrap();
                String::new()
            }
            ["kill", sent, "%1"] => {
                signal(self.job.as_ref().unwrap().id(), sent.trim_start_matches('-'));
                self.wait(code)
            }
            ["wait", "%1"] => self.wait(code),
            ["eval" | "export" | "psql" | "until" | "sed" | "mv" | "cp" | "rm" | "mkdir", ..] => {
                self.shell(command)
            }
            [] | [..] if command.starts_with('"') => self.shell(command),
            _ => panic!("nobody knows how to follow {line}"),
        }
    }

    /// Starts a process in the background, which takes its lease before the reader has typed anything more.
    fn start(&mut self, arguments: &[&str]) {
        let mut command = self.sandbox.command(arguments);
        let child =
            command.envs(self.exported.clone()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.job = Some(child.spawn().unwrap());
        let has_lease = || {
            let locks = self.sandbox.run(&["lock", "list", "--format", "json"]).json();
            locks["locks"].as_array().is_some_and(|all| all.iter().any(|it| it["free"] == false))
        };
        assert!(wait_for(Duration::from_mins(1), has_lease), "{arguments:?} does not begin");
    }

    fn wait(&mut self, code: i32) -> String {
        let ended = self.job.take().unwrap().wait_with_output().unwrap();
        printed(&Ran::from(ended).expect(code))
    }

    /// A command of the shell, as it is; what it exports is there for the next.
    fn shell(&mut self, command: &str) -> String {
        const EXPORTED: &str = "--- what is exported now";
        let command = command.replace(Self::SERVER, self.server.to_str().unwrap());
        let path = format!("{}:{}", programs().display(), std::env::var("PATH").unwrap());
        let said = std::process::Command::new("sh")
            .args(["-e", "-c", &format!("{command}\necho '{EXPORTED}'\nenv")])
            .current_dir(self.sandbox.path("."))
            .envs(self.exported.clone())
            .env("PATH", path)
            .output()
            .unwrap();
        let printed = String::from_utf8(said.stdout).unwrap();
        let complaint = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "{command}: {printed}{complaint}");
        let (printed, env) = printed.split_once(EXPORTED).unwrap();
        for (name, value) in env.lines().filter_map(|line| line.split_once('=')) {
            if name == "SHOP_URL" || name == "PHASEGATE_TEST_POSTGRES" {
                self.exported.push((name.to_owned(), value.to_owned()));
            }
        }
        printed.to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(job) = &mut self.job {
            let _ = job.kill();
            let _ = job.wait();
        }
        // The tutorial stops its server itself, unless it wasn't followed to the end.
        let script = format!("{}/tests/services/postgres.sh", env!("CARGO_MANIFEST_DIR"));
        let _ = std::process::Command::new(script).arg("stop").arg(&self.server).status();
    }
}

fn printed(ran: &Ran) -> String {
    format!("{}\n{}", ran.stdout, ran.stderr)
}

fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Follows a page from its beginning, or from a heading. Returns how many commands there were.
fn follow(page: &str, terminal: &mut Terminal) -> u32 {
    let mut commands = 0;
    let mut digest = String::new();
    for (language, before, text) in blocks(page) {
        match language.as_str() {
            "yaml" | "sql" => {
                let name = before.split('`').nth(1).unwrap();
                terminal.sandbox.write(name, &text);
            }
            "console" => {
                let mut printed = String::new();
                for line in text.lines() {
                    if let Some(command) = line.strip_prefix("$ ") {
                        // The reader puts the digest that was shown where the page can only say so.
                        printed = plain(&terminal.follow(&command.replace("DIGEST", &digest)));
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
    commands
}

/// Where the tutorial goes on with PostgreSQL.
const ON_POSTGRES: &str = "## Now on PostgreSQL, in ten minutes";

#[test]
fn the_tutorial_is_followed_word_for_word() {
    let text = page("docs/getting-started.md");
    let (on_sqlite, _) = text.split_once(ON_POSTGRES).unwrap();
    let commands = follow(on_sqlite, &mut Terminal::new());
    assert!(commands >= 8, "only {commands} commands were found");
}

#[test]
fn the_tutorial_goes_on_with_postgresql_word_for_word() {
    if services::postgres("the tutorial on PostgreSQL").is_none() {
        return;
    }
    let text = page("docs/getting-started.md");
    let (_, on_postgres) = text.split_once(ON_POSTGRES).unwrap();
    let commands = follow(on_postgres, &mut Terminal::new());
    assert!(commands >= 20, "only {commands} commands were found");
}

#[test]
fn the_drills_are_done_word_for_word() {
    let text = page("docs/recovery.md");
    let (on_sqlite, _) = text.split_once(DRILLS_ON_POSTGRES).unwrap();
    let commands = follow(on_sqlite, &mut Terminal::new());
    assert!(commands >= 65, "only {commands} commands were found");
}

/// Where the drills go on with PostgreSQL.
const DRILLS_ON_POSTGRES: &str = "## On PostgreSQL: ";

#[test]
fn the_drills_go_on_with_postgresql_word_for_word() {
    if services::postgres("the drills on PostgreSQL").is_none() {
        return;
    }
    let text = page("docs/recovery.md");
    let (_, on_postgres) = text.split_once(DRILLS_ON_POSTGRES).unwrap();
    let commands = follow(on_postgres, &mut Terminal::new());
    assert!(commands >= 14, "only {commands} commands were found");
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

/// A snippet of the reference as a whole document: what it doesn't say is put around it.
fn whole(snippet: &str) -> String {
    const MAPPINGS: &str = "mappings:\n  leads:\n    from: { target: app, table: leads, key: [id] }\n    into: { target: app, table: leads_v2 }\n";
    let engine = if snippet.contains("cypher:") { "neo4j" } else { "postgres" };
    let targets = format!("targets:\n  app: {{ engine: {engine}, url: \"${{env:APP_URL}}\" }}\n");
    let indented = |by: usize| {
        let lines = snippet.lines().map(|line| format!("{:by$}{line}\n", ""));
        lines.collect::<String>()
    };
    let (mut targets, mut mappings) = (targets, MAPPINGS.to_owned());
    let mut steps = "steps: []\n".to_owned();
    match snippet.split(':').next().unwrap() {
        "apiVersion" => return format!("{snippet}\n"),
        "targets" => targets = indented(0),
        "mappings" => mappings = indented(0),
        "steps" => steps = indented(0),
        "- id" => steps = format!("steps:\n{}", indented(2)),
        _ => steps = format!("steps:\n  - id: shown\n    phase: expand\n{}", indented(4)),
    }
    format!(
        "apiVersion: phasegate/v1\nkind: Plan\nmetadata: {{ name: shown }}\n{targets}{mappings}{steps}"
    )
}

#[test]
fn every_snippet_of_the_reference_is_read_as_it_stands() {
    let (mut seen, sandbox) = (0, Sandbox::new());
    for (language, _, snippet) in blocks(&page("docs/plans.md")) {
        if language != "yaml" || snippet.starts_with('#') {
            continue;
        }
        let text = whole(&snippet);
        let is_project = text.contains("kind: Project");
        let file = if is_project { "phasegate.yaml" } else { "plan.yaml" };
        sandbox.write(file, &text);
        if is_project {
            sandbox.write(
                "plan.yaml",
                &whole("- id: shown\n  phase: expand\n  sql: SELECT 1\n  undo: { none: nothing }"),
            );
        }
        let options: &[&str] = if is_project { &["--env", "staging"] } else { &[] };
        let ran = sandbox.run(&[&["validate", "plan.yaml", "--format", "json"], options].concat());
        let findings = ran.json()["findings"].as_array().cloned().unwrap_or_default();
        for finding in &findings {
            // A snippet is no whole plan; but every key and value in it is one, and possible today.
            let code = finding["code"].as_str().unwrap();
            assert!(!code.starts_with("P1") && !code.starts_with("P9"), "{finding:#}\n{text}");
        }
        seen += 1;
    }
    assert!(seen >= 12, "only {seen} snippets were found");
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
