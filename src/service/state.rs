//! `PATCH /v1/players/{player}/state`: as `state.patch` on the wire, without a session's counter.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::reply::Changed;
use protocol::request::{Ack, StatePatch};
use protocol::{ErrorCode, Text, Value};

use super::Service;
use super::body::{JsonBody, PathPlayer};
use super::door::Writer;
use super::problem::Problem;
use crate::clock;
use crate::home::record::state::Patch;
use crate::wire::{house_stamp, wire_stamp, write_value};

/// `PATCH /v1/players/{player}/state`
pub(super) async fn change(
    State(service): State<Arc<Service>>,
    _: Writer,
    PathPlayer(player): PathPlayer,
    JsonBody(body): JsonBody,
) -> Result<Json<Changed>, Problem> {
    let asked: StatePatch<'_> = body.read()?;
    let ack = asked.ack.unwrap_or_default();
    if ack == Ack::Replicated && !service.home.has_replicas(&player).await? {
        return Err(Problem::new(
            ErrorCode::StoreUnavailable,
            "the store has not enough replicas to wait for; nothing was changed",
        ));
    }
    let patch = Patch {
        set: asked.set.iter().flatten().map(|(key, value)| (key.as_str(), write_value(value))).collect(),
        unset: asked.unset.iter().flatten().map(Text::as_str).collect(),
        incr: asked.incr.iter().flatten().map(|(key, by)| (key.as_str(), *by)).collect(),
        if_state: asked.if_state.map(house_stamp),
    };
    let cell = service.home.find_serving(&player).await?;
    let cell = cell.ok_or_else(|| Problem::not_found("the player has no session"))?;
    let applied =
        service.home.apply(&cell, clock::now(), |record, ctx| record.patch_by_service(ctx, &patch))?;
    if ack != Ack::Applied {
        service.durable(&cell, applied.stamp).await?;
    }
    if ack == Ack::Replicated {
        service.replicated(&cell, applied.stamp).await?;
    }
    service.home.may_answer(&player)?;
    let counted = applied.value.counted.into_iter().map(|(key, count)| (key.into(), Value::Int(count)));
    Ok(Json(Changed {
        stamp: wire_stamp(applied.stamp),
        state_stamp: Some(wire_stamp(applied.value.state_stamp)),
        ack: Some(ack),
        state: (!patch.incr.is_empty()).then(|| counted.collect()),
        // What was waited for is stored, whatever is the matter now.
        prov: (ack == Ack::Applied && cell.shard().is_provisional()).then_some(true),
        ..Changed::default()
    }))
}
