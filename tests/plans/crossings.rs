//! What becomes of mappings from PostgreSQL into a graph: the sides, the targets of their steps, and what their digests are over.

use phasegate::run::{Backfill, DualWrite, Mapping, OutboxLimits, RowKind, Signal};

use super::*;

fn loaded() -> Loaded {
    load(Path::new("tests/plans/good/cross-mappings.yaml")).unwrap()
}

fn mapping(loaded: &Loaded, name: &str) -> Mapping {
    loaded.pin.program.mappings()[&phasegate::run::MappingName::new(name)].clone()
}

fn pairs(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// The key properties of both ends, with where they come from.
fn ends(mapping: &Mapping) -> [Vec<(&str, &str)>; 2] {
    let RowKind::Relationship(ends) = &mapping.into.kind else { panic!("{mapping:?}") };
    assert_eq!(ends.start.node, "User");
    [pairs(&ends.start.key), pairs(&ends.end.key)]
}

#[test]
fn keys_correspond_by_position_however_they_are_given() {
    let loaded = loaded();
    let users = mapping(&loaded, "users");
    assert_eq!((users.from.table.as_str(), &users.from.kind), ("app.users", &RowKind::Table));
    assert_eq!(users.from.key, ["id", "Tenant"]);
    assert_eq!(users.into.key, ["uid", "tenant"]);
    assert_eq!((users.into.table.as_str(), &users.into.kind), ("User", &RowKind::Node));
    assert_eq!(pairs(&users.columns), [("balance", "balance::text")]);
    assert_eq!(users.filter.as_deref(), Some("deleted_at IS NULL"));
    assert_eq!(mapping(&loaded, "posts").into.key, ["id"]);
}

#[test]
fn a_relationship_is_known_by_its_ends_or_by_a_key_of_its_own() {
    let loaded = loaded();
    let follows = mapping(&loaded, "follows");
    assert!(follows.into.key.is_empty());
    let start = vec![("uid", "follower"), ("tenant", "tenant")];
    // A name that SQL folds is the column all the same, and is written as the key of `from` has it.
    let end = vec![("uid", "followee"), ("tenant", "followee_tenant")];
    assert_eq!(ends(&follows), [start, end]);
    assert_eq!(pairs(&follows.columns), [("since", "since")]);

    let wrote = mapping(&loaded, "wrote");
    assert_eq!(wrote.into.key, ["post"]);
    let start = vec![("uid", "coalesce(author, 0)"), ("tenant", "'main'")];
    assert_eq!(ends(&wrote), [start, vec![("id", "\"id\"")]]);
}

#[test]
fn steps_are_on_the_side_that_they_write_to_and_a_drop_on_the_one_that_it_empties() {
    let loaded = loaded();
    for step in loaded.pin.program.steps() {
        let Some(target) = &step.target else { continue };
        let is_of_source = matches!(step.action, Action::Drop { .. } | Action::Sql(_));
        let wanted = if is_of_source { "app" } else { "graph" };
        assert_eq!(target.as_str(), wanted, "{}", step.id);
    }
    assert!(matches!(step(&loaded, "drop-follows").hazard, Hazard::Destructive(_)));
    let Action::Backfill(Backfill { throttle, .. }) = &step(&loaded, "copy-users").action else {
        panic!();
    };
    let asked: Vec<&str> = throttle
        .iter()
        .map(|one| match &one.signal {
            Signal::Gauge { target, .. } | Signal::Query { target, .. } => target.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(asked, ["app", "app", "graph"], "not said, it is where the rows come from");
}

fn outbox(loaded: &Loaded, id: &str) -> OutboxLimits {
    let Action::DualWrite(DualWrite { outbox, .. }) = &step(loaded, id).action else { panic!() };
    *outbox
}

#[test]
fn limits_of_the_outbox_say_how_and_not_what() {
    let one = loaded();
    let limits = OutboxLimits { rows: 1_000_000, age_ms: 3_600_000, bytes: 1 << 30 };
    assert_eq!(outbox(&one, "sync-users"), limits);
    let usual = OutboxLimits::default();
    assert_eq!(outbox(&one, "sync-posts"), usual);
    assert_eq!(outbox(&one, "sync-wrote"), usual);
    assert_eq!(outbox(&one, "sync-follows"), OutboxLimits { age_ms: 5_400_000, ..usual });
    let json = serde_json::to_string(&step(&one, "sync-posts").action).unwrap();
    assert!(
        !json.contains("outbox"),
        "what was pinned before there were limits reads the same: {json}"
    );

    // The plan is another, but no approval is void, and a dual-write that has begun may be amended.
    let other = good(&one.source.text.replace("max_rows: 1000000", "max_rows: 2000000"));
    assert_ne!(one.pin.program.digest(), other.pin.program.digest());
    assert_eq!(step(&one, "sync-users").digest, step(&other, "sync-users").digest);
    // However it is written.
    let same = good(&one.source.text.replace("max_bytes: 1GiB", "max_bytes: 1024 MiB"));
    assert_eq!(one.pin.program.digest(), same.pin.program.digest());
}

#[test]
fn a_gate_may_wait_for_the_relay_and_others_are_as_they_were() {
    let one = loaded();
    let Action::Gate(gate) = &step(&one, "ready").action else { panic!() };
    assert_eq!((gate.relay_lag_max_ms, gate.relay_rows_max), (Some(90_000), Some(0)));
    let same = good(&one.source.text.replace("max: 1m 30s", "max: 90s"));
    assert_eq!(one.pin.program.digest(), same.pin.program.digest());
    // Whoever approved approved of that.
    let other = good(&one.source.text.replace("max: 1m 30s", "max: 91s"));
    assert_ne!(step(&one, "ready").digest, step(&other, "ready").digest);
    let without = good(&one.source.text.replace("      relay_lag: { max: 1m 30s }\n", ""));
    let json = serde_json::to_string(&step(&without, "ready").action).unwrap();
    assert!(!json.contains("relay_lag"), "what was pinned before reads the same: {json}");
}
