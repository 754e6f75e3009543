//! This node's side of presence between nodes: hears what others tell, answers what they ask, and tells what it serves
//! itself. Nobody is guessed: who cannot be asked is not in the answer. What is lost with a link is told anew with the
//! next one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use super::homes::{Homes, ServedBy};
use super::words::{self, Letter};
use crate::cluster::{Correspondent, Links, Topic};
use crate::ids::{Epoch, Owner, ShardId};
use crate::tasks::Tasks;

/// How often this node looks which shards it serves: how long at most until the others know.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// The other nodes.
pub(super) struct Peers {
    pub(super) links: Arc<Links>,
    pub(super) homes: Arc<dyn Homes>,
    pub(super) served_by: Mutex<ServedBy>,
    /// The shards that this node serves, as the others were told. Its lock keeps letters about it in order.
    serving: Mutex<Vec<Option<Epoch>>>,
}

impl Peers {
    pub(super) fn new(links: Arc<Links>, homes: Arc<dyn Homes>) -> Arc<Self> {
        let shards = homes.shards();
        Arc::new(Self {
            links,
            served_by: Mutex::new(ServedBy::nobody(shards)),
            serving: Mutex::new(vec![None; usize::from(shards)]),
            homes,
        })
    }

    /// Keeps the others told until the tasks stop.
    pub(super) async fn run(self: Arc<Self>, tasks: Tasks) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                _ = looks.tick() => self.tell_serving(),
            }
        }
    }

    /// Tells the others what has changed of what this node serves.
    fn tell_serving(&self) {
        let (mut serves, mut lost) = (Vec::new(), Vec::new());
        let mut serving = self.serving.lock();
        for (shard, told) in (0..).zip(serving.iter_mut()) {
            let now = ShardId::numbered(shard).and_then(|shard| self.homes.epoch_served(shard));
            if now != *told {
                match now {
                    Some(epoch) => serves.push((shard, epoch.number())),
                    None => lost.push(shard),
                }
                *told = now;
            }
        }
        if serves.is_empty() && lost.is_empty() {
            return;
        }
        let letter = words::write(&Letter::Serves { anew: false, serves, lost });
        for peer in self.links.peers() {
            self.links.post(&peer, Topic::Presence, letter.clone());
        }
    }

    /// The node that serves a shard, other than this one.
    pub(super) fn home_of(&self, shard: ShardId) -> Option<Owner> {
        self.served_by.lock().of(shard).cloned()
    }

    fn hear_serving(&self, from: &Owner, anew: bool, serves: Vec<(u16, u64)>, lost: Vec<u16>) {
        let mut served_by = self.served_by.lock();
        if anew {
            served_by.forget(from);
        }
        lost.into_iter().for_each(|shard| served_by.ends(from, shard));
        for (shard, epoch) in serves {
            served_by.begins(from, shard, Epoch::of(epoch));
        }
    }
}

/// `Peers` as the links know it.
pub(super) struct Ear(pub(super) Arc<Peers>);

impl Correspondent for Ear {
    fn letter(&self, from: &Owner, body: Bytes) {
        match words::read(&body) {
            Some(Letter::Serves { anew, serves, lost }) => self.0.hear_serving(from, anew, serves, lost),
            None => tracing::warn!(operation = "presence_letter", %from, "what it says is not understood"),
        }
    }

    fn call(&self, _: Owner, body: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        Box::pin(Arc::clone(&self.0).answer(body))
    }

    fn up(&self, peer: &Owner) {
        let serving = self.0.serving.lock();
        let serves = (0..).zip(serving.iter()).filter_map(|(shard, epoch)| Some((shard, epoch.as_ref()?.number())));
        let letter = Letter::Serves { anew: true, serves: serves.collect(), lost: Vec::new() };
        self.0.links.post(peer, Topic::Presence, words::write(&letter));
    }

    fn down(&self, peer: &Owner) {
        self.0.served_by.lock().forget(peer);
    }
}
