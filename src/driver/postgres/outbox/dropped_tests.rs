//! The old table goes with everything of ours on it, or stays for a reason.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::{Bed, PEOPLE, people};
use crate::driver::crossing::ChangeSource as _;
use crate::driver::postgres::fixture::{class, mapping, work};
use crate::driver::{Applied, Error, Retirer as _, Work};
use crate::run::{FailureClass, Mapping, Permit, Way};

const LEFT: &str = "SELECT (SELECT count(*) FROM pg_class WHERE relname IN ('people', 'outbox'))
    + (SELECT count(*) FROM pg_proc WHERE proname LIKE 'phasegate\\_%')";

impl Bed {
    async fn drop_of(
        &self,
        work: &Work,
        mapping: &Mapping,
        others: &[Mapping],
    ) -> Result<Applied, Error> {
        let permit = Permit::for_test("drop");
        self.postgres.drop_old(self.fence(), work, mapping, others, permit).await
    }

    async fn drop_old(&self) -> Result<Applied, Error> {
        self.drop_of(&work("drop", Way::Forward), &self.of, self.mappings()).await
    }
}

fn failed(result: Result<Applied, Error>) -> (FailureClass, String) {
    let Err(Error::Failed(failure)) = result else { panic!("{result:?}") };
    let detail = failure.detail.unwrap_or_default();
    (failure.class, format!("{}: {detail}", failure.message))
}

#[tokio::test]
async fn the_table_goes_with_its_capture_once_nothing_is_left() {
    let setup = format!("{PEOPLE} CREATE TABLE firms (id int PRIMARY KEY); ALTER TABLE people ADD firm int REFERENCES firms;
        CREATE VIEW hot AS SELECT * FROM people; CREATE TABLE notes (person bigint REFERENCES people);
        CREATE FUNCTION names() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM people); END'");
    let Some(bed) = Bed::with(&setup, people()).await else { return };
    bed.run("UPDATE people SET status = 'Won' WHERE id IN (1, 2)").await;
    // A change is still to be applied.
    let (kind, said) = failed(bed.drop_old().await);
    assert_eq!(kind, FailureClass::Contention);
    assert!(said.contains("2 changes of mapping people still to be applied"), "{said}");
    let changes = bed.claim().await;
    bed.postgres.change_refused(bed.fence(), changes[0].version, (None, "no"), 1).await.unwrap();
    bed.applied(&changes[1..]).await;
    assert!(failed(bed.drop_old().await).1.contains("1 change of mapping people still parked"));
    bed.applied(&changes).await;
    // Somebody else's things hang on it.
    let (kind, said) = failed(bed.drop_old().await);
    assert_eq!(kind, FailureClass::Refused);
    assert!(said.contains("view hot") && said.contains("notes"), "{said}");
    assert_eq!(bed.number(LEFT).await, 5, "nothing was ended");
    bed.run("DROP VIEW hot; DROP TABLE notes").await;
    // Both sides were compared under other triggers.
    let mut compared = work("drop", Way::Forward);
    compared.compared_under = Some(crate::run::Digest::of_bytes(b"others"));
    assert_eq!(class(bed.drop_of(&compared, &bed.of, bed.mappings()).await), FailureClass::Stale);
    compared.compared_under = Some(bed.postgres.capture_basis(&bed.of).await.unwrap().of_sync());
    let permit = Permit::for_test("other");
    let refused = bed.postgres.drop_old(bed.fence(), &compared, &bed.of, &[], permit).await;
    assert_eq!(class(refused), FailureClass::Unsafe);
    let dropped = bed.drop_of(&compared, &bed.of, bed.mappings()).await.unwrap();
    assert!(dropped.detail.unwrap().contains("people is gone; still named in the text of"));
    assert_eq!(bed.number(LEFT).await, 0);
    assert!(bed.drop_old().await.unwrap().before);
}

#[tokio::test]
async fn rows_that_no_mapping_is_about_keep_the_table() {
    let with = |filter: &str| Mapping { filter: Some(filter.to_owned()), ..people() };
    let Some(bed) = Bed::with(PEOPLE, with("id < 6")).await else { return };
    let (kind, said) = failed(bed.drop_old().await);
    assert_eq!(kind, FailureClass::Unsafe);
    assert!(said.contains("people has rows that no mapping of the plan is about"), "{said}");
    let rest = Mapping { name: "rest".into(), ..with("id > 4 OR id IS NULL") };
    let mut elsewhere = Mapping { name: "elsewhere".into(), ..people() };
    elsewhere.from.table = "nothing".into();
    let others = [bed.of.clone(), elsewhere, rest];
    let step = work("drop", Way::Forward);
    let dropped = bed.drop_of(&step, &bed.of, &others).await.unwrap();
    assert!(dropped.detail.unwrap().contains("people is gone"));
}

#[tokio::test]
async fn a_table_of_several_mappings_goes_with_the_last_one() {
    let Some(bed) = Bed::with(PEOPLE, people()).await else { return };
    let second = Mapping { name: "second".into(), ..people() };
    let install = work("second", Way::Forward);
    bed.postgres.capture(bed.fence(), &install, &second).await.unwrap();
    let both = [bed.of.clone(), second.clone()];
    let step = work("drop", Way::Forward);
    let first = bed.drop_of(&step, &bed.of, &both).await.unwrap();
    assert!(
        first.detail.unwrap().contains("people stays until mapping second follows it no more, too")
    );
    bed.run("UPDATE people SET status = 'Won' WHERE id = 1").await;
    let changes = bed.postgres.claim(bed.fence(), &both, (9, &[])).await.unwrap();
    assert_eq!((changes.len(), changes[0].mapping.as_str()), (1, "second"));
    bed.applied(&changes).await;
    let last = work("drop-last", Way::Forward);
    let permit = Permit::for_test("drop-last");
    bed.postgres.drop_old(bed.fence(), &last, &second, &both, permit).await.unwrap();
    assert_eq!(bed.number(LEFT).await, 0);
    // One that somebody has dropped meanwhile is gone.
    let again = work("drop-again", Way::Forward);
    let permit = Permit::for_test("drop-again");
    let gone = bed.postgres.drop_old(bed.fence(), &again, &bed.of, &both, permit).await.unwrap();
    assert!(gone.detail.unwrap().contains("people was gone before"));
    // In one database the old side goes behind a `retire` only.
    let near = mapping(("people", &["id"]), ("other", &["id"]));
    assert_eq!(class(bed.drop_of(&step, &near, &[]).await), FailureClass::Refused);
}
