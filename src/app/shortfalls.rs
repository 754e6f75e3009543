//! Where the store falls short of what is promised: known from the start, and looked at again while the server runs, since
//! settings can be changed under it. Told in the log when it changes, in readiness and in `/v1/cluster`. Never stops a
//! server that runs: the players whom it serves would lose more.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use crate::store::{Shortfall, Store};
use crate::tasks::Tasks;

/// How often it is looked at: two questions to each of the store's servers.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// As they were last found.
pub(super) struct Shortfalls(Mutex<Vec<Shortfall>>);

impl Shortfalls {
    /// As they were found at the start.
    pub(super) fn found(shortfalls: Vec<Shortfall>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(shortfalls)))
    }

    /// As they were last found.
    pub(super) fn now(&self) -> Vec<Shortfall> {
        self.0.lock().clone()
    }

    /// Looks again and again until the tasks are asked to stop. While the store does not answer the last stay.
    pub(super) async fn watch(self: Arc<Self>, store: Arc<dyn Store>, tasks: Tasks) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                _ = ticks.tick() => {}
            }
            if let Ok(found) = store.shortfalls().await {
                self.take(found);
            }
        }
    }

    fn take(&self, found: Vec<Shortfall>) {
        let before = std::mem::replace(&mut *self.0.lock(), found.clone());
        for shortfall in found.iter().filter(|one| !before.contains(one)) {
            tracing::warn!(
                operation = "store.settings",
                setting = shortfall.setting,
                "{}",
                shortfall.message
            );
        }
        for shortfall in before.iter().filter(|one| !found.contains(one)) {
            let (setting, was) = (&shortfall.setting, &shortfall.message);
            tracing::info!(
                operation = "store.settings",
                setting,
                was,
                "the store does not fall short here any more"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shortfall(setting: &str) -> Shortfall {
        Shortfall { setting: setting.to_owned(), message: "is no".to_owned(), fatal: true }
    }

    #[test]
    fn what_was_found_last_is_told() {
        let shortfalls = Shortfalls::found(vec![shortfall("appendonly")]);
        assert_eq!(shortfalls.now(), [shortfall("appendonly")]);
        shortfalls.take(vec![shortfall("maxmemory-policy")]);
        assert_eq!(shortfalls.now(), [shortfall("maxmemory-policy")]);
        shortfalls.take(Vec::new());
        assert_eq!(shortfalls.now(), []);
    }
}
