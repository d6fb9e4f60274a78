//! Findings as text for people: the offending line with a caret, through miette's graphical handler.
//!
//! A pure function of its arguments: no terminal is asked what it can do. The caller says so with a [`Style`]. Lines are shown
//! with what looks like a secret hidden, whoever asks and whatever is found.

use std::fmt;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceSpan};

use super::mask::masked;
use super::{Diagnostic, Location, Severity, Source};
use crate::bounds::message::LINE_BYTES_MAX;

/// The widest line that is written, in columns.
const WIDTH_COLUMNS: usize = 110;

/// What the reader's terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Colours and box drawing.
    Colour,
    /// Box drawing without colours.
    Unicode,
    /// ASCII only, without colours: for logs and pipes.
    Plain,
}

/// One finding as text, ending in a line break.
#[must_use]
pub fn render(diagnostic: &Diagnostic, sources: &[Source], style: Style) -> String {
    render_presentable(diagnostic, &presentable(sources), style)
}

/// Sources whose lines may be shown.
fn presentable(sources: &[Source]) -> Vec<Source> {
    sources.iter().map(|one| Source::new(one.path.clone(), masked(&one.text))).collect()
}

fn render_presentable(diagnostic: &Diagnostic, sources: &[Source], style: Style) -> String {
    let mut own = diagnostic.clone();
    if style == Style::Plain {
        own.message = own.message.replace('…', "...");
        own.help = own.help.map(|help| help.replace('…', "..."));
    }
    let diagnostic = &own;
    let shown = Shown::new(diagnostic, sources);
    let theme = match style {
        Style::Colour => GraphicalTheme::unicode(),
        Style::Unicode => GraphicalTheme::unicode_nocolor(),
        Style::Plain => GraphicalTheme::none(),
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(WIDTH_COLUMNS)
        .with_links(false)
        .with_context_lines(1)
        .without_syntax_highlighting();
    let mut text = String::new();
    // Writing to a String fails only if miette can't read its source; then the one-line form still says everything.
    if handler.render_report(&mut text, &shown).is_err() {
        return format!("{diagnostic}\n");
    }
    let text = text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    format!("{}\n", text.trim_matches('\n'))
}

/// All findings, errors and warnings in the order given, each followed by an empty line.
#[must_use]
pub fn render_all(diagnostics: &[Diagnostic], sources: &[Source], style: Style) -> String {
    let sources = presentable(sources);
    let each = diagnostics
        .iter()
        .flat_map(|one| [render_presentable(one, &sources, style), "\n".to_owned()]);
    each.collect()
}

/// A finding in the shape that miette asks for.
struct Shown<'a> {
    diagnostic: &'a Diagnostic,
    source: Option<NamedSource<String>>,
    labels: Vec<LabeledSpan>,
    notes: String,
}

impl<'a> Shown<'a> {
    fn new(diagnostic: &'a Diagnostic, sources: &[Source]) -> Self {
        let place = diagnostic.location.as_ref().and_then(|location| {
            let source = sources.iter().find(|source| source.path == location.file)?;
            let is_short = is_short_around(location, &source.text);
            Some((location, source, span(location, &source.text).filter(|_| is_short)?))
        });
        let mut notes = String::new();
        let Some((location, source, primary)) = place else {
            let related = diagnostic.related.iter().map(|(at, what)| format!("\n{at}: {what}"));
            notes.extend(related);
            notes.extend(diagnostic.location.iter().map(|location| format!("\nat {location}")));
            return Self { diagnostic, source: None, labels: Vec::new(), notes };
        };
        let mut labels = vec![LabeledSpan::new_primary_with_span(None, primary)];
        for (other, what) in &diagnostic.related {
            let is_near = other.file == location.file && is_short_around(other, &source.text);
            match span(other, &source.text).filter(|_| is_near) {
                Some(span) => labels.push(LabeledSpan::new_with_span(Some(what.clone()), span)),
                None => notes.extend([format!("\n{other}: {what}")]),
            }
        }
        let text = source.text.to_string();
        let source = Some(NamedSource::new(&*source.path, text));
        Self { diagnostic, source, labels, notes }
    }
}

/// Whether the line of a place and its neighbours are short enough to be shown.
fn is_short_around(location: &Location, text: &str) -> bool {
    let first = usize::try_from(location.line.saturating_sub(2)).unwrap_or(usize::MAX);
    text.split('\n').skip(first).take(3).all(|line| line.len() <= LINE_BYTES_MAX)
}

/// Where a location lies in its text, in bytes.
fn span(location: &Location, text: &str) -> Option<SourceSpan> {
    let mut start = 0;
    for _ in 1..location.line {
        start += text.get(start..)?.find('\n')? + 1;
    }
    let line = text.get(start..)?.split('\n').next()?.trim_end_matches('\r');
    let wanted = usize::try_from(location.length).ok()?;
    let skipped = match location.column {
        // The whole of a line: its indent says nothing.
        0 | 1 if wanted == 0 => line.chars().take_while(|c| c.is_whitespace()).count(),
        column => usize::try_from(column.saturating_sub(1)).ok()?,
    };
    let offset: usize = line.chars().take(skipped).map(char::len_utf8).sum();
    let rest = line.chars().skip(skipped).map(char::len_utf8);
    let length: usize = if wanted == 0 { rest.sum() } else { rest.take(wanted).sum() };
    Some(SourceSpan::new((start + offset).into(), length.max(usize::from(!line.is_empty()))))
        .filter(|span| span.offset() + span.len() <= text.len())
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.diagnostic, f)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.diagnostic.message, self.notes)
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn code<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        Some(Box::new(format!("{}[{}]", self.diagnostic.severity, self.diagnostic.code)))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.diagnostic.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_ref().map(|source| source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::known;
    use super::*;

    fn example() -> (Diagnostic, Vec<Source>) {
        let sources = vec![Source::new("plan.yaml", "kind: Plan\nname: änd\nname: two\n")];
        let place =
            |line, column, length| Location { file: "plan.yaml".into(), line, column, length };
        let mut diagnostic =
            Diagnostic::error(known::DUPLICATE_KEY, "the key `name` is written twice")
                .at(place(3, 1, 4))
                .with_help("remove one of the two");
        diagnostic.related.push((place(2, 1, 4), "first written here".into()));
        (diagnostic, sources)
    }

    #[test]
    fn plain_text_is_ascii_and_shows_the_line_with_a_caret() {
        let (diagnostic, mut sources) = example();
        sources[0] = Source::new("plan.yaml", "kind: Plan\nname: one\nname: two\n");
        insta::assert_snapshot!(render(&diagnostic, &sources, Style::Plain), @r"
        error[P107]

          x the key `name` is written twice
           ,-[plan.yaml:3:1]
         1 | kind: Plan
         2 | name: one
           : ^^|^
           :   `-- first written here
         3 | name: two
           : ^^^^
           `----
          help: remove one of the two
        ");
    }

    #[test]
    fn a_whole_line_is_marked_from_its_first_letter() {
        let (mut diagnostic, mut sources) = example();
        sources[0] = Source::new("plan.yaml", "sql: |\n    DROP TABLE a\n");
        diagnostic.related.clear();
        diagnostic.location =
            Some(Location { file: "plan.yaml".into(), line: 2, column: 1, length: 0 });
        let text = render(&diagnostic, &sources, Style::Plain);
        assert!(text.contains("\n   :     ^^^^^^^^^^^^\n"), "{text}");
        assert!(text.contains("plan.yaml:2:5"), "{text}");
    }

    #[test]
    fn colour_is_only_used_when_asked_for() {
        let (diagnostic, sources) = example();
        assert!(render(&diagnostic, &sources, Style::Colour).contains('\u{1b}'));
        assert!(!render(&diagnostic, &sources, Style::Unicode).contains('\u{1b}'));
        assert!(render(&diagnostic, &sources, Style::Unicode).contains("änd"));
    }

    #[test]
    fn a_place_outside_the_text_is_named_and_not_drawn() {
        let (mut diagnostic, sources) = example();
        diagnostic.location =
            Some(Location { file: "plan.yaml".into(), line: 99, column: 1, length: 4 });
        let text = render(&diagnostic, &sources, Style::Plain);
        assert!(text.contains("plan.yaml:99:1"), "{text}");
    }

    #[test]
    fn a_line_without_end_is_named_and_not_drawn() {
        let (diagnostic, mut sources) = example();
        sources[0] =
            Source::new("plan.yaml", format!("kind: Plan\nname: one\nname: {}", "x".repeat(9_999)));
        let text = render(&diagnostic, &sources, Style::Plain);
        assert!(text.contains("plan.yaml:3:1") && text.len() < 400, "{text}");
    }

    #[test]
    fn the_place_may_be_an_empty_line_or_the_end() {
        let (mut diagnostic, sources) = example();
        for (line, column) in [(4, 1), (1, 400), (0, 0)] {
            diagnostic.location =
                Some(Location { file: "plan.yaml".into(), line, column, length: 7 });
            assert!(render(&diagnostic, &sources, Style::Plain).contains("written twice"));
        }
    }
}
