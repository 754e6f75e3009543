//! All rooms of this node: what records say is taken in here and nowhere else, so a roster is what its members'
//! records say, whatever the order in which things happened. Called by `session` and `service`; `telling` pushes what
//! has changed. Soft state: after a crash it is made anew of the records. A room's counter goes on under the epoch of
//! its own shard, which `app` tells, because this floor does not know `home`.

mod asks;
mod claims;
mod letters;
mod nodes;
mod orphans;
mod places;
mod talk;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::heat::Heat;
use super::listeners::{Says, Tenure};
use super::meters::Meters;
use super::room::Room;
use super::roster::{Member, Page};
use super::seat::{Claim, Seat};
use crate::events::{Coalescing, Events, InRoom, RoomsOf};
use crate::hub::{Hub, Mailbox};
use crate::ids::{Epoch, Owner, PlayerId, RoomName, SessionId, Stamp, Version};

pub use asks::NoHome;
use claims::Outgoing;
use letters::{Claimed, Letter, Named};
pub(super) use nodes::{Nodes, Seated};

/// The tenure of a home that never moves.
const FOR_EVER: Tenure = 1;

/// What rooms need to know.
#[derive(Debug, Clone)]
pub struct RoomSettings {
    /// How often changes are gathered and pushed.
    pub tick: Duration,
    /// Members of a room.
    pub members_max: usize,
    /// Rooms of this node.
    pub rooms_max: usize,
    /// Members in one answer or snapshot.
    pub page_members_max: usize,
    /// Members in one diff; beyond it only the count is told.
    pub diff_members_max: usize,
    /// Keys of a member's meta.
    pub meta_keys_max: usize,
    /// Bytes of a member's meta.
    pub meta_bytes_max: usize,
    /// Messages of one room that wait to be told.
    pub messages_waiting_max: usize,
}

/// What those below know of a room's home.
pub struct Ground {
    /// The epoch under which a room is held, or was held last: never an older one than before.
    pub epoch_of: Box<dyn Fn(&RoomName) -> Epoch + Send + Sync>,
    /// Whether the records of all members are in memory.
    pub is_whole: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Why somebody may not enter, or nothing may be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// The room has all the members that it may have.
    RoomFull,
    /// There are all the rooms that there may be.
    TooManyRooms,
    /// The room's home cannot be asked now.
    NoHome,
}

/// Why nothing was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSaid {
    /// More messages wait in the room than may.
    TooMuchTalk,
    /// The room's home is not known now.
    NoHome,
}

/// A place in a room, kept until it is dropped: by then she has entered, or has not.
pub struct Place {
    rooms: Arc<Rooms>,
    room: RoomName,
    number: u64,
    /// The home, where that is another node.
    kept_by: Option<Owner>,
}

/// All rooms of this node.
pub struct Rooms {
    pub(super) settings: RoomSettings,
    me: Owner,
    /// The other nodes, where there can be any.
    nodes: Option<Nodes>,
    ground: Ground,
    rooms: DashMap<RoomName, Arc<Mutex<Room>>, ahash::RandomState>,
    count: AtomicUsize,
    /// Where counters of rooms that are gone have stood: new rooms begin above it.
    floor: AtomicU64,
    /// How many places were kept so far.
    places: AtomicU64,
    /// Which rooms each player is in, as far as has been taken in. Its lock puts takers-in in order, and what other
    /// nodes are told of it.
    intake: Mutex<HashMap<PlayerId, Box<[RoomName]>, ahash::RandomState>>,
    /// Rooms with something to tell at the next tick.
    pub(super) owing: Coalescing<RoomName, ()>,
    /// Rooms with something to tell at once.
    pub(super) speaking: Coalescing<RoomName, ()>,
    pub(super) hub: Arc<Hub>,
    pub(super) events: Arc<Events>,
    pub(super) meters: Meters,
    pub(super) heat: Heat,
}

impl Rooms {
    pub(super) fn new(
        settings: RoomSettings,
        ground: Ground,
        nodes: Option<Nodes>,
        hub: Arc<Hub>,
        events: Arc<Events>,
    ) -> Self {
        Self {
            settings,
            me: nodes.as_ref().map_or_else(|| Owner::named(""), |nodes| nodes.post.me().clone()),
            nodes,
            ground,
            rooms: DashMap::default(),
            count: AtomicUsize::new(0),
            floor: AtomicU64::new(0),
            places: AtomicU64::new(0),
            intake: Mutex::default(),
            owing: Coalescing::default(),
            speaking: Coalescing::default(),
            hub,
            events,
            meters: Meters::new(),
            heat: Heat::default(),
        }
    }

    /// The rooms that made most of the frames put into outboxes here since this was last asked, with how many each made
    /// at least.
    pub fn hottest(&self) -> Vec<(RoomName, u64)> {
        self.heat.take()
    }

    /// How many members a room has whose home is here; `None` of any other.
    #[must_use]
    pub fn members_of(&self, name: &RoomName) -> Option<usize> {
        self.with_room(name, |room| room.seat.as_ref().map(Seat::count)).flatten()
    }

    /// How many rooms have members.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Takes in what records have said since the last time. Whoever looks at a room calls it first: her own change is
    /// among what it finds.
    pub fn catch_up(&self) {
        let mut intake = self.intake.lock();
        let mut outgoing = Outgoing::default();
        for (player, rooms_of) in self.events.rooms.take() {
            let before = intake.remove(&player).unwrap_or_default();
            let (epoch, rooms) = match rooms_of {
                RoomsOf::Here { epoch, rooms } => (Some(epoch), rooms),
                RoomsOf::Elsewhere => (None, Vec::new()),
            };
            for room in &before {
                if !rooms.iter().any(|in_room| in_room.room == *room) {
                    self.take_out(room, &player, epoch, &mut outgoing);
                }
            }
            for in_room in &rooms {
                self.take_in(&player, in_room, epoch.unwrap_or_default(), &mut outgoing);
            }
            if !rooms.is_empty() {
                let names = rooms.into_iter().map(|in_room| in_room.room).collect();
                intake.insert(player, names);
            }
        }
        if let Some(nodes) = &self.nodes {
            nodes.send_claims(outgoing);
        }
    }

    fn take_in(&self, player: &PlayerId, in_room: &InRoom, epoch: Epoch, outgoing: &mut Outgoing) {
        let mailboxes: Vec<_> =
            in_room.sessions.iter().filter_map(|session| self.mailbox(*session)).collect();
        let member = Member { online: in_room.online, meta: in_room.meta.clone() };
        let says = Says { member, epoch, sessions: u32::try_from(mailboxes.len()).unwrap_or(u32::MAX) };
        let (name, seated) = (&in_room.room, self.seated(&in_room.room));
        let old = self.with_room_made(name, |room| {
            if let Seated::Here(tenure) = seated {
                let room_epoch = (self.ground.epoch_of)(name);
                let old = self.with_seat(room, name, |seat| {
                    seat.claim(player, says.clone(), (&self.me, tenure, 0), room_epoch)
                });
                self.untell(name, old.ok().flatten());
            }
            room.listeners.set(player, says.clone(), mailboxes)
        });
        if let Some(nodes) = &self.nodes {
            nodes.claim_moved(name, player, old.as_ref(), Some(&says));
            if let Seated::At(home, _) = &seated
                && old.as_ref() != Some(&says)
            {
                outgoing.put(home, Claimed::is_in(name, player, &says));
            }
        }
        self.owing.put(name.clone(), ());
    }

    /// She is in the room no more, as her record of this epoch says; without one it has gone to another home, which is
    /// to say so.
    fn take_out(&self, name: &RoomName, player: &PlayerId, epoch: Option<Epoch>, outgoing: &mut Outgoing) {
        let seated = self.seated(name);
        let old = self.with_room(name, |room| {
            if matches!(seated, Seated::Here(_)) && room.seat.is_some() {
                let room_epoch = (self.ground.epoch_of)(name);
                let left = self.with_seat(room, name, |seat| match (epoch, &self.nodes) {
                    (None, Some(_)) => {
                        seat.orphan(player, &self.me);
                        None
                    }
                    // Nobody else can have her.
                    (None, None) => seat.leave(player, Epoch::of(u64::MAX), room_epoch),
                    (Some(epoch), _) => seat.leave(player, epoch, room_epoch),
                });
                self.untell(name, left);
            }
            room.listeners.remove(player)
        });
        if let Some(nodes) = &self.nodes {
            nodes.claim_moved(name, player, old.flatten().as_ref(), None);
            match (&seated, epoch) {
                (Seated::At(home, _), Some(epoch)) => {
                    outgoing.put(home, Claimed::is_out(name, player, epoch));
                }
                _ => nodes.sweep_soon(nodes.post.now_ms()),
            }
        }
        self.owing.put(name.clone(), ());
        self.drop_if_empty(name);
    }

    /// A session ends in its record first, and its mailbox closes a moment later: a closed one is told nothing more.
    fn mailbox(&self, session: SessionId) -> Option<Arc<Mailbox>> {
        self.hub.mailbox(session).filter(|mailbox| !mailbox.is_closed())
    }

    /// Keeps a place for a player who is about to enter. What she does to her record comes next, then a look at the
    /// room; the place is given back when it is dropped.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub fn reserve(self: &Arc<Self>, name: &RoomName, player: &PlayerId) -> Result<Place, NoPlace> {
        self.catch_up();
        let number = self.reserve_place(name, player)?;
        Ok(Place { rooms: Arc::clone(self), room: name.clone(), number, kept_by: None })
    }

    /// The number under which the place is kept.
    fn reserve_place(&self, name: &RoomName, player: &PlayerId) -> Result<u64, NoPlace> {
        let (members_max, number) = (self.settings.members_max, self.places.fetch_add(1, Ordering::Relaxed));
        let kept = self.with_room_made(name, |room| {
            if room.seat.is_none() && self.count() >= self.settings.rooms_max {
                return Err(NoPlace::TooManyRooms);
            }
            let has_place = self.with_seat(room, name, |seat| seat.reserve(player, number, members_max));
            if has_place { Ok(number) } else { Err(NoPlace::RoomFull) }
        });
        if kept.is_err() {
            self.drop_if_empty(name);
        }
        kept
    }

    /// A session that has just entered gets to know the roster: its first page. What changes from now on is pushed,
    /// and what was pushed before does no harm: diffs say what is true, not what to do.
    pub fn enter(&self, name: &RoomName, player: &PlayerId, session: SessionId) -> Page {
        self.catch_up();
        let page = self.with_room(name, |room| {
            // What is not whole yet is told once more when it is.
            let knows = match self.seated(name) {
                Seated::Here(tenure) if self.nodes.is_none() || self.is_whole(name) => tenure,
                _ => 0,
            };
            let page = room.seat.as_mut().map(|seat| seat.page(None, self.settings.page_members_max));
            let page = page.unwrap_or_else(|| self.nobody(name));
            room.listeners.knows(player, session, knows, page.ver);
            page
        });
        page.unwrap_or_else(|| self.nobody(name))
    }

    /// One page of a room's members.
    pub fn page(&self, name: &RoomName, after: Option<&str>, limit: Option<usize>) -> Page {
        self.catch_up();
        let most = self.settings.page_members_max;
        let limit = limit.map_or(most, |limit| limit.min(most));
        let page = self.with_room(name, |room| room.seat.as_mut().map(|seat| seat.page(after, limit)));
        page.flatten().unwrap_or_else(|| self.nobody(name))
    }

    /// A session has lost pushes: it is owed snapshots of the rooms that it is in.
    pub fn owe_snapshots(&self, player: &PlayerId, session: SessionId, rooms: &[RoomName]) {
        self.catch_up();
        for name in rooms {
            self.with_room(name, |room| room.listeners.knows(player, session, 0, Stamp::default()));
            self.owing.put(name.clone(), ());
        }
    }

    /// Works on a room, if there is one. Never touches the map of rooms meanwhile.
    pub(super) fn with_room<T>(&self, name: &RoomName, work: impl FnOnce(&mut Room) -> T) -> Option<T> {
        loop {
            let cell = self.rooms.get(name).map(|cell| Arc::clone(&cell))?;
            let mut room = cell.lock();
            if !room.gone {
                return Some(work(&mut room));
            }
        }
    }

    /// The same with a room that is made if there is none: what records say is never refused.
    fn with_room_made<T>(&self, name: &RoomName, work: impl FnOnce(&mut Room) -> T) -> T {
        loop {
            let cell = Arc::clone(&self.rooms.entry(name.clone()).or_default());
            let mut room = cell.lock();
            if !room.gone {
                return work(&mut room);
            }
        }
    }

    /// Works on the home's side of a room, which is made if there is none, and counts.
    fn with_seat<T>(&self, room: &mut Room, name: &RoomName, work: impl FnOnce(&mut Seat) -> T) -> T {
        let seat = room.seat.get_or_insert_with(|| {
            self.count.fetch_add(1, Ordering::Relaxed);
            self.meters.rooms.increment(1.0);
            Seat::new(self.floor_of(name), self.settings.diff_members_max)
        });
        let before = seat.count();
        let outcome = work(seat);
        self.meters.members_moved(before, seat.count());
        outcome
    }

    /// Where a room without members stands: its counter has never told more.
    fn floor_of(&self, name: &RoomName) -> Stamp {
        let version = Version::of(self.floor.load(Ordering::Relaxed));
        Stamp::new((self.ground.epoch_of)(name), version)
    }

    /// Forgets a room that nobody is in; its counter is not forgotten.
    pub(super) fn drop_if_empty(&self, name: &RoomName) {
        self.rooms.remove_if(name, |_, cell| {
            let mut room = cell.lock();
            if room.seat.as_ref().is_some_and(Seat::is_empty) {
                self.leave_seat(&mut room);
            }
            room.gone = room.seat.is_none() && room.listeners.is_empty();
            room.gone
        });
    }

    /// Forgets the home's side of a room.
    fn leave_seat(&self, room: &mut Room) {
        if let Some(seat) = room.seat.take() {
            self.floor.fetch_max(seat.ver().version.number(), Ordering::Relaxed);
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.meters.rooms.decrement(1.0);
            self.meters.members_moved(seat.count(), 0);
        }
    }

    /// What another node said of a member does not stand any more.
    fn untell(&self, name: &RoomName, claim: Option<Claim>) {
        if let (Some(nodes), Some(claim)) = (&self.nodes, claim) {
            nodes.untell(nodes.shard_of(name).number(), &claim);
        }
    }

    /// A room without members.
    fn nobody(&self, name: &RoomName) -> Page {
        Page { ver: self.floor_of(name), count: 0, members: Vec::new(), cursor: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // She may have entered by now: what her record says comes before the place is given up.
        self.rooms.catch_up();
        match (&self.kept_by, &self.rooms.nodes) {
            (Some(home), Some(nodes)) => {
                nodes.send(home, &Letter::Release { room: Named(self.room.clone()), place: self.number });
            }
            _ => self.rooms.release(&self.room, self.number),
        }
    }
}

#[cfg(test)]
mod tests;
