//! What nodes tell each other about the store: which shards' servers are away, and who holds which shard under which
//! epoch. Held up to `accord`, which judges. Told when a link comes up, at each change, and over and over while anything
//! is away; a word that is not repeated is soon worth nothing. Carries no player, and decides nothing.

use std::future::ready;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Home;
use super::accord::{Accord, FRESH_MS, Runs};
use super::lease::{Grounds, State};
use super::placement::node_of;
use crate::clock;
use crate::cluster::{Correspondent, Topic};
use crate::ids::{Epoch, Owner, ShardId};
use crate::store::Reach;

/// How these letters are written: first a byte that says this, then MessagePack. Others are passed over, and whoever writes
/// them counts as silent.
const VERSION: u8 = 1;
/// A letter is no longer: every shard twice, with its epoch.
const LETTER_BYTES_MAX: usize = 128 * 1024;
/// How often what holds is said again while anything is away.
const AGAIN_MS: u64 = FRESH_MS / 4;

/// A letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Letter {
    /// The shards whose servers its writer does not reach.
    away: Runs,
    /// Absent: as was said before.
    epochs: Option<Epochs>,
}

/// Shards and epochs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Epochs {
    /// Of the shards that the writer holds.
    holds: Vec<(u16, u64)>,
    /// Of those that others were said to hold; told while anything is away, for whoever has no link to them.
    knows: Vec<(u16, u64)>,
}

/// What this node has said last.
#[derive(Debug, Default)]
struct Said {
    away: Runs,
    epochs: Epochs,
    at_ms: u64,
}

/// What is said, and what is heard.
#[derive(Debug)]
pub(super) struct Whispers {
    accord: Mutex<Accord>,
    said: Mutex<Said>,
}

impl Whispers {
    pub(super) fn of(shards: usize) -> Self {
        Self { accord: Mutex::new(Accord::new(shards)), said: Mutex::default() }
    }

    /// Looks at what was heard; for a moment.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Accord) -> T) -> T {
        look(&mut self.accord.lock())
    }
}

impl Home {
    /// Whom the links give what other nodes say of the store.
    #[must_use]
    pub fn store_correspondent(self: &Arc<Self>) -> Arc<dyn Correspondent> {
        Arc::new(Ear(Arc::clone(self)))
    }

    /// Tells the other nodes what has changed, or what must be said again; `reaches`: of each shard's server, by number.
    pub(super) fn whisper(&self, reaches: &[Reach], now_ms: u64) {
        let Some(neighbours) = &self.neighbours else { return };
        let all = self.placement.all().map(ShardId::number).zip(reaches);
        let away = Runs::of(all.filter(|(_, reach)| **reach == Reach::Away).map(|(shard, _)| shard));
        let epochs = self.epochs(!away.is_empty());
        let letter = {
            let mut said = self.whispers.said.lock();
            let since_ms = now_ms.saturating_sub(said.at_ms);
            let (is_away, has_moved) = (!away.is_empty(), epochs != said.epochs);
            // Who holds what is told at once: somebody who does not reach the store may still serve it.
            let is_due = away != said.away || has_moved || (is_away && since_ms >= AGAIN_MS);
            if !is_due {
                return;
            }
            *said = Said { away: away.clone(), epochs: epochs.clone(), at_ms: now_ms };
            Letter { away, epochs: has_moved.then_some(epochs) }
        };
        let body = letter.written();
        for peer in neighbours.links.peers() {
            // Who is too far behind loses its link, and is told all of it when it is back.
            neighbours.links.post(&peer, Topic::Store, body.clone());
        }
    }

    fn epochs(&self, with_hearsay: bool) -> Epochs {
        let held = |shard: &Arc<super::shard::Shard>| {
            let (state, epoch) = shard.lease();
            let is_held = !matches!(state, State::Free | State::Fenced);
            is_held.then(|| (shard.id().number(), epoch.number()))
        };
        let holds = self.shards.iter().filter_map(held).collect();
        let heard = |accord: &mut Accord| {
            accord.all_highest().map(|(shard, epoch)| (shard, epoch.number())).collect()
        };
        let knows = if with_hearsay { self.whispers.with(heard) } else { Vec::new() };
        Epochs { holds, knows }
    }

    fn hear(&self, from: &Owner, letter: Letter) -> bool {
        let now = clock::now();
        let Letter { away, epochs } = letter;
        let is_given = |(_, epoch): &(u16, u64)| self.store_time.may_have_given(*epoch, now);
        let given = |epochs: Vec<(u16, u64)>| epochs.into_iter().filter(is_given).collect::<Vec<_>>();
        self.whispers.with(|accord| {
            if let Some(Epochs { holds, knows }) = epochs {
                accord.says_epochs(from, &given(holds), &given(knows));
            }
            accord.says_away(from, away, now.mono_ms)
        })
    }

    /// The node that says that it holds a shard: for when the store cannot be asked.
    pub(super) fn holder_by_hearsay(&self, shard: ShardId) -> Option<Owner> {
        self.whispers.with(|accord| accord.holder(shard).cloned())
    }

    /// Whether the node on which a shard is placed says that it does not reach the shard's server: it could not take it.
    pub(super) fn is_heir_away(&self, shard: ShardId, now_ms: u64) -> bool {
        let snapshot = self.members.snapshot();
        let heir = node_of(shard, snapshot.takers()).and_then(|node| snapshot.named(node));
        heir.is_some_and(|heir| self.whispers.with(|accord| accord.is_away_for(&heir.owner, shard, now_ms)))
    }

    /// What there is to say for serving a shard past its lease that is held here under `epoch`, and whose server this node
    /// finds so.
    pub(super) fn grounds(
        &self,
        accord: &Accord,
        (shard, epoch): (ShardId, Epoch),
        reach: Reach,
        now_ms: u64,
    ) -> Grounds {
        let snapshot = self.members.snapshot();
        let members = snapshot.seen().iter().map(|seen| &seen.member.owner);
        accord.grounds((shard, epoch), reach == Reach::Away, members, &self.owner, now_ms)
    }
}

impl Letter {
    fn written(&self) -> Bytes {
        let mut bytes = BytesMut::new().writer();
        bytes.get_mut().put_u8(VERSION);
        // A value of this type always has its MessagePack.
        let _ = rmp_serde::encode::write(&mut bytes, self);
        bytes.into_inner().freeze()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        (*version == VERSION && bytes.len() <= LETTER_BYTES_MAX).then(|| rmp_serde::from_slice(rest).ok())?
    }
}

/// `Home` as the links know it.
struct Ear(Arc<Home>);

impl Correspondent for Ear {
    fn letter(&self, from: &Owner, body: Bytes) {
        let is_understood = Letter::read(&body).is_some_and(|letter| self.0.hear(from, letter));
        if !is_understood {
            tracing::warn!(operation = "store_letter", %from, "what it says of the store is not understood");
        }
    }

    fn call(&self, _: Owner, _: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        Box::pin(ready(None))
    }

    fn up(&self, peer: &Owner) {
        let Some(neighbours) = &self.0.neighbours else { return };
        let letter = {
            let said = self.0.whispers.said.lock();
            let epochs = Epochs { knows: self.0.epochs(true).knows, ..said.epochs.clone() };
            Letter { away: said.away.clone(), epochs: Some(epochs) }
        };
        neighbours.links.post(peer, Topic::Store, letter.written());
    }

    fn down(&self, peer: &Owner) {
        self.0.whispers.with(|accord| accord.forget(peer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_read_as_it_was_written_and_others_are_not() {
        let epochs = Epochs { holds: vec![(0, 1_732_400_000_001)], knows: vec![(3, 7)] };
        for epochs in [None, Some(epochs)] {
            let letter = Letter { away: Runs::of([0, 1, 7]), epochs };
            let written = letter.written();
            assert_eq!(Letter::read(&written), Some(letter));
            let mut newer = written.to_vec();
            newer[0] = VERSION + 1;
            assert_eq!(Letter::read(&newer), None);
            assert_eq!(Letter::read(&written[..written.len() - 1]), None);
        }
        assert_eq!(Letter::read(&[]), None);
    }

    #[test]
    fn the_longest_letter_is_short() {
        let all: Vec<_> = (0..4096).map(|shard| (shard, u64::MAX >> 11)).collect();
        let epochs = Epochs { holds: all.clone(), knows: all };
        let letter = Letter { away: Runs::of((0..4096).step_by(2)), epochs: Some(epochs) };
        let written = letter.written();
        assert!(written.len() <= LETTER_BYTES_MAX, "{}", written.len());
        assert_eq!(Letter::read(&written), Some(letter));
    }
}
