//! The Redis of a local cluster, in one of its shapes. A thin word over `rig`.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::rig::{ClusterPlan, ClusterSet, Common, RigError, SentinelPlan, SentinelSet, Server, Standalone};

/// Which Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// One server.
    Standalone,
    /// A master and a replica, and three sentinels that watch them.
    Sentinel,
    /// Three masters with a replica each.
    Cluster,
}

/// The running servers.
pub(super) enum Redis {
    Standalone(Standalone),
    Sentinel(SentinelSet),
    Cluster(ClusterSet),
}

impl Redis {
    pub(super) fn start(shape: Shape, dir: PathBuf) -> Result<Self, RigError> {
        // As config/redis/ advises: what is acked durable is on the disk.
        let settings = vec![("appendfsync".to_owned(), "always".to_owned())];
        let common = Common { dir, settings, ..Common::default() };
        Ok(match shape {
            Shape::Standalone => Self::Standalone(Standalone::start(&common)?),
            Shape::Sentinel => {
                Self::Sentinel(SentinelSet::start(&SentinelPlan { common, ..SentinelPlan::default() })?)
            }
            Shape::Cluster => {
                Self::Cluster(ClusterSet::start(&ClusterPlan { common, ..ClusterPlan::default() })?)
            }
        })
    }

    /// For `--store`.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Standalone(set) => set.url(),
            Self::Sentinel(set) => set.url(),
            Self::Cluster(set) => set.url(),
        }
    }

    /// Each server, with a name.
    pub(super) fn servers(&self) -> Vec<(String, &Server)> {
        match self {
            Self::Standalone(set) => vec![("redis".to_owned(), set.server())],
            Self::Sentinel(set) => {
                numbered("redis", set.servers()).chain(numbered("sentinel", set.sentinels())).collect()
            }
            Self::Cluster(set) => numbered("redis", set.nodes()).collect(),
        }
    }
}

fn numbered<'a>(kind: &'a str, servers: &'a [Server]) -> impl Iterator<Item = (String, &'a Server)> {
    (1..).zip(servers).map(move |(number, server)| (format!("{kind}-{number}"), server))
}
