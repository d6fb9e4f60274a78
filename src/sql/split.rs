//! A script into its statements.
//!
//! What is executed is each statement's own text, so the parts are cut out of the script and never put together anew.
//!
//! Absent: client commands that are no SQL (`DELIMITER`, `GO`), and the compound bodies of MySQL and SQL Server, which are
//! refused by name rather than cut in the wrong place. So are psql's own commands.

use crate::run::Statement;

use super::token::{self, Token};
use super::{Dialect, postgres};

/// Why a script can't be split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SplitError {
    /// The line, counted as the caller counts.
    pub line: u32,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// The statements of a script, whose first line is line `first_line` of the plan or file it stands in.
///
/// Empty statements are dropped, comments before a statement belong to none, and the last semicolon may be missing.
pub fn split(dialect: Dialect, text: &str, first_line: u32) -> Result<Vec<Statement>, SplitError> {
    let (tokens, unended) = token::tokens_until(dialect, text, first_line);
    if dialect == Dialect::Postgres {
        // First, because the rows behind a COPY are no SQL, and a quote in them may seem to have no end.
        no_client_commands(text, &tokens)?;
    }
    if dialect == Dialect::Cypher {
        no_shell_commands(text, &tokens)?;
    }
    if let Some(unended) = unended {
        return Err(unended);
    }
    let mut statements = Vec::new();
    let mut rest = tokens.as_slice();
    while !rest.is_empty() {
        let (own, after) = rest.split_at(length(dialect, text, rest)?);
        if let (Some(first), Some(last)) = (own.first(), own.last()) {
            let text = text.get(first.start..last.end).unwrap_or_default().to_owned();
            statements.push(Statement { text, line: first.line });
        }
        rest = after.get(1..).unwrap_or_default();
    }
    Ok(statements)
}

/// How many of the tokens make up the first statement, its semicolon not counted.
fn length(dialect: Dialect, text: &str, tokens: &[Token]) -> Result<usize, SplitError> {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|t| t.is_word(text, word));
    let plain = tokens.iter().position(|t| t.is_punct(text, ";")).unwrap_or(tokens.len());
    if !is(0, "create") {
        return Ok(plain);
    }
    match dialect {
        Dialect::Cypher => Ok(plain),
        Dialect::Sqlite => {
            let kind = if is(1, "temp") || is(1, "temporary") { 2 } else { 1 };
            if is(kind, "trigger") { trigger(text, tokens) } else { Ok(plain) }
        }
        Dialect::Postgres => {
            let kind = if is(1, "or") && is(2, "replace") { 3 } else { 1 };
            if is(kind, "function") || is(kind, "procedure") {
                routine(text, tokens)
            } else if is(kind, "rule") {
                rule(text, tokens)
            } else {
                Ok(plain)
            }
        }
        Dialect::Mysql | Dialect::Sqlserver => {
            let own = tokens.get(..plain).unwrap_or_default();
            match own.iter().find(|token| token.is_word(text, "begin")) {
                Some(token) => Err(SplitError {
                    line: token.line,
                    message: format!("bodies of {} routines can't be read yet", dialect.name()),
                    help: "create the routine outside of the plan".to_owned(),
                }),
                None => Ok(plain),
            }
        }
    }
}

/// The statements of a script that runs in one transaction, without a BEGIN and COMMIT of its own around all of them.
///
/// Many migration files have these two, and they say what is done anyway. Any other statement about transactions stays, and
/// [`classify`](super::classify) refuses it.
#[must_use]
pub fn unwrapped(dialect: Dialect, mut statements: Vec<Statement>) -> Vec<Statement> {
    if dialect == Dialect::Postgres {
        let texts: Vec<&str> = statements.iter().map(|statement| statement.text.as_str()).collect();
        if postgres::wrapped(&texts) {
            statements.pop();
            statements.remove(0);
        }
    }
    statements
}

/// What psql does by itself, and no server understands: its own commands, and rows that follow a COPY.
fn no_client_commands(text: &str, tokens: &[Token]) -> Result<(), SplitError> {
    let mut rest = tokens;
    while let Some(first) = rest.first() {
        let end = rest.iter().position(|token| token.is_punct(text, ";"));
        let own = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        if let Some(command) = own.iter().find(|token| token.is_punct(text, "\\")) {
            return Err(client_command(text, command));
        }
        let is_from_client = own.windows(2).any(|pair| match pair {
            [from, stdin] => from.is_word(text, "from") && stdin.is_word(text, "stdin"),
            _ => false,
        });
        if first.is_word(text, "copy") && is_from_client {
            return Err(SplitError {
                line: first.line,
                message: "COPY … FROM STDIN reads rows from a client, and there is none".to_owned(),
                help: ROWS_INSTEAD.to_owned(),
            });
        }
        rest = end.and_then(|end| rest.get(end + 1..)).unwrap_or_default();
    }
    Ok(())
}

/// What cypher-shell does by itself. Its commands stand where statements begin and end with their lines.
fn no_shell_commands(text: &str, tokens: &[Token]) -> Result<(), SplitError> {
    for (at, token) in tokens.iter().enumerate() {
        let begins = at == 0 || tokens.get(at - 1).is_some_and(|before| before.is_punct(text, ";"));
        if begins && token.is_punct(text, ":") {
            let word = tokens.get(at + 1).map_or("", |word| word.text(text));
            return Err(SplitError {
                line: token.line,
                message: format!(":{word} is a command of cypher-shell, and no Cypher"),
                help: "leave it out: only Cypher is sent to the server".to_owned(),
            });
        }
    }
    Ok(())
}

const ROWS_INSTEAD: &str = "write the rows as INSERT … VALUES, or load them outside of the plan";

fn client_command(text: &str, command: &Token) -> SplitError {
    let written = text.get(command.start..).unwrap_or_default();
    let word = written.split_ascii_whitespace().next().unwrap_or_default().trim_end_matches(';');
    let help = match word {
        "\\i" | "\\ir" | "\\include" => "give each file a step of its own: `sql: { file: path }`",
        "\\copy" => ROWS_INSTEAD,
        _ => "leave it out: only SQL is sent to the server",
    };
    SplitError {
        line: command.line,
        message: format!("{word} is a command of psql, and no SQL"),
        help: help.to_owned(),
    }
}

/// The statements of a rule's action stand in parentheses, with semicolons between them.
fn rule(text: &str, tokens: &[Token]) -> Result<usize, SplitError> {
    let mut depth = 0_u32;
    for (at, token) in tokens.iter().enumerate() {
        if token.is_punct(text, "(") {
            depth += 1;
        } else if token.is_punct(text, ")") {
            depth = depth.saturating_sub(1);
        } else if token.is_punct(text, ";") && depth == 0 {
            return Ok(at);
        }
    }
    if depth == 0 {
        return Ok(tokens.len());
    }
    let line = tokens.first().map_or(1, |token| token.line);
    Err(SplitError {
        line,
        message: format!("the rule that begins on line {line} has a parenthesis without end"),
        help: "close it with )".to_owned(),
    })
}

/// SQLite's CREATE TRIGGER ends at the first `; END` with nothing behind it: each statement of a body has a semicolon, and
/// the END of a CASE never follows one. `sqlite3_complete()` goes by the same rule.
fn trigger(text: &str, tokens: &[Token]) -> Result<usize, SplitError> {
    const MAY_STAND_IN_A_BODY: [&str; 8] =
        ["insert", "update", "delete", "replace", "select", "with", "values", "end"];
    let first_line = tokens.first().map_or(1, |token| token.line);
    let unended = |line: u32| SplitError {
        line,
        message: format!("the trigger that begins on line {first_line} has no END of its own"),
        help: "end its body with `END;`, and each statement in it with a semicolon".to_owned(),
    };
    for (at, token) in tokens.iter().enumerate() {
        if !token.is_punct(text, ";") {
            continue;
        }
        let Some(next) = tokens.get(at + 1) else { break };
        let ends = tokens.get(at + 2).is_none_or(|behind| behind.is_punct(text, ";"));
        if next.is_word(text, "end") && ends {
            return Ok(at + 2);
        }
        if !MAY_STAND_IN_A_BODY.iter().any(|word| next.is_word(text, word)) {
            return Err(unended(next.line));
        }
    }
    Err(unended(first_line))
}

/// PostgreSQL's CREATE FUNCTION may have a body of plain statements between BEGIN ATOMIC and END.
fn routine(text: &str, tokens: &[Token]) -> Result<usize, SplitError> {
    let mut depth = 0_u32;
    let mut before: Option<&Token> = None;
    for (at, token) in tokens.iter().enumerate() {
        if token.is_punct(text, ";") && depth == 0 {
            return Ok(at);
        }
        let begins = token.is_word(text, "atomic")
            && before.is_some_and(|before| before.is_word(text, "begin"));
        if begins || (depth > 0 && token.is_word(text, "case")) {
            depth += 1;
        } else if depth > 0 && token.is_word(text, "end") {
            depth -= 1;
        }
        before = Some(token);
    }
    if depth == 0 {
        return Ok(tokens.len());
    }
    let line = tokens.first().map_or(1, |token| token.line);
    Err(SplitError {
        line,
        message: format!("the function that begins on line {line} has no END"),
        help: "end its body with `END;`".to_owned(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Dialect; 4] =
        [Dialect::Sqlite, Dialect::Postgres, Dialect::Mysql, Dialect::Sqlserver];

    /// Each statement with its line.
    type Parts = &'static [(u32, &'static str)];

    fn parts(dialect: Dialect, text: &str) -> Vec<(u32, String)> {
        split(dialect, text, 1).unwrap().into_iter().map(|s| (s.line, s.text)).collect()
    }

    fn check(dialect: Dialect, text: &str, expected: &[(u32, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(l, t)| (*l, (*t).to_owned())).collect();
        assert_eq!(parts(dialect, text), expected, "{dialect:?}: {text}");
    }

    #[test]
    fn every_dialect_splits_plain_scripts() {
        let cases: [(&str, Parts); 9] = [
            ("", &[]),
            (" ;; \n ; -- nothing\n", &[]),
            ("SELECT 1", &[(1, "SELECT 1")]),
            ("SELECT 1;", &[(1, "SELECT 1")]),
            ("SELECT 1; SELECT 2", &[(1, "SELECT 1"), (1, "SELECT 2")]),
            ("\n\nSELECT\n1;\r\n\r\nSELECT 2;", &[(3, "SELECT\n1"), (6, "SELECT 2")]),
            ("-- first; of all\n/* a;\nb */ SELECT 1 -- c;\n;", &[(3, "SELECT 1")]),
            (
                "SELECT 'a;b', 'it''s; so' ; SELECT ';'",
                &[(1, "SELECT 'a;b', 'it''s; so'"), (1, "SELECT ';'")],
            ),
            (
                "SELECT /* in; side */ 1 - -1; BEGIN; COMMIT",
                &[(1, "SELECT /* in; side */ 1 - -1"), (1, "BEGIN"), (1, "COMMIT")],
            ),
        ];
        for dialect in ALL {
            for (text, expected) in &cases {
                check(dialect, text, expected);
            }
        }
    }

    #[test]
    fn each_dialect_has_quotes_of_its_own() {
        let cases: [(Dialect, &str, Parts); 18] = [
            (
                Dialect::Sqlite,
                "SELECT \"a;\"\"b\", `c;``d`, [e;f]; x",
                &[(1, "SELECT \"a;\"\"b\", `c;``d`, [e;f]"), (1, "x")],
            ),
            (Dialect::Sqlite, "SELECT 'back\\'; x", &[(1, "SELECT 'back\\'"), (1, "x")]),
            (Dialect::Sqlite, "SELECT $a$; x", &[(1, "SELECT $a$"), (1, "x")]),
            (Dialect::Sqlite, "/* /* */ SELECT 1; x", &[(1, "SELECT 1"), (1, "x")]),
            (Dialect::Sqlite, "\u{feff}SELECT 1; x", &[(1, "SELECT 1"), (1, "x")]),
            (Dialect::Sqlite, "SELECT größe FROM ü; x", &[(1, "SELECT größe FROM ü"), (1, "x")]),
            (Dialect::Postgres, "SELECT $$a;b$$; x", &[(1, "SELECT $$a;b$$"), (1, "x")]),
            (
                Dialect::Postgres,
                "SELECT $f$ $$;$$ $g$;$g$ $f$; x",
                &[(1, "SELECT $f$ $$;$$ $g$;$g$ $f$"), (1, "x")],
            ),
            (Dialect::Postgres, "SELECT $1; x", &[(1, "SELECT $1"), (1, "x")]),
            (Dialect::Postgres, "SELECT a$b$; x$b$", &[(1, "SELECT a$b$"), (1, "x$b$")]),
            (
                Dialect::Postgres,
                "SELECT E'it\\';s', e'\\\\'; x",
                &[(1, "SELECT E'it\\';s', e'\\\\'"), (1, "x")],
            ),
            (Dialect::Postgres, "SELECT a[1]; x", &[(1, "SELECT a[1]"), (1, "x")]),
            (Dialect::Postgres, "/* /* ; */ ; */ SELECT 1; x", &[(1, "SELECT 1"), (1, "x")]),
            (
                Dialect::Mysql,
                "SELECT 'it\\';s', \"a\\\";\"; x # y;\n",
                &[(1, "SELECT 'it\\';s', \"a\\\";\""), (1, "x")],
            ),
            (Dialect::Mysql, "SELECT 5--3; x -- y;\n", &[(1, "SELECT 5--3"), (1, "x")]),
            (
                Dialect::Mysql,
                "/*!40101 SET NAMES utf8 */; x",
                &[(1, "/*!40101 SET NAMES utf8 */"), (1, "x")],
            ),
            (Dialect::Sqlserver, "SELECT [a]];b]; x", &[(1, "SELECT [a]];b]"), (1, "x")]),
            (Dialect::Sqlserver, "/* /* ; */ ; */ SELECT 1; x", &[(1, "SELECT 1"), (1, "x")]),
        ];
        for (dialect, text, expected) in cases {
            check(dialect, text, expected);
        }
    }

    #[test]
    fn line_comments_end_where_the_server_ends_them() {
        for (dialect, text, expected) in [
            (Dialect::Cypher, "RETURN 1 // a\r; RETURN 2", 2),
            (Dialect::Postgres, "SELECT 1 -- a\r; SELECT 2", 2),
            (Dialect::Sqlite, "SELECT 1 -- a\r; SELECT 2", 1),
            (Dialect::Mysql, "SELECT 1 -- a\r; SELECT 2", 1),
        ] {
            assert_eq!(parts(dialect, text).len(), expected, "{dialect:?}");
        }
    }

    #[test]
    fn bodies_stay_whole() {
        let trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n  INSERT INTO b SELECT CASE WHEN 1 THEN 2 END;\n  \
                       UPDATE c SET end = CASE new.x WHEN ';' THEN 1 ELSE 2 END; -- END;\nEND";
        for text in [
            trigger.to_owned(),
            trigger.replace("CREATE TRIGGER", "create temp trigger"),
            trigger.replace("CREATE TRIGGER", "CREATE /* ; */ TEMPORARY TRIGGER IF NOT EXISTS"),
        ] {
            let script = format!("SELECT 1; {text};\nSELECT 2;");
            check(Dialect::Sqlite, &script, &[(1, "SELECT 1"), (1, &text), (5, "SELECT 2")]);
            check(Dialect::Sqlite, &text, &[(1, &text)]);
        }
        let routine = "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END";
        check(Dialect::Postgres, &format!("{routine}; x"), &[(1, routine), (1, "x")]);
        for whole in [
            "CREATE FUNCTION f() RETURNS int AS $$ BEGIN; END $$ LANGUAGE plpgsql",
            "CREATE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC\n INSERT INTO a VALUES (1);\n DELETE FROM b;\nEND",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN CASE WHEN true THEN 1 END",
            "CREATE FUNCTION f() RETURNS text AS $a$ SELECT $b$;$b$; $a$ LANGUAGE sql",
            "create or replace rule r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (';'); DELETE FROM v)",
            "CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING",
            "DO $do$ BEGIN; PERFORM $$;$$; END $do$",
            "SELECT U&'d\\0061t;' UESCAPE '!', U&\"a;\", E'\\';', $_$;$_$",
        ] {
            let lines = u32::try_from(whole.lines().count()).unwrap();
            check(Dialect::Postgres, &format!("{whole}; x"), &[(1, whole), (lines, "x")]);
        }
        // A table is not a trigger for being called one.
        check(
            Dialect::Sqlite,
            "CREATE TABLE trigger_log (a); x",
            &[(1, "CREATE TABLE trigger_log (a)"), (1, "x")],
        );
    }

    #[test]
    fn only_a_plain_transaction_around_everything_is_taken_off() {
        let left = |dialect: Dialect, text: &str| -> Vec<String> {
            let statements = unwrapped(dialect, split(dialect, text, 1).unwrap());
            statements.into_iter().map(|statement| statement.text).collect()
        };
        for text in [
            "BEGIN; x; y; COMMIT;",
            "begin transaction; x; y; end",
            "-- why\nSTART TRANSACTION;\nx; y;\nCOMMIT WORK;",
        ] {
            assert_eq!(left(Dialect::Postgres, text), ["x", "y"], "{text}");
        }
        for (text, count) in [
            ("BEGIN; x; COMMIT; y", 4),
            ("BEGIN; COMMIT", 2),
            ("BEGIN ISOLATION LEVEL SERIALIZABLE; x; COMMIT", 3),
            ("BEGIN; x; COMMIT AND CHAIN", 3),
            ("BEGIN; x; ROLLBACK", 3),
            ("x; COMMIT", 2),
        ] {
            assert_eq!(left(Dialect::Postgres, text).len(), count, "{text}");
        }
        assert_eq!(left(Dialect::Sqlite, "BEGIN; x; COMMIT").len(), 3);
    }

    #[test]
    fn what_only_psql_understands_is_refused_by_name() {
        let cases = [
            ("SELECT 1;\n\\i other.sql\nSELECT 2;", 11, "\\i", "a step of its own"),
            ("\\set ON_ERROR_STOP on", 10, "\\set", "leave it out"),
            ("SELECT 1;\n\n\\copy t from 'f'", 12, "\\copy", "INSERT"),
            ("SELECT 1 \\gexec", 10, "\\gexec", "leave it out"),
            ("x;\nCOPY t (a) FROM stdin;\n1\tit's\n\\.\n", 11, "STDIN", "INSERT"),
        ];
        for (text, line, word, help) in cases {
            let error = split(Dialect::Postgres, text, 10).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.message.contains(word), "{text}: {error}");
            assert!(error.help.contains(help), "{text}: {}", error.help);
        }
        check(Dialect::Postgres, "SELECT E'\\i' -- \\i\n;", &[(1, "SELECT E'\\i'")]);
    }

    #[test]
    fn what_has_no_end_is_an_error_with_the_line_it_begins_on() {
        let cases = [
            (Dialect::Sqlite, "SELECT 1;\n\nSELECT 'a;\nb", 12, "string"),
            (Dialect::Sqlite, "SELECT \"a", 10, "quoted name"),
            (Dialect::Sqlite, "\nSELECT [a", 11, "quoted name"),
            (Dialect::Sqlite, "SELECT `a", 10, "quoted name"),
            (Dialect::Sqlite, "x;\n/* a", 11, "comment"),
            (Dialect::Postgres, "x;\n/* a /* b */", 11, "comment"),
            (Dialect::Postgres, "x;\nSELECT $a$ b $", 11, "string"),
            (Dialect::Postgres, "x;\nCREATE RULE r AS ON INSERT TO t DO (a; b", 11, "rule"),
            (Dialect::Sqlite, "SELECT 1;\0 DROP TABLE x", 10, "NUL"),
            (
                Dialect::Sqlite,
                "x;\nCREATE TRIGGER t AFTER INSERT ON a BEGIN\nSELECT 1;",
                11,
                "trigger",
            ),
            (
                Dialect::Sqlite,
                "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1;\nDROP TABLE b;\nEND;",
                11,
                "trigger",
            ),
            (
                Dialect::Postgres,
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1;",
                10,
                "function",
            ),
            (Dialect::Mysql, "x;\nCREATE PROCEDURE p()\nBEGIN SELECT 1; END;", 12, "MySQL"),
        ];
        for (dialect, text, line, word) in cases {
            let error = split(dialect, text, 10).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.message.contains(word), "{text}: {error}");
            assert!(!error.help.is_empty());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_split_or_refused_and_nothing_but_comments_is_lost(
            text in "(SELECT|CREATE|TRIGGER|BEGIN|END|CASE|[a-z$]|['\"`\\[\\];;;/*-]|\\$\\$|/\\*|\\*/|--|[ \n]|ü|\\\\){0,40}"
        ) {
            for dialect in ALL {
                let Ok(statements) = split(dialect, &text, 1) else { continue };
                let mut from = 0;
                for statement in &statements {
                    prop_assert!(!statement.text.is_empty());
                    let at = text[from..].find(&statement.text);
                    prop_assert!(at.is_some(), "{:?} of {:?}", statement.text, text);
                    from += at.unwrap() + statement.text.len();
                    // Each part is whole: splitting it again gives itself. (In MySQL dashes at the very end are a comment.)
                    if dialect == Dialect::Mysql && statement.text.ends_with("--") {
                        continue;
                    }
                    let again = split(dialect, &statement.text, statement.line);
                    prop_assert_eq!(again.unwrap(), vec![statement.clone()]);
                }
            }
        }
    }
}
