//! Which server a key's request goes to, whatever the shape: all of them to one server, or each to the node of the
//! cluster that holds the key's slot. Called by `RedisStore` and by the scripts' wrappers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::{Cmd, Value};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::breaker::{Breaker, Call};
use super::cluster::Cluster;
use super::endpoint::Endpoint;
use super::lane::{Deadlines, Repeat, Request};
use super::lanes::{Lanes, Purpose};
use super::scripts::{self, ScriptCall};
use super::sentinel::Sentinels;
use super::topology::{self, Shape};
use crate::store::{OpenError, OpenOptions, StoreError};
use crate::tasks::Tasks;

/// How often the breakers let time pass.
const TICK: Duration = Duration::from_millis(100);

/// Where requests go.
pub(super) struct Routes {
    shape: Routed,
    /// Whether the shape is one that lives by its replicas.
    is_replicated: bool,
    /// Ends the task that follows the servers, if there is one.
    _watch: DropGuard,
    stop: CancellationToken,
}

#[derive(Clone)]
enum Routed {
    One(Arc<Lanes>),
    Cluster(Arc<Cluster>),
}

impl Routes {
    /// Finds the servers that the URL names and connects to them.
    pub(super) async fn open(url: &str, options: &OpenOptions) -> Result<Self, OpenError> {
        let target = topology::target(url, options.redis_ca_pem.as_deref())?;
        let deadlines = Deadlines {
            connect: options.connect_deadline,
            response: options.response_deadline,
            probe_within: options.probe_within,
        };
        let stop = CancellationToken::new();
        let is_replicated = !matches!(target.shape, Shape::Standalone(_));
        let opened = match target.shape {
            Shape::Standalone(client) => one(&target.shown, Endpoint::Fixed(client), deadlines).await,
            Shape::Sentinel { sentinels, master, to_sentinels, to_servers } => {
                let clients: Result<Vec<_>, _> = sentinels
                    .into_iter()
                    .map(|at| to_sentinels.client(&at).map(|client| (at, client)))
                    .collect();
                let clients = clients.map_err(|error| OpenError::NoServer {
                    address: target.shown.clone(),
                    source: StoreError::Unreachable(error.to_string()),
                })?;
                let name = master.clone();
                let sentinels = Arc::new(Sentinels::new(master, clients, to_servers, deadlines.connect));
                let opened = one(&name, Endpoint::Master(Arc::clone(&sentinels)), deadlines).await;
                if opened.is_ok() {
                    Tasks::under(&options.vitals)
                        .spawn_sound("store.sentinels", sentinels.watch(stop.clone()));
                }
                opened
            }
            Shape::Cluster { seeds, to_nodes } => {
                let cluster = Arc::new(Cluster::new(seeds, to_nodes, deadlines));
                let opened = cluster.refresh().await;
                if opened.is_ok() {
                    Tasks::under(&options.vitals)
                        .spawn_sound("store.cluster", Arc::clone(&cluster).watch(stop.clone()));
                }
                opened.map(|()| Routed::Cluster(cluster))
            }
        };
        let shape = opened.map_err(|source| OpenError::NoServer { address: target.shown, source })?;
        Tasks::under(&options.vitals).spawn_sound("store.breakers", tick(shape.clone(), stop.clone()));
        Ok(Self { shape, is_replicated, _watch: stop.clone().drop_guard(), stop })
    }

    /// Sends a command on this key that may be sent twice, and waits for its answer.
    pub(super) async fn query(
        &self,
        purpose: Purpose,
        key: &str,
        command: &Cmd,
    ) -> Result<Value, StoreError> {
        self.call(purpose, Repeat::Once, key, Request::Command(command)).await
    }

    /// Runs a script.
    pub(super) async fn eval(
        &self,
        purpose: Purpose,
        repeat: Repeat,
        call: ScriptCall<'_>,
    ) -> Result<Value, StoreError> {
        self.call(purpose, repeat, call.key(), Request::Script(call)).await
    }

    /// Runs scripts that are independent of each other, sent together and none twice; an answer each, in their order.
    pub(super) async fn eval_all(
        &self,
        purpose: Purpose,
        calls: &[ScriptCall<'_>],
    ) -> Vec<Result<Value, StoreError>> {
        match &self.shape {
            Routed::One(lanes) => {
                let answers = lanes.of(purpose).call_all(purpose.call(), calls).await;
                answers.into_iter().map(|answer| answer.map_err(|failure| failure.error)).collect()
            }
            Routed::Cluster(cluster) => cluster.call_all(purpose, calls).await,
        }
    }

    /// The lanes to the server that holds this key.
    pub(super) fn server_of(&self, key: &str) -> Result<Arc<Lanes>, StoreError> {
        match &self.shape {
            Routed::One(lanes) => Ok(Arc::clone(lanes)),
            Routed::Cluster(cluster) => cluster.server_of(key),
        }
    }

    /// The lanes to each server that is written to now.
    pub(super) fn servers(&self) -> Vec<(String, Arc<Lanes>)> {
        match &self.shape {
            Routed::One(lanes) => vec![(String::new(), Arc::clone(lanes))],
            Routed::Cluster(cluster) => cluster.masters(),
        }
    }

    /// What the breaker says of the server that holds this slot: all is well with one that was never spoken to. `None`
    /// while no server is known to hold it.
    pub(super) fn at_breaker<T>(&self, slot: u16, look: impl FnOnce(Option<&Breaker>) -> T) -> Option<T> {
        match &self.shape {
            Routed::One(lanes) => Some(look(Some(lanes.breaker()))),
            Routed::Cluster(cluster) => cluster.at_breaker(slot, look),
        }
    }

    /// Whether the servers are nodes of a cluster.
    pub(super) const fn is_cluster(&self) -> bool {
        matches!(self.shape, Routed::Cluster(_))
    }

    /// Whether each server is to have replicas: one that sentinels watch, or a node of a cluster, is nothing without.
    pub(super) const fn is_replicated(&self) -> bool {
        self.is_replicated
    }

    /// Lets go of all connections; later calls are refused.
    pub(super) fn close(&self) {
        self.stop.cancel();
        match &self.shape {
            Routed::One(lanes) => lanes.close(),
            Routed::Cluster(cluster) => cluster.close(),
        }
    }

    async fn call(
        &self,
        purpose: Purpose,
        repeat: Repeat,
        key: &str,
        request: Request<'_>,
    ) -> Result<Value, StoreError> {
        match &self.shape {
            Routed::One(lanes) => {
                let answer = lanes.call(purpose, (repeat, false), request).await;
                answer.map_err(|failure| failure.error)
            }
            Routed::Cluster(cluster) => cluster.call(purpose, repeat, key, request).await,
        }
    }
}

/// The task: lets time pass for the breakers, and sends the probes that are nobody's calls, until it is stopped. A breaker
/// has one of them under way, and at most one that it has given up.
async fn tick(shape: Routed, stop: CancellationToken) {
    let (script, mut probes) = (scripts::probe(), FuturesUnordered::new());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {
                let wanted = match &shape {
                    Routed::One(lanes) => {
                        lanes.breaker().tick();
                        vec![Arc::clone(lanes)]
                    }
                    Routed::Cluster(cluster) => cluster.tick(),
                };
                let script = &script;
                probes.extend(wanted.into_iter().map(|lanes| async move { lanes.probe(script).await }));
            }
            Some(()) = probes.next() => {}
        }
    }
}

async fn one(name: &str, endpoint: Endpoint, deadlines: Deadlines) -> Result<Routed, StoreError> {
    let lanes = Lanes::new(name, endpoint, deadlines);
    lanes.connect().await?;
    // A connection alone proves little: a server that wants a password lets anybody connect.
    let ping = redis::cmd("PING");
    let asked = lanes.of(Purpose::Reads).call(Call::Read, Repeat::Once, Request::Command(&ping)).await;
    asked.map_err(|failure| failure.error)?;
    Ok(Routed::One(Arc::new(lanes)))
}
