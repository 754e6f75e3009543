//! What the store does on a Redis Cluster: a dead master costs its own shards a moment and the others nothing, a slot
//! that moves costs nobody a commit, and a wrong URL is told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hearth::rig::{ClusterPlan, Common};
use hearth::store::{CommitRecord, Goes, OpenOptions, RecordStatus, Renewed, StoreError, open};

use super::fixture::{Fixture, Home, LONG, in_cluster, live, request, telling};
use super::replicas::upto;
use super::writer::{Writer, events_of};
use crate::harness::certificates::Certificates;
use crate::harness::patience::PATIENCE;
use crate::harness::redis_server::RedisServer;
use crate::harness::redis_sets::{common, start_cluster};
use crate::harness::slots::{Move, told};

fn meta(number: u16) -> String {
    format!("{{c.s{number}}}:m")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_master_costs_its_own_shards_a_moment_and_the_others_nothing() {
    let set = start_cluster(ClusterPlan { common: common(), ..ClusterPlan::default() });
    let store = open(&set.url(), in_cluster("c")).await.unwrap();
    let mut writers = Vec::new();
    for number in 0..12 {
        writers.push(Writer::of_shard(&store, number).await);
    }
    let holders: Vec<_> = (0..12).map(|number| set.holder_of(&meta(number)).unwrap()).collect();
    let dead = holders[0];
    assert!(holders.iter().any(|holder| *holder != dead), "{holders:?}: all lie on one node");
    for writer in &mut writers {
        writer.write(1).await;
        assert!(store.replicated(upto(writer)).await.unwrap());
    }
    let (mut rounds, mut failed) = (0, BTreeMap::<usize, usize>::new());
    let started = Instant::now();
    let mut killed = false;
    // Until everybody has written thirty times more after the death.
    let mut goals = vec![u64::MAX; writers.len()];
    while writers.iter().zip(&goals).any(|(writer, goal)| writer.acked < *goal) {
        assert!(started.elapsed() < PATIENCE, "{goals:?}");
        if rounds == 20 && !killed {
            set.nodes()[dead].kill().unwrap();
            killed = true;
            goals = writers.iter().map(|writer| writer.acked + 30).collect();
        }
        rounds += 1;
        let batches = writers.iter_mut().map(|writer| writer.home.batch(vec![writer.record()])).collect();
        let answers = store.commit_all(batches).await;
        for ((writer, answer), holder) in writers.iter_mut().zip(answers).zip(&holders) {
            if !writer.hear(answer).await {
                *failed.entry(*holder).or_default() += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(failed.keys().collect::<Vec<_>>(), [&dead], "{failed:?}: others suffered, too, or nobody did");
    for (number, mut writer) in writers.into_iter().enumerate() {
        let number = u16::try_from(number).unwrap();
        let holder = &set.nodes()[set.holder_of(&meta(number)).unwrap()];
        writer
            .check(events_of(holder.query(&["XRANGE", &format!("{{c.s{number}}}:ev"), "-", "+"]).unwrap()))
            .await;
    }
}

fn with_event(record: CommitRecord) -> CommitRecord {
    telling(record, Goes::Events, "event")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_costs_nobody_a_commit() {
    let set = start_cluster(ClusterPlan { common: common(), replicas_each: 0, ..ClusterPlan::default() });
    let store = open(&set.url(), in_cluster("c")).await.unwrap();
    let mut home = Home::ask(&store, request("a#1", LONG)).await;
    let (shard, owner, epoch) = (home.shard, home.owner.clone(), home.grant.epoch);
    let renew = || async {
        let renewed = store.lease_renew(shard, &owner, epoch, LONG).await.unwrap();
        assert!(matches!(renewed, Renewed::Renewed { .. }), "{renewed:?}");
    };
    let (mut version, mut event_count) = (1, 1);
    home.commit(vec![with_event(CommitRecord { w: Some(Bytes::from("w")), ..live("ann", 0, 1) })]).await;
    let first = set.holder_of(&meta(7)).unwrap();
    let second = (first + 1) % 3;
    for (round, (from, to)) in [(first, second), (second, first), (first, second)].into_iter().enumerate() {
        let before = ["MOVED", "ASK", "TRYAGAIN"].map(|code| told(&set, code));
        let moving = Move::begin(&set, from, to, &meta(7));
        let mut takes = async |home: &mut Home| {
            let record = with_event(live("ann", version, version + 1));
            (version, event_count) = (version + 1, event_count + 1);
            assert_eq!(home.commit_one(record).await, RecordStatus::Applied);
            assert_eq!(home.body("ann").await.0, version);
        };
        let refuses = async |home: &mut Home, record: CommitRecord| match home.try_commit(vec![record]).await
        {
            Err(StoreError::Refused(reason)) => assert!(reason.starts_with("TRYAGAIN"), "{reason}"),
            other => panic!("{other:?}"),
        };
        // Nothing has moved: what exists is written where it is, what does not cannot be placed.
        takes(&mut home).await;
        let newcomer = format!("newcomer-{round}");
        refuses(&mut home, live(&newcomer, 0, 1)).await;
        // The meta has: leases are renewed there, batches find their keys in two places.
        moving.keys(&[&meta(7)]);
        renew().await;
        refuses(&mut home, with_event(live("ann", 1_000, 1_001))).await;
        // All have: batches go there, though the slot is not theirs yet.
        moving.all_keys();
        renew().await;
        takes(&mut home).await;
        moving.end();
        takes(&mut home).await;
        renew().await;
        assert_eq!(home.commit_one(live(&newcomer, 0, 1)).await, RecordStatus::Applied);
        let after = ["MOVED", "ASK", "TRYAGAIN"].map(|code| told(&set, code));
        assert!(after.iter().zip(before).all(|(after, before)| *after > before), "{before:?} {after:?}");
    }
    let holder = &set.nodes()[second];
    let events: Vec<(String, Vec<String>)> = holder.query(&["XRANGE", "{c.s7}:ev", "-", "+"]).unwrap();
    assert_eq!(events.len(), event_count, "each change once");
    let expected = ["newcomer-0", "newcomer-1", "newcomer-2", "ann"].map(str::to_owned);
    assert_eq!(home.live_players(10).await, (expected.to_vec(), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_behind_tls_and_logins_are_reached_by_those_who_may() {
    let certificates = Certificates::make();
    let user = "on >s3cret ~c:* ~{c.s*}:* +@read +@write +eval +evalsha +ping +info +time +wait +config|get \
                +cluster|slots +cluster|info +asking";
    let set = start_cluster(ClusterPlan {
        common: Common {
            password: Some("inside".into()),
            tls: Some(certificates.files()),
            settings: vec![("user".into(), format!("hearth {user}"))],
            ..common()
        },
        masters: 1,
        replicas_each: 0,
        ..ClusterPlan::default()
    });
    let trusting = || OpenOptions { redis_ca_pem: Some(certificates.authority()), ..in_cluster("c") };
    let store =
        open(&set.url_as("hearth:s3cret@"), trusting()).await.unwrap_or_else(|error| panic!("{error}"));
    Writer::of_shard(&store, 7).await.write(3).await;
    store.shortfalls().await.unwrap();
    store.probe().await.unwrap();
    for login in ["", "hearth:wrong@"] {
        let message = open(&set.url_as(login), trusting()).await.err().expect("refused").to_string();
        assert!(message.contains("password") && !message.contains("wrong@"), "{message}");
    }
    let error =
        open(&set.url_as("hearth:s3cret@"), in_cluster("c")).await.err().expect("an unknown authority");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_alone_is_no_cluster_and_a_node_of_one_is_not_alone() {
    let server = RedisServer::builder().on_tcp().start();
    let url = server.tcp_url().replace("redis://", "redis+cluster://");
    let message = open(&url, in_cluster("c")).await.err().expect("refused").to_string();
    assert!(message.contains("use redis://") && !message.contains('\n'), "{message}");

    let set = crate::harness::redis_sets::cluster();
    let node = format!("redis://127.0.0.1:{}", set.nodes()[0].port());
    let store = open(&node, in_cluster("alone")).await.unwrap();
    let shortfalls = store.shortfalls().await.unwrap();
    let named = shortfalls.iter().find(|shortfall| shortfall.setting == "cluster-enabled").expect("named");
    assert!(named.fatal && named.message.contains("redis+cluster://"), "{named:?}");
    let mut refusals = Vec::new();
    for number in 0..12 {
        let asked =
            hearth::store::AcquireRequest { shard: super::fixture::shard(number), ..request("a#1", LONG) };
        if let Err(error) = store.lease_acquire(asked).await {
            refusals.push(error.to_string());
        }
    }
    assert!(
        !refusals.is_empty() && refusals.iter().all(|said| said.contains("use redis+cluster://")),
        "{refusals:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_in_which_nobody_can_be_reached_is_named() {
    let message = open("redis+cluster://:s3cret@127.0.0.1:1,127.0.0.1:2", in_cluster("c"))
        .await
        .err()
        .expect("refused")
        .to_string();
    assert!(message.contains("redis+cluster://127.0.0.1:1,127.0.0.1:2"), "{message}");
    assert!(!message.contains("s3cret") && !message.contains('\n'), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_store_answers_that_it_is_closed() {
    for fixture in [Fixture::cluster().await, Fixture::sentinel().await] {
        let mut home = Home::take(&fixture, "a#1").await;
        fixture.store.close().await.unwrap();
        let unreachable = |error: StoreError| assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
        unreachable(home.try_commit(vec![]).await.unwrap_err());
    }
}
