//! Tables that refer to each other, both of them mapped, whose copies refer to each other as well.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{class, mapping as plain_mapping, work};
use super::sync_tests::{Bed, say};
use crate::driver::{DualWriter as _, Error, Parker as _, SyncState};
use crate::run::{Direction, FailureClass, Mapping, Parking, Way};

const TABLES: &str = "
    CREATE TABLE boxes (id bigint PRIMARY KEY, label text);
    CREATE TABLE items (id bigint PRIMARY KEY, box bigint REFERENCES boxes, name text);
    CREATE TABLE boxes_v2 (id bigint PRIMARY KEY, label text);
    CREATE TABLE items_v2 (id bigint PRIMARY KEY, box bigint REFERENCES boxes_v2, name text);
    INSERT INTO boxes SELECT n, 'box ' || n FROM generate_series(1, 9) AS n;
    INSERT INTO items SELECT n, n, 'item ' || n FROM generate_series(1, 9) AS n;";

/// Rows of both pairs of tables that aren't on both sides.
const WRONG: &str = "SELECT count(*) FROM (
    (TABLE boxes EXCEPT TABLE boxes_v2) UNION ALL (TABLE boxes_v2 EXCEPT TABLE boxes)) AS b";
const WRONG_ITEMS: &str = "SELECT count(*) FROM (
    (TABLE items EXCEPT TABLE items_v2) UNION ALL (TABLE items_v2 EXCEPT TABLE items)) AS i";

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

fn named(name: &str) -> Mapping {
    Mapping {
        name: name.into(),
        ..plain_mapping((name, &["id"]), (&format!("{name}_v2"), &["id"]))
    }
}

/// Both mappings under a sync; the bed's own is that of the boxes.
struct Two {
    bed: Bed,
    items: Mapping,
}

impl Two {
    async fn with(setup: &str, direction: Direction) -> Option<Self> {
        let bed = Bed::with(setup, named("boxes"), direction).await?;
        let items = named("items");
        let sync = work("sync-items", Way::Forward);
        bed.postgres.install(&bed.fence, &sync, &items, direction).await.unwrap();
        Some(Self { bed, items })
    }

    /// All rows as they were at first, on both sides.
    async fn anew(&self) {
        self.bed
            .run(
                "DELETE FROM items; DELETE FROM boxes; INSERT INTO boxes SELECT n, 'box ' || n FROM generate_series(1, 9) AS n;
                 INSERT INTO items SELECT n, n, 'item ' || n FROM generate_series(1, 9) AS n",
            )
            .await;
        for mapping in [&self.bed.mapping, &self.items] {
            assert_eq!(self.settle(mapping).await, Ok(0));
        }
    }

    /// The same, and nothing of it copied yet. Only forward, where nobody follows what the new side does.
    async fn uncopied(&self) {
        self.anew().await;
        self.bed.run("DELETE FROM items_v2; DELETE FROM boxes_v2").await;
    }

    /// What the copy of a mapping would bring.
    async fn copy(&self, mapping: &Mapping) {
        let (from, into) = (&mapping.from.table, &mapping.into.table);
        self.bed
            .run(&format!(
                "BEGIN; SELECT set_config('phasegate.guard', '{}', true); INSERT INTO {into} SELECT * FROM {from} \
                 ORDER BY id FOR KEY SHARE ON CONFLICT (id) DO NOTHING; COMMIT",
                super::sync_tests::id(mapping)
            ))
            .await;
    }

    async fn copied(setup: &str, direction: Direction) -> Option<Self> {
        let two = Self::with(setup, direction).await?;
        two.copy(&two.bed.mapping).await;
        two.copy(&two.items).await;
        Some(two)
    }

    async fn noted(&self, mapping: &Mapping) -> i64 {
        let id = super::sync_tests::id(mapping);
        self.bed.number(&format!("SELECT count(*) FROM phasegate.touched_{id}")).await
    }

    /// Puts right what is noted, of one mapping beside the other.
    async fn settle(&self, mapping: &Mapping) -> Result<u64, Error> {
        let other = if mapping.name == self.items.name { &self.bed.mapping } else { &self.items };
        let beside = std::slice::from_ref(other);
        self.bed.postgres.settle_among(&self.bed.fence, mapping, beside).await
    }

    /// That both pairs of tables are equal once everything is put right, whichever mapping is first.
    async fn comes_right(&self, items_first: bool, case: &str) {
        let mut order = [&self.bed.mapping, &self.items];
        if items_first {
            order.reverse();
        }
        for mapping in order {
            assert_eq!(self.settle(mapping).await, Ok(0), "{case}: {}", mapping.name);
        }
        for mapping in order {
            assert_eq!(self.noted(mapping).await, 0, "{case}: {}", mapping.name);
        }
        assert_eq!(self.bed.number(WRONG).await, 0, "{case}");
        assert_eq!(self.bed.number(WRONG_ITEMS).await, 0, "{case}");
    }
}

#[tokio::test]
async fn a_row_and_what_refers_to_it_are_deleted_though_the_copy_that_refers_is_not_seen() {
    let Some(two) = Two::with(TABLES, Direction::Forward).await else { return };
    for level in &LEVELS[1..] {
        for items_first in [false, true] {
            two.uncopied().await;
            two.copy(&two.bed.mapping).await;
            let mut client = two.bed.client().await;
            say(
                &mut client,
                &format!("BEGIN ISOLATION LEVEL {level}; SELECT 1 FROM items LIMIT 1"),
            )
            .await
            .unwrap();
            two.copy(&two.items).await;
            let script = "DELETE FROM items WHERE id = 5; DELETE FROM boxes WHERE id = 5; COMMIT";
            say(&mut client, script).await.unwrap_or_else(|error| panic!("{level}: {error}"));
            assert_eq!(two.noted(&two.items).await, 1);
            assert_eq!(two.noted(&two.bed.mapping).await, 1, "its copy is still referred to");
            two.comes_right(items_first, level).await;
        }
    }
}

#[tokio::test]
async fn a_row_is_deleted_whose_copy_a_noted_one_refers_to() {
    let Some(two) = Two::with(TABLES, Direction::Forward).await else { return };
    for level in LEVELS {
        for statement in [
            "DELETE FROM boxes WHERE id = 5",
            "UPDATE boxes SET id = 50 WHERE id = 5",
            "WITH moved AS (DELETE FROM boxes WHERE id = 5 RETURNING *) INSERT INTO boxes SELECT 51, label FROM moved",
        ] {
            two.uncopied().await;
            two.copy(&two.bed.mapping).await;
            let mut client = two.bed.client().await;
            let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM items LIMIT 1";
            say(&mut client, begin).await.unwrap();
            two.copy(&two.items).await;
            say(&mut client, "DELETE FROM items WHERE id = 5; COMMIT").await.unwrap();
            // What is left behind of the item still refers to the box, whoever removes that.
            let script = format!("BEGIN ISOLATION LEVEL {level}; {statement}; COMMIT");
            let case = format!("{level}: {statement}");
            say(&mut client, &script).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            two.comes_right(false, &case).await;
        }
    }
}

#[tokio::test]
async fn a_row_comes_whose_referred_one_is_not_copied_yet() {
    let Some(two) = Two::with(TABLES, Direction::Forward).await else { return };
    for level in LEVELS {
        for statement in [
            "INSERT INTO items VALUES (20, 7, 'new')",
            "UPDATE items SET box = 8, name = 'moved' WHERE id = 5",
            "UPDATE items SET id = 30, box = 8 WHERE id = 5",
            "INSERT INTO items VALUES (5, 1, 'other') ON CONFLICT (id) DO UPDATE SET box = 3",
        ] {
            two.uncopied().await;
            let script = format!("BEGIN ISOLATION LEVEL {level}; {statement}; COMMIT");
            let case = format!("{level}: {statement}");
            let mut client = two.bed.client().await;
            say(&mut client, &script).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!(two.noted(&two.items).await > 0, "{case}");
            // Nothing to be done about it before the other table is copied, and then it goes by itself.
            let early = two.settle(&two.items).await;
            let Err(Error::Failed(failure)) = early else { panic!("{case}: {early:?}") };
            assert_eq!(failure.code.as_deref(), Some("23503"), "{case}");
            let key = if statement.contains("20") { "\"id\" = 20" } else { "\"id\" = " };
            assert!(failure.message.contains(key), "{case}: {}", failure.message);
            two.copy(&two.bed.mapping).await;
            assert_eq!(two.settle(&two.items).await, Ok(0), "{case}");
            two.copy(&two.items).await;
            two.comes_right(true, &case).await;
        }
    }
}

#[tokio::test]
async fn what_one_statement_or_transaction_does_to_both_tables_is_followed() {
    let cascading = TABLES.replacen(
        "REFERENCES boxes,",
        "REFERENCES boxes ON UPDATE CASCADE ON DELETE CASCADE,",
        1,
    );
    let late =
        TABLES.replacen("REFERENCES boxes,", "REFERENCES boxes DEFERRABLE INITIALLY DEFERRED,", 1);
    for (setup, statements) in [
        (
            cascading.as_str(),
            &[
                "UPDATE boxes SET id = id + 100 WHERE id IN (2, 3)",
                "UPDATE boxes SET id = -id",
                "DELETE FROM boxes WHERE id < 4",
            ][..],
        ),
        (
            late.as_str(),
            &[
                "INSERT INTO items VALUES (40, 40, 'first'); INSERT INTO boxes VALUES (40, 'then')",
                "DELETE FROM boxes WHERE id = 3; UPDATE items SET box = 4 WHERE box = 3",
                "UPDATE boxes SET id = 60 WHERE id = 6; UPDATE items SET box = 60 WHERE box = 6",
            ],
        ),
        (
            TABLES,
            &[
                "WITH b AS (DELETE FROM boxes WHERE id = 9) DELETE FROM items WHERE id = 9",
                "WITH i AS (DELETE FROM items WHERE id = 9) DELETE FROM boxes WHERE id = 9",
            ],
        ),
    ] {
        for direction in [Direction::Forward, Direction::Both] {
            let Some(two) = Two::copied(setup, direction).await else { return };
            let mut client = two.bed.client().await;
            for (statement, level) in
                statements.iter().flat_map(|it| LEVELS.map(|level| (it, level)))
            {
                two.anew().await;
                let script = format!("BEGIN ISOLATION LEVEL {level}; {statement}; COMMIT");
                let case = format!("{direction:?} {level}: {statement}");
                say(&mut client, &script).await.unwrap_or_else(|error| panic!("{case}: {error}"));
                two.comes_right(false, &case).await;
            }
        }
    }
}

#[tokio::test]
async fn tables_that_are_emptied_together_leave_no_copy() {
    let Some(two) = Two::copied(TABLES, Direction::Forward).await else { return };
    for statement in [
        "TRUNCATE boxes, items",
        "TRUNCATE items, boxes",
        "TRUNCATE boxes CASCADE",
        "TRUNCATE items",
    ] {
        two.anew().await;
        two.bed.run(statement).await;
        two.comes_right(false, statement).await;
        two.bed
            .run("INSERT INTO boxes VALUES (70, 'b'); INSERT INTO items VALUES (70, 70, 'i')")
            .await;
        two.comes_right(true, statement).await;
    }
}

#[tokio::test]
async fn rows_of_one_table_that_refer_to_each_other_are_followed() {
    let setup = "
        CREATE TABLE boxes (id bigint PRIMARY KEY, inside bigint REFERENCES boxes);
        CREATE TABLE boxes_v2 (id bigint PRIMARY KEY, inside bigint REFERENCES boxes_v2);
        INSERT INTO boxes SELECT n, nullif(n - 1, 0) FROM generate_series(1, 40) AS n;";
    for level in LEVELS {
        let Some(bed) = Bed::with(setup, named("boxes"), Direction::Forward).await else { return };
        let mut client = bed.client().await;
        for script in [
            "INSERT INTO boxes VALUES (50, 7), (51, 50)",
            "UPDATE boxes SET inside = 30 WHERE id = 2",
            "DELETE FROM boxes WHERE id IN (39, 40)",
            "UPDATE boxes SET id = 400 WHERE id = 38",
        ] {
            let script = format!("BEGIN ISOLATION LEVEL {level}; {script}; COMMIT");
            say(&mut client, &script).await.unwrap_or_else(|error| panic!("{script}: {error}"));
        }
        bed.run(&format!(
            "BEGIN; SELECT set_config('phasegate.guard', '{}', true); \
             INSERT INTO boxes_v2 SELECT * FROM boxes ON CONFLICT (id) DO NOTHING; COMMIT",
            super::sync_tests::id(&bed.mapping)
        ))
        .await;
        assert_eq!(bed.settle().await, 0, "{level}");
        assert_eq!(bed.number(WRONG).await, 0, "{level}");
    }
}

#[tokio::test]
async fn what_can_never_be_put_right_is_named_or_parked() {
    let setup = format!(
        "{TABLES} CREATE TABLE names (name text PRIMARY KEY); INSERT INTO names SELECT 'item ' || n FROM generate_series(1, 9) AS n;
         ALTER TABLE items_v2 ADD FOREIGN KEY (name) REFERENCES names;"
    );
    for parks in [false, true] {
        let Some(mut two) = Two::copied(&setup, Direction::Forward).await else { return };
        let rows_max = parks.then_some(3);
        two.items.parking = Parking { rows_max, writes: false };
        two.bed.run("UPDATE items SET name = 'unheard' WHERE id IN (3, 4); UPDATE items SET name = 'item 1' WHERE id = 2").await;
        assert_eq!(two.noted(&two.items).await, 2);
        let settled = two.settle(&two.items).await;
        if parks {
            assert_eq!(settled, Ok(0));
            let listed = || two.bed.postgres.parked(&two.items, Direction::Forward, 10);
            let parked = listed().await.unwrap();
            let keys: Vec<&str> = parked.rows.iter().map(|row| row.key[0].1.as_str()).collect();
            assert_eq!((parked.total, keys), (2, vec!["3", "4"]));
            assert!(
                parked.rows.iter().all(|row| row.code.as_deref() == Some("23503")
                    && row.reason.contains("(name)=(unheard)")),
                "{parked:?}"
            );
            two.bed.run("INSERT INTO names VALUES ('unheard')").await;
            let retry =
                two.bed.postgres.retry_parked(&two.bed.fence, &two.items, Direction::Forward);
            assert_eq!(retry.await, Ok(0));
        } else {
            let Err(Error::Failed(failure)) = settled else { panic!("{settled:?}") };
            let said = [
                "the row with \"id\" = 3; \"id\" = 4 of ",
                "can't be put right: ",
                "violates foreign key",
            ];
            assert!(said.iter().all(|said| failure.message.contains(said)), "{}", failure.message);
            assert_eq!(class::<u64>(Err(Error::Failed(failure))), FailureClass::Refused);
            assert_eq!(two.noted(&two.items).await, 2, "they are noted still");
            two.bed.run("INSERT INTO names VALUES ('unheard')").await;
        }
        two.comes_right(true, &format!("parks {parks}")).await;
    }
}

#[tokio::test]
async fn a_key_that_comes_while_the_sync_lives_is_noticed_by_it() {
    let setup = TABLES.replacen("REFERENCES boxes_v2", "", 1);
    let Some(two) = Two::with(&setup, Direction::Forward).await else { return };
    two.bed.run("ALTER TABLE items_v2 ADD FOREIGN KEY (box) REFERENCES boxes_v2").await;
    assert_eq!(two.bed.state().await, SyncState::Active);
    two.bed.run("INSERT INTO items VALUES (20, 7, 'new')").await;
    two.copy(&two.bed.mapping).await;
    two.copy(&two.items).await;
    two.comes_right(true, "added").await;
}

#[tokio::test]
async fn a_constraint_that_may_wait_for_the_end_lets_no_sync_begin() {
    for (change, name) in [
        (
            "ALTER TABLE items_v2 ALTER CONSTRAINT items_v2_box_fkey DEFERRABLE INITIALLY DEFERRED",
            "items_v2_box_fkey",
        ),
        ("ALTER TABLE items_v2 ALTER CONSTRAINT items_v2_box_fkey DEFERRABLE", "items_v2_box_fkey"),
        ("ALTER TABLE items_v2 ADD CONSTRAINT once UNIQUE (name) DEFERRABLE", "once"),
        (
            "ALTER TABLE items_v2 ADD CONSTRAINT apart EXCLUDE (name WITH =) INITIALLY DEFERRED",
            "apart",
        ),
        (
            "CREATE TABLE tags (item bigint CONSTRAINT of_item REFERENCES items_v2 DEFERRABLE)",
            "of_item",
        ),
    ] {
        let Some(bed) = Bed::with(TABLES, named("boxes"), Direction::Forward).await else { return };
        bed.run(change).await;
        let install = || async {
            let sync = work("sync-items", Way::Forward);
            bed.postgres.install(&bed.fence, &sync, &named("items"), Direction::Forward).await
        };
        let refused = install().await;
        let Err(Error::Failed(failure)) = &refused else { panic!("{change}: {refused:?}") };
        assert_eq!(failure.class, FailureClass::Unsafe);
        assert!(
            failure.message.contains(name) && failure.message.contains("DEFERRABLE"),
            "{failure:?}"
        );
        assert!(failure.help.as_ref().unwrap().contains("NOT DEFERRABLE"), "{failure:?}");
        bed.run(match name {
            "items_v2_box_fkey" => {
                "ALTER TABLE items_v2 ALTER CONSTRAINT items_v2_box_fkey NOT DEFERRABLE"
            }
            "of_item" => "ALTER TABLE tags ALTER CONSTRAINT of_item NOT DEFERRABLE",
            "once" => "ALTER TABLE items_v2 DROP CONSTRAINT once",
            _ => "ALTER TABLE items_v2 DROP CONSTRAINT apart",
        })
        .await;
        install().await.unwrap();
    }
}
