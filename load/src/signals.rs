//! Whatever asks a command to end: SIGTERM, Ctrl-C, SIGQUIT, or a terminal that is closed. Heard by whoever has something to
//! finish first.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What comes so soon after the one before is the same wish: `timeout` of GNU sends its signal to the process and then to the
/// process's group, and a terminal that is closed may add one of its own.
const ECHO: Duration = Duration::from_secs(1);

/// They are heard from here on, and end the process no more by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    wishes: Wishes,
}

/// When there was a wish last.
#[derive(Debug, Default)]
struct Wishes {
    last: Option<Instant>,
}

impl Signals {
    /// Hears them.
    ///
    /// # Errors
    /// What the system says.
    pub fn heard() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            wishes: Wishes::default(),
        })
    }

    /// Waits for one. Those that come within a second of the one that was told are the same.
    pub async fn told(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.quit.recv() => {}
                _ = self.hangup.recv() => {}
            }
            if self.wishes.is_another(Instant::now()) {
                return;
            }
        }
    }
}

impl Wishes {
    /// Whether what has come now is a wish of its own.
    fn is_another(&mut self, now: Instant) -> bool {
        let is_echo = self.last.is_some_and(|last| now.saturating_duration_since(last) < ECHO);
        if !is_echo {
            self.last = Some(now);
        }
        !is_echo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_comes_twice_at_once_is_one_wish() {
        let (mut wishes, began) = (Wishes::default(), Instant::now());
        let mut at = |ms| wishes.is_another(began + Duration::from_millis(ms));
        assert_eq!([at(0), at(1), at(900)], [true, false, false]);
        // Counted from the one that was told: whoever goes on asking is heard.
        assert_eq!([at(1_100), at(1_200), at(2_200)], [true, false, true]);
    }
}
