//! The terminal: taken over for a run, and given back as it was by whatever ends it, a panic of any thread included. Drawn on
//! standard error, since results go to standard output.

use std::io::{Stderr, stderr};
use std::mem::ManuallyDrop;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::screen::{self, Paint};
use super::state::State;

/// Between two looks whether the terminal is still ours, while no key is pressed.
const KEY_PATIENCE: Duration = Duration::from_millis(100);

/// Whether the terminal is ours now. There is one of it a process.
static IS_OURS: AtomicBool = AtomicBool::new(false);
static HOOKED: Once = Once::new();

/// A terminal that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Terminal {
    /// Never dropped: it would show the cursor again, which is done here, and complain to standard error if it cannot, and
    /// panic if that is gone with the terminal.
    terminal: ManuallyDrop<ratatui::Terminal<CrosstermBackend<Stderr>>>,
    paint: Paint,
    wishes: Arc<AtomicUsize>,
}

impl Terminal {
    /// Takes it over.
    pub(super) fn open() -> std::io::Result<Self> {
        HOOKED.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                // First: what it says is to be read.
                give_back();
                before(info);
            }));
        });
        enable_raw_mode()?;
        IS_OURS.store(true, Ordering::Release);
        let opened = Self::enter();
        if opened.is_err() {
            give_back();
        }
        opened
    }

    fn enter() -> std::io::Result<Self> {
        execute!(stderr(), EnterAlternateScreen, Hide)?;
        let terminal = ratatui::Terminal::new(CrosstermBackend::new(stderr()))?;
        let wishes = Arc::new(AtomicUsize::new(0));
        let heard = Arc::clone(&wishes);
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || listen(&heard))?;
        Ok(Self { terminal: ManuallyDrop::new(terminal), paint: Paint::from_environment(), wishes })
    }

    /// Draws; whether it could, and the terminal is still ours.
    pub(super) fn draw(&mut self, state: &State) -> bool {
        let paint = self.paint;
        IS_OURS.load(Ordering::Acquire)
            && self.terminal.draw(|frame| screen::draw(frame, state, paint)).is_ok()
    }

    /// How often somebody has asked for the end since the last call.
    pub(super) fn wishes(&self) -> usize {
        self.wishes.swap(0, Ordering::AcqRel)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The thread that hears keys looks up soon, and is not waited for: where the terminal itself is gone, it never does.
        give_back();
    }
}

/// Hears keys until the terminal is no longer ours. One that cannot be heard leaves Ctrl-C to the terminal.
fn listen(wishes: &AtomicUsize) {
    while IS_OURS.load(Ordering::Acquire) {
        let heard = event::poll(KEY_PATIENCE)
            .and_then(|is_there| if is_there { event::read().map(Some) } else { Ok(None) });
        match heard {
            Ok(Some(Event::Key(key))) if key.kind == KeyEventKind::Press => {
                let is_interrupt =
                    key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
                if is_interrupt || key.code == KeyCode::Char('q') {
                    wishes.fetch_add(1, Ordering::AcqRel);
                }
            }
            Ok(_) => {}
            Err(_) => {
                let _ = disable_raw_mode();
                return;
            }
        }
    }
}

/// Gives it back, once.
fn give_back() {
    if IS_OURS.swap(false, Ordering::AcqRel) {
        // Whoever cannot be told so is gone.
        let _ = execute!(stderr(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}
