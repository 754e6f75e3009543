//! A shard goes to another node: no more answers, the last changes committed, what its clients may not have seen laid out
//! for the next home, the lease given back, the memory freed, the links told where to go, in this order. What cannot be
//! committed is not given away: then all goes on here. Called by `keeper`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Home;
use super::batch::Outcome;
use super::lease::{Event, State};
use super::parcels::Pieces;
use super::placement::node_of;
use super::records::{Cell, Flight};
use super::shard::{Fence, Shard};
use crate::clock;
use crate::events::{LinkEnd, NewHome};
use crate::ids::ShardId;
use crate::store::{Committed, Reach};

/// How long requests may wait for a drain: past it the shard goes on here.
const HOLD: Duration = Duration::from_millis(200);
/// How long links of a shard that was handed over stay, so that their clients connect to the new home first.
pub const MOVED_WITHIN: Duration = Duration::from_secs(2);
/// How long the flush of a shard that stays waits after a commit that failed.
const RETRY_MS: u64 = 100;
/// Tries to give a lease back.
const RELEASES_MAX: usize = 2;

impl Home {
    /// Hands a shard over that has stopped answering. `None` when its end was told already.
    pub(super) async fn drain(&self, shard: &Arc<Shard>) -> Option<Event> {
        let Some(fence) = shard.fence() else {
            return Some(Event::Drained { epoch: shard.lease().1, released: false });
        };
        let ended = |released| Some(Event::Drained { epoch: fence.epoch, released });
        let until = Instant::now() + HOLD;
        let Ok(turn) = tokio::time::timeout_at(until, shard.commit_turn.lock()).await else {
            return ended(false);
        };
        self.tell_ahead(&self.records.of_shard(shard), clock::now());
        let mut committing = std::pin::pin!(self.commit_rest(shard, &fence, until));
        let committed = match tokio::time::timeout_at(until, &mut committing).await {
            Ok(committed) => committed,
            Err(_) => {
                // The store may still take it, and its answer must be settled; but nobody waits for it any longer.
                let is_told =
                    self.tell_keeper(shard.id(), Event::Drained { epoch: fence.epoch, released: false });
                committing.await;
                drop(turn);
                self.keep_on(shard);
                return if is_told { None } else { ended(false) };
            }
        };
        // Where nothing was dirty, nobody has asked the store: it must be there for the next home, too.
        if !committed || self.store.reach(shard.id()) != Reach::Well {
            drop(turn);
            self.keep_on(shard);
            tracing::debug!(
                operation = "drain",
                shard = shard.id().number(),
                "the last changes are not stored: the shard stays"
            );
            return ended(false);
        }
        // Before the lease goes: whoever is granted it next finds them.
        let cells = self.records.of_shard(shard);
        self.lay_out(shard, fence.epoch, &cells, Pieces::new());
        self.give_back(shard, &fence).await;
        // Also when no answer came: the store may have done it, so nothing more may be said here.
        let is_ours = shard.is_under(fence.epoch);
        let cells = if is_ours { cells } else { Vec::new() };
        if is_ours {
            self.free_all(shard, &cells);
        }
        drop(turn);
        self.tell_handed_over(shard.id(), &cells);
        ended(true)
    }

    /// Commits whatever is dirty; says whether nothing is left. Whoever calls holds the shard's turn.
    async fn commit_rest(&self, shard: &Arc<Shard>, held: &Fence, until: Instant) -> bool {
        while shard.dirty_records() > 0 {
            let is_ours = shard.is_under(held.epoch) && shard.lease().0 == State::Draining;
            if !is_ours || shard.has_blind() || Instant::now() >= until {
                return false;
            }
            // Before the records leave their queue: a stop may be looking whether all is stored.
            self.in_flight.begin();
            let goes_on = self.commit_some(shard).await;
            self.in_flight.end();
            if !goes_on {
                return false;
            }
        }
        shard.is_under(held.epoch)
    }

    /// One batch; says whether the store takes more.
    async fn commit_some(&self, shard: &Arc<Shard>) -> bool {
        let Some(fence) = shard.next_batch() else { return false };
        let (sent, records) = self.gather(shard, &fence, clock::now());
        if records.is_empty() {
            return true;
        }
        let began = std::time::Instant::now();
        let answer = self.store.commit(self.batch(shard, &fence, records)).await;
        let flight = Flight { began, took: began.elapsed(), records: sent.len() };
        // What some records need beyond this goes out with the next number.
        let goes_on = matches!(answer, Ok(Committed::Done(_) | Committed::Stale { .. }));
        let outcome = self.settle(shard, &fence, sent, (answer, flight), clock::now());
        shard.landed(outcome == Outcome::Done);
        goes_on
    }

    /// The shard stays: its flush goes on after a moment, as after any commit that failed.
    fn keep_on(&self, shard: &Shard) {
        self.agenda.hold(shard.id(), clock::now().mono_ms + RETRY_MS, shard.is_urgent());
    }

    async fn give_back(&self, shard: &Shard, fence: &Fence) {
        for _ in 0..RELEASES_MAX {
            match self.store.lease_release(shard.id(), &self.owner, fence.epoch).await {
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(operation = "drain", shard = shard.id().number(), status = %error, "the lease may have to run out");
                }
            }
        }
    }

    /// Where clients of another node's players connect to, if that is known.
    pub(super) fn way_to(&self, node: &str) -> Option<Arc<NewHome>> {
        let snapshot = self.members.snapshot();
        let member = snapshot.named(node).filter(|member| member.owner != self.owner)?;
        Some(Arc::new(NewHome {
            node: member.owner.node().into(),
            url: member.says.url.as_str().into(),
            within_ms: super::record::millis(MOVED_WITHIN),
        }))
    }

    /// Tells the links of a shard that was handed over where to go.
    fn tell_handed_over(&self, shard: ShardId, cells: &[Arc<Cell>]) {
        let snapshot = self.members.snapshot();
        let heir = node_of(shard, snapshot.takers()).and_then(|node| self.way_to(node));
        let end = || heir.clone().map_or(LinkEnd::Moved, LinkEnd::HandedOver);
        for cell in cells {
            let sessions = cell.with_slot(|slot| std::mem::take(&mut slot.record.sessions));
            self.meters.moved("given", sessions.len());
            for session in sessions {
                self.events.sessions.update(session.id, |event| {
                    (event.link_end, event.watched) = (Some(end()), session.watches);
                });
            }
        }
        let node = heir.as_ref().map(|heir| &*heir.node);
        tracing::debug!(
            operation = "drain",
            shard = shard.number(),
            players = cells.len(),
            node,
            "handed over"
        );
    }
}
