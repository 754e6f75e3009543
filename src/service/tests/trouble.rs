//! The service API when something is short: a store that has lost writes or does not answer, and places that are taken.

use super::*;

async fn stored(house: &House, player: &str) -> StoredRecord {
    let player = PlayerId::parse(player).unwrap();
    let shard = house.home.placement().shard_of(&player);
    let mut loaded = house.store.store.load_players(shard, vec![player]).await.unwrap();
    loaded.pop().flatten().expect("a stored record")
}

/// Somebody was here and has left: who was never here is told without the store.
async fn has_left(house: &House, player: &str) {
    let session = house.log_in(player, "pc").await.session;
    let left = house.call(Method::DELETE, &format!("/v1/sessions/{session}"), Value::Null).await;
    assert_eq!(left.status, 204);
    let player = PlayerId::parse(player).unwrap();
    until("she has left memory", || house.home.find(&player).is_none()).await;
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
    let (store, dir) = houses::folder().await;
    let store = Arc::new(Sick::of(store));
    let settings = HomeSettings { hot_records_max: 1, ..houses::settings() };
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
    has_left(&house, "bea").await;
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

/// The player's shard knows how its store answers.
async fn reached(house: &House, reach: Reach) {
    *house.store.reach.lock() = reach;
    house.store.takes_writes.store(reach == Reach::Well, Ordering::Relaxed);
    let is_known = || {
        house.home.shards().iter().all(|shard| match reach {
            Reach::Well => !shard.is_provisional(),
            Reach::Away => shard.is_cut_off(),
            Reach::Full => shard.is_held_back() && !shard.is_cut_off(),
        })
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !is_known() {
        assert!(std::time::Instant::now() < deadline, "{reach:?} is not known to every shard");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_acked_from_memory_says_so_to_services_as_to_players() {
    let house = House::new().await;
    house.log_in("ann", "pc").await;
    assert!(house.patch("ann", json!({"incr": {"n": 1}})).await.ok().get("prov").is_none());
    reached(&house, Reach::Away).await;
    let told = house.patch("ann", json!({"incr": {"n": 1}})).await.ok();
    assert_eq!((&told["prov"], &told["ack"]), (&json!(true), &json!("applied")), "{told}");
    let made = house.post("/v1/sessions", json!({"player": "bea"})).await;
    assert_eq!((made.status, &made.json()["prov"]), (201, &json!(true)));
    let with_state = house.post("/v1/sessions", json!({"player": "dan", "state": {"k": 1}})).await;
    let problem = with_state.problem(503, "store_unavailable");
    assert!(problem.get("applied").is_none() && problem["retry_after_ms"].is_u64(), "{problem}");
    let dan = house.home.find(&PlayerId::parse("dan").unwrap()).unwrap();
    assert_eq!(dan.read(|record| record.sessions.len()), Some(0), "no session is left");
    reached(&house, Reach::Well).await;
    for ack in ["applied", "durable"] {
        let told = house.patch("ann", json!({"incr": {"n": 1}, "ack": ack})).await.ok();
        assert!(told.get("prov").is_none(), "{told}");
    }
    let made = house.post("/v1/sessions", json!({"player": "cem"})).await;
    assert_eq!((made.status, made.json().get("prov")), (201, None));
}

#[tokio::test]
async fn a_refusal_says_what_is_the_matter_with_the_store() {
    let house = House::new().await;
    has_left(&house, "cold").await;
    house.log_in("ann", "pc").await;
    let durable = json!({"incr": {"n": 1}, "ack": "durable"});
    for (reach, words) in [(Reach::Full, "the store is full"), (Reach::Away, "the store is away")] {
        reached(&house, reach).await;
        let problem = house.patch("ann", durable.clone()).await.problem(503, "store_unavailable");
        assert!(problem["detail"].as_str().unwrap().starts_with(words), "{problem}");
        assert_eq!(problem["applied"], true, "{problem}");
    }
    reached(&house, Reach::Full).await;
    let problem =
        house.post("/v1/sessions", json!({"player": "bea"})).await.problem(503, "store_unavailable");
    assert!(problem["detail"].as_str().unwrap().starts_with("the store is full"), "{problem}");
    reached(&house, Reach::Well).await;
    house.store.gives_records.store(false, Ordering::Relaxed);
    let problem = house.get("/v1/players/cold").await.problem(503, "store_unavailable");
    assert_eq!(problem["detail"], "the store did not answer in time", "{problem}");
}

#[tokio::test]
async fn what_is_in_force_and_not_stored_is_not_written_down_as_failed() {
    let (lines, _here) = Lines::listen();
    let house = House::new().await;
    house.log_in("ann", "pc").await;
    house.store.takes_writes.store(false, Ordering::Relaxed);
    let kicked = house.post("/v1/players/ann/kick", json!({"reason": "r"})).await;
    assert_eq!(kicked.problem(503, "store_unavailable")["applied"], true);
    let audit = lines.audit().pop().expect("an audit line");
    for told in ["operation=\"kick\"", "status=\"applied\"", "code=503", "applied=true"] {
        assert!(audit.contains(told), "{told} is not in {audit}");
    }
    // Nothing was done, and it says so.
    house.store.gives_records.store(false, Ordering::Relaxed);
    let banned = house.call(Method::PUT, "/v1/players/cold/ban", json!({"reason": "r"})).await;
    assert!(banned.problem(503, "store_unavailable").get("applied").is_none());
    let audit = lines.audit().pop().expect("an audit line");
    assert!(audit.contains("status=\"failed\"") && !audit.contains("applied="), "{audit}");
}

#[tokio::test]
async fn a_message_to_many_names_how_many_and_the_first() {
    let (lines, _here) = Lines::listen();
    let house = House::new().await;
    let players: Vec<_> = (0..40).map(|number| format!("player-{number:02}")).collect();
    house.post("/v1/messages", json!({"players": players, "data": 1})).await.ok();
    let audit = lines.audit().pop().expect("an audit line");
    assert!(audit.contains("operation=\"message.many\"") && audit.contains(" players=40 "), "{audit}");
    assert!(
        audit.contains("players_first=\"player-00,player-01,") && audit.contains(",player-07\" "),
        "{audit}"
    );
    assert!(!audit.contains("player-08"), "{audit}");
    house.post("/v1/messages", json!({"all": true, "data": 1})).await.ok();
    let audit = lines.audit().pop().expect("an audit line");
    assert!(audit.contains("operation=\"message.all\"") && !audit.contains("players"), "{audit}");
}

#[tokio::test]
async fn readiness_waits_for_no_store_that_stands_still() {
    let house = House::new().await;
    let told = async || {
        let began = std::time::Instant::now();
        let told = serde_json::to_value(house.service.judge().await).unwrap();
        assert!(began.elapsed() < Duration::from_millis(500), "a prober may wait no longer");
        told
    };
    let well = told().await;
    assert_eq!((&well["ready"], well["store"]["probe_ms"].is_u64()), (&json!(true), true), "{well}");
    house.store.stands_still.store(true, Ordering::Relaxed);
    // What was found before is told, with its age, and that there is nothing newer.
    let before = told().await;
    assert_eq!(before["ready"], true, "{before}");
    assert!(before["store"]["probe_age_ms"].as_u64().unwrap() >= 300, "{before}");
    let is_told = |told: &Value| told["shortfalls"].to_string().contains("has not answered a probe");
    assert!(is_told(&before) && !is_told(&well), "{before}");
    // The probe goes on behind, and what it came to is told next.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let after = told().await;
        if after["ready"] == false {
            assert_eq!(after["reasons"], json!(["the store did not answer in time"]));
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{after}");
    }
}

#[tokio::test]
async fn the_timeline_of_a_stranger_is_told_without_the_store() {
    let house = House::new().await;
    has_left(&house, "ann").await;
    house.store.gives_records.store(false, Ordering::Relaxed);
    let timeline = async |player: &str| {
        house.call(Method::GET, &format!("/v1/players/{player}/timeline"), Value::Null).await
    };
    timeline("nobody").await.problem(404, "not_found");
    timeline("ann").await.problem(503, "store_unavailable");
    house.store.gives_records.store(true, Ordering::Relaxed);
    assert_eq!(timeline("ann").await.ok()["entries"].as_array().unwrap().len(), 2);
}
