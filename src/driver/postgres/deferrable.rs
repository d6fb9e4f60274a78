//! Constraints of the new side that may be checked as late as at COMMIT.
//!
//! What they refuse fails the client's COMMIT, where no trigger can note it. Until the copy is verified that can happen to any
//! client: the copy of a row that is gone may still be there, or the one that a row refers to not yet. One that is INITIALLY
//! IMMEDIATE is no better, since `SET CONSTRAINTS ALL DEFERRED` in a client, which knows nothing of the new side, is about it,
//! too. So a sync doesn't begin while there is one. Afterwards both sides are equal at each COMMIT, and it does no harm.
//!
//! Absent on purpose: constraints of the old side, which are the clients' own, and constraint triggers.

use super::surroundings::Surroundings;

/// The first such constraint of a new table, or of another one that refers to it: what is wrong with it, and what to do.
pub(super) fn problem(new: &Surroundings) -> Option<(String, String)> {
    let own = new
        .constraints
        .iter()
        .filter(|it| matches!(it.kind, 'p' | 'u' | 'x' | 'f'))
        .map(|it| (it.kind, &it.name, &new.name, &it.definition));
    let of_others = new.references.iter().map(|it| ('f', &it.name, &it.table, &it.definition));
    let (kind, name, table, _) =
        own.chain(of_others).find(|(_, _, _, definition)| is_deferrable(definition))?;
    let message = format!(
        "{name} on {table} is DEFERRABLE: what it refuses while rows are copied would fail a client's COMMIT"
    );
    let help = if kind == 'f' {
        format!(
            "ALTER TABLE {table} ALTER CONSTRAINT {name} NOT DEFERRABLE, and back in a step behind the verify"
        )
    } else {
        format!("make {name} NOT DEFERRABLE, or add it in a step behind the verify")
    };
    Some((message, help))
}

fn is_deferrable(definition: &str) -> bool {
    !tail(definition).is_empty()
}

/// What a definition says of when it is checked, the blank before it included; nothing where that is at once.
pub(super) fn tail(definition: &str) -> &str {
    let definition = super::stricter::bare(definition);
    for tail in [" DEFERRABLE INITIALLY DEFERRED", " DEFERRABLE"] {
        if definition.ends_with(tail) {
            return &definition[definition.len() - tail.len()..];
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deferrable_definitions_are_told_from_others() {
        for (definition, expected) in [
            ("UNIQUE (email)", false),
            ("UNIQUE (email) DEFERRABLE", true),
            ("UNIQUE (email) DEFERRABLE INITIALLY DEFERRED", true),
            ("FOREIGN KEY (a) REFERENCES b(id) ON DELETE CASCADE DEFERRABLE NOT VALID", true),
            ("FOREIGN KEY (a) REFERENCES b(id) NOT VALID", false),
            ("EXCLUDE USING gist (a WITH &&) WHERE ((b <> 'x DEFERRABLE'::text))", false),
        ] {
            assert_eq!(is_deferrable(definition), expected, "{definition}");
        }
    }
}
