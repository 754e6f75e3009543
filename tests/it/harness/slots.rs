//! A slot of a Redis Cluster that moves from one node to another while it is used, step by step.

use hearth::rig::{ClusterSet, Server};

/// How often the nodes answered with this code.
pub(crate) fn told(set: &ClusterSet, code: &str) -> u64 {
    let line = format!("errorstat_{code}:count=");
    let of = |node: &Server| {
        let stats: String = node.query(&["INFO", "errorstats"]).unwrap();
        stats.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok()).unwrap_or(0)
    };
    set.nodes().iter().map(of).sum()
}

/// A slot on its way from one node to another.
pub(crate) struct Move<'a> {
    from: &'a Server,
    to: &'a Server,
    slot: String,
    nodes: Vec<&'a Server>,
}

impl<'a> Move<'a> {
    /// From one node of the set to another, by their places: the slot of this key.
    pub(crate) fn begin(set: &'a ClusterSet, from: usize, to: usize, key: &str) -> Self {
        let (from, to) = (&set.nodes()[from], &set.nodes()[to]);
        let slot: u64 = from.query(&["CLUSTER", "KEYSLOT", key]).unwrap();
        let slot = slot.to_string();
        let id = |node: &Server| node.query::<String>(&["CLUSTER", "MYID"]).unwrap();
        to.query::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]).unwrap();
        from.query::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]).unwrap();
        Self { from, to, slot, nodes: set.nodes().iter().collect() }
    }

    /// These keys go over.
    pub(crate) fn keys(&self, keys: &[&str]) {
        let port = self.to.port().to_string();
        let command = [&["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"], keys].concat();
        self.from.query::<()>(&command).unwrap();
    }

    /// Some keys go over, of those that are there; how many.
    pub(crate) fn some_keys(&self, most: usize) -> usize {
        let most = most.to_string();
        let keys: Vec<String> = self.from.query(&["CLUSTER", "GETKEYSINSLOT", &self.slot, &most]).unwrap();
        if !keys.is_empty() {
            self.keys(&keys.iter().map(String::as_str).collect::<Vec<_>>());
        }
        keys.len()
    }

    /// All keys go over.
    pub(crate) fn all_keys(&self) {
        while self.some_keys(1_000) > 0 {}
    }

    /// The slot is the other node's from now on.
    pub(crate) fn end(self) {
        let id: String = self.to.query(&["CLUSTER", "MYID"]).unwrap();
        // A replica learns it from its master alone.
        let is_master = |node: &Server| node.says(&["INFO", "replication"], "role:master");
        let others = self.nodes.iter().filter(|node| node.port() != self.to.port() && is_master(node));
        for node in std::iter::once(&self.to).chain(others) {
            node.query::<()>(&["CLUSTER", "SETSLOT", &self.slot, "NODE", &id]).unwrap();
        }
    }
}
