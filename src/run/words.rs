//! Small words for people: durations and counts.

/// A duration as people write it, to two units: `1h 30m`, `4s 200ms`.
#[must_use]
pub fn duration(ms: u64) -> String {
    const UNITS: [(u64, &str); 5] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let mut rest = ms;
    let mut words: Vec<String> = Vec::new();
    for (size, unit) in UNITS {
        if rest >= size && words.len() < 2 {
            words.push(format!("{}{unit}", rest / size));
            rest %= size;
        } else if words.len() == 1 {
            break;
        }
    }
    if words.is_empty() { "0s".to_owned() } else { words.join(" ") }
}

/// A count with its noun in the right number: `1 row`, `2 rows`.
#[must_use]
pub fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_neighbouring_units() {
        for (ms, words) in [
            (0, "0s"),
            (1, "1ms"),
            (4_200, "4s 200ms"),
            (60_000, "1m"),
            (60_001, "1m"),
            (5_400_000, "1h 30m"),
            (90_061_000, "1d 1h"),
        ] {
            assert_eq!(duration(ms), words);
        }
    }
}
