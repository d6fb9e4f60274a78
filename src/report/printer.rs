//! The one place that writes to the terminal.
//!
//! Results go to stdout and nothing else does, so that they can be piped; progress, logs and errors go to stderr. While bars
//! are shown, everything else on stderr is written above them.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;

use indicatif::{MultiProgress, ProgressDrawTarget};
use serde_json::Value;

use super::paint::Colour;

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Tables and sentences.
    Human,
    /// One JSON document.
    Json,
}

/// Writes results and messages. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Printer {
    format: Format,
    out: Colour,
    err: Colour,
    bars: Arc<MultiProgress>,
}

/// Whether colours are wanted at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    OnTerminals,
    Never,
}

impl Printer {
    /// A printer on this process's stdout and stderr. Colour is used on terminals only, and never when `NO_COLOR` is set
    /// or `asked` is [`Colour::Off`].
    #[must_use]
    pub fn new(format: Format, asked: Colour) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let wanted =
            if no_color || asked == Colour::Off { Wanted::Never } else { Wanted::OnTerminals };
        let colour = |terminal| match (wanted, terminal) {
            (Wanted::OnTerminals, true) => Colour::On,
            _ => Colour::Off,
        };
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self {
            format,
            out: colour(io::stdout().is_terminal()),
            err: colour(io::stderr().is_terminal()),
            bars: Arc::new(bars),
        }
    }

    /// How results are to be written.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Colour of results.
    #[must_use]
    pub const fn result_colour(&self) -> Colour {
        self.out
    }

    /// Colour of messages.
    #[must_use]
    pub const fn message_colour(&self) -> Colour {
        self.err
    }

    /// Whether somebody looks at stderr, so that bars make sense.
    #[must_use]
    pub fn shows_bars(&self) -> bool {
        io::stderr().is_terminal()
    }

    /// Whether a question can be asked: somebody types, and somebody reads what we ask.
    #[must_use]
    pub fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether somebody looks at stdout.
    #[must_use]
    pub fn shows_results(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Where bars are drawn.
    #[must_use]
    pub fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Writes a result for people: as it is, with a line break at its end.
    pub fn result(&self, text: &str) {
        let ending = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        self.bars.suspend(|| write_whole(io::stdout().lock(), &[text, ending]));
    }

    /// Writes a result for programs: an indented JSON document.
    pub fn document(&self, document: &Value) {
        self.result(&format!("{document:#}"));
    }

    /// Writes a result that is worth nothing unless all of it arrives.
    pub fn whole(&self, text: &str) -> io::Result<()> {
        self.bars.suspend(|| {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()
        })
    }

    /// Writes one line of newline-delimited JSON.
    pub fn line(&self, document: &Value) {
        self.result(&document.to_string());
    }

    /// Writes a message to stderr.
    pub fn message(&self, text: &str) {
        let ending = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        self.bars.suspend(|| write_whole(io::stderr().lock(), &[text, ending]));
    }

    /// Asks on stderr and reads a line from stdin; `None` at the end of the input.
    #[must_use]
    pub fn ask(&self, question: &str) -> Option<String> {
        self.bars.suspend(|| write_whole(io::stderr().lock(), &[question, " "]));
        // Not while the bars are held: whoever gives up waiting for the answer still has something to print.
        let mut answer = String::new();
        match io::stdin().read_line(&mut answer) {
            Ok(length) if length > 0 => Some(answer.trim().to_owned()),
            _ => None,
        }
    }
}

/// Whoever reads may have gone (`phasegate status | head`), and there is nobody left to tell: errors are dropped here, and
/// only here.
fn write_whole(mut stream: impl Write, parts: &[&str]) {
    for part in parts {
        if stream.write_all(part.as_bytes()).is_err() {
            return;
        }
    }
    let _ = stream.flush();
}

/// Logs go through the printer too, above the bars.
impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Printer {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> Self::Writer {
        LogWriter { printer: self.clone() }
    }
}

/// Writes log lines through a [`Printer`].
#[derive(Debug)]
pub struct LogWriter {
    printer: Printer,
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.printer.bars.suspend(|| io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
