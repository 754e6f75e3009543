//! What a shard goes through on its way from or to another node, as a trace of its own: sampled like others, and kept if it
//! comes to nothing or is slow. Called by `keeper`.

use std::future::Future;

use crate::ids::{Epoch, ShardId};
use crate::telemetry::traces::{self, Kind, Span};

/// Carries one step out.
pub(super) async fn traced<T>(
    name: &'static str,
    (shard, epoch): (ShardId, Epoch),
    step: impl Future<Output = T>,
    failed: impl FnOnce(&T) -> Option<&'static str>,
) -> T {
    let work = traces::begin(None);
    let outcome = traces::during(work.as_ref(), step).await;
    if let Some(work) = work {
        let span = || {
            let span = Span::new(Kind::Internal, name);
            span.with("hearth.shard", shard.number()).with("hearth.epoch", epoch.number())
        };
        work.end(failed(&outcome).map(Into::into), span);
    }
    outcome
}
