//! Columns that change names in one table: the whole catalogue around them, before and after.
#![allow(clippy::unwrap_used, missing_docs)]

use super::fixture::mapping;
use super::retire_carry_tests::{ROLES, catalogue, changed};
use super::retire_tests::{Live, failure};
use crate::driver::{Losses, SyncState};
use crate::run::{Direction, FailureClass, Mapping, RetireShape, RetiredColumn};

/// A column with everything that a column can have, beside one that is left alone.
const RICH: &str = "
    CREATE TABLE accounts (id bigint PRIMARY KEY, mail text);
    CREATE TABLE users (id bigserial PRIMARY KEY, email text NOT NULL DEFAULT 'None', n int NOT NULL DEFAULT 1, email_v2 text,
        CONSTRAINT told CHECK (email <> ''), CONSTRAINT once UNIQUE (email));
    CREATE INDEX users_mail ON users (email, n) WHERE n > 0;
    CREATE STATISTICS together ON email, n FROM users;
    COMMENT ON COLUMN users.email IS 'where to write to'; COMMENT ON COLUMN users.email_v2 IS 'the new one';
    COMMENT ON CONSTRAINT told ON users IS 'never empty'; COMMENT ON CONSTRAINT once ON users IS 'one each';
    COMMENT ON INDEX users_mail IS 'by mail';
    ALTER TABLE users ALTER email SET STATISTICS 300, ALTER email SET (n_distinct = 7), ALTER email SET STORAGE EXTERNAL;
    GRANT SELECT ON users TO ret_app; GRANT UPDATE (email) ON users TO ret_app; GRANT UPDATE (n) ON users TO ret_app;
    GRANT SELECT (email) ON users TO ret_reader WITH GRANT OPTION;
    CREATE VIEW mails AS SELECT id, email FROM users WHERE email <> 'x'; GRANT SELECT ON mails TO ret_app;
    COMMENT ON COLUMN mails.email IS 'read';
    CREATE VIEW counted AS SELECT n FROM users;
    ALTER TABLE users ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON users TO ret_app USING (email = current_user);
    CREATE POLICY by_mail ON accounts USING (EXISTS (SELECT FROM users u WHERE u.email = accounts.mail));
    INSERT INTO users (email, n, email_v2) VALUES ('A', 1, 'a'), ('B', 2, 'b');";

pub(super) fn users(direction: Direction) -> (Mapping, RetireShape) {
    let reverse = vec![("email".into(), "upper(email_v2)".into())];
    let in_place = Mapping {
        columns: vec![("email_v2".into(), "lower(email)".into())],
        reverse: if direction == Direction::Both { reverse } else { Vec::new() },
        ..mapping(("users", &["id"]), ("users", &["id"]))
    };
    let shape = RetireShape::Columns(vec![RetiredColumn {
        column: "email".into(),
        old_name: "email_old".into(),
        take_name: Some("email_v2".into()),
    }]);
    (in_place, shape)
}

#[tokio::test]
async fn in_place_a_catalogue_differs_by_what_was_meant_and_comes_back_whole() {
    for direction in [Direction::Forward, Direction::Both] {
        let (in_place, shape) = users(direction);
        // With `forward` nothing fills the old column any more, so that no identity may go by it.
        let by_mail = match direction {
            Direction::Both => "ALTER TABLE users REPLICA IDENTITY USING INDEX once",
            Direction::Forward => "",
        };
        let setup = format!("{ROLES}{RICH}{by_mail}");
        let Some(live) = Live::of(&setup, in_place, direction).await else { return };
        let database = &live.database;
        live.retire_at_last(&shape).await;
        live.unretire(&shape, Losses::Refused).await.unwrap();
        assert_eq!(live.sync().await, SyncState::Active);
        live.ledger_forgets("retire").await;

        // With what a build or a scan makes in place.
        let before = catalogue(database).await;
        live.retire_at_last(&shape).await;
        let after = catalogue(database).await;
        let mut differs = changed(&before, &after);
        differs.sort();
        assert_eq!(differs, RETIRED, "{direction:?}");
        live.unretire(&shape, Losses::Refused).await.unwrap();
        assert_eq!(changed(&before, &catalogue(database).await), [""; 0], "{direction:?}");
        live.ledger_forgets("retire").await;

        live.retire_at_last(&shape).await;
        // What is over more than the column would go with it in silence.
        let (class, message) = failure(live.drop(&shape).await);
        let tied = "index users_mail;\nstatistics object together";
        assert!(class == FailureClass::Refused && message.ends_with(tied), "{message}");
        database.run("DROP INDEX users_mail; DROP STATISTICS together").await;
        live.drop(&shape).await.unwrap();
        let mut differs = changed(&after, &catalogue(database).await);
        differs.sort();
        assert_eq!(differs, DROPPED, "{direction:?}");
        assert_eq!(live.ours_left().await, 0);
    }
}

/// What the switch changes: the names of the two columns wherever they stand, and what the new one has from the old: default,
/// grants, statistics target, options, storage, the name and the mark of its constraint. Views and policies read as before.
const RETIRED: [&str; 18] = [
    "+ CREATE INDEX users_email_v2_n_idx ON public.users USING btree (email, n) WHERE (n > 0)",
    "+ CREATE INDEX users_mail ON public.users USING btree (email_old, n) WHERE (n > 0) by mail",
    "+ CREATE UNIQUE INDEX once_2 ON public.users USING btree (email_old)",
    "+ column users.email text not null 'none'::text statistics 300 {n_distinct=7} e the new one ret_app may UPDATE, ret_reader may SELECT*",
    "+ column users.email_old text not null 'None'::text statistics 300 {n_distinct=7} e where to write to ret_app may UPDATE, ret_reader may SELECT*",
    "+ constraint once_2 on users UNIQUE (email_old) one each",
    "+ constraint told on users CHECK ((email_old <> ''::text)) never empty",
    "+ constraint told_2 on users CHECK ((email <> ''::text))",
    "+ statistics together on users email_old, n {d,f,m} tester",
    "- CREATE INDEX users_email_v2_n_idx ON public.users USING btree (email_v2, n) WHERE (n > 0)",
    "- CREATE INDEX users_mail ON public.users USING btree (email, n) WHERE (n > 0) by mail",
    "- CREATE UNIQUE INDEX once_2 ON public.users USING btree (email_v2)",
    "- column users.email text not null 'None'::text statistics 300 {n_distinct=7} e where to write to ret_app may UPDATE, ret_reader may SELECT*",
    "- column users.email_v2 text not null the new one",
    "- constraint once_2 on users UNIQUE (email_v2)",
    "- constraint told on users CHECK ((email <> ''::text)) never empty",
    "- constraint told_2 on users CHECK ((email_v2 <> ''::text))",
    "- statistics together on users email, n {d,f,m} tester",
];

/// What the drop changes: the column goes, with what is over nothing else.
const DROPPED: [&str; 6] = [
    "- CREATE INDEX users_mail ON public.users USING btree (email_old, n) WHERE (n > 0) by mail",
    "- CREATE UNIQUE INDEX once_2 ON public.users USING btree (email_old)",
    "- column users.email_old text not null 'None'::text statistics 300 {n_distinct=7} e where to write to ret_app may UPDATE, ret_reader may SELECT*",
    "- constraint once_2 on users UNIQUE (email_old) one each",
    "- constraint told on users CHECK ((email_old <> ''::text)) never empty",
    "- statistics together on users email_old, n {d,f,m} tester",
];
