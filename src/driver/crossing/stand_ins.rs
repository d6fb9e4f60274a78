//! Nodes that stand for rows: of which labels nothing will come for them any more, and what becomes of them then.

use super::Crossed;
use super::compare::told;
use super::pair::Crossing;
use crate::bounds::verify::STUB_LOOKS;
use crate::copy::compare::{Compared, Named};
use crate::driver::{Applied, Error, Fence, Work};
use crate::run::{DifferenceKind, Mapping, RowKind, plural};

/// The labels of the nodes that a mapping writes, or that its relationships are between.
fn labels(mapping: &Mapping) -> Vec<String> {
    match &mapping.into.kind {
        RowKind::Table => Vec::new(),
        RowKind::Node => vec![mapping.into.table.clone()],
        RowKind::Relationship(ends) => {
            let mut labels = vec![ends.start.node.clone(), ends.end.node.clone()];
            labels.dedup();
            labels
        }
    }
}

impl Crossing {
    /// Counts what stands for rows that no mapping brings, and so would stay for good.
    pub(super) async fn stubs_for_good(
        &self,
        mapping: &Mapping,
        compared: &mut Compared,
    ) -> Result<(), Error> {
        let labels = self.unfilled(mapping);
        if labels.is_empty() {
            return Ok(());
        }
        let mut stubs = 0;
        for look in 0..=STUB_LOOKS {
            // What is on its way may take them away.
            if look > 0 && !self.arrived(mapping, true).await? {
                compared.pending += stubs;
                return Ok(());
            }
            stubs = self.of_new(self.sink()?.stubs(&labels).await)?;
            if stubs == 0 {
                return Ok(());
            }
        }
        compared.extra += stubs;
        compared.rows += stubs;
        let what = plural(stubs, "node");
        let key = format!("({what} of {} that only relationships refer to)", labels.join(", "));
        told(compared, (DifferenceKind::Extra, Named::Any), key);
        Ok(())
    }

    /// The labels of a relationship's ends that no mapping fills which is kept in step.
    fn unfilled(&self, mapping: &Mapping) -> Vec<String> {
        let RowKind::Relationship(_) = &mapping.into.kind else { return Vec::new() };
        let mut labels = labels(mapping);
        labels.retain(|label| {
            let fills =
                |one: &Mapping| matches!(one.into.kind, RowKind::Node) && one.into.table == *label;
            !self.live.iter().any(fills)
        });
        labels
    }

    /// The labels of a mapping's nodes that no other mapping has to do with that is kept in step.
    fn labels_alone(&self, mapping: &Mapping) -> Vec<String> {
        let mut alone = labels(mapping);
        let others = self.live.iter().filter(|other| other.name != mapping.name);
        let theirs: Vec<String> = others.flat_map(labels).collect();
        alone.retain(|label| !theirs.contains(label));
        alone
    }

    /// Shuts the new side, on which nothing stands for rows any more that will not come.
    pub(super) async fn closed(
        &self,
        (fence, work): (&Fence, &Work),
        crossed: &Crossed,
    ) -> Result<Applied, Error> {
        let sink = self.sink()?;
        self.of_new(sink.unmark(fence, &self.labels_alone(&crossed.mapping)).await)?;
        self.of_new(sink.close(fence, work, crossed).await)
    }
}
