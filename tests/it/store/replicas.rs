//! What the store knows of its replicas: whether they have what was committed, asked past everything else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hearth::rig::{SentinelPlan, SentinelSet, Server};
use hearth::store::{CommittedUpTo, Store, open};

use super::fixture::{Fixture, LONG, in_cluster, shard};
use super::writer::Writer;
use crate::harness::patience::until;
use crate::harness::redis_sets::{common, start_sentinels};

/// A master and its replica, which nobody watches.
fn pair() -> SentinelSet {
    start_sentinels(SentinelPlan { common: common(), sentinels: 0, ..SentinelPlan::default() })
}

async fn store_on(server: &Server) -> Arc<dyn Store> {
    open(&format!("redis://127.0.0.1:{}", server.port()), in_cluster("c")).await.unwrap()
}

pub(crate) fn upto(writer: &Writer) -> CommittedUpTo {
    let home = &writer.home;
    let (epoch, generation) = (home.grant.epoch, home.grant.generation);
    CommittedUpTo { shard: home.shard, epoch, generation, flush_seq: home.acked }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_replica_holds_up_those_alone_who_wait_for_it() {
    let set = pair();
    let store = store_on(&set.servers()[0]).await;
    let mut writer = Writer::of_shard(&store, 7).await;
    writer.write(3).await;
    assert!(store.has_replicas(shard(7)).await.unwrap());
    assert!(store.replicated(upto(&writer)).await.unwrap());

    set.servers()[1].pause().unwrap();
    writer.write(1).await;
    let asked = upto(&writer);
    let waiting = async {
        let started = Instant::now();
        assert!(!store.replicated(asked).await.unwrap(), "a stopped replica has nothing");
        started.elapsed()
    };
    let meanwhile = async {
        for _ in 0..20 {
            let started = Instant::now();
            assert!(writer.send().await);
            let (home, epoch) = (&writer.home, writer.home.grant.epoch);
            store.lease_renew(home.shard, &home.owner, epoch, LONG).await.unwrap();
            assert!(started.elapsed() < Duration::from_millis(250), "{:?}", started.elapsed());
        }
    };
    let (waited, ()) = tokio::join!(waiting, meanwhile);
    assert!(waited > Duration::from_millis(300) && waited < Duration::from_secs(1), "{waited:?}");

    set.servers()[1].go_on().unwrap();
    let asked = upto(&writer);
    until("the replica has caught up", || async { store.replicated(asked).await.unwrap().then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_wait_for_replicas_together() {
    let set = pair();
    let store = store_on(&set.servers()[0]).await;
    let mut writers = Vec::new();
    for number in 0..4 {
        let mut writer = Writer::of_shard(&store, number).await;
        writer.write(2).await;
        writers.push(writer);
    }
    let asked = (0..200).map(|n| store.replicated(upto(&writers[n % 4])));
    assert!(join_all(asked).await.into_iter().all(|answer| answer.unwrap()));
    let stats: String = set.servers()[0].query(&["INFO", "commandstats"]).unwrap();
    let waits = stats.lines().find_map(|line| line.strip_prefix("cmdstat_wait:calls=")).expect("they waited");
    let waits: u64 = waits.split(',').next().unwrap().parse().unwrap();
    assert!(waits < 20, "{waits} rounds for 200 at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lost_the_batch_since_is_found_out() {
    let set = pair();
    let master = &set.servers()[0];
    let store = store_on(master).await;
    let mut writer = Writer::of_shard(&store, 7).await;
    writer.write(3).await;
    let set_meta =
        |field: &str, value: &str| master.query::<()>(&["HSET", "{c.s7}:m", field, value]).unwrap();
    let f: String = master.query(&["HGET", "{c.s7}:m", "f"]).unwrap();
    let epoch: String = master.query(&["HGET", "{c.s7}:m", "epoch"]).unwrap();
    let generation: String = master.query(&["HGET", "{c.s7}:m", "gen"]).unwrap();
    for (field, lost, good) in
        [("f", "2", &f), ("epoch", "1", &epoch), ("gen", "0000000000000000", &generation)]
    {
        set_meta(field, lost);
        assert!(!store.replicated(upto(&writer)).await.unwrap(), "{field}");
        set_meta(field, good);
        assert!(store.replicated(upto(&writer)).await.unwrap(), "{field}");
    }
    master.query::<()>(&["FLUSHALL"]).unwrap();
    let emptied = store.replicated(upto(&writer)).await;
    assert!(matches!(emptied, Ok(false)), "{emptied:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_replicas_says_so() {
    for fixture in [Fixture::embedded().await, Fixture::redis().await] {
        let mut writer = Writer::of_shard(&fixture.store, 7).await;
        writer.write(1).await;
        assert!(!fixture.store.has_replicas(shard(7)).await.unwrap());
        assert!(!fixture.store.replicated(upto(&writer)).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_are_gone_are_told_where_there_were_some_or_are_to_be() {
    let told = async |store: &Arc<dyn Store>| {
        let shortfalls = store.shortfalls().await.unwrap();
        shortfalls.into_iter().any(|one| one.setting == "redis.replicated_to")
    };
    let alone = Fixture::redis().await;
    assert!(!told(&alone.store).await, "nobody said that there should be any");
    let set = pair();
    let store = store_on(&set.servers()[0]).await;
    until("the replica is seen", || async { store.has_replicas(shard(7)).await.unwrap().then_some(()) })
        .await;
    assert!(!told(&store).await);
    set.servers()[1].kill().unwrap();
    until("its end is told", || async { told(&store).await.then_some(()) }).await;
    // Whoever has never seen one: a pair is what sentinels are for.
    let set = start_sentinels(SentinelPlan { common: common(), replicas: 0, ..SentinelPlan::default() });
    assert!(told(&open(&set.url(), in_cluster("c")).await.unwrap()).await);
}
