//! `POST /v1/messages`: one push to many players or to all of the cluster, encoded once and shared by every mailbox. Who
//! could not be told is named. How it gets to each is `shares`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::calls::{Given, PushToMany};
use protocol::request::Ack;

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

/// `POST /v1/messages`
pub(super) async fn push(
    State(service): State<Arc<Service>>,
    caller: Pusher,
    JsonBody(body): JsonBody,
) -> Result<Json<Given>, Problem> {
    let asked: PushToMany<'_> = body.read()?;
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
        None => service.stats().await.sessions,
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
    Ok(Json(Given { id: text_of(id), delivered, unknown, unknown_nodes, unknown_shards }))
}

/// Whom it is for; `None` for all.
fn receivers(asked: &PushToMany<'_>) -> Result<Option<BTreeSet<PlayerId>>, Problem> {
    match (&asked.players, asked.all) {
        (None, true) => Ok(None),
        (Some(players), false) => {
            players_of("players", players).map(|players| Some(players.into_iter().collect()))
        }
        _ => Err(Problem::bad_request("either players, a list, or all, which is then true")),
    }
}
