//! What nodes tell each other of rooms, as MessagePack: a node tells a room's home which of its players are in, what
//! they say and what they ask; the home tells nodes what has become of the room. All of it is mail, so that an answer
//! stands where it was given among what is told. Whatever another node says is checked against the bounds of what a
//! client may say.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{Epoch, PlayerId, RoomName, Stamp, Version};
use crate::presence::listeners::Says;
use crate::presence::roster::{Member, Page};
use crate::presence::wants::Digest;
use crate::presence::words::{EPOCH_MAX, Name};

/// Most bytes of a member's meta: what a setting may allow.
const META_BYTES_MAX: usize = 4_096;
/// Most sessions of one player, whatever the policy.
const SESSIONS_MAX: u32 = 65_536;
/// Most members in one page: what a setting may allow.
const PAGE_MEMBERS_MAX: usize = 1_000;

/// A room's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named(pub(super) RoomName);

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        RoomName::parse(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What one node tells another of rooms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Letter {
    /// From here up to `Whole` the sender tells all its players in the rooms of these shards.
    Anew { shards: Vec<u16> },
    /// Players of the sender, in rooms of the receiver.
    Claims { claims: Vec<Claimed> },
    /// All of these shards was told.
    Whole { shards: Vec<u16> },
    /// What the sender has told of each of these shards comes to this.
    Digests { shards: Vec<(u16, Digest)> },
    /// Of these shards that is not what the sender of this has heard.
    Differs { shards: Vec<u16> },
    /// Sessions of the sender are in these rooms and do not know their rosters.
    Owed { rooms: Vec<Named> },
    /// A session of the sender says something in a room.
    Say { room: Named, body: Bytes },
    /// So many of those messages are told by now.
    Said { room: Named, count: u32 },
    /// A question.
    Ask { id: u64, room: Named, ask: Ask },
    /// Its answer.
    Answer { id: u64, answer: Answer },
    /// A place that was kept is not needed.
    Release { room: Named, place: u64 },
    /// What has become of a room.
    Told(Told),
}

/// What a node says of one of its players in one room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claimed {
    room: Named,
    player: Name,
    /// The epoch of her record.
    epoch: u64,
    /// How she is in it; none when she is not.
    is_in: Option<IsIn>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct IsIn {
    seen: Seen,
    sessions: u32,
}

/// What a room shows of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    online: bool,
    meta: Option<Bytes>,
}

impl Seen {
    fn of(member: &Member) -> Self {
        Self { online: member.online, meta: member.meta.as_deref().map(Bytes::copy_from_slice) }
    }

    fn read(self) -> Option<Member> {
        let fits = self.meta.as_ref().is_none_or(|meta| meta.len() <= META_BYTES_MAX);
        fits.then(|| Member { online: self.online, meta: self.meta.map(|meta| Arc::from(&*meta)) })
    }
}

impl Claimed {
    pub(super) fn is_in(room: &RoomName, player: &PlayerId, says: &Says) -> Self {
        let is_in = IsIn { seen: Seen::of(&says.member), sessions: says.sessions };
        Self { is_in: Some(is_in), ..Self::is_out(room, player, says.epoch) }
    }

    pub(super) fn is_out(room: &RoomName, player: &PlayerId, epoch: Epoch) -> Self {
        let (room, player) = (Named(room.clone()), Name(player.clone()));
        Self { room, player, epoch: epoch.number(), is_in: None }
    }

    /// The room, the player, the epoch of her record, and what is said of her; `None` if it is out of bounds.
    pub(super) fn read(self) -> Option<(RoomName, PlayerId, Epoch, Option<Says>)> {
        let epoch = Epoch::of(Some(self.epoch).filter(|epoch| *epoch < EPOCH_MAX)?);
        let says = match self.is_in {
            None => None,
            Some(IsIn { sessions, .. }) if sessions > SESSIONS_MAX => return None,
            Some(IsIn { seen, sessions }) => Some(Says { member: seen.read()?, epoch, sessions }),
        };
        Some((self.room.0, self.player.0, epoch, says))
    }
}

/// What a node asks of a room's home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Keep a place for a player who is about to enter.
    Reserve { player: Name },
    /// The members behind one, at most so many.
    Page { after: Option<String>, limit: Option<u32> },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The place is kept, under this number.
    Kept { place: u64 },
    /// The room has all its members.
    RoomFull,
    /// There are all the rooms that there may be.
    TooManyRooms,
    /// A page.
    Page(PageTold),
    /// The room's home is not here.
    NotHere,
}

/// A page of a roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PageTold {
    ver: (u64, u64),
    count: u64,
    members: Vec<(Name, Seen)>,
    has_more: bool,
    /// The roster may lack some.
    pub(super) partial: bool,
}

impl PageTold {
    pub(super) fn of(page: &Page, partial: bool) -> Self {
        let members = page.members.iter();
        Self {
            ver: write_ver(page.ver),
            count: page.count as u64,
            members: members.map(|(player, member)| (Name(player.clone()), Seen::of(member))).collect(),
            has_more: page.cursor.is_some(),
            partial,
        }
    }

    pub(super) fn read(self) -> Option<Page> {
        if self.members.len() > PAGE_MEMBERS_MAX {
            return None;
        }
        let ver = read_ver(self.ver)?;
        let members = self.members.into_iter();
        let members: Vec<_> =
            members.map(|(Name(player), seen)| Some((player, seen.read()?))).collect::<Option<_>>()?;
        let cursor = members.last().filter(|_| self.has_more).map(|(player, _)| player.clone());
        Some(Page { ver, count: usize::try_from(self.count).ok()?, members, cursor })
    }
}

/// What has become of a room: bodies as clients get them, encoded once for all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) room: Named,
    /// Where the roster stood that was told before.
    pub(super) since: (u64, u64),
    /// Where it stands.
    pub(super) ver: (u64, u64),
    /// What has changed.
    pub(super) changes: Option<Bytes>,
    /// How many there are: stands for what has changed, where that is too much.
    pub(super) number: Option<Bytes>,
    /// The whole, for those who do not know the roster.
    pub(super) whole: Option<Bytes>,
    /// What was said, behind that.
    pub(super) messages: Vec<Bytes>,
}

impl Told {
    pub(super) const fn new(room: Named, (since, ver): (Stamp, Stamp)) -> Self {
        let (since, ver) = (write_ver(since), write_ver(ver));
        Self { room, since, ver, changes: None, number: None, whole: None, messages: Vec::new() }
    }

    /// Where the roster stood that was told before, and where it stands; `None` if that is out of bounds.
    pub(super) fn stood(&self) -> Option<(Stamp, Stamp)> {
        Some((read_ver(self.since)?, read_ver(self.ver)?))
    }
}

const fn write_ver(ver: Stamp) -> (u64, u64) {
    (ver.epoch.number(), ver.version.number())
}

fn read_ver((epoch, version): (u64, u64)) -> Option<Stamp> {
    (epoch < EPOCH_MAX).then(|| Stamp::new(Epoch::of(epoch), Version::of(version)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::words::{read, write};

    fn says(online: bool, meta: Option<usize>) -> Says {
        let meta = meta.map(|bytes| Arc::from(vec![7; bytes]));
        Says { member: Member { online, meta }, epoch: Epoch::of(1_790_000_000_000), sessions: 2 }
    }

    #[test]
    fn what_is_told_is_what_is_heard() {
        let (room, ann) = (RoomName::parse("party:7").unwrap(), PlayerId::parse("ann").unwrap());
        let claim = Claimed::is_in(&room, &ann, &says(true, Some(3)));
        let heard = claim.clone().read().unwrap();
        assert_eq!(heard, (room.clone(), ann.clone(), says(true, None).epoch, Some(says(true, Some(3)))));
        let leaves = Claimed::is_out(&room, &ann, Epoch::of(7));
        assert_eq!(leaves.clone().read(), Some((room.clone(), ann.clone(), Epoch::of(7), None)));
        let ver = Stamp::new(Epoch::of(7), Version::of(9));
        let members = vec![(ann.clone(), says(false, Some(1)).member)];
        let page = Page { ver, count: 12, members, cursor: Some(ann.clone()) };
        let page_told = PageTold::of(&page, true);
        assert_eq!(page_told.clone().read(), Some(page));
        let named = Named(room);
        let body = Bytes::from_static(b"body");
        let since = Stamp::new(Epoch::of(7), Version::of(8));
        let told = Told::new(named.clone(), (since, ver));
        let whole = Told { whole: Some(body.clone()), messages: vec![body.clone()], ..told };
        assert_eq!(whole.stood(), Some((since, ver)));
        for letter in [
            Letter::Anew { shards: vec![0, 4_095] },
            Letter::Claims { claims: vec![claim, leaves] },
            Letter::Whole { shards: vec![] },
            Letter::Digests { shards: vec![(1, Digest { count: 2, sum: 3 })] },
            Letter::Differs { shards: vec![1] },
            Letter::Owed { rooms: vec![named.clone()] },
            Letter::Say { room: named.clone(), body },
            Letter::Said { room: named.clone(), count: 2 },
            Letter::Ask { id: 1, room: named.clone(), ask: Ask::Reserve { player: Name(ann) } },
            Letter::Ask {
                id: 2,
                room: named.clone(),
                ask: Ask::Page { after: Some("x".into()), limit: None },
            },
            Letter::Answer { id: 1, answer: Answer::Kept { place: 8 } },
            Letter::Answer { id: 2, answer: Answer::Page(page_told) },
            Letter::Release { room: named, place: 8 },
            Letter::Told(whole),
        ] {
            assert_eq!(read(&write(&letter)), Some(letter));
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_not_taken() {
        let (room, ann) = (RoomName::parse("r").unwrap(), PlayerId::parse("ann").unwrap());
        let claim = |says: &Says| Claimed::is_in(&room, &ann, says).read();
        assert!(claim(&says(true, Some(META_BYTES_MAX))).is_some());
        assert_eq!(claim(&says(true, Some(META_BYTES_MAX + 1))), None);
        assert_eq!(claim(&Says { sessions: SESSIONS_MAX + 1, ..says(true, None) }), None);
        assert_eq!(claim(&Says { epoch: Epoch::of(EPOCH_MAX), ..says(true, None) }), None);
        let members = vec![(ann, says(true, None).member); PAGE_MEMBERS_MAX + 1];
        let page = Page { ver: Stamp::default(), count: 1, members, cursor: None };
        assert_eq!(PageTold::of(&page, false).read(), None);
        for name in ["", "a\nb", &"x".repeat(65)] {
            let told = rmp_serde::to_vec(&(vec![name],)).unwrap();
            assert_eq!(read::<(Vec<Named>,)>(&told), None, "{name:?}");
        }
    }
}
