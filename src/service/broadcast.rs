//! `POST /v1/messages`: one push to many players or to all of the cluster, encoded once and shared by every mailbox. Who
//! could not be told is named. How it gets to each is `shares`.

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
use super::shares::{Message, Reach};
use crate::clock;
use crate::ids::PlayerId;

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
    /// Which nodes could not be told, of a message to all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_nodes: Vec<String>,
    /// For how many shards nobody has answered, of a message to all.
    #[serde(skip_serializing_if = "is_none")]
    unknown_shards: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_none(count: &usize) -> bool {
    *count == 0
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
    if let Some(players) = &players {
        caller.concerns_all(players.iter());
    }
    let key = checked_key(asked.idempotency_key.as_ref())?;
    let id = key.map_or_else(rand::random, |key| message_id(caller.name(), TO_MANY, key));
    let push = message(id, asked.data, caller.name())?;
    let receivers = match &players {
        Some(players) => players.len(),
        None => service.stats().await.sessions(),
    };
    let cost = receivers / RECEIVERS_PER_REQUEST;
    if cost > 0 {
        service.count(caller.name(), cost).await?;
    }
    let message = Message { id, push: &push };
    let sent = key.and_then(|_| service.repeats.sent(id, clock::now()));
    let reach = match (sent, &players) {
        (Some(delivered), _) => Reach { delivered, ..Reach::default() },
        (None, Some(players)) => service.give_to_many(players, message).await,
        (None, None) => service.give_to_all(message).await,
    };
    // Whoever is not known to have it is tried again by a repeat; shards that have it are left alone.
    if key.is_some() && reach.is_whole() {
        service.repeats.once(id, clock::now(), || reach.delivered);
    }
    let Reach { delivered, unknown, unknown_nodes, unknown_shards } = reach;
    Ok(Json(Pushed { id: text_of(id), delivered, unknown, unknown_nodes, unknown_shards }))
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
