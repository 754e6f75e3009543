//! All connections to one server: one lane a purpose, so that none waits behind another's work. Made and used by `routes`.

use std::sync::Arc;

use super::endpoint::Endpoint;
use super::lane::{Deadlines, Lane};
use crate::store::StoreError;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Leases never wait behind a batch.
    Leases,
    /// Batches, and what else is written.
    Commits,
    Reads,
}

/// The lanes to one server.
pub(super) struct Lanes {
    leases: Lane,
    commits: Lane,
    reads: Lane,
}

impl Lanes {
    pub(super) fn new(endpoint: Endpoint, deadlines: Deadlines) -> Self {
        let endpoint = Arc::new(endpoint);
        let lane = |name| Lane::new(name, Arc::clone(&endpoint), deadlines);
        Self { leases: lane("leases"), commits: lane("commits"), reads: lane("reads") }
    }

    pub(super) const fn of(&self, purpose: Purpose) -> &Lane {
        match purpose {
            Purpose::Leases => &self.leases,
            Purpose::Commits => &self.commits,
            Purpose::Reads => &self.reads,
        }
    }

    /// Connects all of them now.
    pub(super) async fn connect(&self) -> Result<(), StoreError> {
        for lane in [&self.leases, &self.commits, &self.reads] {
            lane.connect().await?;
        }
        Ok(())
    }

    /// Lets go of the connections; later calls are refused.
    pub(super) fn close(&self) {
        [&self.leases, &self.commits, &self.reads].into_iter().for_each(Lane::close);
    }
}
