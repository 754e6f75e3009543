//! Pushes that wait for a link's write: bounded by number and weight, joined where they can be. Owned by a mailbox.
//! They have no number yet; who takes them gives one to each frame.

use std::collections::VecDeque;
use std::sync::Arc;

use super::push::RoomWord;
use super::{Push, PushKind};
use crate::ids::RoomName;

/// Most presence items joined in one frame.
const JOIN_ITEMS_MAX: usize = 64;
/// Most bytes of presence items joined in one frame.
const JOIN_BYTES_MAX: usize = 12 * 1024;
/// Most changes of one room that wait; beyond it only its number of members does.
const ROOM_CHANGES_MAX: usize = 16;
/// Most bytes of one room that wait, beside a single push that is larger: changes that would pass it are told by number.
const ROOM_BYTES_MAX: usize = 32 * 1024;
/// Most bytes of pushes that wait: small pushes are bounded by their number, large ones by this.
const BYTES_MAX: usize = 256 * 1024;

/// Pushes that were not sent, and what they weigh.
#[derive(Default)]
pub(super) struct Pending {
    queue: VecDeque<Arc<Push>>,
    bytes: usize,
}

impl Pending {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Puts a newer item in the place of an older one of its player; whether one was there (an even newer one stays).
    pub(super) fn replace(&mut self, push: &Arc<Push>) -> bool {
        let Some((player, place)) = push.presence() else { return false };
        let of_player = |older: &&mut Arc<Push>| older.presence().is_some_and(|(other, _)| other == player);
        let Some(older) = self.queue.iter_mut().find(of_player) else { return false };
        if older.presence().is_some_and(|(_, present)| present >= place) {
            return true;
        }
        self.bytes = self.bytes.saturating_sub(older.bytes()) + push.bytes();
        *older = Arc::clone(push);
        true
    }

    /// What of a push goes in line. The whole of a room takes the place of all that waits of it, and the number that
    /// stands for too many changes takes theirs: a reader who is slow, or away, gets fewer pushes and not a longer
    /// line. Never the whole's: who does not know the room has no use for a number.
    pub(super) fn admit(&mut self, push: &Arc<Push>) -> Arc<Push> {
        let PushKind::Room { room, says } = push.kind() else { return Arc::clone(push) };
        let (admitted, is_whole) = match says {
            RoomWord::Whole => (push, true),
            RoomWord::Number => (push, false),
            RoomWord::Changes(_) if self.may_wait(room, push.bytes()) => return Arc::clone(push),
            RoomWord::Changes(number) => (number, false),
        };
        let stays = |word: &RoomWord| !is_whole && matches!(word, RoomWord::Whole);
        self.queue.retain(|other| other.word_of(room).is_none_or(stays));
        self.bytes = self.queue.iter().map(|other| other.bytes()).sum();
        Arc::clone(admitted)
    }

    /// Whether one more change of a room may wait, by number and by weight.
    fn may_wait(&self, room: &RoomName, bytes: usize) -> bool {
        let waiting = self.queue.iter().filter(|other| other.word_of(room).is_some());
        let (count, weight) =
            waiting.fold((0, bytes), |(count, weight), other| (count + 1, weight + other.bytes()));
        count == 0 || (count < ROOM_CHANGES_MAX && weight <= ROOM_BYTES_MAX)
    }

    /// Forgets the oldest until one more fits; how many had to go.
    pub(super) fn make_room(&mut self, most: usize) -> usize {
        let mut forgotten = 0;
        while (self.queue.len() >= most || self.bytes >= BYTES_MAX) && self.pop_front().is_some() {
            forgotten += 1;
        }
        forgotten
    }

    pub(super) fn push_back(&mut self, push: Arc<Push>) {
        self.bytes += push.bytes();
        self.queue.push_back(push);
    }

    pub(super) fn push_front(&mut self, push: Arc<Push>) {
        self.bytes += push.bytes();
        self.queue.push_front(push);
    }

    fn pop_front(&mut self) -> Option<Arc<Push>> {
        let push = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(push.bytes());
        Some(push)
    }

    /// What the next frame carries: as many presence items in a row as fit, or one message. Most often that is all there
    /// is, and then the list itself.
    pub(super) fn next_joined(&mut self) -> Option<Vec<Arc<Push>>> {
        let first = self.queue.front()?;
        let (mut count, mut bytes) = (1, first.bytes());
        if first.presence().is_some() {
            let fitting = self.queue.iter().skip(1).take(JOIN_ITEMS_MAX - 1).take_while(|next| {
                bytes += next.bytes();
                next.presence().is_some() && bytes <= JOIN_BYTES_MAX
            });
            count += fitting.count();
        }
        let joined: Vec<_> = if count == self.queue.len() {
            let mut all: Vec<_> = std::mem::take(&mut self.queue).into();
            // What a backlog has swollen must not stay so large until it is seen.
            if all.capacity() > 2 * all.len().max(8) {
                all.shrink_to_fit();
            }
            all
        } else {
            self.queue.drain(..count).collect()
        };
        self.bytes = self.bytes.saturating_sub(joined.iter().map(|push| push.bytes()).sum());
        Some(joined)
    }

    /// Takes all of them.
    pub(super) fn take_all(&mut self) -> Vec<Arc<Push>> {
        std::mem::take(self).queue.into()
    }

    /// Whether a message that the store keeps is among them.
    pub(super) fn holds(&self, id: u128) -> bool {
        self.queue.iter().any(|push| push.kept_id() == Some(id))
    }

    /// Whether more than half of the room is taken.
    pub(super) fn is_crowded(&self, most: usize) -> bool {
        self.queue.len() >= most / 2 || self.bytes >= BYTES_MAX / 2
    }

    /// How many frames they will make.
    pub(super) fn frames(&self) -> usize {
        let (mut frames, mut items, mut bytes, mut in_presence) = (0, 0, 0, false);
        for push in &self.queue {
            let presence = push.presence().is_some();
            let fits = items < JOIN_ITEMS_MAX && bytes + push.bytes() <= JOIN_BYTES_MAX;
            if presence && in_presence && fits {
                (items, bytes) = (items + 1, bytes + push.bytes());
            } else {
                (frames, items, bytes, in_presence) = (frames + 1, 1, push.bytes(), presence);
            }
        }
        frames
    }

    /// Between bursts the list gives its memory back.
    pub(super) fn rest(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > 4 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn push(room: &str, body: &'static str, says: RoomWord) -> Arc<Push> {
        let room = RoomName::parse(room).unwrap();
        Arc::new(Push::new(PushKind::Room { room, says }, body.as_bytes().into()))
    }

    fn puts(pending: &mut Pending, push: &Arc<Push>) {
        let admitted = pending.admit(push);
        pending.push_back(admitted);
    }

    fn waiting(pending: &Pending) -> Vec<String> {
        pending.queue.iter().map(|push| String::from_utf8(push.msgpack().to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_room_never_waits_in_more_pushes_than_its_bound() {
        let mut pending = Pending::default();
        let number = push("a", "so many", RoomWord::Number);
        let change = |body| push("a", body, RoomWord::Changes(Arc::clone(&number)));
        for _ in 0..ROOM_CHANGES_MAX {
            puts(&mut pending, &change("a change"));
        }
        puts(&mut pending, &push("b", "another room", RoomWord::Changes(Arc::clone(&number))));
        assert_eq!(waiting(&pending).len(), ROOM_CHANGES_MAX + 1);
        puts(&mut pending, &change("one too many"));
        assert_eq!(waiting(&pending), ["another room", "so many"]);
        assert_eq!(pending.bytes, "another roomso many".len());
        // What comes behind is told again, and the whole takes the place of it all.
        puts(&mut pending, &change("a change"));
        puts(&mut pending, &push("a", "the whole", RoomWord::Whole));
        assert_eq!(waiting(&pending), ["another room", "the whole"]);
    }

    #[test]
    fn a_number_never_takes_the_place_of_the_whole() {
        let mut pending = Pending::default();
        let number = push("a", "so many", RoomWord::Number);
        puts(&mut pending, &push("a", "the whole", RoomWord::Whole));
        puts(&mut pending, &push("a", "a change", RoomWord::Changes(Arc::clone(&number))));
        puts(&mut pending, &number);
        assert_eq!(waiting(&pending), ["the whole", "so many"]);
        puts(&mut pending, &number);
        assert_eq!(waiting(&pending), ["the whole", "so many"]);
    }

    #[test]
    fn large_changes_of_a_room_are_told_by_number_before_they_fill_the_line() {
        let large: &'static str = "x".repeat(BYTES_MAX / 2 - 1).leak();
        let mut pending = Pending::default();
        let number = push("a", "so many", RoomWord::Number);
        let change = push("a", large, RoomWord::Changes(Arc::clone(&number)));
        for _ in 0..9 {
            assert_eq!(pending.make_room(100), 0);
            puts(&mut pending, &change);
            assert!(pending.bytes < BYTES_MAX);
        }
        // The first is told; from then on it is a number, until the line is empty again.
        assert_eq!(waiting(&pending), ["so many"]);
    }
}
