//! What a project file looks like.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ApiVersion, Approval, Duration};

#[derive(Deserialize, JsonSchema)]
enum ProjectKind {
    Project,
}

/// Environments, groups and policy.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(title = "Phasegate project")]
pub(super) struct Project {
    api_version: ApiVersion,
    kind: ProjectKind,
    /// Who belongs to which group.
    groups: Option<BTreeMap<String, Vec<String>>>,
    environments: Option<BTreeMap<String, Environment>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Environment {
    production: Option<bool>,
    /// The state store: a URL or a path.
    state: Option<String>,
    targets: Option<BTreeMap<String, TargetOverride>>,
    policy: Option<Policy>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TargetOverride {
    url: Option<String>,
    schema: Option<String>,
}

/// What an environment asks of every plan.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Policy {
    identity: Option<Identity>,
    /// What gates in front of destructive steps have besides.
    destructive: Option<Destructive>,
    /// Cuts waits short; not in production.
    longest_wait: Option<Duration>,
    allow_reviewed: Option<bool>,
    allow_partial_verify: Option<bool>,
    allow_commands: Option<bool>,
    /// What of rows is kept out of the journal, of those that a verify finds to differ and of those that errors are about.
    redact: Option<Redact>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Redact {
    Values,
    Keys,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Identity {
    Claimed,
    Os,
    Ssh,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Destructive {
    approvals: Option<Vec<Approval>>,
    verified_within: Option<Duration>,
    author_may_approve: Option<bool>,
}
