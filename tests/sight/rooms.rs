//! Faults of who is pushed to: a room that makes nearly all pushes, and links that do not read theirs.

use serde_json::json;

use crate::harness::player::Player;
use crate::harness::server::Server;
use crate::harness::socket::{Encoding, Line};
use crate::harness::stages::Stage;
use crate::stage::{ends, is_calm, rings, watched};

#[tokio::test]
async fn a_room_that_is_hot() {
    let server = watched(Server::on(Stage::Embedded)).start();
    let mut members = Vec::new();
    for number in 0..20 {
        let mut player = server.login(&format!("member-{number}")).await;
        player.does("room.join", json!({"room": "guild"})).await;
        members.push(player);
    }
    let mut speaker = members.pop().unwrap();
    is_calm(&server, "hot_room").await;
    let said = async |speaker: &mut Player| {
        // Those who come are told of, too, one by one: this is more than that.
        for _ in 0..10 {
            let _ = speaker.ask("room.send", json!({"room": "guild", "data": "hail"})).await;
        }
    };
    let alarm = rings(&server, "hot_room", async || said(&mut speaker).await).await;
    assert!(alarm["text"].as_str().unwrap().contains("guild"), "{alarm}");
    ends(&server, "hot_room").await;
}

#[tokio::test]
async fn readers_that_are_slow() {
    let server = watched(Server::on(Stage::Embedded))
        .with("session.player_messages", true)
        .with("link.slow_close_after_ms", 500)
        .with("limits.send_per_s", 100_000)
        .with("limits.send_burst", 100_000)
        .with("limits.link_frames_per_s", 100_000)
        .with("limits.link_frames_burst", 100_000)
        .start();
    let mut ann = server.login("ann").await;
    let mut slow = Vec::new();
    for number in 0..4 {
        let mut player = server.connect_over(Line::Narrow, Encoding::MessagePack).await;
        player.login(&format!("slow-{number}")).await;
        slow.push(player);
    }
    is_calm(&server, "slow_readers").await;
    let data = json!("x".repeat(12_000));
    rings(&server, "slow_readers", async || {
        for number in 0..4 {
            for _ in 0..50 {
                ann.tells(&format!("slow-{number}"), data.clone()).await;
            }
        }
    })
    .await;
    ends(&server, "slow_readers").await;
    drop(slow);
}
