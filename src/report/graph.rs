//! The plan's graph as text, Mermaid, DOT and JSON; with a run, each step's standing too.
//!
//! Only the needs that say something are drawn: one that follows from others (most needs on gates do) is left out. The JSON
//! form has all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::bounds::message::{ASKED_CHARS_MAX, ASKED_IN_NODE_CHARS_MAX};
use crate::run::{Action, Phase, Program, State, Step, StepId};

use super::gates::{asked, asked_document};
use super::steps::StepStanding;
use super::words;

/// A graph to draw.
#[derive(Debug)]
pub struct GraphView<'a> {
    program: &'a Program,
    state: Option<&'a State>,
    drawn: BTreeMap<&'a StepId, Vec<&'a StepId>>,
}

impl<'a> GraphView<'a> {
    /// The graph of a program; with the state of one of its runs, where there is one.
    #[must_use]
    pub fn new(program: &'a Program, state: Option<&'a State>) -> Self {
        Self { program, state, drawn: reduced(program) }
    }

    fn phases(&self) -> impl Iterator<Item = (Phase, Vec<&'a Step>)> {
        Phase::ALL.into_iter().filter_map(|phase| {
            let steps: Vec<&Step> =
                self.program.steps().iter().filter(|step| step.phase == phase).collect();
            (!steps.is_empty()).then_some((phase, steps))
        })
    }

    fn standing(&self, step: &Step) -> Option<StepStanding> {
        // A step that an amended plan added or took away has no standing in the run.
        let state = self.state.filter(|state| state.program().step(&step.id).is_some())?;
        Some(StepStanding::of(state, step))
    }

    fn needs(&self, step: &Step) -> &[&'a StepId] {
        self.drawn.get(&step.id).map_or(&[], Vec::as_slice)
    }

    /// An indented list by phase.
    #[must_use]
    pub fn text(&self) -> String {
        let width = self.program.steps().iter().map(|step| step.id.as_str().len()).max();
        let width = width.unwrap_or_default();
        let mut text = String::new();
        for (phase, steps) in self.phases() {
            text.push_str(phase.as_str());
            text.push('\n');
            for step in steps {
                let mut line =
                    format!("  {:<width$}  {:<14}", step.id.as_str(), step.action.name());
                if let Some(standing) = self.standing(step) {
                    let _ = write!(line, "  {:<9}", standing.as_str());
                }
                let needs: Vec<&str> = self.needs(step).iter().map(|need| need.as_str()).collect();
                if !needs.is_empty() {
                    line.push_str("  after ");
                    line.push_str(&needs.join(", "));
                }
                if step.irreversible.is_some() {
                    line.push_str("  (point of no return)");
                }
                text.push_str(line.trim_end());
                text.push('\n');
                for asked in asked(self.program, &step.id) {
                    let _ = writeln!(
                        text,
                        "  {:<width$}    asks {}",
                        "",
                        words::clipped(&asked, ASKED_CHARS_MAX)
                    );
                }
            }
        }
        text
    }

    /// A Mermaid flow chart.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let names = self.names();
        let mut text = String::from("flowchart TD\n");
        for (phase, steps) in self.phases() {
            let _ = writeln!(text, "  subgraph {} [{}]", phase.as_str().replace('-', "_"), phase);
            for step in steps {
                let label = escaped_for_mermaid(&self.label(step, "<br/>"));
                let (open, close) = match &step.action {
                    Action::Gate(_) => ("{{\"", "\"}}"),
                    _ if step.irreversible.is_some() => ("[[\"", "\"]]"),
                    _ => ("[\"", "\"]"),
                };
                let _ = writeln!(text, "    {}{open}{label}{close}", names[&step.id]);
            }
            text.push_str("  end\n");
        }
        for step in self.program.steps() {
            for need in self.needs(step) {
                let _ = writeln!(text, "  {} --> {}", names[need], names[&step.id]);
            }
        }
        text
    }

    /// A Graphviz graph.
    #[must_use]
    pub fn dot(&self) -> String {
        let mut text = format!(
            "digraph \"{}\" {{\n  rankdir=LR;\n  node [shape=box, style=rounded];\n",
            escaped_for_dot(self.program.plan())
        );
        for (phase, steps) in self.phases() {
            let _ = writeln!(text, "  subgraph \"cluster_{phase}\" {{\n    label=\"{phase}\";");
            for step in steps {
                let shape = match &step.action {
                    Action::Gate(_) => ", shape=hexagon, style=solid",
                    _ if step.irreversible.is_some() => ", peripheries=2",
                    _ => "",
                };
                let label = escaped_for_dot(&self.label(step, "\n"));
                let id = escaped_for_dot(step.id.as_str());
                let _ = writeln!(text, "    \"{id}\" [label=\"{label}\"{shape}];");
            }
            text.push_str("  }\n");
        }
        for step in self.program.steps() {
            for need in self.needs(step) {
                let (from, to) =
                    (escaped_for_dot(need.as_str()), escaped_for_dot(step.id.as_str()));
                let _ = writeln!(text, "  \"{from}\" -> \"{to}\";");
            }
        }
        text.push_str("}\n");
        text
    }

    /// Nodes and edges.
    #[must_use]
    pub fn document(&self) -> Value {
        let nodes: Vec<Value> = self
            .program
            .steps()
            .iter()
            .map(|step| {
                json!({
                    "id": step.id,
                    "phase": step.phase.as_str(),
                    "action": step.action.name(),
                    "target": step.target,
                    "mapping": step.action.mapping(),
                    "needs": step.needs,
                    "irreversible": step.irreversible,
                    "asks": asked_document(self.program, &step.id),
                    "may_destroy": step.hazard.needs_permit(),
                    "state": self.standing(step).map(StepStanding::as_str),
                })
            })
            .collect();
        let edges: Vec<Value> = self
            .program
            .steps()
            .iter()
            .flat_map(|step| {
                self.needs(step).iter().map(|need| json!({ "from": need, "to": step.id }))
            })
            .collect();
        json!({
            "plan": self.program.plan(),
            "digest": self.program.digest().as_str(),
            "nodes": nodes,
            "edges": edges,
        })
    }

    fn label(&self, step: &Step, line_break: &str) -> String {
        let mut label = format!("{}{line_break}{}", step.id, step.action.name());
        if let Some(standing) = self.standing(step) {
            label.push_str(": ");
            label.push_str(standing.as_str());
        }
        for asked in asked(self.program, &step.id) {
            label.push_str(line_break);
            label.push_str(&words::clipped(&asked, ASKED_IN_NODE_CHARS_MAX));
        }
        label
    }

    fn names(&self) -> BTreeMap<&'a StepId, String> {
        let steps = self.program.steps().iter().enumerate();
        steps.map(|(at, step)| (&step.id, format!("s{at}"))).collect()
    }
}

/// Each step's needs without those that follow from its other needs.
fn reduced(program: &Program) -> BTreeMap<&StepId, Vec<&StepId>> {
    let mut behind: BTreeMap<&StepId, BTreeSet<&StepId>> = BTreeMap::new();
    let mut drawn = BTreeMap::new();
    for id in program.order() {
        let Some(step) = program.step(id) else { continue };
        let implied: BTreeSet<&StepId> =
            step.needs.iter().filter_map(|need| behind.get(need)).flatten().copied().collect();
        let kept: Vec<&StepId> = step.needs.iter().filter(|need| !implied.contains(need)).collect();
        drawn.insert(&step.id, kept);
        let mut all = implied;
        all.extend(&step.needs);
        behind.insert(&step.id, all);
    }
    drawn
}

fn escaped_for_mermaid(label: &str) -> String {
    // Only our own line breaks are markup.
    let plain = label.replace("<br/>", "\n").replace('"', "#quot;");
    plain.replace('<', "#lt;").replace('>', "#gt;").replace('\n', "<br/>")
}

fn escaped_for_dot(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::report::fixture::{pin, state, up_to_gate};

    #[test]
    fn needs_that_follow_from_others_are_not_drawn() {
        let pin = pin();
        let view = GraphView::new(&pin.program, None);
        let document = view.document();
        let edges = document["edges"].as_array().unwrap();
        assert_eq!(edges.len(), 5, "{document:#}");
        let needs = document["nodes"][5]["needs"].as_array().unwrap();
        assert_eq!(needs.len(), 2, "all needs stay in the document");
        assert!(
            view.text().contains("drop     drop            after ready  (point of no return)"),
            "{}",
            view.text()
        );
    }

    #[test]
    fn a_run_shows_where_its_steps_stand() {
        let state = state(up_to_gate());
        let view = GraphView::new(state.program(), Some(&state));
        assert!(view.text().contains("ready    gate            waiting"), "{}", view.text());
        assert!(view.mermaid().contains("s0[\"create<br/>sql: succeeded\"]"), "{}", view.mermaid());
        assert!(view.dot().contains("\"compare\" -> \"ready\";"), "{}", view.dot());
    }

    #[test]
    fn labels_cannot_break_out() {
        assert_eq!(escaped_for_dot("a\"b\\c"), "a\\\"b\\\\c");
        assert_eq!(escaped_for_mermaid("a\"b"), "a#quot;b");
    }
}
