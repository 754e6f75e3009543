//! Locks of game services: what is asked and answered, and the rules as pure functions. The embedded store runs on them;
//! `lock_acquire.lua`, `lock_renew.lua` and `lock_release.lua` say the same and are compared with them. Never reads a
//! clock and never writes. Only Redis may carry out what was asked after what was asked later: who has given up is
//! remembered there alone (`lock_cancel.lua`).
//!
//! A fencing token is above every token that was given out for the name before, so that what a lock protects can refuse
//! whoever comes late. It is the store's clock in microseconds, or one more than the last token where that is higher: the
//! last one is remembered for [`TOKEN_REMEMBERED`] after the lock has ended. So tokens rise over ends and deletions without
//! a key that stays for ever, and over the loss of all data, too, as long as the clock goes on. They would fall only where
//! a clock is set back by more than that, or is set back and the data are lost.

use std::time::Duration;

use crate::clock::millis;
use crate::ids::KeyName;

/// How long the last token of a lock that nobody holds is remembered.
pub const TOKEN_REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// How many askers that have given up are remembered of a lock, the last ones: what they asked may still arrive.
pub const GONE_MAX: usize = 64;

/// Who holds a lock, or wants it: a digest of a secret. Whoever knows the secret is the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LockOwner(u128);

impl LockOwner {
    /// The owner with this digest.
    #[must_use]
    pub const fn of(digest: u128) -> Self {
        Self(digest)
    }

    /// The digest.
    #[must_use]
    pub const fn digest(self) -> u128 {
        self.0
    }
}

/// A fencing token: above all that were given out for the lock before, and below 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockToken(u64);

impl LockToken {
    /// The token with this number.
    #[must_use]
    pub const fn of(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// Asks for a lock, or for more time with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRequest {
    /// Which lock.
    pub name: KeyName,
    /// Who asks. Asking again is harmless: whoever holds it is told the same token.
    pub owner: LockOwner,
    /// For how long from now.
    pub ttl: Duration,
}

/// The answer to [`super::Store::lock_acquire`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockAcquired {
    /// It is the caller's.
    Acquired(LockToken),
    /// Somebody else has it.
    Held {
        /// For so long, unless it is renewed or given back.
        remaining: Duration,
    },
}

/// A lock as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// The last token.
    pub token: LockToken,
    /// Who has it.
    pub hold: Option<Hold>,
    /// When the token may be forgotten (Unix ms).
    pub forget_at_ms: u64,
}

/// Who has a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Who.
    pub owner: LockOwner,
    /// Until when (Unix ms by the store's clock).
    pub until_ms: u64,
    /// For how long it was asked for.
    pub ttl_ms: u64,
}

impl Lock {
    /// Who has it at this time, and for how long still. A hold that seems to run longer than it was asked for is the
    /// work of a clock that was set back.
    fn held(&self, now_ms: u64) -> Option<(Hold, u64)> {
        let hold = self.hold?;
        let remaining_ms = hold.until_ms.saturating_sub(now_ms).min(hold.ttl_ms);
        (remaining_ms > 0).then_some((hold, remaining_ms))
    }

    const fn held_by(token: LockToken, owner: LockOwner, ttl_ms: u64, now_ms: u64) -> Self {
        let until_ms = now_ms.saturating_add(ttl_ms);
        let forget_at_ms = until_ms.saturating_add(TOKEN_REMEMBERED.as_millis() as u64);
        Self { token, hold: Some(Hold { owner, until_ms, ttl_ms }), forget_at_ms }
    }
}

/// Takes a lock that is free or has run out. What is to be written comes along when something changes.
#[must_use]
pub fn acquire(stored: Option<&Lock>, request: &LockRequest, now_us: u64) -> (LockAcquired, Option<Lock>) {
    let (now_ms, ttl_ms) = (now_us / 1_000, millis(request.ttl));
    if let Some(lock) = stored
        && let Some((hold, remaining_ms)) = lock.held(now_ms)
    {
        if hold.owner == request.owner {
            let again = Lock::held_by(lock.token, hold.owner, ttl_ms, now_ms);
            return (LockAcquired::Acquired(lock.token), Some(again));
        }
        let cut = (hold.until_ms - now_ms > remaining_ms)
            .then(|| Lock::held_by(lock.token, hold.owner, hold.ttl_ms, now_ms));
        return (LockAcquired::Held { remaining: Duration::from_millis(remaining_ms) }, cut);
    }
    let above = stored.map_or(0, |lock| lock.token.number().saturating_add(1));
    let token = LockToken(now_us.max(above));
    (LockAcquired::Acquired(token), Some(Lock::held_by(token, request.owner, ttl_ms, now_ms)))
}

/// Gives its holder more time, from now on. `None`: it is not the caller's, or not any more.
#[must_use]
pub fn renew(stored: Option<&Lock>, request: &LockRequest, now_ms: u64) -> (Option<LockToken>, Option<Lock>) {
    let held = stored.and_then(|lock| Some((lock, lock.held(now_ms)?.0)));
    match held.filter(|(_, hold)| hold.owner == request.owner) {
        None => (None, None),
        Some((lock, hold)) => {
            (Some(lock.token), Some(Lock::held_by(lock.token, hold.owner, millis(request.ttl), now_ms)))
        }
    }
}

/// Gives it back. `false`: it is not the caller's, or not any more.
#[must_use]
pub fn release(stored: Option<&Lock>, owner: LockOwner, now_ms: u64) -> (bool, Option<Lock>) {
    let held = stored.and_then(|lock| Some((lock, lock.held(now_ms)?.0)));
    match held.filter(|(_, hold)| hold.owner == owner) {
        None => (false, None),
        Some((lock, _)) => {
            let forget_at_ms = now_ms.saturating_add(millis(TOKEN_REMEMBERED));
            (true, Some(Lock { token: lock.token, hold: None, forget_at_ms }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: u64 = 1_790_000_000_000_000;
    const TTL_MS: u64 = 1_000;

    fn by(owner: u128) -> LockRequest {
        let (name, owner) = (KeyName::parse("shop").unwrap(), LockOwner::of(owner));
        LockRequest { name, owner, ttl: Duration::from_millis(TTL_MS) }
    }

    fn taken(stored: Option<&Lock>, owner: u128, now_us: u64) -> (u64, Lock) {
        match acquire(stored, &by(owner), now_us) {
            (LockAcquired::Acquired(token), Some(lock)) => (token.number(), lock),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_is_above_all_before_over_ends_releases_and_the_loss_of_all_data() {
        let (first, lock) = taken(None, 1, NOW_US);
        assert_eq!(first, NOW_US);
        // Run out, with the clock set back to the very moment of before.
        let ran_out = Lock { hold: Some(Hold { until_ms: 0, ..lock.hold.unwrap() }), ..lock };
        assert_eq!(taken(Some(&ran_out), 2, NOW_US - 500).0, first + 1);
        let (given_back, free) = release(Some(&lock), LockOwner::of(1), NOW_US / 1_000);
        assert!(given_back);
        assert_eq!(taken(free.as_ref(), 2, NOW_US).0, first + 1);
        assert!(taken(None, 2, NOW_US + 1).0 > first, "nothing is stored, and time has gone on");
    }

    #[test]
    fn who_has_it_is_told_the_same_and_others_how_long_it_lasts() {
        let (token, lock) = taken(None, 1, NOW_US);
        let later_us = NOW_US + 400_000;
        let (again, extended) = taken(Some(&lock), 1, later_us);
        assert_eq!((again, extended.hold.unwrap().until_ms), (token, later_us / 1_000 + TTL_MS));
        let held = LockAcquired::Held { remaining: Duration::from_millis(600) };
        assert_eq!(acquire(Some(&lock), &by(2), later_us), (held, None));
        assert!(
            taken(Some(&lock), 2, NOW_US + TTL_MS * 1_000).0 > token,
            "its time is over to the millisecond"
        );
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nobody_out_for_longer_than_was_asked_for() {
        let (_, lock) = taken(None, 1, NOW_US);
        let hour_before_us = NOW_US - 3_600_000_000;
        let (held, cut) = acquire(Some(&lock), &by(2), hour_before_us);
        assert_eq!(held, LockAcquired::Held { remaining: Duration::from_millis(TTL_MS) });
        assert_eq!(cut.unwrap().hold.unwrap().until_ms, hour_before_us / 1_000 + TTL_MS);
    }

    #[test]
    fn only_who_has_it_renews_and_gives_it_back() {
        let (token, lock) = taken(None, 1, NOW_US);
        let now_ms = NOW_US / 1_000 + 999;
        assert_eq!(renew(Some(&lock), &by(2), now_ms), (None, None));
        assert_eq!(release(Some(&lock), LockOwner::of(2), now_ms), (false, None));
        let (renewed, longer) = renew(Some(&lock), &by(1), now_ms);
        assert_eq!(renewed, Some(LockToken::of(token)));
        assert_eq!(longer.unwrap().hold.unwrap().until_ms, now_ms + TTL_MS);
        // Its time is over: whoever had it may not say that she has it still.
        for now_ms in [NOW_US / 1_000 + TTL_MS, u64::MAX] {
            assert_eq!(renew(Some(&lock), &by(1), now_ms), (None, None));
            assert_eq!(release(Some(&lock), LockOwner::of(1), now_ms), (false, None));
        }
        assert_eq!(renew(None, &by(1), now_ms), (None, None));
    }
}
