//! The project file: environments, groups, and the policy that is out of a plan author's reach.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bounds::document::APPROVALS_MAX;
use crate::diagnostic::{Diagnostic, Source, known as codes};
use crate::run::{EnvironmentName, GroupName, Identity, Redact, TargetName};

use super::fields::{Alphabet, Fields, check_name, entries, list, texts};
use super::files::read_bounded;
use super::node::{At, Entry, Node, Span};
use super::reports::Reports;
use super::secret::{literal_secret, malformed};
use super::{Findings, read, source, suggest};

/// The file's name, looked for from the plan's folder upwards.
pub const FILE_NAME: &str = "phasegate.yaml";

/// A project.
#[derive(Clone, Debug)]
pub struct Project {
    /// The file.
    pub path: PathBuf,
    /// Its text.
    pub source: Source,
    groups: BTreeMap<GroupName, BTreeSet<String>>,
    environments: BTreeMap<EnvironmentName, Environment>,
}

/// An environment of a project.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Its name.
    pub name: EnvironmentName,
    /// Where it stands in the project file.
    pub span: Span,
    /// Whether it is production.
    pub production: bool,
    /// Its state store: a URL or path with references.
    pub state: Option<String>,
    /// How its targets are reached.
    pub targets: BTreeMap<TargetName, TargetOverride>,
    /// What it asks of plans.
    pub policy: EnvironmentPolicy,
}

/// How a target is reached in an environment.
#[derive(Clone, Debug)]
pub struct TargetOverride {
    /// Its URL with references.
    pub url: Option<String>,
    /// The schema for our own objects.
    pub schema: Option<String>,
}

/// What an environment asks of plans.
#[derive(Clone, Debug, Default)]
pub struct EnvironmentPolicy {
    /// Whose names are believed; claimed ones, if nothing is said.
    pub identity: Option<At<Identity>>,
    /// What gates in front of destructive steps have besides.
    pub destructive: Option<DestructivePolicy>,
    /// Caps every wait, in milliseconds.
    pub longest_wait_ms: Option<u64>,
    /// Whether `reviewed` counts. By default it does, but in production.
    pub allow_reviewed: Option<bool>,
    /// Whether a partial verify may open a destructive gate. By default not.
    pub allow_partial_verify: bool,
    /// Whether programs may be run. By default not.
    pub allow_commands: bool,
    /// What of rows is kept out of the journal, of those that a verify finds to differ and of those that errors are about. By default nothing.
    pub redact: Redact,
}

/// What gates in front of destructive steps have besides what the plan says.
#[derive(Clone, Debug, Default)]
pub struct DestructivePolicy {
    /// Approvals.
    pub approvals: Vec<(At<String>, u32)>,
    /// The greatest age of evidence, in milliseconds.
    pub verified_within_ms: Option<u64>,
    /// Whether the author of the run may approve.
    pub author_may_approve: Option<bool>,
}

impl Project {
    /// The project file given, or the nearest above a plan (or folder). None if there is none.
    pub fn find(start: &Path, explicit: Option<&Path>) -> Result<Option<Self>, Findings> {
        if let Some(path) = explicit {
            return Self::load(path).map(Some);
        }
        let start = std::path::absolute(start).unwrap_or_else(|_| start.to_path_buf());
        for folder in start.ancestors() {
            let path = folder.join(FILE_NAME);
            if path.is_file() {
                return Self::load(&path).map(Some);
            }
        }
        Ok(None)
    }

    /// Reads a project file.
    pub fn load(path: &Path) -> Result<Self, Findings> {
        let bytes = read_bounded(path).map_err(|error| Findings::unreadable(path, &error))?;
        Self::parse(path, bytes)
    }

    /// Reads a project file's bytes.
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, Findings> {
        let file: Arc<str> = path.display().to_string().into();
        let mut reports = Reports::new(&file);
        let text = match source::decode(bytes, &mut reports) {
            Ok(text) => text,
            Err(text) => return Err(Findings::found(reports, vec![Source::new(file, text)])),
        };
        let source = Source::new(file, text);
        let read = source::read(&source.text, &mut reports);
        let mut project = Self {
            path: path.to_path_buf(),
            source: source.clone(),
            groups: BTreeMap::new(),
            environments: BTreeMap::new(),
        };
        if let Some(read) = read {
            project.read(&read.root, &mut reports);
        }
        if reports.has_errors() {
            return Err(Findings::found(reports, vec![source]));
        }
        Ok(project)
    }

    /// The environments, by name.
    pub fn environment_names(&self) -> impl Iterator<Item = &EnvironmentName> {
        self.environments.keys()
    }

    /// An environment.
    #[must_use]
    pub fn environment(&self, name: &EnvironmentName) -> Option<&Environment> {
        self.environments.get(name)
    }

    /// An environment, or a finding that says which there are.
    pub fn require(&self, name: &EnvironmentName) -> Result<Option<&Environment>, Box<Diagnostic>> {
        if let Some(environment) = self.environments.get(name) {
            return Ok(Some(environment));
        }
        if self.environments.is_empty() && name.as_str() == DEFAULT_ENVIRONMENT {
            return Ok(None);
        }
        let message = format!("{} defines no environment `{name}`", self.source.path);
        let known = self.environments.keys().map(EnvironmentName::as_str);
        let help = suggest::advice(name.as_str(), known);
        Err(Box::new(Diagnostic::error(codes::UNKNOWN_ENVIRONMENT, message).with_help(help)))
    }

    /// The members of the groups.
    #[must_use]
    pub const fn groups(&self) -> &BTreeMap<GroupName, BTreeSet<String>> {
        &self.groups
    }

    fn read(&mut self, root: &Node, reports: &mut Reports) {
        const KEYS: &[&str] = &["apiVersion", "kind", "groups", "environments"];
        let Some(fields) = Fields::open(root, "a project", KEYS, reports) else { return };
        read::check_kind(&fields, "Project", reports);
        if let Some(node) = fields.get("groups") {
            for entry in entries(node, "`groups`", reports).unwrap_or_default() {
                self.group(entry, reports);
            }
        }
        if let Some(node) = fields.get("environments") {
            for entry in entries(node, "`environments`", reports).unwrap_or_default() {
                check_name(&entry.key, "an environment", Alphabet::Words, reports);
                if let Some(environment) = environment(entry, &self.groups, reports) {
                    self.environments.insert(environment.name.clone(), environment);
                }
            }
        }
    }

    fn group(&mut self, entry: &Entry, reports: &mut Reports) {
        check_name(&entry.key, "a group", Alphabet::Words, reports);
        let members = texts(&entry.value, "a group", reports).unwrap_or_default();
        let mut people = BTreeSet::new();
        for member in members {
            if !people.insert(member.value.clone()) {
                let message = format!("`{}` is in the group twice", member.value);
                reports
                    .error(codes::KEYS_CONFLICT, member.span, message)
                    .help("name each person once; approvals come from distinct people");
            }
        }
        self.groups.insert(GroupName::new(entry.key.value.as_str()), people);
    }
}

/// The environment where no project file defines any.
pub const DEFAULT_ENVIRONMENT: &str = "default";

fn environment(
    entry: &Entry,
    groups: &BTreeMap<GroupName, BTreeSet<String>>,
    reports: &mut Reports,
) -> Option<Environment> {
    const KEYS: &[&str] = &["production", "state", "targets", "policy"];
    let fields = Fields::open(&entry.value, "an environment", KEYS, reports)?;
    let production = fields.boolean("production", reports).is_some_and(|at| at.value);
    let state = fields.text("state", reports);
    if let Some(state) = &state {
        check_reference(state, reports);
    }
    let mut targets = BTreeMap::new();
    if let Some(node) = fields.get("targets") {
        for entry in entries(node, "`targets`", reports).unwrap_or_default() {
            if let Some(target) = target(entry, reports) {
                targets.insert(TargetName::new(entry.key.value.as_str()), target);
            }
        }
    }
    let policy = match fields.get("policy") {
        Some(node) => policy(node, production, groups, reports),
        None => EnvironmentPolicy::default(),
    };
    Some(Environment {
        name: EnvironmentName::new(entry.key.value.as_str()),
        span: entry.key.span,
        production,
        state: state.map(|at| at.value),
        targets,
        policy,
    })
}

fn target(entry: &Entry, reports: &mut Reports) -> Option<TargetOverride> {
    let fields = Fields::open(&entry.value, "a target", &["url", "schema"], reports)?;
    let url = fields.text("url", reports);
    if let Some(url) = &url {
        check_reference(url, reports);
    }
    let schema = fields.text("schema", reports).map(|at| at.value);
    Some(TargetOverride { url: url.map(|at| at.value), schema })
}

/// Reports secrets written out and references that lead nowhere.
pub fn check_reference(text: &At<String>, reports: &mut Reports) {
    if let Some(what) = literal_secret(&text.value) {
        reports
            .error(codes::LITERAL_SECRET, text.span, format!("this URL holds {what} in plain text"))
            .help("refer to it: `${env:NAME}` or `${file:path}` in its place; and change it, since it was written down");
    }
    if let Some(written) = malformed(&text.value) {
        // What is never closed goes on to the end of the text, whatever that holds.
        let message = if written.ends_with('}') {
            format!("`{}` is not a reference", super::fields::shown(written))
        } else {
            "a reference that begins with `${` is never closed".to_owned()
        };
        reports
            .error(codes::BAD_REFERENCE, text.span, message)
            .help("write `${env:NAME}` or `${file:path}`");
    }
}

fn policy(
    node: &Node,
    production: bool,
    groups: &BTreeMap<GroupName, BTreeSet<String>>,
    reports: &mut Reports,
) -> EnvironmentPolicy {
    const KEYS: &[&str] = &[
        "identity",
        "destructive",
        "longest_wait",
        "allow_reviewed",
        "allow_partial_verify",
        "allow_commands",
        "redact",
    ];
    const IDENTITIES: &[(&str, Identity)] =
        &[("claimed", Identity::Claimed), ("os", Identity::Os), ("ssh", Identity::Ssh)];
    const REDACTIONS: &[(&str, Redact)] = &[("values", Redact::Values), ("keys", Redact::Keys)];
    let Some(fields) = Fields::open(node, "a policy", KEYS, reports) else {
        return EnvironmentPolicy::default();
    };
    if production && fields.get("longest_wait").is_some() {
        let span = fields.key_span("longest_wait");
        reports
            .error(codes::NOT_IN_PRODUCTION, span, "`longest_wait` can't stand in production")
            .help("remove it: it cuts waits short, which is for rehearsals");
    }
    let policy = EnvironmentPolicy {
        identity: fields.word("identity", IDENTITIES, reports),
        destructive: fields.get("destructive").map(|node| destructive(node, groups, reports)),
        longest_wait_ms: fields.duration("longest_wait", reports).map(|at| at.value),
        allow_reviewed: fields.boolean("allow_reviewed", reports).map(|at| at.value),
        allow_partial_verify: flag(&fields, "allow_partial_verify", reports),
        allow_commands: flag(&fields, "allow_commands", reports),
        redact: fields.word("redact", REDACTIONS, reports).map_or(Redact::Nothing, |at| at.value),
    };
    let claimed = policy.identity.is_none_or(|identity| identity.value == Identity::Claimed);
    let approvals = policy.destructive.iter().flat_map(|policy| &policy.approvals);
    for (group, count) in approvals.filter(|(_, count)| production && claimed && *count > 1) {
        let message = format!(
            "{count} approvals of `{}` can't be made up of claimed names in production",
            group.value
        );
        reports
            .error(codes::CLAIMED_COUNT, group.span, message)
            .help("ask for `identity: os`, or for one approval");
    }
    policy
}

fn flag(fields: &Fields<'_>, key: &str, reports: &mut Reports) -> bool {
    fields.boolean(key, reports).is_some_and(|at| at.value)
}

fn destructive(
    node: &Node,
    groups: &BTreeMap<GroupName, BTreeSet<String>>,
    reports: &mut Reports,
) -> DestructivePolicy {
    const KEYS: &[&str] = &["approvals", "verified_within", "author_may_approve"];
    let Some(fields) = Fields::open(node, "`destructive`", KEYS, reports) else {
        return DestructivePolicy::default();
    };
    let mut approvals = Vec::new();
    let items = fields.get("approvals").and_then(|node| list(node, "`approvals`", reports));
    for item in items.unwrap_or_default() {
        let Some(fields) = Fields::open(item, "an approval", &["group", "count"], reports) else {
            continue;
        };
        let count = fields.count("count", 1..=APPROVALS_MAX, reports).map_or(1, |at| at.value);
        if let Some(group) = fields.required_name("group", reports) {
            check_group(&group, count, groups, reports);
            approvals.push((group, count));
        }
    }
    DestructivePolicy {
        approvals,
        verified_within_ms: fields.duration("verified_within", reports).map(|at| at.value),
        author_may_approve: fields.boolean("author_may_approve", reports).map(|at| at.value),
    }
}

/// Reports a group that isn't there, or has too few people.
pub fn check_group(
    group: &At<String>,
    count: u32,
    groups: &BTreeMap<GroupName, BTreeSet<String>>,
    reports: &mut Reports,
) {
    let Some(members) = groups.get(group.value.as_str()) else {
        let message = format!("there is no group `{}`", group.value);
        let help = suggest::advice(&group.value, groups.keys().map(GroupName::as_str));
        reports.error(codes::UNKNOWN_GROUP, group.span, message).help(help);
        return;
    };
    if members.len() < usize::try_from(count).unwrap_or(usize::MAX) {
        let people = if members.len() == 1 { "person" } else { "people" };
        let message = format!(
            "`{}` has {} {people}, so {count} of them can't approve",
            group.value,
            members.len()
        );
        reports
            .error(codes::GROUP_TOO_SMALL, group.span, message)
            .help("name more people in phasegate.yaml, or ask for fewer");
    }
}
