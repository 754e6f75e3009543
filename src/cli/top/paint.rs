//! Colours, or none. What is said by one is said by a word or a sign, too. Pure.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;

/// How something is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Tone {
    #[default]
    Plain,
    /// What is there for those who look for it.
    Soft,
    /// The number that is looked for.
    Strong,
    Good,
    Warning,
    Bad,
    /// What must not be missed.
    Critical,
    Plot,
}

/// Whether there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paint {
    is_coloured: bool,
}

impl Paint {
    /// `no_color`: what the environment says under NO_COLOR, <https://no-color.org>.
    pub(super) fn unless(no_color: Option<&std::ffi::OsStr>) -> Self {
        Self { is_coloured: no_color.is_none_or(std::ffi::OsStr::is_empty) }
    }

    pub(super) const fn none() -> Self {
        Self { is_coloured: false }
    }

    pub(super) fn style(self, tone: Tone) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let (plain, colour) = match tone {
            Tone::Plain => return Style::new(),
            Tone::Strong => return bold,
            Tone::Soft => (Style::new(), Color::DarkGray),
            Tone::Good => (Style::new(), Color::Green),
            Tone::Plot => (Style::new(), Color::Cyan),
            Tone::Warning => (bold, Color::Yellow),
            Tone::Bad => (bold, Color::Red),
            Tone::Critical if self.is_coloured => return bold.fg(Color::White).bg(Color::Red),
            Tone::Critical => return bold.add_modifier(Modifier::REVERSED),
        };
        if self.is_coloured { plain.fg(colour) } else { plain }
    }

    pub(super) fn span(self, text: impl Into<String>, tone: Tone) -> Span<'static> {
        Span::styled(text.into(), self.style(tone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_no_colour_gets_none() {
        let tones = [Tone::Soft, Tone::Good, Tone::Warning, Tone::Bad, Tone::Critical, Tone::Plot];
        for (no_color, is_coloured) in [(Some("1"), false), (Some(""), true), (None, true)] {
            let paint = Paint::unless(no_color.map(std::ffi::OsStr::new));
            for tone in tones {
                let style = paint.style(tone);
                assert_eq!(style.fg.is_some() || style.bg.is_some(), is_coloured, "{no_color:?} {tone:?}");
            }
        }
    }
}
