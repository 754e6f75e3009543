//! The calls about messages, rooms and events.

use protocol::ErrorCode;
use protocol::calls::{Given, Join, Push, PushToMany, Pushed, PutIn, RoomView, Said, Say};
use serde_json::json;

use super::{Answer, Body, Call};
use crate::service::{Scope, broadcast, events, messages, rooms, route};

pub(super) fn calls() -> Vec<Call> {
    let mut calls = of_messages();
    calls.extend(of_rooms());
    calls
}

fn of_messages() -> Vec<Call> {
    vec![
        Call::post(route::MESSAGES, messages::push, ("push", "Pushes a message to a player"))
            .more(
                "With `ack` `durable` it waits in the store until a client of hers has seen it: at most 100 wait for a \
                 player. The same `idempotency_key` sends once, for 5 minutes.",
            )
            .needs(Scope::Push)
            .body::<Push<'_>>()
            .answers::<Pushed>(200, "It was pushed, to so many sessions.")
            .at_home(),
        Call::post(route::BROADCAST, broadcast::push, ("pushToMany", "Pushes a message to many players, or to all"))
            .more(
                "Either `players` or `all`. Counts as one request of the key and one more for each 10 receivers. Repeat it \
                 with the same `idempotency_key` until nobody is unknown: who has it is left alone.",
            )
            .needs(Scope::Push)
            .body::<PushToMany<'_>>()
            .answers::<Given>(200, "It was pushed, but for whom it names."),
        Call::get(route::EVENTS, events::follow, ("followEvents", "What happens to sessions and presences, and what rings"))
            .more(
                "Server-sent events of all shards, at least once, resumable from a checkpoint. The data of `session`, \
                 `presence`, `resync` and `gap` is an `Event`, that of `checkpoint` a `Checkpoint`. Beside them an `alarm`, \
                 whose data is an `AlarmChange`, tells when the anomaly watch of any node begins or ends to ring, also \
                 while the store does not answer; what rings already is told when the stream begins. In a generated \
                 client this call is best made by hand, for it never ends.",
            )
            .needs(Scope::Read)
            .query(
                "after",
                "Where to begin: a checkpoint, or `oldest`; without it now.",
                json!({ "type": "string", "maxLength": 60_000, "pattern": "^[A-Za-z0-9_-]+$" }),
            )
            .header(
                "Last-Event-ID",
                "A checkpoint, which counts before `after`, and may be longer: as an EventSource sends it by itself.",
                json!({ "type": "string", "maxLength": 90_000, "pattern": "^[A-Za-z0-9_-]*$" }),
            )
            .answer(Answer {
                status: 200,
                about: "Events without an end.",
                types: &["text/event-stream"],
                schema: None,
                headers: &["Cache-Control"],
            })
            .refuses(&[ErrorCode::StoreUnavailable, ErrorCode::Overloaded]),
    ]
}

fn of_rooms() -> Vec<Call> {
    vec![
        Call::get(route::ROOM, rooms::look, ("getRoom", "Who is in a room, by page"))
            .more("A room without members has `count` 0.")
            .needs(Scope::Read)
            .query("cursor", "Where the page before ended.", json!({ "type": "string" }))
            .query(
                "limit",
                "Members a page; a deployment may give fewer.",
                json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }),
            )
            .query("count_only", "Tell how many there are, and nobody's name.", json!({ "type": "boolean" }))
            .answers::<RoomView>(200, "The room.")
            .at_home(),
        Call::put(route::ROOM_MEMBER, rooms::put_in, ("putIntoRoom", "Puts a player into a room"))
            .more("With all the sessions that she has; she needs no right to it. Durable when the answer comes.")
            .needs(Scope::Write)
            .body::<Join<'_>>()
            .body_is(|body| Body { is_required: false, ..body })
            .answers::<PutIn>(200, "She is in.")
            .at_home()
            .refuses(&[ErrorCode::RoomFull]),
        Call::delete(route::ROOM_MEMBER, rooms::take_out, ("takeOutOfRoom", "Takes a player out of a room"))
            .needs(Scope::Write)
            .answers_nothing(204, "She is out, with all her sessions.")
            .at_home(),
        Call::post(route::ROOM_MESSAGES, rooms::say, ("sayInRoom", "Pushes a message to all in a room"))
            .needs(Scope::Push)
            .body::<Say<'_>>()
            .answers::<Said>(200, "It was said, to so many sessions.")
            .at_home(),
    ]
}
