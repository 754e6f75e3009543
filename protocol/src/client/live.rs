//! The driver's other half: one open session on one link, from `ready` to the link's end. Every frame that a server can
//! send is judged here. Never sends what the ledger did not number.

use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::driver::{After, Ask, Control, Driver};
use super::event::{Down, Happened, OkBody, Outcome, Push, read_error};
use super::inbox::Order;
use super::ledger::Slot;
use super::link::{Heard, Link};
use crate::codec::{self, Frame};
use crate::codes::ErrorCode;
use crate::push;
use crate::request::{Op, Ping, Request};
use crate::{Encoding, Stamp};

/// Events that wait before the link is read no further.
const PENDING_MAX: usize = 16;
/// Requests sent between two looks at the socket.
const ASKS_AT_ONCE: usize = 32;
/// Between two looks at the clock: bounded on both sides whatever heartbeat the server names.
const TICK_MIN: Duration = Duration::from_millis(20);
const TICK_MAX: Duration = Duration::from_secs(5);

/// How a link is doing.
struct Pulse {
    heartbeat: Duration,
    heard: Instant,
    said: Instant,
    /// The highest `seq` that the server knows to be handled.
    seen_told: u64,
    /// When `seen` was told last.
    told: Instant,
}

/// What a frame asks for.
enum Consequence {
    /// Nothing.
    None,
    /// Send these.
    Send(Vec<u32>),
    /// Give the link up, for this reason.
    GiveUp(String),
    /// Go where `detour` says.
    Move,
}

/// What woke the task.
enum Woken {
    Control(Option<Control>),
    Heard(Heard),
    Ask(Option<Ask>),
    Tick,
    Delivered,
}

impl Driver {
    /// Lives on a link until it ends, and says what comes next. `again` is to be sent first.
    pub(super) async fn live(&mut self, mut link: Link, again: Vec<u32>, heartbeat: Duration) -> After {
        let now = Instant::now();
        let seen_told = self.inbox.last_seq();
        let mut pulse = Pulse { heartbeat, heard: now, said: now, seen_told, told: now };
        if let Err(reason) = self.send(&mut link, &again, &mut pulse).await {
            return self.ended(None, reason);
        }
        let tick = (heartbeat / 4).clamp(TICK_MIN, TICK_MAX);
        let mut next_tick = now + tick;
        loop {
            let done = match self.wait(&mut link, next_tick).await {
                Woken::Delivered => Ok(()),
                Woken::Control(Some(Control::Drop { how, away })) => {
                    self.abandoned = link.end_abruptly(how);
                    let reason = "dropped on purpose".to_owned();
                    self.lost(Down { code: None, reason, on_purpose: Some(how) });
                    return After::Retry { wait: away };
                }
                Woken::Control(Some(Control::Close { code })) => {
                    link.close(code).await;
                    return After::Stop { code: Some(code), reason: "closed by its user".to_owned() };
                }
                Woken::Control(None) | Woken::Ask(None) => {
                    link.close(1001).await;
                    return After::Stop { code: Some(1001), reason: "closed by its user".to_owned() };
                }
                Woken::Ask(Some(ask)) => self.send_asked(&mut link, ask, &mut pulse).await,
                Woken::Heard(Heard::End { code, reason }) => return self.ended(code, reason),
                Woken::Heard(Heard::Life) => {
                    pulse.heard = Instant::now();
                    Ok(())
                }
                Woken::Heard(Heard::Frame(bytes)) => {
                    pulse.heard = Instant::now();
                    match self.judge(link.encoding(), &bytes) {
                        Consequence::None => Ok(()),
                        Consequence::Send(references) => self.send(&mut link, &references, &mut pulse).await,
                        Consequence::GiveUp(reason) => Err(reason),
                        Consequence::Move => {
                            self.lost(Down { code: None, reason: "moved".to_owned(), on_purpose: None });
                            return After::Retry { wait: Duration::ZERO };
                        }
                    }
                }
                Woken::Tick => {
                    next_tick = Instant::now() + tick;
                    self.tick(&mut link, &mut pulse).await
                }
            };
            if let Err(reason) = done {
                return self.ended(None, reason);
            }
        }
    }

    async fn wait(&mut self, link: &mut Link, next_tick: Instant) -> Woken {
        self.deliver();
        let room = self.ledger.len() < self.config.in_flight_max;
        tokio::select! {
            biased;
            control = self.controls.recv() => Woken::Control(control),
            permit = self.events.reserve(), if !self.pending.is_empty() => {
                if let (Ok(permit), Some(event)) = (permit, self.pending.pop_front()) {
                    permit.send(event);
                }
                Woken::Delivered
            }
            () = sleep_until(next_tick.into()) => Woken::Tick,
            heard = link.hear(), if self.pending.len() < PENDING_MAX => Woken::Heard(heard),
            ask = self.asks.recv(), if room => Woken::Ask(ask),
        }
    }

    async fn send_asked(&mut self, link: &mut Link, first: Ask, pulse: &mut Pulse) -> Result<(), String> {
        let mut references = vec![self.ledger.add(first.request, first.slot, first.due)];
        while references.len() < ASKS_AT_ONCE && self.ledger.len() < self.config.in_flight_max {
            let Ok(Ask { request, slot, due }) = self.asks.try_recv() else { break };
            references.push(self.ledger.add(request, slot, due));
        }
        self.send(link, &references, pulse).await
    }

    /// Sends requests in this order, in one write where they fit.
    async fn send(&mut self, link: &mut Link, references: &[u32], pulse: &mut Pulse) -> Result<(), String> {
        if references.is_empty() {
            return Ok(());
        }
        for reference in references {
            if let Some(frame) = self.ledger.write(*reference, link.encoding(), Instant::now()) {
                link.feed(frame).await?;
            }
        }
        pulse.said = Instant::now();
        link.flush().await
    }

    /// Looks at the clock: is the server alive, and does it know that we are?
    async fn tick(&mut self, link: &mut Link, pulse: &mut Pulse) -> Result<(), String> {
        let now = Instant::now();
        if now.saturating_duration_since(pulse.heard) > 2 * pulse.heartbeat {
            return Err("the server is silent".to_owned());
        }
        if self.ledger.oldest_sent().is_some_and(|sent| now - sent > self.config.answer_timeout) {
            return Err("a request has no answer in time".to_owned());
        }
        let seen = self.inbox.last_seq();
        let quiet = now - pulse.said >= pulse.heartbeat / 2;
        let unread = seen > pulse.seen_told && now - pulse.told >= pulse.heartbeat / 2;
        // A silent server is asked for a sign of life, too.
        let deaf = now - pulse.heard >= pulse.heartbeat / 2;
        if !(quiet || unread || deaf) {
            return Ok(());
        }
        (pulse.seen_told, pulse.told) = (seen, now);
        let ping = Request::Ping(Ping { t: None, seen: (seen > 0).then_some(seen) });
        let reference = self.ledger.add(ping, Slot::Own, now);
        self.send(link, &[reference], pulse).await
    }

    /// Takes note of one frame.
    fn judge(&mut self, encoding: Encoding, bytes: &[u8]) -> Consequence {
        let frame = match codec::peek(encoding, bytes) {
            Ok(frame) => frame,
            Err(error) => return Consequence::GiveUp(format!("a frame that cannot be read: {error}")),
        };
        let read = match frame.op {
            Some(Op::Ok) => self.judge_ok(&frame, encoding),
            Some(Op::Error) => Ok(self.judge_error(&frame, encoding)),
            Some(Op::Presence | Op::Room | Op::Message) => {
                self.judge_numbered(&frame, encoding).map(|()| Consequence::None)
            }
            Some(_) => self.judge_control(&frame, encoding),
            None => {
                // A push of a later version counts, and says nothing to us.
                if frame.reference > 0 {
                    self.in_order(frame.reference);
                }
                Ok(Consequence::None)
            }
        };
        read.unwrap_or_else(|fault| Consequence::GiveUp(format!("a body that cannot be read: {fault}")))
    }

    fn judge_ok(&mut self, frame: &Frame<'_>, encoding: Encoding) -> Result<Consequence, String> {
        let reference = u32::try_from(frame.reference).unwrap_or(0);
        let Some(op) = self.ledger.op(reference) else { return Ok(Consequence::None) };
        let body = OkBody::read(op, frame, encoding)?;
        if let Some(stamp) = body.stamp() {
            self.saw(stamp);
        }
        if let (Op::Watch, OkBody::Presences(snapshot)) = (op, &body) {
            self.inbox.snapshot(&snapshot.presences);
        }
        if let Some(entry) = self.ledger.take(reference) {
            self.answered(entry, Outcome::Ok(body));
        }
        Ok(Consequence::None)
    }

    fn judge_error(&mut self, frame: &Frame<'_>, encoding: Encoding) -> Consequence {
        let mut error = read_error(frame, encoding);
        let reference = u32::try_from(frame.reference).unwrap_or(0);
        if reference == 0 {
            return Consequence::GiveUp(format!("the server could not read a frame: {}", error.message));
        }
        if let (ErrorCode::CseqGap, Some(expected)) = (error.code, error.expected)
            && let Some(again) = self.ledger.gap(reference, expected)
        {
            return Consequence::Send(again);
        }
        let Some(entry) = self.ledger.take(reference) else { return Consequence::None };
        if entry.cseq().is_some_and(|cseq| self.ledger.has_applied(cseq)) {
            // Only the repetition is refused (`rate_limited`, `not_home`): its number is used, and stays so.
            error.applied = Some(true);
        }
        let took_effect = error.applied == Some(true);
        if let (true, Some(stamp)) = (took_effect, error.stamp) {
            self.saw(stamp);
        }
        let again = match entry.cseq() {
            Some(cseq) if !took_effect => self.ledger.refused(cseq),
            _ => Vec::new(),
        };
        self.answered(entry, Outcome::Refused(error));
        Consequence::Send(again)
    }

    fn judge_numbered(&mut self, frame: &Frame<'_>, encoding: Encoding) -> Result<(), String> {
        let seq = frame.reference;
        if !self.in_order(seq) {
            return Ok(());
        }
        let push = match frame.op {
            Some(Op::Presence) => {
                let came: push::Presence = frame.read(encoding)?;
                let all = came.items.len();
                let items = self.inbox.news(came.items);
                Push::Presence { seq, stale: all - items.len(), items }
            }
            Some(Op::Room) => Push::Room { seq, room: frame.read(encoding)? },
            _ => {
                let message: push::Message = frame.read(encoding)?;
                Push::Message { seq, repeat: self.inbox.is_repeat(&message.id), message }
            }
        };
        self.tell(Happened::Push(push));
        Ok(())
    }

    /// Whether a numbered push is new. A gap is told, and one that comes twice over one link.
    fn in_order(&mut self, seq: u64) -> bool {
        match self.inbox.order(seq) {
            Order::Next => true,
            Order::Repeat => false,
            Order::Again { expected } => {
                self.tell(Happened::SeqGap { expected, came: seq });
                false
            }
            Order::Gap { expected } => {
                self.tell(Happened::SeqGap { expected, came: seq });
                true
            }
        }
    }

    fn judge_control(&mut self, frame: &Frame<'_>, encoding: Encoding) -> Result<Consequence, String> {
        let mut consequence = Consequence::None;
        let push = match frame.op {
            Some(Op::Moved) => {
                let moved: push::Moved = frame.read(encoding)?;
                self.detour = Some(moved.url.clone());
                consequence = Consequence::Move;
                Push::Moved(moved)
            }
            Some(Op::Bye) => {
                let bye: push::Bye = frame.read(encoding)?;
                self.bye = Some(bye.clone());
                Push::Bye(bye)
            }
            Some(Op::Mode) => Push::Mode(frame.read(encoding)?),
            Some(Op::RolledBack) => {
                let lost: push::RolledBack = frame.read(encoding)?;
                self.stamp = lost.to;
                consequence = Consequence::Send(self.ledger.rolled_back(lost.cseq));
                Push::RolledBack(lost)
            }
            Some(Op::Durable) => Push::Durable(frame.read(encoding)?),
            // A server has no business saying anything else now.
            _ => return Ok(Consequence::None),
        };
        self.tell(Happened::Push(push));
        Ok(consequence)
    }

    /// The latest stamp is kept: by epoch, then by version.
    fn saw(&mut self, stamp: Stamp) {
        self.stamp = self.stamp.max(Some(stamp));
    }
}
