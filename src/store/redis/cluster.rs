//! A Redis Cluster: which node holds which slot, lanes to each node, and what a node's "not here" leads to. Called by
//! `routes`; one task keeps the map.
//!
//! Over our own lanes and not over the client library's cluster connection: its deadlines, retries and connections
//! are one for all nodes and all purposes, and it repeats commands by itself, which a numbered batch must never be.
//! Here a request is sent again only when a node's answer says that it did not run (MOVED, ASK), so commits are, too.
//! While a slot moves, a batch that finds some keys here and others there is refused (TRYAGAIN): its home tries again
//! under the next number.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use parking_lot::RwLock;
use redis::{Pipeline, Value};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::breaker::Breaker;
use super::endpoint::{Endpoint, connect};
use super::errors::{Failure, Redirection, judge};
use super::lane::{Deadlines, Repeat, Request};
use super::lanes::{Lanes, Purpose};
use super::scripts::ScriptCall;
use super::slots::{SLOTS, SlotMap, slot_of};
use super::topology::{Access, Address};
use crate::store::StoreError;

/// How often one request is sent on to where a node says that its slot is.
const HOPS_MAX: usize = 4;
/// Most nodes that are connected to. Redis itself advises to stay below 1000.
const NODES_MAX: usize = 1_000;
/// Least time between two looks at the map.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the map is looked at even if nothing fails.
const IDLE: Duration = Duration::from_secs(30);

/// The nodes of one cluster.
pub(super) struct Cluster {
    seeds: Vec<Address>,
    to_nodes: Access,
    deadlines: Deadlines,
    view: RwLock<View>,
    /// The map is not what the nodes say, or a node fails.
    stale: Arc<Notify>,
}

struct View {
    slots: SlotMap,
    lanes: HashMap<Address, Arc<Lanes>>,
    /// The breaker of each master, by its place in the map; none of one that was never spoken to.
    breakers: Vec<Option<Arc<Breaker>>>,
    is_closed: bool,
}

impl View {
    /// To be called when masters or lanes have changed: looking at a breaker is to cost next to nothing.
    fn place_breakers(&mut self) {
        let breaker = |at| self.lanes.get(at).map(|lanes| Arc::clone(lanes.breaker()));
        self.breakers = self.slots.masters().iter().map(breaker).collect();
    }
}

/// A place to send to.
#[derive(Clone)]
struct Hop {
    at: Address,
    lanes: Arc<Lanes>,
    is_asking: bool,
}

/// What one node says of the cluster; the best of several is believed.
struct Told {
    slots: SlotMap,
    /// Whether it sees a cluster that works, in which epoch, with how many slots held: more is better.
    worth: (bool, u64, usize),
}

impl Cluster {
    pub(super) fn new(seeds: Vec<Address>, to_nodes: Access, deadlines: Deadlines) -> Self {
        let (slots, lanes, breakers) = (SlotMap::empty(), HashMap::new(), Vec::new());
        let view = View { slots, lanes, breakers, is_closed: false };
        Self { seeds, to_nodes, deadlines, view: RwLock::new(view), stale: Arc::default() }
    }

    /// Sends a request to the node that holds the key's slot.
    pub(super) async fn call(
        &self,
        purpose: Purpose,
        repeat: Repeat,
        key: &str,
        request: Request<'_>,
    ) -> Result<Value, StoreError> {
        let mut hop = self.hop(slot_of(key))?;
        for _ in 0..HOPS_MAX {
            let answer = hop.lanes.call(purpose, (repeat, hop.is_asking), request).await;
            match answer {
                Ok(value) => return Ok(value),
                Err(failure) => hop = self.follow(&hop, failure)?,
            }
        }
        Err(nowhere())
    }

    /// Runs scripts that are independent of each other: those of one node together, all nodes at the same time. An
    /// answer each, in their order.
    pub(super) async fn call_all(
        &self,
        purpose: Purpose,
        calls: &[ScriptCall<'_>],
    ) -> Vec<Result<Value, StoreError>> {
        let mut answers: Vec<Result<Value, StoreError>> = vec![Err(nowhere()); calls.len()];
        let mut waiting: Vec<(usize, Hop)> = Vec::with_capacity(calls.len());
        for (number, (call, answer)) in calls.iter().zip(&mut answers).enumerate() {
            match self.hop(slot_of(call.key())) {
                Ok(hop) => waiting.push((number, hop)),
                Err(error) => *answer = Err(error),
            }
        }
        for _ in 0..HOPS_MAX {
            let sent = join_all(by_node(waiting).into_iter().map(async |(hop, numbers)| {
                let own: Vec<_> = numbers.iter().filter_map(|number| calls.get(*number)).copied().collect();
                (numbers, send_all(&hop, purpose, &own).await, hop)
            }));
            waiting = Vec::new();
            for (numbers, outcomes, hop) in sent.await {
                for (number, outcome) in numbers.into_iter().zip(outcomes) {
                    let outcome = match outcome {
                        Ok(value) => Ok(value),
                        Err(failure) => match self.follow(&hop, failure) {
                            Ok(next) => {
                                waiting.push((number, next));
                                continue;
                            }
                            Err(error) => Err(error),
                        },
                    };
                    answers.iter_mut().skip(number).take(1).for_each(|answer| *answer = outcome.clone());
                }
            }
            if waiting.is_empty() {
                break;
            }
        }
        answers
    }

    /// The lanes to the node that holds this key.
    pub(super) fn server_of(&self, key: &str) -> Result<Arc<Lanes>, StoreError> {
        Ok(self.hop(slot_of(key))?.lanes)
    }

    /// The lanes to each node that holds slots.
    pub(super) fn masters(&self) -> Vec<(String, Arc<Lanes>)> {
        let masters = self.view.read().slots.masters().to_vec();
        let lanes = masters.into_iter().filter_map(|at| Some((at.to_string(), self.lanes_to(&at).ok()?)));
        lanes.collect()
    }

    /// Looks at the breaker of the slot's master, if that was ever spoken to. `None`: nobody is known to hold it.
    pub(super) fn at_breaker<T>(&self, slot: u16, look: impl FnOnce(Option<&Breaker>) -> T) -> Option<T> {
        let view = self.view.read();
        let place = view.slots.place_of(slot)?;
        Some(look(view.breakers.get(place).and_then(Option::as_deref)))
    }

    /// Lets time pass for the breakers of all masters; the lanes to those of which one wants a probe.
    pub(super) fn tick(&self) -> Vec<Arc<Lanes>> {
        let view = self.view.read();
        view.breakers.iter().flatten().for_each(|breaker| breaker.tick());
        if !view.breakers.iter().flatten().any(|breaker| breaker.wants_probe()) {
            return Vec::new();
        }
        let masters = view.slots.masters().iter().filter_map(|at| view.lanes.get(at));
        masters.filter(|lanes| lanes.breaker().wants_probe()).map(Arc::clone).collect()
    }

    /// Lets go of all connections; later calls are refused.
    pub(super) fn close(&self) {
        let mut view = self.view.write();
        view.is_closed = true;
        view.lanes.drain().for_each(|(_, lanes)| lanes.close());
    }

    /// The task: looks at the map when something failed, and now and then, until it is stopped.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let look = async {
            loop {
                let _ = tokio::time::timeout(IDLE, self.stale.notified()).await;
                if let Err(error) = self.refresh().await {
                    tracing::debug!(operation = "store.slots", status = %error, "the map is not known");
                    // Nobody may be calling who would ask for the next look.
                    self.stale.notify_one();
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = look => {}
        }
    }

    /// Asks the nodes for the map, all at once, and believes the best of what half of them say: a node that was cut
    /// off from the rest still tells of old times.
    pub(super) async fn refresh(&self) -> Result<(), StoreError> {
        let mut nodes = self.view.read().slots.masters().to_vec();
        nodes.extend(self.seeds.iter().filter(|seed| !nodes.contains(seed)).cloned().collect::<Vec<_>>());
        let enough = nodes.len() / 2 + 1;
        let mut asked: FuturesUnordered<_> = nodes.iter().map(|at| self.ask(at)).collect();
        let (mut best, mut heard, mut failure) = (None::<Told>, 0, StoreError::Timeout);
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(told) => {
                    heard += 1;
                    if best.as_ref().is_none_or(|best| told.worth > best.worth) {
                        best = Some(told);
                    }
                }
                Err(error) => failure = error,
            }
            if heard >= enough {
                break;
            }
        }
        drop(asked);
        self.take(best.ok_or(failure)?.slots);
        Ok(())
    }

    async fn ask(&self, at: &Address) -> Result<Told, StoreError> {
        let exchange = async {
            let client = self.to_nodes.client(at).map_err(|error| judge(&error).error)?;
            let mut connection = connect(&client).await?;
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.cmd("CLUSTER").arg("SLOTS").cmd("CLUSTER").arg("INFO");
            let values = connection.send_packed_commands(&pipeline, 0, 2).await;
            let mut values = values.map_err(|error| judge(&error).error)?.into_iter();
            let slots = match values.next().unwrap_or(Value::Nil) {
                Value::ServerError(error)
                    if error.details().is_some_and(|said| said.contains("cluster support disabled")) =>
                {
                    return Err(StoreError::Refused(format!(
                        "{at} is no node of a Redis Cluster: use redis:// in the store's URL, or redis+sentinel://"
                    )));
                }
                Value::ServerError(error) => return Err(judge(&error.into()).error),
                answer => SlotMap::read(answer, at)?,
            };
            let info = values.next().unwrap_or(Value::Nil);
            let info = super::reply::Reply::of(info).and_then(|mut reply| reply.word()).unwrap_or_default();
            let says = |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name));
            let epoch = says("cluster_current_epoch:").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
            let worth = (says("cluster_state:") == Some("ok"), epoch, slots.covered());
            Ok(Told { slots, worth })
        };
        match tokio::time::timeout(self.deadlines.connect, exchange).await {
            Ok(Err(StoreError::Unreachable(reason))) => {
                Err(StoreError::Unreachable(format!("{at}: {reason}")))
            }
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Unreachable(format!("{at}: it does not answer"))),
        }
    }

    fn take(&self, slots: SlotMap) {
        let mut view = self.view.write();
        if view.slots == slots {
            return;
        }
        if view.slots.covered() > 0 {
            let masters = slots.masters().len();
            tracing::info!(operation = "store.slots", masters, covered = slots.covered(), "slots have moved");
        }
        // Whoever calls there now holds its lanes until it has its answer.
        view.lanes.retain(|at, _| slots.masters().contains(at));
        view.slots = slots;
        view.place_breakers();
    }

    fn hop(&self, slot: u16) -> Result<Hop, StoreError> {
        let at = self.view.read().slots.holder(slot).cloned();
        let Some(at) = at else {
            self.stale.notify_one();
            return Err(StoreError::Refused(format!("CLUSTERDOWN: no node holds slot {slot} of {SLOTS}")));
        };
        Ok(Hop { lanes: self.lanes_to(&at)?, at, is_asking: false })
    }

    /// Where to send what this node did not run; the failure, if it is another.
    fn follow(&self, from: &Hop, failure: Failure) -> Result<Hop, StoreError> {
        let Some(redirection) = failure.redirection else { return Err(failure.error) };
        let (to, moved) = match &redirection {
            Redirection::Moved { slot, to } => (to, Some(*slot)),
            Redirection::Ask { to } => (to, None),
        };
        let at = Address::parse_redirection(to, &from.at).ok_or(failure.error)?;
        tracing::debug!(operation = "store.slots", from = %from.at, to = %at, moved, "sent on");
        if let Some(slot) = moved {
            let mut view = self.view.write();
            view.slots.assign(slot, at.clone());
            view.place_breakers();
            drop(view);
            self.stale.notify_one();
        }
        Ok(Hop { lanes: self.lanes_to(&at)?, at, is_asking: moved.is_none() })
    }

    fn lanes_to(&self, at: &Address) -> Result<Arc<Lanes>, StoreError> {
        if let Some(lanes) = self.view.read().lanes.get(at) {
            return Ok(Arc::clone(lanes));
        }
        let client = self.to_nodes.client(at).map_err(|error| judge(&error).error)?;
        let mut view = self.view.write();
        if view.is_closed {
            return Err(StoreError::Unreachable("the store is closed".into()));
        }
        if view.lanes.len() >= NODES_MAX {
            return Err(StoreError::Refused(format!("the cluster has more than {NODES_MAX} nodes")));
        }
        let endpoint = Endpoint::Node { client, suspected: Arc::clone(&self.stale) };
        let made = || Arc::new(Lanes::new(&at.to_string(), endpoint, self.deadlines));
        let lanes = Arc::clone(view.lanes.entry(at.clone()).or_insert_with(made));
        view.place_breakers();
        Ok(lanes)
    }
}

/// Those that go to one node in one way, together, in their order.
fn by_node(waiting: Vec<(usize, Hop)>) -> Vec<(Hop, Vec<usize>)> {
    let mut groups: Vec<(Hop, Vec<usize>)> = Vec::new();
    for (number, hop) in waiting {
        let known = groups.iter_mut().find(|(to, _)| to.at == hop.at && to.is_asking == hop.is_asking);
        match known {
            Some((_, numbers)) => numbers.push(number),
            None => groups.push((hop, vec![number])),
        }
    }
    groups
}

async fn send_all(hop: &Hop, purpose: Purpose, calls: &[ScriptCall<'_>]) -> Vec<Result<Value, Failure>> {
    let lane = hop.lanes.of(purpose);
    if hop.is_asking {
        // Few, and only while a slot moves.
        return join_all(calls.iter().map(|call| lane.call_asking(purpose.call(), Request::Script(*call))))
            .await;
    }
    lane.call_all(purpose.call(), calls).await
}

fn nowhere() -> StoreError {
    StoreError::Refused("MOVED: the nodes send a request round in a circle; the slot is moving".into())
}
