//! What is promised about `hearth cluster`: one command, and there are several nodes on a Redis of the chosen shape that
//! serve every player wherever she asks; SIGTERM, and nothing of it is left.

use std::fs::read_dir;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::player::Player;
use crate::harness::service::Service;
use crate::harness::socket::{Encoding, Heard, Socket};

const SHARDS: usize = 16;
/// A set of Redis servers, then nodes that share the shards.
const START: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(25);

/// The command, and the lines that it says.
struct Cluster {
    child: Child,
    said: Receiver<String>,
    nodes: Vec<Node>,
    /// Process ids of all that it says it has started.
    pids: Vec<String>,
    key: String,
    folder: String,
}

struct Node {
    name: String,
    pid: String,
    url: String,
    service_url: String,
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HEARTH_")) {
        command.env_remove(name);
    }
    // What a shell holds for a real server.
    command.env("HEARTH_STORE", "embedded:/nowhere/real").env("HEARTH_CLIENT_ADDR", "127.0.0.1:1");
    command.arg("cluster").args(arguments).stdin(Stdio::null());
    command
}

impl Cluster {
    fn start(arguments: &[&str]) -> Self {
        let shards = format!("cluster.shards={SHARDS}");
        let mut command = command(arguments);
        command.args(["--set", &shards, "--set", "home.lease_ttl_ms=2400"]);
        command.args(["--set", "redis.response_timeout_ms=600", "--set", "redis.connect_timeout_ms=600"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, said) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let (nodes, pids) = (Vec::new(), Vec::new());
        let mut cluster = Self { child, said, nodes, pids, key: String::new(), folder: String::new() };
        let deadline = Instant::now() + START;
        loop {
            let line = cluster.line(deadline).expect("the cluster says where it is");
            cluster.read(&line);
            if line.starts_with("Ctrl-C ends") {
                return cluster;
            }
        }
    }

    fn line(&self, deadline: Instant) -> Option<String> {
        self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// Takes the table in, word by word.
    fn read(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [name, pid, url, service_url, _, _] if name.starts_with("node-") => {
                let [name, pid, url, service_url] = [name, pid, url, service_url].map(str::to_owned);
                self.pids.push(pid.clone());
                self.nodes.push(Node { name, pid, url, service_url });
            }
            [name, pid, _] if name.starts_with("redis") || name.starts_with("sentinel") => {
                self.pids.push(pid.to_owned());
            }
            ["service", "key", key] => self.key = key.to_owned(),
            ["logs", logs] => self.folder = logs.split("/node-").next().unwrap().to_owned(),
            _ => {}
        }
    }

    /// What a node says of the cluster.
    async fn told_by(&self, node: &Node) -> Value {
        let (status, told) = Service::at(&node.service_url, &self.key).get("/v1/cluster").await;
        assert_eq!(status, 200, "{told}");
        told
    }

    fn signal(&self, name: &str) {
        signal(name, &self.child.id().to_string());
    }

    /// Waits for the exit code.
    fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + END;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the cluster does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Its guards end what it has started.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(name: &str, pid: &str) {
    assert!(Command::new("kill").args(["-s", name, pid]).status().unwrap().success());
}

fn lives(pid: &str) -> bool {
    Command::new("kill").args(["-0", pid]).stderr(Stdio::null()).status().unwrap().success()
}

/// Waits until no process of these is left.
fn all_gone(pids: &[String]) {
    let deadline = Instant::now() + END;
    while let Some(left) = pids.iter().find(|pid| lives(pid)) {
        assert!(Instant::now() < deadline, "process {left} is left behind");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The node that holds a player's shard.
fn home_of(told: &Value, player: &str) -> String {
    let placement = hearth::home::placement::Placement::of(u16::try_from(SHARDS).unwrap()).unwrap();
    let shard = placement.shard_of(&hearth::ids::PlayerId::parse(player).unwrap()).number();
    told["shards"][usize::from(shard)]["home"].as_str().expect("a home").to_owned()
}

async fn comes_up_serves_and_goes(redis: &str, servers: usize) {
    let arguments = ["--redis".to_owned(), redis.to_owned()];
    let arguments: Vec<String> = arguments.into();
    let start = move || Cluster::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let mut cluster = tokio::task::spawn_blocking(start).await.unwrap();
    assert_eq!((cluster.nodes.len(), cluster.pids.len()), (3, 3 + servers), "{:?}", cluster.pids);
    assert!(cluster.pids.iter().all(|pid| lives(pid)));
    let told = cluster.told_by(&cluster.nodes[0]).await;
    let shards = told["shards"].as_array().unwrap();
    assert_eq!(shards.len(), SHARDS);
    for node in &cluster.nodes {
        assert!(
            shards.iter().any(|shard| shard["home"] == node.name.as_str()),
            "{} serves nothing",
            node.name
        );
    }
    assert!(shards.iter().all(|shard| shard["home"].is_string()), "{told}");

    let home = home_of(&told, "ann");
    let wrong = cluster.nodes.iter().find(|node| node.name != home).unwrap();
    let mut ann = Player::connect(&wrong.url, Encoding::Json).await;
    ann.login_with(json!({"token": "dev:ann", "relay": true})).await;
    assert_eq!(ann.ready["node"], home.as_str(), "carried to her home");
    let changed = ann.does("state.patch", json!({"incr": {"n": 1}, "cseq": 1, "ack": "durable"})).await;
    assert_eq!(changed["ack"], "durable");

    let mut socket = Socket::open(&wrong.url, Encoding::MessagePack).await;
    socket.send("login", 1, &json!({"token": "dev:ann"})).await;
    let Heard::Frame(answer) = socket.hear().await else { panic!("no answer") };
    assert_eq!((answer.op.as_str(), &answer.body["node"]), ("redirect", &json!(home)));
    let mut again = Player::connect(answer.body["url"].as_str().unwrap(), Encoding::MessagePack).await;
    again.login("ann").await;
    assert_eq!(again.state().await, json!({"n": 1}));

    drop((ann, again));
    let folder = cluster.folder.clone();
    assert!(read_dir(&folder).unwrap().count() > 3, "the nodes' folders and Redis's");
    let gone = tokio::task::spawn_blocking(move || {
        cluster.signal("TERM");
        assert_eq!(cluster.ended(), Some(0));
        // Not a moment later.
        assert!(!cluster.pids.iter().any(|pid| lives(pid)), "{:?}", cluster.pids);
    });
    gone.await.unwrap();
    assert!(read_dir(&folder).is_err(), "{folder} is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_starts_nodes_on_one_redis() {
    comes_up_serves_and_goes("standalone", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_starts_nodes_on_a_redis_with_sentinels() {
    comes_up_serves_and_goes("sentinel", 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_starts_nodes_on_a_redis_cluster() {
    comes_up_serves_and_goes("cluster", 6).await;
}

#[test]
fn who_dies_is_told_by_name_and_logs_of_a_named_folder_stay() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("new");
    let mut cluster = Cluster::start(&["--nodes", "2", "--folder", folder.to_str().unwrap()]);
    signal("KILL", &cluster.nodes[1].pid);
    let deadline = Instant::now() + END;
    while !cluster.line(deadline).expect("a line about it").starts_with("node-2 has ended: ") {}
    signal("KILL", cluster.pids.last().unwrap());
    while !cluster.line(deadline).expect("a line about it").starts_with("redis on port ") {}
    // The node that is left cannot store its last words; a second signal says not to wait for that.
    cluster.signal("INT");
    while !cluster.line(deadline).expect("a line about it").starts_with("the nodes end") {}
    cluster.signal("INT");
    assert_eq!(cluster.ended(), Some(69));
    all_gone(&cluster.pids);
    for name in ["node-1", "node-2"] {
        let log = std::fs::read_to_string(folder.join(name).join("log")).unwrap();
        assert!(log.contains("is ready"), "{log}");
    }
    assert!(!folder.join("redis").exists());
}

#[test]
fn a_cluster_whose_command_is_killed_leaves_no_process_behind() {
    let mut cluster = Cluster::start(&["--nodes", "2"]);
    cluster.signal("KILL");
    assert_eq!(cluster.ended(), None);
    all_gone(&cluster.pids);
    let _ = std::fs::remove_dir_all(&cluster.folder);
}

#[test]
fn a_cluster_that_cannot_be_is_refused_in_few_words() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, code, named) in [
        (&["--nodes", "0"][..], 64, "--nodes"),
        (&["--redis", "none"], 64, "--redis"),
        (&["--set", "node_id=a"], 64, "node_id"),
        (&["--store", "redis://127.0.0.1:1"], 64, "store"),
        (&["--set", "session.ttl_ms=0"], 64, "session.ttl_ms"),
        (&["--folder", file], 69, file),
        (&["--port", &port], 69, "cannot listen on 127.0.0.1"),
    ] {
        let output = command(arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(told.contains(named), "{named} is not in {told}");
    }
    let output = command(&[]).env("PATH", folder.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{told}");
    assert!(told.starts_with("hearth: redis-server is missing: apt-get install"), "{told}");
}
