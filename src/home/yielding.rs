//! What this node gives of a shard to its next home: replay buffers, laid out when the shard is handed over and given when
//! that node asks. A node that is asked while it still believes to hold the shard is fenced before it answers. Called by
//! `handover` and by the peer links; the asking side is `pulling`.

use std::cmp::Reverse;
use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::Home;
use super::lease::Event;
use super::parcels::Sealed;
use super::pulling::{Page, Question, read, write};
use super::record::{LinkState, Record, millis};
use super::records::Cell;
use super::shard::Shard;
use crate::clock;
use crate::cluster::Correspondent;
use crate::ids::{Epoch, Owner, SessionId, ShardId};

/// What one answer holds, about: far below what a frame of a link may be.
const PAGE_BYTES: usize = 256 * 1024;
/// What may go along of one session. A page holds one such parcel beside the others at most, and a page above what a frame
/// may be would break the link, with every question on it.
const PARCEL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How much longer than a lease what is laid out is kept: the next home may have to wait for the lease to run out.
const KEPT_LONGER_MS: u64 = 2_000;
/// How far ahead of this node's clock an epoch may be: epochs are ms of the store's clock, and `lease_acquire.lua` grants
/// nothing above a floor that is further ahead of it.
const AHEAD_MS_MAX: u64 = 86_400_000;

impl Home {
    /// Whom the links give what other homes ask.
    #[must_use]
    pub fn correspondent(self: &Arc<Self>) -> Arc<dyn Correspondent> {
        Arc::new(Ear(Arc::clone(self)))
    }

    /// Takes what the clients of a shard may not have seen out of their mailboxes, for its next home.
    pub(super) fn lay_out(&self, shard: &Shard, epoch: Epoch, cells: &[Arc<Cell>]) {
        let Some(neighbours) = &self.neighbours else { return };
        let mut sessions: Vec<_> = cells.iter().filter_map(|cell| cell.read(usefulness)).flatten().collect();
        sessions.sort_unstable_by_key(|(useful, _)| Reverse(*useful));
        let seal = |(_, session)| Some((session, neighbours.mailboxes.seal(session)?));
        let mut sealed: Sealed = sessions.into_iter().filter_map(seal).collect();
        let all = sealed.len();
        sealed.retain(|(_, parcel)| parcel.bytes() <= PARCEL_BYTES_MAX);
        let too_heavy = all - sealed.len();
        let until_ms = clock::now().mono_ms + millis(self.settings.lease_ttl) + KEPT_LONGER_MS;
        let without = too_heavy + self.parcels.lay_out(shard.id(), epoch, sealed, until_ms);
        if without > 0 {
            tracing::warn!(
                operation = "drain",
                shard = shard.id().number(),
                sessions = without,
                "more waits for clients than can be handed over: they hear that they missed it"
            );
        }
    }

    /// Another node, which holds the shard under this epoch, asks for what is here of it.
    fn give(&self, to: &Owner, shard: u16, epoch: u64) -> Option<Page> {
        let shard = self.shard(ShardId::numbered(shard)?).ok()?;
        let (asked_under, (_, ours)) = (Epoch::of(epoch), shard.lease());
        if ours > asked_under {
            return None;
        }
        if epoch > clock::now().unix_ms.saturating_add(AHEAD_MS_MAX) {
            tracing::warn!(
                operation = "pull", shard = shard.id().number(), %epoch, by = %to,
                "another node claims the shard under an epoch that no store has given"
            );
            return None;
        }
        // What is laid out is that of a hand-over on its last steps, which need no help.
        if !self.parcels.has(shard.id())
            && let Some(held_under) = shard.overtake(asked_under)
        {
            tracing::warn!(
                operation = "pull", shard = shard.id().number(), epoch = %held_under, by = %to,
                "another node has the shard that was held here"
            );
            self.lay_out(shard, held_under, &self.records.of_shard(shard));
            self.tell_keeper(shard.id(), Event::Overtaken { epoch: asked_under });
        }
        let (sessions, more) = self.parcels.page(shard.id(), asked_under, PAGE_BYTES);
        let packed = sessions.iter().map(|(session, parcel)| (*session, parcel.packed()));
        Some(Page::of(packed, more))
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
        let Some(Question::Pull { shard, epoch }) = read(&body) else { return Box::pin(ready(None)) };
        let home = Arc::clone(&self.0);
        Box::pin(async move { home.give(&from, shard, epoch).map(|page| write(&page)) })
    }

    fn up(&self, _: &Owner) {
        self.0.linked.notify_waiters();
    }

    fn down(&self, _: &Owner) {}
}

#[cfg(test)]
mod tests;
