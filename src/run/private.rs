//! What of a sentence is the plan's data.
//!
//! Sentences name rows by their keys, and databases quote values in theirs. Whoever makes such a sentence says which parts of it
//! that are ([`Private`]), and these parts travel with it, so that they can be taken out of it wherever it is recorded or shown,
//! and whatever was put before or behind it meanwhile. Absent on purpose: finding data in a sentence that says nothing of it.

use serde::{Deserialize, Serialize};

use super::difference::{HIDDEN, Redact};

/// A part of a sentence that is the plan's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Private {
    /// From which setting on it is hidden.
    pub from: Redact,
    /// The part, as it stands in the sentence.
    pub text: String,
    /// What stands there instead, if anything is known that may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
}

impl Private {
    /// A part that names a row by its key.
    pub fn key(text: impl Into<String>) -> Self {
        Self { from: Redact::Keys, text: text.into(), instead: None }
    }

    /// The end of a sentence that names rows by their keys.
    pub fn keys(said: impl Into<String>) -> Self {
        Self::key(said).instead(format!("their keys: {HIDDEN}"))
    }

    /// A part that holds a value.
    pub fn value(text: impl Into<String>) -> Self {
        Self { from: Redact::Values, text: text.into(), instead: None }
    }

    /// The same part, for which something stands in.
    #[must_use]
    pub fn instead(mut self, instead: impl Into<String>) -> Self {
        self.instead = Some(instead.into());
        self
    }
}

/// Takes out of sentences what is to be hidden, and forgets what it was.
pub fn hide<'a>(
    private: &mut Vec<Private>,
    redact: Redact,
    sentences: impl IntoIterator<Item = &'a mut String>,
) {
    let is_hidden = |part: &Private| redact >= part.from && !redact.is_nothing();
    let mut hidden: Vec<Private> = private.iter().filter(|part| is_hidden(part)).cloned().collect();
    private.retain(|part| !is_hidden(part));
    // A part may stand inside another one.
    hidden.sort_by_key(|part| std::cmp::Reverse(part.text.len()));
    for sentence in sentences {
        for part in hidden.iter().filter(|part| !part.text.is_empty()) {
            *sentence = sentence.replace(&part.text, part.instead.as_deref().unwrap_or(HIDDEN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(redact: Redact) -> (String, usize) {
        let said = "invalid input syntax for type integer: \"secret\"";
        let mut private =
            vec![Private::key("id = 7"), Private::value(said).instead("a value is not valid")];
        let mut sentence = format!("once more: the row with id = 7 can't be copied: {said}");
        hide(&mut private, redact, [&mut sentence]);
        (sentence, private.len())
    }

    #[test]
    fn values_are_hidden_before_keys_and_whatever_stands_around_them() {
        assert!(hidden(Redact::Nothing).0.ends_with("\"secret\""));
        assert_eq!(hidden(Redact::Nothing).1, 2);
        let values = "once more: the row with id = 7 can't be copied: a value is not valid";
        assert_eq!(hidden(Redact::Values), (values.to_owned(), 1));
        let keys = "once more: the row with (redacted) can't be copied: a value is not valid";
        assert_eq!(hidden(Redact::Keys), (keys.to_owned(), 0));
    }

    #[test]
    fn what_was_hidden_stays_hidden_and_what_is_empty_hides_nothing() {
        let mut private = vec![Private::value(""), Private::value("ab"), Private::value("abc")];
        let mut sentence = "abc ab".to_owned();
        hide(&mut private, Redact::Values, [&mut sentence]);
        assert_eq!((sentence.as_str(), private.len()), ("(redacted) (redacted)", 0));
        hide(&mut private, Redact::Keys, [&mut sentence]);
        assert_eq!(sentence, "(redacted) (redacted)");
    }
}
