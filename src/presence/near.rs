//! How players look whose home is another node, kept near for a while: for those who say how old an answer may be. The home
//! knows who keeps it, and tells every change by mail; whoever loses the link to a home, or hears that a shard has
//! moved, drops what came from there. So what is answered is older than the truth by a letter's way at most.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::peers::Peers;
use super::readers::News;
use super::words::{self, Letter, Looks, Name, PLAYERS_ASKED_MAX, Question};
use crate::clock;
use crate::cluster::Topic;
use crate::events::{Events, PresenceView};
use crate::ids::{Epoch, Owner, PlayerId, ShardId, Version};
use crate::near_cache::{Cached, Fill, Flight, Terms};
use crate::tasks::{self, Tasks};

/// Players in one letter.
pub(super) const LETTER_PLAYERS: usize = 512;
/// How long a look waits in all: one question to a home, and another if the first was overtaken by a change.
const WITHIN: Duration = Duration::from_millis(800);

/// What is kept near of players at home elsewhere, and for whom else this node is the home.
#[derive(Debug, Clone, Copy)]
pub struct NearSettings {
    /// How views are kept.
    pub views: Terms,
    /// After what time a change is told once more.
    pub invalidate_again: Duration,
    /// Players of this node whom others may keep near.
    pub readers_max: usize,
}

/// What is kept near of one player.
pub type NearView = Cached<Arc<PresenceView>>;

impl Peers {
    /// How players look whose homes are other nodes, as it was at most `max_age_ms` ago; whoever is not in the answer
    /// cannot be told now.
    pub(super) async fn look_near(
        self: &Arc<Self>,
        players: &[PlayerId],
        max_age_ms: u64,
    ) -> HashMap<PlayerId, NearView> {
        let not_before_ms = clock::now().mono_ms.saturating_sub(max_age_ms);
        let mut by_home: HashMap<Owner, Vec<PlayerId>, ahash::RandomState> = HashMap::default();
        for player in players {
            if let Some(home) = self.home_of(self.homes.shard_of(player)) {
                by_home.entry(home).or_default().push(player.clone());
            }
        }
        let looks = by_home.into_iter().map(|(home, players)| async move {
            let load = |flight: Flight<PlayerId, Arc<PresenceView>>| {
                let (peers, home) = (Arc::clone(self), home.clone());
                // Bounded by the keys that may be under way.
                self.tasks.spawn("near", async move { peers.fill(&home, flight).await });
            };
            let got = tokio::time::timeout(WITHIN, self.near.get(&players, not_before_ms, load)).await;
            got.map(|got| {
                self.meters.looked_near(&got);
                got.known
            })
        });
        join_all(looks).await.into_iter().flatten().flatten().collect()
    }

    /// Reads players at their home, which is to tell of their changes as long as they are kept.
    async fn fill(&self, home: &Owner, flight: Flight<PlayerId, Arc<PresenceView>>) {
        let life_ms = self.near.terms().life_ms_max();
        let asked = flight.keys().chunks(PLAYERS_ASKED_MAX).map(|players| async move {
            let names = players.iter().cloned().map(Name).collect();
            let answer = self.question(home, &Question::Reads { players: names, life_ms }).await;
            let views = answer.and_then(|answer| words::read::<Looks>(&answer)).unwrap_or_default().views;
            players.iter().cloned().zip(views).collect::<Vec<_>>()
        });
        let fills = join_all(asked).await.into_iter().flatten().filter_map(|(player, view)| {
            let view = view?.read()?;
            let ver = (view.ver.epoch, view.ver.version);
            let is_negative = ver == (Epoch::ZERO, Version::ZERO);
            Some((player, Fill { ver, is_negative, value: Arc::new(view) }))
        });
        let overtaken = flight.land(fills.collect::<Vec<_>>());
        self.meters.overtaken(overtaken);
    }

    /// Another node reads players whose home is here, and keeps what it is told for so long.
    pub(super) async fn answer_reader(
        self: Arc<Self>,
        from: Owner,
        players: Vec<Name>,
        life_ms: u64,
    ) -> Option<Bytes> {
        if players.len() > PLAYERS_ASKED_MAX {
            return None;
        }
        // Registered first, looked at second: no change falls between.
        let dropped = {
            let (mut readers, now_ms) = (self.readers.lock(), clock::now().mono_ms);
            self.events.are_kept_near(true);
            let mut dropped = News::new();
            players.iter().for_each(|Name(player)| {
                readers.reads(&from, player, life_ms, now_ms, &mut dropped);
            });
            dropped
        };
        self.tell_moved(dropped, "room");
        if !self.links.stands(&from) {
            // It could not be told, and drops everything by itself.
            self.readers.lock().forget_node(&from);
            return None;
        }
        self.answer(players).await
    }

    /// Tells those who keep players near what has changed, until the tasks stop: at once, whatever the tick, and once more.
    pub(super) async fn run_readers(self: Arc<Self>, events: Arc<Events>, stop: Tasks) {
        loop {
            let again_at_ms = self.readers.lock().next_again_ms();
            let again = async {
                match again_at_ms {
                    Some(at_ms) => {
                        let left_ms = at_ms.saturating_sub(clock::now().mono_ms);
                        tokio::time::sleep(Duration::from_millis(left_ms)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tasks::rest();
            tokio::select! {
                biased;
                () = stop.stopping() => return,
                () = events.kept_near.filled() => {}
                () = again => {}
            }
            tasks::beat();
            let moved = events.kept_near.take().into_iter();
            let moved = moved.map(|(player, ver)| (player, (ver.epoch, ver.version))).collect();
            let (news, again) = {
                let (mut readers, now_ms) = (self.readers.lock(), clock::now().mono_ms);
                let news = (readers.moved(moved, now_ms), readers.again(now_ms));
                events.are_kept_near(!readers.is_empty());
                self.meters.kept_by_others(readers.len());
                news
            };
            self.tell_moved(news, "change");
            self.tell_moved(again, "again");
        }
    }

    fn tell_moved(&self, news: News, why: &'static str) {
        for (node, players) in news {
            self.meters.invalidates(why, players.len());
            for players in players.chunks(LETTER_PLAYERS) {
                let named = players.iter().map(|(player, (epoch, version))| {
                    (Name(player.clone()), (epoch.number(), version.number()))
                });
                let letter = Letter::Moved { players: named.collect() };
                self.links.post(&node, Topic::Presence, words::write(&letter));
            }
        }
    }

    /// A home tells that players look otherwise than this node may have kept.
    pub(super) fn hear_moved(&self, players: Vec<(Name, (u64, u64))>) {
        for (Name(player), (epoch, version)) in players {
            self.near.invalidate(&player, (Epoch::of(epoch), Version::of(version)));
        }
    }

    /// Shards whose home has moved, or cannot be reached: it does not tell any more what changes.
    pub(super) fn forget_near(&self, shards: &BTreeSet<u16>) {
        shards.iter().filter_map(|shard| ShardId::numbered(*shard)).for_each(|shard| self.near.forget(shard));
    }

    /// The shards of a node, as this one has heard.
    pub(super) fn shards_of(&self, node: &Owner) -> BTreeSet<u16> {
        let served_by = self.served_by.lock();
        let all = (0..self.homes.shards()).filter_map(ShardId::numbered);
        all.filter(|shard| served_by.of(*shard) == Some(node)).map(ShardId::number).collect()
    }
}
