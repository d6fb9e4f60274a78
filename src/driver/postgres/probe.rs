//! What a dry run learns of a PostgreSQL database by looking.

use super::connection::Connections;
use super::error::failed;
use super::{rights, survey};
use crate::driver::{Error, Probed, Survey};
use sqlx::Row as _;

/// Looks, inside one READ ONLY transaction.
pub(super) async fn probe(connections: &Connections, survey: &Survey) -> Result<Probed, Error> {
    let mut reader = connections.snapshot().await?;
    let findings = survey::look(&mut reader, survey).await?;
    let schema = reader.schema().to_owned();
    let (rights, _) = rights::rights(reader.conn()?, survey, &schema).await?;
    let version: String = sqlx::query("SELECT current_setting('server_version')")
        .fetch_one(reader.conn()?)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed("read the server's version"))?;
    reader.release().await;
    let server = format!("PostgreSQL {version}");
    Ok(Probed { server, findings, rights, ..Probed::default() })
}
