//! The link's reading side: what it wakes up to, and the frames that one wake-up brought. Called by `link` alone, which
//! carries each frame out. Plain code where it can be: what waits here is part of every idle link.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::{FutureExt as _, StreamExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Heard, Link, LinkSocket, Settled};
use crate::clock::{self, Now};
use crate::hub::{LinkNo, Mailbox};
use crate::session::parting::Closed;
use crate::session::traced::HoldTrace;

/// Bytes of answers after which no more frames are carried out before they are written.
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Frames carried out before their answers are written.
const BATCH_FRAMES_MAX: usize = 64;
/// One wake-up in so many is timed, the first of a link among them: the clocks would cost more than many a command.
const TIMED_EVERY: u8 = 16;

/// What a link wakes up to.
pub(super) enum Event {
    /// Carried out; perhaps it was the end.
    Done(Option<Closed>),
    /// A frame came while the shard does not answer.
    Unserved(Heard),
}

impl<S: LinkSocket> Link<S> {
    /// In order: the mailbox, answers that had to wait, the socket.
    pub(super) fn poll_event(
        &mut self,
        mailbox: &Mailbox,
        link: LinkNo,
        cx: &mut Context<'_>,
    ) -> Poll<Event> {
        let was_drained = std::mem::take(&mut self.is_drained);
        if mailbox.poll_woken(link, cx).is_ready() {
            return Poll::Ready(Event::Done(None));
        }
        if let Poll::Ready(Settled { reference, answer, trace }) = self.poll_waiting(cx) {
            return Poll::Ready(Event::Done(self.answer(reference, answer, trace)));
        }
        if was_drained || !self.may_read() {
            return Poll::Pending;
        }
        let first = ready!(self.ws.poll_next_unpin(cx));
        let now = clock::now();
        Poll::Ready(if self.me().is_some_and(|me| me.cell.shard().serves(now.mono_ms)) {
            Event::Done(self.frames(first, now, false, mailbox, cx))
        } else {
            Event::Unserved(first)
        })
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Settled> {
        let Some(waiting) = self.waiting.as_mut() else { return Poll::Pending };
        let done = ready!(waiting.poll_next_unpin(cx));
        if waiting.is_empty() {
            self.waiting = None;
        }
        done.map_or(Poll::Pending, Poll::Ready)
    }

    /// Whether one more command may wait for the store, and none waits before it is carried out; else the link is not
    /// read.
    fn may_read(&self) -> bool {
        if self.is_held {
            return false;
        }
        let waiting = self.waiting.as_ref().map_or(0, |waiting| waiting.len());
        waiting < self.sessions.settings.durable_in_flight_max
    }

    /// Frames came while the shard does not answer: they wait for it, at most the hold time, and not once it has gone to
    /// another node.
    pub(super) async fn held(&mut self, first: Heard, mailbox: &Mailbox, link: LinkNo) -> Option<Closed> {
        mailbox.heard(clock::now().mono_ms);
        // As seldom as others are timed: else those who were held would seem more than they are.
        if self.wake_ups.is_multiple_of(TIMED_EVERY) {
            self.batch_began = Some(std::time::Instant::now());
        }
        let shard = Arc::clone(self.me()?.cell.shard());
        let trace = HoldTrace::begin();
        let in_vain = !self.hold(&shard, mailbox, link, Self::has_left).await;
        if let Some((trace, me)) = trace.zip(self.me()) {
            trace.end(me, in_vain);
        }
        let mut first = Some(first);
        poll_fn(|cx| {
            let first = first.take().flatten();
            Poll::Ready(self.frames(first, clock::now(), in_vain, mailbox, cx))
        })
        .await
    }

    /// Carries out what one wake-up brought.
    fn frames(
        &mut self,
        first: Heard,
        now: Now,
        held_in_vain: bool,
        mailbox: &Mailbox,
        cx: &mut Context<'_>,
    ) -> Option<Closed> {
        mailbox.heard(now.mono_ms);
        if self.wake_ups.is_multiple_of(TIMED_EVERY) && self.batch_began.is_none() {
            self.batch_began = Some(std::time::Instant::now());
        }
        self.wake_ups = self.wake_ups.wrapping_add(1);
        let mut next = Some(first);
        for _ in 0..BATCH_FRAMES_MAX {
            let frame = match next.take() {
                Some(first) => first,
                None => match self.ws.poll_next_unpin(cx) {
                    Poll::Ready(frame) => frame,
                    Poll::Pending => {
                        self.is_drained = true;
                        self.slim();
                        break;
                    }
                },
            };
            if let Some(closed) = self.frame(frame, now, held_in_vain, mailbox) {
                return Some(closed);
            }
            if !self.may_read() || self.outbox.bytes() > BATCH_BYTES_MAX {
                break;
            }
        }
        None
    }

    /// The WebSocket library keeps what a large message made of its read buffer for as long as the link lives, so it
    /// gets a new one. Only between messages, when the library has nothing to read or to say: what it holds is lost.
    fn slim(&mut self) {
        if !self.is_swollen || self.pong_due || self.ws.get_ref().is_amid() {
            return;
        }
        self.is_swollen = false;
        // The new one has not been asked yet.
        self.is_drained = false;
        let config = *self.ws.get_config();
        let socket = self.ws.get_mut().hand_over();
        // Ready at once: nothing is said at such a start.
        let renewed = WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).now_or_never();
        debug_assert!(renewed.is_some(), "a socket was lost");
        if let Some(renewed) = renewed {
            self.ws = renewed;
        }
    }
}
