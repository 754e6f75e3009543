//! What this node gives of a shard to its next home: records that the store does not have, and replay buffers. Laid out when
//! the shard is handed over or lost, and given when that node asks. A node that is asked while it still believes to hold
//! the shard is fenced before it answers: what changes after its records were laid out is acked to nobody, for whether an
//! answer may leave is asked right before it does. Called by `handover`, `losing`, `loading` and by the peer links; the
//! asking side is `pulling`.

use std::cmp::Reverse;
use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::Home;
use super::lease::Event;
use super::parcels::{Piece, Pieces};
use super::pulling::{Page, Question, read, write};
use super::record::{LinkState, Record, millis};
use super::records::Cell;
use super::salvage;
use super::shard::Shard;
use crate::clock;
use crate::cluster::Correspondent;
use crate::ids::{Epoch, FlushSeq, Owner, SessionId, ShardId};

/// What one answer holds, about: far below what a frame of a link may be.
const PAGE_BYTES: usize = 256 * 1024;
/// What may go along of one session or record. A page holds one such piece beside the others at most, and a page above what
/// a frame may be would break the link, with every question on it.
const PIECE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How much longer than a lease what is laid out is kept: the next home may have to wait for the lease to run out.
const KEPT_LONGER_MS: u64 = 2_000;

impl Home {
    /// Whom the links give what other homes ask.
    #[must_use]
    pub fn correspondent(self: &Arc<Self>) -> Arc<dyn Correspondent> {
        Arc::new(Ear(Arc::clone(self)))
    }

    /// Lays out what the next home of a shard cannot know from the store: records first, for one is worth more than what
    /// was pushed, then what the clients may not have seen, taken out of their mailboxes, then what this node itself was
    /// given and has not taken in. Nothing of the shard may be answered any more.
    pub(super) fn lay_out(&self, shard: &Shard, epoch: Epoch, cells: &[Arc<Cell>], arrived: Pieces) {
        let Some(neighbours) = &self.neighbours else { return };
        let packed = |cell: &Arc<Cell>| {
            let body = cell.with_slot(|slot| salvage::pack(slot, self.owner.node()))?;
            Some(Piece::Record(cell.player().clone(), body))
        };
        let mut pieces: Pieces = cells.iter().filter_map(packed).collect();
        let records = pieces.len();
        let mut sessions: Vec<_> = cells.iter().filter_map(|cell| cell.read(usefulness)).flatten().collect();
        sessions.sort_unstable_by_key(|(useful, _)| Reverse(*useful));
        let seal = |(_, session)| Some(Piece::Replay(session, neighbours.mailboxes.seal(session)?));
        pieces.extend(sessions.into_iter().filter_map(seal));
        pieces.extend(arrived);
        let all = pieces.len();
        pieces.retain(|piece| piece.bytes() <= PIECE_BYTES_MAX);
        let too_heavy = all - pieces.len();
        let until_ms = clock::now().mono_ms + millis(self.settings.lease_ttl) + KEPT_LONGER_MS;
        let without = too_heavy + self.parcels.lay_out(shard.id(), epoch, pieces, until_ms);
        tracing::debug!(
            operation = "lay_out", shard = shard.id().number(), %epoch, records, pieces = all, without
        );
        if without > 0 {
            tracing::warn!(
                operation = "lay_out",
                shard = shard.id().number(),
                pieces = without,
                "more is not stored or waits for clients than can be handed over: they hear that it is lost or missed"
            );
        }
    }

    /// Another node, which holds the shard under this epoch, asks for what is here of it; `from` which piece on, if it
    /// counts them, and how far the store was flushed that gave it to that node.
    fn give(&self, to: &Owner, shard: u16, epoch: u64, from: Option<(u64, FlushSeq)>) -> Option<Page> {
        let shard = self.shard(ShardId::numbered(shard)?).ok()?;
        let (asked_under, (_, ours)) = (Epoch::of(epoch), shard.lease());
        if ours > asked_under {
            return None;
        }
        if !self.store_time.may_have_given(epoch, clock::now()) {
            tracing::warn!(
                operation = "pull", shard = shard.id().number(), %epoch, by = %to,
                "another node claims the shard under an epoch that no store has given"
            );
            return None;
        }
        // What is laid out is that of a hand-over or a loss on its last steps, which need no help.
        // What is left of an earlier life of the shard here says nothing of this one.
        let is_laid_out = match shard.fence() {
            Some(held) => self.parcels.has_of(shard.id(), held.epoch),
            None => self.parcels.has(shard.id()),
        };
        let held_under = if is_laid_out { None } else { shard.overtake(asked_under) };
        if let Some(held_under) = held_under {
            // A node that is cut off loses all its shards at once: told together.
            self.overtaken.note(shard.id(), to);
            let arrived = self.arrivals.take(shard.id(), held_under).into_pieces();
            let cells = self.records.of_shard(shard);
            if from.is_some_and(|(_, flushed)| self.knows_of_later(shard, flushed)) {
                tracing::warn!(
                    operation = "pull", shard = shard.id().number(), by = %to,
                    "the store that gave it away has lost what another acknowledged: all that is in memory goes along"
                );
                cells.iter().for_each(|cell| cell.with_slot(|slot| slot.restore = true));
            }
            self.lay_out(shard, held_under, &cells, arrived);
        }
        let by = (to, asked_under);
        let (pieces, more) = match from {
            Some((from, _)) => self.parcels.page_from(shard.id(), by, from, PAGE_BYTES),
            None => self.parcels.page_once(shard.id(), by, PAGE_BYTES),
        };
        // After that: who is told where to go hears to whom it was given.
        if held_under.is_some() {
            self.tell_keeper(shard.id(), Event::Overtaken { epoch: asked_under });
        }
        Some(Page::of(pieces, more))
    }

    /// Whether batches after this one were acknowledged: by a master that others do not take for one any more. Then the
    /// store has nothing of them, though every record here looks stored.
    fn knows_of_later(&self, shard: &Shard, flushed: FlushSeq) -> bool {
        !self.settings.lost_writes_unchecked
            && shard.fence().is_some_and(|fence| fence.flush_seq_acked > flushed)
    }
}

/// The sessions of a player that may have a mailbox: whoever has a link comes back first, then who left last.
fn usefulness(record: &Record) -> Vec<(u64, SessionId)> {
    let useful = |link: &LinkState| match link {
        LinkState::Attached => Some(u64::MAX),
        LinkState::Detached { since } => Some(*since),
        LinkState::Pending { .. } => None,
    };
    let sessions = record.sessions.iter();
    sessions.filter_map(|session| Some((useful(&session.link)?, session.id))).collect()
}

/// `Home` as the links know it.
struct Ear(Arc<Home>);

impl Correspondent for Ear {
    fn letter(&self, from: &Owner, _: Bytes) {
        tracing::warn!(operation = "home_letter", %from, "homes ask, and write no letters");
    }

    fn call(&self, from: Owner, body: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        let (shard, epoch, piece) = match read(&body) {
            Some(Question::Pull { shard, epoch }) => (shard, epoch, None),
            Some(Question::From { shard, epoch, from, flushed }) => {
                (shard, epoch, Some((from, FlushSeq::of(flushed))))
            }
            None => return Box::pin(ready(None)),
        };
        let home = Arc::clone(&self.0);
        Box::pin(async move { home.give(&from, shard, epoch, piece).map(|page| write(&page)) })
    }

    fn up(&self, _: &Owner) {
        self.0.linked.notify_waiters();
    }

    fn down(&self, _: &Owner) {}
}

#[cfg(test)]
mod tests;
