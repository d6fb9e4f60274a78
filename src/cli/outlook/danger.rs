//! What may be destroyed, as a dry run says it.

use crate::report::dry_run::{Danger, DangerKind};
use crate::run::Hazard;

/// What a step or statement may destroy.
pub(super) fn of(hazard: &Hazard) -> Danger {
    let (kind, reason) = match hazard {
        Hazard::None => (DangerKind::None, None),
        Hazard::Destructive(what) => (DangerKind::Destructive, Some(what.clone())),
        Hazard::Unknown(why) => (DangerKind::Unknown, Some(why.clone())),
    };
    Danger { kind, reason }
}

/// The same of a statement, in the light of what the plan's reader came to for all of its script: what it let pass needs no
/// gate.
pub(super) fn of_statement(read: &Hazard, script: &Hazard) -> Danger {
    match (read, script) {
        // Somebody has reviewed it.
        (Hazard::Unknown(why), Hazard::None) => {
            Danger { kind: DangerKind::Reviewed, reason: Some(why.clone()) }
        }
        (_, Hazard::None) => of(&Hazard::None),
        (read, _) => of(read),
    }
}
