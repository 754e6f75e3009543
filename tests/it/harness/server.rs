//! A real `hearth` process of a test's own, on a store of its own: port 0, temporary folders, hurt by process id
//! (killed, stopped, continued, started again on the same data and port) and ended when the value is dropped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::patience::PATIENCE;
use super::player::{Credentials, Player, Refused};
use super::redis_server::RedisServer;
use super::socket::Encoding;

/// Which store a story is told on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Embedded,
    Redis,
}

/// A server that is about to start.
pub(crate) struct Starting {
    settings: BTreeMap<String, String>,
    guard_off: Option<&'static str>,
    store: Store,
    port: u16,
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
        // Few shards: each is a lease to be taken and given back, which is most of what starting and stopping costs.
        let settings = [("cluster.name", "test"), ("cluster.shards", "16")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { settings: settings.into(), guard_off: None, store, port: 0 }
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
        self.guard_off = guard;
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

    fn try_start(self) -> Result<Server, Exit> {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(&self, self.port, folder.path())?;
        Ok(Server { process, starting: self, folder })
    }

    fn arguments(&self, port: u16) -> Vec<String> {
        let client_addr =
            self.settings.get("client_addr").cloned().unwrap_or_else(|| format!("127.0.0.1:{port}"));
        let store = self.store.url();
        let named = ["--client-addr", &client_addr, "--service-addr", "127.0.0.1:0", "--store", &store];
        let mut arguments: Vec<String> = named.into_iter().map(str::to_owned).collect();
        for (name, value) in &self.settings {
            arguments.extend(["--set".to_owned(), format!("{name}={value}")]);
        }
        arguments
    }
}

/// How a server ended that did not become ready.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
    /// What it said on standard error, without log lines.
    pub(crate) lines: Vec<String>,
}

/// A running server.
pub(crate) struct Server {
    process: Process,
    starting: Starting,
    folder: TempDir,
}

impl Server {
    /// A server with a store of its own.
    pub(crate) fn on(kind: StoreKind) -> Starting {
        match kind {
            StoreKind::Embedded => Starting::on(Store::Embedded(tempfile::tempdir().unwrap())),
            StoreKind::Redis => Self::on_redis(RedisServer::start()),
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

    /// Where clients connect: `ws://HOST:PORT/v1/connect`.
    pub(crate) fn url(&self) -> &str {
        &self.process.url
    }

    /// Where services call: `http://HOST:PORT`.
    pub(crate) fn service_url(&self) -> &str {
        &self.process.service_url
    }

    /// Its client port.
    pub(crate) fn port(&self) -> u16 {
        self.host().rsplit(':').next().unwrap().parse().unwrap()
    }

    /// `HOST:PORT` of its client address.
    pub(crate) fn host(&self) -> &str {
        self.url().split("//").nth(1).and_then(|rest| rest.split('/').next()).unwrap()
    }

    /// What its players speak, unless they say otherwise: so both encodings live through every story.
    pub(crate) fn encoding(&self) -> Encoding {
        match self.starting.store {
            Store::Embedded(_) => Encoding::Json,
            Store::Redis(_) | Store::Borrowed(_) => Encoding::MessagePack,
        }
    }

    /// A link without a session.
    pub(crate) async fn connect(&self) -> Player {
        Player::connect(self.url(), self.encoding()).await
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
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop_gracefully(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.wait_for_end()
    }

    /// SIGTERM.
    pub(crate) fn ask_to_stop(&self) {
        self.process.signal("TERM");
    }

    /// Waits until it has ended.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        self.process.wait_for_end()
    }

    /// Stops the process without ending it.
    pub(crate) fn pause(&self) {
        self.process.signal("STOP");
    }

    /// Lets a stopped process go on.
    pub(crate) fn go_on(&self) {
        self.process.signal("CONT");
    }

    /// Starts an ended server again: the same store, the same settings and, if nobody took it meanwhile, the same port.
    pub(crate) fn restart(&mut self) {
        let again = |port| Process::start(&self.starting, port, self.folder.path());
        self.process = again(self.port()).or_else(|_| again(0)).expect("the server starts again");
    }

    /// The process, for those who look at it from outside.
    #[allow(dead_code, reason = "tests/hostile does, through this same file")]
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.process.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the server's last words\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// The process, its address and its log.
struct Process {
    child: Child,
    url: String,
    service_url: String,
    log: PathBuf,
}

impl Process {
    fn start(starting: &Starting, port: u16, folder: &Path) -> Result<Self, Exit> {
        let log = folder.join("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HEARTH_"))
        {
            command.env_remove(name);
        }
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        if let Some(guard) = starting.guard_off {
            command.env("HEARTH_SABOTAGE", guard);
        }
        command.args(starting.arguments(port)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().unwrap();
        let said = lines_of(child.stdout.take().unwrap());
        let mut process = Self { child, url: String::new(), service_url: String::new(), log };
        match (said_address(&said, "clients "), said_address(&said, "services ")) {
            (Some(url), Some(service_url)) => {
                (process.url, process.service_url) = (url, service_url);
                Ok(process)
            }
            _ => Err(process.exit()),
        }
    }

    fn exit(&mut self) -> Exit {
        let code = self.wait_for_end().code();
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        // Log lines begin with the time.
        let lines = log.lines().filter(|line| !line.starts_with(|c: char| c.is_ascii_digit()));
        Exit { code, lines: lines.map(str::to_owned).collect() }
    }

    fn wait_for_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL also ends a stopped process.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address from the lines that a server says when it is ready; `None` when it ends before.
fn said_address(said: &Receiver<String>, name: &str) -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match said.recv_timeout(left) {
            Ok(line) => {
                if let Some(url) = line.trim().strip_prefix(name) {
                    return Some(url.trim().to_owned());
                }
            }
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => panic!("the server is not ready in time"),
        }
    }
}

/// Reads to the end on a thread of its own, so that the pipe never fills.
fn lines_of(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}
