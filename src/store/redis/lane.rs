//! One connection with one purpose (leases, commits, reads), so that none waits behind another's work; its deadlines,
//! and when it is replaced; the server's breaker is asked before anything is sent. Called by `RedisStore`. The client library reconnects by itself only in its connection
//! manager, and then to the same server: replacing is ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value};
use tokio::sync::Semaphore;

use super::breaker::{Breaker, Call, Going};
use super::endpoint::Endpoint;
use super::errors::{Failure, Weight, is_unknown_script, judge};
use super::scripts::ScriptCall;
use crate::store::{Reach, StoreError};

/// A connection that answered nothing this often in a row is given up: the server may live behind a new one.
const TIMEOUTS_MAX: u32 = 2;
/// A probe that was answered within this time is sent again at once: three in a row need not wait for three renewals.
const PROBE_ON: Duration = Duration::from_millis(100);

/// What is large has so many times as long for its way.
const BULK_TIMES: u32 = 5;
/// Bytes of what is large that are under way at a time: more wait behind one another for longer than that.
const BULK_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a broken connection means for a call: whether it reached the server is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// The caller hears of it.
    Never,
    /// Sent once more on a new connection: it says the same twice. A restart of the server stays invisible.
    Once,
}

/// How long this lane waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    pub(super) connect: Duration,
    pub(super) response: Duration,
    /// A server that is away is left alone for no longer.
    pub(super) probe_within: Duration,
}

/// One connection with one purpose.
pub(super) struct Lane {
    name: &'static str,
    endpoint: Arc<Endpoint>,
    breaker: Arc<Breaker>,
    deadlines: Deadlines,
    slot: Mutex<Slot>,
    /// Held while connecting: a thousand callers make one connection.
    connecting: tokio::sync::Mutex<()>,
    /// A permit a byte of what is large.
    bulk: Semaphore,
}

#[derive(Default)]
struct Slot {
    connection: Option<MultiplexedConnection>,
    /// The number of the server to which it leads.
    endpoint_serial: u64,
    /// How often that had been away.
    openings: u64,
    /// Which connection this is: a failure of an older one says nothing about it.
    serial: u64,
    timeouts_in_a_row: u32,
    is_closed: bool,
}

/// What is sent.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    Command(&'a Cmd),
    Script(ScriptCall<'a>),
}

impl Request<'_> {
    /// A script goes by its hash; where the server does not know it, with its body, on the same connection: two scripts
    /// of one caller never overtake each other.
    async fn exchange(self, connection: &mut MultiplexedConnection) -> RedisResult<Value> {
        match self {
            Self::Command(command) => command.query_async(connection).await,
            Self::Script(call) => match call.by_hash().query_async(connection).await {
                Err(error) if is_unknown_script(&error) => call.by_body().query_async(connection).await,
                answer => answer,
            },
        }
    }
}

/// Scripts by their hashes in one pipeline; those that the server does not know once more, by their bodies. An error that
/// is one script's own is its value.
async fn exchange_all(
    connection: &mut MultiplexedConnection,
    calls: &[ScriptCall<'_>],
) -> RedisResult<Vec<Value>> {
    let send = async |connection: &mut MultiplexedConnection, commands: Vec<Cmd>| {
        let mut pipeline = redis::Pipeline::with_capacity(commands.len());
        let count = commands.len();
        commands.into_iter().for_each(|command| _ = pipeline.add_command(command));
        connection.send_packed_commands(&pipeline, 0, count).await
    };
    let mut values = send(connection, calls.iter().map(ScriptCall::by_hash).collect()).await?;
    let is_unknown = |value: &Value| matches!(value, Value::ServerError(error) if is_unknown_script(&error.clone().into()));
    let unknown = values.iter().zip(calls).filter(|(value, _)| is_unknown(value));
    let again: Vec<_> = unknown.map(|(_, call)| call.by_body()).collect();
    if !again.is_empty() {
        let bodies = send(connection, again).await?;
        values.iter_mut().filter(|value| is_unknown(value)).zip(bodies).for_each(|(value, new)| *value = new);
    }
    Ok(values)
}

/// What a node is told that is to answer for a slot which is moving to it.
async fn exchange_asking(connection: &mut MultiplexedConnection, request: Request<'_>) -> RedisResult<Value> {
    let send = async |connection: &mut MultiplexedConnection, command: Cmd| {
        let mut pipeline = redis::Pipeline::with_capacity(2);
        pipeline.cmd("ASKING").add_command(command);
        let mut values = connection.send_packed_commands(&pipeline, 0, 2).await?;
        values.pop().unwrap_or(Value::Nil).extract_error()
    };
    match request {
        Request::Command(command) => send(connection, command.clone()).await,
        Request::Script(call) => match send(connection, call.by_hash()).await {
            Err(error) if is_unknown_script(&error) => send(connection, call.by_body()).await,
            answer => answer,
        },
    }
}

/// Tells the breaker how one call ended.
fn told(going: Going<'_>, answer: Result<Value, Failure>) -> Result<Value, Failure> {
    match &answer {
        Ok(_) => going.answered(),
        Err(failure) => going.failed(failure),
    }
    answer
}

/// The failure for which calls that went together count, if half of them failed and more.
fn trouble_of(answers: &[Result<Value, Failure>]) -> Option<&Failure> {
    let failures = || answers.iter().filter_map(|answer| answer.as_ref().err());
    if failures().count() * 2 < answers.len() {
        return None;
    }
    let is_grave = |failure: &&Failure| matches!(failure.weight, Weight::Failure | Weight::Full);
    failures().find(is_grave).or_else(|| failures().next())
}

/// A connection in use.
struct Held {
    connection: MultiplexedConnection,
    serial: u64,
}

impl Lane {
    pub(super) fn new(
        name: &'static str,
        endpoint: Arc<Endpoint>,
        breaker: Arc<Breaker>,
        deadlines: Deadlines,
    ) -> Self {
        let (slot, connecting) = (Mutex::default(), tokio::sync::Mutex::default());
        let bulk = Semaphore::new(BULK_BYTES_MAX);
        Self { name, endpoint, breaker, deadlines, slot, connecting, bulk }
    }

    /// Connects now, to find out at start rather than at the first call.
    pub(super) async fn connect(&self) -> Result<(), StoreError> {
        self.hold().await.map(|_| ()).map_err(|failure| failure.error)
    }

    /// Sends one request and waits for its answer.
    pub(super) async fn call(
        &self,
        call: Call,
        repeat: Repeat,
        request: Request<'_>,
    ) -> Result<Value, Failure> {
        let mut going = self.ask(call, 1)?;
        if repeat == Repeat::Once && !going.is_probe() {
            match self.exchange(going, request).await {
                Err(failure) if failure.is_broken_connection() => {
                    // Held back now, it has been sent before all the same.
                    let Ok(again) = self.ask(call, 1) else { return Err(failure) };
                    going = again;
                }
                answer => return answer,
            }
        }
        let (is_probe, began) = (going.is_probe(), Instant::now());
        let answer = self.exchange(going, request).await;
        if is_probe && repeat == Repeat::Once && answer.is_ok() && began.elapsed() <= PROBE_ON {
            self.probe_on(call, request).await;
        }
        answer
    }

    /// Sends a request to the node to which its slot is moving; once.
    pub(super) async fn call_asking(&self, call: Call, request: Request<'_>) -> Result<Value, Failure> {
        let going = self.ask(call, 1)?;
        let answer = async {
            let mut held = self.hold().await?;
            let exchange = exchange_asking(&mut held.connection, request);
            let answer = tokio::time::timeout(self.deadlines.response, exchange).await;
            self.heard(held.serial, answer)
        };
        told(going, answer.await)
    }

    /// Sends one request that is large, or whose answer is, when there is room for so many bytes. It may take its time: what
    /// becomes of it says nothing to the server's breaker, which still holds it back where the server is away.
    pub(super) async fn call_bulk(
        &self,
        bytes: usize,
        (repeat, is_asking): (Repeat, bool),
        request: Request<'_>,
    ) -> Result<Value, Failure> {
        let bytes = u32::try_from(bytes.min(BULK_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = tokio::time::timeout(self.deadlines.response, self.bulk.acquire_many(bytes));
        let Ok(Ok(_room)) = room.await else { return Err(Failure::of_ours(StoreError::Crowded)) };
        match self.exchange_bulk(is_asking, request).await {
            Err(failure) if repeat == Repeat::Once && failure.is_broken_connection() => {
                self.exchange_bulk(is_asking, request).await
            }
            answer => answer,
        }
    }

    async fn exchange_bulk(&self, is_asking: bool, request: Request<'_>) -> Result<Value, Failure> {
        self.breaker.permits().map_err(|error| self.is_held_back(error))?;
        let mut held = self.hold().await?;
        let exchange = async {
            if is_asking {
                return exchange_asking(&mut held.connection, request).await;
            }
            request.exchange(&mut held.connection).await
        };
        let answer = tokio::time::timeout(self.deadlines.response * BULK_TIMES, exchange).await;
        self.heard(held.serial, answer)
    }

    /// Runs scripts that are independent of each other, sent together and never twice (a batch's number is used once); an
    /// answer each, in their order. Those that the server's breaker holds back are the last ones.
    pub(super) async fn call_all(&self, call: Call, calls: &[ScriptCall<'_>]) -> Vec<Result<Value, Failure>> {
        let going = match self.ask(call, calls.len()) {
            Ok(going) => going,
            Err(failure) => return vec![Err(failure); calls.len()],
        };
        let (sent, held_back) = calls.split_at(going.count().min(calls.len()));
        let (is_probe, began) = (going.is_probe(), Instant::now());
        let all = async {
            let mut held = self.hold().await?;
            let exchange = exchange_all(&mut held.connection, sent);
            let answer = tokio::time::timeout(self.deadlines.response, exchange).await;
            self.heard(held.serial, answer).map(|values| (held.serial, values))
        };
        let mut answers: Vec<_> = match all.await {
            Ok((serial, values)) => {
                let one = |value: Value| match value {
                    Value::ServerError(error) => self.heard(serial, Ok(Err(error.into()))),
                    value => Ok(value),
                };
                values.into_iter().map(one).collect()
            }
            Err(failure) => vec![Err(failure); sent.len()],
        };
        match trouble_of(&answers) {
            Some(failure) => going.failed(failure),
            None => going.answered(),
        }
        if let (true, Call::Renewal, [Ok(_)], [probe]) = (is_probe, call, answers.as_slice(), sent)
            && began.elapsed() <= PROBE_ON
        {
            self.probe_on(call, Request::Script(*probe)).await;
        }
        if !held_back.is_empty() {
            answers.resize(calls.len(), Err(Failure::of_ours(self.breaker.held_back())));
        }
        answers
    }

    /// Sends a probe again that says the same each time, until the breaker has seen enough.
    async fn probe_on(&self, call: Call, request: Request<'_>) {
        while self.breaker.reach() == Reach::Away {
            let Ok(going) = self.ask(call, 1) else { return };
            if self.exchange(going, request).await.is_err() {
                return;
            }
        }
    }

    /// Whether calls may go, and how many of those that go together.
    fn ask(&self, call: Call, count: usize) -> Result<Going<'_>, Failure> {
        self.breaker.ask(call, count, self.endpoint.serial()).map_err(|error| self.is_held_back(error))
    }

    /// Nobody else may be calling who would find out where the server is now.
    fn is_held_back(&self, error: StoreError) -> Failure {
        if matches!(error, StoreError::HeldBack { reach: Reach::Away, .. }) {
            self.endpoint.suspect();
        }
        Failure::of_ours(error)
    }

    /// Sends one request on its way, once.
    async fn exchange(&self, going: Going<'_>, request: Request<'_>) -> Result<Value, Failure> {
        let answer = async {
            let mut held = self.hold().await?;
            let exchange = request.exchange(&mut held.connection);
            let answer = tokio::time::timeout(self.deadlines.response, exchange).await;
            self.heard(held.serial, answer)
        };
        told(going, answer.await)
    }

    /// Runs scripts that may be sent twice, then one command behind them on the same connection. An error that is one
    /// script's own is its value. The command may take its time: what becomes of it says nothing to the server's breaker.
    pub(super) async fn call_all_then(
        &self,
        calls: &[ScriptCall<'_>],
        last: &Cmd,
    ) -> Result<(Vec<Value>, Value), Failure> {
        self.breaker.permits().map_err(|error| self.is_held_back(error))?;
        let mut held = self.hold().await?;
        let exchange = async {
            let values = exchange_all(&mut held.connection, calls).await?;
            Ok((values, last.query_async(&mut held.connection).await?))
        };
        let answer = tokio::time::timeout(self.deadlines.response, exchange).await;
        self.heard(held.serial, answer)
    }

    /// Lets go of the connection; later calls are refused.
    pub(super) fn close(&self) {
        let mut slot = self.slot.lock();
        slot.is_closed = true;
        slot.connection = None;
    }

    async fn hold(&self) -> Result<Held, Failure> {
        if let Some(held) = self.held()? {
            return Ok(held);
        }
        let connecting = async {
            let _one = self.connecting.lock().await;
            if let Some(held) = self.held()? {
                return Ok(held);
            }
            let openings = self.breaker.openings();
            let connected = self.endpoint.connect().await.inspect_err(|_| self.endpoint.suspect());
            let (connection, endpoint_serial) = connected.map_err(Failure::of_silence)?;
            Ok(self.put(connection, endpoint_serial, openings))
        };
        match tokio::time::timeout(self.deadlines.connect, connecting).await {
            Ok(held) => held,
            Err(_) => {
                self.endpoint.suspect();
                Err(Failure::of_silence(self.endpoint.late()))
            }
        }
    }

    fn held(&self) -> Result<Option<Held>, Failure> {
        let endpoint_serial = self.endpoint.serial();
        let mut slot = self.slot.lock();
        if slot.is_closed {
            return Err(Failure::of_ours(StoreError::Unreachable("the store is closed".into())));
        }
        if slot.endpoint_serial != endpoint_serial || slot.openings != self.breaker.openings() {
            // What is on its way there may still be answered.
            slot.connection = None;
        }
        Ok(slot.connection.clone().map(|connection| Held { connection, serial: slot.serial }))
    }

    fn put(&self, connection: MultiplexedConnection, endpoint_serial: u64, openings: u64) -> Held {
        let mut slot = self.slot.lock();
        slot.serial += 1;
        (slot.endpoint_serial, slot.openings) = (endpoint_serial, openings);
        slot.timeouts_in_a_row = 0;
        if !slot.is_closed {
            slot.connection = Some(connection.clone());
        }
        Held { connection, serial: slot.serial }
    }

    fn heard<T>(
        &self,
        serial: u64,
        answer: Result<RedisResult<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, Failure> {
        let (outcome, replaces) = match answer {
            Ok(Ok(value)) => (Ok(value), false),
            Ok(Err(error)) => {
                let judged = judge(&error);
                let replaces = judged.replaces_connection;
                (Err(Failure::of(judged, &error)), replaces)
            }
            Err(_) => (Err(Failure::of_silence(StoreError::Timeout)), false),
        };
        let mut slot = self.slot.lock();
        if slot.serial != serial {
            return outcome;
        }
        match &outcome {
            Err(Failure { error: StoreError::Timeout, .. }) => slot.timeouts_in_a_row += 1,
            _ => slot.timeouts_in_a_row = 0,
        }
        if (replaces || slot.timeouts_in_a_row >= TIMEOUTS_MAX) && slot.connection.take().is_some() {
            let reason = outcome.as_ref().err().map(|failure| &failure.error);
            self.endpoint.suspect();
            tracing::warn!(
                operation = "store.connection",
                lane = self.name,
                reason = reason.map(tracing::field::display),
                "the connection is replaced"
            );
        }
        outcome
    }
}
