//! Looks at players whose home is another node: one question a node and thousand, answered from that home's memory and store. Who
//! cannot be told in time is not in the answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::homes::Glance;
use super::peers::Peers;
use super::words::{self, Looks, Name, PLAYERS_ASKED_MAX, Question, View};
use crate::cluster::{CallError, Topic};
use crate::events::PresenceView;
use crate::ids::{Owner, PlayerId};

/// How long another node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// Questions to one home at a time: fewer than it answers at a time, and enough for its store.
const ASKED_MAX: usize = 64;
/// How long the asked one waits for its store, so that those in its memory are told in time.
const STORE_WITHIN: Duration = Duration::from_millis(300);

/// Turns to ask one home.
fn turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ASKED_MAX))
}

impl Peers {
    /// What others see of players whose homes are other nodes.
    pub(super) async fn look(&self, players: &[PlayerId]) -> HashMap<PlayerId, PresenceView> {
        let mut by_home: HashMap<Owner, Vec<PlayerId>, ahash::RandomState> = HashMap::default();
        for player in players {
            if let Some(home) = self.home_of(self.homes.shard_of(player)) {
                by_home.entry(home).or_default().push(player.clone());
            }
        }
        let questions = by_home.iter().flat_map(|(home, players)| {
            players.chunks(PLAYERS_ASKED_MAX).map(move |players| self.ask(home, players))
        });
        futures_util::future::join_all(questions).await.into_iter().flatten().collect()
    }

    async fn ask(&self, home: &Owner, players: &[PlayerId]) -> Vec<(PlayerId, PresenceView)> {
        let question = Question::Looks { players: players.iter().cloned().map(Name).collect() };
        let answer = self.question(home, &question).await;
        let views = answer.and_then(|answer| words::read::<Looks>(&answer)).unwrap_or_default().views;
        let seen = players.iter().zip(views);
        seen.filter_map(|(player, view)| Some((player.clone(), view?.read()?))).collect()
    }

    /// Asks a home; `None` if it does not answer in time. Many questions wait for one another rather than to be refused.
    pub(super) async fn question(&self, home: &Owner, question: &Question) -> Option<Bytes> {
        let turns = Arc::clone(self.asking.lock().entry(home.clone()).or_insert_with(turns));
        let call = async {
            let _turn = turns.acquire().await;
            self.links.call(home, Topic::Presence, words::write(question), ANSWER_WITHIN).await
        };
        match tokio::time::timeout(ANSWER_WITHIN, call).await.unwrap_or(Err(CallError::NoAnswer)) {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::debug!(operation = "look", %home, status = %error, "a question has no answer");
                None
            }
        }
    }

    /// Answers another node's question about players whose home is here.
    pub(super) async fn answer(self: Arc<Self>, players: Vec<Name>) -> Option<Bytes> {
        if players.len() > PLAYERS_ASKED_MAX {
            return None;
        }
        let (mut views, mut cold) = (vec![None; players.len()], Vec::new());
        for (Name(player), place) in players.iter().zip(&mut views) {
            match self.homes.glance(player) {
                Glance::Hot(view) => *place = Some(View::of(&view)),
                Glance::Cold => cold.push(player.clone()),
                Glance::Unknown => {}
            }
        }
        if !cold.is_empty() {
            let loaded: HashMap<_, _> = self.homes.look_cold(cold, STORE_WITHIN).await.into_iter().collect();
            for (Name(player), place) in players.iter().zip(&mut views) {
                if place.is_none() {
                    *place = loaded.get(player).map(View::of);
                }
            }
        }
        Some(words::write(&Looks { views }))
    }
}
