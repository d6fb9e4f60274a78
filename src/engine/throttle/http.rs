//! What answers at a URL.
//!
//! Whoever answers at an `https` URL is who its certificate says, or the throttle stays shut. Trusted are the authorities that
//! the program brings along; where `SSL_CERT_FILE` is set, as curl and OpenSSL read it, those of that file and no others.
//!
//! Absent on purpose: credentials, a way to trust everybody, and what stands in an answer beyond one number.

use std::path::Path;
use std::sync::OnceLock;

use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::bounds::throttle::{HTTP_ANSWER_BYTES_MAX, HTTP_ANSWER_WITHIN};
use crate::copy::throttle::Reading;

/// Names a file with the certificates of the authorities that are trusted.
const AUTHORITIES: &str = "SSL_CERT_FILE";

/// Asks once. Anything but a 2xx holds. `is_bounded`: the answer is a number that is held against a limit.
pub(super) async fn ask(url: String, is_bounded: bool) -> Reading {
    let asked = tokio::task::spawn_blocking(move || get(&url, is_bounded)).await;
    asked.unwrap_or_else(|error| Reading::Failed(format!("asking ended early: {error}")))
}

/// Made at the first question. What kept it from being made is not remembered, so that it may be mended meanwhile.
fn agent() -> Result<&'static ureq::Agent, String> {
    static AGENT: OnceLock<ureq::Agent> = OnceLock::new();
    if let Some(agent) = AGENT.get() {
        return Ok(agent);
    }
    let made = agent_trusting(trusted()?);
    Ok(AGENT.get_or_init(|| made))
}

fn agent_trusting(authorities: RootCerts) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(HTTP_ANSWER_WITHIN))
        .http_status_as_error(false)
        .user_agent("phasegate")
        .tls_config(TlsConfig::builder().root_certs(authorities).build())
        .build();
    ureq::Agent::new_with_config(config)
}

fn trusted() -> Result<RootCerts, String> {
    match std::env::var_os(AUTHORITIES).filter(|path| !path.is_empty()) {
        None => Ok(RootCerts::WebPki),
        Some(path) => authorities(Path::new(&path))
            .map_err(|why| format!("{AUTHORITIES}: {}: {why}", path.display())),
    }
}

/// The certificates of a file, of which there is at least one.
fn authorities(path: &Path) -> Result<RootCerts, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) =
            item.map_err(|_| "it is cut off, or damaged".to_owned())?
        {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    Ok(RootCerts::from(found))
}

fn get(url: &str, is_bounded: bool) -> Reading {
    match agent() {
        Ok(agent) => get_by(agent, url, is_bounded),
        Err(why) => Reading::Failed(why),
    }
}

/// The URL isn't repeated: the plan has it.
fn failed(error: &ureq::Error) -> Reading {
    let said = error.to_string();
    let Some((_, why)) = said.split_once("invalid peer certificate: ") else {
        return Reading::Failed(said);
    };
    let help = if why.starts_with("UnknownIssuer") {
        format!("; {AUTHORITIES} may name a file with the authority's certificate")
    } else {
        String::new()
    };
    Reading::Failed(format!("its certificate is not trusted: {why}{help}"))
}

fn get_by(agent: &ureq::Agent, url: &str, is_bounded: bool) -> Reading {
    let mut answer = match agent.get(url).call() {
        Ok(answer) => answer,
        Err(error) => return failed(&error),
    };
    let status = answer.status();
    if !status.is_success() {
        return Reading::Hold(format!("answered {}", status.as_u16()));
    }
    if !is_bounded {
        return Reading::Go;
    }
    match answer.body_mut().with_config().limit(HTTP_ANSWER_BYTES_MAX).read_to_string() {
        Ok(text) => match text.trim().parse() {
            Ok(number) => Reading::value(number),
            Err(_) => Reading::Failed("the answer is no number".to_owned()),
        },
        Err(error) => failed(&error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request, and gives the URL.
    fn answering(status: &'static str, body: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/throttle", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = [0; 1_024];
            let length = client.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /throttle HTTP/1.1\r\n"));
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            client.write_all(format!("{head}{body}").as_bytes()).unwrap();
        });
        url
    }

    #[tokio::test]
    async fn a_2xx_lets_go_and_everything_else_holds() {
        for (status, body, is_bounded, expected) in [
            ("200 OK", "fine", false, Reading::Go),
            ("204 No Content", "", false, Reading::Go),
            ("503 Service Unavailable", "busy", false, Reading::Hold("answered 503".into())),
            ("429 Too Many Requests", "7", true, Reading::Hold("answered 429".into())),
            ("200 OK", "7.5\n", true, Reading::value(7.5)),
            ("200 OK", "fine", true, Reading::Failed("the answer is no number".into())),
        ] {
            let url = answering(status, body);
            assert_eq!(ask(url, is_bounded).await, expected, "{status} {body}");
        }
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", nobody.local_addr().unwrap());
        drop(nobody);
        assert!(matches!(ask(url, false).await, Reading::Failed(_)));
    }

    #[test]
    fn a_file_without_certificates_makes_nobody_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let refused = |words: &str| {
            let why = authorities(&path).unwrap_err();
            assert!(why.contains(words), "{why}");
        };
        refused("No such file");
        for (text, words) in [
            ("", "no certificate in it"),
            ("not a certificate at all", "no certificate in it"),
            ("-----BEGIN CERTIFICATE-----\nMIIB", "cut off"),
        ] {
            std::fs::write(&path, text).unwrap();
            refused(words);
        }
    }
}
