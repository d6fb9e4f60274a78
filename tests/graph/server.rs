//! A server of a test's own, with passwords and TLS under an authority of its own.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::sandbox::Sandbox;
use crate::services;

struct Server {
    folder: tempfile::TempDir,
    port: String,
}

impl Server {
    fn new() -> Option<Self> {
        services::neo4j("a server with passwords and TLS")?;
        let folder = tempfile::tempdir().unwrap();
        certificates(&folder.path().join("tls"));
        let settings = folder.path().join("settings");
        let tls = folder.path().join("tls").display().to_string();
        std::fs::write(
            &settings,
            format!(
                "dbms.security.auth_enabled=true\ndbms.security.auth_minimum_password_length=4\nserver.bolt.tls_level=OPTIONAL\n\
                 dbms.ssl.policy.bolt.enabled=true\ndbms.ssl.policy.bolt.base_directory={tls}\n\
                 dbms.ssl.policy.bolt.private_key=server.key\ndbms.ssl.policy.bolt.public_certificate=server.pem\n\
                 dbms.ssl.policy.bolt.client_auth=NONE\n"
            ),
        )
        .unwrap();
        let said = Self::script("start", folder.path(), &settings);
        let port = said.trim().rsplit(':').next().unwrap().to_owned();
        Some(Self { folder, port })
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
    let Some(server) = Server::new() else { return };
    let sandbox = Sandbox::new();
    sandbox.write("plan.yaml", PLAN);
    let ca = server.folder.path().join("tls/ca.pem").display().to_string();
    let run = |scheme: &str, user: &str, more: &str| {
        let url = format!("{scheme}://{user}@127.0.0.1:{}/{more}", server.port);
        let ran = sandbox.command(&["run", "plan.yaml", "--new"]).env("GRAPH_URL", url).output();
        crate::sandbox::Ran::from(ran.unwrap())
    };
    // What a new server asks of its first user, by the very driver of the program.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = neo4rs::ConfigBuilder::new()
            .uri(format!("bolt://127.0.0.1:{}", server.port))
            .user("neo4j")
            .password("neo4j")
            .db("system")
            .build()
            .unwrap();
        let graph = neo4rs::Graph::connect(config).unwrap();
        let change = "ALTER CURRENT USER SET PASSWORD FROM 'neo4j' TO 'hunter22'";
        graph.run(neo4rs::query(change)).await.unwrap();
    });
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
