//! `version`.

use serde_json::json;

use crate::cli::answer::Answer;

pub fn perform() -> Answer {
    let version = env!("CARGO_PKG_VERSION");
    Answer::done(format!("phasegate {version}"))
        .with("version", json!(version))
        .with("plan_api", json!("phasegate/v1"))
}
