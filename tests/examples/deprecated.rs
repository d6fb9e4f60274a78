//! plans/deprecate-messaging.yaml and plans/deprecate-social.yaml: old tables that go.

use super::{Example, PROJECT};

const WORKING_TRIGGERS: &str = "SELECT tgname FROM pg_trigger
    WHERE NOT tgisinternal AND tgenabled <> 'D' AND tgname NOT LIKE '%phasegate%' ORDER BY 1";

#[test]
fn messages_that_were_left_over_arrive_and_the_old_tables_go() {
    let Some(example) = Example::new("deprecate-messaging") else { return };
    example.database.run(
        "CREATE SCHEMA kept; CREATE TABLE kept.messages AS TABLE messages;
         CREATE TABLE kept.conversations AS TABLE conversations;
         CREATE TABLE kept.theirs AS TABLE chat.messages",
    );
    example.run_through(&[("ready-to-drop", &["dee", "ravi"])]);
    // What realtime-chat had stands as it was; the rest is what the old tables had.
    example.same_rows(
        "SELECT id, conversation_id, sender_id, body, sent_at FROM kept.messages
           WHERE id NOT IN (SELECT id FROM kept.theirs)
         UNION ALL SELECT * FROM kept.theirs",
        "SELECT id, room_id, author, text, sent_at FROM chat.messages",
    );
    example.same_rows(
        "SELECT id, title, created_at FROM kept.conversations",
        "SELECT id, topic, created_at FROM chat.rooms",
    );
    assert_eq!(
        example.database.value("SELECT text FROM chat.messages WHERE id = 42"),
        "Message 42, edited"
    );
    let gone = "SELECT count(*) FROM pg_tables WHERE tablename IN
        ('messages', 'conversations', 'brought_messages', 'brought_rooms') AND schemaname IN ('public', 'chat')";
    assert_eq!(example.database.value(gone), "1", "chat.messages stays");
    example.is_over("completed");
}

#[test]
fn the_messaging_tables_work_again_when_their_deprecation_is_rolled_back() {
    let Some(example) = Example::new("deprecate-messaging") else { return };
    let before = example.database.dump();
    let triggers = ["conversations_updated_at", "messages_touch"];
    assert_eq!(example.database.rows(WORKING_TRIGGERS), triggers);
    example.run_up_to("ready-to-drop", &[("ready-to-drop", &["dee", "ravi"])]);
    assert_eq!(example.database.rows(WORKING_TRIGGERS), [""; 0]);
    example.phasegate(&["rollback", example.name, "--yes"]).expect(0);
    example.is_as(&before);
    assert_eq!(example.database.rows(WORKING_TRIGGERS), triggers);
    // They work, too, and are not only enabled.
    example.database.run("INSERT INTO messages VALUES (90001, 1, 1, 'Back again', now())");
    let touched = "SELECT updated_at > now() - interval '1 hour' FROM conversations WHERE id = 1";
    assert_eq!(example.database.value(touched), "t");
    example.is_over("rolled_back");
}

#[test]
fn a_row_that_is_missing_over_there_keeps_the_old_tables() {
    let Some(example) = Example::new("deprecate-messaging") else { return };
    // The soak is longer than the evidence lives, so that it is gathered anew behind it.
    let plan = std::fs::read_to_string(example.sandbox.path(&example.plan())).unwrap();
    assert!(plan.contains("verified_within: 1h"));
    let plan = plan.replace("verified_within: 1h", "verified_within: 3s");
    example.sandbox.write(&example.plan(), &plan);
    let project = PROJECT.replace("longest_wait: 1s", "longest_wait: 6s");
    example.sandbox.write("phasegate.yaml", &project);
    example.run(&[]).expect(4);
    // Somebody takes a message away after it was looked at: the gate looks again, and the old tables stay.
    example.database.run("DELETE FROM chat.messages WHERE id = 3999");
    example.approve("ready-to-drop", &["dee", "ravi"]);
    let ran = example.run(&["--wait", "30s"]).expect(7);
    assert!(format!("{ran}").contains("every-message-arrived"), "{ran}");
    assert_eq!(example.database.value("SELECT count(*) FROM messages"), "4000");
}

#[test]
fn likes_and_comments_that_were_left_over_arrive_and_the_old_tables_go() {
    let Some(example) = Example::new("deprecate-social") else { return };
    example.database.run(
        "CREATE SCHEMA kept; CREATE TABLE kept.likes AS TABLE likes;
         CREATE TABLE kept.comments AS TABLE comments; CREATE TABLE kept.shares AS TABLE post_shares;
         CREATE TABLE kept.metadata AS TABLE social_metadata",
    );
    example.run_through(&[("ready-to-drop", &["dee", "sam"])]);
    example.same_rows(
        "SELECT post_id, user_id, created_at FROM kept.likes",
        // What the service has had of its own since is of other posts.
        "SELECT * FROM social.likes WHERE post_id <= 500",
    );
    example.same_rows(
        "SELECT id, post_id, user_id, content, created_at FROM kept.comments",
        "SELECT * FROM social.comments",
    );
    example.same_rows(
        "SELECT id, post_id, user_id, created_at FROM kept.shares",
        "SELECT * FROM social.shares",
    );
    example.same_rows("SELECT * FROM kept.metadata", "SELECT * FROM social.post_counters");
    assert_eq!(
        example.database.value("SELECT count(*) FROM social.likes WHERE post_id > 500"),
        "100"
    );
    let public = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(example.database.value(public), "0");
    example.is_over("completed");
}

#[test]
fn the_social_tables_work_again_when_their_deprecation_is_rolled_back() {
    let Some(example) = Example::new("deprecate-social") else { return };
    let before = example.database.dump();
    let triggers = ["comments_count", "likes_count", "post_shares_count"];
    assert_eq!(example.database.rows(WORKING_TRIGGERS), triggers);
    example.run_up_to("ready-to-drop", &[("ready-to-drop", &["dee", "sam"])]);
    assert_eq!(example.database.rows(WORKING_TRIGGERS), [""; 0]);
    example.phasegate(&["rollback", example.name, "--yes"]).expect(0);
    example.is_as(&before);
    // The one that somebody had disabled before stays so.
    assert_eq!(example.database.rows(WORKING_TRIGGERS), triggers);
    example.is_over("rolled_back");
}
