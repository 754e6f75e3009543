//! What is said in rooms, and what is told of them, between nodes. A message goes to the home at once, which says it to
//! everybody in one order; a node keeps what it has sent there until it is told, says it once more where the home has
//! moved, and sends no more meanwhile than may wait. The home tells each node that has members.

use std::sync::Arc;

use bytes::Bytes;

use super::letters::{Letter, Named, Told};
use super::nodes::Seated;
use super::{NotSaid, Rooms};
use crate::hub::{Push, PushKind, RoomWord};
use crate::ids::{Owner, RoomName};
use crate::presence::listeners::{Tenure, Words};
use crate::presence::room::Room;
use crate::presence::seat::Hearer;
use crate::presence::words::{self, MESSAGE_BYTES_MAX};

/// Bytes of messages in one letter, about: a link hears that letters were seen by their number, and must hear it in time.
const LETTER_BYTES: usize = 16 * 1024;
/// Most bytes of changes that other nodes are told; beyond it they are told how many members there are.
const CHANGES_BYTES_MAX: usize = 1024 * 1024;

impl Rooms {
    /// Says something to all sessions in a room whose home is here, at once and in the same order to everybody; to how
    /// many.
    ///
    /// # Errors
    /// [`NotSaid`]: nothing was said.
    pub fn speak(&self, name: &RoomName, message: Arc<Push>) -> Result<usize, NotSaid> {
        self.catch_up();
        if !self.is_here(name) {
            return Err(NotSaid::NoHome);
        }
        self.say(name, message)?;
        let sessions = self.with_room(name, |room| room.seat.as_ref().map(super::Seat::sessions));
        Ok(sessions.flatten().unwrap_or_default())
    }

    /// The same wherever the home is, for who has caught up and may hold a record's lock: takes the room's lock for a
    /// moment, and counts nobody.
    ///
    /// # Errors
    /// [`NotSaid`]: nothing was said.
    pub fn say(&self, name: &RoomName, message: Arc<Push>) -> Result<(), NotSaid> {
        let most = self.settings.messages_waiting_max;
        let said = match self.seated(name) {
            Seated::Nowhere(_) => return Err(NotSaid::NoHome),
            Seated::Here(_) => {
                let said = self.with_room(name, |room| match &mut room.seat {
                    Some(seat) => seat.speak(message, most),
                    // Its home has just come here: whoever takes the seat takes this along.
                    None => room.listeners.say(message, most),
                });
                if said == Some(true) {
                    self.speaking.put(name.clone(), ());
                }
                said
            }
            Seated::At(home, tenure) => self.with_room(name, |room| {
                let has_place = room.listeners.say(message, most);
                if has_place {
                    self.send_unsaid(name, room, &home, tenure);
                }
                has_place
            }),
        };
        if said == Some(false) { Err(NotSaid::TooMuchTalk) } else { Ok(()) }
    }

    /// Sends a home elsewhere what was said, if it was told by now who is in: what was said before goes first. Under the
    /// room's lock: what is sent stands in the order in which it is kept.
    fn send_unsaid(&self, name: &RoomName, room: &mut Room, home: &Owner, tenure: Tenure) {
        let Some(nodes) = &self.nodes else { return };
        if !nodes.places.lock().is_told(nodes.shard_of(name)) {
            self.owing.put(name.clone(), ());
            return;
        }
        for message in room.listeners.unsent(tenure) {
            let body = message.msgpack().clone();
            nodes.send(home, &Letter::Say { room: Named(name.clone()), body });
        }
    }

    /// The same, for what could not be sent when it was said.
    pub(in crate::presence) fn send_rest(&self, name: &RoomName, home: &Owner, tenure: Tenure) {
        self.with_room(name, |room| {
            if room.listeners.is_unsent(tenure) {
                self.send_unsaid(name, room, home, tenure);
            }
        });
    }

    /// A session of another node says something in a room whose home is here.
    pub(super) fn hear_say(&self, from: &Owner, name: &RoomName, body: Bytes) {
        // Whose home is not here any more: it is said once more where it is.
        if body.len() > MESSAGE_BYTES_MAX || !self.is_here(name) {
            return;
        }
        let message = Arc::new(Push::new(PushKind::Message, body));
        let said = self.with_room(name, |room| room.seat.as_mut().map(|seat| seat.speak_for(from, message)));
        match said.flatten() {
            Some(true) => self.speaking.put(name.clone(), ()),
            Some(false) => {
                tracing::warn!(operation = "rooms", %from, "it says more in a room than may wait: some is lost");
                self.send_said(from, name, 1);
            }
            // Nobody hears it.
            None => self.send_said(from, name, 1),
        }
    }

    /// Tells a node how many of its messages are told.
    pub(in crate::presence) fn send_said(&self, to: &Owner, name: &RoomName, count: u32) {
        if let Some(nodes) = &self.nodes {
            nodes.send(to, &Letter::Said { room: Named(name.clone()), count });
        }
    }

    /// So many messages of this node are told. What a home says that is none any more counts for nothing: the next one was
    /// sent them all, and says so itself.
    pub(super) fn hear_said(&self, from: &Owner, name: &RoomName, count: u32) {
        let Seated::At(home, tenure) = self.seated(name) else { return };
        if home != *from {
            return;
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.with_room(name, |room| room.listeners.said(tenure, count));
        self.drop_if_empty(name);
    }

    /// Whether a room is made anew here, and nothing is to be told of its roster meanwhile.
    pub(in crate::presence) fn is_held(&self, name: &RoomName) -> bool {
        self.nodes.as_ref().is_some_and(|nodes| nodes.is_rebuilding(nodes.shard_of(name)))
    }

    /// Whether snapshots for a node have to wait.
    pub(in crate::presence) fn is_busy(&self, node: &Owner) -> bool {
        self.nodes.as_ref().is_some_and(|nodes| nodes.post.is_busy(node))
    }

    pub(in crate::presence) const fn me(&self) -> &Owner {
        &self.me
    }

    /// Tells other nodes what is told here: each part is encoded once.
    pub(in crate::presence) fn tell_nodes(
        &self,
        name: &RoomName,
        hearers: &[Hearer],
        Words { since, ver, changes: diff, whole, messages, .. }: &Words,
    ) {
        let Some(nodes) = self.nodes.as_ref().filter(|_| !hearers.is_empty()) else { return };
        let of = |push: Option<&Arc<Push>>| push.map(|push| push.msgpack().clone());
        let (changes, number) = match diff.as_ref().map(|diff| (diff, diff.kind())) {
            Some((diff, PushKind::Room { says: RoomWord::Changes(number), .. })) => {
                (Some(diff).filter(|diff| diff.bytes() <= CHANGES_BYTES_MAX), Some(number))
            }
            // Too much has changed: it is told by number.
            Some((number, _)) => (None, Some(number)),
            None => (None, None),
        };
        let (changes, number) = (of(changes), of(number));
        let told = || Told::new(Named(name.clone()), (*since, *ver));
        let head = Told { changes, number, ..told() };
        let with_whole = Told { whole: of(whole.as_ref()), ..head.clone() };
        let mut batches = batches(messages).into_iter();
        let first = batches.next().unwrap_or_default();
        let encode = |told: Told, messages| words::write(&Letter::Told(Told { messages, ..told }));
        let (known, whole) = (encode(head, first.clone()), encode(with_whole, first));
        let rest: Vec<_> = batches.map(|messages| encode(told(), messages)).collect();
        for hearer in hearers {
            nodes.post.post(&hearer.node, if hearer.owed { whole.clone() } else { known.clone() });
            rest.iter().for_each(|letter| nodes.post.post(&hearer.node, letter.clone()));
        }
    }

    /// A home elsewhere tells of a room.
    pub(super) fn hear_told(&self, from: &Owner, told: Told) {
        let Some((since, ver)) = told.stood() else { return };
        let Told { room: Named(name), changes, number, whole, messages, .. } = told;
        let tenure = match self.seated(&name) {
            Seated::At(home, tenure) if home == *from => tenure,
            // What its home was a moment ago has said is said; of the roster another tells by now.
            _ => 0,
        };
        let room = |says, body| Arc::new(Push::new(PushKind::Room { room: name.clone(), says }, body));
        let number = number.map(|number| room(RoomWord::Number, number));
        let changes = match (changes, number) {
            (Some(changes), Some(number)) => Some(room(RoomWord::Changes(number), changes)),
            (_, number) => number,
        };
        let fits = |body: &Bytes| body.len() <= MESSAGE_BYTES_MAX;
        let messages = messages.into_iter().filter(fits);
        let words = Words {
            tenure,
            since,
            ver,
            changes,
            whole: whole.map(|whole| room(RoomWord::Whole, whole)),
            messages: messages.map(|body| Arc::new(Push::new(PushKind::Message, body))).collect(),
        };
        let heard = self.with_room(&name, |room| room.listeners.hear(words));
        match heard {
            Some(true) => self.speaking.put(name, ()),
            Some(false) => {
                tracing::warn!(operation = "rooms", %from, "more is told of a room than can be pushed");
                self.owing.put(name, ());
            }
            // Whoever was in has left.
            None => {}
        }
    }

    /// Tells a home elsewhere that somebody here does not know the roster.
    pub(in crate::presence) fn ask_for_whole(&self, name: &RoomName, home: &Owner, tenure: Tenure) {
        let Some(nodes) = &self.nodes else { return };
        if self.with_room(name, |room| room.listeners.asks(tenure)) == Some(true) {
            nodes.send(home, &Letter::Owed { rooms: vec![Named(name.clone())] });
        }
    }
}

/// Bodies in the order in which they were said, by letter.
fn batches(messages: &[Arc<Push>]) -> Vec<Vec<Bytes>> {
    let (mut all, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for message in messages {
        if bytes + message.bytes() > LETTER_BYTES && !batch.is_empty() {
            all.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += message.bytes();
        batch.push(message.msgpack().clone());
    }
    all.push(batch);
    all
}
