//! Where a test makes the process die, or a commit seem to fail. Nothing in ordinary builds.

use super::Error;

/// `<database>::before-commit::<kind>` and `<database>::after-commit::<kind>`, with the action `return` (the process aborts),
/// `return(unknown)` (the outcome is reported as unknown) or `return(contention)`.
#[cfg(feature = "failpoints")]
pub(super) fn at_commit(database: &str, place: &str, kind: &str) -> Result<(), Error> {
    use crate::run::{Failure, FailureClass};

    let name = format!("{database}::{place}-commit::{kind}");
    fail::fail_point!(&name, |told: Option<String>| match told.as_deref() {
        Some("unknown") => Err(Error::Unknown(Failure {
            class: FailureClass::Unreachable,
            code: None,
            message: format!("fail point {name}"),
            detail: None,
            help: None,
            line: None,
            private: Vec::new(),
        })),
        Some("contention") => Err(Error::failed(FailureClass::Contention, "fail point")),
        _ => std::process::abort(),
    });
    Ok(())
}

/// Nothing.
#[cfg(not(feature = "failpoints"))]
#[allow(clippy::unnecessary_wraps)] // so that both forms are called alike
pub(super) const fn at_commit(_database: &str, _place: &str, _kind: &str) -> Result<(), Error> {
    Ok(())
}
