//! How many sessions are in which state, counted every few seconds over the records in memory: that costs less than to count
//! at each of the many places at which a session changes. For operators alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Home;
use super::record::LinkState;

/// How often sessions are counted.
const EVERY: Duration = Duration::from_secs(10);
/// Records after which others get a turn.
const TURN: usize = 2_000;

/// Sessions by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) attached: u32,
    pub(super) detached: u32,
    pub(super) pending: u32,
}

impl Census {
    const fn count(&mut self, link: LinkState) {
        match link {
            LinkState::Attached => self.attached += 1,
            LinkState::Detached { .. } => self.detached += 1,
            LinkState::Pending { .. } => self.pending += 1,
        }
    }
}

impl Home {
    /// The task.
    pub(super) async fn run_census(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.tasks.stopping() => return,
                _ = ticks.tick() => self.meters.sessions(self.census().await),
            }
        }
    }

    async fn census(&self) -> Census {
        let mut census = Census::default();
        for turn in self.records.all().chunks(TURN) {
            for cell in turn {
                cell.read(|record| record.sessions.iter().for_each(|session| census.count(session.link)));
            }
            tokio::task::yield_now().await;
        }
        census
    }
}

#[cfg(test)]
mod tests {
    use crate::clock;
    use crate::events::EndReason;
    use crate::home::houses::House;

    #[tokio::test]
    async fn sessions_are_counted_while_they_last() {
        let house = House::new().await;
        let ann = house.login("ann").await;
        house.login("bea").await;
        let both = house.home.census().await;
        assert_eq!((both.attached, both.detached, both.pending), (2, 0, 0));
        house.home.end(&ann.cell, ann.session, EndReason::Logout, clock::now()).unwrap();
        assert_eq!(house.home.census().await.attached, 1);
    }
}
