//! What every store notices of changes behind its back.

use phasegate::run::{Digest, RunId};
use phasegate::store::{Error, SharedStore, wire};

use super::bed::Bed;
use super::sample::{ana, begin_with, paused};

/// Reading the run is refused as damaged, and the message names the run and the record.
async fn assert_damaged(store: &SharedStore, run: &RunId, version: u64) {
    let error = store.read(run, 0, 100).await.unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains(run.as_str()), "{said}");
    assert!(said.contains(&format!("record {version} ")), "{said}");
    assert!(said.contains("nothing was changed"), "{said}");
}

pub async fn changed_bytes_show(bed: &Bed) {
    let store = bed.open().await;
    for version in 1..=3 {
        let run = begin_with(&store, 3).await;
        let at = format!("WHERE run = '{run}' AND version = {version}");
        let whole = store.read(&run, 0, 3).await.unwrap();
        let body = wire::encode(&whole[usize::try_from(version).unwrap() - 1].record).unwrap();
        // One letter of the name of whoever did it.
        let text = String::from_utf8(body).unwrap().replace("\"ana\"", "\"bna\"");
        let literal = bed.literal(text.as_bytes());
        bed.tamper(&format!("UPDATE records SET body = {literal} {at}")).await;
        assert_damaged(&store, &run, version).await;
        // Pages before it are still good.
        let limit = u32::try_from(version - 1).unwrap();
        assert_eq!(store.read(&run, 0, limit).await.unwrap().len(), limit as usize);
    }
    let run = begin_with(&store, 3).await;
    bed.tamper(&format!("UPDATE records SET hash = 'x' WHERE run = '{run}' AND version = 2")).await;
    assert_damaged(&store, &run, 2).await;
    store.close().await;
}

pub async fn a_lost_record_shows(bed: &Bed) {
    let store = bed.open().await;
    for version in 1..=2 {
        let run = begin_with(&store, 4).await;
        bed.tamper(&format!("DELETE FROM records WHERE run = '{run}' AND version = {version}"))
            .await;
        assert_damaged(&store, &run, version).await;
        let error = store.read(&run, version, 10).await.unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
    store.close().await;
}

pub async fn a_journal_cut_short_shows(bed: &Bed) {
    let store = bed.open().await;
    let run = begin_with(&store, 4).await;
    bed.tamper(&format!("DELETE FROM records WHERE run = '{run}' AND version >= 3")).await;
    assert_damaged(&store, &run, 3).await;

    // The head cut back as well, but not to the hash that goes with it.
    let run = begin_with(&store, 4).await;
    bed.tamper(&format!("DELETE FROM records WHERE run = '{run}' AND version = 4")).await;
    bed.tamper(&format!("UPDATE runs SET head_version = 3 WHERE run = '{run}'")).await;
    assert_damaged(&store, &run, 3).await;

    // A head behind the records: an append would meet what stands there, and is refused.
    let run = begin_with(&store, 4).await;
    bed.tamper(&format!("UPDATE runs SET head_version = 3 WHERE run = '{run}'")).await;
    assert_damaged(&store, &run, 4).await;
    let error = store.append(&run, 3, None, &ana(), vec![paused("x")]).await.unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    store.close().await;
}

pub async fn swapped_and_moved_records_show(bed: &Bed) {
    let store = bed.open().await;
    let run = begin_with(&store, 4).await;
    for (from, to) in [(2, 1000), (3, 2), (1000, 3)] {
        bed.tamper(&format!(
            "UPDATE records SET version = {to} WHERE run = '{run}' AND version = {from}"
        ))
        .await;
    }
    assert_damaged(&store, &run, 2).await;

    let (one, two) = (begin_with(&store, 2).await, begin_with(&store, 2).await);
    bed.tamper(&format!("DELETE FROM records WHERE run = '{two}' AND version = 2")).await;
    bed.tamper(&format!("UPDATE records SET run = '{two}' WHERE run = '{one}' AND version = 2"))
        .await;
    assert_damaged(&store, &two, 2).await;
    assert_damaged(&store, &one, 2).await;
    store.close().await;
}

pub async fn a_journal_put_back_shows_to_whom_had_seen_more(bed: &Bed) {
    let store = bed.open().await;
    let run = begin_with(&store, 4).await;
    let kept = store.read(&run, 0, 2).await.unwrap();
    bed.tamper(&format!("DELETE FROM records WHERE run = '{run}' AND version >= 3")).await;
    let hash = kept[1].hash.as_str();
    bed.tamper(&format!(
        "UPDATE runs SET head_version = 2, head_hash = '{hash}' WHERE run = '{run}'"
    ))
    .await;
    assert_eq!(store.read(&run, 0, 10).await.unwrap(), kept);
    let error = store.read(&run, 4, 10).await.unwrap_err();
    assert_eq!(error, Error::Conflict { expected: 4, found: 2 });
    store.close().await;
}

/// Puts a record of our making behind the end, properly chained.
async fn put(bed: &Bed, store: &SharedStore, run: &RunId, body: &[u8]) {
    let last = store.read(run, 0, 100).await.unwrap().pop().unwrap();
    let version = last.record.version + 1;
    let mut chained = last.hash.as_str().as_bytes().to_vec();
    chained.push(0);
    chained.extend_from_slice(body);
    let hash = Digest::of_bytes(&chained);
    let (literal, hash) = (bed.literal(body), hash.as_str());
    bed.tamper(&format!(
        "INSERT INTO records (run, version, body, hash) VALUES ('{run}', {version}, {literal}, '{hash}')"
    ))
    .await;
    bed.tamper(&format!(
        "UPDATE runs SET head_version = {version}, head_hash = '{hash}' WHERE run = '{run}'"
    ))
    .await;
}

pub async fn a_record_of_a_newer_format_is_told_from_damage(bed: &Bed) {
    let store = bed.open().await;
    let run = begin_with(&store, 2).await;
    put(bed, &store, &run, br#"{"format":2,"sealed":"who knows"}"#).await;
    let error = store.read(&run, 0, 100).await.unwrap_err();
    assert!(matches!(error, Error::Newer { .. }), "{error}");
    let said = error.to_string();
    assert!(
        said.contains(run.as_str()) && said.contains("record 3 ") && said.contains("format 2"),
        "{said}"
    );
    assert_eq!(store.read(&run, 0, 2).await.unwrap().len(), 2);

    for body in [&b"not json"[..], b"{}", b"", b"\xff\xfe", br#"{"format":1,"record":null}"#] {
        let run = begin_with(&store, 2).await;
        put(bed, &store, &run, body).await;
        assert_damaged(&store, &run, 3).await;
    }

    // A good record, but of another place.
    let run = begin_with(&store, 2).await;
    let second = store.read(&run, 1, 1).await.unwrap().pop().unwrap();
    let body = wire::encode(&second.record).unwrap();
    put(bed, &store, &run, &body).await;
    assert_damaged(&store, &run, 3).await;
    store.close().await;
}
