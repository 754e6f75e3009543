//! Every metric of the house, once: name, kind, unit, meaning, labels with all that they can be, and when to worry. `app`
//! installs the recorder and serves what it renders; rooms make handles at construction and use them on their hot paths.
//! Never makes a handle per operation. README shows the table; `tests/it/deploy` holds rules and dashboard to it.

mod names;
mod process;

use std::sync::{Arc, OnceLock};

use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::process::Process as Now;
use super::watch::names as names_of_alarms;
use Values::{AtMost, Of};
pub use names::{CounterName, Family, GaugeName, HistogramName, Name, Sampled, SparseFamily};
use process::Process;

/// Steps of a duration, in seconds: from a hot ack to a store that is hardly there.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Steps of a batch: a commit carries at most 64 records.
const RECORDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
/// Steps of how many hear of something: from a friend to a large room.
const RECEIVERS: &[f64] = &[1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0];

/// What becomes of commits.
pub const COMMIT_OUTCOMES: &[&str] =
    &["done", "fenced", "stale", "rolled_back", "lost", "unknown", "held_back"];
/// What becomes of pulls.
pub const PULL_OUTCOMES: &[&str] = &["done", "late", "failed"];
/// What becomes of records that the home before gave.
pub const SALVAGE_OUTCOMES: &[&str] = &["taken", "stored", "another", "refused", "late"];
/// What becomes of looks at those who are not in memory.
pub const COLD_OUTCOMES: &[&str] = &["filtered", "cached", "negative", "joined", "stored"];
/// What becomes of looks at what is kept near.
pub const NEAR_OUTCOMES: &[&str] = &["fresh", "stale", "negative", "joined", "loaded"];
/// States of a lease.
const LEASE_STATES: &[&str] =
    &["free", "pulling", "loading", "owned", "unsure", "local", "paused", "repair", "fenced", "draining"];
/// Why handshakes come to nothing.
pub const HANDSHAKE_REASONS: &[&str] = &[
    "accept",
    "connect_rate",
    "frame",
    "frames",
    "gone",
    "links_max",
    "refused",
    "timeout",
    "tls",
    "upgrade",
];
/// What becomes of spans.
const SPAN_OUTCOMES: &[&str] = &["sent", "refused", "dropped", "limited"];
/// What there are limits of.
pub const LIMITS: &[&str] = &[
    "frame",
    "state",
    "presence",
    "watch",
    "query",
    "send",
    "room",
    "room_send",
    "connect",
    "login",
    "service",
];
/// What is told to many.
const FANOUT_OF: &[&str] = &["presence", "room"];

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// As Prometheus sees it; of a histogram without `_bucket`, `_sum` and `_count`.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// What it is counted in.
    pub unit: Unit,
    /// What it means, in Markdown.
    pub help: &'static str,
    /// When somebody should look at it, in Markdown.
    pub worry: &'static str,
    /// Its labels; each series has all of them.
    pub labels: &'static [(&'static str, Values)],
    /// Upper ends of a histogram's buckets.
    buckets: &'static [f64],
}

/// What a metric does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It grows, until the process ends.
    Counter,
    /// It is what it is now.
    Gauge,
    /// It is distributed.
    Histogram,
}

/// All that a label can be; beside it `other`, for what is none of that. Never a client's to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// One of these.
    Of(&'static [&'static str]),
    /// At most so many, which are told in words: another table has them.
    AtMost(usize, &'static str),
}

impl Values {
    /// Whether a value may be one of them.
    #[must_use]
    pub fn admit(&self, value: &str) -> bool {
        match self {
            Of(values) => values.contains(&value),
            AtMost(..) => true,
        }
    }

    /// How many there are at most, `other` not counted.
    #[must_use]
    pub const fn most(&self) -> usize {
        match self {
            Of(values) => values.len(),
            AtMost(most, _) => *most,
        }
    }
}

/// The table, in the order of README.
#[must_use]
pub const fn table() -> &'static [Row] {
    TABLE
}

/// The row of a name.
#[must_use]
pub fn row(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.name == name)
}

macro_rules! table {
    ($($(#[doc = $help:literal])* $name:ident: $kind:ident $text:literal, $unit:ident $(, $buckets:ident)?
        $(by { $($label:ident: $values:expr),+ $(,)? })? => $worry:literal;)*) => {
        $(
            $(#[doc = $help])*
            #[doc = concat!("\n\n`", $text, "`")]
            pub const $name: table!(@name $kind) = Name { name: $text, handle: table!(@handle $kind) };
        )*

        /// The table.
        const TABLE: &[Row] = &[$(Row {
            name: $text,
            kind: Kind::$kind,
            unit: Unit::$unit,
            help: concat!($($help),*),
            worry: $worry,
            labels: &[$($((stringify!($label), $values)),+)?],
            buckets: table!(@buckets $($buckets)?),
        }),*];
    };
    (@name Counter) => { CounterName };
    (@name Gauge) => { GaugeName };
    (@name Histogram) => { HistogramName };
    (@handle Counter) => { names::counter };
    (@handle Gauge) => { names::gauge };
    (@handle Histogram) => { names::histogram };
    (@buckets) => { &[] };
    (@buckets $buckets:ident) => { $buckets };
}

table! {
    /// Always 1; the label `version` tells the build.
    BUILD_INFO: Gauge "hearth_build_info", Count by { version: AtMost(1, "this build's") }
        => "nodes differ for longer than an update takes";

    // The process, as Prometheus' conventions name it.
    /// Memory that the process holds.
    PROCESS_MEMORY: Gauge "process_resident_memory_bytes", Bytes
        => "it grows for hours while sessions do not, or nears what the machine or the container gives";
    /// Processor time that the process took, in whole seconds.
    PROCESS_CPU: Counter "process_cpu_seconds_total", Seconds
        => "its rate nears the number of cores: acks wait from there on";
    /// File descriptors that are open: one a link, a few more a store.
    PROCESS_FDS: Gauge "process_open_fds", Count
        => "above 80 % of `process_max_fds`: at 100 % nobody is let in";
    /// File descriptors that may be open, 0 for no limit.
    PROCESS_MAX_FDS: Gauge "process_max_fds", Count
        => "below `link.links_max` and a hundred: raise `ulimit -n`, or `LimitNOFILE` in systemd";
    /// When the process began, Unix time.
    PROCESS_STARTED: Gauge "process_start_time_seconds", Seconds
        => "it moves though nobody restarted the node: it ended by itself, and the log says why";
    /// Threads of the process.
    PROCESS_THREADS: Gauge "process_threads", Count
        => "it grows without end: something blocks beside the runtime, most likely the disk";
    /// How often the runtime stood still for a second and more.
    RUNTIME_STALLS: Counter "hearth_runtime_stalls_total", Count
        => "any: everybody on the node waited. The machine has too few cores or swaps, or it is a bug of ours";
    /// How long it stood still, each time.
    RUNTIME_STALL_SECONDS: Histogram "hearth_runtime_stall_seconds", Seconds, SECONDS
        => "near `watchdog.patience_ms`, at which the process ends";
    /// Tasks that must live and have not come round for five seconds and more, though they have work.
    VITAL_TASKS_LATE: Gauge "hearth_vital_tasks_late", Count
        => "above 0: the node is not ready, and ends by itself if it lasts; `/readyz` names the task";
    /// Lines of the log that were dropped: more waited to be written to standard error than may.
    LOG_LINES_DROPPED: Counter "hearth_log_lines_dropped_total", Count
        => "any: whoever reads the log is too slow or stands still; lines are missing, those of `audit` among them";
    /// 1 while this alarm of the anomaly watch is on, by `name`.
    ALARM: Gauge "hearth_alarm", Count by { name: Of(names_of_alarms::ALL) }
        => "1: `/v1/overview`, the console and the log say since when, by how much and what to do";

    // Gate.
    /// Links that are open, each of a session.
    LINKS_OPEN: Gauge "hearth_links_open", Count
        => "near `link.links_max`, above which nobody is let in; or half of them gone within a minute";
    /// Whole days until the TLS certificate runs out; below zero after it has. Not there without TLS.
    TLS_CERTIFICATE_DAYS_LEFT: Gauge "hearth_tls_certificate_days_left", Count
        => "below 14: whoever renews it has failed";
    /// 1 while the server is closed for maintenance.
    MAINTENANCE: Gauge "hearth_maintenance", Count
        => "1 for longer than was planned: it was forgotten, and nobody can log in";
    /// Handshakes that came to nothing, by `reason`: accept (no descriptor was left), connect_rate (too many from one address),
    /// frame (no frame of WebSocket), frames (too much talk before a login), gone (left by itself), links_max (no place), refused
    /// (login or resume), timeout, tls, upgrade (no request for a link, or of a foreign origin).
    HANDSHAKE_FAILURES: Counter "hearth_handshake_failures_total", Count by { reason: Of(HANDSHAKE_REASONS) }
        => "accept or links_max at all; the others when they outgrow logins: a broken client, or somebody who tries doors";
    /// Closed links, by close `code`.
    CLOSES: Counter "hearth_closes_total", Count by { code: AtMost(40, "the protocol's close codes") }
        => "4000 without a stop of yours, 4005 at all, 4252, 4501 (not this protocol) and 4506 (too fast) beyond a few";

    // Sessions.
    /// Sessions by `state`: attached (a link is up), detached (may come back), pending (made by a service, its client has not
    /// come yet). Counted every 10 s.
    SESSIONS: Gauge "hearth_sessions", Count by { state: Of(&["attached", "detached", "pending"]) }
        => "they grow for hours and links do not: clients make new ones in the place of resuming";
    /// Logins by `outcome`: ok, redirect (told where her home is), relay (carried there), or an error code.
    LOGINS: Counter "hearth_logins_total", Count by { outcome: AtMost(40, "ok, redirect, relay and the error codes") }
        => "unauthorized beyond a few: the keys do not fit the tokens; rate_limited: one address logs in too fast";
    /// Resumes by `outcome`, as of logins: whether anything was missed or rolled back is in its `ready`.
    RESUMES: Counter "hearth_resumes_total", Count by { outcome: AtMost(40, "ok, redirect, relay and the error codes") }
        => "many at once: links broke together; not_resumable beyond a few: sessions end sooner than clients come back";
    /// Commands by `op` and `outcome`: ok, dup (had been carried out before), later (waits for the store or for somebody), or
    /// an error code. What is refused only then is counted once more, under the op `later`.
    COMMANDS: Counter "hearth_commands_total", Count by {
        op: AtMost(40, "the protocol's requests, and later"),
        outcome: AtMost(40, "ok, dup, later and the error codes"),
    }
        => "internal at all; overloaded, not_home and store_unavailable above 1 %";
    /// From a command's frame to its ack, by `level`: applied (of every sixteenth wake-up of a link), durable.
    ACK_SECONDS: Histogram "hearth_ack_seconds", Seconds, SECONDS by { level: Of(&["applied", "durable"]) }
        => "p99 of applied above 50 ms: the node lacks processor time; of durable above 500 ms: the store is slow";
    /// Refused for being too fast, by `kind`: of links frame (all that comes), state, presence, watch, query, send, room and
    /// room_send; of addresses connect and login; of services service.
    RATE_LIMITED: Counter "hearth_rate_limited_total", Count by { kind: Of(LIMITS) }
        => "beyond a few a second: a client without pauses, or limits that are too low for the game";

    // Home and store.
    /// Player records in memory.
    RECORDS_HOT: Gauge "hearth_records_hot", Count
        => "near `home.hot_records_max`, above which logins are refused";
    /// Player records that wait for their commit.
    RECORDS_DIRTY: Gauge "hearth_records_dirty", Count
        => "it grows: the store takes less than players change";
    /// For how long the oldest change of a player record has waited for its commit.
    FLUSH_LAG_SECONDS: Gauge "hearth_flush_lag_seconds", Seconds
        => "above 3: that much of what was acked `applied` would be lost with the node";
    /// For how long the oldest record of a commit had waited when the store had taken it.
    FLUSH_WAIT_SECONDS: Histogram "hearth_flush_wait_seconds", Seconds, SECONDS
        => "p99 far above `home.flush_interval_ms`: the store is slow, or takes few commits at a time";
    /// Shards by `state` of their lease.
    SHARDS: Gauge "hearth_shards", Count by { state: Of(LEASE_STATES) }
        => "any is paused, unsure or local: its renewals fail; loading or pulling for long: it is not served";
    /// Shards that this node serves now.
    SHARDS_SERVING: Gauge "hearth_shards_serving", Count
        => "the sum of all nodes is below `cluster.shards` for longer than a lease";
    /// Shards held here whose store is away or takes no changes: what is acked of them is provisional.
    SHARDS_HELD_BACK: Gauge "hearth_shards_held_back", Count
        => "above 0: look at the store";
    /// Shards that this node began to serve.
    SHARDS_TAKEN: Counter "hearth_shards_taken_total", Count
        => "they move though no node comes or goes";
    /// Shards that were handed over to other nodes.
    SHARDS_GIVEN: Counter "hearth_shards_given_total", Count
        => "they move though no node comes or goes";
    /// Shards that other nodes were granted while this one held them.
    SHARDS_LOST: Counter "hearth_shards_lost_total", Count
        => "any: the node stood still or was cut off from the store for longer than a lease";
    /// Shards taken of which the store knew nothing, long after the cluster was founded: it has lost its data, and whatever
    /// no node had in memory of them is gone.
    SHARDS_BLANK: Counter "hearth_shards_blank_total", Count
        => "any: players have lost something";
    /// Resumes of sessions that are gone because the store lost its data: refused with `not_resumable` and `lost`.
    SESSIONS_LOST: Counter "hearth_sessions_lost_total", Count
        => "any: players have lost something";
    /// Shards whose players were paused because the lease had run out; those that are served from memory (`local`) count once
    /// that ends without an answer of the store.
    LEASES_RUN_OUT: Counter "hearth_leases_run_out_total", Count
        => "any: players waited";
    /// For how long the lease of a held shard, the one that has waited longest, has not been renewed.
    LEASE_AGE_SECONDS: Gauge "hearth_lease_age_seconds", Seconds
        => "above half of `home.lease_ttl_ms`: renewals fail; at five sixths players are paused or served from memory";
    /// Records a commit carried.
    FLUSH_BATCH_RECORDS: Histogram "hearth_flush_batch_records", Count, RECORDS
        => "always 64: commits are full, and what they leave waits";
    /// How long a commit took, by `outcome`, with those of other shards that were sent together with it.
    COMMIT_SECONDS: Histogram "hearth_commit_seconds", Seconds, SECONDS by { outcome: Of(COMMIT_OUTCOMES) }
        => "p99 of done above 100 ms: the store's disk, processor or network";
    /// Commits by `outcome`: done, fenced, stale, rolled_back, lost, unknown (no answer, or a refusal), or held_back (not sent).
    COMMITS: Counter "hearth_commits_total", Count by { outcome: Of(COMMIT_OUTCOMES) }
        => "rolled_back or lost at all: the store has lost writes; unknown beyond a few: it does not answer or is full";

    // Reads of players who are not in memory.
    /// Looks at players who are not in memory, at their homes, by `outcome`: filtered (never seen, by the filter), cached
    /// (kept from a read before), negative (the same, and nothing is stored), joined (somebody else was just asking the store)
    /// or stored (the store was asked).
    COLD_READS: Counter "hearth_cold_reads_total", Count by { outcome: Of(COLD_OUTCOMES) }
        => "stored by the thousand a second: a service asks for whom it does not need";
    /// Looks that the filter of players ever seen let pass, and of whom the store knew nothing: never seen, or forgotten.
    FILTER_FALSE_POSITIVES: Counter "hearth_filter_false_positives_total", Count
        => "a large part of `hearth_cold_reads_total` that is stored: the filter has grown full";
    /// The share of players never seen who pass the fullest shard's filter, by how full it is.
    FILTER_PASSES: Gauge "hearth_filter_passes_wrongly", Count
        => "above 0.05: more players a shard than the filter is made for; more shards in the next cluster";

    /// Players at home elsewhere who were looked for in what is kept near, by `outcome`: fresh, stale (served while it is loaded
    /// anew), negative (of these, those of whom nothing is known), joined (somebody else was just asking the home) or loaded (the
    /// home was asked).
    NEAR_READS: Counter "hearth_near_reads_total", Count by { outcome: Of(NEAR_OUTCOMES) }
        => "loaded is most of it: `near.views_max` or the services' `max_age_ms` are too small";
    /// Answers of homes that a change had overtaken on their way: not kept, and asked for again.
    NEAR_OVERTAKEN: Counter "hearth_near_overtaken_total", Count
        => "as many as are loaded: whoever is looked for changes all the time";
    /// Players of whom other nodes were told that what they keep near is not so any more, by `why`: change, again (the same once
    /// more) or room (more are kept than may).
    NEAR_INVALIDATIONS: Counter "hearth_near_invalidations_total", Count by { why: Of(&["change", "again", "room"]) }
        => "room: others keep more than this node may remember; again: letters to them are late";
    /// Players of this node whom other nodes keep near, or did a moment ago.
    NEAR_KEPT_BY_OTHERS: Gauge "hearth_near_kept_by_others", Count
        => "never by itself";

    // Store.
    /// What the breaker of each of the store's servers, its `endpoint`, does: 0 closed (all is well), 1 ramp (few commits at a time), 2 half_open (one probe at a time), 3 open (held back).
    STORE_BREAKER_STATE: Gauge "hearth_store_breaker_state", Count by { endpoint: AtMost(64, "the store's servers") }
        => "2 or 3: that server is away or full, and its players are served from memory";
    /// Changes of a breaker, by `endpoint` and the `state` that it went to.
    STORE_BREAKER_TURNS: Counter "hearth_store_breaker_turns_total", Count by {
        endpoint: AtMost(64, "the store's servers"),
        state: Of(&["closed", "ramp", "half_open", "open"]),
    }
        => "open, again and again: the server or the way to it is unsteady";
    /// Calls that a breaker held back, by `endpoint`: nothing was sent.
    STORE_CALLS_HELD_BACK: Counter "hearth_store_calls_held_back_total", Count by { endpoint: AtMost(64, "the store's servers") }
        => "any: the same as an open breaker";

    // Cluster.
    /// Live nodes, this one among them, as the store last told.
    MEMBERS: Gauge "hearth_members", Count
        => "less than you run, or not the same on all nodes";
    /// Nodes that are gone, by `how`: left in order, or vanished (killed, cut off, stuck).
    MEMBERS_GONE: Counter "hearth_members_gone_total", Count by { how: Of(&["left", "vanished"]) }
        => "vanished at all: what its players had not seen is lost";
    /// Links to other nodes that stand.
    PEER_LINKS: Gauge "hearth_peer_links", Count
        => "other than `hearth_members` less one, for longer than a few seconds";
    /// Live nodes to which no link has stood for five seconds and more.
    PEERS_UNREACHED: Gauge "hearth_peers_unreached", Count
        => "above 0: players are not seen across nodes; look at `peer_addr` and `peer_public_addr`";
    /// From when a letter to another node was posted until that has said that it came: of one letter at a time on each link. Up to
    /// a second of it is the answer's, which is in no hurry.
    PEER_MAIL_SECONDS: Histogram "hearth_peer_mail_seconds", Seconds, SECONDS
        => "above 2 beyond a few: what players on other nodes see is late";
    /// For how long that letter has been on its way now, on the link where it is longest.
    PEER_MAIL_LAG_SECONDS: Gauge "hearth_peer_mail_lag_seconds", Seconds
        => "above 2: the other node or the network cannot keep up; at 16 MiB that wait the link begins anew";
    /// Clients that are carried from here to their home on another node.
    RELAYED_OPEN: Gauge "hearth_relayed_links_open", Count
        => "most of `hearth_links_open`, where clients could follow a redirect";
    /// Sessions whose home is another node now, by `how` their shard went: given, or lost.
    SESSIONS_MOVED: Counter "hearth_sessions_moved_total", Count by { how: Of(&["given", "lost"]) }
        => "lost at all: see `hearth_shards_lost_total`";

    // Presence and delivery.
    /// Presence items encoded for fan-out.
    FANOUT_ITEMS: Counter "hearth_fanout_items_total", Count
        => "it outgrows commands: sessions flap";
    /// Frames put into outboxes by fan-out.
    FANOUT_DELIVERIES: Counter "hearth_fanout_deliveries_total", Count
        => "its rate outgrows that of items: somebody is watched by very many";
    /// Mailboxes that one push reached, by what it was `of`: presence, or a room. Of every sixteenth push.
    FANOUT_RECEIVERS: Histogram "hearth_fanout_receivers", Count, RECEIVERS by { of: Of(FANOUT_OF) }
        => "pushes to 10,000 and more, often: each costs the node milliseconds";
    /// From the first change of a tick until all that was changed in it lay in outboxes, `of` presences or of rooms. The tick itself is
    /// part of it (`presence.tick_ms`).
    FANOUT_SECONDS: Histogram "hearth_fanout_seconds", Seconds, SECONDS by { of: Of(FANOUT_OF) }
        => "p99 above twice the tick: what players see of each other is late";
    /// Pushes that waited for their reader, or for the session's next link, when a later one took their place.
    PUSHES_COALESCED: Counter "hearth_pushes_coalesced_total", Count
        => "it outgrows deliveries: readers are slow";
    /// Pushes that were forgotten because a session's outbox was full, and are told as missed: its `link` was up (and is closed
    /// for it), or down (she is away or given up already, and is pushed more than is kept).
    PUSHES_DROPPED: Counter "hearth_pushes_dropped_total", Count by { link: Of(&["up", "down"]) }
        => "up beyond a few: readers are slow, or `link.outbox_items_max` is small";
    /// Rooms with members.
    ROOMS: Gauge "hearth_rooms", Count
        => "it grows without end: nobody leaves";
    /// Members of all rooms; one for each room that a player is in.
    ROOM_MEMBERS: Gauge "hearth_room_members", Count
        => "it grows without end: nobody leaves";
    /// Pushes of rooms, encoded once each, by `kind`: diff, count (of a diff that was too large), snapshot, message.
    ROOM_PUSHES: Counter "hearth_room_pushes_total", Count by { kind: Of(&["diff", "count", "snapshot", "message"]) }
        => "snapshot is a large part of it: homes of rooms move, or links between nodes break";
    /// Frames put into outboxes for rooms.
    ROOM_DELIVERIES: Counter "hearth_room_deliveries_total", Count
        => "most of the node's processor time goes with it: a hot room; say less there, or split it";
    /// What the room with most of them made of all frames put into outboxes in the last ten seconds, 0 to 1.
    ROOM_HOTTEST_SHARE: Gauge "hearth_room_hottest_share", Count
        => "above a half while deliveries are many: one room takes the node";
    /// Shards taken again, and written anew from memory, because the store lost writes. What no node had in memory (messages
    /// kept for players who are away, above all) is gone if the store lost it.
    REPAIRS: Counter "hearth_repairs_total", Count
        => "any: the store came back older than it was";
    /// Records that the home before had and the store perhaps had not, by `outcome`: taken, stored (the store had it),
    /// another (what is stored is of another line, and counts), refused (not to be read, or not ours), late (the shard was
    /// served by then).
    SALVAGED_RECORDS: Counter "hearth_salvaged_records_total", Count by { outcome: Of(SALVAGE_OUTCOMES) }
        => "late or refused at all: what was acked `applied` may be rolled back";
    /// Shards of which the home before was asked for what the store does not have, by `outcome`: done, late (not all came in time), failed.
    PULLS: Counter "hearth_pulls_total", Count by { outcome: Of(PULL_OUTCOMES) }
        => "late or failed while that node lives";
    /// Links closed for reading too slowly.
    SLOW_CLOSES: Counter "hearth_slow_closes_total", Count
        => "beyond a few: poor networks of players, or pushes that are too many for them";

    // Service API.
    /// Services that follow the events of this node.
    EVENT_CONSUMERS: Gauge "hearth_event_consumers", Count
        => "less than follow you: one has gone and not come back";
    /// How long ago what is told next to the one of them that is furthest behind happened; 0 when all has been told.
    EVENTS_LAG_SECONDS: Gauge "hearth_events_lag_seconds", Seconds
        => "above 30: a follower reads too slowly, and misses events once they are no longer kept";
    /// Events told, to all of them together; alarms among them.
    EVENTS_TOLD: Counter "hearth_events_told_total", Count
        => "never by itself";
    /// How often events were missing between where one of them stood and what came next, and that was said.
    EVENT_GAPS: Counter "hearth_event_gaps_total", Count
        => "any: the follower must look at everything anew";
    /// Requests of services by `route` and `status`.
    SERVICE_REQUESTS: Counter "hearth_service_requests_total", Count by {
        route: AtMost(64, "the paths of the table of calls, with their placeholders"),
        status: AtMost(32, "those that calls answer with"),
    }
        => "401 and 403: a service has a wrong key";
    /// Those that failed by the server's own fault, by `route`: full places (`overloaded`) among it, but not what it does
    /// not do (501) or not while it is closed (`maintenance`), nor a probe that says no.
    SERVICE_FAILURES: Counter "hearth_service_failures_total", Count by {
        route: AtMost(64, "the paths of the table of calls, with their placeholders"),
    }
        => "above 1 % of the requests; the answers' `code` says why";
    /// How long they took, by `route`.
    SERVICE_REQUEST_SECONDS: Histogram "hearth_service_request_seconds", Seconds, SECONDS by {
        route: AtMost(64, "the paths of the table of calls, with their placeholders"),
    }
        => "p99 above 1 s, but of calls that wait by their nature (locks, events)";
    /// Spans of traces, by `outcome`: sent, refused (by the collector), dropped (more than wait for it, or a stop), limited
    /// (failed or slow, when more were than the 200 a second that are kept).
    TRACE_SPANS: Counter "hearth_trace_spans_total", Count by { outcome: Of(SPAN_OUTCOMES) }
        => "refused or dropped at all: the collector is away or too slow; traces have holes, and nothing else has; limited: much fails or is slow, and the alarms say what";
    /// Calls that wait for a lock at this node.
    LOCK_WAITERS: Gauge "hearth_lock_waiters", Count
        => "near `locks.waiters_max`, above which calls do not wait";
    /// How often calls that wait asked the store for their lock: once for all who wait for the same.
    LOCK_LOOKS: Counter "hearth_lock_looks_total", Count
        => "a large part of what the store does";
}

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// A row of the table cannot be.
    #[error("the table of metrics is wrong: {0}")]
    Table(#[from] BuildError),
    /// Somebody else set the process's recorder before.
    #[error("the metrics of this process are recorded elsewhere")]
    Taken,
}

/// What has been recorded in this process. Cheap to clone.
#[derive(Clone)]
pub struct Recorded {
    exporter: PrometheusHandle,
    process: Arc<Process>,
    counts: bool,
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorded")
    }
}

impl Recorded {
    /// Of a process that counts nothing: handles do nothing, and there is nothing to render.
    #[must_use]
    pub fn nothing() -> Self {
        let exporter = PrometheusBuilder::new().build_recorder().handle();
        Self { exporter, process: Arc::new(Process::new()), counts: false }
    }

    /// Whether anything is counted.
    #[must_use]
    pub const fn counts(&self) -> bool {
        self.counts
    }

    /// Everything in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.render_with(&Now::now())
    }

    /// The same, for who has looked at the process already.
    #[must_use]
    pub fn render_with(&self, now: &Now) -> String {
        self.process.take(now);
        self.exporter.render()
    }

    /// Takes the samples of histograms into their buckets. Without it, or a [`Recorded::render`], they pile up: call
    /// it every few seconds.
    pub fn upkeep(&self) {
        self.exporter.run_upkeep();
    }
}

/// Installs the recorder of this process and describes every metric; from the second call on, the same one again.
/// Handles made before are dead for good.
///
/// # Errors
/// [`MetricsError`]; nothing is recorded then, and handles do nothing.
pub fn install() -> Result<Recorded, MetricsError> {
    static RECORDED: OnceLock<Recorded> = OnceLock::new();
    static ONE_AT_A_TIME: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _one_at_a_time = ONE_AT_A_TIME.lock();
    if let Some(recorded) = RECORDED.get() {
        return Ok(recorded.clone());
    }
    let recorder = builder()?.build_recorder();
    let exporter = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Taken)?;
    describe();
    let recorded = Recorded { exporter, process: Arc::new(Process::new()), counts: true };
    BUILD_INFO.with(&[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
    Ok(RECORDED.get_or_init(|| recorded).clone())
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    TABLE.iter().filter(|row| !row.buckets.is_empty()).try_fold(PrometheusBuilder::new(), |builder, row| {
        builder.set_buckets_for_metric(Matcher::Full(row.name.to_owned()), row.buckets)
    })
}

fn describe() {
    metrics::with_recorder(|recorder| {
        for row in TABLE {
            let (name, unit, help) = (row.name.into(), Some(row.unit), row.help.trim().into());
            match row.kind {
                Kind::Counter => recorder.describe_counter(name, unit, help),
                Kind::Gauge => recorder.describe_gauge(name, unit, help),
                Kind::Histogram => recorder.describe_histogram(name, unit, help),
            }
        }
    });
}

#[cfg(test)]
mod tests;
