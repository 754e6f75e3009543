//! What is promised about the Rust client of game services: a lock that it holds is held, and its holder hears when it is not.

use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::request::{Ack, StatePatch, Status};
use protocol::service::{
    After, AtErasure, Ban, Blob, Change, Close, Join, Kept, Kick, Loss, Open, Push, PushToMany, Query, Say,
    Service, ServiceError, Told, WatchList, When,
};
use protocol::{ErrorCode, Value};
use tokio::task::JoinSet;

use crate::harness::patience::PATIENCE;
use crate::harness::player::Player;
use crate::harness::server::Server;
use crate::harness::socket::Encoding;
use crate::harness::stages::{Stage, on_both_stores};

const KEY: &str = "s3cret-of-the-stories";
const LONG: Duration = Duration::from_secs(600);
const WAIT: Duration = Duration::from_secs(60);

fn served(stage: Stage) -> (Server, Service) {
    let server = Server::on(stage).with("service_key", KEY).start();
    let service = Service::at(server.service_url(), KEY).unwrap();
    (server, service)
}

fn is_held(answer: Result<protocol::service::Lock, ServiceError>) -> bool {
    answer.is_err_and(|error| error.is(ErrorCode::LockHeld))
}

on_both_stores! {
    async fn a_lock_that_is_held_is_renewed_and_given_back_when_it_is_dropped(stage) {
        let (_server, shop) = served(stage);
        let ttl = Duration::from_secs(3);
        let lock = shop.lock("shop", ttl, Duration::ZERO).await.unwrap();
        let began = Instant::now();
        while began.elapsed() < 2 * ttl {
            assert!(is_held(shop.lock("shop", LONG, Duration::ZERO).await));
            assert!(lock.is_held());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let token = lock.token();
        let mut waiting = JoinSet::new();
        let waiter = shop.clone();
        waiting.spawn(async move { waiter.lock("shop", LONG, WAIT).await });
        drop(lock);
        let next = waiting.join_next().await.unwrap().unwrap().unwrap();
        assert!(next.token() > token);
        next.release().await.unwrap();
        // Given back when this returns.
        shop.lock("shop", LONG, Duration::ZERO).await.unwrap().release().await.unwrap();
    }

    async fn who_cannot_renew_it_hears_so_no_later_than_it_ends(stage) {
        let (server, shop) = served(stage);
        let ttl = Duration::from_secs(4);
        let lock = shop.lock("shop", ttl, Duration::ZERO).await.unwrap();
        server.pause();
        let paused = Instant::now();
        let worked = lock.run(std::future::pending::<()>()).await;
        assert_eq!(worked, Err(Loss::NotRenewed));
        assert!(!lock.is_held());
        assert!(paused.elapsed() <= ttl + Duration::from_secs(2), "{:?}", paused.elapsed());
        server.go_on();
        assert!(lock.release().await.is_err());
        shop.lock("shop", LONG, WAIT).await.unwrap();
    }

    async fn counters_and_blobs_are_called_as_the_specification_says(stage) {
        let (_server, shop) = served(stage);
        assert_eq!(shop.count("swords {1}", Change::by(3)).await.unwrap().value, 3);
        let refused = shop.count("swords {1}", Change::by(-4).min(0).ttl(LONG)).await.unwrap_err();
        let ServiceError::Refused(problem) = refused else { panic!("{refused:?}") };
        assert!(problem.is(ErrorCode::OutOfBounds) && problem.value == Some(3), "{problem:?}");
        assert!(shop.count("hour", Change::by(1).max(1).ttl(LONG)).await.unwrap().expires_in_ms.is_some());

        let at = ("ann/é", "save");
        assert_eq!(shop.blob(at.0, at.1, None).await.unwrap(), Kept::None);
        let body = Bytes::from_static(b"1");
        let tag = shop.put_blob(at, "game/save", body.clone(), When::Missing).await.unwrap();
        let kept = Kept::Blob(Blob { tag: tag.clone(), content_type: "game/save".to_owned(), body: body.clone() });
        assert_eq!(shop.blob(at.0, at.1, None).await.unwrap(), kept);
        assert_eq!(shop.blob(at.0, at.1, Some(&tag)).await.unwrap(), Kept::Same);
        let again = shop.put_blob(at, "game/save", body, When::Missing).await.unwrap_err();
        assert!(again.is(ErrorCode::PreconditionFailed), "{again:?}");
        let two = shop.put_blob(at, "game/save", Bytes::from_static(b"2"), When::Is(&tag)).await.unwrap();
        let late = shop.delete_blob(at.0, at.1, When::Is(&tag)).await.unwrap_err();
        assert!(late.is(ErrorCode::PreconditionFailed), "{late:?}");
        shop.delete_blob(at.0, at.1, When::Is(&two)).await.unwrap();
        assert_eq!(shop.blob(at.0, at.1, None).await.unwrap(), Kept::None);
    }
}

/// A message with nothing but this in it.
fn word(text: &str) -> Value {
    Value::Str(text.to_owned())
}

on_both_stores! {
    async fn sessions_and_players_are_called_as_the_specification_says(stage) {
        let (_server, game) = served(stage);
        let state = [("gold".into(), Value::Int(5))].into();
        let open = Open { player: "ann".into(), device: Some("pc".into()), state: Some(state) };
        let made = game.open_session(&open).await.unwrap();
        assert!(!made.ticket.is_empty() && made.url.starts_with("ws://") && !made.prov);
        let seen = game.session(&made.session).await.unwrap();
        assert_eq!((seen.player.as_deref(), seen.device.as_str(), seen.pending), (Some("ann"), "pc", true));

        let incr = Some([("gold".into(), 2)].into());
        let patch = StatePatch { incr, ack: Some(Ack::Durable), ..StatePatch::default() };
        let changed = game.patch_state("ann", &patch).await.unwrap();
        assert_eq!(changed.state.unwrap()["gold"], Value::Int(7));
        let ann = game.player_at_least("ann", changed.stamp, WAIT / 10).await.unwrap();
        assert_eq!((ann.state["gold"].clone(), ann.sessions.len()), (Value::Int(7), 1));
        let (epoch, version) = changed.stamp;
        let ahead = game.player_at_least("ann", (epoch, version + 1_000), Duration::ZERO).await.unwrap_err();
        assert!(ahead.is(ErrorCode::Behind), "{ahead:?}");
        let stale = StatePatch { if_state: Some((epoch, 0)), unset: Some(vec!["gold".into()]), ..StatePatch::default() };
        let refused = game.patch_state("ann", &stale).await.unwrap_err();
        let ServiceError::Refused(problem) = refused else { panic!("{refused:?}") };
        assert!(problem.is(ErrorCode::StateConflict) && problem.state_stamp.is_some(), "{problem:?}");

        let list = WatchList { set: Some(vec!["bea".into()]), ..WatchList::default() };
        let listed = game.put_watches("ann", &list).await.unwrap();
        assert_eq!((listed.sessions, listed.unknown.is_empty()), (1, true));
        let query = Query { players: vec!["ann".into(), "bea".into()], ..Query::default() };
        let queried = game.query(&query).await.unwrap();
        let statuses: Vec<_> = queried.presences.iter().map(|seen| (&*seen.player, seen.status)).collect();
        assert_eq!(statuses, [("ann", Some(Status::Offline)), ("bea", Some(Status::Offline))]);

        game.log_out(&made.session).await.unwrap();
        assert!(game.session(&made.session).await.unwrap_err().is(ErrorCode::NotFound));
        let timeline = game.timeline("ann").await.unwrap();
        assert_eq!(timeline.entries.last().unwrap().why.as_deref(), Some("logout"));

        let kick = Kick { reason: "late".into(), code: Some(4_800), revoke_before: None };
        assert_eq!(game.kick("ann", &kick).await.unwrap().sessions, 0);
        let banned = game.ban("ann", &Ban { reason: "bot".into(), until: None }).await.unwrap();
        assert_eq!(banned.sessions, 0);
        assert_eq!(game.player("ann").await.unwrap().ban.unwrap().reason, "bot");
        assert!(game.erase("ann", AtErasure::Refuse).await.unwrap_err().is(ErrorCode::Banned));
        game.erase("ann", AtErasure::KeepBan).await.unwrap();
        game.lift_ban("ann").await.unwrap();
        assert!(game.lift_ban("ann").await.unwrap_err().is(ErrorCode::NotFound));
        game.erase("ann", AtErasure::LiftBan).await.unwrap();
    }

    async fn messages_rooms_and_events_are_called_as_the_specification_says(stage) {
        let (server, game) = served(stage);
        let mut events = game.events(After::Now).await.unwrap();
        let Some(Told::Checkpoint(begun)) = events.next().await.unwrap() else { panic!("no checkpoint") };
        let mut ann = Player::connect(server.url(), Encoding::MessagePack).await;
        ann.login("ann").await;

        let push = Push { data: word("one"), idempotency_key: Some("1".into()), ack: Some(Ack::Durable) };
        let pushed = game.push("ann", &push).await.unwrap();
        assert_eq!((pushed.delivered, pushed.kept), (1, true));
        assert_eq!(game.push("ann", &push).await.unwrap().id, pushed.id);
        let many = PushToMany { players: Some(vec!["ann".into(), "bea".into()]), data: word("many"), ..PushToMany::default() };
        assert_eq!(game.push_to_many(&many).await.unwrap().delivered, 1);
        let all = PushToMany { all: true, data: word("all"), ..PushToMany::default() };
        let given = game.push_to_many(&all).await.unwrap();
        assert_eq!((given.delivered, given.unknown_shards), (1, 0));

        let join = Join { meta: Some([("team".into(), word("red"))].into()) };
        assert_eq!(game.put_in("hall/1", "ann", &join).await.unwrap().sessions, 1);
        let room = game.room("hall/1", None, Some(10)).await.unwrap();
        assert_eq!((room.roster.count, room.roster.members[0].player.as_str()), (1, "ann"));
        assert_eq!(game.room_count("hall/1").await.unwrap(), 1);
        assert_eq!(game.say("hall/1", &Say { data: word("room"), idempotency_key: None }).await.unwrap().delivered, 1);
        game.take_out("hall/1", "ann").await.unwrap();
        assert!(game.take_out("hall/1", "ann").await.unwrap_err().is(ErrorCode::NotFound));

        // What happened is told, also to one who begins again where the first has begun.
        for after in [None, Some(After::Checkpoint(&begun.checkpoint)), Some(After::Oldest)] {
            if let Some(after) = after {
                events = game.events(after).await.unwrap();
            }
            let opened = async {
                loop {
                    if let Told::Session(event) = events.next().await.unwrap().expect("no end") {
                        return (event.player.unwrap(), event.happened.unwrap().kind);
                    }
                }
            };
            let opened = tokio::time::timeout(PATIENCE, opened).await.expect("the event");
            assert_eq!(opened, ("ann".to_owned(), "opened".to_owned()), "{after:?}");
        }
        let refused = game.events(After::Checkpoint("nonsense")).await.unwrap_err();
        assert!(refused.is(ErrorCode::BadRequest), "{refused:?}");
    }

    async fn operators_call_as_the_specification_says(stage) {
        let (_server, desk) = served(stage);
        assert!(!desk.maintenance().await.unwrap().closed);
        let closed = desk.begin_maintenance(&Close { reason: "new map".into(), until: None }).await.unwrap();
        assert_eq!((closed.closed, closed.reason.as_deref()), (true, Some("new map")));
        assert!(desk.stats().await.unwrap().maintenance.closed);
        desk.end_maintenance().await.unwrap();
        let cluster = desk.cluster().await.unwrap();
        assert_eq!(cluster.nodes.len(), 1);
        assert!(cluster.shards.iter().all(|shard| shard.home.as_ref() == Some(&cluster.node)));
        let overview = desk.overview().await.unwrap();
        assert_eq!((overview.nodes.len(), overview.unknown_nodes.len()), (1, 0), "{overview:?}");
        assert_eq!(desk.health().await.unwrap().status, "ok");
        let readiness = desk.readiness().await.unwrap();
        assert!(readiness.ready && !readiness.maintenance.closed, "{readiness:?}");
        assert!(desk.metrics().await.unwrap().contains("hearth_"));
        assert!(desk.openapi().await.unwrap().contains("beginMaintenance"));
    }
}

/// As if the store had lost its data: the lock is free, and whoever had it is told at the next renewal.
#[tokio::test]
async fn who_has_lost_it_to_the_store_hears_so_at_the_next_renewal() {
    let mut server = Server::on(Stage::Redis).with("service_key", KEY).start();
    let shop = Service::at(server.service_url(), KEY).unwrap();
    let lock = shop.lock("shop", Duration::from_secs(30), Duration::ZERO).await.unwrap();
    server.redis().query::<()>(&["DEL", "test:lock:{shop}"]);
    let next = shop.lock("shop", LONG, Duration::ZERO).await.unwrap();
    assert!(next.token() > lock.token());
    let lost = tokio::time::timeout(Duration::from_secs(25), lock.lost()).await;
    assert_eq!(lost.expect("a third of its time is over"), Loss::Taken);
}
