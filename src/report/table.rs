//! Tables without borders: columns, a header, nothing else to read past.

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, presets,
};

use super::paint::{Colour, Tone};
use super::words;

/// The narrowest terminal, in columns, that a table is fitted into; on narrower ones (and where the width isn't known)
/// lines run on, which reads better than columns of a few letters.
const NARROWEST: u16 = 80;

/// On which side a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table being filled.
#[derive(Debug)]
pub struct Table {
    inner: comfy_table::Table,
    aligned: Vec<Alignment>,
}

impl Table {
    /// An empty table with these columns.
    #[must_use]
    pub fn new(colour: Colour, columns: &[(&str, Alignment)]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_preset(presets::NOTHING);
        if inner.width().is_some_and(|width| width >= NARROWEST) {
            inner.set_content_arrangement(ContentArrangement::Dynamic);
        }
        match colour {
            Colour::On => inner.enforce_styling(),
            Colour::Off => inner.force_no_tty(),
        };
        let aligned: Vec<Alignment> = columns.iter().map(|(_, alignment)| *alignment).collect();
        let header = columns.iter().map(|(name, alignment)| {
            Cell::new(name.to_uppercase())
                .set_alignment(alignment.into())
                .add_attribute(Attribute::Bold)
        });
        inner.set_header(header);
        // Names and numbers are never broken; the last column takes what is left.
        let whole = columns.len().saturating_sub(1);
        for column in inner.column_iter_mut().take(whole) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        Self { inner, aligned }
    }

    /// Adds a row; each cell with its tone.
    pub fn row(&mut self, cells: &[(String, Tone)]) {
        let cells = cells.iter().zip(&self.aligned).map(|((text, tone), alignment)| {
            let cell = Cell::new(words::visible(text)).set_alignment(alignment.into());
            match tone {
                Tone::Good => cell.fg(Color::DarkGreen),
                Tone::Bad => cell.fg(Color::DarkRed),
                Tone::Warn => cell.fg(Color::DarkYellow),
                Tone::Strong => cell.add_attribute(Attribute::Bold),
                Tone::Dim => cell.add_attribute(Attribute::Dim),
                Tone::Plain => cell,
            }
        });
        self.inner.add_row(cells);
    }

    /// The table as text, without blanks at the ends of lines, and with a line break at its end.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for line in self.inner.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

impl From<&Alignment> for CellAlignment {
    fn from(alignment: &Alignment) -> Self {
        match alignment {
            Alignment::Left => Self::Left,
            Alignment::Right => Self::Right,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    fn sample(colour: Colour) -> String {
        let mut table =
            Table::new(colour, &[("step", Alignment::Left), ("rows", Alignment::Right)]);
        table.row(&[("copy".into(), Tone::Good), ("200,000".into(), Tone::Plain)]);
        table.row(&[("a\u{1b}[2J".into(), Tone::Plain), ("1".into(), Tone::Plain)]);
        table.render()
    }

    #[test]
    fn plain_tables_hold_no_escapes_even_from_data() {
        let text = sample(Colour::Off);
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(text.contains("STEP"), "{text}");
        assert!(text.lines().all(|line| line == line.trim_end()), "{text:?}");
    }

    #[test]
    fn coloured_tables_hold_the_same_words() {
        let text = sample(Colour::On);
        assert!(text.contains("\u{1b}["), "{text:?}");
        assert!(text.contains("copy") && text.contains("200,000"), "{text:?}");
    }
}
