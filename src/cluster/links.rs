//! All peer links of this node: one to each other member, dialled by the one whose name comes first, dialled again when
//! it ends. Rooms post letters and ask questions through it, and hear those of their own kind. Ownership and durability
//! are the store's: what goes over these links can be lost, and is then told anew (`Correspondent::up`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tracing::Instrument as _;

use super::dial::{self, PEER_PATH, dial};
use super::link::{Ended, Hears, SUBPROTOCOL, Wire, config, run};
use super::meters::LinkMeters;
use super::pass::ClusterKey;
use super::post::{Frame, Topic, Trace};
use super::reach::{News, Reach, Unreached};
use super::refusals::Refusals;
use super::{Member, Members, Snapshot};
use crate::clock::millis;
use crate::ids::Owner;
use crate::tasks::{self, Tasks};
use crate::telemetry::traces::{self, Kind, Span};

/// Before a link is dialled again: twice as long each time, and ± 20 %.
const REDIAL_MIN: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_secs(2);
/// A link that stood for so long was a good one.
const LASTING: Duration = Duration::from_secs(5);
/// How often it is looked who is without a link.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Questions of one peer that are answered at a time; more are refused.
const CALLS_SERVED_MAX: usize = 256;
/// Questions of ours that wait for an answer, all peers together.
const CALLS_ASKED_MAX: usize = 16_384;

/// A room that speaks with its own kind on other nodes.
pub trait Correspondent: Send + Sync {
    /// A letter came. Must not block.
    fn letter(&self, from: &Owner, body: Bytes);
    /// A question came; `None` if it cannot be answered.
    fn call(&self, from: Owner, body: Bytes) -> BoxFuture<'static, Option<Bytes>>;
    /// A link stands: no letter from before will come, and none of ours before now arrived for sure.
    fn up(&self, peer: &Owner);
    /// It does not stand any more.
    fn down(&self, peer: &Owner);
}

/// Why a question has no answer. What was asked may have been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no link to that node now.
    #[error("there is no link to that node")]
    NoLink,
    /// It did not answer in time, or the link ended.
    #[error("that node did not answer")]
    NoAnswer,
    /// It cannot answer this.
    #[error("that node cannot answer this")]
    Refused,
    /// Too many questions wait.
    #[error("too many questions wait for an answer")]
    Overloaded,
}

struct Standing {
    serial: u64,
    wire: Arc<Wire>,
}

impl CallError {
    /// In one word, as traces tell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoLink => "no_link",
            Self::NoAnswer => "no_answer",
            Self::Refused => "refused",
            Self::Overloaded => "overloaded",
        }
    }
}

/// A question that waits, and on which link.
type Asking = (u64, oneshot::Sender<Option<Bytes>>);

/// All links.
pub struct Links {
    key: ClusterKey,
    members: Arc<Members>,
    /// Who hears; unset until all rooms are built, and until then no link stands.
    rooms: OnceLock<Vec<(Topic, Arc<dyn Correspondent>)>>,
    standing: RwLock<HashMap<Owner, Standing>>,
    dialling: Mutex<HashMap<Owner, ()>>,
    reach: Mutex<Reach>,
    refusals: Refusals,
    meters: LinkMeters,
    asking: Mutex<HashMap<u64, Asking>>,
    next: AtomicU64,
    tasks: Tasks,
}

impl Links {
    /// No link yet: rooms are built upon this, and only then does it open.
    #[must_use]
    pub fn new(key: ClusterKey, members: Arc<Members>, tasks: &Tasks) -> Arc<Self> {
        Arc::new(Self {
            key,
            members,
            rooms: OnceLock::new(),
            standing: RwLock::default(),
            dialling: Mutex::default(),
            reach: Mutex::default(),
            refusals: Refusals::default(),
            meters: LinkMeters::new(),
            asking: Mutex::default(),
            next: AtomicU64::new(1),
            tasks: tasks.clone(),
        })
    }

    /// Links to all members that come, until the tasks stop; these rooms hear what comes. To be called once.
    pub fn open(self: &Arc<Self>, rooms: Vec<(Topic, Arc<dyn Correspondent>)>) {
        if self.rooms.set(rooms).is_ok() {
            self.tasks.spawn_vital("peers", Arc::clone(self).dial_all());
        }
    }

    /// This process.
    #[must_use]
    pub fn me(&self) -> &Owner {
        self.members.me()
    }

    /// Whether a link to this node stands.
    #[must_use]
    pub fn stands(&self, peer: &Owner) -> bool {
        self.standing.read().contains_key(peer)
    }

    /// The nodes to which a link stands.
    #[must_use]
    pub fn peers(&self) -> Vec<Owner> {
        self.standing.read().keys().cloned().collect()
    }

    /// The live members to which no link stands, for some time now, and why.
    #[must_use]
    pub fn unreached(&self) -> Vec<Unreached> {
        self.reach.lock().unreached(&self.members.snapshot())
    }

    /// Since when nothing listens where this member says that nodes find it (monotonic ms). `None` while a link stands,
    /// and where nobody can tell. Takes a quarter of a second at most.
    pub async fn refused_since_ms(&self, member: &Member) -> Option<u64> {
        if self.stands(&member.owner) { None } else { self.refusals.since_ms(member).await }
    }

    /// Posts a letter. `false`: there is no link, or the peer is too far behind; when it stands anew, both sides resync.
    pub fn post(&self, to: &Owner, topic: Topic, body: Bytes) -> bool {
        let wire = self.standing.read().get(to).map(|standing| Arc::clone(&standing.wire));
        wire.is_some_and(|wire| wire.post(topic, body))
    }

    /// For how long letters to the slowest node have been on their way.
    #[must_use]
    pub fn mail_lag(&self) -> Duration {
        self.standing.read().values().map(|standing| standing.wire.mail_lag()).max().unwrap_or_default()
    }

    /// Whether so many letters wait for a node that those which can wait should not be posted now.
    #[must_use]
    pub fn is_busy(&self, to: &Owner) -> bool {
        self.standing.read().get(to).is_some_and(|standing| standing.wire.is_busy())
    }

    /// Asks a question and waits for the answer, at most `deadline`. What is asked as a part of a trace is told so.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(
        &self,
        to: &Owner,
        topic: Topic,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        // What services ask is told of by the room that carries it: it knows more.
        let work = if topic == Topic::Service { None } else { traces::begin_here() };
        let answer = traces::during(work.as_ref(), self.ask(to, topic, body, deadline)).await;
        if let Some(work) = work {
            let failed = answer.as_ref().err().map(|error| error.name().into());
            work.end(failed, || span(Kind::Client, topic, to));
        }
        answer
    }

    async fn ask(
        &self,
        to: &Owner,
        topic: Topic,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let (serial, wire) = {
            let standing = self.standing.read();
            let standing = standing.get(to).ok_or(CallError::NoLink)?;
            (standing.serial, Arc::clone(&standing.wire))
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut asking = self.asking.lock();
            if asking.len() >= CALLS_ASKED_MAX {
                return Err(CallError::Overloaded);
            }
            asking.insert(id, (serial, sender));
        }
        // Taken back however this ends, also when nobody waits any more.
        let _asking = Asked { links: self, id };
        let trace = self.trace_for(to);
        if !wire.put(Frame::Call { id, topic, body, trace }) {
            return Err(CallError::Overloaded);
        }
        // A link that ended meanwhile has told those who were asking then.
        if self.standing.read().get(to).is_none_or(|standing| standing.serial != serial) {
            return Err(CallError::NoAnswer);
        }
        let answer = tokio::time::timeout(deadline, receiver).await;
        match answer {
            Ok(Ok(Some(body))) => Ok(body),
            Ok(Ok(None)) => Err(CallError::Refused),
            Ok(Err(_)) | Err(_) => Err(CallError::NoAnswer),
        }
    }

    /// Of which trace a question is a part, for a node that reads that.
    fn trace_for(&self, to: &Owner) -> Option<Trace> {
        let parent = traces::here()?;
        let snapshot = self.members.snapshot();
        snapshot.member(to).is_some_and(|member| member.says.traces).then(|| Trace::of(&parent))
    }

    /// Takes a connection that another node opened.
    pub fn accept<S>(self: &Arc<Self>, from: Owner, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Too early: the other node dials again.
        if self.rooms.get().is_none() {
            return;
        }
        let links = Arc::clone(self);
        self.tasks.spawn_sound("peer_link", async move {
            let ws = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config())).await;
            links.serve(from, ws).await;
        });
    }

    /// Sees to it that every member that is ours to dial is being dialled.
    async fn dial_all(self: Arc<Self>) {
        let mut changes = self.members.changes();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tasks::beat();
            let snapshot = changes.borrow_and_update().clone();
            for seen in snapshot.seen() {
                let owner = &seen.member.owner;
                // A node that says no address cannot be dialled by the other.
                let is_dialled = self.members.me().as_str() < owner.as_str() || !self.says_address(&snapshot);
                let is_ours = owner != self.members.me() && is_dialled && seen.member.says.peer.is_some();
                if is_ours && self.dialling.lock().insert(owner.clone(), ()).is_none() {
                    let (links, owner) = (Arc::clone(&self), owner.clone());
                    self.tasks.spawn_sound("peer_dial", links.keep_dialling(owner));
                }
            }
            self.tell_reach(&snapshot);
            self.refusals.retain(|owner| snapshot.member(owner).is_some() && !self.stands(owner));
            tokio::select! {
                biased;
                () = self.tasks.stopping() => return,
                _ = looks.tick() => {}
                changed = changes.changed() => if changed.is_err() {
                    tasks::rest();
                    return self.tasks.stopping().await;
                },
            }
        }
    }

    /// One line when a member is not reached for a while, and one when it is.
    fn tell_reach(&self, snapshot: &Snapshot) {
        let mut reach = self.reach.lock();
        let news = reach.look(snapshot, |peer| self.stands(peer), tokio::time::Instant::now());
        self.meters.unreached.set(reach.unreached(snapshot).len() as f64);
        self.meters.mail_lag.set(self.mail_lag().as_secs_f64());
        drop(reach);
        for news in news {
            match news {
                News::Unreached(Unreached { node, peer, reason }) => tracing::warn!(
                    operation = "peer_link",
                    node,
                    peer,
                    status = reason,
                    "a live node cannot be reached: its players are not seen from here, nor relayed there; \
                     set peer_addr and peer_public_addr to what other nodes can connect to"
                ),
                News::Reached { node, after } => tracing::info!(
                    operation = "peer_link",
                    node,
                    after_ms = millis(after),
                    "a node is reached again"
                ),
            }
        }
    }

    fn says_address(&self, snapshot: &Snapshot) -> bool {
        snapshot.member(self.members.me()).is_some_and(|me| me.says.peer.is_some())
    }

    /// Keeps a link to this process, as long as it is a member.
    async fn keep_dialling(self: Arc<Self>, peer: Owner) {
        let mut wait = REDIAL_MIN;
        while let Some(member) = self.member(&peer).filter(|_| !self.tasks.is_stopping()) {
            let asked = dial::Asked { path: PEER_PATH, subprotocol: SUBPROTOCOL, shard: "", client: "" };
            match dial(&self.key, self.members.me(), &member, asked).await {
                Ok(stream) => {
                    let began = tokio::time::Instant::now();
                    let ws = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config())).await;
                    self.serve(peer.clone(), ws).await;
                    // One that ends as soon as it stands is no better than none.
                    wait = if began.elapsed() > LASTING { REDIAL_MIN } else { (wait * 2).min(REDIAL_MAX) };
                }
                Err(error) => {
                    tracing::debug!(operation = "peer_dial", to = %peer, status = %error);
                    self.reach.lock().failed(&peer, error.to_string(), tokio::time::Instant::now());
                    wait = (wait * 2).min(REDIAL_MAX);
                }
            }
            tokio::select! {
                biased;
                () = self.tasks.stopping() => return,
                () = tokio::time::sleep(wait.mul_f64(rand::random_range(0.8..1.2))) => {}
            }
        }
        self.dialling.lock().remove(&peer);
    }

    fn member(&self, peer: &Owner) -> Option<Member> {
        self.members.snapshot().member(peer).cloned()
    }

    async fn serve<S>(self: &Arc<Self>, peer: Owner, ws: WebSocketStream<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (serial, wire) = (self.next.fetch_add(1, Ordering::Relaxed), Arc::new(Wire::default()));
        let standing = Standing { serial, wire: Arc::clone(&wire) };
        let old = self.standing.write().insert(peer.clone(), standing);
        if let Some(old) = old {
            old.wire.end(Ended::Replaced);
            self.forget(&peer, old.serial);
        }
        self.count_standing();
        tracing::info!(operation = "peer_link", %peer, "a peer link stands");
        self.rooms().iter().for_each(|(_, room)| room.up(&peer));
        let hears = Ear {
            links: Arc::clone(self),
            peer: peer.clone(),
            wire: Arc::clone(&wire),
            serial,
            served: Arc::new(Semaphore::new(CALLS_SERVED_MAX)),
        };
        let ended = run(ws, &wire, &hears, &self.tasks).await;
        tracing::info!(operation = "peer_link", %peer, status = %ended, "a peer link has ended");
        if matches!(ended, Ended::Left) {
            self.members.says_goodbye(&peer);
        }
        let mut standing = self.standing.write();
        if standing.get(&peer).is_some_and(|present| present.serial == serial) {
            standing.remove(&peer);
            drop(standing);
            self.count_standing();
            self.forget(&peer, serial);
        }
    }

    fn count_standing(&self) {
        self.meters.standing.set(self.standing.read().len() as f64);
    }

    /// Nothing comes over this link any more.
    fn forget(&self, peer: &Owner, serial: u64) {
        self.asking.lock().retain(|_, (asked_on, _)| *asked_on != serial);
        self.rooms().iter().for_each(|(_, room)| room.down(peer));
    }

    fn rooms(&self) -> &[(Topic, Arc<dyn Correspondent>)] {
        self.rooms.get().map(Vec::as_slice).unwrap_or_default()
    }

    fn room(&self, topic: Topic) -> Option<Arc<dyn Correspondent>> {
        self.rooms().iter().find(|(known, _)| *known == topic).map(|(_, room)| Arc::clone(room))
    }
}

/// Answers a question that is a part of a trace.
async fn answered(topic: Topic, peer: &Owner, answer: impl Future<Output = Option<Bytes>>) -> Option<Bytes> {
    // What services ask is told of by the room that answers it: it knows more.
    let work = if topic == Topic::Service { None } else { traces::begin_here() };
    let body = traces::during(work.as_ref(), answer).await;
    if let Some(work) = work {
        work.end(None, || span(Kind::Server, topic, peer));
    }
    body
}

fn span(kind: Kind, topic: Topic, peer: &Owner) -> Span {
    let name = match topic {
        Topic::Presence => "peer presence",
        Topic::Rooms => "peer rooms",
        Topic::Home => "peer home",
        Topic::Service => "peer service",
        Topic::Store => "peer store",
    };
    Span::new(kind, name).with("hearth.peer", peer.node().to_owned())
}

/// A question that waits for its answer.
struct Asked<'a> {
    links: &'a Links,
    id: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.links.asking.lock().remove(&self.id);
    }
}

/// Hears one link.
struct Ear {
    links: Arc<Links>,
    peer: Owner,
    wire: Arc<Wire>,
    serial: u64,
    served: Arc<Semaphore>,
}

impl Hears for Ear {
    fn letter(&self, topic: Topic, body: Bytes) {
        if let Some(room) = self.links.room(topic) {
            room.letter(&self.peer, body);
        }
    }

    fn seen_after(&self, took: Duration) {
        self.links.meters.mail.record(took.as_secs_f64());
    }

    fn call(&self, id: u64, topic: Topic, body: Bytes, trace: Option<Trace>) {
        let (Some(room), Ok(place)) = (self.links.room(topic), Arc::clone(&self.served).try_acquire_owned())
        else {
            // A room that is not there, or too many questions at a time: no answer is better than a late one.
            return self.wire.must_put(Frame::Answer { id, body: None });
        };
        let (wire, answer) = (Arc::clone(&self.wire), room.call(self.peer.clone(), body));
        let caller = trace.and_then(|trace| trace.parent());
        let peer = caller.is_some().then(|| self.peer.clone());
        self.links.tasks.spawn("peer_call", async move {
            let body = match peer {
                None => answer.await,
                Some(peer) => {
                    let trace_id =
                        caller.as_ref().map(|caller| tracing::field::display(caller.context.trace));
                    let within = tracing::error_span!("call", trace_id);
                    traces::under(caller, answered(topic, &peer, answer)).instrument(within).await
                }
            };
            wire.must_put(Frame::Answer { id, body });
            drop(place);
        });
    }

    fn answer(&self, id: u64, body: Option<Bytes>) {
        let mut asking = self.links.asking.lock();
        let is_of_this_link = asking.get(&id).is_some_and(|(asked_on, _)| *asked_on == self.serial);
        if let Some((_, sender)) = is_of_this_link.then(|| asking.remove(&id)).flatten() {
            let _ = sender.send(body);
        }
    }
}
