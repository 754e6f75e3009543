//! The edges: who watches whom. A plain map from the watched to the mailboxes of those who watch.

use std::collections::HashMap;
use std::sync::Arc;

use dashmap::DashMap;

use crate::hub::Mailbox;
use crate::ids::{PlayerId, SessionId};

type Watchers = HashMap<SessionId, Arc<Mailbox>, ahash::RandomState>;

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
            watchers.insert(mailbox.session(), Arc::clone(mailbox));
        }
    }

    pub(super) fn remove(&self, player: &PlayerId, session: SessionId) {
        self.edges.remove_if_mut(player, |_, watchers| {
            watchers.remove(&session);
            watchers.is_empty()
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
        self.edges.get(player).map(|watchers| watchers.values().cloned().collect()).unwrap_or_default()
    }
}
