//! Reading a whole store, and saying of every run whether it holds.
//!
//! Invariant: a run is judged by itself. What is wrong with one keeps no other from being read, as far as the database can
//! still read it.

use crate::bounds::store::LAPSES_WITHIN_MS;
use crate::run::{EnvironmentName, RunId, Timestamp};

use super::archive::{Archive, KeptLease};
use super::chain::{Flaw, FlawKind};
use super::{Error, History, Kept};

/// What a check found.
#[derive(Clone, Debug)]
pub struct Report {
    /// What people call the store.
    pub location: String,
    /// What names it in targets' claims; none where that can't be read.
    pub identity: Option<String>,
    /// What is wrong with the database as such.
    pub database: Vec<String>,
    /// Every run, newest first.
    pub runs: Vec<Checked>,
    /// What is wrong with leases that belong to no run.
    pub leases: Vec<String>,
}

/// A run that was checked.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The run.
    pub run: RunId,
    /// Its plan and environment, where its row could be read.
    pub of: Option<(String, EnvironmentName)>,
    /// How many records there are.
    pub records: usize,
    /// Whether it is over, by its row.
    pub ended: bool,
    /// What is wrong with its journal.
    pub flaw: Option<Flaw>,
    /// What is wrong with its leases.
    pub leases: Vec<String>,
}

impl Checked {
    /// Whether nothing is wrong with it.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.flaw.is_none() && self.leases.is_empty()
    }
}

impl Report {
    /// Whether nothing is wrong at all.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.database.is_empty()
            && self.leases.is_empty()
            && self.runs.iter().all(Checked::is_whole)
    }

    /// Whether all that is wrong is that a newer version of this program was here.
    #[must_use]
    pub fn is_only_newer(&self) -> bool {
        let newer = |run: &Checked| match &run.flaw {
            Some(flaw) => flaw.kind == FlawKind::Newer && run.leases.is_empty(),
            None => run.leases.is_empty(),
        };
        !self.is_whole()
            && self.database.is_empty()
            && self.leases.is_empty()
            && self.runs.iter().all(newer)
    }
}

/// Reads a store. Fails only when it can't be reached; everything else is in the report.
pub async fn check(archive: &mut dyn Archive) -> Result<Report, Error> {
    let mut database = Vec::new();
    let identity = told(archive.identity().await, &mut database)?;
    if let Some(found) = told(archive.integrity().await, &mut database)? {
        database.extend(found);
    }
    let names = told(archive.names().await, &mut database)?.unwrap_or_default();
    let mut runs = Vec::new();
    for run in names {
        runs.push(checked(&run, archive.run(&run).await)?);
    }
    let mut strays = Vec::new();
    let leases = told(archive.leases().await, &mut database)?.unwrap_or_default();
    let now = archive.now().await?;
    for lease in leases {
        let wrong = implausible(&lease, now);
        match runs.iter_mut().find(|run| run.run == lease.of.served()) {
            Some(run) => run.leases.extend(wrong),
            None => strays.push(format!("the lease of {} belongs to no run", lease.of)),
        }
    }
    database.dedup();
    Ok(Report { location: archive.location(), identity, database, runs, leases: strays })
}

/// What was read, or, where it is damaged, a sentence more.
fn told<T>(read: Result<T, Error>, database: &mut Vec<String>) -> Result<Option<T>, Error> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(Error::Damaged { message } | Error::Newer { message }) => {
            database.push(message);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn checked(run: &RunId, read: Result<Option<Kept>, Error>) -> Result<Checked, Error> {
    let unknown = |flaw| Checked {
        run: run.clone(),
        of: None,
        records: 0,
        ended: false,
        flaw: Some(flaw),
        leases: Vec::new(),
    };
    let kept = match read {
        Ok(Some(kept)) => kept,
        Ok(None) => {
            return Ok(unknown(Flaw::of_run(
                "there are records of it, and the run's row is missing",
            )));
        }
        Err(Error::Damaged { message }) => {
            return Ok(unknown(Flaw::of_run(format!("it can't be read: {message}"))));
        }
        Err(error) => return Err(error),
    };
    Ok(Checked {
        run: run.clone(),
        of: Some((kept.header.plan.clone(), kept.header.environment.clone())),
        records: kept.records.len(),
        ended: kept.header.ended,
        flaw: History::verify(kept).err(),
        leases: Vec::new(),
    })
}

/// What can't be right about a lease.
fn implausible(lease: &KeptLease, now: Timestamp) -> Option<String> {
    let row = &lease.row;
    let of = &lease.of;
    if row.token < 1 {
        return Some(format!("the lease of {of} has token {}, and tokens begin with 1", row.token));
    }
    row.holder_id.as_ref()?;
    if u32::try_from(row.holder_pid).is_err() {
        return Some(format!("the lease of {of} is held by process {}", row.holder_pid));
    }
    if row.expires_ms < row.renewed_ms {
        return Some(format!("the lease of {of} lapsed before it was renewed"));
    }
    let expires = Timestamp::from_unix_ms(row.expires_ms);
    (expires > now && expires.since_ms(now) > LAPSES_WITHIN_MS).then(|| {
        format!(
            "the lease of {of} doesn't lapse for another {} minutes: the clock may have been put back",
            expires.since_ms(now) / 60_000
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::store::lease::Row;

    fn lease(change: impl FnOnce(&mut Row)) -> KeptLease {
        let mut row = Row {
            token: 3,
            holder_id: Some("a".into()),
            holder_name: "ana".into(),
            holder_host: "box".into(),
            holder_boot: String::new(),
            holder_pid: 7,
            holder_pid_started: 0,
            since_ms: 1_000,
            renewed_ms: 2_000,
            expires_ms: 17_000,
        };
        change(&mut row);
        KeptLease { of: RunId::new("r"), row }
    }

    #[test]
    fn leases_that_can_not_be_are_named() {
        let now = Timestamp::from_unix_ms(5_000);
        let wrong = |change: fn(&mut Row)| implausible(&lease(change), now);
        assert_eq!(wrong(|_| {}), None);
        assert!(wrong(|row| row.token = 0).unwrap().contains("token 0"));
        assert!(wrong(|row| row.holder_pid = -1).unwrap().contains("process -1"));
        assert!(wrong(|row| row.expires_ms = 1_999).unwrap().contains("before it was renewed"));
        assert!(wrong(|row| row.expires_ms = 9_000_000).unwrap().contains("149 minutes"));
        // Given back: nobody is kept out.
        assert_eq!(
            wrong(|row| {
                row.holder_id = None;
                row.expires_ms = 9_000_000;
            }),
            None
        );
    }
}
