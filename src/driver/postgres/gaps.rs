//! What the new table lacks that the old one has and no copy of rows brings: foreign keys, triggers, grants, policies, the
//! owner, publications, and where the sequence of a generated key stands.
//!
//! All of it is a warning: an author may well mean it. Absent on purpose: making it, which is `retire`'s or the plan's, and what
//! `retire` asks for, which is `ahead`'s.

use super::ahead;
use super::catalogue::{literal, quote, same_table};
use super::stricter::{Found, bare};
use super::surroundings::Surroundings;
use super::survey::{NO_SYNC, Side};
use crate::driver::probed::{ObjectFacts, Purpose, TableUse};
use crate::driver::{Severity, Survey, SurveyedMapping};
use crate::run::{CopyColumns, Direction, Mapping, OnDelete, RetireShape, StepId};
use crate::sql::{self, Change, Dialect};

/// The sequence behind a copied key.
pub(super) const SEQUENCE: &str = "D216";
/// What the new table doesn't have and the old one has.
pub(super) const NOT_BROUGHT: &str = "D217";
/// Triggers that fire for what is copied and mirrored.
pub(super) const TRIGGERS: &str = "D218";
/// A table that the server keeps or publishes differently.
pub(super) const KEPT_DIFFERENTLY: &str = "D219";

/// What a table made by `LIKE … INCLUDING ALL` would not have.
pub(super) fn not_copied(owner: &str, around: &Surroundings) -> Vec<ObjectFacts> {
    let object = |kind: &str, name: &str, detail: Option<String>| ObjectFacts {
        kind: kind.to_owned(),
        name: name.to_owned(),
        detail,
    };
    let mut found = Vec::new();
    for key in around.foreign_keys() {
        found.push(object("foreign key", &key.name, Some(key.definition.clone())));
    }
    for key in &around.references {
        let detail = format!("from {} {}", key.table, key.definition);
        found.push(object("foreign key of another table", &key.name, Some(detail)));
    }
    for trigger in around.user_triggers() {
        let detail = (trigger.enabled == 'D').then(|| "disabled".to_owned());
        found.push(object("trigger", &trigger.name, detail));
    }
    let mut grantees: Vec<&str> = Vec::new();
    for grant in &around.grants {
        if !grantees.contains(&grant.grantee.as_str()) {
            grantees.push(&grant.grantee);
        }
    }
    for grantee in grantees {
        let of_it = around.grants.iter().filter(|grant| grant.grantee == grantee);
        let rights: Vec<String> = of_it
            .map(|grant| match &grant.column {
                Some(column) => format!("{} ({column})", grant.privilege),
                None => grant.privilege.clone(),
            })
            .collect();
        found.push(object("grant", grantee, Some(rights.join(", "))));
    }
    for policy in &around.policies {
        found.push(object("policy", &policy.name, None));
    }
    for publication in &around.publications {
        found.push(object("publication", publication, None));
    }
    found.push(object("owner", owner, Some("a new table belongs to who makes it".to_owned())));
    for sequence in &around.sequences {
        let stands = sequence.last_value.map_or_else(
            || "nothing drawn, or not visible".to_owned(),
            |value| format!("stands at {value}"),
        );
        let (kind, detail) = if sequence.is_identity {
            ("identity", format!("{stands}, the copy's at 1"))
        } else if sequence.is_owned {
            (
                "serial",
                format!(
                    "{stands}; the copy draws from {}, which belongs to the old table",
                    sequence.name
                ),
            )
        } else {
            continue;
        };
        found.push(object(kind, &sequence.column, Some(detail)));
    }
    found
}

/// For a new table that the plan makes: what `LIKE` would not bring, where no `retire` carries it over.
pub(super) fn of_a_copy(mapping: &Mapping, from: &Side, survey: &Survey) -> Vec<Found> {
    let (old, new) = (&from.table.name, &mapping.into.table);
    let mut found = kept(from);
    let names = firing_soon(mapping, survey);
    found.extend(fires(new, &names, ON_COPY));
    let lacks: Vec<String> = not_copied(&from.table.owner, &from.around)
        .iter()
        .filter(|it| !matches!(it.kind.as_str(), "owner" | "identity" | "serial"))
        .map(|it| format!("{} {}", it.kind, it.name))
        .collect();
    if !lacks.is_empty() && ahead::retired(survey, mapping).is_none() {
        let message =
            format!("LIKE {old} INCLUDING ALL would not bring to {new}: {}", lacks.join(", "));
        let help = format!("make on {new} what it needs of them, before clients use it");
        found.push((Severity::Warning, NOT_BROUGHT, message, Some(help)));
    }
    found.extend(sequences(from, new, None));
    found
}

/// Between two tables that are there.
pub(super) fn between(
    surveyed: &SurveyedMapping,
    (from, into): (&Side, &Side),
    retired: Option<&RetireShape>,
) -> Vec<Found> {
    let mut found = kept(from);
    found.extend(kept(into));
    let new = &into.table.name;
    // A table that gets some columns of another doesn't take its place.
    let takes_its_place = surveyed.mapping.copy == CopyColumns::All;
    if retired.is_none() && takes_its_place {
        found.extend(may_lack(from, into));
    }
    if takes_its_place {
        found.extend(sequences(from, new, Some(into)));
    }
    found.extend(firing(into, ON_COPY));
    if surveyed.direction == Some(Direction::Both) {
        found.extend(firing(from, "each write of the new side that is mirrored to it"));
    }
    if !into.around.rules.is_empty() {
        let message = format!(
            "{new} has rewrite rules ({}), and rows can't be merged into such a table",
            into.around.rules.join(", ")
        );
        let help = "replace the rules by triggers".to_owned();
        found.push((Severity::Error, NO_SYNC, message, Some(help)));
    }
    if surveyed.mapping.on_delete == OnDelete::Delete && !into.around.references.is_empty() {
        let keys: Vec<String> = into
            .around
            .references
            .iter()
            .map(|key| format!("{} of {}", key.name, key.table))
            .collect();
        let message = format!(
            "foreign keys point to {new} ({}): deleting a row of {} acts on them too, or is refused by them",
            keys.join(", "),
            from.table.name
        );
        found.push((Severity::Warning, KEPT_DIFFERENTLY, message, None));
    }
    found
}

/// What the new table of a mapping that no `retire` ends may lack.
fn may_lack(from: &Side, into: &Side) -> Option<Found> {
    let (lacks, new) = (lacking(from, into), &into.table.name);
    let message = format!("{new} has not what {} has: {}", from.table.name, lacks.join(", "));
    let help = format!("make on {new} what it needs of them, before clients use it");
    (!lacks.is_empty()).then_some((Severity::Warning, NOT_BROUGHT, message, Some(help)))
}

/// What the new table has not and the old one has.
fn lacking(from: &Side, into: &Side) -> Vec<String> {
    let mut lacks = Vec::new();
    for key in from.around.foreign_keys() {
        let has =
            into.around.foreign_keys().any(|it| bare(&it.definition) == bare(&key.definition));
        if !has {
            lacks.push(format!("foreign key {}", key.name));
        }
    }
    for key in &from.around.references {
        lacks.push(format!("foreign key {} of {}", key.name, key.table));
    }
    for trigger in from.around.user_triggers() {
        if !into.around.triggers.iter().any(|it| it.name == trigger.name) {
            lacks.push(format!("trigger {}", trigger.name));
        }
    }
    for policy in &from.around.policies {
        if !into.around.policies.contains(policy) {
            lacks.push(format!("policy {}", policy.name));
        }
    }
    for publication in &from.around.publications {
        if !into.around.publications.contains(publication) {
            lacks.push(format!("publication {publication}"));
        }
    }
    let mut grantees: Vec<&str> = from
        .around
        .grants
        .iter()
        .filter(|grant| !into.around.grants.contains(grant))
        .map(|grant| grant.grantee.as_str())
        .collect();
    grantees.dedup();
    lacks.extend(grantees.iter().map(|grantee| format!("grants to {grantee}")));
    if from.table.owner != into.table.owner {
        lacks.push(format!("owner {}", from.table.owner));
    }
    lacks
}

/// The sequences behind copied keys.
fn sequences(from: &Side, new: &str, into: Option<&Side>) -> Vec<Found> {
    let mut found = Vec::new();
    for sequence in from.around.sequences.iter().filter(|sequence| sequence.is_owned) {
        let drawn = into.map(|into| {
            into.around.sequences.iter().find(|it| it.column == sequence.column).map(|it| it.oid)
        });
        let column = format!("{}.{}", from.table.name, sequence.column);
        let what = match drawn {
            Some(None) => format!(
                "{column} draws from {}, and {new} draws its keys from nothing",
                sequence.name
            ),
            Some(Some(oid)) if oid == sequence.oid => {
                format!(
                    "{new} draws from {}, which belongs to {column} and would go with it",
                    sequence.name
                )
            }
            None if !sequence.is_identity => {
                format!(
                    "a copy of {column} draws from {}, which belongs to the old table",
                    sequence.name
                )
            }
            Some(Some(_)) | None => {
                format!("the sequence of {column} is another than that of {new}, which begins at 1")
            }
        };
        let help = match (drawn, into) {
            (Some(None), Some(into)) => format!(
                "ALTER TABLE {} ALTER {} SET DEFAULT nextval({})",
                into.table.sql(),
                quote(&sequence.column),
                literal(&sequence.name)
            ),
            _ => "retire hands it over or advances it; without retire do so before clients insert into the new table".to_owned(),
        };
        found.push((Severity::Warning, SEQUENCE, what, Some(help)));
    }
    found
}

/// Users' triggers on a table that we write to.
pub(super) fn firing(side: &Side, when: &str) -> Option<Found> {
    let names: Vec<&str> = side
        .around
        .user_triggers()
        // Our sessions are no replica's.
        .filter(|trigger| matches!(trigger.enabled, 'O' | 'A'))
        .map(|trigger| trigger.name.as_str())
        .collect();
    fires(&side.table.name, &names, when)
}

/// Triggers that the plan makes on a table before rows are copied to it, and doesn't switch off by then.
fn firing_soon(mapping: &Mapping, survey: &Survey) -> Vec<String> {
    let is_it = |table: &str| same_table(table, &mapping.into.table);
    let is_copied = |it: &TableUse| is_it(&it.table) && it.purpose == Purpose::Write;
    let copied = survey.uses.iter().rposition(is_copied);
    let is_before = |step: &StepId| {
        let first = survey.uses.iter().position(|it| it.step == *step);
        first.zip(copied).is_none_or(|(first, copied)| first < copied)
    };
    let scripts = survey.scripts.iter().filter(|(step, _)| is_before(step));
    let mut names: Vec<String> = Vec::new();
    for statement in scripts.flat_map(|(_, script)| &script.statements) {
        let text = statement.text.to_ascii_uppercase();
        let is_off = text.split_whitespace().any(|word| matches!(word, "DISABLE" | "REPLICA"));
        for change in sql::classify(Dialect::Postgres, &statement.text).changes {
            match change {
                Change::CreateTrigger { table, trigger } if is_it(&table) => names.push(trigger),
                Change::SwitchTriggers { table, trigger } if is_it(&table) && is_off => {
                    names.retain(|name| trigger.as_ref().is_some_and(|off| off != name));
                }
                Change::DropTrigger { table, trigger } if table.as_deref().is_some_and(is_it) => {
                    names.retain(|name| *name != trigger);
                }
                _ => {}
            }
        }
    }
    names
}

/// For what triggers of a new table fire.
const ON_COPY: &str = "each row that is copied to it, and for each write that is mirrored";

fn fires<N: AsRef<str>>(table: &str, names: &[N], when: &str) -> Option<Found> {
    (!names.is_empty()).then(|| {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let message = format!("triggers of {table} ({}) fire for {when}", names.join(", "));
        let help =
            "disable them until the switch where they should not, and enable them in a later step"
                .to_owned();
        (Severity::Warning, TRIGGERS, message, Some(help))
    })
}

/// A table whose rows don't outlive a crash.
fn kept(side: &Side) -> Vec<Found> {
    if side.table.persistence != 'u' {
        return Vec::new();
    }
    let message = format!("{} is unlogged: the server empties it after a crash", side.table.name);
    let help = format!("ALTER TABLE {} SET LOGGED", side.table.sql());
    vec![(Severity::Warning, KEPT_DIFFERENTLY, message, Some(help))]
}
