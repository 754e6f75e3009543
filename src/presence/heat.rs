//! Which rooms make most pushes: a bounded count beside what is told anyway, so that one room among a hundred thousand
//! is found without looking at all of them. `telling` adds, `app` takes once a second.

use parking_lot::Mutex;

use crate::ids::RoomName;
use crate::telemetry::frequent::Frequent;

/// Rooms counted at a time. One that makes more than this part of all frames is always among them.
const ROOMS_MAX: usize = 32;

/// The rooms with most frames since they were last taken.
pub(super) struct Heat(Mutex<Frequent<RoomName>>);

impl Default for Heat {
    fn default() -> Self {
        Self(Mutex::new(Frequent::of(ROOMS_MAX)))
    }
}

impl Heat {
    /// A room has put so many frames into outboxes. One lock for a room and turn, however many its members are; nobody
    /// waits for it, since one task tells all rooms.
    pub(super) fn add(&self, room: &RoomName, frames: u64) {
        if frames > 0 {
            self.0.lock().add(room, frames);
        }
    }

    /// Takes them out, with how many frames each has made at least.
    pub(super) fn take(&self) -> Vec<(RoomName, u64)> {
        self.0.lock().take().keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    #[test]
    fn the_room_that_makes_most_is_found_among_many() {
        let heat = Heat::default();
        for turn in 0..1_000 {
            heat.add(&room(&format!("match-{turn}")), 4);
            heat.add(&room("guild"), 8);
        }
        let taken = heat.take();
        assert_eq!(taken.len(), ROOMS_MAX);
        let guild = taken.iter().find(|(name, _)| *name == room("guild")).expect("it has most");
        assert_eq!(guild.1, 8_000);
        assert!(taken.iter().all(|(name, frames)| *name == room("guild") || *frames <= 4), "{taken:?}");
        assert!(heat.take().is_empty());
    }
}
