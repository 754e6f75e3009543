//! Watches across nodes. A node tells the home of a player that its sessions watch her, and how far they are told; the
//! home answers with what is newer, and tells every change at its tick: one letter a node, each view encoded once. A
//! home that moved, or came back, is told anew; both ends compare now and then, and a difference is told anew, too.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::homes::Glance;
use super::peers::Peers;
use super::wants::{Digest, Told, Wants};
use super::words::{self, Letter, Name, Seen, View, Wanted};
use crate::cluster::Topic;
use crate::events::PresenceView;
use crate::ids::{Owner, PlayerId, ShardId, Stamp};
use crate::tasks::Tasks;

/// Players in one letter.
const LETTER_PLAYERS: usize = 512;
/// Bytes of views in one letter, about: a link hears that letters were seen by their number, and must hear it in time.
const LETTER_BYTES: usize = 16 * 1024;
/// Players of shards that moved, about, who are told at a time: the answers must not overflow a link.
const UNTOLD_AT_ONCE: usize = 10_000;
/// Players whom the store is asked for in one call.
const OWED_AT_ONCE: usize = 256;
/// How long the store may take for them.
const OWED_WITHIN: Duration = Duration::from_secs(1);
/// How long the store is left alone when it did not tell.
const OWED_AGAIN: Duration = Duration::from_secs(1);

impl Peers {
    /// Tells homes elsewhere whom this node's sessions watch: all of a shard whose home has moved, and what has changed.
    pub(super) fn tell_wants(&self) {
        for (shard, watched) in self.watches.of_shards(&self.next_untold()) {
            let adds: Vec<_> =
                watched.into_iter().map(|watched| Wanted::new(watched.player, watched.told)).collect();
            self.tell_shard(shard, true, adds, Vec::new());
        }
        let mut moved: HashMap<ShardId, (Vec<Wanted>, Vec<Name>), ahash::RandomState> = HashMap::default();
        for player in self.watches.moved() {
            let (adds, drops) = moved.entry(self.homes.shard_of(&player)).or_default();
            // As it is now: what has changed since then is told once more.
            match self.watches.told(&player) {
                Some(told) => adds.push(Wanted::new(player, told)),
                None => drops.push(Name(player)),
            }
        }
        for (shard, (adds, drops)) in moved {
            self.tell_shard(shard, false, adds, drops);
        }
    }

    /// Some of the shards that are to be told anew; the others wait.
    fn next_untold(&self) -> BTreeSet<ShardId> {
        let (mut next, mut players) = (BTreeSet::new(), 0);
        for (shard, ()) in self.untold.take() {
            if players < UNTOLD_AT_ONCE {
                players += usize::try_from(self.watches.digest(shard.number()).count).unwrap_or(usize::MAX);
                next.insert(shard);
            } else {
                self.untold.put(shard, ());
            }
        }
        next
    }

    fn tell_shard(&self, shard: ShardId, anew: bool, adds: Vec<Wanted>, drops: Vec<Name>) {
        // Without a home there is nobody to be told: the next one is told everything.
        let Some(home) = self.home_of(shard) else { return };
        let post = |anew, adds: &[Wanted], drops: &[Name]| {
            let (adds, drops) = (adds.to_vec(), drops.to_vec());
            let letter = Letter::Wants { anew, shard: shard.number(), adds, drops };
            self.links.post(&home, Topic::Presence, words::write(&letter));
        };
        if anew {
            post(true, &[], &[]);
        }
        adds.chunks(LETTER_PLAYERS).for_each(|adds| post(false, adds, &[]));
        drops.chunks(LETTER_PLAYERS).for_each(|drops| post(false, &[], drops));
    }

    /// Another node's sessions watch these from now on, and those no longer: it is told what they have not seen.
    pub(super) fn hear_wants(
        &self,
        from: &Owner,
        (anew, shard): (bool, u16),
        adds: Vec<Wanted>,
        drops: &[Name],
    ) {
        if !self.links.stands(from) {
            return;
        }
        let adds: Vec<_> = adds.into_iter().map(Wanted::read).collect();
        let mut wanted = self.wanted.lock();
        // Registered first, looked at second: no change falls between.
        let wants = wanted.entry(from.clone()).or_insert_with(|| Wants::nothing(self.homes.shards()));
        if anew {
            wants.clear(shard);
        }
        drops.iter().for_each(|Name(player)| wants.remove(shard, player));
        let all_fit = adds.iter().fold(true, |fit, (player, _)| wants.add(shard, player) && fit);
        drop(wanted);
        if !all_fit {
            tracing::warn!(operation = "watch", %from, "it watches more players than it may: some are not told");
        }
        let news = adds.iter().filter_map(|(player, told)| self.news(from, player, *told));
        let seen = news.map(|(player, view)| seen(player, &view)).collect();
        self.post_views(from, seen);
    }

    /// What somebody has not seen who was told this of a player; her record may have to be read first.
    fn news<'a>(
        &self,
        node: &Owner,
        player: &'a PlayerId,
        told: Option<Told>,
    ) -> Option<(&'a PlayerId, PresenceView)> {
        match (self.homes.glance(player), told) {
            (Glance::Hot(view), told) if told.is_none_or(|told| told.is_behind(&view)) => {
                Some((player, view))
            }
            // Who has seen her as gone, or is just about to look, need not be told that she is not here.
            (Glance::Cold, Some(Told { shown: true, .. })) => {
                self.owed.put((node.clone(), player.clone()), ());
                None
            }
            _ => None,
        }
    }

    /// Shards whose home is this node now: its own sessions may have been told otherwise by another one.
    pub(super) fn catch_up(&self, begun: &BTreeSet<ShardId>) {
        for watched in self.watches.of_shards(begun).into_values().flatten() {
            if let Some((player, view)) = self.news(self.links.me(), &watched.player, watched.told) {
                self.arrived.put_newer(player.clone(), view, PresenceView::replaces);
            }
        }
    }

    /// Tells other nodes what has changed here.
    pub(super) fn tell(&self, changes: &[(PlayerId, PresenceView)]) {
        let mut told: HashMap<Owner, Vec<Bytes>, ahash::RandomState> = HashMap::default();
        let wanted = self.wanted.lock();
        if wanted.is_empty() {
            return;
        }
        for (player, view) in changes {
            let shard = self.homes.shard_of(player).number();
            let mut encoded = None;
            for (node, _) in wanted.iter().filter(|(_, wants)| wants.has(shard, player)) {
                let seen = encoded.get_or_insert_with(|| seen(player, view));
                told.entry(node.clone()).or_default().push(seen.clone());
            }
        }
        drop(wanted);
        told.into_iter().for_each(|(node, seen)| self.post_views(&node, seen));
    }

    fn post_views(&self, to: &Owner, seen: Vec<Bytes>) {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut left = seen.len();
        for seen in seen {
            (bytes, left) = (bytes + seen.len(), left - 1);
            batch.push(seen);
            if bytes >= LETTER_BYTES || left == 0 {
                let letter = Letter::Views { seen: std::mem::take(&mut batch) };
                self.links.post(to, Topic::Presence, words::write(&letter));
                bytes = 0;
            }
        }
    }

    /// Another node tells how players look whom somebody here watches.
    pub(super) fn hear_views(&self, seen: &[Bytes]) {
        for seen in seen {
            let Some(Seen { player: Name(player), view }) = words::read(seen) else { continue };
            let Some(view) = view.read() else { continue };
            let told = self.watches.told(&player);
            // Not what was overtaken on its way; what those who watch have seen already they can tell by its `ver`.
            let is_old = |told: Option<Told>| told.is_some_and(|told| told.is_past(&view));
            if told.is_some_and(|told| !is_old(told)) {
                self.arrived.put_newer(player, view, PresenceView::replaces);
            }
        }
    }

    /// Tells each home what this node means to have told it.
    pub(super) fn tell_digests(&self) {
        let mut by_home: HashMap<Owner, Vec<(u16, Digest)>, ahash::RandomState> = HashMap::default();
        let served_by = self.served_by.lock();
        for shard in (0..self.homes.shards()).filter_map(ShardId::numbered) {
            if let Some(home) = served_by.of(shard) {
                let number = shard.number();
                by_home.entry(home.clone()).or_default().push((number, self.watches.digest(number)));
            }
        }
        drop(served_by);
        for (home, shards) in by_home {
            self.links.post(&home, Topic::Presence, words::write(&Letter::Digests { shards }));
        }
    }

    /// Another node tells what it means to have told.
    pub(super) fn hear_digests(&self, from: &Owner, told: &[(u16, Digest)]) {
        let mut wanted = self.wanted.lock();
        let wants = wanted.entry(from.clone()).or_insert_with(|| Wants::nothing(self.homes.shards()));
        let shards = wants.compare(told);
        drop(wanted);
        if !shards.is_empty() {
            tracing::info!(operation = "watch", %from, shards = shards.len(), "it watches others than was heard: once more");
            self.links.post(from, Topic::Presence, words::write(&Letter::Differs { shards }));
        }
    }

    /// Asks the store for players who are seen as here and are not, until the tasks stop.
    pub(super) async fn run_owed(self: Arc<Self>, tasks: Tasks) {
        loop {
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                () = self.owed.filled() => {}
            }
            let owed: Vec<_> = self.owed.take().into_iter().map(|(owed, ())| owed).collect();
            let mut all_told = true;
            for owed in owed.chunks(OWED_AT_ONCE) {
                all_told &= self.look_owed(owed).await;
            }
            if !all_told {
                tokio::select! {
                    biased;
                    () = tasks.stopping() => return,
                    () = tokio::time::sleep(OWED_AGAIN) => {}
                }
            }
        }
    }

    /// Says whether the store could tell of all whose home is still here.
    async fn look_owed(&self, owed: &[(Owner, PlayerId)]) -> bool {
        let players: BTreeSet<_> = owed.iter().map(|(_, player)| player.clone()).collect();
        let loaded = self.homes.look_cold(players.into_iter().collect(), OWED_WITHIN).await;
        let loaded: HashMap<_, _> = loaded.into_iter().collect();
        let mut all_told = true;
        for (node, player) in owed {
            let shard = self.homes.shard_of(player);
            let is_watched = if node == self.links.me() {
                self.watches.told(player).is_some()
            } else {
                self.wanted.lock().get(node).is_some_and(|wants| wants.has(shard.number(), player))
            };
            let Some(epoch) = self.homes.epoch_served(shard).filter(|_| is_watched) else { continue };
            let Some(view) = loaded.get(player) else {
                self.owed.put((node.clone(), player.clone()), ());
                all_told = false;
                continue;
            };
            // Also one of whom nothing is left must replace what was seen of her.
            let mut view = view.clone();
            view.ver = Stamp::new(view.ver.epoch.max(epoch), view.ver.version);
            if node == self.links.me() {
                self.arrived.put_newer(player.clone(), view, PresenceView::replaces);
            } else {
                self.post_views(node, vec![seen(player, &view)]);
            }
        }
        all_told
    }
}

fn seen(player: &PlayerId, view: &PresenceView) -> Bytes {
    words::write(&Seen { player: Name(player.clone()), view: View::of(view) })
}
