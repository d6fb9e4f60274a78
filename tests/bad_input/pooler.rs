//! A pooler between us and the server.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Bed, MOVED, TABLES, mentions, plan};
use crate::sandbox::wait_for;
use crate::services;

/// `PgBouncer`, of a test's own.
struct Pooler {
    child: Child,
    _folder: tempfile::TempDir,
    port: u16,
}

impl Pooler {
    /// One in front of a server, which lends its sessions by session or by transaction; `None` where there is none.
    fn start(database_url: &str, mode: &str) -> Option<Self> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"]
            .into_iter()
            .find(|program| std::path::Path::new(program).exists())?;
        let url = url::Url::parse(database_url).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = folder.path().join("pooler.ini");
        std::fs::write(
            &settings,
            format!(
                "[databases]\n{} = host=127.0.0.1 port={} user={}\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\n\
                 auth_type=any\npool_mode={mode}\nunix_socket_dir=\nignore_startup_parameters=extra_float_digits,options\n",
                url.path().trim_start_matches('/'),
                url.port().unwrap(),
                url.username()
            ),
        )
        .unwrap();
        // It refuses to be root.
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        let mut command = if is_root {
            open_to_all(folder.path());
            let mut command = Command::new("runuser");
            command.args(["-u", "nobody", "--", program]);
            command
        } else {
            Command::new(program)
        };
        let child =
            command.arg(&settings).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pooler = Self { child, _folder: folder, port };
        let answers = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        assert!(wait_for(Duration::from_secs(20), answers), "the pooler does not start");
        Some(pooler)
    }

    fn url(&self, database_url: &str) -> String {
        let mut url = url::Url::parse(database_url).unwrap();
        url.set_port(Some(self.port)).unwrap();
        url.into()
    }
}

fn open_to_all(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // It passes the signal on to what it runs, as a kill of `runuser` itself would not be.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

#[test]
fn a_pooler_that_lends_sessions_by_transaction_is_refused_and_one_by_session_works() {
    let Some(bed) = Bed::new("a pooler") else { return };
    bed.begin(TABLES, &plan(MOVED, "forward"));
    for mode in ["transaction", "session"] {
        let Some(pooler) = Pooler::start(&bed.database.url, mode) else {
            return services::not_run(
                "pgbouncer is not installed (Debian: apt-get install pgbouncer)",
            );
        };
        let url = pooler.url(&bed.database.url);
        // A pool that is warm lends what it has, one that is cold what it opens.
        for _ in 0..3 {
            let ran = bed.sandbox.run_with(&["run", "plan.yaml"], "APP_URL", &url);
            if mode == "session" {
                ran.expect(0);
                assert_eq!(bed.database.value("SELECT count(*) FROM u"), "200");
                return;
            }
            mentions(
                &ran.expect(1),
                &[
                    "a pooler that lends one session to several clients",
                    "or a pool in session mode",
                ],
            );
            bed.is_untouched();
        }
    }
}
