//! `POST /v1/players/{player}/messages`: a push to all sessions of one player, encoded once, through their mailboxes.
//! With `ack` `durable` it waits in the store until a client of hers has seen it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use protocol::calls::{Push as Asked, Pushed};
use protocol::limits::FRAME_BYTES_MAX;
use protocol::push::Message;
use protocol::request::Ack;
use protocol::{Encoding, ErrorCode, Text, Value};

use super::Service;
use super::body::{JsonBody, PathPlayer};
use super::door::Pusher;
use super::problem::Problem;
use super::repeats::message_id;
use crate::clock;
use crate::home::Cell;
use crate::home::record::Record;
use crate::hub::{Push, PushKind};

/// Most bytes of an idempotency key.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 64;
/// Most bytes of a message as it is pushed: what a player may send as well. A mailbox bounds how many wait, so this
/// bounds what a slow reader can cost.
pub(super) const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX;

/// `POST /v1/players/{player}/messages`
pub(super) async fn push(
    State(service): State<Arc<Service>>,
    caller: Pusher,
    PathPlayer(player): PathPlayer,
    JsonBody(body): JsonBody,
) -> Result<Json<Pushed>, Problem> {
    let asked: Asked<'_> = body.read()?;
    let kept = match asked.ack.unwrap_or_default() {
        Ack::Applied => false,
        Ack::Durable => true,
        Ack::Replicated => {
            // No store keeps messages so that it could be waited for: it would never succeed.
            return Err(Problem::bad_request("ack: applied or durable; nothing was sent"));
        }
    };
    let idempotency_key = checked_key(asked.idempotency_key.as_ref())?;
    let id = match idempotency_key {
        Some(key) => message_id(caller.name(), player.as_str(), key),
        None => rand::random(),
    };
    let body = packed(id, asked.data, caller.name())?;
    // One that was only pushed does not stand for one that is to be kept.
    let remembered_as = if kept { !id } else { id };
    if let Some(delivered) = service.repeats.sent(remembered_as, clock::now()) {
        service.home.may_answer(&player)?;
        return Ok(Json(Pushed { id: text_of(id), delivered, kept }));
    }
    let push = if kept {
        // Kept first, pushed second: whoever comes in between finds it, and a mailbox takes it once.
        service.home.keep_message(&player, id, body.clone()).await?;
        Arc::new(Push::kept(id, body))
    } else {
        Arc::new(Push::new(PushKind::Message, body))
    };
    let cell = service.home.find_serving(&player).await?;
    let send = || cell.map_or(0, |cell| service.push_to_all(&cell, &push));
    let delivered = match idempotency_key {
        Some(_) => service.repeats.once(remembered_as, clock::now(), send),
        None => send(),
    };
    service.home.may_answer(&player)?;
    Ok(Json(Pushed { id: text_of(id), delivered, kept }))
}

/// The idempotency key, if there is one.
pub(super) fn checked_key<'a>(key: Option<&'a Text<'_>>) -> Result<Option<&'a str>, Problem> {
    match key.map(Text::as_str) {
        Some(key) if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX => {
            Err(Problem::bad_request("idempotency_key: 1 to 64 bytes"))
        }
        key => Ok(key),
    }
}

pub(super) fn text_of(id: u128) -> String {
    format!("{id:032x}")
}

/// A message as every session of whoever it goes to gets it.
pub(super) fn message(id: u128, data: Value, service: &str) -> Result<Arc<Push>, Problem> {
    Ok(Arc::new(Push::new(PushKind::Message, packed(id, data, service)?)))
}

fn packed(id: u128, data: Value, service: &str) -> Result<Bytes, Problem> {
    let message =
        Message { id: text_of(id), data, player: None, room: None, service: Some(service.to_owned()) };
    let mut bytes = Vec::new();
    protocol::codec::encode_body(Encoding::MessagePack, &mut bytes, &message);
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Problem::new(ErrorCode::TooLarge, "a message has at most 16384 bytes as MessagePack"));
    }
    Ok(bytes.into())
}

impl Service {
    /// To how many sessions. Those that wait for their first link, or whose mailbox was lost with a crash and that
    /// have not come back, have no mailbox to push to.
    pub(super) fn push_to_all(&self, cell: &Cell, push: &Arc<Push>) -> u32 {
        let ids = |record: &Record| record.sessions.iter().map(|session| session.id).collect::<Vec<_>>();
        let sessions = cell.read(ids).unwrap_or_default();
        let delivered = sessions.into_iter().filter(|session| self.hub.push(*session, push)).count();
        u32::try_from(delivered).unwrap_or(u32::MAX)
    }
}
