//! What waits for one session: pushes not yet sent, frames sent but not yet seen, and control. Numbers are given when
//! a frame is made, so joining leaves no gap; what was sent stays until the client has seen it or it no longer fits.
//! All lists are empty until first needed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::kept::Kept;
use super::pending::Pending;
use super::{GivenUp, HubSettings, Push};
use crate::events::{DurableUpTo, NewHome, RollbackNotice};
use crate::ids::{PlayerId, SessionId};
use crate::limits::SessionLimits;

mod unseen;

pub use unseen::Unseen;

/// Most control pushes that wait; more can only be repeats.
const CONTROL_MAX: usize = 16;

/// Names a link within its node, so that a late close of an old link never touches the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkNo(u64);

impl LinkNo {
    /// No link.
    pub const NONE: Self = Self(0);

    pub(super) const fn of(number: u64) -> Self {
        Self(number)
    }
}

/// How and why the server closes a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// The close code.
    pub code: u16,
    /// For people.
    pub reason: Box<str>,
    /// When to come back at the earliest.
    pub retry_after_ms: Option<u64>,
}

/// How the server works for this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// With its store.
    Normal,
    /// From memory.
    Local,
    /// Not at all for now.
    Paused,
}

/// What is neither numbered nor replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// The store is unreachable, or back.
    Mode {
        /// How the session is served now.
        mode: Mode,
        /// For how long the oldest change has waited for the store, if one has.
        unflushed_ms: Option<u64>,
    },
    /// Acked changes are gone.
    RolledBack(RollbackNotice),
    /// Everything up to here is durable.
    Durable(DurableUpTo),
    /// Another node serves the player now: the client finds it there.
    Moved(Arc<NewHome>),
    /// The last word.
    Close(Closing),
}

/// One numbered push frame: joined presence items, or one message.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its number.
    pub seq: u64,
    /// What it carries; never empty.
    pub pushes: Vec<Arc<Push>>,
}

impl Frame {
    fn bytes(&self) -> usize {
        self.pushes.iter().map(|push| push.bytes()).sum()
    }
}

/// What a resume finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// Frames that are sent again.
    pub frames: u32,
    /// Some are lost: snapshots must follow.
    pub missed: bool,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It is in, and so many that waited were joined with it.
    In { joined: usize },
    /// It is in, and so many others had to go: a link that is up is too slow.
    InForOthers { forgotten: usize, is_linked: bool },
    /// Nothing comes in any more: another node is the session's home, or is about to be.
    Sealed,
}

/// What a link takes from its mailbox.
#[derive(Debug, Default)]
pub struct Taken {
    /// Another link has the mailbox now.
    pub displaced: bool,
    /// The link is given up.
    pub given_up: Option<GivenUp>,
    /// Control, in order.
    pub control: Vec<Control>,
}

#[derive(Default)]
struct Inner {
    link: LinkNo,
    next_seq: u64,
    /// Not sent yet, no number yet.
    pending: Pending,
    /// Sent, not seen; `resend` of them from the front wait to be sent again.
    replay: VecDeque<Frame>,
    replay_bytes: usize,
    resend_from: usize,
    /// The highest number that can no longer be sent again.
    lost_seq: u64,
    /// Pushes were forgotten before they had a number.
    missed: bool,
    /// The latest `ready` has said so, and nothing was forgotten since.
    missed_is_told: bool,
    given_up: Option<GivenUp>,
    control: Vec<Control>,
    /// Messages that the store keeps; made when the first one is sent.
    kept: Option<Box<Kept>>,
    /// Something came in since the link last looked.
    woken: bool,
    /// The link, while it waits.
    waker: Option<Waker>,
    /// What was in has gone to another node: nothing comes in any more.
    is_sealed: bool,
}

impl Inner {
    /// Something is in; whom to wake once the lock is free.
    #[must_use]
    fn rouse(&mut self) -> Option<Waker> {
        self.woken = true;
        self.waker.take()
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Links that have something to look at and are not called yet, so that all that is pushed to many at one time is one
/// write of each. Called when dropped, at the latest.
#[derive(Default)]
pub struct Wakes(Vec<Waker>);

impl Wakes {
    /// How many wait for the call.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody waits for it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Calls them.
    pub fn wake(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.wake();
    }
}

/// One session's mailbox.
pub struct Mailbox {
    session: SessionId,
    player: PlayerId,
    /// What the session may do, over all its links: reconnecting resets no limit.
    pub limits: SessionLimits,
    inner: Mutex<Inner>,
    heard_ms: AtomicU64,
    writing_since_ms: AtomicU64,
    /// The [`Mode`] that was told last.
    told_mode: AtomicU8,
    closed: AtomicBool,
    /// Messages that the store keeps are still to be put in.
    owes_kept: AtomicBool,
    /// The client is still to be told how those look whom she watches.
    owes_looks: AtomicBool,
}

impl Mailbox {
    pub(super) fn new(session: SessionId, player: PlayerId, last_seq: u64) -> Self {
        let inner = Inner {
            next_seq: last_seq.saturating_add(1),
            lost_seq: last_seq,
            missed: last_seq > 0,
            ..Inner::default()
        };
        Self {
            session,
            player,
            limits: SessionLimits::default(),
            inner: Mutex::new(inner),
            heard_ms: AtomicU64::new(0),
            writing_since_ms: AtomicU64::new(0),
            told_mode: AtomicU8::new(Mode::Normal as u8),
            closed: AtomicBool::new(false),
            owes_kept: AtomicBool::new(true),
            owes_looks: AtomicBool::new(false),
        }
    }

    /// How many pushes wait for the link's next write.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner.lock().pending.len()
    }

    /// Whose.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// The same, for as long as the mailbox is there.
    pub(crate) const fn session_ref(&self) -> &SessionId {
        &self.session
    }

    /// The session's player.
    #[must_use]
    pub const fn player(&self) -> &PlayerId {
        &self.player
    }

    /// Puts a push in; the link is called with the others of `wakes`. A presence item replaces an unsent older one of
    /// its player. Where a link is up and the mailbox is full, the link is too slow. Without a link, or with one that is
    /// given up already, the oldest is forgotten, and the resume is told.
    pub(super) fn push_quietly(&self, push: &Arc<Push>, most: usize, wakes: &mut Wakes) -> Put {
        let mut inner = self.inner.lock();
        if inner.is_sealed {
            return Put::Sealed;
        }
        let waits = push.kept_id().is_some_and(|id| {
            inner.pending.holds(id) || inner.kept.as_ref().is_some_and(|kept| kept.is_under_way(id))
        });
        if waits {
            return Put::In { joined: 0 };
        }
        if inner.pending.replace(push) {
            return Put::In { joined: 1 };
        }
        let waited = inner.pending.len();
        let push = inner.pending.admit(push);
        let joined = waited - inner.pending.len();
        let forgotten = inner.pending.make_room(most);
        let full = forgotten > 0;
        inner.missed |= full;
        inner.missed_is_told &= !full;
        inner.pending.push_back(push);
        let is_linked = inner.link != LinkNo::NONE && inner.given_up.is_none();
        wakes.0.extend(inner.rouse());
        if full { Put::InForOthers { forgotten, is_linked } } else { Put::In { joined } }
    }

    /// Puts control in; a newer one of its kind replaces an older one.
    pub fn tell(&self, control: Control) {
        let mut inner = self.inner.lock();
        if inner.link == LinkNo::NONE {
            return;
        }
        let kind = std::mem::discriminant(&control);
        inner.control.retain(|older| std::mem::discriminant(older) != kind);
        if inner.control.len() < CONTROL_MAX {
            inner.control.push(control);
        }
        let waker = inner.rouse();
        drop(inner);
        wake(waker);
    }

    /// Tells the mode, unless it was told last; a new link takes it for [`Mode::Normal`].
    pub fn tell_mode(&self, mode: Mode, unflushed_ms: Option<u64>) {
        if self.told_mode.swap(mode as u8, Ordering::Relaxed) != mode as u8 {
            self.tell(Control::Mode { mode, unflushed_ms });
        }
    }

    /// Gives the present link up; says whether it was not given up before.
    pub(super) fn give_up(&self, why: GivenUp) -> bool {
        let mut inner = self.inner.lock();
        let is_first = inner.given_up.replace(why).is_none();
        let waker = inner.rouse();
        drop(inner);
        wake(waker);
        is_first
    }

    /// A new link takes the mailbox; the old one, if any, finds itself displaced.
    pub fn attach(&self, link: LinkNo) {
        let mut inner = self.inner.lock();
        inner.link = link;
        inner.given_up = None;
        inner.control.clear();
        let waker = inner.rouse();
        drop(inner);
        self.told_mode.store(Mode::Normal as u8, Ordering::Relaxed);
        self.writing_since_ms.store(0, Ordering::Relaxed);
        wake(waker);
    }

    /// The link is down; says whether it was still the mailbox's.
    pub fn detach(&self, link: LinkNo) -> bool {
        let mut inner = self.inner.lock();
        let mine = inner.link == link;
        if mine {
            inner.link = LinkNo::NONE;
            inner.given_up = None;
            inner.control = Vec::new();
            inner.waker = None;
        }
        mine
    }

    /// Whether this link has the mailbox.
    #[must_use]
    pub fn is_linked_to(&self, link: LinkNo) -> bool {
        self.inner.lock().link == link
    }

    /// Whether any link has it.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.inner.lock().link != LinkNo::NONE
    }

    /// A client resumes and has seen everything up to `last_seq`.
    pub fn resume(&self, last_seq: u64) -> Replay {
        let mut inner = self.inner.lock();
        trim(&mut inner, last_seq);
        let sent_last = inner.next_seq.saturating_sub(1);
        let ahead = last_seq > sent_last;
        if ahead {
            inner.next_seq = last_seq.saturating_add(1);
        }
        // Stays until the client shows that it has heard of it: this `ready` may be lost, too.
        inner.missed |= inner.lost_seq > last_seq || ahead;
        let missed = inner.missed;
        inner.missed_is_told = missed;
        if missed && inner.lost_seq > last_seq {
            // Half a replay is no help: the client gets snapshots, and numbers without a gap.
            let seq = last_seq.saturating_add(1);
            let unsent: Vec<_> = inner.replay.drain(..).flat_map(|frame| frame.pushes).collect();
            inner.replay_bytes = 0;
            inner.next_seq = seq;
            if let Some(kept) = inner.kept.as_mut() {
                kept.renumber();
            }
            for push in unsent.into_iter().rev() {
                inner.pending.push_front(push);
            }
        }
        inner.lost_seq = inner.lost_seq.min(last_seq);
        inner.resend_from = 0;
        let again = inner.replay.len();
        let fresh = inner.pending.frames();
        let waker = inner.rouse();
        drop(inner);
        wake(waker);
        Replay { frames: u32::try_from(again + fresh).unwrap_or(u32::MAX), missed }
    }

    /// What was pushed to the session before is not in this mailbox: a crash came between.
    pub fn begin_anew(&self) {
        self.inner.lock().missed = true;
    }

    /// The client of this link has shown that it holds its `ready`: what that said was missed is known.
    pub fn settled(&self, link: LinkNo) {
        let mut inner = self.inner.lock();
        if inner.link == link && inner.missed_is_told {
            inner.missed = false;
        }
    }

    /// Nothing more comes: the session is gone. Whoever still watches through it is let go.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether the session is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The client has seen everything up to here.
    pub fn seen(&self, seq: u64) {
        trim(&mut self.inner.lock(), seq);
    }

    /// Takes the messages that the store keeps and that the client has seen since the last call.
    #[must_use]
    pub fn take_seen(&self) -> Vec<u128> {
        let mut inner = self.inner.lock();
        let Some(kept) = inner.kept.as_mut() else { return Vec::new() };
        let seen = kept.take_seen();
        if kept.is_empty() {
            inner.kept = None;
        }
        seen
    }

    /// Says whether messages that the store keeps are still to be put in.
    pub fn owe_kept(&self, owes: bool) {
        self.owes_kept.store(owes, Ordering::Relaxed);
    }

    /// Whether messages that the store keeps are still to be put in.
    #[must_use]
    pub fn owes_kept(&self) -> bool {
        self.owes_kept.load(Ordering::Relaxed)
    }

    /// Whether what waits is to be written before more is put in.
    #[must_use]
    pub fn is_crowded(&self, settings: &HubSettings) -> bool {
        self.inner.lock().pending.is_crowded(settings.outbox_items_max)
    }

    /// Takes what is to be written. Frames only if `may_push`; each is shown to `add` in order, under the mailbox's
    /// lock, so that none is copied.
    pub fn take(
        &self,
        link: LinkNo,
        settings: &HubSettings,
        may_push: bool,
        mut add: impl FnMut(&Frame),
    ) -> Taken {
        let mut inner = self.inner.lock();
        if inner.link != link {
            return Taken { displaced: true, ..Taken::default() };
        }
        let taken = Taken {
            displaced: false,
            // Stays: until it is down, the link is given up and not slow once more.
            given_up: inner.given_up,
            control: std::mem::take(&mut inner.control),
        };
        if may_push {
            let from = inner.resend_from.min(inner.replay.len());
            inner.replay.iter().skip(from).for_each(&mut add);
            inner.resend_from = usize::MAX;
            while let Some(pushes) = inner.pending.next_joined() {
                let frame = Frame { seq: inner.next_seq, pushes };
                if let Some(id) = frame.pushes.first().and_then(|push| push.kept_id()) {
                    inner.kept.get_or_insert_default().sent(frame.seq, id);
                }
                inner.next_seq = inner.next_seq.saturating_add(1);
                add(&frame);
                remember(&mut inner, frame, settings);
            }
            inner.pending.rest();
        }
        taken
    }

    /// Whether this link must stop whatever it is doing: another has the mailbox, or it is given up.
    #[must_use]
    pub fn must_stop(&self, link: LinkNo) -> bool {
        let inner = self.inner.lock();
        let last_word = inner.control.iter().any(|control| matches!(control, Control::Close(_)));
        inner.link != link || inner.given_up.is_some() || last_word
    }

    /// Wakes whoever waits, once more: a waiter that took the call for another purpose passes it on.
    pub fn wake(&self) {
        let waker = self.inner.lock().rouse();
        wake(waker);
    }

    /// Waits until something is in, or until another link has the mailbox.
    pub async fn woken(&self, link: LinkNo) {
        std::future::poll_fn(|cx| self.poll_woken(link, cx)).await;
    }

    /// The same, for who waits for something else, too. Only the link that has the mailbox waits: a displaced one
    /// never takes its waker's place.
    pub fn poll_woken(&self, link: LinkNo, cx: &Context<'_>) -> Poll<()> {
        let mut inner = self.inner.lock();
        if inner.link != link || std::mem::take(&mut inner.woken) {
            return Poll::Ready(());
        }
        if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// A frame came from the client.
    pub fn heard(&self, now_ms: u64) {
        self.heard_ms.store(now_ms, Ordering::Relaxed);
    }

    /// A write began (or, with 0, ended).
    pub fn writing(&self, since_ms: u64) {
        self.writing_since_ms.store(since_ms, Ordering::Relaxed);
    }

    pub(super) fn signs_of_life(&self) -> (u64, u64) {
        (self.heard_ms.load(Ordering::Relaxed), self.writing_since_ms.load(Ordering::Relaxed))
    }
}

fn trim(inner: &mut Inner, seen: u64) {
    while inner.replay.front().is_some_and(|frame| frame.seq <= seen) {
        if let Some(frame) = inner.replay.pop_front() {
            inner.replay_bytes = inner.replay_bytes.saturating_sub(frame.bytes());
            inner.lost_seq = inner.lost_seq.max(frame.seq);
            inner.resend_from =
                inner.resend_from.saturating_sub(usize::from(inner.resend_from != usize::MAX));
        }
    }
    if let Some(kept) = inner.kept.as_mut() {
        kept.seen_up_to(seen);
    }
    if inner.replay.is_empty() && inner.replay.capacity() > 0 {
        inner.replay = VecDeque::new();
    }
}

fn remember(inner: &mut Inner, frame: Frame, settings: &HubSettings) {
    inner.replay_bytes += frame.bytes();
    inner.replay.push_back(frame);
    while inner.replay.len() > settings.replay_frames_max || inner.replay_bytes > settings.replay_bytes_max {
        let Some(oldest) = inner.replay.pop_front() else { break };
        inner.replay_bytes = inner.replay_bytes.saturating_sub(oldest.bytes());
        inner.lost_seq = inner.lost_seq.max(oldest.seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::PushKind;
    use crate::ids::ShardId;
    use std::time::Duration;

    fn settings() -> HubSettings {
        HubSettings {
            heartbeat: Duration::from_secs(15),
            outbox_items_max: 4,
            slow_close_after: Duration::from_secs(10),
            replay_frames_max: 3,
            replay_bytes_max: 1000,
        }
    }

    const LINK: LinkNo = LinkNo(1);

    impl Mailbox {
        fn push(&self, push: &Arc<Push>, most: usize) -> bool {
            let put = self.push_quietly(push, most, &mut Wakes::default());
            matches!(put, Put::In { .. } | Put::InForOthers { is_linked: false, .. })
        }
    }

    fn mailbox(last_seq: u64) -> Mailbox {
        let player = PlayerId::parse("ann").unwrap();
        let mailbox = Mailbox::new(SessionId::generate(ShardId::FIRST, 1), player, last_seq);
        mailbox.attach(LINK);
        mailbox
    }

    fn presence(player: &str, body: &'static str) -> Arc<Push> {
        let n = u64::from(body.as_bytes()[1]);
        let ver = crate::ids::Stamp::new(crate::ids::Epoch::of(1), crate::ids::Version::of(n));
        Arc::new(Push::new(
            PushKind::Presence { player: PlayerId::parse(player).unwrap(), ver },
            body.as_bytes().into(),
        ))
    }

    fn message(body: &'static str) -> Arc<Push> {
        Arc::new(Push::new(PushKind::Message, body.as_bytes().into()))
    }

    fn sent(mailbox: &Mailbox) -> Vec<(u64, String)> {
        let body = |frame: &Frame| {
            frame
                .pushes
                .iter()
                .map(|push| String::from_utf8_lossy(push.msgpack()).into_owned())
                .collect::<Vec<_>>()
        };
        let mut sent = Vec::new();
        mailbox.take(LINK, &settings(), true, |frame| sent.push((frame.seq, body(frame).join("+"))));
        sent
    }

    #[test]
    fn presence_is_joined_in_one_frame_and_messages_are_not() {
        let mailbox = mailbox(0);
        for push in [presence("a", "a1"), presence("b", "b1"), message("m"), presence("c", "c1")] {
            assert!(mailbox.push(&push, 10));
        }
        assert!(mailbox.push(&presence("a", "a2"), 10));
        assert_eq!(sent(&mailbox), [(1, "a2+b1".into()), (2, "m".into()), (3, "c1".into())]);
        assert!(sent(&mailbox).is_empty());
    }

    #[test]
    fn a_resume_sends_again_what_was_not_seen_without_a_gap() {
        let mailbox = mailbox(0);
        for body in ["1", "2", "3"] {
            mailbox.push(&message(body), 10);
        }
        assert_eq!(sent(&mailbox).len(), 3);
        mailbox.detach(LINK);
        mailbox.push(&message("4"), 10);
        assert_eq!(mailbox.resume(1), Replay { frames: 3, missed: false });
        mailbox.attach(LINK);
        assert_eq!(sent(&mailbox), [(2, "2".into()), (3, "3".into()), (4, "4".into())]);
    }

    #[test]
    fn what_no_longer_fits_is_told_as_missed_and_numbers_go_on() {
        let mailbox = mailbox(0);
        for body in ["1", "2", "3", "4", "5"] {
            mailbox.push(&message(body), 10);
        }
        assert_eq!(sent(&mailbox).len(), 5);
        assert!(mailbox.resume(1).missed, "2 is gone");
        assert_eq!(sent(&mailbox).first(), Some(&(2, "3".into())), "no gap after last_seq");
        mailbox.settled(LINK);
        assert!(!mailbox.resume(4).missed);
    }

    #[test]
    fn a_seen_push_is_not_kept() {
        let mailbox = mailbox(0);
        mailbox.push(&message("1"), 10);
        mailbox.push(&message("2"), 10);
        sent(&mailbox);
        mailbox.seen(2);
        assert_eq!(mailbox.resume(2), Replay { frames: 0, missed: false });
        assert!(mailbox.resume(1).missed, "who takes back what she has seen is told that it is gone");
    }

    #[test]
    fn a_full_mailbox_is_a_slow_link_or_a_missed_push() {
        let mailbox = mailbox(0);
        for _ in 0..4 {
            assert!(mailbox.push(&message("x"), 4));
        }
        assert!(!mailbox.push(&message("y"), 4), "a link that does not read");
        mailbox.detach(LINK);
        assert!(mailbox.push(&message("z"), 4));
        assert!(mailbox.resume(0).missed);
    }

    #[test]
    fn what_is_joined_and_what_is_forgotten_is_counted() {
        let mailbox = mailbox(0);
        let puts = |push: &Arc<Push>| mailbox.push_quietly(push, 2, &mut Wakes::default());
        assert_eq!(puts(&presence("a", "a1")), Put::In { joined: 0 });
        assert_eq!(puts(&presence("a", "a2")), Put::In { joined: 1 });
        assert_eq!(puts(&message("1")), Put::In { joined: 0 });
        assert_eq!(puts(&message("2")), Put::InForOthers { forgotten: 1, is_linked: true });
        mailbox.detach(LINK);
        assert_eq!(puts(&message("3")), Put::InForOthers { forgotten: 1, is_linked: false });
    }

    #[test]
    fn a_link_is_given_up_once_and_is_none_to_those_that_come_after_it() {
        let mailbox = mailbox(0);
        let puts = || mailbox.push_quietly(&message("x"), 1, &mut Wakes::default());
        assert_eq!(puts(), Put::In { joined: 0 });
        assert_eq!(puts(), Put::InForOthers { forgotten: 1, is_linked: true });
        assert!(mailbox.give_up(GivenUp::Slow));
        assert_eq!(puts(), Put::InForOthers { forgotten: 1, is_linked: false });
        assert!(!mailbox.give_up(GivenUp::Slow), "once a link");
        // The link knows, and is not down yet.
        let taken = mailbox.take(LINK, &settings(), false, |_| ());
        assert_eq!(taken.given_up, Some(GivenUp::Slow));
        assert_eq!(puts(), Put::InForOthers { forgotten: 1, is_linked: false });
        mailbox.detach(LINK);
        mailbox.attach(LINK);
        assert_eq!(puts(), Put::InForOthers { forgotten: 1, is_linked: true });
        assert!(mailbox.give_up(GivenUp::Slow), "another link");
    }

    #[test]
    fn after_a_crash_numbers_go_on_and_the_loss_is_told() {
        let mailbox = mailbox(7);
        mailbox.push(&message("8"), 10);
        assert!(mailbox.resume(7).missed);
        assert_eq!(sent(&mailbox), [(8, "8".into())]);
        assert!(mailbox.resume(8).missed, "the client may not have heard of it");
        mailbox.settled(LINK);
        assert!(!mailbox.resume(8).missed);
    }

    #[test]
    fn what_is_lost_after_a_ready_is_told_by_the_next_one() {
        let mailbox = mailbox(0);
        assert!(!mailbox.resume(0).missed);
        for _ in 0..5 {
            mailbox.push(&message("x"), 4);
        }
        // The client's first word on this link: it has heard of its `ready`, which could not tell.
        mailbox.settled(LINK);
        assert!(mailbox.resume(0).missed);
        mailbox.settled(LINK);
        assert!(!mailbox.resume(0).missed);
    }

    #[test]
    fn an_older_item_never_takes_the_place_of_a_newer_one() {
        let mailbox = mailbox(0);
        mailbox.push(&presence("a", "a2"), 10);
        mailbox.push(&presence("a", "a1"), 10);
        assert_eq!(sent(&mailbox), [(1, "a2".into())]);
    }

    #[test]
    fn a_late_close_of_an_old_link_never_touches_the_new_one() {
        let mailbox = mailbox(0);
        let new = LinkNo(2);
        mailbox.attach(new);
        assert!(mailbox.take(LINK, &settings(), true, |_| ()).displaced);
        assert!(!mailbox.detach(LINK));
        assert!(mailbox.is_linked_to(new));
    }

    fn kept(id: u128, body: &'static str) -> Arc<Push> {
        Arc::new(Push::kept(id, body.as_bytes().into()))
    }

    #[test]
    fn a_kept_message_is_told_as_seen_once_its_number_is() {
        let mailbox = mailbox(0);
        for push in [kept(7, "a"), message("b"), kept(8, "c")] {
            mailbox.push(&push, 10);
        }
        assert_eq!(sent(&mailbox).len(), 3);
        mailbox.seen(2);
        assert_eq!(mailbox.take_seen(), [7]);
        assert!(mailbox.take_seen().is_empty());
        mailbox.detach(LINK);
        mailbox.resume(3);
        assert_eq!(mailbox.take_seen(), [8]);
    }

    #[test]
    fn a_kept_message_is_put_in_once_until_it_was_seen() {
        let mailbox = mailbox(0);
        for _ in 0..2 {
            mailbox.push(&kept(7, "a"), 10);
        }
        assert_eq!(sent(&mailbox), [(1, "a".into())]);
        mailbox.push(&kept(7, "a"), 10);
        assert!(sent(&mailbox).is_empty());
    }

    #[test]
    fn a_kept_message_that_no_longer_fits_may_come_again_under_another_number() {
        let mailbox = mailbox(0);
        mailbox.push(&kept(7, "a"), 10);
        for body in ["1", "2", "3"] {
            mailbox.push(&message(body), 10);
        }
        assert_eq!(sent(&mailbox).len(), 4);
        mailbox.detach(LINK);
        assert!(mailbox.resume(0).missed);
        mailbox.attach(LINK);
        mailbox.push(&kept(7, "a"), 10);
        let again = sent(&mailbox);
        assert_eq!(again.last(), Some(&(4, "a".into())));
        mailbox.seen(4);
        assert_eq!(mailbox.take_seen(), [7]);
    }

    #[tokio::test]
    async fn a_displaced_link_never_sleeps_in_the_new_ones_place() {
        let mailbox = mailbox(0);
        let new = LinkNo(2);
        mailbox.woken(LINK).await;
        let (mailbox, old) = (&mailbox, std::future::poll_fn(|cx| Poll::Ready(mailbox.poll_woken(LINK, cx))));
        assert!(old.await.is_pending());
        mailbox.attach(new);
        mailbox.woken(LINK).await;
        mailbox.woken(new).await;
        let waits = tokio::time::timeout(Duration::from_secs(5), async {
            tokio::join!(mailbox.woken(new), async {
                mailbox.woken(LINK).await;
                mailbox.push(&message("hello"), 10);
            })
        });
        waits.await.expect("the new link is woken");
    }
}
