//! One link's task: the only writer of its socket. What one wake-up brought is carried out in order and answered in
//! one write, and pushes join it. Whether anything may still be said is checked right before every write. Spawned by
//! `gate` once `ready` is known; ends by itself, and then the session's time starts to run.

use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::SinkExt as _;
use futures_util::stream::FuturesUnordered;
use protocol::reply::ErrorBody;
use protocol::request::Op;
use protocol::{CloseCode, DecodeError, Encoding, ErrorCode, decode_request};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::answer::{Answer, Body, Waiting, add_answer};
use super::fragments::WholeMessages;
use super::gulp::Gulp;
use super::machine::{Machine, Verdict};
use super::opening::Entered;
use super::outbox::Outbox;
use super::parting::{BROKEN, Closed, GOODBYE, NO_CODE, closed_by, closing_of, goodbye};
use super::traced::{CommandTrace, WaitTrace};
use super::{Attachment, Sessions};
use crate::clock::{self, Now};
use crate::events::EndReason;
use crate::home::HomeError;
use crate::hub::{Control, LinkNo, Mailbox};
use crate::ids::PlayerId;
use crate::telemetry::traces;
use crate::wire::error_of;

mod reading;
mod writing;

use reading::Event;

/// A socket that a link can live on.
pub trait LinkSocket: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> LinkSocket for S {}

/// What a client is heard and spoken to through.
pub type ClientSocket<S> = WebSocketStream<WholeMessages<Gulp<S>>>;

/// What a socket has to say: nothing more, a fault, or a message.
type Heard = Option<Result<Message, WsError>>;

type Later = Pin<Box<dyn Future<Output = Settled> + Send>>;

/// What came of what an answer waited for.
struct Settled {
    reference: u32,
    answer: Answer,
    /// Of a request that is carried out only now.
    trace: Option<CommandTrace>,
}

impl Settled {
    /// Nobody asked, and nothing is said.
    const fn silently() -> Self {
        let answer = Answer::Ok(Body::Empty(protocol::reply::Empty {}));
        Self { reference: 0, answer, trace: None }
    }
}

/// A link.
pub struct Link<S> {
    sessions: Arc<Sessions>,
    me: Leaving,
    ws: ClientSocket<S>,
    machine: Machine,
    outbox: Outbox,
    /// Something in the outbox is true only while the shard serves; a refusal of what was never looked at always is.
    speaks_for_home: bool,
    waiting: Option<Box<FuturesUnordered<Later>>>,
    pong_due: bool,
    batch_began: Option<std::time::Instant>,
    wake_ups: u8,
    /// The socket was asked in this very turn of the task, and had nothing: it calls when it has.
    is_drained: bool,
    /// The WebSocket library's read buffer may be larger than it was made.
    is_swollen: bool,
    is_settled: bool,
    is_leaving: bool,
    /// A request waits to be carried out, and all that come behind it.
    is_held: bool,
    place: Option<OwnedSemaphorePermit>,
}

/// Leaves the session when the link's task ends, however it ends.
struct Leaving {
    sessions: Arc<Sessions>,
    attachment: Option<Attachment>,
}

impl Leaving {
    fn leave(&mut self, code: u16) {
        if let Some(attachment) = self.attachment.take() {
            self.sessions.leave(&attachment, code);
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.leave(BROKEN);
    }
}

impl<S: LinkSocket> Link<S> {
    /// A link for a session that was entered; `ready` is the first frame it writes, as the answer to `reference`.
    #[must_use]
    pub fn new(
        sessions: Arc<Sessions>,
        ws: ClientSocket<S>,
        encoding: Encoding,
        entered: Entered,
        reference: u32,
    ) -> Self {
        let Entered { attachment, ready, owed, owes_kept } = entered;
        let mut outbox = Outbox::new(encoding);
        outbox.add(Op::Ready, u64::from(reference), &ready);
        let mut link = Self {
            me: Leaving { sessions: Arc::clone(&sessions), attachment: Some(attachment) },
            sessions,
            ws,
            machine: Machine::default(),
            outbox,
            speaks_for_home: true,
            waiting: None,
            pong_due: false,
            batch_began: None,
            wake_ups: 0,
            is_drained: false,
            // A token is long.
            is_swollen: true,
            is_settled: false,
            is_leaving: false,
            is_held: false,
            place: None,
        };
        if !owed.is_empty() {
            link.owe_snapshots(owed);
        }
        if owes_kept {
            link.owe_kept();
        }
        link
    }

    /// Serves until the end, and lets go of the link's place among all then; the code under which that was counted. Not an
    /// async fn, which would hold the link twice: once as its argument, once as its variable.
    pub fn run(mut self, place: OwnedSemaphorePermit) -> impl Future<Output = u16> + Send {
        self.place = Some(place);
        async move {
            let Some((mailbox, link)) = self.me().map(|me| (Arc::clone(&me.mailbox), me.link)) else {
                return NO_CODE;
            };
            let closed = self.serve(&mailbox, link).await;
            // What is rare is boxed: its state would else be part of every idle link's.
            Box::pin(self.end(closed, &mailbox, link)).await
        }
    }

    async fn end(&mut self, closed: Closed, mailbox: &Mailbox, link: LinkNo) -> u16 {
        let closed = self.after(closed, mailbox, link).await;
        let (code, counted) = match &closed {
            Closed::ByServer(closing) => (closing.code, closing.code),
            Closed::ByClientForGood => (1000, 1000),
            // Whatever clients say is one number to those who count.
            Closed::ByClient(code) => (*code, NO_CODE),
            Closed::SessionGone => (NO_CODE, NO_CODE),
        };
        self.me.leave(code);
        self.sessions.meters.closed(counted);
        // Nothing can be said after half a frame.
        let finished = self.ws.get_mut().write_all(self.outbox.half_said());
        if !matches!(tokio::time::timeout(GOODBYE, finished).await, Ok(Ok(()))) {
            return counted;
        }
        match closed {
            Closed::ByServer(closing) => goodbye(&mut self.ws, self.outbox.encoding(), closing).await,
            // The answer to the client's close frame waits in the buffer.
            _ => {
                let _ = tokio::time::timeout(GOODBYE, self.ws.flush()).await;
            }
        }
        counted
    }

    /// What is still to be known or done before the session is left.
    async fn after(&mut self, closed: Closed, mailbox: &Mailbox, link: LinkNo) -> Closed {
        match closed {
            Closed::ByClientForGood => {
                // A late close of an old link ends nothing: the session is the newer link's.
                if let Some(me) = self.me.attachment.as_ref().filter(|_| mailbox.is_linked_to(link)) {
                    // A logout without a frame, and traced like one.
                    let trace = CommandTrace::begin(Op::Logout);
                    let ended = self.sessions.home.end(&me.cell, me.session, EndReason::Logout, clock::now());
                    let refused = |error: HomeError| Answer::Error(Box::new(error_of(&error)));
                    trace.end(me, &ended.map_or_else(refused, |()| Answer::Logout));
                }
                Closed::ByClientForGood
            }
            // Its notice is on its way: a moment's patience gives the client the true reason.
            Closed::SessionGone => {
                let notice = async {
                    loop {
                        let taken = mailbox.take(link, self.sessions.hub.settings(), false, |_| ());
                        let close = taken.control.into_iter().find_map(|control| match control {
                            Control::Close(closing) => Some(closing),
                            _ => None,
                        });
                        match close {
                            Some(closing) => return closing,
                            None if taken.displaced => {
                                return closing_of(CloseCode::Moved, "resumed on another link");
                            }
                            None => mailbox.woken(link).await,
                        }
                    }
                };
                let closing = tokio::time::timeout(GOODBYE / 2, notice).await;
                Closed::ByServer(closing.unwrap_or_else(|_| self.unexplained()))
            }
            other => other,
        }
    }

    /// The session is gone and no notice said why: with its home, or by itself.
    fn unexplained(&self) -> crate::hub::Closing {
        if self.has_left() {
            closing_of(CloseCode::Moved, "another node serves the player now")
        } else {
            closing_of(CloseCode::SessionExpired, "the session is gone")
        }
    }

    fn me(&self) -> Option<&Attachment> {
        self.me.attachment.as_ref()
    }

    /// What waits while the link is idle is one small future: all that is rare is boxed.
    async fn serve(&mut self, mailbox: &Mailbox, link: LinkNo) -> Closed {
        loop {
            if let Some(closed) = self.deliver(mailbox, link).await {
                return closed;
            }
            let outcome = match poll_fn(|cx| self.poll_event(mailbox, link, cx)).await {
                Event::Done(outcome) => outcome,
                Event::Unserved(first) => Box::pin(self.held(first, mailbox, link)).await,
            };
            if let Some(closed) = outcome {
                // What was answered before the end is still said.
                let said = self.deliver(mailbox, link).await;
                return said.filter(|_| matches!(closed, Closed::SessionGone)).unwrap_or(closed);
            }
        }
    }

    /// Whether the player is not in this home's memory any more, or is again as another home left her.
    fn has_left(&self) -> bool {
        self.me().is_some_and(|me| me.cell.read(|_| ()).is_none())
    }

    /// Waits for the shard to answer again, at most the hold time and no longer than there is something to wait for;
    /// control goes out meanwhile.
    async fn hold(
        &mut self,
        shard: &crate::home::shard::Shard,
        mailbox: &Mailbox,
        link: LinkNo,
        is_vain: fn(&Self) -> bool,
    ) -> bool {
        let deadline = tokio::time::Instant::now() + self.sessions.home.settings().hold;
        while !is_vain(self) {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            tokio::select! {
                biased;
                serving = shard.wait_serving(left) => return serving,
                () = mailbox.woken(link) => {
                    if mailbox.must_stop(link) {
                        mailbox.wake();
                        return false;
                    }
                    let taken = mailbox.take(link, self.sessions.hub.settings(), false, |_| ());
                    if !self.say_control(taken.control, mailbox, link).await {
                        return false;
                    }
                }
            }
        }
        false
    }

    fn frame(
        &mut self,
        frame: Option<Result<Message, WsError>>,
        now: Now,
        held_in_vain: bool,
        mailbox: &Mailbox,
    ) -> Option<Closed> {
        let bytes = match frame {
            None => return Some(Closed::ByClient(BROKEN)),
            Some(Err(error)) => return Some(closed_by(&error)),
            Some(Ok(Message::Close(Some(close)))) if u16::from(close.code) == 1000 => {
                return Some(Closed::ByClientForGood);
            }
            Some(Ok(Message::Close(close))) => {
                return Some(Closed::ByClient(close.map_or(NO_CODE, |close| close.code.into())));
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                self.pong_due = true;
                let abuse = self.machine.count(&self.sessions.rates, now);
                return abuse.then(|| Closed::ByServer(closing_of(CloseCode::RateAbuse, "too many pings")));
            }
            Some(Ok(Message::Binary(bytes))) => (Encoding::MessagePack, bytes),
            Some(Ok(Message::Text(text))) => (Encoding::Json, bytes::Bytes::from(text)),
        };
        let (spoken, bytes) = bytes;
        self.is_swollen |= bytes.len() > self.ws.get_config().read_buffer_size;
        let encoding = self.outbox.encoding();
        let decode = || {
            if spoken == encoding { decode_request(encoding, &bytes) } else { Err(wrong_kind_of_frame()) }
        };
        match self.machine.judge(&self.sessions.rates, &mailbox.limits, now, decode) {
            Verdict::Abuse => {
                Some(Closed::ByServer(closing_of(CloseCode::RateAbuse, "the rate limits were abused")))
            }
            Verdict::TooFast { limit, reference, retry_after_ms } => {
                self.sessions.meters.too_fast(limit);
                let body =
                    ErrorBody::new(ErrorCode::RateLimited, "too many requests").after(retry_after_ms.into());
                self.refuse(reference, &body)
            }
            Verdict::Refuse(error) => {
                let body = ErrorBody::new(error.code, error.message);
                self.refuse(error.reference, &body)
            }
            Verdict::Go(reference, _) if held_in_vain && self.has_left() => {
                self.refuse(reference, &error_of(&HomeError::left()))
            }
            Verdict::Go(reference, request) if held_in_vain => {
                let wait_ms = u64::try_from(self.sessions.home.settings().hold.as_millis()).unwrap_or(1000);
                let body = ErrorBody::new(ErrorCode::NotHome, "the home of this player cannot answer now");
                let body = body.after(wait_ms);
                self.sessions.meters.refused(request.op(), body.code);
                self.refuse(reference, &body)
            }
            Verdict::Go(reference, request) => {
                let sessions = Arc::clone(&self.sessions);
                if !std::mem::replace(&mut self.is_settled, true)
                    && let Some(me) = self.me()
                {
                    mailbox.settled(me.link);
                }
                let trace = CommandTrace::begin(request.op());
                let answer = sessions.dispatch(self.me()?, now, &request);
                sessions.meters.command(request.op(), &answer);
                self.answer(reference, answer, Some(trace))
            }
        }
    }

    /// Refuses what the house has not looked at: that may be said whether the shard serves or not.
    fn refuse(&mut self, reference: u32, body: &ErrorBody) -> Option<Closed> {
        self.outbox.add(Op::Error, u64::from(reference), body);
        None
    }

    /// Puts an answer in the outbox, or what it waits for among the waiting.
    fn answer(&mut self, reference: u32, answer: Answer, trace: Option<CommandTrace>) -> Option<Closed> {
        self.speaks_for_home = true;
        add_answer(&mut self.outbox, reference, &answer);
        match answer {
            Answer::Ok(_) | Answer::Error(_) => {
                if let Some((me, trace)) = self.me().zip(trace) {
                    trace.end(me, &answer);
                }
                None
            }
            Answer::Later(waiting) => {
                self.wait_for(reference, waiting, trace);
                None
            }
            Answer::Logout => Some(Closed::ByServer(closing_of(CloseCode::Done, "logged out"))),
            Answer::Gone => Some(Closed::SessionGone),
            Answer::Again(again) => {
                self.is_held = false;
                let sessions = Arc::clone(&self.sessions);
                let answer = sessions.go_on(self.me()?, clock::now(), *again);
                sessions.meters.settled(&answer);
                self.answer(reference, answer, trace)
            }
        }
    }

    fn wait_for(&mut self, reference: u32, waiting: Waiting, trace: Option<CommandTrace>) {
        self.is_leaving |= matches!(waiting, Waiting::Farewell(_));
        self.is_held |= matches!(waiting, Waiting::Held(_));
        let sessions = Arc::clone(&self.sessions);
        let trace = self.me().zip(trace).and_then(|(me, trace)| trace.waits(me));
        let later: Later = Box::pin(async move {
            let started = std::time::Instant::now();
            let durable = matches!(waiting, Waiting::Durable { .. });
            let answer =
                traces::during(trace.as_ref().and_then(WaitTrace::work), sessions.settle(waiting)).await;
            sessions.meters.settled(&answer);
            if durable {
                sessions.meters.durable(started.elapsed());
            }
            let trace = trace.and_then(|trace| trace.settles(&answer));
            Settled { reference, answer, trace }
        });
        self.waiting.get_or_insert_default().push(later);
    }

    fn owe_snapshots(&mut self, players: Vec<PlayerId>) {
        let Some((mailbox, link)) = self.me().map(|me| (Arc::clone(&me.mailbox), me.link)) else { return };
        let sessions = Arc::clone(&self.sessions);
        let later: Later = Box::pin(async move {
            sessions.push_snapshots(&mailbox, &players).await;
            // Until now the next link would have been owed them.
            mailbox.looks_told(link);
            Settled::silently()
        });
        self.waiting.get_or_insert_default().push(later);
    }

    fn owe_kept(&mut self) {
        let Some(mailbox) = self.me().map(|me| Arc::clone(&me.mailbox)) else { return };
        let sessions = Arc::clone(&self.sessions);
        let later: Later = Box::pin(async move {
            sessions.push_kept(&mailbox).await;
            Settled::silently()
        });
        self.waiting.get_or_insert_default().push(later);
    }
}

fn wrong_kind_of_frame() -> DecodeError {
    DecodeError {
        code: ErrorCode::BadFrame,
        reference: 0,
        message: "binary frames on a MessagePack link, text frames on a JSON link".to_owned(),
    }
}
