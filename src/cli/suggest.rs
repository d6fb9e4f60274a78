//! "Did you mean": the likeliest of some names for one that isn't there.

use crate::bounds::message::LIKENESS_MIN;

/// The name most like the one typed, if one is like it at all.
#[must_use]
pub fn nearest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = names.into_iter().map(|name| (strsim::jaro_winkler(typed, name), name));
    let best = scored.max_by(|one, two| one.0.total_cmp(&two.0))?;
    (best.0 >= LIKENESS_MIN).then_some(best.1)
}

/// A help text: what was probably meant, or what there is.
#[must_use]
pub fn help(typed: &str, names: &[&str]) -> String {
    match nearest(typed, names.iter().copied()) {
        Some(name) => format!("did you mean {name}?"),
        None if names.is_empty() => "there are none".to_owned(),
        None => format!("there are: {}", names.join(", ")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let names = ["backfill", "verify", "contract"];
        assert_eq!(nearest("backfil", names), Some("backfill"));
        assert_eq!(nearest("contarct", names), Some("contract"));
        assert_eq!(nearest("zebra", names), None);
        assert_eq!(help("zebra", &names), "there are: backfill, verify, contract");
    }
}
