//! The edges: who watches whom. A map from the watched to the mailboxes of those who watch: a list in the order of their
//! sessions, of little more than its pointers; a set where moving a list's rest would take long.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::homes::Homes;
use super::wants::{Digest, Told};
use crate::events::{Coalescing, PresenceView};
use crate::hub::Mailbox;
use crate::ids::{PlayerId, SessionId, ShardId};

/// Most watchers that stand in a list: who comes or goes moves 8 KiB at most.
const FEW_MAX: usize = 1024;
/// A list grows by a quarter, and at least by this: most stand still once friends are online.
const GROWTH_MIN: usize = 4;
/// What holds this many times what is in it gives the rest back.
const SLACK_MAX: usize = 4;

enum Watchers {
    /// In the order of their sessions.
    Few(Vec<Arc<Mailbox>>),
    #[allow(clippy::box_collection, reason = "what is rare makes no list larger")]
    Many(Box<HashSet<Watcher, ahash::RandomState>>),
}

/// One of many, found by her session: the mailbox knows it, and a set of pointers is a third of a map by sessions.
struct Watcher(Arc<Mailbox>);

impl Borrow<SessionId> for Watcher {
    fn borrow(&self) -> &SessionId {
        self.0.session_ref()
    }
}

impl Hash for Watcher {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.session().hash(state);
    }
}

impl PartialEq for Watcher {
    fn eq(&self, other: &Self) -> bool {
        self.0.session() == other.0.session()
    }
}

impl Eq for Watcher {}

impl Default for Watchers {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Watchers {
    fn insert(&mut self, mailbox: &Arc<Mailbox>) {
        match self {
            Self::Few(list) => match place_of(list, mailbox.session()) {
                Ok(at) => {
                    if let Some(present) = list.get_mut(at) {
                        *present = Arc::clone(mailbox);
                    }
                }
                Err(at) if list.len() < FEW_MAX => {
                    if list.len() == list.capacity() {
                        list.reserve_exact(growth(list.len()));
                    }
                    list.insert(at, Arc::clone(mailbox));
                }
                Err(_) => {
                    let all = std::mem::take(list).into_iter().chain([Arc::clone(mailbox)]);
                    *self = Self::Many(Box::new(all.map(Watcher).collect()));
                }
            },
            Self::Many(set) => drop(set.replace(Watcher(Arc::clone(mailbox)))),
        }
    }

    fn remove(&mut self, session: SessionId) {
        match self {
            Self::Few(list) => {
                if let Ok(at) = place_of(list, session) {
                    list.remove(at);
                }
                if list.capacity() > list.len().max(GROWTH_MIN) * SLACK_MAX {
                    list.shrink_to(list.len() + growth(list.len()));
                }
            }
            Self::Many(set) => {
                set.remove(&session);
                // Well below where a list becomes a set: whoever comes and goes at the border moves nothing.
                if set.len() <= FEW_MAX / 2 {
                    let mut list: Vec<_> = set.drain().map(|Watcher(mailbox)| mailbox).collect();
                    list.sort_unstable_by_key(|mailbox| mailbox.session());
                    *self = Self::Few(list);
                } else if set.capacity() > set.len() * SLACK_MAX {
                    set.shrink_to(set.len());
                }
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(set) => set.len(),
        }
    }

    fn all(&self) -> Vec<Arc<Mailbox>> {
        match self {
            Self::Few(list) => list.clone(),
            Self::Many(set) => set.iter().map(|Watcher(mailbox)| Arc::clone(mailbox)).collect(),
        }
    }
}

/// Where a session stands in a list, or would.
fn place_of(list: &[Arc<Mailbox>], session: SessionId) -> Result<usize, usize> {
    list.binary_search_by_key(&session, |mailbox| mailbox.session())
}

/// By how much a list of this length grows.
fn growth(len: usize) -> usize {
    (len / 4).max(GROWTH_MIN)
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

    /// The same for a whole list, whose names are those of the edges from then on: read from the store, each list has its
    /// own.
    pub(super) fn add_all(&self, players: &mut [PlayerId], mailbox: &Arc<Mailbox>) {
        for player in players {
            self.add(player, mailbox);
            if let Some(known) = self.known(player) {
                *player = known;
            }
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

    fn hub() -> Arc<Hub> {
        let settings = HubSettings {
            heartbeat: Duration::from_secs(15),
            outbox_items_max: 4,
            slow_close_after: Duration::from_secs(10),
            replay_frames_max: 3,
            replay_bytes_max: 1000,
        };
        Hub::start(settings, &Tasks::new())
    }

    /// Of so many sessions, of which later ones stand before earlier ones, too.
    fn mailboxes(count: usize) -> Vec<Arc<Mailbox>> {
        let (hub, star) = (hub(), PlayerId::parse("star").unwrap());
        let sessions = (0..count as u64).map(|n| SessionId::generate(ShardId::FIRST, n ^ 5));
        sessions.map(|session| hub.mailbox_or_new(session, &star, 0).0).collect()
    }

    #[tokio::test]
    async fn few_and_many_watchers_come_and_go_alike() {
        let (star, watches) = (PlayerId::parse("star").unwrap(), Watches::default());
        let mut expected = BTreeSet::new();
        let is_told = |expected: &BTreeSet<SessionId>| {
            // All of them where the shape may change, and now and then.
            let len = expected.len();
            let is_near = [0, FEW_MAX / 2, FEW_MAX].iter().any(|border| len.abs_diff(*border) < 5);
            if is_near || len.is_multiple_of(101) {
                let told = watches.tell(&star, &PresenceView::default());
                assert_eq!(told.len(), len);
                assert_eq!(told.iter().map(|mailbox| mailbox.session()).collect::<BTreeSet<_>>(), *expected);
            }
        };
        let mailboxes = mailboxes(FEW_MAX * 2);
        for mailbox in &mailboxes {
            watches.add(&star, mailbox);
            watches.add(&star, mailbox);
            expected.insert(mailbox.session());
            is_told(&expected);
        }
        for mailbox in &mailboxes {
            assert_eq!(watches.count(&star), expected.len());
            watches.remove(&star, mailbox.session());
            watches.remove(&star, mailbox.session());
            expected.remove(&mailbox.session());
            is_told(&expected);
        }
        assert_eq!(watches.known(&star), None, "an edge without watchers is gone");
    }

    #[tokio::test]
    async fn a_session_is_told_through_its_latest_mailbox() {
        let (others, mut watchers) = (hub(), Watchers::default());
        for mailbox in &mailboxes(FEW_MAX + 1) {
            watchers.insert(mailbox);
            let latest = others.mailbox_or_new(mailbox.session(), mailbox.player(), 0).0;
            watchers.insert(&latest);
            let all = watchers.all();
            assert!(all.iter().any(|watcher| Arc::ptr_eq(watcher, &latest)));
            assert!(!all.iter().any(|watcher| Arc::ptr_eq(watcher, mailbox)));
        }
    }

    #[tokio::test]
    async fn lists_that_were_read_share_their_names() {
        let (mailboxes, watches) = (mailboxes(2), Watches::default());
        let read = || ["ann", "bea"].map(|name| PlayerId::parse(name).unwrap());
        let mut lists = [read(), read()];
        for (list, mailbox) in lists.iter_mut().zip(&mailboxes) {
            watches.add_all(list, mailbox);
            assert_eq!(*list, read());
        }
        let places = lists.map(|list| list.map(|player| player.as_str().as_ptr()));
        assert_eq!(places[0], places[1]);
        assert!(read().iter().all(|player| watches.count(player) == 2));
    }

    #[tokio::test]
    async fn what_is_held_follows_how_many_watch() {
        let held = |watchers: &Watchers| match watchers {
            Watchers::Few(list) => list.capacity(),
            Watchers::Many(set) => set.capacity(),
        };
        let (mailboxes, mut watchers) = (mailboxes(FEW_MAX * 8), Watchers::default());
        for mailbox in &mailboxes {
            watchers.insert(mailbox);
            let (len, held) = (watchers.len(), held(&watchers));
            let most = if len > FEW_MAX { len * 2 } else { len + growth(len) };
            assert!(held <= most, "{held} places for {len}");
        }
        for mailbox in mailboxes.iter().rev() {
            watchers.remove(mailbox.session());
            let (len, held) = (watchers.len(), held(&watchers));
            assert!(held <= len.max(GROWTH_MIN) * SLACK_MAX, "{held} places for {len} who are left");
        }
    }
}
