//! What there is of some keys.

use std::collections::BTreeMap;

use neo4rs::{BoltList, BoltMap, BoltType, query};

use super::super::Neo4j;
use super::super::connection::{Ask as _, Reader};
use super::super::error::{damaged, failed};
use super::super::ledger::{get, unsigned};
use super::super::shape::Pattern;
use super::super::values;
use super::side::Side;
use super::{edges, nodes, versions};
use crate::bounds::neo4j::BATCH;
use crate::copy::row::{Datum, Row};
use crate::driver::Error;
use crate::driver::crossing::{Crossed, Held, STUB, end_name};
use crate::sql::cypher::quoted;

/// What marks of ours on rows begin with.
const OURS: &str = "phasegate_";

impl Neo4j {
    pub(super) async fn look_up(
        &self,
        crossed: &Crossed,
        (keys, whole): (&[Vec<Datum>], bool),
    ) -> Result<Held, Error> {
        let side = Side::of(crossed)?;
        let mut held = Held::default();
        let mut reader = self.connections.read().await?;
        for keys in keys.chunks(BATCH as usize) {
            let (rows, versions) = Box::pin(some(&mut reader, &side, (keys, whole))).await?;
            held.rows.extend(rows);
            held.versions.extend(versions);
        }
        reader.release();
        Ok(held)
    }
}

/// The rows and versions of some keys, in one statement.
async fn some(
    reader: &mut Reader<'_>,
    side: &Side,
    (keys, whole): (&[Vec<Datum>], bool),
) -> Result<(Vec<Row>, Vec<u64>), Error> {
    let mut rows = Vec::with_capacity(keys.len());
    for (key, at) in keys.iter().zip(0_i64..) {
        let mut map = side.gone(key)?.map;
        map.put("t".into(), versions::text(&side.mapping, key).into());
        map.put("at".into(), at.into());
        rows.push(map);
    }
    let ask = query(&text(side, whole)).param("rows", nodes::list(rows));
    let found = reader.rows(ask).await.map_err(failed("read rows to compare"))?;
    let mut versions = vec![0; keys.len()];
    let mut held = Vec::with_capacity(found.len());
    for row in found {
        let at = usize::try_from(get::<i64>(&row, "at")?).unwrap_or(usize::MAX);
        let (key, version) = keys
            .get(at)
            .zip(versions.get_mut(at))
            .ok_or_else(|| damaged("a key is out of range"))?;
        *version = unsigned(get(&row, "version")?)?;
        for one in get::<BoltList>(&row, "rows")?.value {
            held.extend(read(side, key, one)?);
        }
    }
    Ok((held, versions))
}

fn text(side: &Side, whole: bool) -> String {
    let values = if whole {
        "copy {.*}".to_owned()
    } else {
        let names = side.names.iter().map(String::as_str).chain(side.node().map(|_| STUB));
        let names: Vec<String> = names.map(|name| format!(".{}", quoted(name))).collect();
        format!("copy {{{}}}", names.join(", "))
    };
    let (matched, ends) = match (&side.pattern, side.own.is_empty()) {
        (Pattern::Node(_), _) => (
            side.node().map(|(_, node)| format!("MATCH {node}")).unwrap_or_default(),
            "[]".to_owned(),
        ),
        (Pattern::Relationship { .. }, true) => (edges::between(side), "[]".to_owned()),
        (Pattern::Relationship { .. }, false) => {
            (side.by_own_key(), format!("[{}]", side.pattern.key().join(", ")))
        }
    };
    format!(
        "UNWIND $rows AS r OPTIONAL MATCH (v:phasegate_versions {{key: r.t}}) \
         CALL (r) {{ {matched} RETURN collect([[{}], {values}, {ends}]) AS rows }} \
         RETURN r.at AS at, coalesce(v.v, 0) AS version, rows",
        side.key().join(", ")
    )
}

/// A row; none where what was found has another key, since the server takes 1 and 1.0 for the same, and none where it went between its
/// being found and its values being read: then there is no map, or a key without a value.
fn read(side: &Side, key: &[Datum], found: BoltType) -> Result<Option<Row>, Error> {
    let unreadable = || damaged("a row can't be read");
    let BoltType::List(BoltList { value }) = found else { return Err(unreadable()) };
    let parts = <[BoltType; 3]>::try_from(value).map_err(|_| unreadable())?;
    let (walked, properties, ends) = match parts {
        [_, BoltType::Null(_), _] => return Ok(None),
        [BoltType::List(walked), BoltType::Map(properties), BoltType::List(ends)] => {
            (walked, properties, ends)
        }
        _ => return Err(unreadable()),
    };
    let walked: Result<Option<Vec<Datum>>, Error> =
        walked.value.into_iter().map(values::datum).collect();
    let is_that = walked?.is_some_and(|walked| side.row_key(&walked) == key);
    if !is_that {
        return Ok(None);
    }
    let mut values = own(side, properties)?;
    values.extend(of_ends(side, ends)?);
    Ok(Some(Row { key: key.to_vec(), values }))
}

/// A row's values without its key and without what is ours, but for the mark of a stub.
fn own(side: &Side, properties: BoltMap) -> Result<BTreeMap<String, Datum>, Error> {
    let mut values = values::properties(properties)?;
    let keys = side.node().map_or(&side.own, |(node, _)| &node.key);
    let is_node = side.node().is_some();
    values.retain(|name, _| {
        !keys.contains(name) && (!name.starts_with(OURS) || (is_node && name == STUB))
    });
    Ok(values)
}

/// The keys of the ends of a relationship with a key of its own.
fn of_ends(side: &Side, ends: BoltList) -> Result<BTreeMap<String, Datum>, Error> {
    let names = ["start", "end"].into_iter().zip(side.pattern.nodes());
    let names = names.flat_map(|(end, node)| node.key.iter().map(move |name| end_name(end, name)));
    let mut values = BTreeMap::new();
    for (name, value) in names.zip(ends.value) {
        if let Some(value) = values::datum(value)? {
            values.insert(name, value);
        }
    }
    Ok(values)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use neo4rs::{BoltMap, BoltNull, BoltType};

    use super::super::fixture::people;
    use super::{Datum, Side, read};
    use crate::driver::Error;
    use crate::run::FailureClass;

    fn found(key: BoltType, properties: BoltType) -> BoltType {
        let parts: [BoltType; 3] = [vec![key].into(), properties, Vec::<BoltType>::new().into()];
        BoltType::List(parts.to_vec().into())
    }

    #[test]
    fn what_went_while_it_was_read_is_not_there() {
        let side = Side::of(&people()).unwrap();
        let (none, key) = (BoltType::Null(BoltNull), [Datum::Integer(1)]);
        let there = |key: BoltType| found(key, BoltType::Map(BoltMap::default()));
        assert!(read(&side, &key, there(1_i64.into())).unwrap().is_some());
        assert!(read(&side, &key, there(2_i64.into())).unwrap().is_none());
        assert!(read(&side, &key, there(none.clone())).unwrap().is_none());
        assert!(read(&side, &key, found(1_i64.into(), none.clone())).unwrap().is_none());
        let other = read(&side, &key, found(1_i64.into(), 1_i64.into())).unwrap_err();
        assert!(
            matches!(&other, Error::Failed(it) if it.class == FailureClass::Damaged),
            "{other:?}"
        );
        assert!(read(&side, &key, none).is_err());
    }
}
