//! All connections to one server: one lane a purpose, so that none waits behind another's work. Made and used by `routes`.

use std::sync::Arc;

use super::endpoint::Endpoint;
use super::lane::{Deadlines, Lane};
use super::replication::Replication;
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
    replication: Replication,
}

impl Lanes {
    pub(super) fn new(endpoint: Endpoint, deadlines: Deadlines) -> Self {
        let endpoint = Arc::new(endpoint);
        let lane = |name| Lane::new(name, Arc::clone(&endpoint), deadlines);
        let replication = Replication::new(lane("replicas"));
        Self { leases: lane("leases"), commits: lane("commits"), reads: lane("reads"), replication }
    }

    /// Those who wait for the server's replicas.
    pub(super) const fn replication(&self) -> &Replication {
        &self.replication
    }

    pub(super) const fn of(&self, purpose: Purpose) -> &Lane {
        match purpose {
            Purpose::Leases => &self.leases,
            Purpose::Commits => &self.commits,
            Purpose::Reads => &self.reads,
        }
    }

    /// Connects those that every node uses now.
    pub(super) async fn connect(&self) -> Result<(), StoreError> {
        for lane in [&self.leases, &self.commits, &self.reads] {
            lane.connect().await?;
        }
        Ok(())
    }

    /// Lets go of the connections; later calls are refused.
    pub(super) fn close(&self) {
        [&self.leases, &self.commits, &self.reads].into_iter().for_each(Lane::close);
        self.replication.close();
    }
}
