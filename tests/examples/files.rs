//! plans/session-tags.yaml: numbered files, used as they are.

use super::Example;

#[test]
fn the_numbered_files_are_applied_in_their_order_and_history_shows_it() {
    let Some(example) = Example::new("session-tags") else { return };
    example.run(&[]).expect(0);
    assert_eq!(
        example.database.value("SELECT sum(sessions)::bigint FROM session_analytics"),
        "3000"
    );
    let indexes = "SELECT indexdef FROM pg_indexes WHERE indexname = 'idx_archived_sessions_tags'";
    assert!(example.database.value(indexes).contains("USING gin (tags)"));
    let comment = "SELECT col_description('archived_sessions'::regclass, attnum) FROM pg_attribute
        WHERE attrelid = 'archived_sessions'::regclass AND attname = 'tags'";
    let said = "User-defined tags for session categorization";
    assert_eq!(example.database.value(comment), said);
    let history = example.phasegate(&["history", example.name]).expect(0).stdout;
    let at = |step: &str| history.find(step).unwrap_or_else(|| panic!("no {step} in {history}"));
    assert!(at("v001-add-session-tags") < at("v002-add-session-analytics"), "{history}");
    example.is_over("completed");
    // It says so when it is asked for again, and applies nothing twice.
    example.run(&[]).expect(0);
    assert_eq!(example.database.value("SELECT count(*) FROM phasegate.runs"), "1");
}

#[test]
fn the_down_files_are_the_way_back() {
    let Some(example) = Example::new("session-tags") else { return };
    let before = example.database.dump();
    // Nothing here can't be undone: the last step is the last from which there is a way back.
    example.run(&["--to", "index-is-valid"]).expect(0);
    assert_eq!(
        example.database.value("SELECT count(*) FROM session_analytics"),
        example.database.value(
            "SELECT count(DISTINCT (started_at AT TIME ZONE 'UTC')::date) FROM archived_sessions"
        )
    );
    example.phasegate(&["rollback", example.name, "--yes"]).expect(0);
    example.is_as(&before);
    example.is_over("rolled_back");
}

#[test]
fn a_file_that_was_changed_under_way_stops_the_run() {
    let Some(example) = Example::new("session-tags") else { return };
    example.run(&["--to", "v001-add-session-tags"]).expect(0);
    let file = "plans/session-tags/V002-add-session-analytics-up.sql";
    let text = std::fs::read_to_string(example.sandbox.path(file)).unwrap();
    example.sandbox.write(file, &text.replace("day      DATE", "day      TIMESTAMP"));
    let ran = example.run(&[]).expect(6);
    assert!(format!("{ran}").contains("v002-add-session-analytics"), "{ran}");
    assert_eq!(example.database.value("SELECT to_regclass('session_analytics')::text"), "NULL");
    example.sandbox.write(file, &text);
    example.run(&[]).expect(0);
}
