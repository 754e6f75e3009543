//! What the store does on a master that sentinels watch: it finds it, follows it when it dies or is replaced, and says
//! what is wrong with the URL.

use std::time::{Duration, Instant};

use hearth::rig::{Common, SentinelPlan, SentinelSet};
use hearth::store::{OpenOptions, open};

use super::fixture::in_cluster;
use super::writer::{Writer, events_of};
use crate::harness::certificates::Certificates;
use crate::harness::patience::PATIENCE;
use crate::harness::redis_sets::{common, sentinels, start_sentinels};

/// Sentinels who do not wait long, and look at the servers more often than each 10 s.
fn quick() -> SentinelSet {
    let plan = SentinelPlan { common: common(), down_after_ms: 500, ..SentinelPlan::default() };
    let set = start_sentinels(plan);
    for sentinel in set.sentinels() {
        sentinel.query::<()>(&["SENTINEL", "DEBUG", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "200"]).unwrap();
    }
    set
}

async fn check_on_the_new_master(set: &SentinelSet, mut writer: Writer) {
    let now = &set.servers()[1];
    assert!(now.says(&["INFO", "replication"], "role:master"));
    let key = format!("{{c.s{}}}:ev", writer.home.shard);
    writer.check(events_of(now.query(&["XRANGE", &key, "-", "+"]).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_is_followed_to_the_next_and_no_commit_is_made_twice() {
    let set = quick();
    let store = open(&set.url(), in_cluster("c")).await.unwrap();
    let mut writer = Writer::of_shard(&store, 7).await;
    writer.write(50).await;
    set.servers()[0].kill().unwrap();
    let pause = writer.write(50).await;
    assert!(pause > Duration::from_millis(300), "{pause:?}: nothing was killed");
    assert!(writer.failures.values().sum::<usize>() > 0, "nobody noticed");
    check_on_the_new_master(&set, writer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_master_that_is_replaced_is_left_for_the_next() {
    let set = quick();
    let store = open(&set.url(), in_cluster("c")).await.unwrap();
    let mut writer = Writer::of_shard(&store, 7).await;
    writer.write(20).await;
    let started = Instant::now();
    while !set.servers()[0].says(&["INFO", "replication"], "role:slave") {
        let sentinel = &set.sentinels()[0];
        let (_, port): (String, u16) =
            sentinel.query(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "hearth"]).unwrap();
        if port == set.servers()[0].port() {
            // It refuses while it does not know enough of the replica, or is at it; on a busy machine it may give up.
            let _ = sentinel.query::<()>(&["SENTINEL", "FAILOVER", "hearth"]);
        }
        writer.write(5).await;
        assert!(started.elapsed() < PATIENCE, "it is not replaced: {}", set.sentinels()[0].log_end());
    }
    writer.write(20).await;
    check_on_the_new_master(&set, writer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_master_is_left_for_the_next() {
    let set = quick();
    let options = OpenOptions { response_deadline: Duration::from_millis(300), ..in_cluster("c") };
    let store = open(&set.url(), options).await.unwrap();
    let mut writer = Writer::of_shard(&store, 7).await;
    writer.write(20).await;
    set.servers()[0].pause().unwrap();
    writer.write(20).await;
    assert!(writer.failures.contains_key("the"), "{:?}: nobody waited in vain", writer.failures);
    check_on_the_new_master(&set, writer).await;
}

async fn refused(url: &str) -> String {
    let message = open(url, in_cluster("c")).await.err().expect("refused").to_string();
    assert!(!message.contains('\n') && !message.contains("s3cret"), "{message}");
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_name_is_told_with_the_names_there_are() {
    let set = sentinels();
    let message = refused(&set.url().replace("/hearth", "/herath")).await;
    assert!(message.contains("\"herath\"") && message.contains("but hearth"), "{message}");
}

#[tokio::test]
async fn sentinels_that_cannot_be_reached_are_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    let url = format!("redis+sentinel://:s3cret@127.0.0.1:1,{silent}/hearth?sentinel_password=s3cret");
    let message = refused(&url).await;
    assert!(message.contains("no sentinel answers"), "{message}");
    assert!(message.contains("127.0.0.1:1:") && message.contains(&silent.to_string()), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentinel_of_those_in_the_url_is_enough() {
    let set = sentinels();
    let dead = "redis+sentinel://127.0.0.1:1,";
    let url = set.url().replace("redis+sentinel://", dead);
    let store = open(&url, in_cluster("one-sentinel")).await.unwrap();
    Writer::of_shard(&store, 7).await.write(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_behind_tls_and_logins_is_found_by_those_who_may() {
    let certificates = Certificates::make();
    let user =
        "on >s3cret ~c:* ~{c.s*}:* +@read +@write +eval +evalsha +ping +info +role +time +wait +config|get";
    let plan = SentinelPlan {
        common: Common {
            password: Some("inside".into()),
            tls: Some(certificates.files()),
            settings: vec![("user".into(), format!("hearth {user}"))],
            ..common()
        },
        replicas: 0,
        sentinels: 1,
        sentinel_settings: vec![("user".into(), "watch on >s3cret +@all ~* &*".into())],
        ..SentinelPlan::default()
    };
    let set = start_sentinels(plan);
    let trusting = || OpenOptions { redis_ca_pem: Some(certificates.authority()), ..in_cluster("c") };
    let url = |login: &str, query: &str| set.url_as(login, query);
    let store = open(&url("hearth:s3cret@", "?sentinel_user=watch&sentinel_password=s3cret"), trusting())
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    Writer::of_shard(&store, 7).await.write(3).await;
    store.shortfalls().await.unwrap();
    store.probe().await.unwrap();

    for (login, query, hint) in [
        ("hearth:s3cret@", "", "sentinel_password"),
        ("hearth:s3cret@", "?sentinel_user=watch&sentinel_password=wrong", "sentinel_password"),
        ("hearth:wrong@", "?sentinel_user=watch&sentinel_password=s3cret", "password in the store's URL"),
        ("", "?sentinel_user=watch&sentinel_password=s3cret", "it wants a password"),
    ] {
        let message = open(&url(login, query), trusting()).await.err().expect("refused").to_string();
        assert!(message.contains(hint) && !message.contains("s3cret"), "{login} {query}: {message}");
    }
    let query = "?sentinel_user=watch&sentinel_password=s3cret";
    let message = refused(&url("hearth:s3cret@", query)).await;
    assert!(message.contains("no sentinel answers"), "an unknown authority: {message}");
}
