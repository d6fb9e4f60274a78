//! Steps don't need each other in a circle.

use crate::diagnostic::known as codes;

use super::super::graph::Need;
use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    let id = |at: usize| view.step(at).id.value.as_str();
    for circle in view.graph.circles() {
        let mut path = String::new();
        let mut is_implied = false;
        for (position, (at, why)) in circle.iter().enumerate() {
            let (next, _) = circle[(position + 1) % circle.len()];
            let why = match why {
                Need::Named => "",
                Need::Order => " (by the order of the list)",
                Need::Gate => " (a gate holds back what is listed behind it)",
            };
            is_implied |= !why.is_empty();
            path.extend(["\n  `", id(*at), "` needs `", id(next), "`", why]);
        }
        let Some((first, _)) = circle.first() else { continue };
        let step = view.step(*first);
        let span = step.needs.as_ref().map_or(step.id.span, |needs| needs.span);
        let help = if is_implied {
            "remove one of the needs, or move the step in the list"
        } else {
            "remove one of the needs"
        };
        let message = format!("these steps need each other, so none can start:{path}");
        reports.error(codes::CYCLE, span, message).help(help);
    }
}
