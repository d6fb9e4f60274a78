//! What a mapping comes down to on its tables, kept while neither changes.
//!
//! Reading the catalogue takes a millisecond, which each chunk of a copy would pay again. SQLite counts the changes of its
//! schema, whoever makes them, so a shape that was made under the present count is still true.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::catalogue;
use super::error::failed;
use super::shape::Shape;
use crate::bounds::sqlite::SHAPES_MAX;
use crate::driver::Error;
use crate::run::{FailureClass, Mapping};

/// Shapes made before.
#[derive(Debug, Default)]
pub(super) struct Shapes(Mutex<Vec<Kept>>);

#[derive(Debug)]
struct Kept {
    schema_version: i64,
    mapping: Mapping,
    shape: Arc<Shape>,
}

/// The shape of a mapping on its tables as they are now. Inside a transaction, or the answer may be old at once; but not in
/// one that has changed the schema itself, whose count would come again if it were rolled back.
pub(super) async fn shape(
    shapes: &Shapes,
    conn: &mut SqliteConnection,
    mapping: &Mapping,
) -> Result<Arc<Shape>, Error> {
    let row = sqlx::query("PRAGMA schema_version").fetch_one(&mut *conn).await;
    let row = row.map_err(failed("read the schema's version"))?;
    let schema_version: i64 = row.try_get(0).map_err(failed("read the schema's version"))?;
    if let Some(shape) = shapes.find(schema_version, mapping) {
        return Ok(shape);
    }
    let from = table(conn, &mapping.from.table).await?;
    let into = table(conn, &mapping.into.table).await?;
    let shape = Arc::new(Shape::resolve(mapping, &from, &into)?);
    shapes.keep(Kept { schema_version, mapping: mapping.clone(), shape: Arc::clone(&shape) });
    Ok(shape)
}

impl Shapes {
    fn find(&self, schema_version: i64, mapping: &Mapping) -> Option<Arc<Shape>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter()
            .find(|kept| kept.schema_version == schema_version && kept.mapping == *mapping)
            .map(|kept| Arc::clone(&kept.shape))
    }

    fn keep(&self, new: Kept) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| kept.schema_version == new.schema_version);
        if kept.len() == SHAPES_MAX {
            kept.remove(0);
        }
        kept.push(new);
    }
}

/// A table of a mapping, which must be there.
async fn table(conn: &mut SqliteConnection, name: &str) -> Result<catalogue::Table, Error> {
    catalogue::table(conn, name).await?.ok_or_else(|| {
        Error::failed(FailureClass::Stale, format!("there is no table {name} any more"))
    })
}
