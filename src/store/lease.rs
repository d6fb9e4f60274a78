//! The rules of a lease, as pure decisions over the row that a store keeps for each run.
//!
//! Invariant: the token rises with every holder and never falls, because the row outlives the lease.

use crate::run::{RunId, Timestamp};

use super::{Claimant, Error, Lease};

/// The row of a run's lease. Integers that the databases hold signed are stored with the same bits.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct Row {
    pub token: i64,
    pub holder_id: Option<String>,
    pub holder_name: String,
    pub holder_host: String,
    pub holder_boot: String,
    pub holder_pid: i64,
    pub holder_pid_started: i64,
    pub since_ms: i64,
    pub renewed_ms: i64,
    pub expires_ms: i64,
}

impl Row {
    /// The lease, lapsed or not; none when it was given back.
    pub fn into_lease(self, run: &RunId) -> Option<Lease> {
        Some(Lease {
            run: run.clone(),
            holder: Claimant {
                id: self.holder_id?,
                name: self.holder_name,
                host: self.holder_host,
                boot: self.holder_boot,
                pid: u32::try_from(self.holder_pid).unwrap_or(0),
                pid_started: self.holder_pid_started.cast_unsigned(),
            },
            token: self.token.cast_unsigned(),
            since: Timestamp::from_unix_ms(self.since_ms),
            renewed_at: Timestamp::from_unix_ms(self.renewed_ms),
            expires_at: Timestamp::from_unix_ms(self.expires_ms),
            is_left_alone: false,
        })
    }
}

/// Whether somebody is known to be dead.
pub(super) type IsDead<'a> = &'a (dyn for<'b> Fn(&'b Claimant) -> bool + Send + Sync);

/// What a claim asks for, and when.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    pub run: &'a RunId,
    pub claimant: &'a Claimant,
    pub ttl_ms: u64,
    pub now: Timestamp,
}

/// The lease that a claimant gets, when the present one is free, lapsed, or its holder dead.
pub(super) fn claim(
    present: Option<Row>,
    claim: &Claim<'_>,
    is_dead: IsDead<'_>,
) -> Result<Lease, Error> {
    let last_token = present.as_ref().map_or(0, |row| row.token.cast_unsigned());
    if let Some(held) = present.and_then(|row| row.into_lease(claim.run))
        && held.expires_at > claim.now
        && !is_dead(&held.holder)
    {
        return Err(Error::Held(Box::new(held)));
    }
    Ok(Lease {
        run: claim.run.clone(),
        holder: claim.claimant.clone(),
        token: last_token + 1,
        since: claim.now,
        renewed_at: claim.now,
        expires_at: claim.now.plus_ms(claim.ttl_ms),
        is_left_alone: false,
    })
}

/// Whether a lease is one of this run and still the newest, neither given back nor lapsed.
pub(super) fn check(
    present: Option<Row>,
    run: &RunId,
    lease: &Lease,
    now: Timestamp,
) -> Result<(), Error> {
    match present.and_then(|row| row.into_lease(run)) {
        Some(newest)
            if lease.run == *run
                && newest.token == lease.token
                && newest.holder.id == lease.holder.id
                && newest.expires_at > now =>
        {
            Ok(())
        }
        _ => Err(Error::LeaseLost(run.clone())),
    }
}

/// A lease for a while longer, when it is still the newest and has not lapsed.
pub(super) fn renew(
    present: Option<Row>,
    lease: &Lease,
    now: Timestamp,
    ttl_ms: u64,
) -> Result<Lease, Error> {
    check(present, &lease.run, lease, now)?;
    Ok(Lease { renewed_at: now, expires_at: now.plus_ms(ttl_ms), ..lease.clone() })
}
