//! What clients are held against, and what fires for them: constraints that are made of indexes, and triggers, as they were.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::mapping;
use super::retire_carry_tests::{catalogue, changed};
use super::retire_tests::{Live, whole};
use crate::driver::Losses;
use crate::run::Direction;

const V2: &str = "ALTER TABLE \"public\".\"leads_v2\"";

/// A sync between `leads` and `leads_v2`, with a row, and the statements that a refusal listed until nothing was refused.
async fn retired(setup: &str, direction: Direction) -> Option<(Live, Vec<String>)> {
    let live =
        Live::of(setup, mapping(("leads", &["id"]), ("leads_v2", &["id"])), direction).await?;
    live.database.run("INSERT INTO leads (id) VALUES (1), (2)").await;
    let ran = live.retire_at_last(&whole(true)).await;
    Some((live, ran))
}

/// Lines that a catalogue must have.
async fn has(live: &Live, lines: &[&str]) {
    let is = catalogue(&live.database).await;
    for line in lines {
        assert!(is.iter().any(|it| it == line), "{line}: {is:#?}");
    }
}

const UNIQUE: &str = "
    CREATE TABLE leads (id int PRIMARY KEY, a int, b int, CONSTRAINT one_b UNIQUE (b),
        CONSTRAINT turns UNIQUE (a) DEFERRABLE INITIALLY DEFERRED);
    COMMENT ON CONSTRAINT one_b ON leads IS 'one each';
    CREATE TABLE leads_v2 (id int PRIMARY KEY, a int, b int);";

#[tokio::test]
async fn a_unique_constraint_is_one_afterwards_checked_when_it_was_and_by_its_name() {
    let made = |name: &str, column: &str| {
        format!(
            "CREATE UNIQUE INDEX CONCURRENTLY \"{name}\" ON \"public\".\"leads_v2\" USING btree ({column})"
        )
    };
    let deferred = "DEFERRABLE INITIALLY DEFERRED";
    let one_b =
        format!("{V2} ADD CONSTRAINT \"leads_v2_one_b\" UNIQUE USING INDEX \"leads_v2_one_b\"");
    let turns = format!(
        "{V2} ADD CONSTRAINT \"leads_v2_turns\" UNIQUE USING INDEX \"leads_v2_turns\" {deferred}"
    );
    // Of an index that stands already it is made; one that is checked at once would go on refusing.
    let standing = "CREATE UNIQUE INDEX mine ON leads_v2 (b); ALTER TABLE leads_v2 ADD CONSTRAINT at_once UNIQUE (a)";
    let of_mine = format!("{V2} ADD CONSTRAINT \"mine\" UNIQUE USING INDEX \"mine\"");
    let instead = turns.replace(" ADD ", " DROP CONSTRAINT \"at_once\", ADD ");
    for (more, direction, expected) in [
        (
            "",
            Direction::Forward,
            vec![made("leads_v2_one_b", "b"), one_b, made("leads_v2_turns", "a"), turns],
        ),
        (standing, Direction::Both, vec![of_mine, made("leads_v2_turns", "a"), instead]),
    ] {
        let Some((live, ran)) = retired(&format!("{UNIQUE}{more}"), direction).await else {
            return;
        };
        assert_eq!(ran, expected);
        has(
            &live,
            &[
                "constraint leads_pkey on leads PRIMARY KEY (id)",
                "constraint one_b on leads UNIQUE (b) one each",
                "constraint turns on leads UNIQUE (a) DEFERRABLE INITIALLY DEFERRED",
                "constraint leads_v2_turns on leads_old UNIQUE (a) DEFERRABLE INITIALLY DEFERRED",
            ],
        )
        .await;
        live.database
            .run(
                "UPDATE leads SET a = id, b = id; UPDATE leads SET a = 3 - a;
                INSERT INTO leads VALUES (3, 3, 2) ON CONFLICT ON CONSTRAINT one_b DO NOTHING",
            )
            .await;
        assert_eq!(
            live.database.text("SELECT string_agg(a::text, ' ' ORDER BY id) FROM leads").await,
            "2 1"
        );
        live.unretire(&whole(true), live.where_written()).await.unwrap();
        has(
            &live,
            &[
                "constraint one_b on leads UNIQUE (b) one each",
                "constraint turns on leads UNIQUE (a) DEFERRABLE INITIALLY DEFERRED",
                "constraint leads_v2_turns on leads_v2 UNIQUE (a) DEFERRABLE INITIALLY DEFERRED",
                "constraint leads_v2_pkey on leads_v2 PRIMARY KEY (id)",
            ],
        )
        .await;
        live.database.run("UPDATE leads SET a = 3 - a").await;
        let before = catalogue(&live.database).await;
        live.ledger_forgets("retire").await;
        live.retire(&whole(true)).await.unwrap();
        live.unretire(&whole(true), Losses::Accepted).await.unwrap();
        assert_eq!(changed(&before, &catalogue(&live.database).await), [""; 0]);
    }
}

#[tokio::test]
async fn what_is_beside_a_primary_key_is_asked_for_once() {
    let setup = "CREATE TABLE leads (id int, v text, PRIMARY KEY (id) INCLUDE (v)); CREATE TABLE leads_v2 (id int PRIMARY KEY, v text)";
    let Some((_, ran)) = retired(setup, Direction::Forward).await else { return };
    let wider =
        "CREATE UNIQUE INDEX CONCURRENTLY ON \"public\".\"leads_v2\" USING btree (id) INCLUDE (v)";
    assert_eq!(ran, [wider]);
}

#[tokio::test]
async fn an_exclusion_is_made_with_its_index_under_a_free_name() {
    let setup = "
        CREATE TABLE leads (id int PRIMARY KEY, r int4range, CONSTRAINT apart EXCLUDE USING gist (r WITH &&));
        COMMENT ON CONSTRAINT apart ON leads IS 'never two'; CREATE TABLE leads_v2 (id int PRIMARY KEY, r int4range)";
    let Some((live, ran)) = retired(setup, Direction::Forward).await else { return };
    assert_eq!(
        ran,
        [format!("{V2} ADD CONSTRAINT \"leads_v2_apart\" EXCLUDE USING gist (r WITH &&)")]
    );
    has(
        &live,
        &[
            "constraint apart on leads EXCLUDE USING gist (r WITH &&) never two",
            "constraint leads_v2_apart on leads_old EXCLUDE USING gist (r WITH &&) never two",
        ],
    )
    .await;
}

const FIRING: &str = "
    CREATE TABLE leads (id int PRIMARY KEY, n int); CREATE TABLE leads_v2 (id int PRIMARY KEY, n int); CREATE TABLE told (id int);
    CREATE INDEX twice ON leads ((n * 2)); ALTER INDEX twice ALTER COLUMN 1 SET STATISTICS 99;
    CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.told VALUES (NEW.id); RETURN NULL; END';
    CREATE TRIGGER plain AFTER INSERT ON leads FOR EACH ROW EXECUTE FUNCTION tell();
    CREATE TRIGGER always AFTER UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION tell(); ALTER TABLE leads ENABLE ALWAYS TRIGGER always;
    CREATE TRIGGER replica AFTER DELETE ON leads FOR EACH ROW EXECUTE FUNCTION tell(); ALTER TABLE leads ENABLE REPLICA TRIGGER replica;
    CREATE TRIGGER never AFTER UPDATE OF n ON leads FOR EACH ROW EXECUTE FUNCTION tell(); ALTER TABLE leads DISABLE TRIGGER never;";

#[tokio::test]
async fn triggers_fire_for_whom_they_fired_and_statistics_are_as_wide() {
    let modes = async |live: &Live, table: &str| -> String {
        let modes = format!(
            "SELECT string_agg(tgname || ' ' || tgenabled::text, ', ' ORDER BY tgname) FROM pg_trigger
             WHERE tgrelid = '{table}'::regclass AND tgname IN ('always', 'never', 'plain', 'replica')"
        );
        live.database.text(&modes).await
    };
    let were = "always A, never D, plain O, replica R";
    for direction in [Direction::Forward, Direction::Both] {
        let Some((live, ran)) = retired(FIRING, direction).await else { return };
        assert_eq!(
            ran.iter()
                .filter(|it| it.contains("; ALTER TABLE ") && it.contains(" DISABLE TRIGGER "))
                .count(),
            4,
            "{ran:#?}"
        );
        assert_eq!(live.database.number("SELECT count(*) FROM told").await, 2);
        assert_eq!(modes(&live, "leads").await, were);
        let aside = if direction == Direction::Both {
            "always D, never D, plain D, replica D"
        } else {
            were
        };
        assert_eq!(modes(&live, "leads_old").await, aside);
        live.database.run("INSERT INTO leads VALUES (3, 3); DELETE FROM leads WHERE id = 3").await;
        assert_eq!(live.database.number("SELECT count(*) FROM told").await, 3, "{direction:?}");
        let target = "SELECT attstattarget FROM pg_attribute WHERE attrelid =
            (SELECT indexrelid FROM pg_index WHERE indrelid = 'leads'::regclass AND NOT indisprimary)";
        assert_eq!(live.database.number(target).await, 99);
        live.unretire(&whole(true), live.where_written()).await.unwrap();
        assert_eq!(modes(&live, "leads").await, were);
        assert_eq!(modes(&live, "leads_v2").await, "always D, never D, plain D, replica D");
    }
}

/// A mode that nobody said is the old one's: a trigger for replicas that fired for clients would fail their writes.
#[tokio::test]
async fn a_trigger_that_was_made_anew_and_left_so_gets_the_old_mode() {
    let made = FIRING.split("CREATE TRIGGER ").skip(1).map(|it| {
        let (made, _) = it.split_once(';').unwrap();
        format!(
            "CREATE TRIGGER {}; CREATE INDEX IF NOT EXISTS two ON leads_v2 ((n * 2));",
            made.replace("ON leads", "ON leads_v2")
        )
    });
    let setup =
        format!("{FIRING}{}ALTER TABLE leads_v2 DISABLE TRIGGER plain", made.collect::<String>());
    let Some((live, ran)) = retired(&setup, Direction::Forward).await else { return };
    assert_eq!(ran, [""; 0]);
    let modes = async |table: &str| -> String {
        let modes = format!(
            "SELECT string_agg(tgname || ' ' || tgenabled::text, ', ' ORDER BY tgname) FROM pg_trigger
             WHERE tgrelid = '{table}'::regclass AND tgname IN ('always', 'plain', 'replica')"
        );
        live.database.text(&modes).await
    };
    assert_eq!(modes("leads").await, "always A, plain O, replica R");
    live.unretire(&whole(true), Losses::Refused).await.unwrap();
    assert_eq!(modes("leads_v2").await, "always O, plain D, replica O");
}
