//! The house keeps its own rules: who may know whom, who prints, who reads clocks, where limits
//! stand, what is left open, what is used.
//!
//! Each rule is tried on sources that break it, too, so that none of them passes because it sees nothing.

use std::fs;
use std::path::{Path, PathBuf};

mod limits;
mod rules;
mod rust;

use rust::Source;

fn root() -> PathBuf {
    // At run time, so that the rules can be tried on another checkout.
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file under a folder, in order.
fn sources(folder: &str) -> Vec<Source> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    found.sort();
    let relative =
        |path: &PathBuf| path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
    found
        .iter()
        .map(|path| Source::new(&relative(path), &fs::read_to_string(path).unwrap()))
        .collect()
}

fn dependencies() -> Vec<String> {
    rules::names_in(&read("Cargo.toml"), "dependencies")
}

fn nothing(broken: &[String]) {
    assert!(broken.is_empty(), "{} broken:\n  {}", broken.len(), broken.join("\n  "));
}

#[test]
fn rooms_know_only_whom_they_may() {
    let sources = sources("src");
    assert!(sources.len() > 30, "only {} files were found", sources.len());
    nothing(&rules::broken(&sources, &dependencies()));
}

#[test]
fn every_room_is_in_the_table_and_in_the_guide() {
    let guide = read("docs/architecture.md");
    let rooms: Vec<String> = read("src/lib.rs")
        .lines()
        .filter_map(|line| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned()))
        .collect();
    assert!(rooms.len() >= 12, "{rooms:?}");
    for room in &rooms {
        let (_, known) = rules::MAY_KNOW
            .iter()
            .find(|(name, _)| name == room)
            .unwrap_or_else(|| panic!("{room} is not in the table"));
        let row = guide.lines().find(|line| line.starts_with(&format!("| `{room}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/architecture.md has no row for {room}"));
        let listed: Vec<&str> =
            row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2).collect();
        assert_eq!(listed, *known, "docs/architecture.md, row {room}");
    }
}

#[test]
fn drivers_look_alike() {
    nothing(&rules::unlike_drivers(&sources("src")));
}

#[test]
fn limits_stand_in_one_room() {
    let sources = sources("src");
    nothing(&limits::scattered(&sources));
    nothing(&limits::outdated(&sources));
}

#[test]
fn nothing_is_left_open() {
    let all: Vec<Source> = ["src", "tests", "benches"].into_iter().flat_map(sources).collect();
    nothing(&rules::left_open(&all));
}

#[test]
fn every_dependency_is_used() {
    let manifest = read("Cargo.toml");
    nothing(&rules::unused(&dependencies(), &sources("src")));
    let all: Vec<Source> = ["src", "tests", "benches"].into_iter().flat_map(sources).collect();
    nothing(&rules::unused(&rules::names_in(&manifest, "dev-dependencies"), &all));
}

#[test]
fn the_lock_file_holds_nothing_unwelcome() {
    let forbidden: Vec<String> = read("deny.toml")
        .lines()
        .filter_map(|line| {
            line.trim().strip_prefix("{ name = \"")?.split('"').next().map(str::to_owned)
        })
        .collect();
    for name in ["openssl", "anyhow", "serde_yml"] {
        assert!(forbidden.iter().any(|known| known == name), "{name} is not in deny.toml");
    }
    nothing(&rules::unwelcome(&read("Cargo.lock"), &forbidden));
}

mod can_fail {
    //! Sources that break a rule are found out.

    use super::rust::{self, Source};
    use super::{limits, rules};

    fn broken(path: &str, text: &str) -> Vec<String> {
        let dependencies = ["tokio", "serde", "sqlparser", "sqlx", "saphyr"].map(str::to_owned);
        rules::broken(&[Source::new(path, text)], &dependencies)
    }

    #[test]
    fn a_room_that_knows_too_much() {
        let cases = [
            ("src/run/state.rs", "use crate::engine::Context;", "must not know engine::Context"),
            ("src/run/state.rs", "use super::super::plan::Plan;", "must not know plan::Plan"),
            ("src/run/mod.rs", "use super::copy::Chunk;", "must not know copy::Chunk"),
            (
                "src/copy/sizer.rs",
                "fn f() { let x = crate::driver::Error::failed(); }",
                "must not know driver",
            ),
            (
                "src/plan/mod.rs",
                "use crate::{run::Program, store::{Entry, Error as E}};",
                "must not know store::Entry",
            ),
            (
                "src/plan/mod.rs",
                "use crate::{run::Program, store::{Entry, Error as E}};",
                "must not know store::Error",
            ),
            ("src/store/mod.rs", "use crate::copy::chunk;", "must not know copy"),
            ("src/driver/mod.rs", "use crate::store::Entry;", "must not know store"),
            (
                "src/engine/mod.rs",
                "use crate::driver::sqlite::connect;",
                "knows the traits of driver",
            ),
            ("src/engine/lease.rs", "use crate::store::{self, wire};", "knows the traits of store"),
            ("src/engine/mod.rs", "use crate::plan::Plan;", "must not know plan"),
            ("src/report/plain.rs", "use crate::engine::Context;", "must not know engine::Context"),
            ("src/diagnostic/mod.rs", "use crate::run::Digest;", "must not know run"),
            (
                "src/main.rs",
                "fn main() { phasegate::engine::drive(); }",
                "root must not know engine",
            ),
            ("src/lib.rs", "pub use crate::run::State;", "root must not know run"),
            (
                "src/copy/mod.rs",
                "mod a { mod b { } use super::super::plan::X; }",
                "must not know plan::X",
            ),
            ("src/bounds/store.rs", "use crate::run::State;", "must not know run::State"),
            ("src/clock.rs", "use crate::bounds::store;", "must not know bounds::store"),
            ("src/attic/mod.rs", "use crate::run::State;", "no room"),
        ];
        for (path, text, expected) in cases {
            let found = broken(path, text);
            assert!(found.iter().any(|line| line.contains(expected)), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_pure_room_that_reaches_outside() {
        let cases = [
            ("src/run/state.rs", "use tokio::sync::watch;"),
            ("src/run/state.rs", "fn f() { std::env::var(\"X\"); }"),
            ("src/copy/sizer.rs", "use std::{collections::BTreeMap, thread};"),
            ("src/copy/sizer.rs", "use sqlparser::ast::Expr;"),
            ("src/sql/split.rs", "use std::fs::File;"),
            ("src/bounds/store.rs", "use serde::Serialize;"),
        ];
        for (path, text) in cases {
            let found = broken(path, text);
            assert!(found.iter().any(|line| line.contains("is pure")), "{text}: {found:?}");
        }
    }

    #[test]
    fn words_out_of_place() {
        let cases = [
            ("src/store/sqlite.rs", "sqlx::query(sqlx::AssertSqlSafe(text))", "dynamic SQL"),
            ("src/plan/document.rs", "use saphyr::Scalar;", "YAML"),
            ("src/engine/mod.rs", "use sqlx::Row;", "databases"),
            ("src/plan/mod.rs", "use sqlparser::ast::Expr;", "one room"),
            ("src/engine/mod.rs", "fn f() { eprintln!(\"x\"); }", "print"),
            ("src/driver/mod.rs", "fn f() { std::io::stdout().write_all(b\"x\"); }", "print"),
            ("src/engine/mod.rs", "fn f() { let at = std::time::Instant::now(); }", "clock"),
            ("src/store/sqlite.rs", "fn f() { chrono::Utc::now() }", "clock"),
            ("src/cli/mod.rs", "fn f() { SystemTime :: now() }", "clock"),
        ];
        for (path, text, expected) in cases {
            let found = broken(path, text);
            assert!(found.iter().any(|line| line.contains(expected)), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_file_that_is_too_long() {
        let long = "const X: u8 = 1;\n".repeat(601);
        assert_eq!(broken("src/run/long.rs", &long), ["src/run/long.rs: 601 lines; split it"]);
        let tests = format!("#[cfg(test)]\n#[allow(x)]\nmod tests {{\n{long}}}\n");
        let fine = format!("{}{tests}", "const X: u8 = 1;\n".repeat(600));
        assert_eq!(broken("src/run/long.rs", &fine), [""; 0]);
    }

    #[test]
    fn what_is_allowed_is_not_complained_of() {
        let cases = [
            ("src/engine/mod.rs", "use crate::driver::{self, Finding}; use crate::store::Lease;"),
            ("src/report/plain.rs", "use crate::engine::event::Event; fn f() { println!(); }"),
            ("src/sql/sqlite/parse.rs", "use super::super::Dialect; use sqlparser::ast::Expr;"),
            ("src/run/state.rs", "use super::name::RunId; use std::collections::BTreeMap;"),
            (
                "src/run/state.rs",
                "// crate::engine::X, Instant::now(), println!()\n/* crate::engine /* */ */",
            ),
            (
                "src/run/state.rs",
                "const X: &str = \"crate::engine::X\"; const Y: &str = r#\"\"crate::plan::Y\"#;",
            ),
            ("src/run/state.rs", "fn f<'a>(x: &'a str) -> char { '\"' } fn g() -> char { '\\'' }"),
            (
                "src/run/state.rs",
                "#[cfg(test)]\nmod tests { use crate::engine::X; use tokio::test; }",
            ),
            ("src/run/state.rs", "#[cfg(test)] use crate::engine::X;"),
            ("src/main.rs", "fn main() { phasegate::cli::main() }"),
            (
                "src/diagnostic/mod.rs",
                "pub mod a { pub use super::codes::X; mod b { use super::super::y::Z; } }",
            ),
            ("src/clock.rs", "fn f() { Instant::now(); }"),
            ("src/plan/source.rs", "use saphyr::Scalar;"),
        ];
        for (path, text) in cases {
            assert_eq!(broken(path, text), [""; 0], "{text}");
        }
        let files = [
            Source::new("src/run/mod.rs", "#[cfg(test)]\nmod fixture;\nmod state;"),
            Source::new("src/run/fixture.rs", "mod world; use tokio::test;"),
            Source::new("src/run/fixture/world/mod.rs", "mod dice; use tokio::test;"),
            Source::new("src/run/fixture/world/dice.rs", "use tokio::test;"),
            Source::new("src/run/state.rs", "use tokio::sync::watch;"),
            Source::new(
                "src/run/ready.rs",
                "#[cfg(test)]\n#[path = \"ready_tests.rs\"]\nmod tests;",
            ),
            Source::new("src/run/ready_tests.rs", "use tokio::test;"),
            Source::new("src/run/decide.rs", "#[cfg(all(test, feature = \"x\"))]\nmod deaths;"),
            Source::new("src/run/decide/deaths.rs", "use tokio::test;"),
            // Of the same name as a test's module elsewhere.
            Source::new("src/engine/mod.rs", "#[cfg(test)]\nmod copy;"),
            Source::new("src/copy/chunk.rs", "use tokio::sync::watch;"),
        ];
        let found = rules::broken(&files, &["tokio".to_owned()]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("src/run/state.rs"), "{found:?}");
        assert!(found[1].starts_with("src/copy/chunk.rs"), "{found:?}");
    }

    #[test]
    fn limits_that_are_scattered() {
        let found = |path: &str, text: &str| limits::scattered(&[Source::new(path, text)]);
        let scattered = [
            ("src/engine/relay.rs", "const BATCH: u32 = 5_000;", "BATCH is a limit"),
            ("src/store/sqlite.rs", "pub(super) static MOST: usize = 2;", "MOST is a limit"),
            ("src/engine/relay.rs", "const HELD: Duration = Duration::MAX;", "HELD is a limit"),
            ("src/plan/read/gate.rs", "const ROWS: RangeInclusive<u32> = 0..=9;", "ROWS is a"),
            ("src/run/ready.rs", "impl X { const LASTS_MS: u64 = 5; }", "LASTS_MS is a limit"),
            ("src/run/ready.rs", "const TWICE: (u32, u32) = (2, 2);", "TWICE is a limit"),
            // Another file's exception.
            ("src/plan/mod.rs", "const FORMAT: u64 = 1;", "FORMAT is a limit"),
            ("src/cli/mod.rs", "fn f() { sleep(Duration::from_secs(5)) }", "without a name"),
            ("src/cli/mod.rs", "fn f() { time::Duration::from_millis(2 * n) }", "without a name"),
            ("src/cli/mod.rs", "fn f() { Duration::new(1, 0) }", "without a name"),
            ("src/engine/drive.rs", "fn f() { mpsc::channel(64) }", "without a name"),
            ("src/driver/mod.rs", "fn f() { Semaphore::new(4) }", "without a name"),
            ("src/engine/mod.rs", "fn f() { Policy { first_wait_ms: 50, n } }", "without a name"),
            ("src/bounds/store.rs", "pub const PAGE: u32 = 500;", "without a reason"),
        ];
        for (path, text, expected) in scattered {
            let found = found(path, text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].contains(expected), "{text}: {found:?}");
        }
        let fine = [
            ("src/store/wire.rs", "pub const FORMAT: u64 = 1;"),
            ("src/run/state.rs", "#[cfg(test)]\nmod tests { const MOVES: u64 = 150; }"),
            ("src/run/state.rs", "fn f<const N: usize>(x: [u8; N]) { let y: u64 = 5; }"),
            ("src/run/state.rs", "const WORDS: [&str; 6] = [\"1\"]; const fn f(x: u32) {}"),
            ("src/run/state.rs", "fn f() { Duration::from_millis(rest_ms); Duration::ZERO }"),
            ("src/run/state.rs", "fn f() { watch::channel(None); State { idle_ms: 0, n } }"),
            ("src/bounds/store.rs", "/// Why.\npub const PAGE: u32 = 500;"),
        ];
        for (path, text) in fine {
            assert_eq!(found(path, text), [""; 0], "{text}");
        }
        let outdated = limits::outdated(&[Source::new("src/store/wire.rs", "const X: u64 = 1;")]);
        assert!(outdated.contains(&"src/store/wire.rs has no FORMAT (Format)".to_owned()));
    }

    #[test]
    fn drivers_that_differ() {
        let source = |path: &str| Source::new(path, "");
        let names = ["dual_write", "error", "introspect", "session", "sink", "source", "verify"];
        let mut files: Vec<Source> =
            names.iter().map(|name| source(&format!("src/driver/sqlite/{name}.rs"))).collect();
        assert_eq!(rules::unlike_drivers(&files), [""; 0]);
        files.push(source("src/driver/mysql/session/mod.rs"));
        assert_eq!(rules::unlike_drivers(&files).len(), 6);
    }

    #[test]
    fn unfinished_work() {
        let marks = ["// FIX+ME later", "#[ign+ore]", "to+do!()", "db+g!(x)", "unimpl+emented!()"];
        for mark in marks {
            let text = mark.replace('+', "");
            let found =
                rules::left_open(&[Source::new("src/run/x.rs", &format!("fn f() {{}}\n{text}"))]);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with("src/run/x.rs:2"), "{found:?}");
        }
    }

    #[test]
    fn dependencies_unused_or_unwelcome() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\n# why\nserde-x = \"1\"\nhex = { version = \"1\" }\n\n[features]\na = []\n";
        let names = rules::names_in(manifest, "dependencies");
        assert_eq!(names, ["serde_x", "hex"]);
        let source = Source::new("src/a.rs", "fn f() { hex::encode(x) } // serde_x::y");
        assert_eq!(rules::unused(&names, &[source]), ["serde_x"]);

        let lock = "version = 4\n\n[[package]]\nname = \"anyhow\"\nversion = \"1\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n\n[[package]]\nname = \"own\"\nsource = \"git+https://example.com/own\"\n";
        let found = rules::unwelcome(lock, &["anyhow".to_owned()]);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn paths_are_taken_apart() {
        let tokens = rust::tokens(
            "use a::{b::{self, c as d}, e::*}; a::<u8>(); x::y::<Z>::w(); use p::q as r;",
        );
        let found: Vec<String> =
            rust::paths(&tokens).into_iter().map(|path| path.segments.join("::")).collect();
        assert_eq!(found, ["a::b", "a::b::c", "a::e::*", "x::y", "p::q"]);
    }
}

#[test]
fn every_code_that_a_driver_finds_is_explained() {
    let is_code = |word: &str| {
        word.len() == 4 && word.starts_with('D') && word[1..].bytes().all(|b| b.is_ascii_digit())
    };
    let sources = sources("src/driver");
    let words = sources.iter().flat_map(|source| source.text.split('"'));
    let codes: std::collections::BTreeSet<&str> = words.filter(|word| is_code(word)).collect();
    assert!(codes.len() > 5, "{codes:?}");
    for code in codes {
        assert!(phasegate::diagnostic::explain(code).is_some(), "{code} has no page");
    }
}
