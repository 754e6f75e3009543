//! The other nodes, as rooms know them: which of them is whose home, what each has told of its players in the rooms of
//! this one, and the letters between them. A room whose home comes here is made anew of what all nodes say; until they
//! have said it nobody is told that somebody left.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::Rooms;
use super::letters::{Answer, Letter};
use super::places::Places;
use crate::clock::{self, millis};
use crate::cluster::{Links, Topic};
use crate::events::Coalescing;
use crate::ids::{Epoch, Owner, RoomName, ShardId};
use crate::presence::homes::Homes;
use crate::presence::listeners::Tenure;
use crate::presence::wants::Digest;
use crate::presence::words;

/// How long a room whose home has come here waits for nodes that do not tell, and for homes that nobody knows.
const REBUILD_MAX: Duration = Duration::from_secs(5);

/// How letters go to other nodes, and when.
pub(in crate::presence) trait Post: Send + Sync {
    /// This node.
    fn me(&self) -> &Owner;
    /// Those that can be reached.
    fn peers(&self) -> Vec<Owner>;
    /// Posts a letter; what is lost is told anew when the link stands again.
    fn post(&self, to: &Owner, letter: Bytes);
    /// Whether so much waits on the way to a node that what can wait should.
    fn is_busy(&self, to: &Owner) -> bool;
    /// The time (monotonic ms).
    fn now_ms(&self) -> u64 {
        clock::now().mono_ms
    }
}

impl Post for Arc<Links> {
    fn me(&self) -> &Owner {
        Links::me(self)
    }

    fn peers(&self) -> Vec<Owner> {
        Links::peers(self)
    }

    fn post(&self, to: &Owner, letter: Bytes) {
        Links::post(self, to, Topic::Rooms, letter);
    }

    fn is_busy(&self, to: &Owner) -> bool {
        Links::is_busy(self, to)
    }
}

/// What another node has told of the rooms of one shard.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Telling {
    /// The telling that goes on; zero before the first.
    pub(super) number: u64,
    /// The last one that was told to its end.
    pub(super) whole: u64,
    /// What was told in it comes to this.
    pub(super) digest: Digest,
}

/// Where a room's home is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::presence) enum Seated {
    /// This node.
    Here(Tenure),
    /// Another one, which can be reached.
    At(Owner, Tenure),
    /// Nobody knows.
    Nowhere(Tenure),
}

/// A question that waits for its answer.
pub(super) type Asking = (Owner, oneshot::Sender<Answer>);

/// The other nodes.
pub(in crate::presence) struct Nodes {
    pub(super) post: Box<dyn Post>,
    pub(super) homes: Arc<dyn Homes>,
    pub(super) places: Mutex<Places>,
    /// A place has changed.
    pub(super) moved: Notify,
    /// What each node has told, by shard.
    pub(super) tellings: Mutex<HashMap<Owner, Vec<Telling>, ahash::RandomState>>,
    /// What this node says of its players, by their rooms' shards.
    pub(super) claimed: Mutex<Vec<Digest>>,
    /// Shards elsewhere whose home is to be told all.
    pub(super) untold: Coalescing<ShardId, ()>,
    pub(super) asking: Mutex<HashMap<u64, Asking, ahash::RandomState>>,
    /// Places kept for players of other nodes: until when (monotonic ms), and where.
    pub(super) kept: Mutex<VecDeque<(u64, RoomName, u64)>>,
    numbers: AtomicU64,
    /// Until then somebody may have to be taken out (monotonic ms).
    pub(super) sweep_until_ms: AtomicU64,
}

impl Nodes {
    pub(in crate::presence) fn new(post: Box<dyn Post>, homes: Arc<dyn Homes>) -> Self {
        let shards = homes.shards();
        Self {
            post,
            places: Mutex::new(Places::nowhere(shards)),
            moved: Notify::new(),
            tellings: Mutex::default(),
            claimed: Mutex::new(vec![Digest::default(); usize::from(shards)]),
            untold: Coalescing::default(),
            asking: Mutex::default(),
            kept: Mutex::default(),
            numbers: AtomicU64::new(1),
            sweep_until_ms: AtomicU64::new(0),
            homes,
        }
    }

    /// A number that was never given before.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn send(&self, to: &Owner, letter: &Letter) {
        self.post.post(to, words::write(letter));
    }

    pub(super) fn shard_of(&self, room: &RoomName) -> ShardId {
        self.homes.shard_of_room(room)
    }

    pub(super) fn seated(&self, shard: ShardId) -> Seated {
        let places = self.places.lock();
        match places.of(shard) {
            None => Seated::Nowhere(0),
            Some(place) => match &place.home {
                None => Seated::Nowhere(place.tenure),
                Some(home) if home == self.post.me() => Seated::Here(place.tenure),
                Some(home) => Seated::At(home.clone(), place.tenure),
            },
        }
    }

    pub(super) fn is_here(&self, shard: ShardId) -> bool {
        matches!(self.seated(shard), Seated::Here(_))
    }

    pub(super) fn is_rebuilding(&self, shard: ShardId) -> bool {
        self.places.lock().is_rebuilding(shard)
    }

    /// Whether all members of a shard's rooms are known here, as far as they can be.
    pub(super) fn is_whole(&self, shard: ShardId) -> bool {
        let places = self.places.lock();
        !places.is_rebuilding(shard) && places.all_known()
    }

    /// What has changed may leave members whom nobody has any more.
    pub(super) fn sweep_soon(&self, now_ms: u64) {
        self.sweep_until_ms.fetch_max(now_ms + 2 * millis(super::orphans::ORPHANED), Ordering::Relaxed);
    }
}

impl Rooms {
    /// Where a room's home is.
    pub(in crate::presence) fn seated(&self, name: &RoomName) -> Seated {
        match &self.nodes {
            None => Seated::Here(super::FOR_EVER),
            Some(nodes) => nodes.seated(nodes.shard_of(name)),
        }
    }

    /// Whether this node is a room's home.
    #[must_use]
    pub fn is_here(&self, name: &RoomName) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.is_here(nodes.shard_of(name)))
    }

    /// Whether a room's roster lacks nobody, as far as can be known here.
    #[must_use]
    pub fn is_whole(&self, name: &RoomName) -> bool {
        match &self.nodes {
            None => (self.ground.is_whole)(),
            Some(nodes) => nodes.is_whole(nodes.shard_of(name)),
        }
    }

    /// This node serves shards from now on, and others no longer. To be called before the others are told: what they
    /// answer must find it so, and what they are told of new players must have been told before.
    pub(in crate::presence) fn serving(&self, begun: &[(ShardId, Epoch)], lost: &[ShardId]) {
        let Some(nodes) = &self.nodes else { return };
        self.catch_up();
        let _intake = self.intake.lock();
        let now_ms = nodes.post.now_ms();
        let mut taken = BTreeSet::new();
        let mut places = nodes.places.lock();
        for shard in lost {
            places.ends(nodes.post.me(), shard.number());
        }
        for (shard, epoch) in begun {
            if places.begins(nodes.post.me(), shard.number(), *epoch, now_ms) {
                places.rebuild(shard.number(), nodes.number(), now_ms + millis(REBUILD_MAX));
                taken.insert(*shard);
            }
        }
        drop(places);
        self.take_seats(&taken);
        nodes.sweep_soon(now_ms);
        nodes.moved.notify_waiters();
    }

    /// Another node serves shards from now on, and others no longer.
    pub(in crate::presence) fn hear_serving(
        &self,
        from: &Owner,
        anew: bool,
        serves: &[(u16, u64)],
        lost: &[u16],
    ) {
        let Some(nodes) = &self.nodes else { return };
        let _intake = self.intake.lock();
        let now_ms = nodes.post.now_ms();
        let mut places = nodes.places.lock();
        if anew {
            places.forget(from);
        }
        for shard in lost {
            places.ends(from, *shard);
        }
        for (shard, epoch) in serves {
            let is_true = places.begins(from, *shard, Epoch::of(*epoch), now_ms);
            if let Some(shard) = ShardId::numbered(*shard).filter(|_| is_true) {
                nodes.untold.put(shard, ());
            }
        }
        drop(places);
        nodes.sweep_soon(now_ms);
        nodes.moved.notify_waiters();
    }

    /// A node cannot be reached: its players stay as they were seen.
    pub(in crate::presence) fn lose(&self, node: &Owner) {
        let Some(nodes) = &self.nodes else { return };
        let _intake = self.intake.lock();
        nodes.places.lock().forget(node);
        nodes.tellings.lock().remove(node);
        nodes.asking.lock().retain(|_, (asked, _)| asked != node);
        nodes.moved.notify_waiters();
    }

    /// A letter of another node.
    pub(in crate::presence) fn hear(&self, from: &Owner, letter: &[u8]) {
        match words::read(letter) {
            Some(Letter::Anew { shards }) => self.hear_anew(from, &shards),
            Some(Letter::Claims { claims }) => self.hear_claims(from, claims),
            Some(Letter::Whole { shards }) => self.hear_whole(from, &shards),
            Some(Letter::Digests { shards }) => self.hear_digests(from, &shards),
            Some(Letter::Differs { shards }) => self.hear_differs(&shards),
            Some(Letter::Owed { rooms }) => self.hear_owed(from, rooms),
            Some(Letter::Say { room, body }) => self.hear_say(from, &room.0, body),
            Some(Letter::Said { room, count }) => self.hear_said(from, &room.0, count),
            Some(Letter::Ask { id, room, ask }) => self.hear_ask(from, id, &room.0, ask),
            Some(Letter::Answer { id, answer }) => self.hear_answer(from, id, answer),
            Some(Letter::Release { room, place }) => self.release(&room.0, place),
            Some(Letter::Told(told)) => self.hear_told(from, told),
            None => tracing::warn!(operation = "rooms_letter", %from, "what it says is not understood"),
        }
    }
}
