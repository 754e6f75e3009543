//! Homes for the tests of this room and of those above it: settings, and one home alone on a store in a folder of its own.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::record::{LoginPolicy, Rules};
use super::shard::Shard;
use super::{Home, HomeSettings, Login, Opened};
use crate::cluster::Members;
use crate::events::{Events, Status};
use crate::ids::{Owner, PlayerId};
use crate::near_cache::Terms;
use crate::store::{self, ClusterConfig, OpenOptions, Store};
use crate::tasks::Tasks;

/// Times that a test outlives, and room for a crowd.
pub(crate) fn settings() -> HomeSettings {
    HomeSettings {
        rules: Rules {
            session_ttl: Duration::from_secs(60),
            login_policy: LoginPolicy::Replace,
            presence_grace: Duration::from_secs(15),
            away_after: Duration::ZERO,
            state_bytes_max: 4_096,
            watches_max: 500,
            rooms_max: 3,
            room_grants: Vec::new(),
            cseq_unchecked: false,
        },
        flush_interval: Duration::from_millis(20),
        lease_ttl: Duration::from_secs(6),
        hold: Duration::from_millis(50),
        durable_wait: Duration::from_secs(2),
        pending: Duration::from_secs(60),
        hot_records_max: 10_000,
        bans_max: 100,
        messages_keep: Duration::from_secs(3_600),
        remember: Duration::from_secs(3_600),
        cold: Terms {
            entries_max: 1_000,
            ttl_ms: 30_000,
            negative_ttl_ms: 5_000,
            stale_ms: 30_000,
            jitter_percent: 50,
        },
        commits_in_flight_max: 8,
        lost_writes_unchecked: false,
    }
}

/// A cluster of so many shards.
pub(crate) fn cluster(shards: u16) -> ClusterConfig {
    ClusterConfig { shards, format_min: 1, format_max: 1, ticket_secret: vec![7; 32] }
}

/// An embedded store, and the folder that it lives in.
pub(crate) async fn folder() -> (Arc<dyn Store>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("embedded:{}", dir.path().display());
    (store::open(&url, OpenOptions::default()).await.unwrap(), dir)
}

/// The only node of a cluster of one shard.
pub(crate) struct House {
    pub(crate) home: Arc<Home>,
    pub(crate) events: Arc<Events>,
    _dir: TempDir,
}

impl House {
    pub(crate) async fn new() -> Self {
        let (store, dir) = folder().await;
        let members = Members::alone(Owner::boot("node-1"), Arc::clone(&store));
        let events = Arc::new(Events::default());
        let home =
            Home::start(settings(), cluster(1), members, store, Arc::clone(&events), None, Tasks::new());
        let home = home.unwrap();
        assert_eq!(home.wait_owned(Duration::from_secs(10)).await, 0);
        Self { home, events, _dir: dir }
    }

    pub(crate) fn shard(&self) -> &Arc<Shard> {
        &self.home.shards()[0]
    }

    pub(crate) async fn login(&self, player: &str) -> Opened {
        self.home.login(login(player)).await.unwrap()
    }

    /// Waits until all that is dirty is stored, and whoever has no session has left memory.
    pub(crate) async fn is_stored(&self) {
        assert!(self.home.flush_all(Duration::from_secs(10)).await);
    }
}

/// A login of a player with one device.
pub(crate) fn login(player: &str) -> Login {
    Login {
        player: named(player),
        device: "pc".into(),
        status: Status::Online,
        token_expires_at_unix_ms: u64::MAX,
        token_issued_at_unix_ms: 0,
        grants: Box::default(),
        pending: false,
    }
}

pub(crate) fn named(player: &str) -> PlayerId {
    PlayerId::parse(player).unwrap()
}
