//! All connections to one server: one lane a purpose, so that none waits behind another's work. Made and used by `routes`.

use std::sync::Arc;

use redis::Value;

use super::breaker::{Breaker, Call};
use super::endpoint::Endpoint;
use super::errors::Failure;
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
    /// What services keep beside players, but for blobs.
    Stock,
    /// The same, where it needs no memory: a full server must let go of it.
    StockReleases,
    /// Blobs: a large one holds up nobody but others, and how long it takes says nothing about the server.
    Blobs {
        /// How many bytes go either way, at most.
        bytes: usize,
    },
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
            // Blobs are counted by nobody: see `Lanes::call`.
            Self::Reads | Self::Blobs { .. } | Self::Streams => Call::Read,
        }
    }
}

/// The lanes to one server.
pub(super) struct Lanes {
    leases: Lane,
    commits: Lane,
    reads: Lane,
    stock: Lane,
    blobs: Lane,
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
        let (streams, stock, blobs) = (lane("streams"), lane("stock"), lane("blobs"));
        Self { leases, commits, reads, streams, stock, blobs, replication, breaker }
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

    /// Sends one request and waits for its answer; to the node to which its slot is moving, where it is to.
    pub(super) async fn call(
        &self,
        purpose: Purpose,
        (repeat, is_asking): (Repeat, bool),
        request: Request<'_>,
    ) -> Result<Value, Failure> {
        let lane = self.of(purpose);
        match purpose {
            Purpose::Blobs { bytes } => lane.call_bulk(bytes, (repeat, is_asking), request).await,
            _ if is_asking => lane.call_asking(purpose.call(), request).await,
            _ => lane.call(purpose.call(), repeat, request).await,
        }
    }

    pub(super) const fn of(&self, purpose: Purpose) -> &Lane {
        match purpose {
            Purpose::Leases | Purpose::Renewals | Purpose::Heartbeats => &self.leases,
            Purpose::Commits | Purpose::Upkeep => &self.commits,
            Purpose::Reads => &self.reads,
            Purpose::Stock | Purpose::StockReleases => &self.stock,
            Purpose::Blobs { .. } => &self.blobs,
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
        let lanes = [&self.leases, &self.commits, &self.reads, &self.streams, &self.stock, &self.blobs];
        lanes.into_iter().for_each(Lane::close);
        self.replication.close();
    }
}
