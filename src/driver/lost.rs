//! What is said where something can't be taken back without losing what clients wrote to the new side alone. Where the old table
//! lives on, what they wrote to it alone looks no different.
//!
//! Absent on purpose: finding that out, which databases do.

use super::Error;
use crate::copy::compare::Compared;
use crate::run::{FailureClass, Private, keys_said};

/// The refusal that names the rows: how many, and the first few of their keys.
pub(super) fn lost_rows(mapping: &str, found: &Compared) -> Error {
    let Compared { missing, extra, different, samples, .. } = found;
    let keys = keys_said(missing + extra + different, samples);
    let why = format!(
        "since retire, writes reached one side alone. The new side: {missing} rows are missing there, {extra} are only there, \
         {different} differ; {keys}"
    );
    let mut error = lost(mapping, &why);
    if let Error::Failed(failure) = &mut error {
        failure.private.push(Private::keys(keys));
    }
    error
}

/// A refusal that the loss of the writes would end.
pub(super) fn lost(mapping: &str, why: &str) -> Error {
    Error::failed(FailureClass::Unsafe, format!("mapping {mapping}: {why}"))
        .with_help(format!(
            "`phasegate rollback RUN --accept-loss {mapping}` gives them up; `phasegate abort RUN --leave --reason …` ends the run \
             and leaves everything as it is"
        ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Difference, DifferenceKind, Redact};

    #[test]
    fn keys_are_named_and_hidden_and_counts_are_not() {
        let one = |key: &str| Difference {
            kind: DifferenceKind::Extra,
            key: key.to_owned(),
            columns: Vec::new(),
            values: Vec::new(),
        };
        let samples = ["1", "2", "3", "\"ann@x\"", "5", "6"].map(one).to_vec();
        let found = Compared { extra: 1200, samples, ..Compared::default() };
        let counts = "0 rows are missing there, 1200 are only there, 0 differ; ";
        for (redact, keys) in [
            (Redact::Nothing, "5 of their keys: 1; 2; 3; \"ann@x\"; 5"),
            (Redact::Values, "5 of their keys: 1; 2; 3; \"ann@x\"; 5"),
            (Redact::Keys, "their keys: (redacted)"),
        ] {
            let said = lost_rows("leads", &found).redacted(redact).to_string();
            assert!(said.ends_with(&format!("{counts}{keys}")), "{redact:?}: {said}");
        }
    }
}
