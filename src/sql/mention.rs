//! Whether a text of SQL names an object: for bodies of functions, which the catalogue keeps as text and says nothing about.
//!
//! It is read token by token, since a body may be in a procedural language that no parser here knows. Names in comments are
//! none. A string names an object where it is nothing but the name (`'leads'::regclass`), or has it as a word in a body that
//! runs statements it puts together (`EXECUTE`). Absent on purpose: what a name stands for, which only the server knows: an
//! alias or a variable of that name counts, which is the careful reading.

use super::Dialect;
use super::identifier::qualified_name;
use super::token::{Kind, Token, tokens};

/// Whether a text names an object of PostgreSQL. Where a schema is asked for, a name that stands behind another one and a dot
/// is something else. A text that can't be read names everything.
#[must_use]
pub fn mentions(text: &str, schema: Option<&str>, name: &str) -> bool {
    let Ok(tokens) = tokens(Dialect::Postgres, text, 1) else { return true };
    let is_dynamic = tokens.iter().any(|token| token.is_word(text, "execute"));
    tokens.iter().enumerate().any(|(at, token)| match token.kind {
        Kind::Word | Kind::Quoted => {
            is_name(text, token, name) && !is_of_another(text, &tokens[..at], schema)
        }
        Kind::Text => {
            let inside = inside(token.text(text));
            is_just(inside, schema, name) || is_dynamic && has_word(inside, name)
        }
        Kind::Punct => false,
    })
}

/// Whether a token is a name: PostgreSQL takes what isn't quoted for lower case.
fn is_name(text: &str, token: &Token, name: &str) -> bool {
    let written = token.name(text).unwrap_or_default();
    match token.kind {
        Kind::Word => written.to_ascii_lowercase() == name,
        _ => written == name,
    }
}

/// Whether what stands before a name makes it another schema's, or a column of something.
fn is_of_another(text: &str, before: &[Token], schema: Option<&str>) -> bool {
    let (Some(schema), [.., qualifier, dot]) = (schema, before) else { return false };
    dot.is_punct(text, ".")
        && matches!(qualifier.kind, Kind::Word | Kind::Quoted)
        && !is_name(text, qualifier, schema)
}

/// What stands between a string's quotes.
fn inside(string: &str) -> &str {
    if string.starts_with('\'') {
        return string.trim_matches('\'');
    }
    let Some((tag, rest)) = string.get(1..).and_then(|rest| rest.split_once('$')) else {
        return string;
    };
    rest.strip_suffix(&format!("${tag}$")).unwrap_or(rest)
}

/// Whether a string is nothing but the name.
fn is_just(string: &str, schema: Option<&str>, name: &str) -> bool {
    let (qualifier, written) = qualified_name(string.trim());
    let is_its_schema = match (&qualifier, schema) {
        (Some(qualifier), Some(schema)) => qualifier.eq_ignore_ascii_case(schema),
        _ => true,
    };
    written.eq_ignore_ascii_case(name) && is_its_schema
}

/// Whether a string has a word. Its quotes and comments may be closed elsewhere.
fn has_word(string: &str, name: &str) -> bool {
    let (string, name) = (string.to_ascii_lowercase(), name.to_ascii_lowercase());
    let is_part = |char: char| char.is_alphanumeric() || char == '_';
    string.match_indices(&name).any(|(at, found)| {
        let before = string[..at].chars().next_back();
        let behind = string[at + found.len()..].chars().next();
        !before.is_some_and(is_part) && !behind.is_some_and(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_a_table_where_it_uses_it() {
        let table = [
            ("SELECT count(*) FROM leads", true),
            ("SELECT count(*) FROM LEADS l", true),
            ("BEGIN INSERT INTO public.leads VALUES (1); END", true),
            ("DECLARE l leads%ROWTYPE; BEGIN END", true),
            ("SELECT leads.id FROM x AS leads", true),
            ("SELECT count(*) FROM \"leads\"", true),
            ("SELECT count(*) FROM \"Leads\"", false),
            ("SELECT count(*) FROM leads_v2, misleads", false),
            ("SELECT count(*) FROM crm.leads", false),
            ("SELECT a.leads FROM accounts a", false),
            ("SELECT 1 -- leads\n/* leads /* leads */ leads */", false),
            ("BEGIN RAISE NOTICE 'no leads'; END", false),
            ("SELECT 'leads'::regclass", true),
            ("SELECT to_regclass('public.leads')", true),
            ("SELECT to_regclass('crm.leads')", false),
            ("BEGIN EXECUTE 'DELETE FROM leads WHERE id = $1' USING 1; END", true),
            ("BEGIN EXECUTE format($q$DELETE FROM %I$q$, $q$leads$q$); END", true),
            ("BEGIN EXECUTE 'DELETE FROM leads_v2'; END", false),
            ("BEGIN EXECUTE 'SELECT ''' || 'leads' || ''''; END", true),
            ("SELECT 'it has no end FROM leads", true),
            ("SELECT 'it has no end", true),
        ];
        for (text, expected) in table {
            assert_eq!(mentions(text, Some("public"), "leads"), expected, "{text}");
        }
    }

    #[test]
    fn a_column_is_named_whatever_stands_before_it() {
        let table = [
            ("NEW.email := lower(NEW.email)", true),
            ("NEW.Email := ''", true),
            ("NEW.email_v2 := ''", false),
            ("-- email", false),
        ];
        for (text, expected) in table {
            assert_eq!(mentions(text, None, "email"), expected, "{text}");
        }
    }
}
