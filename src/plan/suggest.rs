//! "Did you mean": the nearest of the names that could stand somewhere.

use crate::bounds::message::{NAMES_COMPARED_MAX, NAMES_LISTED_MAX, WORD_LIKENESS_MIN};

/// Advice for a name that isn't there: the nearest one, or the list of all.
pub fn advice<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(typed, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => listed(&known),
    }
}

/// The name most like `typed`, if any is like it.
pub fn nearest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', ' '], "-");
    let wanted = plain(typed);
    known
        .iter()
        .take(NAMES_COMPARED_MAX)
        .map(|name| {
            let name_plain = plain(name);
            let typing = strsim::normalized_damerau_levenshtein(&wanted, &name_plain);
            let words = strsim::jaro_winkler(&wanted, &name_plain) - 0.1;
            (typing.max(words), *name)
        })
        .filter(|(likeness, _)| *likeness >= WORD_LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn listed(known: &[&str]) -> String {
    if known.is_empty() {
        return "none is defined".to_owned();
    }
    let shown: Vec<String> =
        known.iter().take(NAMES_LISTED_MAX).map(|name| format!("`{name}`")).collect();
    let more = known.len().saturating_sub(NAMES_LISTED_MAX);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("known: {}{rest}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_something_else_is_not() {
        let known = ["backfill", "dual_write", "verify", "gate"];
        for (typed, meant) in [
            ("backfil", Some("backfill")),
            ("dualwrite", Some("dual_write")),
            ("dual-write", Some("dual_write")),
            ("Verify", Some("verify")),
            ("gaet", Some("gate")),
            ("approval", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, &known), meant, "{typed}");
        }
    }

    #[test]
    fn advice_lists_what_there_is_when_nothing_is_near() {
        assert_eq!(advice("zzz", ["a", "b"]), "known: `a`, `b`");
        assert_eq!(advice("zzz", []), "none is defined");
    }
}
