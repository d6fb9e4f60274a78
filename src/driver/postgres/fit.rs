//! Whether the values of one column fit into another, by their types alone.
//!
//! Values that change without a word are worse than values that are refused: verify takes a value for what storing it
//! makes of it, so nobody would notice. Absent on purpose: pairs that the server itself refuses to assign, which preparing
//! the statement shows, and expressions, whose author has said what is meant.

use super::catalogue::Column;

/// How values of one type are stored under another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// As they are.
    Whole,
    /// As they are, or not at all: what is too long or too large is refused.
    Refused,
    /// Changed without a word: rounded, cut, or moved to another zone.
    Changed,
}

/// Kinds of types whose values can be told to fit or not.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Whole numbers, by their bytes.
    Integer(u32),
    /// Digits in all and behind the point; `None` where nothing limits them.
    Numeric(Option<(u32, i32)>),
    /// Floating numbers, by the whole decimal digits that they hold.
    Float(u32),
    /// Text of at most so many characters.
    Text(Option<u32>),
    /// Text filled up with blanks.
    Padded(u32),
    /// A point in time with or without zone, and the digits of its seconds.
    Timestamp {
        has_zone: bool,
        digits: u32,
    },
    Date,
    /// A span of time whose fields or digits may be limited.
    Interval {
        is_whole: bool,
    },
    /// A time of day.
    Time {
        has_zone: bool,
        digits: u32,
    },
    Other,
}

/// How values of `source` are stored in `target`.
#[allow(clippy::match_same_arms)] // a line for each pair of kinds: the table is easier to read than its sum
pub(super) fn fit(source: &Column, target: &Column) -> Fit {
    if source.declared == target.declared {
        return Fit::Whole;
    }
    match (kind(source), kind(target)) {
        (Kind::Integer(from), Kind::Integer(into)) if from > into => Fit::Refused,
        (Kind::Integer(from), Kind::Numeric(Some((digits, scale)))) => {
            let needed = match from {
                2 => 5,
                4 => 10,
                _ => 19,
            };
            match i64::from(digits) - i64::from(scale) < needed {
                _ if scale < 0 => Fit::Changed,
                true => Fit::Refused,
                false => Fit::Whole,
            }
        }
        (Kind::Integer(from), Kind::Float(digits)) if from * 2 >= digits => Fit::Changed,
        (Kind::Numeric(_) | Kind::Float(_), Kind::Integer(_))
        | (Kind::Numeric(_), Kind::Float(_))
        | (Kind::Timestamp { .. }, Kind::Date | Kind::Time { .. }) => Fit::Changed,
        (Kind::Float(from), Kind::Float(into)) if from > into => Fit::Changed,
        (Kind::Float(_), Kind::Numeric(_)) => Fit::Changed,
        (Kind::Numeric(None), Kind::Numeric(Some(_))) => Fit::Changed,
        (Kind::Numeric(Some((from, from_scale))), Kind::Numeric(Some((into, into_scale)))) => {
            let whole = |digits: u32, scale: i32| i64::from(digits) - i64::from(scale);
            if into_scale < from_scale {
                Fit::Changed
            } else if whole(into, into_scale) < whole(from, from_scale) {
                Fit::Refused
            } else {
                Fit::Whole
            }
        }
        (Kind::Text(from), Kind::Text(Some(into))) if from.is_none_or(|from| from > into) => {
            Fit::Refused
        }
        (Kind::Padded(from), Kind::Text(Some(into)) | Kind::Padded(into)) if from > into => {
            Fit::Refused
        }
        // Blanks at the end come or go.
        (Kind::Text(_), Kind::Padded(_)) | (Kind::Padded(_), Kind::Text(_)) => Fit::Changed,
        (
            Kind::Timestamp { has_zone: from, digits: from_digits },
            Kind::Timestamp { has_zone: into, digits: into_digits },
        )
        | (
            Kind::Time { has_zone: from, digits: from_digits },
            Kind::Time { has_zone: into, digits: into_digits },
        ) if from != into || from_digits > into_digits => Fit::Changed,
        (Kind::Date, Kind::Timestamp { has_zone: true, .. })
        | (Kind::Interval { .. }, Kind::Interval { is_whole: false }) => Fit::Changed,
        _ => Fit::Whole,
    }
}

fn kind(column: &Column) -> Kind {
    let (first, second) = modifiers(&column.stored_sql);
    let digits = first.and_then(|digits| u32::try_from(digits).ok());
    // Arrays hold what their elements do; whether both sides are arrays the server sees.
    let bare = column.type_sql.strip_suffix("[]").unwrap_or(&column.type_sql);
    let stored = column.stored_sql.strip_suffix("[]").unwrap_or(&column.stored_sql);
    match bare {
        "smallint" => Kind::Integer(2),
        "integer" => Kind::Integer(4),
        "bigint" => Kind::Integer(8),
        "numeric" => Kind::Numeric(digits.map(|digits| (digits, second.unwrap_or(0)))),
        // 24 and 53 bits of mantissa.
        "real" => Kind::Float(7),
        "double precision" => Kind::Float(15),
        "text" => Kind::Text(None),
        "character varying" => Kind::Text(digits),
        "character" | "bpchar" => Kind::Padded(digits.unwrap_or(1)),
        "timestamp without time zone" => {
            Kind::Timestamp { has_zone: false, digits: digits.unwrap_or(6) }
        }
        "timestamp with time zone" => {
            Kind::Timestamp { has_zone: true, digits: digits.unwrap_or(6) }
        }
        "date" => Kind::Date,
        "interval" => Kind::Interval { is_whole: matches!(stored, "interval" | "interval(6)") },
        "time without time zone" => Kind::Time { has_zone: false, digits: digits.unwrap_or(6) },
        "time with time zone" => Kind::Time { has_zone: true, digits: digits.unwrap_or(6) },
        _ => Kind::Other,
    }
}

/// The numbers in the parentheses of a type's name: `numeric(10,2)`.
fn modifiers(declared: &str) -> (Option<i32>, Option<i32>) {
    let inside = declared.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    let Some((inside, _)) = inside else { return (None, None) };
    let mut numbers = inside.split(',').map(|number| number.trim().parse().ok());
    (numbers.next().flatten(), numbers.next().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(declared: &str) -> Column {
        let declared_bare = declared.strip_suffix(" day to minute").unwrap_or(declared);
        let type_sql = match declared_bare.split_once('(') {
            Some((before, rest)) => {
                format!("{before}{}", rest.split_once(')').map_or("", |(_, behind)| behind))
            }
            None => declared_bare.to_owned(),
        };
        Column {
            number: 1,
            name: "c".into(),
            declared: declared.into(),
            type_sql,
            stored_sql: declared.into(),
            type_oid: 0,
            base_oid: 0,
            collation: None,
            is_nondeterministic: false,
            not_null: false,
            default: None,
            identity: None,
            is_generated: false,
        }
    }

    #[test]
    fn narrower_types_are_told_from_wider_ones() {
        for (source, target, expected) in [
            ("integer", "bigint", Fit::Whole),
            ("bigint", "integer", Fit::Refused),
            ("integer", "double precision", Fit::Whole),
            ("bigint", "double precision", Fit::Changed),
            ("integer", "real", Fit::Changed),
            ("smallint", "real", Fit::Whole),
            ("integer", "numeric", Fit::Whole),
            ("integer", "numeric(9,0)", Fit::Refused),
            ("integer", "numeric(12,2)", Fit::Whole),
            ("numeric(10,2)", "integer", Fit::Changed),
            ("numeric(10,2)", "numeric(12,2)", Fit::Whole),
            ("numeric(10,2)", "numeric(10,4)", Fit::Refused),
            ("numeric(10,2)", "numeric(10,1)", Fit::Changed),
            ("numeric(10,2)", "numeric", Fit::Whole),
            ("numeric", "numeric(10,2)", Fit::Changed),
            ("double precision", "real", Fit::Changed),
            ("real", "double precision", Fit::Whole),
            ("text", "character varying(20)", Fit::Refused),
            ("character varying(20)", "text", Fit::Whole),
            ("character varying(20)", "character varying(30)", Fit::Whole),
            ("character varying(20)", "character varying(10)", Fit::Refused),
            ("character(5)", "character(6)", Fit::Whole),
            ("text", "character(6)", Fit::Changed),
            ("timestamp with time zone", "timestamp without time zone", Fit::Changed),
            ("timestamp with time zone", "timestamp(3) with time zone", Fit::Changed),
            ("timestamp(3) with time zone", "timestamp with time zone", Fit::Whole),
            ("timestamp without time zone", "date", Fit::Changed),
            ("date", "timestamp without time zone", Fit::Whole),
            ("uuid", "text", Fit::Whole),
            ("numeric[]", "numeric(4,1)[]", Fit::Changed),
            ("text[]", "character varying(3)[]", Fit::Refused),
            ("integer[]", "bigint[]", Fit::Whole),
            ("timestamp with time zone[]", "timestamp(0) with time zone[]", Fit::Changed),
            ("interval", "interval day to minute", Fit::Changed),
            ("interval(3)", "interval", Fit::Whole),
            ("interval", "interval(3)", Fit::Changed),
        ] {
            assert_eq!(fit(&column(source), &column(target)), expected, "{source} to {target}");
        }
    }
}
