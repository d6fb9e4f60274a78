//! `outbox` of a dual-write into another database: how far it may grow.

use crate::bounds::document::{OUTBOX_AGE_MIN_MS, OUTBOX_BYTES_MIN, OUTBOX_ROWS};
use crate::diagnostic::known as codes;
use crate::run::{Limit, Unit};

use super::super::document::OutboxDef;
use super::super::fields::Fields;
use super::super::limit::of_node;
use super::super::node::Node;
use super::super::reports::Reports;

/// The limits of an outbox.
pub fn outbox(node: &Node, reports: &mut Reports) -> Option<OutboxDef> {
    const KEYS: &[&str] = &["max_rows", "max_age", "max_bytes"];
    let fields = Fields::open(node, "`outbox`", KEYS, reports)?;
    let age = fields.duration("max_age", reports);
    if let Some(age) = age.filter(|age| age.value < OUTBOX_AGE_MIN_MS) {
        reports
            .error(codes::OUT_OF_RANGE, age.span, "`max_age` is 1s or more")
            .help("write how long changes may wait while the graph is away: `max_age: 1h`");
    }
    Some(OutboxDef {
        rows: fields.count("max_rows", OUTBOX_ROWS, reports).map(|rows| u64::from(rows.value)),
        age_ms: age.map(|age| age.value),
        bytes: fields.get("max_bytes").and_then(|node| bytes(node, reports)),
    })
}

fn bytes(node: &Node, reports: &mut Reports) -> Option<u64> {
    let Some(Limit { value, unit: Unit::Bytes }) = of_node(node).map(|limit| limit.value) else {
        reports
            .error(codes::WRONG_TYPE, node.span, "`max_bytes` is a size such as 1GiB")
            .help("write it with its unit");
        return None;
    };
    // Sizes that people write are far below 2^53.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let bytes = value as u64;
    if bytes < OUTBOX_BYTES_MIN {
        reports
            .error(codes::OUT_OF_RANGE, node.span, "`max_bytes` is 1MiB or more")
            .help("write how much room the outbox may take: `max_bytes: 1GiB`");
        return None;
    }
    Some(bytes)
}
