//! What SQLite knows of its own state: [`Signals`]. Nothing: a file has no replicas, sessions or slots.
//!
//! Absent on purpose: any guess. A throttle that could not be read holds, so plans that ask here are refused before they run.

use async_trait::async_trait;

use super::Sqlite;
use crate::copy::throttle::Part;
use crate::driver::{Error, Signals};
use crate::run::{FailureClass, Gauge};

#[async_trait]
impl Signals for Sqlite {
    async fn gauge(&self, gauge: Gauge, _tables: &[String]) -> Result<Vec<Part>, Error> {
        let message = format!("SQLite knows nothing of {}", gauge.as_str());
        Err(Error::failed(FailureClass::Refused, message)
            .with_help("ask with `query`, `http`, `file` or `window` instead"))
    }
}
