//! PostgreSQL's errors as the engine understands them.
//!
//! Every error keeps its SQLSTATE, message, detail and hint; the class decides what the engine does next. Absent on
//! purpose: the URL, which may hold a password, and sqlx's own `Display`, which shows lines of the server's source.

use std::io::ErrorKind;

use sqlx::postgres::{PgDatabaseError, PgErrorPosition};

use super::hints;
use crate::driver::Error;
use crate::driver::error::ROLE;
use crate::run::{Failure, FailureClass, Private};

/// The server's error, if it was the server that gave one.
pub(super) fn given(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// The SQLSTATE of an error that the server gave.
pub(super) fn code(error: &sqlx::Error) -> Option<&str> {
    given(error).map(PgDatabaseError::code)
}

/// What an SQLSTATE means for the engine. From <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn class(code: &str) -> FailureClass {
    match (code.get(..2).unwrap_or_default(), code) {
        // Lock not available, deadlock, serialisation failure.
        (_, "55P03" | "40P01" | "40001") => FailureClass::Contention,
        // Cancelled: by us, or by a statement timeout that is the server's or the role's.
        (_, "57014") => FailureClass::Cancelled,
        // Not permitted: privileges, row security, read-only transactions, and wrong passwords.
        (_, "42501" | "25006") | ("28", _) => FailureClass::NotPermitted,
        (_, "53100") => FailureClass::Full,
        // Out of memory or connections, shut down, starting up, connection exceptions.
        ("53" | "08" | "58", _)
        | (_, "57P01" | "57P02" | "57P03" | "57P04" | "25P03" | "57P05") => {
            FailureClass::Unreachable
        }
        ("XX", _) => FailureClass::Damaged,
        _ => FailureClass::Refused,
    }
}

/// What to do about an SQLSTATE where the server gives no hint.
fn help(code: &str) -> Option<&'static str> {
    Some(match code {
        "55P03" => {
            "another session holds the lock: it goes on when that session lets go, or is ended"
        }
        "53300" => {
            "raise max_connections or the role's CONNECTION LIMIT, or let other clients end, then go on"
        }
        "53100" => "free space on the server's disk, then retry",
        "28P01" | "28000" => {
            "check the user and password that the target's URL refers to, and pg_hba.conf"
        }
        "3D000" => "check the database name in the target's URL",
        "57P03" => "the server is starting up or shutting down; go on when it is there",
        "42501" => "grant the privilege to the role, or let a role that has it run this",
        "25006" => {
            "the server or the role is read-only: name the primary, or a role without default_transaction_read_only"
        }
        "57P01" | "57P02" | "08006" => "the server ended the session; go on when it is there",
        "25P03" => {
            "our process did not answer for 10 s, so the server ended its transaction; go on"
        }
        "40P01" => "two sessions waited for each other; it is tried again",
        "40001" => "another session changed the same rows; it is tried again",
        _ => return None,
    })
}

/// What to do about an error of which code and message tell. Whoever opened the database puts the role in (`driver::open`).
fn help_for(code: &str, message: &str) -> Option<String> {
    if let Some(table) = hints::secured(message) {
        return Some(hints::row_security(table, ROLE));
    }
    if let Some(object) = hints::denied(message) {
        return Some(hints::grant_on(object, ROLE, ""));
    }
    if let Some((kind, name)) = hints::owned(message) {
        return Some(format!("let {ROLE} own the {kind} {name}"));
    }
    if let Some(parameter) = message.strip_prefix("unsupported startup parameter") {
        let parameter = parameter.trim_start_matches([':', ' ']);
        return Some(format!(
            "a pooler answers for the server: have it pass over {parameter} (PgBouncer: ignore_startup_parameters) and lend whole \
             sessions, or name the server itself"
        ));
    }
    help(code).map(str::to_owned)
}

/// The fields of a failure from an error of sqlx.
pub(super) fn failure(error: &sqlx::Error) -> Failure {
    let Some(given) = given(error) else {
        return Failure {
            class: class_of_client(error),
            code: None,
            message: said_by_client(error),
            detail: None,
            help: (class_of_client(error) == FailureClass::Unreachable).then(|| {
                "see whether the server runs and the target's URL leads to it; what is done is recorded, and the same \
                 command goes on"
                    .to_owned()
            }),
            line: None,
            private: Vec::new(),
        };
    };
    let timed_out = given.code() == "57014" && given.message().contains("statement timeout");
    let private = private(given);
    Failure {
        class: if timed_out { FailureClass::TimedOut } else { class(given.code()) },
        code: Some(given.code().to_owned()),
        message: given.message().to_owned(),
        detail: given.detail().map(str::to_owned),
        help: helps(given),
        line: None,
        private,
    }
}

/// What the server says helps, or what we know.
fn helps(given: &PgDatabaseError) -> Option<String> {
    if given.code() == "2BP01" {
        return Some(hints::dependents(given.detail()));
    }
    given.hint().map(str::to_owned).or_else(|| help_for(given.code(), given.message()))
}

/// What an error says that is taken from rows. Messages of constraints name constraints and columns, and their details the
/// values; what a value can't be converted to or computed with, and what a function raises, quotes values in the message itself.
fn private(given: &PgDatabaseError) -> Vec<Private> {
    let code = given.code();
    // Our own triggers name tables and mappings only.
    let is_raised =
        given.routine() == Some("exec_stmt_raise") && !given.message().starts_with("phasegate: ");
    // Extensions' own types complain by XX000.
    let quotes =
        is_raised || code == "XX000" || matches!(code.get(..2), Some("22" | "P0" | "38" | "39"));
    let message = quotes.then(|| Private::value(given.message()).instead(in_general(code)));
    let details = quotes || code.starts_with("23");
    let detail = given.detail().filter(|_| details).map(Private::value);
    let hint = given.hint().filter(|_| is_raised).map(Private::value);
    message.into_iter().chain(detail).chain(hint).collect()
}

/// What an SQLSTATE says of a value without showing it.
fn in_general(code: &str) -> &'static str {
    match code {
        "22001" => "a value is too long for its type (the server's words are redacted)",
        "22003" | "22008" => "a value is out of range (the server's words are redacted)",
        "22012" => "division by zero",
        "22P02" | "22007" => {
            "a text can't be converted to its type (the server's words are redacted)"
        }
        _ if code.starts_with("22") => "a value was refused (the server's words are redacted)",
        _ => "it was refused (the server's words are redacted)",
    }
}

fn class_of_client(error: &sqlx::Error) -> FailureClass {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => FailureClass::Unreachable,
        _ => FailureClass::Refused,
    }
}

/// What a client error says. What stands in a configuration error is a part of the URL, so it is not shown.
fn said_by_client(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => {
            "the URL has a parameter that is not valid".to_owned()
        }
        sqlx::Error::Io(cause) => match cause.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
                format!("the connection broke: {cause}")
            }
            _ => cause.to_string(),
        },
        sqlx::Error::Protocol(_) => "the connection broke in the middle of an answer".to_owned(),
        other => other.to_string(),
    }
}

/// Whether the server has refused a statement before any of it ran: it isn't valid, names what isn't there, or is not permitted. What
/// goes wrong in the middle of a procedure has a context.
pub(super) fn is_refused_unrun(error: &sqlx::Error) -> bool {
    given(error).is_some_and(|error| error.code().starts_with("42") && error.r#where().is_none())
}

/// The character of the statement that the server points at, counted from 1.
pub(super) fn position(error: &sqlx::Error) -> Option<usize> {
    match given(error)?.position()? {
        PgErrorPosition::Original(at) => Some(at),
        PgErrorPosition::Internal { .. } => None,
    }
}

/// An error of ours from one of sqlx. `doing` completes "could not …" for statements that are ours.
pub(super) fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |error| {
        let mut failure = failure(&error);
        failure.message = format!("could not {doing}: {}", failure.message);
        Error::Failed(failure)
    }
}

/// An error of ours while connecting: a database that isn't there or takes nobody in can't be reached.
pub(super) fn unconnected(error: sqlx::Error) -> Error {
    match failed("connect")(error) {
        Error::Failed(failure) if failure.class == FailureClass::Refused => {
            Error::Failed(Failure { class: FailureClass::Unreachable, ..failure })
        }
        other => other,
    }
}

/// An error of ours for a statement that the plan's author wrote: the server's message stands alone.
pub(super) fn refused(error: &sqlx::Error) -> Error {
    Error::Failed(failure(error))
}

/// Something in our own tables that we never write.
pub(super) fn damaged(what: impl Into<String>) -> Error {
    Error::failed(FailureClass::Damaged, what)
        .with_help("somebody else wrote to the tables of our schema")
}

/// Whether an error leaves it open what became of the statement: the connection broke, or the session was ended.
pub(super) fn is_lost(error: &sqlx::Error) -> bool {
    match code(error) {
        Some(code) => {
            code.starts_with("08") || matches!(code, "57P01" | "57P02" | "57P05" | "25P03")
        }
        None => class_of_client(error) == FailureClass::Unreachable,
    }
}

/// An error of ours for a statement of which nobody knows yet whether it was done.
pub(super) fn unknown(error: &sqlx::Error) -> Error {
    Error::Unknown(failure(error))
}

/// What a failed COMMIT means. What the server says of it, it says before it commits; when no answer came, or the session
/// was ended, it may have been either way.
pub(super) fn commit_failed(error: &sqlx::Error) -> Error {
    let failure = failure(error);
    match (given(error).is_some(), failure.class) {
        (true, class) if class != FailureClass::Unreachable => Error::Failed(failure),
        _ => Error::Unknown(failure),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::fixture::{Database, mapping};
    use super::*;
    use crate::driver::{Access, open};
    use crate::run::Engine;

    #[tokio::test]
    async fn advice_names_the_role_that_acts() {
        let Some(database) = Database::with(
            "CREATE TABLE secret (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)",
        )
        .await
        else {
            return;
        };
        let role = format!("Odd role {}", uuid::Uuid::now_v7().simple());
        database.run(&format!("CREATE ROLE \"{role}\" LOGIN")).await;
        let mut url = url::Url::parse(&database.url).unwrap();
        url.set_username(&role).unwrap();
        let url = String::from(url).into();
        let driver = open(Engine::Postgres, &url, None, Access::ReadOnly).await.unwrap();
        let pairs = mapping(("secret", &["id"]), ("other", &["id"]));
        let Err(Error::Failed(refused)) = driver.verify_bound(&pairs, None, 1).await else {
            panic!()
        };
        let help = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE secret TO \"{role}\"");
        assert_eq!(refused.help, Some(help));
        driver.close().await;
        database.run(&format!("DROP ROLE \"{role}\"")).await;
    }

    #[test]
    fn a_pooler_that_knows_a_parameter_not_is_told_from_a_server() {
        let help = help_for("08P01", "unsupported startup parameter: extra_float_digits").unwrap();
        assert!(help.contains("have it pass over extra_float_digits (PgBouncer:"), "{help}");
        assert_eq!(help_for("08P01", "another one"), None);
    }

    #[test]
    fn codes_have_classes() {
        let table = [
            ("55P03", FailureClass::Contention),
            ("40P01", FailureClass::Contention),
            ("40001", FailureClass::Contention),
            ("42501", FailureClass::NotPermitted),
            ("28P01", FailureClass::NotPermitted),
            ("53100", FailureClass::Full),
            ("53300", FailureClass::Unreachable),
            ("57P01", FailureClass::Unreachable),
            ("08006", FailureClass::Unreachable),
            ("57014", FailureClass::Cancelled),
            ("XX001", FailureClass::Damaged),
            ("42P01", FailureClass::Refused),
            ("23505", FailureClass::Refused),
        ];
        for (code, expected) in table {
            assert_eq!(class(code), expected, "{code}");
        }
    }
}
