//! What a store that lost writes is told again: every hot record under a new epoch, who is kept out, and the end of those whom only
//! the store still takes for alive. Called by `keeper`.

use std::sync::Arc;
use std::time::Duration;

use super::Home;
use super::keeper::answered;
use super::shard::{Fence, Shard};
use crate::clock;
use crate::ids::{Epoch, PlayerId};
use crate::store::{Agreed, COMMIT_RECORDS_MAX, Committed, Grant, LivePage, Stance};

/// How long the store is left alone before what it could not take or tell after a loss is tried again.
const MEND_AGAIN: Duration = Duration::from_secs(1);

impl Home {
    /// The store lost writes: every hot record is held under the new epoch and goes out again, whatever is stored.
    pub(super) fn restore(&self, shard: &Arc<Shard>, grant: &Grant) {
        tracing::debug!(operation = "repair", shard = shard.id().number(), epoch = %grant.epoch, "the store lost writes");
        shard.set_fence(Some(Fence::of(grant)));
        shard.forget_dirty();
        self.cold.forget(shard.id());
        let now = clock::now();
        let now_ms = now.mono_ms;
        for cell in self.records.of_shard(shard) {
            cell.with_slot(|slot| {
                slot.record.repair(grant.epoch);
                slot.record.note_loss(now.unix_ms);
                (slot.restore, slot.known, slot.queued) = (true, false, false);
            });
            cell.requeue(now_ms);
        }
        shard.hurry(now_ms);
        self.known.may_be_lost(shard.id());
        self.meters.repaired();
        self.losses.repaired(now_ms);
    }

    /// What a store that lost writes says of those who are not in memory is put right: tried until the store has taken
    /// it all, for it has just been in trouble, or until the shard is taken anew.
    pub(super) async fn mend_store(&self, shard: &Arc<Shard>, epoch: Epoch) {
        let (mut ghosts_ended, mut barred) = (false, self.barred_of(shard));
        while shard.is_under(epoch) {
            ghosts_ended = ghosts_ended || self.end_ghosts(shard, epoch).await;
            barred = self.put_back_bars(shard, barred).await;
            if ghosts_ended && barred.is_empty() {
                self.known.has_come();
                return;
            }
            tokio::time::sleep(MEND_AGAIN).await;
        }
    }

    /// Ends what the store lists as live and memory does not hold: a store that went back brings ended sessions back.
    /// Says whether all are ended.
    async fn end_ghosts(&self, shard: &Arc<Shard>, epoch: Epoch) -> bool {
        let (mut all, mut cursor) = (self.put_back_config(shard).await, None);
        while shard.is_under(epoch) {
            let page = self.store.load_live(shard.id(), cursor, COMMIT_RECORDS_MAX).await;
            let Some(page) = answered(shard, "repair", page) else { return false };
            cursor = page.next.clone();
            all &= self.shrink_ghosts(shard, page).await;
            // A batch of its own that fell due meanwhile was turned away.
            shard.plan_rest(clock::now().mono_ms);
            if cursor.is_none() {
                break;
            }
        }
        all
    }

    /// Puts back what the cluster has agreed on. Says whether the store has answered.
    async fn put_back_config(&self, shard: &Shard) -> bool {
        let stored =
            self.store.agree_config(self.cluster.clone(), Stance::Insists, self.settings.lease_ttl).await;
        let Some(Agreed { config, .. }) = answered(shard, "repair", stored) else { return false };
        if config.ticket_secret != self.cluster.ticket_secret {
            tracing::error!(
                operation = "repair",
                "the store holds another secret of the cluster than this node: the tickets of one are worth nothing at \
                 the other, and they do not link. Restart this node"
            );
        }
        true
    }

    async fn shrink_ghosts(&self, shard: &Arc<Shard>, page: LivePage) -> bool {
        let _turn = shard.commit_turn.lock().await;
        let Some(fence) = shard.next_batch() else { return false };
        let now = clock::now();
        // Who is kept out ends with that put back: a remainder made of what is stored would lack it.
        let is_ghost = |player: &PlayerId| {
            self.records.player(player).is_none()
                && self.bans.of_player(player, now.unix_ms).is_none()
                && self.revocations.of_player(player, shard.id()) == 0
        };
        let records: Vec<_> = page
            .records
            .into_iter()
            .filter(|(player, _)| is_ghost(player))
            .filter_map(|(player, stored)| self.remainder_of(player, &stored, fence.epoch, now))
            .collect();
        if records.is_empty() {
            return true;
        }
        records.iter().for_each(|record| self.known.add(shard.id(), &record.player));
        let shrunk: Vec<_> = records.iter().map(|record| (record.player.clone(), record.version)).collect();
        let commit = self.batch(shard, &fence, records);
        let committed = answered(shard, "repair", self.store.commit(commit).await);
        shrunk.iter().for_each(|(player, version)| self.cold.changed(player, fence.epoch, *version));
        // Whoever is not written for a reason of her own is found by her expiry.
        matches!(committed, Some(Committed::Done(_)))
    }
}

#[cfg(test)]
mod tests {
    use crate::home::houses::{House, named};
    use crate::home::record::Record;
    use crate::ids::{Epoch, Version};
    use crate::store::{LivePage, StoredRecord};

    #[tokio::test]
    async fn whoever_the_store_brings_back_is_not_denied_when_her_end_is_written() {
        let house = House::new().await;
        let (ghost, shard) = (named("ghost"), house.shard());
        assert!(house.home.known.denies(shard.id(), &ghost));
        let record = Record::first(Epoch::of(1), Version::of(7));
        let (epoch, version, p) = (record.epoch, record.version, record.encode_p());
        let records = vec![(ghost.clone(), StoredRecord { epoch, version, p, w: None })];
        assert!(house.home.shrink_ghosts(shard, LivePage { records, ..LivePage::default() }).await);
        assert!(!house.home.known.denies(shard.id(), &ghost), "she is stored");
        assert!(house.home.look(&ghost).await.unwrap().is_some());
    }
}
