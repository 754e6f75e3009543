//! A real redis-server of a test's own: its folder, its private unix socket, if asked its TCP port and its settings.
//! Hurt by process id (killed, stopped, continued, started again on the same data) and ended when the value is dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const MISSING: &str = "\n\n  redis-server is missing, and these tests do not pretend without it.\n  Install it: \
                       apt-get install redis-server (Debian, Ubuntu), brew install redis (macOS), version 7 or later.\n\n";

/// A running redis-server.
pub(crate) struct RedisServer {
    dir: TempDir,
    port: u16,
    tls_port: u16,
    file: Option<PathBuf>,
    settings: Vec<(String, String)>,
    child: Child,
}

/// A server that is about to start.
#[derive(Default)]
pub(crate) struct RedisServerBuilder {
    on_tcp: bool,
    tls_port: u16,
    file: Option<PathBuf>,
    settings: Vec<(String, String)>,
}

impl RedisServerBuilder {
    /// Listens on a free TCP port of the loopback address, too.
    pub(crate) fn on_tcp(mut self) -> Self {
        self.on_tcp = true;
        self
    }

    /// Read this file first, for all that a test's own server does not set itself.
    pub(crate) fn configured_by(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// A line of `redis.conf`.
    pub(crate) fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listens on a free TCP port with TLS, and asks clients for no certificate.
    pub(crate) fn behind_tls(mut self, certificate: &str, key: &str) -> Self {
        self.tls_port = free_port();
        let port = self.tls_port.to_string();
        self.setting("tls-port", &port)
            .setting("tls-cert-file", certificate)
            .setting("tls-key-file", key)
            .setting("tls-ca-cert-file", certificate)
            .setting("tls-auth-clients", "no")
    }

    /// Keeps every write over a `kill -9`.
    pub(crate) fn durable(self) -> Self {
        self.setting("appendonly", "yes").setting("appendfsync", "always")
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start(self) -> RedisServer {
        // Short: a unix socket's path has at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("hearth-redis-").tempdir_in("/tmp").unwrap();
        let port = if self.on_tcp { free_port() } else { 0 };
        let child = spawn(dir.path(), port, self.file.as_deref(), &self.settings);
        let mut server = RedisServer {
            dir,
            port,
            tls_port: self.tls_port,
            file: self.file,
            settings: self.settings,
            child,
        };
        server.wait_until_it_answers();
        if server.file.is_none() {
            server.found_clusters();
        }
        server
    }
}

impl RedisServer {
    /// A server on a private unix socket alone, nothing kept on disk.
    pub(crate) fn start() -> Self {
        Self::builder().start()
    }

    pub(crate) fn builder() -> RedisServerBuilder {
        RedisServerBuilder::default()
    }

    /// Of the clusters of the tests, so that no first node waits for others who may know them.
    fn found_clusters(&self) {
        for cluster in ["test", "faults"] {
            self.query::<()>(&["HSET", &format!("{cluster}:cfg"), "founded_at", "1"]);
        }
    }

    /// The URL of its unix socket.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// The URL of its TCP port.
    pub(crate) fn tcp_url(&self) -> String {
        assert_ne!(self.port, 0, "started without on_tcp()");
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where its TCP port is.
    #[allow(dead_code, reason = "tests/it does, through this same file")]
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        assert_ne!(self.port, 0, "started without on_tcp()");
        ([127, 0, 0, 1], self.port).into()
    }

    /// The URL of its TCP port with TLS.
    pub(crate) fn tls_url(&self) -> String {
        assert_ne!(self.tls_port, 0, "started without behind_tls()");
        format!("rediss://127.0.0.1:{}", self.tls_port)
    }

    /// A plain connection, to look behind the store's back.
    pub(crate) fn connect(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection_with_timeout(Duration::from_secs(5)).unwrap()
    }

    /// One command, behind the store's back.
    pub(crate) fn query<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut self.connect()).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts again on the same data, socket and port, after [`Self::kill`].
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.dir.path(), self.port, self.file.as_deref(), &self.settings);
        self.wait_until_it_answers();
    }

    /// Nodes become members of the cluster of the tests that live as far as anybody hears, and say nothing: with so many of
    /// them no majority can agree on anything.
    #[allow(dead_code, reason = "tests/it does, through this same file")]
    pub(crate) fn adds_silent_members(&self, count: usize) {
        let soon = hearth::clock::now().unix_ms + 600_000;
        for number in 0..count {
            let says =
                r#"{"url": "ws://silent", "formats": {"min": 1, "max": 9, "writes": 2}, "drains": true}"#;
            let (name, member) =
                (format!("silent-{number}"), format!("{soon} {soon} silent-{number}#1 {says}"));
            self.query::<()>(&["HSET", "test:nodes", &name, &member]);
        }
    }

    /// Stops the process without ending it: connections stay open and nothing is answered.
    pub(crate) fn pause(&self) {
        super::signals::pause(self.child.id());
    }

    /// Lets a stopped process go on.
    pub(crate) fn go_on(&self) {
        super::signals::signal(self.child.id(), "CONT");
    }

    /// Its folder, with the append-only file.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn wait_until_it_answers(&mut self) {
        let client = redis::Client::open(self.url()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let pong = client
                .get_connection_with_timeout(Duration::from_secs(1))
                .and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection));
            if pong.is_ok() {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("redis-server ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < deadline, "redis-server does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // SIGKILL also ends a stopped process.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, port: u16, file: Option<&Path>, settings: &[(String, String)]) -> Child {
    let mut command = Command::new("redis-server");
    match file {
        Some(file) => command.arg(file),
        None => command.args(["--save", "", "--maxmemory-policy", "noeviction"]),
    };
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(dir);
    command.arg("--unixsocket").arg(dir.join("s")).arg("--logfile").arg(dir.join("log"));
    for (name, value) in settings {
        command.args([&format!("--{name}"), value]);
    }
    match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => panic!("{MISSING}"),
        Err(error) => panic!("redis-server cannot be started: {error}"),
    }
}

fn free_port() -> u16 {
    hearth::rig::free_ports(1).unwrap()[0]
}
