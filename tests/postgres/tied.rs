//! Two tables that refer to each other, moved by one plan, while clients write to both.

use super::{Bed, mentions};

const MOVES: &str = r"mappings:
  boxes:
    from: { target: app, table: boxes, key: [id] }
    into: { target: app, table: boxes_v2 }
  items:
    from: { target: app, table: items, key: [id] }
    into: { target: app, table: items_v2 }
steps:
  - id: create
    phase: expand
    target: app
    sql: |
      CREATE TABLE boxes_v2 (LIKE boxes INCLUDING ALL);
      CREATE TABLE items_v2 (LIKE items INCLUDING ALL, FOREIGN KEY (box) REFERENCES boxes_v2);
    undo:
      sql: |
        DROP TABLE items_v2;
        DROP TABLE boxes_v2;
  - id: sync-boxes
    phase: dual-write
    dual_write: { mapping: boxes }
  - id: sync-items
    phase: dual-write
    dual_write: { mapping: items }
  - id: copy-boxes
    phase: backfill
    backfill: { mapping: boxes }
  - id: copy-items
    phase: backfill
    backfill: { mapping: items }
  - id: compare-boxes
    phase: verify
    verify: { mapping: boxes, method: full }
  - id: compare-items
    phase: verify
    verify: { mapping: items, method: full }
";

#[test]
fn rows_that_refer_to_each_other_come_over_whatever_clients_do_meanwhile() {
    let Some(bed) = Bed::new("two tables that refer to each other", MOVES) else { return };
    bed.run(&format!(
        "CREATE TABLE public.boxes (id int PRIMARY KEY, label text);
         CREATE TABLE public.items (id int PRIMARY KEY, box int REFERENCES public.boxes);
         INSERT INTO public.boxes SELECT g, 'box ' || g FROM generate_series(1, 50) AS g;
         INSERT INTO public.items SELECT g, g FROM generate_series(1, 50) AS g;
         ALTER TABLE public.boxes OWNER TO {name}; ALTER TABLE public.items OWNER TO {name}",
        name = bed.name
    ));
    let mut client = bed.client(&bed.name);
    bed.phasegate(&["run", "plan.yaml", "--to", "dual-write"]).expect(0);
    // No box is copied yet.
    bed.on(
        &mut client,
        "INSERT INTO public.items VALUES (100, 7); UPDATE public.items SET box = 8 WHERE id = 9",
    );
    bed.phasegate(&["run", "plan.yaml", "--to", "copy-boxes"]).expect(0);
    // What this client deletes is copied behind its back, and the copy refers to that of the box.
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM public.items LIMIT 1";
    bed.on(&mut client, begin);
    bed.phasegate(&["run", "plan.yaml", "--to", "copy-items"]).expect(0);
    bed.on(
        &mut client,
        "DELETE FROM public.items WHERE box = 5; DELETE FROM public.boxes WHERE id = 5; COMMIT",
    );
    assert_eq!(bed.number("SELECT count(*) FROM public.boxes_v2 WHERE id = 5"), 1);
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    let wrong = "SELECT count(*) FROM ((TABLE public.boxes EXCEPT TABLE public.boxes_v2) UNION ALL
        (TABLE public.boxes_v2 EXCEPT TABLE public.boxes)) AS b";
    assert_eq!(bed.number(wrong), 0);
    let wrong = "SELECT count(*) FROM ((TABLE public.items EXCEPT TABLE public.items_v2) UNION ALL
        (TABLE public.items_v2 EXCEPT TABLE public.items)) AS i";
    assert_eq!(bed.number(wrong), 0);
}

#[test]
fn a_new_table_with_a_constraint_that_waits_for_the_end_is_refused_with_the_way_out() {
    let late = "FOREIGN KEY (box) REFERENCES boxes_v2";
    let plan =
        MOVES.replace(late, &format!("CONSTRAINT in_box {late} DEFERRABLE INITIALLY DEFERRED"));
    let Some(bed) = Bed::new("a deferrable constraint", &plan) else { return };
    bed.run(&format!(
        "CREATE TABLE public.boxes (id int PRIMARY KEY); CREATE TABLE public.items (id int PRIMARY KEY, box int);
         ALTER TABLE public.boxes OWNER TO {name}; ALTER TABLE public.items OWNER TO {name}",
        name = bed.name
    ));
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(1);
    mentions(&ran, &["in_box on items_v2 is DEFERRABLE", "ALTER CONSTRAINT in_box NOT DEFERRABLE"]);
    bed.run("ALTER TABLE public.items_v2 ALTER CONSTRAINT in_box NOT DEFERRABLE");
    bed.phasegate(&["retry", "leads"]).expect(0);
}
