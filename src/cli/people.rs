//! Who acts.

use std::fs;
use std::process::Command;

use crate::run::{Actor, Proof};

use super::answer::Failure;
use super::exit::Exit;

/// How an environment wants people to be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// By the name they give.
    #[default]
    Claimed,
    /// By the operating system's account.
    Os,
}

/// Who acts. A name that was given is refused where the environment asks for more.
pub fn actor(typed: Option<&str>, identity: Identity) -> Result<Actor, Failure> {
    let host = host();
    match (typed, identity) {
        (Some(name), Identity::Os) => Err(Failure::new(
            Exit::NotPermitted,
            format!(
                "--as {name} is not allowed here: this environment knows people by their account"
            ),
        )
        .help("leave --as out, and log in as the person who acts")),
        (Some(name), Identity::Claimed) => {
            let name = name.trim();
            if name.is_empty() || name.chars().any(char::is_control) {
                return Err(Failure::usage("--as needs a name in one line"));
            }
            Ok(Actor { name: name.to_owned(), proof: Proof::Claimed, host })
        }
        (None, Identity::Claimed) => Ok(Actor { name: account(), proof: Proof::Claimed, host }),
        (None, Identity::Os) => Ok(Actor { name: account(), proof: Proof::Os, host }),
    }
}

/// The account this process runs under, as the system knows it; never taken from the environment, which anybody can set.
fn account() -> String {
    let user_id = effective_user_id();
    let by_id = user_id.as_deref().and_then(name_in_passwd);
    by_id
        .or_else(name_by_id_command)
        .unwrap_or_else(|| user_id.map_or_else(|| "unknown".to_owned(), |id| format!("uid {id}")))
}

/// The effective user id from the kernel's own table; only on Linux.
fn effective_user_id() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1).map(str::to_owned)
}

fn name_in_passwd(user_id: &str) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == user_id).then(|| name.to_owned())
    })
}

/// For directories of people that stand in no file. The full path, so that `PATH` can't name another program.
fn name_by_id_command() -> Option<String> {
    let output = Command::new("/usr/bin/id").arg("-un").output().ok()?;
    let name = String::from_utf8(output.stdout).ok()?;
    let name = name.trim();
    (output.status.success() && !name.is_empty()).then(|| name.to_owned())
}

fn host() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn a_given_name_is_claimed_and_refused_where_accounts_count() {
        let given = actor(Some("ana"), Identity::Claimed).unwrap();
        assert_eq!((given.name.as_str(), given.proof), ("ana", Proof::Claimed));
        assert_eq!(actor(Some("ana"), Identity::Os).unwrap_err().exit, Exit::NotPermitted);
        assert_eq!(actor(Some(" \n"), Identity::Claimed).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn the_account_is_known_without_asking_the_environment() {
        let known = actor(None, Identity::Os).unwrap();
        assert_eq!(known.proof, Proof::Os);
        assert!(!known.name.is_empty());
        assert_eq!(actor(None, Identity::Claimed).unwrap().proof, Proof::Claimed);
    }
}
