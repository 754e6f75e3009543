//! A record as the store keeps it: `p`, and `w` (watches and rooms), MessagePack arrays behind a format number.
//! Pure; called by `home::batch`, `home::keeper` and `home::opening`. A remainder is a `p` without sessions.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bars::{Ban, Bars};
use super::document::{Blob, Document};
use super::notes::Notes;
use super::rooms::Membership;
use super::{LinkState, Record, Session, Visibility};
use crate::events::{PresenceView, Status};
use crate::home::history::History;
use crate::ids::{Epoch, PlayerId, RoomName, RoomNameError, RoomPattern, SessionId, Stamp, Version};
use crate::store::StoredRecord;

/// The format that this version writes, and the only one it reads.
pub const FORMAT: u32 = 2;

/// Why a stored record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// Another format.
    #[error("record format {0} is not one this version reads")]
    Format(u32),
    /// Not what was written.
    #[error("broken record: {0}")]
    Broken(#[from] rmp_serde::decode::Error),
    /// A watched player whose id is none.
    #[error("broken watch list: {0}")]
    Watch(#[from] crate::ids::IdError),
    /// A room whose name is none, or a pattern that could open no room.
    #[error("broken list of rooms: {0}")]
    Room(#[from] RoomNameError),
}

/// What a body is likely to fit into: of 200 bytes, as records are, in one allocation.
const BODY_BYTES: usize = 256;

/// Bytes that are opaque here, borrowed while they are written.
struct Opaque<'a>(Cow<'a, [u8]>);

impl Serialize for Opaque<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Opaque<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Cow::Owned(Blob::deserialize(deserializer)?.0.into_vec())))
    }
}

impl<'a> From<&'a [u8]> for Opaque<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

impl From<Opaque<'_>> for Box<[u8]> {
    fn from(opaque: Opaque<'_>) -> Self {
        opaque.0.into_owned().into_boxed_slice()
    }
}

#[derive(Serialize, Deserialize)]
struct StoredP<'a> {
    format: u32,
    history: Cow<'a, History>,
    view: StoredView<'a>,
    sessions: Vec<StoredSession<'a>>,
    state: Cow<'a, Document>,
    state_stamp: (u64, u64),
    bars: Option<StoredBars>,
}

#[derive(Serialize, Deserialize)]
struct StoredBars {
    revoked_before: u64,
    ban: Option<StoredBan>,
}

#[derive(Serialize, Deserialize)]
struct StoredBan {
    until: Option<u64>,
    reason: Box<str>,
    since: u64,
    cut: Vec<Blob>,
}

#[derive(Serialize, Deserialize)]
struct StoredView<'a> {
    status: Status,
    activity: Option<Opaque<'a>>,
    devices: Cow<'a, [Box<str>]>,
    ver: (u64, u64),
    last_seen_unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredSession<'a> {
    id: Opaque<'a>,
    device: Cow<'a, str>,
    ticket_n: u64,
    cseq: u64,
    status: Status,
    idle: bool,
    activity: Option<Opaque<'a>>,
    visibility: u8,
    token_expires_at: u64,
    /// 0 attached, 1 detached since, 2 pending until.
    link: (u8, u64),
    active_at: u64,
    grants: Vec<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct StoredW<'a> {
    format: u32,
    /// One list a session, in the order of `p`'s sessions.
    watches: Vec<Vec<Cow<'a, str>>>,
    rooms: Vec<StoredMembership<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StoredMembership<'a> {
    room: Cow<'a, str>,
    meta: Option<Opaque<'a>>,
    /// By their places among `p`'s sessions.
    sessions: Vec<usize>,
    by_service: bool,
}

impl Record {
    /// The `p` string's body.
    #[must_use]
    pub fn encode_p(&self) -> Bytes {
        let stored = StoredP {
            format: FORMAT,
            history: Cow::Borrowed(&self.history),
            view: StoredView {
                status: self.view.status,
                activity: self.view.activity.as_deref().map(Opaque::from),
                devices: Cow::Borrowed(&self.view.devices),
                ver: pair(self.view.ver),
                last_seen_unix_ms: self.view.last_seen_unix_ms,
            },
            sessions: self.sessions.iter().map(StoredSession::of).collect(),
            state: Cow::Borrowed(&self.state),
            state_stamp: pair(self.state_stamp),
            bars: self
                .bars
                .as_deref()
                .filter(|bars| bars.ban.is_some() || bars.revoked_before > 0)
                .map(StoredBars::of),
        };
        encoded(&stored)
    }

    /// The `w` string's body; empty when nobody is watched and no room entered.
    #[must_use]
    pub fn encode_w(&self) -> Bytes {
        if self.rooms.is_empty() && self.sessions.iter().all(|session| session.watches.is_empty()) {
            return Bytes::new();
        }
        let place_of = |id: &SessionId| self.sessions.iter().position(|session| session.id == *id);
        let rooms = self.rooms.iter().map(|membership| StoredMembership {
            room: Cow::Borrowed(membership.room.as_str()),
            meta: membership.meta.as_deref().map(Opaque::from),
            sessions: membership.sessions.iter().filter_map(place_of).collect(),
            by_service: membership.by_service,
        });
        let watches = self.sessions.iter().map(|session| names(session.watches.iter().map(PlayerId::as_str)));
        encoded(&StoredW { format: FORMAT, watches: watches.collect(), rooms: rooms.collect() })
    }

    /// Reads what the store holds, as it stood under the epoch that wrote it.
    ///
    /// # Errors
    /// [`StoredError`]; nothing of a broken record is used.
    pub fn decode(stored: &StoredRecord) -> Result<Self, StoredError> {
        let p: StoredP = read(&stored.p)?;
        let mut sessions =
            p.sessions.into_iter().map(StoredSession::into_session).collect::<Result<Vec<_>, _>>()?;
        let mut rooms = Vec::new();
        if let Some(w) = stored.w.as_deref().filter(|w| !w.is_empty()) {
            let w: StoredW = read(w)?;
            for (session, players) in sessions.iter_mut().zip(w.watches) {
                session.watches =
                    players.iter().map(|player| PlayerId::parse(player)).collect::<Result<Vec<_>, _>>()?;
            }
            for membership in w.rooms {
                rooms.push(membership.into_membership(&sessions)?);
            }
        }
        Ok(Self {
            epoch: stored.epoch,
            version: stored.version,
            history: p.history.into_owned(),
            sessions,
            state: p.state.into_owned(),
            state_stamp: stamp(p.state_stamp),
            view: PresenceView {
                status: p.view.status,
                activity: p.view.activity.map(Box::from),
                devices: p.view.devices.into_owned(),
                ver: stamp(p.view.ver),
                last_seen_unix_ms: p.view.last_seen_unix_ms,
            },
            bars: p.bars.map(StoredBars::into_bars).transpose()?,
            rooms,
            lists_version: stored.version,
            rooms_version: stored.version,
            notes: Notes::default(),
        })
    }
}

impl StoredBars {
    fn of(bars: &Bars) -> Self {
        let ban = bars.ban.as_ref().map(|ban| StoredBan {
            until: ban.until,
            reason: (*ban.reason).into(),
            since: ban.since,
            cut: ban.cut.iter().map(|id| Blob((*id.as_bytes()).into())).collect(),
        });
        Self { revoked_before: bars.revoked_before, ban }
    }

    fn into_bars(self) -> Result<Box<Bars>, StoredError> {
        let ban = self.ban.map(|ban| {
            let cut = ban.cut.iter().map(|id| session_id(&id.0)).collect::<Result<_, _>>()?;
            Ok::<_, StoredError>(Ban { until: ban.until, reason: ban.reason.into(), since: ban.since, cut })
        });
        let (ban, revoked_before) = (ban.transpose()?, self.revoked_before);
        Ok(Box::new(Bars { ban, revoked_before, unlisted: false, erased: false }))
    }
}

/// One of the two strings. What another version wrote is told as that and not as broken, whatever its shape.
fn read<T: DeserializeOwned>(stored: &[u8]) -> Result<T, StoredError> {
    // The format stands first in an array of fewer than 16 elements, whose head is one byte.
    let format = stored.get(1..).and_then(|rest| rmp_serde::from_slice(rest).ok());
    match format {
        Some(format) if format != FORMAT => Err(StoredError::Format(format)),
        _ => Ok(rmp_serde::from_slice(stored)?),
    }
}

fn session_id(id: &[u8]) -> Result<SessionId, StoredError> {
    let id: [u8; 16] = id.try_into().map_err(|_| broken("a session id has 16 bytes"))?;
    Ok(SessionId::from_bytes(id))
}

fn broken(what: &str) -> StoredError {
    StoredError::Broken(serde::de::Error::custom(what))
}

impl<'a> StoredSession<'a> {
    fn of(session: &'a Session) -> Self {
        Self {
            id: Opaque(Cow::Borrowed(session.id.as_bytes())),
            device: Cow::Borrowed(&session.device),
            ticket_n: session.ticket_n,
            cseq: session.cseq,
            status: session.status,
            idle: session.idle,
            activity: session.activity.as_deref().map(Opaque::from),
            visibility: match session.visibility {
                Visibility::Full => 0,
                Visibility::Status => 1,
                Visibility::Hidden => 2,
            },
            token_expires_at: session.token_expires_at,
            link: match session.link {
                LinkState::Attached => (0, 0),
                LinkState::Detached { since } => (1, since),
                LinkState::Pending { until } => (2, until),
            },
            active_at: session.active_at,
            grants: names(session.grants.iter().map(RoomPattern::as_str)),
        }
    }

    fn into_session(self) -> Result<Session, StoredError> {
        Ok(Session {
            id: session_id(&self.id.0)?,
            device: self.device.into(),
            ticket_n: self.ticket_n,
            ticket_settled: false,
            cseq: self.cseq,
            status: self.status,
            idle: self.idle,
            activity: self.activity.map(Box::from),
            visibility: match self.visibility {
                0 => Visibility::Full,
                1 => Visibility::Status,
                2 => Visibility::Hidden,
                _ => return Err(broken("unknown visibility")),
            },
            token_expires_at: self.token_expires_at,
            link: match self.link {
                (0, _) => LinkState::Attached,
                (1, since) => LinkState::Detached { since },
                (2, until) => LinkState::Pending { until },
                _ => return Err(broken("unknown link state")),
            },
            active_at: self.active_at,
            watches: Vec::new(),
            grants: self
                .grants
                .iter()
                .map(|grant| RoomPattern::parse(grant))
                .collect::<Result<_, RoomNameError>>()?,
        })
    }
}

impl StoredMembership<'_> {
    fn into_membership(self, sessions: &[Session]) -> Result<Membership, StoredError> {
        let id = |place: &usize| sessions.get(*place).map(|session| session.id);
        Ok(Membership {
            room: RoomName::parse(&self.room)?,
            meta: self.meta.map(|meta| meta.0.into_owned().into()),
            sessions: self.sessions.iter().filter_map(id).collect(),
            by_service: self.by_service,
        })
    }
}

fn encoded(value: &impl Serialize) -> Bytes {
    let mut body = Vec::with_capacity(BODY_BYTES);
    // These types hold nothing that MessagePack cannot say.
    value
        .serialize(&mut rmp_serde::Serializer::new(&mut body))
        .map(|()| Bytes::from(body))
        .unwrap_or_default()
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Cow<'a, str>> {
    names.map(Cow::Borrowed).collect()
}

const fn pair(stamp: Stamp) -> (u64, u64) {
    (stamp.epoch.number(), stamp.version.number())
}

const fn stamp((epoch, version): (u64, u64)) -> Stamp {
    Stamp::new(Epoch::of(epoch), Version::of(version))
}
