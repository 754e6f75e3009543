//! What `home` measures: handles made once, at construction. Names and meanings stand in `telemetry::metrics`.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::census::Census;
use super::lease::State;
use super::tidings::Fate;
use crate::near_cache::Got;
use crate::telemetry::metrics::{
    COLD_OUTCOMES, COLD_READS, COMMIT_OUTCOMES, COMMIT_SECONDS, COMMITS, FILTER_FALSE_POSITIVES,
    FILTER_PASSES, FLUSH_BATCH_RECORDS, FLUSH_LAG_SECONDS, FLUSH_WAIT_SECONDS, Family, LEASE_AGE_SECONDS,
    LEASES_RUN_OUT, PULL_OUTCOMES, PULLS, RECORDS_DIRTY, RECORDS_HOT, REPAIRS, SALVAGE_OUTCOMES,
    SALVAGED_RECORDS, SESSIONS, SESSIONS_LOST, SESSIONS_MOVED, SHARDS, SHARDS_BLANK, SHARDS_GIVEN,
    SHARDS_HELD_BACK, SHARDS_LOST, SHARDS_SERVING, SHARDS_TAKEN,
};

const STATES: [State; 10] = [
    State::Free,
    State::Pulling,
    State::Loading,
    State::Owned,
    State::Unsure,
    State::Local,
    State::Paused,
    State::Repair,
    State::Fenced,
    State::Draining,
];

/// The room's handles.
pub(super) struct Meters {
    batch_records: Histogram,
    flush_wait: Histogram,
    commit_seconds: Family<Histogram>,
    commits: Family<Counter>,
    shards: [Gauge; STATES.len()],
    lease_age: Gauge,
    sessions: [Gauge; 3],
    repairs: Counter,
    pulls: Family<Counter>,
    salvaged: Family<Counter>,
    taken: Counter,
    given: Counter,
    lost: Counter,
    blank: Counter,
    sessions_lost: Counter,
    run_out: Counter,
    serving: Gauge,
    moved: Family<Counter>,
    hot: Gauge,
    dirty: Gauge,
    flush_lag: Gauge,
    held_back: Gauge,
    filter_passes: Gauge,
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            batch_records: FLUSH_BATCH_RECORDS.handle(),
            flush_wait: FLUSH_WAIT_SECONDS.handle(),
            commit_seconds: COMMIT_SECONDS.by("outcome", COMMIT_OUTCOMES, &[]),
            commits: COMMITS.by("outcome", COMMIT_OUTCOMES, &[]),
            shards: STATES.map(|state| SHARDS.with(&[("state", state.name())])),
            lease_age: LEASE_AGE_SECONDS.handle(),
            sessions: ["attached", "detached", "pending"].map(|state| SESSIONS.with(&[("state", state)])),
            repairs: REPAIRS.handle(),
            pulls: PULLS.by("outcome", PULL_OUTCOMES, &[]),
            salvaged: SALVAGED_RECORDS.by("outcome", SALVAGE_OUTCOMES, &[]),
            taken: SHARDS_TAKEN.handle(),
            given: SHARDS_GIVEN.handle(),
            lost: SHARDS_LOST.handle(),
            blank: SHARDS_BLANK.handle(),
            sessions_lost: SESSIONS_LOST.handle(),
            run_out: LEASES_RUN_OUT.handle(),
            serving: SHARDS_SERVING.handle(),
            moved: SESSIONS_MOVED.by("how", &["given", "lost"], &[]),
            hot: RECORDS_HOT.handle(),
            dirty: RECORDS_DIRTY.handle(),
            flush_lag: FLUSH_LAG_SECONDS.handle(),
            held_back: SHARDS_HELD_BACK.handle(),
            filter_passes: FILTER_PASSES.handle(),
        }
    }

    /// A commit came back (or did not).
    pub(super) fn commit(&self, records: usize, took: Duration, outcome: &'static str) {
        self.batch_records.record(records as f64);
        self.commit_seconds.of(outcome).record(took.as_secs_f64());
        self.commits.of(outcome).increment(1);
    }

    /// For so long the oldest record of a commit had waited that is stored now.
    pub(super) fn flush_waited(&self, waited: Duration) {
        self.flush_wait.record(waited.as_secs_f64());
    }

    /// How long ago the renewal was sent on which the oldest lease rests.
    pub(super) fn lease_age(&self, age_ms: Option<u64>) {
        self.lease_age.set(Duration::from_millis(age_ms.unwrap_or(0)).as_secs_f64());
    }

    /// How many sessions are in each state.
    pub(super) fn sessions(&self, census: Census) {
        let Census { attached, detached, pending } = census;
        for (gauge, count) in self.sessions.iter().zip([attached, detached, pending]) {
            gauge.set(count);
        }
    }

    /// How many shards are in each state.
    pub(super) fn lease_states(&self, states: impl Iterator<Item = State>) {
        let mut counts = [0u32; STATES.len()];
        for state in states {
            if let Some(count) =
                STATES.iter().position(|known| *known == state).and_then(|at| counts.get_mut(at))
            {
                *count += 1;
            }
        }
        for (gauge, count) in self.shards.iter().zip(counts) {
            gauge.set(count);
        }
    }

    /// Something became of a shard.
    pub(super) fn turned(&self, fate: Fate) {
        match fate {
            Fate::Taken => self.taken.increment(1),
            Fate::Given => self.given.increment(1),
            Fate::Lost => self.lost.increment(1),
            Fate::Blank => self.blank.increment(1),
            Fate::RanOut | Fate::Hushed => self.run_out.increment(1),
            Fate::Overtaken
            | Fate::Kept
            | Fate::Alone
            | Fate::Back
            | Fate::Rejoined
            | Fate::Rewound
            | Fate::Rewritten
            | Fate::Unread
            | Fate::Forgotten => {}
        }
    }

    /// How many shards are served.
    pub(super) fn serving(&self, shards: usize) {
        self.serving.set(shards as f64);
    }

    /// Sessions were told that their home is elsewhere: how their shard went.
    pub(super) fn moved(&self, how: &'static str, sessions: usize) {
        self.moved.of(how).increment(u64::try_from(sessions).unwrap_or(u64::MAX));
    }

    /// How many records are hot, and how many of them wait.
    pub(super) fn records(&self, hot: usize, dirty: usize) {
        self.hot.set(hot as f64);
        self.dirty.set(dirty as f64);
    }

    /// Since when the oldest change waits (monotonic ms), and of how many shards the servers take none.
    pub(super) fn backlog(&self, since_ms: Option<u64>, held_back: usize, now_ms: u64) {
        let lag = Duration::from_millis(since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms)));
        self.flush_lag.set(lag.as_secs_f64());
        self.held_back.set(held_back as f64);
    }

    /// The share of players never seen whom the fullest filter lets pass.
    pub(super) fn filter_passes(&self, share: f64) {
        self.filter_passes.set(share);
    }

    /// A client came back to a session that is gone with the store's data.
    pub(super) fn session_lost(&self) {
        self.sessions_lost.increment(1);
    }

    /// A shard was taken again because the store lost writes.
    pub(super) fn repaired(&self) {
        self.repairs.increment(1);
    }

    /// The home before of a shard was asked for what the store does not have.
    pub(super) fn pulled(&self, outcome: &'static str) {
        self.pulls.of(outcome).increment(1);
    }

    /// Records that the home before gave.
    pub(super) fn salvaged(&self, outcome: &'static str, records: usize) {
        self.salvaged.of(outcome).increment(u64::try_from(records).unwrap_or(u64::MAX));
    }
}

/// The handles of reads of players who are not in memory.
pub(super) struct ColdMeters {
    reads: Family<Counter>,
    false_positives: Counter,
}

impl ColdMeters {
    pub(super) fn new() -> Self {
        Self {
            reads: COLD_READS.by("outcome", COLD_OUTCOMES, &[]),
            false_positives: FILTER_FALSE_POSITIVES.handle(),
        }
    }

    fn count(&self, outcome: &'static str, players: usize) {
        if players > 0 {
            self.reads.of(outcome).increment(u64::try_from(players).unwrap_or(u64::MAX));
        }
    }

    /// Players were looked for near; what was not there is counted when the store is asked.
    pub(super) fn looked<K, V>(&self, got: &Got<K, V>) {
        self.count("cached", got.fresh + got.stale - got.negative);
        self.count("negative", got.negative);
        self.count("joined", got.joined);
    }

    /// The filter has never seen them.
    pub(super) fn filtered(&self, players: usize) {
        self.count("filtered", players);
    }

    /// The store is asked for players.
    pub(super) fn asks_store(&self, players: usize) {
        self.count("stored", players);
    }

    /// Whom the filter let pass, and of whom nothing is stored.
    pub(super) fn passed_wrongly(&self, players: usize) {
        self.false_positives.increment(u64::try_from(players).unwrap_or(u64::MAX));
    }
}
