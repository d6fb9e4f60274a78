//! The bad luck of a server.

use phasegate::run::{Event, RunId};
use phasegate::store::{self, Claimant, Create, Error};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

use super::bed::Bed;
use super::proxy::{Cut, Proxy};
use super::sample::{ana, begin, begin_with, claimant, paused};

/// The location with another user, host or port.
fn with(bed: &Bed, change: impl FnOnce(&mut url::Url)) -> String {
    let mut url = url::Url::parse(bed.location()).unwrap();
    change(&mut url);
    url.into()
}

async fn raw(bed: &Bed) -> PgConnection {
    PgConnection::connect(bed.location()).await.unwrap()
}

/// A new role that may connect and no more; roles are the server's, so each test has its own.
async fn role(bed: &Bed) -> (String, String) {
    let name = format!("plain_{}", uuid::Uuid::now_v7().simple());
    raw(bed).await.execute(AssertSqlSafe(format!("CREATE ROLE {name} LOGIN"))).await.unwrap();
    let location = with(bed, |url| url.set_username(&name).unwrap());
    (name, location)
}

#[tokio::test]
async fn no_server_is_unreachable_and_the_password_is_not_repeated() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    for url in [
        format!("postgres://ana:s3cret@127.0.0.1:{port}/db"),
        format!("postgres://ana@127.0.0.1:{port}/db?password=s3cret&sslpassword=s3cret"),
        format!("postgres://ana:s3cret@127.0.0.1:{port}/db?sslmode=s3cret"),
        format!(
            "postgres://ana:s3cret@127.0.0.1:{port}/db?sslmode=verify-full&sslrootcert=/s3cret"
        ),
        "postgres://ana:s3cret@[::bad/db".into(),
    ] {
        let error = store::open(&url, Create::IfMissing).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_missing_database_or_role_is_unreachable() {
    let test = "store::postgres_server::a_missing_database_or_role_is_unreachable";
    let Some(bed) = Bed::postgres(test).await else { return };
    for url in [
        with(&bed, |url| url.set_path("no_such_database")),
        with(&bed, |url| url.set_username("no_such_role").unwrap()),
    ] {
        let error = store::open(&url, Create::IfMissing).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("SQLSTATE"), "{error}");
    }
    let with_password = with(&bed, |url| url.set_password(Some("s3cret")).unwrap());
    let store = store::open(&with_password, Create::IfMissing).await.unwrap();
    assert!(!store.location().contains("s3cret"), "{}", store.location());
    assert!(!format!("{store:?}").contains("s3cret"), "{store:?}");
    store.close().await;
    bed.remove().await;
}

#[tokio::test]
async fn a_plain_role_needs_no_more_than_a_schema_of_its_own() {
    let test = "store::postgres_server::a_plain_role_needs_no_more_than_a_schema_of_its_own";
    let Some(bed) = Bed::postgres(test).await else { return };
    let (name, location) = role(&bed).await;
    let error = store::open(&location, Create::IfMissing).await.unwrap_err();
    assert!(matches!(error, Error::NotWritable { .. }), "{error:?}");
    assert!(error.to_string().contains("42501"), "{error}");

    let schema = format!("CREATE SCHEMA phasegate AUTHORIZATION {name}");
    raw(&bed).await.execute(AssertSqlSafe(schema)).await.unwrap();
    let store = store::open(&location, Create::IfMissing).await.unwrap();
    let run = begin_with(&store, 2).await;
    let lease = store.acquire(&run, &claimant(1), 60_000, &|_| false).await.unwrap();
    store.append(&run, 2, Some(&lease), &ana(), vec![Event::Resumed]).await.unwrap();
    store.close().await;

    // Another role that may only look can look.
    let (name, location) = role(&bed).await;
    let grants = format!(
        "GRANT USAGE ON SCHEMA phasegate TO {name}; GRANT SELECT ON ALL TABLES IN SCHEMA phasegate TO {name}"
    );
    raw(&bed).await.execute(AssertSqlSafe(grants)).await.unwrap();
    let store = store::open(&location, Create::Never).await.unwrap();
    assert_eq!(store.read(&run, 0, 10).await.unwrap().len(), 3);
    let error = store.append(&run, 3, None, &ana(), vec![Event::Resumed]).await.unwrap_err();
    assert!(matches!(error, Error::NotWritable { .. }), "{error:?}");
    store.close().await;
    bed.remove().await;
}

#[tokio::test]
async fn a_read_only_server_can_be_read_and_is_not_writable() {
    let test = "store::postgres_server::a_read_only_server_can_be_read_and_is_not_writable";
    let Some(bed) = Bed::postgres(test).await else { return };
    let store = bed.open().await;
    let run = begin(&store).await;
    store.close().await;
    let (name, location) = role(&bed).await;
    let change = format!(
        "ALTER ROLE {name} SET default_transaction_read_only = on; GRANT USAGE ON SCHEMA phasegate TO {name}; \
         GRANT ALL ON ALL TABLES IN SCHEMA phasegate TO {name}"
    );
    raw(&bed).await.execute(AssertSqlSafe(change)).await.unwrap();
    let store = store::open(&location, Create::Never).await.unwrap();
    assert_eq!(store.read(&run, 0, 10).await.unwrap().len(), 1);
    let error = store.append(&run, 1, None, &ana(), vec![Event::Resumed]).await.unwrap_err();
    assert!(matches!(error, Error::NotWritable { .. }), "{error:?}");
    store.close().await;
    bed.remove().await;
}

#[tokio::test]
async fn sessions_wait_for_the_disk_and_for_nothing_else_without_end() {
    let test =
        "store::postgres_server::sessions_wait_for_the_disk_and_for_nothing_else_without_end";
    let Some(bed) = Bed::postgres(test).await else { return };
    bed.open().await.close().await;
    let (name, location) = role(&bed).await;
    let change = format!(
        "ALTER ROLE {name} SET synchronous_commit = off; ALTER ROLE {name} SET default_transaction_isolation = serializable; \
         GRANT USAGE ON SCHEMA phasegate TO {name}; GRANT ALL ON ALL TABLES IN SCHEMA phasegate TO {name}; \
         CREATE TABLE public.seen (setting text); GRANT INSERT ON public.seen TO {name}; \
         CREATE FUNCTION public.look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           INSERT INTO public.seen SELECT name || '=' || current_setting(name) FROM unnest(ARRAY['synchronous_commit', \
             'transaction_isolation', 'lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout', \
             'application_name']) AS name; RETURN NULL; END $$; \
         CREATE TRIGGER look AFTER INSERT ON phasegate.state_records FOR EACH ROW EXECUTE FUNCTION public.look()"
    );
    raw(&bed).await.execute(AssertSqlSafe(change)).await.unwrap();
    let store = store::open(&location, Create::Never).await.unwrap();
    begin(&store).await;
    store.close().await;
    let mut seen: Vec<String> = sqlx::query_scalar("SELECT setting FROM public.seen")
        .fetch_all(&mut raw(&bed).await)
        .await
        .unwrap();
    seen.sort();
    assert_eq!(
        seen,
        [
            "application_name=phasegate",
            "idle_in_transaction_session_timeout=10s",
            "lock_timeout=5s",
            "statement_timeout=15s",
            "synchronous_commit=on",
            "transaction_isolation=read committed",
        ]
    );
    bed.remove().await;
}

#[tokio::test]
async fn a_row_locked_elsewhere_is_busy_after_a_bounded_wait() {
    let test = "store::postgres_server::a_row_locked_elsewhere_is_busy_after_a_bounded_wait";
    let Some(bed) = Bed::postgres(test).await else { return };
    let store = bed.open().await;
    let run = begin(&store).await;
    let mut db = raw(&bed).await;
    db.execute("BEGIN; LOCK TABLE phasegate.state_runs IN EXCLUSIVE MODE").await.unwrap();
    let error = store.append(&run, 1, None, &ana(), vec![Event::Resumed]).await.unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error:?}");
    assert_eq!(store.version(&run).await.unwrap(), 1);
    db.execute("ROLLBACK").await.unwrap();
    store.append(&run, 1, None, &ana(), vec![Event::Resumed]).await.unwrap();
    store.close().await;
    bed.remove().await;
}

#[tokio::test]
async fn sessions_ended_by_the_server_are_replaced() {
    let test = "store::postgres_server::sessions_ended_by_the_server_are_replaced";
    let Some(bed) = Bed::postgres(test).await else { return };
    let store = bed.open().await;
    let run = begin(&store).await;
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE datname = current_database() AND application_name = 'phasegate'",
    )
    .fetch_one(&mut raw(&bed).await)
    .await
    .unwrap();
    assert!(ended >= 1);
    store.append(&run, 1, None, &ana(), vec![Event::Resumed]).await.unwrap();
    assert_eq!(store.version(&run).await.unwrap(), 2);
    store.close().await;
    bed.remove().await;
}

/// Ends the session by which the holder of a run's lease shows that it is there, and waits until it is gone.
async fn end_presence(bed: &Bed, run: &RunId) {
    let mut db = raw(bed).await;
    // The session is looked up first: as a condition of a join, ending could come before the others.
    let pid: Option<i32> =
        sqlx::query_scalar("SELECT session_pid FROM phasegate.state_leases WHERE run = $1")
            .bind(run.as_str())
            .fetch_one(&mut db)
            .await
            .unwrap();
    let is_ended: bool = sqlx::query_scalar("SELECT pg_terminate_backend($1, 10000)")
        .bind(pid)
        .fetch_one(&mut db)
        .await
        .unwrap();
    assert!(is_ended, "the holder has no session");
}

#[tokio::test]
async fn a_lease_is_free_at_once_when_its_holders_session_is_gone() {
    let test = "store::postgres_server::a_lease_is_free_at_once_when_its_holders_session_is_gone";
    let Some(bed) = Bed::postgres(test).await else { return };
    let (one, two) = (bed.open().await, bed.open().await);
    let run = begin(&one).await;
    let nobody = |_: &Claimant| false;
    let first = one.acquire(&run, &claimant(1), 60_000, &nobody).await.unwrap();
    let held = two.acquire(&run, &claimant(2), 60_000, &nobody).await.unwrap_err();
    assert_eq!(held, Error::Held(Box::new(first.clone())));

    // A holder that lost its session opens another when it renews.
    assert!(!two.lease(&run).await.unwrap().unwrap().is_left_alone);
    end_presence(&bed, &run).await;
    assert!(two.lease(&run).await.unwrap().unwrap().is_left_alone);
    let first = one.renew(&first, 60_000).await.unwrap();
    assert!(!two.lease(&run).await.unwrap().unwrap().is_left_alone);
    let held = two.acquire(&run, &claimant(2), 60_000, &nobody).await.unwrap_err();
    assert_eq!(held, Error::Held(Box::new(first.clone())));

    end_presence(&bed, &run).await;
    let second = two.acquire(&run, &claimant(2), 60_000, &nobody).await.unwrap();
    assert_eq!(second.token, first.token + 1);
    assert_eq!(one.renew(&first, 60_000).await.unwrap_err(), Error::LeaseLost(run.clone()));

    // Of another role's session a plain role sees too little to take it for gone.
    let (name, location) = role(&bed).await;
    let grants = format!(
        "GRANT USAGE ON SCHEMA phasegate TO {name}; GRANT ALL ON ALL TABLES IN SCHEMA phasegate TO {name}"
    );
    raw(&bed).await.execute(AssertSqlSafe(grants)).await.unwrap();
    let plain = store::open(&location, Create::Never).await.unwrap();
    let held = plain.acquire(&run, &claimant(3), 60_000, &nobody).await.unwrap_err();
    assert_eq!(held, Error::Held(Box::new(second)));
    end_presence(&bed, &run).await;
    assert_eq!(plain.acquire(&run, &claimant(3), 60_000, &nobody).await.unwrap().token, 3);
    for store in [one, two, plain] {
        store.close().await;
    }
    bed.remove().await;
}

/// A store behind a relay that can cut its connections.
async fn behind_a_relay(test: &str) -> Option<(Bed, Proxy, String)> {
    let bed = Bed::postgres(test).await?;
    let url = url::Url::parse(bed.location()).unwrap();
    let server = url.socket_addrs(|| Some(5432)).unwrap()[0];
    let proxy = Proxy::start(server);
    let location = with(&bed, |url| {
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(proxy.address.port())).unwrap();
    });
    Some((bed, proxy, location))
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_looked_up() {
    let test = "store::postgres_server::a_commit_whose_answer_is_lost_is_looked_up";
    let Some((bed, proxy, location)) = behind_a_relay(test).await else { return };
    let store = store::open(&location, Create::IfMissing).await.unwrap();
    let run = begin(&store).await;

    // It was kept, and the caller is told so.
    proxy.arm(Cut::AfterCommit);
    let entries = store.append(&run, 1, None, &ana(), vec![paused("kept")]).await.unwrap();
    assert!(proxy.has_cut());
    assert_eq!(entries, store.read(&run, 1, 10).await.unwrap());

    // It was not, and the caller is told that.
    proxy.arm(Cut::BeforeCommit);
    let error = store.append(&run, 2, None, &ana(), vec![paused("lost")]).await.unwrap_err();
    assert!(proxy.has_cut());
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(store.version(&run).await.unwrap(), 2);
    store.append(&run, 2, None, &ana(), vec![paused("again")]).await.unwrap();

    // The server can't be asked: then nobody knows, and that is said.
    proxy.arm(Cut::ForGood);
    let error = store.append(&run, 3, None, &ana(), vec![paused("who knows")]).await.unwrap_err();
    assert!(proxy.has_cut());
    assert!(error.to_string().contains("is not known"), "{error}");
    store.close().await;

    let store = bed.open().await;
    assert_eq!(store.version(&run).await.unwrap(), 4);
    store.close().await;
    bed.remove().await;
}
