//! Pushes that wait for a link's write: bounded by number and weight, joined where they can be. Owned by a mailbox.
//! They have no number yet; who takes them gives one to each frame.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Push, PushKind};

/// Most presence items joined in one frame.
const JOIN_ITEMS_MAX: usize = 64;
/// Most bytes of presence items joined in one frame.
const JOIN_BYTES_MAX: usize = 12 * 1024;
/// Most changes of one room that wait; beyond it only its number of members does.
const ROOM_CHANGES_MAX: usize = 16;
/// Most bytes of pushes that wait: small pushes are bounded by their number, large ones by this.
const BYTES_MAX: usize = 256 * 1024;

/// Pushes that were not sent, and what they weigh.
#[derive(Default)]
pub(super) struct Pending {
    queue: VecDeque<Arc<Push>>,
    bytes: usize,
}

impl Pending {
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

    /// What of a push goes in line. The whole of a room, and the number that stands for too many changes of it, take
    /// the place of what waits of that room: a reader who is slow, or away, gets fewer pushes and not a longer line.
    pub(super) fn admit(&mut self, push: &Arc<Push>) -> Arc<Push> {
        let PushKind::Room { room, instead } = push.kind() else { return Arc::clone(push) };
        let admitted = match instead {
            None => Arc::clone(push),
            Some(instead) => {
                let waiting = self.queue.iter().filter(|other| other.is_about(room)).count();
                if waiting < ROOM_CHANGES_MAX {
                    return Arc::clone(push);
                }
                Arc::clone(instead)
            }
        };
        self.queue.retain(|other| !other.is_about(room));
        self.bytes = self.queue.iter().map(|other| other.bytes()).sum();
        admitted
    }

    /// Forgets the oldest until one more fits; whether any had to go.
    pub(super) fn make_room(&mut self, most: usize) -> bool {
        let mut full = false;
        while self.queue.len() >= most || self.bytes >= BYTES_MAX {
            full = true;
            if self.pop_front().is_none() {
                break;
            }
        }
        full
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

    /// What the next frame carries: as many presence items in a row as fit, or one message.
    pub(super) fn next_joined(&mut self) -> Option<Vec<Arc<Push>>> {
        let first = self.pop_front()?;
        let (mut bytes, mut pushes) = (first.bytes(), vec![first]);
        while pushes.len() < JOIN_ITEMS_MAX && joins(&pushes, self.queue.front(), bytes) {
            let Some(next) = self.pop_front() else { break };
            bytes += next.bytes();
            pushes.push(next);
        }
        Some(pushes)
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

fn joins(pushes: &[Arc<Push>], next: Option<&Arc<Push>>, bytes: usize) -> bool {
    let is_presence = |push: &Arc<Push>| push.presence().is_some();
    pushes.first().is_some_and(is_presence)
        && next.is_some_and(|next| is_presence(next) && bytes + next.bytes() <= JOIN_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RoomName;

    fn push(room: &str, body: &'static str, instead: Option<&Arc<Push>>) -> Arc<Push> {
        let room = RoomName::parse(room).unwrap();
        let kind = PushKind::Room { room, instead: instead.cloned() };
        Arc::new(Push::new(kind, body.as_bytes().into()))
    }

    fn waiting(pending: &Pending) -> Vec<String> {
        pending.queue.iter().map(|push| String::from_utf8(push.msgpack().to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_room_never_waits_in_more_pushes_than_its_bound() {
        let mut pending = Pending::default();
        let number = push("a", "so many", None);
        for _ in 0..ROOM_CHANGES_MAX {
            let admitted = pending.admit(&push("a", "a change", Some(&number)));
            pending.push_back(admitted);
        }
        let other = pending.admit(&push("b", "another room", Some(&number)));
        pending.push_back(other);
        assert_eq!(waiting(&pending).len(), ROOM_CHANGES_MAX + 1);
        let admitted = pending.admit(&push("a", "one too many", Some(&number)));
        pending.push_back(admitted);
        assert_eq!(waiting(&pending), ["another room", "so many"]);
        assert_eq!(pending.bytes, "another roomso many".len());
        // What comes behind is told again, and the whole takes the place of it all.
        let admitted = pending.admit(&push("a", "a change", Some(&number)));
        pending.push_back(admitted);
        let whole = pending.admit(&push("a", "the whole", None));
        pending.push_back(whole);
        assert_eq!(waiting(&pending), ["another room", "the whole"]);
    }
}
