//! Neo4j, from version 5.23.
//!
//! Every change happens in a transaction of `connection`, which checks the fence; what is done is entered in `ledger`. The other files
//! are the traits of the driver.

use neo4rs::query;
use secrecy::ExposeSecret as _;

use crate::driver::{Access, Error};
use crate::run::FailureClass;

mod answered;
mod catalogue;
mod chunks;
mod claim;
#[cfg(test)]
mod client_tests;
mod connection;
#[cfg(test)]
mod copy_tests;
mod dual_write;
mod error;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod hazard_tests;
mod introspect;
mod landing;
mod ledger;
mod retire;
#[cfg(test)]
mod retire_tests;
mod script;
mod session;
#[cfg(test)]
mod session_tests;
mod shape;
mod sink;
mod source;
mod survey;
mod undelayed;
mod url;
mod values;
mod verify;

use connection::{Ask as _, Connections};

/// The first version whose Cypher this speaks: before it, `CALL` took no variables in brackets.
const OLDEST: (u32, u32) = (5, 23);

/// A Neo4j database.
#[derive(Debug)]
pub struct Neo4j {
    connections: Connections,
}

impl Neo4j {
    /// Opens the database of a URL. Looks at the server and changes nothing.
    pub async fn open(url: &secrecy::SecretString, access: Access) -> Result<Self, Error> {
        let address = url::read(url.expose_secret())?;
        if let Some(ca) = &address.ca
            && tokio::fs::metadata(ca).await.is_err()
        {
            let message = format!("there is no file {ca}, which `ca` in the URL names");
            return Err(Error::failed(FailureClass::Refused, message));
        }
        if address.is_encrypted {
            // There may be one already; without any, or with two to choose from, the library panics.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let neo4j = Self { connections: Connections::new(address, access) };
        neo4j.look().await?;
        Ok(neo4j)
    }

    /// Sees that it is a server that this can work with.
    async fn look(&self) -> Result<(), Error> {
        let version = self.version().await?;
        let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
        // From 2025 on versions are years.
        if parts.next().zip(parts.next()).is_some_and(|version| version >= OLDEST) {
            return Ok(());
        }
        let (major, minor) = OLDEST;
        let message = format!(
            "the server is Neo4j {version}, and {major}.{minor} is the oldest that can be used"
        );
        Err(Error::failed(FailureClass::Refused, message))
    }

    /// The server's version, as it writes it.
    async fn version(&self) -> Result<String, Error> {
        let mut reader = self.connections.read().await?;
        let ask = query("CALL dbms.components() YIELD versions RETURN versions[0] AS version");
        let rows = reader.rows(ask).await.map_err(error::failed("read the server's version"))?;
        let row = rows.first().ok_or_else(|| error::damaged("the server tells no version"))?;
        let version = ledger::get(row, "version")?;
        reader.release();
        Ok(version)
    }
}
