//! What people see of a run while it goes on: the full screen of a terminal, a line every few seconds on anything else, or
//! nothing. Shown by the runner; reads the board, and never touches a bot. A terminal is left as it was, whatever ends the run.

mod screen;
mod state;
mod terminal;

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use crate::board::Board;
use state::State;
use terminal::Terminal;

/// Between two looks at the board.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Bots play, or have their last words.
    Living,
    /// What they saw is judged.
    Judging,
}

/// Whoever watches.
#[derive(Debug)]
pub struct View {
    state: State,
    face: Face,
}

#[derive(Debug)]
enum Face {
    Silent,
    /// When the next line is due.
    Lines(Instant),
    Screen(Terminal),
}

impl View {
    /// As the options and the terminal want it.
    #[must_use]
    pub fn of(board: &Board) -> Self {
        let common = &board.options.common;
        let is_terminal = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let lines = || Face::Lines(Instant::now() + LINE_INTERVAL);
        let face = if common.quiet {
            Face::Silent
        } else if common.plain || !is_terminal || is_dumb {
            lines()
        } else {
            // A terminal that does not do it gets lines.
            Terminal::open().map_or_else(|_| lines(), Face::Screen)
        };
        Self { state: State::new(board), face }
    }

    /// Shows how all stands.
    pub fn tick(&mut self, board: &Board, stage: Stage) {
        if matches!(self.face, Face::Silent) {
            return;
        }
        self.state.refresh(board, stage, Instant::now());
        match &mut self.face {
            Face::Silent => {}
            Face::Lines(next) => {
                if Instant::now() >= *next {
                    *next += LINE_INTERVAL;
                    eprintln!("{}", self.state.line());
                }
            }
            Face::Screen(terminal) => {
                if !terminal.draw(&self.state) {
                    self.face = Face::Lines(Instant::now());
                }
            }
        }
    }

    /// How often somebody has asked at the keyboard for the end since the last call.
    pub fn wishes(&self) -> usize {
        match &self.face {
            Face::Screen(terminal) => terminal.wishes(),
            _ => 0,
        }
    }

    /// Something that must be read, also where nothing is shown.
    pub fn says(&mut self, what: &str) {
        match &self.face {
            Face::Screen(_) => self.state.note(what),
            _ => eprintln!("load: {what}"),
        }
    }
}
