//! A message to many on one node: what of it counts as given, and that it is given once.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{House, until};
use crate::hub::Push;
use crate::ids::PlayerId;
use crate::service::messages;
use crate::service::shares::Message;

fn push(id: u128) -> Arc<Push> {
    messages::message(id, rmp_serde::from_slice(&[1]).unwrap(), "shop").ok().unwrap()
}

#[tokio::test]
async fn what_was_given_is_not_given_again_with_or_without_a_key() {
    let house = House::new().await;
    let ann = house.log_in("ann", "pc").await;
    let push = push(7);
    let message = Message { id: 7, push: &push };
    let players: BTreeSet<_> = [PlayerId::parse("ann").unwrap()].into();
    for _ in 0..2 {
        // As the second round of one call would ask, after a pause.
        assert_eq!(house.service.give_to_all(message).await.delivered, 1);
        assert_eq!(house.service.give_to_many(&players, message).await.delivered, 1);
    }
    assert_eq!(house.messages(ann.session).len(), 1);
}

#[tokio::test]
async fn a_mailbox_that_takes_nothing_more_was_given_nothing() {
    let house = House::new().await;
    let ann = house.log_in("ann", "pc").await;
    house.hub.seal(ann.session).unwrap();
    let push = push(7);
    let message = Message { id: 7, push: &push };
    let players: BTreeSet<_> = [PlayerId::parse("ann").unwrap()].into();
    let reach = house.service.give_to_many(&players, message).await;
    assert_eq!((reach.delivered, reach.unknown), (0, vec!["ann".to_owned()]));
    let reach = house.service.give_to_all(message).await;
    assert_eq!((reach.delivered, reach.unknown_shards), (0, 1));
}

#[tokio::test]
async fn a_share_is_given_to_the_end_though_nobody_waits_for_it() {
    let house = House::new().await;
    let ann = house.log_in("ann", "pc").await;
    let (push, held) = (push(7), house.service.shelved.lock().await);
    {
        let giving = house.service.give_to_all(Message { id: 7, push: &push });
        tokio::pin!(giving);
        assert!(futures_util::poll!(giving).is_pending());
    }
    drop(held);
    until("the message", || {
        house.service.shelved.try_lock().is_ok_and(|mut shelved| !shelved.given(7, 0).is_empty())
    })
    .await;
    assert_eq!(house.messages(ann.session).len(), 1);
    assert_eq!(house.service.give_to_all(Message { id: 7, push: &push }).await.delivered, 1);
}
