//! `PUT` and `DELETE /v1/players/{player}/ban`: keeps a player out, whatever her token, until a time or for good.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use protocol::calls::{Ban as Asked, BanView, Banned};

use super::Service;
use super::body::{JsonBody, PathPlayer};
use super::door::Admin;
use super::kick::checked_reason;
use super::problem::Problem;
use crate::clock;
use crate::home::record::bars::Ban;
use crate::wire::wire_stamp;

/// A ban, as services see it.
pub(super) fn ban_view(ban: &Ban) -> BanView {
    BanView { reason: ban.reason.as_ref().to_owned(), until: ban.until, since: ban.since }
}

/// `PUT /v1/players/{player}/ban`
pub(super) async fn ban(
    State(service): State<Arc<Service>>,
    _: Admin,
    PathPlayer(player): PathPlayer,
    JsonBody(body): JsonBody,
) -> Result<Json<Banned>, Problem> {
    let asked: Asked<'_> = body.read()?;
    let reason = checked_reason(asked.reason.as_str())?;
    if asked.until.is_some_and(|until| until <= clock::now().unix_ms) {
        return Err(Problem::bad_request("until: Unix milliseconds in the future, or absent for ever"));
    }
    let banned = service.home.ban(&player, asked.until, reason).await?;
    service.durable(&banned.cell, banned.stamp).await?;
    Ok(Json(Banned { sessions: banned.sessions, stamp: wire_stamp(banned.stamp) }))
}

/// `DELETE /v1/players/{player}/ban`
pub(super) async fn lift(
    State(service): State<Arc<Service>>,
    _: Admin,
    PathPlayer(player): PathPlayer,
) -> Result<StatusCode, Problem> {
    let lifted = service.home.lift_ban(&player).await?;
    service.durable(&lifted.cell, lifted.stamp).await?;
    Ok(StatusCode::NO_CONTENT)
}
