//! Values of every type on their way into the graph and out of it again, on a real server.
#![allow(clippy::unwrap_used, missing_docs)]

use super::super::fixture::class;
use super::fixture::{Bed, int, is, people, row, text};
use crate::copy::row::{Datum, Row};
use crate::driver::crossing::Crossed;
use crate::run::FailureClass;

fn list(values: &[Datum]) -> Datum {
    Datum::List(values.to_vec())
}

fn all() -> Vec<Datum> {
    let real = [0.0, -0.0, 0.1, 1e308, -5e-324, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let texts = [
        "",
        " ",
        "a|b",
        "trailing  ",
        "\ttab\n",
        "e\u{301}",
        "\u{e9}",
        "😀",
        "'\"`\\",
        "null",
        "{a: 1}",
    ];
    let mut all: Vec<Datum> = real.map(Datum::Real).to_vec();
    all.extend(texts.map(text));
    all.extend([i64::MIN, -1, 0, 1, i64::MAX].map(Datum::Integer));
    all.extend([true, false].map(Datum::Boolean));
    all.extend([Vec::new(), vec![0, 255, 10], vec![7; 70_000]].map(Datum::Bytes));
    all.extend([-719_528, -1, 0, 19_782, 2_932_896].map(Datum::Date));
    all.extend([0, 1, 86_399_999_999_999].map(Datum::LocalTime));
    all.extend(
        [-64_800, 0, 3_600, 20_700].map(|offset| Datum::Time { nanos: 3_723_000_000_500, offset }),
    );
    for (seconds, nanos) in
        [(0, 0), (-1, 999_999_999), (1_711_846_800, 120_000_000), (-62_135_596_800, 0)]
    {
        all.push(Datum::LocalDateTime { seconds, nanos });
        all.push(Datum::DateTime { seconds, nanos });
    }
    let parts = [(0, 0, 0, 0), (14, -3, 86_400, 999_999_999), (-1, 40, -7, 1)];
    all.extend(parts.map(|(months, days, seconds, nanos)| Datum::Duration {
        months,
        days,
        seconds,
        nanos,
    }));
    all.push(Datum::Point { srid: 7_203, at: vec![1.5, -2.0] });
    all.push(Datum::Point { srid: 4_979, at: vec![1.5, -2.0, 3.0] });
    all.push(list(&[]));
    all.push(list(&[text("a|b"), text(""), text("c ")]));
    all.push(list(&[int(1), int(-2)]));
    all.push(list(&[Datum::Real(f64::NAN), Datum::Real(-0.0)]));
    all.push(list(&[Datum::Boolean(true), Datum::Boolean(false)]));
    all.push(list(&[Datum::Date(1), Datum::Date(2)]));
    all.push(list(&[Datum::DateTime { seconds: 1, nanos: 2 }]));
    all
}

fn id(at: usize) -> i64 {
    i64::try_from(at).unwrap()
}

fn rows(values: &[Datum]) -> Vec<Row> {
    let values = values.iter().enumerate();
    values.map(|(at, value)| row(&[int(id(at))], &[("name", value.clone())])).collect()
}

async fn held(bed: &Bed, of: &Crossed, count: usize) -> Vec<Row> {
    let keys: Vec<[Datum; 1]> = (0..count).map(|at| [int(id(at))]).collect();
    let keys: Vec<&[Datum]> = keys.iter().map(|key| &key[..]).collect();
    bed.rows(of, &keys).await
}

#[tokio::test]
async fn values_come_back_as_they_were() {
    let of = people();
    let Some(bed) = Bed::open(&[&of]).await else { return };
    let values = all();
    let rows = rows(&values);
    bed.page(&of, rows.clone()).await;
    let same = |held: &[Row], version: &str| {
        let mut by_key = rows.clone();
        by_key.sort();
        for (held, row) in held.iter().zip(&by_key) {
            assert_eq!(held, row, "{version}");
        }
        assert_eq!(held.len(), rows.len(), "{version}");
    };
    same(&held(&bed, &of, values.len()).await, "a page");
    // Each over another one, and each over itself.
    let turned: Vec<_> = rows
        .iter()
        .enumerate()
        .map(|(at, row)| {
            let other = &rows[(at + 7) % rows.len()];
            Row { key: row.key.clone(), values: other.values.clone() }
        })
        .collect();
    for (version, rows) in [(1, &turned), (2, &rows), (3, &rows)] {
        let changes: Vec<_> = rows.iter().map(|row| is(&of, version, row.clone())).collect();
        bed.land(&[&of], &changes).await;
    }
    same(&held(&bed, &of, values.len()).await, "changes");
    // No value at all is another thing than an empty one.
    bed.land(&[&of], &[is(&of, 9, row(&[int(8)], &[]))]).await;
    assert_eq!(bed.rows(&of, &[&[int(8)]]).await, [row(&[int(8)], &[])]);
}

#[tokio::test]
async fn keys_are_told_apart_by_every_byte() {
    let mut of = people();
    of.mapping.into.key = vec!["a".into(), "b c".into()];
    of.mapping.from.key = vec!["a".into(), "b".into()];
    let Some(bed) = Bed::open(&[&of]).await else { return };
    let long = "x".repeat(3_000);
    let texts = ["", " ", "a", "a ", "A", "é", "e\u{301}", "a:1", "1;t1:a", "😀", long.as_str()];
    let keys: Vec<Vec<Datum>> = texts
        .iter()
        .flat_map(|one| texts.iter().map(|other| vec![text(one), text(other)]))
        .collect();
    let rows: Vec<Row> =
        keys.iter().map(|key| row(key, &[("n", text(&format!("{key:?}")))])).collect();
    bed.page(&of, rows.clone()).await;
    let changes: Vec<_> =
        rows.iter().zip(1..).map(|(row, version)| is(&of, version, row.clone())).collect();
    bed.land(&[&of], &changes).await;
    let asked: Vec<&[Datum]> = keys.iter().map(Vec::as_slice).collect();
    let held = bed.held(&of, &asked).await;
    let mut expected = rows.clone();
    expected.sort();
    assert_eq!(held.rows, expected);
    assert_eq!(held.versions, (1..=keys.len() as u64).collect::<Vec<_>>());
    // What the server takes for equal isn't the same.
    let of = people();
    bed.opened(&of).await;
    bed.page(&of, vec![row(&[int(1)], &[])]).await;
    bed.database.run("MATCH (p:Person) SET p.uid = null SET p.uid = 1.0").await;
    assert_eq!(bed.rows(&of, &[&[int(1)]]).await, []);
}

/// The relay takes such a batch apart until it has the one change.
#[tokio::test]
async fn what_can_not_be_held_is_refused_and_leaves_nothing() {
    let of = people();
    let Some(bed) = Bed::open(&[&of]).await else { return };
    let good = is(&of, 1, row(&[int(1)], &[("name", text("good"))]));
    let bad = |key: Datum, value: Datum| is(&of, 2, row(&[key], &[("name", value)]));
    for (what, change) in [
        ("too long a key", bad(text(&"x".repeat(50_000)), int(1))),
        ("too far a date", bad(int(2), Datum::Date(i64::MAX))),
        ("a list in a list", bad(int(2), list(&[list(&[int(1)])]))),
        ("a list of several types", bad(int(2), list(&[int(1), text("a")]))),
    ] {
        let refused = bed.try_land(&[&of], &[good.clone(), change]).await;
        assert_eq!(class(refused), FailureClass::Refused, "{what}");
        assert_eq!(bed.held(&of, &[&[int(1)]]).await.versions, [0], "{what}");
    }
    bed.database.run("CREATE CONSTRAINT name FOR (p:Person) REQUIRE p.name IS UNIQUE").await;
    bed.land(&[&of], std::slice::from_ref(&good)).await;
    let taken = bed.try_land(&[&of], &[bad(int(2), text("good"))]).await;
    assert_eq!(class(taken), FailureClass::Refused);
    // It may be had from a row that goes in the same batch.
    let changes = [
        is(&of, 5, row(&[int(2)], &[("name", text("good"))])),
        super::fixture::gone(&of, 4, &[int(1)]),
    ];
    bed.land(&[&of], &changes).await;
    assert_eq!(bed.neo4j_count("Person").await, 1);
}
