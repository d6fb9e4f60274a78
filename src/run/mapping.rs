//! How rows of one relation become rows of another, with the names that hold at this moment of a run.

use serde::{Deserialize, Serialize};

use super::action::RetireShape;
use super::name::{MappingName, TargetName};

/// A mapping between two relations of SQL databases. The expressions are in the source database's own language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Its name in the plan.
    pub name: MappingName,
    /// Where rows come from.
    pub from: Relation,
    /// Where rows go.
    pub into: Relation,
    /// Which columns are copied besides those listed.
    pub copy: CopyColumns,
    /// Column of `into` and the expression over the source row that gives its value, in plan order.
    pub columns: Vec<(String, String)>,
    /// Column of `from` and the expression over the target row that gives its value; only with `direction: both`.
    pub reverse: Vec<(String, String)>,
    /// Which side wins when one statement writes both.
    pub winner: Winner,
    /// Restricts the rows, as an expression over the source row.
    pub filter: Option<String>,
    /// What happens to rows that stood in `into` before.
    pub on_existing: OnExisting,
    /// What a deleted source row does to its copy.
    pub on_delete: OnDelete,
}

/// A table with its identifying key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// The database it is in.
    pub target: TargetName,
    /// Its name, as written in the plan: may be qualified by a schema where the database has them.
    pub table: String,
    /// The key columns, in order; those of `from` and `into` correspond by position.
    pub key: Vec<String>,
}

/// Which columns a mapping carries beside those it lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyColumns {
    /// All columns that have the same name on both sides.
    All,
    /// Only the listed ones (and the key).
    Listed,
}

/// Which side of a two-way mapping wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Winner {
    /// The new shape.
    New,
    /// The old shape.
    Old,
}

/// What the copy does with a row of `into` that was there before dual-write began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExisting {
    /// It stays as it is.
    Keep,
    /// Its mapped columns are written over.
    Update,
}

/// What a deleted source row does to its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDelete {
    /// The copy is deleted too.
    Delete,
    /// The mapped columns of the copy become NULL.
    Nullify,
    /// The copy stays.
    Ignore,
}

impl Mapping {
    /// Whether both sides are the same table, so that only listed columns are written.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.from.target == self.into.target && self.from.table == self.into.table
    }

    /// Whether both sides are in one database, so that rows never leave it.
    #[must_use]
    pub fn is_pushdown(&self) -> bool {
        self.from.target == self.into.target
    }

    /// The mapping under the names that hold after a `retire` of this shape.
    ///
    /// Column renames touch the names of written columns only; expressions are text of the user's and are not
    /// rewritten, which is why nothing evaluates them after a forward `retire`.
    #[must_use]
    pub fn retired(&self, shape: &RetireShape) -> Self {
        let mut after = self.clone();
        match shape {
            RetireShape::Table { old_name, take_name } => {
                let vacated = std::mem::replace(&mut after.from.table, old_name.clone());
                if *take_name {
                    after.into.table = vacated;
                }
            }
            RetireShape::Columns(columns) => {
                for column in columns {
                    let Some(taken) = &column.take_name else { continue };
                    for (name, _) in &mut after.columns {
                        if name == taken {
                            name.clone_from(&column.column);
                        }
                    }
                }
            }
        }
        after
    }
}
