//! Limits of throttles as people write them: `5s`, `64MiB`, `20%`, `10`. The unit says what is meant.

use crate::run::{Limit, Unit};

use super::node::{At, Kind, Node};

/// A limit from its text. [`Err`] says what one looks like.
pub fn limit(written: &str) -> Result<Limit, &'static str> {
    const HELP: &str = "a limit is a number, a duration such as 5s, a size such as 64MiB, or a percentage such as 20%";
    let text = written.trim();
    let of =
        |value: f64, unit| if value.is_finite() { Ok(Limit { value, unit }) } else { Err(HELP) };
    if let Ok(value) = text.parse::<f64>() {
        return of(value, Unit::Number);
    }
    if let Some(number) = text.strip_suffix('%') {
        let value = number.trim_end().parse::<f64>().map_err(|_| HELP)?;
        return of(value, Unit::Percent);
    }
    // `5m` are minutes and `5M` months: a size always ends in `B`.
    if text.ends_with(['B', 'b']) {
        let size = text.parse::<bytesize::ByteSize>().map_err(|_| HELP)?;
        #[allow(clippy::cast_precision_loss)] // of petabytes
        return of(size.as_u64() as f64, Unit::Bytes);
    }
    let duration = humantime::parse_duration(text).map_err(|_| HELP)?;
    of(duration.as_secs_f64() * 1_000.0, Unit::Ms)
}

/// A limit of a plan: a number, or text with a unit.
pub fn of_node(node: &Node) -> Option<At<Limit>> {
    let number = |value| Limit { value, unit: Unit::Number };
    let limit = match &node.kind {
        // Counts that people write are far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        Kind::Integer(value) => number(*value as f64),
        Kind::Real(value) => number(*value),
        Kind::Text { text, .. } => limit(text).ok()?,
        Kind::Null | Kind::Bool(_) | Kind::List(_) | Kind::Map(_) => return None,
    };
    Some(At { value: limit, span: node.span })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_says_what_is_meant() {
        for (written, value, unit) in [
            ("10", 10.0, Unit::Number),
            ("-0.5", -0.5, Unit::Number),
            ("5s", 5_000.0, Unit::Ms),
            ("1m 30s", 90_000.0, Unit::Ms),
            ("250ms", 250.0, Unit::Ms),
            ("64MiB", 67_108_864.0, Unit::Bytes),
            ("10 GB", 10_000_000_000.0, Unit::Bytes),
            ("512B", 512.0, Unit::Bytes),
            ("20%", 20.0, Unit::Percent),
            ("2.5 %", 2.5, Unit::Percent),
        ] {
            assert_eq!(limit(written), Ok(Limit { value, unit }), "{written}");
        }
        for written in ["", "much", "%", "5x", "64M I B", "NaN", "inf", "1e999", "-5s", "-1MB"] {
            assert!(limit(written).is_err(), "{written}: {:?}", limit(written));
        }
    }
}
