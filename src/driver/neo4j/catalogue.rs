//! What the server knows of labels, types and properties: constraints on keys, and whether there is anything of a name.
//!
//! Each node of a mapping has a unique constraint on its key: it is what chunks are walked by, and without it two MERGE at once
//! make two nodes.

use neo4rs::query;

use super::connection::{Ask as _, Reader};
use super::error::failed;
use super::ledger::get;
use super::shape::{Node, Shape};
use crate::driver::Error;
use crate::sql::cypher::quoted;

/// The nodes of both sides, each label and key once.
pub(super) fn nodes(shape: &Shape) -> Vec<&Node> {
    let mut nodes: Vec<&Node> = Vec::new();
    for node in shape.old.nodes().into_iter().chain(shape.new.nodes()) {
        let is_there = nodes.iter().any(|one| one.label == node.label && one.key == node.key);
        if !is_there {
            nodes.push(node);
        }
    }
    nodes
}

/// A key that is to be unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unique {
    /// Whether it is that of a label's nodes, and not of a type's relationships.
    pub(super) is_of_nodes: bool,
    /// The label or the type.
    pub(super) name: String,
    pub(super) key: Vec<String>,
}

impl Unique {
    pub(super) fn node(node: &Node) -> Self {
        Self { is_of_nodes: true, name: node.label.clone(), key: node.key.clone() }
    }

    /// Makes it so.
    pub(super) fn constrain(&self) -> String {
        let keys: Vec<String> = self.key.iter().map(|key| format!("n.{}", quoted(key))).collect();
        let name = quoted(&self.name);
        let what =
            if self.is_of_nodes { format!("(n:{name})") } else { format!("()-[n:{name}]-()") };
        format!(
            "CREATE CONSTRAINT IF NOT EXISTS FOR {what} REQUIRE ({}) IS UNIQUE",
            keys.join(", ")
        )
    }

    /// The pattern of what has the key, which is called `n`.
    pub(super) fn pattern(&self) -> String {
        let name = quoted(&self.name);
        if self.is_of_nodes { format!("(n:{name})") } else { format!("()-[n:{name}]->()") }
    }

    /// What has the key, for people.
    pub(super) const fn noun(&self) -> &'static str {
        if self.is_of_nodes { "node" } else { "relationship" }
    }

    /// The name of an index in whose place the constraint's own would be.
    pub(super) async fn in_the_way(
        &self,
        reader: &mut Reader<'_>,
    ) -> Result<Option<String>, Error> {
        let ask = query(
            "SHOW INDEXES YIELD name, type, entityType, labelsOrTypes, properties, owningConstraint \
             WHERE type = 'RANGE' AND owningConstraint IS NULL AND (entityType = 'NODE') = $nodes \
             AND labelsOrTypes = [$name] AND properties = $key RETURN name",
        )
        .param("nodes", self.is_of_nodes)
        .param("name", self.name.as_str())
        .param("key", self.key.clone());
        let rows = reader.rows(ask).await.map_err(failed("look for indexes"))?;
        rows.first().map(|row| get(row, "name")).transpose()
    }

    /// The name of a constraint that does, if there is one.
    pub(super) async fn constraint(
        &self,
        reader: &mut Reader<'_>,
    ) -> Result<Option<String>, Error> {
        let ask = query(
            "SHOW CONSTRAINTS YIELD name, type, entityType, labelsOrTypes, properties WHERE type IN ['UNIQUENESS', 'NODE_KEY', \
             'NODE_PROPERTY_UNIQUENESS', 'RELATIONSHIP_UNIQUENESS', 'RELATIONSHIP_KEY', 'RELATIONSHIP_PROPERTY_UNIQUENESS'] \
             AND (entityType = 'NODE') = $nodes AND labelsOrTypes = [$name] AND properties = $key RETURN name",
        )
        .param("nodes", self.is_of_nodes)
        .param("name", self.name.as_str())
        .param("key", self.key.clone());
        let rows = reader.rows(ask).await.map_err(failed("look for constraints"))?;
        rows.first().map(|row| get(row, "name")).transpose()
    }
}

/// Makes a node's key unique.
pub(super) fn constrain(node: &Node) -> String {
    Unique::node(node).constrain()
}

/// The nodes of a mapping whose keys nothing makes unique.
pub(super) async fn unconstrained<'a>(
    reader: &mut Reader<'_>,
    shape: &'a Shape,
) -> Result<Vec<&'a Node>, Error> {
    let mut lacking = Vec::new();
    for node in nodes(shape) {
        if Unique::node(node).constraint(reader).await?.is_none() {
            lacking.push(node);
        }
    }
    Ok(lacking)
}

/// The constraints on the labels of a mapping, as text.
pub(super) async fn constraints(
    reader: &mut Reader<'_>,
    shape: &Shape,
) -> Result<Vec<String>, Error> {
    constraints_on(reader, nodes(shape).into_iter().map(|node| node.label.clone()).collect()).await
}

/// The constraints on some labels and types, as text.
pub(super) async fn constraints_on(
    reader: &mut Reader<'_>,
    labels: Vec<String>,
) -> Result<Vec<String>, Error> {
    let ask = query(
        "SHOW CONSTRAINTS YIELD name, type, labelsOrTypes, properties WHERE any(it IN labelsOrTypes WHERE it IN $labels) \
         RETURN name + ' ' + type + ' ' + reduce(all = '', it IN labelsOrTypes + [''] + properties | all + it + ',') AS it \
         ORDER BY it",
    )
    .param("labels", labels);
    let rows = reader.rows(ask).await.map_err(failed("list constraints"))?;
    rows.iter().map(|row| get(row, "it")).collect()
}

/// Those of these names that no node or relationship has, as the server lists them.
pub(super) async fn unknown(
    reader: &mut Reader<'_>,
    (what, column): (&str, &str),
    names: &[String],
) -> Result<Vec<String>, Error> {
    let text = format!(
        "CALL db.{what}() YIELD {column} WITH collect({column}) AS known RETURN [it IN $names WHERE NOT it IN known] AS lacking"
    );
    let rows = reader.rows(query(&text).param("names", names.to_vec())).await;
    let rows = rows.map_err(failed("list what names there are"))?;
    rows.first().map_or_else(|| Ok(Vec::new()), |row| get(row, "lacking"))
}
