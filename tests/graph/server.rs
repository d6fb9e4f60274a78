//! A server of a test's own, with passwords and TLS under an authority of its own.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::sandbox::{Sandbox, wait_for};
use crate::services;

/// What has a server ask for a password, which may be short.
pub const PASSWORDS: &str =
    "dbms.security.auth_enabled=true\ndbms.security.auth_minimum_password_length=4\n";

pub struct Server {
    folder: tempfile::TempDir,
    port: String,
}

impl Server {
    /// Starts one with settings of its own. `None`, said loudly, where there are no servers.
    pub fn with(test: &str, settings: impl FnOnce(&Path) -> String) -> Option<Self> {
        services::neo4j(test)?;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings");
        std::fs::write(&file, settings(folder.path())).unwrap();
        let said = Self::script("start", folder.path(), &file);
        let port = said.trim().rsplit(':').next().unwrap().to_owned();
        Some(Self { folder, port })
    }

    /// Ends it in order, as its data want it where it may not write them next time, and starts it again where it was.
    pub fn again(&self, settings: &str) {
        self.end();
        self.start_again(settings);
    }

    /// Ends it in order.
    pub fn end(&self) {
        let id = self.folder.path().join("server/server.pid");
        let pid = std::fs::read_to_string(&id).unwrap().trim().to_owned();
        let is_there = || Path::new(&format!("/proc/{pid}/cmdline")).exists();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        assert!(wait_for(Duration::from_mins(1), || !is_there()), "the server does not end");
        std::fs::remove_file(&id).unwrap();
    }

    /// Starts it where it was before.
    pub fn start_again(&self, settings: &str) {
        let file = self.folder.path().join("settings");
        let here = format!("127.0.0.1:{}", self.port);
        let settings = format!(
            "{settings}server.bolt.listen_address={here}\nserver.bolt.advertised_address={here}\n"
        );
        std::fs::write(&file, settings).unwrap();
        Self::script("start", self.folder.path(), &file);
    }

    /// The URL of its first user with a password.
    pub fn url(&self, password: &str) -> String {
        format!("bolt://neo4j:{password}@127.0.0.1:{}", self.port)
    }

    /// Gives its first user another password, by the very driver of the program. A new server's is `neo4j`.
    pub fn change_password(&self, from: &str, to: &str) {
        let change = format!("ALTER CURRENT USER SET PASSWORD FROM '{from}' TO '{to}'");
        self.asked(from, "system", &change);
    }

    /// The column `it` of a query.
    pub fn texts(&self, password: &str, query: &str) -> Vec<String> {
        self.asked(password, "neo4j", query)
    }

    fn asked(&self, password: &str, database: &str, asked: &str) -> Vec<String> {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let config = neo4rs::ConfigBuilder::new()
                .uri(format!("bolt://127.0.0.1:{}", self.port))
                .user("neo4j")
                .password(password)
                .db(database)
                .build()
                .unwrap();
            let graph = neo4rs::Graph::connect(config).unwrap();
            let mut rows = graph.execute(neo4rs::query(asked)).await.unwrap();
            let mut texts = Vec::new();
            while let Some(row) = rows.next().await.unwrap() {
                texts.push(row.get("it").unwrap());
            }
            texts
        })
    }

    fn script(action: &str, folder: &Path, settings: &Path) -> String {
        let script = format!("{}/tests/services/neo4j.sh", env!("CARGO_MANIFEST_DIR"));
        let done = Command::new(script)
            .args([action, &folder.join("server").display().to_string()])
            .env("PHASEGATE_NEO4J_SETTINGS", settings)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        Self::script("stop", self.folder.path(), Path::new(""));
    }
}

/// Settings for passwords and for TLS under an authority in the folder.
fn with_tls(folder: &Path) -> String {
    let tls = folder.join("tls");
    certificates(&tls);
    format!(
        "{PASSWORDS}server.bolt.tls_level=OPTIONAL\n\
         dbms.ssl.policy.bolt.enabled=true\ndbms.ssl.policy.bolt.base_directory={}\n\
         dbms.ssl.policy.bolt.private_key=server.key\ndbms.ssl.policy.bolt.public_certificate=server.pem\n\
         dbms.ssl.policy.bolt.client_auth=NONE\n",
        tls.display()
    )
}

/// An authority, and the server's certificate for 127.0.0.1 by it.
fn certificates(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(
        folder.join("extensions"),
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n",
    )
    .unwrap();
    for args in [
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority -addext basicConstraints=critical,CA:TRUE",
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile extensions",
    ] {
        let done = Command::new("openssl")
            .args(args.split(' '))
            .current_dir(folder)
            .output()
            .expect("openssl is needed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

const PLAN: &str = "apiVersion: phasegate/v1
kind: Plan
metadata:
  name: graph
targets:
  graph:
    engine: neo4j
    url: \"${env:GRAPH_URL}\"
steps:
  - id: one
    phase: expand
    cypher: CREATE (:One)
    undo:
      none: nothing
";

#[test]
fn passwords_and_certificates_are_checked_and_what_is_wrong_is_told() {
    let Some(server) = Server::with("a server with passwords and TLS", with_tls) else { return };
    let sandbox = Sandbox::new();
    sandbox.write("plan.yaml", PLAN);
    let ca = server.folder.path().join("tls/ca.pem").display().to_string();
    let run = |scheme: &str, user: &str, more: &str| {
        let url = format!("{scheme}://{user}@127.0.0.1:{}/{more}", server.port);
        let ran = sandbox.command(&["run", "plan.yaml", "--new"]).env("GRAPH_URL", url).output();
        crate::sandbox::Ran::from(ran.unwrap())
    };
    // What a new server asks of its first user.
    server.change_password("neo4j", "hunter22");
    for (scheme, user, more, code, said) in [
        ("bolt", "neo4j:wrong", "", 77, "user and password"),
        ("bolt", "neo4j:hunter22", "nowhere", 1, "nowhere"),
        ("bolt+s", "neo4j:hunter22", "", 69, "?ca=FILE"),
        ("bolt+s", "neo4j:hunter22", "?ca=/no/such/file", 1, "/no/such/file"),
    ] {
        let ran = run(scheme, user, more).expect(code);
        assert!(ran.stderr.contains(said), "{said}: {ran}");
        assert!(!format!("{ran}").contains("hunter22"), "{ran}");
    }
    for (scheme, more) in [
        ("bolt", String::new()),
        ("bolt+s", format!("?ca={ca}")),
        ("neo4j+s", format!("neo4j?ca={ca}")),
        ("bolt+ssc", String::new()),
    ] {
        run(scheme, "neo4j:hunter22", &more).expect(0);
    }
}
