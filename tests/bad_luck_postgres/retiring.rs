//! The process dies around the commits of `retire` and of its undo, while a view and another table's foreign key go over.

use super::dying::killed_at;
use super::leads;
use super::writer::Writer;
use crate::examples::Example;

/// leads-v2 with what depends on leads, in a schema of its own.
fn depended_on() -> Option<Example> {
    let example = leads()?;
    example.database.run(
        "CREATE SCHEMA beside;
         CREATE TABLE beside.notes (id int PRIMARY KEY, lead_id bigint NOT NULL,
             CONSTRAINT of_lead FOREIGN KEY (lead_id) REFERENCES leads ON UPDATE CASCADE ON DELETE CASCADE);
         INSERT INTO beside.notes SELECT id, id FROM leads WHERE id % 10 = 0;
         CREATE VIEW beside.mailed AS SELECT id, email FROM leads WHERE email IS NOT NULL;
         COMMENT ON TABLE leads IS 'who may become a customer'",
    );
    Some(example)
}

/// What refers to leads, and whether its key was checked; what the view counts.
fn seen(example: &Example) -> [String; 3] {
    let key =
        "SELECT confrelid::regclass || CASE WHEN convalidated THEN '' ELSE ', not checked' END
        FROM pg_constraint WHERE conname = 'of_lead'";
    let missed = "SELECT count(*) FROM leads FULL JOIN beside.mailed USING (id, email) WHERE email IS NOT NULL
        AND (SELECT count(*) FROM leads WHERE email IS NOT NULL) <> (SELECT count(*) FROM beside.mailed)";
    let about = "SELECT obj_description('leads'::regclass, 'pg_class')";
    [key, missed, about].map(|query| example.database.value(query))
}

#[test]
fn killed_while_keys_go_over_the_step_is_done_when_they_are_checked() {
    for point in [
        "before-commit::retire",
        "after-commit::retire",
        "before-commit::validate",
        "after-commit::validate",
    ] {
        let Some(example) = depended_on() else { return };
        let writer = Writer::at_work(&example);
        let (plan, point) = (example.plan(), format!("postgres::{point}"));
        let killed = killed_at(&example, &["run", &plan, "--to", "switch-leads"], &point, 0);
        assert!(killed.is_some(), "{point} was never reached");
        let resumed = example.run(&["--to", "switch-leads"]);
        assert_eq!(resumed.code, Some(0), "{point}: {resumed}");
        assert_eq!(seen(&example), ["leads", "0", "who may become a customer"], "{point}");
        example.run(&["--wait", "30s"]).expect(0);
        writer.ends_well();
        assert_eq!(seen(&example), ["leads", "0", "who may become a customer"], "{point}");
        assert_eq!(example.database.ours(), ["phasegate.runs"], "{point}");
    }
}

#[test]
fn killed_while_it_is_taken_back_everything_is_as_before() {
    for point in [
        "before-commit::unretire",
        "after-commit::unretire",
        "before-commit::validate",
        "after-commit::validate",
    ] {
        let Some(example) = depended_on() else { return };
        let before = example.database.dump();
        example.run(&["--to", "switch-leads"]).expect(0);
        let point = format!("postgres::{point}");
        let killed = killed_at(&example, &["rollback", example.name, "--yes"], &point, 0);
        assert!(killed.is_some(), "{point} was never reached");
        let resumed = example.phasegate(&["rollback", example.name, "--yes"]);
        assert_eq!(resumed.code, Some(0), "{point}: {resumed}");
        example.is_as(&before);
        assert_eq!(example.database.ours(), ["phasegate.runs"], "{point}");
    }
}
