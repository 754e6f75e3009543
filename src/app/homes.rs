//! What floors must know of each other though they do not know each other: `presence` of homes and of players, `home` of
//! mailboxes. Called by the composition root alone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::settings::near_settings;
use crate::clock;
use crate::cluster::Links;
use crate::config::Settings;
use crate::events::PresenceView;
use crate::home::record::Record;
use crate::home::{Home, Lookup, Mailboxes, Neighbours, Parcel};
use crate::hub::{Hub, Unseen};
use crate::ids::{Epoch, PlayerId, RoomName, SessionId, ShardId};
use crate::presence::{Company, Glance, Homes};

/// The links to other nodes and the mailboxes of this one, where there can be other nodes.
pub(super) fn neighbours(settings: &Settings, links: &Arc<Links>, hub: &Arc<Hub>) -> Option<Neighbours> {
    let mailboxes = || Arc::new(Boxes(Arc::clone(hub))) as Arc<dyn Mailboxes>;
    settings.store.is_redis().then(|| Neighbours { links: Arc::clone(links), mailboxes: mailboxes() })
}

/// The links to other nodes, what is to be known of homes and how views are kept near, where there can be other nodes.
pub(super) fn homes(settings: &Settings, links: &Arc<Links>, home: &Arc<Home>) -> Option<Company> {
    let homes = || Arc::new(Known(Arc::clone(home))) as Arc<dyn Homes>;
    let company = || Company { links: Arc::clone(links), homes: homes(), near: near_settings(settings) };
    settings.store.is_redis().then(company)
}

struct Known(Arc<Home>);

impl Homes for Known {
    fn shards(&self) -> u16 {
        u16::try_from(self.0.shards().len()).unwrap_or(u16::MAX)
    }

    fn shard_of(&self, player: &PlayerId) -> ShardId {
        self.0.placement().shard_of(player)
    }

    fn shard_of_room(&self, room: &RoomName) -> ShardId {
        self.0.placement().shard_of_room(room)
    }

    fn epoch_served(&self, shard: ShardId) -> Option<Epoch> {
        let shard = self.0.shards().get(usize::from(shard.number()))?;
        shard.serves(clock::now().mono_ms).then(|| shard.last_epoch())
    }

    fn epochs_served(&self, each: &mut dyn FnMut(ShardId, Option<Epoch>)) {
        let now_ms = clock::now().mono_ms;
        for shard in self.0.shards() {
            each(shard.id(), shard.serves(now_ms).then(|| shard.last_epoch()));
        }
    }

    fn sessions(&self, player: &PlayerId) -> Option<Vec<SessionId>> {
        self.0.may_answer(player).ok()?;
        let ids = |record: &Record| record.sessions.iter().map(|session| session.id).collect();
        Some(self.0.find(player).and_then(|cell| cell.read(ids)).unwrap_or_default())
    }

    fn glance(&self, player: &PlayerId) -> Glance {
        match self.0.presence_hot(player) {
            Some(Lookup::Known(view)) => Glance::Hot(view),
            Some(Lookup::Unknown) => Glance::Unknown,
            None => Glance::Cold,
        }
    }

    fn look_cold(
        &self,
        players: Vec<PlayerId>,
        within: Duration,
    ) -> BoxFuture<'static, Vec<(PlayerId, PresenceView)>> {
        let home = Arc::clone(&self.0);
        Box::pin(async move {
            let seen = home.presence_cold(&players, within).await.into_iter();
            let known = seen.filter_map(|(player, lookup)| match lookup {
                Lookup::Known(view) => Some((player, view)),
                Lookup::Unknown => None,
            });
            known.collect()
        })
    }
}

struct Boxes(Arc<Hub>);

impl Mailboxes for Boxes {
    fn seal(&self, session: SessionId) -> Option<Arc<dyn Parcel>> {
        Some(Arc::new(self.0.seal(session)?))
    }

    fn take_in(&self, session: SessionId, player: &PlayerId, packed: &[u8]) -> bool {
        let unseen = Unseen::unpacked(packed);
        unseen.map(|unseen| self.0.take_in(session, player, unseen)).is_some()
    }
}

impl Parcel for Unseen {
    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn packed(&self) -> Bytes {
        Self::packed(self)
    }
}
