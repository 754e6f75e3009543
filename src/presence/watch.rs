//! The edges: who watches whom. A map from the watched to the mailboxes of those who watch: a plain list while they are
//! few, as nearly all are, which takes a third of a map's memory; a map where leaving a list would take long.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::homes::Homes;
use super::wants::{Digest, Told};
use crate::events::{Coalescing, PresenceView};
use crate::hub::Mailbox;
use crate::ids::{PlayerId, SessionId, ShardId};

/// Most watchers that are looked through one by one.
const FEW_MAX: usize = 64;
/// A list grows by a quarter, and at least by this: most stand still once friends are online.
const GROWTH_MIN: usize = 4;

enum Watchers {
    Few(Vec<Arc<Mailbox>>),
    #[allow(clippy::box_collection, reason = "what is rare makes no list larger")]
    Many(Box<HashMap<SessionId, Arc<Mailbox>, ahash::RandomState>>),
}

impl Default for Watchers {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Watchers {
    fn insert(&mut self, mailbox: &Arc<Mailbox>) {
        if let Self::Few(list) = self {
            let session = mailbox.session();
            if let Some(present) = list.iter_mut().find(|present| present.session() == session) {
                *present = Arc::clone(mailbox);
                return;
            }
            if list.len() < FEW_MAX {
                if list.len() == list.capacity() {
                    list.reserve_exact((list.len() / 4).max(GROWTH_MIN));
                }
                list.push(Arc::clone(mailbox));
                return;
            }
            let all = list.drain(..).map(|mailbox| (mailbox.session(), mailbox));
            *self = Self::Many(Box::new(all.collect()));
        }
        if let Self::Many(map) = self {
            map.insert(mailbox.session(), Arc::clone(mailbox));
        }
    }

    fn remove(&mut self, session: SessionId) {
        match self {
            Self::Few(list) => {
                if let Some(at) = list.iter().position(|mailbox| mailbox.session() == session) {
                    list.swap_remove(at);
                }
            }
            Self::Many(map) => {
                map.remove(&session);
                // Well below where a list becomes a map: whoever comes and goes at the border moves nothing.
                if map.len() <= FEW_MAX / 2 {
                    *self = Self::Few(map.drain().map(|(_, mailbox)| mailbox).collect());
                }
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(map) => map.len(),
        }
    }

    fn all(&self) -> Vec<Arc<Mailbox>> {
        match self {
            Self::Few(list) => list.clone(),
            Self::Many(map) => map.values().cloned().collect(),
        }
    }
}

/// Those who watch one player, and what all of them have been told.
#[derive(Default)]
struct Edge {
    watchers: Watchers,
    told: Option<Told>,
}

/// A player who is watched here, for those who tell other nodes.
pub(super) struct Watched {
    pub(super) player: PlayerId,
    pub(super) told: Option<Told>,
}

/// What other nodes are to know of the edges, where there can be other nodes.
struct Abroad {
    homes: Arc<dyn Homes>,
    /// Of each shard, which players are watched here.
    digests: Vec<Mutex<Digest>>,
    /// Players elsewhere of whom somebody may have begun or ceased to be the first who watches.
    moved: Coalescing<PlayerId, ()>,
}

/// All edges of this node.
#[derive(Default)]
pub(super) struct Watches {
    edges: DashMap<PlayerId, Edge, ahash::RandomState>,
    abroad: Option<Abroad>,
}

impl Abroad {
    /// An edge has come or gone; under the map's guard.
    fn edge(&self, player: &PlayerId, change: impl FnOnce(&mut Digest)) {
        let shard = self.homes.shard_of(player);
        if let Some(digest) = self.digests.get(usize::from(shard.number())) {
            change(&mut digest.lock());
        }
        self.moved_in(shard, player);
    }

    fn moved_in(&self, shard: ShardId, player: &PlayerId) {
        // Whose home is here is looked through when the shard goes elsewhere.
        if self.homes.epoch_served(shard).is_none() {
            self.moved.put(player.clone(), ());
        }
    }
}

impl Watches {
    /// The same for a node among others.
    pub(super) fn among(homes: Arc<dyn Homes>) -> Self {
        let digests = (0..homes.shards()).map(|_| Mutex::default()).collect();
        let abroad = Some(Abroad { homes, digests, moved: Coalescing::default() });
        Self { edges: DashMap::default(), abroad }
    }

    pub(super) fn add(&self, player: &PlayerId, mailbox: &Arc<Mailbox>) {
        let mut edge = self.edges.entry(player.clone()).or_insert_with(|| {
            self.abroad.iter().for_each(|abroad| abroad.edge(player, |digest| digest.add(player)));
            Edge::default()
        });
        // Under the edge's guard: whoever ends a session closes its mailbox first and takes the edges away second.
        if !mailbox.is_closed() {
            edge.watchers.insert(mailbox);
        }
    }

    pub(super) fn remove(&self, player: &PlayerId, session: SessionId) {
        self.edges.remove_if_mut(player, |_, edge| {
            edge.watchers.remove(session);
            let is_over = edge.watchers.len() == 0;
            if is_over {
                self.abroad.iter().for_each(|abroad| abroad.edge(player, |digest| digest.remove(player)));
            }
            is_over
        });
    }

    pub(super) fn known(&self, player: &PlayerId) -> Option<PlayerId> {
        self.edges.get(player).map(|edge| edge.key().clone())
    }

    pub(super) fn count(&self, player: &PlayerId) -> usize {
        self.edges.get(player).map_or(0, |edge| edge.watchers.len())
    }

    /// The mailboxes of those who watch, all of whom are told this now; collected, so that nothing is pushed under the
    /// map's guard.
    pub(super) fn tell(&self, player: &PlayerId, view: &PresenceView) -> Vec<Arc<Mailbox>> {
        let Some(mut edge) = self.edges.get_mut(player) else { return Vec::new() };
        edge.told = Some(Told::of(view));
        edge.watchers.all()
    }

    /// One who watches has looked, and seen this.
    pub(super) fn looked(&self, player: &PlayerId, view: &PresenceView) {
        let Some(abroad) = &self.abroad else { return };
        let Some(mut edge) = self.edges.get_mut(player) else { return };
        let was = edge.told;
        let told = was.map_or_else(|| Told::of(view), |told| told.looked(view));
        edge.told = Some(told);
        drop(edge);
        if was.is_some_and(|was| was.ver != told.ver) {
            // Her home may have heard that more was known than she has seen.
            abroad.moved_in(abroad.homes.shard_of(player), player);
        }
    }

    /// What was told of a player, if she is watched here.
    pub(super) fn told(&self, player: &PlayerId) -> Option<Option<Told>> {
        self.edges.get(player).map(|edge| edge.told)
    }

    /// What other nodes may have to be told anew.
    pub(super) fn moved(&self) -> Vec<PlayerId> {
        let moved = self.abroad.iter().flat_map(|abroad| abroad.moved.take());
        moved.map(|(player, ())| player).collect()
    }

    /// What the watched players of a shard come to.
    pub(super) fn digest(&self, shard: u16) -> Digest {
        let digest = self.abroad.as_ref().and_then(|abroad| abroad.digests.get(usize::from(shard)));
        digest.map(|digest| *digest.lock()).unwrap_or_default()
    }

    /// All players of these shards who are watched here. Walks the whole map: for shards that move.
    pub(super) fn of_shards(&self, shards: &BTreeSet<ShardId>) -> BTreeMap<ShardId, Vec<Watched>> {
        let mut found: BTreeMap<_, Vec<_>> = shards.iter().map(|shard| (*shard, Vec::new())).collect();
        let Some(abroad) = self.abroad.as_ref().filter(|_| !shards.is_empty()) else { return found };
        for edge in &self.edges {
            if let Some(watched) = found.get_mut(&abroad.homes.shard_of(edge.key())) {
                watched.push(Watched { player: edge.key().clone(), told: edge.told });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Hub, HubSettings};
    use crate::ids::ShardId;
    use crate::tasks::Tasks;
    use std::time::Duration;

    #[tokio::test]
    async fn few_and_many_watchers_come_and_go_alike() {
        let settings = HubSettings {
            heartbeat: Duration::from_secs(15),
            outbox_items_max: 4,
            slow_close_after: Duration::from_secs(10),
            replay_frames_max: 3,
            replay_bytes_max: 1000,
        };
        let hub = Hub::start(settings, &Tasks::new());
        let star = PlayerId::parse("star").unwrap();
        let watches = Watches::default();
        let mailboxes: Vec<_> = (0..FEW_MAX as u64 * 3)
            .map(|n| hub.mailbox_or_new(SessionId::generate(ShardId::FIRST, n), &star, 0).0)
            .collect();
        let told = |watches: &Watches| {
            let view = PresenceView::default();
            let mut told: Vec<_> =
                watches.tell(&star, &view).iter().map(|mailbox| mailbox.session()).collect();
            told.sort_unstable();
            told
        };
        let mut expected = Vec::new();
        for mailbox in &mailboxes {
            watches.add(&star, mailbox);
            watches.add(&star, mailbox);
            expected.push(mailbox.session());
            expected.sort_unstable();
            assert_eq!(told(&watches), expected);
        }
        for mailbox in &mailboxes {
            assert_eq!(watches.count(&star), expected.len());
            watches.remove(&star, mailbox.session());
            watches.remove(&star, mailbox.session());
            expected.retain(|session| *session != mailbox.session());
            assert_eq!(told(&watches), expected);
        }
        assert_eq!(watches.known(&star), None, "an edge without watchers is gone");
    }
}
