//! Whatever asks a command to end: SIGTERM, Ctrl-C, SIGQUIT, or a terminal that is closed. Heard by whoever has something to
//! finish first.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// They are heard from here on, and end the process no more by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
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
        })
    }

    /// Waits for one.
    pub async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
