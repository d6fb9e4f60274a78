//! A value is compared only with one that was kept before.

use std::collections::HashMap;

use crate::diagnostic::known as codes;

use super::super::document::{ActionDef, CheckDef, QueryDef, VerifyDef};
use super::super::reports::Reports;
use super::super::resolve::View;
use super::super::suggest::advice;

/// Applies the rule.
pub fn check(view: &View<'_>, reports: &mut Reports) {
    let mut captured: HashMap<&str, usize> = HashMap::new();
    for (at, query) in queries(view) {
        let Some(name) = &query.capture else { continue };
        if let Some(first) = captured.get(name.value.as_str()) {
            reports
                .error(codes::CAPTURE, name.span, format!("`{}` is captured twice", name.value))
                .related(view.step(*first).id.span, "first by this step")
                .help("give each captured value a name of its own");
        } else {
            captured.insert(&name.value, at);
        }
    }
    for (at, query) in queries(view) {
        let Some((name, _)) = &query.within else { continue };
        match captured.get(name.value.as_str()) {
            None => {
                let message = format!("no step captures `{}`", name.value);
                let help = advice(&name.value, captured.keys().copied());
                reports.error(codes::CAPTURE, name.span, message).help(help);
            }
            Some(source) if !view.graph.is_before(*source, at) => {
                let source = view.step(*source);
                let message = format!("`{}` is not captured before this step", name.value);
                reports
                    .error(codes::CAPTURE, name.span, message)
                    .related(source.id.span, "captured here")
                    .help(format!("let this step need `{}`", source.id.value));
            }
            Some(_) => {}
        }
    }
}

fn queries<'a>(view: &View<'a>) -> impl Iterator<Item = (usize, &'a QueryDef)> {
    view.all().filter_map(|(at, step)| match &step.action.as_ref()?.value {
        ActionDef::Verify(VerifyDef { check: CheckDef::Query(query) }) => Some((at, query)),
        _ => None,
    })
}
