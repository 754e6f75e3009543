//! This node's side of presence between nodes: hears what others tell, answers what they ask, tells them what it serves
//! and whom its sessions watch. Nobody is guessed: who cannot be asked is not in an answer, and stays as she was seen.
//! What is lost with a link is told anew with the next one.

use std::collections::{BTreeSet, HashMap};
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use super::homes::{Homes, ServedBy};
use super::meters::NearMeters;
use super::near::NearSettings;
use super::readers::Readers;
use super::rooms::Rooms;
use super::wants::Wants;
use super::watch::Watches;
use super::words::{self, Letter, Name, Question};
use crate::clock::millis;
use crate::cluster::{Correspondent, Links, Topic};
use crate::events::{Coalescing, Events, PresenceView};
use crate::hub::Hub;
use crate::ids::{Epoch, Owner, PlayerId, ShardId};
use crate::near_cache::NearCache;
use crate::tasks::{self, Tasks};

/// How often this node looks which shards it serves, and whom its sessions watch: how long at most until others know.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often both ends compare whether they mean the same.
const COMPARE_EVERY: Duration = Duration::from_secs(2);

/// The other nodes.
pub(super) struct Peers {
    pub(super) links: Arc<Links>,
    pub(super) homes: Arc<dyn Homes>,
    pub(super) watches: Arc<Watches>,
    rooms: Arc<Rooms>,
    pub(super) hub: Arc<Hub>,
    pub(super) served_by: Mutex<ServedBy>,
    /// The shards that this node serves, as the others were told. Its lock keeps letters about it in order.
    serving: Mutex<Vec<Option<Epoch>>>,
    /// Whom the sessions of each other node watch in the shards of this one.
    pub(super) wanted: Mutex<HashMap<Owner, Wants, ahash::RandomState>>,
    /// Shards elsewhere whose new home does not know yet whom this node's sessions watch.
    pub(super) untold: Coalescing<ShardId, ()>,
    /// What has come from other nodes, for those who watch here.
    pub(super) arrived: Coalescing<PlayerId, PresenceView>,
    /// Players whom the store must be asked for, and the node whose sessions may see them as here: this one, too.
    pub(super) owed: Coalescing<(Owner, PlayerId), ()>,
    /// How players look whose homes are other nodes, for those who say how old an answer may be.
    pub(super) near: Arc<NearCache<PlayerId, Arc<PresenceView>>>,
    /// Which nodes keep the same of players whose home is here.
    pub(super) readers: Mutex<Readers>,
    pub(super) events: Arc<Events>,
    /// Turns to ask each home.
    pub(super) asking: Mutex<HashMap<Owner, Arc<Semaphore>, ahash::RandomState>>,
    pub(super) meters: NearMeters,
    pub(super) tasks: Tasks,
}

/// What [`Peers`] is built upon.
pub(super) struct Upon {
    pub(super) links: Arc<Links>,
    pub(super) homes: Arc<dyn Homes>,
    pub(super) watches: Arc<Watches>,
    pub(super) rooms: Arc<Rooms>,
    pub(super) hub: Arc<Hub>,
    pub(super) events: Arc<Events>,
    pub(super) near: NearSettings,
    pub(super) tasks: Tasks,
}

impl Peers {
    pub(super) fn new(upon: Upon) -> Arc<Self> {
        let Upon { links, homes, watches, rooms, hub, events, near, tasks } = upon;
        let (shards, placed) = (homes.shards(), Arc::clone(&homes));
        Arc::new(Self {
            links,
            watches,
            rooms,
            hub,
            served_by: Mutex::new(ServedBy::nobody(shards)),
            serving: Mutex::new(vec![None; usize::from(shards)]),
            homes,
            wanted: Mutex::default(),
            untold: Coalescing::default(),
            arrived: Coalescing::default(),
            owed: Coalescing::default(),
            near: NearCache::new(near.views, move |player| placed.shard_of(player)),
            readers: Mutex::new(Readers::none(near.readers_max, millis(near.invalidate_again))),
            events,
            asking: Mutex::default(),
            meters: NearMeters::new(),
            tasks,
        })
    }

    /// Keeps the others told until the tasks stop.
    pub(super) async fn run(self: Arc<Self>, stop: Tasks) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut compares = tokio::time::interval(COMPARE_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        compares.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tasks::beat();
            tokio::select! {
                biased;
                () = stop.stopping() => return,
                _ = looks.tick() => {
                    let begun = self.tell_serving();
                    self.catch_up(&begun);
                    self.tell_wants();
                }
                _ = compares.tick() => {
                    // Not what is only on its way.
                    self.tell_wants();
                    self.tell_digests();
                }
            }
        }
    }

    /// Tells the others what has changed of what this node serves; the shards that it serves anew.
    fn tell_serving(&self) -> BTreeSet<ShardId> {
        let (mut serves, mut lost, mut begun) = (Vec::new(), Vec::new(), BTreeSet::new());
        let (mut begun_rooms, mut lost_rooms) = (Vec::new(), Vec::new());
        let mut serving = self.serving.lock();
        self.homes.epochs_served(&mut |shard, now| {
            let Some(told) = serving.get_mut(usize::from(shard.number())).filter(|told| **told != now) else {
                return;
            };
            match now {
                Some(epoch) => {
                    serves.push((shard.number(), epoch.number()));
                    begun_rooms.push((shard, epoch));
                }
                None => {
                    lost.push(shard.number());
                    lost_rooms.push(shard);
                }
            }
            if now.is_some() && told.is_none() {
                begun.insert(shard);
            }
            *told = now;
        });
        // What was wanted when it was served here before is told anew, with how far it was told elsewhere meanwhile.
        for wants in self.wanted.lock().values_mut() {
            begun.iter().for_each(|shard| wants.clear(shard.number()));
        }
        if !lost.is_empty() || !begun.is_empty() {
            // Another home tells, or told, who keeps them near.
            let is_moved =
                |shard: u16| lost.contains(&shard) || begun.iter().any(|begun| begun.number() == shard);
            self.readers.lock().forget(|player| is_moved(self.homes.shard_of(player).number()));
        }
        if !serves.is_empty() || !lost.is_empty() {
            // Before the others hear of it: what they answer must find the rooms here.
            self.rooms.serving(&begun_rooms, &lost_rooms);
            let letter = words::write(&Letter::Serves { anew: false, serves, lost });
            for peer in self.links.peers() {
                self.links.post(&peer, Topic::Presence, letter.clone());
            }
        }
        begun
    }

    /// The node that serves a shard, other than this one.
    pub(super) fn home_of(&self, shard: ShardId) -> Option<Owner> {
        self.served_by.lock().of(shard).cloned()
    }

    fn hear_serving(&self, from: &Owner, anew: bool, serves: Vec<(u16, u64)>, lost: Vec<u16>) {
        self.rooms.hear_serving(from, anew, &serves, &lost);
        let mut moved: BTreeSet<u16> = if anew { self.shards_of(from) } else { BTreeSet::new() };
        moved.extend(lost.iter().copied().chain(serves.iter().map(|(shard, _)| *shard)));
        let mut served_by = self.served_by.lock();
        if anew {
            served_by.forget(from);
        }
        lost.into_iter().for_each(|shard| served_by.ends(from, shard));
        for (shard, epoch) in serves {
            let is_true = served_by.begins(from, shard, Epoch::of(epoch));
            if let Some(shard) = ShardId::numbered(shard).filter(|_| is_true) {
                self.untold.put(shard, ());
            }
        }
        drop(served_by);
        self.forget_near(&moved);
    }
}

/// `Peers` as the links know it.
pub(super) struct Ear(pub(super) Arc<Peers>);

impl Correspondent for Ear {
    fn letter(&self, from: &Owner, body: Bytes) {
        match words::read(&body) {
            Some(Letter::Serves { anew, serves, lost }) => self.0.hear_serving(from, anew, serves, lost),
            Some(Letter::Wants { anew, shard, adds, drops }) => {
                self.0.hear_wants(from, (anew, shard), adds, &drops);
            }
            Some(Letter::Views { seen }) => self.0.hear_views(&seen),
            Some(Letter::Digests { shards }) => self.0.hear_digests(from, &shards),
            Some(Letter::Differs { shards }) => {
                let shards = shards.into_iter().filter_map(ShardId::numbered);
                shards.for_each(|shard| self.0.untold.put(shard, ()));
            }
            Some(Letter::Moved { players }) => self.0.hear_moved(players),
            None => tracing::warn!(operation = "presence_letter", %from, "what it says is not understood"),
        }
    }

    fn call(&self, from: Owner, body: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        match words::read(&body) {
            Some(Question::Looks { players }) => Box::pin(Arc::clone(&self.0).answer(players)),
            Some(Question::Reads { players, life_ms }) => {
                Box::pin(Arc::clone(&self.0).answer_reader(from, players, life_ms))
            }
            // At once: two of one sender keep their order.
            Some(Question::Message { player: Name(player), body }) => {
                let delivered = self.0.deliver(&player, &body);
                Box::pin(ready(delivered.map(|delivered| words::write(&delivered))))
            }
            None => Box::pin(ready(None)),
        }
    }

    fn up(&self, peer: &Owner) {
        let serving = self.0.serving.lock();
        let serves =
            (0..).zip(serving.iter()).filter_map(|(shard, epoch)| Some((shard, epoch.as_ref()?.number())));
        let letter = Letter::Serves { anew: true, serves: serves.collect(), lost: Vec::new() };
        self.0.links.post(peer, Topic::Presence, words::write(&letter));
    }

    fn down(&self, peer: &Owner) {
        // It is told nothing any more, nor does it tell.
        self.0.readers.lock().forget_node(peer);
        let shards = self.0.shards_of(peer);
        self.0.served_by.lock().forget(peer);
        self.0.forget_near(&shards);
        self.0.asking.lock().remove(peer);
        self.0.wanted.lock().remove(peer);
    }
}

/// Rooms as the links know them. A link that comes up needs no word: which shards its node serves is told by presence,
/// and what rooms have to say follows from that.
pub(super) struct RoomsEar(pub(super) Arc<Rooms>);

impl Correspondent for RoomsEar {
    fn letter(&self, from: &Owner, body: Bytes) {
        self.0.hear(from, &body);
    }

    fn call(&self, _: Owner, _: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        Box::pin(ready(None))
    }

    fn up(&self, _: &Owner) {}

    fn down(&self, peer: &Owner) {
        self.0.lose(peer);
    }
}
