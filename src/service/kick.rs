//! `POST /v1/players/{player}/kick`: ends every session of a player, with a reason that her clients see.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::{CloseCode, Text};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::Service;
use super::body::{JsonBody, PathPlayer};
use super::door::Admin;
use super::problem::Problem;
use crate::clock;
use crate::events::EndReason;
use crate::home::Cell;
use crate::home::record::Record;

/// Most bytes of a reason.
const REASON_BYTES_MAX: usize = 256;

#[derive(Deserialize)]
pub(super) struct Asked<'a> {
    #[serde(borrow)]
    reason: Text<'a>,
    #[serde(default)]
    code: Option<u16>,
    #[serde(default)]
    revoke_before: Option<IgnoredAny>,
}

#[derive(Serialize)]
pub(super) struct Kicked {
    sessions: usize,
}

/// `POST /v1/players/{player}/kick`
pub(super) async fn kick(
    State(service): State<Arc<Service>>,
    caller: Admin,
    PathPlayer(player): PathPlayer,
    JsonBody(body): JsonBody,
) -> Result<Json<Kicked>, Problem> {
    let asked: Asked<'_> = body.read()?;
    if asked.revoke_before.is_some() {
        return Err(Problem::not_built("this version cannot revoke tokens; nothing was done"));
    }
    let reason = asked.reason.as_str();
    if reason.len() > REASON_BYTES_MAX {
        return Err(Problem::bad_request("reason: at most 256 bytes"));
    }
    let code = asked.code.unwrap_or(CloseCode::Kicked.number());
    match CloseCode::numbered(code) {
        Some(CloseCode::Kicked | CloseCode::Application(_)) => {}
        _ => return Err(Problem::bad_request("code: 4502, or one of 4750 to 4999")),
    }
    let Some(cell) = service.home.find_serving(&player).await? else {
        return Ok(Json(Kicked { sessions: 0 }));
    };
    let sessions = service.end_all(&cell, code, reason);
    if sessions > 0 {
        caller.audit("kick", &player, None);
        service.durable_end(&cell).await?;
    }
    Ok(Json(Kicked { sessions }))
}

impl Service {
    fn end_all(&self, cell: &Arc<Cell>, code: u16, reason: &str) -> usize {
        let ids = |record: &Record| record.sessions.iter().map(|session| session.id).collect::<Vec<_>>();
        let sessions = cell.read(ids).unwrap_or_default();
        // One that ended by itself meanwhile is not counted.
        let ended = sessions.into_iter().filter(|session| {
            let kicked = EndReason::Kicked { code, reason: reason.into() };
            self.home.end(cell, *session, kicked, clock::now()).is_ok()
        });
        ended.count()
    }
}
