//! A Redis Cluster: masters that share the slots among them, and replicas that take over.

use super::server::Server;
use super::{Common, RigError, on_free_ports, wait_for};

const SLOTS: usize = 16_384;

/// What to start.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    /// What all nodes share.
    pub common: Common,
    /// How many masters. Below three none can take over from another.
    pub masters: usize,
    /// How many replicas each master has.
    pub replicas_each: usize,
    /// After how many ms of silence a node is taken for down.
    pub node_timeout_ms: u64,
}

impl Default for ClusterPlan {
    /// Three masters with a replica each, who wait a second.
    fn default() -> Self {
        Self { common: Common::default(), masters: 3, replicas_each: 1, node_timeout_ms: 1_000 }
    }
}

/// A running cluster.
pub struct ClusterSet {
    scheme: &'static str,
    /// Those that were masters at the start come first.
    nodes: Vec<Server>,
}

impl ClusterSet {
    /// Starts all of it, and waits until every node sees the whole.
    ///
    /// # Errors
    /// [`RigError`]; what was started is ended then.
    pub fn start(plan: &ClusterPlan) -> Result<Self, RigError> {
        let count = plan.masters * (1 + plan.replicas_each);
        on_free_ports(3 * count, |ports| Self::on(plan, count, ports))
    }

    fn on(plan: &ClusterPlan, count: usize, ports: &[u16]) -> Result<Self, RigError> {
        let part = |number: usize| ports.iter().copied().skip(number * count).take(count);
        let scheme = if plan.common.tls.is_some() { "rediss+cluster" } else { "redis+cluster" };
        let mut set = Self { scheme, nodes: Vec::new() };
        let buses: Vec<_> = part(2).collect();
        for (ports, bus) in part(0).zip(part(1)).zip(&buses) {
            let lines = lines(plan, *bus);
            set.nodes.push(Server::start(&plan.common, false, ports, &lines)?);
        }
        set.join(plan, &buses)?;
        Ok(set)
    }

    fn join(&self, plan: &ClusterPlan, buses: &[u16]) -> Result<(), RigError> {
        let Some(first) = self.nodes.first() else { return Ok(()) };
        for (number, (node, bus)) in self.nodes.iter().zip(buses).enumerate() {
            node.query::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
            if number < plan.masters {
                let slot = |number: usize| number * SLOTS / plan.masters;
                let (from, to) = (slot(number).to_string(), (slot(number + 1) - 1).to_string());
                node.query::<()>(&["CLUSTER", "ADDSLOTSRANGE", &from, &to])?;
            }
            if number > 0 {
                let (port, bus) = (node.client_port().to_string(), bus.to_string());
                first.query::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
            }
        }
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        for node in &self.nodes {
            wait_for("the nodes to know each other", node, || node.says(&["CLUSTER", "INFO"], &known))?;
        }
        let masters: Result<Vec<_>, _> = self
            .nodes
            .iter()
            .take(plan.masters)
            .map(|node| node.query::<String>(&["CLUSTER", "MYID"]))
            .collect();
        for (node, master) in self.nodes.iter().skip(plan.masters).zip(masters?.iter().cycle()) {
            node.query::<()>(&["CLUSTER", "REPLICATE", master])?;
        }
        self.wait_until_whole(self.nodes.len() - plan.masters)
    }

    fn wait_until_whole(&self, replicas: usize) -> Result<(), RigError> {
        for node in &self.nodes {
            wait_for("the whole cluster", node, || {
                let nodes = node.query::<String>(&["CLUSTER", "NODES"]).unwrap_or_default();
                let followers = nodes.lines().filter(|line| line.contains("slave ")).count();
                followers == replicas && node.says(&["CLUSTER", "INFO"], "cluster_state:ok")
            })?;
        }
        let online = || self.nodes.iter().map(Server::replicas_online).sum::<usize>() == replicas;
        self.nodes.first().map_or(Ok(()), |node| wait_for("the replicas", node, online))
    }

    /// The URL of the cluster, for Hearth: it names the first nodes.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_as("")
    }

    /// The URL with a login (`user:password@`, or nothing).
    #[must_use]
    pub fn url_as(&self, login: &str) -> String {
        let at: Vec<_> =
            self.nodes.iter().take(3).map(|node| format!("127.0.0.1:{}", node.client_port())).collect();
        format!("{}://{login}{}", self.scheme, at.join(","))
    }

    /// The nodes; those that were masters at the start come first.
    #[must_use]
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// The same, to start one of them again.
    pub fn nodes_mut(&mut self) -> &mut [Server] {
        &mut self.nodes
    }

    /// The place in [`Self::nodes`] of the master that holds the key's slot, as the others see it; none in the middle
    /// of a failover.
    #[must_use]
    pub fn holder_of(&self, key: &str) -> Option<usize> {
        self.nodes.iter().position(|node| {
            // Its own keys alone are not refused; a replica sends even them away.
            node.query::<Option<String>>(&["OBJECT", "ENCODING", key]).is_ok()
        })
    }
}

fn lines(plan: &ClusterPlan, bus: u16) -> Vec<(String, String)> {
    let mut lines = vec![
        ("cluster-enabled", "yes".to_owned()),
        ("cluster-config-file", "nodes.conf".to_owned()),
        ("cluster-port", bus.to_string()),
        ("cluster-node-timeout", plan.node_timeout_ms.to_string()),
        ("cluster-replica-validity-factor", "0".to_owned()),
        // A dead master without a replica stops its own slots and no others.
        ("cluster-require-full-coverage", "no".to_owned()),
        ("cluster-allow-replica-migration", "no".to_owned()),
    ];
    if plan.common.tls.is_some() {
        lines.push(("tls-cluster", "yes".to_owned()));
    }
    lines.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
