//! A message to many players or to all, in shares: each node gives it to those at home there, in turns short enough that
//! nobody else has to wait. A shard gets a message once, whichever node is asked to bring it: each remembers its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

mod shelved;

use super::Service;
use super::body::PLAYERS_MAX;
use super::messages::MESSAGE_BYTES_MAX;
use super::others::Question;
use crate::clock;
use crate::cluster::CallError;
use crate::home::Cell;
use crate::home::record::Record;
use crate::hub::{Push, PushKind, Wakes};
use crate::ids::{Owner, PlayerId, ShardId};

pub(super) use shelved::Shelved;

/// Mailboxes after which others get a turn.
const TURN: usize = 64;
/// How long another node may take: others may be before this one.
const GIVEN_WITHIN: Duration = Duration::from_secs(2);
/// How often those are tried whose home is moving, and the pause between.
const ROUNDS_MAX: usize = 4;
const AGAIN: Duration = Duration::from_millis(250);

/// What a node is asked to give to those at home there.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Share {
    id: u128,
    /// The message as sessions get it.
    body: Bytes,
    whom: Whom,
}

#[derive(Clone, Serialize, Deserialize)]
enum Whom {
    Players(Vec<String>),
    /// Everybody, but not in these shards: those have it already.
    AllBut(BTreeSet<u16>),
}

/// What a node has given.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Given {
    /// To how many sessions.
    delivered: u32,
    /// The shards that it answers for: what is at home elsewhere is not in it.
    shards: BTreeSet<u16>,
}

/// A message on its way to many.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) id: u128,
    pub(super) push: &'a Arc<Push>,
}

/// Whom a message to many has reached.
#[derive(Default)]
pub(super) struct Reach {
    /// Sessions.
    pub(super) delivered: u32,
    /// Players of whom nobody knows whether they have it.
    pub(super) unknown: Vec<String>,
    /// Nodes that did not answer, if there are shards for which nobody did.
    pub(super) unknown_nodes: Vec<String>,
    /// How many those are.
    pub(super) unknown_shards: usize,
}

impl Reach {
    /// Everybody was told who could be.
    pub(super) fn is_whole(&self) -> bool {
        self.unknown.is_empty() && self.unknown_shards == 0
    }
}

impl Service {
    /// Gives a message to many players, each wherever her home is.
    pub(super) async fn give_to_many(
        self: &Arc<Self>,
        players: &BTreeSet<PlayerId>,
        message: Message<'_>,
    ) -> Reach {
        let mut reach = Reach::default();
        let mut left: BTreeMap<u16, Vec<&PlayerId>> = BTreeMap::new();
        for player in players {
            left.entry(self.home.placement().shard_of(player).number()).or_default().push(player);
        }
        // Who did not answer may have done it: asked again, it might do it twice.
        let mut silent = BTreeSet::new();
        for round in 0..self.rounds() {
            if round > 0 {
                tokio::time::sleep(AGAIN).await;
            }
            let mut by_home: BTreeMap<Owner, Vec<String>> = BTreeMap::new();
            for (shard, players) in &left {
                if let Some(home) = self.home_now(*shard).filter(|home| !silent.contains(home)) {
                    let names = players.iter().map(|player| player.as_str().to_owned());
                    by_home.entry(home).or_default().extend(names);
                }
            }
            let shares = by_home.into_iter().map(|(home, players)| (home, Whom::Players(players)));
            for (node, given) in self.share_out(shares, message).await {
                match given {
                    Ok(given) => {
                        left.retain(|shard, _| !given.shards.contains(shard));
                        reach.delivered = reach.delivered.saturating_add(given.delivered);
                    }
                    Err(CallError::NoAnswer) => drop(silent.insert(node)),
                    Err(_) => {}
                }
            }
            if left.is_empty() {
                break;
            }
        }
        reach.unknown = left.into_values().flatten().map(|player| player.as_str().to_owned()).collect();
        reach
    }

    /// Gives a message to everybody.
    pub(super) async fn give_to_all(self: &Arc<Self>, message: Message<'_>) -> Reach {
        let mut reach = Reach::default();
        let (mut covered, mut silent, mut unasked) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for round in 0..self.rounds() {
            if round > 0 {
                tokio::time::sleep(AGAIN).await;
            }
            let me = self.home.cluster().me().clone();
            let nodes = self.others().into_iter().chain([me]).filter(|node| !silent.contains(node));
            let shares: Vec<_> = nodes.map(|node| (node, Whom::AllBut(covered.clone()))).collect();
            unasked.clear();
            for (node, given) in self.share_out(shares, message).await {
                match given {
                    Ok(given) => {
                        covered.extend(given.shards);
                        reach.delivered = reach.delivered.saturating_add(given.delivered);
                    }
                    Err(CallError::NoAnswer) => drop(silent.insert(node)),
                    Err(_) => drop(unasked.insert(node)),
                }
            }
            reach.unknown_shards = self.shards_beside(&covered);
            if reach.unknown_shards == 0 {
                return reach;
            }
        }
        reach.unknown_nodes = silent.union(&unasked).map(|node| node.node().to_owned()).collect();
        reach
    }

    /// A node alone has nobody to wait for.
    fn rounds(&self) -> usize {
        if self.others().is_empty() { 1 } else { ROUNDS_MAX }
    }

    /// Who serves a shard at this moment.
    fn home_now(&self, shard: u16) -> Option<Owner> {
        if self.serves(shard) {
            return Some(self.home.cluster().me().clone());
        }
        self.presence.home_elsewhere(ShardId::numbered(shard)?)
    }

    /// Whether a shard is served here at this moment.
    pub(super) fn serves(&self, shard: u16) -> bool {
        let shard = self.home.shards().get(usize::from(shard));
        shard.is_some_and(|shard| shard.serves(clock::now().mono_ms))
    }

    /// Has each node give its share, all at a time.
    async fn share_out(
        self: &Arc<Self>,
        shares: impl IntoIterator<Item = (Owner, Whom)>,
        message: Message<'_>,
    ) -> Vec<(Owner, Result<Given, CallError>)> {
        let Message { id, push } = message;
        let me = self.home.cluster().me().clone();
        let asked = shares.into_iter().map(|(node, whom)| {
            let share = Share { id, body: push.msgpack().clone(), whom };
            let is_me = node == me;
            async move {
                let given = if is_me {
                    self.give_here(push, share).await
                } else {
                    self.ask(&node, &Question::Share(share), GIVEN_WITHIN).await
                };
                (node, given)
            }
        });
        join_all(asked).await
    }

    /// Gives another node's message to those at home here; nothing if it is not one that a node may ask to be given.
    pub(super) async fn give(&self, share: Share) -> Option<Given> {
        let is_named_too_often = matches!(&share.whom, Whom::Players(players) if players.len() > PLAYERS_MAX);
        if share.body.len() > MESSAGE_BYTES_MAX || is_named_too_often {
            return None;
        }
        let push = Arc::new(Push::new(PushKind::Message, share.body.clone()));
        Some(self.give_pushed(&push, share).await)
    }

    /// Gives this node's own share, to the end: who asked may not wait for it, and a repeat must find what was given.
    async fn give_here(self: &Arc<Self>, push: &Arc<Push>, share: Share) -> Result<Given, CallError> {
        let (service, push) = (Arc::clone(self), Arc::clone(push));
        let (told, given) = oneshot::channel();
        // As many as there are calls, which the keys' limits bound.
        self.tasks.spawn("share", async move {
            let _ = told.send(service.give_pushed(&push, share).await);
        });
        given.await.map_err(|_| CallError::NoAnswer)
    }

    async fn give_pushed(&self, push: &Arc<Push>, share: Share) -> Given {
        // One at a time: two of them would not be faster, and a repeat finds the first one done.
        let mut shelved = self.shelved.lock().await;
        let before = shelved.given(share.id, clock::now().mono_ms);
        let mut taken = match share.whom {
            Whom::Players(players) => self.push_to_players(&players, push, &before).await,
            Whom::AllBut(except) => self.push_to_everybody(&except, push, &before).await,
        };
        // What reached nobody was not given: the next try is a new one.
        if taken.values().any(|delivered| *delivered > 0) {
            shelved.remember(share.id, clock::now().mono_ms, taken.clone());
        }
        // What was taken from this node meanwhile is its next home's to give, and is asked for here again if it stays.
        taken.retain(|shard, _| self.serves(*shard));
        Given {
            delivered: taken.values().fold(0_u32, |sum, delivered| sum.saturating_add(*delivered)),
            shards: taken.into_keys().collect(),
        }
    }

    /// To how many sessions of each shard that is served here, now or before. A shard of which a mailbox took nothing any
    /// more is not among them: it is about to be at home elsewhere.
    async fn push_to_players(
        &self,
        players: &[String],
        push: &Arc<Push>,
        before: &BTreeMap<u16, u32>,
    ) -> BTreeMap<u16, u32> {
        let (mut delivered, mut left_out) = (BTreeMap::<u16, u32>::new(), BTreeSet::new());
        for (turn, player) in players.iter().enumerate() {
            if turn % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let Ok(player) = PlayerId::parse(player) else { continue };
            let shard = self.home.placement().shard_of(&player);
            let at = shard.number();
            if let Some(before) = before.get(&at) {
                delivered.insert(at, *before);
                continue;
            }
            // A pause does not matter to mailboxes; a shard that leaves half way is given as a whole elsewhere.
            let begun = delivered.get(&at).copied();
            let takes = begun.map_or_else(|| self.serves(at), |_| self.home.has_all_of(shard));
            if left_out.contains(&at) || !takes {
                delivered.remove(&at);
                left_out.insert(at);
                continue;
            }
            let cell = self.home.find(&player);
            match cell.map_or(Some(0), |cell| self.push_unless_sealed(&cell, push)) {
                Some(reached) => {
                    delivered.insert(at, begun.unwrap_or_default().saturating_add(reached));
                }
                None => {
                    delivered.remove(&at);
                    left_out.insert(at);
                }
            }
        }
        delivered
    }

    async fn push_to_everybody(
        &self,
        except: &BTreeSet<u16>,
        push: &Arc<Push>,
        before: &BTreeMap<u16, u32>,
    ) -> BTreeMap<u16, u32> {
        let all = self.home.placement().all().map(ShardId::number);
        let served = all.filter(|shard| !except.contains(shard) && self.serves(*shard));
        let mut delivered: BTreeMap<u16, u32> =
            served.map(|shard| (shard, before.get(&shard).copied().unwrap_or_default())).collect();
        for turn in self.hub.all().chunks(TURN) {
            for mailbox in turn {
                let shard = mailbox.session().shard().number();
                let is_due = !before.contains_key(&shard);
                let Some(reached) = delivered.get_mut(&shard).filter(|_| is_due) else { continue };
                if !self.hub.push_quietly(mailbox, push, &mut Wakes::default()) {
                    delivered.remove(&shard);
                } else if !mailbox.is_closed() {
                    *reached = reached.saturating_add(1);
                }
            }
            tokio::task::yield_now().await;
        }
        delivered
    }

    /// To how many of a player's sessions; `None` if one of her mailboxes takes nothing any more.
    fn push_unless_sealed(&self, cell: &Cell, push: &Arc<Push>) -> Option<u32> {
        let ids = |record: &Record| record.sessions.iter().map(|session| session.id).collect::<Vec<_>>();
        let sessions = cell.read(ids).unwrap_or_default().into_iter();
        let mut reached = 0;
        for mailbox in sessions.filter_map(|session| self.hub.mailbox(session)) {
            if !self.hub.push_quietly(&mailbox, push, &mut Wakes::default()) {
                return None;
            }
            reached += 1;
        }
        Some(reached)
    }
}
