//! `load chaos` against two real nodes on a real Redis, one of which reaches it over a proxy of the command: what is broken and
//! mended passes, and what is not mended does not.

use std::net::TcpStream;
use std::sync::Mutex;

use clap::Parser as _;
use load::chaos::{self, ChaosError};
use load::faults::report::Report;
use load::options::{Command, Line};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::harness::patience::until;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::nodes::{KEY, node_on};
use crate::server::started;

/// As long as by default: whoever gets no processor for a moment, beside other tests, keeps what is hers.
const LEASE_MS: u64 = 6_000;
const PRESENCE_GRACE_MS: u64 = 500;

/// Two nodes whose addresses are known before they are there.
struct Stage {
    redis: RedisServer,
    a: Server,
    /// Of clients and of services of each, and of the proxy.
    ports: Vec<u16>,
    folder: TempDir,
}

impl Stage {
    async fn set() -> Self {
        let redis = RedisServer::builder().on_tcp().durable().start();
        let ports = hearth::rig::free_ports(5).unwrap();
        let a = node("a", &redis.tcp_url(), &ports[0..2]).await;
        Self { redis, a, ports, folder: tempfile::tempdir().unwrap() }
    }

    /// `load chaos` with these words, for longer than one fault and what comes after it take.
    fn begins(&self, words: &str) -> JoinSet<Result<Report, ChaosError>> {
        let [a, a_service, b, b_service, ..] = self.ports[..] else { panic!("five ports") };
        let out = self.folder.path().display();
        let line = format!(
            "load chaos --key KEY --out {out} --seed 5 --players 60 --write-interval-ms 200 --minutes 0.6 \
             --lease-ms {LEASE_MS} --presence-grace-ms {PRESENCE_GRACE_MS} \
             --url ws://127.0.0.1:{a}/v1/connect --url ws://127.0.0.1:{b}/v1/connect \
             --service http://127.0.0.1:{a_service} --service http://127.0.0.1:{b_service} {words}"
        );
        let words = line.split_whitespace().map(|word| if word == "KEY" { KEY } else { word });
        let Some(Command::Chaos(options)) = Line::try_parse_from(words).unwrap().command else {
            panic!("no command")
        };
        let mut running = JoinSet::new();
        running.spawn(chaos::run(*options, say));
        running
    }

    /// The other node, on the store at this URL.
    async fn b(&self, store: &str) -> Server {
        node("b", store, &self.ports[2..4]).await
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join("chaos-5").join(name)).unwrap()
    }
}

/// What all runs here have said.
static SAID: Mutex<String> = Mutex::new(String::new());

fn say(line: &str) {
    println!("{line}");
    SAID.lock().unwrap().push_str(line);
}

async fn node(name: &str, store: &str, ports: &[u16]) -> Server {
    let node = node_on(store).with("node_id", name).with_lease(LEASE_MS).on_port(ports[0]);
    let node = node.with("service_addr", format!("127.0.0.1:{}", ports[1]));
    started(node.with("presence.grace_ms", PRESENCE_GRACE_MS)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_cluster_passes_with_a_process_stopped_and_a_link_broken() {
    let stage = Stage::set().await;
    let (proxy, pid, redis) = (stage.ports[4], stage.a.pid(), stage.redis.address());
    let running = stage.begins(&format!("--pid a={pid} --proxy store-of-b={proxy}:{redis}"));
    until("the proxy to stand", async || TcpStream::connect(("127.0.0.1", proxy)).ok()).await;
    let _b = stage.b(&format!("redis://127.0.0.1:{proxy}")).await;
    let report = ended(running).await;
    assert!(report.passed(), "{:?}", report.faults());
    let tried: Vec<&str> = report.incidents.iter().map(|incident| incident.what.as_str()).collect();
    for what in ["a is stopped for", "link store-of-b "] {
        assert!(tried.iter().any(|tried| tried.starts_with(what)), "{what}: {tried:?}");
    }
    for [fault, next] in report.incidents.array_windows() {
        assert!(fault.healed_us < next.begun_us && next.begun_us - fault.begun_us >= 10_000_000, "{tried:?}");
    }
    for checker in ["C1", "C2", "C3", "C4", "C5", "C7", "C10", "C11", "C12"] {
        let verdict = report.verdicts.iter().find(|verdict| verdict.checker == checker).unwrap();
        assert!(verdict.checks > 0, "{checker} checked nothing");
    }
    assert!(report.findings.exercised["messages"] > 0 && report.left_broken.is_empty());
    report.write(stage.folder.path()).unwrap();
    for (file, holds) in [
        ("report.json", "\"is_passed\": true"),
        ("report.html", "a is stopped for"),
        ("history.jsonl", "\"kind\":\"ok\""),
        ("audit.jsonl", "\"look\":\"node\""),
    ] {
        assert!(stage.file(file).contains(holds), "{holds} is not in {file}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_that_is_not_mended_fails_the_run_and_is_named() {
    let stage = Stage::set().await;
    let _b = stage.b(&stage.redis.tcp_url()).await;
    let (file, pid) = (stage.folder.path().join("faults.toml"), stage.a.pid());
    let text = format!(
        "[[fault]]\nname = 'a stands still'\nbreak = 'kill -STOP {pid}'\nmend = 'true'\nfor_ms = [500, 900]\n\
         ends_memory = true\n"
    );
    std::fs::write(&file, text).unwrap();
    let report = ended(stage.begins(&format!("--patience-s 30 --faults {}", file.display()))).await;
    stage.a.go_on();
    assert!(!report.passed());
    let why = report.broken_off.as_deref().unwrap_or_default();
    assert!(why.starts_with("waited in vain for 30 s") && why.ends_with("after: a stands still"), "{why}");
    assert!(why.contains("a does not answer at http://"), "{why}");
    let [left] = &report.left_broken[..] else { panic!("{:?}", report.left_broken) };
    assert!(left.starts_with("a does not answer at"), "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_come_in_is_told_before_anything_is_broken() {
    let stage = Stage::set().await;
    let (_b, pid) = (stage.b(&stage.redis.tcp_url()).await, stage.a.pid());
    let mut running = stage.begins(&format!("--pid stranger={pid} --token-prefix wrong:"));
    let error = running.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, ChaosError::SentAway(_)), "{error}");
    let said = SAID.lock().unwrap().clone();
    assert!(said.contains("process stranger has no node's name (a, b)"), "{said}");
    assert!(!said.contains("stranger is stopped"), "{said}");
}

async fn ended(mut running: JoinSet<Result<Report, ChaosError>>) -> Report {
    let report = running.join_next().await.unwrap().unwrap().expect("the cluster is as it was told");
    println!("{}", report.text());
    report
}
