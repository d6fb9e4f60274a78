//! What a plan looks like.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::Value;

use super::super::read::ACTIONS;
use super::throttle::{Throttle, TimeLimit};
use super::{ApiVersion, Approval, Duration, Scalar};
use crate::bounds::document::{
    ATTEMPTS_MAX, NAME_BYTES_MAX, PARK_MAX, SAMPLE_ROWS_MAX, WORKERS_MAX,
};

#[derive(Deserialize, JsonSchema)]
enum PlanKind {
    Plan,
}

/// An expand-contract migration.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(title = "Phasegate plan")]
pub(super) struct Plan {
    api_version: ApiVersion,
    kind: PlanKind,
    metadata: Metadata,
    /// The databases, by logical names.
    targets: BTreeMap<String, Target>,
    /// How rows of one relation become rows of another.
    mappings: Option<BTreeMap<String, Mapping>>,
    /// The steps, in the order of their phases.
    steps: Vec<Step>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Metadata {
    /// The plan's name: a-z, 0-9 and hyphens.
    #[schemars(length(max = NAME_BYTES_MAX), regex(pattern = "^[a-z0-9][a-z0-9-]*$"))]
    name: String,
    description: Option<String>,
    owner: Option<String>,
    annotations: Option<BTreeMap<String, Scalar>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Engine {
    Postgres,
    Neo4j,
    Redis,
    Sqlserver,
    Mysql,
    Sqlite,
}

/// A database.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Target {
    engine: Engine,
    /// How to reach it. Secrets are references: `${env:NAME}` or `${file:path}`.
    url: Option<String>,
    /// The schema for the engine's own objects.
    schema: Option<String>,
}

/// How rows of one relation become rows of another.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Mapping {
    from: Side,
    into: Side,
    /// Target column: expression over the source row.
    columns: Option<BTreeMap<String, Scalar>>,
    /// Which columns are copied besides those listed.
    copy: Option<Copies>,
    /// Restricts the rows: an expression over the source row.
    r#where: Option<Scalar>,
    /// Source column: expression over the target row; for `direction: both`.
    reverse: Option<BTreeMap<String, Scalar>>,
    /// Which side wins when one statement writes both.
    winner: Option<Winner>,
    /// What becomes of rows that were in the target before.
    on_existing: Option<OnExisting>,
    /// What becomes of the copy of a deleted row.
    on_delete: Option<OnDelete>,
}

/// One side of a mapping: one of table, node, relationship and keys.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Side {
    target: String,
    table: Option<String>,
    node: Option<String>,
    relationship: Option<String>,
    keys: Option<String>,
    key: Option<Key>,
    start: Option<End>,
    end: Option<End>,
    properties: Option<BTreeMap<String, Scalar>>,
}

/// The columns that identify a row, or properties and the columns (of ends: expressions) they come from.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Key {
    Columns(Vec<String>),
    Properties(BTreeMap<String, String>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct End {
    node: String,
    key: Key,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Copies {
    All,
    Listed,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Winner {
    New,
    Old,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OnExisting {
    Keep,
    Update,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OnDelete {
    Delete,
    Nullify,
    Ignore,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Phase {
    Expand,
    DualWrite,
    Backfill,
    Verify,
    Contract,
}

/// A step: one action in one phase.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = one_action)]
struct Step {
    /// Unique in the plan: a-z, 0-9 and hyphens.
    #[schemars(length(max = NAME_BYTES_MAX), regex(pattern = "^[a-z0-9][a-z0-9-]*$"))]
    id: String,
    phase: Phase,
    /// The database it works on; may be left out where there is only one, or a mapping says it.
    target: Option<String>,
    /// What it needs, instead of the step listed before.
    needs: Option<Vec<String>>,
    description: Option<String>,
    owner: Option<String>,
    annotations: Option<BTreeMap<String, Scalar>>,
    /// How long one attempt may take.
    timeout: Option<Duration>,
    /// How long it may wait for a lock.
    lock_timeout: Option<Duration>,
    transaction: Option<Transaction>,
    retry: Option<Retry>,
    undo: Option<Undo>,
    /// Why it can't be undone.
    irreversible: Option<String>,
    /// Why a statement whose effect can't be told is all right.
    reviewed: Option<String>,
    sql: Option<Script>,
    cypher: Option<Script>,
    redis: Option<Script>,
    dual_write: Option<DualWrite>,
    backfill: Option<Backfill>,
    verify: Option<Verify>,
    gate: Option<Gate>,
    retire: Option<Retire>,
    drop: Option<OfMapping>,
    stop_dual_write: Option<OfMapping>,
    /// Comes with a later version.
    backup: Option<Value>,
    /// A program and its arguments.
    command: Option<Vec<String>>,
}

/// Says that a step has exactly one of the actions, which the struct alone can't.
fn one_action(schema: &mut Schema) {
    let one: Vec<Value> =
        ACTIONS.iter().map(|action| serde_json::json!({ "required": [action] })).collect();
    schema.insert("oneOf".to_owned(), Value::Array(one));
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Transaction {
    Auto,
    None,
}

/// When and how often a failed step is tried again.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Retry {
    /// Attempts in all.
    #[schemars(range(min = 1, max = ATTEMPTS_MAX))]
    attempts: Option<u32>,
    /// The wait before the second attempt; it doubles with each one after.
    wait: Option<Duration>,
    longest_wait: Option<Duration>,
}

/// How a step is undone: one of sql, cypher, file and none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Undo {
    sql: Option<Script>,
    cypher: Option<Script>,
    file: Option<String>,
    /// Why nothing needs undoing.
    none: Option<String>,
}

/// Statements, or the file they are in, relative to the plan.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Script {
    Statements(String),
    File(ScriptFile),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ScriptFile {
    file: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OfMapping {
    mapping: String,
}

/// Keeps both sides of a mapping in step.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DualWrite {
    mapping: String,
    /// From the old shape into the new (the default), or back as well.
    direction: Option<Direction>,
    by: Option<Writer>,
    on_error: Option<OnError>,
    /// How it is proven that the application writes both.
    probe: Option<Probe>,
    /// From one database into another: how far the outbox may grow before the steps of the mapping fail.
    outbox: Option<Outbox>,
}

/// Limits of the outbox: whichever is passed first.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_field_names, reason = "plans call them so")]
struct Outbox {
    /// How many changes may wait; 10,000,000 unless given.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    max_rows: Option<u32>,
    /// How long the oldest may wait; 24h unless given.
    max_age: Option<Duration>,
    /// How much room they may take, such as 1GiB; 10GiB unless given.
    max_bytes: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Forward,
    Both,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Writer {
    Engine,
    Application,
    Nobody,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OnError {
    Fail,
    Park,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Probe {
    target: Option<String>,
    query: Option<String>,
    cypher: Option<String>,
    http: Option<Value>,
    expect: Expect,
    r#for: Duration,
}

/// A value, or a range.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Expect {
    Range(Range),
    Value(Scalar),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Range {
    min: Option<f64>,
    max: Option<f64>,
}

/// Copies a mapping's rows in chunks.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Backfill {
    mapping: String,
    chunk: Option<Chunk>,
    /// Chunks at once.
    #[schemars(range(min = 1, max = WORKERS_MAX))]
    workers: Option<u32>,
    pause_between: Option<Duration>,
    /// What holds it back: no chunk begins while one of them holds.
    throttle: Option<Vec<Throttle>>,
    /// How long it may be held back at a stretch before the step fails; for ever, if not given.
    max_throttled_for: Option<Duration>,
    /// What a row that can't be copied does: it fails the step (the default), or is kept apart with its reason.
    on_row_error: Option<OnError>,
    /// With `on_row_error: park`: how many rows may be parked before the step fails; 1,000 unless given.
    #[schemars(range(min = 1, max = PARK_MAX))]
    park_max: Option<u32>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Chunk {
    rows: Option<ChunkRows>,
    /// How long a chunk should take.
    time: Option<Duration>,
}

/// `auto` follows the time a chunk should take.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum ChunkRows {
    Auto(Auto),
    Fixed(#[schemars(range(min = 1, max = 1_000_000))] u32),
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Auto {
    Auto,
}

/// Compares a mapping's sides, or a value with what is expected.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Verify {
    mapping: Option<String>,
    method: Option<Method>,
    /// How many rows a sample looks at.
    #[schemars(range(min = 1, max = SAMPLE_ROWS_MAX))]
    rows: Option<u32>,
    /// Whether differences are put right, and everything compared again.
    repair: Option<bool>,
    /// How many chunks of a full comparison are compared at once.
    #[schemars(range(min = 1, max = WORKERS_MAX))]
    workers: Option<u32>,
    query: Option<String>,
    cypher: Option<String>,
    http: Option<Value>,
    expect: Option<Expect>,
    /// The name that the value is kept under.
    capture: Option<String>,
    within: Option<Within>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Method {
    Full,
    Counts,
    Sample,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Within {
    of: String,
    percent: f64,
}

/// Lets what follows start only while all of its conditions hold.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Gate {
    approvals: Option<Vec<Approval>>,
    /// The greatest age of the evidence.
    verified_within: Option<Duration>,
    soak: Option<Soak>,
    window: Option<Window>,
    query: Option<OneOrMany>,
    http: Option<Value>,
    unused_for: Option<OneOrMoreUses>,
    /// How long the oldest change may have waited that goes to another database.
    relay_lag: Option<TimeLimit>,
    /// How many changes may wait for other databases.
    relay_rows: Option<RowsLimit>,
    backup: Option<Value>,
    command: Option<Value>,
    /// How long an approval counts; 72h, and the soak besides, if not given.
    expires: Option<Duration>,
}

/// How long something must have been well.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Soak {
    after: String,
    r#for: Duration,
}

/// Times by the clocks of a zone: those at which a gate may open, or a copy may run.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    /// The days on which its hours begin; every day, if not given.
    #[schemars(length(min = 1))]
    days: Option<Vec<Day>>,
    /// Such as 22:00-06:00, which ends on the next day; all day, if not given.
    hours: Option<OneOrMoreHours>,
    /// The time zone, such as Europe/Berlin or UTC.
    zone: String,
    /// Days on which it stays shut.
    freezes: Option<Vec<Freeze>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMoreHours {
    One(String),
    Many(Vec<String>),
}

/// A day, or two with .. between.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Freeze {
    Days(String),
    Explained(ExplainedFreeze),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExplainedFreeze {
    from: String,
    /// The last day; the first, if not given.
    to: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMoreUses {
    One(UnusedFor),
    Many(Vec<UnusedFor>),
}

/// How long nobody may have used something.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UnusedFor {
    /// The mapping whose old table, put aside by a forward retire, is watched by the database's counters.
    mapping: Option<String>,
    target: Option<String>,
    /// How many seconds ago the last use was.
    query: Option<String>,
    r#for: Duration,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMany {
    One(GateQuery),
    Many(Vec<GateQuery>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GateQuery {
    target: Option<String>,
    query: String,
    expect: Expect,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RowsLimit {
    max: u32,
}

/// Puts the old shape aside under another name.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Retire {
    mapping: String,
    /// What the old table is called afterwards.
    old_name: Option<String>,
    /// Whether the new table takes the old one's name.
    take_name: Option<bool>,
    columns: Option<BTreeMap<String, RetiredColumn>>,
    /// Functions that name the old shape in their text and were looked at: `function` or `schema.function`, without arguments.
    known: Option<Vec<String>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RetiredColumn {
    old_name: String,
    /// The column that takes its name.
    take_name: Option<String>,
}
