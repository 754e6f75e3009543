//! Who is here and who wants to know: watch edges, rooms, and the fan-out of what changed. Called by `session` and
//! `service`; hears of changes through [`Events`]. Knows no record: it is told what others see and tells them.

mod carried;
mod fanout;
mod heat;
mod homes;
mod listeners;
mod looks;
mod meters;
mod near;
mod peers;
mod readers;
mod room;
mod rooms;
pub mod roster;
mod seat;
mod telling;
mod tick;
mod wants;
mod watch;
mod watching;
mod words;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::{Correspondent, Links};
use crate::events::{Events, PresenceView};
use crate::hub::{Hub, Mailbox, Push};
use crate::ids::{Owner, PlayerId, SessionId, ShardId};
use crate::tasks::Tasks;

pub use fanout::{item, push_of};
pub use homes::{Glance, Homes};
use meters::ItemMeters;
pub use near::{NearSettings, NearView};
use peers::{Ear, Peers, RoomsEar, Upon};
use rooms::Nodes;
pub use rooms::{Ground, NoHome, NoPlace, NotSaid, Place, RoomSettings, Rooms};
use watch::Watches;

/// The room.
pub struct Presence {
    watches: Arc<Watches>,
    rooms: Arc<Rooms>,
    /// The other nodes, where there can be any.
    peers: Option<Arc<Peers>>,
    hub: Arc<Hub>,
    events: Arc<Events>,
    tick: Duration,
    meters: ItemMeters,
}

/// Where there can be other nodes: the links to them, what is to be known of homes, and what is kept near of what they say.
pub struct Company {
    /// The links.
    pub links: Arc<Links>,
    /// What is known of homes.
    pub homes: Arc<dyn Homes>,
    /// How views are kept near.
    pub near: NearSettings,
}

impl Presence {
    /// Builds the room and starts the fan-out.
    #[must_use]
    pub fn start(
        hub: Arc<Hub>,
        events: Arc<Events>,
        rooms: RoomSettings,
        ground: Ground,
        peers: Option<Company>,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let tick = rooms.tick;
        let nodes =
            |company: &Company| Nodes::new(Box::new(Arc::clone(&company.links)), Arc::clone(&company.homes));
        let nodes = peers.as_ref().map(nodes);
        let rooms = Arc::new(Rooms::new(rooms, ground, nodes, Arc::clone(&hub), Arc::clone(&events)));
        let (telling, stop) = (Arc::clone(&rooms), tasks.clone());
        tasks.spawn_vital("rooms", async move { telling.run(&stop).await });
        let homes = peers.as_ref().map(|company| Arc::clone(&company.homes));
        let watches = Arc::new(homes.map(Watches::among).unwrap_or_default());
        let peers = peers.map(|Company { links, homes, near }| {
            let (watches, rooms) = (Arc::clone(&watches), Arc::clone(&rooms));
            let (hub, events, tasks) = (Arc::clone(&hub), Arc::clone(&events), tasks.clone());
            Peers::new(Upon { links, homes, watches, rooms, hub, events, near, tasks })
        });
        if let Some(peers) = &peers {
            tasks.spawn_vital("rooms_nodes", Arc::clone(&rooms).run_nodes(tasks.clone()));
            tasks.spawn_vital("presence_peers", Arc::clone(peers).run(tasks.clone()));
            let (readers, events) = (Arc::clone(peers), Arc::clone(&events));
            tasks.spawn_vital("presence_readers", readers.run_readers(events, tasks.clone()));
            tasks.spawn_vital("presence_owed", Arc::clone(peers).run_owed(tasks.clone()));
        }
        let presence = Arc::new(Self { watches, rooms, peers, hub, events, tick, meters: ItemMeters::new() });
        let (fanout, stop) = (Arc::clone(&presence), tasks.clone());
        tasks.spawn_vital("fanout", async move { fanout.run(&stop).await });
        presence
    }

    /// The rooms.
    #[must_use]
    pub const fn rooms(&self) -> &Arc<Rooms> {
        &self.rooms
    }

    /// Whom the links give what other nodes say of presence.
    #[must_use]
    pub fn correspondent(&self) -> Option<Arc<dyn Correspondent>> {
        self.peers.as_ref().map(|peers| Arc::new(Ear(Arc::clone(peers))) as Arc<dyn Correspondent>)
    }

    /// The same for what they say of rooms.
    #[must_use]
    pub fn rooms_correspondent(&self) -> Option<Arc<dyn Correspondent>> {
        self.peers.as_ref().map(|_| Arc::new(RoomsEar(Arc::clone(&self.rooms))) as Arc<dyn Correspondent>)
    }

    /// What others see of players whose homes are other nodes; whoever is not in the answer cannot be told now.
    pub async fn look_elsewhere(&self, players: &[PlayerId]) -> HashMap<PlayerId, PresenceView> {
        match &self.peers {
            Some(peers) if !players.is_empty() => peers.look(players).await,
            _ => HashMap::new(),
        }
    }

    /// The same of what was so at most `max_age_ms` ago, with when it was: what was read before is answered from near.
    pub async fn look_near(&self, players: &[PlayerId], max_age_ms: u64) -> HashMap<PlayerId, NearView> {
        match &self.peers {
            Some(peers) if !players.is_empty() => peers.look_near(players, max_age_ms).await,
            _ => HashMap::new(),
        }
    }

    /// Whether a player's home is another node that can be asked.
    #[must_use]
    pub fn is_elsewhere(&self, player: &PlayerId) -> bool {
        self.peers.as_ref().is_some_and(|peers| peers.home_of(peers.homes.shard_of(player)).is_some())
    }

    /// The node that serves a shard, if it is another one and can be asked.
    #[must_use]
    pub fn home_elsewhere(&self, shard: ShardId) -> Option<Owner> {
        self.peers.as_ref()?.home_of(shard)
    }

    /// Brings a message to a player whose home is another node; to how many of her sessions. `None`: nobody knows
    /// whether it has arrived.
    pub async fn carry(&self, player: &PlayerId, message: &Push) -> Option<u32> {
        self.peers.as_ref()?.carry(player, message.msgpack()).await
    }

    /// One who watches a player has looked at her, and seen this.
    pub fn looked(&self, player: &PlayerId, view: &PresenceView) {
        self.watches.looked(player, view);
    }

    /// From now on every change of the player reaches the mailbox. Look at the player *after* this call, and no
    /// change falls between: what is both in the snapshot and pushed is told apart by `ver`.
    pub fn watch(&self, player: &PlayerId, mailbox: &Arc<Mailbox>) {
        self.watches.add(player, mailbox);
    }

    /// The same for a whole list that was read from the store; its names share their memory from then on.
    pub fn watch_all(&self, players: &mut [PlayerId], mailbox: &Arc<Mailbox>) {
        self.watches.add_all(players, mailbox);
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
