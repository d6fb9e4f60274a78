//! The process dies on the way back, and where keys that a trigger could only note are put right, while a client writes.

use sqlx::AssertSqlSafe;

use super::dying::killed_at;
use super::writer::Writer;
use super::{check_rows, leads};
use crate::examples::Example;
use crate::examples::database::{block_on, connect};

/// Everything is as the client made it, and nothing of ours is left but the run's one row.
#[track_caller]
pub fn is_back(example: &Example, case: &str) {
    let columns = "SELECT id, name, email, status, score, created_at FROM";
    example.same_rows(&format!("{columns} kept.leads"), &format!("{columns} leads"));
    let tables = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(example.database.value(tables), "leads", "{case}");
    let triggers = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal";
    assert_eq!(example.database.value(triggers), "0", "{case}");
    assert_eq!(example.database.ours(), ["phasegate.runs"], "{case}");
}

#[test]
fn killed_around_every_kind_of_commit_the_way_back_goes_on_under_a_client() {
    for kind in ["remove", "execute", "leave"] {
        let mut kills = 0;
        for place in ["before", "after"] {
            for hits in 0..4 {
                let Some(example) = leads() else { return };
                let case = format!("postgres::{place}-commit::{kind}");
                let writer = Writer::at_work(&example);
                example.run(&["--to", "compare-every-row"]).expect(0);
                let back = ["rollback", example.name, "--yes"];
                if killed_at(&example, &back, &case, hits).is_none() {
                    writer.ends_well();
                    break;
                }
                kills += 1;
                let again = example.phasegate(&back);
                assert_eq!(again.code, Some(0), "{case}, hit {}: {again}", hits + 1);
                writer.ends_well();
                is_back(&example, &case);
            }
        }
        assert!(kills >= 2, "{kind}: only {kills} kills");
    }
}

#[test]
fn killed_after_every_append_on_the_way_back_it_goes_on_under_a_client() {
    let mut hits = 0;
    loop {
        let Some(example) = leads() else { return };
        let writer = Writer::at_work(&example);
        example.run(&["--to", "copy-leads"]).expect(0);
        let back = ["rollback", example.name, "--yes"];
        let killed = killed_at(&example, &back, "journal::after-append", hits).is_some();
        if killed {
            let again = example.phasegate(&back);
            assert_eq!(again.code, Some(0), "append {}: {again}", hits + 1);
        }
        writer.ends_well();
        is_back(&example, &format!("append {}", hits + 1));
        if !killed {
            break;
        }
        hits += 1;
    }
    assert!(hits >= 5, "only {hits} kills: appends went missing");
}

#[test]
fn killed_where_noted_keys_are_put_right_they_still_are() {
    for place in ["before", "after"] {
        let Some(example) = leads() else { return };
        let plan = example.plan();
        example.run(&["--to", "sync-leads"]).expect(0);
        let case = format!("postgres::{place}-commit::settle");
        block_on(async {
            let mut client = connect(&example.database.url).await.unwrap();
            let mut say = async |sql: &str| {
                let sql = AssertSqlSafe(sql.to_owned());
                sqlx::raw_sql(sql).execute(&mut client).await.unwrap();
            };
            // It doesn't see the copies of what it deletes.
            say("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM kept.leads").await;
            example.run(&["--to", "copy-leads"]).expect(0);
            say("DELETE FROM leads WHERE id IN (5, 500, 1500); DELETE FROM kept.leads WHERE id IN (5, 500, 1500)").await;
            say("COMMIT").await;
        });
        assert_eq!(
            example.database.value("SELECT count(*) FROM leads_v2 WHERE id IN (5, 500, 1500)"),
            "3"
        );
        let writer = Writer::at_work(&example);
        let args = ["run", &plan, "--to", "compare-every-row"];
        assert!(killed_at(&example, &args, &case, 0).is_some(), "{case} was never reached");
        let resumed = example.run(&["--to", "compare-every-row"]);
        assert_eq!(resumed.code, Some(0), "{case}: {resumed}");
        let left =
            "SELECT count(*) FROM leads_v2 AS v LEFT JOIN leads AS l USING (id) WHERE l.id IS NULL";
        assert_eq!(example.database.value(left), "0", "{case}");
        example.run(&[]).expect(0);
        writer.ends_well();
        check_rows(&example);
    }
}
