//! `explain`: the page of a finding's code.

use serde_json::{Value, json};

use crate::cli::answer::{Answer, Failure};
use crate::cli::args::Explain;
use crate::cli::session::Session;
use crate::cli::suggest;
use crate::diagnostic;
use crate::report::{Alignment, Table, Tone};

pub fn perform(session: &Session, args: &Explain) -> Result<Answer, Failure> {
    let Some(typed) = &args.code else { return Ok(all(session)) };
    let code = diagnostic::code(typed);
    let page = code.and_then(|code| Some((code, diagnostic::explain(&code.to_string())?)));
    let Some((code, page)) = page else {
        let codes: Vec<String> = diagnostic::all().map(|code| code.to_string()).collect();
        let near = suggest::nearest(typed, codes.iter().map(String::as_str));
        let help = near.map_or_else(
            || format!("`{} explain` lists all", "phasegate"),
            |code| format!("did you mean {code}?"),
        );
        return Err(Failure::usage(format!("there is no code {typed}")).help(help));
    };
    Ok(Answer::done(page)
        .with("code", json!(code))
        .with("title", json!(code.title()))
        .with("text", json!(page)))
}

fn all(session: &Session) -> Answer {
    let columns = [("code", Alignment::Left), ("about", Alignment::Left)];
    let mut table = Table::new(session.printer.result_colour(), &columns);
    let mut documents: Vec<Value> = Vec::new();
    for code in diagnostic::all() {
        table.row(&[(code.to_string(), Tone::Strong), (code.title().to_owned(), Tone::Plain)]);
        documents.push(json!({ "code": code, "title": code.title() }));
    }
    Answer::done(table.render()).with("codes", Value::Array(documents))
}
