//! What looking finds before the first change.

use super::{Bed, MOVED, TABLES, mentions, plan, steps};

/// What is there beside the two tables, the mapping, its direction, the code, and what is said.
type Refused = (&'static str, &'static str, &'static str, &'static str, &'static [&'static str]);

fn keyed(key: &str) -> String {
    MOVED.replace("[id]", key)
}

#[track_caller]
fn refuses(bed: &Bed, (setup, mapping, direction, code, words): Refused) {
    bed.begin(&format!("{TABLES}{setup}"), &plan(mapping, direction));
    let ran = bed.phasegate(&["run", "plan.yaml"]);
    assert_eq!(ran.code, Some(3), "{setup}: {ran}");
    assert!(ran.stderr.contains(&format!("error[{code}]")), "{setup}: no {code} in {ran}");
    assert!(ran.stderr.contains("plan.yaml:"), "{ran}");
    mentions(&ran, words);
    bed.is_untouched();
}

#[test]
fn a_key_that_identifies_no_rows_is_refused_with_the_candidates_and_the_statement_that_makes_one() {
    let Some(bed) = Bed::new("keys that are none") else { return };
    let by_n = keyed("[n]");
    let by_n: &'static str = by_n.leak();
    let both = "ALTER TABLE u ADD UNIQUE (n); ALTER TABLE u ALTER n SET NOT NULL;";
    let cases: [(&'static str, &'static [&'static str]); 7] = [
        (
            "CREATE UNIQUE INDEX by_n ON t (n)",
            &[
                "n may be NULL",
                "use key: [id]; or make this one: ALTER TABLE \"public\".\"t\" ALTER \"n\" SET NOT NULL",
            ],
        ),
        (
            "ALTER TABLE t ALTER n SET NOT NULL; CREATE UNIQUE INDEX by_n ON t (n) WHERE n > 0",
            &["by_n is partial", "CREATE UNIQUE INDEX CONCURRENTLY ON \"public\".\"t\" (\"n\")"],
        ),
        (
            "ALTER TABLE t ALTER n SET NOT NULL; CREATE UNIQUE INDEX by_n ON t ((n + 0))",
            &["by_n is unique by an expression", "use key: [id]"],
        ),
        (
            "ALTER TABLE t ALTER n SET NOT NULL; ALTER TABLE t ADD CONSTRAINT by_n UNIQUE (n) DEFERRABLE",
            &["by_n is DEFERRABLE", "CREATE UNIQUE INDEX CONCURRENTLY"],
        ),
        (
            "CREATE UNIQUE INDEX by_n ON t (n, v)",
            &["it is not unique", "; ALTER TABLE \"public\".\"t\" ALTER \"n\" SET NOT NULL"],
        ),
        (
            "ALTER TABLE t DROP CONSTRAINT t_pkey",
            &[
                "t has no unique key that is never NULL; to make this one: CREATE UNIQUE INDEX CONCURRENTLY",
            ],
        ),
        (
            "DROP TABLE t; CREATE TABLE t (id int, v text, n int, PRIMARY KEY (id, n)) PARTITION BY RANGE (n)",
            &["use key: [id, n]; or make this one: CREATE UNIQUE INDEX ON"],
        ),
    ];
    for (setup, words) in cases {
        let setup: &'static str = format!("{both}{setup}").leak();
        refuses(&bed, (setup, by_n, "forward", "D204", words));
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table of cases")]
fn values_that_the_new_side_does_not_take_are_refused() {
    let Some(bed) = Bed::new("values that don't fit") else { return };
    let in_place = "  m:\n    from: { target: app, table: t, key: [id] }\n    into: { target: app, table: t }\n";
    let with = |columns: &str| -> &'static str { format!("{MOVED}    columns:\n{columns}").leak() };
    let inside =
        |columns: &str| -> &'static str { format!("{in_place}    columns:\n{columns}").leak() };
    let domains = "CREATE DOMAIN short AS varchar(3); ALTER TABLE t ADD words text[]; UPDATE t SET words = ARRAY['abcdef'];";
    let arrays: &'static str = format!("{domains} ALTER TABLE u ADD words short[]").leak();
    let cases: [Refused; 14] = [
        (
            "ALTER TABLE u DROP n; ALTER TABLE u ADD n date",
            MOVED,
            "forward",
            "D207",
            &[
                "column \"n\" is of type date but expression is of type integer",
                "write an expression that gives date",
            ],
        ),
        (
            "CREATE TYPE mood AS ENUM ('v1'); ALTER TABLE u DROP v; ALTER TABLE u ADD v mood",
            MOVED,
            "forward",
            "D207",
            &["is of type mood", "write a cast under columns: v: (\"v\")::mood"],
        ),
        (
            "ALTER TABLE u ADD must int NOT NULL",
            MOVED,
            "forward",
            "D206",
            &["u.must must have a value"],
        ),
        // A cast of a trigger would cut each word to three letters, where an INSERT refuses them.
        (arrays, MOVED, "forward", "D207", &["is of type short[]"]),
        (
            "ALTER TABLE t ADD sums numeric[]; ALTER TABLE u ADD sums numeric(4,1)[]",
            MOVED,
            "forward",
            "D207",
            &["values would be changed without a word"],
        ),
        (
            "CREATE TYPE wide AS (a varchar(9)); CREATE TYPE slim AS (a varchar(3));
             ALTER TABLE t ADD pair wide; ALTER TABLE u ADD pair slim",
            MOVED,
            "forward",
            "D207",
            &["is of type slim"],
        ),
        (
            "ALTER TABLE u ADD w int GENERATED ALWAYS AS (n * 2) STORED",
            with("      w: n\n"),
            "forward",
            "D211",
            &["u.w is generated and can't be written"],
        ),
        (
            "DROP TABLE u; CREATE TABLE u (n int, v text, id int GENERATED ALWAYS AS (n) STORED PRIMARY KEY)",
            MOVED,
            "forward",
            "D211",
            &["the key column u.id is generated"],
        ),
        (
            "ALTER TABLE t ADD c int, ADD w int GENERATED ALWAYS AS (n * 2) STORED",
            inside("      c: w\n"),
            "forward",
            "D211",
            &["w is generated, and has no value yet when the row is written"],
        ),
        (
            "ALTER TABLE t DROP n; ALTER TABLE t ADD n int GENERATED ALWAYS AS (id * 2) STORED",
            MOVED,
            "both",
            "D211",
            &["nothing says how a write of n gets back to n"],
        ),
        (
            "CREATE TABLE heir () INHERITS (t)",
            MOVED,
            "forward",
            "D202",
            &["1 table inherits from t"],
        ),
        (
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;
             CREATE POLICY few ON t USING (n < 9)",
            MOVED,
            "forward",
            "D213",
            &[
                "row level security on public.t holds for",
                "ALTER TABLE public.t NO FORCE ROW LEVEL SECURITY",
            ],
        ),
        (
            "",
            "  m:\n    from: { target: app, table: t, key: [id] }\n    into: { target: app, table: public.t, key: [id] }\n",
            "forward",
            "D211",
            &["t and public.t are one table under two names"],
        ),
        (
            "",
            "  m:\n    from: { target: app, table: tt, key: [id] }\n    into: { target: app, table: u }\n",
            "forward",
            "D201",
            &["there is no table tt", "did you mean t?"],
        ),
    ];
    for case in cases {
        refuses(&bed, case);
    }
}

#[test]
fn a_way_back_that_does_not_lead_back_is_refused_with_the_value() {
    let Some(bed) = Bed::new("no way back") else { return };
    let with = |columns: &str, reverse: &str| -> &'static str {
        format!("{MOVED}    columns:\n      v: {columns}\n    reverse:\n      v: {reverse}\n")
            .leak()
    };
    let in_place = "  m:
    from: { target: app, table: t, key: [id] }
    into: { target: app, table: t }
    columns:
      c: n * 2
    reverse:
      n: c / 3
";
    let cases: [Refused; 3] = [
        (
            "UPDATE t SET v = 'ab' WHERE id = 77; UPDATE t SET v = '77' WHERE id <> 77",
            with("v || '!'", "lower(v)"),
            "both",
            "D220",
            &["id = ", "is 'ab!', and what reverse makes of that gives 'ab!!'"],
        ),
        (
            "UPDATE t SET v = 'Abc' WHERE id = 77; UPDATE t SET v = '7' WHERE id <> 77",
            with("upper(v)", "replace(v, 'B', '')"),
            "both",
            "D220",
            &["of the row with id = 77, v is 'ABC', and what reverse makes of that gives 'AC'"],
        ),
        (
            "ALTER TABLE t ADD c int",
            in_place,
            "both",
            "D220",
            &["of the row with id = 1, c is '2'", "gives '0'"],
        ),
    ];
    for case in cases {
        refuses(&bed, case);
    }
    // What is no inverse of the text, but of each value that the new side can have, is one.
    let folded = with("lower(v)", "upper(v)");
    bed.begin(TABLES, &plan(folded, "both"));
    bed.phasegate(&["run", "plan.yaml"]).expect(0);
    // A table that the plan makes is tried, too.
    let made = plan(&folded.replace("upper(v)", "v || '!'").replace("table: u", "table: w"), "both")
        .replace(
            "steps:\n",
            "steps:\n  - id: make\n    phase: expand\n    target: app\n    sql: CREATE TABLE w (LIKE t INCLUDING ALL)\n    undo: { sql: DROP TABLE w }\n",
        );
    bed.begin(TABLES, &made);
    let ran = bed.phasegate(&["run", "plan.yaml"]).expect(3);
    mentions(&ran, &["D220", "v is 'v1', and what reverse makes of that gives 'v1!'"]);
    // Where nothing can be computed nothing can be said.
    bed.begin(TABLES, &plan(with("v", "(length(v) / (id - id))::text"), "both"));
    let ran = bed.phasegate(&["run", "plan.yaml", "--to", "sync-m"]).expect(0);
    mentions(&ran, &["warning[D220]", "could not be tried on rows: division by zero"]);
}

#[test]
fn two_mappings_that_write_one_column_are_refused() {
    let Some(bed) = Bed::new("written twice") else { return };
    // A step of each mapping in each phase.
    let of_both: Vec<String> = ["one", "two"].map(|name| steps(name, "forward")).to_vec();
    let in_turn: String = ["sync", "copy", "compare"]
        .iter()
        .flat_map(|phase| {
            let begin = format!("  - id: {phase}");
            let cut = move |steps: &String| {
                let at = steps.find(&begin).unwrap();
                let end = steps[at + 3..].find("  - id").map_or(steps.len(), |end| at + 3 + end);
                steps[at..end].to_owned()
            };
            of_both.iter().map(cut).collect::<Vec<_>>()
        })
        .collect();
    let both = |first: &str, second: &str| {
        let mapping = |name: &str, from: &str, more: &str| {
            format!(
                "  {name}:\n    from: {{ target: app, table: {from}, key: [id] }}\n    into: {{ target: app, table: u }}\n{more}"
            )
        };
        format!(
            "{}{}{}steps:\n{}",
            super::HEAD,
            mapping("one", "t", first),
            mapping("two", "other", second),
            in_turn
        )
    };
    let listed = "    copy: listed\n    columns:\n      v: upper(v)\n";
    let setup = format!("{TABLES} CREATE TABLE other (LIKE t INCLUDING ALL)");
    for (first, second, code, words) in [
        (listed, listed, "P613", "`one` and `two` both write `v` of `u`"),
        ("", "", "P613", "both copy whole rows into `u`"),
        ("", listed, "D221", "mappings one and two both write v of u"),
    ] {
        bed.begin(&setup, &both(first, second));
        let ran = bed.phasegate(&["run", "plan.yaml"]).expect(3);
        mentions(&ran, &[code, words]);
        bed.is_untouched();
    }
}

#[test]
fn what_the_plan_makes_itself_is_refused_before_clients_write_through_it() {
    let Some(bed) = Bed::new("what the plan makes") else { return };
    let moved = MOVED.replace("table: u", "table: w");
    let in_place = "  m:\n    from: { target: app, table: t, key: [id] }\n    into: { target: app, table: t }\n    columns:\n      c: v\n";
    let create = |columns: &str| format!("CREATE TABLE w (id int PRIMARY KEY, v text, {columns})");
    let none = "DROP TABLE w";
    let cases: [(&str, String, &str, &[&str]); 4] = [
        (
            &moved,
            "CREATE TABLE w (id int PRIMARY KEY, v int, n int, s numeric)".to_owned(),
            none,
            &["D207", "write a cast under columns: v: (\"v\")::integer"],
        ),
        (
            &moved,
            create("n int, s numeric, q int NOT NULL"),
            none,
            &["D206", "w.q must have a value, and the mapping gives none"],
        ),
        (
            &moved,
            create("n int, s numeric(12,2)"),
            none,
            &["D207", "values would be changed without a word"],
        ),
        (
            in_place,
            "ALTER TABLE t ADD c date".to_owned(),
            "ALTER TABLE t DROP c",
            &["D207", "is of type date"],
        ),
    ];
    for (mapping, made, undo, words) in cases {
        for direction in ["forward", "both"] {
            let reverse = if mapping == in_place { "    reverse:\n      v: c::text\n" } else { "" };
            let reverse = if direction == "both" { reverse } else { "" };
            let step = format!(
                "steps:\n  - id: make\n    phase: expand\n    target: app\n    sql: {made}\n    undo: {{ sql: {undo} }}\n"
            );
            let plan = plan(&format!("{mapping}{reverse}"), direction).replace("steps:\n", &step);
            bed.begin(&format!("{TABLES} ALTER TABLE t ADD s numeric(12,4)"), &plan);
            let ran = bed.phasegate(&["run", "plan.yaml"]);
            assert_eq!(ran.code, Some(1), "{made}: {ran}");
            mentions(&ran, words);
            mentions(&ran, &["amend"]);
            let triggers = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal";
            assert_eq!(bed.database.value(triggers), "0", "{made}");
            bed.database
                .run("INSERT INTO t (id, v) VALUES (1000, 'x'); DELETE FROM t WHERE id = 1000");
            bed.phasegate(&["rollback", "bad", "--yes"]).expect(0);
            assert_eq!(bed.database.value("SELECT to_regclass('w') IS NULL"), "t");
        }
    }
}
