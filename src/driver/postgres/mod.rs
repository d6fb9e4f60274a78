//! PostgreSQL.
//!
//! Every change happens in a transaction of `connection`, which checks the fence; what is done is entered in `ledger`. Our
//! own objects live in one schema, `phasegate` unless the target names another. The other files are the traits of the
//! driver.

use std::str::FromStr as _;

use sqlx::Row as _;
use sqlx::postgres::PgConnectOptions;

use crate::driver::{Access, Error};
use crate::run::FailureClass;

mod ahead;
#[cfg(test)]
mod ahead_tests;
mod answered;
mod at_once;
mod beside;
mod by_name;
mod carried;
mod carry;
mod carry_sql;
mod catalogue;
mod cells;
mod chunks;
mod claim;
mod connection;
#[cfg(test)]
mod copy_tests;
mod counterpart;
mod defaults;
mod deferrable;
mod definition;
mod dependents;
mod dual_write;
mod emptying;
mod error;
mod fit;
#[cfg(test)]
mod fixture;
mod gaps;
mod given;
mod gone;
mod guard_sql;
mod handover;
mod held;
mod hints;
mod identifying;
mod identity;
mod incoming;
mod introspect;
mod inverse;
mod ledger;
mod leftovers;
mod live;
mod lock_wait;
mod locks;
mod loosen;
mod losing;
mod marks;
mod meant;
mod moves;
mod moves_sql;
mod named;
mod noted;
#[cfg(test)]
mod noted_tests;
mod outbox;
mod overlap;
mod park;
#[cfg(test)]
mod park_both_tests;
#[cfg(test)]
mod park_last_tests;
#[cfg(test)]
mod park_tests;
mod partitioned;
mod partitions;
#[cfg(test)]
mod partitions_tests;
mod passes;
mod patience;
#[cfg(test)]
mod patience_tests;
mod planted;
mod prepared;
mod probe;
mod probe_server;
#[cfg(test)]
mod probe_tests;
mod remade;
mod rename;
mod repair;
#[cfg(test)]
mod repair_live_tests;
#[cfg(test)]
mod repair_tests;
mod replay;
#[cfg(test)]
mod replay_tests;
mod retirable;
mod retire;
#[cfg(test)]
mod retire_carry_tests;
#[cfg(test)]
mod retire_columns_tests;
#[cfg(test)]
mod retire_constraint_tests;
#[cfg(test)]
mod retire_identity_tests;
#[cfg(test)]
mod retire_inventory_tests;
#[cfg(test)]
mod retire_names_tests;
#[cfg(test)]
mod retire_partition_tests;
#[cfg(test)]
mod retire_proof_tests;
#[cfg(test)]
mod retire_rows_tests;
#[cfg(test)]
mod retire_snapshot_tests;
#[cfg(test)]
mod retire_tests;
#[cfg(test)]
mod retire_written_tests;
mod returning;
mod rights;
mod same;
#[cfg(test)]
mod same_tests;
mod script;
mod sequences;
mod session;
mod settle;
mod settle_sql;
#[cfg(test)]
mod settle_tests;
mod shape;
mod shape_sql;
mod signals;
mod sink;
mod snapshots;
mod source;
mod statements;
mod stays;
mod steady;
mod stricter;
mod stuck;
mod surroundings;
mod survey;
#[cfg(test)]
mod survey_tests;
#[cfg(test)]
mod sync_anew_tests;
#[cfg(test)]
mod sync_apply_tests;
#[cfg(test)]
mod sync_back_tests;
#[cfg(test)]
mod sync_both_tests;
#[cfg(test)]
mod sync_event_tests;
#[cfg(test)]
mod sync_in_place_tests;
#[cfg(test)]
mod sync_keys_tests;
#[cfg(test)]
mod sync_live_tests;
mod sync_objects;
#[cfg(test)]
mod sync_others_tests;
#[cfg(test)]
mod sync_parking_tests;
#[cfg(test)]
mod sync_race_tests;
#[cfg(test)]
mod sync_rights_tests;
#[cfg(test)]
mod sync_snapshot_tests;
mod sync_sql;
mod sync_state;
#[cfg(test)]
mod sync_tests;
#[cfg(test)]
mod sync_tied_tests;
#[cfg(test)]
mod sync_truncate_tests;
mod tied;
mod trigger_back;
mod trigger_in_place;
mod trigger_key;
mod trigger_move;
mod trigger_sql;
mod trigger_truncate;
mod uncarried;
mod unretire;
mod usage;
mod value;
mod verify;
#[cfg(test)]
mod verify_tests;
mod version;
mod wait;
mod written;

use connection::Connections;

/// Our own schema where the target names none.
const SCHEMA: &str = "phasegate";

/// A PostgreSQL database.
#[derive(Debug)]
pub struct Postgres {
    connections: Connections,
    shapes: prepared::Shapes,
    /// The same of mappings whose new side is in another database.
    captured: prepared::Kept<outbox::Resolved>,
    /// Where the log was when, for the lag of replicas.
    positions: signals::Positions,
    luck: at_once::Luck,
    /// Whether chunks of late had enough time for their own work in what they may wait for clients' rows.
    pace: at_once::Luck,
    /// How often noted keys were put right that were in a chunk's way: by one worker at a time.
    cleared: tokio::sync::Mutex<u64>,
    holds: held::Holds,
}

impl Postgres {
    /// Opens the database of a URL: `postgres://user:password@host:port/database`, with libpq's parameters. `schema` is
    /// where our own objects go.
    ///
    /// Looks at the database and changes nothing.
    pub async fn open(url: &str, schema: Option<&str>, access: Access) -> Result<Self, Error> {
        let options = read_url(url)?;
        let schema = catalogue::quote(schema.unwrap_or(SCHEMA));
        let postgres = Self {
            connections: Connections::new(options, access, schema),
            shapes: prepared::Shapes::default(),
            captured: prepared::Kept::default(),
            positions: signals::Positions::default(),
            luck: at_once::Luck::default(),
            pace: at_once::Luck::default(),
            cleared: tokio::sync::Mutex::default(),
            holds: held::Holds::default(),
        };
        postgres.connections.are_sessions().await?;
        postgres.connections.read().await?.release().await;
        Ok(postgres)
    }
}

impl Postgres {
    /// The role that acts, as SQL has it.
    pub(super) async fn role(&self) -> Result<String, Error> {
        let mut reader = self.connections.read().await?;
        let row = sqlx::query("SELECT quote_ident(current_user)").fetch_one(reader.conn()?).await;
        let role = row.and_then(|row| row.try_get(0)).map_err(error::failed("ask for the role"))?;
        reader.release().await;
        Ok(role)
    }
}

/// What a URL asks for. Its text never gets into an error.
fn read_url(url: &str) -> Result<PgConnectOptions, Error> {
    let refused = |message: &str| {
        Error::failed(FailureClass::Refused, message).with_help(
            "write it as postgres://user@host:5432/database, the password as a reference",
        )
    };
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(refused("the URL of a PostgreSQL database begins with postgres://"));
    }
    PgConnectOptions::from_str(url).map_err(|_| {
        refused("the URL names no PostgreSQL database, or has a parameter that is unknown")
    })
}
