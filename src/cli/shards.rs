//! `hearth shards`: asks a running server for its cluster and prints who holds what. Called by the command line alone.
//! Speaks as much HTTP as one question needs, and reads no more than an answer can have.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use serde::Deserialize;

/// How long a server may take for anything.
const PATIENCE: Duration = Duration::from_secs(5);
/// 4096 shards and 256 nodes are well below it.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShardsError {
    /// The address is none.
    #[error("--service-url must be such as http://127.0.0.1:7701, not {0:?}")]
    Url(String),
    /// Nobody answers there.
    #[error("{url} does not answer ({source}): is the server running, and is this its service address?")]
    Silent {
        /// Where.
        url: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The key is not good for it.
    #[error("{url} refuses the key ({status}): HEARTH_SERVICE_KEY must be one with the scope read")]
    Refused {
        /// Where.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// Something else answers there.
    #[error("{0} does not answer as a hearth server does: is this its service address?")]
    Strange(String),
}

#[derive(Deserialize)]
struct Cluster {
    nodes: Vec<Node>,
    shards: Vec<Shard>,
}

#[derive(Deserialize)]
struct Node {
    node: String,
    url: String,
    draining: bool,
    /// Whether the node that answers has a link to it; it has none to itself.
    link: Option<String>,
    age_ms: u64,
    holds: Holds,
}

#[derive(Deserialize)]
struct Holds {
    epochs: (u64, u64),
    records_hot: u64,
    records_dirty: u64,
    flush_lag_ms: u64,
}

#[derive(Deserialize)]
struct Shard {
    shard: u16,
    home: Option<String>,
    /// Who says where it is; nobody, where that is not known.
    home_by: Option<String>,
    home_age_ms: Option<u64>,
}

/// The table that the server at this address tells to this key.
pub(super) fn table(url: &str, key: &str) -> Result<String, ShardsError> {
    let body = ask(url, key)?;
    let cluster = serde_json::from_slice(&body).map_err(|_| ShardsError::Strange(url.to_owned()))?;
    Ok(render(&cluster))
}

fn ask(url: &str, key: &str) -> Result<Vec<u8>, ShardsError> {
    let host = url.strip_prefix("http://").map(|host| host.trim_end_matches('/'));
    let bad = || ShardsError::Url(url.to_owned());
    let host =
        host.filter(|host| !host.is_empty() && !host.contains(['/', '\r', '\n', ' '])).ok_or_else(bad)?;
    let silent = |source| ShardsError::Silent { url: url.to_owned(), source };
    let address = host.to_socket_addrs().map_err(silent)?.next().ok_or_else(bad)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(silent)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(silent)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(silent)?;
    // No key holds a line's end: it could not be sent as a header.
    let request = format!(
        "GET /v1/cluster HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        key.trim()
    );
    stream.write_all(request.as_bytes()).map_err(silent)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(silent)?;
    body_of(&answer, url)
}

fn body_of(answer: &[u8], url: &str) -> Result<Vec<u8>, ShardsError> {
    let strange = || ShardsError::Strange(url.to_owned());
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(strange)?;
    let (head, body) = answer.split_at_checked(end + 4).ok_or_else(strange)?;
    let head = std::str::from_utf8(head).map_err(|_| strange())?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    match status {
        Some(200) => Ok(body.to_vec()),
        Some(status @ (401 | 403)) => Err(ShardsError::Refused { url: url.to_owned(), status }),
        _ => Err(strange()),
    }
}

fn render(cluster: &Cluster) -> String {
    let held = |node: &str| {
        let is_its = |shard: &&Shard| shard.home.as_deref() == Some(node);
        cluster.shards.iter().filter(is_its).count()
    };
    let head = ["node", "shards", "epochs", "hot", "dirty", "lag ms", "heard ms ago", "link", "address"];
    let mut rows = vec![head.map(str::to_owned)];
    for Node { node, url, draining, link, age_ms, holds } in &cluster.nodes {
        let Holds { epochs: (lowest, highest), records_hot, records_dirty, flush_lag_ms } = holds;
        rows.push([
            node.clone(),
            held(node).to_string(),
            if *highest == 0 { "-".to_owned() } else { format!("{lowest}..{highest}") },
            records_hot.to_string(),
            records_dirty.to_string(),
            flush_lag_ms.to_string(),
            age_ms.to_string(),
            link.clone().unwrap_or_else(|| "-".to_owned()),
            format!("{url}{}", if *draining { " (leaving)" } else { "" }),
        ]);
    }
    let mut table = String::new();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(at, cell)| {
            let width = rows.iter().filter_map(|row| row.get(at)).map(String::len).max().unwrap_or_default();
            // Names and addresses to the left, numbers to the right.
            if at == 0 || at + 1 == row.len() { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(table, "{}", line.trim_end());
    }
    notes(&mut table, cluster);
    table
}

/// So many of them, in words.
fn shards(count: usize) -> String {
    if count == 1 { "1 shard".to_owned() } else { format!("{count} shards") }
}

/// What is to be said of some shards: what is not known is never said to be nowhere.
fn notes(table: &mut String, cluster: &Cluster) {
    let lives = |home: &str| cluster.nodes.iter().any(|node| node.node == home);
    let (mut by_nodes, mut before, mut oldest_ms) = (0, 0, 0);
    let (mut unknown, mut homeless) = (Vec::new(), Vec::new());
    for Shard { shard, home, home_by, home_age_ms } in &cluster.shards {
        match home_by.as_deref() {
            None => unknown.push(shard.to_string()),
            Some("store_before") => {
                before += 1;
                oldest_ms = oldest_ms.max(home_age_ms.unwrap_or(0));
            }
            Some(_) if !home.as_deref().is_some_and(lives) => homeless.push(shard.to_string()),
            Some("nodes") => by_nodes += 1,
            Some(_) => {}
        }
    }
    if by_nodes > 0 {
        let _ = writeln!(table, "as their nodes say, and not the store: {}", shards(by_nodes));
    }
    if before > 0 {
        let _ = writeln!(
            table,
            "as the store said {oldest_ms} ms ago, when it last answered: {}",
            shards(before)
        );
    }
    for (words, shards) in
        [("not known, since the store does not answer", unknown), ("on no live node", homeless)]
    {
        if !shards.is_empty() {
            let _ = writeln!(table, "{words}: {}", shards.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_every_node_and_every_shard_without_one() {
        let told = serde_json::json!({
            "nodes": [
                {"node": "a", "url": "ws://a", "draining": false, "age_ms": 0,
                 "holds": {"epochs": [7, 19], "records_hot": 120, "records_dirty": 3, "flush_lag_ms": 40}},
                {"node": "long-name", "url": "ws://b", "draining": true, "link": "down", "age_ms": 250,
                 "holds": {"epochs": [0, 0], "records_hot": 0, "records_dirty": 0, "flush_lag_ms": 0}},
            ],
            "shards": [
                {"shard": 0, "home": "a", "home_by": "self"}, {"shard": 1, "home": "a", "home_by": "self"},
                {"shard": 2, "home_by": "store"}, {"shard": 3, "home": "dead", "home_by": "store"},
            ],
        });
        let table = render(&serde_json::from_value(told).unwrap());
        assert_eq!(
            table,
            "node       shards  epochs  hot  dirty  lag ms  heard ms ago  link  address\n\
             a               2   7..19  120      3      40             0     -  ws://a\n\
             long-name       0       -    0      0       0           250  down  ws://b (leaving)\n\
             on no live node: 2, 3\n"
        );
    }

    #[test]
    fn what_is_not_known_is_not_said_to_be_nowhere() {
        let holds =
            serde_json::json!({"epochs": [7, 7], "records_hot": 0, "records_dirty": 0, "flush_lag_ms": 0});
        let node = |name| serde_json::json!({"node": name, "url": "ws://a", "draining": false, "age_ms": 0, "holds": holds});
        let told = serde_json::json!({
            "nodes": [node("a"), node("b")],
            "shards": [
                {"shard": 0, "home": "a", "home_by": "self"}, {"shard": 1, "home": "b", "home_by": "nodes"},
                {"shard": 2, "home": "b", "home_by": "store_before", "home_age_ms": 4_200}, {"shard": 3},
            ],
        });
        let table = render(&serde_json::from_value(told).unwrap());
        let (_, notes) = table.split_once("ws://a\nb").unwrap();
        assert_eq!(
            notes.split_once('\n').unwrap().1,
            "as their nodes say, and not the store: 1 shard\n\
             as the store said 4200 ms ago, when it last answered: 1 shard\n\
             not known, since the store does not answer: 3\n"
        );
        assert!(notes.split_whitespace().next() == Some("2"), "both are counted as that node's: {table}");
    }

    #[test]
    fn what_is_no_address_of_ours_is_told() {
        for url in ["", "127.0.0.1:7701", "https://a", "http://", "http://a b", "http://a/v1"] {
            assert!(matches!(table(url, "key"), Err(ShardsError::Url(_))), "{url}");
        }
        let refused = body_of(b"HTTP/1.1 401 Unauthorized\r\n\r\n{}", "http://a");
        assert!(matches!(refused, Err(ShardsError::Refused { status: 401, .. })));
        for strange in [&b""[..], b"SSH-2.0\r\n\r\n", b"HTTP/1.1 500 Oh\r\n\r\n", b"HTTP/1.1 2\r\n\r\n"] {
            assert!(matches!(body_of(strange, "http://a"), Err(ShardsError::Strange(_))));
        }
    }
}
