//! SHA-256 over canonical JSON: the identity of plans, steps and released work.
//!
//! Canonical here means: object keys sorted, no blanks, numbers as `serde_json` prints them. `serde_json::Value` keeps
//! its maps sorted (the `preserve_order` feature is not used), so its compact form is canonical.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest, written as 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The digest of some bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(bytes)))
    }

    /// The digest of a value's canonical JSON. `domain` keeps equal values of different meaning apart.
    #[must_use]
    pub fn of(domain: &str, value: &serde_json::Value) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(domain.as_bytes());
        hasher.update([0]);
        hasher.update(value.to_string().as_bytes());
        Self(hex::encode(hasher.finalize()))
    }

    /// All 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, which is what people are shown.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }

    /// Whether `typed` names this digest: at least 8 of its first digits.
    #[must_use]
    pub fn is_named_by(&self, typed: &str) -> bool {
        typed.len() >= 8 && self.0.starts_with(&typed.to_ascii_lowercase())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_order_does_not_count_but_values_and_domains_do() {
        let one: serde_json::Value = serde_json::from_str(r#"{"a":1,"b":[1,2]}"#).expect("json");
        let two: serde_json::Value = serde_json::from_str(r#"{"b":[1,2],"a":1}"#).expect("json");
        let three: serde_json::Value = serde_json::from_str(r#"{"b":[2,1],"a":1}"#).expect("json");
        assert_eq!(Digest::of("plan", &one), Digest::of("plan", &two));
        assert_ne!(Digest::of("plan", &one), Digest::of("plan", &three));
        assert_ne!(Digest::of("plan", &one), Digest::of("step", &one));
    }
}
