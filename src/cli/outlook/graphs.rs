//! What the engine does in a step on nodes or relationships. A graph has locks on single ones only, so that there is no table of
//! locks to show: what is held for how long is said in words.

use crate::bounds::neo4j::BATCH;
use crate::report::words;
use crate::run::{
    Action, Backfill, ChunkRows, DualWrite, Mapping, Method, OnExisting, Probe, Question, Relation,
    RowKind, Verify, Writer,
};

/// What a step does with a mapping of a graph, in sentences without a full stop.
pub(super) fn does(action: &Action, mapping: &Mapping) -> Vec<String> {
    let (from, into) = (named(&mapping.from), named(&mapping.into));
    match action {
        Action::DualWrite(DualWrite { by, .. }) => syncing(mapping, by),
        Action::Backfill(backfill) => copying(mapping, backfill),
        Action::Verify(Verify::Mapping { method, repair, .. }) => {
            let mut does = vec![match method {
                Method::Full => format!(
                    "compares all of {from} with {into}, both ways, and reads again what differs"
                ),
                Method::Counts => format!("counts {from} and {into}: a partial verify"),
                Method::Sample(rows) => format!(
                    "compares {} of {from} and of {into}: a partial verify",
                    words::plural(u64::from(*rows), "row")
                ),
            }];
            if *repair {
                does.push("puts differences right by the old side, and compares again".to_owned());
            }
            does
        }
        Action::Drop { .. } => dropping(mapping),
        Action::StopDualWrite { .. } => {
            vec![
                "takes it that the application no longer writes both; both sides stay as they are"
                    .to_owned(),
            ]
        }
        Action::Sql(_) | Action::Verify(Verify::Query(_)) | Action::Gate(_) | Action::Retire(_) => {
            Vec::new()
        }
    }
}

/// A relation as people call it.
pub(super) fn named(relation: &Relation) -> String {
    match &relation.kind {
        RowKind::Table | RowKind::Node => relation.table.clone(),
        RowKind::Relationship(ends) => {
            format!("({})-[{}]->({})", ends.start.node, relation.table, ends.end.node)
        }
    }
}

fn syncing(mapping: &Mapping, by: &Writer) -> Vec<String> {
    let mut does = Vec::new();
    if let Writer::Application(probe) = by {
        let Probe { question, expect, for_ms } = probe.as_ref();
        let asked = match question {
            Question::Query { target, query } => {
                format!("{} on {target}", query.split_whitespace().collect::<Vec<_>>().join(" "))
            }
            Question::Http { url } => url.clone(),
        };
        does.push(format!("asks the application's probe: {asked}"));
        does.push(format!("expects {expect} for {}", words::duration(*for_ms)));
    }
    does.push(format!(
        "makes what {} and {} are known by unique where it isn't, for which the server reads each of the nodes once",
        named(&mapping.from),
        named(&mapping.into)
    ));
    does.push("waits until every transaction has ended that was open by then".to_owned());
    does
}

fn copying(mapping: &Mapping, backfill: &Backfill) -> Vec<String> {
    let size = match backfill.chunk_rows {
        ChunkRows::Auto => "as many rows as take".to_owned(),
        ChunkRows::Fixed(rows) => {
            format!("{}, meant to take", words::plural(u64::from(rows), "row"))
        }
    };
    let there = match mapping.on_existing {
        OnExisting::Keep => "what is there stays",
        OnExisting::Update => "what is there is written over",
    };
    let mut does = vec![
        format!(
            "copies {} into {}, in chunks of {size} {}, {}; {there}",
            named(&mapping.from),
            named(&mapping.into),
            words::duration(backfill.chunk_time_ms),
            words::plural(u64::from(backfill.workers), "worker"),
        ),
        "locks the rows of a chunk while it is copied: who writes one of them waits that long"
            .to_owned(),
    ];
    does.extend(mapping.filter.as_ref().map(|filter| format!("only rows where {filter}")));
    if !backfill.throttle.is_empty() {
        let held: Vec<String> = backfill.throttle.iter().map(ToString::to_string).collect();
        does.push(format!("no chunk begins while it is held back by {}", held.join(", ")));
    }
    does
}

fn dropping(mapping: &Mapping) -> Vec<String> {
    let from = named(&mapping.from);
    let first = match mapping.from.kind {
        RowKind::Relationship(_) => format!("removes every {from}"),
        RowKind::Table | RowKind::Node => {
            format!("removes the relationships of every {from}, then the nodes themselves")
        }
    };
    let only = mapping.filter.as_ref().map(|filter| format!("only where {filter}"));
    let pieces =
        format!("in transactions of {}, each of which keeps count", words::count(u64::from(BATCH)));
    [first].into_iter().chain(only).chain([pieces]).collect()
}
