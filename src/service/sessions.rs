//! `/v1/sessions`: a login service makes a session before the client connects; looking at one; logging one out.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::calls::{Made, Open, SessionView};
use protocol::limits::DEVICE_BYTES_MAX;
use protocol::reply::ErrorBody;
use protocol::{ErrorCode, Text, Value};

use super::Service;
use super::body::{JsonBody, PathSession, player_of};
use super::door::{Reader, Writer};
use super::problem::Problem;
use super::words::status_of;
use crate::clock::{self, millis};
use crate::events::{EndReason, Status};
use crate::home::record::state::Patch;
use crate::home::record::{Context, LinkState, Refusal, Session};
use crate::home::{HomeError, Login, Opened};
use crate::wire::{RETRY_AFTER_MS, write_value};

/// The device of a session whose maker names none.
const DEVICE: &str = "other";

/// `POST /v1/sessions`
pub(super) async fn open(
    State(service): State<Arc<Service>>,
    caller: Writer,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let open: Open<'_> = body.read()?;
    let player = player_of("player", open.player.as_str())?;
    caller.concerns(&player, None);
    let device = checked_device(open.device.as_ref().map_or(DEVICE, Text::as_str))?;
    let now = clock::now();
    let login = Login {
        player: player.clone(),
        device: device.into(),
        status: Status::Online,
        token_issued_at_unix_ms: now.unix_ms,
        token_expires_at_unix_ms: now.plus_ms(millis(service.settings.credentials_ttl)).unix_ms,
        // No token, no rooms: a service puts the player in, or the configuration opens them.
        grants: Box::default(),
        pending: true,
    };
    let opened = service.home.login(login).await.map_err(|error| match error {
        HomeError::Refused(Refusal::SessionLimit) => Problem::new(
            ErrorCode::SessionLimit,
            "no place for one more: too many sessions of this player wait for their client",
        ),
        error => error.into(),
    })?;
    caller.concerns(&player, Some(opened.session));
    let mut prov = opened.is_provisional;
    if let Some(state) = open.state.filter(|state| !state.is_empty()) {
        service.put_state(&opened, &state).await?;
        // With its state the session is stored.
        prov = false;
    }
    service.home.may_answer(&player)?;
    let made = Made {
        session: opened.session.to_string(),
        ticket: opened.ticket,
        pending_ms: millis(service.home.settings().pending),
        url: service.settings.client_url.clone(),
        prov,
    };
    let headers = [
        (header::LOCATION, format!("/v1/sessions/{}", opened.session)),
        // The ticket is a secret: no cache may keep it.
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((StatusCode::CREATED, headers, Json(made)).into_response())
}

fn checked_device(device: &str) -> Result<&str, Problem> {
    if device.is_empty() || device.len() > DEVICE_BYTES_MAX || device.chars().any(char::is_control) {
        return Err(Problem::bad_request("device: 1 to 16 bytes without control characters"));
    }
    Ok(device)
}

impl Service {
    /// Puts the first state into a new session, or leaves no session behind.
    async fn put_state(&self, opened: &Opened, state: &BTreeMap<Text<'_>, Value>) -> Result<(), Problem> {
        let set = state.iter().map(|(key, value)| (key.as_str(), write_value(value))).collect();
        let patch = Patch { set, ..Patch::default() };
        let applied =
            self.home.apply(&opened.cell, clock::now(), |record, ctx| record.patch_by_service(ctx, &patch));
        let stored = match applied {
            // The session was durable before its state was: so must the state be.
            Ok(applied) => self.durable(&opened.cell, applied.stamp).await,
            Err(error) => Err(error.into()),
        };
        stored.map_err(|problem| {
            let _ = self.home.end(&opened.cell, opened.session, EndReason::Logout, clock::now());
            // Its state may be in force; what was asked for, a session, is not there.
            if problem.code() == ErrorCode::StoreUnavailable {
                let told = "the store has not taken the first state, and no session was made";
                return ErrorBody::new(ErrorCode::StoreUnavailable, told).after(RETRY_AFTER_MS).into();
            }
            problem
        })
    }
}

/// One session, as services see it.
pub(super) fn session_view(session: &Session, ctx: Context<'_>) -> SessionView {
    SessionView {
        session: session.id.to_string(),
        player: None,
        device: session.device.as_ref().to_owned(),
        status: status_of(session),
        attached: session.link == LinkState::Attached,
        pending: matches!(session.link, LinkState::Pending { .. }),
        cseq: session.cseq,
        expires_in_ms: session.expires_at(ctx).saturating_sub(ctx.now.unix_ms),
    }
}

/// `GET /v1/sessions/{session}`
pub(super) async fn look(
    State(service): State<Arc<Service>>,
    _: Reader,
    PathSession(session): PathSession,
) -> Result<Json<SessionView>, Problem> {
    let cell = service.home.find_session(session).await?.ok_or_else(no_session)?;
    let ctx = service.home.context(clock::now());
    let seen = cell.read(|record| record.session(session).map(|session| session_view(session, ctx)));
    let mut view = seen.flatten().ok_or_else(no_session)?;
    view.player = Some(cell.player().as_str().to_owned());
    service.home.may_answer(cell.player())?;
    Ok(Json(view))
}

/// `DELETE /v1/sessions/{session}`
pub(super) async fn log_out(
    State(service): State<Arc<Service>>,
    caller: Writer,
    PathSession(session): PathSession,
) -> Result<StatusCode, Problem> {
    let cell = service.home.find_session(session).await?.ok_or_else(no_session)?;
    caller.concerns(cell.player(), Some(session));
    let ended = service.home.end(&cell, session, EndReason::Logout, clock::now()).map_err(Problem::from);
    ended.map_err(|problem| if problem.code() == ErrorCode::NotFound { no_session() } else { problem })?;
    service.durable_end(&cell).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn no_session() -> Problem {
    Problem::not_found("there is no such session")
}
