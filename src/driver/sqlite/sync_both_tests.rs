//! Clients of both shapes under a live sync of two tables.
#![allow(clippy::unwrap_used, missing_docs)]

use super::sync_tests::{Bed, COLUMNS, LEADS, leads_both};
use crate::run::Direction;

#[tokio::test]
async fn both_ways_each_side_follows_the_other() {
    for recursive in ["OFF", "ON"] {
        let mut bed = Bed::live(LEADS, leads_both(), Direction::Both).await;
        bed.run(&format!("PRAGMA recursive_triggers = {recursive}")).await;
        bed.run("INSERT INTO leads VALUES (1, 'a', 'Open', 'n1'), (2, 'b', 'Open', 'n2')").await;
        bed.expect("leads_v2", COLUMNS, &["1 'a' 'open'", "2 'b' 'open'"]).await;
        // A write of another column of the new side leaves the old one's spelling alone.
        bed.run("UPDATE leads_v2 SET email = 'z' WHERE id = 1").await;
        bed.expect("leads", "id, email, status, note", &["1 'z' 'Open' 'n1'", "2 'b' 'Open' 'n2'"])
            .await;
        bed.run("UPDATE leads_v2 SET status_code = 'won' WHERE id = 1").await;
        bed.run("UPDATE leads SET status = 'WON' WHERE id = 1").await;
        bed.expect("leads", "id, status", &["1 'WON'", "2 'Open'"]).await;
        bed.expect("leads_v2", COLUMNS, &["1 'z' 'won'", "2 'b' 'open'"]).await;
        // Inserts, key changes and deletes on the new side.
        bed.run("INSERT INTO leads_v2 VALUES (3, 'c', 'lost', 'x')").await;
        bed.run("UPDATE leads_v2 SET id = 9, status_code = 'kept' WHERE id = 2").await;
        bed.run("DELETE FROM leads_v2 WHERE id = 1").await;
        bed.expect("leads", "id, email, status, note", &["3 'c' 'lost' NULL", "9 'b' 'kept' 'n2'"])
            .await;
        bed.expect("leads_v2", "id, extra", &["3 'x'", "9 NULL"]).await;
        // REPLACE on the new side through its own key, and on the old side through another.
        bed.run("REPLACE INTO leads_v2 VALUES (3, 'd', 'back', 'x')").await;
        bed.run("REPLACE INTO leads VALUES (4, 'b', 'Taken', 'n4')").await;
        bed.expect("leads_v2", COLUMNS, &["3 'd' 'back'", "4 'b' 'taken'"]).await;
        bed.expect("leads", "id, email, status", &["3 'd' 'back'", "4 'b' 'Taken'"]).await;
        // The old side refuses what the new side would take.
        assert!(
            bed.try_run("UPDATE OR IGNORE leads_v2 SET email = 'b' WHERE id = 3").await.is_err()
        );
        assert!(
            bed.try_run("UPDATE OR REPLACE leads_v2 SET email = 'b' WHERE id = 3").await.is_err()
        );
        bed.expect("leads", "id, email, status", &["3 'd' 'back'", "4 'b' 'Taken'"]).await;
        bed.run("DELETE FROM leads").await;
        bed.expect("leads_v2", COLUMNS, &[]).await;
        bed.expect_no_notes().await;
    }
}

#[tokio::test]
async fn both_ways_users_triggers_write_other_rows_in_between() {
    for is_first in [true, false] {
        let mut bed = Bed::new(LEADS, leads_both(), Direction::Both).await;
        // Renumbering siblings on the new side, as a queue does, and a normalised spelling on the same row.
        let triggers = "
            CREATE TRIGGER others AFTER UPDATE OF status_code ON leads_v2 WHEN NEW.status_code = 'top'
            BEGIN UPDATE leads_v2 SET status_code = 'low' WHERE id <> NEW.id AND status_code = 'top'; END;
            CREATE TRIGGER same AFTER UPDATE OF email ON leads_v2 WHEN NEW.email <> lower(NEW.email)
            BEGIN UPDATE leads_v2 SET email = lower(email) WHERE id = NEW.id; END;";
        if is_first {
            bed.run(triggers).await;
        }
        bed.install().await;
        if !is_first {
            bed.run(triggers).await;
        }
        bed.run("INSERT INTO leads VALUES (1, 'a', 'top', ''), (2, 'b', 'Mid', ''), (3, 'c', 'Mid', '')").await;
        bed.run("UPDATE leads SET status = 'TOP' WHERE id = 2").await;
        bed.expect("leads_v2", COLUMNS, &["1 'a' 'low'", "2 'b' 'top'", "3 'c' 'mid'"]).await;
        bed.expect("leads", "id, status", &["1 'low'", "2 'TOP'", "3 'Mid'"]).await;
        bed.run("UPDATE leads SET email = 'BIG' WHERE id = 3").await;
        bed.expect("leads_v2", "id, email", &["1 'a'", "2 'b'", "3 'big'"]).await;
        bed.expect("leads", "id, email", &["1 'a'", "2 'b'", "3 'big'"]).await;
    }
}

#[tokio::test]
async fn both_ways_with_a_filter_refuses_rows_that_would_fall_outside() {
    let mut mapping = leads_both();
    mapping.filter = Some("status <> 'draft'".to_owned());
    let mut bed = Bed::live(LEADS, mapping, Direction::Both).await;
    bed.run("INSERT INTO leads VALUES (1, 'a', 'draft', ''), (2, 'b', 'x', '')").await;
    assert!(bed.try_run("INSERT INTO leads_v2 VALUES (3, 'c', 'draft', '')").await.is_err());
    assert!(bed.try_run("UPDATE leads_v2 SET status_code = 'draft'").await.is_err());
    // The old side has a row of that key that the filter hides: it is another one, and is not written over.
    for refused in [
        "INSERT INTO leads_v2 VALUES (1, 'q', 'x', '')",
        "REPLACE INTO leads_v2 VALUES (1, 'q', 'x', '')",
        "INSERT OR IGNORE INTO leads_v2 VALUES (1, 'q', 'x', '')",
        "UPDATE leads_v2 SET id = 1 WHERE id = 2",
        "UPDATE OR IGNORE leads_v2 SET id = 1 WHERE id = 2",
    ] {
        let error = bed.try_run(refused).await.unwrap_err().to_string();
        assert!(error.contains("another row of this key"), "{refused}: {error}");
        bed.expect("leads", "id, email, status", &["1 'a' 'draft'", "2 'b' 'x'"]).await;
        bed.expect("leads_v2", "id", &["2"]).await;
    }
    bed.run("DELETE FROM leads_v2 WHERE id = 2").await;
    bed.expect_no_notes().await;
    bed.expect("leads", "id, email, status", &["1 'a' 'draft'"]).await;
    // Brought into the filter it is everybody's; what was there before the sync and is outside still isn't.
    bed.run(
        "UPDATE leads SET status = 'in' WHERE id = 1; UPDATE leads_v2 SET email = 'q' WHERE id = 1",
    )
    .await;
    bed.expect("leads", "id, email, status", &["1 'q' 'in'"]).await;
    bed.run("UPDATE leads SET status = 'draft' WHERE id = 1").await;
    bed.expect("leads_v2", "id", &[]).await;
}
