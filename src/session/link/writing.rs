//! The link's writing side: the outbox to the socket, given up when the mailbox says so. Called by `link` alone. Never
//! decides what may be said; pongs, which the WebSocket library owes by itself, go first.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Sink as _;
use protocol::CloseCode;
use tokio_tungstenite::tungstenite::Error as WsError;

use super::{Link, LinkSocket};
use crate::clock;
use crate::hub::{Control, GivenUp, LinkNo, Mailbox, Taken};
use crate::session::outbox::Outbox;
use crate::session::parting::{Closed, GOODBYE, closed_by, closing_of};

/// What there is to write.
enum Gathered {
    /// All that may be said is in the outbox; perhaps an end follows.
    Ready(Option<Closed>),
    /// Nothing more may be said.
    End(Closed),
    /// Answers may not leave yet.
    Unserved,
}

/// Why something was not written, or not all of it.
#[derive(Debug)]
enum Unwritten {
    /// The mailbox says why.
    Stopped,
    /// The socket's error.
    Broken(WsError),
}

/// Whether what the mailbox gave ends the link whatever else is to be said.
fn ended_by(taken: &Taken) -> Option<Closed> {
    let (code, reason) = match taken.given_up {
        _ if taken.displaced => (CloseCode::Moved, "resumed on another link"),
        Some(GivenUp::Silent) => (CloseCode::NoSignOfLife, "no sign of life"),
        Some(GivenUp::Slow) => (CloseCode::TooSlow, "reads too slowly"),
        Some(GivenUp::Outlived) => (CloseCode::Moved, "the session has come back from another node"),
        None => return None,
    };
    Some(Closed::ByServer(closing_of(code, reason)))
}

impl<S: LinkSocket> Link<S> {
    /// Writes what is in the outbox and the mailbox, if it may still be said.
    pub(super) async fn deliver(&mut self, mailbox: &Mailbox, link: LinkNo) -> Option<Closed> {
        let gathered = match self.gather(mailbox, link, true) {
            Gathered::Unserved => Box::pin(self.gather_later(mailbox, link)).await,
            gathered => gathered,
        };
        let closing = match gathered {
            Gathered::Ready(closing) => closing,
            Gathered::End(closed) => return Some(closed),
            Gathered::Unserved => None,
        };
        if !self.outbox.is_empty() || self.pong_due {
            self.speaks_for_home = false;
            if closing.is_some() {
                // Who does not read is not waited for: a server that stops has no time for it.
                let written = tokio::time::timeout(GOODBYE, self.write_out(mailbox, link));
                let _ = Box::pin(written).await;
            } else if let Some(unwritten) = self.write_out(mailbox, link).await {
                return Some(self.closed_unwritten(&unwritten, mailbox, link));
            }
        }
        if let Some(began) = self.batch_began.take() {
            self.sessions.meters.applied(began.elapsed());
        }
        closing
    }

    /// Answers are on their way but may not leave: they wait like requests do, or are never said.
    async fn gather_later(&mut self, mailbox: &Mailbox, link: LinkNo) -> Gathered {
        // What the socket brings meanwhile calls for this wait, not for the next read.
        self.is_drained = false;
        let Some(shard) = self.me().map(|me| Arc::clone(me.cell.shard())) else {
            return Gathered::Ready(None);
        };
        if self.hold(&shard, mailbox, link, |_| false).await {
            return self.gather(mailbox, link, false);
        }
        self.outbox.clear();
        Gathered::End(Closed::ByServer(closing_of(CloseCode::GoingAway, "the home cannot answer now")))
    }

    /// Puts what the mailbox has, and what of it may be said, in the outbox.
    fn gather(&mut self, mailbox: &Mailbox, link: LinkNo, may_wait: bool) -> Gathered {
        let Some(me) = self.me() else { return Gathered::Ready(None) };
        let may_push = me.cell.shard().serves(clock::now().mono_ms);
        if may_wait && !may_push && self.speaks_for_home && !self.outbox.is_empty() {
            return Gathered::Unserved;
        }
        let taken =
            mailbox.take(link, self.sessions.hub.settings(), may_push, |frame| self.outbox.add_frame(frame));
        if let Some(closed) = ended_by(&taken) {
            self.outbox.clear();
            return Gathered::End(closed);
        }
        let mut closing = None;
        for control in taken.control {
            match control {
                // Our own logout's notice: its answer, which waits for the commit, is the last word.
                Control::Close(last) if self.is_leaving && last.code == CloseCode::Done.number() => {}
                Control::Close(last) => closing = Some(Closed::ByServer(last)),
                control => self.outbox.add_control(&control),
            }
        }
        Gathered::Ready(closing)
    }

    /// Writes control alone: what may not be said yet waits beside it. False when the link must end.
    pub(super) async fn say_control(
        &mut self,
        control: Vec<Control>,
        mailbox: &Mailbox,
        link: LinkNo,
    ) -> bool {
        let encoding = self.outbox.encoding();
        let beside = std::mem::replace(&mut self.outbox, Outbox::new(encoding));
        let mut goes_on = true;
        for one in control {
            match one {
                Control::Close(_) => {
                    mailbox.tell(one);
                    goes_on = false;
                }
                one => self.outbox.add_control(&one),
            }
        }
        goes_on = goes_on && self.write_out(mailbox, link).await.is_none();
        if self.outbox.half_said().is_empty() {
            self.outbox = beside;
        }
        goes_on
    }

    /// Writes what is in the outbox; gives up when the mailbox says so.
    async fn write_out(&mut self, mailbox: &Mailbox, link: LinkNo) -> Option<Unwritten> {
        let (mut is_stuck, mut was_woken) = (false, false);
        let written = std::future::poll_fn(|cx| {
            if let Poll::Ready(written) = self.poll_written(cx) {
                return Poll::Ready(Some(written));
            }
            // What the socket brings meanwhile calls for this write, not for the next read.
            self.is_drained = false;
            if !std::mem::replace(&mut is_stuck, true) {
                mailbox.writing(clock::now().mono_ms.max(1));
            }
            while mailbox.poll_woken(link, cx).is_ready() {
                was_woken = true;
                if mailbox.must_stop(link) {
                    return Poll::Ready(None);
                }
            }
            Poll::Pending
        })
        .await;
        if is_stuck {
            mailbox.writing(0);
        }
        if was_woken {
            mailbox.wake();
        }
        match written {
            Some(written) => written.err().map(Unwritten::Broken),
            None => Some(Unwritten::Stopped),
        }
    }

    /// How the link ends after a write that came to nothing.
    fn closed_unwritten(&self, unwritten: &Unwritten, mailbox: &Mailbox, link: LinkNo) -> Closed {
        if let Unwritten::Broken(error) = unwritten {
            return closed_by(error);
        }
        let taken = mailbox.take(link, self.sessions.hub.settings(), false, |_| ());
        let last_word = || {
            taken.control.iter().find_map(|control| match control {
                Control::Close(closing) => Some(Closed::ByServer(closing.clone())),
                _ => None,
            })
        };
        let slow = || Closed::ByServer(closing_of(CloseCode::TooSlow, "reads too slowly"));
        ended_by(&taken).or_else(last_word).unwrap_or_else(slow)
    }

    /// What the library has to say first, as it knows nothing of what is written past it.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        if self.pong_due {
            ready!(Pin::new(&mut self.ws).poll_flush(cx))?;
            self.pong_due = false;
        }
        self.outbox.poll_write(self.ws.get_mut(), cx).map_err(WsError::Io)
    }
}
