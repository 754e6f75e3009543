//! Which keys there are: what each does to the picture, and how the help and the line at the foot say so. The one table of them;
//! the shell hears by it, the board tells it. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::picture::Key;

/// What is pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stroke {
    Plain(KeyCode),
    /// Together with Ctrl.
    Ctrl(char),
}

/// Keys that the help tells of together.
struct Line {
    strokes: &'static [(Stroke, Key)],
    does: &'static str,
}

const fn plain(letter: char) -> Stroke {
    Stroke::Plain(KeyCode::Char(letter))
}

const LINES: [Line; 8] = [
    Line {
        strokes: &[
            (plain('q'), Key::Quit),
            (Stroke::Plain(KeyCode::Esc), Key::Back),
            (Stroke::Ctrl('c'), Key::Quit),
        ],
        does: "quit",
    },
    Line {
        strokes: &[
            (Stroke::Plain(KeyCode::Tab), Key::NextList),
            (Stroke::Plain(KeyCode::BackTab), Key::PreviousList),
            (Stroke::Plain(KeyCode::Right), Key::NextList),
            (Stroke::Plain(KeyCode::Left), Key::PreviousList),
        ],
        does: "choose a list: alarms, nodes, shards, rooms, slow consumers",
    },
    Line {
        strokes: &[
            (plain('j'), Key::Down),
            (plain('k'), Key::Up),
            (Stroke::Plain(KeyCode::Down), Key::Down),
            (Stroke::Plain(KeyCode::Up), Key::Up),
        ],
        does: "scroll the list that is chosen, marked by ▸",
    },
    Line {
        strokes: &[
            (Stroke::Plain(KeyCode::PageDown), Key::PageDown),
            (plain(' '), Key::PageDown),
            (Stroke::Plain(KeyCode::PageUp), Key::PageUp),
        ],
        does: "by a page",
    },
    Line {
        strokes: &[
            (plain('g'), Key::First),
            (Stroke::Plain(KeyCode::Home), Key::First),
            (plain('G'), Key::Last),
            (Stroke::Plain(KeyCode::End), Key::Last),
        ],
        does: "to its beginning; to its end",
    },
    Line { strokes: &[(plain('s'), Key::Sort)], does: "sort nodes by the next column, marked by ▾" },
    Line { strokes: &[(plain('r'), Key::Again)], does: "ask now" },
    Line { strokes: &[(plain('?'), Key::Help), (plain('h'), Key::Help)], does: "this, and back" },
];

/// What the line at the foot tells of, what matters most first.
const FOOT: [(&[Key], &str); 6] = [
    (&[Key::Quit], "quit"),
    (&[Key::Help], "help"),
    (&[Key::Sort], "sort"),
    (&[Key::NextList], "list"),
    (&[Key::Down, Key::Up], "scroll"),
    (&[Key::Again], "ask now"),
];

fn strokes() -> impl Iterator<Item = (Stroke, Key)> {
    LINES.iter().flat_map(|line| line.strokes.iter().copied())
}

/// What a key is for.
pub(super) fn key_of(event: KeyEvent) -> Option<Key> {
    let pressed = match event.code {
        KeyCode::Char(letter) if event.modifiers.contains(KeyModifiers::CONTROL) => Stroke::Ctrl(letter),
        _ if event.modifiers.contains(KeyModifiers::CONTROL) => return None,
        code => Stroke::Plain(code),
    };
    strokes().find(|(stroke, _)| *stroke == pressed).map(|(_, key)| key)
}

/// The lines of the help: keys, and what they do.
pub(super) fn help() -> impl Iterator<Item = (String, &'static str)> {
    LINES.iter().map(|line| {
        let names: Vec<String> = line.strokes.iter().map(|(stroke, _)| name(*stroke)).collect();
        (names.join(" "), line.does)
    })
}

/// The parts of the line at the foot, such as `j/k scroll`: the first of the keys for each thing.
pub(super) fn foot() -> impl Iterator<Item = String> {
    FOOT.iter().map(|(keys, does)| {
        let first = |key: &Key| strokes().find(|(_, known)| known == key);
        let names: Vec<String> = keys.iter().filter_map(first).map(|(stroke, _)| name(stroke)).collect();
        format!("{} {does}", names.join("/"))
    })
}

/// As it stands on a keyboard.
fn name(stroke: Stroke) -> String {
    match stroke {
        Stroke::Ctrl(letter) => format!("Ctrl-{}", letter.to_ascii_uppercase()),
        Stroke::Plain(code) => match code {
            KeyCode::Char(' ') => "Space".to_owned(),
            KeyCode::Char(letter) => letter.to_string(),
            KeyCode::BackTab => "Shift-Tab".to_owned(),
            KeyCode::Right => "→".to_owned(),
            KeyCode::Left => "←".to_owned(),
            KeyCode::Down => "↓".to_owned(),
            KeyCode::Up => "↑".to_owned(),
            KeyCode::PageDown => "PgDn".to_owned(),
            KeyCode::PageUp => "PgUp".to_owned(),
            code => format!("{code:?}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a terminal tells of it: what takes Shift comes with it.
    fn told(stroke: Stroke) -> KeyEvent {
        match stroke {
            Stroke::Ctrl(letter) => KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL),
            Stroke::Plain(code @ (KeyCode::BackTab | KeyCode::Char('A'..='Z' | '?'))) => {
                KeyEvent::new(code, KeyModifiers::SHIFT)
            }
            Stroke::Plain(code) => KeyEvent::new(code, KeyModifiers::NONE),
        }
    }

    #[test]
    fn every_key_that_the_help_tells_is_heard_as_what_it_says() {
        let said: Vec<(String, &str)> = help().collect();
        assert_eq!(
            said.iter().map(|(names, does)| format!("{names}: {does}")).collect::<Vec<_>>(),
            [
                "q Esc Ctrl-C: quit",
                "Tab Shift-Tab → ←: choose a list: alarms, nodes, shards, rooms, slow consumers",
                "j k ↓ ↑: scroll the list that is chosen, marked by ▸",
                "PgDn Space PgUp: by a page",
                "g Home G End: to its beginning; to its end",
                "s: sort nodes by the next column, marked by ▾",
                "r: ask now",
                "? h: this, and back",
            ]
        );
        // One that stood there twice would be heard as the first.
        for (stroke, key) in strokes() {
            assert_eq!(key_of(told(stroke)), Some(key), "{stroke:?}");
        }
    }

    #[test]
    fn no_other_key_is_heard() {
        let printable = (' '..='~').map(KeyCode::Char);
        let others = [
            KeyCode::Enter,
            KeyCode::Backspace,
            KeyCode::Delete,
            KeyCode::Insert,
            KeyCode::F(1),
            KeyCode::Null,
        ];
        for code in printable.clone().chain(others) {
            let is_told = strokes().any(|(stroke, _)| stroke == Stroke::Plain(code));
            assert_eq!(key_of(KeyEvent::new(code, KeyModifiers::NONE)).is_some(), is_told, "{code:?}");
        }
        let with_ctrl: Vec<KeyCode> = printable
            .chain([KeyCode::Tab, KeyCode::Down])
            .filter(|code| key_of(KeyEvent::new(*code, KeyModifiers::CONTROL)).is_some())
            .collect();
        assert_eq!(with_ctrl, [KeyCode::Char('c')]);
    }

    #[test]
    fn the_foot_names_the_first_key_of_each() {
        assert_eq!(
            foot().collect::<Vec<_>>(),
            ["q quit", "? help", "s sort", "Tab list", "j/k scroll", "r ask now"]
        );
    }
}
