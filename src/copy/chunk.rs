//! Key ranges. A chunk is `(lo, hi]`: its lower bound excluded, its upper bound included, everywhere.

use serde::{Deserialize, Serialize};

/// One value of a key, as the database gave it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// No value.
    Null,
    /// A whole number.
    Integer(i64),
    /// Another number. Equal only to the same bits' value; NaN is no key.
    Real(#[serde(with = "bits")] f64),
    /// Text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// A key: one cell per key column, in the key's order. Never ordered here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub Vec<Cell>);

impl Eq for Key {}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut first = true;
        for cell in &self.0 {
            if !first {
                f.write_str(", ")?;
            }
            first = false;
            match cell {
                Cell::Null => f.write_str("NULL")?,
                Cell::Integer(n) => write!(f, "{n}")?,
                Cell::Real(x) => write!(f, "{x}")?,
                Cell::Text(text) => write!(f, "{text:?}")?,
                Cell::Blob(bytes) => {
                    f.write_str("x'")?;
                    for byte in bytes {
                        write!(f, "{byte:02x}")?;
                    }
                    f.write_str("'")?;
                }
            }
        }
        Ok(())
    }
}

/// A range of keys, open at an end where the bound is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Excluded; `None`: from the first key.
    pub lo: Option<Key>,
    /// Included; `None`: to the last key.
    pub hi: Option<Key>,
}

/// A chunk with the number that the walker gave it, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Its number.
    pub seq: u64,
    /// Its bounds.
    pub chunk: Chunk,
}

/// How far the walker of a copy has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Walk {
    /// It has planned up to here.
    At {
        /// The last number given; 0 when none was.
        seq: u64,
        /// The last upper bound; `None` at the beginning.
        hi: Option<Key>,
    },
    /// It has planned everything.
    Ended {
        /// The last number given; 0 when the source was empty.
        seq: u64,
    },
}

/// A floating-point number as its bits: JSON has no infinity, which SQLite does store.
mod bits {
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
    pub(super) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(number.to_bits())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}
