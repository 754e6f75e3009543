//! What rooms measure: handles made once, at construction. Names and meanings stand in `telemetry::metrics`.

use metrics::{Counter, Gauge};

use crate::telemetry::metrics::{ROOM_DELIVERIES, ROOM_MEMBERS, ROOM_PUSHES, ROOMS};

/// The handles.
pub(super) struct Meters {
    pub(super) rooms: Gauge,
    pub(super) members: Gauge,
    pub(super) diffs: Counter,
    pub(super) counts: Counter,
    pub(super) snapshots: Counter,
    pub(super) messages: Counter,
    pub(super) deliveries: Counter,
}

impl Meters {
    pub(super) fn new() -> Self {
        let pushes = |kind| ROOM_PUSHES.with(&[("kind", kind)]);
        Self {
            rooms: ROOMS.handle(),
            members: ROOM_MEMBERS.handle(),
            diffs: pushes("diff"),
            counts: pushes("count"),
            snapshots: pushes("snapshot"),
            messages: pushes("message"),
            deliveries: ROOM_DELIVERIES.handle(),
        }
    }
}
