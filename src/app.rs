//! The composition root: builds the rooms bottom-up, tells where they are, and stops them top-down in the mirrored
//! order. `cli` calls it; nobody else sees it. Holds no policy: every decision is a setting or a room's.

mod ending;
mod homes;
mod outside;
pub mod settings;
mod shortfalls;
mod sight;
mod stored;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use ending::ServeError;
use homes::{homes, neighbours};
use outside::{Outside, shortfalls_of};
use shortfalls::Shortfalls;
use sight::Sight;
use stored::Stored;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;

use crate::clock;
use crate::cluster::pass::ClusterKey;
use crate::cluster::{Correspondent, Links, Members, Topic};
use crate::config::Settings;
use crate::events::Events;
use crate::files;
use crate::gate::auth::{AuthError, Authenticator};
use crate::gate::inside::Inside;
use crate::gate::listener::{Gate, Meters};
use crate::gate::origin::OriginPolicy;
use crate::gate::peers::Peers;
use crate::gate::tls::Certificates;
use crate::home::record;
use crate::home::{Fallen, HandOver, Home, MOVED_WITHIN};
use crate::hub::Hub;
use crate::limits::allowance::Allowances;
use crate::limits::{AddressLimits, Culprits, Descriptors, KeyLimits, Rates};
use crate::presence::Presence;
use crate::service::{self, Condition, Counter, Keys, Service, ServiceSettings, console};
use crate::session::{Sessions, TokenCheck, TokenRefused};
use crate::store::{Formats, Store};
use crate::tasks::{Cause, Tasks, Vitals};
use crate::telemetry;
use crate::telemetry::metrics::Recorded;
use crate::telemetry::traces::{self, Collector, TraceSettings};
use crate::telemetry::watch::Board;
use crate::watchdog::{Late, Watchdog, WatchdogSettings};

/// How long a `durable` ack waits for the store before it is refused.
const DURABLE_WAIT: Duration = Duration::from_secs(2);
/// How long the start waits for the leases of an owner that is still there, beyond one lease TTL.
const OWNED_WAIT: Duration = Duration::from_secs(4);
/// How often a node that serves nothing yet looks whether it does.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long company has to leave.
const COMPANY_STOP: Duration = Duration::from_secs(5);
/// How long links have to say goodbye.
const LINKS_STOP: Duration = Duration::from_secs(3);
/// How long the last flush may take.
const FLUSH_STOP: Duration = Duration::from_secs(5);
/// How long everything else may take to stop.
const TASKS_STOP: Duration = Duration::from_secs(1);
/// How long a node that is not to be trusted any more gives other nodes what is here.
const FALL: Duration = Duration::from_secs(5);
/// How long that may take in all, before the watchdog ends the process.
const FALL_MAX: Duration = Duration::from_secs(12);
/// How long the runtime may take to stop: whatever still hangs in it then is left behind.
const RUNTIME_STOP: Duration = Duration::from_secs(1);
/// How long a session that a service made lasts without a `refresh`.
const CREDENTIALS_TTL: Duration = Duration::from_secs(24 * 3600);
/// The storage formats that this version reads and writes.
const FORMATS: Formats =
    Formats { min: record::stored::FORMAT, max: record::stored::FORMAT, writes: record::stored::FORMAT };

/// Where a server has come to listen.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Where clients connect.
    pub clients: String,
    /// Where services call.
    pub services: String,
}

/// What lives beside the server in the same process, and goes before it.
///
/// It is told where the server listens, and where to come in without a socket.
pub type Company = Box<dyn FnOnce(&Addresses, Arc<Inside>, &Tasks) + Send>;

/// Everything that would stop [`serve`] and can be told without listening anywhere or asking anybody: what is wrong with
/// files of keys and certificates, and with how the store is named. A line each.
#[must_use]
pub fn faults(settings: &Settings) -> Vec<String> {
    [
        Authenticator::from_settings(settings).err().map(|error| error.to_string()),
        Keys::from_settings(settings).err().map(|error| error.to_string()),
        Certificates::from_settings(&settings.tls).err().map(|error| error.to_string()),
        outside::collector(settings).err().map(|error| error.to_string()),
        stored::check_store(settings).err().map(|error| error.to_string()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Runs the server until it is asked to stop (SIGTERM, SIGINT).
///
/// # Errors
/// [`ServeError`] says what to do, in one line.
pub fn serve(settings: Settings) -> Result<(), ServeError> {
    serve_with(settings, Box::new(|_, _, _| {}))
}

/// The same, with company.
///
/// # Errors
/// [`ServeError`] says what to do, in one line.
pub fn serve_with(settings: Settings, company: Company) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| ServeError::Start(error.to_string()))?;
    let ended = runtime.block_on(async {
        // Before anybody is told that the server is ready: a stop that comes at that moment must be an orderly one.
        let asked_to_stop = AskedToStop::listen()?;
        let house = House::build(settings).await?;
        let begun = || {
            house.announce();
            company(&house.addresses(), Arc::clone(&house.inside), &house.company);
        };
        let node = house.node.clone();
        let why = house.live(asked_to_stop, begun).await;
        if let Why::Failed(cause) = why {
            house.fall().await;
            return Err(ServeError::Failed(cause));
        }
        match (house.stop(matches!(why, Why::Asked)).await, why) {
            (false, _) => Err(ServeError::Unflushed),
            (true, Why::Superseded) => Err(ServeError::Superseded { node }),
            (true, _) => Ok(()),
        }
    });
    runtime.shutdown_timeout(RUNTIME_STOP);
    ended
}

/// Why the house lives no longer.
enum Why {
    /// A signal came.
    Asked,
    /// A newer process has this node's name.
    Superseded,
    /// Nothing here is to be trusted any more.
    Failed(Cause),
}

/// Every room, with the tasks of each floor.
struct House {
    settings: Settings,
    node: String,
    store: Arc<dyn Store>,
    members: Arc<Members>,
    home: Arc<Home>,
    sessions: Arc<Sessions>,
    client_addr: SocketAddr,
    service_addr: SocketAddr,
    /// Where other nodes are told to connect, where there can be any.
    peer_addr: Option<String>,
    /// Shards that were not ours yet when the start had waited long enough.
    waiting: usize,
    /// Where company comes in.
    inside: Arc<Inside>,
    /// What is not the server's own.
    company: Tasks,
    /// The service API.
    counter: Tasks,
    /// The accept loop.
    door: Tasks,
    /// Handshakes and links.
    links: Tasks,
    /// Notices, fan-out, pulse.
    upper: Tasks,
    /// Home.
    lower: Tasks,
    /// The runtime's pulse: until the very end.
    cellar: Tasks,
    _watchdog: Arc<Watchdog>,
}

/// Hears SIGTERM and SIGINT from the moment it is made.
struct AskedToStop {
    terminate: Signal,
    interrupt: Signal,
}

impl AskedToStop {
    fn listen() -> Result<Self, ServeError> {
        let hear = |kind| signal(kind).map_err(|error| ServeError::Start(error.to_string()));
        Ok(Self { terminate: hear(SignalKind::terminate())?, interrupt: hear(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! { _ = self.terminate.recv() => {} _ = self.interrupt.recv() => {} }
    }
}

impl House {
    async fn build(settings: Settings) -> Result<Self, ServeError> {
        // One statement a room, bottom-up. Metrics come before any room makes its handles.
        let recorded = recorded(&settings)?;
        let outside = Outside::from_settings(&settings)?;
        let vitals = Vitals::default();
        let [door, links, counter, upper, lower, cellar] = [(); 6].map(|()| Tasks::under(&vitals));
        let watchdog = watchdog(&settings, &cellar)?;
        let Stored { store, shortfalls, cluster, maintenance } = Stored::open(&settings, &vitals).await?;
        let events = Arc::new(Events::default());
        let node = settings.node_name(outside.client_addr.port());
        telemetry::logs::name_node(&node);
        if let Some(collector) = outside.collector {
            export_traces(&settings, collector, &node, &cellar)?;
        }
        let url = client_url(&settings, outside.client_addr);
        let key = ClusterKey::from_secret(&cluster.ticket_secret).ok_or_else(|| {
            ServeError::Cluster("the cluster's ticket secret is shorter than 16 bytes".into())
        })?;
        let cluster_mark = key.mark();
        let peer_addr = outside.peer_addr;
        let members = stored::join(&settings, &node, (url, peer_addr.clone()), &store, &lower).await?;
        let peer_links = Links::new(key.clone(), Arc::clone(&members), &lower);
        let hub = Hub::start(settings::hub_settings(&settings), &upper);
        let home = Home::start(
            settings::home_settings(&settings),
            cluster,
            Arc::clone(&members),
            Arc::clone(&store),
            Arc::clone(&events),
            neighbours(&settings, &peer_links, &hub),
            lower.clone(),
        )
        .map_err(ServeError::Cluster)?;
        let presence = Presence::start(
            Arc::clone(&hub),
            Arc::clone(&events),
            settings::room_settings(&settings),
            settings::room_ground(&home),
            homes(&settings, &peer_links, &home),
            &upper,
        );
        let sessions = Sessions::start(
            settings::session_settings(&settings, &node),
            Arc::clone(&home),
            Arc::clone(&hub),
            Arc::clone(&presence),
            events,
            Arc::new(Rates::from_settings(&settings.limits)),
            token_check(Arc::clone(&outside.auth)),
            &upper,
        );
        let descriptors = Arc::<Descriptors>::default();
        let addresses = AddressLimits::from_settings(&settings.limits);
        let misbehaving = Arc::<Culprits>::default();
        let culprits = [Arc::clone(addresses.refused()), Arc::clone(&misbehaving)];
        let gate = Gate {
            auth: outside.auth,
            tls: outside.tls,
            maintenance: Arc::clone(&maintenance),
            sessions: Arc::clone(&sessions),
            links: links.clone(),
            upgrade: settings::upgrade(&settings),
            origins: OriginPolicy::from_settings(&settings),
            addresses,
            room: Arc::new(Semaphore::new(settings.link.links_max)),
            handshakes_max: settings.link.handshakes_max,
            descriptors: Arc::clone(&descriptors),
            peers: Peers { me: members.me().clone(), links: Arc::clone(&peer_links), key },
            meters: Meters::default(),
            misbehaving,
        };
        let gate = Arc::new(gate);
        let inside = Arc::new(Inside::new(Arc::clone(&gate), door.clone()));
        door.spawn_vital("accept", Arc::clone(&gate).run(outside.clients, door.clone()));
        let shortfalls = Shortfalls::found(shortfalls);
        upper.spawn("shortfalls", Arc::clone(&shortfalls).watch(Arc::clone(&store), upper.clone()));
        let board = Arc::<Board>::default();
        let sight = Sight {
            recorded: recorded.clone(),
            home: Arc::clone(&home),
            hub: Arc::clone(&hub),
            rooms: Arc::clone(presence.rooms()),
            peers: Arc::clone(&peer_links),
            members: Arc::clone(&members),
            culprits,
            board: Arc::clone(&board),
            trace_boost: settings.alarm.trace_boost.into(),
            tasks: upper.clone(),
        };
        upper.spawn("sight", sight.run(settings::watch_limits(&settings)));
        upper.spawn_vital("upkeep", sight::upkeep(recorded.clone(), upper.clone()));
        let service = Service::new(
            ServiceSettings {
                node_id: node.clone(),
                client_url: client_url(&settings, outside.client_addr),
                keys: outside.keys,
                credentials_ttl: CREDENTIALS_TTL,
                cluster_mark,
                blobs: settings::blob_bounds(&settings),
                lock_waiters: settings::lock_waiters(&settings),
                event_consumers_max: settings.limits.event_consumers_max,
                board,
                store_shortfalls: Box::new(move || shortfalls.now()),
                shortfalls_now: shortfalls_of(outside.watched.clone()),
            },
            Arc::clone(&home),
            Arc::clone(&hub),
            Arc::clone(&presence),
            Arc::clone(&peer_links),
            (KeyLimits::from_settings(&settings.limits), Allowances::from_settings(&settings.limits)),
            maintenance,
            Box::new(move || recorded.render()),
            condition(
                [door.clone(), upper.clone(), lower.clone()],
                Arc::clone(&members),
                Arc::clone(&watchdog),
                Arc::clone(&descriptors),
            ),
            (upper.clone(), counter.clone()),
        );
        upper.spawn_vital("files", files::watch(outside.watched, upper.clone()));
        let mut rooms: Vec<(Topic, Arc<dyn Correspondent>)> =
            vec![(Topic::Service, Counter::of(Arc::clone(&service))), (Topic::Home, home.correspondent())];
        rooms.push((Topic::Store, home.store_correspondent()));
        rooms.extend(presence.correspondent().map(|room| (Topic::Presence, room)));
        rooms.extend(presence.rooms_correspondent().map(|room| (Topic::Rooms, room)));
        peer_links.open(rooms);
        // Not before the rooms are introduced: they must hear of every link.
        if let Some(peers) = outside.peers {
            door.spawn_vital("accept_peers", gate.run_peers(peers, door.clone()));
        }
        at_counter(service, (outside.services, descriptors), &upper, &counter);
        // Last of all: whoever is moved here while others still hold a part finds the doors open.
        let waiting = owned(&settings, &home).await;
        Ok(Self {
            settings,
            node,
            store,
            members,
            home,
            sessions,
            client_addr: outside.client_addr,
            service_addr: outside.service_addr,
            peer_addr,
            waiting,
            inside,
            company: Tasks::new(),
            counter,
            door,
            links,
            upper,
            lower,
            cellar,
            _watchdog: watchdog,
        })
    }

    fn addresses(&self) -> Addresses {
        Addresses {
            clients: client_url(&self.settings, self.client_addr),
            services: format!("http://{}", self.service_addr),
        }
    }

    /// Says where the server is: on standard output for people and scripts, and in the log.
    fn announce(&self) {
        let Addresses { clients, services } = self.addresses();
        let now_ms = clock::now().mono_ms;
        tracing::info!(
            operation = "start",
            node = self.node,
            cluster = self.settings.cluster.name.as_ref().map(|name| name.as_str()),
            clients,
            services,
            peers = self.peer_addr,
            store = self.store.kind(),
            shards = self.home.shards().iter().filter(|shard| shard.serves(now_ms)).count(),
            shards_of_cluster = self.home.shards().len(),
            "serving"
        );
        let dev = if self.settings.dev_tokens_taken() {
            "\n  any token `dev:<player>` logs in (development only)"
        } else {
            ""
        };
        let waits = match self.waiting {
            0 => String::new(),
            waiting => format!(
                "\n  waits for {waiting} of its {} shards, which other nodes hold still",
                self.home.shards_placed().len()
            ),
        };
        // Who closed our standard output does not want to know.
        let _ = writeln!(
            std::io::stdout(),
            "hearth {} is ready\n  clients  {clients}\n  services {services}\n  console  {}\n  store    {}{dev}{waits}",
            env!("CARGO_PKG_VERSION"),
            console::address(&services),
            self.settings.store,
        );
    }

    /// Waits until this node serves anything, and says so if that takes long: another node has the store.
    async fn serving(&self) {
        let shards = self.home.shards_placed().len();
        if self.waiting < shards || shards == 0 {
            return;
        }
        tracing::warn!(operation = "start", shards, "waiting: others hold every shard that is placed here");
        let _ = writeln!(
            std::io::stdout(),
            "hearth {} waits: another node holds all {shards} shards of this one's in {}, which serves nobody before they are free",
            env!("CARGO_PKG_VERSION"),
            self.settings.store,
        );
        while self.home.wait_owned(LOOK_AGAIN).await >= self.home.shards_placed().len().max(1) {}
    }

    /// Until a signal comes, a vital task dies, or a newer process has this node's name. `begun` is called once there is
    /// something to be served.
    async fn live(&self, mut asked_to_stop: AskedToStop, begun: impl FnOnce()) -> Why {
        let begins = async {
            self.serving().await;
            begun();
            std::future::pending().await
        };
        tokio::select! {
            // First of all, so that what has begun is told before a stop.
            biased;
            ended = begins => ended,
            cause = self.cellar.vitals().failed() => Why::Failed(cause),
            () = asked_to_stop.asked() => Why::Asked,
            () = self.members.superseded() => Why::Superseded,
        }
    }

    /// A task that must live has died: nothing was answered since, and nothing will be. Links are told to come back, and
    /// other nodes get what is here, at most for a moment.
    async fn fall(self) {
        let falls = self.home.fall(FALL);
        let (fallen, (), _) = tokio::join!(falls, self.sessions.close_all(), self.door.stop(TASKS_STOP));
        let Fallen { held, asked_for, stored } = fallen;
        tracing::error!(
            operation = "stop",
            held,
            asked_for,
            stored,
            "ending: a task that must live has died"
        );
        // A moment for the last of the goodbyes.
        self.links.stop(LINKS_STOP).await;
        let _ = tokio::time::timeout(TASKS_STOP, self.store.close()).await;
    }

    /// Gives all shards to the other nodes, if there are any; their players are told where to go, and have a moment for
    /// it. Says how long the rest may be tried beyond the last flush's own time.
    async fn hand_over(&self) -> Duration {
        let HandOver { held, kept, has_heirs, is_held_back, left } =
            self.home.hand_over(self.settings.cluster.drain).await;
        let handed_over = held.saturating_sub(kept);
        if is_held_back {
            let why = "the store takes no changes: players are sent away, and what they were acked is tried until the end";
            tracing::warn!(operation = "stop", held, handed_over, kept, "{why}");
        } else if kept > 0 && has_heirs {
            let why = "not all shards could be handed over in cluster.drain_ms: others take the rest once it is given back";
            tracing::warn!(operation = "stop", held, handed_over, kept, "{why}");
        } else {
            let what = match (kept, has_heirs) {
                (0, _) => "all shards were handed over",
                _ => "no other node takes shards: they are given back when all is stored",
            };
            tracing::info!(operation = "stop", held, handed_over, kept, "{what}");
        }
        self.sessions.see_off(MOVED_WITHIN).await;
        if is_held_back { left } else { Duration::ZERO }
    }

    /// Top-down: the shards to other nodes, unless a newer process of this one takes them; no new links, a goodbye to the old, the last flush, the leases, the store.
    /// Says whether all that was changed is stored, or with the next home.
    async fn stop(self, hands_over: bool) -> bool {
        tracing::info!(operation = "stop", "stopping");
        self.company.stop(COMPANY_STOP).await;
        let mut longer = Duration::ZERO;
        if hands_over && !self.settings.cluster.drain.is_zero() {
            longer = self.hand_over().await;
        }
        self.door.stop(TASKS_STOP).await;
        self.sessions.close_all().await;
        self.links.stop(LINKS_STOP).await;
        self.counter.stop(TASKS_STOP).await;
        self.upper.stop(TASKS_STOP).await;
        let all_flushed = self.home.flush_all(FLUSH_STOP + longer).await;
        // A store that came back may have given to others what was not stored here.
        let all_asked = self.home.until_asked().await;
        // The keeper goes before the leases do, or it would take them again.
        self.lower.stop(TASKS_STOP).await;
        if all_flushed {
            self.home.release().await;
            if let Err(error) = self.members.leave().await {
                tracing::warn!(operation = "stop", status = %error, "the others were not told");
            }
        } else {
            tracing::error!(
                operation = "stop",
                "changes are left that the store did not take; leases are kept"
            );
        }
        if !all_asked {
            let what = "changes are lost that were not stored: the store gave their shards to others, who did not ask for them";
            tracing::error!(operation = "stop", "{what}");
        }
        if let Err(error) = self.store.close().await {
            tracing::warn!(operation = "stop", status = %error, "the store did not close in order");
        }
        self.cellar.stop(TASKS_STOP).await;
        all_flushed && all_asked
    }
}

/// Where clients connect, as they are told.
fn client_url(settings: &Settings, addr: SocketAddr) -> String {
    let scheme = if settings.tls.cert_file.is_some() { "wss" } else { "ws" };
    let public = settings.public_url.as_ref().map(|url| url.as_str().to_owned());
    public.unwrap_or_else(|| format!("{scheme}://{addr}/v1/connect"))
}

/// Waits a while for all shards; says how many are not ours then.
async fn owned(settings: &Settings, home: &Home) -> usize {
    let waiting = home.wait_owned(settings.home.lease_ttl + OWNED_WAIT).await;
    if waiting > 0 {
        tracing::warn!(operation = "start", shards = waiting, "another node still holds shards; they follow");
    }
    waiting
}

/// Begins to answer services, and what that needs from time to time.
fn at_counter(
    service: Arc<Service>,
    (listener, descriptors): (TcpListener, Arc<Descriptors>),
    upper: &Tasks,
    counter: &Tasks,
) {
    upper.spawn_vital("maintenance", Arc::clone(&service).keep_maintenance(upper.clone()));
    upper.spawn_vital("looks", Arc::clone(&service).keep_looking(upper.clone()));
    upper.spawn("log_level", Arc::clone(&service).keep_log(upper.clone()));
    let stopping = counter.clone();
    counter.spawn_vital(
        "service",
        async move { service::serve(listener, service, descriptors, &stopping).await },
    );
}

/// What this process counts, from now on.
fn recorded(settings: &Settings) -> Result<Recorded, ServeError> {
    if !settings.metrics.record {
        return Ok(Recorded::nothing());
    }
    telemetry::metrics::install().map_err(|error| ServeError::Start(error.to_string()))
}

/// Traces go to the collector until the very end.
fn export_traces(
    settings: &Settings,
    collector: Collector,
    node: &str,
    cellar: &Tasks,
) -> Result<(), ServeError> {
    let trace = &settings.trace;
    let exporter = traces::start(TraceSettings {
        collector,
        sample_ratio: trace.sample_ratio.get(),
        slow: trace.slow,
        node: node.to_owned(),
        cluster: settings.cluster.name.as_ref().map(|name| name.as_str().to_owned()),
    });
    let (exporter, stop) = (exporter.map_err(|error| ServeError::Start(error.to_string()))?, cellar.clone());
    cellar.spawn("traces", exporter.run(async move { stop.stopping().await }));
    Ok(())
}

/// Looks from outside whether what must live does, and ends the process if nothing else can.
fn watchdog(settings: &Settings, tasks: &Tasks) -> Result<Arc<Watchdog>, ServeError> {
    let settings = WatchdogSettings { patience: settings.watchdog.patience, fall: FALL_MAX };
    let end = || {
        telemetry::logs::finish();
        std::process::exit(i32::from(ending::SOFTWARE))
    };
    let watchdog = Watchdog::start(settings, tasks, end);
    #[cfg(feature = "sabotage")]
    tasks.spawn("sabotage", strike(tasks.clone()));
    Ok(Arc::new(watchdog.map_err(|error| ServeError::Start(error.to_string()))?))
}

/// Lets a planted fault out when it is time.
#[cfg(feature = "sabotage")]
async fn strike(tasks: Tasks) {
    let Some(stall) = crate::sabotage::struck().await else { return };
    for _ in 0..tokio::runtime::Handle::current().metrics().num_workers() {
        tasks.spawn("stall", async move { std::thread::sleep(stall) });
    }
}

/// What a token on a live link is worth.
fn token_check(auth: Arc<Authenticator>) -> Box<TokenCheck> {
    Box::new(move |token, now| match auth.verify(token, now) {
        Ok(identity) => Ok(identity.into()),
        Err(AuthError::Invalid) => Err(TokenRefused::Invalid),
        Err(AuthError::Expired) => Err(TokenRefused::Expired),
    })
}

/// How the process is, by the tasks of its floors; the first floor is the first to stop.
fn condition(
    floors: [Tasks; 3],
    members: Arc<Members>,
    watchdog: Arc<Watchdog>,
    descriptors: Arc<Descriptors>,
) -> Box<dyn Fn() -> Condition + Send + Sync> {
    Box::new(move || {
        if floors.iter().any(Tasks::has_failed) {
            Condition::Failed
        } else if members.drains() || floors.iter().any(Tasks::is_stopping) {
            Condition::Stopping
        } else if let Some(Late { task, ms }) = watchdog.late().into_iter().next() {
            Condition::Late { task, ms }
        } else if descriptors.are_out(clock::now()) {
            Condition::Full
        } else {
            Condition::Well
        }
    })
}
