//! A `hearth` process on a store that outlives it: killed, stopped, continued, asked to stop, started again; and what
//! its own `/metrics` say, which is how a story knows that a fault has been felt. Started with one guard off if asked.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use tempfile::NamedTempFile;
use tokio::time::timeout;

use crate::harness::patience::{PATIENCE, until};

/// Before the server has said where it is.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// How a server is started, each time.
pub(crate) struct Starting {
    store: String,
    settings: Vec<String>,
    guard_off: Option<&'static str>,
}

impl Starting {
    /// Changes a setting, by the name it has in `config/hearth.toml`.
    pub(crate) fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.settings.push(format!("{name}={value}"));
        self
    }

    /// Turns this guard off for the life of each process.
    #[cfg(feature = "sabotage")]
    pub(crate) fn without(mut self, guard: Option<&'static str>) -> Self {
        self.guard_off = guard;
        self
    }

    /// Starts it and waits until it is ready: on Redis until it holds every lease that its predecessor left.
    pub(crate) async fn start(self) -> Server {
        let process = Process::start(&self).await;
        Server { starting: self, process }
    }
}

/// A running server.
pub(crate) struct Server {
    starting: Starting,
    process: Process,
}

impl Server {
    /// A server on the store at this URL.
    pub(crate) fn on(store: impl Into<String>) -> Starting {
        // Few shards: each is a lease to be taken and given back, which is most of what starting and stopping costs.
        let settings = vec!["cluster.name=faults".to_owned(), "cluster.shards=8".to_owned()];
        Starting { store: store.into(), settings, guard_off: None }
    }

    /// Where clients connect. Another one after each start.
    pub(crate) fn address(&self) -> SocketAddr {
        self.process.clients
    }

    /// `kill -9`.
    pub(crate) fn kill9(&mut self) {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn stop_gracefully(&mut self) -> ExitStatus {
        self.signal("TERM");
        until("the server to end", || std::future::ready(self.process.child.try_wait().unwrap())).await
    }

    /// Stops the process without ending it.
    #[cfg(feature = "sabotage")]
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets a stopped process go on.
    #[cfg(feature = "sabotage")]
    pub(crate) fn go_on(&self) {
        self.signal("CONT");
    }

    /// Starts an ended server again, on the same store with the same settings.
    pub(crate) async fn restart(&mut self) {
        self.process = Process::start(&self.starting).await;
    }

    fn signal(&self, name: &str) {
        let pid = self.process.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// The sum of all series of a metric with this label; of all its series if the label is empty.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> u64 {
        let url = format!("http://{}/metrics", self.process.services);
        let page = reqwest::get(url).await.unwrap().text().await.unwrap();
        let series = page.lines().filter(|line| {
            let of_name = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
            of_name && line.contains(label)
        });
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    }

    /// Waits until a metric has come this far.
    pub(crate) async fn until_metric(&self, name: &str, label: &str, at_least: u64) {
        let what = format!("{name} {label} to reach {at_least}");
        until(&what, async || (self.metric(name, label).await >= at_least).then_some(())).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.process.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- a server's last words\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// The process, its addresses and its log. Not tokio's kind of process: its handler of SIGCHLD would interrupt what the
/// same tests ask Redis in the blocking way.
struct Process {
    child: Child,
    clients: SocketAddr,
    services: SocketAddr,
    log: NamedTempFile,
}

impl Process {
    async fn start(starting: &Starting) -> Self {
        let log = NamedTempFile::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HEARTH_"))
        {
            command.env_remove(name);
        }
        if let Some(guard) = starting.guard_off {
            command.env("HEARTH_SABOTAGE", guard);
        }
        command.args(["--client-addr", "127.0.0.1:0", "--service-addr", "127.0.0.1:0"]);
        command.args(["--store", &starting.store]);
        for setting in &starting.settings {
            command.args(["--set", setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.reopen().unwrap());
        let mut child = command.spawn().unwrap();
        let said = child.stdout.take().unwrap();
        let mut process = Self { child, clients: NOWHERE, services: NOWHERE, log };
        let said = timeout(PATIENCE, tokio::task::spawn_blocking(|| addresses(said))).await;
        match said.expect("the server is not ready in time").unwrap() {
            Some(addresses) => (process.clients, process.services) = addresses,
            None => panic!("the server did not start: {}", process.log()),
        }
        process
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL also ends a stopped process.
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// The addresses for clients and for services from what a server says when it is ready; `None` if it ends before.
fn addresses(said: ChildStdout) -> Option<(SocketAddr, SocketAddr)> {
    let (mut clients, mut services) = (None, None);
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        clients = clients.or_else(|| address(&line, "clients"));
        services = services.or_else(|| address(&line, "services"));
        if let (Some(clients), Some(services)) = (clients, services) {
            return Some((clients, services));
        }
    }
    None
}

/// The address in a line such as `services http://127.0.0.1:7701`.
fn address(line: &str, of: &str) -> Option<SocketAddr> {
    let url = line.trim().strip_prefix(of)?.trim();
    Some(url.split('/').nth(2)?.parse().unwrap())
}
