//! What the store has lost of this node's shards, counted for people: shards that were written again from memory, and
//! sessions that are gone with it. Filled by `mending` and `opening`; told by `tidings` and in readiness. Decides nothing.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::Home;
use super::record::Refusal;
use super::shard::Shard;
use crate::clock::Now;
use crate::ids::SessionId;

/// For how long readiness says that the store has lost something: whoever looks at it once an hour finds it.
const TOLD_FOR: Duration = Duration::from_secs(60 * 60);

/// All of it. Numbers that are read one by one: who looks in between sees a shard more or less.
#[derive(Default)]
pub(super) struct Losses {
    /// Monotonic ms; 0: never.
    last_at_ms: AtomicU64,
    /// Repairs of shards since the last quiet hour.
    shards: AtomicUsize,
    /// Clients who came back to a session that is gone with the store, and were not told in the log yet.
    sessions: AtomicUsize,
}

impl Losses {
    /// A shard is written again from memory.
    pub(super) fn repaired(&self, now_ms: u64) {
        if self.told_at(now_ms).is_none() {
            self.shards.store(0, Ordering::Relaxed);
        }
        self.shards.fetch_add(1, Ordering::Relaxed);
        self.last_at_ms.store(now_ms.max(1), Ordering::Relaxed);
    }

    /// How many came back to what is gone since the last call.
    pub(super) fn take_sessions(&self) -> usize {
        self.sessions.swap(0, Ordering::Relaxed)
    }

    fn told_at(&self, now_ms: u64) -> Option<(usize, Duration)> {
        let last_ms = Some(self.last_at_ms.load(Ordering::Relaxed)).filter(|last_ms| *last_ms > 0)?;
        let ago = Duration::from_millis(now_ms.saturating_sub(last_ms));
        (ago < TOLD_FOR).then(|| (self.shards.load(Ordering::Relaxed), ago))
    }
}

impl Home {
    /// How many of this node's shards were written again from memory because the store had lost what it had acknowledged,
    /// and how long ago the last one was; `None` an hour after it.
    #[must_use]
    pub fn store_lost(&self, now: Now) -> Option<(usize, Duration)> {
        self.losses.told_at(now.mono_ms)
    }

    /// Why a session of this shard, for which there is a good ticket, is not here. One that was made before the store
    /// first heard of the shard was lost with what the store held then: a home that lived on would have it in memory,
    /// or says with the generation that it remembers the time before. Whether it had ended by then nobody can say: a session
    /// lives as long as its link, and its TTL counts from the end of that. So what is said is what may have been lost.
    pub(super) fn why_gone(&self, shard: &Shard, session: SessionId) -> Refusal {
        let founded = shard.fence().map_or(0, |fence| fence.generation.founded_unix_ms());
        if session.made_unix_ms() >= founded {
            return Refusal::NotResumable;
        }
        self.losses.sessions.fetch_add(1, Ordering::Relaxed);
        self.meters.session_lost();
        Refusal::LostWithStore
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_for_an_hour_and_the_next_one_is_counted_from_one() {
        let (losses, hour_ms) = (Losses::default(), 3_600_000);
        assert_eq!(losses.told_at(5), None);
        losses.repaired(1_000);
        losses.repaired(2_000);
        assert_eq!(losses.told_at(5_000), Some((2, Duration::from_secs(3))));
        assert_eq!(losses.told_at(2_000 + hour_ms), None);
        losses.repaired(9_000 + hour_ms);
        assert_eq!(losses.told_at(9_000 + hour_ms), Some((1, Duration::ZERO)));
    }
}
