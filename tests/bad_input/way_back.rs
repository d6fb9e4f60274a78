//! Going back when something stands in the way of it: what can be undone is, what was taken away already is gone, and what an
//! operator has to decide is said with the command that decides it.

use super::{Bed, HEAD, MOVED, TABLES, mentions};
use crate::sandbox::{Ran, Sandbox};

/// A plan whose first step makes what the mapping fills.
fn plan(mapping: &str, (make, undo): (&str, &str), direction: &str) -> String {
    format!(
        "{HEAD}{mapping}steps:
  - id: make
    phase: expand
    sql: |
      {make}
    undo:
      sql: |
        {undo}
  - id: sync
    phase: dual-write
    dual_write: {{ mapping: m, direction: {direction} }}
  - id: copy
    phase: backfill
    backfill: {{ mapping: m, chunk: {{ rows: 60 }} }}
    undo: {{ none: a test }}
  - id: compare
    phase: verify
    verify: {{ mapping: m, method: full }}
"
    )
}

const MADE: (&str, &str) =
    ("CREATE TABLE made (id int NOT NULL PRIMARY KEY, v text, n int);", "DROP TABLE made;");

/// What a run left of ours, but for the ledger.
const LEFT: &str = "SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal)
    + (SELECT count(*) FROM pg_proc WHERE proname LIKE 'phasegate%')";

/// The directions in which a table is dropped in the middle, and whether the run is left then.
const DROPPED: [(&str, bool); 3] = [("forward", false), ("both", false), ("forward", true)];

/// Copies to a table that the plan makes, drops one of the two, and goes on.
#[track_caller]
fn dropped(bed: &Bed, table: &str, direction: &str) -> Ran {
    let mapping = MOVED.replace("table: u", "table: made");
    bed.begin(TABLES, &plan(&mapping, MADE, direction));
    bed.phasegate(&["run", "plan.yaml", "--to", "copy"]).expect(0);
    bed.database.run(&format!("DROP TABLE {table} CASCADE"));
    bed.phasegate(&["run", "plan.yaml"]).expect(6)
}

#[test]
fn a_new_table_that_was_dropped_keeps_nobody_from_going_back() {
    let Some(bed) = Bed::new("new table dropped") else { return };
    for (direction, leaves) in DROPPED {
        let ran = dropped(&bed, "made", direction);
        mentions(&ran, &["there is no table made any more", "clients' writes to t fail until"]);
        mentions(&ran, &["phasegate rollback bad` takes it out and goes back"]);
        assert!(bed.database.refused("INSERT INTO t VALUES (900, 'c', 1)").contains("made"));
        if leaves {
            bed.phasegate(&["abort", "bad", "--leave", "--reason", "a test"]).expect(0);
        } else {
            bed.phasegate(&["rollback", "bad", "--yes"]).expect(0);
        }
        bed.database.run("INSERT INTO t VALUES (900, 'c', 1); DELETE FROM t WHERE id = 1");
        assert_eq!(bed.database.value(LEFT), "0", "{direction}");
    }
}

#[test]
fn an_old_table_that_was_dropped_takes_no_rows_of_the_new_one_along() {
    let Some(bed) = Bed::new("old table dropped") else { return };
    for (direction, leaves) in DROPPED {
        let ran = dropped(&bed, "t", direction);
        mentions(&ran, &["there is no table t any more", "phasegate rollback bad` goes back"]);
        if leaves {
            bed.phasegate(&["abort", "bad", "--leave", "--reason", "a test"]).expect(0);
            assert_eq!(bed.database.value("SELECT count(*) FROM made"), "200");
        } else {
            let ran = bed.phasegate(&["rollback", "bad", "--yes"]).expect(9);
            mentions(&ran, &["t is gone, and the rows of made are nowhere else"]);
            mentions(&ran, &["rollback bad --accept-loss m", "abort bad --leave --reason"]);
            assert_eq!(bed.database.value("SELECT count(*) FROM made"), "200");
            bed.phasegate(&["rollback", "bad", "--yes", "--accept-loss", "m"]).expect(0);
            assert_eq!(bed.database.value("SELECT to_regclass('made') IS NULL"), "t");
        }
        assert_eq!(bed.database.value(LEFT), "0", "{direction}");
    }
}

#[test]
fn on_sqlite_a_table_that_was_dropped_keeps_nobody_from_going_back_either() {
    let mapping = MOVED.replace("table: u", "table: made");
    let plan = plan(&mapping, MADE, "forward")
        .replace("engine: postgres", "engine: sqlite")
        .replace("\"${env:APP_URL}\"", "sqlite:app.db");
    for leaves in [false, true] {
        let sandbox = Sandbox::new();
        sandbox.write("plan.yaml", &plan);
        sandbox.sql(
            "app.db",
            "CREATE TABLE t (id int NOT NULL PRIMARY KEY, v text, n int);
            INSERT INTO t VALUES (1, 'v1', 1), (2, 'v2', 2)",
        );
        sandbox.run(&["run", "plan.yaml", "--to", "copy"]).expect(0);
        sandbox.sql("app.db", "DROP TABLE made");
        let ran = sandbox.run(&["run", "plan.yaml"]).expect(6);
        mentions(&ran, &["clients' writes to t fail until", "rollback bad` takes it out"]);
        if leaves {
            sandbox.run(&["abort", "bad", "--leave", "--reason", "a test"]).expect(0);
        } else {
            sandbox.run(&["rollback", "bad", "--yes"]).expect(0);
        }
        sandbox.sql("app.db", "INSERT INTO t VALUES (3, 'c', 1)");
        let left = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'";
        assert_eq!(sandbox.value("app.db", left), "0");
    }
}

#[test]
fn not_null_that_retire_asks_for_goes_before_the_triggers_that_see_to_it() {
    let Some(bed) = Bed::new("not null in place") else { return };
    let tables = "CREATE TABLE t (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v text, n int NOT NULL DEFAULT 7);
        INSERT INTO t (v, n) SELECT 'v' || g, g FROM generate_series(1, 200) AS g";
    let step = ("ALTER TABLE t ADD n_new bigint;", "ALTER TABLE t DROP n_new;");
    let retire = "  - id: ready
    phase: contract
    gate: { verified_within: 1h }
  - id: switch
    phase: contract
    retire: { mapping: m, columns: { n: { old_name: n_old, take_name: n_new } } }
";
    let after = "  - id: ready2
    phase: contract
    gate: { approvals: [{ group: dba }], verified_within: 1h }
  - id: drop
    phase: contract
    drop: { mapping: m }
    irreversible: a test
";
    // Going back before and behind `retire`, and before the last of what it asks for was done; or leaving it there.
    for (direction, done, is_retired, leaves) in [
        ("both", 4, true, false),
        ("forward", 4, true, false),
        ("both", 4, false, false),
        ("forward", 1, false, false),
        ("both", 4, false, true),
        ("forward", 1, false, true),
    ] {
        let reverse = if direction == "both" { "    reverse: { n: n_new }\n" } else { "" };
        let mapping = format!(
            "  m:\n    from: {{ target: app, table: t, key: [id] }}\n    into: {{ target: app, table: t }}\n    columns: {{ n_new: n }}\n{reverse}"
        );
        bed.begin(tables, &format!("{}{retire}{after}", plan(&mapping, step, direction)));
        let ran = bed.phasegate(&["run", "plan.yaml"]).expect(1);
        mentions(&ran, &["ALTER COLUMN \"n_new\" SET NOT NULL"]);
        for asked in [
            "ADD CONSTRAINT n_new_is_set CHECK (n_new IS NOT NULL) NOT VALID",
            "VALIDATE CONSTRAINT n_new_is_set",
            "ALTER n_new SET NOT NULL",
            "DROP CONSTRAINT n_new_is_set",
        ]
        .iter()
        .take(done)
        {
            bed.database.run(&format!("ALTER TABLE t {asked}"));
        }
        if is_retired {
            bed.phasegate(&["retry", "bad"]).expect(4);
        }
        if leaves {
            bed.phasegate(&["abort", "bad", "--leave", "--reason", "a test"]).expect(0);
            bed.database.run("INSERT INTO t (v) VALUES ('y')");
            assert_eq!(bed.database.value(LEFT), "0", "{direction}");
            continue;
        }
        // What undoes the sync fails after it: the sync must be out and clients well all the same.
        let name = if is_retired { "n" } else { "n_new" };
        bed.database.run(&format!("CREATE VIEW seen AS SELECT {name} FROM t"));
        let ran = bed.phasegate(&["rollback", "bad", "--yes"]).expect(9);
        mentions(&ran, &["drop or move view seen, then retry"]);
        assert!(!ran.stdout.contains("CASCADE"), "{ran}");
        bed.database.run("INSERT INTO t (v) VALUES ('y')");
        assert_eq!(bed.database.value(LEFT), "0", "{direction}");
        bed.database.run("DROP VIEW seen");
        bed.phasegate(&["retry", "bad"]).expect(0);
        let columns = "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
            WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped";
        assert_eq!(bed.database.value(columns), "id v n");
    }
}

#[test]
fn rows_that_can_not_be_converted_keep_nobody_from_going_back() {
    let Some(bed) = Bed::new("rows that can't be converted") else { return };
    let step = ("CREATE TABLE made (id int PRIMARY KEY, v int, n int);", "DROP TABLE made;");
    let mapping = MOVED.replace("table: u", "table: made");
    let computed = format!("{mapping}    columns: {{ v: \"substr(v, 2)::int\" }}\n");
    let parking = |mapping: &str| {
        let plan = plan(mapping, step, "forward");
        let plan = plan.replace("direction: forward", "direction: forward, on_error: park");
        plan.replace("chunk: { rows: 60 }", "chunk: { rows: 60 }, on_row_error: park")
    };
    let bad = |id: u32| format!("UPDATE t SET v = 'bad' WHERE id = {id}");
    // Parked by the copy; by a client's write, of which the new side has what was before; and a row that the new side alone has.
    for (before, meanwhile, extra) in [(true, false, 0), (false, true, 0), (true, true, 1)] {
        bed.begin(TABLES, &parking(&computed));
        if before {
            bed.database.run(&bad(50));
        }
        bed.phasegate(&["run", "plan.yaml", "--to", "copy"]).expect(0);
        if meanwhile {
            bed.database.run(&bad(3));
        }
        bed.database
            .run(&format!("INSERT INTO made SELECT 900, 1, 1 FROM generate_series(1, {extra})"));
        let ran =
            bed.phasegate(&["rollback", "bad", "--yes"]).expect(if extra > 0 { 9 } else { 0 });
        if extra > 0 {
            mentions(&ran, &["1 row on the new side of m differ from the old side"]);
            mentions(&ran, &["undoing would lose them; its key: 900"]);
            mentions(&ran, &["rollback bad --accept-loss m", "abort bad --leave --reason"]);
            bed.phasegate(&["rollback", "bad", "--yes", "--accept-loss", "m"]).expect(0);
        }
        assert_eq!(bed.database.value("SELECT to_regclass('made') IS NULL"), "t");
        assert_eq!(bed.database.value(LEFT), "0");
    }
    // A type that no value fits is found by the copy, with clients failing already.
    bed.begin(TABLES, &plan(&mapping, step, "forward"));
    bed.phasegate(&["run", "plan.yaml"]).expect(1);
    bed.phasegate(&["rollback", "bad", "--yes"]).expect(0);
    bed.database.run("INSERT INTO t VALUES (900, 'c', 1)");
    assert_eq!(bed.database.value(LEFT), "0");
}

/// What can't be compared may be lost, and is named like what differs: one row, and all of them.
#[test]
fn rows_that_can_not_be_compared_any_more_are_named_too() {
    let Some(bed) = Bed::new("rows that can't be compared") else { return };
    let step = ("CREATE TABLE made (id int PRIMARY KEY, v int, n int);", "DROP TABLE made;");
    let mapping = MOVED.replace("table: u", "table: made");
    let computed = format!("{mapping}    columns: {{ v: \"substr(v, 2)::int\" }}\n");
    for (meanwhile, rows, keys) in [
        (
            "ALTER TABLE t DISABLE TRIGGER USER; UPDATE t SET v = 'bad' WHERE id = 77; ALTER TABLE t ENABLE TRIGGER USER",
            "1 row on the new side of m differ",
            "; its key: 77",
        ),
        (
            "ALTER TABLE made ALTER v TYPE point USING point(v, v)",
            "200 rows on the new side of m differ",
            "; 5 of their keys: 1; 2; 3; 4; 5",
        ),
    ] {
        bed.begin(TABLES, &plan(&computed, step, "forward"));
        bed.phasegate(&["run", "plan.yaml", "--to", "copy"]).expect(0);
        bed.database.run(meanwhile);
        let ran = bed.phasegate(&["rollback", "bad", "--yes"]).expect(9);
        mentions(&ran, &[rows, keys, "rollback bad --accept-loss m"]);
        bed.phasegate(&["rollback", "bad", "--yes", "--accept-loss", "m"]).expect(0);
        assert_eq!(bed.database.value("SELECT to_regclass('made') IS NULL"), "t");
        assert_eq!(bed.database.value(LEFT), "0");
    }
}

/// What the new side alone has, and what is said of that.
const ALONE: [(&str, &str); 3] = [
    ("INSERT INTO made VALUES (900, 'late', 1)", "1 row on the new side of m differ|its key: 900"),
    (
        "INSERT INTO made VALUES (0, 'early', 1), (900, 'late', 1)",
        "2 rows on the new side of m differ|their keys: 0; 900",
    ),
    (
        "INSERT INTO made VALUES (901, '', 1), (902, '', 1), (903, '', 1), (904, '', 1), (905, '', 1), (906, '', 1)",
        "6 rows on the new side of m differ|5 of their keys: 901; 902; 903; 904; 905",
    ),
];

/// Goes back with rows that the new side alone has, before anything is copied and behind that. The rows that are only on the old side, of
/// which nothing is lost, may be many more, and say nothing of those that would be.
#[track_caller]
fn losses_are_named(begin: impl Fn(), run: impl Fn(&str), phasegate: impl Fn(&[&str]) -> Ran) {
    for to in ["sync", "copy"] {
        for (alone, said) in ALONE {
            begin();
            phasegate(&["run", "plan.yaml", "--to", to]).expect(0);
            run(alone);
            let ran = phasegate(&["rollback", "bad", "--yes"]).expect(9);
            let (rows, keys) = said.split_once('|').unwrap();
            mentions(&ran, &[rows, keys]);
            mentions(&ran, &["rollback bad --accept-loss m", "abort bad --leave --reason"]);
            mentions(&phasegate(&["status", "bad"]).expect(0), &[keys]);
            phasegate(&["rollback", "bad", "--yes", "--accept-loss", "m"]).expect(0);
        }
    }
    begin();
    phasegate(&["run", "plan.yaml", "--to", "copy"]).expect(0);
    run("DELETE FROM made WHERE id < 50; UPDATE made SET v = 'other' WHERE id = 77");
    let ran = phasegate(&["rollback", "bad", "--yes"]).expect(9);
    mentions(&ran, &["1 row on the new side of m differ", "its key: 77"]);
}

#[test]
fn what_going_back_would_lose_is_named() {
    let Some(bed) = Bed::new("what would be lost") else { return };
    let plan = plan(&MOVED.replace("table: u", "table: made"), MADE, "forward");
    let begin = || bed.begin(TABLES, &plan);
    losses_are_named(begin, |statements| bed.database.run(statements), |args| bed.phasegate(args));
}

#[test]
fn on_sqlite_what_going_back_would_lose_is_named_too() {
    let sandbox = Sandbox::new();
    let plan = plan(&MOVED.replace("table: u", "table: made"), MADE, "forward")
        .replace("engine: postgres", "engine: sqlite")
        .replace("\"${env:APP_URL}\"", "sqlite:app.db");
    sandbox.write("plan.yaml", &plan);
    let begin = || {
        let _ = std::fs::remove_dir_all(sandbox.path(".phasegate"));
        let _ = std::fs::remove_file(sandbox.path("app.db"));
        sandbox.sql(
            "app.db",
            "CREATE TABLE t (id int NOT NULL PRIMARY KEY, v text, n int);
            WITH RECURSIVE g (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < 200)
            INSERT INTO t SELECT i, 'v' || i, i FROM g",
        );
    };
    losses_are_named(
        begin,
        |statements| sandbox.sql("app.db", statements),
        |args| sandbox.run(args),
    );
}

const GATED: &str = "  - id: ready2
    phase: contract
    gate: { approvals: [{ group: dba }], verified_within: 1h }
  - id: drop
    phase: contract
    drop: { mapping: m }
    irreversible: a test
";

#[test]
fn what_a_refused_way_back_leaves_to_decide_is_said_with_its_commands() {
    let Some(bed) = Bed::new("a refused way back") else { return };
    let mapping = MOVED.replace("table: u", "table: made");
    let retire = "  - id: ready
    phase: contract
    gate: { verified_within: 1h }
  - id: switch
    phase: contract
    retire: { mapping: m, old_name: t_old, take_name: true }
";
    for gives_up in [true, false] {
        bed.begin(TABLES, &format!("{}{retire}{GATED}", plan(&mapping, MADE, "forward")));
        bed.phasegate(&["run", "plan.yaml"]).expect(4);
        bed.database.run("INSERT INTO t VALUES (900, 'c', 1)");
        let ran = bed.phasegate(&["rollback", "bad", "--yes"]).expect(9);
        let next = ran.stdout.split("What to try next").nth(1).unwrap_or_default();
        for command in ["rollback bad --accept-loss m ", "abort bad --leave --reason "] {
            assert!(next.contains(command), "{command}: {ran}");
        }
        if gives_up {
            bed.phasegate(&["rollback", "bad", "--accept-loss", "m", "--yes"]).expect(0);
            assert_eq!(bed.database.value("SELECT count(*) FROM t"), "200");
        } else {
            bed.phasegate(&["abort", "bad", "--leave", "--reason", "a test"]).expect(0);
            assert_eq!(bed.database.value("SELECT count(*) FROM t"), "201");
        }
    }
}

#[test]
fn a_foreign_key_that_was_made_anew_for_retire_comes_back_with_the_names() {
    let Some(bed) = Bed::new("a foreign key made anew") else { return };
    let tables = "CREATE TABLE t (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
            code uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(), v text);
        INSERT INTO t (v) SELECT 'v' || g FROM generate_series(1, 200) AS g;
        CREATE TABLE child (id int PRIMARY KEY, tid int REFERENCES t (id) ON DELETE CASCADE);
        INSERT INTO child SELECT g, g FROM generate_series(1, 50) AS g";
    let step = ("ALTER TABLE t ADD id_new bigint;", "ALTER TABLE t DROP id_new;");
    let retire = "  - id: ready
    phase: contract
    gate: { verified_within: 1h }
  - id: switch
    phase: contract
    retire: { mapping: m, columns: { id: { old_name: id_old, take_name: id_new } } }
";
    let keys = "SELECT conname || ' ' || convalidated || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
        WHERE conrelid = 'child'::regclass AND contype = 'f'";
    for (value, back, moves) in [("id", "id_new", true), ("id + 1000", "id_new - 1000", false)] {
        let mapping = format!(
            "  m:\n    from: {{ target: app, table: t, key: [code] }}\n    into: {{ target: app, table: t }}\n    \
             columns: {{ id_new: {value} }}\n    reverse: {{ id: {back} }}\n"
        );
        bed.begin(tables, &format!("{}{retire}{GATED}", plan(&mapping, step, "both")));
        let before = bed.database.value(keys);
        bed.phasegate(&["run", "plan.yaml"]).expect(1);
        bed.database.run("CREATE UNIQUE INDEX named ON t (id_new); ALTER TABLE child DROP CONSTRAINT child_tid_fkey");
        if !moves {
            bed.database.run("UPDATE child SET tid = tid + 1000");
        }
        bed.database.run("ALTER TABLE child ADD CONSTRAINT child_tid_fkey FOREIGN KEY (tid) REFERENCES t (id_new) ON DELETE CASCADE");
        let ran = until_retired(&bed);
        assert!(ran, "retire was refused");
        if moves {
            bed.phasegate(&["rollback", "bad", "--yes"]).expect(0);
            assert_eq!(bed.database.value(keys), before);
        } else {
            let ran = bed.phasegate(&["rollback", "bad", "--yes"]).expect(9);
            mentions(&ran, &["foreign key child_tid_fkey of child", "drop them"]);
            bed.database.run("ALTER TABLE child DROP CONSTRAINT child_tid_fkey");
            bed.phasegate(&["retry", "bad"]).expect(0);
        }
    }
}

/// Does what `retire` asks for until it is content.
fn until_retired(bed: &Bed) -> bool {
    for _ in 0..4 {
        let ran = bed.phasegate(&["retry", "bad"]);
        if ran.code == Some(4) {
            return true;
        }
        let said = ran.stdout.split("Step switch failed").nth(1).unwrap_or_default();
        let said = said.split("What to try next").next().unwrap_or_default();
        for statement in said.split([';', '\n']).map(str::trim) {
            if ["ALTER ", "CREATE "].iter().any(|verb| statement.starts_with(verb)) {
                bed.database.run(statement.trim_end_matches('.'));
            }
        }
    }
    false
}
