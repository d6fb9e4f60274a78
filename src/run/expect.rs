//! Whether a value is what was expected.

use std::fmt;

use super::program::{Expect, Value, Within};

/// Whether `value` meets `expect`. NULL meets only an expected NULL; numbers are compared as numbers, whether whole or not.
#[must_use]
pub fn check(expect: &Expect, value: &Value) -> bool {
    match expect {
        Expect::Value(expected) => equal(expected, value),
        Expect::Range { min, max } => number(value)
            .is_some_and(|n| min.is_none_or(|min| n >= min) && max.is_none_or(|max| n <= max)),
    }
}

/// Whether `value` differs from `captured` by at most so many percent of it. Values that are no numbers never do.
#[must_use]
pub fn is_within(within: &Within, captured: &Value, value: &Value) -> bool {
    match (number(captured), number(value)) {
        (Some(then), Some(now)) => (now - then).abs() <= then.abs() * within.percent / 100.0,
        _ => false,
    }
}

/// A value as a number. Databases without booleans answer 0 and 1, so booleans count as those.
#[allow(clippy::cast_precision_loss, reason = "limits are written by people, far below 2^52")]
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(n) => Some(*n as f64),
        Value::Real(x) if !x.is_nan() => Some(*x),
        Value::Boolean(b) => Some(f64::from(u8::from(*b))),
        Value::Text(text) => text.trim().parse().ok().filter(|x: &f64| !x.is_nan()),
        Value::Real(_) | Value::Null => None,
    }
}

#[allow(
    clippy::float_cmp,
    reason = "equality of a measured value with an expected one is what is asked"
)]
fn equal(expected: &Value, value: &Value) -> bool {
    match (expected, value) {
        (Value::Null, Value::Null) => true,
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::Integer(a), Value::Integer(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        (a, b) => number(a).is_some() && number(a) == number(b),
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Boolean(b) => write!(f, "{b}"),
            Self::Integer(n) => write!(f, "{n}"),
            Self::Real(x) => write!(f, "{x}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{value}"),
            Self::Range { min: Some(min), max: Some(max) } => write!(f, "{min} to {max}"),
            Self::Range { min: Some(min), max: None } => write!(f, "at least {min}"),
            Self::Range { min: None, max: Some(max) } => write!(f, "at most {max}"),
            Self::Range { min: None, max: None } => f.write_str("any number"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_never_a_number_and_equals_only_null() {
        let any = Expect::Range { min: None, max: None };
        assert!(!check(&any, &Value::Null));
        assert!(!check(&any, &Value::Real(f64::NAN)));
        assert!(!check(&Expect::Value(Value::Integer(0)), &Value::Null));
        assert!(check(&Expect::Value(Value::Null), &Value::Null));
    }

    #[test]
    fn ranges_include_their_ends_and_numbers_compare_as_numbers() {
        let five = Expect::Range { min: Some(1.0), max: Some(5.0) };
        assert!(check(&five, &Value::Integer(5)));
        assert!(check(&five, &Value::Real(1.0)));
        assert!(!check(&five, &Value::Real(5.001)));
        assert!(check(&Expect::Value(Value::Integer(1)), &Value::Real(1.0)));
        assert!(check(&Expect::Value(Value::Boolean(true)), &Value::Integer(1)));
        assert!(!check(&Expect::Value(Value::Text("1x".into())), &Value::Integer(1)));
    }

    #[test]
    fn within_is_relative_to_what_was_captured() {
        let ten = Within { of: "before".into(), percent: 10.0 };
        assert!(is_within(&ten, &Value::Integer(100), &Value::Integer(110)));
        assert!(!is_within(&ten, &Value::Integer(100), &Value::Integer(111)));
        assert!(!is_within(&ten, &Value::Integer(0), &Value::Integer(1)));
        assert!(!is_within(&ten, &Value::Null, &Value::Integer(1)));
    }
}
