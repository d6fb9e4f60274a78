//! A timeout is longer than what it bounds.

use crate::diagnostic::known as codes;

use super::super::document::ActionDef;
use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (at, step) in view.all() {
        let Some(timeout) = step.timeout_ms else { continue };
        let bounded = match view.action(at) {
            Some(ActionDef::DualWrite(dual_write)) => {
                dual_write.probe.as_ref().and_then(|probe| Some(("its probe", probe.for_ms?.value)))
            }
            Some(ActionDef::Backfill(backfill)) => {
                backfill.chunk_time_ms.map(|ms| ("one chunk", ms))
            }
            Some(ActionDef::Gate(gate)) => {
                gate.soak.as_ref().map(|(_, length)| ("its soak", length.value))
            }
            _ => None,
        };
        let lock = step.lock_timeout_ms.map(|ms| ("waiting for a lock", ms.value));
        for (what, ms) in bounded.into_iter().chain(lock) {
            if ms >= timeout.value {
                let duration = std::time::Duration::from_millis(ms);
                let message = format!(
                    "the timeout ends `{}` before {what} can: that takes {}",
                    step.id.value,
                    humantime::format_duration(duration)
                );
                reports
                    .error(codes::TIMEOUT_TOO_SHORT, timeout.span, message)
                    .help("write a longer `timeout`, or none");
            }
        }
    }
}
