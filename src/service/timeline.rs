//! `GET /v1/players/{player}/timeline`: why was this player disconnected. Her latest comings and goings, told by her
//! home, or read from the store for one who is not here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::calls::{Happened as HappenedView, Timeline};

use super::Service;
use super::body::PathPlayer;
use super::door::Reader;
use super::problem::Problem;
use crate::home::record::notes::{Happened, What};
use crate::wire::end_code;

/// One thing that happened, as services see it: of the timeline, and of the events.
pub(super) fn view(happened: Happened<'_>) -> HappenedView {
    let view = HappenedView {
        kind: happened.kind.as_ref().to_owned(),
        at: happened.at,
        session: happened.session().map(|session| session.to_string()),
        node: happened.node.as_ref().to_owned(),
        epoch: happened.epoch,
        version: happened.version,
        code: happened.code,
        why: happened.why.as_deref().map(str::to_owned),
        status: happened.status.map(super::words::wire_status),
        ..HappenedView::default()
    };
    let text = happened.text.as_deref().map(str::to_owned);
    match happened.into_note().map(|note| note.what) {
        Some(What::Opened { .. }) => HappenedView { device: text, ..view },
        Some(What::Moved { .. }) => HappenedView { from: text, ..view },
        Some(What::Ended(ended)) => HappenedView { code: Some(end_code(&ended)), reason: text, ..view },
        _ => view,
    }
}

/// `GET /v1/players/{player}/timeline`
pub(super) async fn look(
    State(service): State<Arc<Service>>,
    _: Reader,
    PathPlayer(player): PathPlayer,
) -> Result<Json<Timeline>, Problem> {
    let timeline = service
        .home
        .timeline(&player)
        .await?
        .ok_or_else(|| Problem::not_found("nothing is known of this player"))?;
    service.home.may_answer(&player)?;
    Ok(Json(Timeline {
        player: player.as_str().to_owned(),
        entries: timeline.entries.into_iter().map(view).collect(),
        partial: timeline.is_partial,
    }))
}
