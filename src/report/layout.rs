//! Lines that fit: breaking long ones at blanks, below each other.

/// The widest line, in columns.
pub(super) const WIDTH: usize = 100;

/// Text after a label, broken at blanks so that it fits, with further lines below its first.
///
/// A word that is longer than what is left stands on a line of its own, whole. Line breaks of the text are kept.
pub(super) fn labelled(label: &str, text: &str) -> String {
    let margin = " ".repeat(label.chars().count());
    let room = WIDTH.saturating_sub(margin.len()).max(20);
    let mut out = String::new();
    for (at, line) in text.lines().flat_map(|line| broken(line, room)).enumerate() {
        out.push_str(if at == 0 { label } else { &margin });
        out.push_str(&line);
        let kept = out.trim_end().len();
        out.truncate(kept);
        out.push('\n');
    }
    if out.is_empty() {
        out.push_str(label.trim_end());
        out.push('\n');
    }
    out
}

/// A line in pieces of at most `room` columns. Blanks at its start are kept and repeated.
fn broken(line: &str, room: usize) -> Vec<String> {
    if line.chars().count() <= room {
        return vec![line.to_owned()];
    }
    let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
    let mut pieces = Vec::new();
    let mut piece = indent.clone();
    for word in line.split_whitespace() {
        let is_first = piece.trim().is_empty();
        let blank = usize::from(!is_first);
        if !is_first && piece.chars().count() + blank + word.chars().count() > room {
            pieces.push(std::mem::replace(&mut piece, indent.clone()));
        } else if !is_first {
            piece.push(' ');
        }
        piece.push_str(word);
    }
    pieces.push(piece);
    pieces
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_at_blanks_and_no_word_is_lost() {
        let text = "word ".repeat(60);
        let laid = labelled("    undo  ", text.trim());
        assert!(laid.lines().all(|line| line.len() <= WIDTH), "{laid}");
        assert!(laid.lines().skip(1).all(|line| line.starts_with("          word")), "{laid}");
        assert_eq!(laid.split_whitespace().count(), 61);
        let long = "x".repeat(150);
        assert!(labelled("a ", &long).contains(&long));
    }

    #[test]
    fn short_lines_and_line_breaks_stay() {
        assert_eq!(labelled("  ", "one\n  two"), "  one\n    two\n");
        assert_eq!(labelled("  x ", ""), "  x\n");
    }
}
