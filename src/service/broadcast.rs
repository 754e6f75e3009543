//! `POST /v1/messages`: one push to many players or to all, encoded once and shared by every mailbox, in turns short
//! enough that nobody else has to wait.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::request::Ack;
use protocol::{Text, Value};
use serde::{Deserialize, Serialize};

use super::Service;
use super::body::{JsonBody, players_of};
use super::door::Pusher;
use super::messages::{checked_key, message, text_of};
use super::problem::Problem;
use super::repeats::message_id;
use crate::clock;
use crate::hub::Push;
use crate::ids::PlayerId;

/// Mailboxes after which others get a turn.
const TURN: usize = 64;
/// So many receivers count as one request of the key.
const RECEIVERS_PER_REQUEST: usize = 10;
/// Stands for the player in the id of a message to many: no player's id begins so.
const TO_MANY: &str = "\u{1}many";

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow, default)]
    players: Option<Vec<Text<'a>>>,
    #[serde(default)]
    all: bool,
    data: Value,
    #[serde(borrow, default)]
    idempotency_key: Option<Text<'a>>,
    #[serde(default)]
    ack: Option<Ack>,
}

#[derive(Serialize)]
pub(super) struct Pushed {
    id: String,
    delivered: u32,
    /// Whose home cannot be reached now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<String>,
}

/// `POST /v1/messages`
pub(super) async fn push(
    State(service): State<Arc<Service>>,
    caller: Pusher,
    JsonBody(body): JsonBody,
) -> Result<Json<Pushed>, Problem> {
    let asked: Asked<'_> = body.read()?;
    if asked.all {
        caller.is_for("message.all");
    }
    if asked.ack.unwrap_or_default() != Ack::Applied {
        return Err(Problem::bad_request("ack: only messages to one player are kept until they are seen"));
    }
    let players = receivers(&asked)?;
    let key = checked_key(asked.idempotency_key.as_ref())?;
    let id = key.map_or_else(rand::random, |key| message_id(caller.name(), TO_MANY, key));
    let push = message(id, asked.data, caller.name())?;
    let receivers = players.as_ref().map_or_else(|| service.home.records().sessions(), BTreeSet::len);
    service.count_more(caller.name(), receivers / RECEIVERS_PER_REQUEST)?;
    // One at a time: two of them would not be faster, and the repeat of a key finds the first one done.
    let _turn = service.broadcasts.lock().await;
    let sent = key.and_then(|_| service.repeats.sent(id, clock::now()));
    let (delivered, unknown) = match (sent, &players) {
        (Some(delivered), _) => (delivered, Vec::new()),
        (None, Some(players)) => service.push_to_many(players, &push).await,
        (None, None) => (service.push_to_everybody(&push).await, Vec::new()),
    };
    if key.is_some() {
        service.repeats.once(id, clock::now(), || delivered);
    }
    Ok(Json(Pushed { id: text_of(id), delivered, unknown }))
}

/// Whom it is for; `None` for all.
fn receivers(asked: &Asked<'_>) -> Result<Option<BTreeSet<PlayerId>>, Problem> {
    match (&asked.players, asked.all) {
        (None, true) => Ok(None),
        (Some(players), false) => {
            players_of("players", players).map(|players| Some(players.into_iter().collect()))
        }
        _ => Err(Problem::bad_request("either players, a list, or all, which is then true")),
    }
}

impl Service {
    async fn push_to_many(&self, players: &BTreeSet<PlayerId>, push: &Arc<Push>) -> (u32, Vec<String>) {
        let (mut delivered, mut unknown) = (0_u32, Vec::new());
        for (at, player) in players.iter().enumerate() {
            if at % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            match self.home.may_answer(player) {
                Err(_) => unknown.push(player.as_str().to_owned()),
                Ok(()) => {
                    let reached = self.home.find(player).map_or(0, |cell| self.push_to_all(&cell, push));
                    delivered = delivered.saturating_add(reached);
                }
            }
        }
        (delivered, unknown)
    }

    async fn push_to_everybody(&self, push: &Arc<Push>) -> u32 {
        let mut delivered = 0_u32;
        for turn in self.hub.all().chunks(TURN) {
            for mailbox in turn.iter().filter(|mailbox| !mailbox.is_closed()) {
                self.hub.push_to(mailbox, push);
                delivered = delivered.saturating_add(1);
            }
            tokio::task::yield_now().await;
        }
        delivered
    }
}
