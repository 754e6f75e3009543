//! All connections to one server: one lane a purpose, so that none waits behind another's work. Made and used by `routes`.

use std::sync::Arc;

use super::breaker::{Breaker, Call};
use super::endpoint::Endpoint;
use super::lane::{Deadlines, Lane, Repeat, Request};
use super::replication::Replication;
use super::scripts::Script;
use crate::store::StoreError;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Leases never wait behind a batch.
    Leases,
    /// Leases that are held, on the same connection.
    Renewals,
    /// Signs of life, on the same connection.
    Heartbeats,
    /// Batches, and what else is written.
    Commits,
    /// Upkeep of what a shard stores, on the same connection: it frees as much memory as it takes, so a full server takes it,
    /// and that says nothing of changes.
    Upkeep,
    Reads,
    /// What services keep beside players: a large blob must hold up neither a batch nor a read.
    Stock,
    /// The same, where it needs no memory: a full server must let go of it.
    StockReleases,
    /// The same, only read.
    StockReads,
    /// What services follow: players' reads never wait behind it.
    Streams,
}

impl Purpose {
    /// What the server's breaker makes of such a call.
    pub(super) const fn call(self) -> Call {
        match self {
            Self::Leases | Self::Upkeep | Self::StockReleases => Call::Lease,
            Self::Renewals => Call::Renewal,
            Self::Heartbeats => Call::Heartbeat,
            Self::Commits | Self::Stock => Call::Change,
            Self::Reads | Self::StockReads | Self::Streams => Call::Read,
        }
    }
}

/// The lanes to one server.
pub(super) struct Lanes {
    leases: Lane,
    commits: Lane,
    reads: Lane,
    stock: Lane,
    streams: Lane,
    replication: Replication,
    breaker: Arc<Breaker>,
}

impl Lanes {
    /// Lanes to a server that is called so in logs and metrics.
    pub(super) fn new(name: &str, endpoint: Endpoint, deadlines: Deadlines) -> Self {
        let (endpoint, breaker) = (Arc::new(endpoint), Breaker::of(name, deadlines.probe_within));
        let lane = |name| Lane::new(name, Arc::clone(&endpoint), Arc::clone(&breaker), deadlines);
        let replication = Replication::new(lane("replicas"));
        let (leases, commits, reads) = (lane("leases"), lane("commits"), lane("reads"));
        let (streams, stock) = (lane("streams"), lane("stock"));
        Self { leases, commits, reads, streams, stock, replication, breaker }
    }

    /// What holds calls back while the server is in trouble.
    pub(super) const fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    /// Sends a probe over the connection of leases, if one is wanted that is nobody's call: what comes of it the breaker hears.
    pub(super) async fn probe(&self, script: &Script) {
        if self.breaker.wants_probe() {
            let probe = Request::Script(script.with("", 0, &|_| ()));
            let _ = self.leases.call(Call::Probe, Repeat::Never, probe).await;
        }
    }

    /// Those who wait for the server's replicas.
    pub(super) const fn replication(&self) -> &Replication {
        &self.replication
    }

    pub(super) const fn of(&self, purpose: Purpose) -> &Lane {
        match purpose {
            Purpose::Leases | Purpose::Renewals | Purpose::Heartbeats => &self.leases,
            Purpose::Commits | Purpose::Upkeep => &self.commits,
            Purpose::Reads => &self.reads,
            Purpose::Stock | Purpose::StockReleases | Purpose::StockReads => &self.stock,
            Purpose::Streams => &self.streams,
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
        let lanes = [&self.leases, &self.commits, &self.reads, &self.streams, &self.stock];
        lanes.into_iter().for_each(Lane::close);
        self.replication.close();
    }
}
