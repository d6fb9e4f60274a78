//! What holds a backfill back can work: it has a name of its own, can be looked at, and lets go again.

use crate::diagnostic::known as codes;
use crate::run::Engine;

use super::super::document::{ActionDef, SignalDef, ThrottleDef};
use super::super::fields::{Alphabet, check_name};
use super::super::node::At;
use super::super::reports::Reports;
use super::super::resolve::View;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    for (at, _) in view.all() {
        let Some(ActionDef::Backfill(backfill)) = view.action(at) else { continue };
        for (place, throttle) in backfill.throttle.iter().enumerate() {
            check_name(&throttle.name, "a throttle", Alphabet::Words, reports);
            let earlier = backfill.throttle[..place]
                .iter()
                .find(|earlier| earlier.name.value == throttle.name.value);
            if let Some(earlier) = earlier {
                let message = format!("a second throttle is called `{}`", throttle.name.value);
                reports
                    .error(codes::THROTTLE, throttle.name.span, message)
                    .related(earlier.name.span, "the first")
                    .help("give it a name of its own: `tune` and `status` go by it");
            }
            limit(throttle, reports);
            match &throttle.signal {
                SignalDef::Gauge(gauge) => {
                    let target = view.throttled_on(at, throttle.target.as_ref());
                    let engine = target.and_then(|target| target.engine);
                    if engine.is_some_and(|engine| engine.value != Engine::Postgres) {
                        let query = if engine.is_some_and(|it| it.value == Engine::Neo4j) {
                            "cypher"
                        } else {
                            "query"
                        };
                        let message = format!(
                            "`{}` is PostgreSQL's, and this is no such database",
                            gauge.value.as_str()
                        );
                        reports.error(codes::THROTTLE, gauge.span, message).help(format!(
                            "ask with `{query}`, `http`, `file` or `window` instead"
                        ));
                    }
                }
                SignalDef::Http(url) => address(url, reports),
                SignalDef::File(path) => {
                    if !path.value.starts_with('/') {
                        let message = "the path of the file is not absolute";
                        reports
                            .error(codes::THROTTLE, path.span, message)
                            .help("begin it with `/`: a run may be driven from any folder");
                    }
                }
                SignalDef::Query { .. } | SignalDef::Window(_) => {}
            }
        }
        if let Some(longest) = backfill.max_throttled_for_ms
            && (longest.value == 0 || backfill.throttle.is_empty())
        {
            let (message, help) = if longest.value == 0 {
                ("a throttle holds for some time", "write `max_throttled_for: 1h`, or leave it out")
            } else {
                ("nothing throttles this backfill", "add `throttle`, or remove the key")
            };
            reports.error(codes::THROTTLE, longest.span, message).help(help);
        }
    }
}

fn limit(throttle: &ThrottleDef, reports: &mut Reports) {
    let Some(bound) = throttle.bound else { return };
    if let Some(complaint) = throttle.signal.complaint(bound.value) {
        reports
            .error(codes::THROTTLE, bound.span, complaint)
            .help("write the first value at which nothing more is to be copied, such as `max: 1`");
    }
}

/// A URL goes into the journal as it is, so it holds no secret.
fn address(written: &At<String>, reports: &mut Reports) {
    let parsed = url::Url::parse(&written.value).ok();
    let is_http = parsed
        .as_ref()
        .is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !is_http || written.value.contains("${") {
        // The text isn't repeated: whatever is wrong with it, it may hold a secret.
        reports
            .error(codes::THROTTLE, written.span, "this is no URL that can be asked")
            .help("write it out, beginning with http:// or https://, without references");
    } else if parsed.is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
        reports
            .error(codes::LITERAL_SECRET, written.span, "a name or password stands in the URL")
            .help("let a throttle ask an address that needs none; and change the password");
    }
}
