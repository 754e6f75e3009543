//! Who is here and who wants to know: watch edges, rooms, and the fan-out of what changed. Called by `session` and
//! `service`; hears of changes through [`Events`]. Knows no record: it is told what others see and tells them.

mod fanout;
mod meters;
mod room;
mod rooms;
pub mod roster;
mod telling;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;

use crate::events::Events;
use crate::hub::{Hub, Mailbox};
use crate::ids::{PlayerId, SessionId};
use crate::tasks::Tasks;
use crate::telemetry::metrics::{FANOUT_DELIVERIES, FANOUT_ITEMS};

pub use fanout::{item, push_of};
pub use rooms::{Ground, NoPlace, Place, RoomSettings, Rooms, TooMuchTalk};
use watch::Watches;

/// The room.
pub struct Presence {
    watches: Watches,
    rooms: Arc<Rooms>,
    hub: Arc<Hub>,
    events: Arc<Events>,
    tick: Duration,
    items: Counter,
    deliveries: Counter,
}

impl Presence {
    /// Builds the room and starts the fan-out.
    #[must_use]
    pub fn start(
        hub: Arc<Hub>,
        events: Arc<Events>,
        rooms: RoomSettings,
        ground: Ground,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let tick = rooms.tick;
        let rooms = Arc::new(Rooms::new(rooms, ground, Arc::clone(&hub), Arc::clone(&events)));
        let (telling, stop) = (Arc::clone(&rooms), tasks.clone());
        tasks.spawn_vital("rooms", async move { telling.run(&stop).await });
        let presence = Arc::new(Self {
            watches: Watches::default(),
            rooms,
            hub,
            events,
            tick,
            items: FANOUT_ITEMS.handle(),
            deliveries: FANOUT_DELIVERIES.handle(),
        });
        let (fanout, stop) = (Arc::clone(&presence), tasks.clone());
        tasks.spawn_vital("fanout", async move { fanout.run(&stop).await });
        presence
    }

    /// The rooms.
    #[must_use]
    pub const fn rooms(&self) -> &Arc<Rooms> {
        &self.rooms
    }

    /// From now on every change of the player reaches the mailbox. Look at the player *after* this call, and no
    /// change falls between: what is both in the snapshot and pushed is told apart by `ver`.
    pub fn watch(&self, player: &PlayerId, mailbox: &Arc<Mailbox>) {
        self.watches.add(player, mailbox);
    }

    /// The same id, sharing its memory with those who watch the player already.
    #[must_use]
    pub fn interned(&self, player: PlayerId) -> PlayerId {
        self.watches.known(&player).unwrap_or(player)
    }

    /// No longer.
    pub fn unwatch(&self, player: &PlayerId, session: SessionId) {
        self.watches.remove(player, session);
    }

    /// How many sessions watch a player.
    #[must_use]
    pub fn watchers(&self, player: &PlayerId) -> usize {
        self.watches.count(player)
    }
}
