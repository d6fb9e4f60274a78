//! Rows that are read for a copy, chunk by chunk.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::captured;
use crate::copy::chunk::Walk;
use crate::copy::row::Datum;
use crate::driver::Window;
use crate::driver::postgres::fixture::{Database, entered, work};
use crate::run::Way;

#[tokio::test]
async fn pages_cover_every_row_once_whatever_the_key() {
    let setup = "CREATE COLLATION loose (provider = icu, deterministic = false, locale = 'und-u-ks-level2');
        CREATE TABLE t (id bigint PRIMARY KEY, code text COLLATE \"C\" NOT NULL UNIQUE, ident uuid NOT NULL UNIQUE, a smallint NOT NULL, b varchar(20) NOT NULL,
            odd text COLLATE loose NOT NULL UNIQUE, v int, UNIQUE (a, b));
        INSERT INTO t SELECT n, 'k' || n, gen_random_uuid(), n % 7, 'b' || n, 'O' || n, n FROM generate_series(1, 1000) AS n; ANALYZE t";
    let Some(database) = Database::with(setup).await else { return };
    let postgres = database.open().await;
    let fence = entered(&postgres, 1).await.remove(1);
    for key in [vec!["id"], vec!["code"], vec!["ident"], vec!["a", "b"], vec!["odd"]] {
        let mut mapping = captured("t", &key, &[("v", "v"), ("code", "code")]);
        mapping.filter = Some("v % 10 <> 0".into());
        let of = postgres.resolve(&mapping).await.unwrap();
        assert_eq!(postgres.estimate_of(&of).await, Ok(900));
        let step = work(&key.concat(), Way::Forward);
        let (mut found, mut lo, mut read) = (Vec::new(), None, 0);
        for count in [2, 9] {
            let size = Window { rows: 300, count };
            let state = postgres.plan_pages((&fence, &step), &of, size).await.unwrap();
            for planned in &state.open[read..] {
                read += 1;
                assert_eq!(planned.chunk.lo, lo);
                lo.clone_from(&planned.chunk.hi);
                let page = postgres.page(&of, &planned.chunk).await.unwrap();
                assert_eq!(page.unfit, []);
                found.extend(page.rows);
            }
            assert_eq!(matches!(state.walk, Walk::Ended { .. }), count == 9);
        }
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
        let mut again = postgres.rows_of(&of, &keys).await.unwrap().rows;
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
    let of = postgres.resolve(&captured("t", &["a", "b", "c"], &[])).await.unwrap();
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
    let rows = postgres.rows_of(&of, &keys).await.unwrap().rows;
    assert_eq!((rows.len(), rows[0].values.len()), (1, 0));
    assert_eq!(postgres.rows_of(&of, &[]).await.unwrap().rows, []);
}
