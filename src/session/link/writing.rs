//! The link's writing side: the outbox to the socket, given up when the mailbox says so. Called by `link` alone. Never
//! decides what may be said; pongs, which the WebSocket library owes by itself, go first.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Sink as _;
use protocol::CloseCode;
use tokio_tungstenite::tungstenite::Error as WsError;

use super::{Link, LinkSocket};
use crate::clock;
use crate::hub::{Control, LinkNo, Mailbox};
use crate::session::outbox::Outbox;
use crate::session::parting::{Closed, closed_by, closing_of};

impl<S: LinkSocket> Link<S> {
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
    pub(super) async fn write_out(&mut self, mailbox: &Mailbox, link: LinkNo) -> Option<Closed> {
        let (mut is_stuck, mut was_woken) = (false, false);
        let written = std::future::poll_fn(|cx| {
            if let Poll::Ready(written) = self.poll_written(cx) {
                return Poll::Ready(Some(written));
            }
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
            Some(written) => written.err().map(|error| closed_by(&error)),
            None => Some(Closed::ByServer(closing_of(CloseCode::TooSlow, "reads too slowly"))),
        }
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
