//! What is promised of calls that concern everybody, whichever node of several is asked: a message to many or to all
//! reaches each once, statistics count all, and who could not be told or counted is named.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::nodes::{KEY, nodes, players_of};
use crate::harness::patience::until;
use crate::harness::player::Player;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::Server;
use crate::harness::service::Service;

/// Three nodes, and a player of each. Nobody takes a shard over before it is asked who is missing.
async fn three(redis: &RedisServer) -> ([Server; 3], Vec<String>, Vec<Player>) {
    three_with_lease(redis, 5_000).await
}

async fn three_with_lease(redis: &RedisServer, lease_ms: u64) -> ([Server; 3], Vec<String>, Vec<Player>) {
    let nodes: [Server; 3] = nodes(redis, |node| node.with_lease(lease_ms)).await;
    let (mut names, mut players) = (Vec::new(), Vec::new());
    for node in &nodes {
        let name = players_of(node).await.next().unwrap();
        players.push(node.login(&name).await);
        names.push(name);
    }
    for node in &nodes {
        all_can_be_asked(node, &names).await;
    }
    (nodes, names, players)
}

/// Waits until a node knows who is at home where, and has a link to each.
async fn all_can_be_asked(node: &Server, players: &[String]) {
    until("all can be asked", async || {
        let (_, told) = Service::of(node, KEY).post("/v1/presence/query", json!({"players": players})).await;
        (told["unknown"] == json!([])).then_some(())
    })
    .await;
}

async fn name_of(node: &Server) -> Value {
    Service::of(node, KEY).get("/v1/cluster").await.1["node"].clone()
}

async fn push(node: &Server, body: &Value) -> Value {
    let (status, pushed) = Service::of(node, KEY).post("/v1/messages", body.clone()).await;
    assert_eq!(status, 200, "{pushed}");
    pushed
}

/// The message comes to this player, and comes once.
async fn is_told_once(player: &mut Player, pushed: &Value, data: &Value) {
    let message = player.wait_for_push("message").await;
    assert_eq!((&message["id"], &message["data"]), (&pushed["id"], data));
    player.pings().await;
    assert!(!player.was_told("message"), "told twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_to_many_finds_each_wherever_she_is_at_home() {
    let redis = RedisServer::start();
    let (nodes, mut names, mut players) = three(&redis).await;
    let mut other = nodes[1].login(&players_of(&nodes[1]).await.nth(1).unwrap()).await;
    names.push("nobody".to_owned());
    let body = json!({"players": names, "data": "dragons", "idempotency_key": "tonight"});
    let pushed = push(&nodes[0], &body).await;
    assert_eq!((&pushed["delivered"], pushed.get("unknown")), (&json!(3), None), "{pushed}");
    // The same key sends once, whichever node is asked.
    for node in &nodes {
        assert_eq!(push(node, &body).await, pushed);
    }
    for player in &mut players {
        is_told_once(player, &pushed, &json!("dragons")).await;
    }
    other.pings().await;
    assert!(!other.was_told("message"), "she was not named");
    // Without a key each call is a message of its own.
    let body = json!({"players": names, "data": "more dragons"});
    let (first, second) = (push(&nodes[1], &body).await, push(&nodes[2], &body).await);
    for player in &mut players {
        for pushed in [&first, &second] {
            assert_eq!(player.wait_for_push("message").await["id"], pushed["id"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_to_all_reaches_everybody_on_every_node() {
    let redis = RedisServer::start();
    let (nodes, _, mut players) = three(&redis).await;
    let body = json!({"all": true, "data": "the end is near", "idempotency_key": "tonight"});
    let pushed = push(&nodes[2], &body).await;
    assert_eq!(pushed, json!({"id": pushed["id"], "delivered": 3}), "nobody is missing");
    for node in &nodes {
        assert_eq!(push(node, &body).await, pushed, "the same key");
    }
    for player in &mut players {
        is_told_once(player, &pushed, &json!("the end is near")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_could_not_be_told_of_a_message_is_named_and_told_by_its_repeat() {
    let redis = RedisServer::start();
    let ([asked, other, mut dead], names, players) = three(&redis).await;
    let mut players = players.into_iter();
    let (mut ann, mut bea, cem) = (players.next().unwrap(), players.next().unwrap(), players.next().unwrap());
    let (credentials, name) = (cem.drops(), name_of(&dead).await);
    dead.kill9();
    let to_many = json!({"players": names, "data": "many", "idempotency_key": "one"});
    let to_all = json!({"all": true, "data": "all", "idempotency_key": "two"});
    let many = push(&asked, &to_many).await;
    assert_eq!((&many["delivered"], &many["unknown"]), (&json!(2), &json!([names[2]])), "{many}");
    let all = push(&asked, &to_all).await;
    assert_eq!((&all["delivered"], &all["unknown_nodes"]), (&json!(2), &json!([name])), "{all}");
    assert!(all["unknown_shards"].as_u64().unwrap() > 0, "{all}");
    let (status, counted) = Service::of(&asked, KEY).get("/v1/stats").await;
    assert_eq!((status, &counted["sessions"]), (200, &json!(2)), "{counted}");
    assert!(counted["unknown_shards"].as_u64().unwrap() > 0, "{counted}");

    // Her home is another node when the dead one's lease is over: the repeat reaches her, and nobody else once more.
    let mut cem = until("she is at home elsewhere", async || {
        let mut cem = asked.connect().await;
        cem.try_resume_carried(&credentials).await.ok().map(|()| cem)
    })
    .await;
    for (body, first) in [(&to_many, &many), (&to_all, &all)] {
        let again = until("all shards have a home", async || {
            let again = push(&other, body).await;
            (again.get("unknown").is_none() && again.get("unknown_shards").is_none()).then_some(again)
        })
        .await;
        assert_eq!(again, json!({"id": first["id"], "delivered": 3}));
    }
    for player in [&mut ann, &mut bea, &mut cem] {
        assert_eq!(player.wait_for_push("message").await["data"], "many");
        is_told_once(player, &all, &json!("all")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_answer_holds_up_no_message() {
    let redis = RedisServer::start();
    let ([asked, stopped, _other], names, _players) = three(&redis).await;
    stopped.pause();
    let began = Instant::now();
    let pushed = push(&asked, &json!({"players": names, "data": 1})).await;
    assert_eq!((&pushed["delivered"], &pushed["unknown"]), (&json!(2), &json!([names[1]])), "{pushed}");
    let pushed = push(&asked, &json!({"all": true, "data": 2})).await;
    assert_eq!(pushed["delivered"], 2, "{pushed}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    stopped.go_on();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_while_a_node_dies_come_once_and_name_whom_they_may_have_missed() {
    const MESSAGES: u64 = 60;
    let redis = RedisServer::start();
    let ([asked, other, mut dead], names, players) = three_with_lease(&redis, 2_000).await;
    let mut players = players.into_iter();
    let (mut ann, mut bea) = (players.next().unwrap(), players.next().unwrap());
    let is_whole = |pushed: &Value| pushed.get("unknown").is_none() && pushed.get("unknown_shards").is_none();
    let mut incomplete = Vec::new();
    for number in 0..MESSAGES {
        let mut body = json!({"data": number, "idempotency_key": format!("message {number}")});
        match number % 2 {
            0 => body["players"] = json!(names),
            _ => body["all"] = json!(true),
        }
        if number == MESSAGES / 3 {
            dead.kill9();
        }
        let began = Instant::now();
        let pushed = push(&asked, &body).await;
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        assert!(pushed["delivered"].as_u64().unwrap() >= 2, "{pushed}");
        if !is_whole(&pushed) {
            incomplete.push(body);
        }
    }
    assert!(!incomplete.is_empty(), "nobody was missed");
    for body in incomplete {
        until("all shards have a home", async || is_whole(&push(&other, &body).await).then_some(())).await;
    }
    for player in [&mut ann, &mut bea] {
        let mut told = Vec::new();
        for _ in 0..MESSAGES {
            told.push(player.wait_for_push("message").await["data"].as_u64().unwrap());
        }
        told.sort_unstable();
        assert_eq!(told, (0..MESSAGES).collect::<Vec<_>>());
        player.pings().await;
        assert!(!player.was_told("message"), "told twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_are_of_all_nodes_whichever_is_asked() {
    let redis = RedisServer::start();
    let (nodes, names, mut players) = three(&redis).await;
    players[1].shows("busy").await;
    let away = players.pop().unwrap().drops();
    for node in &nodes {
        let told = until("all are counted", async || {
            let told = Service::of(node, KEY).get("/v1/stats").await.1;
            (told["links"] == 2 && told["players"]["by_status"]["busy"] == 1).then_some(told)
        })
        .await;
        // Who has dropped is seen as here for a while.
        assert_eq!((&told["sessions"], &told["players"]["online"]), (&json!(3), &json!(3)), "{told}");
        assert_eq!(told["players"]["by_status"], json!({"online": 2, "away": 0, "busy": 1, "playing": 0}));
        assert_eq!((told.get("unknown_nodes"), told.get("unknown_shards")), (None, None), "{told}");
    }
    drop((away, names));
    // Links of all nodes are closed together, and come back together.
    let operator = Service::of(&nodes[0], KEY);
    let (status, closed) = operator.post("/v1/maintenance", json!({"reason": "a new season"})).await;
    assert_eq!((status, &closed["links"]), (200, &json!(2)), "{closed}");
    for player in &mut players {
        player.expect_close(4507).await;
    }
}
