//! What is to be said to one peer: mail, numbered from one in each life of the link, and calls' questions and answers.
//! Pure. Bounded: mail that the peer has not seen fills at most so much, and past it the link begins anew, which both
//! sides answer with a resync; a link that is slow must not eat the memory of a node.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::telemetry::traces::Parent;

/// Most letters that wait or are not seen yet, and most bytes of them.
const LETTERS_MAX: usize = 65_536;
const LETTER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most calls and answers that wait to be sent, and most bytes of them.
const FRAMES_MAX: usize = 65_536;
const FRAME_BYTES_WAITING_MAX: usize = 64 * 1024 * 1024;
/// Most bytes of mail in one frame, about.
const FRAME_BYTES: usize = 64 * 1024;
/// Letters after which the other side is told that they were seen, if nothing else goes there.
const SEEN_EVERY: u64 = 256;
/// The same by their bytes: well before the other side holds all that it may.
const SEEN_EVERY_BYTES: usize = LETTER_BYTES_MAX / 16;

/// Which room a body is for: rooms speak with their own kind on other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Topic {
    /// Who watches whom, and what there is to see.
    Presence,
    /// Who is in which room, and what is said there.
    Rooms,
    /// Records at their home: reads, hand-over, salvage.
    Home,
    /// Calls of game services, carried to the home of whom they concern.
    Service,
    /// Whether the store is reached, and who holds which shard.
    Store,
}

/// A letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Letter {
    pub(super) topic: Topic,
    pub(super) body: Bytes,
}

/// The span under which a question is asked, as W3C Trace Context writes it: what cannot be read is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trace {
    parent: String,
    state: Option<String>,
}

impl Trace {
    pub(super) fn of(parent: &Parent) -> Self {
        Self { parent: parent.context.to_string(), state: parent.state.as_deref().map(str::to_owned) }
    }

    pub(super) fn parent(&self) -> Option<Parent> {
        Parent::read(std::iter::once(self.parent.as_bytes()), self.state.iter().map(|state| state.as_bytes()))
    }
}

/// What goes over a peer link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Frame {
    /// Letters, the first of which has this number.
    Mail { first: u64, letters: Vec<Letter> },
    /// All letters up to this one were seen.
    Seen { number: u64 },
    /// A question, and of which trace it is a part: that goes to those alone who say that they read it (`Says::traces`).
    Call {
        id: u64,
        topic: Topic,
        body: Bytes,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<Trace>,
    },
    /// Its answer; none if nobody there could give one.
    Answer { id: u64, body: Option<Bytes> },
    /// A sign of life, to be answered in kind.
    Ping,
    /// The answer.
    Pong,
}

impl Frame {
    /// What it holds, about.
    fn bytes(&self) -> usize {
        match self {
            Self::Mail { letters, .. } => letters.iter().map(|letter| letter.body.len()).sum(),
            Self::Call { body, .. } => body.len(),
            Self::Answer { body, .. } => body.as_ref().map_or(0, Bytes::len),
            Self::Seen { .. } | Self::Ping | Self::Pong => 0,
        }
    }
}

/// The peer is behind by more than may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overflow;

/// Letters out of order: some were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap;

/// The outgoing side.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    waiting: VecDeque<Letter>,
    waiting_bytes: usize,
    /// Sizes of what was sent and is not seen, the oldest first.
    unseen: VecDeque<usize>,
    unseen_bytes: usize,
    sent: u64,
    seen: u64,
    /// A letter that is followed until it is seen: its number, and when it was posted. One at a time, so that posting reads
    /// no clock.
    followed: Option<(u64, Instant)>,
    frames: VecDeque<Frame>,
    frame_bytes: usize,
}

impl Outgoing {
    /// Puts a letter behind the others.
    pub(super) fn post(&mut self, topic: Topic, body: Bytes) -> Result<(), Overflow> {
        let bytes = self.waiting_bytes + self.unseen_bytes + body.len();
        if self.waiting.len() + self.unseen.len() >= LETTERS_MAX || bytes > LETTER_BYTES_MAX {
            return Err(Overflow);
        }
        self.waiting_bytes += body.len();
        self.waiting.push_back(Letter { topic, body });
        Ok(())
    }

    /// Follows the last letter that was posted, unless one is followed.
    pub(super) fn follow(&mut self, now: impl FnOnce() -> Instant) {
        let last = self.sent + self.waiting.len() as u64;
        self.followed.get_or_insert_with(|| (last, now()));
    }

    /// When the letter was posted that is followed.
    pub(super) fn followed_since(&self) -> Option<Instant> {
        self.followed.map(|(_, posted_at)| posted_at)
    }

    /// Whether half of what may wait does.
    pub(super) fn is_busy(&self) -> bool {
        self.waiting.len() + self.unseen.len() > LETTERS_MAX / 2
            || self.waiting_bytes + self.unseen_bytes > LETTER_BYTES_MAX / 2
    }

    /// Puts a frame before all letters: calls wait for no mail.
    pub(super) fn put(&mut self, frame: Frame) -> Result<(), Overflow> {
        let bytes = frame.bytes();
        if self.frames.len() >= FRAMES_MAX || self.frame_bytes + bytes > FRAME_BYTES_WAITING_MAX {
            return Err(Overflow);
        }
        self.frame_bytes += bytes;
        self.frames.push_back(frame);
        Ok(())
    }

    /// The next frame to be sent.
    pub(super) fn next(&mut self) -> Option<Frame> {
        if let Some(frame) = self.frames.pop_front() {
            self.frame_bytes -= frame.bytes();
            return Some(frame);
        }
        let (mut letters, mut bytes) = (Vec::new(), 0);
        while bytes < FRAME_BYTES {
            let Some(letter) = self.waiting.pop_front() else { break };
            bytes += letter.body.len();
            self.unseen.push_back(letter.body.len());
            letters.push(letter);
        }
        if letters.is_empty() {
            return None;
        }
        self.waiting_bytes -= bytes;
        self.unseen_bytes += bytes;
        let first = self.sent + 1;
        self.sent += letters.len() as u64;
        Some(Frame::Mail { first, letters })
    }

    /// The peer has seen all up to this number. When the letter was posted that was followed, if it is among them.
    pub(super) fn seen(&mut self, number: u64) -> Option<Instant> {
        while self.seen < number.min(self.sent) {
            self.seen += 1;
            self.unseen_bytes -= self.unseen.pop_front().unwrap_or(0);
        }
        self.followed.take_if(|(followed, _)| *followed <= self.seen).map(|(_, posted_at)| posted_at)
    }
}

/// The incoming side.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    seen: u64,
    told: u64,
    /// Of what is not told.
    bytes: usize,
}

impl Incoming {
    /// Takes note of letters; what is to be told of it.
    pub(super) fn take(&mut self, first: u64, count: usize, bytes: usize) -> Result<Option<Frame>, Gap> {
        if first != self.seen + 1 {
            return Err(Gap);
        }
        self.seen += count as u64;
        self.bytes += bytes;
        let is_due = self.seen - self.told >= SEEN_EVERY || self.bytes >= SEEN_EVERY_BYTES;
        Ok(is_due.then(|| self.tell()))
    }

    /// What is not told yet, with the next sign of life.
    pub(super) fn rest(&mut self) -> Option<Frame> {
        (self.seen > self.told).then(|| self.tell())
    }

    fn tell(&mut self) -> Frame {
        (self.told, self.bytes) = (self.seen, 0);
        Frame::Seen { number: self.seen }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    fn body(bytes: usize) -> Bytes {
        Bytes::from(vec![7; bytes])
    }

    #[test]
    fn letters_keep_their_order_and_calls_go_before_them() {
        let mut outgoing = Outgoing::default();
        for length in 1..=3 {
            outgoing.post(Topic::Presence, body(length)).unwrap();
        }
        outgoing.put(Frame::Ping).unwrap();
        assert_eq!(outgoing.next(), Some(Frame::Ping));
        let Some(Frame::Mail { first: 1, letters }) = outgoing.next() else { panic!() };
        assert_eq!(letters.iter().map(|letter| letter.body.len()).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(outgoing.next(), None);
    }

    #[test]
    fn what_is_not_seen_counts_until_it_is() {
        let mut outgoing = Outgoing::default();
        let half = LETTER_BYTES_MAX / 2;
        outgoing.post(Topic::Home, body(half)).unwrap();
        outgoing.next().unwrap();
        outgoing.post(Topic::Home, body(half)).unwrap();
        assert_eq!(outgoing.post(Topic::Home, body(1)), Err(Overflow));
        outgoing.seen(1);
        assert_eq!(outgoing.post(Topic::Home, body(half)), Ok(()));
        // A number that was never given says nothing.
        outgoing.seen(u64::MAX);
        assert_eq!(outgoing.post(Topic::Home, body(1)), Err(Overflow));
        let mut many = Outgoing::default();
        for _ in 0..LETTERS_MAX {
            many.post(Topic::Home, Bytes::new()).unwrap();
        }
        assert_eq!(many.post(Topic::Home, Bytes::new()), Err(Overflow));
    }

    #[test]
    fn one_letter_at_a_time_is_followed_until_it_is_seen() {
        let (mut outgoing, began) = (Outgoing::default(), Instant::now());
        let post = |outgoing: &mut Outgoing, at| {
            outgoing.post(Topic::Home, body(1)).unwrap();
            outgoing.follow(|| at);
        };
        assert_eq!(outgoing.seen(1), None);
        post(&mut outgoing, began);
        post(&mut outgoing, began + Duration::from_secs(1));
        assert_eq!(outgoing.seen(2), None, "nothing was sent yet");
        outgoing.next().unwrap();
        assert_eq!((outgoing.followed_since(), outgoing.seen(1)), (Some(began), Some(began)));
        assert_eq!((outgoing.followed_since(), outgoing.seen(2)), (None, None));
        let later = began + Duration::from_secs(2);
        post(&mut outgoing, later);
        outgoing.next().unwrap();
        assert_eq!(outgoing.seen(3), Some(later));
    }

    #[test]
    fn calls_that_wait_are_bounded_too() {
        let mut outgoing = Outgoing::default();
        let call = |bytes| Frame::Call { id: 1, topic: Topic::Home, body: body(bytes), trace: None };
        outgoing.put(call(FRAME_BYTES_WAITING_MAX)).unwrap();
        assert_eq!(outgoing.put(call(1)), Err(Overflow));
        outgoing.next().unwrap();
        assert_eq!(outgoing.put(call(1)), Ok(()));
        while outgoing.put(Frame::Ping).is_ok() {}
        assert_eq!(outgoing.frames.len(), FRAMES_MAX);
    }

    #[test]
    fn a_letter_that_is_missing_is_noticed() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.take(1, 3, 0), Ok(None));
        assert_eq!(incoming.rest(), Some(Frame::Seen { number: 3 }));
        assert_eq!(incoming.rest(), None);
        assert_eq!(incoming.take(5, 1, 0), Err(Gap));
        assert_eq!(incoming.take(3, 1, 0), Err(Gap));
        assert_eq!(incoming.take(4, 256, 0), Ok(Some(Frame::Seen { number: 259 })));
        assert_eq!(incoming.take(260, 1, SEEN_EVERY_BYTES - 1), Ok(None));
        assert_eq!(incoming.take(261, 1, 1), Ok(Some(Frame::Seen { number: 261 })));
        assert_eq!(incoming.take(262, 1, 1), Ok(None));
    }

    #[test]
    fn a_question_says_of_which_trace_it_is_a_part_and_one_of_none_looks_as_it_always_did() {
        #[derive(Debug, Serialize, Deserialize)]
        enum Before {
            Call { id: u64, topic: Topic, body: Bytes },
        }
        let untraced = Frame::Call { id: 1, topic: Topic::Home, body: body(3), trace: None };
        let before = Before::Call { id: 1, topic: Topic::Home, body: body(3) };
        let written = rmp_serde::to_vec(&untraced).unwrap();
        assert_eq!(written, rmp_serde::to_vec(&before).unwrap());
        assert_eq!(rmp_serde::from_slice::<Frame>(&written).unwrap(), untraced);
        let parent =
            Parent { context: crate::telemetry::traces::Context::root(|_| true), state: Some("a=1".into()) };
        let traced =
            Frame::Call { id: 1, topic: Topic::Home, body: body(3), trace: Some(Trace::of(&parent)) };
        let written = rmp_serde::to_vec(&traced).unwrap();
        assert!(rmp_serde::from_slice::<Before>(&written).is_err(), "it need not be kept from anybody");
        let read = rmp_serde::from_slice(&written).unwrap();
        let Frame::Call { trace: Some(trace), .. } = read else { panic!("{read:?}") };
        assert_eq!(trace.parent(), Some(parent));
        assert_eq!(Trace { parent: "x".to_owned(), state: None }.parent(), None);
    }

    proptest! {
        #[test]
        fn all_that_is_posted_arrives_once_and_in_order(
            steps in proptest::collection::vec((0_usize..40_000, any::<bool>()), 1..60),
        ) {
            let (mut outgoing, mut incoming) = (Outgoing::default(), Incoming::default());
            let (mut posted, mut arrived) = (Vec::new(), Vec::new());
            for (bytes, sends) in steps {
                outgoing.post(Topic::Presence, body(bytes)).unwrap();
                posted.push(bytes);
                while let Some(Frame::Mail { first, letters }) = sends.then(|| outgoing.next()).flatten() {
                    let told = incoming.take(first, letters.len(), 0).unwrap();
                    arrived.extend(letters.iter().map(|letter| letter.body.len()));
                    if let Some(Frame::Seen { number }) = told.or_else(|| incoming.rest()) {
                        outgoing.seen(number);
                    }
                }
                prop_assert_eq!(&posted[..arrived.len()], &arrived[..]);
            }
            while let Some(Frame::Mail { letters, .. }) = outgoing.next() {
                arrived.extend(letters.iter().map(|letter| letter.body.len()));
            }
            prop_assert_eq!(posted, arrived);
        }
    }
}
