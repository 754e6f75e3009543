//! The terminal: taken over to show a picture, and given back as it was by whatever ends that, a panic or a signal included.
//! Thin: hears keys, answers and signals, and hands them to the picture. Asks from a thread of its own, so that a server
//! that does not answer keeps no key waiting.

use std::io::{self, IsTerminal as _, Stdout, stdout};
use std::mem::ManuallyDrop;
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use protocol::calls::Overview;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::board;
use super::keys::key_of;
use super::paint::Paint;
use super::picture::{EVERY, Key, Picture, Wish, pause_after};
use crate::cli::ask::Asked;

/// Between two looks whether the terminal is still ours, while no key is pressed.
const KEY_PATIENCE: Duration = Duration::from_millis(100);
/// Keys that wait to be heard.
const KEYS_MAX: usize = 64;
/// However long an answer took, the next question is not asked at once.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// How old the picture is is told anew so often.
const REDRAW: Duration = Duration::from_millis(500);

/// Whether the terminal is ours now. There is one of it a process.
static IS_OURS: AtomicBool = AtomicBool::new(false);
static HOOKED: Once = Once::new();

/// What somebody did at the terminal.
enum Heard {
    Key(Key),
    Resized,
}

/// What came of a question.
struct Told {
    overview: Result<Box<Overview>, String>,
    /// When it came, and when the next one is asked, since the first look.
    at: Duration,
    next: Duration,
}

/// Shows it until somebody or a signal ends it, or its terminal is gone; `began` is when its first overview came.
pub(super) fn show(asked: Asked, picture: Picture, began: Instant, paint: Paint) -> io::Result<()> {
    // Whoever closes a terminal has seen enough, and it may be gone before the signal that says so is here.
    watched(asked, picture, began, paint).or_else(|error| match stdout().is_terminal() {
        true => Err(error),
        false => Ok(()),
    })
}

fn watched(asked: Asked, mut picture: Picture, began: Instant, paint: Paint) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let (again, waits) = sync_channel(1);
        let (answers, mut told) = mpsc::channel(1);
        std::thread::Builder::new()
            .name("asks".to_owned())
            .spawn(move || ask(&asked, began, &answers, &waits))?;
        let (mut terminal, mut heard) = Terminal::open()?;
        loop {
            terminal.draw(&mut picture, began.elapsed(), paint)?;
            tokio::select! {
                biased;
                () = signals.asked() => return Ok(()),
                heard = heard.recv() => match heard {
                    Some(Heard::Key(key)) => match picture.press(key) {
                        Wish::End => return Ok(()),
                        // One that waits is enough.
                        Wish::Ask => drop(again.try_send(())),
                        Wish::Draw => {}
                    },
                    Some(Heard::Resized) => {}
                    None => return Err(io::Error::other("the terminal can no longer be read")),
                },
                told = told.recv() => match told {
                    Some(Told { overview: Ok(overview), at, .. }) => picture.told(*overview, at),
                    Some(Told { overview: Err(why), next, .. }) => picture.failed(why, next),
                    None => return Err(io::Error::other("nobody asks any more")),
                },
                () = tokio::time::sleep(REDRAW) => {}
            }
        }
    })
}

/// Asks once a second, and ever more rarely where nobody answers, until nobody wants to know.
fn ask(asked: &Asked, began: Instant, answers: &mpsc::Sender<Told>, again: &Receiver<()>) {
    let (mut failures, mut pause) = (0, EVERY);
    loop {
        // Somebody may want to know at once.
        if again.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        let asked_at = Instant::now();
        let overview = super::look(asked);
        pause = match &overview {
            Ok(_) => EVERY.saturating_sub(asked_at.elapsed()).max(PAUSE_MIN),
            Err(error) => {
                failures += 1;
                pause_after(failures, error.is_outside())
            }
        };
        if overview.is_ok() {
            failures = 0;
        }
        let at = began.elapsed();
        let overview = overview.map(Box::new).map_err(|error| error.to_string());
        if answers.blocking_send(Told { overview, at, next: at + pause }).is_err() {
            return;
        }
    }
}

/// Those that end a program.
struct Signals([Signal; 4]);

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::quit())?,
        ]))
    }

    async fn asked(&mut self) {
        let [terminate, interrupt, hangup, quit] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

/// A terminal that is ours until this is dropped. Whoever hears its keys is not waited for: of a terminal that is gone no
/// answer may come any more, and she goes with the process. So does what draws: dropped, it would show the cursor again, which
/// is done here, and complain to standard error if it cannot, and panic if that is gone with the terminal.
struct Terminal(ManuallyDrop<ratatui::Terminal<CrosstermBackend<Stdout>>>);

impl Terminal {
    /// Takes it over; and what is done at it.
    fn open() -> io::Result<(Self, mpsc::Receiver<Heard>)> {
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

    fn enter() -> io::Result<(Self, mpsc::Receiver<Heard>)> {
        execute!(stdout(), EnterAlternateScreen, Hide)?;
        let terminal = ratatui::Terminal::new(CrosstermBackend::new(stdout()))?;
        let (hears, heard) = mpsc::channel(KEYS_MAX);
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || listen(&hears))?;
        Ok((Self(ManuallyDrop::new(terminal)), heard))
    }

    fn draw(&mut self, picture: &mut Picture, now: Duration, paint: Paint) -> io::Result<()> {
        self.0.draw(|frame| board::draw(frame.buffer_mut(), picture, now, paint)).map(drop)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Hears keys until the terminal is no longer ours, or cannot be heard any more.
fn listen(hears: &mpsc::Sender<Heard>) {
    while IS_OURS.load(Ordering::Acquire) {
        let heard = match event::poll(KEY_PATIENCE) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        let heard = match heard {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => key_of(key).map(Heard::Key),
            Ok(Event::Resize(..)) => Some(Heard::Resized),
            Ok(_) => None,
            Err(_) => return,
        };
        // Where more wait than may, whoever pressed it presses it again.
        if let Some(Err(mpsc::error::TrySendError::Closed(_))) = heard.map(|heard| hears.try_send(heard)) {
            return;
        }
    }
}

/// Gives it back, once.
fn give_back() {
    if IS_OURS.swap(false, Ordering::AcqRel) {
        // Whoever cannot be told so is gone.
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}
