//! A real server of a test's own, on a store of its own: one `hearth` process, or three of one cluster. Port 0, temporary
//! folders, hurt by process id (killed, stopped, continued, started again on the same data and port) and ended when the
//! value is dropped. What is done to a server of three is done to all of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Instant;

use serde_json::json;
use tempfile::TempDir;

use super::detour::Detour;
use super::doors::{self, Door, Doors, Way};
use super::nodes::KEY;
use super::patience::{PATIENCE, until};
use super::player::{Credentials, Player, Refused};
use super::process::{Exit, Process, Starts};
use super::redis_server::RedisServer;
use super::service::Service;
use super::socket::{Encoding, Line, Socket, host_of};
use super::stages::Stage;

/// A server that is about to start.
pub(crate) struct Starting {
    settings: BTreeMap<String, String>,
    environment: Vec<(&'static str, String)>,
    store: Store,
    port: u16,
    /// How clients come home, where there are several nodes.
    way: Option<Way>,
}

/// Where a server keeps what outlives it.
enum Store {
    Embedded(TempDir),
    Redis(RedisServer),
    /// Somebody else's.
    Borrowed(String),
}

impl Store {
    fn url(&self) -> String {
        match self {
            Self::Embedded(folder) => format!("embedded:{}", folder.path().join("data").display()),
            Self::Redis(redis) => redis.url(),
            Self::Borrowed(url) => url.clone(),
        }
    }
}

impl Starting {
    fn on(store: Store) -> Self {
        let starting = Self { settings: BTreeMap::new(), environment: Vec::new(), store, port: 0, way: None };
        starting.with("cluster.name", "test").with("cluster.shards", doors::SHARDS)
    }

    /// Changes a setting, by the name it has in `config/hearth.toml`.
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.insert(name.to_owned(), value.to_string());
        self
    }

    /// A lease that runs out this soon, so that a killed server's shards are soon taken over.
    pub(crate) fn with_lease(self, ttl_ms: u64) -> Self {
        let redis = self.with("home.lease_ttl_ms", ttl_ms).with("redis.response_timeout_ms", ttl_ms / 4);
        redis.with("redis.connect_timeout_ms", ttl_ms / 4)
    }

    /// Turns this guard off for the life of each process; the build must have the switches.
    #[allow(dead_code, reason = "tests/faults does, through this same file")]
    pub(crate) fn without(mut self, guard: Option<&'static str>) -> Self {
        self.environment.extend(guard.map(|guard| ("HEARTH_SABOTAGE", guard.to_owned())));
        self
    }

    /// Puts this into the environment of each process.
    #[allow(dead_code, reason = "tests/faults/scenarios does, through this same file")]
    pub(crate) fn in_environment(mut self, name: &'static str, value: impl ToString) -> Self {
        self.environment.push((name, value.to_string()));
        self
    }

    /// Listens there instead of on a free port.
    pub(crate) fn on_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(self) -> Server {
        match self.try_start() {
            Ok(server) => server,
            Err(exit) => panic!("the server did not start: {exit:?}"),
        }
    }

    /// Starts what must not start.
    pub(crate) fn fails(self) -> Exit {
        match self.try_start() {
            Ok(_) => panic!("the server started, though it must not"),
            Err(exit) => exit,
        }
    }

    /// Makes it a server of several nodes.
    fn on_several_nodes(mut self, way: Way) -> Self {
        self.way = Some(way);
        self.with("service_key", KEY)
    }

    fn try_start(self) -> Result<Server, Exit> {
        let names = if self.way.is_some() { doors::NODES.map(Some).to_vec() } else { vec![None] };
        let starts: Vec<_> = names
            .into_iter()
            .map(|name| {
                let folder = tempfile::tempdir().unwrap();
                (name, self.start_node(name, self.port, folder.path()), folder)
            })
            .collect();
        let ready = |(name, starts, folder): (_, Starts, _)| {
            starts.ready().map(|process| Node { name, process, folder })
        };
        let nodes = starts.into_iter().map(ready).collect::<Result<_, _>>()?;
        let server = Server { nodes, starting: self };
        server.settles();
        Ok(server)
    }

    fn start_node(&self, name: Option<&str>, port: u16, folder: &Path) -> Starts {
        Starts::now(&self.arguments(name, port), &self.environment, folder)
    }

    fn arguments(&self, name: Option<&str>, port: u16) -> Vec<String> {
        let client_addr =
            self.settings.get("client_addr").cloned().unwrap_or_else(|| format!("127.0.0.1:{port}"));
        let service_addr =
            self.settings.get("service_addr").cloned().unwrap_or_else(|| "127.0.0.1:0".to_owned());
        let store = self.store.url();
        let mut named =
            vec!["--client-addr", &client_addr, "--service-addr", &service_addr, "--store", &store];
        if let Some(name) = name {
            named.extend(["--node-id", name]);
            // Those that start together know of each other soon.
            if !self.settings.contains_key("home.lease_ttl_ms") {
                named.extend(["--set", "cluster.member_ttl_ms=1500"]);
            }
        }
        let mut arguments: Vec<String> = named.into_iter().map(str::to_owned).collect();
        for (name, value) in &self.settings {
            arguments.extend(["--set".to_owned(), format!("{name}={value}")]);
        }
        arguments
    }

    fn shards(&self) -> u16 {
        self.settings["cluster.shards"].parse().unwrap()
    }
}

/// One process of a server.
struct Node {
    /// Where there are several.
    name: Option<&'static str>,
    process: Process,
    folder: TempDir,
}

/// A running server.
pub(crate) struct Server {
    nodes: Vec<Node>,
    starting: Starting,
}

impl Server {
    /// A server with a store of its own.
    pub(crate) fn on(stage: Stage) -> Starting {
        match stage {
            Stage::Embedded => Starting::on(Store::Embedded(tempfile::tempdir().unwrap())),
            Stage::Redis => Self::on_redis(RedisServer::start()),
            Stage::WrongNode(way) => Self::on_redis(RedisServer::start()).on_several_nodes(way),
        }
    }

    /// A server with a Redis of its own that keeps every write on disk.
    pub(crate) fn on_durable_redis(stage: Stage) -> Starting {
        let starting = Self::on_redis(RedisServer::builder().durable().start());
        match stage {
            Stage::Embedded => panic!("the embedded store is no Redis"),
            Stage::Redis => starting,
            Stage::WrongNode(way) => starting.on_several_nodes(way),
        }
    }

    /// A server on this Redis.
    pub(crate) fn on_redis(redis: RedisServer) -> Starting {
        Starting::on(Store::Redis(redis))
    }

    /// A server on a store that is not its own.
    pub(crate) fn on_url(url: &str) -> Starting {
        Starting::on(Store::Borrowed(url.to_owned()))
    }

    /// The URL of its store.
    pub(crate) fn store_url(&self) -> String {
        self.starting.store.url()
    }

    /// Its Redis.
    pub(crate) fn redis(&mut self) -> &mut RedisServer {
        match &mut self.starting.store {
            Store::Redis(redis) => redis,
            Store::Embedded(_) | Store::Borrowed(_) => panic!("this server has no Redis of its own"),
        }
    }

    /// Where clients connect: `ws://HOST:PORT/v1/connect`. Of several nodes the first one's.
    pub(crate) fn url(&self) -> &str {
        &self.nodes[0].process.url
    }

    /// Where services call: `http://HOST:PORT`. Of several nodes the first one's.
    pub(crate) fn service_url(&self) -> &str {
        &self.nodes[0].process.service_url
    }

    /// Where services call at each of its nodes.
    pub(crate) fn service_urls(&self) -> Vec<&str> {
        self.nodes.iter().map(|node| node.process.service_url.as_str()).collect()
    }

    /// `HOST:PORT` of its client address.
    pub(crate) fn host(&self) -> &str {
        host_of(self.url())
    }

    /// What its players speak, unless they say otherwise: so both encodings live through every story.
    pub(crate) fn encoding(&self) -> Encoding {
        match (&self.starting.store, self.starting.way) {
            (Store::Embedded(_), _) | (_, Some(Way::Redirected)) => Encoding::Json,
            (Store::Redis(_) | Store::Borrowed(_), _) => Encoding::MessagePack,
        }
    }

    /// The doors of its nodes, if there are several.
    pub(crate) fn doors(&self) -> Option<Doors> {
        let door = |node: &Node| Door {
            node: node.name.unwrap(),
            url: node.process.url.clone(),
            service_url: node.process.service_url.clone(),
        };
        let way = self.starting.way?;
        Some(Doors::new(self.nodes.iter().map(door).collect(), self.starting.shards(), way))
    }

    /// A link without a session.
    pub(crate) async fn connect(&self) -> Player {
        self.connect_over(Line::Plain, self.encoding()).await
    }

    /// The same, in this encoding.
    pub(crate) async fn connect_in(&self, encoding: Encoding) -> Player {
        self.connect_over(Line::Plain, encoding).await
    }

    /// The same, over this line.
    pub(crate) async fn connect_over(&self, line: Line, encoding: Encoding) -> Player {
        self.connect_at(self.url(), line, encoding).await
    }

    /// A link that is to be this player's after it has said something else: of several nodes at one where she is not at
    /// home.
    pub(crate) async fn connect_for(&self, player: &str) -> Player {
        let doors = self.doors();
        let wrong = doors.as_ref().map(|doors| &doors.wrong_for(doors.shard_of(player).unwrap()).url);
        self.connect_at(wrong.map_or(self.url(), String::as_str), Line::Plain, self.encoding()).await
    }

    async fn connect_at(&self, url: &str, line: Line, encoding: Encoding) -> Player {
        let socket = Socket::open_over(line, url, encoding).await;
        Player::on_her_way(socket, self.doors().map(|doors| Detour::new(doors, url)))
    }

    /// A player who is logged in.
    pub(crate) async fn login(&self, player: &str) -> Player {
        let mut connected = self.connect().await;
        connected.login(player).await;
        connected
    }

    /// A session that is taken up again.
    pub(crate) async fn resume(&self, credentials: &Credentials) -> Player {
        let mut connected = self.connect().await;
        connected.resume(credentials).await;
        connected
    }

    /// A session that cannot be taken up again: the error.
    pub(crate) async fn resume_refused(&self, credentials: &Credentials) -> Refused {
        self.connect().await.try_resume(credentials).await.expect_err("the resume must be refused")
    }

    /// `kill -9`.
    pub(crate) fn kill9(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.process.kill9());
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop_gracefully(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.wait_for_end()
    }

    /// SIGTERM.
    pub(crate) fn ask_to_stop(&self) {
        self.signal("TERM");
    }

    /// Waits until it has ended; of several nodes the first that failed counts.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        let ended: Vec<_> = self.nodes.iter_mut().map(|node| node.process.wait_for_end()).collect();
        *ended.iter().find(|status| !status.success()).unwrap_or(&ended[0])
    }

    /// Stops the process without ending it.
    pub(crate) fn pause(&self) {
        self.nodes.iter().for_each(|node| node.process.pause());
    }

    /// Lets a stopped process go on.
    pub(crate) fn go_on(&self) {
        self.signal("CONT");
    }

    /// Lets the fault out that was planted.
    #[allow(dead_code, reason = "tests/faults does, through this same file")]
    pub(crate) fn strike(&self) {
        self.signal("USR2");
    }

    fn signal(&self, name: &str) {
        self.nodes.iter().for_each(|node| node.process.signal(name));
    }

    /// Starts an ended server again: the same store, the same settings and, if nobody took it meanwhile, the same port.
    pub(crate) fn restart(&mut self) {
        let port_of = |node: &Node| host_of(&node.process.url).rsplit(':').next().unwrap().parse().unwrap();
        let again = |node: &Node, port| self.starting.start_node(node.name, port, node.folder.path());
        let starts: Vec<Starts> = self.nodes.iter().map(|node| again(node, port_of(node))).collect();
        // As whoever supervises it does: what is missing outside may be there in a moment, and its port may be taken.
        let ready = |(node, starts): (&Node, Starts)| {
            let deadline = Instant::now() + PATIENCE;
            let mut tried = starts.ready();
            while let Err(exit) = &tried {
                assert!(
                    exit.code == Some(69) && Instant::now() < deadline,
                    "the server starts again: {exit:?}"
                );
                tried = again(node, 0).ready();
            }
            tried.unwrap_or_else(|exit| panic!("the server starts again: {exit:?}"))
        };
        let processes: Vec<Process> = self.nodes.iter().zip(starts).map(ready).collect();
        self.nodes.iter_mut().zip(processes).for_each(|(node, process)| node.process = process);
        self.settles();
    }

    /// Waits until each of several nodes can ask each home: who has just come is told within a moment.
    fn settles(&self) {
        let Some(doors) = self.doors() else { return };
        let key = self.starting.settings["service_key"].as_str();
        let settled = async {
            let players = doors.one_of_each_shard();
            for url in self.service_urls() {
                let service = Service::at(url, key);
                until("every node knows every home", async || {
                    let asked = json!({"players": &players});
                    let (_, told) = service.post("/v1/presence/query", asked).await;
                    (told["unknown"] == json!([])).then_some(())
                })
                .await;
            }
        };
        // A runtime of its own: those who start a server are in one that must not be blocked on.
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::scope(|scope| scope.spawn(|| runtime().block_on(settled)).join()).unwrap();
    }

    /// Others become members of its cluster and say nothing, so many that no majority of all will agree that Redis is away:
    /// without it, nobody is served once the leases have run out.
    #[allow(dead_code, reason = "tests/it does, through this same file")]
    pub(crate) async fn loses_majority(&mut self) {
        let nodes = self.nodes.len();
        self.redis().adds_silent_members(nodes);
        let members = u64::try_from(2 * nodes * nodes).unwrap();
        self.until_metric("hearth_members", "", members).await;
    }

    /// Waits until every lease has run out, and all that is served goes on without.
    #[allow(dead_code, reason = "tests/it does, through this same file")]
    pub(crate) async fn until_local(&self) {
        until("every lease has run out, and all go on", async || {
            let local = self.metric("hearth_shards", "state=\"local\"").await;
            (local > 0 && local == self.metric("hearth_shards_held_back", "").await).then_some(())
        })
        .await;
    }

    /// The process, for those who look at it from outside.
    #[allow(dead_code, reason = "tests/hostile does, through this same file")]
    pub(crate) fn pid(&self) -> u32 {
        self.nodes[0].process.pid()
    }

    /// Its log so far; of several nodes one behind the other.
    pub(crate) fn log(&self) -> String {
        self.nodes.iter().map(|node| node.process.log()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                let log = node.process.log();
                let lines: Vec<&str> = log.lines().collect();
                let last = lines[lines.len().saturating_sub(40)..].join("\n");
                eprintln!("--- the last words of {}\n{last}", node.name.unwrap_or("the server"));
            }
        }
    }
}
