//! What `retire` locks beside the two tables of a mapping, for a dry run: the same lists that it takes before it locks anything,
//! as far as they can be told while the new table may not be there yet.
//!
//! Absent on purpose: judging whether any of it is in the way, which `retire` and the findings do.

use std::collections::BTreeMap;

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::catalogue;
use super::error::failed;
use super::{carried, incoming, remade};
use crate::driver::Error;
use crate::driver::probed::{Beside, LockedBeside};
use crate::run::{Direction, Mapping, RetireShape};

/// Looks; nothing where the old table isn't there.
pub(super) async fn beside(
    conn: &mut PgConnection,
    (mapping, direction): (&Mapping, Direction),
    shape: &RetireShape,
) -> Result<Option<LockedBeside>, Error> {
    let Some(old) = catalogue::table(conn, &mapping.from.table).await? else { return Ok(None) };
    let new = catalogue::table(conn, &mapping.into.table).await?;
    let oids = (old.oid, new.map_or(old.oid, |new| new.oid));
    let mut found: BTreeMap<String, Beside> = BTreeMap::new();
    let numbers = match shape {
        RetireShape::Table { .. } => Some(None),
        RetireShape::Columns(all) => {
            let is_remade = mapping.is_in_place() && all.iter().all(|it| it.take_name.is_some());
            let number = |name: &str| old.column(name).map(|column| column.number);
            is_remade.then(|| Some(all.iter().filter_map(|it| number(&it.column)).collect()))
        }
    };
    if let Some(numbers) = numbers {
        let numbers: Option<Vec<i16>> = numbers;
        for one in remade::remade(conn, old.oid, numbers.as_deref()).await? {
            let why = if one.what == "view" { Beside::View } else { Beside::Policy };
            found.entry(one.holder().name.clone()).or_insert(why);
        }
    }
    if let RetireShape::Table { .. } = shape {
        for table in incoming::tables(conn, &old).await? {
            found.insert(table, Beside::RefersToIt);
        }
    }
    if direction == Direction::Forward {
        for holder in carried::referenced(conn, oids).await? {
            found.entry(holder.name).or_insert(Beside::IsReferredTo);
        }
    }
    let locked = shown(conn, found, oids).await?;
    Ok(Some(LockedBeside { mapping: mapping.name.clone(), locked }))
}

/// Names as people write them, without the two tables themselves.
async fn shown(
    conn: &mut PgConnection,
    found: BTreeMap<String, Beside>,
    (old, new): (u32, u32),
) -> Result<Vec<(String, Beside)>, Error> {
    let doing = "read the names of what is locked";
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let rows = sqlx::query(
        "SELECT n.name, coalesce(to_regclass(n.name)::text, n.name) FROM unnest($1::text[]) AS n (name)
         WHERE coalesce(to_regclass(n.name)::oid::bigint, 0) NOT IN ($2, $3)",
    )
    .bind(names)
    .bind(i64::from(old))
    .bind(i64::from(new))
    .fetch_all(conn)
    .await
    .map_err(failed(doing))?;
    let mut shown: Vec<(String, Beside)> = Vec::new();
    for row in rows {
        let name: String = row.try_get(0).map_err(failed(doing))?;
        if let Some(why) = found.get(&name) {
            shown.push((row.try_get(1).map_err(failed(doing))?, *why));
        }
    }
    shown.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(shown)
}
