//! What an inventory of dependents says before something is dropped.

use super::dependents::Dependent;

/// What the catalogue itself ties to what goes.
pub(super) fn tied(found: &[Dependent]) -> Vec<String> {
    found.iter().filter(|it| it.is_certain()).map(Dependent::said).collect()
}

/// Functions that named what is gone, as the end of a sentence.
pub(super) fn by_name(found: &[Dependent]) -> String {
    let names: Vec<&str> =
        found.iter().filter(|it| !it.is_certain()).map(|it| it.name.as_str()).collect();
    match names.as_slice() {
        [] => String::new(),
        names => format!("; still named in the text of {}", names.join(", ")),
    }
}
