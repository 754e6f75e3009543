//! One master, its replicas and the sentinels that watch them.

use super::server::Server;
use super::{Common, RigError, on_free_ports, wait_for};

/// What to start.
#[derive(Debug, Clone)]
pub struct SentinelPlan {
    /// What all servers share.
    pub common: Common,
    /// The name under which the sentinels know the master.
    pub name: String,
    /// How many replicas.
    pub replicas: usize,
    /// How many sentinels; a majority of them must agree that the master is down.
    pub sentinels: usize,
    /// After how many ms of silence a sentinel takes the master for down.
    pub down_after_ms: u64,
    /// Lines of `sentinel.conf`, besides those that watch the master.
    pub sentinel_settings: Vec<(String, String)>,
}

impl Default for SentinelPlan {
    /// One replica and three sentinels, who wait a second.
    fn default() -> Self {
        Self {
            common: Common::default(),
            name: "hearth".into(),
            replicas: 1,
            sentinels: 3,
            down_after_ms: 1_000,
            sentinel_settings: Vec::new(),
        }
    }
}

/// A running set.
pub struct SentinelSet {
    name: String,
    /// Encrypted?
    scheme: &'static str,
    /// The first was the master at the start.
    servers: Vec<Server>,
    sentinels: Vec<Server>,
}

impl SentinelSet {
    /// Starts all of it, and waits until the sentinels know each other and the replicas follow.
    ///
    /// # Errors
    /// [`RigError`]; what was started is ended then.
    pub fn start(plan: &SentinelPlan) -> Result<Self, RigError> {
        let count = plan.replicas + 1 + plan.sentinels;
        on_free_ports(2 * count, |ports| Self::on(plan, count, ports))
    }

    fn on(plan: &SentinelPlan, count: usize, ports: &[u16]) -> Result<Self, RigError> {
        let (plain, tls) = ports.split_at(count);
        let mut ports = plain.iter().copied().zip(tls.iter().copied());
        let scheme = if plan.common.tls.is_some() { "rediss+sentinel" } else { "redis+sentinel" };
        let mut set = Self { name: plan.name.clone(), scheme, servers: Vec::new(), sentinels: Vec::new() };
        for ports in ports.by_ref().take(plan.replicas + 1) {
            let follows = set.servers.first().map(|master: &Server| {
                ("replicaof".to_owned(), format!("127.0.0.1 {}", master.client_port()))
            });
            set.servers.push(Server::start(&plan.common, false, ports, follows.as_slice())?);
        }
        let lines = set.watching(plan);
        for ports in ports {
            set.sentinels.push(Server::start(&plan.common, true, ports, &lines)?);
        }
        set.wait_until_whole(plan)?;
        Ok(set)
    }

    fn watching(&self, plan: &SentinelPlan) -> Vec<(String, String)> {
        let name = &plan.name;
        let master = self.servers.first().map_or(0, Server::client_port);
        let quorum = plan.sentinels / 2 + 1;
        let mut lines = vec![
            format!("monitor {name} 127.0.0.1 {master} {quorum}"),
            format!("down-after-milliseconds {name} {}", plan.down_after_ms),
            format!("failover-timeout {name} {}", plan.down_after_ms.saturating_mul(6)),
        ];
        if let Some(password) = &plan.common.password {
            lines.push(format!("auth-pass {name} {password}"));
        }
        let lines = lines.into_iter().map(|line| ("sentinel".to_owned(), line));
        lines.chain(plan.sentinel_settings.iter().cloned()).collect()
    }

    fn wait_until_whole(&self, plan: &SentinelPlan) -> Result<(), RigError> {
        if let Some(master) = self.servers.first() {
            wait_for("the replicas", master, || master.replicas_online() == plan.replicas)?;
        }
        let expected = format!("slaves={},sentinels={}", plan.replicas, plan.sentinels);
        for sentinel in &self.sentinels {
            wait_for("the sentinels to know each other", sentinel, || {
                sentinel.says(&["INFO", "sentinel"], &expected)
            })?;
        }
        Ok(())
    }

    /// The URL of the master, for Hearth.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_as("", "")
    }

    /// The URL with a login (`user:password@`, or nothing) and a query (`?sentinel_password=…`, or nothing).
    #[must_use]
    pub fn url_as(&self, login: &str, query: &str) -> String {
        let at: Vec<_> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.client_port())).collect();
        format!("{}://{login}{}/{}{query}", self.scheme, at.join(","), self.name)
    }

    /// The servers that keep data; the first was the master at the start.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The same, to start one of them again.
    pub fn servers_mut(&mut self) -> &mut [Server] {
        &mut self.servers
    }

    /// The sentinels.
    #[must_use]
    pub fn sentinels(&self) -> &[Server] {
        &self.sentinels
    }

    /// The server that says that it is the master; none in the middle of a failover.
    #[must_use]
    pub fn master(&self) -> Option<&Server> {
        self.servers.iter().find(|server| server.says(&["INFO", "replication"], "role:master"))
    }
}
