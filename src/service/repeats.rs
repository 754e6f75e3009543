//! Messages that were sent under an idempotency key: the same key sends once, and the repeat gets the first answer.
//! Bounded in number and time; what is forgotten here still carries the same id, by which clients drop repeats.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::clock::Now;

/// How long a sent message is remembered.
pub(super) const REMEMBERED_MS: u64 = 5 * 60 * 1_000;
/// How many are, the latest.
const REMEMBERED_MAX: usize = 65_536;

#[derive(Default)]
struct Remembered {
    delivered: HashMap<u128, u32, ahash::RandomState>,
    order: VecDeque<(u64, u128)>,
}

/// What was sent lately, by message id.
#[derive(Default)]
pub(super) struct Repeats(Mutex<Remembered>);

impl Repeats {
    /// To how many sessions a message was sent, if it was.
    pub(super) fn sent(&self, id: u128, now: Now) -> Option<u32> {
        let mut remembered = self.0.lock();
        remembered.forget(now);
        remembered.delivered.get(&id).copied()
    }

    /// Sends a message unless it was sent before; either way, to how many sessions. A message that reached nobody
    /// was not sent: the next try is a new one. `send` runs under a lock that only this file takes: no wait in it.
    pub(super) fn once(&self, id: u128, now: Now, send: impl FnOnce() -> u32) -> u32 {
        let mut remembered = self.0.lock();
        remembered.forget(now);
        if let Some(delivered) = remembered.delivered.get(&id) {
            return *delivered;
        }
        let delivered = send();
        if delivered > 0 {
            remembered.delivered.insert(id, delivered);
            remembered.order.push_back((now.mono_ms, id));
        }
        delivered
    }
}

impl Remembered {
    /// Forgets what is too old, and makes room for one more.
    fn forget(&mut self, now: Now) {
        while let Some((sent_at_ms, id)) = self.order.front().copied() {
            let is_old = now.mono_ms.saturating_sub(sent_at_ms) >= REMEMBERED_MS;
            if !is_old && self.order.len() < REMEMBERED_MAX {
                return;
            }
            self.order.pop_front();
            self.delivered.remove(&id);
        }
    }
}

/// Names a message so that the same key of the same service to the same player always gives the same id. Neither a
/// key's name nor a player id holds a NUL, so that no two triples run together.
pub(super) fn message_id(service: &str, player: &str, idempotency_key: &str) -> u128 {
    let named = [service, "\0", player, "\0", idempotency_key].concat();
    xxhash_rust::xxh3::xxh3_128(named.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 0 }
    }

    #[test]
    fn a_repeat_gets_the_first_answer_for_some_minutes() {
        let repeats = Repeats::default();
        assert_eq!(repeats.once(7, at(0), || 2), 2);
        assert_eq!(repeats.once(7, at(REMEMBERED_MS - 1), || panic!("sent twice")), 2);
        assert_eq!(repeats.once(8, at(1), || 1), 1);
        assert_eq!(repeats.once(7, at(REMEMBERED_MS), || 3), 3);
    }

    #[test]
    fn what_reached_nobody_may_be_tried_again() {
        let repeats = Repeats::default();
        assert_eq!(repeats.once(7, at(0), || 0), 0);
        assert_eq!(repeats.once(7, at(0), || 1), 1);
    }

    #[test]
    fn no_more_is_remembered_than_the_cap() {
        let repeats = Repeats::default();
        for id in 0..=REMEMBERED_MAX as u128 {
            repeats.once(id, at(0), || 1);
        }
        assert_eq!(repeats.0.lock().delivered.len(), REMEMBERED_MAX);
        assert_eq!(repeats.0.lock().order.len(), REMEMBERED_MAX);
        assert_eq!(repeats.once(0, at(0), || 9), 9, "the oldest is forgotten");
    }

    #[test]
    fn an_id_tells_services_players_and_keys_apart() {
        let ids = [("shop", "ann", "k"), ("shop", "an", "nk"), ("sho", "pann", "k"), ("shop", "ann", "K")]
            .map(|(service, player, key)| message_id(service, player, key));
        let mut unique = ids.to_vec();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), ids.len());
        assert_eq!(message_id("shop", "ann", "k"), ids[0]);
    }
}
