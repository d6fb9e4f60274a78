//! What every store promises about leases. Time to live 0 makes a lease that has lapsed, so nothing waits.

use phasegate::run::Event;
use phasegate::store::{Claimant, Error, Lease};

use super::bed::Bed;
use super::sample::{ana, begin, claimant, paused};

const MINUTE_MS: u64 = 60_000;

fn alive(_: &Claimant) -> bool {
    false
}

fn dead(_: &Claimant) -> bool {
    true
}

pub async fn a_lease_is_held_renewed_lapses_and_is_taken(bed: &Bed) {
    let store = bed.open().await;
    let run = begin(&store).await;
    assert_eq!(store.lease(&run).await.unwrap(), None);
    let first = store.acquire(&run, &claimant(1), MINUTE_MS, &alive).await.unwrap();
    assert_eq!(first.token, 1);
    assert_eq!(first.since, first.renewed_at);
    assert_eq!(first.expires_at, first.since.plus_ms(MINUTE_MS));
    assert_eq!(store.lease(&run).await.unwrap(), Some(first.clone()));

    // Held against others, and against another try of the same process.
    for number in [1, 2] {
        let error = store.acquire(&run, &claimant(number), MINUTE_MS, &alive).await.unwrap_err();
        assert_eq!(error, Error::Held(Box::new(first.clone())));
    }
    let renewed = store.renew(&first, 2 * MINUTE_MS).await.unwrap();
    assert_eq!((renewed.token, renewed.since), (1, first.since));
    assert_eq!(renewed.expires_at, renewed.renewed_at.plus_ms(2 * MINUTE_MS));
    assert!(renewed.renewed_at >= first.renewed_at);

    // Renewed for no time it lapses at once: still shown, but no longer renewable, and free to take.
    let lapsed = store.renew(&renewed, 0).await.unwrap();
    assert_eq!(store.lease(&run).await.unwrap(), Some(lapsed.clone()));
    assert_eq!(store.renew(&lapsed, MINUTE_MS).await.unwrap_err(), Error::LeaseLost(run.clone()));
    let second = store.acquire(&run, &claimant(2), MINUTE_MS, &alive).await.unwrap();
    assert_eq!((second.token, &second.holder), (2, &claimant(2)));
    assert!(store.renew(&first, MINUTE_MS).await.is_err());
    assert_eq!(store.lease(&run).await.unwrap(), Some(second));
    store.close().await;
}

pub async fn a_dead_holder_is_replaced_at_once(bed: &Bed) {
    let store = bed.open().await;
    let run = begin(&store).await;
    let first = store.acquire(&run, &claimant(1), MINUTE_MS, &dead).await.unwrap();
    let is_first = |holder: &Claimant| *holder == claimant(1);
    let second = store.acquire(&run, &claimant(2), MINUTE_MS, &is_first).await.unwrap();
    assert_eq!(second.token, first.token + 1);
    assert_eq!(store.renew(&first, MINUTE_MS).await.unwrap_err(), Error::LeaseLost(run.clone()));
    let error = store.acquire(&run, &claimant(3), MINUTE_MS, &is_first).await.unwrap_err();
    assert_eq!(error, Error::Held(Box::new(second)));
    store.close().await;
}

pub async fn giving_back_frees_at_once_and_the_token_still_rises(bed: &Bed) {
    let store = bed.open().await;
    let run = begin(&store).await;
    let mut stale: Option<Lease> = None;
    for round in 1..=4 {
        let lease = store.acquire(&run, &claimant(7), MINUTE_MS, &alive).await.unwrap();
        assert_eq!(lease.token, round);
        // Giving back what was lost does nothing to the one who has it now.
        if let Some(stale) = stale.take() {
            store.release(&stale).await.unwrap();
            assert_eq!(store.lease(&run).await.unwrap(), Some(lease.clone()));
        }
        store.release(&lease).await.unwrap();
        store.release(&lease).await.unwrap();
        assert_eq!(store.lease(&run).await.unwrap(), None);
        assert_eq!(
            store.renew(&lease, MINUTE_MS).await.unwrap_err(),
            Error::LeaseLost(run.clone())
        );
        stale = Some(lease);
    }
    store.close().await;
}

pub async fn appends_need_the_newest_lease(bed: &Bed) {
    let store = bed.open().await;
    let (run, other) = (begin(&store).await, begin(&store).await);
    let first = store.acquire(&run, &claimant(1), MINUTE_MS, &alive).await.unwrap();
    store.append(&run, 1, Some(&first), &ana(), vec![paused("driver")]).await.unwrap();
    // An operator's record needs no lease, and doesn't take the driver's away.
    store.append(&run, 2, None, &ana(), vec![paused("operator")]).await.unwrap();
    let elsewhere = store.acquire(&other, &claimant(1), MINUTE_MS, &alive).await.unwrap();
    let mut forged = first.clone();
    forged.token += 1;
    let mut borrowed = first.clone();
    borrowed.holder = claimant(2);
    let lapsed = store.renew(&first, 0).await.unwrap();
    let lost = Error::LeaseLost(run.clone());
    for lease in [&lapsed, &first, &elsewhere, &forged, &borrowed] {
        let events = vec![Event::Resumed];
        assert_eq!(store.append(&run, 3, Some(lease), &ana(), events).await.unwrap_err(), lost);
    }
    let second = store.acquire(&run, &claimant(2), MINUTE_MS, &alive).await.unwrap();
    assert_eq!(
        store.append(&run, 3, Some(&first), &ana(), vec![Event::Resumed]).await.unwrap_err(),
        lost
    );
    store.append(&run, 3, Some(&second), &ana(), vec![Event::Resumed]).await.unwrap();
    // A lost lease is said before a conflict: it is why the version is another.
    assert_eq!(
        store.append(&run, 3, Some(&first), &ana(), vec![Event::Resumed]).await.unwrap_err(),
        lost
    );
    store.release(&second).await.unwrap();
    assert_eq!(
        store.append(&run, 4, Some(&second), &ana(), vec![Event::Resumed]).await.unwrap_err(),
        lost
    );
    assert_eq!(store.version(&run).await.unwrap(), 4);
    store.close().await;
}

pub async fn of_racing_claimants_one_gets_the_lease(bed: &Bed) {
    let store = bed.open().await;
    let run = begin(&store).await;
    let mut racers = Vec::new();
    for number in 1..=5 {
        let (store, run) = (bed.open().await, run.clone());
        racers.push(tokio::spawn(async move {
            let got = store.acquire(&run, &claimant(number), MINUTE_MS, &alive).await;
            (store, got)
        }));
    }
    let (mut leases, mut stores) = (Vec::new(), Vec::new());
    for racer in racers {
        let (racing, got) = racer.await.unwrap();
        // Whoever closes its store is gone, and may be followed: so all stay to the end of the race.
        stores.push(racing);
        match got {
            Ok(lease) => leases.push(lease),
            Err(Error::Held(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(leases.len(), 1);
    assert_eq!(store.lease(&run).await.unwrap(), leases.pop());
    for racing in stores {
        racing.close().await;
    }
    store.close().await;
}

pub async fn every_field_of_a_claimant_comes_back(bed: &Bed) {
    let store = bed.open().await;
    let run = begin(&store).await;
    let claimant = Claimant {
        id: "'; --".into(),
        name: "Zoë".into(),
        host: String::new(),
        boot: String::new(),
        pid: u32::MAX,
        pid_started: u64::MAX,
    };
    let lease = store.acquire(&run, &claimant, u64::MAX, &alive).await.unwrap();
    assert_eq!(lease.holder, claimant);
    assert_eq!(store.lease(&run).await.unwrap(), Some(lease));
    store.close().await;
}
