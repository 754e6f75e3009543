//! What requests and answers of a link say, in the house's words: presences, lists of players, activities, statuses.
//! Pure; called by `dispatch` and `gate`. What services say, too, is `wire`'s.

use std::collections::{HashMap, HashSet};

use protocol::codes::ErrorCode;
use protocol::reply::{Changed, ErrorBody, Presences};
use protocol::{Stamp as WireStamp, Text, Value, limits};

use crate::events::{PresenceView, Status};
use crate::ids::{PlayerId, Stamp};
use crate::wire::{wire_stamp, write_value};

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
