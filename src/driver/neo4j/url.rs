//! The URL of a Neo4j database, and what it asks for.
//!
//! `bolt://user:password@host:7687/database?ca=/path/to/ca.pem`: with `bolt+s` and `neo4j+s` the server's certificate is checked
//! against the system's authorities, or against those of the file in `ca`; with `+ssc` it is taken as it is. The database is the
//! server's usual one where none is named. Absent on purpose: the URL's text in any error, since there may be a password in it.

use url::Url;

use crate::driver::Error;
use crate::run::FailureClass;

/// What a URL asks for.
#[derive(Clone)]
pub(super) struct Address {
    /// Scheme, host and port.
    pub(super) server: String,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) database: Option<String>,
    /// The file of authorities that the server's certificate is checked against.
    pub(super) ca: Option<String>,
    /// Whether the connection is encrypted.
    pub(super) is_encrypted: bool,
    /// Whether it is a cluster's, of which each server is asked what it is for.
    pub(super) is_routed: bool,
}

const SCHEMES: [&str; 6] = ["bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc"];

/// Reads a URL.
pub(super) fn read(text: &str) -> Result<Address, Error> {
    let refused = |message: &str| {
        Error::failed(FailureClass::Refused, message)
            .with_help("write it as bolt://user:password@host:7687/database, with neo4j:// for a cluster and +s for TLS")
    };
    let url = Url::parse(text).map_err(|_| refused("the URL can't be read"))?;
    if !SCHEMES.contains(&url.scheme()) {
        return Err(refused("the URL of a Neo4j database begins with bolt:// or neo4j://"));
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| refused("the URL names no host"))?;
    let plain = |text: &str| {
        percent_encoding::percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned)
    };
    let decoded = |text: &str| plain(text).map_err(|_| refused("the URL is no UTF-8 text"));
    let mut ca = None;
    for (key, value) in url.query_pairs() {
        if key != "ca" {
            return Err(refused("the URL has a parameter that is unknown; `ca` is the only one"));
        }
        ca = Some(value.into_owned());
    }
    let is_checked = url.scheme().ends_with("+s");
    if ca.is_some() && !is_checked {
        return Err(refused("`ca` is for bolt+s:// and neo4j+s://, which check certificates"));
    }
    let database = decoded(url.path().trim_matches('/'))?;
    if database.contains('/') {
        return Err(refused("the URL's path is more than the name of a database"));
    }
    Ok(Address {
        server: format!("{}://{host}:{}", url.scheme(), url.port().unwrap_or(7687)),
        user: decoded(url.username())?,
        password: decoded(url.password().unwrap_or_default())?,
        database: Some(database).filter(|name| !name.is_empty()),
        ca,
        is_encrypted: url.scheme().contains('+'),
        is_routed: url.scheme().starts_with("neo4j"),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_never_shown() {
        let address = read("bolt+s://ann:p%40ss@db.example:7777/leads?ca=/etc/ca.pem").unwrap();
        assert_eq!(address.server, "bolt+s://db.example:7777");
        assert_eq!((&*address.user, &*address.password), ("ann", "p@ss"));
        assert_eq!(address.database.as_deref(), Some("leads"));
        assert_eq!(address.ca.as_deref(), Some("/etc/ca.pem"));
        let address = read("neo4j://[::1]").unwrap();
        assert_eq!((&*address.server, address.database), ("neo4j://[::1]:7687", None));
        for url in [
            "http://ann:hunter2@host",
            "bolt:hunter2",
            "bolt://ann:hunter2@host/a/b",
            "bolt://ann:hunter2@host?tls=off",
            "bolt://ann:hunter2@host?ca=x",
            "hunter2",
        ] {
            let error = read(url).err().unwrap();
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
