//! Replay buffers between two homes. Here what this node has laid out of shards that it gave away, until their next home
//! asks for it; there what has come of shards that are about to be loaded. Bounded in bytes and in time; of what is left
//! out the session hears that pushes are missed. Knows no shard's state: `yielding` and `pulling` do.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::cluster::Links;
use crate::ids::{Epoch, PlayerId, SessionId, ShardId};

/// What all that is laid out may weigh: it was in this node's mailboxes a moment ago.
const LAID_OUT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What may come of one shard.
const ARRIVED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What `home` must know of mailboxes; `app` tells, because this floor does not know `hub`.
pub trait Mailboxes: Send + Sync {
    /// Takes out of a session's mailbox what its client may not have seen; nothing comes in any more. `None`: there is
    /// none.
    fn seal(&self, session: SessionId) -> Option<Box<dyn Parcel>>;
    /// Makes a session's mailbox of what another node has packed; `false` if that cannot be read.
    fn take_in(&self, session: SessionId, player: &PlayerId, packed: &[u8]) -> bool;
}

/// What a session's client may not have seen.
pub trait Parcel: Send {
    /// What it weighs in memory.
    fn bytes(&self) -> usize;
    /// As nodes send it.
    fn packed(&self) -> Bytes;
}

/// What a hand-over needs, where there can be other nodes.
pub struct Neighbours {
    /// The links to them.
    pub links: std::sync::Arc<Links>,
    /// The mailboxes of this one.
    pub mailboxes: std::sync::Arc<dyn Mailboxes>,
}

/// Sessions and what goes with them, the most useful first.
pub(super) type Sealed = VecDeque<(SessionId, Box<dyn Parcel>)>;

struct LaidOut {
    epoch: Epoch,
    until_ms: u64,
    sessions: Sealed,
}

#[derive(Default)]
struct Shelf {
    shards: HashMap<ShardId, LaidOut>,
    bytes: usize,
}

impl Shelf {
    fn remove(&mut self, shard: ShardId) -> Option<LaidOut> {
        let laid_out = self.shards.remove(&shard)?;
        self.bytes = self.bytes.saturating_sub(weight(&laid_out.sessions));
        Some(laid_out)
    }
}

fn weight(sessions: &Sealed) -> usize {
    sessions.iter().map(|(_, parcel)| parcel.bytes()).sum()
}

/// What is laid out here.
#[derive(Default)]
pub(super) struct Parcels {
    shelf: Mutex<Shelf>,
}

impl Parcels {
    /// Lays out what goes with a shard that was held under this epoch; how many sessions found no place.
    pub(super) fn lay_out(&self, shard: ShardId, epoch: Epoch, mut sessions: Sealed, until_ms: u64) -> usize {
        let mut shelf = self.shelf.lock();
        // Of the same life of the shard it goes on; of an earlier one nothing is true any more.
        let mut before = shelf.remove(shard).filter(|before| before.epoch == epoch);
        let mut all = before.take().map(|before| before.sessions).unwrap_or_default();
        all.append(&mut sessions);
        let mut left = LAID_OUT_BYTES_MAX.saturating_sub(shelf.bytes);
        let fitting = all.iter().take_while(|(_, parcel)| {
            let fits = parcel.bytes() <= left;
            left = left.saturating_sub(parcel.bytes());
            fits
        });
        let fitting = fitting.count();
        let without = all.len() - fitting;
        all.truncate(fitting);
        shelf.bytes += weight(&all);
        shelf.shards.insert(shard, LaidOut { epoch, until_ms, sessions: all });
        without
    }

    /// Whether a shard is laid out, be it without anything to give.
    pub(super) fn has(&self, shard: ShardId) -> bool {
        self.shelf.lock().shards.contains_key(&shard)
    }

    /// Whether nobody can come for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.shelf.lock().shards.values().all(|laid_out| laid_out.sessions.is_empty())
    }

    /// Gives out what fills a page, about; each session once. `true`: there is more. Nothing to whoever does not hold
    /// the shard after us.
    pub(super) fn page(&self, shard: ShardId, asked_under: Epoch, page_bytes: usize) -> (Sealed, bool) {
        let mut shelf = self.shelf.lock();
        let Some(laid_out) = shelf.shards.get_mut(&shard).filter(|laid_out| laid_out.epoch < asked_under)
        else {
            return (Sealed::new(), false);
        };
        let (mut page, mut bytes) = (Sealed::new(), 0);
        while bytes < page_bytes {
            let Some((session, parcel)) = laid_out.sessions.pop_front() else { break };
            bytes += parcel.bytes();
            page.push_back((session, parcel));
        }
        let more = !laid_out.sessions.is_empty();
        if !more {
            shelf.shards.remove(&shard);
        }
        shelf.bytes = shelf.bytes.saturating_sub(bytes);
        (page, more)
    }

    /// Nobody asks for it any more.
    pub(super) fn forget(&self, shard: ShardId) {
        // Dropped behind the lock: there may be much of it.
        let _forgotten = self.shelf.lock().remove(shard);
    }

    /// Nobody has asked in time.
    pub(super) fn forget_old(&self, now_ms: u64) {
        let mut shelf = self.shelf.lock();
        if shelf.shards.is_empty() {
            return;
        }
        let old = shelf.shards.iter().filter(|(_, laid_out)| laid_out.until_ms <= now_ms);
        let old: Vec<_> = old.map(|(shard, _)| *shard).collect();
        let forgotten: Vec<_> = old.into_iter().filter_map(|shard| shelf.remove(shard)).collect();
        drop(shelf);
        for laid_out in forgotten {
            tracing::debug!(operation = "pull", sessions = laid_out.sessions.len(), "nobody has asked");
        }
    }
}

#[derive(Default)]
struct Arrived {
    epoch: Epoch,
    bytes: usize,
    sessions: HashMap<SessionId, Bytes, ahash::RandomState>,
}

/// What has come from the homes before, of shards that are about to be loaded.
#[derive(Default)]
pub(super) struct Arrivals {
    shards: Mutex<HashMap<ShardId, Arrived>>,
}

impl Arrivals {
    /// From now on it may come, for this epoch.
    pub(super) fn expect(&self, shard: ShardId, epoch: Epoch) {
        self.shards.lock().insert(shard, Arrived { epoch, ..Arrived::default() });
    }

    /// Takes what has come; `false`: it is too late, or too much.
    pub(super) fn put(&self, shard: ShardId, epoch: Epoch, parcels: Vec<(SessionId, Bytes)>) -> bool {
        let mut shards = self.shards.lock();
        let Some(arrived) = shards.get_mut(&shard).filter(|arrived| arrived.epoch == epoch) else {
            return false;
        };
        for (session, packed) in parcels {
            arrived.bytes += packed.len();
            if arrived.bytes > ARRIVED_BYTES_MAX {
                return false;
            }
            arrived.sessions.insert(session, packed);
        }
        true
    }

    /// Takes all that has come for this epoch; what comes later is too late.
    pub(super) fn take(&self, shard: ShardId, epoch: Epoch) -> HashMap<SessionId, Bytes, ahash::RandomState> {
        let arrived = self.shards.lock().remove(&shard).filter(|arrived| arrived.epoch == epoch);
        arrived.map(|arrived| arrived.sessions).unwrap_or_default()
    }

    /// The shard is lost.
    pub(super) fn forget(&self, shard: ShardId) {
        self.shards.lock().remove(&shard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Weighs(usize);

    impl Parcel for Weighs {
        fn bytes(&self) -> usize {
            self.0
        }
        fn packed(&self) -> Bytes {
            Bytes::from(self.0.to_string())
        }
    }

    fn sealed(weights: &[usize]) -> Sealed {
        let session = |at: usize| SessionId::generate(ShardId::FIRST, at as u64);
        let parcels = weights.iter().enumerate();
        parcels.map(|(at, weight)| (session(at), Box::new(Weighs(*weight)) as Box<dyn Parcel>)).collect()
    }

    fn weights(page: &(Sealed, bool)) -> (Vec<usize>, bool) {
        (page.0.iter().map(|(_, parcel)| parcel.bytes()).collect(), page.1)
    }

    const SHARD: ShardId = ShardId::FIRST;

    fn epoch(number: u64) -> Epoch {
        Epoch::of(number)
    }

    #[test]
    fn pages_come_in_order_and_each_session_once() {
        let parcels = Parcels::default();
        assert_eq!(parcels.lay_out(SHARD, epoch(7), sealed(&[10, 20, 500, 1, 2]), 100), 0);
        assert_eq!(weights(&parcels.page(SHARD, epoch(7), 25)), (vec![], false), "not by our own epoch");
        assert_eq!(weights(&parcels.page(SHARD, epoch(8), 25)), (vec![10, 20], true));
        assert_eq!(weights(&parcels.page(SHARD, epoch(8), 25)), (vec![500], true), "never none");
        assert_eq!(weights(&parcels.page(SHARD, epoch(8), 25)), (vec![1, 2], false));
        assert!(parcels.is_empty());
        assert_eq!(parcels.shelf.lock().bytes, 0);
        assert_eq!(weights(&parcels.page(SHARD, epoch(8), 25)), (vec![], false));
    }

    #[test]
    fn what_does_not_fit_or_is_not_asked_for_in_time_goes() {
        let parcels = Parcels::default();
        let half = LAID_OUT_BYTES_MAX / 2;
        assert_eq!(parcels.lay_out(SHARD, epoch(7), sealed(&[half, half, 1, 1]), 100), 2);
        let other = ShardId::numbered(1).unwrap();
        assert_eq!(parcels.lay_out(other, epoch(7), sealed(&[1]), 100), 1);
        assert!(parcels.has(other));
        parcels.forget(other);
        parcels.forget_old(99);
        assert!(parcels.has(SHARD));
        parcels.forget_old(100);
        assert!(!parcels.has(SHARD) && parcels.is_empty());
        assert_eq!(parcels.lay_out(other, epoch(7), sealed(&[1]), 200), 0);
        assert!(!parcels.is_empty());
        // Nothing to give is something to know, and nothing to wait for.
        assert_eq!(parcels.lay_out(other, epoch(8), sealed(&[]), 200), 0);
        assert!(parcels.has(other) && parcels.is_empty());
        parcels.page(other, epoch(9), 1);
        assert!(!parcels.has(other));
    }

    #[test]
    fn what_was_laid_out_in_an_earlier_life_of_the_shard_is_no_use() {
        let parcels = Parcels::default();
        parcels.lay_out(SHARD, epoch(7), sealed(&[1]), 100);
        parcels.lay_out(SHARD, epoch(9), sealed(&[2]), 100);
        parcels.lay_out(SHARD, epoch(9), sealed(&[3]), 100);
        assert_eq!(weights(&parcels.page(SHARD, epoch(10), 100)), (vec![2, 3], false));
    }

    #[test]
    fn what_comes_too_late_or_is_too_much_is_not_taken() {
        let arrivals = Arrivals::default();
        let session = SessionId::generate(SHARD, 1);
        let come = |bytes: usize| vec![(session, Bytes::from(vec![0; bytes]))];
        assert!(!arrivals.put(SHARD, epoch(8), come(1)));
        arrivals.expect(SHARD, epoch(8));
        assert!(!arrivals.put(SHARD, epoch(7), come(1)));
        assert!(arrivals.put(SHARD, epoch(8), come(1)));
        assert!(!arrivals.put(SHARD, epoch(8), come(ARRIVED_BYTES_MAX)));
        assert_eq!(arrivals.take(SHARD, epoch(8))[&session].len(), 1);
        assert!(!arrivals.put(SHARD, epoch(8), come(1)), "it is loaded by now");
        arrivals.expect(SHARD, epoch(9));
        arrivals.put(SHARD, epoch(9), come(1));
        assert!(arrivals.take(SHARD, epoch(8)).is_empty());
    }
}
