//! Who the master of a name is: asked of the sentinels in turn, heard from them when it moves, and never trusted before
//! the server itself says that it is one. `endpoint` connects through it, one task watches.
//!
//! Each change of master gets a number; a lane whose connection has an older one makes a new connection at its next
//! call. Sentinels number their failovers (the configuration epoch), so one that was cut off from the others and still
//! names the old master is told from those that know better.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use redis::aio::{MultiplexedConnection, PubSubStream};
use redis::{Client, Cmd, Pipeline, Value};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::endpoint::connect;
use super::errors::judge;
use super::reply::Reply;
use super::topology::{Access, Address};
use crate::store::StoreError;

/// An answer of the sentinels serves all who ask within this time: many lanes connect at once.
const FRESH: Duration = Duration::from_millis(50);
/// How often a sentinel is asked even if none says anything: a message may be lost.
const POLL: Duration = Duration::from_secs(2);
/// Pause of the watch after a sentinel that could not be listened to, and between looks that a failing server causes.
const PAUSE: Duration = Duration::from_millis(200);
/// What sentinels say when a master was replaced.
const SWITCHED: &str = "+switch-master";

/// The sentinels of one master.
pub(super) struct Sentinels {
    name: String,
    sentinels: Vec<(Address, Client)>,
    to_servers: Access,
    /// For one sentinel's answer, connecting included.
    deadline: Duration,
    known: Mutex<Known>,
    /// Held while asking: a thousand callers ask once.
    asking: tokio::sync::Mutex<()>,
    suspected: Notify,
}

#[derive(Default)]
struct Known {
    master: Option<Address>,
    /// Grows when the master changes.
    serial: u64,
    /// The configuration epoch under which it was named.
    epoch: u64,
    /// The sentinel to ask first: the one that answered last.
    first: usize,
    /// The next look goes on to all of them.
    asks_all: bool,
    /// When they were asked last, and what came out.
    asked: Option<(Instant, Result<(), StoreError>)>,
}

/// What one sentinel says.
enum Said {
    Master {
        address: Address,
        epoch: u64,
    },
    /// It watches no master of this name, but those.
    UnknownName(Vec<String>),
}

impl Sentinels {
    pub(super) fn new(
        name: String,
        sentinels: Vec<(Address, Client)>,
        to_servers: Access,
        connect_deadline: Duration,
    ) -> Self {
        Self {
            name,
            sentinels,
            to_servers,
            // So that there is time for others, and for the master itself, behind sentinels that are silent.
            deadline: connect_deadline / 5,
            known: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            suspected: Notify::new(),
        }
    }

    /// The number of the present master.
    pub(super) fn serial(&self) -> u64 {
        self.known.lock().serial
    }

    /// Whether servers are spoken to with TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        self.to_servers.is_encrypted()
    }

    /// The master seems to be gone or to be none: look again soon.
    pub(super) fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// A connection to the master, and the number of that master.
    pub(super) async fn connect(&self) -> Result<(MultiplexedConnection, u64), StoreError> {
        let (address, serial) = self.find().await?;
        let client = self.to_servers.client(&address).map_err(|error| judge(&error).error)?;
        let at = |error: StoreError| match error {
            StoreError::Unreachable(reason) => {
                StoreError::Unreachable(format!("the master of {:?} at {address}: {reason}", self.name))
            }
            other => other,
        };
        let mut connection = connect(&client).await.map_err(at)?;
        let role: Value =
            redis::cmd("ROLE").query_async(&mut connection).await.map_err(|error| at(judge(&error).error))?;
        let role = Reply::of(role)?.word()?;
        if role != "master" {
            // In the middle of a failover, or of a sentinel that was cut off.
            return Err(StoreError::Refused(format!(
                "READONLY: the sentinels name {address} as the master of {:?}, which is a {role} now",
                self.name
            )));
        }
        Ok((connection, serial))
    }

    /// Where the master is. Asks the sentinels, unless somebody did a moment ago.
    async fn find(&self) -> Result<(Address, u64), StoreError> {
        let _one = self.asking.lock().await;
        let asked = self.known.lock().asked.clone();
        let fresh = asked.filter(|(at, _)| at.elapsed() < FRESH).map(|(_, outcome)| outcome);
        let outcome = match fresh {
            Some(outcome) => outcome,
            None => {
                let outcome = self.ask_in_turn().await;
                self.known.lock().asked = Some((Instant::now(), outcome.clone()));
                outcome
            }
        };
        outcome?;
        let known = self.known.lock();
        let master = known.master.clone().ok_or_else(|| self.unknown(&[]))?;
        Ok((master, known.serial))
    }

    /// Asks each, from the one that answered last on, until one knows at least as much as was known, or now and then all of
    /// them; else believes the best of those that answered: sentinels that were set up anew begin to count anew.
    async fn ask_in_turn(&self) -> Result<(), StoreError> {
        let (first, epoch_known, asks_all) = {
            let mut known = self.known.lock();
            (known.first, known.epoch, std::mem::take(&mut known.asks_all))
        };
        let count = self.sentinels.len();
        let (mut best, mut failures, mut others) = (None::<(usize, Address, u64)>, Vec::new(), None);
        for number in (0..count).map(|step| (first + step) % count) {
            let Some((at, client)) = self.sentinels.get(number) else { continue };
            match self.ask(at, client).await {
                Ok(Said::Master { address, epoch }) => {
                    if best.as_ref().is_none_or(|(_, _, known)| epoch > *known) {
                        best = Some((number, address, epoch));
                    }
                    if epoch >= epoch_known && !asks_all {
                        break;
                    }
                }
                Ok(Said::UnknownName(names)) => others = Some(names),
                Err(error) => failures.push(format!("{at}: {error}")),
            }
        }
        if let Some((number, address, epoch)) = best {
            self.take(address, number, epoch);
            return Ok(());
        }
        if let Some(names) = others {
            return Err(self.unknown(&names));
        }
        Err(StoreError::Unreachable(format!("no sentinel answers: {}", failures.join("; "))))
    }

    fn unknown(&self, others: &[String]) -> StoreError {
        let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        StoreError::Refused(format!(
            "the sentinels know no master named {:?}, but {others}: correct the name behind the / of the store's URL",
            self.name
        ))
    }

    /// Asks one sentinel.
    async fn ask(&self, at: &Address, client: &Client) -> Result<Said, StoreError> {
        let exchange = async {
            let mut connection = connect(client).await?;
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
            pipeline.cmd("SENTINEL").arg("MASTER").arg(&self.name);
            let values = connection.send_packed_commands(&pipeline, 0, 2).await;
            let mut values = values.map_err(|error| judge(&error).error)?.into_iter();
            let (address, detail) =
                (values.next().unwrap_or(Value::Nil), values.next().unwrap_or(Value::Nil));
            match address {
                Value::ServerError(error) => Err(judge(&error.into()).error),
                Value::Nil => Ok(Said::UnknownName(names_of_masters(&mut connection).await)),
                address => {
                    let mut reply = Reply::of(address)?;
                    let (host, port) = (reply.word()?, reply.number()?);
                    let port = u16::try_from(port)
                        .map_err(|_| StoreError::Corrupt(format!("{at} names port {port}")))?;
                    // A proxy may hide it: then all of its answers count alike.
                    let epoch =
                        field(detail, "config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
                    Ok(Said::Master { address: Address { host, port }, epoch })
                }
            }
        };
        let answer = tokio::time::timeout(self.deadline, exchange).await.unwrap_or(Err(StoreError::Timeout));
        answer.map_err(|error| match error {
            StoreError::Refused(reason) if reason.contains("password") => StoreError::Refused(
                "it wants a password: put ?sentinel_password=… (and &sentinel_user=…) behind the store's URL"
                    .into(),
            ),
            StoreError::Refused(reason) if reason.contains("unknown command") => StoreError::Refused(
                "this is no sentinel: name the sentinels' own ports, or use redis:// for one server".into(),
            ),
            other => other,
        })
    }

    /// Keeps who the master is, from the sentinel of this number and under this epoch.
    fn take(&self, address: Address, number: usize, epoch: u64) {
        let mut known = self.known.lock();
        (known.first, known.epoch) = (number, epoch);
        if known.master.as_ref() == Some(&address) {
            return;
        }
        known.serial += 1;
        if let Some(before) = known.master.replace(address.clone()) {
            tracing::warn!(operation = "store.master", master = self.name, %before, now = %address, "the master moved");
        }
    }

    /// The task: listens to one sentinel at a time, and asks now and then, until it is stopped.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut number = 0;
        while !stop.is_cancelled() {
            let listening = self.listen(number);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = listening => {}
            }
            number = (number + 1) % self.sentinels.len().max(1);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Listens to one sentinel for as long as it can be heard.
    async fn listen(&self, number: usize) {
        let subscribed = tokio::time::timeout(self.deadline, self.subscribe(number)).await;
        let Ok(Some(mut messages)) = subscribed else { return self.look_again().await };
        // Whatever was said before nobody heard.
        self.look_again().await;
        loop {
            tokio::select! {
                biased;
                message = messages.next() => match message {
                    // The message names no epoch: who sent it is asked.
                    Some(message) if self.is_of_our_master(message.get_payload_bytes()) => {
                        self.ask_first(number);
                        self.look_again().await;
                    }
                    Some(_) => {}
                    None => return,
                },
                () = self.suspected.notified() => {
                    self.look_again().await;
                    tokio::time::sleep(PAUSE).await;
                }
                () = tokio::time::sleep(POLL) => {
                    // All of them: the one that is listened to may be cut off from the rest, and the one that has replaced
                    // a healthy master tells the others only seconds later. Till then the old master takes writes in vain.
                    self.known.lock().asks_all = true;
                    self.ask_first(number);
                    self.look_again().await;
                }
            }
        }
    }

    async fn subscribe(&self, number: usize) -> Option<PubSubStream> {
        let (_, client) = self.sentinels.get(number)?;
        let mut subscription = client.get_async_pubsub().await.ok()?;
        subscription.subscribe(SWITCHED).await.ok()?;
        Some(subscription.into_on_message())
    }

    async fn look_again(&self) {
        if let Err(error) = self.find().await {
            tracing::debug!(operation = "store.master", master = self.name, status = %error, "not found");
        }
    }

    /// The next look begins with this sentinel, however fresh the last one is.
    fn ask_first(&self, number: usize) {
        let mut known = self.known.lock();
        (known.first, known.asked) = (number, None);
    }

    /// Reads `NAME OLD-HOST OLD-PORT HOST PORT`.
    fn is_of_our_master(&self, said: &[u8]) -> bool {
        said.split(|byte| *byte == b' ').next() == Some(self.name.as_bytes())
    }
}

/// A field of a reply that lists names and values.
fn field(reply: Value, name: &str) -> Option<String> {
    let mut reply = Reply::of(reply).ok()?;
    while reply.len() >= 2 {
        let (known, value) = (reply.word().ok()?, reply.word().ok()?);
        if known == name {
            return Some(value);
        }
    }
    None
}

/// The masters that a sentinel does watch; none if it does not say.
async fn names_of_masters(connection: &mut MultiplexedConnection) -> Vec<String> {
    let mut ask = Cmd::new();
    ask.arg("SENTINEL").arg("MASTERS");
    match ask.query_async(connection).await {
        Ok(Value::Array(masters)) => masters.into_iter().filter_map(|master| field(master, "name")).collect(),
        _ => Vec::new(),
    }
}
