//! A throttle that asks at an `https` URL: who answers is who its certificate says, or the copy is held.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::Bed;
use super::signals::{finish, slow};
use crate::services;

/// Names a file with the authorities that are trusted.
const AUTHORITIES: &str = "SSL_CERT_FILE";

/// A server at `https://localhost` with a certificate of an authority of its own, which ends with this.
struct Secure {
    folder: tempfile::TempDir,
    child: Child,
    port: String,
}

impl Secure {
    /// `None`, said loudly, where there is no `openssl`.
    fn start(test: &str) -> Option<Self> {
        if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
            services::not_run(&format!("{test}: there is no openssl here"));
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(at, &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=test"));
        openssl(at, &format!("req -new {key} -keyout leaf.key -out leaf.csr -subj /CN=localhost"));
        std::fs::write(
            at.join("names"),
            "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n",
        )
        .unwrap();
        openssl(
            at,
            "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out leaf.pem",
        );
        let mut child = Command::new("openssl")
            .args("s_server -accept 127.0.0.1:0 -cert leaf.pem -key leaf.key -HTTP".split(' '))
            .current_dir(at)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = said.find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(str::to_owned));
        let port = ready.unwrap().rsplit_once(':').unwrap().1.to_owned();
        // It writes a line for each question, and must not find nobody there.
        std::thread::spawn(move || said.for_each(drop));
        let secure = Self { folder, child, port };
        secure.answers("7");
        Some(secure)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn answers(&self, number: &str) {
        let text = format!("HTTP/1.0 200 OK\r\ncontent-length: {}\r\n\r\n{number}", number.len());
        std::fs::write(self.path("next"), text).unwrap();
        std::fs::rename(self.path("next"), self.path("throttle")).unwrap();
    }

    fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/throttle", self.port)
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn openssl(folder: &Path, words: &str) {
    let ran = Command::new("openssl").args(words.split(' ')).current_dir(folder).output().unwrap();
    assert!(ran.status.success(), "{words}: {}", String::from_utf8_lossy(&ran.stderr));
}

fn run_trusting(bed: &Bed, authorities: Option<&Path>) -> Child {
    let mut command = bed.sandbox.command(&["run", "plan.yaml"]);
    command.env("APP_URL", bed.app()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove(AUTHORITIES).env_remove("SSL_CERT_DIR");
    if let Some(file) = authorities {
        command.env(AUTHORITIES, file);
    }
    command.spawn().unwrap()
}

fn kill(mut run: Child) {
    run.kill().unwrap();
    run.wait().unwrap();
}

#[test]
fn an_https_url_holds_a_copy_unless_its_certificate_is_trusted() {
    let Some(secure) = Secure::start("an https URL") else { return };
    let named = format!("named http: {{ url: '{}' }}; max: 10", secure.url("localhost"));
    let misnamed = format!("misnamed http: '{}'", secure.url("127.0.0.1"));
    let Some(bed) = Bed::new("an https URL", &slow(&[&named, &misnamed])) else { return };

    // An authority that nobody knows, which is the ordinary case of one's own.
    let run = run_trusting(&bed, None);
    bed.until_held_by(
        "named",
        "can't be read: its certificate is not trusted: UnknownIssuer; SSL_CERT_FILE may name",
    );
    kill(run);
    let missing = secure.path("missing.pem");
    let run = run_trusting(&bed, Some(&missing));
    bed.until_held_by("named", &format!("SSL_CERT_FILE: {}: No such file", missing.display()));
    kill(run);
    let run = run_trusting(&bed, Some(&bed.sandbox.write("empty.pem", "nothing")));
    bed.until_held_by("named", "there is no certificate in it");
    kill(run);
    assert_eq!(bed.number("SELECT count(*) FROM leads_v2"), 0, "a chunk began");

    // Trusted, it counts under its own name only.
    let run = run_trusting(&bed, Some(&secure.path("ca.pem")));
    let held = bed.until_held_by("misnamed", "its certificate is not trusted: ");
    assert!(!held["reason"].as_str().unwrap().contains(AUTHORITIES), "{held}");
    bed.phasegate(&["tune", "leads", "--limit", "misnamed=off"]).expect(0);
    bed.until_free();
    secure.answers("50");
    bed.until_held_by("named", "50 >= 10");
    secure.answers("3");
    bed.until_free();
    finish(&bed, run);
}
