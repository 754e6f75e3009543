//! What is promised about starting: all that is wrong is said at once, in lines that say what to do, and nothing runs.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;

use crate::harness::process::Exit;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::harness::stages::{Stage, on_both_stores};

/// What is outside is not available: sysexits' EX_UNAVAILABLE.
const UNAVAILABLE: Option<i32> = Some(69);
/// The configuration is at fault: sysexits' EX_USAGE.
const MISCONFIGURED: Option<i32> = Some(64);

/// One line that names each of these.
fn expect_one_line(exit: &Exit, code: Option<i32>, names: &[&str]) {
    assert_eq!((exit.code, exit.lines.len()), (code, 1), "{exit:?}");
    for name in names {
        assert!(exit.lines[0].contains(name), "{name} is not in {exit:?}");
    }
}

on_both_stores! {
    async fn a_server_of_default_size_starts_and_stops_in_order(stage) {
        let mut server = Server::on(stage).with("cluster.shards", 256).start();
        let mut ann = server.login("ann").await;
        server.ask_to_stop();
        ann.expect_close(4000).await;
        assert!(server.wait_for_end().success());
        server.restart();
        server.resume(&ann.credentials()).await;
    }

    async fn a_port_in_use_is_told_in_one_line(stage) {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let exit = Server::on(stage).on_port(port).fails();
        expect_one_line(&exit, UNAVAILABLE, &[&format!("127.0.0.1:{port}"), "client_addr"]);
    }

    async fn every_fault_of_the_settings_is_told_at_once(stage) {
        let exit = Server::on(stage)
            .with("session.ttl_ms", 0)
            .with("link.heartbeat_ms", "soon")
            .with("auth.jwt_algorithm", "RS256")
            .with("presence.colour", "red")
            .fails();
        assert_eq!(exit.code, MISCONFIGURED);
        for name in ["session.ttl_ms", "link.heartbeat_ms", "auth.jwt_algorithm", "presence.colour"] {
            assert!(exit.lines.iter().any(|line| line.contains(name)), "{name} is not in {exit:?}");
        }
        assert_eq!(exit.lines.len(), 4, "{exit:?}");
    }

    async fn a_cluster_keeps_the_number_of_its_shards(stage) {
        let mut server = Server::on(stage).with("cluster.shards", 8).start();
        assert!(server.stop_gracefully().success());
        let exit = Server::on_url(&server.store_url()).with("cluster.shards", 16).fails();
        expect_one_line(&exit, MISCONFIGURED, &["cluster.shards", "8"]);
    }
}

#[tokio::test]
async fn a_data_folder_in_use_is_told_in_one_line_and_its_server_is_not_disturbed() {
    let server = Server::on(Stage::Embedded).start();
    let mut ann = server.login("ann").await;
    let exit = Server::on_url(&server.store_url()).fails();
    let folder = server.store_url().replace("embedded:", "");
    expect_one_line(&exit, UNAVAILABLE, &[&folder]);
    ann.patch_durably(serde_json::json!({"set": {"a": 1}})).await;
}

#[tokio::test]
async fn a_stop_tells_those_who_have_not_logged_in_and_waits_for_nobody_else() {
    let mut server = Server::on(Stage::Embedded).start();
    let silent = tokio::net::TcpStream::connect(server.host()).await.unwrap();
    let mut upgraded = server.connect().await;
    // An answer: both are in.
    upgraded.ask("ping", serde_json::json!({})).await.unwrap();
    server.ask_to_stop();
    upgraded.expect_close(4000).await;
    drop(upgraded);
    assert!(server.wait_for_end().success());
    assert!(!server.log().contains("late"), "{}", server.log());
    drop(silent);
}

/// Lines that it says on standard output, from the first on.
fn says(child: &mut std::process::Child) -> impl Iterator<Item = String> + use<> {
    use std::io::BufRead as _;
    std::io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok)
}

/// Somebody who is no member of the cluster and holds every shard, until the value is dropped.
async fn stranger_on(url: &str) -> tokio::task::JoinSet<()> {
    use hearth::store::{AcquireRequest, OpenOptions};
    let store = hearth::store::open(url, OpenOptions { cluster: "test".into(), ..OpenOptions::default() });
    let store = store.await.unwrap();
    let ttl = Duration::from_secs(1);
    let request = move |number| AcquireRequest {
        shard: hearth::ids::ShardId::numbered(number).unwrap(),
        owner: hearth::ids::Owner::named("stranger#1"),
        ttl,
        floor: hearth::ids::Epoch::ZERO,
        generation_if_new: hearth::ids::Generation::of(1),
    };
    store.lease_acquire_all((0..16).map(request).collect()).await;
    let mut stranger = tokio::task::JoinSet::new();
    stranger.spawn(async move {
        let mut ticks = tokio::time::interval(ttl / 5);
        loop {
            ticks.tick().await;
            store.lease_acquire_all((0..16).map(request).collect()).await;
        }
    });
    stranger
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_gets_no_shard_says_that_it_waits_and_is_ready_once_it_serves() {
    let redis = RedisServer::start();
    let stranger = stranger_on(&redis.url()).await;
    let url = redis.url();
    let mut server = std::process::Command::new(env!("CARGO_BIN_EXE_hearth"));
    server.args(["--client-addr", "127.0.0.1:0", "--service-addr", "127.0.0.1:0", "--store", &url]);
    for setting in [
        "cluster.name=test",
        "cluster.shards=16",
        "home.lease_ttl_ms=1000",
        "redis.response_timeout_ms=250",
        "redis.connect_timeout_ms=250",
    ] {
        server.args(["--set", setting]);
    }
    let mut server =
        server.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut lines = says(&mut server);
    let (waits, mut lines) =
        tokio::task::spawn_blocking(move || (lines.next().unwrap(), lines)).await.unwrap();
    assert!(waits.contains("waits") && waits.contains("16") && !waits.contains("ready"), "{waits}");
    drop(stranger);
    let ready = lines.next().unwrap();
    assert!(ready.contains("is ready"), "{ready}");
    let url = lines.next().unwrap().trim().strip_prefix("clients").unwrap().trim().to_owned();
    crate::harness::player::Player::connect(&url, crate::harness::socket::Encoding::Json)
        .await
        .login("ann")
        .await;
    server.kill().unwrap();
    server.wait().unwrap();
}

#[tokio::test]
async fn an_unreachable_redis_is_told_in_one_line() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let exit = Server::on_url(&format!("redis://{closed}")).fails();
    expect_one_line(&exit, UNAVAILABLE, &[&closed.to_string()]);
    let exit = Server::on_url("redis+unix:///nowhere/redis.sock").fails();
    expect_one_line(&exit, UNAVAILABLE, &["/nowhere/redis.sock"]);
}

#[tokio::test]
async fn a_redis_that_forgets_when_it_is_full_is_refused_unless_that_is_wanted() {
    let redis = RedisServer::builder().setting("maxmemory-policy", "allkeys-lru").start();
    let exit = Server::on_url(&redis.url()).fails();
    expect_one_line(&exit, UNAVAILABLE, &["maxmemory-policy is allkeys-lru", "redis.ignore_shortfalls"]);
    let server = Server::on_url(&redis.url()).with("redis.ignore_shortfalls", true).start();
    server.login("ann").await;
}

#[tokio::test]
async fn a_redis_that_keeps_nothing_on_disk_is_told_in_the_log() {
    let server = Server::on(Stage::Redis).start();
    assert!(server.log().contains("appendonly is no and should be yes"), "{}", server.log());
    let server = Server::on_redis(RedisServer::builder().durable().start()).start();
    assert!(!server.log().contains("appendonly"), "{}", server.log());
}

#[tokio::test]
async fn the_redis_user_that_the_ready_configuration_shows_suffices_and_for_its_own_cluster_alone() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/redis/standalone.conf");
    let file = std::fs::read_to_string(file).unwrap();
    let user = file.lines().find_map(|line| line.strip_prefix("# user ")).expect("a user");
    let redis = RedisServer::builder().on_tcp().start();
    let words: Vec<&str> = ["ACL", "SETUSER"].into_iter().chain(user.split(' ')).collect();
    redis.query::<()>(&words);
    let url = redis.tcp_url().replace("redis://", "redis://hearth:change-me-too@") + "/3";
    let server = Server::on_url(&url).with("cluster.name", "game").start();
    let mut ann = server.login("ann").await;
    ann.patch_durably(json!({"set": {"zone": "docks"}, "cseq": 1})).await;
    ann.does("logout", json!({})).await;
    let exit = Server::on_url(&url).with("cluster.name", "other").fails();
    expect_one_line(&exit, UNAVAILABLE, &["NOPERM", "cluster.name", "config/redis/standalone.conf"]);
    redis.query::<()>(&["ACL", "SETUSER", "hearth", "-select"]);
    let exit = Server::on_url(&url).with("cluster.name", "game").fails();
    expect_one_line(&exit, UNAVAILABLE, &["SELECT", "ACL"]);
}
