//! What the Redis store does when its server is full, slow, gone, replaced, emptied or set back, each against a real
//! server that really is.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hearth::ids::Epoch;
use hearth::store::{
    AcquireRequest, Acquired, Committed, OpenError, OpenOptions, Reach, RecordStatus, Released, Renewed,
    Store, StoreError, open,
};

use super::fixture::{Fixture, Home, LONG, in_cluster, live, player, request, restoring, shard};
use crate::harness::certificates::Certificates;
use crate::harness::patience::until;
use crate::harness::redis_server::RedisServer;

/// Waits little, so that a test of a silent server is short.
fn impatient() -> OpenOptions {
    OpenOptions { response_deadline: Duration::from_millis(200), ..in_cluster("c") }
}

async fn impatient_store(server: &RedisServer) -> Arc<dyn Store> {
    open(&server.url(), impatient()).await.unwrap()
}

fn is_refused<T: std::fmt::Debug>(answer: Result<T, StoreError>, hint: &str) {
    match answer {
        Err(StoreError::Refused(reason)) => assert!(reason.contains(hint), "{reason:?} says no {hint:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_full_redis_refuses_commits_and_renews_leases() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    home.commit_one(live("ann", 0, 1)).await;
    let set_memory = |bytes| fixture.server().query::<()>(&["CONFIG", "SET", "maxmemory", bytes]);
    set_memory("1");
    is_refused(home.try_commit(vec![live("ann", 1, 2)]).await, "OOM");
    assert_eq!(home.body("ann").await, (1, "ann at 1".into()), "nothing was written");
    let other = AcquireRequest { shard: shard(8), ..request("a#1", LONG) };
    is_refused(fixture.store.lease_acquire(other).await, "OOM");
    is_refused(fixture.store.probe().await, "OOM");
    let renewed = fixture.store.lease_renew(home.shard, &home.owner, home.grant.epoch, LONG).await.unwrap();
    assert_eq!(renewed, Renewed::Renewed { flush_seq: home.acked, generation: home.grant.generation });
    set_memory("0");
    assert_eq!(home.commit_one(live("ann", 1, 2)).await, RecordStatus::Applied);
    set_memory("1");
    let released = fixture.store.lease_release(home.shard, &home.owner, home.grant.epoch).await.unwrap();
    assert_eq!(released, Released::Released);
}

#[tokio::test]
async fn a_batch_that_timed_out_and_runs_later_does_no_harm() {
    let server = RedisServer::start();
    let store = impatient_store(&server).await;
    let mut home = Home::ask(&store, request("a#1", LONG)).await;
    home.commit_one(live("ann", 0, 1)).await;
    server.pause();
    for version in [2, 3] {
        let answer = home.try_commit(vec![live("ann", 1, version), live("bob", 0, version)]).await;
        assert!(matches!(answer, Err(StoreError::Timeout)), "{answer:?}");
    }
    server.go_on();
    // Neither answer was heard, so what is stored is unknown: the base is still 1, the number goes on.
    let status = until("the server answers", || {
        let batch = home.batch(vec![live("ann", 1, 4)]);
        let store = Arc::clone(&store);
        async move {
            match store.commit(batch).await {
                Ok(Committed::Done(mut statuses)) => Some(statuses.remove(0)),
                Ok(other) => panic!("{other:?}"),
                Err(_) => None,
            }
        }
    })
    .await;
    assert_eq!(status, RecordStatus::Applied);
    assert_eq!(home.body("ann").await, (4, "ann at 4".into()));
    // The late ones ran before it, or find a newer number now; a look through another connection, after all of them.
    let f: u64 = server.query(&["HGET", "{c.s7}:m", "f"]);
    assert_eq!(f, home.sent.number());
    assert_eq!(home.body("ann").await.0, 4);
}

#[tokio::test]
async fn a_silent_server_costs_a_call_its_deadline_and_then_its_connection() {
    let server = RedisServer::start();
    let store = impatient_store(&server).await;
    let home = Home::ask(&store, request("a#1", LONG)).await;
    let clients = || {
        let list: String = server.query(&["CLIENT", "LIST"]);
        list.lines()
            .filter(|line| !line.contains("cmd=client"))
            .map(|line| line.split_once(' ').unwrap().0.to_owned())
            .collect::<Vec<_>>()
    };
    let before = clients();
    assert_eq!(before.len(), 3, "one for leases, one for commits, one for reads");
    server.pause();
    let renew = || store.lease_renew(home.shard, &home.owner, home.grant.epoch, LONG);
    for _ in 0..2 {
        let started = Instant::now();
        assert!(matches!(renew().await, Err(StoreError::Timeout)));
        let waited = started.elapsed();
        assert!(waited >= Duration::from_millis(200) && waited < Duration::from_millis(900), "{waited:?}");
    }
    server.go_on();
    until("leases renew again", || async { renew().await.ok() }).await;
    let after = clients();
    assert_eq!(after.iter().filter(|client| before.contains(client)).count(), 2, "{before:?} {after:?}");
    assert_eq!(after.len(), 3);
}

/// A store whose server has stopped, and is known to be away.
async fn store_of_a_stopped(server: &RedisServer) -> Arc<dyn Store> {
    let store = impatient_store(server).await;
    server.pause();
    until("it is known to be away", async || {
        join_all((0..12).map(|_| store.probe())).await;
        (store.reach(shard(7)) == Reach::Away).then_some(())
    })
    .await;
    store
}

#[tokio::test]
async fn a_server_that_is_back_is_found_also_by_who_asks_nothing_of_it() {
    let server = RedisServer::start();
    let store = store_of_a_stopped(&server).await;
    server.go_on();
    until("it is well", async || (store.reach(shard(7)) == Reach::Well).then_some(())).await;
}

#[tokio::test]
async fn a_server_that_is_back_and_full_is_said_to_be_full() {
    let server = RedisServer::start();
    let () = server.query(&["CONFIG", "SET", "maxmemory", "1"]);
    let store = store_of_a_stopped(&server).await;
    server.go_on();
    until("it is full", async || (store.reach(shard(7)) == Reach::Full).then_some(())).await;
}

#[tokio::test]
async fn a_connection_that_only_once_timed_out_is_kept() {
    let server = RedisServer::start();
    let store = impatient_store(&server).await;
    let home = Home::ask(&store, request("a#1", LONG)).await;
    let renew = || store.lease_renew(home.shard, &home.owner, home.grant.epoch, LONG);
    let connections = || {
        let info: String = server.query(&["INFO", "stats"]);
        let line = info.lines().find(|line| line.starts_with("total_connections_received:")).unwrap();
        line.split_once(':').unwrap().1.parse::<u64>().unwrap()
    };
    for _ in 0..3 {
        let before = connections();
        server.pause();
        assert!(matches!(renew().await, Err(StoreError::Timeout)));
        server.go_on();
        until("leases renew again", || async { renew().await.ok() }).await;
        assert_eq!(connections(), before + 1, "only the look itself");
    }
}

#[tokio::test]
async fn a_killed_server_is_found_again_with_every_durable_write() {
    let fixture = Fixture::on(RedisServer::builder().durable().start()).await;
    let mut home = Home::take(&fixture, "a#1").await;
    let mut server = fixture.server.unwrap();
    for round in 0..3_u64 {
        for version in round * 20 + 1..=round * 20 + 20 {
            home.commit_one(live("ann", version - 1, version)).await;
        }
        server.kill();
        let gone = home.try_commit(vec![]).await;
        assert!(matches!(gone, Err(StoreError::Unreachable(_))), "{gone:?}");
        server.start_again();
        // The restart is invisible to whatever may be sent twice.
        let renewed = fixture.store.lease_renew(home.shard, &home.owner, home.grant.epoch, LONG).await;
        match renewed.unwrap() {
            Renewed::Renewed { flush_seq, .. } | Renewed::Regranted { flush_seq, .. } => {
                assert_eq!(flush_seq, home.acked);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(home.body("ann").await.0, round * 20 + 20);
    }
}

#[tokio::test]
async fn an_emptied_redis_is_noticed_and_filled_from_memory() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    home.commit(vec![live("ann", 0, 1), live("bob", 0, 1)]).await;
    fixture.server().query::<()>(&["FLUSHALL"]);
    assert_eq!(home.try_commit(vec![live("ann", 1, 2)]).await.unwrap(), Committed::Lost);
    let renewed = fixture.store.lease_renew(home.shard, &home.owner, home.grant.epoch, LONG).await.unwrap();
    assert_eq!(renewed, Renewed::RolledBack);

    let asked = AcquireRequest { floor: home.grant.epoch, ..request("a#1", LONG) };
    let mut repaired = Home::ask(&fixture.store, asked).await;
    assert!(repaired.grant.epoch > home.grant.epoch);
    assert_ne!(repaired.grant.generation, home.grant.generation);
    assert_eq!(home.try_commit(vec![live("ann", 1, 2)]).await.unwrap(), Committed::Lost, "of the old store");
    let records = vec![live("ann", 1, 2), restoring(live("bob", 1, 1))];
    assert_eq!(repaired.commit(records).await, [RecordStatus::Gone, RecordStatus::Restored]);
    assert_eq!(repaired.commit_one(restoring(live("ann", 1, 2))).await, RecordStatus::Restored);
    assert_eq!(repaired.live_players(10).await.1, 0);
}

#[tokio::test]
async fn a_redis_set_back_to_an_older_file_is_noticed_and_repaired() {
    let fixture = Fixture::on(RedisServer::builder().durable().start()).await;
    let mut home = Home::take(&fixture, "a#1").await;
    home.commit_one(live("ann", 0, 1)).await;
    let mut server = fixture.server.unwrap();
    let older = tempfile::tempdir().unwrap();
    copy_folder(&server.dir().join("appendonlydir"), older.path());
    home.commit(vec![live("ann", 1, 2), live("bob", 0, 1)]).await;

    server.kill();
    copy_folder(older.path(), &server.dir().join("appendonlydir"));
    server.start_again();
    assert_eq!(home.body("ann").await.0, 1, "the store forgot an acknowledged write");
    let answer = until("the commits' connection is made again", || {
        let batch = home.batch(vec![live("ann", 2, 3)]);
        async { fixture.store.commit(batch).await.ok() }
    })
    .await;
    assert_eq!(answer, Committed::RolledBack);
    let renewed = fixture.store.lease_renew(home.shard, &home.owner, home.grant.epoch, LONG).await.unwrap();
    match renewed {
        Renewed::Renewed { flush_seq, .. } => assert!(flush_seq < home.acked, "a renewal tells it, too"),
        other => panic!("{other:?}"),
    }
    let asked = AcquireRequest { floor: home.grant.epoch, ..request("a#1", LONG) };
    let mut repaired = Home::ask(&fixture.store, asked).await;
    let records = vec![restoring(live("ann", 2, 3)), restoring(live("bob", 1, 1))];
    assert_eq!(repaired.commit(records).await, [RecordStatus::Repaired, RecordStatus::Restored]);
}

fn copy_folder(from: &Path, to: &Path) {
    for old in std::fs::read_dir(to).unwrap() {
        std::fs::remove_file(old.unwrap().path()).unwrap();
    }
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test]
async fn forgotten_scripts_are_invisible() {
    let fixture = Fixture::redis().await;
    let forget = || fixture.server().query::<()>(&["SCRIPT", "FLUSH"]);
    let mut home = Home::take(&fixture, "a#1").await;
    for version in 1..=5 {
        forget();
        assert_eq!(home.commit_one(live("ann", version - 1, version)).await, RecordStatus::Applied);
        forget();
        let renewed = fixture.store.lease_renew(home.shard, &home.owner, home.grant.epoch, LONG).await;
        assert!(matches!(renewed.unwrap(), Renewed::Renewed { .. }));
    }
    forget();
    let again = fixture.store.lease_acquire(request("a#1", LONG)).await.unwrap();
    assert!(matches!(again, Acquired::AlreadyMine(_)));
    let mut others = Vec::new();
    for number in 20..23 {
        let asked = AcquireRequest { shard: shard(number), ..request("a#1", LONG) };
        others.push(Home::ask(&fixture.store, asked).await);
    }
    forget();
    let together = others.iter_mut().map(|home| home.batch(vec![live("ann", 0, 1)])).collect();
    for answer in fixture.store.commit_all(together).await {
        assert_eq!(answer.unwrap(), Committed::Done(vec![RecordStatus::Applied]));
    }
    forget();
    let released = fixture.store.lease_release(home.shard, &home.owner, home.grant.epoch).await.unwrap();
    assert_eq!(released, Released::Released);
}

#[tokio::test]
async fn a_server_that_became_a_replica_is_left_and_found_again() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    home.commit_one(live("ann", 0, 1)).await;
    fixture.server().query::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    is_refused(home.try_commit(vec![live("ann", 1, 2)]).await, "READONLY");
    let renew = || fixture.store.lease_renew(home.shard, &home.owner, home.grant.epoch, LONG);
    is_refused(renew().await, "READONLY");
    let shortfalls = fixture.store.shortfalls().await.unwrap();
    assert!(shortfalls.iter().any(|shortfall| shortfall.setting == "role" && shortfall.fatal));
    fixture.server().query::<()>(&["REPLICAOF", "NO", "ONE"]);
    assert!(matches!(renew().await.unwrap(), Renewed::Renewed { .. }));
    assert_eq!(home.commit_one(live("ann", 1, 2)).await, RecordStatus::Applied);
}

#[tokio::test]
async fn a_server_without_its_replicas_refuses_before_it_writes() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    let replicas = |count| fixture.server().query::<()>(&["CONFIG", "SET", "min-replicas-to-write", count]);
    replicas("1");
    is_refused(home.try_commit(vec![live("ann", 0, 1)]).await, "NOREPLICAS");
    assert_eq!(home.load("ann").await, None);
    replicas("0");
    assert_eq!(home.commit_one(live("ann", 0, 1)).await, RecordStatus::Applied);
}

#[tokio::test]
async fn a_server_that_cannot_save_refuses_before_it_writes() {
    let server = RedisServer::builder()
        .setting("save", "3600 100000")
        .setting("enable-protected-configs", "yes")
        .start();
    let fixture = Fixture::on(server).await;
    let mut home = Home::take(&fixture, "a#1").await;
    // The folder is taken away under it, and a snapshot asked for.
    let gone = fixture.server().dir().join("gone");
    std::fs::create_dir(&gone).unwrap();
    fixture.server().query::<()>(&["CONFIG", "SET", "dir", &gone.to_string_lossy()]);
    std::fs::remove_dir(&gone).unwrap();
    fixture.server().query::<()>(&["BGSAVE"]);
    let refusal = until("the snapshot failed", || {
        let batch = home.batch(vec![]);
        async { fixture.store.commit(batch).await.err() }
    })
    .await;
    is_refused::<()>(Err(refusal), "MISCONF");
}

#[tokio::test]
async fn a_busy_server_is_told_from_a_dead_one() {
    let server = RedisServer::builder().setting("busy-reply-threshold", "1").start();
    let store = impatient_store(&server).await;
    let mut home = Home::ask(&store, request("a#1", LONG)).await;
    let mut stranger = server.connect();
    let endless = std::thread::spawn(move || {
        let endless = redis::cmd("EVAL").arg("while true do end").arg(0).query::<()>(&mut stranger);
        assert!(endless.is_err(), "killed");
    });
    let refusal = until("the server says that it is busy", || {
        let batch = home.batch(vec![]);
        let store = Arc::clone(&store);
        async move { store.commit(batch).await.err().filter(|error| matches!(error, StoreError::Refused(_))) }
    })
    .await;
    is_refused::<()>(Err(refusal), "BUSY");
    server.query::<()>(&["SCRIPT", "KILL"]);
    endless.join().unwrap();
    assert_eq!(home.commit_one(live("ann", 0, 1)).await, RecordStatus::Applied);
}

#[tokio::test]
async fn nobody_listening_is_one_line_that_says_what_to_do() {
    let server = RedisServer::builder().on_tcp().start();
    let url = server.tcp_url();
    open(&url, in_cluster("c")).await.unwrap();
    drop(server);
    let error = open(&url, in_cluster("c")).await.err().expect("nobody listens");
    let message = error.to_string();
    assert!(matches!(error, OpenError::NoServer { .. }), "{message}");
    assert!(message.contains(&url) && message.contains("start it") && !message.contains('\n'), "{message}");
}

#[tokio::test]
async fn a_password_is_asked_for_by_name_and_never_shown() {
    let server = RedisServer::builder().on_tcp().start();
    server.query::<()>(&["CONFIG", "SET", "requirepass", "s3cret"]);
    let with = |user: &str| server.tcp_url().replace("redis://", &format!("redis://{user}@"));
    open(&with(":s3cret"), in_cluster("c")).await.unwrap();
    for url in [server.tcp_url(), with(":wr0ng"), with("nobody:s3cret")] {
        let message = open(&url, in_cluster("c")).await.err().expect("refused").to_string();
        assert!(message.contains("password") && !message.contains('\n'), "{message}");
        assert!(!message.contains("s3cret") && !message.contains("wr0ng"), "{message}");
    }
}

#[tokio::test]
async fn a_cluster_name_is_required_with_redis() {
    let server = RedisServer::start();
    for name in ["", "a b", "a}"] {
        let error = open(&server.url(), in_cluster(name)).await.err().expect("refused");
        assert!(matches!(error, OpenError::ClusterName { .. }), "{error}");
        assert!(error.to_string().contains("cluster.name"), "{error}");
    }
}

#[tokio::test]
async fn a_silent_address_is_given_up_at_its_deadline() {
    // It accepts and never speaks.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let started = Instant::now();
    let options = OpenOptions { connect_deadline: Duration::from_millis(300), ..impatient() };
    assert!(open(&url, options).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_closed_store_answers_that_it_is_closed() {
    let fixture = Fixture::redis().await;
    let mut home = Home::take(&fixture, "a#1").await;
    fixture.store.close().await.unwrap();
    let unreachable = |error: StoreError| assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    unreachable(home.try_commit(vec![]).await.unwrap_err());
    unreachable(fixture.store.load_players(shard(7), vec![player("ann")]).await.unwrap_err());
    unreachable(fixture.store.lease_renew(shard(7), &home.owner, Epoch::of(1), LONG).await.unwrap_err());
    let clients = || async {
        let list: String = fixture.server().query(&["CLIENT", "LIST"]);
        (list.lines().count() == 1).then_some(())
    };
    until("its connections are gone", clients).await;
}

#[tokio::test]
async fn settings_that_fall_short_are_named() {
    let found = |store: Arc<dyn Store>| async move {
        let shortfalls = store.shortfalls().await.unwrap();
        shortfalls.into_iter().map(|shortfall| (shortfall.setting, shortfall.fatal)).collect::<Vec<_>>()
    };
    let fixture = Fixture::redis().await;
    let set = |name, value| fixture.server().query::<()>(&["CONFIG", "SET", name, value]);
    let named = |names: &[(&str, bool)]| {
        names.iter().map(|(name, fatal)| ((*name).to_owned(), *fatal)).collect::<Vec<_>>()
    };
    assert_eq!(found(Arc::clone(&fixture.store)).await, named(&[("appendonly", false)]));
    set("maxmemory-policy", "allkeys-lru");
    let both = named(&[("maxmemory-policy", true), ("appendonly", false)]);
    assert_eq!(found(Arc::clone(&fixture.store)).await, both);
    set("maxmemory-policy", "noeviction");
    set("appendonly", "yes");
    assert_eq!(found(Arc::clone(&fixture.store)).await, named(&[("appendfsync", false)]));
    set("appendfsync", "always");
    assert_eq!(found(Arc::clone(&fixture.store)).await, []);
}

#[tokio::test]
async fn a_server_that_hides_its_settings_is_used_and_not_trusted() {
    let fixture = Fixture::on(RedisServer::builder().durable().start()).await;
    fixture.server().query::<()>(&["ACL", "SETUSER", "default", "-config"]);
    let shortfalls = fixture.store.shortfalls().await.unwrap();
    let names: Vec<_> = shortfalls.iter().map(|shortfall| shortfall.setting.as_str()).collect();
    assert_eq!(names, ["appendfsync"]);
    assert!(shortfalls[0].message.contains("cannot be read"));
}

#[tokio::test]
async fn the_ready_configuration_falls_short_of_nothing() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/redis/standalone.conf");
    let fixture = Fixture::on(RedisServer::builder().configured_by(&file).start()).await;
    assert_eq!(fixture.store.shortfalls().await.unwrap(), []);
    let mut home = Home::take(&fixture, "a#1").await;
    assert_eq!(home.commit_one(live("ann", 0, 1)).await, RecordStatus::Applied);
}

#[tokio::test]
async fn a_redis_behind_tls_is_trusted_by_its_authority_alone() {
    let certificates = Certificates::make();
    let files = certificates.files();
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let server = RedisServer::builder().behind_tls(&path(&files.certificate), &path(&files.key)).start();
    let url = server.tls_url();

    let trusting = OpenOptions { redis_ca_pem: Some(certificates.authority()), ..in_cluster("c") };
    let store = open(&url, trusting).await.unwrap();
    let mut home = Home::ask(&store, request("a#1", LONG)).await;
    assert_eq!(home.commit_one(live("ann", 0, 1)).await, RecordStatus::Applied);

    let error = open(&url, in_cluster("c")).await.err().expect("an unknown authority");
    assert!(matches!(error, OpenError::NoServer { .. }), "{error}");
}
