//! What stands in the way of a mapping: names that nothing has, nodes that can't be told from each other, expressions that the server
//! doesn't take. Changes nothing.
//!
//! Whatever is mapped must have a key of one type, which is a whole number, text or a number: keys of other types, or of several, are
//! passed by where ranges are compared, and a row that is passed by would be missed without a word.

use neo4rs::query;

use super::catalogue::Unique;
use super::connection::{Ask as _, Reader};
use super::error::{failed, shown};
use super::ledger::{get, unsigned};
use super::shape::{Pattern, Shape, Which};
use super::{catalogue, landing, sink};
use crate::bounds::message::{DUPLICATES_NAMED_MAX, LABELS_NAMED_MAX};
use crate::bounds::neo4j::{KEY_LOOK_EVERY, KEY_LOOKS};
use crate::driver::{Error, Finding, Severity, SurveyedMapping};
use crate::run::{FailureClass, Private, plural};
use crate::sql::cypher::{properties_read, quoted};

/// A label or type that nothing has; a property likewise; a key that doesn't tell nodes apart; an expression that is refused; what the
/// new side doesn't get.
const NO_LABEL: &str = "D201";
const NO_PROPERTY: &str = "D203";
const NO_IDENTITY: &str = "D204";
const REFUSED_EXPRESSION: &str = "D205";
const NOT_BROUGHT: &str = "D217";

/// What the server calls the types that a key may have.
const KEY_TYPES: [&str; 3] = ["INTEGER NOT NULL", "STRING NOT NULL", "FLOAT NOT NULL"];

/// Holds a mapping against what is there.
pub(super) async fn mapping(
    reader: &mut Reader<'_>,
    surveyed: &SurveyedMapping,
) -> Result<Vec<Finding>, Error> {
    if !surveyed.mapping.is_pushdown() {
        return crossing(reader, surveyed).await;
    }
    let shape = Shape::of(&surveyed.mapping)?;
    let mut findings = Vec::new();
    let told = |severity, code, message: String, help: &str, private: Vec<Private>| Finding {
        severity,
        step: surveyed.step.clone(),
        code,
        message,
        help: (!help.is_empty()).then(|| help.to_owned()),
        private,
    };
    for (message, help) in names(reader, &shape).await? {
        findings.push(told(Severity::Error, NO_LABEL, message, &help, Vec::new()));
    }
    for (message, help) in properties(reader, surveyed, &shape).await? {
        findings.push(told(Severity::Error, NO_PROPERTY, message, &help, Vec::new()));
    }
    for node in catalogue::nodes(&shape) {
        findings.extend(identity(reader, surveyed, &Unique::node(node)).await?);
    }
    if let Some(message) = both_labels(reader, &shape).await? {
        let help = "give the copy a node of its own: where both sides are labels of one node, removing one side removes both. \
                    A label alone is renamed by `cypher` steps with SET and REMOVE";
        findings.push(told(Severity::Error, NO_IDENTITY, message, help, Vec::new()));
    }
    if let Some(message) = other_labels(reader, &shape).await? {
        let help =
            "their copies have the new label only, and `drop` refuses to take such nodes away";
        findings.push(told(Severity::Warning, NOT_BROUGHT, message, help, Vec::new()));
    }
    if findings.iter().all(|finding| finding.severity != Severity::Error)
        && let Some(message) = expressions(reader, &shape).await?
    {
        let help = "correct the expression under `columns` or `where`: Cypher over `source`, with `start` and `end` where it is a \
                    relationship";
        findings.push(told(Severity::Error, REFUSED_EXPRESSION, message, help, Vec::new()));
    }
    Ok(findings)
}

/// Holds a mapping out of another database against what there is of its new side.
async fn crossing(
    reader: &mut Reader<'_>,
    surveyed: &SurveyedMapping,
) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for unique in landing::unique(&surveyed.mapping)? {
        findings.extend(identity(reader, surveyed, &unique).await?);
    }
    Ok(findings)
}

/// What is wrong with a key.
async fn identity(
    reader: &mut Reader<'_>,
    surveyed: &SurveyedMapping,
    unique: &Unique,
) -> Result<Vec<Finding>, Error> {
    let help = if unique.is_of_nodes {
        "give each node a key of one type, which no other node of the label has"
    } else {
        "give each relationship a key of one type, which no other of its type has"
    };
    let found = Box::pin(keys(reader, unique)).await?.into_iter();
    let findings = found.map(|(message, private)| Finding {
        severity: Severity::Error,
        step: surveyed.step.clone(),
        code: NO_IDENTITY,
        message,
        help: Some(help.to_owned()),
        private,
    });
    let mut findings: Vec<Finding> = findings.collect();
    // A step of the plan may drop it, so it is no error yet.
    findings.extend(unique.in_the_way(reader).await?.map(|index| Finding {
        severity: Severity::Warning,
        step: surveyed.step.clone(),
        code: NO_IDENTITY,
        message: format!(
            "the index {index} is on {} of {}, and the server makes no constraint beside it",
            unique.key.join(", "),
            unique.name
        ),
        help: Some(format!(
            "make it one before: a `cypher` step with DROP INDEX {}, and one with {}",
            quoted(&index),
            unique.constrain()
        )),
        private: Vec::new(),
    }));
    Ok(findings)
}

/// Labels and types of the old side that nothing has.
async fn names(reader: &mut Reader<'_>, shape: &Shape) -> Result<Vec<(String, String)>, Error> {
    let mut labels: Vec<String> = shape.old.nodes().iter().map(|node| node.label.clone()).collect();
    labels.dedup();
    let mut said = Vec::new();
    for label in catalogue::unknown(reader, ("labels", "label"), &labels).await? {
        let help = "see CALL db.labels(), which lists those that there are";
        said.push((format!("no node has the label {label}"), help.to_owned()));
    }
    if let Some(kind) = shape.old.relationship() {
        let kinds = [kind.to_owned()];
        let column = ("relationshipTypes", "relationshipType");
        for kind in catalogue::unknown(reader, column, &kinds).await? {
            let help = "see CALL db.relationshipTypes(), which lists those that there are";
            said.push((format!("there is no relationship {kind}"), help.to_owned()));
        }
    }
    Ok(said)
}

/// Properties that keys and expressions read, and nothing has.
async fn properties(
    reader: &mut Reader<'_>,
    surveyed: &SurveyedMapping,
    shape: &Shape,
) -> Result<Vec<(String, String)>, Error> {
    let mapping = &surveyed.mapping;
    let expressions = mapping.columns.iter().map(|(_, value)| value).chain(&mapping.filter);
    let read = expressions.filter_map(|text| properties_read(text).ok()).flatten();
    let mut names: Vec<String> = read.map(|(_, name)| name).collect();
    names.extend(shape.old.nodes().into_iter().flat_map(|node| node.key.clone()));
    names.sort();
    names.dedup();
    let lacking = catalogue::unknown(reader, ("propertyKeys", "propertyKey"), &names).await?;
    let said = lacking.into_iter().map(|name| {
        let help = "see CALL db.propertyKeys(), which lists those that there are";
        (format!("nothing has a property {name}"), help.to_owned())
    });
    Ok(said.collect())
}

/// What is wrong with the keys of a label's nodes or a type's relationships, and goes on being so.
async fn keys(
    reader: &mut Reader<'_>,
    unique: &Unique,
) -> Result<Vec<(String, Vec<Private>)>, Error> {
    let mut said = keys_now(reader, unique).await?;
    for _ in 1..KEY_LOOKS {
        if said.is_empty() {
            break;
        }
        tokio::time::sleep(KEY_LOOK_EVERY).await;
        said = keys_now(reader, unique).await?;
    }
    Ok(said)
}

async fn keys_now(
    reader: &mut Reader<'_>,
    unique: &Unique,
) -> Result<Vec<(String, Vec<Private>)>, Error> {
    let mut said = Vec::new();
    let name = &unique.name;
    let (pattern, noun) = (unique.pattern(), unique.noun());
    for key in &unique.key {
        let ask = format!(
            "MATCH {pattern} RETURN valueType(n.{key}) AS type, count(*) AS nodes, \
             count(CASE WHEN n.{key} <> n.{key} THEN 1 END) AS not_numbers ORDER BY nodes DESC",
            key = quoted(key)
        );
        let rows = reader.rows(query(&ask)).await.map_err(failed("look at keys"))?;
        let mut types: Vec<String> = Vec::new();
        for row in &rows {
            let (kind, nodes): (String, i64) = (get(row, "type")?, get(row, "nodes")?);
            let nodes = plural(unsigned(nodes)?, noun);
            let not_numbers = unsigned(get(row, "not_numbers")?)?;
            if not_numbers > 0 {
                let nodes = plural(not_numbers, noun);
                said.push((format!("{nodes} of {name} have a {key} that is NaN"), Vec::new()));
            }
            if kind == "NULL" {
                said.push((format!("{nodes} of {name} have no {key}"), Vec::new()));
            } else {
                if !KEY_TYPES.contains(&kind.as_str()) {
                    let message = format!("{nodes} of {name} have a {key} that is {kind}");
                    said.push((message, Vec::new()));
                }
                types.push(kind);
            }
        }
        if types.len() > 1 {
            let message = format!("{key} of {name} is of several types: {}", types.join(", "));
            said.push((message, Vec::new()));
        }
    }
    if unique.constraint(reader).await?.is_none() {
        said.extend(duplicates(reader, unique).await?);
    }
    Ok(said)
}

async fn duplicates(
    reader: &mut Reader<'_>,
    unique: &Unique,
) -> Result<Option<(String, Vec<Private>)>, Error> {
    let keys: Vec<String> = unique.key.iter().map(|key| format!("n.{}", quoted(key))).collect();
    let given: Vec<String> = keys.iter().map(|key| format!("{key} IS NOT NULL")).collect();
    let ask = format!(
        "MATCH {} WHERE {} WITH [{}] AS key, count(*) AS nodes WHERE nodes > 1 \
         WITH key ORDER BY key WITH count(*) AS keys, collect([it IN key | toString(it)]) AS all \
         RETURN keys, all[..$most] AS first",
        unique.pattern(),
        given.join(" AND "),
        keys.join(", ")
    );
    let rows = reader.rows(query(&ask).param("most", DUPLICATES_NAMED_MAX)).await;
    let rows = rows.map_err(failed("look for keys that come twice"))?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (count, first): (i64, Vec<Vec<String>>) = (get(row, "keys")?, get(row, "first")?);
    if count == 0 {
        return Ok(None);
    }
    let first: Vec<String> = first.into_iter().map(|key| key.join(", ")).collect();
    let message = format!(
        "{} of {} {} more than one {}: {}",
        plural(unsigned(count)?, "key"),
        unique.name,
        if count == 1 { "has" } else { "have" },
        unique.noun(),
        first.join("; ")
    );
    Ok(Some((message, first.into_iter().map(Private::key).collect())))
}

/// Nodes that are on both sides at once.
async fn both_labels(reader: &mut Reader<'_>, shape: &Shape) -> Result<Option<String>, Error> {
    let (Pattern::Node(old), Pattern::Node(new)) = (&shape.old, &shape.new) else {
        return Ok(None);
    };
    if old.label == new.label {
        return Ok(None);
    }
    let ask =
        format!("MATCH (n:{}&{}) RETURN count(n) AS nodes", quoted(&old.label), quoted(&new.label));
    let rows = reader.rows(query(&ask)).await.map_err(failed("look for nodes on both sides"))?;
    let count = rows.first().map_or(Ok(0), |row| unsigned(get(row, "nodes")?))?;
    let nodes = plural(count, "node");
    Ok((count > 0).then(|| format!("{nodes} of {} are {} as well", old.label, new.label)))
}

/// Labels that nodes of the old side have besides.
async fn other_labels(reader: &mut Reader<'_>, shape: &Shape) -> Result<Option<String>, Error> {
    let [node] = shape.old.nodes()[..] else { return Ok(None) };
    let ask = format!(
        "MATCH (n:{}) UNWIND labels(n) AS label WITH label, count(*) AS nodes WHERE label <> $label \
         RETURN label, nodes ORDER BY nodes DESC LIMIT {LABELS_NAMED_MAX}",
        quoted(&node.label)
    );
    let rows = reader.rows(query(&ask).param("label", node.label.as_str())).await;
    let rows = rows.map_err(failed("look for other labels"))?;
    let mut others = Vec::new();
    for row in &rows {
        let (label, nodes): (String, i64) = (get(row, "label")?, get(row, "nodes")?);
        others.push(format!("{label} ({})", plural(unsigned(nodes)?, "node")));
    }
    let said = format!("nodes of {} have other labels, too: {}", node.label, others.join(", "));
    Ok((!others.is_empty()).then_some(said))
}

/// What the server says of the statement that copies, if it doesn't take it. Without hints: indexes may still have to be made.
async fn expressions(reader: &mut Reader<'_>, shape: &Shape) -> Result<Option<String>, Error> {
    let rows = format!("MATCH {}{}", shape.old.text(), shape.where_old());
    let text = match shape.new.relationship() {
        Some(_) => sink::relationships(shape, &rows),
        None => sink::nodes(shape, (&rows, ""), true),
    };
    match reader.rows(query(&format!("EXPLAIN {text}"))).await {
        Ok(_) => Ok(None),
        Err(neo4rs::Error::Neo4j(told)) => {
            Ok(Some(format!("the mapping can't be run: {}", shown(told.message()))))
        }
        Err(error) => Err(failed("look at the mapping")(error)),
    }
}

/// Refuses rows that no range of keys has in it, and go on being there: nobody would have compared them.
pub(super) async fn all_comparable(reader: &mut Reader<'_>, shape: &Shape) -> Result<(), Error> {
    let mut complaint = incomparable(reader, shape).await?;
    for _ in 1..KEY_LOOKS {
        if complaint.is_none() {
            break;
        }
        tokio::time::sleep(KEY_LOOK_EVERY).await;
        complaint = incomparable(reader, shape).await?;
    }
    complaint.map_or(Ok(()), Err)
}

async fn incomparable(reader: &mut Reader<'_>, shape: &Shape) -> Result<Option<Error>, Error> {
    let mut types: Vec<Option<String>> = vec![None; shape.new.key().len()];
    for which in [Which::Old, Which::New] {
        let side = shape.side(which);
        let filter = if which == Which::Old { shape.where_old() } else { String::new() };
        let parts: Vec<String> =
            side.key().iter().map(|part| format!("valueType({part})")).collect();
        // NaN is equal to nothing, and in no range.
        let not_numbers: Vec<String> =
            side.key().iter().map(|part| format!("{part} <> {part}")).collect();
        let ask = format!(
            "MATCH {}{filter} RETURN [{}] AS types, count(*) AS rows, count(CASE WHEN {} THEN 1 END) AS not_numbers",
            side.text(),
            parts.join(", "),
            not_numbers.join(" OR ")
        );
        let rows = reader.rows(query(&ask)).await.map_err(failed("look at keys"))?;
        for row in &rows {
            let (found, count): (Vec<String>, i64) = (get(row, "types")?, get(row, "rows")?);
            let not_numbers = unsigned(get(row, "not_numbers")?)?;
            if not_numbers > 0 {
                return Ok(Some(beyond_compare(side, not_numbers, "NaN in their key")));
            }
            for (known, found) in types.iter_mut().zip(found) {
                let is_known = known.get_or_insert_with(|| found.clone()) == &found;
                if is_known && KEY_TYPES.contains(&found.as_str()) {
                    continue;
                }
                let what = if found == "NULL" { "no key" } else { "a key of another type" };
                return Ok(Some(beyond_compare(side, unsigned(count)?, what)));
            }
        }
    }
    Ok(None)
}

fn beyond_compare(side: &Pattern, rows: u64, what: &str) -> Error {
    let rows = plural(rows, "row");
    let message = format!("{rows} of {} have {what}, and can't be compared", side.text());
    Error::failed(FailureClass::Refused, message)
        .with_help("give them keys as the others have, or remove them, then retry")
}
