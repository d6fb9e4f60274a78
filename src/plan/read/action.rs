//! What a step does: an explicit match on the action's key.

use crate::bounds::document::{PARK_MAX, WORKERS_MAX};
use crate::diagnostic::known as codes;
use crate::run::Direction;

use super::super::document::{
    ActionDef, BackfillDef, DualWriteDef, OnError, ProbeDef, RetireDef, RetiredColumnDef,
    ScriptDef, Writer,
};
use super::super::fields::{Fields, count, entries, text, texts};
use super::super::node::{At, Kind, Node};
use super::super::reports::Reports;
use super::throttle::throttles;
use super::{gate, outbox, verify};

/// The actions by their keys.
pub const ACTIONS: &[&str] = &[
    "sql",
    "cypher",
    "redis",
    "dual_write",
    "backfill",
    "verify",
    "gate",
    "retire",
    "drop",
    "stop_dual_write",
    "backup",
    "command",
];

const ON_ERROR: &[(&str, OnError)] = &[("fail", OnError::Fail), ("park", OnError::Park)];

/// The action under `key`, which is one of [`ACTIONS`].
pub fn action(fields: &Fields<'_>, key: &str, reports: &mut Reports) -> Option<At<ActionDef>> {
    let node = fields.get(key)?;
    let action = match key {
        "sql" => ActionDef::Sql(script(node, key, reports)?),
        "cypher" => ActionDef::Cypher(script(node, key, reports)?),
        "redis" => script(node, key, reports).map(|_| ActionDef::Redis)?,
        "dual_write" => ActionDef::DualWrite(dual_write(node, reports)?),
        "backfill" => ActionDef::Backfill(backfill(node, reports)?),
        "verify" => ActionDef::Verify(verify::verify(node, reports)?),
        "gate" => ActionDef::Gate(gate::gate(node, reports)?),
        "retire" => ActionDef::Retire(retire(node, reports)?),
        "drop" => ActionDef::Drop { mapping: only_mapping(node, "`drop`", reports)? },
        "stop_dual_write" => {
            ActionDef::StopDualWrite { mapping: only_mapping(node, "`stop_dual_write`", reports)? }
        }
        "backup" => ActionDef::Backup,
        _ => {
            texts(node, "`command`", reports);
            ActionDef::Command
        }
    };
    Some(At { value: action, span: fields.key_span(key) })
}

/// Statements in the plan, or the file they are in.
pub fn script(node: &Node, key: &str, reports: &mut Reports) -> Option<ScriptDef> {
    match &node.kind {
        Kind::Map(_) => {
            let fields = Fields::open(node, "a script", &["file"], reports)?;
            Some(ScriptDef::File(fields.required_text("file", reports)?))
        }
        Kind::Text { first_line, .. } => Some(ScriptDef::Inline {
            text: text(node, &format!("`{key}`"), reports)?,
            first_line: *first_line,
        }),
        _ => {
            let message =
                format!("`{key}` is statements or `{{ file: path }}`, not {}", node.what());
            let help = format!("write `{key}: |` and the statements on the lines below");
            reports.error(codes::WRONG_TYPE, node.span, message).help(help);
            None
        }
    }
}

fn only_mapping(node: &Node, what: &'static str, reports: &mut Reports) -> Option<At<String>> {
    Fields::open(node, what, &["mapping"], reports)?.required_name("mapping", reports)
}

fn dual_write(node: &Node, reports: &mut Reports) -> Option<DualWriteDef> {
    const KEYS: &[&str] = &["mapping", "direction", "by", "on_error", "probe", "outbox"];
    const DIRECTIONS: &[(&str, Direction)] =
        &[("forward", Direction::Forward), ("both", Direction::Both)];
    const WRITERS: &[(&str, Writer)] = &[
        ("engine", Writer::Engine),
        ("application", Writer::Application),
        ("nobody", Writer::Nobody),
    ];
    let fields = Fields::open(node, "`dual_write`", KEYS, reports)?;
    let forward = At { value: Direction::Forward, span: fields.span };
    let direction = match fields.get("direction") {
        Some(_) => fields.word("direction", DIRECTIONS, reports),
        None => Some(forward),
    };
    let by = fields.word("by", WRITERS, reports);
    let probe = fields.get("probe").and_then(|node| probe(node, fields.key_span("probe"), reports));
    let is_application = by.as_ref().is_some_and(|by| by.value == Writer::Application);
    if is_application && fields.get("probe").is_none() {
        let span = fields.key_span("by");
        reports
            .error(codes::MISSING_KEY, span, "a dual-write by the application lacks `probe`")
            .help("add a query, cypher or http with `expect` and `for`, which proves that it writes both");
    }
    if !is_application && let Some(probe) = &probe {
        reports
            .error(codes::KEYS_CONFLICT, probe.span, "`probe` belongs to `by: application`")
            .help("remove it: the engine proves its own triggers by the catalogue");
    }
    let on_error = fields.word("on_error", ON_ERROR, reports);
    let outbox = fields.get("outbox").and_then(|node| outbox::outbox(node, reports));
    let outbox = outbox.map(|value| At { value, span: fields.key_span("outbox") });
    let mapping = fields.required_name("mapping", reports)?;
    Some(DualWriteDef { mapping, direction: direction?, by, on_error, probe, outbox })
}

fn probe(node: &Node, span: super::super::node::Span, reports: &mut Reports) -> Option<ProbeDef> {
    const KEYS: &[&str] = &["query", "cypher", "http", "expect", "for", "target"];
    let fields = Fields::open(node, "`probe`", KEYS, reports)?;
    let kind = verify::one_question(&fields, "`probe`", reports)?;
    let expect = fields.required("expect", reports).and_then(|node| verify::expect(node, reports));
    fields.required("for", reports);
    Some(ProbeDef {
        span,
        asked: fields.text(kind, reports),
        kind,
        target: fields.text("target", reports),
        expect,
        for_ms: fields.duration("for", reports),
    })
}

fn backfill(node: &Node, reports: &mut Reports) -> Option<BackfillDef> {
    const KEYS: &[&str] = &[
        "mapping",
        "chunk",
        "workers",
        "pause_between",
        "throttle",
        "max_throttled_for",
        "on_row_error",
        "park_max",
    ];
    let fields = Fields::open(node, "`backfill`", KEYS, reports)?;
    let (chunk_rows, chunk_time_ms) =
        fields.get("chunk").map_or((None, None), |node| chunk(node, reports));
    let throttle = fields.get("throttle").map(|node| throttles(node, reports));
    let on_row_error = fields.word("on_row_error", ON_ERROR, reports);
    let park_max = fields.count("park_max", 1..=PARK_MAX, reports);
    if let (Some(most), None | Some(OnError::Fail)) = (&park_max, on_row_error.map(|on| on.value)) {
        reports
            .error(codes::KEYS_CONFLICT, most.span, "`park_max` belongs to `on_row_error: park`")
            .help("add `on_row_error: park`, or remove it");
    }
    Some(BackfillDef {
        mapping: fields.required_name("mapping", reports)?,
        chunk_rows,
        chunk_time_ms,
        workers: fields.count("workers", 1..=WORKERS_MAX, reports).map(|at| at.value),
        pause_between_ms: fields.duration("pause_between", reports).map(|at| at.value),
        throttle: throttle.unwrap_or_default(),
        max_throttled_for_ms: fields.duration("max_throttled_for", reports),
        on_row_error,
        park_max,
    })
}

fn chunk(node: &Node, reports: &mut Reports) -> (Option<u32>, Option<u64>) {
    let Some(fields) = Fields::open(node, "`chunk`", &["rows", "time"], reports) else {
        return (None, None);
    };
    let rows = fields.get("rows").and_then(|node| match &node.kind {
        Kind::Text { text, .. } if text == "auto" => None,
        Kind::Text { .. } => {
            let message = "`rows` is `auto` or a number";
            reports.error(codes::UNKNOWN_WORD, node.span, message).help("write `rows: auto`");
            None
        }
        _ => count(node, "rows", 1..=1_000_000, reports).map(|at| at.value),
    });
    let time = fields.duration("time", reports);
    if let Some(At { value: 0, span }) = time {
        let message = "a chunk takes some time";
        reports.error(codes::OUT_OF_RANGE, span, message).help("write `time: 100ms`");
    }
    (rows, time.map(|at| at.value))
}

fn retire(node: &Node, reports: &mut Reports) -> Option<RetireDef> {
    const KEYS: &[&str] = &["mapping", "old_name", "take_name", "columns", "known"];
    let fields = Fields::open(node, "`retire`", KEYS, reports)?;
    let old_name = fields.text("old_name", reports);
    let take_name = fields.boolean("take_name", reports);
    let columns = fields
        .get("columns")
        .map(|node| At { value: retired_columns(node, reports), span: fields.key_span("columns") });
    let conflict = ["old_name", "take_name"].into_iter().find(|key| fields.get(key).is_some());
    if let (Some(key), Some(_)) = (conflict, &columns) {
        let message = format!("`{key}` and `columns` can't stand together");
        reports
            .error(codes::KEYS_CONFLICT, fields.key_span(key), message)
            .help("put a whole table aside by `old_name`, or columns each by their own");
    }
    if fields.get("old_name").is_none() && columns.is_none() {
        reports
            .error(codes::MISSING_KEY, fields.span, "`retire` lacks `old_name` or `columns`")
            .help("say what the old table is called afterwards: `old_name: leads_old`");
    }
    let known = fields.get("known").and_then(|node| texts(node, "`known`", reports));
    let known = known.unwrap_or_default();
    let mapping = fields.required_name("mapping", reports)?;
    Some(RetireDef { mapping, old_name, take_name, columns, known })
}

fn retired_columns(node: &Node, reports: &mut Reports) -> Vec<RetiredColumnDef> {
    let mut columns = Vec::new();
    for entry in entries(node, "`columns`", reports).unwrap_or_default() {
        let known = &["old_name", "take_name"];
        let Some(fields) = Fields::open(&entry.value, "a retired column", known, reports) else {
            continue;
        };
        let old_name = fields.required_text("old_name", reports);
        let take_name = fields.text("take_name", reports);
        if let Some(old_name) = old_name {
            columns.push(RetiredColumnDef { column: entry.key.clone(), old_name, take_name });
        }
    }
    columns
}
