//! The steps as a graph: who needs whom, who stands behind whom, and what may run side by side.
//!
//! Needs come from three rules: those the plan names; the step listed before, or all steps of the nearest earlier phase,
//! where it names none; and the last gate listed before, which itself needs the gate before it, and so stands for all of them.
//!
//! Invariant: a graph may hold a circle until [`Graph::circle`] has said that it doesn't; order, waves and
//! [`Graph::is_before`] are those of a graph without.

use std::collections::{HashMap, VecDeque};

use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use crate::run::{Phase, StepId};

use super::document::{ActionDef, StepDef};

/// Why a step needs another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The plan names it.
    Named,
    /// The order of the list implies it.
    Order,
    /// A gate listed before holds back everything behind it.
    Gate,
}

/// A step as it is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphNode {
    /// The step.
    pub id: StepId,
    /// Its phase.
    pub phase: Phase,
    /// The key of its action.
    pub action: &'static str,
    /// The mapping or the like that the action names.
    pub subject: Option<String>,
    /// The line of the plan it starts on.
    pub line: u32,
}

/// An arrow: `to` needs `from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphEdge {
    /// What is needed.
    pub from: StepId,
    /// Who needs it.
    pub to: StepId,
    /// Why.
    pub need: Need,
}

/// The graph of a plan.
#[derive(Clone, Debug)]
pub struct Graph {
    nodes: Vec<GraphNode>,
    arrows: DiGraph<(), Need>,
    index: HashMap<StepId, usize>,
    /// For each step the steps before it, one bit each; empty while the graph has a circle.
    before: Vec<Vec<u64>>,
    order: Vec<usize>,
}

impl Graph {
    /// The graph of some steps. Needs on steps that aren't there are left out.
    pub(super) fn new(steps: &[StepDef]) -> Self {
        let mut arrows = DiGraph::with_capacity(steps.len(), steps.len() * 2);
        let mut index = HashMap::with_capacity(steps.len());
        let mut nodes = Vec::with_capacity(steps.len());
        let mut phase = Phase::Expand;
        for (at, step) in steps.iter().enumerate() {
            phase = step.phase.map_or(phase, |phase| phase.value);
            let id = StepId::new(step.id.value.as_str());
            index.entry(id.clone()).or_insert(at);
            let action = step.action.as_ref().map(|action| &action.value);
            nodes.push(GraphNode {
                id,
                phase,
                action: action.map_or("", ActionDef::name),
                subject: action.and_then(ActionDef::mapping).map(|mapping| mapping.value.clone()),
                line: step.id.span.line,
            });
            arrows.add_node(());
        }
        let mut built = Self { nodes, arrows, index, before: Vec::new(), order: Vec::new() };
        built.connect(steps);
        if let Ok(order) = toposort(&built.arrows, None) {
            built.order = order.into_iter().map(NodeIndex::index).collect();
            built.close();
        }
        built
    }

    fn connect(&mut self, steps: &[StepDef]) {
        let mut last_gate: Option<usize> = None;
        let mut phase_begins = 0;
        let mut earlier_phase = 0..0;
        for (at, step) in steps.iter().enumerate() {
            if at > 0 && self.nodes[at].phase != self.nodes[at - 1].phase {
                earlier_phase = phase_begins..at;
                phase_begins = at;
            }
            let mut needs: Vec<(usize, Need)> = Vec::new();
            match &step.needs {
                Some(named) => needs.extend(
                    named
                        .value
                        .iter()
                        .filter_map(|id| Some((self.index_of(&id.value)?, Need::Named))),
                ),
                None if at > phase_begins => needs.push((at - 1, Need::Order)),
                None => needs.extend(earlier_phase.clone().map(|need| (need, Need::Order))),
            }
            needs.extend(last_gate.map(|gate| (gate, Need::Gate)));
            needs.sort_unstable();
            needs.dedup_by_key(|(need, _)| *need);
            for (need, why) in needs {
                self.arrows.add_edge(NodeIndex::new(need), NodeIndex::new(at), why);
            }
            if matches!(step.action.as_ref().map(|a| &a.value), Some(ActionDef::Gate(_))) {
                last_gate = Some(at);
            }
        }
    }

    /// Works out who stands behind whom, in the order in which every step comes after what it needs.
    fn close(&mut self) {
        let words = self.nodes.len().div_ceil(64);
        self.before = vec![vec![0; words]; self.nodes.len()];
        for &at in &self.order {
            let mut own = std::mem::take(&mut self.before[at]);
            for need in self.needs(at) {
                for (own, theirs) in own.iter_mut().zip(&self.before[need]) {
                    *own |= theirs;
                }
                own[need / 64] |= 1 << (need % 64);
            }
            self.before[at] = own;
        }
    }

    /// The steps in the plan's order.
    #[must_use]
    pub fn nodes(&self) -> &[GraphNode] {
        &self.nodes
    }

    /// All arrows, by the step that needs.
    #[must_use]
    pub fn edges(&self) -> Vec<GraphEdge> {
        let mut edges: Vec<(usize, usize, Need)> = self
            .arrows
            .edge_references()
            .map(|edge| (edge.target().index(), edge.source().index(), *edge.weight()))
            .collect();
        edges.sort_unstable();
        let id = |at: usize| self.nodes[at].id.clone();
        edges
            .into_iter()
            .map(|(to, from, need)| GraphEdge { from: id(from), to: id(to), need })
            .collect()
    }

    /// The steps in waves: each step in the first wave in which all it needs is done.
    #[must_use]
    pub fn waves(&self) -> Vec<Vec<StepId>> {
        let mut level = vec![0_usize; self.nodes.len()];
        let mut waves: Vec<Vec<usize>> = Vec::new();
        for &at in &self.order {
            level[at] = self.needs(at).map(|need| level[need] + 1).max().unwrap_or(0);
            if waves.len() <= level[at] {
                waves.push(Vec::new());
            }
            waves[level[at]].push(at);
        }
        for wave in &mut waves {
            wave.sort_unstable();
        }
        waves
            .into_iter()
            .map(|wave| wave.into_iter().map(|at| self.nodes[at].id.clone()).collect())
            .collect()
    }

    pub(super) fn index_of(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied()
    }

    /// What a step needs directly.
    pub(super) fn needs(&self, at: usize) -> impl Iterator<Item = usize> {
        self.arrows
            .neighbors_directed(NodeIndex::new(at), petgraph::Direction::Incoming)
            .map(NodeIndex::index)
    }

    /// Whether one step is needed by another, directly or not.
    pub(super) fn is_before(&self, one: usize, other: usize) -> bool {
        self.before.get(other).is_some_and(|before| before[one / 64] >> (one % 64) & 1 == 1)
    }

    /// Whether there are no circles, so that order has a meaning.
    pub(super) fn is_ordered(&self) -> bool {
        self.order.len() == self.nodes.len()
    }

    /// The nearest gates before a step: those with no other gate between.
    pub(super) fn releasing_gates(&self, at: usize) -> Vec<usize> {
        let mut gates = Vec::new();
        let mut seen = vec![false; self.nodes.len()];
        let mut open: Vec<usize> = self.needs(at).collect();
        while let Some(need) = open.pop() {
            if std::mem::replace(&mut seen[need], true) {
                continue;
            }
            if self.nodes[need].action == "gate" {
                gates.push(need);
            } else {
                open.extend(self.needs(need));
            }
        }
        let nearest = gates
            .iter()
            .copied()
            .filter(|gate| !gates.iter().any(|other| self.is_before(*gate, *other)));
        let mut nearest: Vec<usize> = nearest.collect();
        nearest.sort_unstable();
        nearest
    }

    /// One shortest circle for each set of steps that need each other, as steps and why each needs the one before it.
    pub(super) fn circles(&self) -> Vec<Vec<(usize, Need)>> {
        if self.is_ordered() {
            return Vec::new();
        }
        let mut circles: Vec<Vec<(usize, Need)>> = kosaraju_scc(&self.arrows)
            .into_iter()
            .filter_map(|component| {
                let first = component.iter().copied().min()?;
                let is_circle = component.len() > 1 || self.arrows.contains_edge(first, first);
                is_circle.then(|| self.circle_through(first))
            })
            .collect();
        circles.sort_unstable();
        circles
    }

    /// The shortest way from a step along what it needs back to itself.
    fn circle_through(&self, start: NodeIndex) -> Vec<(usize, Need)> {
        let mut came_from: HashMap<NodeIndex, (NodeIndex, Need)> = HashMap::new();
        let mut open = VecDeque::from([start]);
        while let Some(at) = open.pop_front() {
            for edge in self.arrows.edges_directed(at, petgraph::Direction::Incoming) {
                let need = edge.source();
                if need != start && came_from.contains_key(&need) {
                    continue;
                }
                came_from.entry(need).or_insert((at, *edge.weight()));
                if need == start {
                    return Self::unwind(&came_from, start);
                }
                open.push_back(need);
            }
        }
        Vec::new()
    }

    fn unwind(
        came_from: &HashMap<NodeIndex, (NodeIndex, Need)>,
        start: NodeIndex,
    ) -> Vec<(usize, Need)> {
        let mut circle = Vec::new();
        let mut at = start;
        while let Some((who, why)) = came_from.get(&at) {
            circle.push((who.index(), *why));
            at = *who;
            if at == start {
                break;
            }
        }
        circle.reverse();
        circle
    }
}
