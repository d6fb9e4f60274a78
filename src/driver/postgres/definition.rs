//! Definitions as the server writes them (of indexes and constraints), read as names of columns and the rest.
//!
//! Invariants:
//! - What the server writes is known: keywords in capitals, names in lower case or in quotes. So a word is taken for a column
//!   only where no keyword, function, type, collation or field can stand.
//! - Text in single quotes is never touched.
//!
//! Absent on purpose: reading what people write. It is written in any way that SQL allows.

use super::catalogue::quote;

/// A stretch of a definition.
enum Piece<'d> {
    /// What may be a column's name: the name itself, and how it is written.
    Name(String, &'d str),
    Other(&'d str),
}

/// Words that go on with a type's name.
const OF_TYPES: [&str; 6] = ["with", "without", "time", "zone", "varying", "precision"];

/// Words that the server writes small though they are no names.
const VALUES: [&str; 2] = ["true", "false"];

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_' || char == '$'
}

/// Where a text in quotes that begins a definition ends, its last quote included.
fn quoted_end(text: &str, mark: char) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, char)) = chars.next() {
        if char == mark && chars.next_if(|(_, next)| *next == mark).is_none() {
            return at + mark.len_utf8();
        }
    }
    text.len()
}

fn pieces(definition: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut at, mut in_type) = (0, false);
    while let Some(first) = definition[at..].chars().next() {
        let (before, rest) = definition.split_at(at);
        let length = match first {
            '\'' | '"' => quoted_end(rest, first),
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (piece, behind) = rest.split_at(length);
        if first == '"' || is_word(first) {
            let is_length = first.is_ascii_digit();
            let goes_on =
                in_type && (is_length || before.ends_with(' ') && OF_TYPES.contains(&piece));
            in_type = goes_on || before.ends_with("::");
            let is_none = in_type
                || before.ends_with('.')
                || behind.starts_with(['.', '('])
                || before.ends_with("COLLATE ")
                || before.ends_with("EXTRACT(");
            pieces.push(match name(piece).filter(|_| !is_none) {
                Some(name) => Piece::Name(name, piece),
                None => Piece::Other(piece),
            });
        } else {
            // The length of a type stands between its words.
            in_type = in_type && matches!(first, ' ' | '(' | ')');
            pieces.push(Piece::Other(piece));
        }
        at += length;
    }
    pieces
}

/// The name that a word or a text in double quotes stands for, if it can be one.
fn name(piece: &str) -> Option<String> {
    if let Some(inner) = piece.strip_prefix('"') {
        return Some(inner.strip_suffix('"').unwrap_or(inner).replace("\"\"", "\""));
    }
    (is_plain(piece) && !VALUES.contains(&piece)).then(|| piece.to_owned())
}

/// Whether the server writes a name without quotes, unless it is a keyword.
fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// A definition with other names for columns, each in quotes.
pub(super) fn renamed<'n>(definition: &str, new_name: &impl Fn(&str) -> Option<&'n str>) -> String {
    let written = |piece: &Piece<'_>| match piece {
        Piece::Name(name, as_it_is) => new_name(name).map_or_else(|| (*as_it_is).to_owned(), quote),
        Piece::Other(text) => (*text).to_owned(),
    };
    pieces(definition).iter().map(written).collect()
}

/// Whether two definitions say the same, whichever names stand in quotes.
pub(super) fn same(one: &str, other: &str) -> bool {
    let bare = |definition: &str| -> Vec<String> {
        let written = |piece: &Piece<'_>| match piece {
            Piece::Name(name, _) => quote(name),
            Piece::Other(text) => (*text).to_owned(),
        };
        pieces(definition).iter().map(written).collect()
    };
    one == other || bare(one) == bare(other)
}

/// Whether a definition names a column.
pub(super) fn names(definition: &str, column: &str) -> bool {
    pieces(definition).iter().any(|piece| matches!(piece, Piece::Name(name, _) if name == column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_columns_are_replaced_where_they_are_names() {
        let cases = [
            ("email", "btree (email)", "btree (\"E 2\")"),
            ("email", "btree (lower(email), n)", "btree (lower(\"E 2\"), n)"),
            ("email", "CHECK ((email <> 'email'::text))", "CHECK ((\"E 2\" <> 'email'::text))"),
            (
                "email",
                "CHECK ((email <> 'a''email'::text))",
                "CHECK ((\"E 2\" <> 'a''email'::text))",
            ),
            ("email", "CHECK (email(x) = \"email\")", "CHECK (email(x) = \"E 2\")"),
            (
                "email",
                "FOREIGN KEY (emails) REFERENCES e(id)",
                "FOREIGN KEY (emails) REFERENCES e(id)",
            ),
            ("select", "btree (\"select\" DESC)", "btree (\"E 2\" DESC)"),
            ("Select", "btree (\"select\", \"Select\")", "btree (\"select\", \"E 2\")"),
            ("a\"b", "btree (\"a\"\"b\", \"a\", b)", "btree (\"E 2\", \"a\", b)"),
            ("text", "CHECK ((text <> ''::text))", "CHECK ((\"E 2\" <> ''::text))"),
            (
                "zone",
                "btree ((at)::timestamp(3) without time zone, zone)",
                "btree ((at)::timestamp(3) without time zone, \"E 2\")",
            ),
            ("citext", "CHECK ((a = (b)::public.citext))", "CHECK ((a = (b)::public.citext))"),
            ("C", "btree (n COLLATE \"C\", \"C\")", "btree (n COLLATE \"C\", \"E 2\")"),
            (
                "year",
                "CHECK ((EXTRACT(year FROM year) > 1))",
                "CHECK ((EXTRACT(year FROM \"E 2\") > 1))",
            ),
            ("city", "CHECK (((address).city <> city))", "CHECK (((address).city <> \"E 2\"))"),
            ("true", "CHECK ((b = true))", "CHECK ((b = true))"),
            ("1000", "CHECK ((n < 1000))", "CHECK ((n < 1000))"),
            ("CHECK", "CHECK ((\"CHECK\" > 0))", "CHECK ((\"E 2\" > 0))"),
        ];
        for (old, definition, expected) in cases {
            let new_name = |name: &str| (name == old).then_some("E 2");
            assert_eq!(renamed(definition, &new_name), expected);
            assert_eq!(names(definition, old), definition != expected, "{definition}");
        }
    }

    #[test]
    fn quotes_don_t_make_another_definition() {
        assert!(same("btree (email)", "btree (\"email\")"));
        assert!(same("btree (\"select\")", "btree (\"select\")"));
        assert!(!same("btree (\"Email\")", "btree (email)"));
        assert!(!same("CHECK ((a = 'b'::text))", "CHECK ((a = 'c'::text))"));
    }
}
