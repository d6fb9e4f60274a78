//! Whole plans on PostgreSQL under load: eight clients or more, four workers, small chunks, held against a twin.
//!
//! Beside them there are clients whose views are open when `retire` begins (`astride`), and somebody who writes what only the new table
//! has (`labels`). The program is killed, paused, held back and gone on with on the way. What clients were told, and how often they and
//! the copy met, is printed at the end.
//! `PHASEGATE_SEED` repeats what clients choose; `PHASEGATE_SOAK` is how many minutes each case goes on with new seeds.

mod astride;
mod client;
mod elder;
mod hold;
mod judge;
mod kills;
mod labels;
mod large;
mod planted;
mod play;
mod reduced;
mod scene;
mod stage;
mod statement;
mod watch;

use kills::{Deaths, IN_THE_COPY, TWENTY};
use play::Play;
use scene::Kind;

use super::again_and_again;
use crate::services;

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a choice of its own, named where a load is written down
pub struct Load {
    pub kind: Kind,
    /// The keys that there are at first go from 1 to here.
    pub keys: u64,
    pub chunk_rows: u32,
    /// Where the program is killed, and how often.
    pub kills: Deaths,
    /// How often the run is paused while it copies.
    pub pauses: u32,
    /// Whether a throttle opens and shuts at random while it copies.
    pub held: bool,
    /// Whether a client of each shape empties the table now and then.
    pub truncates: bool,
    /// Whether clients keep snapshots over many chunks.
    pub snapshots: bool,
    /// Whether the plan is run to its end; else, to hunt a fault, as far as its last comparison.
    pub ends: bool,
}

const PLAIN: Load = Load {
    kind: Kind::TableForward,
    keys: 12_000,
    chunk_rows: 20,
    kills: &[],
    pauses: 0,
    held: false,
    truncates: false,
    snapshots: false,
    ends: true,
};

fn check(load: Load) {
    let case = format!("{load:?}");
    let Some(server) = services::postgres(&case) else { return };
    again_and_again(&case, |seed| Play::begin(&server, load, seed, "").through());
}

/// The seed decides what each client does in each of its turns, and not when it comes to it.
#[test]
fn a_seed_repeats_what_clients_choose() {
    let Some(server) = services::postgres("a seed") else { return };
    let load = Load { keys: 500, ..PLAIN };
    let [one, again, other] = [7, 7, 8].map(|seed| Play::begin(&server, load, seed, "").chooses());
    let common: Vec<_> = one.keys().filter(|turn| again.contains_key(turn)).collect();
    assert!(common.len() >= 50, "{}", common.len());
    for turn in &common {
        assert_eq!(one[turn], again[turn], "{turn:?}");
    }
    assert!(common.iter().any(|turn| other.get(turn).is_some_and(|other| *other != one[turn])));
}

#[test]
fn table_forward() {
    check(PLAIN);
}

#[test]
fn filtered() {
    check(Load { kind: Kind::Filtered, ..PLAIN });
}

#[test]
fn table_both() {
    check(Load { kind: Kind::TableBoth, ..PLAIN });
}

#[test]
fn in_place_both() {
    check(Load { kind: Kind::InPlaceBoth, ..PLAIN });
}

#[test]
fn int_to_bigint() {
    check(Load { kind: Kind::IntToBigint, ..PLAIN });
}

#[test]
fn users_email_to_profiles_email() {
    check(Load { kind: Kind::SplitEmail, ..PLAIN });
}

#[test]
fn rows_that_go_with_others() {
    check(Load { kind: Kind::Cascaded, ..PLAIN });
}

#[test]
fn rows_that_go_with_others_with_both() {
    check(Load { kind: Kind::CascadedBoth, ..PLAIN });
}

#[test]
fn in_place_forward() {
    check(Load { kind: Kind::InPlaceForward, ..PLAIN });
}

#[test]
fn partitioned() {
    check(Load { kind: Kind::Partitioned, ..PLAIN });
}

#[test]
fn emptied_on_the_way() {
    check(Load { truncates: true, ..PLAIN });
}

#[test]
fn emptied_on_the_way_with_both() {
    check(Load { kind: Kind::TableBoth, keys: 5_000, truncates: true, ..PLAIN });
}

#[test]
fn emptied_on_the_way_in_place() {
    check(Load { kind: Kind::InPlaceBoth, truncates: true, ..PLAIN });
}

#[test]
fn snapshots_over_many_chunks() {
    check(Load { keys: 16_000, snapshots: true, ..PLAIN });
}

#[test]
fn snapshots_over_many_chunks_with_both() {
    check(Load { kind: Kind::TableBoth, snapshots: true, ..PLAIN });
}

#[test]
fn killed_twenty_times() {
    check(Load { kills: TWENTY, ..PLAIN });
}

#[test]
fn killed_twenty_times_with_both() {
    check(Load { kind: Kind::TableBoth, kills: TWENTY, ..PLAIN });
}

#[test]
fn killed_twenty_times_in_place() {
    check(Load { kind: Kind::InPlaceBoth, kills: TWENTY, ..PLAIN });
}

#[test]
fn paused_and_resumed_at_random() {
    check(Load { pauses: 6, ..PLAIN });
}

#[test]
fn held_back_at_random_and_killed() {
    check(Load { held: true, kills: IN_THE_COPY, ..PLAIN });
}

#[test]
fn held_back_at_random_in_place() {
    check(Load { kind: Kind::InPlaceBoth, held: true, ..PLAIN });
}
