//! What the nodes say of the cluster, asked as an operator asks: `GET /v1/cluster` with a key. One small HTTP request; the
//! answer is bounded in time and bytes.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Deserialize;

use super::Plan;
use super::node::Node;
use crate::home::placement::node_of;
use crate::ids::ShardId;

const CONNECT_WITHIN: Duration = Duration::from_millis(500);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// More than 4096 shards take.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[derive(Deserialize)]
struct Told {
    nodes: Vec<NodeTold>,
    shards: Vec<ShardTold>,
}

#[derive(Deserialize)]
struct NodeTold {
    node: String,
    draining: bool,
}

#[derive(Deserialize)]
struct ShardTold {
    shard: u16,
    home: Option<String>,
    serving: bool,
}

/// What is missing until each shard is served by the node on which the nodes place it, and every node knows; and by the
/// number of which node. `None` when nothing is. Takes note of how many shards each node serves.
pub(super) fn unsettled(nodes: &mut [Node], plan: &Plan) -> Option<(usize, String)> {
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    for (number, node) in nodes.iter_mut().enumerate() {
        let told = match told(node.ports[1], &plan.service_key) {
            Ok(told) => told,
            Err(error) => return Some((number, format!("{} does not answer services: {error}", node.name))),
        };
        let live = told.nodes.iter().filter(|told| !told.draining && names.contains(&told.node)).count();
        if live != names.len() {
            return Some((number, format!("{} sees {live} of {} nodes", node.name, names.len())));
        }
        if told.shards.len() != usize::from(plan.shards) {
            return Some((number, format!("{} knows {} shards", node.name, told.shards.len())));
        }
        let is_settled = |told: &&ShardTold| {
            let placed = ShardId::numbered(told.shard)
                .and_then(|shard| node_of(shard, names.iter().map(String::as_str)));
            placed.is_some()
                && told.home.as_deref() == placed
                && told.serving == (placed == Some(node.name.as_str()))
        };
        if let Some(ShardTold { shard, .. }) = told.shards.iter().find(|told| !is_settled(told)) {
            return Some((number, format!("shard {shard} is not where it stays, says {}", node.name)));
        }
        node.shards = told.shards.iter().filter(|told| told.serving).count();
    }
    None
}

fn told(port: u16, key: &str) -> io::Result<Told> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), CONNECT_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    let request = format!(
        "GET /v1/cluster HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| invalid("no HTTP"))?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(invalid(head.lines().next().unwrap_or_default()));
    }
    serde_json::from_str(body).map_err(|error| invalid(&error.to_string()))
}
