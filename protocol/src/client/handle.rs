//! What a user of the client holds: [`Client`] to speak, [`Events`] to listen. Cheap; the driver does the work.
//! Dropping the client closes the link (1001) and leaves the session resumable.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::config::Config;
use super::driver::{Ask, Control, Driver};
use super::event::{Answered, Event, Happened, OkBody, Outcome};
use super::ledger::Slot;
use super::link::DropKind;
use crate::reply::{Changed, ErrorBody, Pong, Presences, Ready, Refreshed, Roster, Sent, StateGot};
use crate::request::{
    Ping, Players, PresenceSet, Refresh, Request, RoomJoin, RoomLeave, RoomMembers, RoomMeta, RoomSend, Send,
    StateGet, StatePatch, Status,
};
use crate::{Text, Value};

/// Requests that wait for the driver.
const ASKS_MAX: usize = 32;
/// Wishes about the link that wait for the driver.
const CONTROLS_MAX: usize = 4;

/// Why a call has no good answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The server refused it; nothing changed, unless `applied` says so.
    #[error("{}: {}", .0.code.name(), .0.message)]
    Refused(Box<ErrorBody>),
    /// Nobody knows whether it took effect: its session ended before the answer came.
    #[error("outcome unknown: {0}")]
    Unknown(&'static str),
    /// The client has stopped; the request was not sent.
    #[error("the client has stopped")]
    Stopped,
    /// The answer does not fit the question: a fault of the server.
    #[error("an answer of another kind")]
    Unfitting,
}

/// Speaks for one session at a time. Clones speak for the same.
#[derive(Debug, Clone)]
pub struct Client {
    asks: mpsc::Sender<Ask>,
    /// Beside the requests, so that a full queue of them never delays it.
    controls: mpsc::Sender<Control>,
}

/// Listens.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Event>,
}

impl Events {
    /// The next event; `None` when the client has stopped and all was heard.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Waits for the next `ready`, past everything else; `None` when the client has stopped.
    pub async fn ready(&mut self) -> Option<Ready> {
        while let Some(event) = self.next().await {
            if let Happened::Ready { ready, .. } = event.what {
                return Some(*ready);
            }
        }
        None
    }
}

macro_rules! call {
    ($self:ident, $request:expr, $kind:ident) => {
        match $self.call($request).await? {
            OkBody::$kind(body) => Ok(body),
            _ => Err(CallError::Unfitting),
        }
    };
}

impl Client {
    /// Starts the client's one task; it ends when the client is dropped, or after [`Happened::Ended`].
    #[must_use]
    pub fn start(config: Config) -> (Self, Events) {
        let (client, events, driver) = Self::prepare(config);
        // The crate's only task, one a client; its end is tied to the handle's.
        #[allow(clippy::disallowed_methods, reason = "this crate stands outside the house and its tasks.rs")]
        tokio::spawn(driver);
        (client, events)
    }

    /// As [`Client::start`], for callers with their own way to run a task: the third part is to be polled.
    pub fn prepare(config: Config) -> (Self, Events, impl Future<Output = ()> + std::marker::Send + 'static) {
        let (asks, asks_in) = mpsc::channel(ASKS_MAX);
        let (controls, controls_in) = mpsc::channel(CONTROLS_MAX);
        let (events_out, events) = mpsc::channel(config.events_max.max(1));
        let driver = Driver::new(config, asks_in, controls_in, events_out);
        (Self { asks, controls }, Events { events }, driver.run())
    }

    /// Asks without waiting for the answer, which comes among the events with this `tag`. Waits only while too many
    /// requests are without an answer already. `due` is when the caller wanted it sent.
    ///
    /// # Errors
    /// [`CallError::Stopped`].
    pub async fn submit(&self, tag: u64, request: Request<'static>, due: Instant) -> Result<(), CallError> {
        let ask = Ask { request, slot: Slot::Stream(tag), due };
        self.asks.send(ask).await.map_err(|_| CallError::Stopped)
    }

    /// As [`Client::submit`], but gives the request back where it would have to wait.
    ///
    /// # Errors
    /// `Some(request)` when too many wait, `None` when the client has stopped.
    pub fn try_submit(
        &self,
        tag: u64,
        request: Request<'static>,
        due: Instant,
    ) -> Result<(), Option<Box<Request<'static>>>> {
        match self.asks.try_send(Ask { request, slot: Slot::Stream(tag), due }) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(Ask { request, .. })) => Err(Some(Box::new(request))),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(None),
        }
    }

    /// Asks and waits for the answer, also over lost links.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(&self, request: Request<'static>) -> Result<OkBody, CallError> {
        match self.ask(request).await?.outcome {
            Outcome::Ok(body) => Ok(body),
            Outcome::Refused(error) => Err(CallError::Refused(error)),
            Outcome::Unknown(why) => Err(CallError::Unknown(why)),
        }
    }

    /// Asks and waits, and tells all about the answer.
    ///
    /// # Errors
    /// [`CallError::Stopped`].
    pub async fn ask(&self, request: Request<'static>) -> Result<Answered, CallError> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { request, slot: Slot::Call(answer), due: Instant::now() };
        self.asks.send(ask).await.map_err(|_| CallError::Stopped)?;
        answered.await.map_err(|_| CallError::Stopped)
    }

    /// Loses the link on purpose and stays away for a while. The session goes on.
    ///
    /// # Errors
    /// [`CallError::Stopped`].
    pub async fn drop_link(&self, how: DropKind, away: Duration) -> Result<(), CallError> {
        self.controls.send(Control::Drop { how, away }).await.map_err(|_| CallError::Stopped)
    }

    /// Closes the link with this code and stops: 1000 ends the session, 1001 leaves it resumable.
    ///
    /// # Errors
    /// [`CallError::Stopped`].
    pub async fn close(&self, code: u16) -> Result<(), CallError> {
        self.controls.send(Control::Close { code }).await.map_err(|_| CallError::Stopped)
    }

    /// Ends the session.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn logout(&self) -> Result<(), CallError> {
        self.call(Request::Logout).await.map(|_| ())
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn ping(&self) -> Result<Pong, CallError> {
        call!(self, Request::Ping(Ping::default()), Pong)
    }

    /// New credentials on the live link.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn refresh(&self, token: String) -> Result<Refreshed, CallError> {
        call!(self, Request::Refresh(Refresh { token: token.into() }), Refreshed)
    }

    /// Reads the player's state.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn state_get(&self, what: StateGet<'static>) -> Result<StateGot, CallError> {
        call!(self, Request::StateGet(what), State)
    }

    /// Changes the player's state. The client numbers it.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn state_patch(&self, patch: StatePatch<'static>) -> Result<Changed, CallError> {
        call!(self, Request::StatePatch(patch), Changed)
    }

    /// Writes one key.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn set(&self, key: &str, value: Value) -> Result<Changed, CallError> {
        let set = BTreeMap::from([(Text::from(key.to_owned()), value)]);
        self.state_patch(StatePatch { set: Some(set), ..StatePatch::default() }).await
    }

    /// Says what the session is doing. The client numbers it.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn presence_set(&self, presence: PresenceSet<'static>) -> Result<Changed, CallError> {
        call!(self, Request::PresenceSet(presence), Changed)
    }

    /// Says what the session is doing, in one word.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn status(&self, status: Status) -> Result<Changed, CallError> {
        self.presence_set(PresenceSet { status, activity: None, visibility: None, ack: None, cseq: None })
            .await
    }

    /// Asks who is on.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn presence_get(&self, players: &[&str]) -> Result<Presences, CallError> {
        call!(self, Request::PresenceGet(named(players)), Presences)
    }

    /// Follows players.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn watch(&self, players: &[&str]) -> Result<Presences, CallError> {
        call!(self, Request::Watch(named(players)), Presences)
    }

    /// Follows players no more.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn unwatch(&self, players: &[&str]) -> Result<(), CallError> {
        self.call(Request::Unwatch(named(players))).await.map(|_| ())
    }

    /// Enters a room; the roster's first page. `meta` is the player's own there; `None` keeps what she has. The client
    /// numbers it, as all changes.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn room_join(
        &self,
        room: &str,
        meta: Option<BTreeMap<String, Value>>,
    ) -> Result<Roster, CallError> {
        let meta = meta.map(keyed);
        call!(self, Request::RoomJoin(RoomJoin { room: room.to_owned().into(), meta, cseq: None }), Roster)
    }

    /// Leaves a room.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn room_leave(&self, room: &str) -> Result<Changed, CallError> {
        call!(self, Request::RoomLeave(RoomLeave { room: room.to_owned().into(), cseq: None }), Changed)
    }

    /// Speaks to all who are in a room.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn room_send(&self, room: &str, data: Value) -> Result<Changed, CallError> {
        call!(self, Request::RoomSend(RoomSend { room: room.to_owned().into(), data, cseq: None }), Changed)
    }

    /// One page of a room's members: the first, or the one that `cursor` asks for.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn room_members(
        &self,
        room: &str,
        cursor: Option<String>,
        limit: Option<u32>,
    ) -> Result<Roster, CallError> {
        let cursor = cursor.map(Text::from);
        call!(self, Request::RoomMembers(RoomMembers { room: room.to_owned().into(), cursor, limit }), Roster)
    }

    /// Changes what the player shows of herself in a room.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn room_meta(&self, room: &str, meta: BTreeMap<String, Value>) -> Result<Changed, CallError> {
        let meta = keyed(meta);
        call!(self, Request::RoomMeta(RoomMeta { room: room.to_owned().into(), meta, cseq: None }), Changed)
    }

    /// Speaks to a player. The client numbers it.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn send(&self, player: &str, data: Value) -> Result<Sent, CallError> {
        call!(self, Request::Send(Send { player: player.to_owned().into(), data, cseq: None }), Sent)
    }
}

fn keyed(meta: BTreeMap<String, Value>) -> BTreeMap<Text<'static>, Value> {
    meta.into_iter().map(|(key, value)| (Text::from(key), value)).collect()
}

fn named(players: &[&str]) -> Players<'static> {
    Players { players: players.iter().map(|player| Text::from((*player).to_owned())).collect() }
}
