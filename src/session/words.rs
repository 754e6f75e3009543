//! The house's words in the wire's, and back: stamps, statuses, values, errors. The one place where an error of the
//! house becomes a code. Pure; called by `dispatch`, `opening` and `link`.

use std::collections::{HashMap, HashSet};

use protocol::codes::ErrorCode;
use protocol::reply::{Changed, ErrorBody, Presences};
use protocol::{Stamp as WireStamp, Text, Value, limits};

use crate::events::{PresenceView, Status};
use crate::home::HomeError;
use crate::home::record::Refusal;
use crate::ids::{Epoch, PlayerId, Stamp, Version};

/// In the order asked, wherever each was found: else the order would tell who is hidden and who is not here.
pub(super) fn presences(
    asked: &[PlayerId],
    found: &HashMap<PlayerId, PresenceView>,
    stamp: Option<Stamp>,
) -> Presences {
    let unknown = asked.iter().filter(|player| !found.contains_key(*player));
    Presences {
        presences: asked
            .iter()
            .filter_map(|player| Some(crate::presence::item(player, found.get(player)?)))
            .collect(),
        unknown: unknown.map(|player| player.as_str().to_owned()).collect(),
        stamp: stamp.map(wire_stamp),
    }
}

pub(super) fn player_list(players: &[Text<'_>]) -> Result<Vec<PlayerId>, Box<ErrorBody>> {
    if players.len() > limits::PLAYERS_PER_CALL_MAX {
        return Err(Box::new(ErrorBody::new(ErrorCode::TooLarge, "at most 200 players a call")));
    }
    let mut seen = HashSet::with_capacity(players.len());
    let once = players.iter().filter(|player| seen.insert(player.as_str()));
    let parsed: Result<Vec<_>, _> = once.map(|player| PlayerId::parse(player.as_str())).collect();
    parsed.map_err(|error| Box::new(ErrorBody::new(ErrorCode::BadRequest, error.to_string())))
}

pub(super) fn packed_activity(
    activity: &std::collections::BTreeMap<Text<'_>, Value>,
) -> Result<Option<Box<[u8]>>, &'static str> {
    if activity.is_empty() {
        return Ok(None);
    }
    if activity.len() > limits::ACTIVITY_KEYS_MAX {
        return Err("an activity has at most 16 keys");
    }
    for (key, value) in activity {
        if key.as_str().len() > limits::ACTIVITY_KEY_BYTES_MAX {
            return Err("an activity's key has at most 64 bytes");
        }
        if write_value(value).len() > limits::ACTIVITY_VALUE_BYTES_MAX + 3 {
            return Err("an activity's value has at most 256 bytes");
        }
    }
    Ok(Some(rmp_serde::to_vec(activity).unwrap_or_default().into_boxed_slice()))
}

pub(super) fn rolled_back(to: Option<WireStamp>) -> ErrorBody {
    ErrorBody { to: Some(to), ..ErrorBody::new(ErrorCode::RolledBack, "what you saw was lost") }
}

pub(super) fn applied_only(changed: &Changed, message: &str) -> ErrorBody {
    ErrorBody {
        applied: Some(true),
        stamp: Some(changed.stamp),
        ..ErrorBody::new(ErrorCode::StoreUnavailable, message)
    }
}

/// The house's error in the wire's words.
pub(super) fn error_of(error: &HomeError, retry_after_ms: Option<u64>) -> ErrorBody {
    let code = match error {
        HomeError::Refused(refusal) => match refusal {
            Refusal::NoSession | Refusal::NotResumable => ErrorCode::NotResumable,
            Refusal::CseqGap { .. } => ErrorCode::CseqGap,
            Refusal::StateConflict { .. } => ErrorCode::StateConflict,
            Refusal::TooLarge(_) => ErrorCode::TooLarge,
            Refusal::BadRequest(_) => ErrorCode::BadRequest,
            Refusal::SessionLimit => ErrorCode::SessionLimit,
            Refusal::TokenExpired | Refusal::TokenRevoked => ErrorCode::TokenExpired,
            Refusal::Banned { .. } => ErrorCode::Banned,
            Refusal::NotBanned => ErrorCode::NotFound,
            Refusal::Behind => ErrorCode::Behind,
            Refusal::Forbidden(_) | Refusal::Kicked { .. } => ErrorCode::Forbidden,
            Refusal::RoomFull => ErrorCode::RoomFull,
            Refusal::TooMuchTalk => ErrorCode::Overloaded,
        },
        HomeError::NotHome { .. } => ErrorCode::NotHome,
        HomeError::Store(_) | HomeError::NotDurable => ErrorCode::StoreUnavailable,
        HomeError::Overloaded => ErrorCode::Overloaded,
        HomeError::Corrupt => ErrorCode::Internal,
    };
    let mut body = ErrorBody::new(code, error.to_string());
    body.retry_after_ms = retry_after_ms;
    match error {
        HomeError::Refused(Refusal::CseqGap { expected }) => body.expected = Some(*expected),
        HomeError::Refused(Refusal::StateConflict { state_stamp }) => {
            body.state_stamp = Some(wire_stamp(*state_stamp));
        }
        HomeError::Refused(Refusal::Banned { reason } | Refusal::Kicked { reason, .. }) => {
            body.reason = Some(reason.as_ref().into())
        }
        HomeError::NotHome { retry_after_ms } => body.retry_after_ms = Some(*retry_after_ms),
        HomeError::Store(_) | HomeError::Overloaded | HomeError::Refused(Refusal::TooMuchTalk) => {
            body.retry_after_ms = Some(1000)
        }
        _ => {}
    }
    body
}

pub(super) fn wire_stamp(stamp: Stamp) -> WireStamp {
    (stamp.epoch.number(), stamp.version.number())
}

pub(super) const fn house_stamp((epoch, version): WireStamp) -> Stamp {
    Stamp::new(Epoch::of(epoch), Version::of(version))
}

/// A status that a client may set.
#[must_use]
pub const fn house_status(status: protocol::request::Status) -> Option<Status> {
    use protocol::request::Status as Wire;
    match status {
        Wire::Offline => None,
        Wire::Invisible => Some(Status::Invisible),
        Wire::Away => Some(Status::Away),
        Wire::Online => Some(Status::Online),
        Wire::Busy => Some(Status::Busy),
        Wire::Playing => Some(Status::Playing),
    }
}

pub(super) fn write_value(value: &Value) -> Box<[u8]> {
    rmp_serde::to_vec(value).unwrap_or_default().into_boxed_slice()
}

pub(super) fn read_value(packed: &[u8]) -> Value {
    rmp_serde::from_slice(packed).unwrap_or_default()
}
