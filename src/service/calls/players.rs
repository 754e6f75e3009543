//! The calls about sessions, players and presences.

use axum::http::StatusCode;
use protocol::ErrorCode;
use protocol::calls::{
    Ban, Banned, Kick, Kicked, Made, Open, PlayerView, Queried, Query, SessionView, Timeline, WatchList,
    WatchesListed,
};
use protocol::reply::Changed;
use protocol::request::StatePatch;
use serde_json::json;

use super::{Answer, Body, Call};
use crate::service::{Scope, bans, kick, players, query, route, sessions, state, timeline, watches};

/// What a query is written in.
const ENCODINGS: &[&str] = &["application/json", "application/msgpack"];

pub(super) fn calls() -> Vec<Call> {
    let mut calls = of_sessions();
    calls.extend(of_players());
    calls.extend(of_operators());
    calls
}

fn of_sessions() -> Vec<Call> {
    vec![
        Call::post(route::SESSIONS, sessions::open, ("openSession", "Makes a session before its client connects"))
            .more(
                "The client resumes it with `session` and `ticket`, at `url`, within `pending_ms`; the login policy runs \
                 then. At most 16 sessions of a player wait at a time.",
            )
            .needs(Scope::Write)
            .body::<Open<'_>>()
            .answers::<Made>(201, "The session waits for its client.")
            .with_headers(&["Location", "Cache-Control"])
            .at_home()
            .refuses(&[ErrorCode::SessionLimit, ErrorCode::Banned]),
        Call::get(route::SESSION, sessions::look, ("getSession", "Looks at one session"))
            .needs(Scope::Read)
            .answers::<SessionView>(200, "The session.")
            .at_home(),
        Call::delete(route::SESSION, sessions::log_out, ("logOut", "Logs a session out for good"))
            .more("Its link closes with 1000. The answer comes when the end is durable.")
            .needs(Scope::Write)
            .answers_nothing(204, "It is gone.")
            .at_home(),
    ]
}

fn of_players() -> Vec<Call> {
    vec![
        Call::get(route::PLAYER, players::look, ("getPlayer", "All that is known of one player"))
            .more(
                "With `min_stamp` the answer is not older than that stamp: your own writes are read, after up to \
                 `wait_ms`, or it is refused with `behind` or `rolled_back`.",
            )
            .needs(Scope::Read)
            .query(
                "min_stamp",
                "The stamp that the record must have reached: epoch and version with a dot between.",
                json!({ "type": "string", "pattern": "^[0-9]{1,18}\\.[0-9]{1,18}$" }),
            )
            .query(
                "wait_ms",
                "How long to wait for that, ms.",
                json!({ "type": "integer", "minimum": 0, "maximum": 10_000 }),
            )
            .answers::<PlayerView>(200, "The player.")
            .at_home()
            .refuses(&[ErrorCode::Behind, ErrorCode::RolledBack]),
        Call::get(route::TIMELINE, timeline::look, ("getTimeline", "Why was this player disconnected"))
            .needs(Scope::Read)
            .answers::<Timeline>(200, "Her latest comings and goings.")
            .at_home(),
        Call::patch(route::STATE, state::change, ("patchState", "Changes a player's state"))
            .more(
                "Within one patch `set` goes first, then `unset`, then `incr`. With `if_state` only if the state still \
                 stands there. A level of `ack` that cannot be met is `store_unavailable`, with `applied` and `stamp` if \
                 the change is in force all the same. The whole state has at most 4 096 bytes as MessagePack.",
            )
            .needs(Scope::Write)
            .body::<StatePatch<'_>>()
            .body_is(|body| Body { without: &["cseq"], ..body })
            .answers::<Changed>(200, "Changed.")
            .at_home()
            .refuses(&[ErrorCode::StateConflict]),
        Call::put(route::WATCHES, watches::list, ("putWatches", "Sets or changes whom a player watches"))
            .more("In all her sessions, durably. Either `set`, or `add` and `remove`.")
            .needs(Scope::Write)
            .body::<WatchList<'_>>()
            .answers::<WatchesListed>(200, "The list is what it should be.")
            .at_home(),
        Call::post(route::QUERY, query::query, ("queryPresence", "The presence of up to a thousand players"))
            .more(
                "Answered in JSON or MessagePack, as `Accept` says, else as the request was. One malformed id \
                 refuses the whole query.",
            )
            .needs(Scope::Read)
            .body::<Query<'_>>()
            .body_is(|body| Body { types: ENCODINGS, ..body })
            .answers::<Queried>(200, "As far as anybody can tell.")
            .encoded(ENCODINGS),
    ]
}

fn of_operators() -> Vec<Call> {
    vec![
        Call::post(route::KICK, kick::kick, ("kick", "Ends every session of a player"))
            .more("The answer comes when that is durable. `store_unavailable` with `applied`: it is not yet.")
            .needs(Scope::Admin)
            .body::<Kick<'_>>()
            .answers::<Kicked>(200, "They are cut.")
            .at_home(),
        Call::put(route::BAN, bans::ban, ("ban", "Keeps a player out"))
            .more("Also one who is not here or was never seen. Again: changes `until` and `reason`.")
            .needs(Scope::Admin)
            .body::<Ban<'_>>()
            .answers::<Banned>(200, "She is kept out, durably.")
            .at_home(),
        Call::delete(route::BAN, bans::lift, ("liftBan", "Lets a player in again"))
            .needs(Scope::Admin)
            .answers_nothing(204, "She may log in.")
            .at_home(),
        Call::delete(route::PLAYER, players::erase, ("erasePlayer", "Erases everything about a player"))
            .more("A banned player is refused unless `ban` says what becomes of that. The same call again does no harm.")
            .needs(Scope::Admin)
            .query(
                "ban",
                "Of a banned player: keep the ban and nothing else, or forget it, too.",
                json!({ "type": "string", "enum": ["keep", "lift"] }),
            )
            .answers_nothing(204, "It is gone, durably.")
            .at_home()
            .refuses_as(StatusCode::CONFLICT, ErrorCode::Banned),
    ]
}

impl Call {
    /// The latest answer is written in one of these.
    fn encoded(mut self, types: &'static [&'static str]) -> Self {
        if let Some(answer) = self.answers.pop() {
            self.answers.push(Answer { types, ..answer });
        }
        self
    }
}
