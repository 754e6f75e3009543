//! What the store does not have of a shard, asked of its home before: replay buffers, page by page, until all is here or
//! the time is up. What has not come by then its sessions hear as missed, and nobody waits longer. Called by `keeper`
//! between grant and load; the asked side is `yielding`. Also the words in which both speak.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Home;
use super::lease::PULL_MS;
use super::shard::{Fence, Shard};
use crate::cluster::{CallError, Links, Topic};
use crate::ids::{Epoch, Owner, SessionId, ShardId};
use crate::store::Grant;

/// How long all of a shard may take.
const PULL: Duration = Duration::from_millis(PULL_MS);
/// How long a live node without a link is waited for: it has perhaps just come.
const LINK: Duration = Duration::from_millis(250);
/// Shards that are asked for at a time: each has one page under way, and a link carries other things, too.
pub(super) const PULLS_MAX: usize = 16;
/// A part that holds what a session's client may not have seen; its key is the session.
const REPLAY: u8 = 1;

/// What one home asks another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// Give me what you have of this shard, which I hold under this epoch: a [`Page`] of it, and each part once.
    Pull { shard: u16, epoch: u64 },
}

/// Some of what there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Page {
    parts: Vec<Part>,
    /// There is more: ask again.
    more: bool,
}

/// One thing of a shard. Whoever does not know its kind passes it over: that is how what else a home can give comes to be
/// told between versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    kind: u8,
    key: Bytes,
    body: Bytes,
}

impl Page {
    pub(super) fn of(replays: impl Iterator<Item = (SessionId, Bytes)>, more: bool) -> Self {
        let part = |(session, body): (SessionId, Bytes)| Part {
            kind: REPLAY,
            key: Bytes::copy_from_slice(session.as_bytes()),
            body,
        };
        Self { parts: replays.map(part).collect(), more }
    }

    /// What sessions of this shard have to be told still, and whether there is more.
    pub(super) fn replays(self, shard: ShardId) -> (Vec<(SessionId, Bytes)>, bool) {
        let replay = |part: Part| {
            let session = SessionId::from_bytes(part.key.as_ref().try_into().ok()?);
            (part.kind == REPLAY && session.shard() == shard).then_some((session, part.body))
        };
        let more = self.more && !self.parts.is_empty();
        (self.parts.into_iter().filter_map(replay).collect(), more)
    }
}

/// As nodes send it.
pub(super) fn write<T: Serialize>(value: &T) -> Bytes {
    // A value of these types always has its MessagePack.
    rmp_serde::to_vec(value).unwrap_or_default().into()
}

/// `None`: it is none.
pub(super) fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    rmp_serde::from_slice(bytes).ok()
}

/// Why a pull has not brought all.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("what it says is not understood")]
    Garbled,
    #[error("it is too late, or too much")]
    NotTaken,
}

impl Home {
    /// A shard was granted: the node to be asked for what the store does not have, if there is one that can be.
    pub(super) fn begin_pull(&self, shard: &Shard, grant: &Grant) -> Option<Owner> {
        shard.set_fence(Some(Fence::of(grant)));
        let (id, neighbours) = (shard.id(), self.neighbours.as_ref()?);
        self.arrivals.expect(id, grant.epoch);
        let Some(before) = &grant.previous_owner else {
            // Nobody had it since it was ours: what was laid out for another is our own again.
            let (sessions, _) = self.parcels.page(id, grant.epoch, usize::MAX);
            let sessions = sessions.into_iter().map(|(session, parcel)| (session, parcel.packed()));
            self.arrivals.put(id, grant.epoch, sessions.collect());
            return None;
        };
        // Others have numbered pushes since.
        self.parcels.forget(id);
        let may_be_linked = || {
            let snapshot = self.members.snapshot();
            snapshot.member(before).is_some_and(|member| member.says.peer.is_some())
        };
        (neighbours.links.stands(before) || may_be_linked()).then(|| before.clone())
    }

    /// Asks the home before; whatever has come is kept for the load.
    pub(super) async fn pull(&self, shard: ShardId, epoch: Epoch, before: &Owner) {
        let Some(neighbours) = &self.neighbours else { return };
        let began = tokio::time::Instant::now();
        let mut sessions = 0;
        let pulled = self.pull_pages(&neighbours.links, (shard, epoch), before, &mut sessions);
        let (outcome, status) = match tokio::time::timeout(PULL, pulled).await {
            Ok(Ok(())) => ("done", None),
            Ok(Err(error)) => ("failed", Some(error)),
            Err(_) => ("late", None),
        };
        self.meters.pulled(outcome);
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let status = status.as_ref().map(tracing::field::display);
        let shard = shard.number();
        tracing::debug!(operation = "pull", shard, %epoch, from = %before, sessions, duration_ms, outcome, status);
    }

    async fn pull_pages(
        &self,
        links: &Links,
        (shard, epoch): (ShardId, Epoch),
        before: &Owner,
        sessions: &mut usize,
    ) -> Result<(), PullError> {
        tokio::time::timeout(LINK, self.linked_to(links, before)).await.map_err(|_| CallError::NoLink)?;
        // Never closed.
        let _turn = self.pulls.acquire().await;
        let question = write(&Question::Pull { shard: shard.number(), epoch: epoch.number() });
        loop {
            let answer = links.call(before, Topic::Home, question.clone(), PULL).await?;
            let page: Page = read(&answer).ok_or(PullError::Garbled)?;
            let (replays, more) = page.replays(shard);
            *sessions += replays.len();
            if !self.arrivals.put(shard, epoch, replays) {
                return Err(PullError::NotTaken);
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Waits until a link to a node stands.
    async fn linked_to(&self, links: &Links, peer: &Owner) {
        loop {
            let linked = self.linked.notified();
            if links.stands(peer) {
                return;
            }
            linked.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_another_shard_or_of_a_kind_from_tomorrow_is_passed_over() {
        let here = SessionId::generate(ShardId::FIRST, 1);
        let elsewhere = SessionId::generate(ShardId::numbered(1).unwrap(), 1);
        let sessions = [here, elsewhere].map(|session| (session, Bytes::from("x")));
        let mut page = Page::of(sessions.into_iter(), true);
        page.parts.push(Part { kind: 2, key: Bytes::from("a player"), body: Bytes::from("a record") });
        let page: Page = read(&write(&page)).unwrap();
        assert_eq!(page.replays(ShardId::FIRST), (vec![(here, Bytes::from("x"))], true));
        // Who has more and gives nothing is not asked for ever.
        assert_eq!(Page::of(std::iter::empty(), true).replays(ShardId::FIRST), (Vec::new(), false));
    }
}
