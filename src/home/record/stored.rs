//! A record as the store keeps it: `p`, and `w` (watches and rooms), MessagePack arrays behind a format number.
//! Pure; called by `home::flush`, `home::keeper` and `home::opening`. A remainder is a `p` without sessions.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::bars::{Ban, Bars};
use super::document::{Blob, Document};
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

#[derive(Serialize, Deserialize)]
struct StoredP {
    format: u32,
    history: History,
    view: StoredView,
    sessions: Vec<StoredSession>,
    state: Document,
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
struct StoredView {
    status: Status,
    activity: Option<Blob>,
    devices: Vec<Box<str>>,
    ver: (u64, u64),
    last_seen_unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredSession {
    id: Blob,
    device: Box<str>,
    ticket_n: u64,
    cseq: u64,
    status: Status,
    idle: bool,
    activity: Option<Blob>,
    visibility: u8,
    token_expires_at: u64,
    /// 0 attached, 1 detached since, 2 pending until.
    link: (u8, u64),
    active_at: u64,
    grants: Vec<Box<str>>,
}

#[derive(Serialize, Deserialize)]
struct StoredW {
    format: u32,
    /// One list a session, in the order of `p`'s sessions.
    watches: Vec<Vec<Box<str>>>,
    rooms: Vec<StoredMembership>,
}

#[derive(Serialize, Deserialize)]
struct StoredMembership {
    room: Box<str>,
    meta: Option<Blob>,
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
            history: self.history.clone(),
            view: StoredView {
                status: self.view.status,
                activity: self.view.activity.clone().map(Blob),
                devices: self.view.devices.clone(),
                ver: pair(self.view.ver),
                last_seen_unix_ms: self.view.last_seen_unix_ms,
            },
            sessions: self.sessions.iter().map(StoredSession::of).collect(),
            state: self.state.clone(),
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
        let list = |session: &Session| session.watches.iter().map(|player| player.as_str().into()).collect();
        let place_of = |id: &SessionId| self.sessions.iter().position(|session| session.id == *id);
        let membership = |membership: &Membership| StoredMembership {
            room: membership.room.as_str().into(),
            meta: membership.meta.as_deref().map(|meta| Blob(meta.into())),
            sessions: membership.sessions.iter().filter_map(place_of).collect(),
            by_service: membership.by_service,
        };
        encoded(&StoredW {
            format: FORMAT,
            watches: self.sessions.iter().map(list).collect(),
            rooms: self.rooms.iter().map(membership).collect(),
        })
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
            history: p.history,
            sessions,
            state: p.state,
            state_stamp: stamp(p.state_stamp),
            view: PresenceView {
                status: p.view.status,
                activity: p.view.activity.map(|blob| blob.0),
                devices: p.view.devices,
                ver: stamp(p.view.ver),
                last_seen_unix_ms: p.view.last_seen_unix_ms,
            },
            bars: p.bars.map(StoredBars::into_bars).transpose()?,
            rooms,
            lists_version: stored.version,
            rooms_version: stored.version,
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
            let cut = ban.cut.into_iter().map(session_id).collect::<Result<_, _>>()?;
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

fn session_id(id: Blob) -> Result<SessionId, StoredError> {
    let id: [u8; 16] = (*id.0).try_into().map_err(|_| broken("a session id has 16 bytes"))?;
    Ok(SessionId::from_bytes(id))
}

fn broken(what: &str) -> StoredError {
    StoredError::Broken(serde::de::Error::custom(what))
}

impl StoredSession {
    fn of(session: &Session) -> Self {
        Self {
            id: Blob(session.id.as_bytes().to_vec().into_boxed_slice()),
            device: session.device.clone(),
            ticket_n: session.ticket_n,
            cseq: session.cseq,
            status: session.status,
            idle: session.idle,
            activity: session.activity.clone().map(Blob),
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
            grants: session.grants.iter().map(|grant| grant.as_str().into()).collect(),
        }
    }

    fn into_session(self) -> Result<Session, StoredError> {
        Ok(Session {
            id: session_id(self.id)?,
            device: self.device,
            ticket_n: self.ticket_n,
            ticket_settled: false,
            cseq: self.cseq,
            status: self.status,
            idle: self.idle,
            activity: self.activity.map(|blob| blob.0),
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

impl StoredMembership {
    fn into_membership(self, sessions: &[Session]) -> Result<Membership, StoredError> {
        let id = |place: &usize| sessions.get(*place).map(|session| session.id);
        Ok(Membership {
            room: RoomName::parse(&self.room)?,
            meta: self.meta.map(|meta| meta.0.into()),
            sessions: self.sessions.iter().filter_map(id).collect(),
            by_service: self.by_service,
        })
    }
}

fn encoded(value: &impl Serialize) -> Bytes {
    // These types hold nothing that MessagePack cannot say.
    rmp_serde::to_vec(value).map(Bytes::from).unwrap_or_default()
}

const fn pair(stamp: Stamp) -> (u64, u64) {
    (stamp.epoch.number(), stamp.version.number())
}

const fn stamp((epoch, version): (u64, u64)) -> Stamp {
    Stamp::new(Epoch::of(epoch), Version::of(version))
}
