//! Who is in which room, between nodes: each node claims its own players at their rooms' homes. All claims of a shard
//! are told anew where its home has moved or came back, and where digests differ.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use super::Rooms;
use super::letters::{Claimed, Letter, Named};
use super::nodes::{Nodes, Seated, Telling};
use crate::ids::{Owner, PlayerId, RoomName, ShardId};
use crate::presence::listeners::Says;
use crate::presence::room::Room;
use crate::presence::seat::{Claim, Seat};
use crate::presence::wants::Digest;
use crate::tasks::{self, Tasks};

/// How often it is looked for who is to be told all.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often members are looked for whom nobody claims.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often both ends compare whether they mean the same.
const COMPARE_EVERY: Duration = Duration::from_secs(2);
/// Claims of shards that are told at a time, about: the home must keep up.
const UNTOLD_AT_ONCE: u32 = 10_000;
/// Claims, or names of rooms, in one letter.
const LETTER_CLAIMS: usize = 64;

/// A room's cell in the map.
pub(super) type Cell = Arc<Mutex<Room>>;
/// What is to be said of one node's players.
type Claims = HashMap<Owner, Vec<Claimed>, ahash::RandomState>;

/// Claims that go out together, the homes by name.
#[derive(Default)]
pub(super) struct Outgoing(Claims);

impl Outgoing {
    pub(super) fn put(&mut self, home: &Owner, claim: Claimed) {
        self.0.entry(home.clone()).or_default().push(claim);
    }
}

/// Stands for what is said of a player in a room.
fn sum_of(room: &RoomName, player: &PlayerId, says: &Says) -> u64 {
    let mut bytes = Vec::with_capacity(192);
    bytes.extend_from_slice(room.as_str().as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(player.as_str().as_bytes());
    bytes.push(u8::from(says.member.online));
    bytes.extend_from_slice(&says.epoch.number().to_be_bytes());
    bytes.extend_from_slice(&says.sessions.to_be_bytes());
    bytes.extend_from_slice(says.member.meta.as_deref().unwrap_or_default());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

impl Nodes {
    /// What this node says of a player in a room has changed.
    pub(super) fn claim_moved(
        &self,
        name: &RoomName,
        player: &PlayerId,
        old: Option<&Says>,
        new: Option<&Says>,
    ) {
        if old == new {
            return;
        }
        let mut claimed = self.claimed.lock();
        let Some(digest) = claimed.get_mut(usize::from(self.shard_of(name).number())) else { return };
        if let Some(old) = old {
            digest.remove_sum(sum_of(name, player, old));
        }
        if let Some(new) = new {
            digest.add_sum(sum_of(name, player, new));
        }
    }

    pub(super) fn send_claims(&self, Outgoing(claims): Outgoing) {
        for (home, claims) in claims {
            for claims in claims.chunks(LETTER_CLAIMS) {
                self.send(&home, &Letter::Claims { claims: claims.to_vec() });
            }
        }
    }

    /// Works on what a node has told of a shard.
    fn with_telling<T>(&self, node: &Owner, shard: u16, work: impl FnOnce(&mut Telling) -> T) -> Option<T> {
        let mut tellings = self.tellings.lock();
        if !tellings.contains_key(node) {
            let none = vec![Telling::default(); usize::from(self.homes.shards())];
            tellings.insert(node.clone(), none);
        }
        tellings.get_mut(node)?.get_mut(usize::from(shard)).map(work)
    }

    /// A claim does not stand any more: it is not among what its node has told, if it was in its last telling.
    pub(super) fn untell(&self, shard: u16, claim: &Claim) {
        let mut tellings = self.tellings.lock();
        let telling = tellings.get_mut(&claim.node).and_then(|told| told.get_mut(usize::from(shard)));
        if let Some(telling) = telling.filter(|telling| telling.number == claim.telling) {
            telling.digest.remove_sum(claim.sum);
        }
    }

    /// Some of the shards that are to be told anew; the others wait.
    fn next_untold(&self) -> BTreeMap<ShardId, Owner> {
        let (mut next, mut claims) = (BTreeMap::new(), 0_u32);
        for (shard, ()) in self.untold.take() {
            // Without a home there is nobody to be told: the next one is told everything.
            let Seated::At(home, _) = self.seated(shard) else { continue };
            if claims >= UNTOLD_AT_ONCE || self.post.is_busy(&home) {
                self.untold.put(shard, ());
                continue;
            }
            let claimed = self.claimed.lock();
            claims = claims
                .saturating_add(claimed.get(usize::from(shard.number())).map_or(0, |digest| digest.count));
            next.insert(shard, home);
        }
        next
    }
}

impl Rooms {
    /// Keeps the others told until the tasks stop.
    pub(in crate::presence) async fn run_nodes(self: Arc<Self>, stop: Tasks) {
        let every = |period| {
            let mut every = tokio::time::interval(period);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            every
        };
        let (mut looks, mut sweeps, mut compares) =
            (every(LOOK_EVERY), every(SWEEP_EVERY), every(COMPARE_EVERY));
        loop {
            tasks::beat();
            tokio::select! {
                biased;
                () = stop.stopping() => return,
                _ = looks.tick() => self.look(),
                _ = sweeps.tick() => self.sweep().await,
                _ = compares.tick() => {
                    self.catch_up();
                    self.tell_digests();
                }
            }
        }
    }

    pub(in crate::presence) fn look(&self) {
        self.tell_anew();
        self.end_rebuilds();
        self.release_kept();
    }

    /// All cells of rooms of some shards. Walks the whole map.
    pub(super) fn cells_of(&self, is_meant: impl Fn(ShardId) -> bool) -> Vec<(RoomName, ShardId, Cell)> {
        let Some(nodes) = &self.nodes else { return Vec::new() };
        let cells = self.rooms.iter();
        let of = |name: &RoomName, cell: &Cell| {
            let shard = nodes.shard_of(name);
            is_meant(shard).then(|| (name.clone(), shard, Arc::clone(cell)))
        };
        cells.filter_map(|entry| of(entry.key(), entry.value())).collect()
    }

    /// Shards have come to this node: its own players are claimed, and what waits to be said is said. Whoever calls
    /// holds the intake.
    pub(super) fn take_seats(&self, shards: &BTreeSet<ShardId>) {
        if shards.is_empty() {
            return;
        }
        for (name, _, cell) in self.cells_of(|shard| shards.contains(&shard)) {
            let Seated::Here(tenure) = self.seated(&name) else { continue };
            let epoch = (self.ground.epoch_of)(&name);
            let mut room = cell.lock();
            if room.gone || (room.seat.is_none() && room.listeners.is_empty()) {
                continue;
            }
            let own: Vec<_> =
                room.listeners.says().map(|(player, says)| (player.clone(), says.clone())).collect();
            let unsaid = room.listeners.take_unsaid();
            self.with_seat(&mut room, &name, |seat| {
                seat.lift(epoch);
                for (player, says) in own {
                    let _ = seat.claim(&player, says, (&self.me, tenure, 0), epoch);
                }
                // As many as were allowed.
                for message in unsaid {
                    seat.speak(message, usize::MAX);
                }
            });
            drop(room);
            self.owing.put(name.clone(), ());
            self.speaking.put(name, ());
        }
    }

    /// Tells homes that have moved, or came back, all that is said of their rooms here.
    fn tell_anew(&self) {
        let Some(nodes) = &self.nodes else { return };
        // Nothing that is told one by one comes between.
        let _intake = self.intake.lock();
        let shards = nodes.next_untold();
        if shards.is_empty() {
            return;
        }
        let mut homes: BTreeMap<&str, (&Owner, Vec<u16>)> = BTreeMap::new();
        for (shard, home) in &shards {
            homes.entry(home.as_str()).or_insert_with(|| (home, Vec::new())).1.push(shard.number());
        }
        for (home, shards) in homes.values() {
            nodes.send(home, &Letter::Anew { shards: shards.clone() });
        }
        let mut owed: HashMap<&str, Vec<Named>> = HashMap::new();
        for (name, shard, cell) in self.cells_of(|shard| shards.contains_key(&shard)) {
            let (Some(home), Seated::At(_, tenure)) = (shards.get(&shard), nodes.seated(shard)) else {
                continue;
            };
            let mut room = cell.lock();
            // What was held when this node was its home.
            let untold: Vec<_> = room.seat.iter_mut().flat_map(Seat::own_messages).collect();
            self.leave_seat(&mut room);
            room.listeners.say_again(untold.into_iter());
            let claims: Vec<_> =
                room.listeners.says().map(|(player, says)| Claimed::is_in(&name, player, says)).collect();
            room.listeners.begin_anew();
            if room.listeners.asks(tenure) {
                owed.entry(home.as_str()).or_default().push(Named(name.clone()));
            }
            drop(room);
            for claims in claims.chunks(LETTER_CLAIMS) {
                nodes.send(home, &Letter::Claims { claims: claims.to_vec() });
            }
            self.drop_if_empty(&name);
            // What waits to be said.
            self.owing.put(name, ());
        }
        let mut places = nodes.places.lock();
        shards.keys().for_each(|shard| places.told(*shard));
        drop(places);
        for (name, (home, shards)) in homes {
            nodes.send(home, &Letter::Whole { shards });
            for rooms in owed.remove(name).unwrap_or_default().chunks(LETTER_CLAIMS) {
                nodes.send(home, &Letter::Owed { rooms: rooms.to_vec() });
            }
        }
    }

    pub(super) fn hear_anew(&self, from: &Owner, shards: &[u16]) {
        let Some(nodes) = &self.nodes else { return };
        for shard in shards {
            let number = nodes.number();
            nodes.with_telling(from, *shard, |telling| {
                (telling.number, telling.digest) = (number, Digest::default());
            });
        }
    }

    pub(super) fn hear_claims(&self, from: &Owner, claims: Vec<Claimed>) {
        let Some(nodes) = &self.nodes else { return };
        for (name, player, epoch, says) in claims.into_iter().filter_map(Claimed::read) {
            let shard = nodes.shard_of(&name);
            if !nodes.is_here(shard) {
                continue;
            }
            let (room_epoch, shard) = ((self.ground.epoch_of)(&name), shard.number());
            match says {
                Some(says) => {
                    let sum = sum_of(&name, &player, &says);
                    let Some(number) = nodes.with_telling(from, shard, |telling| telling.number) else {
                        continue;
                    };
                    let claim = self.with_room_made(&name, |room| {
                        self.with_seat(room, &name, |seat| {
                            seat.claim(&player, says, (from, number, sum), room_epoch)
                        })
                    });
                    if let Ok(old) = claim {
                        nodes.with_telling(from, shard, |telling| telling.digest.add_sum(sum));
                        old.iter().for_each(|old| nodes.untell(shard, old));
                    }
                }
                None => {
                    let left = self.with_room(&name, |room| {
                        room.seat.as_ref()?;
                        self.with_seat(room, &name, |seat| seat.leave(&player, epoch, room_epoch))
                    });
                    left.flatten().iter().for_each(|old| nodes.untell(shard, old));
                    self.drop_if_empty(&name);
                }
            }
            self.owing.put(name, ());
        }
    }

    pub(super) fn hear_whole(&self, from: &Owner, shards: &[u16]) {
        let Some(nodes) = &self.nodes else { return };
        for shard in shards {
            nodes.with_telling(from, *shard, |telling| telling.whole = telling.number);
        }
        nodes.sweep_soon(nodes.post.now_ms());
    }

    /// Tells each home what this node means to have told it.
    pub(in crate::presence) fn tell_digests(&self) {
        let Some(nodes) = &self.nodes else { return };
        // Between two claims.
        let _intake = self.intake.lock();
        let mut by_home: HashMap<Owner, Vec<(u16, Digest)>, ahash::RandomState> = HashMap::default();
        let (places, claimed) = (nodes.places.lock(), nodes.claimed.lock());
        for ((shard, place), digest) in (0..).zip(places.all()).zip(claimed.iter()) {
            if let Some(home) = place.home.as_ref().filter(|home| *home != nodes.post.me()) {
                by_home.entry(home.clone()).or_default().push((shard, *digest));
            }
        }
        drop((places, claimed));
        for (home, shards) in by_home {
            nodes.send(&home, &Letter::Digests { shards });
        }
    }

    pub(super) fn hear_digests(&self, from: &Owner, shards: &[(u16, Digest)]) {
        let Some(nodes) = &self.nodes else { return };
        let differs = |(shard, told): &&(u16, Digest)| {
            let is_here = ShardId::numbered(*shard).is_some_and(|shard| nodes.is_here(shard));
            is_here
                && nodes
                    .with_telling(from, *shard, |telling| telling.whole == 0 || telling.digest != *told)
                    .unwrap_or(false)
        };
        let shards: Vec<u16> = shards.iter().filter(differs).map(|(shard, _)| *shard).collect();
        if !shards.is_empty() {
            tracing::info!(operation = "rooms", %from, shards = shards.len(), "it claims others than was heard: once more");
            nodes.send(from, &Letter::Differs { shards });
        }
    }

    pub(super) fn hear_differs(&self, shards: &[u16]) {
        let Some(nodes) = &self.nodes else { return };
        shards
            .iter()
            .filter_map(|shard| ShardId::numbered(*shard))
            .for_each(|shard| nodes.untold.put(shard, ()));
    }

    pub(super) fn hear_owed(&self, from: &Owner, rooms: Vec<Named>) {
        for Named(name) in rooms {
            let owes = self.with_room(&name, |room| room.seat.as_mut().map(|seat| seat.owe(from)));
            if owes.flatten().is_some() {
                self.owing.put(name, ());
            }
        }
    }

    /// Rooms of which all was heard by now: whoever waits for them is told.
    fn end_rebuilds(&self) {
        let Some(nodes) = &self.nodes else { return };
        let peers = nodes.post.peers();
        let now_ms = nodes.post.now_ms();
        let told =
            |node: &Owner, shard| nodes.with_telling(node, shard, |telling| telling.whole).unwrap_or(0);
        let made: BTreeSet<ShardId> = {
            let made = nodes.places.lock().rebuilt(&peers, now_ms, told);
            made.into_iter().filter_map(ShardId::numbered).collect()
        };
        if made.is_empty() {
            return;
        }
        nodes.sweep_soon(now_ms);
        for (name, _, _) in self.cells_of(|shard| made.contains(&shard)) {
            self.owing.put(name, ());
        }
    }
}
