//! `schema`: the JSON Schema that editors check plans with.

use crate::cli::answer::Answer;
use crate::cli::args::Schema;
use crate::cli::wiring;

/// For people it is the schema itself, so that it can be written to a file; as a document it stands in a frame.
pub fn perform(args: &Schema) -> Answer {
    let schema = wiring::schema(args.document);
    Answer::done(format!("{schema:#}")).with("schema", schema)
}
