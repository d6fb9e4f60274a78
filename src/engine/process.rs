//! Who this process is, and whether another one is still alive.
//!
//! A lease is free at once when its holder is provably dead: same machine, and its process id is gone or belongs to a process
//! that started at another time; or the machine has been restarted since. Where the operating system doesn't tell (no
//! `/proc`), nobody is provably dead, and a lease lapses by time.

use std::fs;

use uuid::Uuid;

use crate::run::Timestamp;
use crate::store::{Claimant, Lease};

/// This process, as the holder of leases.
#[must_use]
pub fn this_process(name: &str) -> Claimant {
    let pid = std::process::id();
    Claimant {
        id: Uuid::now_v7().to_string(),
        name: name.to_owned(),
        host: gethostname::gethostname().to_string_lossy().into_owned(),
        boot: boot(),
        pid,
        pid_started: started(pid).unwrap_or(0),
    }
}

/// Whether a holder is provably dead, seen from this machine.
#[must_use]
pub fn is_dead(holder: &Claimant) -> bool {
    let here = gethostname::gethostname().to_string_lossy().into_owned();
    let boot = boot();
    if holder.host != here || boot.is_empty() || holder.boot.is_empty() {
        return false;
    }
    if holder.boot != boot {
        return true;
    }
    match started(holder.pid) {
        None => true,
        Some(started) => holder.pid_started != 0 && started != holder.pid_started,
    }
}

/// Whether this machine has a process of this id that is of this program: ids come again, and nobody is to be told to end another's.
#[must_use]
pub fn is_there(pid: u32) -> bool {
    let program = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    program(pid).is_some_and(|other| program(std::process::id()) == Some(other))
}

/// Whether the holder of a lease is gone for sure: its process is, seen from this machine, or its session, as the store saw.
#[must_use]
pub fn is_left(lease: &Lease) -> bool {
    lease.is_left_alone || is_dead(&lease.holder)
}

/// Whether somebody has a lease: it has not lapsed, and its holder may be alive.
#[must_use]
pub fn is_held(lease: &Lease, now: Timestamp) -> bool {
    lease.expires_at > now && !is_left(lease)
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// When a process started, in clock ticks since boot: the 22nd field of `/proc/PID/stat`. The second field is the
/// command in parentheses and may hold blanks, so fields are counted behind the last one.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let behind = stat.rsplit_once(')')?.1;
    let mut fields = behind.split_whitespace();
    // A zombie has ended: only its parent has not looked yet.
    if matches!(fields.next(), Some("Z" | "X")) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_another_start_time_is_another_process() {
        let me = this_process("me");
        assert!(!is_dead(&me));
        let reused = Claimant { pid_started: me.pid_started + 1, ..me.clone() };
        assert!(is_dead(&reused));
        let before_boot = Claimant { boot: "another".to_owned(), ..me.clone() };
        assert!(is_dead(&before_boot));
        let elsewhere = Claimant { host: "elsewhere".to_owned(), ..before_boot };
        assert!(!is_dead(&elsewhere));
    }
}
