//! What the tests of all drivers share: a run that enters, work to do, a mapping, and what went wrong.
#![allow(clippy::unwrap_used)]

use super::{Claim, Error, Head, Work};
use crate::run::{
    CopyColumns, Digest, FailureClass, Hazard, Language, Mapping, OnDelete, OnExisting, Relation,
    RunId, Script, Statement, Transaction, Way, Winner,
};

pub(super) fn claim(run: &str) -> Claim {
    Claim {
        run: RunId::new(run),
        plan: "leads-v2".into(),
        digest: Digest::of_bytes(b"plan"),
        store: "store-1".into(),
        host: "here".into(),
        pid: 42,
        objects: vec![],
        mappings: vec![],
        parallel: 1,
        adopts: None,
    }
}

pub(super) fn head(version: u64) -> Head {
    Head { version, hash: Digest::of_bytes(&version.to_be_bytes()) }
}

pub(super) fn work(step: &str, way: Way) -> Work {
    Work {
        step: step.into(),
        way,
        head: head(7),
        lock_timeout_ms: None,
        compared_under: None,
        resolved: None,
    }
}

pub(super) fn script(statements: &[&str]) -> Script {
    let statements = statements
        .iter()
        .zip(10..)
        .map(|(text, line)| Statement { text: (*text).to_owned(), line })
        .collect();
    Script {
        statements,
        file: None,
        hazard: Hazard::None,
        tables: Vec::new(),
        creates: Vec::new(),
        language: Language::Sql,
        transaction: Transaction::Auto,
        is_opaque: false,
    }
}

pub(super) fn mapping(from: (&str, &[&str]), into: (&str, &[&str])) -> Mapping {
    let relation = |(table, key): (&str, &[&str])| Relation {
        target: "app".into(),
        table: table.into(),
        key: key.iter().map(|name| (*name).to_owned()).collect(),
        kind: crate::run::RowKind::Table,
    };
    Mapping {
        name: "leads".into(),
        from: relation(from),
        into: relation(into),
        copy: CopyColumns::All,
        columns: vec![],
        reverse: vec![],
        winner: Winner::New,
        filter: None,
        on_existing: OnExisting::Keep,
        on_delete: OnDelete::Delete,
        parking: crate::run::Parking::default(),
    }
}

/// The class of a failure of which nothing was committed.
pub(super) fn class<T: std::fmt::Debug>(result: Result<T, Error>) -> FailureClass {
    match result {
        Err(Error::Failed(failure)) => failure.class,
        other => panic!("not a plain failure: {other:?}"),
    }
}
