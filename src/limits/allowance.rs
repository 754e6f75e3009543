//! What one node has in hand of limits that hold for the cluster as a whole: taken from the store some at a time, so that
//! not every request asks it. Pure: says whom to ask for how much, and is told what came of it. `service` asks the store.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use parking_lot::Mutex;

use super::RateLimited;
use crate::clock::Now;
use crate::config;

/// What is taken at a time is so many parts of a second's rate, and of the burst at most: a node that takes and then falls
/// silent keeps the others from so much.
const PARTS_OF_A_SECOND: u32 = 20;
const PARTS_OF_A_BURST: u32 = 8;
/// How long what was taken is good for.
const GOOD_FOR_MS: u64 = 1_000;
/// How long the store is left alone after it did not answer.
const STORE_AGAIN_MS: u64 = 1_000;

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// So many a second ...
    pub per_s: NonZeroU32,
    /// ... and at once.
    pub burst: NonZeroU32,
    /// As many as there are, up to this.
    pub most: u32,
    /// Fewer are of no use.
    pub least: u32,
}

/// Whether a request may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is counted.
    Go,
    /// It must wait.
    Wait(RateLimited),
    /// The store has to be asked for this.
    Ask(Wanted),
    /// The store cannot be asked now: a share of the limit counts here.
    Alone,
}

/// What this node has in hand, by key.
#[derive(Debug)]
pub struct Allowances {
    known: Mutex<HashMap<u64, Arc<Allowance>, ahash::RandomState>>,
    keys_max: usize,
    per_s: NonZeroU32,
    burst: NonZeroU32,
    /// The store did not answer: not asked before then.
    silent_until_ms: Mutex<u64>,
}

/// What this node has in hand for one key.
#[derive(Debug, Default)]
pub struct Allowance {
    hand: Mutex<Hand>,
    /// One asks the store at a time; who waits for it finds what it brought.
    pub turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Hand {
    has: u32,
    good_until_ms: u64,
    /// So much, or more, is not to be had before then.
    empty_until_ms: u64,
    refused: u32,
}

impl Allowances {
    /// Takes the rate from the settings.
    #[must_use]
    pub fn from_settings(settings: &config::Limits) -> Self {
        Self {
            known: Mutex::default(),
            keys_max: settings.addresses_max,
            per_s: settings.service_requests_per_s,
            burst: settings.service_requests_burst,
            silent_until_ms: Mutex::new(0),
        }
    }

    /// What is in hand for a key. `None`: as many keys as are remembered are in use.
    #[must_use]
    pub fn of(&self, key: u64, now: Now) -> Option<Arc<Allowance>> {
        let mut known = self.known.lock();
        if let Some(allowance) = known.get(&key) {
            return Some(Arc::clone(allowance));
        }
        if known.len() >= self.keys_max {
            known.retain(|_, allowance| Arc::strong_count(allowance) > 1 || !allowance.is_over(now));
        }
        if known.len() >= self.keys_max {
            return None;
        }
        let allowance = Arc::<Allowance>::default();
        known.insert(key, Arc::clone(&allowance));
        Some(allowance)
    }

    /// Counts a request that costs so much, as far as this can be told here.
    #[must_use]
    pub fn take(&self, allowance: &Allowance, cost: u32, now: Now) -> Answer {
        let cost = cost.clamp(1, self.burst.get());
        let mut hand = allowance.hand.lock();
        if now.mono_ms >= hand.good_until_ms {
            hand.has = 0;
        }
        if let Some(left) = hand.has.checked_sub(cost) {
            hand.has = left;
            return Answer::Go;
        }
        let least = cost - hand.has;
        // What is less may be there for all that.
        if now.mono_ms < hand.empty_until_ms && least >= hand.refused {
            let wait_ms = u32::try_from(hand.empty_until_ms - now.mono_ms).unwrap_or(u32::MAX);
            return Answer::Wait(RateLimited { retry_after_ms: wait_ms });
        }
        if now.mono_ms < *self.silent_until_ms.lock() {
            return Answer::Alone;
        }
        let ahead = (self.per_s.get() / PARTS_OF_A_SECOND).min(self.burst.get() / PARTS_OF_A_BURST);
        Answer::Ask(Wanted { per_s: self.per_s, burst: self.burst, most: least.max(ahead), least })
    }

    /// The store has given so many.
    pub fn given(&self, allowance: &Allowance, taken: u32, now: Now) {
        let mut hand = allowance.hand.lock();
        hand.has = hand.has.saturating_add(taken).min(self.burst.get());
        (hand.good_until_ms, hand.empty_until_ms) = (now.mono_ms + GOOD_FOR_MS, 0);
    }

    /// The store has not so many to give before then.
    pub fn empty(&self, allowance: &Allowance, least: u32, retry_after_ms: u64, now: Now) {
        let mut hand = allowance.hand.lock();
        (hand.empty_until_ms, hand.refused) = (now.mono_ms.saturating_add(retry_after_ms.max(1)), least);
    }

    /// The store does not say.
    pub fn silent(&self, now: Now) {
        *self.silent_until_ms.lock() = now.mono_ms + STORE_AGAIN_MS;
    }
}

impl Allowance {
    fn is_over(&self, now: Now) -> bool {
        let hand = self.hand.lock();
        now.mono_ms >= hand.good_until_ms.max(hand.empty_until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn allowances(toml: &str) -> Allowances {
        Allowances::from_settings(&Settings::from_toml(&format!("[limits]\n{toml}")).unwrap().limits)
    }

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 0 }
    }

    fn asks(answer: Answer) -> (u32, u32) {
        match answer {
            Answer::Ask(Wanted { most, least, .. }) => (most, least),
            other => panic!("{other:?}"),
        }
    }

    const HUNDRED: &str = "service_requests_per_s = 100\nservice_requests_burst = 200";

    #[test]
    fn what_was_taken_ahead_serves_later_requests_for_a_second() {
        let all = allowances(HUNDRED);
        let key = all.of(1, at(0)).unwrap();
        assert_eq!(asks(all.take(&key, 1, at(0))), (5, 1));
        all.given(&key, 5, at(0));
        assert!((0..5).all(|_| all.take(&key, 1, at(900)) == Answer::Go));
        assert_eq!(asks(all.take(&key, 1, at(900))), (5, 1));
        all.given(&key, 5, at(900));
        assert_eq!(asks(all.take(&key, 1, at(1_900))), (5, 1), "what lay too long is gone");
    }

    #[test]
    fn a_costly_request_asks_for_what_is_missing_and_never_for_more_than_the_burst() {
        let all = allowances(HUNDRED);
        let key = all.of(1, at(0)).unwrap();
        all.given(&key, 3, at(0));
        assert_eq!(asks(all.take(&key, 50, at(0))), (47, 47));
        all.given(&key, 47, at(0));
        assert_eq!(all.take(&key, 50, at(0)), Answer::Go);
        assert_eq!(asks(all.take(&key, 1_000_000, at(0))), (200, 200));
    }

    #[test]
    fn an_empty_store_is_not_asked_again_before_it_has_some() {
        let all = allowances(HUNDRED);
        let key = all.of(1, at(0)).unwrap();
        all.empty(&key, 10, 40, at(10));
        assert_eq!(all.take(&key, 10, at(20)), Answer::Wait(RateLimited { retry_after_ms: 30 }));
        assert_eq!(asks(all.take(&key, 9, at(20))).1, 9, "a smaller one may pass");
        assert_eq!(asks(all.take(&key, 10, at(50))).1, 10);
    }

    #[test]
    fn a_store_that_does_not_say_is_left_alone_for_a_while() {
        let all = allowances(HUNDRED);
        let key = all.of(1, at(0)).unwrap();
        all.silent(at(0));
        assert_eq!(all.take(&key, 1, at(999)), Answer::Alone);
        assert_eq!(asks(all.take(&key, 1, at(1_000))).1, 1);
    }

    #[test]
    fn no_more_keys_are_remembered_than_may_be() {
        let all = allowances(&format!("{HUNDRED}\naddresses_max = 2"));
        let busy = all.of(1, at(0)).unwrap();
        all.given(&all.of(2, at(0)).unwrap(), 5, at(0));
        assert!(all.of(3, at(999)).is_none());
        assert!(all.of(3, at(1_000)).is_some(), "the second was over");
        assert!(Arc::ptr_eq(&busy, &all.of(1, at(5_000)).unwrap()));
    }
}
