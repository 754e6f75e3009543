//! Whether the process has descriptors left, as the ports that accept find out. Kept for a moment, because each of them
//! waits between two tries; asked by the readiness probe.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Now;

/// How long one refusal counts: longer than any port waits before it tries again.
const COUNTS_MS: u64 = 1_000;
/// `ENFILE` and `EMFILE`: of the system, of the process. The same on all systems that this runs on.
const OUT_OF_THEM: [i32; 2] = [23, 24];

/// What is known of the process's descriptors.
#[derive(Debug, Default)]
pub struct Descriptors {
    out_until_ms: AtomicU64,
}

impl Descriptors {
    /// A connection was not accepted, for this reason.
    pub fn refused(&self, error: &io::Error, now: Now) {
        if error.raw_os_error().is_some_and(|code| OUT_OF_THEM.contains(&code)) {
            self.out_until_ms.store(now.mono_ms.saturating_add(COUNTS_MS), Ordering::Relaxed);
        }
    }

    /// Whether there were none a moment ago.
    #[must_use]
    pub fn are_out(&self, now: Now) -> bool {
        now.mono_ms < self.out_until_ms.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_for_want_of_descriptors_counts_for_a_moment_and_no_other_does() {
        let (descriptors, now) = (Descriptors::default(), Now { mono_ms: 5_000, unix_ms: 0 });
        descriptors.refused(&io::ErrorKind::ConnectionAborted.into(), now);
        assert!(!descriptors.are_out(now));
        descriptors.refused(&io::Error::from_raw_os_error(24), now);
        assert!(descriptors.are_out(now) && descriptors.are_out(now.plus_ms(COUNTS_MS - 1)));
        assert!(!descriptors.are_out(now.plus_ms(COUNTS_MS)));
    }
}
