//! `GET /v1/players/{player}`: all that is known of one player, hot or cold, and not older than the caller knows.
//! `DELETE`: forgets it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use protocol::calls::{HomeView, PlayerView};
use protocol::reply::ErrorBody;
use protocol::{CloseCode, ErrorCode};
use serde::Deserialize;
use tokio::time::Instant;

use super::Service;
use super::bans::ban_view;
use super::body::PathPlayer;
use super::door::{Admin, Reader};
use super::problem::Problem;
use super::sessions::session_view;
use super::words::{stamp_of_text, state_of};
use crate::clock;
use crate::events::EndReason;
use crate::home::history::Verdict;
use crate::home::record::{Record, Refusal};
use crate::home::{BanAtErasure, HomeError};
use crate::ids::{PlayerId, Stamp};
use crate::wire::wire_stamp;

/// The longest that a caller may wait for a stamp.
const WAIT_MS_MAX: u64 = 10_000;
/// Between two looks while waiting; it doubles from the first to the last.
const LOOK_EVERY_MS: (u64, u64) = (5, 50);

#[derive(Deserialize)]
pub(super) struct Asked {
    min_stamp: Option<String>,
    wait_ms: Option<String>,
}

/// `GET /v1/players/{player}`
pub(super) async fn look(
    State(service): State<Arc<Service>>,
    _: Reader,
    PathPlayer(player): PathPlayer,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<PlayerView>, Problem> {
    let Query(asked) = asked.map_err(|refused| Problem::bad_request(refused.body_text()))?;
    let claim = match &asked.min_stamp {
        None => None,
        Some(text) => Some(
            stamp_of_text(text)
                .ok_or_else(|| Problem::bad_request("min_stamp: an epoch and a version, as in 17.4"))?,
        ),
    };
    let wait = match asked.wait_ms.as_deref().map(str::parse) {
        None => Duration::ZERO,
        Some(Ok(wait_ms @ 0..=WAIT_MS_MAX)) => Duration::from_millis(wait_ms),
        Some(_) => return Err(Problem::bad_request("wait_ms: a number from 0 to 10000")),
    };
    let record = match claim {
        Some(claim) => service.look_at_least(&player, claim, wait).await?,
        None => service
            .home
            .look(&player)
            .await?
            .ok_or_else(|| Problem::not_found("nothing is known of this player"))?,
    };
    let view = service.player_view(&player, &record);
    service.home.may_answer(&player)?;
    Ok(Json(view))
}

#[derive(Deserialize)]
pub(super) struct Erasing {
    ban: Option<String>,
}

/// `DELETE /v1/players/{player}`
pub(super) async fn erase(
    State(service): State<Arc<Service>>,
    _: Admin,
    PathPlayer(player): PathPlayer,
    asked: Result<Query<Erasing>, QueryRejection>,
) -> Result<StatusCode, Problem> {
    let Query(asked) = asked.map_err(|refused| Problem::bad_request(refused.body_text()))?;
    let bans = match asked.ban.as_deref() {
        None => BanAtErasure::Refuse,
        Some("keep") => BanAtErasure::Keep,
        Some("lift") => BanAtErasure::Lift,
        Some(_) => return Err(Problem::bad_request("ban: keep or lift")),
    };
    let reason =
        EndReason::Kicked { code: CloseCode::Kicked.number(), reason: "the account was erased".into() };
    let erased = service.home.erase(&player, reason, bans).await.map_err(|error| match error {
        banned @ HomeError::Refused(Refusal::Banned { .. }) => {
            Problem::from(banned).with_status(StatusCode::CONFLICT)
        }
        error => error.into(),
    })?;
    service.home.forget_all_messages(&player).await.map_err(|error| match error {
        HomeError::Store(_) => Problem::applied_only(
            wire_stamp(erased.stamp),
            "the store has not forgotten the player's messages yet: the same call again sees to it",
        ),
        error => error.into(),
    })?;
    service.home.erase_blobs(&player).await.map_err(|_| {
        Problem::applied_only(
            wire_stamp(erased.stamp),
            "the store has not forgotten the player's blobs yet: the same call again sees to it",
        )
    })?;
    service.durable(&erased.cell, erased.stamp).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Service {
    fn player_view(&self, player: &PlayerId, record: &Record) -> PlayerView {
        let ctx = self.home.context(clock::now());
        let presence = crate::presence::item(player, &record.view);
        PlayerView {
            player: player.as_str().to_owned(),
            last_seen: presence.last_seen,
            presence,
            sessions: record.sessions.iter().map(|session| session_view(session, ctx)).collect(),
            state: state_of(&record.state),
            state_stamp: wire_stamp(record.state_stamp),
            stamp: wire_stamp(record.stamp()),
            home: HomeView {
                node: self.settings.node_id.clone(),
                shard: self.home.placement().shard_of(player).number(),
            },
            ban: record.ban_now(ctx.now.unix_ms).map(ban_view),
            revoked_before: Some(record.revoked_before()).filter(|before| *before > 0),
        }
    }

    /// The record once it contains the claimed stamp.
    async fn look_at_least(
        &self,
        player: &PlayerId,
        claim: Stamp,
        wait: Duration,
    ) -> Result<Record, Problem> {
        let deadline = Instant::now() + wait;
        let (mut pause_ms, pause_ms_max) = LOOK_EVERY_MS;
        // Whatever was claimed of a player of whom nothing is known is lost, or was never true.
        let mut record = self.home.look(player).await?.ok_or_else(|| rolled_back(None))?;
        loop {
            match record.history.judge(record.stamp(), claim) {
                Verdict::Reached => return Ok(record),
                Verdict::RolledBack(to) => return Err(rolled_back(Some(to))),
                Verdict::Unknown => return Err(rolled_back(None)),
                Verdict::Behind if Instant::now() >= deadline => {
                    let body = ErrorBody::new(ErrorCode::Behind, "the record has not reached this stamp");
                    return Err(ErrorBody { stamp: Some(wire_stamp(record.stamp())), ..body }.into());
                }
                Verdict::Behind => {}
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + Duration::from_millis(pause_ms))).await;
            pause_ms = pause_ms_max.min(pause_ms * 2);
            // Only in memory does a record change: the store need not be asked again. Copied once it has changed.
            let seen = record.stamp();
            let hot = self.home.find_serving(player).await?;
            let changed = hot.and_then(|cell| {
                cell.read(|record| (record.stamp() != seen).then(|| record.clone())).flatten()
            });
            if let Some(changed) = changed {
                record = changed;
            }
        }
    }
}

fn rolled_back(to: Option<Stamp>) -> Problem {
    let body = ErrorBody::new(ErrorCode::RolledBack, "what the caller saw was lost");
    ErrorBody { to: Some(to.map(wire_stamp)), ..body }.into()
}
