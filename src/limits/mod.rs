//! Who is too fast: one answer for links, sessions, addresses and service keys. `gate`, `session`, `hub` and
//! `service` ask; the answer is "go on" or how long to wait. Never closes, logs or answers anything itself.
//!
//! Every check takes `now`, which the caller read once for its batch: no clock is read here.

mod abuse;
mod address;
pub mod allowance;
mod bucket;
mod culprits;
mod descriptors;
mod keyed;

pub use abuse::Abuse;
pub use address::Address;
use bucket::{Bucket, Clock, Rate};
pub use culprits::Culprits;
pub use descriptors::Descriptors;
pub use keyed::{AddressLimits, KeyLimits};

use crate::clock::Now;
use crate::config;

/// Too fast: wait this long and try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests; try again in {retry_after_ms} ms")]
pub struct RateLimited {
    /// At least 1.
    pub retry_after_ms: u32,
}

/// What a session asks for, as far as limits tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `state.patch`.
    State,
    /// `presence.set`.
    Presence,
    /// `watch`, `unwatch`.
    Watch,
    /// `state.get`, `presence.get`, `room.members`.
    Query,
    /// `send`.
    Send,
    /// `room.join`, `room.leave`, `room.meta`.
    Room,
    /// `room.send`.
    RoomSend,
}

impl Kind {
    /// Its name in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Presence => "presence",
            Self::Watch => "watch",
            Self::Query => "query",
            Self::Send => "send",
            Self::Room => "room",
            Self::RoomSend => "room_send",
        }
    }
}

/// The rates of all links and sessions, made once and shared; what a link or session holds itself is only levels.
#[derive(Debug)]
pub struct Rates {
    frames: Rate,
    state: Rate,
    presence: Rate,
    watch: Rate,
    query: Rate,
    send: Rate,
    room: Rate,
    room_send: Rate,
    strikes_max: u32,
    abuse_window_ms: u32,
}

impl Rates {
    /// Takes the rates from the settings.
    #[must_use]
    pub fn from_settings(settings: &config::Limits) -> Self {
        let clock = Clock::default();
        let rate = |per_s, burst| Rate::new(per_s, burst, &clock);
        Self {
            frames: rate(settings.link_frames_per_s, settings.link_frames_burst),
            state: rate(settings.state_per_s, settings.state_burst),
            presence: rate(settings.presence_per_s, settings.presence_burst),
            watch: rate(settings.watch_per_s, settings.watch_burst),
            query: rate(settings.query_per_s, settings.query_burst),
            send: rate(settings.send_per_s, settings.send_burst),
            room: rate(settings.room_per_s, settings.room_burst),
            room_send: rate(settings.room_send_per_s, settings.room_send_burst),
            strikes_max: settings.abuse_strikes_max.get(),
            abuse_window_ms: u32::try_from(settings.abuse_window.as_millis()).unwrap_or(u32::MAX),
        }
    }
}

/// What one link may do, whatever it says. Lives in the link; 16 bytes.
#[derive(Debug, Default)]
pub struct LinkLimiter {
    frames: Bucket,
    abuse: Abuse,
}

impl LinkLimiter {
    /// Counts one frame.
    ///
    /// # Errors
    /// [`RateLimited`]: answer so, and tell [`LinkLimiter::strike`].
    pub fn check(&self, rates: &Rates, now: Now) -> Result<(), RateLimited> {
        rates.frames.check(&self.frames, now)
    }

    /// What was checked was let through.
    pub const fn pass(&mut self) {
        self.abuse.pass();
    }

    /// How long the one that drew the last strike has to wait, behind those that were refused before it.
    #[must_use]
    pub fn wait_ms(&self, limited: RateLimited) -> u32 {
        self.abuse.wait_ms(limited.retry_after_ms)
    }

    /// Counts one answer `rate_limited` on this link, for whatever reason; whether the link must now be closed (4506).
    #[must_use]
    pub fn strike(&mut self, rates: &Rates, now: Now) -> bool {
        self.abuse.strike(rates.strikes_max, rates.abuse_window_ms, now)
    }
}

/// What one session may do, by kind. Lives in the session, over all its links; 56 bytes.
#[derive(Debug, Default)]
pub struct SessionLimits {
    state: Bucket,
    presence: Bucket,
    watch: Bucket,
    query: Bucket,
    send: Bucket,
    room: Bucket,
    room_send: Bucket,
}

impl SessionLimits {
    /// Counts one command.
    ///
    /// # Errors
    /// [`RateLimited`]: the command must have no effect.
    pub fn check(&self, rates: &Rates, kind: Kind, now: Now) -> Result<(), RateLimited> {
        let (rate, bucket) = match kind {
            Kind::State => (&rates.state, &self.state),
            Kind::Presence => (&rates.presence, &self.presence),
            Kind::Watch => (&rates.watch, &self.watch),
            Kind::Query => (&rates.query, &self.query),
            Kind::Send => (&rates.send, &self.send),
            Kind::Room => (&rates.room, &self.room),
            Kind::RoomSend => (&rates.room_send, &self.room_send),
        };
        rate.check(bucket, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn rates(toml: &str) -> Rates {
        let settings = Settings::from_toml(&format!("[limits]\n{toml}")).expect("good settings");
        Rates::from_settings(&settings.limits)
    }

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 0 }
    }

    #[test]
    fn a_link_takes_its_burst_and_then_its_rate() {
        let rates = rates("link_frames_per_s = 10\nlink_frames_burst = 3");
        let link = LinkLimiter::default();
        for _ in 0..3 {
            assert_eq!(link.check(&rates, at(5)), Ok(()));
        }
        assert_eq!(link.check(&rates, at(5)), Err(RateLimited { retry_after_ms: 100 }));
        assert_eq!(link.check(&rates, at(104)), Err(RateLimited { retry_after_ms: 1 }));
        assert_eq!(link.check(&rates, at(105)), Ok(()));
        // A pause fills the burst again, and no more than it.
        let later = at(60_000);
        assert_eq!((0..9).filter(|_| link.check(&rates, later).is_ok()).count(), 3);
    }

    #[test]
    fn kinds_and_sessions_do_not_share() {
        let rates = rates("state_burst = 1\nwatch_burst = 1\nstate_per_s = 1\nwatch_per_s = 1");
        let (one, other) = (SessionLimits::default(), SessionLimits::default());
        assert_eq!(one.check(&rates, Kind::State, at(0)), Ok(()));
        assert_eq!(one.check(&rates, Kind::State, at(0)), Err(RateLimited { retry_after_ms: 1_000 }));
        assert_eq!(one.check(&rates, Kind::Watch, at(0)), Ok(()));
        assert_eq!(other.check(&rates, Kind::State, at(0)), Ok(()));
    }

    #[test]
    fn every_kind_has_its_own_rate() {
        let rates = rates(
            "state_burst = 1\npresence_burst = 2\nwatch_burst = 3\nquery_burst = 4\nsend_burst = 5\n\
             room_burst = 6\nroom_send_burst = 7",
        );
        let session = SessionLimits::default();
        for (kind, burst) in [
            (Kind::State, 1),
            (Kind::Presence, 2),
            (Kind::Watch, 3),
            (Kind::Query, 4),
            (Kind::Send, 5),
            (Kind::Room, 6),
            (Kind::RoomSend, 7),
        ] {
            let passed = (0..10).filter(|_| session.check(&rates, kind, at(7)).is_ok()).count();
            assert_eq!(passed, burst, "{}", kind.as_str());
        }
    }

    #[test]
    fn refusal_upon_refusal_closes_the_link() {
        let rates = rates("abuse_strikes_max = 3\nabuse_window_ms = 1000");
        let mut link = LinkLimiter::default();
        for (at_ms, is_last) in [(0, false), (10, false), (20, true)] {
            link.pass();
            assert_eq!(link.strike(&rates, at(at_ms)), is_last);
        }
    }

    #[test]
    fn a_link_and_a_session_stay_small() {
        assert_eq!(size_of::<LinkLimiter>(), 16);
        assert_eq!(size_of::<SessionLimits>(), 56);
    }
}
