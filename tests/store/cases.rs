//! What every store promises, but for leases and damage.

use std::path::Path;

use phasegate::run::{
    Ending, EnvironmentName, Event, Outcome, StepId, Throttled, Timestamp, Unit, Value, Way,
};
use phasegate::store::{self, Create, Entry, Error, Lease, RunHeader, SharedStore, StepProgress};

use sqlx::migrate::Migrator;

use super::bed::Bed;
use super::sample::{
    ana, begin, begin_with, claimant, every_event, header, paused, run_id, started,
};

async fn all(store: &SharedStore, run: &phasegate::run::RunId) -> Vec<Entry> {
    store.read(run, 0, 1_000).await.unwrap()
}

pub async fn records_are_numbered_from_one_and_read_back(bed: &Bed) {
    let store = bed.open().await;
    let run = run_id();
    let before = store.now().await.unwrap();
    let header = header(&store, &run).await;
    let mut written = vec![store.create(&header, &ana(), started(&run, "a plan")).await.unwrap()];
    let events: Vec<Event> = every_event().into_iter().skip(1).collect();
    let (one, rest) = events.split_first().unwrap();
    written.extend(store.append(&run, 1, None, &ana(), vec![one.clone()]).await.unwrap());
    written.extend(store.append(&run, 2, None, &ana(), rest.to_vec()).await.unwrap());
    let after = store.now().await.unwrap();

    let count = u64::try_from(events.len()).unwrap() + 1;
    assert_eq!(store.version(&run).await.unwrap(), count);
    assert_eq!(all(&store, &run).await, written);
    for (version, entry) in (1..).zip(&written) {
        assert_eq!(entry.record.version, version);
        assert_eq!(entry.record.by, ana());
        assert!(before <= entry.record.at && entry.record.at <= after);
    }
    let read_events: Vec<Event> =
        written.into_iter().skip(1).map(|entry| entry.record.event).collect();
    assert_eq!(read_events, events);
    assert_eq!(store.append(&run, count, None, &ana(), vec![]).await.unwrap(), vec![]);
    assert_eq!(store.version(&run).await.unwrap(), count);
    store.close().await;
}

pub async fn an_append_elsewhere_than_at_the_end_is_refused_whole(bed: &Bed) {
    let store = bed.open().await;
    let run = begin_with(&store, 3).await;
    let before = all(&store, &run).await;
    for expected in [0, 2, 4, u64::MAX] {
        let events = vec![paused("a"), paused("b")];
        let error = store.append(&run, expected, None, &ana(), events).await.unwrap_err();
        assert_eq!(error, Error::Conflict { expected, found: 3 });
    }
    let header = header(&store, &run).await;
    let error = store.create(&header, &ana(), started(&run, "another")).await.unwrap_err();
    assert_eq!(error, Error::Conflict { expected: 0, found: 3 });
    assert_eq!(all(&store, &run).await, before);
    store.append(&run, 3, None, &ana(), vec![paused("c")]).await.unwrap();
    store.close().await;
}

pub async fn of_racing_appenders_one_wins_each_version(bed: &Bed) {
    let store = bed.open().await;
    let run = begin(&store).await;
    let mut racers = Vec::new();
    for name in ["red", "blue", "green"] {
        // Each with connections of its own, as two terminals have.
        let (store, run) = (bed.open().await, run.clone());
        racers.push(tokio::spawn(async move {
            let mut won = Vec::new();
            while won.len() < 15 {
                let version = store.version(&run).await.unwrap();
                match store.append(&run, version, None, &ana(), vec![paused(name)]).await {
                    Ok(entries) => won.push(entries[0].record.version),
                    Err(Error::Conflict { expected, found }) => {
                        assert_eq!(expected, version);
                        assert!(found > version);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            store.close().await;
            (name, won)
        }));
    }
    let mut winners = vec![None; 47];
    for racer in racers {
        let (name, won) = racer.await.unwrap();
        for version in won {
            let version = usize::try_from(version).unwrap();
            assert_eq!(winners[version], None, "version {version} has two winners");
            winners[version] = Some(name);
        }
    }
    let read = all(&store, &run).await;
    assert_eq!(read.len(), 46);
    for (entry, winner) in read.iter().zip(&winners[1..]).skip(1) {
        assert_eq!(entry.record.event, paused(winner.unwrap()));
    }
    store.close().await;
}

pub async fn a_journal_begins_with_the_start_of_its_run(bed: &Bed) {
    let store = bed.open().await;
    let run = run_id();
    let header = header(&store, &run).await;
    for wrong in [Event::Resumed, started(&run_id(), "another run's")] {
        let error = store.create(&header, &ana(), wrong).await.unwrap_err();
        assert!(matches!(error, Error::NotWritable { .. }), "{error}");
    }
    assert_eq!(store.runs().await.unwrap(), vec![]);
    store.create(&header, &ana(), started(&run, "its own")).await.unwrap();
    store.close().await;
}

pub async fn an_unknown_run_is_said_to_be_unknown(bed: &Bed) {
    let store = bed.open().await;
    begin(&store).await;
    let run = run_id();
    let no_run = Error::NoRun(run.clone());
    assert_eq!(store.read(&run, 0, 10).await.unwrap_err(), no_run);
    assert_eq!(store.read(&run, 0, 0).await.unwrap_err(), no_run);
    assert_eq!(store.version(&run).await.unwrap_err(), no_run);
    assert_eq!(
        store.append(&run, 0, None, &ana(), vec![Event::Resumed]).await.unwrap_err(),
        no_run
    );
    assert_eq!(store.acquire(&run, &claimant(1), 1000, &|_| false).await.unwrap_err(), no_run);
    let at = store.now().await.unwrap();
    let progress = StepProgress {
        step: StepId::new("copy"),
        rows_done: 1,
        rows_total: None,
        at,
        throttled: Vec::new(),
    };
    assert_eq!(store.put_progress(&run, &[progress]).await.unwrap_err(), no_run);
    assert_eq!(store.lease(&run).await.unwrap(), None);
    assert_eq!(store.progress(&run).await.unwrap(), vec![]);
    store.close().await;
}

pub async fn pages_join_without_gap_or_overlap(bed: &Bed) {
    let store = bed.open().await;
    let run = begin_with(&store, 7).await;
    let whole = all(&store, &run).await;
    for limit in 1..=8_u32 {
        let mut read: Vec<Entry> = Vec::new();
        loop {
            let after = u64::try_from(read.len()).unwrap();
            let page = store.read(&run, after, limit).await.unwrap();
            assert!(page.len() <= limit as usize);
            if page.is_empty() {
                break;
            }
            read.extend(page);
        }
        assert_eq!(read, whole, "limit {limit}");
    }
    for after in 0..=7 {
        assert_eq!(store.read(&run, after, 0).await.unwrap(), vec![]);
    }
    assert_eq!(store.read(&run, 5, u32::MAX).await.unwrap(), whole[5..]);
    store.close().await;
}

pub async fn runs_are_listed_newest_first_with_their_end(bed: &Bed) {
    let store = bed.open().await;
    assert_eq!(store.runs().await.unwrap(), vec![]);
    let mut headers = Vec::new();
    for (place, started_ms) in [(0, 2_000), (1, 9_000), (2, 5_000)] {
        let run = run_id();
        let header = RunHeader {
            run: run.clone(),
            plan: format!("plan-{place}"),
            environment: EnvironmentName::new(format!("env-{place}")),
            started_at: Timestamp::from_unix_ms(started_ms),
            ended: false,
        };
        store.create(&header, &ana(), started(&run, "a plan")).await.unwrap();
        headers.push(header);
    }
    headers.sort_by_key(|header| std::cmp::Reverse(header.started_at));
    assert_eq!(store.runs().await.unwrap(), headers);

    let ended = Event::RunEnded { ending: Ending::Completed };
    let run = headers[1].run.clone();
    store.append(&run, 1, None, &ana(), vec![paused("x"), ended]).await.unwrap();
    headers[1].ended = true;
    assert_eq!(store.runs().await.unwrap(), headers);
    store.append(&run, 3, None, &ana(), vec![]).await.unwrap();
    assert_eq!(store.runs().await.unwrap(), headers);
    store.append(&run, 3, None, &ana(), vec![paused("y")]).await.unwrap();
    headers[1].ended = false;
    assert_eq!(store.runs().await.unwrap(), headers);
    store.close().await;
}

pub async fn progress_is_replaced_and_nothing_depends_on_it(bed: &Bed) {
    let store = bed.open().await;
    let run = begin(&store).await;
    let step = |step: &str, rows_done, rows_total, at| StepProgress {
        step: StepId::new(step),
        rows_done,
        rows_total,
        at: Timestamp::from_unix_ms(at),
        throttled: Vec::new(),
    };
    assert_eq!(store.progress(&run).await.unwrap(), vec![]);
    let held = Throttled {
        name: "lag".into(),
        reason: "replica-2 3.2s >= 1.5s".into(),
        of: Some("replica-2".into()),
        value: Some(3_200.5),
        limit: Some(1_500.0),
        unit: Unit::Ms,
        for_ms: 14_000,
    };
    let first = [
        StepProgress { throttled: vec![held], ..step("b", 10, Some(100), 1) },
        step("a", 0, None, 1),
    ];
    store.put_progress(&run, &first).await.unwrap();
    assert_eq!(store.progress(&run).await.unwrap()[1], first[0]);
    store.put_progress(&run, &[step("b", u64::MAX, None, 2)]).await.unwrap();
    let expected = vec![step("a", 0, None, 1), step("b", u64::MAX, None, 2)];
    assert_eq!(store.progress(&run).await.unwrap(), expected);
    store.put_progress(&run, &[]).await.unwrap();

    bed.tamper("DELETE FROM progress WHERE true").await;
    assert_eq!(store.progress(&run).await.unwrap(), vec![]);
    assert_eq!(all(&store, &run).await.len(), 1);
    store.append(&run, 1, None, &ana(), vec![Event::Resumed]).await.unwrap();
    store.close().await;
}

pub async fn a_reopened_store_is_the_same_one(bed: &Bed) {
    let store = bed.open().await;
    let run = begin_with(&store, 3).await;
    let (identity, location) = (store.identity().to_owned(), store.location());
    let (records, runs) = (all(&store, &run).await, store.runs().await.unwrap());
    let lease = store.acquire(&run, &claimant(1), 60_000, &|_| false).await.unwrap();
    store.close().await;

    let store = store::open(bed.location(), Create::Never).await.unwrap();
    assert!(
        uuid::Uuid::parse_str(&identity).is_ok_and(|id| id.get_version_num() == 4),
        "{identity}"
    );
    assert_eq!(store.identity(), identity);
    assert_eq!(store.location(), location);
    assert_eq!(all(&store, &run).await, records);
    assert_eq!(store.runs().await.unwrap(), runs);
    // A server sees that the session which took it has ended, a moment after that.
    let left = Lease { is_left_alone: !bed.is_file(), ..lease.clone() };
    for _ in 0..6_000 {
        if store.lease(&run).await.unwrap().as_ref() == Some(&left) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(store.lease(&run).await.unwrap(), Some(left));
    store.append(&run, 3, Some(&lease), &ana(), vec![Event::Resumed]).await.unwrap();
    store.close().await;

    let other = Bed::sqlite();
    assert_ne!(other.open().await.identity(), identity);
}

pub async fn records_of_a_mebibyte_and_of_any_text_come_back(bed: &Bed) {
    let store = bed.open().await;
    let unit = "-- \u{0}\u{1}\u{7f}\u{2028}\u{1F600}\\\"'; DROP TABLE runs; $1 ?\n";
    let source = unit.repeat(1024 * 1024 / unit.len());
    let run = run_id();
    let header = header(&store, &run).await;
    let written = store.create(&header, &ana(), started(&run, &source)).await.unwrap();
    let read = all(&store, &run).await;
    assert_eq!(read, vec![written]);
    assert_eq!(read[0].record.event, started(&run, &source));
    store.close().await;
}

pub async fn a_value_that_can_not_be_read_back_is_not_kept(bed: &Bed) {
    let store = bed.open().await;
    let run = begin(&store).await;
    let event = Event::StepSucceeded {
        step: StepId::new("count"),
        attempt: 1,
        way: Way::Forward,
        outcome: Outcome { value: Some(Value::Real(f64::INFINITY)), ..Outcome::default() },
    };
    let error = store.append(&run, 1, None, &ana(), vec![paused("a"), event]).await.unwrap_err();
    assert!(matches!(error, Error::NotWritable { .. }), "{error}");
    assert_eq!(all(&store, &run).await.len(), 1);
    store.append(&run, 1, None, &ana(), vec![paused("b")]).await.unwrap();
    store.close().await;
}

pub async fn time_is_the_stores(bed: &Bed) {
    let store = bed.open().await;
    let machine = || {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        i64::try_from(since.as_millis()).unwrap()
    };
    // The servers of tests are on this machine, so the clocks are one; a millisecond may be rounded.
    let before = machine();
    let now = store.now().await.unwrap().as_unix_ms();
    assert!(before - 1 <= now && now <= machine() + 1);
    store.close().await;
}

pub async fn a_missing_store_is_made_only_on_request(bed: &Bed) {
    let error = store::open(bed.location(), Create::Never).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("there is no state store"), "{error}");
    assert!(bed.is_untouched().await);
    bed.open().await.close().await;
    store::open(bed.location(), Create::Never).await.unwrap().close().await;
}

pub async fn many_openers_make_one_store(bed: &Bed) {
    let openers: Vec<_> = (0..6)
        .map(|_| {
            let location = bed.location().to_owned();
            tokio::spawn(async move {
                let store = store::open(&location, Create::IfMissing).await.unwrap();
                let run = begin(&store).await;
                let identity = store.identity().to_owned();
                store.close().await;
                (identity, run)
            })
        })
        .collect();
    let store = bed.open().await;
    for opener in openers {
        let (identity, run) = opener.await.unwrap();
        assert_eq!(identity, store.identity());
        assert_eq!(all(&store, &run).await.len(), 1);
    }
    store.close().await;
}

pub async fn a_newer_or_altered_schema_is_left_alone(bed: &Bed) {
    bed.open().await.close().await;
    let added = "INSERT INTO phasegate_migrations (version, description, success, checksum, execution_time) \
                 SELECT 9999, 'of tomorrow', success, checksum, 0 FROM phasegate_migrations WHERE version = 1";
    bed.tamper(added).await;
    for create in [Create::Never, Create::IfMissing] {
        let error = store::open(bed.location(), create).await.unwrap_err();
        assert!(matches!(error, Error::Newer { .. }), "{error}");
        assert!(error.to_string().contains("version 9999"), "{error}");
    }
    bed.tamper("DELETE FROM phasegate_migrations WHERE version = 9999").await;
    bed.open().await.close().await;

    let empty = bed.literal(b"");
    bed.tamper(&format!("UPDATE phasegate_migrations SET checksum = {empty}")).await;
    let error = store::open(bed.location(), Create::IfMissing).await.unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

/// What a program has of them it was built with: `build.rs` sees to it that one which comes or changes is built in.
pub async fn the_migrations_applied_are_those_of_the_repository(bed: &Bed) {
    bed.open().await.close().await;
    let there = Migrator::new(Path::new(bed.folder())).await.unwrap();
    let there: Vec<(i64, Vec<u8>)> =
        there.iter().map(|one| (one.version, one.checksum.to_vec())).collect();
    assert!(there.len() >= 2, "nothing was found in {}", bed.folder());
    assert_eq!(bed.migrations().await, there);
}

pub async fn a_closed_store_answers_with_an_error(bed: &Bed) {
    let store = bed.open().await;
    let run = begin(&store).await;
    store.close().await;
    let error = store.append(&run, 1, None, &ana(), vec![Event::Resumed]).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(matches!(store.read(&run, 0, 1).await.unwrap_err(), Error::Unreachable { .. }));
    store.close().await;
}

/// Futures are dropped at every point that a signal or a timeout may drop them at.
pub async fn an_abandoned_append_harms_nothing(bed: &Bed) {
    let store = bed.open().await;
    let (run, by) = (begin(&store).await, ana());
    for wait_us in (0..4_000).step_by(200) {
        let version = store.version(&run).await.unwrap();
        let append = store.append(&run, version, None, &by, vec![paused("a"), paused("b")]);
        let _ = tokio::time::timeout(std::time::Duration::from_micros(wait_us), append).await;
        // What was dropped may still be committed, but then whole; and it never keeps later ones out for long.
        let mut version = store.version(&run).await.unwrap();
        while let Err(error) = store.append(&run, version, None, &ana(), vec![paused("c")]).await {
            assert!(matches!(error, Error::Conflict { .. }), "{error}");
            version = store.version(&run).await.unwrap();
        }
    }
    let events: Vec<Event> =
        all(&store, &run).await.into_iter().map(|entry| entry.record.event).collect();
    for (at, event) in events.iter().enumerate() {
        if *event == paused("a") {
            assert_eq!(events.get(at + 1), Some(&paused("b")));
        }
    }
    store.close().await;
}
