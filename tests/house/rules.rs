//! The rules, as functions from sources to sentences about what breaks them.

use std::collections::{BTreeMap, BTreeSet};

use super::rust::{Path, Source, Token, paths, without_tests};

/// Who may know whom: `docs/architecture.md`. A name with a second part allows that part only.
pub const MAY_KNOW: [(&str, &[&str]); 12] = [
    ("bounds", &[]),
    ("clock", &[]),
    ("run", &["bounds"]),
    ("copy", &["bounds", "run", "sql"]),
    ("sql", &["bounds", "run", "copy"]),
    ("diagnostic", &["bounds"]),
    ("plan", &["bounds", "diagnostic", "sql", "run"]),
    ("driver", &["bounds", "run", "copy", "sql", "clock"]),
    ("store", &["bounds", "run", "clock"]),
    ("engine", &["bounds", "run", "copy", "driver", "store", "clock"]),
    ("report", &["bounds", "engine::event", "run", "store", "diagnostic", "clock"]),
    (
        "cli",
        &[
            "bounds",
            "clock",
            "run",
            "copy",
            "sql",
            "diagnostic",
            "plan",
            "driver",
            "store",
            "engine",
            "report",
        ],
    ),
];

/// Rooms that may do nothing but compute, and the crates they may do it with.
const PURE: [(&str, &[&str]); 4] = [
    ("bounds", &[]),
    ("run", &["serde", "serde_json", "thiserror", "sha2", "hex"]),
    ("copy", &["serde", "serde_json", "thiserror", "sha2", "hex"]),
    ("sql", &["serde", "serde_json", "thiserror", "sha2", "hex", "sqlparser", "squawk_syntax"]),
];

/// Parts of the standard library that reach outside.
const OUTSIDE: [&str; 6] = ["env", "fs", "io", "net", "process", "thread"];

/// Rooms that know traits and not who implements them.
const KNOWS_TRAITS_ONLY: [&str; 2] = ["engine", "report"];

/// What only some places may name: words, where, and why.
const KEPT_APART: [(&[&str], &[&str], &str); 5] = [
    (&["AssertSqlSafe"], &["src/driver/"], "dynamic SQL is for drivers"),
    (
        &["saphyr", "saphyr_parser", "serde_yaml"],
        &["src/plan/source.rs"],
        "YAML is read in one place",
    ),
    (&["sqlx"], &["src/driver/", "src/store/"], "databases are for drivers and stores"),
    (&["sqlparser", "squawk_syntax"], &["src/sql/"], "SQL is read in one room"),
    (&["petgraph"], &["src/plan/"], "the graph is the plan's"),
];

const PRINTING: [&str; 4] = ["print", "println", "eprint", "eprintln"];
const CLOCKS: [&str; 4] = ["SystemTime", "Instant", "Utc", "Local"];

/// The files of each driver's folder. A folder may have more, the same in each or its own.
const DRIVER_FILES: [&str; 7] =
    ["dual_write", "error", "introspect", "session", "sink", "source", "verify"];

/// Lines of a file, its tests aside.
const LINES_MAX: usize = 600;

/// Files that are test code as a whole, because the module they are, or one around it, is.
pub fn test_files(sources: &[Source]) -> BTreeSet<String> {
    let mut stems = BTreeSet::new();
    for source in sources {
        let folder = source.folder();
        let modules = without_tests(&source.tokens()).test_modules;
        stems.extend(modules.iter().map(|module| format!("{folder}/{module}")));
        stems.extend(source.tests_by_path());
    }
    // What a test's module declares is in a folder of the module's name, at any depth.
    let is_test = |stem: &str| {
        let folders = stem.match_indices('/').map(|(at, _)| &stem[..at]);
        folders.chain([stem]).any(|stem| stems.contains(stem))
    };
    let tests = sources.iter().filter(|source| is_test(source.stem()));
    tests.map(|source| source.path.clone()).collect()
}

/// Everything that breaks a rule in the files of `src`.
pub fn broken(sources: &[Source], dependencies: &[String]) -> Vec<String> {
    let tests = test_files(sources);
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| !tests.contains(&source.path)) {
        let code = without_tests(&source.tokens());
        let lines = source.text.lines().count().saturating_sub(code.test_lines);
        if lines > LINES_MAX {
            broken.push(format!("{}: {lines} lines; split it", source.path));
        }
        let paths = paths(&code.tokens);
        broken.extend(paths.iter().filter_map(|path| neighbours(source, path)));
        broken.extend(paths.iter().filter_map(|path| purity(source, path, dependencies)));
        broken.extend(kept_apart(source, &code.tokens));
        broken.extend(printing(source, &code.tokens));
        broken.extend(clocks(source, &code.tokens));
    }
    broken
}

/// The rooms of the crate that a path leads to, from the crate's root; none if it stays where it is.
fn from_root(source: &Source, path: &Path) -> Option<Vec<String>> {
    let segments = path.segments.as_slice();
    if segments[0] == "crate" || (segments[0] == "phasegate" && source.path == "src/main.rs") {
        return Some(segments[1..].to_vec());
    }
    let ups = segments.iter().take_while(|segment| *segment == "super").count();
    if ups == 0 || ups < source.module().len() + path.inner {
        return None;
    }
    Some(segments[ups..].to_vec())
}

fn neighbours(source: &Source, path: &Path) -> Option<String> {
    let target = from_root(source, path)?;
    let known = target.first()?;
    let at = format!("{}:{}", source.path, path.line);
    let Some(room) = source.room() else {
        let fits = source.path == "src/main.rs" && known == "cli";
        return (!fits).then(|| format!("{at}: the crate's root must not know {known}"));
    };
    if *known == room {
        return None;
    }
    let Some((_, allowed)) = MAY_KNOW.iter().find(|(name, _)| *name == room) else {
        return Some(format!("{at}: {room} is no room of the house"));
    };
    let full = target.join("::");
    let fits = |allowed: &&str| full == **allowed || full.starts_with(&format!("{allowed}::"));
    if !allowed.iter().any(fits) {
        return Some(format!("{at}: {room} must not know {full}"));
    }
    let is_part = target.get(1).is_some_and(|part| IMPLEMENTATIONS.contains(&part.as_str()));
    (KNOWS_TRAITS_ONLY.contains(&room.as_str()) && is_part)
        .then(|| format!("{at}: {room} knows the traits of {known}, not {full}"))
}

/// The modules of `driver` and `store` that implement their traits.
const IMPLEMENTATIONS: [&str; 7] =
    ["sqlite", "postgres", "mysql", "sqlserver", "neo4j", "redis", "wire"];

fn purity(source: &Source, path: &Path, dependencies: &[String]) -> Option<String> {
    let room = source.room()?;
    let (_, allowed) = PURE.iter().find(|(name, _)| *name == room)?;
    let head = path.segments[0].as_str();
    let outside = head == "std" && OUTSIDE.contains(&path.segments[1].as_str());
    let foreign = dependencies.iter().any(|name| name == head) && !allowed.contains(&head);
    (outside || foreign).then(|| {
        let path_text = path.segments.join("::");
        format!("{}:{}: {room} is pure and must not use {path_text}", source.path, path.line)
    })
}

fn kept_apart(source: &Source, tokens: &[Token]) -> Vec<String> {
    let mut broken = Vec::new();
    for (words, places, why) in KEPT_APART {
        if places.iter().any(|place| source.path.starts_with(place)) {
            continue;
        }
        for token in tokens.iter().filter(|token| words.contains(&token.text.as_str())) {
            broken.push(format!("{}:{}: {}: {why}", source.path, token.line, token.text));
        }
    }
    broken
}

fn printing(source: &Source, tokens: &[Token]) -> Vec<String> {
    if ["cli", "report"].iter().any(|room| source.room().as_deref() == Some(*room)) {
        return Vec::new();
    }
    let prints = |pair: &&[Token]| {
        let word = pair[0].text.as_str();
        (PRINTING.contains(&word) && pair[1].text == "!")
            || (["stdout", "stderr"].contains(&word) && pair[1].text == "(")
    };
    let printing = tokens.windows(2).filter(prints);
    printing
        .map(|pair| format!("{}:{}: only cli and report print", source.path, pair[0].line))
        .collect()
}

fn clocks(source: &Source, tokens: &[Token]) -> Vec<String> {
    if source.path == "src/clock.rs" {
        return Vec::new();
    }
    let reads = |triple: &&[Token]| {
        CLOCKS.contains(&triple[0].text.as_str())
            && triple[1].text == "::"
            && triple[2].text == "now"
    };
    let reading = tokens.windows(3).filter(reads);
    reading
        .map(|triple| {
            format!("{}:{}: only src/clock.rs reads a clock", source.path, triple[0].line)
        })
        .collect()
}

/// Names that a driver's folder lacks. The folders look alike: learn one, know all.
pub fn unlike_drivers(sources: &[Source]) -> Vec<String> {
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        if let Some(inner) = source.path.strip_prefix("src/driver/")
            && let Some((folder, file)) = inner.split_once('/')
            // Two of them as one.
            && folder != "crossing"
        {
            let file = file.trim_end_matches(".rs").split('/').next().unwrap_or_default();
            folders.entry(folder.to_owned()).or_default().insert(file.to_owned());
        }
    }
    let mut missing = Vec::new();
    for (folder, files) in &folders {
        for file in DRIVER_FILES.iter().filter(|file| !files.contains(**file)) {
            missing.push(format!("src/driver/{folder} has no {file}.rs"));
        }
    }
    missing
}

/// Marks of unfinished work, in comments too, in the files of `src` and `tests`.
pub fn left_open(sources: &[Source]) -> Vec<String> {
    // Written in parts, since this file is read as well.
    let marks = [
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("#[ign", "ore"),
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("db", "g!("),
    ];
    let mut found = Vec::new();
    for source in sources {
        for (at, line) in source.text.lines().enumerate() {
            for mark in marks.iter().filter(|mark| line.contains(**mark)) {
                found.push(format!("{}:{}: {mark}", source.path, at + 1));
            }
        }
    }
    found
}

/// Dependencies that no source names.
pub fn unused(dependencies: &[String], sources: &[Source]) -> Vec<String> {
    let mut named = BTreeSet::new();
    for source in sources {
        named.extend(paths(&source.tokens()).into_iter().map(|path| path.segments[0].clone()));
    }
    dependencies.iter().filter(|name| !named.contains(*name)).cloned().collect()
}

/// The names of a table of `Cargo.toml`, as Rust writes them.
pub fn names_in(manifest: &str, table: &str) -> Vec<String> {
    let header = format!("[{table}]");
    let lines = manifest.lines().map(str::trim).skip_while(|line| *line != header).skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().replace('-', "_"))
        .collect()
}

/// Packages of a lock file that are forbidden by name, or come from elsewhere than the registry.
pub fn unwelcome(lock: &str, forbidden: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let start = format!("{key} = \"");
            package.lines().find_map(|line| line.strip_prefix(&start)?.strip_suffix('"'))
        };
        let name = value("name").unwrap_or_default();
        if forbidden.iter().any(|forbidden| forbidden == name) {
            found.push(format!("{name} is forbidden by deny.toml"));
        }
        let source = value("source");
        let registry = "registry+https://github.com/rust-lang/crates.io-index";
        if source.is_some_and(|source| source != registry) {
            found.push(format!("{name} comes from {}", source.unwrap_or_default()));
        }
    }
    found
}
