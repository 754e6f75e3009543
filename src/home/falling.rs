//! The end of a home that is not to be trusted any more: a task that must live has died. Its shards are silenced at that
//! moment, before anything else can be said; then their leases are given back at once, also with changes that are not
//! stored, because whoever is granted them asks for what is here while the process lasts. Called by `app`; what others ask
//! is `yielding`'s.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Home;
use crate::tasks::Tasks;

/// How long what is dirty may take to be stored, if the flush lives.
const FLUSH: Duration = Duration::from_secs(1);
/// How often it is looked whether all that others want is theirs.
const LOOK: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Fallen {
    /// Shards that were held.
    pub held: usize,
    /// Those that other nodes have asked for.
    pub asked_for: usize,
    /// Whether all changes are stored.
    pub stored: bool,
}

impl Home {
    /// Sees to it that no answer leaves from the moment on at which a task that must live has died.
    pub(super) fn silenced_with(self: &Arc<Self>, tasks: &Tasks) {
        let home = Arc::downgrade(self);
        tasks.vitals().when_failed(move || {
            let home: Option<Arc<Self>> = Weak::upgrade(&home);
            home.iter().flat_map(|home| &home.shards).for_each(|shard| shard.silence());
        });
    }

    /// Gives everything away, after the home was silenced: what can be stored is, every lease is given back, and as long as
    /// there are other nodes, and at most `patience`, it is waited until they have asked for what is here.
    pub async fn fall(&self, patience: Duration) -> Fallen {
        let until = Instant::now() + patience;
        let has_heirs = self.members.snapshot().has_other_takers();
        let flush = if has_heirs { FLUSH } else { patience };
        // Those who are told now are ready when the leases are free.
        let told = timeout(flush, self.members.say_drains());
        let (stored, _) = tokio::join!(self.flush_all(flush), told);
        let held: Vec<_> = self.shards.iter().filter(|shard| shard.fence().is_some()).collect();
        let _ = timeout_at(until, self.release()).await;
        let asked_for = || held.iter().filter(|shard| shard.is_overtaken()).count();
        while has_heirs && Instant::now() < until && !(asked_for() == held.len() && self.parcels.is_empty()) {
            sleep(LOOK).await;
        }
        Fallen { held: held.len(), asked_for: asked_for(), stored }
    }
}
