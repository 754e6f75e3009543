//! From "a record changed" to the mailboxes of all who watch: changes gather for one tick, the latest of each player
//! is encoded once, and every watcher gets the same bytes. One of the four doors where wire types stop.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use protocol::push::PresenceItem;
use protocol::request::Status as WireStatus;
use protocol::{Encoding, Stamp as WireStamp, Value};

use super::Presence;
use super::tick::Tick;
use crate::events::{PresenceView, Status};
use crate::hub::{Push, PushKind, Wakes};
use crate::ids::PlayerId;
use crate::tasks::{self, Tasks};

/// Pushes after which others get a turn.
const TURN: usize = 2_000;
/// Links that wait for the end of a tick; beyond it they are called before.
const WAKES_MAX: usize = 16_384;

impl Presence {
    pub(super) async fn run(self: Arc<Self>, stop: &Tasks) {
        let mut tick = Tick::default();
        loop {
            tasks::rest();
            tokio::select! {
                biased;
                () = stop.stopping() => return,
                () = tick.end() => {
                    tasks::beat();
                    let began = tick.has_ended();
                    let changes = self.events.presence.take();
                    // Other nodes first: they have watchers of their own to tell.
                    self.peers.iter().for_each(|peers| peers.tell(&changes));
                    self.tell_all(changes).await;
                    began.into_iter().for_each(|began| self.meters.fanout.told_since(began));
                }
                () = self.events.presence.filled(), if !tick.is_under_way() => tick.begins(self.tick),
                // They have waited for a tick where they come from.
                arrived = self.arrived() => {
                    tasks::beat();
                    self.tell_all(arrived).await;
                }
            }
        }
    }

    /// What other nodes have told.
    async fn arrived(&self) -> Vec<(PlayerId, PresenceView)> {
        match &self.peers {
            Some(peers) => {
                peers.arrived.filled().await;
                peers.arrived.take()
            }
            None => pending().await,
        }
    }

    async fn tell_all(&self, changes: Vec<(PlayerId, PresenceView)>) {
        // Called when all of the tick is in: a watcher of many gets one frame and writes once.
        let mut wakes = Wakes::default();
        for (player, view) in changes {
            self.tell(&player, &view, &mut wakes).await;
        }
    }

    async fn tell(&self, player: &PlayerId, view: &PresenceView, wakes: &mut Wakes) {
        let watchers = self.watches.tell(player, view);
        if watchers.is_empty() {
            return;
        }
        let push = push_of(player, view);
        self.meters.goes_to(watchers.len());
        for turn in watchers.chunks(TURN) {
            for mailbox in turn {
                self.hub.push_quietly(mailbox, &push, wakes);
            }
            if wakes.len() > WAKES_MAX {
                wakes.wake();
            }
            tasks::beat();
            tokio::task::yield_now().await;
        }
    }
}

/// What others see, encoded once.
#[must_use]
pub fn push_of(player: &PlayerId, view: &PresenceView) -> Arc<Push> {
    let mut bytes = Vec::with_capacity(96);
    protocol::codec::encode_body(Encoding::MessagePack, &mut bytes, &item(player, view));
    Arc::new(Push::new(PushKind::Presence { player: player.clone(), ver: view.ver }, Bytes::from(bytes)))
}

/// What others see, in the wire's words.
#[must_use]
pub fn item(player: &PlayerId, view: &PresenceView) -> PresenceItem {
    let offline = view.status == Status::Offline;
    let activity: Option<BTreeMap<String, Value>> =
        view.activity.as_deref().and_then(|activity| rmp_serde::from_slice(activity).ok());
    let ver: WireStamp = (view.ver.epoch.number(), view.ver.version.number());
    PresenceItem {
        player: player.as_str().to_owned(),
        status: match view.status {
            Status::Offline | Status::Invisible => WireStatus::Offline,
            Status::Away => WireStatus::Away,
            Status::Online => WireStatus::Online,
            Status::Busy => WireStatus::Busy,
            Status::Playing => WireStatus::Playing,
        },
        activity: activity.filter(|activity| !activity.is_empty()),
        ver,
        last_seen: (offline && view.last_seen_unix_ms > 0).then_some(view.last_seen_unix_ms),
        devices: (!view.devices.is_empty())
            .then(|| view.devices.iter().map(|device| device.as_ref().to_owned()).collect()),
    }
}
