//! What answers at a URL.
//!
//! Absent on purpose: credentials, and what stands in an answer beyond one number.

use std::sync::OnceLock;
use std::time::Duration;

use crate::copy::throttle::Reading;

/// How long an answer may take in all.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How much of an answer is read, in bytes: a number is short.
const ANSWER_MAX: u64 = 1_024;

/// Asks once. Anything but a 2xx holds. `is_bounded`: the answer is a number that is held against a limit.
pub(super) async fn ask(url: String, is_bounded: bool) -> Reading {
    let asked = tokio::task::spawn_blocking(move || get(&url, is_bounded)).await;
    asked.unwrap_or_else(|error| Reading::Failed(format!("asking ended early: {error}")))
}

fn agent() -> &'static ureq::Agent {
    static AGENT: OnceLock<ureq::Agent> = OnceLock::new();
    AGENT.get_or_init(|| {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_WITHIN))
            .http_status_as_error(false)
            .user_agent("phasegate")
            .build();
        ureq::Agent::new_with_config(config)
    })
}

fn get(url: &str, is_bounded: bool) -> Reading {
    let mut answer = match agent().get(url).call() {
        Ok(answer) => answer,
        // The URL isn't repeated: the plan has it.
        Err(error) => return Reading::Failed(error.to_string()),
    };
    let status = answer.status();
    if !status.is_success() {
        return Reading::Hold(format!("answered {}", status.as_u16()));
    }
    if !is_bounded {
        return Reading::Go;
    }
    match answer.body_mut().with_config().limit(ANSWER_MAX).read_to_string() {
        Ok(text) => match text.trim().parse() {
            Ok(number) => Reading::value(number),
            Err(_) => Reading::Failed("the answer is no number".to_owned()),
        },
        Err(error) => Reading::Failed(error.to_string()),
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
}
