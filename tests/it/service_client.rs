//! What is promised about the Rust client of game services: a lock that it holds is held, and its holder hears when it is not.

use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::ErrorCode;
use protocol::service::{Blob, Change, Kept, Loss, Service, ServiceError, When};
use tokio::task::JoinSet;

use crate::harness::server::Server;
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
