//! Relationships are copied behind the nodes that they are between.
//!
//! Only a warning: what is lacking is stood in for until it comes, which costs a second write of each node, and keeps the verify of
//! the nodes from passing meanwhile.

use crate::diagnostic::known as codes;

use super::super::document::{MappingDef, RelationDef, SideDef};
use super::super::reports::Reports;
use super::super::resolve::{Life, View};

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (mapping, life) in view.mappings().filter(|(mapping, _)| view.is_crossing(mapping)) {
        let Some(into) = &mapping.into else { continue };
        let mut labels: Vec<&str> =
            into.ends.iter().flatten().map(|end| end.node.value.as_str()).collect();
        labels.dedup();
        for label in labels {
            let nodes = view.mappings().find(|(other, _)| makes(other, into, label));
            let Some((nodes, of_nodes)) = nodes else { continue };
            behind(view, (mapping, life), (nodes, of_nodes), reports);
        }
    }
}

/// Whether a mapping makes the nodes of a label.
fn makes(mapping: &MappingDef, beside: &SideDef, label: &str) -> bool {
    mapping.into.as_ref().is_some_and(|into| {
        let is_label = matches!(&into.relation, RelationDef::Node(name) if name.value == label);
        is_label && into.target.value == beside.target.value
    })
}

fn behind(
    view: &View<'_>,
    (mapping, life): (&MappingDef, &Life),
    (nodes, of_nodes): (&MappingDef, &Life),
    reports: &mut Reports,
) {
    for at in &life.backfills {
        let Some(copy) = of_nodes.backfills.iter().find(|copy| !view.graph.is_before(**copy, *at))
        else {
            continue;
        };
        let (step, copy) = (view.step(*at), view.step(*copy));
        let message = format!(
            "`{}` copies relationships of `{}` without waiting for their nodes, which `{}` copies",
            step.id.value, mapping.name.value, copy.id.value
        );
        reports
            .warning(codes::STUBS, step.id.span, message)
            .related(copy.id.span, format!("the nodes of `{}`", nodes.name.value))
            .help(format!(
                "let it need `{}`: nodes that are not there yet are stood in for, and then written a second time",
                copy.id.value
            ));
    }
}
