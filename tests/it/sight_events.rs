//! What rings is told to whoever follows the events, at whichever node: also while the store does not answer, to those who
//! come late, and when it is over.

use std::cell::Cell;
use std::convert::Infallible;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::follower::{Follower, Told};
use crate::harness::nodes::{KEY, nodes};
use crate::harness::patience::trying_until;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::{Server, Starting};
use crate::harness::stages::Stage;

/// What rings is believed soon, and so is its end.
fn soon(starting: Starting) -> Starting {
    starting.with("alarm.begins_after_s", 1).with("alarm.ends_after_s", 2)
}

/// Waits for this of an alarm, hurting all the while.
async fn hears(follower: &mut Follower, [kind, name, node]: [&str; 3], mut hurt: impl AsyncFnMut()) -> Value {
    let what = format!("{kind} {name} to be told");
    let hurts = trying_until(&what, async || {
        hurt().await;
        None::<Infallible>
    });
    tokio::select! {
        told = follower.until_alarm(kind, name, node) => told,
        never = hurts => match never {},
    }
}

fn is_of_ann(word: &str) -> impl Fn(&Told) -> bool {
    move |told| told.data["player"] == "ann" && told.word() == word
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_gone_is_told_to_those_who_follow_while_it_is_gone() {
    let starting = Server::on_durable_redis(Stage::Redis).with("service_key", KEY).with("node_id", "a");
    let mut server = soon(starting).with_lease(3_000).start();
    let url = server.service_url().to_owned();
    let mut follower = Follower::at(&url, KEY, None).await;
    let mut ann = server.login("ann").await;
    follower.until(is_of_ann("online")).await;
    follower.until_checkpoint().await;
    let checkpoint = follower.checkpoint.clone();
    server.redis().kill();
    let store_down = |kind| [kind, "store_down", "a"];
    let began = hears(&mut follower, store_down("alarm_began"), async || {
        let _ = ann.ask("state.patch", json!({"incr": {"steps": 1}})).await;
    })
    .await;
    assert_eq!((&began["severity"], &began["at"]), (&json!("critical"), &began["since"]), "{began}");
    for field in ["text", "do", "unit"] {
        assert!(began[field].as_str().is_some_and(|text| !text.is_empty()), "{began}");
    }
    assert!(began["value"].as_f64() > began["limit"].as_f64(), "{began}");
    // Whoever comes with a checkpoint is let in, and told what rings; where a new stream would begin is not known.
    let mut late = Follower::at(&url, KEY, Some(&checkpoint)).await;
    let told = late.until_alarm("alarm_began", "store_down", "a").await;
    assert_eq!(told["since"], began["since"], "{told}");
    let (status, problem) = Follower::try_at(&url, KEY, None).await.err().expect("refused");
    assert_eq!((status, &problem["code"]), (503, &json!("store_unavailable")), "{problem}");

    server.redis().start_again();
    for follower in [&mut follower, &mut late] {
        let ended = follower.until_alarm("alarm_ended", "store_down", "a").await;
        assert_eq!((&ended["since"], &ended["why"]), (&began["since"], &Value::Null), "{ended}");
        assert!(ended["at"].as_u64() > began["at"].as_u64(), "{ended}");
    }
    // Alarms have no place in the store: events go on where they were.
    ann.until_mode("normal").await;
    ann.shows("busy").await;
    let mut again = Follower::at(&url, KEY, Some(&checkpoint)).await;
    for follower in [&mut follower, &mut late, &mut again] {
        let told = follower.until(is_of_ann("busy")).await;
        assert!(told.iter().all(|told| matches!(told.event.as_str(), "session" | "presence")), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rings_at_one_node_is_told_at_every_other_until_it_is_over_or_the_node_is_gone() {
    let redis = RedisServer::start();
    let number = Cell::new(1);
    let [here, mut there] = nodes(&redis, |node| {
        let node = soon(node).with("node_id", format!("node-{}", number.replace(number.get() + 1)));
        // One that is gone stays a member for some looks.
        node.with("alarm.bad_clients_per_s", 1).with_lease(5_000).with("cluster.member_ttl_ms", 5_000)
    })
    .await;
    let mut follower = Follower::at(here.service_url(), KEY, None).await;
    let host = there.host().to_owned();
    let hurt = async || {
        let mut stream = TcpStream::connect(&host).await.unwrap();
        stream.write_all(b"HELO there\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let bad_client = |kind| [kind, "bad_client", "node-2"];
    let began = hears(&mut follower, bad_client("alarm_began"), hurt).await;
    // Whoever comes is told at once, by any of them.
    for node in [&here, &there] {
        let mut late = Follower::at(node.service_url(), KEY, None).await;
        let told = late.until_alarm("alarm_began", "bad_client", "node-2").await;
        assert_eq!(told["since"], began["since"], "{told}");
    }
    let ended = follower.until_alarm("alarm_ended", "bad_client", "node-2").await;
    assert_eq!((&ended["since"], &ended["why"]), (&began["since"], &Value::Null), "{ended}");

    // One that does not answer may still ring. One that is gone does not, and nobody can say how it would have ended.
    let again = hears(&mut follower, bad_client("alarm_began"), hurt).await;
    assert!(again["since"].as_u64() > ended["since"].as_u64(), "{again}");
    there.kill9();
    let ended = follower.until_alarm("alarm_ended", "bad_client", "node-2").await;
    assert_eq!((&ended["since"], &ended["why"]), (&again["since"], &json!("node_gone")), "{ended}");
    follower.until_alarm("alarm_began", "node_lost", "node-1").await;
}
