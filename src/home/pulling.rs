//! What the store does not have of a shard, asked of its home before: records that were not flushed and replay buffers,
//! page by page, until all is here or the time is up. What has not come by then is lost: its sessions hear so, and nobody
//! waits longer. Called by `keeper` between grant and load; the asked side is `yielding`. Also the words in which both
//! speak.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::Home;
use super::lease::PULL_MS;
use super::parcels::Piece;
use super::placement::Placement;
use super::shard::{Fence, Shard};
use crate::cluster::{CallError, Links, Topic};
use crate::ids::{Epoch, FlushSeq, Owner, PlayerId, SessionId, ShardId};
use crate::store::Grant;

/// How long all of a shard may take where no link to the home before stands.
const PULL: Duration = Duration::from_millis(PULL_MS);
/// How often it is looked whether the link of a home that takes longer stands.
const LIVES_EVERY: Duration = Duration::from_millis(50);
/// How long a live node without a link is waited for: it has perhaps just come.
const LINK: Duration = Duration::from_millis(250);
/// Shards that one home is asked for at a time: each has one page under way, and a link carries other things, too.
const PULLS_PER_HOME_MAX: usize = 16;
/// Shards that all homes are asked for at a time: a home that does not answer holds up no others before there are four.
const PULLS_MAX: usize = 64;
/// A page that has not come by then is asked for again: it may be lost, and the other home gives it as often as it takes.
const ASK_AGAIN: Duration = Duration::from_millis(150);
/// The same after a question that found no way.
const ASK_LATER: Duration = Duration::from_millis(10);
/// How long an answer is waited for that can only be counted: the home before may have been stopped and go on.
const COUNTED_WITHIN: Duration = Duration::from_secs(10);
/// A part that holds nothing, in the place of one.
const NOTHING: u8 = 0;
/// A part that holds what a session's client may not have seen; its key is the session.
const REPLAY: u8 = 1;
/// A part that holds a record which the store is not known to have; its key is the player.
const RECORD: u8 = 2;

/// What one home asks another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// Give me what you have of this shard, which I hold under this epoch: a [`Page`] of it, and each part once. As homes
    /// ask that know replay buffers only.
    Pull { shard: u16, epoch: u64 },
    /// The same, from this part on, counted from zero: those before it have arrived, and it is asked for until it has, too.
    /// `flushed` is the flush counter that the store had: a home whose later batches were acknowledged knows by it that
    /// the store has lost them.
    From { shard: u16, epoch: u64, from: u64, flushed: u64 },
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
    pub(super) fn of(pieces: Vec<Piece>, more: bool) -> Self {
        let part = |piece: Piece| match piece {
            Piece::Record(player, body) => {
                Part { kind: RECORD, key: Bytes::copy_from_slice(player.as_str().as_bytes()), body }
            }
            Piece::Replay(session, parcel) => {
                Part { kind: REPLAY, key: Bytes::copy_from_slice(session.as_bytes()), body: parcel.packed() }
            }
            Piece::KeptBack => Part { kind: NOTHING, key: Bytes::new(), body: Bytes::new() },
        };
        Self { parts: pieces.into_iter().map(part).collect(), more }
    }

    /// What of it is of this shard and can be used.
    pub(super) fn pieces(self, shard: ShardId, placement: Placement) -> Vec<Piece> {
        let replay = |part: &Part| {
            let session = SessionId::from_bytes(part.key.as_ref().try_into().ok()?);
            let parcel = std::sync::Arc::new(part.body.clone());
            (session.shard() == shard).then_some(Piece::Replay(session, parcel))
        };
        let record = |part: &Part| {
            let player = PlayerId::parse(std::str::from_utf8(&part.key).ok()?).ok()?;
            (placement.shard_of(&player) == shard).then(|| Piece::Record(player, part.body.clone()))
        };
        let piece = |part: &Part| match part.kind {
            REPLAY => replay(part),
            RECORD => record(part),
            _ => None,
        };
        self.parts.iter().filter_map(piece).collect()
    }

    /// Whether there is more: who has more and gives nothing is not asked for ever.
    const fn goes_on(&self) -> bool {
        self.more && !self.parts.is_empty()
    }

    fn records(&self) -> usize {
        self.parts.iter().filter(|part| part.kind == RECORD).count()
    }
}

/// As nodes send it.
pub(super) fn write<T: Serialize>(value: &T) -> Bytes {
    // A value of these types always has its MessagePack.
    rmp_serde::to_vec(value).unwrap_or_default().into()
}

/// The same, by the names of its fields.
pub(super) fn write_named<T: Serialize>(value: &T) -> Bytes {
    rmp_serde::to_vec_named(value).unwrap_or_default().into()
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

/// Questions that wait for an answer, each with the part from which it asks.
type Asked<'a> = FuturesUnordered<BoxFuture<'a, (u64, Result<Bytes, CallError>)>>;

/// One home asked for one shard.
struct Pull<'a> {
    links: &'a Links,
    shard: ShardId,
    epoch: Epoch,
    /// The flush counter with which the shard was granted.
    flushed: FlushSeq,
    before: &'a Owner,
}

impl<'a> Pull<'a> {
    /// Asks from a part on. The answer is waited for long beyond its use: what comes too late is counted.
    fn ask(&self, from: u64) -> BoxFuture<'a, (u64, Result<Bytes, CallError>)> {
        let (links, before) = (self.links, self.before);
        let (shard, epoch, flushed) = (self.shard.number(), self.epoch.number(), self.flushed.number());
        let question = Question::From { shard, epoch, from, flushed };
        let question = write(&question);
        async move { (from, links.call(before, Topic::Home, question, COUNTED_WITHIN).await) }.boxed()
    }
}

/// A place for each shard that is asked for at a time: so many of one home, and so many in all.
pub(super) struct Turns {
    /// Of homes that are asked now.
    each: Mutex<HashMap<Owner, Arc<Semaphore>>>,
    all: Semaphore,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { each: Mutex::default(), all: Semaphore::new(PULLS_MAX) }
    }

    /// Waits for a turn to ask this home; it is over when the value goes.
    async fn take(&self, before: &Owner) -> Turn<'_> {
        let of_home = {
            let mut each = self.each.lock();
            // Whoever has a turn there, or waits for one, holds it.
            each.retain(|_, turns| Arc::strong_count(turns) > 1);
            let turns = each.entry(before.clone());
            Arc::clone(turns.or_insert_with(|| Arc::new(Semaphore::new(PULLS_PER_HOME_MAX))))
        };
        // Neither is ever closed. The home's own first: who waits for it keeps nobody else.
        let of_home = of_home.acquire_owned().await;
        Turn { _of_home: of_home.ok(), _of_all: self.all.acquire().await.ok() }
    }
}

/// A turn at pulling from one home: while it is held, one less of those of that home and of all may begin.
struct Turn<'a> {
    _of_home: Option<OwnedSemaphorePermit>,
    _of_all: Option<SemaphorePermit<'a>>,
}

impl Home {
    /// A shard was granted: the node to be asked for what the store does not have, if there is one that can be.
    pub(super) fn begin_pull(&self, shard: &Shard, grant: &Grant, before: Option<Owner>) -> Option<Owner> {
        shard.set_fence(Some(Fence::of(grant)));
        let (id, neighbours) = (shard.id(), self.neighbours.as_ref()?);
        self.arrivals.expect(id, grant.epoch);
        if grant.previous_owner.is_none() {
            // Nobody had it since it was ours: what was laid out for another, or could not be loaded, is our own again.
            self.arrivals.put(id, grant.epoch, self.parcels.take_back(id, grant.epoch).into_iter());
        } else {
            // Others have numbered pushes and counted changes since.
            self.parcels.forget(id);
        }
        let before = &before?;
        let may_be_linked = || {
            let snapshot = self.members.snapshot();
            snapshot.member(before).is_some_and(|member| member.says.peer.is_some())
        };
        (neighbours.links.stands(before) || may_be_linked()).then(|| before.clone())
    }

    /// Asks the home before; whatever has come is kept for the load.
    pub(super) async fn pull(&self, shard: ShardId, grant: &Grant, before: &Owner) {
        let Some(neighbours) = &self.neighbours else { return };
        let began = Instant::now();
        let (mut pieces, mut asked) = (0, Asked::new());
        let (epoch, flushed) = (grant.epoch, grant.flush_seq);
        let pull = Pull { links: &neighbours.links, shard, epoch, flushed, before };
        let pulled = self.pull_pages(&pull, &mut asked, &mut pieces);
        let (outcome, status) = match self.in_time(&pull, pulled).await {
            Some(Ok(())) => ("done", None),
            Some(Err(error)) => ("failed", Some(error)),
            None => ("late", None),
        };
        self.meters.pulled(outcome);
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let status = status.as_ref().map(tracing::field::display);
        let number = shard.number();
        tracing::debug!(operation = "pull", shard = number, %epoch, from = %before, pieces, duration_ms, outcome, status);
        if outcome == "late" {
            self.count_late(&pull, asked).await;
        }
    }

    /// Gives a pull its time, and more of it while a link to the home before lives: who is slow may have what nobody else
    /// has. `None`: it is late.
    async fn in_time<T>(&self, pull: &Pull<'_>, pulled: impl Future<Output = T>) -> Option<T> {
        let most = Duration::from_millis(self.terms().pull_max_ms());
        let is_dead = async {
            tokio::time::sleep(PULL).await;
            while pull.links.stands(pull.before) {
                tokio::time::sleep(LIVES_EVERY).await;
            }
        };
        tokio::select! {
            outcome = tokio::time::timeout(most, pulled) => outcome.ok(),
            () = is_dead => None,
        }
    }

    async fn pull_pages<'a>(
        &self,
        pull: &Pull<'a>,
        asked: &mut Asked<'a>,
        pieces: &mut usize,
    ) -> Result<(), PullError> {
        let linked = self.linked_to(pull.links, pull.before);
        tokio::time::timeout(LINK, linked).await.map_err(|_| CallError::NoLink)?;
        let _turn = self.pulls.take(pull.before).await;
        let mut from = 0;
        asked.push(pull.ask(from));
        loop {
            let page: Page = match tokio::time::timeout(ASK_AGAIN, asked.next()).await {
                Ok(Some((at, Ok(answer)))) if at == from => read(&answer).ok_or(PullError::Garbled)?,
                // What it answers has come before.
                Ok(Some((_, Ok(_)))) => continue,
                Ok(Some((_, Err(CallError::Refused)))) => return self.pull_replays(pull, pieces).await,
                Ok(Some((_, Err(_)))) => {
                    tokio::time::sleep(ASK_LATER).await;
                    self.linked_to(pull.links, pull.before).await;
                    asked.push(pull.ask(from));
                    continue;
                }
                Ok(None) | Err(_) => {
                    asked.push(pull.ask(from));
                    continue;
                }
            };
            from += page.parts.len() as u64;
            let goes_on = page.goes_on();
            self.put_page(pull, page, pieces)?;
            if goes_on {
                asked.push(pull.ask(from));
                continue;
            }
            // That all has come it need not answer.
            if from > 0 {
                let _ = pull.ask(from).now_or_never();
            }
            return Ok(());
        }
    }

    /// The same of a home that knows replay buffers only.
    async fn pull_replays(&self, pull: &Pull<'_>, pieces: &mut usize) -> Result<(), PullError> {
        let question = write(&Question::Pull { shard: pull.shard.number(), epoch: pull.epoch.number() });
        loop {
            let answer = pull.links.call(pull.before, Topic::Home, question.clone(), PULL).await?;
            let page: Page = read(&answer).ok_or(PullError::Garbled)?;
            let goes_on = page.goes_on();
            self.put_page(pull, page, pieces)?;
            if !goes_on {
                return Ok(());
            }
        }
    }

    fn put_page(&self, pull: &Pull<'_>, page: Page, pieces: &mut usize) -> Result<(), PullError> {
        let (parts, records) = (page.parts.len(), page.records());
        let usable = page.pieces(pull.shard, self.placement);
        let refused =
            records - usable.iter().filter(|piece| matches!(piece, Piece::Record(..))).count().min(records);
        if refused > 0 {
            self.meters.salvaged("refused", refused);
            tracing::warn!(
                operation = "pull", shard = pull.shard.number(), from = %pull.before, records = refused,
                "the home before has given records of other shards: they are not taken"
            );
        }
        *pieces += parts;
        if !self.arrivals.put(pull.shard, pull.epoch, usable.into_iter()) {
            self.tell_late(pull, records - refused);
            return Err(PullError::NotTaken);
        }
        Ok(())
    }

    /// What comes now comes too late: the shard is served from what the store has.
    async fn count_late(&self, pull: &Pull<'_>, mut asked: Asked<'_>) {
        let count = async {
            while let Some((_, answer)) = asked.next().await {
                let records =
                    answer.ok().and_then(|answer| read(&answer)).map_or(0, |page: Page| page.records());
                if records > 0 {
                    return records;
                }
            }
            0
        };
        let records = tokio::time::timeout(COUNTED_WITHIN, count).await.unwrap_or_default();
        self.tell_late(pull, records);
    }

    fn tell_late(&self, pull: &Pull<'_>, records: usize) {
        if records > 0 {
            self.meters.salvaged("late", records);
            tracing::warn!(
                operation = "pull", shard = pull.shard.number(), epoch = %pull.epoch, from = %pull.before, records,
                "the home before has given records too late or too many: their players hear what is stored"
            );
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
        let placement = Placement::of(2).unwrap();
        let (here, other) = (ShardId::FIRST, ShardId::numbered(1).unwrap());
        let session = |shard| SessionId::generate(shard, 1);
        let player = |shard| {
            let players = (0..).map(|n| PlayerId::parse(&format!("player-{n}")).unwrap());
            players.into_iter().find(|player| placement.shard_of(player) == shard).unwrap()
        };
        let body = || Bytes::from("x");
        let mut pieces = Vec::new();
        for shard in [here, other] {
            pieces.push(Piece::Record(player(shard), body()));
            pieces.push(Piece::Replay(session(shard), std::sync::Arc::new(body())));
        }
        let mut page = Page::of(pieces, true);
        page.parts.push(Part { kind: 3, key: Bytes::from("a room"), body: body() });
        page.parts.push(Part { kind: RECORD, key: Bytes::from(vec![0xff]), body: body() });
        let page: Page = read(&write(&page)).unwrap();
        assert!(page.goes_on());
        let pieces = page.pieces(here, placement);
        assert!(matches!(&pieces[..], [Piece::Record(her, _), Piece::Replay(hers, _)]
                if *her == player(here) && hers.shard() == here));
        // Who has more and gives nothing is not asked for ever.
        assert!(!Page::of(Vec::new(), true).goes_on());
    }

    #[test]
    fn a_home_that_does_not_answer_holds_up_no_pull_from_others() {
        let (turns, home) = (Turns::new(), |number: usize| Owner::named(&format!("node-{number}#1")));
        let take = |number| turns.take(&home(number)).now_or_never();
        let silent: Vec<_> = (0..PULLS_PER_HOME_MAX).map(|_| take(1).unwrap()).collect();
        assert!(take(1).is_none(), "so many of one home");
        let others: Vec<_> = (0..PULLS_MAX - PULLS_PER_HOME_MAX)
            .map(|turn| take(2 + turn / PULLS_PER_HOME_MAX).unwrap())
            .collect();
        assert!(take(90).is_none(), "so many in all");
        drop(silent);
        assert!(take(90).is_some());
        assert_eq!(turns.each.lock().len(), PULLS_MAX / PULLS_PER_HOME_MAX, "who is not asked is forgotten");
        drop(others);
        assert!(take(1).is_some());
        assert_eq!(turns.each.lock().len(), 1);
    }

    #[test]
    fn a_question_from_tomorrow_is_none_and_those_of_before_are_understood() {
        let before = [0x81, 0xa4, b'P', b'u', b'l', b'l', 0x92, 7, 9];
        assert_eq!(read(&before), Some(Question::Pull { shard: 7, epoch: 9 }));
        let tomorrow = [0x81, 0xa4, b'P', b'u', b's', b'h', 0x92, 7, 9];
        assert_eq!(read::<Question>(&tomorrow), None);
    }
}
