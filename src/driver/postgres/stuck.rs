//! Keys that could not be put right: rows whose content is to blame are parked where the plan lets rows be parked, all others told.
//!
//! Absent on purpose: finding out which keys those are, which is `settle`'s and `moves`'.

use super::connection::{Connections, Tx};
use super::dual_write::finish;
use super::error::failed;
use super::park::enter;
use super::settle::{DOING, bound, columns_of, is_tied, number};
use super::settle_sql::forget_notes;
use super::shape::{KeyPair, Shape, shape};
use super::sink::named;
use crate::bounds::message::STUCK_KEYS_NAMED_MAX;
use crate::copy::chunk::{Cell, Key};
use crate::driver::parking::Refusal;
use crate::driver::{Error, Fence, TxKind};
use crate::run::{Failure, FailureClass, Mapping, plural};

/// A key that the server would not have put right, and what it said.
#[derive(Clone, Debug)]
pub(super) struct Stuck {
    /// Its columns as the server writes them.
    pub key: Vec<String>,
    pub failure: Failure,
    /// A copy can't go to another key, or end, which is no fault of the row's content.
    pub is_moving: bool,
}

/// A key as the ledger and people know it.
fn as_key(shape: &Shape, key: &[String]) -> Key {
    let cell = |(pair, text): (&KeyPair, &String)| {
        let number = pair.is_integer().then(|| text.parse().ok()).flatten();
        number.map_or_else(|| Cell::Text(text.clone()), Cell::Integer)
    };
    Key(shape.keys.iter().zip(key).map(cell).collect())
}

/// Parks rows that can't be put right, where the plan lets rows be parked; else fails with their keys. The notes of one that was
/// parked go: those of copies that are to move stay.
pub(super) async fn park_or_refuse(
    (connections, fence): (&Connections, &Fence),
    mapping: &Mapping,
    stuck: Vec<Stuck>,
) -> Result<(), Error> {
    let mut reader = connections.read().await?;
    let shape = shape(reader.conn()?, mapping).await?;
    reader.release().await;
    let Some(most) = shape.park_max else { return Err(refused(&shape, &stuck)) };
    let (moving, stuck): (Vec<Stuck>, Vec<Stuck>) = stuck.into_iter().partition(|it| it.is_moving);
    if stuck.is_empty() {
        return Err(refused(&shape, &moving));
    }
    let mut tx = connections.begin(fence, TxKind::Park).await?;
    let parked = async {
        forget(&mut tx, &shape, &stuck).await?;
        let refusal = |it: Stuck| Refusal { key: as_key(&shape, &it.key), failure: it.failure };
        let refusals = stuck.into_iter().map(refusal).collect();
        // As those that triggers park: the row may be on the other side, as it was before.
        enter(&mut tx, (fence.run(), None), &shape, (refusals, most)).await
    }
    .await;
    finish(tx, parked).await
}

/// The error of keys that can't be put right.
fn refused(shape: &Shape, stuck: &[Stuck]) -> Error {
    let Some(first) = stuck.first() else {
        return Error::failed(FailureClass::Refused, "noted keys can't be put right");
    };
    let mut names: Vec<String> = stuck
        .iter()
        .take(STUCK_KEYS_NAMED_MAX)
        .map(|it| named(shape, &as_key(shape, &it.key)))
        .collect();
    if stuck.len() > STUCK_KEYS_NAMED_MAX {
        names.push(plural(number(stuck.len() - STUCK_KEYS_NAMED_MAX), "more key"));
    }
    let message = format!(
        "what clients wrote to the row with {} of {} could only be noted, and its copy can't be put right: {}",
        names.join("; "),
        shape.old.sql(),
        first.failure.message
    );
    let help = if first.is_moving {
        "have what refers to the copy refer to the key that its row has now, or take it away, then retry"
    } else if is_tied(&first.failure) {
        "have the rows that they refer to copied first, or mend these, then retry"
    } else {
        "mend the row or what refuses its copy, then retry"
    };
    Error::Failed(Failure { message, help: Some(help.to_owned()), ..first.failure.clone() })
}

/// Takes the notes of keys away, but for those of copies that are to move or end.
async fn forget(tx: &mut Tx<'_>, shape: &Shape, stuck: &[Stuck]) -> Result<(), Error> {
    let sql = forget_notes(shape, &tx.ours(&shape.touched_name()));
    let keys: Vec<Vec<String>> = stuck.iter().map(|it| it.key.clone()).collect();
    let keys = columns_of(&keys);
    bound(sql, &keys).execute(tx.conn()?).await.map(|_| ()).map_err(failed(DOING))
}
