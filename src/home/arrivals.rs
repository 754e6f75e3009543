//! What has come from the homes before, of shards that are about to be loaded: bounded in bytes, and taken only until the
//! load begins. Filled by `pulling`, emptied by `loading`; the other end is `parcels`.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;

use super::parcels::{Piece, Pieces};
use crate::ids::{Epoch, PlayerId, SessionId, ShardId};

/// What may come of one shard.
const ARRIVED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What has come of one shard.
#[derive(Default)]
pub(super) struct Arrived {
    epoch: Epoch,
    bytes: usize,
    /// Records that the store may not have, as `salvage` packs them.
    pub(super) records: HashMap<PlayerId, Bytes, ahash::RandomState>,
    /// What sessions have to be told still.
    pub(super) sessions: HashMap<SessionId, Bytes, ahash::RandomState>,
}

impl Arrived {
    /// What is left of it, for whoever holds the shard next.
    pub(super) fn into_pieces(self) -> Pieces {
        let records = self.records.into_iter().map(|(player, body)| Piece::Record(player, body));
        let sessions = self
            .sessions
            .into_iter()
            .map(|(session, packed)| Piece::Replay(session, std::sync::Arc::new(packed)));
        records.chain(sessions).collect()
    }

    /// `false`: that is too much.
    fn put(&mut self, piece: Piece) -> bool {
        let bytes = piece.bytes();
        if self.bytes + bytes > ARRIVED_BYTES_MAX {
            return false;
        }
        let twice = match piece {
            Piece::Record(player, body) => self.records.insert(player, body),
            Piece::Replay(session, parcel) => self.sessions.insert(session, parcel.packed()),
            Piece::KeptBack => None,
        };
        self.bytes = (self.bytes + bytes).saturating_sub(twice.map_or(0, |twice| twice.len()));
        true
    }
}

/// What has come of all shards that are about to be loaded.
#[derive(Default)]
pub(super) struct Arrivals {
    shards: Mutex<HashMap<ShardId, Arrived>>,
}

impl Arrivals {
    /// From now on it may come, for this epoch.
    pub(super) fn expect(&self, shard: ShardId, epoch: Epoch) {
        self.shards.lock().insert(shard, Arrived { epoch, ..Arrived::default() });
    }

    /// Takes what has come; `false`: it is too late, or too much. What came twice counts once.
    pub(super) fn put(&self, shard: ShardId, epoch: Epoch, mut pieces: impl Iterator<Item = Piece>) -> bool {
        let mut shards = self.shards.lock();
        let arrived = shards.get_mut(&shard).filter(|arrived| arrived.epoch == epoch);
        arrived.is_some_and(|arrived| pieces.all(|piece| arrived.put(piece)))
    }

    /// Takes all that has come for this epoch; what comes later is too late.
    pub(super) fn take(&self, shard: ShardId, epoch: Epoch) -> Arrived {
        let arrived = self.shards.lock().remove(&shard);
        arrived.filter(|arrived| arrived.epoch == epoch).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SHARD: ShardId = ShardId::FIRST;

    fn epoch(number: u64) -> Epoch {
        Epoch::of(number)
    }

    #[test]
    fn what_comes_too_late_or_is_too_much_is_not_taken() {
        let arrivals = Arrivals::default();
        let session = SessionId::generate(SHARD, 1);
        let come =
            |bytes: usize| std::iter::once(Piece::Replay(session, Arc::new(Bytes::from(vec![0; bytes]))));
        assert!(!arrivals.put(SHARD, epoch(8), come(1)));
        arrivals.expect(SHARD, epoch(8));
        assert!(!arrivals.put(SHARD, epoch(7), come(1)));
        assert!(arrivals.put(SHARD, epoch(8), come(1)));
        assert!(arrivals.put(SHARD, epoch(8), come(1)), "it may come twice");
        assert!(!arrivals.put(SHARD, epoch(8), come(ARRIVED_BYTES_MAX)));
        assert_eq!(arrivals.take(SHARD, epoch(8)).sessions[&session].len(), 1);
        assert!(!arrivals.put(SHARD, epoch(8), come(1)), "it is loaded by now");
        arrivals.expect(SHARD, epoch(9));
        arrivals.put(SHARD, epoch(9), come(1));
        assert!(arrivals.take(SHARD, epoch(8)).sessions.is_empty());
    }
}
