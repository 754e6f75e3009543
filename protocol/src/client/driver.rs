//! The client's one task: attempts, their outcome, what comes next. Started by the handle; `live` is its other half, for
//! the time between `ready` and the end of a link. Never waits without hearing its user.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::backoff::Backoff;
use super::config::{Config, Credentials};
use super::event::{Answered, Down, Event, Happened, Outcome, Presented, Timing};
use super::handshake::{Handshake, handshake};
use super::inbox::Inbox;
use super::ledger::{Entry, Ledger, Slot};
use super::link::{DropKind, Heard, Link};
use crate::codes::{Advice, ErrorCode, advice};
use crate::reply::{ErrorBody, Ready, Redirect};
use crate::request::{Login, Request, Resume};
use crate::{Stamp, push};

/// How long to wait for the close that follows a refusal.
const CLOSE_AFTER_ERROR: Duration = Duration::from_millis(500);
/// Redirects followed at once, one after the other. Servers that send a client round and round are given a rest.
const REDIRECTS_MAX: u32 = 4;
/// The longest wait after the way to a home that a server has named came to nothing: the servers live, and know another
/// home as soon as that one's leases end.
const DETOUR_WAIT_MAX: Duration = Duration::from_secs(1);

/// A request of the user.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) request: Request<'static>,
    pub(super) slot: Slot,
    pub(super) due: Instant,
}

/// A wish of the user about the link.
#[derive(Debug)]
pub(super) enum Control {
    /// Lose the link.
    Drop { how: DropKind, away: Duration },
    /// Close the link and stop.
    Close { code: u16 },
}

/// What comes after an attempt.
#[derive(Debug)]
pub(super) enum After {
    /// Another one.
    Retry { wait: Duration },
    /// Nothing.
    Stop { code: Option<u16>, reason: String },
}

/// The user wants no more.
#[derive(Debug)]
pub(super) struct Unwanted;

/// The task's state.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) config: Config,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) controls: mpsc::Receiver<Control>,
    pub(super) events: mpsc::Sender<Event>,
    /// Events that found the channel full. Not read further while it is not empty.
    pub(super) pending: VecDeque<Event>,
    pub(super) ledger: Ledger,
    pub(super) inbox: Inbox,
    pub(super) stamp: Option<Stamp>,
    pub(super) bye: Option<push::Bye>,
    pub(super) detour: Option<String>,
    pub(super) abandoned: Option<Link>,
    session: Option<Held>,
    backoff: Backoff,
    url_index: usize,
    /// Redirects since the last `ready`, or the last wait.
    redirects: u32,
}

/// The session that can be resumed.
#[derive(Debug)]
struct Held {
    id: String,
    ticket: String,
    /// When its link was lost; `None` while it has one, or where another client had it before.
    lost: Option<Instant>,
    /// When the server may have heard of it last.
    heard_of: Option<Instant>,
}

impl Driver {
    pub(super) fn new(
        config: Config,
        asks: mpsc::Receiver<Ask>,
        controls: mpsc::Receiver<Control>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let given = config.resume.clone();
        let inbox = Inbox::from_last_seq(given.as_ref().map_or(0, |given| given.last_seq));
        let stamp = given.as_ref().and_then(|given| given.stamp);
        let held =
            |Credentials { session, ticket, .. }| Held { id: session, ticket, lost: None, heard_of: None };
        Self {
            asks,
            controls,
            events,
            pending: VecDeque::new(),
            ledger: Ledger::default(),
            inbox,
            stamp,
            bye: None,
            detour: None,
            abandoned: None,
            session: given.map(held),
            backoff: Backoff::default(),
            url_index: 0,
            redirects: 0,
            config,
        }
    }

    /// Lives until the user or the server wants no more.
    pub(super) async fn run(mut self) {
        let (code, reason) = loop {
            match self.attempt().await {
                Ok(After::Retry { wait }) => {
                    if let Err(Unwanted) = self.tending(sleep(wait)).await {
                        break (None, "closed by its user".to_owned());
                    }
                }
                Ok(After::Stop { code, reason }) => break (code, reason),
                Err(Unwanted) => break (None, "closed by its user".to_owned()),
            }
        };
        self.asks.close();
        while let Ok(Ask { request, slot, due }) = self.asks.try_recv() {
            self.ledger.add(request, slot, due);
        }
        for entry in self.ledger.clear() {
            self.answered(entry, Outcome::Unknown("the client has stopped"));
        }
        self.tell(Happened::Ended { code, reason });
        for event in std::mem::take(&mut self.pending) {
            if self.events.send(event).await.is_err() {
                break;
            }
        }
    }

    /// One link from its making to its end.
    async fn attempt(&mut self) -> Result<After, Unwanted> {
        let detour = self.detour.take();
        let is_detour = detour.is_some();
        let own = || self.config.urls.get(self.url_index).cloned().unwrap_or_default();
        let url = detour.unwrap_or_else(own);
        let opening = Link::open(url, self.config.encoding, self.config.connect_timeout);
        let mut link = match self.tending(opening).await? {
            Ok(link) => link,
            Err(error) => {
                self.tell(Happened::Unreachable { reason: error.to_string() });
                return Ok(self.unreachable(is_detour));
            }
        };
        loop {
            let (request, presented) = self.opening();
            let deadline = self.config.ready_timeout;
            let came = self.tending(timeout(deadline, handshake(link, request))).await?;
            if let Some(held) = &mut self.session {
                held.heard_of = Some(Instant::now());
            }
            match came {
                Ok(Handshake::Ready(ready, link)) => {
                    let heartbeat = Duration::from_millis(ready.heartbeat_ms.max(1));
                    let again = self.opened(ready, presented);
                    return Ok(self.live(link, again, heartbeat).await);
                }
                Ok(Handshake::Redirect(redirect)) => return Ok(self.redirected(redirect)),
                Ok(Handshake::Refused(error, kept)) => {
                    let gone = error.code == ErrorCode::NotResumable && presented.is_some();
                    self.tell(Happened::Turned { error: error.clone(), presented });
                    if !gone {
                        return Ok(self.turned_away(&error, kept).await);
                    }
                    if self.ledger.is_leaving() {
                        return Ok(After::Stop { code: Some(1000), reason: "logged out".to_owned() });
                    }
                    self.session = None;
                    link = kept;
                }
                Ok(Handshake::Lost { code, reason, bye }) => {
                    self.bye = bye;
                    return Ok(self.ended(code, reason));
                }
                Err(_) => return Ok(self.ended(None, "no answer to the handshake in time".to_owned())),
            }
        }
    }

    /// No link could be made. A detour is taken once: then it is the client's own addresses again.
    fn unreachable(&mut self, is_detour: bool) -> After {
        let wait = self.backoff.next(None, rand::random());
        if is_detour {
            return After::Retry { wait: wait.min(DETOUR_WAIT_MAX) };
        }
        self.url_index = (self.url_index + 1) % self.config.urls.len().max(1);
        After::Retry { wait }
    }

    fn redirected(&mut self, redirect: Redirect) -> After {
        self.redirects += 1;
        if self.redirects > REDIRECTS_MAX {
            self.redirects = 0;
            self.tell(Happened::Redirected(redirect));
            return After::Retry { wait: self.backoff.next(None, rand::random()).min(DETOUR_WAIT_MAX) };
        }
        self.detour = Some(redirect.url.clone());
        self.tell(Happened::Redirected(redirect));
        After::Retry { wait: Duration::ZERO }
    }

    /// What to say first on a link, and what that claims.
    fn opening(&self) -> (Request<'static>, Option<Presented>) {
        let Some(held) = &self.session else {
            let login = Login {
                token: (self.config.token)().into(),
                device: self.config.device.clone().map(Into::into),
                relay: None,
                status: self.config.status,
            };
            return (Request::Login(login), None);
        };
        let last_seq = self.inbox.last_seq();
        let now = Instant::now();
        let since = |then| now.saturating_duration_since(then);
        let resume = Resume {
            session: held.id.clone().into(),
            ticket: held.ticket.clone().into(),
            last_seq,
            stamp: self.stamp,
            relay: None,
        };
        let presented = Presented {
            session: held.id.clone(),
            last_seq,
            stamp: self.stamp,
            away: held.lost.map(since),
            away_at_least: held.heard_of.or(held.lost).map(since),
        };
        (Request::Resume(resume), Some(presented))
    }

    /// Takes note of a `ready`. Returns what is to be sent.
    fn opened(&mut self, ready: Box<Ready>, presented: Option<Presented>) -> Vec<u32> {
        self.abandoned = None;
        self.bye = None;
        self.redirects = 0;
        self.backoff.reset();
        self.inbox.opened(ready.resumed, ready.missed == Some(true));
        self.stamp = Some(ready.stamp);
        self.session = Some(Held {
            id: ready.session.clone(),
            ticket: ready.ticket.clone(),
            lost: None,
            heard_of: None,
        });
        if !ready.resumed {
            for entry in self.ledger.started_anew() {
                self.answered(entry, Outcome::Unknown("its session ended"));
            }
        }
        let again = self.ledger.resumed(ready.cseq);
        self.tell(Happened::Ready { ready, presented });
        again
    }

    /// The handshake was refused. The close that follows, if one does, says what to do; else the error.
    async fn turned_away(&mut self, error: &ErrorBody, mut link: Link) -> After {
        let (mut code, told) = (None, Instant::now());
        let close = async {
            loop {
                match link.hear().await {
                    Heard::End { code, .. } => return code,
                    Heard::Frame(_) | Heard::Life => {}
                }
            }
        };
        if let Ok(Ok(given)) = self.tending(timeout(CLOSE_AFTER_ERROR, close)).await {
            code = given;
        }
        let reason = format!("{}: {}", error.code.name(), error.message);
        match code {
            Some(code) => self.advised(code, reason, error.retry_after_ms),
            None if error.temporary => {
                // Since it was told, a part of that is over.
                let wait = self.backoff.next(error.retry_after_ms, rand::random());
                After::Retry { wait: wait.saturating_sub(told.elapsed()) }
            }
            None => After::Stop { code: None, reason },
        }
    }

    /// A link has ended by itself.
    pub(super) fn ended(&mut self, code: Option<u16>, reason: String) -> After {
        let bye = self.bye.take();
        let reason = bye.as_ref().map_or(reason, |bye| bye.reason.clone());
        self.lost(Down { code, reason: reason.clone(), on_purpose: None });
        let retry_after_ms = bye.and_then(|bye| bye.retry_after_ms);
        match code {
            Some(code) => self.advised(code, reason, retry_after_ms),
            None => self.retry(retry_after_ms),
        }
    }

    fn advised(&mut self, code: u16, reason: String, retry_after_ms: Option<u64>) -> After {
        match advice(code) {
            Advice::Done | Advice::Stop => After::Stop { code: Some(code), reason },
            Advice::Login => {
                self.session = None;
                self.retry(retry_after_ms)
            }
            Advice::Resume => self.retry(retry_after_ms),
        }
    }

    fn retry(&mut self, retry_after_ms: Option<u64>) -> After {
        After::Retry { wait: self.backoff.next(retry_after_ms, rand::random()) }
    }

    /// Takes note of a lost link.
    pub(super) fn lost(&mut self, down: Down) {
        if let Some(held) = &mut self.session {
            let now = Instant::now();
            held.lost.get_or_insert(now);
            held.heard_of = Some(now);
        }
        self.tell(Happened::Down(down));
    }

    /// Waits for something while hearing the user: requests are taken in, to be sent when a session is open.
    async fn tending<F: Future>(&mut self, awaited: F) -> Result<F::Output, Unwanted> {
        tokio::pin!(awaited);
        loop {
            self.deliver();
            let room = self.ledger.len() < self.config.in_flight_max;
            tokio::select! {
                biased;
                control = self.controls.recv() => match control {
                    Some(Control::Close { .. }) | None => return Err(Unwanted),
                    // There is no link to lose.
                    Some(Control::Drop { .. }) => {}
                },
                output = &mut awaited => return Ok(output),
                permit = self.events.reserve(), if !self.pending.is_empty() => {
                    if let (Ok(permit), Some(event)) = (permit, self.pending.pop_front()) {
                        permit.send(event);
                    }
                }
                ask = self.asks.recv(), if room => match ask {
                    Some(Ask { request, slot, due }) => {
                        self.ledger.add(request, slot, due);
                    }
                    None => return Err(Unwanted),
                },
            }
        }
    }

    /// Tells the user, now or when there is room.
    pub(super) fn tell(&mut self, what: Happened) {
        self.pending.push_back(Event { at: Instant::now(), what });
        self.deliver();
    }

    /// Hands over what there is room for. A user who does not listen loses events, not calls.
    pub(super) fn deliver(&mut self) {
        while let Some(event) = self.pending.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.pending.push_front(event);
                    return;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => self.pending.clear(),
            }
        }
    }

    /// Gives a request its outcome.
    pub(super) fn answered(&mut self, entry: Entry, outcome: Outcome) {
        let timing =
            Timing { due: entry.due, sent: entry.sent_first, done: Instant::now(), sends: entry.sends };
        let (op, cseq) = (entry.request.op(), entry.cseq());
        let with_tag = |tag| Answered { tag, op, cseq, timing, outcome };
        match entry.slot {
            Slot::Stream(tag) => self.tell(Happened::Answered(with_tag(tag))),
            // A caller who waits no more needs no answer.
            Slot::Call(caller) => drop(caller.send(with_tag(0))),
            Slot::Own => {}
        }
    }
}
