//! "Did you mean": the name that was likely meant.

use crate::bounds::message::LIKENESS_MIN;

/// The candidate most like what was typed, if one is like it at all.
pub(crate) fn nearest<'a>(
    typed: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&typed, &name.to_ascii_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|one, two| one.0.total_cmp(&two.0).then_with(|| two.1.cmp(one.1)))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let names = ["leads", "leads_v2", "email", "status_code"];
        for (typed, meant) in [
            ("leeds", Some("leads")),
            ("Lead", Some("leads")),
            ("emial", Some("email")),
            ("status_cod", Some("status_code")),
            ("orders", None),
            ("id", None),
        ] {
            assert_eq!(nearest(typed, names), meant, "{typed}");
        }
    }
}
