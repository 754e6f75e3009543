//! Waiting for a commit: whoever was promised that a change is durable before the answer comes. In the trace of who waits
//! the commit that brought it is a span of its own, by the time that the store itself took. Called by links and services.

use std::borrow::Cow;

use tokio::sync::oneshot;

use super::Home;
use super::records::{Cell, Durability, Flight};
use super::shard::Shard;
use crate::telemetry::traces::{self, Kind, Span, Work};

/// What came of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// The store has it.
    Committed,
    /// The shard was lost before.
    Fenced,
    /// It has not taken it in time.
    Late,
}

impl Home {
    /// Waits for a commit, at most as long as a `durable` ack may.
    pub async fn until_stored(&self, cell: &Cell, committed: oneshot::Receiver<Durability>) -> Stored {
        let work = traces::begin_here();
        let outcome = tokio::time::timeout(self.settings.durable_wait, committed).await;
        let (stored, flight) = match outcome {
            Ok(Ok(Durability::Committed(flight))) => (Stored::Committed, flight),
            Ok(Ok(Durability::Fenced) | Err(_)) => (Stored::Fenced, None),
            Err(_) => (Stored::Late, None),
        };
        if let Some(work) = work {
            self.tell_commit(work, cell.shard(), stored, flight);
        }
        stored
    }

    fn tell_commit(&self, work: Work, shard: &Shard, stored: Stored, flight: Option<Flight>) {
        let failed: Option<Cow<'static, str>> = match stored {
            Stored::Committed => None,
            Stored::Fenced => Some("fenced".into()),
            Stored::Late => Some("timeout".into()),
        };
        let work = match (flight, &failed) {
            (Some(flight), _) => work.lasting(flight.began, flight.took),
            (None, Some(_)) => work,
            // The store had it before anybody asked.
            (None, None) => return,
        };
        let kind = self.store.kind();
        let system = if kind == "embedded" { "redb" } else { "redis" };
        work.end(failed, || {
            Span::new(Kind::Client, "commit")
                .with("db.system.name", system)
                .with("db.operation.name", "commit")
                .with_some("db.operation.batch.size", flight.map(|flight| flight.records))
                .with("hearth.shard", shard.id().number())
                .with("hearth.epoch", shard.last_epoch().number())
        });
    }
}
