//! Runs that go from one store to another, and stores that are read as they are.

use phasegate::run::RunId;
use phasegate::store::check::check;
use phasegate::store::export::{self, Export, Exported, Source};
use phasegate::store::{Arrival, Error, Fit, FlawKind, History, SharedStore, open_archive};

use super::bed::Bed;
use super::sample::{ana, begin_across, begin_with, claimant, paused};

/// Everything in a store, through the file that carries it.
async fn exported(location: &str) -> Export {
    let mut archive = open_archive(location).await.unwrap();
    let leases = archive.leases().await.unwrap();
    let mut runs = Vec::new();
    for run in archive.names().await.unwrap() {
        let kept = archive.run(&run).await.unwrap().unwrap();
        let history = History::verify(kept).unwrap();
        let of_run = leases.iter().filter(|lease| lease.of.served() == run);
        let tokens = of_run.map(|lease| (lease.of.clone(), lease.token())).collect();
        runs.push(Exported { history, tokens, driven_by: None });
    }
    let source = Source {
        store: archive.identity().await.unwrap(),
        location: archive.location(),
        at: archive.now().await.unwrap(),
        program: "phasegate".into(),
    };
    export::read(export::write(&source, &runs).unwrap().as_bytes()).unwrap()
}

/// One run of a store, as it arrives elsewhere.
async fn arrival(location: &str, run: &RunId) -> Arrival {
    let export = exported(location).await;
    let of = export.runs.iter().find(|one| one.history.run() == run).unwrap();
    of.arrival(&export.source)
}

/// Somebody takes a lease and gives it back, so many times.
async fn driven(store: &SharedStore, run: &RunId, times: u32) {
    for number in 0..times {
        let lease = store.acquire(run, &claimant(number), 60_000, &|_| false).await.unwrap();
        store.release(&lease).await.unwrap();
    }
}

pub async fn a_run_comes_over_whole_and_goes_on(bed: &Bed) {
    let other = Bed::sqlite();
    let there = other.open().await;
    let run = begin_with(&there, 4).await;
    driven(&there, &run, 3).await;
    let relay = run.relay(&"app".into(), &"graph".into());
    driven(&there, &relay, 2).await;

    let here = bed.open().await;
    let arrival = arrival(other.location(), &run).await;
    assert_eq!(arrival.store, there.identity());
    assert_eq!(here.import(&arrival, &|_| false).await, Ok(Fit::New));
    assert_eq!(here.read(&run, 0, 10).await.unwrap(), there.read(&run, 0, 10).await.unwrap());
    assert_eq!(here.runs().await.unwrap(), there.runs().await.unwrap());
    assert_eq!(here.taken_up_to(&run).await.unwrap(), Some(3));
    assert_eq!(here.lease(&run).await.unwrap(), None);
    let lease = here.acquire(&run, &claimant(9), 60_000, &|_| false).await.unwrap();
    assert_eq!(lease.token, 4);
    here.append(&run, 4, Some(&lease), &ana(), vec![paused("here")]).await.unwrap();
    // A relay that begins again and again over there stays below.
    let lease = here.acquire(&relay, &claimant(9), 60_000, &|_| false).await.unwrap();
    assert!(lease.token > 1_000_000, "{}", lease.token);
    // What began here is nobody else's.
    let own = begin_with(&here, 1).await;
    assert_eq!(here.taken_up_to(&own).await.unwrap(), None);
    here.close().await;
    there.close().await;
}

/// A relay may begin behind an export that knows nothing of it: what it is given there is never given here.
pub async fn relays_that_had_not_begun_stay_below(bed: &Bed) {
    let other = Bed::sqlite();
    let (there, here) = (other.open().await, bed.open().await);
    let run = begin_across(&there).await;
    let arrival = arrival(other.location(), &run).await;
    assert_eq!(arrival.tokens, []);
    let relay = run.relay(&"app".into(), &"graph".into());
    driven(&there, &relay, 2).await;
    here.import(&arrival, &|_| false).await.unwrap();
    assert_eq!(here.lease(&relay).await.unwrap(), None);
    let lease = here.acquire(&relay, &claimant(9), 60_000, &|_| false).await.unwrap();
    assert!(lease.token > 1_000_000, "{}", lease.token);
    here.close().await;
    there.close().await;
}

pub async fn what_is_here_is_left_or_gets_what_it_lacks(bed: &Bed) {
    let other = Bed::sqlite();
    let (there, here) = (other.open().await, bed.open().await);
    let run = begin_with(&there, 2).await;
    let first = arrival(other.location(), &run).await;
    assert_eq!(here.import(&first, &|_| false).await, Ok(Fit::New));
    assert_eq!(here.import(&first, &|_| false).await, Ok(Fit::Same));
    assert_eq!(here.taken_up_to(&run).await.unwrap(), Some(0));

    there.append(&run, 2, None, &ana(), vec![paused("more"), paused("and more")]).await.unwrap();
    driven(&there, &run, 2).await;
    let second = arrival(other.location(), &run).await;
    let lease = here.acquire(&run, &claimant(1), 60_000, &|_| false).await.unwrap();
    let error = here.import(&second, &|_| false).await.unwrap_err();
    assert!(matches!(error, Error::Held(_)), "{error}");
    assert_eq!(here.version(&run).await.unwrap(), 2);
    here.release(&lease).await.unwrap();
    assert_eq!(here.import(&second, &|_| false).await, Ok(Fit::Extends(2)));
    assert_eq!(here.read(&run, 0, 10).await.unwrap(), there.read(&run, 0, 10).await.unwrap());
    assert_eq!(here.taken_up_to(&run).await.unwrap(), Some(2));

    // The first is older now; and what is appended here is known nowhere else.
    let error = here.import(&first, &|_| false).await.unwrap_err();
    assert!(
        matches!(&error, Error::Diverged { here, there, .. } if here.version == 4 && there.version == 2)
    );
    here.append(&run, 4, None, &ana(), vec![paused("here")]).await.unwrap();
    there.append(&run, 4, None, &ana(), vec![paused("there")]).await.unwrap();
    let third = arrival(other.location(), &run).await;
    let error = here.import(&third, &|_| false).await.unwrap_err();
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains(&third.history.head().hash), "{said}");
    assert_eq!(here.version(&run).await.unwrap(), 5);
    here.close().await;
    there.close().await;
}

pub async fn a_run_goes_there_and_back(bed: &Bed) {
    let other = Bed::sqlite();
    let (there, here) = (other.open().await, bed.open().await);
    let run = begin_with(&here, 2).await;
    driven(&here, &run, 1).await;
    there.import(&arrival(bed.location(), &run).await, &|_| false).await.unwrap();
    driven(&there, &run, 4).await;
    there.append(&run, 2, None, &ana(), vec![paused("there")]).await.unwrap();
    let back = arrival(other.location(), &run).await;
    assert_eq!(here.import(&back, &|_| false).await, Ok(Fit::Extends(2)));
    assert_eq!(here.taken_up_to(&run).await.unwrap(), Some(5));
    let lease = here.acquire(&run, &claimant(9), 60_000, &|_| false).await.unwrap();
    assert_eq!(lease.token, 6);
    // An export of this store's own tells it nothing about others.
    let own = begin_with(&here, 3).await;
    assert_eq!(here.import(&arrival(bed.location(), &own).await, &|_| false).await, Ok(Fit::Same));
    assert_eq!(here.taken_up_to(&own).await.unwrap(), None);
    here.close().await;
    there.close().await;
}

pub async fn a_check_names_each_run_that_is_damaged_and_no_other(bed: &Bed) {
    let store = bed.open().await;
    let runs = [
        begin_with(&store, 4).await,
        begin_with(&store, 4).await,
        begin_with(&store, 4).await,
        begin_with(&store, 4).await,
        begin_with(&store, 4).await,
    ];
    driven(&store, &runs[4], 1).await;
    let [flipped, lost, headless, ended, whole] = &runs;
    let report = check(open_archive(bed.location()).await.unwrap().as_mut()).await.unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(report.identity.as_deref(), Some(store.identity()));
    assert_eq!(report.runs.len(), 5);

    let read = store.read(flipped, 0, 10).await.unwrap();
    let body = phasegate::store::wire::encode(&read[1].record).unwrap();
    let text = String::from_utf8(body).unwrap().replace("\"ana\"", "\"eve\"");
    let literal = bed.literal(text.as_bytes());
    bed.tamper(&format!(
        "UPDATE records SET body = {literal} WHERE run = '{flipped}' AND version = 2"
    ))
    .await;
    bed.tamper(&format!("DELETE FROM records WHERE run = '{lost}' AND version = 3")).await;
    bed.tamper(&format!("UPDATE runs SET head_hash = 'x' WHERE run = '{headless}'")).await;
    let over = if bed.is_file() { "1" } else { "true" };
    bed.tamper(&format!("UPDATE runs SET ended = {over} WHERE run = '{ended}'")).await;
    bed.tamper(&format!("UPDATE leases SET expires_ms = 1 WHERE run = '{whole}'")).await;
    let report = check(open_archive(bed.location()).await.unwrap().as_mut()).await.unwrap();
    assert!(!report.is_whole() && report.database.is_empty(), "{report:?}");
    let flaw = |run: &RunId| {
        let found = report.runs.iter().find(|one| one.run == *run).unwrap();
        found.flaw.clone().map(|flaw| (flaw.version, flaw.kind))
    };
    assert_eq!(flaw(flipped), Some((Some(2), FlawKind::Damaged)));
    assert_eq!(flaw(lost), Some((Some(3), FlawKind::Damaged)));
    assert_eq!(flaw(headless), Some((Some(4), FlawKind::Damaged)));
    assert_eq!(flaw(ended), Some((Some(4), FlawKind::Damaged)));
    assert_eq!(flaw(whole), None);
    // It can be driven all the same.
    let lease = store.acquire(whole, &claimant(7), 60_000, &|_| false).await.unwrap();
    store.append(whole, 4, Some(&lease), &ana(), vec![paused("on")]).await.unwrap();
    store.close().await;
}
