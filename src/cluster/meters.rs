//! What `cluster` measures: handles made once, at construction. Names and meanings stand in `telemetry::metrics`.

use metrics::{Counter, Gauge, Histogram};

use crate::telemetry::metrics::{
    MEMBERS, MEMBERS_GONE, PEER_LINKS, PEER_MAIL_LAG_SECONDS, PEER_MAIL_SECONDS, PEERS_UNREACHED,
};

/// The handles of `members`.
pub(super) struct MemberMeters {
    pub(super) live: Gauge,
    pub(super) left: Counter,
    pub(super) vanished: Counter,
}

impl MemberMeters {
    pub(super) fn new() -> Self {
        let gone = |how| MEMBERS_GONE.with(&[("how", how)]);
        Self { live: MEMBERS.handle(), left: gone("left"), vanished: gone("vanished") }
    }
}

/// The handles of `links`.
pub(super) struct LinkMeters {
    pub(super) standing: Gauge,
    pub(super) unreached: Gauge,
    pub(super) mail: Histogram,
    pub(super) mail_lag: Gauge,
}

impl LinkMeters {
    pub(super) fn new() -> Self {
        Self {
            standing: PEER_LINKS.handle(),
            unreached: PEERS_UNREACHED.handle(),
            mail: PEER_MAIL_SECONDS.handle(),
            mail_lag: PEER_MAIL_LAG_SECONDS.handle(),
        }
    }
}
