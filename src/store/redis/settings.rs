//! What a Redis server's settings mean for the promises: read at start and again while the node runs. Called by
//! `RedisStore::shortfalls`. It judges; whether a node starts all the same is decided by whoever asked.

use std::collections::HashMap;

use super::breaker::Call;
use super::lane::{Lane, Repeat, Request};
use super::reply::Reply;
use crate::store::{Shortfall, StoreError};

/// The first version whose scripts can refuse a full or read-only server before their first line.
const VERSION_MAJOR_MIN: u64 = 7;

/// What of a server's state matters here.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    info: HashMap<String, String>,
    /// `None` if the server does not tell (managed ones forbid CONFIG).
    appendfsync: Option<String>,
}

impl Settings {
    /// Asks a server.
    pub(super) async fn ask(lane: &Lane) -> Result<Self, StoreError> {
        let info = redis::cmd("INFO");
        let info = lane.call(Call::Read, Repeat::Once, Request::Command(&info)).await;
        let info = info.map_err(|failure| failure.error)?;
        let info = Reply::of(info)?.word()?;
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg("appendfsync");
        let appendfsync = match lane
            .call(Call::Read, Repeat::Once, Request::Command(&ask))
            .await
            .map_err(|failure| failure.error)
        {
            Ok(value) => {
                let mut reply = Reply::of(value)?;
                if reply.len() == 2 && reply.word()? == "appendfsync" { Some(reply.word()?) } else { None }
            }
            Err(StoreError::Refused(_) | StoreError::Corrupt(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(Self::read(&info, appendfsync))
    }

    /// From the text of INFO and from what CONFIG says, if it does.
    pub(super) fn read(info: &str, appendfsync: Option<String>) -> Self {
        let info = info.lines().filter_map(|line| line.trim_end().split_once(':'));
        let info = info.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { info, appendfsync }
    }

    /// How many replicas follow and have caught up. Redis tells of each as `slave0`, `slave1` and so on.
    pub(super) fn replicas(&self) -> usize {
        let is_one = |name: &str| name.strip_prefix("slave").is_some_and(|rest| rest.parse::<u32>().is_ok());
        self.info.iter().filter(|(name, value)| is_one(name) && value.contains("state=online")).count()
    }

    fn says(&self, name: &str) -> Option<&str> {
        self.info.get(name).map(String::as_str)
    }

    /// Where the settings of a server, or of a node of a cluster, fall short. `replicas`: how many there should be.
    pub(super) fn shortfalls(&self, is_cluster: bool, replicas: u32) -> Vec<Shortfall> {
        let found = [
            self.version(),
            self.role(),
            self.shape(is_cluster),
            self.eviction(),
            self.persistence(),
            self.replication(replicas),
        ];
        found.into_iter().flatten().collect()
    }

    /// A node of a cluster, spoken to as if it were alone, would send most requests away.
    fn shape(&self, is_cluster: bool) -> Option<Shortfall> {
        (!is_cluster && self.says("cluster_enabled") == Some("1")).then(|| {
            fatal(
                "cluster-enabled",
                "is yes: the server is a node of a Redis Cluster, use redis+cluster:// in the store's URL",
            )
        })
    }

    fn version(&self) -> Option<Shortfall> {
        let version = self.says("redis_version").unwrap_or("unknown");
        let major = version.split('.').next().and_then(|major| major.parse::<u64>().ok());
        if major.is_some_and(|major| major >= VERSION_MAJOR_MIN) {
            return None;
        }
        let said = format!(
            "is {version} and must be {VERSION_MAJOR_MIN} or later: an older server would write half a batch when it is full"
        );
        Some(fatal("redis_version", &said))
    }

    fn role(&self) -> Option<Shortfall> {
        let role = self.says("role").filter(|role| *role != "master")?;
        Some(fatal("role", &format!("is {role} and must be master: a replica refuses every write")))
    }

    fn eviction(&self) -> Option<Shortfall> {
        let policy = self.says("maxmemory_policy").unwrap_or("unknown");
        let said = format!(
            "is {policy} and must be noeviction: a full server would drop sessions and leases instead of refusing new ones"
        );
        (policy != "noeviction").then(|| fatal("maxmemory-policy", &said))
    }

    /// A replica that follows from afar and has not caught up counts for nothing: no write can wait for it.
    fn replication(&self, needed: u32) -> Option<Shortfall> {
        let follow = self.replicas();
        (follow < usize::try_from(needed).unwrap_or(usize::MAX)).then(|| {
            let said = format!(
                "is {needed}, and {follow} replicas follow: `replicated` is refused, and a server that dies takes with it \
                 what no node has in memory"
            );
            shortfall("redis.replicated_to", &said)
        })
    }

    fn persistence(&self) -> Option<Shortfall> {
        if self.says("aof_enabled") != Some("1") {
            return Some(shortfall(
                "appendonly",
                "is no and should be yes: `durable` lasts only while the server or the session's home lives, and \
                 whatever has no home in memory is lost with the server",
            ));
        }
        let said = match self.appendfsync.as_deref() {
            Some("always") => return None,
            Some("everysec") => {
                "is everysec: if the server's machine dies, up to 1 s of `durable` writes may be lost \
                 (about 2 s on a busy disk); always loses none"
            }
            Some(_) => {
                "is no: if the server's machine dies, whatever the system had not written yet is lost, \
                 often 30 s; everysec loses 1 s, always none"
            }
            None => {
                "cannot be read (CONFIG is forbidden): if it is not always, `durable` writes may be lost when the server's machine dies"
            }
        };
        Some(shortfall("appendfsync", said))
    }
}

/// What is `said` of a setting, as a sentence of its own.
fn shortfall(setting: &str, said: &str) -> Shortfall {
    Shortfall { setting: setting.to_owned(), message: format!("{setting} {said}"), fatal: false }
}

/// The same of what no node must start with.
fn fatal(setting: &str, said: &str) -> Shortfall {
    Shortfall { fatal: true, ..shortfall(setting, said) }
}

/// What several servers fall short of, each thing once.
pub(super) fn together(found: Vec<(&str, Vec<Shortfall>)>) -> Vec<Shortfall> {
    let count = found.len();
    let mut things: Vec<(Shortfall, Vec<&str>)> = Vec::new();
    for (at, shortfalls) in found {
        for shortfall in shortfalls {
            match things.iter_mut().find(|(known, _)| *known == shortfall) {
                Some((_, places)) => places.push(at),
                None => things.push((shortfall, vec![at])),
            }
        }
    }
    let named = |(shortfall, places): (Shortfall, Vec<&str>)| {
        if places.len() == count {
            return shortfall;
        }
        let message = format!("at {}: {}", places.join(", "), shortfall.message);
        Shortfall { message, ..shortfall }
    };
    things.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\nrole:master\r\n\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n";

    fn found(info: &str, appendfsync: Option<&str>) -> Vec<(String, bool)> {
        let settings = Settings::read(info, appendfsync.map(str::to_owned));
        settings
            .shortfalls(false, 0)
            .into_iter()
            .map(|shortfall| (shortfall.setting, shortfall.fatal))
            .collect()
    }

    #[test]
    fn a_server_as_it_should_be_falls_short_of_nothing() {
        assert_eq!(found(GOOD, Some("always")), []);
        assert_eq!(found(&GOOD.replace("7.0.15", "8.2.1"), Some("always")), []);
    }

    #[test]
    fn replicas_that_have_caught_up_are_counted() {
        let replication = "slave_expires_tracked_keys:0\r\nconnected_slaves:2\r\n\
                           slave0:ip=10.0.0.2,port=6379,state=online,offset=14,lag=0\r\n\
                           slave1:ip=10.0.0.3,port=6379,state=wait_bgsave,offset=0,lag=0\r\n";
        assert_eq!(Settings::read(replication, None).replicas(), 1);
        assert_eq!(Settings::read(GOOD, None).replicas(), 0);
    }

    #[test]
    fn replicas_that_are_expected_and_do_not_follow_are_told() {
        let one = format!("{GOOD}slave0:ip=10.0.0.2,port=6379,state=online,offset=14,lag=0\r\n");
        for (info, needed, is_told) in [(GOOD, 0, false), (GOOD, 1, true), (&one, 1, false), (&one, 2, true)]
        {
            let found = Settings::read(info, Some("always".to_owned())).shortfalls(false, needed);
            let told = found.iter().any(|one| one.setting == "redis.replicated_to" && !one.fatal);
            assert_eq!((told, found.len()), (is_told, usize::from(is_told)), "{needed}: {found:?}");
        }
    }

    #[test]
    fn each_setting_is_judged() {
        let table = [
            ("7.0.15", "6.2.14", "always", "redis_version", true),
            ("7.0.15", "unstable", "always", "redis_version", true),
            ("role:master", "role:slave", "always", "role", true),
            ("role:master", "role:master\r\ncluster_enabled:1", "always", "cluster-enabled", true),
            ("noeviction", "allkeys-lru", "always", "maxmemory-policy", true),
            ("noeviction", "volatile-ttl", "always", "maxmemory-policy", true),
            ("aof_enabled:1", "aof_enabled:0", "always", "appendonly", false),
            ("", "", "everysec", "appendfsync", false),
            ("", "", "no", "appendfsync", false),
        ];
        for (good, bad, appendfsync, setting, fatal) in table {
            let info = if good.is_empty() { GOOD.to_owned() } else { GOOD.replace(good, bad) };
            assert_eq!(found(&info, Some(appendfsync)), [(setting.to_owned(), fatal)], "{bad} {appendfsync}");
            let said = &Settings::read(&info, Some(appendfsync.to_owned())).shortfalls(false, 0)[0].message;
            assert!(said.starts_with(&format!("{setting} is ")), "a sentence has its subject: {said}");
        }
        assert_eq!(found(GOOD, None), [("appendfsync".to_owned(), false)]);
        assert_eq!(found("", None).len(), 3, "a server that tells nothing is not trusted");
    }

    #[test]
    fn what_all_servers_lack_is_said_once_and_what_some_lack_with_their_names() {
        let short =
            |setting: &str| Shortfall { setting: setting.into(), message: "is no".into(), fatal: false };
        let found = vec![
            ("a:1", vec![short("appendonly"), short("save")]),
            ("b:1", vec![short("appendonly")]),
            ("c:1", vec![short("appendonly"), short("save")]),
        ];
        let messages: Vec<_> = together(found).into_iter().map(|one| (one.setting, one.message)).collect();
        let expected = [("appendonly", "is no"), ("save", "at a:1, c:1: is no")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(messages, expected);
        assert_eq!(together(vec![("", vec![short("appendonly")])])[0].message, "is no");
    }
}
