//! For other backends: the HTTP API of game services, and what operators look at. `app` builds it and hands it the
//! rooms below; `serve` runs it on its own port. Never reached by players; changes records only through `home`.

mod alarms;
mod audit;
mod bans;
mod blobs;
mod body;
mod broadcast;
mod calls;
mod checkpoint;
mod cluster;
pub mod console;
mod consumers;
mod counters;
mod door;
mod events;
mod following;
mod fresh;
mod health;
mod keys;
mod kick;
mod leavers;
mod lines;
mod locks;
mod log;
mod maintenance;
mod messages;
mod onward;
mod openapi;
mod others;
mod overview;
mod pace;
mod players;
mod problem;
mod query;
mod repeats;
mod ringing;
mod rooms;
mod serve;
mod sessions;
mod shares;
mod state;
mod stats;
mod timeline;
mod traced;
mod watches;
mod words;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware;
use protocol::ErrorCode;
use protocol::calls::{Overview, Readiness, Stats};

pub use blobs::BlobBounds;
pub use keys::{GeneratedKey, Key, Keys, Scope, generate as generate_key};
pub use lines::LineBounds;
pub use onward::Counter;
pub use openapi::openapi;
pub use serve::serve;

use crate::clock;
use crate::cluster::Links;
use crate::events::Coalescing;
use crate::home::record::Record;
use crate::home::{Cell, Home, HomeError, Shortfall};
use crate::hub::Hub;
use crate::ids::{SessionId, Stamp};
use crate::limits::KeyLimits;
use crate::limits::allowance::Allowances;
use crate::maintenance::Maintenance;
use crate::presence::Presence;
use crate::tasks::Tasks;
use crate::telemetry::watch::Board;
use crate::wire::wire_stamp;
use fresh::Fresh;
use problem::Problem;

/// Most bytes of a request's body.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// What the room needs to know.
pub struct ServiceSettings {
    /// This node's name.
    pub node_id: String,
    /// Where clients connect: what a service-made session is told to be resumed at.
    pub client_url: String,
    /// Who may call.
    pub keys: Keys,
    /// How long the credentials of a service-made session last without a `refresh`: the service vouched for the
    /// player once, as a token would have.
    pub credentials_ttl: Duration,
    /// What checkpoints of this cluster are told by from those of others.
    pub cluster_mark: u32,
    /// How large blobs may be.
    pub blobs: BlobBounds,
    /// How many calls may wait for locks.
    pub lock_waiters: LineBounds,
    /// How many may follow the events of this node.
    pub event_consumers_max: usize,
    /// What the watch sees of this node.
    pub board: Arc<Board>,
    /// What the store's settings fall short of, as last found.
    pub store_shortfalls: Box<dyn Fn() -> Vec<Shortfall> + Send + Sync>,
    /// What else falls short, now: files that cannot be read, a certificate that runs out.
    pub shortfalls_now: Box<dyn Fn() -> Vec<Shortfall> + Send + Sync>,
}

/// How the process is, as `app` knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It serves.
    Well,
    /// It has been asked to stop, and still answers.
    Stopping,
    /// It serves, but a task that must live does not come round.
    Late {
        /// Its name.
        task: &'static str,
        /// For how long.
        ms: u64,
    },
    /// It serves those who are here, and cannot take anybody in: it has no descriptor left.
    Full,
    /// A vital task has died: nothing may be answered.
    Failed,
}

/// The room.
pub struct Service {
    settings: ServiceSettings,
    home: Arc<Home>,
    hub: Arc<Hub>,
    presence: Arc<Presence>,
    peers: Arc<Links>,
    limits: KeyLimits,
    allowances: Allowances,
    metrics: Box<dyn Fn() -> String + Send + Sync>,
    condition: Box<dyn Fn() -> Condition + Send + Sync>,
    started_at_ms: u64,
    meters: door::Meters,
    repeats: repeats::Repeats,
    /// Held while a message to many is given to those at home here.
    shelved: tokio::sync::Mutex<shares::Shelved>,
    maintenance: Arc<Maintenance>,
    /// Whether the store has not been told yet what is in force. Held while it is told.
    notice_owed: tokio::sync::Mutex<bool>,
    /// Another node's word was taken: the store is told once more.
    notice_stale: AtomicBool,
    /// Whom sessions watch by a service's word and could not be told of yet.
    looks_owed: Coalescing<SessionId, watches::LooksOwed>,
    /// Who follows the events.
    consumers: Arc<consumers::Consumers>,
    /// What rings, for them.
    ringing: Fresh<ringing::Ringing>,
    stats: Fresh<Stats>,
    overview: Fresh<Overview>,
    /// What this node says in it, to itself and to others.
    part: Fresh<overview::Part>,
    readiness: Fresh<Readiness>,
    probes: Arc<health::Probes>,
    blob_turns: Arc<tokio::sync::Semaphore>,
    /// As many: those whose body is still arriving.
    blob_uploads: Arc<tokio::sync::Semaphore>,
    lines: Arc<lines::Lines>,
    lock_releases: Arc<tokio::sync::Semaphore>,
    log: log::Loan,
    tasks: Tasks,
    /// Those of answers that have no end of their own.
    counter: Tasks,
}

impl Service {
    /// Builds the room. `metrics` renders what `/metrics` answers, `condition` says how the process is; `counter` are the
    /// tasks that end before answers do.
    #[must_use]
    #[allow(clippy::too_many_arguments, reason = "the composition root hands each room below, once")]
    pub fn new(
        settings: ServiceSettings,
        home: Arc<Home>,
        hub: Arc<Hub>,
        presence: Arc<Presence>,
        peers: Arc<Links>,
        (limits, allowances): (KeyLimits, Allowances),
        maintenance: Arc<Maintenance>,
        metrics: Box<dyn Fn() -> String + Send + Sync>,
        condition: Box<dyn Fn() -> Condition + Send + Sync>,
        (tasks, counter): (Tasks, Tasks),
    ) -> Arc<Self> {
        let event_consumers_max = settings.event_consumers_max;
        Arc::new(Self {
            blob_turns: Arc::new(tokio::sync::Semaphore::new(settings.blobs.in_flight_max)),
            blob_uploads: Arc::new(tokio::sync::Semaphore::new(settings.blobs.in_flight_max)),
            lines: lines::Lines::new(settings.lock_waiters),
            lock_releases: Arc::new(tokio::sync::Semaphore::new(locks::RELEASES_MAX)),
            log: log::Loan::default(),
            settings,
            home,
            hub,
            presence,
            peers,
            limits,
            allowances,
            metrics,
            condition,
            started_at_ms: clock::now().mono_ms,
            meters: door::Meters::of(route::ALL),
            repeats: repeats::Repeats::default(),
            shelved: tokio::sync::Mutex::default(),
            maintenance,
            notice_owed: tokio::sync::Mutex::default(),
            notice_stale: AtomicBool::new(false),
            looks_owed: Coalescing::default(),
            consumers: Arc::new(consumers::Consumers::new(event_consumers_max)),
            ringing: Fresh::default(),
            stats: Fresh::default(),
            overview: Fresh::default(),
            part: Fresh::default(),
            readiness: Fresh::default(),
            probes: Arc::default(),
            tasks,
            counter,
        })
    }

    /// Waits until a change that took effect at `stamp` is durable.
    async fn durable(&self, cell: &Arc<Cell>, stamp: Stamp) -> Result<(), Problem> {
        match self.home.durable(cell).await {
            Ok(()) => Ok(()),
            Err(HomeError::NotDurable) => {
                Err(Problem::applied_only(wire_stamp(stamp), cell.shard().not_stored()))
            }
            // A record whose last session ended leaves memory with its commit: gone under its own epoch is committed.
            Err(HomeError::NotHome { .. }) if self.left_with_its_commit(cell, stamp) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until replicas have a change that took effect at `stamp` and is durable.
    async fn replicated(&self, cell: &Cell, stamp: Stamp) -> Result<(), Problem> {
        let asked = self.home.replicated(cell, stamp).await;
        asked.map_err(|error| Problem::applied_only(wire_stamp(stamp), error.to_string()))
    }

    /// Waits until the end of a session is durable, so that no crash brings it back.
    async fn durable_end(&self, cell: &Arc<Cell>) -> Result<(), Problem> {
        match cell.read(Record::stamp) {
            Some(stamp) => self.durable(cell, stamp).await,
            // It left memory already, which it does with its commit.
            None => Ok(self.home.may_answer(cell.player())?),
        }
    }

    fn left_with_its_commit(&self, cell: &Cell, stamp: Stamp) -> bool {
        let same_epoch = cell.shard().fence().is_some_and(|fence| fence.epoch == stamp.epoch);
        same_epoch && cell.read(|_| ()).is_none() && self.home.may_answer(cell.player()).is_ok()
    }
}

/// The paths of the API, as metrics name them.
mod route {
    pub(super) const SESSIONS: &str = "/v1/sessions";
    pub(super) const SESSION: &str = "/v1/sessions/{session}";
    pub(super) const PLAYER: &str = "/v1/players/{player}";
    pub(super) const TIMELINE: &str = "/v1/players/{player}/timeline";
    pub(super) const STATE: &str = "/v1/players/{player}/state";
    pub(super) const MESSAGES: &str = "/v1/players/{player}/messages";
    pub(super) const KICK: &str = "/v1/players/{player}/kick";
    pub(super) const BAN: &str = "/v1/players/{player}/ban";
    pub(super) const WATCHES: &str = "/v1/players/{player}/watches";
    pub(super) const BLOB: &str = "/v1/players/{player}/blobs/{name}";
    pub(super) const ROOM: &str = "/v1/rooms/{room}";
    pub(super) const ROOM_MEMBER: &str = "/v1/rooms/{room}/members/{player}";
    pub(super) const ROOM_MESSAGES: &str = "/v1/rooms/{room}/messages";
    pub(super) const QUERY: &str = "/v1/presence/query";
    pub(super) const BROADCAST: &str = "/v1/messages";
    pub(super) const EVENTS: &str = "/v1/events";
    pub(super) const MAINTENANCE: &str = "/v1/maintenance";
    pub(super) const LOCK: &str = "/v1/locks/{name}";
    pub(super) const COUNTER: &str = "/v1/counters/{name}";
    pub(super) const STATS: &str = "/v1/stats";
    pub(super) const CLUSTER: &str = "/v1/cluster";
    pub(super) const OVERVIEW: &str = "/v1/overview";
    pub(super) const LOG: &str = "/v1/log";
    pub(super) const HEALTHZ: &str = "/healthz";
    pub(super) const READYZ: &str = "/readyz";
    pub(super) const METRICS: &str = "/metrics";
    pub(super) const OPENAPI: &str = "/v1/openapi.json";
    pub(super) const OPENAPI_ROOT: &str = "/openapi.json";

    /// All of them.
    pub(super) const ALL: &[&str] = &[
        SESSIONS,
        SESSION,
        PLAYER,
        TIMELINE,
        STATE,
        MESSAGES,
        KICK,
        BAN,
        WATCHES,
        BLOB,
        ROOM,
        ROOM_MEMBER,
        ROOM_MESSAGES,
        QUERY,
        BROADCAST,
        EVENTS,
        MAINTENANCE,
        LOCK,
        COUNTER,
        STATS,
        CLUSTER,
        OVERVIEW,
        LOG,
        HEALTHZ,
        READYZ,
        METRICS,
        OPENAPI,
        OPENAPI_ROOT,
    ];
    /// Those that need no key: what probes, scrapers and generators of clients ask.
    pub(super) const OPEN: &[&str] = &[HEALTHZ, READYZ, METRICS, OPENAPI, OPENAPI_ROOT];
}

/// The API and the operators' console as a router, without a socket.
pub fn router(service: Arc<Service>) -> Router {
    calls::router()
        .merge(console::router())
        .method_not_allowed_fallback(async || {
            Problem::bad_request("this path does not take this method")
                .with_status(StatusCode::METHOD_NOT_ALLOWED)
        })
        .fallback(async || Problem::new(ErrorCode::NotFound, "no such path"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&service), door::enter))
        .with_state(service)
}

#[cfg(test)]
mod tests;
