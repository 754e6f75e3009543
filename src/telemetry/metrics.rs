//! Every metric of the house, once: name, kind, unit and meaning. `app` installs the recorder and serves what it
//! renders; rooms make handles at construction and use them on their hot paths. Never makes a handle per operation.

use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Unit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Steps of a duration, in seconds: from a hot ack to a store that is hardly there.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Steps of a batch: a commit carries at most 64 records.
const RECORDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// One row of the table.
#[derive(Debug)]
struct Row {
    name: &'static str,
    kind: Kind,
    unit: Unit,
    help: &'static str,
    buckets: &'static [f64],
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A name that counts up. Rooms call [`Name::handle`], [`Name::with`] or [`Name::by`] once.
pub type CounterName = Name<Counter>;
/// A name that goes up and down.
pub type GaugeName = Name<Gauge>;
/// A name whose values are distributed.
pub type HistogramName = Name<Histogram>;

/// The name of a metric, and by its type what can be done with it.
#[derive(Debug)]
pub struct Name<H> {
    name: &'static str,
    handle: fn(&Key) -> H,
}

impl<H> Name<H> {
    /// The name as Prometheus sees it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.name
    }

    /// The handle without labels.
    #[must_use]
    pub fn handle(&self) -> H {
        (self.handle)(&Key::from_static_name(self.name))
    }

    /// The handle with these labels.
    #[must_use]
    pub fn with(&self, labels: &[(&'static str, &'static str)]) -> H {
        let labels: Vec<Label> =
            labels.iter().map(|(name, value)| Label::from_static_parts(name, value)).collect();
        (self.handle)(&Key::from_parts(self.name, labels))
    }

    /// The handle with these labels, whose values are known when it is made: few, or the caller sees to that.
    #[must_use]
    pub fn of_each(&self, labels: &[(&'static str, String)]) -> H {
        let labels: Vec<Label> =
            labels.iter().map(|(name, value)| Label::new(*name, value.clone())).collect();
        (self.handle)(&Key::from_parts(self.name, labels))
    }

    /// One handle for each value of a label, beside labels that all of them carry; and one more, `other`, for a
    /// value that is none of them.
    #[must_use]
    pub fn by(
        &self,
        label: &'static str,
        values: &[&'static str],
        also: &[(&'static str, &'static str)],
    ) -> Family<H> {
        let make = |value| {
            let labels: Vec<_> = also.iter().copied().chain([(label, value)]).collect();
            self.with(&labels)
        };
        Family { handles: values.iter().map(|value| (*value, make(*value))).collect(), other: make("other") }
    }

    /// The same, each handle made when it is first asked for, beside one label that all of them carry.
    #[must_use]
    pub fn by_use(
        self,
        label: &'static str,
        values: &[&'static str],
        also: (&'static str, &'static str),
    ) -> SparseFamily<H> {
        let handles = values.iter().map(|value| (*value, OnceLock::new())).collect();
        SparseFamily { name: self, label, also, handles, other: OnceLock::new() }
    }
}

/// Handles of one metric by the value of one label. Finding one allocates nothing.
#[derive(Debug)]
pub struct Family<H> {
    handles: Box<[(&'static str, H)]>,
    other: H,
}

impl<H> Family<H> {
    /// The handle of a value.
    #[must_use]
    pub fn of(&self, value: &str) -> &H {
        self.handles.iter().find(|(known, _)| *known == value).map_or(&self.other, |(_, handle)| handle)
    }
}

/// The same where most values never come: a series is there from its first use on, so that `/metrics` does not show
/// hundreds of zeros. Finding one that was used before allocates nothing.
#[derive(Debug)]
pub struct SparseFamily<H> {
    name: Name<H>,
    label: &'static str,
    also: (&'static str, &'static str),
    handles: Box<[(&'static str, OnceLock<H>)]>,
    other: OnceLock<H>,
}

impl<H> SparseFamily<H> {
    /// The handle of a value.
    pub fn of(&self, value: &str) -> &H {
        let known = self.handles.iter().find(|(known, _)| *known == value);
        let (value, handle) = known.map_or(("other", &self.other), |(value, handle)| (*value, handle));
        handle.get_or_init(|| self.name.with(&[self.also, (self.label, value)]))
    }
}

fn counter(key: &Key) -> Counter {
    metrics::with_recorder(|recorder| recorder.register_counter(key, &metadata()))
}

fn gauge(key: &Key) -> Gauge {
    metrics::with_recorder(|recorder| recorder.register_gauge(key, &metadata()))
}

fn histogram(key: &Key) -> Histogram {
    metrics::with_recorder(|recorder| recorder.register_histogram(key, &metadata()))
}

const fn metadata() -> Metadata<'static> {
    Metadata::new(module_path!(), Level::INFO, None)
}

macro_rules! table {
    ($($(#[doc = $help:literal])* $name:ident: $kind:ident $text:literal, $unit:ident $(, $buckets:ident)?;)*) => {
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
            buckets: table!(@buckets $($buckets)?),
        }),*];
    };
    (@name Counter) => { CounterName };
    (@name Gauge) => { GaugeName };
    (@name Histogram) => { HistogramName };
    (@handle Counter) => { counter };
    (@handle Gauge) => { gauge };
    (@handle Histogram) => { histogram };
    (@buckets) => { &[] };
    (@buckets $buckets:ident) => { $buckets };
}

table! {
    /// Always 1; the label `version` tells the build.
    BUILD_INFO: Gauge "hearth_build_info", Count;

    // The process.
    /// How often the runtime stood still for a second and more.
    RUNTIME_STALLS: Counter "hearth_runtime_stalls_total", Count;
    /// How long it stood still, each time.
    RUNTIME_STALL_SECONDS: Histogram "hearth_runtime_stall_seconds", Seconds, SECONDS;
    /// Tasks that must live and have not come round for five seconds and more, though they have work.
    VITAL_TASKS_LATE: Gauge "hearth_vital_tasks_late", Count;
    /// 1 while this alarm of the anomaly watch is on, by `name`.
    ALARM: Gauge "hearth_alarm", Count;

    // Gate.
    /// Links that are open, those in their handshake included.
    LINKS_OPEN: Gauge "hearth_links_open", Count;
    /// Whole days until the TLS certificate runs out; below zero after it has.
    TLS_CERTIFICATE_DAYS_LEFT: Gauge "hearth_tls_certificate_days_left", Count;
    /// 1 while the server is closed for maintenance.
    MAINTENANCE: Gauge "hearth_maintenance", Count;
    /// Handshakes that came to nothing, by `reason`.
    HANDSHAKE_FAILURES: Counter "hearth_handshake_failures_total", Count;
    /// Closed links, by close `code`.
    CLOSES: Counter "hearth_closes_total", Count;

    // Sessions.
    /// Sessions by `state`: attached, detached, pending.
    SESSIONS: Gauge "hearth_sessions", Count;
    /// Logins by `outcome`: ok, or an error code.
    LOGINS: Counter "hearth_logins_total", Count;
    /// Resumes by `outcome`: ok, missed, rolled_back, or an error code.
    RESUMES: Counter "hearth_resumes_total", Count;
    /// Commands by `op` and `outcome`: ok, later (the answer waits for something), dup, or an error code. What is refused
    /// only then is counted once more, under the op `later`.
    COMMANDS: Counter "hearth_commands_total", Count;
    /// From a command's frame to its ack, by `level`: applied (of every sixteenth wake-up of a link), durable.
    ACK_SECONDS: Histogram "hearth_ack_seconds", Seconds, SECONDS;
    /// Refused for being too fast, by `kind`: frame, state, presence, watch, query, send, room, connect, login, service.
    RATE_LIMITED: Counter "hearth_rate_limited_total", Count;

    // Home and store.
    /// Player records in memory.
    RECORDS_HOT: Gauge "hearth_records_hot", Count;
    /// Player records that wait for their commit.
    RECORDS_DIRTY: Gauge "hearth_records_dirty", Count;
    /// For how long the oldest change of a player record has waited for its commit.
    FLUSH_LAG_SECONDS: Gauge "hearth_flush_lag_seconds", Seconds;
    /// Shards by `state` of their lease.
    SHARDS: Gauge "hearth_shards", Count;
    /// Shards that this node serves now.
    SHARDS_SERVING: Gauge "hearth_shards_serving", Count;
    /// Shards held here whose store is away or takes no changes: what is acked of them is provisional.
    SHARDS_HELD_BACK: Gauge "hearth_shards_held_back", Count;
    /// Shards that this node began to serve.
    SHARDS_TAKEN: Counter "hearth_shards_taken_total", Count;
    /// Shards that were handed over to other nodes.
    SHARDS_GIVEN: Counter "hearth_shards_given_total", Count;
    /// Shards that other nodes were granted while this one held them.
    SHARDS_LOST: Counter "hearth_shards_lost_total", Count;
    /// Shards taken of which the store knew nothing, long after the cluster was founded: it has lost its data, and whatever
    /// no node had in memory of them is gone.
    SHARDS_BLANK: Counter "hearth_shards_blank_total", Count;
    /// Resumes of sessions that are gone because the store lost its data: refused with `not_resumable` and `lost`.
    SESSIONS_LOST: Counter "hearth_sessions_lost_total", Count;
    /// Shards whose players were paused because the lease had run out; those that are served from memory (`local`) count once
    /// that ends without an answer of the store.
    LEASES_RUN_OUT: Counter "hearth_leases_run_out_total", Count;
    /// Records a commit carried.
    FLUSH_BATCH_RECORDS: Histogram "hearth_flush_batch_records", Count, RECORDS;
    /// How long a commit took, by `outcome`, with those of other shards that were sent together with it.
    COMMIT_SECONDS: Histogram "hearth_commit_seconds", Seconds, SECONDS;
    /// Commits by `outcome`: done, fenced, stale, rolled_back, lost, unknown (no answer, or a refusal), or held_back (not sent).
    COMMITS: Counter "hearth_commits_total", Count;

    // Reads of players who are not in memory.
    /// Looks at players who are not in memory, at their homes, by `outcome`: filtered (never seen, by the filter), cached
    /// (kept from a read before), negative (the same, and nothing is stored), joined (somebody else was just asking the store)
    /// or stored (the store was asked).
    COLD_READS: Counter "hearth_cold_reads_total", Count;
    /// Looks that the filter of players ever seen let pass, and of whom the store knew nothing: never seen, or forgotten.
    FILTER_FALSE_POSITIVES: Counter "hearth_filter_false_positives_total", Count;
    /// The share of players never seen who pass the fullest shard's filter, by how full it is.
    FILTER_PASSES: Gauge "hearth_filter_passes_wrongly", Count;

    /// Players at home elsewhere who were looked for in what is kept near, by `outcome`: fresh, stale (served while it is loaded
    /// anew), negative (of these, those of whom nothing is known), joined (somebody else was just asking the home) or loaded (the
    /// home was asked).
    NEAR_READS: Counter "hearth_near_reads_total", Count;
    /// Answers of homes that a change had overtaken on their way: not kept, and asked for again.
    NEAR_OVERTAKEN: Counter "hearth_near_overtaken_total", Count;
    /// Players of whom other nodes were told that what they keep near is not so any more, by `why`: change, again (the same once
    /// more) or room (more are kept than may).
    NEAR_INVALIDATIONS: Counter "hearth_near_invalidations_total", Count;
    /// Players of this node whom other nodes keep near, or did a moment ago.
    NEAR_KEPT_BY_OTHERS: Gauge "hearth_near_kept_by_others", Count;

    // Store.
    /// What the breaker of each of the store's servers, its `endpoint`, does: 0 closed (all is well), 1 ramp (few commits at a time), 2 half_open (one probe at a time), 3 open (held back).
    STORE_BREAKER_STATE: Gauge "hearth_store_breaker_state", Count;
    /// Changes of a breaker, by `endpoint` and the `state` that it went to.
    STORE_BREAKER_TURNS: Counter "hearth_store_breaker_turns_total", Count;
    /// Calls that a breaker held back, by `endpoint`: nothing was sent.
    STORE_CALLS_HELD_BACK: Counter "hearth_store_calls_held_back_total", Count;

    // Cluster.
    /// Live nodes, this one among them, as the store last told.
    MEMBERS: Gauge "hearth_members", Count;
    /// Nodes that are gone, by `how`: left in order, or vanished (killed, cut off, stuck).
    MEMBERS_GONE: Counter "hearth_members_gone_total", Count;
    /// Links to other nodes that stand.
    PEER_LINKS: Gauge "hearth_peer_links", Count;
    /// Live nodes to which no link has stood for five seconds and more.
    PEERS_UNREACHED: Gauge "hearth_peers_unreached", Count;
    /// For how long letters to the slowest other node have waited to be seen there.
    PEER_MAIL_LAG_SECONDS: Gauge "hearth_peer_mail_lag_seconds", Seconds;
    /// Clients that are carried from here to their home on another node.
    RELAYED_OPEN: Gauge "hearth_relayed_links_open", Count;
    /// Sessions whose home is another node now, by `how` their shard went: given, or lost.
    SESSIONS_MOVED: Counter "hearth_sessions_moved_total", Count;

    // Presence and delivery.
    /// Presence items encoded for fan-out.
    FANOUT_ITEMS: Counter "hearth_fanout_items_total", Count;
    /// Frames put into outboxes by fan-out.
    FANOUT_DELIVERIES: Counter "hearth_fanout_deliveries_total", Count;
    /// Pushes joined with a later one, because the reader was slow or the tick had not come.
    PUSHES_COALESCED: Counter "hearth_pushes_coalesced_total", Count;
    /// Pushes that fell out of a replay buffer or an outbox, and were told as missed.
    PUSHES_DROPPED: Counter "hearth_pushes_dropped_total", Count;
    /// Rooms with members.
    ROOMS: Gauge "hearth_rooms", Count;
    /// Members of all rooms; one for each room that a player is in.
    ROOM_MEMBERS: Gauge "hearth_room_members", Count;
    /// Pushes of rooms, encoded once each, by `kind`: diff, count (of a diff that was too large), snapshot, message.
    ROOM_PUSHES: Counter "hearth_room_pushes_total", Count;
    /// Frames put into outboxes for rooms.
    ROOM_DELIVERIES: Counter "hearth_room_deliveries_total", Count;
    /// What the room with most of them made of all frames put into outboxes in the last ten seconds, 0 to 1.
    ROOM_HOTTEST_SHARE: Gauge "hearth_room_hottest_share", Count;
    /// Shards taken again, and written anew from memory, because the store lost writes. What no node had in memory (messages
    /// kept for players who are away, above all) is gone if the store lost it.
    REPAIRS: Counter "hearth_repairs_total", Count;
    /// Records that the home before had and the store perhaps had not, by `outcome`: taken, stored (the store had it),
    /// another (what is stored is of another line, and counts), refused (not to be read, or not ours), late (the shard was
    /// served by then).
    SALVAGED_RECORDS: Counter "hearth_salvaged_records_total", Count;
    /// Shards of which the home before was asked for what the store does not have, by `outcome`: done, late (not all came in time), failed.
    PULLS: Counter "hearth_pulls_total", Count;
    /// Links closed for reading too slowly.
    SLOW_CLOSES: Counter "hearth_slow_closes_total", Count;

    // Service API.
    /// Services that follow the events of this node.
    EVENT_CONSUMERS: Gauge "hearth_event_consumers", Count;
    /// How long ago what is told next to the one of them that is furthest behind happened; 0 when all has been told.
    EVENTS_LAG_SECONDS: Gauge "hearth_events_lag_seconds", Seconds;
    /// Events told, to all of them together.
    EVENTS_TOLD: Counter "hearth_events_told_total", Count;
    /// How often events were missing between where one of them stood and what came next, and that was said.
    EVENT_GAPS: Counter "hearth_event_gaps_total", Count;
    /// Requests of services by `route` and `status`.
    SERVICE_REQUESTS: Counter "hearth_service_requests_total", Count;
    /// How long they took, by `route`.
    SERVICE_REQUEST_SECONDS: Histogram "hearth_service_request_seconds", Seconds, SECONDS;
    /// Calls that wait for a lock at this node.
    LOCK_WAITERS: Gauge "hearth_lock_waiters", Count;
    /// How often calls that wait asked the store for their lock: once for all who wait for the same.
    LOCK_LOOKS: Counter "hearth_lock_looks_total", Count;
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
pub struct Recorded(PrometheusHandle);

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorded")
    }
}

impl Recorded {
    /// Of a process that counts nothing: handles do nothing, and there is nothing to render.
    #[must_use]
    pub fn nothing() -> Self {
        Self(PrometheusBuilder::new().build_recorder().handle())
    }

    /// Everything in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Takes the samples of histograms into their buckets. Without it, or a [`Recorded::render`], they pile up: call
    /// it every few seconds.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
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
    let recorded = Recorded(recorder.handle());
    metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Taken)?;
    describe();
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
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_convention() {
        let mut names: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len(), "a name stands twice");
        for row in TABLE {
            let plain = row.name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            assert!(plain && row.name.starts_with("hearth_"), "{}", row.name);
            assert!(!row.help.is_empty(), "{} says nothing", row.name);
            assert_eq!(matches!(row.kind, Kind::Counter), row.name.ends_with("_total"), "{}", row.name);
            assert_eq!(matches!(row.unit, Unit::Seconds), row.name.ends_with("_seconds"), "{}", row.name);
            assert_eq!(matches!(row.kind, Kind::Histogram), !row.buckets.is_empty(), "{}", row.name);
        }
    }

    #[test]
    fn what_is_recorded_is_rendered() {
        let recorder = builder().expect("a good table").build_recorder();
        let recorded = Recorded(recorder.handle());
        metrics::with_local_recorder(&recorder, || {
            describe();
            LINKS_OPEN.handle().set(3.0);
            let commands = COMMANDS.by("op", &["state.patch", "ping"], &[("outcome", "ok")]);
            commands.of("state.patch").increment(2);
            commands.of("no.such.op").increment(1);
            ACK_SECONDS.with(&[("level", "durable")]).record(0.003);
        });
        recorded.upkeep();
        let text = recorded.render();
        for line in [
            "# TYPE hearth_links_open gauge",
            "# HELP hearth_links_open Links that are open, those in their handshake included.",
            "hearth_links_open 3",
            "hearth_commands_total{outcome=\"ok\",op=\"state.patch\"} 2",
            "hearth_commands_total{outcome=\"ok\",op=\"other\"} 1",
            "hearth_ack_seconds_bucket{level=\"durable\",le=\"0.002\"} 0",
            "hearth_ack_seconds_bucket{level=\"durable\",le=\"0.005\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_process_has_one_recorder() {
        let (one, other) = (install().expect("a recorder"), install().expect("the same"));
        let build = concat!("hearth_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1");
        for recorded in [one, other] {
            assert!(recorded.render().contains(build), "{}", recorded.render());
        }
    }
}
