//! `GET /v1/players/{player}/timeline`: why was this player disconnected. Her latest comings and goings, told by her
//! home, or read from the store for one who is not here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Service;
use super::body::PathPlayer;
use super::door::Reader;
use super::problem::Problem;
use crate::home::record::notes::{Happened, What};
use crate::wire::end_code;

#[derive(Serialize)]
pub(super) struct TimelineView {
    player: String,
    entries: Vec<HappenedView>,
    /// The store did not answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

/// One thing that happened, as services see it: of the timeline, and of the events.
#[derive(Debug, Default, Serialize)]
pub(super) struct HappenedView {
    pub(super) kind: String,
    at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    node: String,
    epoch: u64,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<protocol::request::Status>,
}

impl HappenedView {
    pub(super) fn of(happened: Happened<'_>) -> Self {
        let view = Self {
            kind: happened.kind.as_ref().to_owned(),
            at: happened.at,
            session: happened.session().map(|session| session.to_string()),
            node: happened.node.as_ref().to_owned(),
            epoch: happened.epoch,
            version: happened.version,
            code: happened.code,
            why: happened.why.as_deref().map(str::to_owned),
            status: happened.status.map(super::words::wire_status),
            ..Self::default()
        };
        let text = happened.text.as_deref().map(str::to_owned);
        match happened.into_note().map(|note| note.what) {
            Some(What::Opened { .. }) => Self { device: text, ..view },
            Some(What::Moved { .. }) => Self { from: text, ..view },
            Some(What::Ended(ended)) => Self { code: Some(end_code(&ended)), reason: text, ..view },
            _ => view,
        }
    }
}

/// `GET /v1/players/{player}/timeline`
pub(super) async fn look(
    State(service): State<Arc<Service>>,
    _: Reader,
    PathPlayer(player): PathPlayer,
) -> Result<Json<TimelineView>, Problem> {
    let timeline = service
        .home
        .timeline(&player)
        .await?
        .ok_or_else(|| Problem::not_found("nothing is known of this player"))?;
    service.home.may_answer(&player)?;
    Ok(Json(TimelineView {
        player: player.as_str().to_owned(),
        entries: timeline.entries.into_iter().map(HappenedView::of).collect(),
        partial: timeline.is_partial,
    }))
}
