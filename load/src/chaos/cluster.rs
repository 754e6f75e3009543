//! The cluster as its nodes tell it before anything is broken: who they are, how many shards there are, and which player belongs
//! to which. Asked over the service API alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::time::sleep;
use xxhash_rust::xxh3::xxh3_64;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

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
    #[error("{node} does not know {other}: these are nodes of two clusters")]
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
}

/// A cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    /// Each node's address for services, by its name.
    pub(super) nodes: BTreeMap<String, String>,
    /// How many shards there are.
    pub(super) shards: u16,
}

impl Cluster {
    /// Looks at each of these addresses; again for so long, while nodes do not answer or do not know each other yet.
    pub(super) async fn at(urls: &[String], key: &str, patience: Duration) -> Result<Self, LookError> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::look(urls, key).await {
                Err(LookError::Unreachable { .. } | LookError::Apart { .. }) if Instant::now() < deadline => {
                    sleep(LOOK_INTERVAL).await;
                }
                looked => return looked,
            }
        }
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
    Ok(Cluster { nodes, shards })
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
        let error = cluster(vec![("http://1", told("a", &both))]).unwrap_err();
        assert!(error.contains("b is a node of this cluster, too"), "{error}");
        let error =
            cluster(vec![("http://1", told("a", &both)), ("http://2", told("a", &both))]).unwrap_err();
        assert!(error.contains("http://2 and http://1 are the same node, a"), "{error}");
        let error =
            cluster(vec![("http://1", told("a", &["a"])), ("http://2", told("b", &["b"]))]).unwrap_err();
        assert!(error.contains("a does not know b"), "{error}");
    }

    #[test]
    fn a_players_shard_is_the_protocols() {
        let vectors: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../../protocol/vectors/hash.json")).unwrap();
        let cluster = Cluster { nodes: BTreeMap::new(), shards: 256 };
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
