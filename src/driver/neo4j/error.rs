//! What the server and the way to it say, as our errors.
//!
//! The codes are those of <https://neo4j.com/docs/status-codes/5/errors/all-errors/>.

use neo4rs::{Neo4jError, Neo4jErrorKind};

use crate::driver::Error;
use crate::run::{Failure, FailureClass, Private, Statement};

/// Turns the driver's errors into ours, with what was being done.
pub(super) fn failed(doing: &'static str) -> impl Fn(neo4rs::Error) -> Error {
    move |error| Error::Failed(failure(doing, &error))
}

/// The error of a statement of the plan.
pub(super) fn at_statement(error: &neo4rs::Error, statement: &Statement) -> Error {
    let mut failure = failure("run the statement", error);
    if let neo4rs::Error::Neo4j(told) = error {
        failure.message = shown(told.message());
        failure.private = private(&failure.message);
        let below = line_within(told.message()).unwrap_or(1).saturating_sub(1);
        failure.line = Some(statement.line.saturating_add(below));
    } else {
        failure.line = Some(statement.line);
    }
    Error::Failed(failure)
}

/// Whether nobody knows what became of what was sent last: the answer didn't come.
pub(super) const fn is_lost(error: &neo4rs::Error) -> bool {
    !matches!(error, neo4rs::Error::Neo4j(_))
}

/// The answer to a COMMIT, or to what commits by itself, didn't come.
pub(super) fn unknown(error: &neo4rs::Error) -> Error {
    Error::Unknown(failure("hear whether it was committed", error))
}

/// Something of ours that can't be as it is.
pub(super) fn damaged(message: impl Into<String>) -> Error {
    Error::failed(FailureClass::Damaged, message)
}

/// The code of a server's error.
pub(super) fn code(error: &neo4rs::Error) -> Option<&str> {
    match error {
        neo4rs::Error::Neo4j(told) => Some(told.code()),
        _ => None,
    }
}

fn failure(doing: &str, error: &neo4rs::Error) -> Failure {
    let (class, help) = judged(error);
    let message = match error {
        neo4rs::Error::Neo4j(told) => format!("could not {doing}: {}", shown(told.message())),
        neo4rs::Error::ConnectionTimedOut => {
            format!("could not {doing}: the server did not answer")
        }
        neo4rs::Error::IOError { detail } => format!("could not {doing}: {detail}"),
        other => format!("could not {doing}: {other}"),
    };
    Failure {
        class,
        code: code(error).map(str::to_owned),
        private: private(&message),
        message,
        detail: None,
        help: help.map(str::to_owned),
        line: None,
    }
}

fn judged(error: &neo4rs::Error) -> (FailureClass, Option<&'static str>) {
    match error {
        neo4rs::Error::Neo4j(told) => by_code(told),
        neo4rs::Error::AuthenticationError(_) => (
            FailureClass::NotPermitted,
            Some(
                "check user and password in the target's URL; after several tries the server waits some seconds",
            ),
        ),
        neo4rs::Error::ProtocolMismatch(_) | neo4rs::Error::UnsupportedVersion(..) => (
            FailureClass::Unreachable,
            Some(
                "check the port: Bolt is 7687 as a rule, and 7474 is HTTP; a port with TLS wants bolt+s:// or neo4j+s://",
            ),
        ),
        neo4rs::Error::IOError { detail } if detail.kind() == std::io::ErrorKind::Interrupted => {
            (FailureClass::Cancelled, None)
        }
        neo4rs::Error::IOError { detail } if is_about_tls(detail) => (
            FailureClass::Unreachable,
            Some(
                "check the URL: a port without TLS wants bolt:// or neo4j://; a certificate of your own authority wants ?ca=FILE",
            ),
        ),
        neo4rs::Error::IOError { .. }
        | neo4rs::Error::ConnectionError
        | neo4rs::Error::ConnectionTimedOut
        | neo4rs::Error::ConnectionClosed(_)
        | neo4rs::Error::IncompleteBoltExchange => (
            FailureClass::Unreachable,
            Some(
                "see that the server runs and can be reached from here, then go on with `phasegate run`",
            ),
        ),
        neo4rs::Error::RequestIgnoredError | neo4rs::Error::Ignored(_) => (
            FailureClass::Unreachable,
            Some(
                "the server is out of memory or overloaded: see its log, then go on with `phasegate run`",
            ),
        ),
        neo4rs::Error::ServerUnavailableError(_)
        | neo4rs::Error::RoutingTableError(_)
        | neo4rs::Error::RoutingTableRefreshFailed(_) => (
            FailureClass::Unreachable,
            Some(
                "see that the cluster runs and can be reached from here, and with or without TLS as the URL says (neo4j+s:// or neo4j://)",
            ),
        ),
        _ => (FailureClass::Refused, None),
    }
}

/// Whether both don't agree on TLS: what is said is none, or no certificate that is trusted; or the server hangs up, as one does that
/// expects Bolt as it is.
fn is_about_tls(detail: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    match detail.kind() {
        InvalidData => true,
        UnexpectedEof => detail.to_string().contains("tls handshake"),
        _ => false,
    }
}

fn by_code(told: &Neo4jError) -> (FailureClass, Option<&'static str>) {
    let code = told.code();
    let is = |part: &str| code.ends_with(part);
    if is(".MemoryPoolOutOfMemoryError") || is(".TransactionOutOfMemoryError") {
        let help = "have the statement do less at once, or give the server more memory (dbms.memory.transaction.total.max)";
        return (FailureClass::Refused, Some(help));
    }
    if is(INDEX_WITH_NAME) || is(".IndexAlreadyExists") {
        let help = "see SHOW INDEXES; one without owningConstraint that nobody has made is left of a server that ended while it made a \
                    constraint: DROP INDEX it, then `phasegate retry`";
        return (FailureClass::Refused, Some(help));
    }
    if is(".DatabaseUnavailable") {
        return (
            FailureClass::Unreachable,
            Some("see that the database is started (SHOW DATABASES)"),
        );
    }
    if is(".DatabaseNotFound") {
        return (
            FailureClass::Refused,
            Some("name a database that is there in the target's URL (SHOW DATABASES)"),
        );
    }
    if is(".AccessMode")
        || is(".ForbiddenOnReadOnlyDatabase")
        || is(".WriteOnReadOnlyAccessDatabase")
    {
        return (
            FailureClass::NotPermitted,
            Some("the database takes no writes here: see SHOW DATABASES, access and role"),
        );
    }
    if code.contains(".Security.") {
        return (FailureClass::NotPermitted, Some(ROLE_LACKS));
    }
    if is(".TransactionTimedOut") || is(".TransactionTimedOutClientConfiguration") {
        return (
            FailureClass::TimedOut,
            Some("the server ends transactions after db.transaction.timeout"),
        );
    }
    if is(".Terminated") || is(".TransactionTerminated") {
        return (FailureClass::Cancelled, None);
    }
    if is(".EntityNotFound") {
        // Somebody has removed what was being waited for.
        return (FailureClass::Contention, None);
    }
    if is(".DiskFull") || told.message().contains("No space left") {
        return (FailureClass::Full, Some("make room on the server's disk"));
    }
    match told.kind() {
        Neo4jErrorKind::Transient => (FailureClass::Contention, None),
        _ => (FailureClass::Refused, None),
    }
}

/// Whether a failure is about what was to be written. Memory that all transactions share is not, nor what the server calls a
/// fault of its own: both may pass, and both may come of how much was to be done at once. But for one fault that isn't the server's: a
/// value that is longer than its indexes take.
pub(super) fn is_about_rows(failure: &Failure) -> bool {
    let code = failure.code.as_deref().unwrap_or_default();
    let is_about_server = !failure.message.contains("too large to index")
        && (code.starts_with("Neo.DatabaseError.")
            || code.ends_with(".MemoryPoolOutOfMemoryError"));
    matches!(failure.class, FailureClass::Refused | FailureClass::Unsafe) && !is_about_server
}

/// Whether an index has the name that was to be given.
pub(super) fn is_name_taken(error: &Error) -> bool {
    matches!(error, Error::Failed(failure) if failure.code.as_deref().is_some_and(|code| code.ends_with(INDEX_WITH_NAME)))
}

const INDEX_WITH_NAME: &str = ".IndexWithNameAlreadyExists";

const ROLE_LACKS: &str =
    "the target's role lacks a right for this: see SHOW CURRENT USER, and GRANT it on the server";

/// What the server says as one sentence, without the statement, which it repeats in quotes on lines of its own.
pub(super) fn shown(message: &str) -> String {
    let lines = message.lines().take_while(|line| !line.starts_with('"'));
    let said: Vec<&str> = lines
        .map(|line| line.split(" (line ").next().unwrap_or(line).trim())
        .filter(|line| !line.is_empty())
        .collect();
    said.join(" ").trim_end_matches('.').to_owned()
}

/// The value that a constraint is about: the server names it behind the property, at the end.
fn private(message: &str) -> Vec<Private> {
    let behind = message.split_once("property `").and_then(|(_, rest)| rest.split_once(" = "));
    behind.map(|(_, value)| Private::value(value)).into_iter().collect()
}

/// The line within the statement that the server names.
fn line_within(message: &str) -> Option<u32> {
    let behind = message.split("(line ").nth(1)?;
    behind.split(',').next()?.trim().parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_the_server_is_not_about_rows() {
        for (class, code, expected) in [
            (
                FailureClass::Refused,
                Some("Neo.ClientError.Schema.ConstraintValidationFailed"),
                true,
            ),
            (
                FailureClass::Refused,
                Some("Neo.TransientError.General.TransactionOutOfMemoryError"),
                true,
            ),
            (FailureClass::Refused, None, true),
            (FailureClass::Unsafe, None, true),
            (
                FailureClass::Refused,
                Some("Neo.TransientError.General.MemoryPoolOutOfMemoryError"),
                false,
            ),
            (FailureClass::Refused, Some("Neo.DatabaseError.General.UnknownError"), false),
            (
                FailureClass::TimedOut,
                Some("Neo.ClientError.Transaction.TransactionTimedOut"),
                false,
            ),
            (FailureClass::Unreachable, None, false),
        ] {
            let Error::Failed(mut failure) = Error::failed(class, "no") else { panic!() };
            failure.code = code.map(str::to_owned);
            assert_eq!(is_about_rows(&failure), expected, "{failure:?}");
        }
        let told = "could not apply changes: Property value is too large to index, please see index documentation for limitations";
        let Error::Failed(mut failure) = Error::failed(FailureClass::Refused, told) else {
            panic!()
        };
        failure.code = Some("Neo.DatabaseError.Statement.ExecutionFailed".to_owned());
        assert!(is_about_rows(&failure));
        let (class, _) = judged(&neo4rs::Error::RequestIgnoredError);
        assert_eq!(class, FailureClass::Unreachable);
    }
}
