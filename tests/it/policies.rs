//! What is promised about several logins of one player: who stays beside whom, also when all come at the same moment.

use serde_json::{Value, json};

use crate::harness::player::{Player, Refused};
use crate::harness::server::Server;
use crate::harness::stages::on_every_stage;

async fn logs_in_on(server: &Server, device: &str) -> Player {
    let mut link = server.connect().await;
    link.login_with(json!({"token": "dev:ann", "device": device})).await;
    link
}

/// So many logins at the same moment; each with what became of it.
async fn all_at_once(server: &Server, devices: &[&str]) -> Vec<(Player, Result<Value, Refused>)> {
    let mut links = Vec::new();
    for _ in devices {
        links.push(server.connect().await);
    }
    let logins = links.into_iter().zip(devices).map(|(mut link, device)| async move {
        let came = link.ask("login", json!({"token": "dev:ann", "device": device})).await;
        (link, came)
    });
    futures_util::future::join_all(logins).await
}

/// Those whose link still answers; the others must have been closed with this code.
async fn still_here(logins: Vec<(Player, Result<Value, Refused>)>, else_closed: u16) -> Vec<Player> {
    let mut here = Vec::new();
    for (mut player, came) in logins {
        match came {
            Ok(_) if player.is_alive().await => here.push(player),
            Ok(_) => {}
            Err(refused) => {
                assert_eq!(refused["code"], "session_limit");
                player.expect_close(else_closed).await;
            }
        }
    }
    here
}

on_every_stage! {
    async fn per_device_a_newer_login_replaces_the_same_device_only(stage) {
        let server = Server::on(stage).with("session.login_policy", "per_device").start();
        let mut pc = logs_in_on(&server, "pc").await;
        let mut phone = logs_in_on(&server, "mobile").await;
        let mut newer = logs_in_on(&server, "pc").await;
        pc.expect_close(4504).await;
        phone.patch(json!({"set": {"zone": "harbour"}})).await;
        assert_eq!(newer.state().await, json!({"zone": "harbour"}), "the state is the player's");
        assert_eq!(newer.looks_at("ann").await["devices"], json!(["mobile", "pc"]));
    }

    async fn per_device_of_logins_at_the_same_moment_one_a_device_stays(stage) {
        let server = Server::on(stage).with("session.login_policy", "per_device").start();
        let devices = ["pc", "mobile", "pc", "web", "mobile", "pc", "web", "pc", "mobile"];
        let logins = all_at_once(&server, &devices).await;
        let mut here = still_here(logins, 4504).await;
        assert_eq!(here.len(), 3, "one a device");
        assert_eq!(here[0].looks_at("ann").await["devices"], json!(["mobile", "pc", "web"]));
    }

    async fn of_many_so_many_stand_beside_one_another(stage) {
        let server = Server::on(stage)
            .with("session.login_policy", "many(2)")
            .with("presence.grace_ms", 300)
            .start();
        let mut watcher = server.login("bea").await;
        watcher.watches(&["ann"]).await;
        let first = logs_in_on(&server, "pc").await;
        assert_eq!(watcher.expect_presence("ann").await["devices"], json!(["pc"]));
        let mut second = logs_in_on(&server, "mobile").await;
        assert_eq!(watcher.expect_presence("ann").await["devices"], json!(["mobile", "pc"]));
        let mut third = server.connect().await;
        let refused = third.is_refused("login", json!({"token": "dev:ann"}), "session_limit").await;
        assert_eq!(refused["temporary"], true);
        third.expect_close(4505).await;
        // Dropped for longer than the grace, the first makes room.
        let away = first.drops();
        assert_eq!(watcher.expect_presence("ann").await["devices"], json!(["mobile"]));
        let mut third = logs_in_on(&server, "web").await;
        assert_eq!(server.resume_refused(&away).await["code"], "not_resumable");
        second.pings().await;
        third.pings().await;
    }

    async fn of_many_logins_at_the_same_moment_no_more_than_so_many_get_in(stage) {
        let server = Server::on(stage).with("session.login_policy", "many(3)").start();
        for _ in 0..3 {
            let logins = all_at_once(&server, &["pc"; 8]).await;
            let mut here = still_here(logins, 4505).await;
            assert_eq!(here.len(), 3);
            for player in &mut here {
                player.does("logout", json!({})).await;
            }
        }
    }

    /// Who stood beside whom before a crash stands there after it, and counts.
    async fn a_policy_holds_over_a_crash(stage) {
        let starting = Server::on(stage).with_lease(2_000).with("session.login_policy", "many(2)");
        let mut server = starting.start();
        let first = logs_in_on(&server, "pc").await.drops();
        let second = logs_in_on(&server, "mobile").await.drops();
        server.kill9();
        server.restart();
        let mut third = server.connect().await;
        third.is_refused("login", json!({"token": "dev:ann"}), "session_limit").await;
        server.resume(&first).await;
        server.resume(&second).await;
    }
}
