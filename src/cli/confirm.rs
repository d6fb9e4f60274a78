//! Questions before what can't be taken back easily.

use super::answer::Failure;
use super::session::Session;

/// Whether the person has agreed on the command line already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreed {
    /// With `--yes`.
    Yes,
    /// Not yet.
    NotYet,
}

impl From<bool> for Agreed {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::NotYet }
    }
}

/// Shows `what` and asks whether to go on. Where nobody can be asked, `--yes` is required.
pub async fn confirm(
    session: &Session,
    agreed: Agreed,
    what: &str,
    question: &str,
) -> Result<(), Failure> {
    session.printer.message(what);
    if agreed == Agreed::Yes {
        return Ok(());
    }
    if !session.printer.can_ask() {
        return Err(Failure::usage("nobody can be asked here, and --yes was not given")
            .help("read what is listed above, then give --yes"));
    }
    let (printer, question) = (session.printer.clone(), format!("{question} [y/N]"));
    // On a thread of its own, so that Ctrl-C is heard meanwhile.
    let asked = tokio::task::spawn_blocking(move || printer.ask(&question)).await;
    let answer = asked.ok().flatten();
    match answer.as_deref().map(str::to_ascii_lowercase).as_deref() {
        Some("y" | "yes") => Ok(()),
        _ => Err(Failure::usage("not confirmed: nothing was done")),
    }
}
