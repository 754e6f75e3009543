//! The store of a stage: real Redis servers in one of three shapes, hurt by process id; and an eye that looks into each of
//! them past the nodes, at metas and at the headers of records.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use hearth::ids::{PlayerId, ShardId};
use hearth::rig::{ClusterPlan, ClusterSet, Common, SentinelPlan, SentinelSet, Server, Standalone};
use hearth::store::layout::{Layout, RECORD_HEADER_BYTES, parse_hex16};
use load::audit::{MetaWord, StoreWord};
use redis::Value;
use tempfile::TempDir;

use crate::failing_disk::FailingDisk;
use crate::stage::{CLUSTER, SHARDS};

/// A look may take as long as the next one is away; a stopped server does not answer.
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);

/// Which shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Standalone,
    /// One master, one replica, three sentinels.
    Sentinel,
    /// Three masters with a replica each.
    Cluster,
    /// No Redis: one node on the embedded store, on a disk that fails when it is told to.
    Embedded,
}

/// Running servers.
pub(crate) enum Set {
    Standalone(Standalone),
    Sentinel(SentinelSet),
    Cluster(ClusterSet),
    Embedded(FailingDisk),
}

/// The servers, and their folder.
pub(crate) struct Store {
    pub(crate) set: Set,
    _dir: TempDir,
}

impl Store {
    /// Starts a set whose log is synced once a second, as operators run it. Blocks.
    pub(crate) fn start(shape: Shape) -> Self {
        let dir = tempfile::Builder::new().prefix("hearth-faults-").tempdir().unwrap();
        let settings = vec![("appendfsync".to_owned(), "everysec".to_owned())];
        let common = Common { dir: dir.path().to_owned(), settings, ..Common::default() };
        let set = match shape {
            Shape::Standalone => Set::Standalone(Standalone::start(&common).unwrap()),
            Shape::Sentinel => Set::Sentinel(
                SentinelSet::start(&SentinelPlan { common, ..SentinelPlan::default() }).unwrap(),
            ),
            Shape::Cluster => {
                Set::Cluster(ClusterSet::start(&ClusterPlan { common, ..ClusterPlan::default() }).unwrap())
            }
            Shape::Embedded => Set::Embedded(FailingDisk::made_in(dir.path())),
        };
        let store = Self { set, _dir: dir };
        store.found();
        store
    }

    /// Founds the cluster, so that no first node waits for others who may know it.
    fn found(&self) {
        for server in self.servers() {
            // A replica, and a node of a Redis Cluster that does not hold the key, send it away.
            let _ = server.query::<()>(&["HSET", &format!("{CLUSTER}:cfg"), "founded_at", "1"]);
        }
    }

    /// Its URL, for nodes.
    pub(crate) fn url(&self) -> String {
        match &self.set {
            Set::Standalone(set) => set.url(),
            Set::Sentinel(set) => set.url(),
            Set::Cluster(set) => set.url(),
            Set::Embedded(disk) => disk.url(),
        }
    }

    /// The servers that keep data.
    pub(crate) fn servers(&self) -> &[Server] {
        match &self.set {
            Set::Standalone(set) => std::slice::from_ref(set.server()),
            Set::Sentinel(set) => set.servers(),
            Set::Cluster(set) => set.nodes(),
            Set::Embedded(_) => &[],
        }
    }

    /// The same, to start one of them again.
    pub(crate) fn server_mut(&mut self, place: usize) -> &mut Server {
        match &mut self.set {
            Set::Standalone(set) => set.server_mut(),
            Set::Sentinel(set) => &mut set.servers_mut()[place],
            Set::Cluster(set) => &mut set.nodes_mut()[place],
            Set::Embedded(_) => panic!("the embedded store is no server"),
        }
    }

    /// What a dead server kept: its append-only file.
    pub(crate) fn empty(&self, place: usize) {
        let folder: PathBuf = self.servers()[place].dir().join("appendonlydir");
        std::fs::remove_dir_all(folder).unwrap();
    }
}

/// Hears which leases are given back in a server: nothing but that takes the holder out of a shard's meta.
pub(crate) struct Returns {
    connection: redis::Connection,
}

impl Returns {
    /// Listens to the server on this port from now on. Blocks.
    pub(crate) fn heard_from(port: u16) -> redis::RedisResult<Self> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
        let mut connection = client.get_connection_with_timeout(LOOK_TIMEOUT)?;
        redis::cmd("CONFIG").arg("SET").arg("notify-keyspace-events").arg("Eh").exec(&mut connection)?;
        connection
            .send_packed_command(&redis::cmd("SUBSCRIBE").arg("__keyevent@0__:hdel").get_packed_command())?;
        connection.recv_response()?;
        connection.set_read_timeout(Some(LOOK_TIMEOUT))?;
        Ok(Self { connection })
    }

    /// Of which shards by now. Blocks for a moment.
    pub(crate) fn shards(mut self) -> BTreeSet<u16> {
        let metas = metas();
        let mut shards = BTreeSet::new();
        while let Ok(told) = self.connection.recv_response() {
            let Value::Array(words) = told else { continue };
            let Some(Value::BulkString(key)) = words.last() else { continue };
            let shard = metas.iter().position(|meta| meta.as_bytes() == key);
            shards.extend(shard.and_then(|shard| u16::try_from(shard).ok()));
        }
        shards
    }
}

/// The key of each shard's meta.
fn metas() -> Vec<String> {
    let layout = Layout::of_cluster(CLUSTER).unwrap();
    (0..SHARDS).map(|shard| layout.shard(ShardId::numbered(shard).unwrap()).meta()).collect()
}

/// Looks into servers of the store.
#[derive(Clone)]
pub(crate) struct Eye {
    /// By process: the key of the record.
    records: Vec<String>,
    metas: Vec<String>,
}

impl Eye {
    /// An eye for the records of these players.
    pub(crate) fn on(players: &[PlayerId], shard_of: impl Fn(&PlayerId) -> ShardId) -> Self {
        let layout = Layout::of_cluster(CLUSTER).unwrap();
        let record = |player| layout.shard(shard_of(player)).record(player).concat();
        Self { records: players.iter().map(record).collect(), metas: metas() }
    }

    /// Looks into the server on this port; none where it is no master. Blocks.
    pub(crate) fn look(&self, port: u16) -> Result<Option<StoreWord>, String> {
        self.try_look(port).map_err(|error| error.to_string())
    }

    fn try_look(&self, port: u16) -> redis::RedisResult<Option<StoreWord>> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
        let mut connection = client.get_connection_with_timeout(LOOK_TIMEOUT)?;
        connection.set_read_timeout(Some(LOOK_TIMEOUT))?;
        let role: Vec<Value> = redis::cmd("ROLE").query(&mut connection)?;
        if role.first() != Some(&Value::BulkString(b"master".to_vec())) {
            return Ok(None);
        }
        // Records first: a take-over in between lifts a meta above the record, never the other way.
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        for record in &self.records {
            pipe.cmd("GETRANGE").arg(record).arg(0).arg(RECORD_HEADER_BYTES - 1);
        }
        for meta in &self.metas {
            pipe.cmd("HMGET").arg(meta).arg("epoch").arg("f").arg("gen").arg("holder");
        }
        let told: Vec<redis::RedisResult<Value>> = pipe.query(&mut connection)?;
        let (records, metas) = told.split_at(self.records.len());
        let records = (0..).zip(records).filter_map(|(process, told)| {
            let Ok(Value::BulkString(header)) = told else { return None };
            let (epoch, version) = (header.get(..16)?, header.get(16..)?);
            Some((process, parse_hex16(epoch)?, parse_hex16(version)?))
        });
        let metas = (0..).zip(metas).filter_map(|(shard, told)| {
            let Ok(Value::Array(fields)) = told else { return None };
            let text = |place: usize| match fields.get(place) {
                Some(Value::BulkString(text)) => String::from_utf8_lossy(text).into_owned(),
                _ => String::new(),
            };
            let epoch = text(0).parse().ok()?;
            let f = text(1).parse().unwrap_or(0);
            Some(MetaWord { shard, epoch, f, generation: text(2), holder: text(3) })
        });
        let server = port.to_string();
        Ok(Some(StoreWord { server, metas: metas.collect(), records: records.collect() }))
    }
}
