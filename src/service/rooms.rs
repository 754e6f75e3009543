//! Rooms for other backends: who is in one, by page; put a player in, take her out; speak to all. A member is a
//! player: a service puts in all the sessions that she has.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use protocol::calls::{Join, PutIn, RoomView, Said, Say};
use protocol::push::Message;
use protocol::{Encoding, ErrorCode, Value};
use serde::Deserialize;

use super::Service;
use super::body::{JsonBody, OptionalBody, PathMember, PathRoom};
use super::door::{Pusher, Reader, Writer};
use super::messages::{MESSAGE_BYTES_MAX, checked_key, text_of};
use super::problem::Problem;
use super::repeats::message_id;
use crate::clock;
use crate::home::record::Refusal;
use crate::home::record::rooms::Meta;
use crate::home::{Applied, Cell, HomeError};
use crate::hub::{Push, PushKind};
use crate::ids::RoomName;
use crate::presence::{NoHome, NoPlace, NotSaid};
use crate::wire::{RETRY_AFTER_MS, wire_stamp};

/// Stands before the room in the id of a message to one: no player's id begins so.
const TO_ROOM: &str = "\u{1}room:";

#[derive(Deserialize)]
pub(super) struct Asked {
    cursor: Option<String>,
    limit: Option<String>,
    count_only: Option<String>,
}

/// `GET /v1/rooms/{room}`
pub(super) async fn look(
    State(service): State<Arc<Service>>,
    _: Reader,
    PathRoom(room): PathRoom,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<RoomView>, Problem> {
    let Query(asked) = asked.map_err(|refused| Problem::bad_request(refused.body_text()))?;
    let is_count = match asked.count_only.as_deref() {
        None | Some("false") => false,
        Some("" | "true") => true,
        Some(_) => return Err(Problem::bad_request("count_only: true or false")),
    };
    let limit = match asked.limit.as_deref().map(str::parse) {
        Some(Err(_)) => return Err(Problem::bad_request("limit: a number")),
        _ if is_count => Some(0),
        None => None,
        Some(Ok(limit)) => Some(limit),
    };
    let rooms = service.presence.rooms();
    let roster = rooms.look_at(&room, asked.cursor.as_deref(), limit).await.map_err(|NoHome| no_home())?;
    if rooms.is_here(&room) {
        service.home.may_answer_for(&room)?;
    }
    Ok(Json(RoomView { room: room.as_str().to_owned(), roster }))
}

/// `PUT /v1/rooms/{room}/members/{player}`
pub(super) async fn put_in(
    State(service): State<Arc<Service>>,
    _: Writer,
    PathMember(room, player): PathMember,
    OptionalBody(body): OptionalBody,
) -> Result<Json<PutIn>, Problem> {
    let joining: Join<'_> = body.read()?;
    let meta = match joining.meta.as_ref().map(|meta| service.presence.rooms().packed_meta(meta)).transpose()
    {
        Ok(meta) => meta,
        Err(message) => return Err(Problem::new(ErrorCode::TooLarge, message)),
    };
    let cell = service.home.find_serving(&player).await?;
    let cell = cell.ok_or_else(|| Problem::not_found("the player has no session"))?;
    let Applied { value: sessions, stamp } = service.put_member_in(&cell, &room, meta).await?;
    service.durable(&cell, stamp).await?;
    service.home.may_answer(&player)?;
    Ok(Json(PutIn { stamp: wire_stamp(stamp), sessions }))
}

/// `DELETE /v1/rooms/{room}/members/{player}`
pub(super) async fn take_out(
    State(service): State<Arc<Service>>,
    _: Writer,
    PathMember(room, player): PathMember,
) -> Result<StatusCode, Problem> {
    let not_in = || Problem::not_found("the player is not in this room");
    let cell = service.home.find_serving(&player).await?.ok_or_else(not_in)?;
    let taken = service.home.apply(&cell, clock::now(), |record, _| Ok(record.take_out(&room)))?;
    if taken.value.is_empty() {
        service.home.may_answer(&player)?;
        return Err(not_in());
    }
    service.presence.rooms().tell_taken_out(&room, &player, &taken.value).await;
    service.durable(&cell, taken.stamp).await?;
    service.home.may_answer(&player)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/rooms/{room}/messages`
pub(super) async fn say(
    State(service): State<Arc<Service>>,
    caller: Pusher,
    PathRoom(room): PathRoom,
    JsonBody(body): JsonBody,
) -> Result<Json<Said>, Problem> {
    let saying: Say<'_> = body.read()?;
    let key = checked_key(saying.idempotency_key.as_ref())?;
    let to = [TO_ROOM, room.as_str()].concat();
    let id = key.map_or_else(rand::random, |key| message_id(caller.name(), &to, key));
    let push = message(id, saying.data, &room, caller.name())?;
    service.presence.rooms().seek(&room).await.map_err(|NoHome| no_home())?;
    service.home.may_answer_for(&room)?;
    let mut not_said = None;
    let send = || match service.presence.rooms().speak(&room, push) {
        Ok(delivered) => u32::try_from(delivered).unwrap_or(u32::MAX),
        Err(why) => {
            not_said = Some(why);
            0
        }
    };
    let delivered = match key {
        Some(_) => service.repeats.once(id, clock::now(), send),
        None => send(),
    };
    match not_said {
        Some(NotSaid::TooMuchTalk) => return Err(HomeError::Refused(Refusal::TooMuchTalk).into()),
        Some(NotSaid::NoHome) => return Err(no_home().into()),
        None => {}
    }
    Ok(Json(Said { id: text_of(id), delivered }))
}

/// The room's home cannot be asked now.
const fn no_home() -> HomeError {
    HomeError::NotHome { retry_after_ms: RETRY_AFTER_MS }
}

fn message(id: u128, data: Value, room: &RoomName, service: &str) -> Result<Arc<Push>, Problem> {
    let message = Message {
        id: text_of(id),
        data,
        player: None,
        room: Some(room.as_str().to_owned()),
        service: Some(service.to_owned()),
    };
    let mut bytes = Vec::new();
    protocol::codec::encode_body(Encoding::MessagePack, &mut bytes, &message);
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Problem::new(ErrorCode::TooLarge, "a message has at most 16384 bytes as MessagePack"));
    }
    Ok(Arc::new(Push::new(PushKind::Message, bytes.into())))
}

impl Service {
    /// Puts a player in with all her sessions; how many those are.
    async fn put_member_in(
        &self,
        cell: &Arc<Cell>,
        room: &RoomName,
        meta: Option<Meta>,
    ) -> Result<Applied<usize>, HomeError> {
        // Kept until she is seen in the room, so that no other takes it meanwhile.
        let place = self.presence.rooms().keep_place(room, cell.player()).await;
        let applied = self.home.apply(cell, clock::now(), |record, ctx| {
            record.put_in(ctx, room, meta, place.is_ok())?;
            Ok(record.membership(room).map_or(0, |membership| membership.sessions.len()))
        });
        match (applied, &place) {
            (Err(HomeError::Refused(Refusal::RoomFull)), Err(NoPlace::TooManyRooms)) => {
                Err(HomeError::Overloaded)
            }
            (Err(HomeError::Refused(Refusal::RoomFull)), Err(NoPlace::NoHome)) => Err(no_home()),
            (applied, _) => applied,
        }
    }
}
