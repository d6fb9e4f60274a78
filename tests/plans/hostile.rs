//! Texts that nobody would write: whatever they are, the reader answers.

use proptest::prelude::*;

use super::*;

fn seeds() -> Vec<String> {
    ["tests/plans/good", "tests/plans/later", "plans"]
        .iter()
        .flat_map(|folder| yaml_files(folder))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

/// Renders whatever is found too: a place outside the text must not matter.
fn survive(bytes: Vec<u8>) {
    let path = Path::new("tests/plans/mutated.yaml");
    match plan::parse(path, bytes.clone(), None, &default_environment()) {
        Ok(loaded) => drop(render_all(&loaded.warnings, &[loaded.source], Style::Plain)),
        Err(findings) => {
            assert!(findings.diagnostics.iter().any(|f| f.severity == Severity::Error));
            drop(shown(&findings));
        }
    }
    drop(Project::parse(path, bytes));
}

const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    "-",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "|",
    ">",
    "'",
    "\"",
    "\n",
    "\t",
    "#",
    "---\n",
    "...\n",
    "? ",
    "needs: [",
    "id: ",
    "gate: ",
    "${",
    "\u{feff}",
    "\u{0}",
    "ä",
    "99999999999999999999",
    "1e400",
    "null",
    "- - - ",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_plans_never_panic(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_u8..4, any::<u8>()), 1..8),
    ) {
        let seeds = seeds();
        let mut bytes = which.get(&seeds).clone().into_bytes();
        for (at, token, kind, byte) in edits {
            let at = at.index(bytes.len().max(1)).min(bytes.len());
            let token = token.get(TOKENS).as_bytes();
            match kind {
                0 => drop(bytes.splice(at..at, token.iter().copied())),
                1 => drop(bytes.splice(at..(at + usize::from(byte) / 8).min(bytes.len()), [])),
                2 => bytes.insert(at, byte),
                _ => {
                    let end = (at + usize::from(byte)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    drop(bytes.splice(at..at, copy));
                }
            }
        }
        survive(bytes);
    }
}

/// The quickstart with another expression, in the mapping and in a statement.
fn with_expression(expression: &str) -> String {
    let text = std::fs::read_to_string("plans/quickstart.yaml").unwrap();
    text.replace("lower(trim(email))", expression)
        .replace("DROP TABLE customers_v2", &format!("SELECT {expression}"))
}

#[test]
fn bombs_are_defused() {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (one, other) in [("b", "a"), ("c", "b"), ("d", "c"), ("e", "d"), ("f", "e"), ("g", "f")] {
        let nine = vec![format!("*{other}"); 9].join(", ");
        text.extend([one, ": &", one, " [", &nine, "]\n"]);
    }
    for hostile in [
        text,
        "[".repeat(500_000),
        "{a: ".repeat(100_000),
        "- ".repeat(300_000),
        "a: &a [*a]\n".to_owned(),
        "? ".repeat(200_000),
        format!("a: {}", "x".repeat(1_000_000)),
        "&a ".repeat(1000),
        format!("a: \"{}\"", "\\u0041".repeat(100_000)),
        with_expression(&"(".repeat(200_000)),
        with_expression(&format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000))),
        with_expression(&format!("a{}", " + a".repeat(100_000))),
        with_expression(&format!("{}a", "NOT ".repeat(100_000))),
        with_expression(&"CASE WHEN a THEN ".repeat(30_000)),
    ] {
        let began = std::time::Instant::now();
        survive(hostile.into_bytes());
        assert!(began.elapsed().as_secs() < 20, "too slow");
    }
}
