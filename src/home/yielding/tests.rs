//! A home that is asked for a shard which it believes to hold, on a real store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::cluster::pass::ClusterKey;
use crate::cluster::{Links, Members};
use crate::events::{EndReason, Events, LinkEnd};
use crate::home::Durability;
use crate::home::history::Verdict;
use crate::home::lease::State;
use crate::home::record::Context;
use crate::home::record::state::Patch;
use crate::home::salvage::Salvaged;
use crate::home::store_time::AHEAD_MS_MAX;
use crate::home::{Mailboxes, Neighbours, Opened, Parcel, houses};
use crate::ids::PlayerId;
use crate::tasks::Tasks;

/// Mailboxes that hold nothing but what tells them apart.
#[derive(Default)]
struct Boxes {
    /// What each holds, and what came of it from elsewhere.
    open: Mutex<HashMap<SessionId, Bytes>>,
}

struct Text(Bytes);

impl Parcel for Text {
    fn bytes(&self) -> usize {
        self.0.len()
    }
    fn packed(&self) -> Bytes {
        self.0.clone()
    }
}

impl Mailboxes for Boxes {
    fn seal(&self, session: SessionId) -> Option<Arc<dyn Parcel>> {
        let text = self.open.lock().remove(&session)?;
        Some(Arc::new(Text(text)))
    }
    fn take_in(&self, session: SessionId, _: &PlayerId, packed: &[u8]) -> bool {
        self.open.lock().insert(session, Bytes::copy_from_slice(packed));
        true
    }
}

struct Node {
    home: Arc<Home>,
    boxes: Arc<Boxes>,
    events: Arc<Events>,
    _dir: TempDir,
}

async fn node() -> Node {
    let ((store, dir), cluster, tasks) = (houses::folder().await, houses::cluster(1), Tasks::new());
    let key = ClusterKey::from_secret(&cluster.ticket_secret).unwrap();
    let members = Members::alone(Owner::boot("node-1"), Arc::clone(&store));
    let (events, boxes) = (Arc::new(Events::default()), Arc::new(Boxes::default()));
    let neighbours = Neighbours {
        links: Links::new(key, Arc::clone(&members), &tasks),
        mailboxes: Arc::clone(&boxes) as Arc<dyn Mailboxes>,
    };
    let home = Home::start(
        houses::settings(),
        cluster,
        members,
        store,
        Arc::clone(&events),
        Some(neighbours),
        tasks,
    );
    let home = home.unwrap();
    assert_eq!(home.wait_owned(Duration::from_secs(10)).await, 0);
    Node { home, boxes, events, _dir: dir }
}

impl Node {
    /// Somebody with a session, in whose mailbox lies a text.
    async fn login(&self, player: &str, text: &'static str) -> Opened {
        let opened = self.home.login(houses::login(player)).await.unwrap();
        self.boxes.open.lock().insert(opened.session, Bytes::from(text));
        opened
    }

    fn shard(&self) -> &Shard {
        &self.home.shards()[0]
    }

    fn serves(&self) -> bool {
        self.shard().serves(clock::now().mono_ms)
    }

    /// As far as its store is.
    fn flushed(&self) -> FlushSeq {
        self.shard().fence().map_or(FlushSeq::of(0), |fence| fence.flush_seq_acked)
    }

    /// Whose records another home gets that was granted the shard by a store as far as this.
    fn gives(&self, flushed: FlushSeq) -> Vec<String> {
        let asked_under = above(self.shard().last_epoch()).number();
        let page = self.home.give(&Owner::named("node-2#1"), 0, asked_under, Some((0, flushed))).unwrap();
        let pieces = page.pieces(ShardId::FIRST, self.home.placement);
        let player = |piece: Piece| match piece {
            Piece::Record(player, _) => Some(player.as_str().to_owned()),
            Piece::Replay(..) | Piece::KeptBack => None,
        };
        let mut players: Vec<_> = pieces.into_iter().filter_map(player).collect();
        players.sort_unstable();
        players
    }

    fn is_asked(&self, epoch: Epoch) -> Option<Vec<SessionId>> {
        let page = self.home.give(&Owner::named("node-2#1"), 0, epoch.number(), Some((0, self.flushed())))?;
        let pieces = page.pieces(ShardId::FIRST, self.home.placement);
        let session = |piece: Piece| match piece {
            Piece::Replay(session, _) => Some(session),
            Piece::Record(..) | Piece::KeptBack => None,
        };
        Some(pieces.into_iter().filter_map(session).collect())
    }

    async fn until(&self, is_so: impl Fn(State, Epoch) -> bool) {
        let waits = async {
            loop {
                let (state, epoch) = self.shard().lease();
                if is_so(state, epoch) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waits).await.expect("in time");
    }
}

fn above(epoch: Epoch) -> Epoch {
    Epoch::of(epoch.number() + 1)
}

#[tokio::test]
async fn who_is_asked_under_a_higher_epoch_serves_nobody_by_the_time_of_the_answer() {
    let node = node().await;
    let (ann, bea) = (node.login("ann", "a").await, node.login("bea", "b").await);
    node.home.detach(&ann.cell, ann.session, 1006, clock::now());
    let ours = node.shard().last_epoch();
    // Who holds it no later than we do has nothing to ask.
    assert_eq!(node.is_asked(ours), Some(Vec::new()));
    assert_eq!(node.is_asked(Epoch::of(ours.number() - 1)), None);
    // What no store can have given would fence this home for good, and every later one.
    // Its only grant was the store's clock, and one, a moment ago.
    let possible_ms = || ours.number() + AHEAD_MS_MAX;
    assert_eq!(node.is_asked(Epoch::of(possible_ms() + 60_000)), None);
    assert_eq!(node.is_asked(Epoch::of((1 << 53) - 1)), None);
    assert!(
        node.home.give(&Owner::named("node-2#1"), 1, above(ours).number(), None).is_none(),
        "no such shard"
    );
    assert!(node.serves() && node.home.has_all_of(ShardId::FIRST));
    // Whoever has a link comes first.
    assert_eq!(node.is_asked(above(ours)), Some(vec![bea.session, ann.session]));
    assert!(!node.serves());
    // Whatever its own lease says: the keeper says so at every tick.
    node.shard().stand(State::Owned, ours, u64::MAX);
    assert!(!node.serves());
    assert!(!node.home.has_all_of(ShardId::FIRST), "what is refused by its mailboxes is not told here");
    assert!(node.boxes.open.lock().is_empty());
    node.until(|_, epoch| epoch > ours).await;
    // Each of them is told.
    let told = async {
        let mut told = Vec::new();
        while told.len() < 2 {
            node.events.sessions.filled().await;
            told.extend(node.events.sessions.take());
        }
        told
    };
    let told = tokio::time::timeout(Duration::from_secs(10), told).await.expect("in time");
    assert!(told.iter().all(|(_, event)| event.link_end == Some(LinkEnd::Moved)), "{told:?}");
    // Nobody has held the shard since: what was given is their own again, and is given to whoever comes next.
    node.until(|state, epoch| state == State::Owned && epoch > ours).await;
    assert_eq!(node.is_asked(Epoch::of(possible_ms())).map(|sessions| sessions.len()), Some(2));
}

#[tokio::test]
async fn what_was_laid_out_for_a_home_that_never_came_is_our_own_again() {
    let node = node().await;
    let (ann, bea) = (node.login("ann", "a").await, node.login("bea", "b").await);
    let ours = node.shard().last_epoch();
    node.home.durable(&ann.cell).await.unwrap();
    node.home.durable(&bea.cell).await.unwrap();
    let cells = [Arc::clone(&ann.cell), Arc::clone(&bea.cell)];
    node.home.lay_out(node.shard(), ours, &cells, Pieces::new());
    assert!(node.boxes.open.lock().is_empty() && !node.home.parcels.is_empty());
    // Somebody was about to hold it, and does not.
    node.home.tell_keeper(ShardId::FIRST, Event::Overtaken { epoch: above(ours) });
    node.until(|state, epoch| state == State::Owned && epoch > above(ours)).await;
    let open = node.boxes.open.lock();
    assert_eq!((&open[&ann.session], &open[&bea.session]), (&Bytes::from("a"), &Bytes::from("b")));
    assert!(node.home.parcels.is_empty());
}

#[tokio::test]
async fn what_no_frame_of_a_link_can_hold_does_not_go_along() {
    let node = node().await;
    let (ann, bea) = (node.login("ann", "").await, node.login("bea", "b").await);
    node.boxes.open.lock().insert(ann.session, vec![0; PIECE_BYTES_MAX + 1].into());
    assert_eq!(node.is_asked(above(node.shard().last_epoch())), Some(vec![bea.session]));
}

fn counts() -> Patch<'static> {
    Patch { incr: vec![("n", 1)], ..Patch::default() }
}

#[tokio::test]
async fn what_is_not_stored_is_given_as_it_was_when_answers_ended_and_comes_back_if_nobody_took_it() {
    let node = node().await;
    let (ann, bea) = (node.login("ann", "a").await, node.login("bea", "b").await);
    let (ours, shard) = (node.shard().last_epoch(), node.shard());
    // Its store does not answer.
    let turn = shard.commit_turn.lock().await;
    let change = |cseq| {
        let patched =
            |record: &mut Record, ctx: Context<'_>| record.patch(ctx, ann.session, &counts(), Some(cseq));
        node.home.apply(&ann.cell, clock::now(), patched).unwrap().stamp
    };
    let last = [change(1), change(2)][1];
    node.home.end(&bea.cell, bea.session, EndReason::Logout, clock::now()).unwrap();
    let waits = node.home.commit_soon(&ann.cell);
    let page = node
        .home
        .give(&Owner::named("node-2#1"), 0, above(ours).number(), Some((0, node.flushed())))
        .unwrap();
    // This one nobody is told of, and nobody gets.
    let unsaid = change(3);
    let pieces = page.pieces(ShardId::FIRST, node.home.placement);
    let records = pieces.iter().filter_map(|piece| match piece {
        Piece::Record(player, body) => Some((player.as_str(), Salvaged::unpack(body, above(ours)).unwrap())),
        Piece::Replay(..) | Piece::KeptBack => None,
    });
    let mut records: Vec<_> = records.collect();
    records.sort_unstable_by_key(|(player, _)| *player);
    assert_eq!(records.iter().map(|(player, _)| *player).collect::<Vec<_>>(), ["ann", "bea"]);
    assert_eq!(records[0].1.stamp(), last);
    assert!(unsaid.version > last.version);
    assert!(matches!(pieces[0], Piece::Record(..)), "before what was pushed");
    assert_eq!(waits.await, Ok(Durability::Fenced), "nothing false is said");
    let told = async {
        loop {
            node.events.sessions.filled().await;
            let mut told = node.events.sessions.take();
            told.retain(|(session, _)| *session == ann.session);
            if let Some((_, event)) = told.pop() {
                return event;
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(10), told).await.expect("in time");
    assert_eq!(
        (told.rolled_back, told.link_end),
        (None, Some(LinkEnd::Moved)),
        "the next home says what survived"
    );
    // The other one never held the shard.
    node.until(|state, epoch| state == State::Owned && epoch > ours).await;
    let cell = node.home.find(&PlayerId::parse("ann").unwrap()).unwrap();
    let cseq = cell.read(|record| {
        assert_eq!(record.history.judge(record.stamp(), last), Verdict::Reached);
        record.session(ann.session).map(|session| session.cseq)
    });
    assert_eq!(cseq, Some(Some(2)));
    drop(turn);
    node.home.durable(&cell).await.unwrap();
    let gone = async {
        while node.home.find(&PlayerId::parse("bea").unwrap()).is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("who has logged out stays so");
    assert!(node.home.records.session(bea.session).is_none());
}

#[tokio::test]
async fn what_one_store_has_acknowledged_goes_along_to_whom_another_gave_the_shard_that_never_had_it() {
    for is_behind in [false, true] {
        let node = node().await;
        let (ann, bea) = (node.login("ann", "a").await, node.login("bea", "b").await);
        node.home.durable(&ann.cell).await.unwrap();
        node.home.durable(&bea.cell).await.unwrap();
        // Both are stored, as far as this home can know.
        let now = node.flushed();
        let before = FlushSeq::of(now.number() - 1);
        let (flushed, given) = if is_behind { (before, &["ann", "bea"][..]) } else { (now, &[][..]) };
        assert_eq!(node.gives(flushed), given, "behind: {is_behind}");
    }
}
