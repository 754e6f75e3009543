//! Each guard is turned off once, to prove that it carries weight and that a checker sees it fall: the same story is told
//! twice, with the guard standing (every checker passes) and without it (the named checker fails).

use std::path::Path;
use std::time::Instant;

use clap::Parser as _;
use load::checkers::{Verdict, judge};
use load::history::{Entry, History};
use load::options::Options;
use load::report::Report;
use load::run::run;
use protocol::request::Ack;

use crate::diary::Diarist;
use crate::harness::patience::until;
use crate::harness::redis_server::RedisServer;
use crate::relay::Relay;
use crate::server::{Starting, address, restarted, server_on, started};

/// With every guard: no promise is broken, and the one in question was looked at.
fn assert_kept(verdicts: &[Verdict], checker: &str) {
    for verdict in verdicts {
        assert_eq!(verdict.broken, 0, "with every guard: {verdict:#?}");
    }
    assert!(of(verdicts, checker).checks > 0, "{checker} had nothing to check");
}

/// Without the guard: this checker says so.
fn assert_broken(verdicts: &[Verdict], checker: &str) {
    let verdict = of(verdicts, checker);
    println!("{checker} without the guard, {} times: {}", verdict.broken, verdict.promise);
    for violation in &verdict.violations {
        println!("    {}", violation.what);
    }
    assert!(verdict.broken > 0, "the guard was off, and {checker} saw nothing");
}

fn of<'a>(verdicts: &'a [Verdict], checker: &str) -> &'a Verdict {
    verdicts.iter().find(|verdict| verdict.checker == checker).unwrap()
}

fn judged(logs: Vec<Vec<Entry>>, began: Instant) -> Vec<Verdict> {
    judge(&History { logs }, u64::try_from(began.elapsed().as_millis()).unwrap())
}

/// A Redis that forgets nothing by itself.
fn redis() -> RedisServer {
    RedisServer::builder().durable().start()
}

/// One shard, so that one renewal and one commit speak for everybody.
fn on(redis: &RedisServer) -> Starting {
    server_on(redis.url()).with("cluster.shards", 1).with("home.lease_ttl_ms", 3000)
}

/// The version of a player's record as Redis holds it.
fn stored_version(redis: &RedisServer, player: &str) -> u64 {
    let header: String = redis.query(&["GETRANGE", &format!("{{faults.s0}}:p:{player}"), "16", "31"]);
    u64::from_str_radix(&header, 16).unwrap()
}

/// Waits until Redis holds the record of each of them in a version that compares so with the one she was told.
async fn until_stored(redis: &RedisServer, diarists: &[&Diarist], compares: impl Fn(u64, u64) -> bool) {
    let is_so = |one: &&Diarist| compares(stored_version(redis, &one.player()), one.version());
    until("the records to be written", async || diarists.iter().all(is_so).then_some(())).await;
}

// === The fence ===

/// A server is stopped with writes in memory, another one takes over and acks durable writes, and the first one goes on.
async fn a_zombie_goes_on(guard_off: Option<&'static str>) -> Vec<Verdict> {
    let (redis, began) = (redis(), Instant::now());
    let slow = on(&redis).with("home.flush_interval_ms", 1000);
    let mut zombie = started(slow.without(guard_off)).await;
    let door = Relay::to(address(&zombie)).await;
    let mut ann = Diarist::login(door.url(), 0, began).await;
    ann.writes_often(Ack::Durable, 1).await;
    // So many that the zombie's record is of a later version than all that the second home makes of it.
    ann.writes_often(Ack::Applied, 40).await;
    zombie.pause();

    let mut second = started(on(&redis).without(guard_off)).await;
    door.turn_to(address(&second));
    assert!(ann.is_back().await.rolled_back.is_some(), "the first server had flushed before it was stopped");
    ann.writes_often(Ack::Durable, 8).await;

    zombie.go_on();
    match guard_off {
        None => zombie.until_metric("hearth_shards", "\"free\"", 1).await,
        Some(_) => until_stored(&redis, &[&ann], |stored, acked| stored > acked).await,
    }
    second.kill9();
    zombie.kill9();

    let third = started(on(&redis).without(guard_off)).await;
    door.turn_to(address(&third));
    ann.is_back().await;
    ann.reads().await;
    judged(vec![ann.diary()], began)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_fence_a_stopped_server_overwrites_what_its_successor_acked() {
    let (kept, broken) = tokio::join!(a_zombie_goes_on(None), a_zombie_goes_on(Some("fence")));
    assert_kept(&kept, "C2");
    assert_broken(&broken, "C2");
}

// === The flush counter ===

/// Redis is put back to its own log of a moment ago, behind a server that has acked durable writes since; then the
/// server, too, is killed. In between somebody writes, whose commit can tell, or nobody does, and only renewals can.
async fn redis_is_put_back(somebody_writes: bool, guard_off: Option<&'static str>) -> Vec<Verdict> {
    let (mut redis, began) = (redis(), Instant::now());
    let mut server = started(on(&redis).without(guard_off)).await;
    let door = Relay::to(address(&server)).await;
    let mut diarists = Vec::new();
    for process in 0..4 {
        let mut diarist = Diarist::login(door.url(), process, began).await;
        diarist.writes_often(Ack::Durable, 2).await;
        diarists.push(diarist);
    }
    let copy = tempfile::tempdir().unwrap();
    let log = redis.dir().join("appendonlydir");
    copy_files(&log, copy.path());
    for diarist in &mut diarists {
        diarist.writes_often(Ack::Durable, 4).await;
    }

    redis.kill();
    std::fs::remove_dir_all(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    copy_files(copy.path(), &log);
    redis.start_again();
    let (first, others) = diarists.split_first_mut().unwrap();
    let others: Vec<&Diarist> = others.iter().collect();
    assert!(others.iter().all(|other| stored_version(&redis, &other.player()) < other.version()));
    let lease = || redis.query::<u64>(&["HGET", "{faults.s0}:m", "until"]);
    let granted = lease();
    while somebody_writes && !first.writes(Ack::Durable).await {}
    match guard_off {
        None => until_stored(&redis, &others, |stored, acked| stored >= acked).await,
        Some(_) => until("a renewal", async || (lease() > granted).then_some(())).await,
    }

    server.kill9();
    server = restarted(server).await;
    door.turn_to(address(&server));
    for diarist in &mut diarists {
        diarist.is_back().await;
        diarist.reads().await;
    }
    judged(diarists.into_iter().map(Diarist::diary).collect(), began)
}

fn copy_files(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_flush_counter_no_commit_notices_that_redis_was_put_back() {
    let (kept, broken) =
        tokio::join!(redis_is_put_back(true, None), redis_is_put_back(true, Some("flush_counter")));
    assert_kept(&kept, "C2");
    assert_broken(&broken, "C2");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_flush_counter_no_renewal_notices_that_redis_was_put_back() {
    let (kept, broken) =
        tokio::join!(redis_is_put_back(false, None), redis_is_put_back(false, Some("flush_counter")));
    assert_kept(&kept, "C2");
    assert_broken(&broken, "C2");
}

// === The change counter ===

/// Links lose answers and then break: what was carried out is sent again.
async fn answers_are_lost(starting: Starting, guard_off: Option<&'static str>) -> Report {
    let server = started(starting.without(guard_off)).await;
    let door = Relay::to(address(&server)).await;
    door.swallow_on(36);
    let line = format!(
        "load steady --quiet --players 12 --seconds 5 --url {} --durable-share 0.1 --write-interval-ms 50",
        door.url()
    );
    let (report, _) = run(Options::try_parse_from(line.split_whitespace()).unwrap()).await.unwrap();
    assert!(door.swallowed_bytes() > 0, "no answer was lost");
    report
}

async fn lost_answers([one, other]: [Starting; 2]) {
    let (kept, broken) = tokio::join!(answers_are_lost(one, None), answers_are_lost(other, Some("cseq")));
    assert!(kept.passed, "{}", kept.text());
    assert!(kept.figures.count("repeated_acks") > 0, "nothing was sent again that had been carried out");
    assert_kept(&kept.verdicts, "C4");
    assert_broken(&broken.verdicts, "C4");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_cseq_what_is_sent_again_counts_twice_on_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    let in_part = |part| server_on(format!("embedded:{}", folder.path().join(part).display()));
    lost_answers(["kept", "broken"].map(in_part)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_cseq_what_is_sent_again_counts_twice_on_redis() {
    let (one, other) = (redis(), redis());
    lost_answers([&one, &other].map(on)).await;
}

// === The history rule ===

/// A server is killed with writes in memory that were acked `applied`; another one takes over without them.
async fn a_server_takes_its_last_writes_along(guard_off: Option<&'static str>) -> Vec<Verdict> {
    let (redis, began) = (redis(), Instant::now());
    let slow = on(&redis).with("home.flush_interval_ms", 1000);
    let mut first = started(slow.without(guard_off)).await;
    let door = Relay::to(address(&first)).await;
    let mut ann = Diarist::login(door.url(), 0, began).await;
    ann.writes_often(Ack::Durable, 2).await;
    ann.writes_often(Ack::Applied, 8).await;
    first.kill9();

    let second = started(on(&redis).without(guard_off)).await;
    door.turn_to(address(&second));
    ann.is_back().await;
    ann.reads().await;
    judged(vec![ann.diary()], began)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_history_rule_nobody_is_told_what_a_crash_has_taken() {
    let (kept, broken) = tokio::join!(
        a_server_takes_its_last_writes_along(None),
        a_server_takes_its_last_writes_along(Some("history"))
    );
    assert_kept(&kept, "C3");
    assert_broken(&broken, "C3");
}

// === Who may answer ===

/// What a home is cut off from while another node takes its shard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CutOff {
    /// From Redis, while its lease is good for long by its own clock; in Redis it is over at once, as after a jump of the
    /// clock there. The next home asks it for what it has.
    FromRedis,
    /// From Redis and from the other node, until its lease is over.
    FromAll,
}

/// The next home acks durable writes; then the player is led to the old one, which does not know, and back.
async fn a_home_is_cut_off(cut: CutOff, guard_off: Option<&'static str>) -> Vec<Verdict> {
    let redis = RedisServer::builder().durable().on_tcp().start();
    let began = Instant::now();
    let lease_ms = if cut == CutOff::FromRedis { 40_000 } else { 3_000 };
    // Whoever founds a cluster waits for a lease's time.
    let mut founder = started(on(&redis).with_lease(600)).await;
    assert!(founder.stop_gracefully().success());
    let to_redis = Relay::to(redis.tcp_url().trim_start_matches("redis://").parse().unwrap()).await;
    // The shard is placed on the first of the two.
    let mut names = ["north", "south"];
    let placed = hearth::home::placement::node_of(hearth::ids::ShardId::FIRST, names.into_iter());
    if placed != Some(names[0]) {
        names.swap(0, 1);
    }
    let node = |url: String, name: &str| {
        let node = server_on(url).with("cluster.shards", 1).with("home.lease_ttl_ms", lease_ms);
        let node = node.with("node_id", name).with("cluster.member_ttl_ms", 1_500).with("home.hold_ms", 300);
        match cut {
            CutOff::FromRedis => node,
            CutOff::FromAll => node.with("peer_public_addr", "127.0.0.1:1"),
        }
    };
    let relayed = format!("redis://{}", to_redis.address());
    let old = started(node(relayed, names[0]).without(guard_off)).await;
    let next = started(node(redis.tcp_url(), names[1]).without(guard_off)).await;
    old.until_metric("hearth_shards_serving", "", 1).await;
    next.until_metric("hearth_members", "", 2).await;
    // One that has not heard of the other takes itself for all there is, and goes on without Redis.
    old.until_metric("hearth_members", "", 2).await;
    if cut == CutOff::FromRedis {
        next.until_metric("hearth_peer_links", "", 1).await;
    }
    let door = Relay::to(address(&old)).await;
    let mut ann = Diarist::login(door.url(), 0, began).await;
    ann.writes_often(Ack::Durable, 2).await;

    to_redis.fall_silent();
    if cut == CutOff::FromRedis {
        redis.query::<i64>(&["HSET", "{faults.s0}:m", "until", "1"]);
    }
    next.until_metric("hearth_shards_serving", "", 1).await;
    door.turn_to(address(&next));
    ann.is_back().await;
    ann.writes_often(Ack::Durable, 4).await;

    door.turn_to(address(&old));
    if guard_off.is_none() {
        old.until_metric("hearth_closes_total", "", 1).await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        // Who was told where her home is may have gone there by herself, past the door.
        door.turn_to(address(&next));
    } else {
        ann.is_back().await;
    }
    ann.reads().await;
    judged(vec![ann.diary()], began)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fence_before_the_pull_two_homes_answer() {
    let (kept, broken) = tokio::join!(
        a_home_is_cut_off(CutOff::FromRedis, None),
        a_home_is_cut_off(CutOff::FromRedis, Some("pull_fences_first"))
    );
    assert_kept(&kept, "C2");
    assert_broken(&broken, "C2");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_validity_a_home_that_was_cut_off_answers_what_is_not_so_any_more() {
    let (kept, broken) = tokio::join!(
        a_home_is_cut_off(CutOff::FromAll, None),
        a_home_is_cut_off(CutOff::FromAll, Some("validity"))
    );
    assert_kept(&kept, "C2");
    assert_broken(&broken, "C2");
}
