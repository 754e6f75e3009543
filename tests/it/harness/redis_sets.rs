//! Sets of real Redis servers: one master with a replica and three sentinels, and a Redis Cluster. Those that no test
//! hurts are started once for all tests and end with the process; a test that hurts one starts its own.

use std::path::PathBuf;
use std::sync::OnceLock;

use hearth::rig::{ClusterPlan, ClusterSet, Common, SentinelPlan, SentinelSet};

/// A set's folder, which goes when its last server does.
fn folder() -> PathBuf {
    tempfile::Builder::new().prefix("hearth-rig-").tempdir().unwrap().keep()
}

pub(crate) fn common() -> Common {
    Common { dir: folder(), ..Common::default() }
}

/// The sentinels that all tests share.
pub(crate) fn sentinels() -> &'static SentinelSet {
    static SET: OnceLock<SentinelSet> = OnceLock::new();
    SET.get_or_init(|| start_sentinels(SentinelPlan { common: common(), ..SentinelPlan::default() }))
}

/// The cluster that all tests share: masters alone, since none of them dies.
pub(crate) fn cluster() -> &'static ClusterSet {
    static SET: OnceLock<ClusterSet> = OnceLock::new();
    SET.get_or_init(|| {
        start_cluster(ClusterPlan { common: common(), replicas_each: 0, ..ClusterPlan::default() })
    })
}

pub(crate) fn start_sentinels(plan: SentinelPlan) -> SentinelSet {
    SentinelSet::start(&plan).unwrap_or_else(|error| panic!("\n\n  {error}\n\n"))
}

pub(crate) fn start_cluster(plan: ClusterPlan) -> ClusterSet {
    ClusterSet::start(&plan).unwrap_or_else(|error| panic!("\n\n  {error}\n\n"))
}
