//! Statements that have no place in a step, told by their first words, before anything else is read.

use super::super::facts::Facts;
use super::super::token::{Kind, Token};
use super::{is_name, refused as refusal};

/// The schema of our own objects, and the prefix of those that stand among others.
const OUR_SCHEMA: &str = "phasegate";
const OUR_PREFIX: &str = "phasegate_";

/// What a statement is refused for, and what to do instead, by its first words.
const REFUSED: &[(&[&str], &str)] = &[
    (&["begin"], TRANSACTION),
    (&["start", "transaction"], TRANSACTION),
    (&["commit"], TRANSACTION),
    (&["end"], TRANSACTION),
    (&["abort"], TRANSACTION),
    (&["rollback"], TRANSACTION),
    (&["savepoint"], TRANSACTION),
    (&["release"], TRANSACTION),
    (&["prepare", "transaction"], TRANSACTION),
    (&["set", "transaction"], TRANSACTION),
    (&["set", "local", "transaction"], TRANSACTION),
    (&["set", "session", "characteristics"], TRANSACTION),
    (&["set", "role"], ROLE),
    (&["set", "local", "role"], ROLE),
    (&["set", "session", "role"], ROLE),
    (&["set", "session", "authorization"], ROLE),
    (&["set", "local", "session"], ROLE),
    (&["set", "session", "session"], ROLE),
    (&["reset", "role"], ROLE),
    (&["reset", "session"], ROLE),
    (
        &["reset", "all"],
        "reset the settings by name: all of them would take the run's own time limits along",
    ),
    (&["discard"], "leave it out: the connection is closed behind the step anyway"),
    (&["listen"], "leave it out: nobody reads notifications on the connection of a step"),
    (&["unlisten"], "leave it out: nobody reads notifications on the connection of a step"),
];

const TRANSACTION: &str = "leave it out: the statements of a step run in one transaction, together with its row in the ledger; \
                           with `transaction: none` each runs by itself";

const ROLE: &str = "name the role in the target's URL, or give what is made to its owner by `ALTER … OWNER TO`: the run's own \
                    row is written in the same transaction";

/// What is said of a statement that has no place in a step.
pub(super) fn refused(source: &str, tokens: &[Token]) -> Option<Facts> {
    let begins = |words: &[&str]| {
        words
            .iter()
            .enumerate()
            .all(|(at, word)| tokens.get(at).is_some_and(|token| token.is_word(source, word)))
    };
    let (words, help) = REFUSED.iter().find(|(words, _)| begins(words))?;
    let words = words.join(" ").to_ascii_uppercase();
    Some(refusal(&format!("{words} has no place in a step"), help))
}

/// Whether the first and the last statement of a script make a transaction around all others.
///
/// Only plain ones: `BEGIN ISOLATION LEVEL …` asks for something that isn't done, and `COMMIT AND CHAIN` for another
/// transaction.
pub(in crate::sql) fn wrapped(texts: &[&str]) -> bool {
    const BEGIN: &[&str] = &["begin", "begin work", "begin transaction", "start transaction"];
    const COMMIT: &[&str] =
        &["commit", "commit work", "commit transaction", "end", "end work", "end transaction"];
    let is = |text: Option<&&str>, known: &[&str]| {
        text.is_some_and(|text| {
            let words: Vec<&str> = text.split_ascii_whitespace().collect();
            known.contains(&words.join(" ").to_ascii_lowercase().as_str())
        })
    };
    texts.len() > 2 && is(texts.first(), BEGIN) && is(texts.last(), COMMIT)
}

/// Our own objects are none of a plan's business.
pub(super) fn complain_of_ours(facts: &mut Facts, source: &str, tokens: &[Token]) {
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| is_name(token)) {
        let Some(name) = token.name(source) else { continue };
        let next = tokens.get(at + 1);
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        let is_schema = name.eq_ignore_ascii_case(OUR_SCHEMA)
            && (next.is_some_and(|next| next.is_punct(source, "."))
                || before.is_some_and(|before| before.is_word(source, "schema")));
        let is_prefixed = name
            .get(..OUR_PREFIX.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(OUR_PREFIX));
        if is_schema || is_prefixed {
            facts.complain(
                format!("{name} is named like the bookkeeping of a run"),
                format!(
                    "use another name: the schema {OUR_SCHEMA} and names that begin with {OUR_PREFIX} are kept for it"
                ),
            );
        }
    }
}

/// Nothing binds parameters in a script. In the body of a function they are its arguments.
pub(super) fn complain_of_parameters(facts: &mut Facts, source: &str, tokens: &[Token]) {
    let is_first = |word: &str| tokens.first().is_some_and(|token| token.is_word(source, word));
    if is_first("prepare")
        || (is_first("create") && tokens.iter().any(|t| t.is_word(source, "returns")))
    {
        return;
    }
    for pair in tokens.windows(2) {
        let [sign, next] = pair else { continue };
        let touches = sign.end == next.start;
        let is_number = next.text(source).starts_with(|first: char| first.is_ascii_digit());
        if touches && sign.is_punct(source, "$") && next.kind == Kind::Word && is_number {
            facts.complain(
                "there is a parameter in it, which nothing gives a value",
                "write the value itself; text stands in single quotes",
            );
        }
    }
}
