//! Rows that are read for a copy, chunk by chunk.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::crossing;
use crate::copy::chunk::Chunk;
use crate::copy::row::Datum;
use crate::driver::crossing::ChangeSource as _;
use crate::driver::postgres::fixture::Database;

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
                let page = postgres.page(&of, &chunk).await.unwrap();
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
