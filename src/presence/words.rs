//! What nodes tell each other of presence, as MessagePack: who serves which shard, whom whose sessions watch, and what
//! others see of players.
//! Whatever another node says is checked against the same bounds as what a client says: a node may be of another
//! version, and what is out of bounds is not taken.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::wants::{Digest, Told};
use crate::events::{PresenceView, Status};
use crate::ids::{Epoch, PlayerId, Stamp, Version};

/// Players in one question.
pub(super) const PLAYERS_ASKED_MAX: usize = 1_000;
/// Bytes of an activity: 16 keys of 64 bytes with values of 256, and what frames them.
const ACTIVITY_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a message: a frame, and what a message adds.
pub(super) const MESSAGE_BYTES_MAX: usize = 2 * protocol::limits::FRAME_BYTES_MAX;
/// Devices of one player, and bytes of one's name.
const DEVICES_MAX: usize = 1_024;
const DEVICE_BYTES_MAX: usize = 64;
/// What an epoch stays below, so that Lua's doubles hold it.
pub(super) const EPOCH_MAX: u64 = 1 << 53;

/// A player's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(pub(super) PlayerId);

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        PlayerId::parse(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What one node tells another, unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Letter {
    /// Shards that the sender serves from now on, each with its epoch, and such that it does not serve any more.
    Serves {
        /// It serves no others.
        anew: bool,
        serves: Vec<(u16, u64)>,
        lost: Vec<u16>,
    },
    /// Whom the sender's sessions watch in a shard of the receiver, from now on and no longer.
    Wants {
        /// All that it said before of this shard is void.
        anew: bool,
        shard: u16,
        adds: Vec<Wanted>,
        drops: Vec<Name>,
    },
    /// How players look now whom the receiver's sessions watch: a [`Seen`] each, encoded once for all nodes.
    Views { seen: Vec<Bytes> },
    /// What the sender wants of each of the receiver's shards comes to this.
    Digests { shards: Vec<(u16, Digest)> },
    /// In these shards that is not what the sender of this has heard.
    Differs { shards: Vec<u16> },
    /// Where players stand now whom the receiver keeps near: whatever it keeps that is older is not so any more.
    Moved { players: Vec<(Name, (u64, u64))> },
}

/// A player who is watched, and where those who watch her stand: `ver`, and whether they may see her as here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    pub(super) player: Name,
    pub(super) told: Option<(u64, u64, bool)>,
}

impl Wanted {
    pub(super) fn new(player: PlayerId, told: Option<Told>) -> Self {
        let told = told.map(|told| (told.ver.epoch.number(), told.ver.version.number(), told.shown));
        Self { player: Name(player), told }
    }

    pub(super) fn read(self) -> (PlayerId, Option<Told>) {
        let told = self.told.map(|(epoch, number, shown)| Told {
            ver: Stamp::new(Epoch::of(epoch), Version::of(number)),
            shown,
        });
        (self.player.0, told)
    }
}

/// How a player looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) player: Name,
    pub(super) view: View,
}

/// What one node asks another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// How do these players look? [`Looks`].
    Looks { players: Vec<Name> },
    /// The same; what is answered is kept near for so long, and the sender is to be told of every change meanwhile.
    Reads { players: Vec<Name>, life_ms: u64 },
    /// Give this message to all sessions of a player: to how many, as a `u32`.
    Message { player: Name, body: Bytes },
}

/// In the order asked; none of those whom the asked node cannot tell of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Looks {
    pub(super) views: Vec<Option<View>>,
}

/// What others see of a player.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct View {
    status: Status,
    activity: Option<Bytes>,
    devices: Vec<Box<str>>,
    ver: (u64, u64),
    last_seen_unix_ms: u64,
}

impl View {
    pub(super) fn of(view: &PresenceView) -> Self {
        Self {
            status: view.status,
            activity: view.activity.as_deref().map(Bytes::copy_from_slice),
            devices: view.devices.clone(),
            ver: (view.ver.epoch.number(), view.ver.version.number()),
            last_seen_unix_ms: view.last_seen_unix_ms,
        }
    }

    /// The view, if it is one that a home may tell.
    pub(super) fn read(self) -> Option<PresenceView> {
        let (epoch, number) = self.ver;
        let fits = self.status != Status::Invisible
            && self.activity.as_ref().is_none_or(|activity| activity.len() <= ACTIVITY_BYTES_MAX)
            && self.devices.len() <= DEVICES_MAX
            && self.devices.iter().all(|device| device.len() <= DEVICE_BYTES_MAX)
            && epoch < EPOCH_MAX;
        fits.then(|| PresenceView {
            status: self.status,
            activity: self.activity.map(|activity| Box::from(&*activity)),
            devices: self.devices,
            ver: Stamp::new(Epoch::of(epoch), Version::of(number)),
            last_seen_unix_ms: self.last_seen_unix_ms,
        })
    }
}

/// Writes what is to be told.
pub(super) fn write(words: &impl Serialize) -> Bytes {
    // All of it serialises.
    rmp_serde::to_vec(words).unwrap_or_default().into()
}

/// Reads what was told; nothing that is not whole and within bounds.
pub(super) fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    rmp_serde::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> PresenceView {
        PresenceView {
            status: Status::Playing,
            activity: Some(vec![0x81, 0xa3, b'm', b'a', b'p', 7].into()),
            devices: vec!["pc".into(), "web".into()],
            ver: Stamp::new(Epoch::of(1_790_000_000_000), Version::of(77)),
            last_seen_unix_ms: 1_790_000_000_001,
        }
    }

    #[test]
    fn what_is_told_is_what_is_heard() {
        let hidden = PresenceView { status: Status::Offline, activity: None, ..PresenceView::default() };
        for view in [view(), hidden, PresenceView::default()] {
            let told = write(&Looks { views: vec![None, Some(View::of(&view))] });
            let heard: Looks = read(&told).unwrap();
            let mut views = heard.views.into_iter();
            assert_eq!(views.next(), Some(None));
            assert_eq!(views.next().flatten().and_then(View::read), Some(view));
        }
        let ann = PlayerId::parse("ann").unwrap();
        let told = Told { ver: view().ver, shown: true };
        let wanted = vec![Wanted::new(ann.clone(), Some(told)), Wanted::new(ann.clone(), None)];
        assert_eq!(wanted[0].clone().read(), (ann.clone(), Some(told)));
        let seen = write(&Seen { player: Name(ann.clone()), view: View::of(&view()) });
        assert_eq!(read::<Seen>(&seen).unwrap().view.read(), Some(view()));
        let digest = Digest { count: 3, sum: u64::MAX };
        for letter in [
            Letter::Serves { anew: true, serves: vec![(4_095, 9)], lost: vec![0] },
            Letter::Wants { anew: false, shard: 7, adds: wanted, drops: vec![Name(ann.clone())] },
            Letter::Moved { players: vec![(Name(ann), (u64::MAX, 0))] },
            Letter::Views { seen: vec![seen] },
            Letter::Digests { shards: vec![(0, digest)] },
            Letter::Differs { shards: vec![1, 2] },
        ] {
            assert_eq!(read(&write(&letter)), Some(letter));
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_not_taken() {
        let beyond = [
            PresenceView { status: Status::Invisible, ..view() },
            PresenceView { activity: Some(vec![0; ACTIVITY_BYTES_MAX + 1].into()), ..view() },
            PresenceView { devices: vec!["x".repeat(DEVICE_BYTES_MAX + 1).into()], ..view() },
            PresenceView { devices: vec!["x".into(); DEVICES_MAX + 1], ..view() },
            PresenceView { ver: Stamp::new(Epoch::of(EPOCH_MAX), Version::ZERO), ..view() },
        ];
        for view in beyond {
            assert_eq!(View::of(&view).read(), None, "{view:?}");
        }
        for name in ["", "a\nb", &"x".repeat(65)] {
            let told = rmp_serde::to_vec(&(vec![name],)).unwrap();
            assert_eq!(read::<(Vec<Name>,)>(&told), None, "{name:?}");
        }
        assert_eq!(read::<Letter>(&[0xc1, 0, 0]), None);
    }
}
