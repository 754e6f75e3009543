//! Members whom nobody claims any more. Nobody leaves because her node is silent, or is not hers any more: only when the
//! home of her record has been known for a while and does not claim her.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Rooms;
use super::claims::Cell;
use super::nodes::Telling;
use crate::clock::millis;
use crate::ids::{Owner, PlayerId, RoomName, ShardId};
use crate::presence::seat::Claim;

/// How long the home of her record must have been known for a member whom it does not claim to be gone.
pub(super) const ORPHANED: Duration = Duration::from_secs(5);

impl Rooms {
    /// Takes out whom nobody claims any more.
    pub(in crate::presence) async fn sweep(&self) {
        let Some(nodes) = &self.nodes else { return };
        let now_ms = nodes.post.now_ms();
        if nodes.sweep_until_ms.load(Ordering::Relaxed) < now_ms {
            return;
        }
        let places = nodes.places.lock().all().to_vec();
        let wholes: HashMap<Owner, Vec<u64>, ahash::RandomState> = {
            let tellings = nodes.tellings.lock();
            let whole = |told: &Vec<Telling>| told.iter().map(|telling| telling.whole).collect();
            tellings.iter().map(|(node, told)| (node.clone(), whole(told))).collect()
        };
        let place_of = |shard: ShardId| places.get(usize::from(shard.number()));
        let is_made = |shard: ShardId| nodes.is_here(shard) && !nodes.places.lock().is_rebuilding(shard);
        for (at, (name, shard, cell)) in self.cells_of(is_made).into_iter().enumerate() {
            let number = shard.number();
            let is_orphan = |claim: &Claim| match &claim.node {
                node if *node == self.me => place_of(shard).is_some_and(|place| claim.telling < place.tenure),
                node => wholes
                    .get(node)
                    .and_then(|wholes| wholes.get(usize::from(number)))
                    .is_some_and(|whole| claim.telling < *whole),
            };
            let is_gone = |player: &PlayerId, claim: &Claim| {
                let Some(place) = place_of(nodes.homes.shard_of(player)) else { return false };
                let Some(home) = &place.home else { return false };
                // She has had no other home since: what it has told since, it has told of her, too. So who left while
                // nodes were cut off is gone as soon as they have told each other all, and nobody waits for more.
                if *home == claim.node && *home != self.me && claim.epoch == place.epoch {
                    return is_orphan(claim);
                }
                let is_long = now_ms.saturating_sub(place.since_ms) >= millis(ORPHANED);
                // Who claims under a newer epoch serves her by now, though this node has not heard of that yet.
                is_long && claim.epoch <= place.epoch && (*home != claim.node || is_orphan(claim))
            };
            let gone = self.sweep_one(&name, &cell, is_gone);
            if !gone.is_empty() {
                tracing::info!(
                    operation = "rooms",
                    members = gone.len(),
                    "their homes do not know of them: they have left"
                );
                gone.iter().for_each(|claim| nodes.untell(number, claim));
                self.owing.put(name.clone(), ());
                self.drop_if_empty(&name);
            }
            if at % 64 == 63 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn sweep_one(
        &self,
        name: &RoomName,
        cell: &Cell,
        is_gone: impl Fn(&PlayerId, &Claim) -> bool,
    ) -> Vec<Claim> {
        let epoch = (self.ground.epoch_of)(name);
        let mut room = cell.lock();
        if room.gone || room.seat.is_none() {
            return Vec::new();
        }
        self.with_seat(&mut room, name, |seat| seat.sweep(epoch, is_gone))
    }
}
