//! The oracle on PostgreSQL: several clients at the same time, at every isolation level.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::client::{Old, Shared};
use super::postgres_client::Client;
use super::scene::{Base, Scene, Way};
use super::{
    End, IN_PLACE_BOTH, IN_PLACE_FORWARD, Random, TABLE_BOTH, TABLE_FORWARD, again_and_again,
    end_well, play, sides,
};
use crate::examples::database::Database;
use crate::sandbox::{Sandbox, wait_for};
use crate::services;

fn check(scene: Scene, end: End) {
    let case = format!("{scene:?} {end:?} on PostgreSQL");
    let Some(server) = services::postgres(&case) else { return };
    again_and_again(&case, |seed| once(&server, (scene, end), seed));
}

fn once(server: &str, (scene, end): (Scene, End), seed: u64) {
    let mut random = Random(seed);
    let database = Database::on(server, &scene.postgres_schema());
    let sandbox = Sandbox::new();
    sandbox.write("plan.yaml", &scene.plan(&Base::Postgres(database.url.clone())));
    let shared = Arc::new(Shared::default());
    let clients: Vec<_> = sides(scene)
        .iter()
        .map(|side| {
            let url = database.url.clone();
            let client = Client::new(scene, *side, Random(random.next()), Arc::clone(&shared));
            std::thread::spawn(move || client.write(&url))
        })
        .collect();
    play(&sandbox, end, &shared, &mut random);
    let case = format!("{scene:?} {end:?}, PHASEGATE_SEED={seed}");
    end_well(clients, &shared, &case);
    check_end(&database, scene, end, &case);
    sandbox.run(&["history", "customers", "--verify"]).expect(0);
}

fn check_end(database: &Database, scene: Scene, end: End, case: &str) {
    let (ours, twin) = match end {
        End::Completed => scene.compared(),
        End::RolledBack(_) => ("id, name, email, status", "id, name, email, status"),
    };
    let (ours, twin) =
        (format!("SELECT {ours} FROM customers"), format!("SELECT {twin} FROM twin"));
    let wrong = |one: &str, other: &str| {
        database.rows(&format!("({one}) EXCEPT ALL ({other}) ORDER BY 1 LIMIT 10"))
    };
    assert_eq!(wrong(&ours, &twin), [""; 0], "{case}: rows that no client wrote");
    assert_eq!(wrong(&twin, &ours), [""; 0], "{case}: rows that went missing");
    assert_eq!(database.ours(), ["phasegate.runs"], "{case}: something of ours is left");
    let tables = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(database.value(tables), "customers twin twin_era", "{case}");
    let columns = "SELECT string_agg(attname, ' ' ORDER BY attname) FROM pg_attribute
        WHERE attrelid = 'customers'::regclass AND attnum > 0 AND NOT attisdropped";
    let columns = database.value(columns);
    let expected = match (end, scene.in_place, scene.direction) {
        (End::Completed, false, Way::Forward) => "email id name status status_code",
        (End::Completed, false, Way::Both) => "email id name state",
        _ => "email id name status",
    };
    assert_eq!(columns, expected, "{case}");
}

/// Without the engine both are alike, too: what the other tests find is the engine's doing.
#[test]
fn the_twins_are_alike_by_themselves() {
    let Some(server) = services::postgres("an oracle by itself") else { return };
    let database = Database::on(&server, &TABLE_FORWARD.postgres_schema());
    let shared = Arc::new(Shared::default());
    let clients: Vec<_> = (0..4)
        .map(|seed| {
            let (url, shared) = (database.url.clone(), Arc::clone(&shared));
            let client = Client::new(TABLE_FORWARD, Old::Shape, Random(seed), shared);
            std::thread::spawn(move || client.write(&url))
        })
        .collect();
    let enough =
        || shared.commits.load(Ordering::SeqCst) >= 300 || shared.failed.load(Ordering::SeqCst);
    assert!(wait_for(Duration::from_mins(2), enough), "clients stand still");
    end_well(clients, &shared, "by themselves");
    for (one, other) in [("customers", "twin"), ("twin", "customers")] {
        let differing = format!(
            "SELECT id, name, email, status FROM {one} EXCEPT ALL
             SELECT id, name, email, status FROM {other} LIMIT 5"
        );
        assert_eq!(database.rows(&differing), [""; 0], "only in {one}");
    }
}

#[test]
fn table_forward() {
    check(TABLE_FORWARD, End::Completed);
}

#[test]
fn table_both() {
    check(TABLE_BOTH, End::Completed);
}

#[test]
fn in_place_forward() {
    check(IN_PLACE_FORWARD, End::Completed);
}

#[test]
fn in_place_both() {
    check(IN_PLACE_BOTH, End::Completed);
}

#[test]
fn table_forward_rolled_back() {
    check(TABLE_FORWARD, End::RolledBack("compare"));
}

#[test]
fn table_both_rolled_back() {
    check(TABLE_BOTH, End::RolledBack("retire"));
}

#[test]
fn in_place_forward_rolled_back() {
    check(IN_PLACE_FORWARD, End::RolledBack("sync"));
}

#[test]
fn in_place_both_rolled_back() {
    check(IN_PLACE_BOTH, End::RolledBack("retire"));
}
