//! What presences and rooms measure: handles made once, at construction. Names and meanings stand in `telemetry::metrics`.

use std::cmp::Ordering;

use metrics::{Counter, Gauge, Histogram};
use tokio::time::Instant;

use crate::near_cache::Got;
use crate::telemetry::metrics::{
    FANOUT_DELIVERIES, FANOUT_ITEMS, FANOUT_RECEIVERS, FANOUT_SECONDS, Family, NEAR_INVALIDATIONS,
    NEAR_KEPT_BY_OTHERS, NEAR_OUTCOMES, NEAR_OVERTAKEN, NEAR_READS, ROOM_DELIVERIES, ROOM_MEMBERS,
    ROOM_PUSHES, ROOMS, Sampled,
};

/// What both kinds of fan-out measure alike.
pub(super) struct FanoutMeters {
    receivers: Sampled,
    seconds: Histogram,
}

impl FanoutMeters {
    fn of(what: &'static str) -> Self {
        Self {
            receivers: Sampled::of(FANOUT_RECEIVERS.with(&[("of", what)])),
            seconds: FANOUT_SECONDS.with(&[("of", what)]),
        }
    }

    /// One push goes to so many.
    pub(super) fn reaches(&self, mailboxes: usize) {
        self.receivers.record(mailboxes as f64);
    }

    /// All that has changed since the tick began is told.
    pub(super) fn told_since(&self, began: Instant) {
        self.seconds.record(began.elapsed().as_secs_f64());
    }
}

/// The handles of presences.
pub(super) struct ItemMeters {
    items: Counter,
    deliveries: Counter,
    pub(super) fanout: FanoutMeters,
}

impl ItemMeters {
    pub(super) fn new() -> Self {
        Self {
            items: FANOUT_ITEMS.handle(),
            deliveries: FANOUT_DELIVERIES.handle(),
            fanout: FanoutMeters::of("presence"),
        }
    }

    /// An item goes to so many.
    pub(super) fn goes_to(&self, mailboxes: usize) {
        self.items.increment(1);
        self.deliveries.increment(mailboxes as u64);
        self.fanout.reaches(mailboxes);
    }
}

/// The handles of rooms.
pub(super) struct Meters {
    pub(super) rooms: Gauge,
    pub(super) members: Gauge,
    pub(super) diffs: Counter,
    pub(super) counts: Counter,
    pub(super) snapshots: Counter,
    pub(super) messages: Counter,
    pub(super) deliveries: Counter,
    pub(super) fanout: FanoutMeters,
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
            fanout: FanoutMeters::of("room"),
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

/// The handles of what is kept near.
pub(super) struct NearMeters {
    reads: Family<Counter>,
    overtaken: Counter,
    invalidations: Family<Counter>,
    kept_by_others: Gauge,
}

impl NearMeters {
    pub(super) fn new() -> Self {
        Self {
            reads: NEAR_READS.by("outcome", NEAR_OUTCOMES, &[]),
            overtaken: NEAR_OVERTAKEN.handle(),
            invalidations: NEAR_INVALIDATIONS.by("why", &["change", "again", "room"], &[]),
            kept_by_others: NEAR_KEPT_BY_OTHERS.handle(),
        }
    }

    /// Players were looked for.
    pub(super) fn looked_near<K, V>(&self, got: &Got<K, V>) {
        let outcomes = [
            ("fresh", got.fresh),
            ("stale", got.stale),
            ("negative", got.negative),
            ("joined", got.joined),
            ("loaded", got.loaded),
        ];
        for (outcome, players) in outcomes.into_iter().filter(|(_, players)| *players > 0) {
            self.reads.of(outcome).increment(players as u64);
        }
    }

    /// What a home answered was older than what it told meanwhile.
    pub(super) fn overtaken(&self, players: usize) {
        self.overtaken.increment(players as u64);
    }

    /// Other nodes are told that what they keep is not so any more.
    pub(super) fn invalidates(&self, why: &'static str, players: usize) {
        self.invalidations.of(why).increment(players as u64);
    }

    /// How many players others keep near.
    #[allow(clippy::cast_precision_loss, reason = "a gauge is a float, and nobody has so many players")]
    pub(super) fn kept_by_others(&self, players: usize) {
        self.kept_by_others.set(players as f64);
    }
}
