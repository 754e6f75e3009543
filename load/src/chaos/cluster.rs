//! The cluster as its nodes tell it before anything is broken: who they are, how many shards there are, and which player belongs
//! to which. Asked over the service API alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::time::sleep;
use xxhash_rust::xxh3::xxh3_64;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How long nodes may take to know of one that has just started.
const KNOWN_WITHIN: Duration = Duration::from_secs(15);
/// Players that one query names at most, by the protocol.
const PLAYERS_A_QUERY_MAX: usize = 1_000;

/// What is not as it was said to be.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// Nobody answers.
    #[error(
        "{url} does not answer ({why}): --service takes where services call a node, such as http://127.0.0.1:7701"
    )]
    Unreachable {
        /// Where.
        url: String,
        /// What came instead.
        why: String,
    },
    /// The key may not look.
    #[error(
        "{url} refuses the key (HTTP {status}): --key or HEARTH_SERVICE_KEY must be one with the scope read"
    )]
    Refused {
        /// Where.
        url: String,
        /// 401 or 403.
        status: u16,
    },
    /// Somebody else answers.
    #[error("{url} is no address for services of a Hearth node: GET /v1/cluster there came to {what}")]
    Stranger {
        /// Where.
        url: String,
        /// What it answered.
        what: String,
    },
    /// An address before several nodes, or one named twice.
    #[error("{url} and {other} are the same node, {node}: each --service is one node's own address")]
    Twice {
        /// The node.
        node: String,
        /// One of its addresses.
        url: String,
        /// The other.
        other: String,
    },
    /// A node that nobody named.
    #[error("{node} is a node of this cluster, too, says {url}: name its address with another --service")]
    Unnamed {
        /// Which.
        node: String,
        /// Who says so.
        url: String,
    },
    /// Nodes of two clusters.
    #[error(
        "{node} does not know {other}: that one has only just started, or these are nodes of two clusters, or of one store and \
         two prefixes"
    )]
    Apart {
        /// A node.
        node: String,
        /// One that it does not see.
        other: String,
    },
}

#[derive(Debug, Deserialize)]
struct Told {
    node: String,
    nodes: Vec<Member>,
    shards: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Member {
    node: String,
    /// Where clients connect.
    #[serde(default)]
    url: String,
}

/// A cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    /// Each node's address for services, by its name.
    pub(super) nodes: BTreeMap<String, String>,
    /// How many shards there are.
    pub(super) shards: u16,
    /// At which ports services and clients call each node.
    pub(super) ports: BTreeMap<String, BTreeSet<u16>>,
}

impl Cluster {
    /// Looks at each of these addresses; again for so long, while nodes do not answer or do not know each other yet.
    pub(super) async fn at(urls: &[String], key: &str, patience: Duration) -> Result<Self, LookError> {
        let began = Instant::now();
        loop {
            let looked = Self::look(urls, key).await;
            let patience = match &looked {
                Err(LookError::Unreachable { .. }) => patience,
                // Nodes hear of a new one with its heartbeats.
                Err(LookError::Apart { .. }) => patience.max(KNOWN_WITHIN),
                _ => return looked,
            };
            if began.elapsed() >= patience {
                return looked;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Whether a node shows any of these players as present; again for so long, while none does. One that does not answer shows
    /// nobody.
    pub(super) async fn knows_any(&self, key: &str, players: &[String], patience: Duration) -> bool {
        let began = Instant::now();
        loop {
            for url in self.nodes.values() {
                if shows_any(url, key, players).await {
                    return true;
                }
            }
            if began.elapsed() >= patience {
                return false;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Whether this key may push messages: asked with a message that says nothing.
    pub(super) async fn may_push(&self, key: &str, player: &str) -> bool {
        let Some(url) = self.nodes.values().next() else { return false };
        let Ok(http) = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).build() else { return false };
        let asked = http.post(format!("{url}/v1/players/{player}/messages")).bearer_auth(key);
        let answered = asked.json(&serde_json::json!({})).send().await;
        answered.is_ok_and(|answered| !matches!(answered.status().as_u16(), 401 | 403))
    }

    async fn look(urls: &[String], key: &str) -> Result<Self, LookError> {
        let mut all = Vec::new();
        for url in urls {
            let url = url.trim_end_matches('/');
            all.push((url.to_owned(), ask(url, key).await?));
        }
        together(all)
    }

    /// The shard of a player, as the protocol has it.
    pub(super) fn shard_of(&self, player: &str) -> u16 {
        let number = xxh3_64(player.as_bytes()).checked_rem(u64::from(self.shards)).unwrap_or(0);
        u16::try_from(number).unwrap_or(0)
    }
}

async fn shows_any(url: &str, key: &str, players: &[String]) -> bool {
    let Ok(http) = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).build() else { return false };
    for players in players.chunks(PLAYERS_A_QUERY_MAX) {
        let asked = http.post(format!("{url}/v1/presence/query")).bearer_auth(key);
        let Ok(answered) = asked.json(&serde_json::json!({"players": players})).send().await else {
            return false;
        };
        let told: serde_json::Value = answered.json().await.unwrap_or_default();
        let presences = told.get("presences").and_then(serde_json::Value::as_array);
        let is_present = |item: &serde_json::Value| {
            item.get("status").and_then(serde_json::Value::as_str).is_some_and(|status| status != "offline")
        };
        if presences.is_some_and(|presences| presences.iter().any(is_present)) {
            return true;
        }
    }
    false
}

/// The port of `http://HOST:PORT` or `ws://HOST:PORT/PATH`.
fn port_of(url: &str) -> Option<u16> {
    reqwest::Url::parse(url).ok()?.port_or_known_default()
}

async fn ask(url: &str, key: &str) -> Result<Told, LookError> {
    let unreachable = |error: reqwest::Error| {
        let url = url.to_owned();
        // What reqwest says first is only that it failed; the system's word is the last.
        let mut why: &dyn std::error::Error = &error;
        while let Some(source) = why.source() {
            why = source;
        }
        let why = why.to_string();
        LookError::Unreachable { url, why }
    };
    let http = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).build().map_err(unreachable)?;
    let answered =
        http.get(format!("{url}/v1/cluster")).bearer_auth(key).send().await.map_err(unreachable)?;
    let status = answered.status().as_u16();
    let stranger = |what: String| LookError::Stranger { url: url.to_owned(), what };
    match status {
        200 => answered.json().await.map_err(|error| stranger(format!("HTTP 200, but {error}"))),
        401 | 403 => Err(LookError::Refused { url: url.to_owned(), status }),
        _ => Err(stranger(format!("HTTP {status}"))),
    }
}

/// Puts together what they say.
fn together(all: Vec<(String, Told)>) -> Result<Cluster, LookError> {
    let mut nodes = BTreeMap::new();
    let mut shards = 0;
    for (url, told) in &all {
        shards = u16::try_from(told.shards.len()).unwrap_or(u16::MAX);
        if let Some(other) = nodes.insert(told.node.clone(), url.clone()) {
            return Err(LookError::Twice { node: told.node.clone(), url: url.clone(), other });
        }
    }
    for (url, told) in &all {
        if let Some(unnamed) = told.nodes.iter().find(|member| !nodes.contains_key(&member.node)) {
            return Err(LookError::Unnamed { node: unnamed.node.clone(), url: url.clone() });
        }
        if let Some(other) = nodes.keys().find(|node| told.nodes.iter().all(|member| member.node != **node)) {
            return Err(LookError::Apart { node: told.node.clone(), other: other.clone() });
        }
    }
    let mut ports: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    for (url, told) in &all {
        let mine = told.nodes.iter().filter(|member| member.node == told.node).map(|member| &member.url);
        let called = mine.chain([url]).filter_map(|url| port_of(url));
        ports.insert(told.node.clone(), called.collect());
    }
    Ok(Cluster { nodes, shards, ports })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(node: &str, members: &[&str]) -> Told {
        let nodes: Vec<_> = members.iter().map(|node| serde_json::json!({"node": node})).collect();
        serde_json::from_value(serde_json::json!({"node": node, "nodes": nodes, "shards": [{}, {}]})).unwrap()
    }

    fn cluster(said: Vec<(&str, Told)>) -> Result<Cluster, String> {
        let said = said.into_iter().map(|(url, told)| (url.to_owned(), told)).collect();
        together(said).map_err(|error| error.to_string())
    }

    #[test]
    fn each_node_is_named_once_and_none_is_left_out() {
        let both = ["a", "b"];
        let whole = cluster(vec![("http://1", told("a", &both)), ("http://2", told("b", &both))]).unwrap();
        assert_eq!((whole.shards, whole.nodes["b"].as_str()), (2, "http://2"));
        let known: Told = serde_json::from_value(serde_json::json!({
            "node": "a", "nodes": [{"node": "a", "url": "ws://10.0.0.5:7700/v1/connect"}], "shards": [],
        }))
        .unwrap();
        let alone = cluster(vec![("http://10.0.0.5:7701", known)]).unwrap();
        assert_eq!(alone.ports["a"], BTreeSet::from([7_700, 7_701]));
        let error = cluster(vec![("http://1", told("a", &both))]).unwrap_err();
        assert!(error.contains("b is a node of this cluster, too"), "{error}");
        let error =
            cluster(vec![("http://1", told("a", &both)), ("http://2", told("a", &both))]).unwrap_err();
        assert!(error.contains("http://2 and http://1 are the same node, a"), "{error}");
        let error =
            cluster(vec![("http://1", told("a", &["a"])), ("http://2", told("b", &["b"]))]).unwrap_err();
        assert!(error.contains("a does not know b"), "{error}");
        assert!(error.contains("only just started") && error.contains("two clusters"), "{error}");
    }

    #[test]
    fn a_players_shard_is_the_protocols() {
        let vectors: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../../protocol/vectors/hash.json")).unwrap();
        let cluster = Cluster { nodes: BTreeMap::new(), shards: 256, ports: BTreeMap::new() };
        assert!(vectors.len() > 5);
        for vector in vectors {
            let player = vector["input"].as_str().unwrap();
            assert_eq!(
                u64::from(cluster.shard_of(player)),
                vector["shard_of_256"].as_u64().unwrap(),
                "{player}"
            );
        }
    }

    #[tokio::test]
    async fn who_does_not_answer_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error =
            Cluster::at(std::slice::from_ref(&url), "k", Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.contains(&url) && error.contains("--service"), "{error}");
    }
}
