//! References to secrets: found in text, checked, and resolved when a connection is made.
//!
//! Invariant: no error and no message holds a value, only the reference that leads to it.

use std::path::Path;

use secrecy::SecretString;

use crate::diagnostic::is_secret_name;

use super::files::read_bounded;

/// Why a reference can't be resolved.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It is written wrongly.
    #[error("`{0}` is not a reference: write ${{env:NAME}} or ${{file:path}}")]
    Malformed(String),
    /// The environment variable isn't there.
    #[error("the environment variable {0} is not set")]
    Unset(String),
    /// The environment variable holds bytes that are no text.
    #[error("the environment variable {0} is not UTF-8")]
    NotText(String),
    /// The file can't be read.
    #[error("the file {path} of a secret can't be read")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds bytes that are no text.
    #[error("the file {0} of a secret is not UTF-8")]
    FileNotText(String),
}

/// A piece of a text with references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    Literal(&'a str),
    Env(&'a str),
    File(&'a str),
    Malformed(&'a str),
}

/// Puts values in place of `${env:X}` and `${file:path}`; paths are relative to `base`. A line break at the end of a file
/// is no part of the secret.
pub fn resolve_secrets(text: &str, base: &Path) -> Result<SecretString, SecretError> {
    let mut resolved = String::new();
    for piece in pieces(text) {
        match piece {
            Piece::Literal(literal) => resolved.push_str(literal),
            Piece::Malformed(written) => return Err(SecretError::Malformed(written.to_owned())),
            Piece::Env(name) => match std::env::var(name) {
                Ok(value) => resolved.push_str(&value),
                Err(std::env::VarError::NotPresent) => {
                    return Err(SecretError::Unset(name.to_owned()));
                }
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(SecretError::NotText(name.to_owned()));
                }
            },
            Piece::File(path) => {
                let bytes = read_bounded(&base.join(path))
                    .map_err(|source| SecretError::Unreadable { path: path.to_owned(), source })?;
                let value = String::from_utf8(bytes)
                    .map_err(|_| SecretError::FileNotText(path.to_owned()))?;
                resolved.push_str(value.trim_end_matches(['\r', '\n']));
            }
        }
    }
    Ok(SecretString::from(resolved))
}

/// The first reference that is written wrongly, if any.
pub fn malformed(text: &str) -> Option<&str> {
    pieces(text).find_map(|piece| match piece {
        Piece::Malformed(written) => Some(written),
        _ => None,
    })
}

/// The part of a URL that holds a secret written out, if any: what it is, not its value.
pub fn literal_secret(url: &str) -> Option<String> {
    // References may hold any character, so they are put aside before the URL is taken apart.
    let masked: String = pieces(url)
        .map(|piece| if let Piece::Literal(text) = piece { text } else { "\u{1}" })
        .collect();
    let is_literal = |part: &str| !part.trim_matches('\u{1}').is_empty();
    let rest = masked.split_once("://").map_or(masked.as_str(), |(_, rest)| rest);
    let has_authority = rest.len() < masked.len();
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // A password may hold unescaped slashes; the last @ before the query ends the user's part in any reading.
    let user_end = rest[..rest.find('?').unwrap_or(rest.len())].rfind('@');
    if let Some(at) =
        user_end.filter(|_| has_authority).filter(|at| *at < end || rest[..*at].contains(':'))
        && let Some((_, password)) = rest[..at].split_once(':')
        && is_literal(password)
    {
        return Some("a password".to_owned());
    }
    // Connection strings that are no URL have such parameters, too.
    let parts = rest.split(|c: char| c.is_whitespace() || matches!(c, '?' | '&' | ';' | '#'));
    parts.into_iter().find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let is_secret = is_secret_name(key) && is_literal(value);
        is_secret.then(|| format!("the parameter `{}`", key.to_ascii_lowercase()))
    })
}

fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(start) = rest.find("${") else {
            return Some(Piece::Literal(std::mem::take(&mut rest)));
        };
        if start > 0 {
            let (literal, after) = rest.split_at(start);
            rest = after;
            return Some(Piece::Literal(literal));
        }
        let Some(end) = rest.find('}') else {
            return Some(Piece::Malformed(std::mem::take(&mut rest)));
        };
        let (reference, after) = rest.split_at(end + 1);
        rest = after;
        Some(reference_in(reference))
    })
}

/// What `${…}` refers to.
fn reference_in(written: &str) -> Piece<'_> {
    let inside = &written[2..written.len() - 1];
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match inside.split_once(':') {
        Some(("env", name)) if is_name(name) => Piece::Env(name),
        Some(("file", path)) if !path.trim().is_empty() => Piece::File(path),
        _ => Piece::Malformed(written),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn literal_secrets_are_found_and_references_are_none() {
        for (url, found) in [
            ("postgres://app:hunter2@db/app", Some("a password")),
            ("postgres://app:${env:PW}@db/app", None),
            ("postgres://app:pre${env:PW}@db/app", Some("a password")),
            ("postgres://app@db/app", None),
            ("postgres://db:5432/app", None),
            ("postgres://app:a/b@db/app", Some("a password")),
            ("postgres://db/app?password=x", Some("the parameter `password`")),
            ("postgres://db/app?sslmode=require&PASSWORD=x", Some("the parameter `password`")),
            ("postgres://db/app?password=${file:pw}", None),
            ("redis://:hunter2@cache:6379", Some("a password")),
            ("${env:URL}", None),
            ("sqlite://app.db?mode=rwc", None),
            ("sqlite://a@b:c.db", None),
            ("sqlite:app.db", None),
            ("sqlite:app.db?token=abc", Some("the parameter `token`")),
            ("host=db user=me password=hunter2", Some("the parameter `password`")),
            ("Server=tcp:db;User Id=me;Password=x;", Some("the parameter `password`")),
            ("jdbc:sqlserver://db;password=x", Some("the parameter `password`")),
            ("host=db password=${env:PW}", None),
        ] {
            assert_eq!(literal_secret(url).as_deref(), found, "{url}");
        }
    }

    #[test]
    fn references_are_resolved_and_errors_name_no_value() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pw"), "s3cret\n").unwrap();
        let resolved = resolve_secrets("db://u:${file:pw}@h", folder.path()).unwrap();
        assert_eq!(resolved.expose_secret(), "db://u:s3cret@h");
        let path = resolve_secrets("${env:PATH}", folder.path()).unwrap();
        assert_eq!(path.expose_secret(), std::env::var("PATH").unwrap());

        let error = resolve_secrets("s3cret${env:PHASEGATE_NOT_SET}", folder.path()).unwrap_err();
        assert_eq!(error.to_string(), "the environment variable PHASEGATE_NOT_SET is not set");
        let error = resolve_secrets("s3cret${file:none}", folder.path()).unwrap_err();
        assert!(!error.to_string().contains("s3cret"));
    }

    #[test]
    fn what_is_not_a_reference_is_malformed() {
        for text in ["${X}", "${env:}", "${env:A B}", "${file: }", "a${env:X", "${vault:x}"] {
            assert!(malformed(text).is_some(), "{text}");
        }
        assert_eq!(malformed("a ${env:X} ${file:../pw} $b }"), None);
    }
}
