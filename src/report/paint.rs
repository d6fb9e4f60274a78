//! Colour, which only repeats what the words say.

/// Whether colour is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// With escape sequences.
    On,
    /// Plain text only.
    Off,
}

/// What a piece of text is, from which its colour follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Something is as it should be.
    Good,
    /// Something went wrong.
    Bad,
    /// Something waits, or wants to be read.
    Warn,
    /// What the eye should find first.
    Strong,
    /// What can be passed over.
    Dim,
    /// Everything else.
    Plain,
}

impl Colour {
    /// The text in the colour of its tone.
    #[must_use]
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Warn => "33",
            Tone::Strong => "1",
            Tone::Dim => "2",
            Tone::Plain => return text.to_owned(),
        };
        match self {
            Self::On => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Self::Off => text.to_owned(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_the_text_is_untouched() {
        for tone in [Tone::Good, Tone::Bad, Tone::Warn, Tone::Strong, Tone::Dim, Tone::Plain] {
            assert_eq!(Colour::Off.paint(tone, "done"), "done");
        }
    }

    #[test]
    fn colour_ends_where_the_text_ends() {
        assert_eq!(Colour::On.paint(Tone::Bad, "no"), "\u{1b}[31mno\u{1b}[0m");
        assert_eq!(Colour::On.paint(Tone::Plain, "no"), "no");
    }
}
