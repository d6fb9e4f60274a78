//! The rules that a plan keeps, one per file. Each looks at the whole view and reports everything it finds.
//!
//! Two groups: rules about what is written, which always run, and rules about the plan as a whole, which run only when all
//! of it could be read and no steps need each other in a circle. A step that is missing because its action is mistyped would
//! otherwise be missed again by each step that builds on it.

mod backfill_undo;
mod captures;
mod cascade;
mod circles;
mod copying;
mod crossings;
mod destruction;
mod ends;
mod expressions;
mod fillable;
mod graphs;
mod ids;
mod live_sync;
mod long_locks;
mod long_names;
mod order;
mod parted;
mod people;
mod questions;
mod retire;
mod sides;
mod statements;
mod stubs;
mod throttles;
mod timeouts;
mod transactions;
mod undo;
mod unknown_statements;
mod unused;
mod urls;
mod uses;
mod waits;
mod ways_back;
mod written_twice;

use super::reports::Reports;
use super::resolve::View;

/// A rule.
type Rule = fn(&View<'_>, &mut Reports);

/// Rules about what is written.
const WRITTEN: &[Rule] = &[
    ids::check,
    order::check,
    circles::check,
    urls::check,
    sides::check,
    graphs::check,
    crossings::check,
    expressions::check,
    ways_back::check,
    written_twice::check,
    statements::check,
    cascade::check,
    transactions::check,
    long_names::check,
    questions::check,
    undo::check,
    throttles::check,
    timeouts::check,
    people::check,
    super::not_yet::check,
];

/// Rules about the plan as a whole.
const WHOLE: &[Rule] = &[
    backfill_undo::check,
    unused::check,
    destruction::check,
    unknown_statements::check,
    live_sync::check,
    long_locks::check,
    waits::check,
    uses::check,
    fillable::check,
    captures::check,
    copying::check,
    stubs::check,
    retire::check,
    ends::check,
    parted::check,
];

/// Applies all rules that can be applied.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for rule in WRITTEN {
        rule(view, reports);
    }
    if view.is_whole() {
        for rule in WHOLE {
            rule(view, reports);
        }
    }
}
