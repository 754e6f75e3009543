//! The edges: who watches whom. A map from the watched to the mailboxes of those who watch: a plain list while they are
//! few, as nearly all are, which takes a third of a map's memory; a map where leaving a list would take long.

use std::collections::HashMap;
use std::sync::Arc;

use dashmap::DashMap;

use crate::hub::Mailbox;
use crate::ids::{PlayerId, SessionId};

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

/// All edges of this node.
#[derive(Default)]
pub(super) struct Watches {
    edges: DashMap<PlayerId, Watchers, ahash::RandomState>,
}

impl Watches {
    pub(super) fn add(&self, player: &PlayerId, mailbox: &Arc<Mailbox>) {
        let mut watchers = self.edges.entry(player.clone()).or_default();
        // Under the edge's guard: whoever ends a session closes its mailbox first and takes the edges away second.
        if !mailbox.is_closed() {
            watchers.insert(mailbox);
        }
    }

    pub(super) fn remove(&self, player: &PlayerId, session: SessionId) {
        self.edges.remove_if_mut(player, |_, watchers| {
            watchers.remove(session);
            watchers.len() == 0
        });
    }

    pub(super) fn known(&self, player: &PlayerId) -> Option<PlayerId> {
        self.edges.get(player).map(|edge| edge.key().clone())
    }

    pub(super) fn count(&self, player: &PlayerId) -> usize {
        self.edges.get(player).map_or(0, |watchers| watchers.len())
    }

    /// The mailboxes of those who watch; collected, so that nothing is pushed under the map's guard.
    pub(super) fn of(&self, player: &PlayerId) -> Vec<Arc<Mailbox>> {
        self.edges.get(player).map(|watchers| watchers.all()).unwrap_or_default()
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
            let mut told: Vec<_> = watches.of(&star).iter().map(|mailbox| mailbox.session()).collect();
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
