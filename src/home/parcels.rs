//! What this node has laid out of shards that it gave away or lost, until their next home asks for it: records that the
//! store does not have, and replay buffers. Bounded in bytes and in time. Knows no shard's state: `yielding` does; the other
//! end is `arrivals`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::cluster::Links;
use crate::ids::{Epoch, Owner, PlayerId, SessionId, ShardId};

/// What all that is laid out may weigh: it was in this node's memory a moment ago.
const LAID_OUT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What `home` must know of mailboxes; `app` tells, because this floor does not know `hub`.
pub trait Mailboxes: Send + Sync {
    /// Takes out of a session's mailbox what its client may not have seen; nothing comes in any more. `None`: there is
    /// none.
    fn seal(&self, session: SessionId) -> Option<Arc<dyn Parcel>>;
    /// Makes a session's mailbox of what another node has packed; `false` if that cannot be read.
    fn take_in(&self, session: SessionId, player: &PlayerId, packed: &[u8]) -> bool;
}

/// What a session's client may not have seen.
pub trait Parcel: Send + Sync {
    /// What it weighs in memory.
    fn bytes(&self) -> usize;
    /// As nodes send it.
    fn packed(&self) -> Bytes;
}

/// As another node has packed it.
impl Parcel for Bytes {
    fn bytes(&self) -> usize {
        self.len()
    }
    fn packed(&self) -> Bytes {
        self.clone()
    }
}

/// What a hand-over needs, where there can be other nodes.
pub struct Neighbours {
    /// The links to them.
    pub links: Arc<Links>,
    /// The mailboxes of this one.
    pub mailboxes: Arc<dyn Mailboxes>,
}

/// One thing that goes along.
#[derive(Clone)]
pub(super) enum Piece {
    /// A record that the store does not have, as `salvage` packs it.
    Record(PlayerId, Bytes),
    /// What a session's client may not have seen.
    Replay(SessionId, Arc<dyn Parcel>),
    /// The place of a record that is given to nobody any more: pieces are counted.
    KeptBack,
}

impl Piece {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Record(_, body) => body.len(),
            Self::Replay(_, parcel) => parcel.bytes(),
            Self::KeptBack => 0,
        }
    }
}

/// All that goes along, the most useful first.
pub(super) type Pieces = VecDeque<Piece>;

/// What one shard's next home may have.
struct LaidOut {
    epoch: Epoch,
    until_ms: u64,
    pieces: Pieces,
    /// How many pieces were let go since they had arrived: the number of the first one that is here.
    gone: u64,
    /// How many were given at least once.
    given: u64,
    /// Whose records are among those,
    players: HashSet<PlayerId, ahash::RandomState>,
    /// and who has got them.
    heir: Option<Owner>,
}

impl LaidOut {
    fn end(&self) -> u64 {
        self.gone.saturating_add(self.pieces.len() as u64)
    }

    fn is_given(&self) -> bool {
        self.given >= self.end()
    }

    fn has_records_not_given(&self) -> bool {
        let given = usize::try_from(self.given.saturating_sub(self.gone)).unwrap_or(usize::MAX);
        self.pieces.iter().skip(given).any(|piece| matches!(piece, Piece::Record(..)))
    }

    /// Lets those go that have arrived; what they weighed.
    fn arrived(&mut self, before: u64) -> usize {
        let count = usize::try_from(before.saturating_sub(self.gone)).unwrap_or(usize::MAX);
        let count = count.min(self.pieces.len());
        self.gone += count as u64;
        self.pieces.drain(..count).map(|piece| piece.bytes()).sum()
    }

    /// What fills a page, about, and whether there is more.
    fn page(&mut self, to: &Owner, page_bytes: usize) -> (Vec<Piece>, bool) {
        let mut bytes = 0;
        let fits = self.pieces.iter().take_while(|piece| {
            let fits = bytes < page_bytes;
            bytes += piece.bytes();
            fits
        });
        let page: Vec<Piece> = fits.cloned().collect();
        self.players.extend(page.iter().filter_map(|piece| match piece {
            Piece::Record(player, _) => Some(player.clone()),
            Piece::Replay(..) | Piece::KeptBack => None,
        }));
        self.given = self.given.max(self.gone + page.len() as u64);
        self.heir = Some(to.clone());
        let more = page.len() < self.pieces.len();
        (page, more)
    }
}

#[derive(Default)]
struct Shelf {
    shards: HashMap<ShardId, LaidOut>,
    bytes: usize,
}

impl Shelf {
    fn remove(&mut self, shard: ShardId) -> Option<LaidOut> {
        let laid_out = self.shards.remove(&shard)?;
        self.bytes = self.bytes.saturating_sub(weight(&laid_out.pieces));
        Some(laid_out)
    }

    /// What is there for whoever holds the shard after us.
    fn of(&mut self, shard: ShardId, asked_under: Epoch) -> Option<&mut LaidOut> {
        self.shards.get_mut(&shard).filter(|laid_out| laid_out.epoch < asked_under)
    }
}

fn weight(pieces: &Pieces) -> usize {
    pieces.iter().map(Piece::bytes).sum()
}

/// What is laid out here.
#[derive(Default)]
pub(super) struct Parcels {
    shelf: Mutex<Shelf>,
    /// Wakes those who wait until all of a shard was given.
    given: Notify,
}

impl Parcels {
    /// Lays out what goes with a shard that was held under this epoch; how many pieces found no place.
    pub(super) fn lay_out(&self, shard: ShardId, epoch: Epoch, mut pieces: Pieces, until_ms: u64) -> usize {
        let mut shelf = self.shelf.lock();
        if shelf.shards.get(&shard).is_some_and(|newer| newer.epoch > epoch) {
            return pieces.len();
        }
        // Of the same life of the shard it goes on; of an earlier one nothing is true any more.
        let before = shelf.remove(shard).filter(|before| before.epoch == epoch);
        let mut laid_out = before.unwrap_or_else(|| LaidOut {
            epoch,
            until_ms,
            pieces: Pieces::new(),
            gone: 0,
            given: 0,
            players: HashSet::default(),
            heir: None,
        });
        let all = &mut laid_out.pieces;
        all.append(&mut pieces);
        let mut left = LAID_OUT_BYTES_MAX.saturating_sub(shelf.bytes);
        let fitting = all.iter().take_while(|piece| {
            let fits = piece.bytes() <= left;
            left = left.saturating_sub(piece.bytes());
            fits
        });
        let fitting = fitting.count();
        let without = all.len() - fitting;
        all.truncate(fitting);
        laid_out.until_ms = until_ms;
        shelf.bytes += weight(all);
        shelf.shards.insert(shard, laid_out);
        without
    }

    /// Whether a shard is laid out, be it without anything to give.
    pub(super) fn has(&self, shard: ShardId) -> bool {
        self.shelf.lock().shards.contains_key(&shard)
    }

    /// Whether it was laid out as it was held under this epoch.
    pub(super) fn has_of(&self, shard: ShardId, epoch: Epoch) -> bool {
        self.shelf.lock().shards.get(&shard).is_some_and(|laid_out| laid_out.epoch == epoch)
    }

    /// Whether nobody can come for anything that was not given.
    pub(super) fn is_empty(&self) -> bool {
        self.shelf.lock().shards.values().all(LaidOut::is_given)
    }

    /// Whether some record that the store does not have was given to nobody.
    pub(super) fn has_records_not_given(&self) -> bool {
        self.shelf.lock().shards.values().any(LaidOut::has_records_not_given)
    }

    /// Gives what fills a page, about, from this piece on; those before it have arrived and are let go. `true`: there is
    /// more. Nothing to whoever does not hold the shard after us.
    pub(super) fn page_from(
        &self,
        shard: ShardId,
        (to, asked_under): (&Owner, Epoch),
        from: u64,
        page_bytes: usize,
    ) -> (Vec<Piece>, bool) {
        let mut shelf = self.shelf.lock();
        let Some(laid_out) = shelf.of(shard, asked_under) else { return (Vec::new(), false) };
        let bytes = laid_out.arrived(from);
        let page = laid_out.page(to, page_bytes);
        let is_given = laid_out.is_given();
        shelf.bytes = shelf.bytes.saturating_sub(bytes);
        drop(shelf);
        if is_given {
            self.given.notify_waiters();
        }
        page
    }

    /// The same for a home of an earlier version, which knows replay buffers only and cannot ask twice for one.
    pub(super) fn page_once(
        &self,
        shard: ShardId,
        (to, asked_under): (&Owner, Epoch),
        page_bytes: usize,
    ) -> (Vec<Piece>, bool) {
        let mut shelf = self.shelf.lock();
        let Some(laid_out) = shelf.of(shard, asked_under) else { return (Vec::new(), false) };
        let before = weight(&laid_out.pieces);
        laid_out.pieces.retain(|piece| matches!(piece, Piece::Replay(..)));
        let page = laid_out.page(to, page_bytes);
        laid_out.arrived(laid_out.gone + page.0.len() as u64);
        let bytes = before.saturating_sub(weight(&laid_out.pieces));
        shelf.bytes = shelf.bytes.saturating_sub(bytes);
        drop(shelf);
        self.given.notify_waiters();
        page
    }

    /// Takes back what nobody has come for, for this node itself, which holds the shard again.
    pub(super) fn take_back(&self, shard: ShardId, held_under: Epoch) -> Pieces {
        let mut shelf = self.shelf.lock();
        let laid_out = shelf.remove(shard).filter(|laid_out| laid_out.epoch < held_under);
        let mut pieces = laid_out.map(|laid_out| laid_out.pieces).unwrap_or_default();
        pieces.retain(|piece| !matches!(piece, Piece::KeptBack));
        pieces
    }

    /// Waits until all that was laid out of a shard under this epoch is given, at most so long.
    pub(super) async fn until_given(&self, shard: ShardId, epoch: Epoch, within: Duration) {
        let all_given = async {
            loop {
                let mut given = std::pin::pin!(self.given.notified());
                given.as_mut().enable();
                if !self.waits(shard, epoch) {
                    return;
                }
                given.await;
            }
        };
        let _ = tokio::time::timeout(within, all_given).await;
    }

    fn waits(&self, shard: ShardId, epoch: Epoch) -> bool {
        let shelf = self.shelf.lock();
        let of_this_life = shelf.shards.get(&shard).filter(|laid_out| laid_out.epoch == epoch);
        of_this_life.is_some_and(|laid_out| !laid_out.is_given())
    }

    /// Who has got something of a shard as it was held under this epoch, and whether this player's record was among it.
    pub(super) fn heir_of(&self, shard: ShardId, epoch: Epoch, player: &PlayerId) -> (Option<Owner>, bool) {
        let shelf = self.shelf.lock();
        let laid_out = shelf.shards.get(&shard).filter(|laid_out| laid_out.epoch == epoch);
        laid_out.map_or((None, false), |laid_out| (laid_out.heir.clone(), laid_out.players.contains(player)))
    }

    /// Gives the records of these players to nobody from now on, unless they were given: their links are about to hear what
    /// the store has, and what they are told is lost must not come back behind that.
    pub(super) fn keep_back(&self, shard: ShardId, epoch: Epoch, players: &HashSet<PlayerId>) {
        let mut shelf = self.shelf.lock();
        let Some(laid_out) = shelf.shards.get_mut(&shard).filter(|laid_out| laid_out.epoch == epoch) else {
            return;
        };
        let mut bytes = 0;
        for piece in &mut laid_out.pieces {
            let keeps_back = |player| players.contains(player) && !laid_out.players.contains(player);
            if matches!(piece, Piece::Record(player, _) if keeps_back(player)) {
                bytes += std::mem::replace(piece, Piece::KeptBack).bytes();
            }
        }
        shelf.bytes = shelf.bytes.saturating_sub(bytes);
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
        for laid_out in forgotten.iter().filter(|laid_out| !laid_out.is_given()) {
            tracing::debug!(operation = "pull", pieces = laid_out.pieces.len(), "nobody has asked");
        }
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

    fn pieces(weights: &[usize]) -> Pieces {
        let session = |at: usize| SessionId::generate(ShardId::FIRST, at as u64);
        let parcels = weights.iter().enumerate();
        parcels.map(|(at, weight)| Piece::Replay(session(at), Arc::new(Weighs(*weight)))).collect()
    }

    fn record(player: &str, bytes: usize) -> Piece {
        Piece::Record(PlayerId::parse(player).unwrap(), vec![0; bytes].into())
    }

    fn weights((page, more): (Vec<Piece>, bool)) -> (Vec<usize>, bool) {
        (page.iter().map(Piece::bytes).collect(), more)
    }

    fn from(parcels: &Parcels, asked_under: u64, from: u64, page_bytes: usize) -> (Vec<usize>, bool) {
        let to = Owner::named("node-2#1");
        weights(parcels.page_from(SHARD, (&to, epoch(asked_under)), from, page_bytes))
    }

    fn once(parcels: &Parcels, page_bytes: usize) -> (Vec<usize>, bool) {
        weights(parcels.page_once(SHARD, (&Owner::named("node-2#1"), epoch(8)), page_bytes))
    }

    const SHARD: ShardId = ShardId::FIRST;

    fn epoch(number: u64) -> Epoch {
        Epoch::of(number)
    }

    #[test]
    fn records_that_nobody_has_asked_for_are_known_and_replays_are_no_records() {
        let (parcels, to) = (Parcels::default(), Owner::named("node-2#1"));
        let all = [record("ann", 10), record("bea", 10)].into_iter().chain(pieces(&[5, 5])).collect();
        assert_eq!(parcels.lay_out(SHARD, epoch(7), all, 100), 0);
        let given = |from_piece, page_bytes| {
            parcels.page_from(SHARD, (&to, epoch(8)), from_piece, page_bytes);
            parcels.has_records_not_given()
        };
        assert!(parcels.has_records_not_given());
        assert!(given(0, 5), "one of two");
        assert!(given(1, 0), "it has arrived, and the next was not given");
        assert!(!given(1, 5) && !parcels.is_empty(), "what clients may not have seen is not given yet");
        assert!(!given(2, 100) && parcels.is_empty());
    }

    #[test]
    fn pages_come_in_order_and_again_until_they_have_arrived() {
        let parcels = Parcels::default();
        assert_eq!(parcels.lay_out(SHARD, epoch(7), pieces(&[10, 20, 500, 1, 2]), 100), 0);
        assert_eq!(from(&parcels, 7, 0, 25), (vec![], false), "not by our own epoch");
        assert_eq!(from(&parcels, 8, 0, 25), (vec![10, 20], true));
        assert_eq!(from(&parcels, 8, 0, 25), (vec![10, 20], true), "it was lost on the wire");
        assert_eq!(from(&parcels, 8, 2, 25), (vec![500], true), "never none");
        assert!(!parcels.is_empty());
        assert_eq!(from(&parcels, 8, 3, 25), (vec![1, 2], false));
        assert!(parcels.is_empty(), "all is given, and kept all the same");
        assert_eq!(from(&parcels, 8, 3, 25), (vec![1, 2], false));
        assert_eq!(from(&parcels, 8, 5, 25), (vec![], false));
        assert_eq!(parcels.shelf.lock().bytes, 0);
        assert_eq!(from(&parcels, 8, u64::MAX, 25), (vec![], false));
    }

    #[test]
    fn a_home_of_an_earlier_version_gets_replay_buffers_and_each_once() {
        let parcels = Parcels::default();
        let mut all = pieces(&[10, 20, 500]);
        all.push_front(record("ann", 7));
        parcels.lay_out(SHARD, epoch(7), all, 100);
        assert_eq!(once(&parcels, 25), (vec![10, 20], true));
        assert_eq!(once(&parcels, 25), (vec![500], false));
        assert_eq!(once(&parcels, 25), (vec![], false));
        let (heir, has_hers) = parcels.heir_of(SHARD, epoch(7), &PlayerId::parse("ann").unwrap());
        assert_eq!((heir.is_some(), has_hers), (true, false));
        assert_eq!(parcels.shelf.lock().bytes, 0);
        assert!(parcels.is_empty());
    }

    #[tokio::test]
    async fn whose_record_was_given_is_known_and_can_be_waited_for() {
        let parcels = Parcels::default();
        let all = [record("ann", 7), record("bea", 7)].into_iter().collect();
        parcels.lay_out(SHARD, epoch(7), all, 100);
        let has = |player: &str| parcels.heir_of(SHARD, epoch(7), &PlayerId::parse(player).unwrap()).1;
        from(&parcels, 8, 0, 5);
        assert_eq!((has("ann"), has("bea")), (true, false));
        let waits = parcels.until_given(SHARD, epoch(7), Duration::from_secs(10));
        let gives = async { from(&parcels, 8, 1, 5) };
        let (began, _) = (std::time::Instant::now(), tokio::join!(biased; waits, gives));
        assert!(has("bea") && began.elapsed() < Duration::from_secs(9));
        // Neither another life of the shard nor another shard has anything to wait for.
        parcels.until_given(SHARD, epoch(6), Duration::from_secs(3_600)).await;
    }

    #[test]
    fn whoever_is_told_that_her_record_is_lost_has_it_given_to_nobody_behind_that() {
        let parcels = Parcels::default();
        let all = ["ann", "bea", "cem"].map(|player| record(player, 7));
        parcels.lay_out(SHARD, epoch(7), all.into_iter().collect(), 100);
        assert_eq!(from(&parcels, 8, 0, 5), (vec![7], true));
        let linked = ["ann", "bea"].map(|player| PlayerId::parse(player).unwrap()).into_iter().collect();
        parcels.keep_back(SHARD, epoch(6), &linked);
        parcels.keep_back(SHARD, epoch(7), &linked);
        assert_eq!(parcels.shelf.lock().bytes, 14, "ann's may have arrived, and cem has no link");
        // What has arrived is counted on.
        assert_eq!(from(&parcels, 8, 1, 100), (vec![0, 7], false));
        assert!(!parcels.heir_of(SHARD, epoch(7), &PlayerId::parse("bea").unwrap()).1);
        assert_eq!(parcels.take_back(SHARD, epoch(8)).len(), 1);
    }

    #[test]
    fn what_is_left_of_an_earlier_life_of_a_shard_takes_no_place_of_a_later_one() {
        let parcels = Parcels::default();
        assert_eq!(parcels.lay_out(SHARD, epoch(7), pieces(&[10]), 100), 0);
        assert_eq!(parcels.lay_out(SHARD, epoch(6), pieces(&[20, 30]), 100), 2);
        assert!(parcels.has_of(SHARD, epoch(7)) && !parcels.has_of(SHARD, epoch(6)));
        assert_eq!(once(&parcels, 100), (vec![10], false));
    }

    #[test]
    fn what_does_not_fit_or_is_not_asked_for_in_time_goes() {
        let parcels = Parcels::default();
        let half = LAID_OUT_BYTES_MAX / 2;
        assert_eq!(parcels.lay_out(SHARD, epoch(7), pieces(&[half, half, 1, 1]), 100), 2);
        let other = ShardId::numbered(1).unwrap();
        assert_eq!(parcels.lay_out(other, epoch(7), pieces(&[1]), 100), 1);
        assert!(parcels.has(other));
        parcels.forget(other);
        parcels.forget_old(99);
        assert!(parcels.has(SHARD));
        parcels.forget_old(100);
        assert!(!parcels.has(SHARD) && parcels.is_empty());
        assert_eq!(parcels.lay_out(other, epoch(7), pieces(&[1]), 200), 0);
        assert!(!parcels.is_empty());
        // Nothing to give is something to know, and nothing to wait for.
        assert_eq!(parcels.lay_out(other, epoch(8), pieces(&[]), 200), 0);
        assert!(parcels.has(other) && parcels.has_of(other, epoch(8)) && parcels.is_empty());
    }

    #[test]
    fn what_was_laid_out_in_an_earlier_life_of_the_shard_is_no_use() {
        let parcels = Parcels::default();
        parcels.lay_out(SHARD, epoch(7), pieces(&[1]), 100);
        parcels.lay_out(SHARD, epoch(9), pieces(&[2]), 100);
        parcels.lay_out(SHARD, epoch(9), pieces(&[3]), 100);
        assert_eq!(from(&parcels, 10, 0, 100), (vec![2, 3], false));
        assert_eq!(parcels.take_back(SHARD, epoch(10)).len(), 2);
        assert_eq!(parcels.shelf.lock().bytes, 0);
    }
}
