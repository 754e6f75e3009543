//! What time it is, read once a batch and handed down as an argument. Every room takes its time from here.
//! Unix time is anchored once, at boot, and then advanced by the monotonic clock, so that a jump of the wall
//! clock moves no expiry. Leases use `mono_ms` alone.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds since this process first asked, from the monotonic clock (which goes on while the process is stopped).
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch, anchored at boot.
    pub unix_ms: u64,
}

impl Now {
    /// The same reading `ms` later: for tests and deadlines.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self { mono_ms: self.mono_ms.saturating_add(ms), unix_ms: self.unix_ms.saturating_add(ms) }
    }
}

/// Milliseconds of a duration, saturating.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads the clock.
#[must_use]
pub fn now() -> Now {
    static ANCHOR: OnceLock<(Instant, u64)> = OnceLock::new();
    let (boot, unix_ms) = ANCHOR.get_or_init(|| {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Instant::now(), millis(unix))
    });
    let mono_ms = millis(boot.elapsed());
    Now { mono_ms, unix_ms: unix_ms.saturating_add(mono_ms) }
}
