//! What rooms measure: handles made once, at construction. Names and meanings stand in `telemetry::metrics`.

use std::cmp::Ordering;

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

    /// A room has other members than before.
    #[allow(clippy::cast_precision_loss, reason = "a gauge is a float, and no room has so many")]
    pub(super) fn members_moved(&self, before: usize, now: usize) {
        match now.cmp(&before) {
            Ordering::Greater => self.members.increment((now - before) as f64),
            Ordering::Less => self.members.decrement((before - now) as f64),
            Ordering::Equal => {}
        }
    }
}
