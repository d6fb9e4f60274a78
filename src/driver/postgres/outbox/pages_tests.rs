//! Rows that are read for a copy, chunk by chunk.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{Bed, crossing, say};
use crate::copy::chunk::Chunk;
use crate::copy::row::Datum;
use crate::driver::crossing::{ChangeSource as _, Rows};
use crate::driver::postgres::fixture::{Database, work};
use crate::run::Way;

const ALL: Chunk = Chunk { lo: None, hi: None };

#[tokio::test]
async fn pages_cover_every_row_once_whatever_the_key() {
    let setup = "CREATE COLLATION loose (provider = icu, deterministic = false, locale = 'und-u-ks-level2');
        CREATE TABLE t (id bigint PRIMARY KEY, code text COLLATE \"C\" NOT NULL UNIQUE, ident uuid NOT NULL UNIQUE, a smallint NOT NULL, b varchar(20) NOT NULL,
            odd text COLLATE loose NOT NULL UNIQUE, v int, UNIQUE (a, b));
        INSERT INTO t SELECT n, 'k' || n, gen_random_uuid(), n % 7, 'b' || n, 'O' || n, n FROM generate_series(1, 1000) AS n; ANALYZE t";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = database.open().await;
    for key in [vec!["id"], vec!["code"], vec!["ident"], vec!["a", "b"], vec!["odd"]] {
        let mut of = crossing("t", &key, &[("v", "v"), ("code", "code")]);
        of.filter = Some("v % 10 <> 0".into());
        assert_eq!(postgres.rows_about(&of).await, Ok(900));
        assert_eq!(postgres.rows_counted(&of).await, Ok(900));
        let end = postgres.last_key(&of).await.unwrap();
        let (mut found, mut lo, mut sizes) = (Vec::new(), None, Vec::new());
        for count in [2, 9] {
            let range = Chunk { lo: lo.clone(), hi: end.clone() };
            let mut ends = postgres.bounds(&of, &range, (300, count)).await.unwrap();
            if ends.len() < count as usize && ends.last() != end.as_ref() {
                ends.extend(end.clone());
            }
            for hi in ends {
                let chunk = Chunk { lo: lo.replace(hi.clone()), hi: Some(hi) };
                let page = postgres.page(&of, (&chunk, Rows::All)).await.unwrap();
                assert_eq!(page.unfit, []);
                sizes.push(page.rows.len());
                found.extend(page.rows);
            }
        }
        assert_eq!((sizes.len(), lo), (4, end), "{key:?} {sizes:?}");
        let mut values: Vec<i64> = found
            .iter()
            .map(|row| match row.values["v"] {
                Datum::Integer(v) => v,
                _ => panic!("{row:?}"),
            })
            .collect();
        values.sort_unstable();
        assert_eq!(values, (1..=1000).filter(|v| v % 10 != 0).collect::<Vec<i64>>(), "{key:?}");
        // Each row is found by its own key, too.
        let keys: Vec<Vec<Datum>> = found.iter().map(|row| row.key.clone()).collect();
        let mut again = postgres.rows_of(&of, &keys).await.unwrap().page.rows;
        again.sort();
        found.sort();
        assert_eq!(again, found, "{key:?}");
        assert!(postgres.which_exist(&of, &keys).await.unwrap().into_iter().all(|exists| exists));
    }
}

#[tokio::test]
async fn keys_that_no_row_can_have_are_those_of_none() {
    let setup = "CREATE TABLE t (a int, b uuid, c name, PRIMARY KEY (a, b, c));
        INSERT INTO t VALUES (1, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'n')";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = database.open().await;
    let of = crossing("t", &["a", "b", "c"], &[]);
    let text = |text: &str| Datum::Text(text.to_owned());
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    let keys = [
        vec![Datum::Integer(1), text(uuid), text("n")],
        vec![Datum::Integer(1), text(&uuid.to_uppercase()), text("n")],
        vec![Datum::Integer(1), text("no uuid"), text("n")],
        vec![Datum::Integer(1), text(uuid), text("n\0")],
        vec![Datum::Integer(i64::MAX), text(uuid), text("n")],
        vec![text("1"), text(uuid), text("n")],
        vec![Datum::Integer(1)],
        vec![Datum::Real(1.0), text(uuid), text("n")],
    ];
    let exist = postgres.which_exist(&of, &keys).await.unwrap();
    assert_eq!(exist, [true, false, false, false, false, false, false, false]);
    let rows = postgres.rows_of(&of, &keys).await.unwrap().page.rows;
    assert_eq!((rows.len(), rows[0].values.len()), (1, 0));
    assert_eq!(postgres.rows_of(&of, &[]).await.unwrap().page.rows, []);
}

/// Were they in, changes that are older than what is read would take the copy back for a while.
#[tokio::test]
async fn a_page_for_a_copy_leaves_to_changes_what_they_bring() {
    let setup = "CREATE TABLE people (id bigint, part text, email text, status text, PRIMARY KEY (part, id));
        INSERT INTO people SELECT n, 'a', 'e' || n, 'Open' FROM generate_series(1, 9) AS n;
        CREATE TABLE others (id int PRIMARY KEY, v text); INSERT INTO others VALUES (1, 'a')";
    let of = crossing("people", &["part", "id"], &[("mail", "email")]);
    let Some(bed) = Bed::with(setup, of).await else { return };
    let mut other = crossing("others", &["id"], &[("v", "v")]);
    other.name = "others".into();
    bed.postgres.capture(bed.fence(), &work("other", Way::Forward), &other).await.unwrap();
    let ids = async || {
        let page = bed.postgres.page(&bed.of, (&ALL, Rows::Settled)).await.unwrap();
        let mut ids: Vec<Datum> = page.rows.into_iter().map(|mut row| row.key.remove(1)).collect();
        ids.sort();
        ids
    };
    let integers = |ids: &[i64]| ids.iter().copied().map(Datum::Integer).collect::<Vec<_>>();
    assert_eq!(ids().await, integers(&[1, 2, 3, 4, 5, 6, 7, 8, 9]));
    bed.run("UPDATE people SET email = 'x' WHERE id = 2; UPDATE people SET email = 'y' WHERE id = 2;
        DELETE FROM people WHERE id = 3; UPDATE people SET id = 40 WHERE id = 4; INSERT INTO people VALUES (10, 'a', 'n');
        UPDATE others SET v = 'b'").await;
    let mut client = bed.client().await;
    say(&mut client, "BEGIN; UPDATE people SET email = 'z' WHERE id = 5").await.unwrap();
    // Nobody sees what isn't committed: neither the row nor its change.
    assert_eq!(ids().await, integers(&[1, 5, 6, 7, 8, 9]));
    say(&mut client, "COMMIT").await.unwrap();
    assert_eq!(ids().await, integers(&[1, 6, 7, 8, 9]));
    let all = bed.postgres.page(&bed.of, (&ALL, Rows::All)).await.unwrap();
    assert_eq!(all.rows.len(), 9);
    let parked = bed.claim().await.remove(0).version;
    let said = (None, "no");
    assert!(bed.postgres.change_refused(bed.fence(), parked, said, 1).await.unwrap());
    assert_eq!(ids().await, integers(&[1, 6, 7, 8, 9]), "what is parked is still to come");
    bed.applied(&bed.claim().await).await;
    assert_eq!(ids().await.len(), 9 - 1);
}

#[tokio::test]
async fn keys_under_any_collation_are_found_among_changes() {
    let setup = "CREATE COLLATION loose (provider = icu, deterministic = false, locale = 'und-u-ks-level2');
        CREATE TABLE t (a text COLLATE loose, b text COLLATE \"de-x-icu\", c name, d char(5), v int, PRIMARY KEY (a, b, c, d));
        INSERT INTO t SELECT 'A' || n, 'b' || n, 'c' || n, 'd' || n, n FROM generate_series(1, 5) AS n";
    let of = crossing("t", &["a", "b", "c", "d"], &[("v", "v")]);
    let Some(bed) = Bed::with(setup, of).await else { return };
    bed.run("UPDATE t SET v = -v WHERE v < 3").await;
    let page = bed.postgres.page(&bed.of, (&ALL, Rows::Settled)).await.unwrap();
    let mut values: Vec<Datum> = page.rows.iter().map(|row| row.values["v"].clone()).collect();
    values.sort();
    assert_eq!(values, [3, 4, 5].map(Datum::Integer));
    let keys: Vec<Vec<Datum>> = page.rows.into_iter().map(|row| row.key).collect();
    let changed = bed.postgres.page(&bed.of, (&ALL, Rows::All)).await.unwrap().rows;
    let changed = changed.into_iter().map(|row| row.key).filter(|key| !keys.contains(key));
    let changed: Vec<Vec<Datum>> = changed.collect();
    assert_eq!(bed.postgres.rows_of(&bed.of, &keys).await.unwrap().is_open, [false; 3]);
    assert_eq!(bed.postgres.rows_of(&bed.of, &changed).await.unwrap().is_open, [true; 2]);
}
