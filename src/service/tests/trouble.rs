//! The service API when something is short: a store that has lost writes or does not answer, and places that are taken.

use super::*;

async fn stored(house: &House, player: &str) -> StoredRecord {
    let player = PlayerId::parse(player).unwrap();
    let shard = house.home.placement().shard_of(&player);
    let mut loaded = house.store.store.load_players(shard, vec![player]).await.unwrap();
    loaded.pop().flatten().expect("a stored record")
}

#[tokio::test]
async fn a_ban_is_put_back_also_when_the_store_does_not_answer_at_first() {
    let house = House::new().await;
    house.call(Method::PUT, "/v1/players/ann/ban", json!({"reason": "cheating"})).await.ok();
    until("she has left memory", || house.home.records().is_empty()).await;
    let before = stored(&house, "ann").await.version;
    house.store.gives_records.store(false, Ordering::Relaxed);
    *house.store.lost_writes.lock() = Some(house.home.placement().shard_of(&PlayerId::parse("ann").unwrap()));
    until("the first try", || house.store.unread.load(Ordering::Relaxed) > 0).await;
    house.store.gives_records.store(true, Ordering::Relaxed);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while stored(&house, "ann").await.version <= before {
        assert!(std::time::Instant::now() < deadline, "the ban was not put back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_erasure_that_the_store_did_not_finish_is_told_as_applied() {
    let (lines, _here) = Lines::listen();
    let house = House::new().await;
    house.log_in("ann", "pc").await;
    house.store.takes_messages_back.store(false, Ordering::Relaxed);
    let erased = house.call(Method::DELETE, "/v1/players/ann", Value::Null).await;
    let problem = erased.problem(503, "store_unavailable");
    assert_eq!(problem["applied"], true, "{problem}");
    assert_eq!(house.ended().len(), 1);
    let audit = lines.audit().pop().expect("an audit line");
    assert!(audit.contains("operation=\"erase\"") && audit.contains("player=ann"), "{audit}");
    house.store.takes_messages_back.store(true, Ordering::Relaxed);
    assert_eq!(house.call(Method::DELETE, "/v1/players/ann", Value::Null).await.status, 204);
}

#[tokio::test]
async fn a_session_that_was_made_in_vain_leaves_its_audit_line() {
    let (lines, _here) = Lines::listen();
    let house = House::new().await;
    let body = json!({"player": "ann", "state": {"blob": "x".repeat(5_000)}});
    house.post("/v1/sessions", body).await.problem(413, "too_large");
    let audit = lines.audit().pop().expect("an audit line");
    assert!(audit.contains("operation=\"session.open\"") && audit.contains("player=ann"), "{audit}");
}

#[tokio::test]
async fn of_sessions_made_at_once_no_more_wait_than_may() {
    let house = House::new().await;
    let calls = (0..40).map(|_| house.post("/v1/sessions", json!({"player": "ann"})));
    let answers = futures_util::future::join_all(calls).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!((made, house.home.records().sessions()), (16, 16));
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        refused.problem(409, "session_limit");
    }
}

#[tokio::test]
async fn a_full_house_still_bans_revokes_and_erases() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("embedded:{}", dir.path().display());
    let store = Arc::new(Sick::of(store::open(&url, OpenOptions::default()).await.unwrap()));
    let settings = HomeSettings { hot_records_max: 1, ..home_settings() };
    let keys = Keys::bootstrap(Some(&Secret::new(KEY)));
    let house = House::with_home(settings, store, Some(dir), keys, "").await;
    house.log_in("ann", "pc").await;
    house.post("/v1/sessions", json!({"player": "bea"})).await.problem(503, "overloaded");
    house.call(Method::PUT, "/v1/players/bea/ban", json!({"reason": "cheating"})).await.ok();
    let revoke = json!({"reason": "", "revoke_before": clock::now().unix_ms});
    house.post("/v1/players/cem/kick", revoke).await.ok();
    assert_eq!(house.call(Method::DELETE, "/v1/players/dan", Value::Null).await.status, 204);
    house.post("/v1/sessions", json!({"player": "dan"})).await.problem(503, "overloaded");
}

#[tokio::test]
async fn who_could_not_be_looked_at_follows_as_soon_as_she_can_be() {
    let house = House::new().await;
    let ann = house.log_in("ann", "pc").await;
    let mailbox = house.hub.mailbox(ann.session).unwrap();
    let link = house.hub.next_link();
    mailbox.attach(link);
    house.store.gives_records.store(false, Ordering::Relaxed);
    house.tasks.spawn("looks", Arc::clone(&house.service).keep_looking(house.tasks.clone()));
    let listed = house.call(Method::PUT, "/v1/players/ann/watches", json!({"set": ["bea"]})).await.ok();
    assert_eq!(listed["unknown"], json!(["bea"]));
    // One more try in vain, then one that is not.
    until("the next look", || house.store.unread.load(Ordering::Relaxed) > 1).await;
    house.store.gives_records.store(true, Ordering::Relaxed);
    let told = std::cell::Cell::new(0);
    until("she is told", || {
        mailbox.take(link, house.hub.settings(), true, |frame| {
            told.set(told.get() + frame.pushes.iter().filter(|push| is_presence(push)).count());
        });
        told.get() > 0
    })
    .await;
    assert_eq!(told.get(), 1);
}

fn is_presence(push: &crate::hub::Push) -> bool {
    matches!(push.kind(), PushKind::Presence { .. })
}
