//! `POST /v1/players/{player}/kick`: ends every session of a player, with a reason that her clients see, and revokes
//! older tokens where that is asked for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::CloseCode;
use protocol::calls::{Kick, Kicked};

use super::Service;
use super::body::{JsonBody, PathPlayer};
use super::door::Admin;
use super::problem::Problem;
use crate::clock;
use crate::events::EndReason;

/// Most bytes of a reason.
pub(super) const REASON_BYTES_MAX: usize = 256;
/// How far ahead of this node's clock a caller's may be.
const AHEAD_MS_MAX: u64 = 60_000;
/// A time below this was meant in seconds: it would revoke nothing.
const UNIX_MS_MIN: u64 = 1_000_000_000_000;

/// `POST /v1/players/{player}/kick`
pub(super) async fn kick(
    State(service): State<Arc<Service>>,
    _: Admin,
    PathPlayer(player): PathPlayer,
    JsonBody(body): JsonBody,
) -> Result<Json<Kicked>, Problem> {
    let asked: Kick<'_> = body.read()?;
    let reason = checked_reason(asked.reason.as_str())?;
    let code = asked.code.unwrap_or(CloseCode::Kicked.number());
    match CloseCode::numbered(code) {
        Some(CloseCode::Kicked | CloseCode::Application(_)) => {}
        _ => return Err(Problem::bad_request("code: 4502, or one of 4750 to 4999")),
    }
    let latest = clock::now().unix_ms.saturating_add(AHEAD_MS_MAX);
    if asked.revoke_before.is_some_and(|before| !(UNIX_MS_MIN..=latest).contains(&before)) {
        return Err(Problem::bad_request(
            "revoke_before: Unix time in milliseconds (13 digits, not seconds), not in the future",
        ));
    }
    // A caller's clock may go ahead of ours, but no token could be new enough for a time that is still to come.
    let revoke_before = asked.revoke_before.map(|before| before.min(clock::now().unix_ms));
    let kicked = EndReason::Kicked { code, reason: reason.into() };
    let Some(kicked) = service.home.kick(&player, kicked, revoke_before).await? else {
        service.home.may_answer(&player)?;
        return Ok(Json(Kicked { sessions: 0 }));
    };
    if kicked.sessions > 0 || asked.revoke_before.is_some() {
        service.durable(&kicked.cell, kicked.stamp).await?;
    }
    Ok(Json(Kicked { sessions: kicked.sessions }))
}

/// A reason that clients can be told.
pub(super) fn checked_reason(reason: &str) -> Result<&str, Problem> {
    if reason.len() > REASON_BYTES_MAX {
        return Err(Problem::bad_request("reason: at most 256 bytes"));
    }
    Ok(reason)
}
