//! `graph`: a plan's steps and what they need; with `--status`, where each stands in a run.

use serde_json::Value;

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::{Format, Graph};
use crate::cli::session::{OpenRun, Session};
use crate::cli::wiring;
use crate::report::graph::GraphView;

pub async fn perform(session: &Session, args: &Graph) -> Result<Answer, Failure> {
    let path = &args.plan.plan;
    let settings = session.settings_for_plan(path)?;
    let environment = settings.environment_of_plan();
    let plan = wiring::load_plan(path, settings.project.as_ref(), &environment)?;
    let run = match &args.status {
        Some(typed) => Some(session.open(typed).await?),
        None => None,
    };
    let view = GraphView::new(&plan.pin.program, run.as_ref().map(OpenRun::state));
    let human = match session.global.format {
        Format::Human | Format::Text => view.text(),
        Format::Mermaid => view.mermaid(),
        Format::Dot => view.dot(),
        Format::Json | Format::Junit | Format::Markdown | Format::Github => String::new(),
    };
    let Value::Object(document) = view.document() else { return Ok(Answer::done(human)) };
    Ok(Answer::done(human).with_all(document))
}
