//! Tables without borders: columns, a header, nothing else to read past.

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, presets,
};

use super::paint::{Colour, Tone};
use super::words;

/// The least room, in columns, that the last column is fitted into. Where less is left of the terminal (or its width isn't
/// known) lines run on, which reads better than a column of a few letters.
const LEAST_ROOM: u16 = 24;

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
        self.fitted(self.inner.width())
    }

    /// The table within a page: as wide as the terminal, or so many columns where it isn't known. Where its lines are longer,
    /// every column but the first gives way, and words go below each other.
    #[must_use]
    pub fn render_within(&self, columns: u16) -> String {
        let limit = self.inner.width().unwrap_or(columns);
        // A blank stands on each side of a cell; the last of a line is cut off.
        let natural: u16 = self.inner.column_max_content_widths().iter().map(|one| one + 2).sum();
        if natural <= limit + 1 {
            return lines(&self.inner);
        }
        let mut inner = self.inner.clone();
        for column in inner.column_iter_mut().skip(1) {
            column.remove_constraint();
        }
        inner.set_width(limit).set_content_arrangement(ContentArrangement::Dynamic);
        lines(&inner)
    }

    fn fitted(&self, width: Option<u16>) -> String {
        // A blank stands on each side of a cell.
        let widths = self.inner.column_max_content_widths();
        let whole: u16 = widths.iter().rev().skip(1).map(|one| one.saturating_add(2)).sum();
        let room = width.unwrap_or_default().saturating_sub(whole).saturating_sub(2);
        let mut inner = self.inner.clone();
        if let Some(width) = width.filter(|_| room >= LEAST_ROOM) {
            inner.set_width(width).set_content_arrangement(ContentArrangement::Dynamic);
        }
        lines(&inner)
    }
}

fn lines(table: &comfy_table::Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
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
    fn the_last_column_is_fitted_into_what_is_left_or_runs_on() {
        let mut table =
            Table::new(Colour::Off, &[("step", Alignment::Left), ("detail", Alignment::Left)]);
        table.row(&[("s".repeat(40), Tone::Plain), ("word ".repeat(20), Tone::Plain)]);
        let lines = |width| table.fitted(width).lines().count();
        assert_eq!(lines(None), 2);
        assert_eq!(lines(Some(60)), 2, "{}", table.fitted(Some(60)));
        assert!(lines(Some(90)) > 2, "{}", table.fitted(Some(90)));
        assert!(table.fitted(Some(90)).lines().all(|line| line.len() <= 90));
    }

    #[test]
    fn a_table_within_a_page_breaks_between_words_and_loses_none() {
        let mut table = Table::new(
            Colour::Off,
            &[("", Alignment::Left), ("needed", Alignment::Left), ("have", Alignment::Left)],
        );
        table.row(&[
            ("unknown".into(), Tone::Plain),
            ("needed ".repeat(12), Tone::Plain),
            ("available ".repeat(8), Tone::Plain),
        ]);
        assert!(table.fitted(None).lines().any(|line| line.len() > 100), "it is too wide as it is");
        let text = table.render_within(100);
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        let count = |word: &str| text.split_whitespace().filter(|it| *it == word).count();
        assert_eq!((count("unknown"), count("needed"), count("available")), (1, 12, 8), "{text}");
    }

    #[test]
    fn coloured_tables_hold_the_same_words() {
        let text = sample(Colour::On);
        assert!(text.contains("\u{1b}["), "{text:?}");
        assert!(text.contains("copy") && text.contains("200,000"), "{text:?}");
    }
}
