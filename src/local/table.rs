//! What a local cluster says once it is there: where each part of it is, and calls that can be copied. Pure.

use std::fmt::Write as _;

use super::node::Node;
use super::redis::{Redis, Shape};
use super::{NAME, Plan};
use crate::service::console;

/// Bots of the call that is told.
const BOTS: u32 = 300;

/// One line of the table.
struct Row {
    name: String,
    pid: String,
    ports: [u16; 3],
    shards: usize,
}

pub(super) fn told(plan: &Plan, nodes: &[Node], redis: &Redis) -> String {
    let rows: Vec<Row> = nodes
        .iter()
        .map(|node| Row {
            name: node.name.clone(),
            pid: node.pid().to_string(),
            ports: node.ports,
            shards: node.shards,
        })
        .collect();
    let servers: Vec<[String; 3]> = redis
        .servers()
        .into_iter()
        .map(|(name, server)| [name, server.pid().to_owned(), format!("127.0.0.1:{}", server.port())])
        .collect();
    let again = nodes.first().map(Node::command_line).unwrap_or_default();
    text(plan, &rows, &redis.url(), &servers, &again)
}

fn text(plan: &Plan, nodes: &[Row], store_url: &str, servers: &[[String; 3]], again: &str) -> String {
    let mut out = String::new();
    let shape = match plan.shape {
        Shape::Standalone => "one Redis",
        Shape::Sentinel => "a Redis with sentinels",
        Shape::Cluster => "a Redis Cluster",
    };
    let Plan { shards, service_key, .. } = plan;
    let s = if nodes.len() == 1 { "" } else { "s" };
    let _ = writeln!(out, "\n{} node{s} on {shape}: each of {shards} shards has a home\n", nodes.len());
    let _ = writeln!(
        out,
        "  {:<12}{:>8}  {:<36}{:<25}{:<18}shards",
        "node", "pid", "clients", "services", "other nodes"
    );
    for Row { name, pid, ports: [clients, services, peers], shards } in nodes {
        let (clients, services, peers) = (client_url(*clients), service_url(*services), address(*peers));
        let _ = writeln!(out, "  {name:<12}{pid:>8}  {clients:<36}{services:<25}{peers:<18}{shards}");
    }
    let _ = writeln!(out, "\n  {:<12}{:>8}  address", "Redis", "pid");
    for [name, pid, address] in servers {
        let _ = writeln!(out, "  {name:<12}{pid:>8}  {address}");
    }
    let _ = writeln!(out, "\n  store        {store_url}, cluster.name {NAME}");
    let _ = writeln!(out, "  service key  {service_key}");
    let _ = writeln!(out, "  logs         {}/node-*/log", plan.folder.display());
    if let Some(first) = nodes.first() {
        let url = service_url(first.ports[1]);
        let link = console::link(&url, service_key);
        let _ = writeln!(
            out,
            "\nSee all of it in a browser, or on a terminal, at any node\n\
             (in the sources `hearth` is `cargo run --release --`):\n\n  {link}"
        );
        let _ = writeln!(out, "  HEARTH_SERVICE_KEY={service_key} hearth top {url}");
        let _ = writeln!(
            out,
            "\nAsk any node, and let bots live at all of them\n\
             (in the sources `load` is `cargo run --release -p load --`):\n"
        );
        let _ = writeln!(out, "  curl -s -H \"Authorization: Bearer {service_key}\" {url}/v1/cluster");
        let urls: String = nodes.iter().map(|node| format!(" --url {}", client_url(node.ports[0]))).collect();
        let _ = writeln!(out, "  load steady --players {BOTS}{urls}");
    }
    if plan.takes_any_name {
        let _ = writeln!(out, "\nA player logs in at any of them with the token dev:<your name>.");
    }
    let _ = writeln!(
        out,
        "\nStop a node by its pid (kill -TERM or -KILL), and start it again, the first so:\n\n  {again}\n"
    );
    let left =
        if plan.leaves_nothing { "leaves nothing behind" } else { "leaves the nodes' logs in their folder" };
    let _ = writeln!(
        out,
        "Ctrl-C ends all that was started here and {left}.\nA node that you start yourself is yours to end."
    );
    out
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn client_url(port: u16) -> String {
    format!("ws://{}/v1/connect", address(port))
}

fn service_url(port: u16) -> String {
    format!("http://{}", address(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_told_and_calls_can_be_copied() {
        let plan = Plan {
            nodes: 2,
            shape: Shape::Sentinel,
            folder: "/tmp/local".into(),
            leaves_nothing: true,
            port: Some(7_000),
            shards: 64,
            service_key: "k3y".into(),
            takes_any_name: true,
            set: Vec::new(),
            environment: Vec::new(),
        };
        let row = |number: u16| Row {
            name: format!("node-{number}"),
            pid: "4711".into(),
            ports: [7_000, 7_001, 7_002].map(|port| port + 3 * (number - 1)),
            shards: 32,
        };
        let server = ["redis-1", "4712", "127.0.0.1:6390"].map(str::to_owned);
        let url = "redis+sentinel://127.0.0.1:1/hearth";
        let told = text(&plan, &[row(1), row(2)], url, &[server], "hearth serve");
        for line in [
            "  node-2          4711  ws://127.0.0.1:7003/v1/connect      http://127.0.0.1:7004    127.0.0.1:7005    32",
            "  redis-1         4712  127.0.0.1:6390",
            "  http://127.0.0.1:7001/console#key=k3y",
            "  HEARTH_SERVICE_KEY=k3y hearth top http://127.0.0.1:7001",
            "  curl -s -H \"Authorization: Bearer k3y\" http://127.0.0.1:7001/v1/cluster",
            "  load steady --players 300 --url ws://127.0.0.1:7000/v1/connect \
             --url ws://127.0.0.1:7003/v1/connect",
            "  hearth serve",
            "(in the sources `hearth` is `cargo run --release --`):",
            "(in the sources `load` is `cargo run --release -p load --`):",
        ] {
            assert!(told.lines().any(|told| told == line), "{line} is not in\n{told}");
        }
        for line in told.lines().filter(|line| !line.starts_with(' ')) {
            assert!(line.len() <= 80, "{line} is too long");
        }
        assert!(told.contains("each of 64 shards") && told.contains("nothing behind"), "{told}");
    }
}
