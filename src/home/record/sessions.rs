//! The life of a session: login, attach, detach, end, and what time does to it. Pure; part of the record.
//! Connecting -> Attached -> Detached -> Attached ... -> Ended; a service-made session starts as Pending.

use std::sync::Arc;

use super::notes::What;
use super::{Context, Ended, LinkState, Record, Refusal, Rules, Session, Visibility, millis};
use crate::clock::Now;
use crate::events::{EndReason, Status};
use crate::home::history::Verdict;
use crate::ids::{RoomPattern, SessionId, Stamp};

/// Sessions of one player that may wait for their client at a time: a login service that asks again and again gets
/// a refusal before the player's record grows.
const PENDING_MAX: usize = 16;

/// A login that passed the gate.
#[derive(Debug, Clone)]
pub struct Login {
    /// The new session's id.
    pub session: SessionId,
    /// Its device.
    pub device: Box<str>,
    /// The status to start with.
    pub status: Status,
    /// When its token runs out, Unix ms.
    pub token_expires_at: u64,
    /// When its token was issued, Unix ms; 0 if it does not say.
    pub token_issued_at: u64,
    /// Rooms that its token opens.
    pub grants: Box<[RoomPattern]>,
    /// Made by a service: wait this long for the client, Unix ms.
    pub pending_until: Option<u64>,
}

/// What a login did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// The number of the first ticket.
    pub ticket_n: u64,
    /// Sessions that had to go.
    pub ended: Vec<Ended>,
}

/// What a resume did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The number of the next ticket.
    pub ticket_n: u64,
    /// A link was still up: it must close.
    pub had_link: bool,
    /// Acked changes that are gone: what the client claimed, and what survived (`None` = unknown).
    pub rolled_back: Option<(Stamp, Option<Stamp>)>,
    /// Sessions that had to go (a service-made one meets the login policy here).
    pub ended: Vec<Ended>,
}

/// What time did to a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elapsed {
    /// Sessions whose time ran out.
    pub ended: Vec<Ended>,
    /// Attached sessions whose token ran out: their links must close.
    pub token_expired: Vec<SessionId>,
}

impl Record {
    /// Opens a session.
    ///
    /// # Errors
    /// [`Refusal::SessionLimit`] by the login policy, or when too many wait for their client; [`Refusal::Banned`], [`Refusal::TokenRevoked`].
    pub fn login(&mut self, ctx: Context<'_>, login: Login) -> Result<LoggedIn, Refusal> {
        self.admits(ctx, login.token_issued_at)?;
        let replaced = match login.pending_until {
            Some(_) if self.pending(ctx) >= PENDING_MAX => return Err(Refusal::SessionLimit),
            Some(_) => Vec::new(),
            None => self.replaced_by(ctx, login.session, &login.device)?,
        };
        let device = login.device.clone();
        let link = login.pending_until.map_or(LinkState::Attached, |until| LinkState::Pending { until });
        self.bars_are_down(ctx);
        // Most players have one session, and a push would make room for four.
        self.sessions.reserve_exact(1);
        self.sessions.push(Session {
            id: login.session,
            device: login.device,
            ticket_n: 1,
            ticket_settled: false,
            cseq: 0,
            status: login.status,
            idle: false,
            activity: None,
            visibility: Visibility::Full,
            token_expires_at: login.token_expires_at,
            link,
            active_at: ctx.now.unix_ms,
            watches: Vec::new(),
            grants: login.grants,
        });
        self.version = self.version.next();
        self.note(ctx.now.unix_ms, Some(login.session), What::Opened { device });
        // The newcomer is here before the others go: the state stays, for she is never without a session.
        let ended = self.remove_all(ctx, replaced, &EndReason::Replaced);
        self.show(ctx);
        Ok(LoggedIn { ticket_n: 1, ended })
    }

    fn pending(&self, ctx: Context<'_>) -> usize {
        let waits = |session: &&Session| matches!(session.link, LinkState::Pending { until } if until > ctx.now.unix_ms);
        self.sessions.iter().filter(waits).count()
    }

    /// Takes a session up again, with the number of a genuine ticket and the client's stamp.
    ///
    /// # Errors
    /// [`Refusal::NotResumable`], [`Refusal::TokenExpired`], [`Refusal::SessionLimit`], [`Refusal::Behind`],
    /// [`Refusal::Banned`] when a ban ended it.
    pub fn attach(
        &mut self,
        ctx: Context<'_>,
        id: SessionId,
        ticket_n: u64,
        claim: Option<Stamp>,
    ) -> Result<Attached, Refusal> {
        let Some(session) = self.session(id) else {
            let banned = self.ban_now(ctx.now.unix_ms).map(|ban| Arc::clone(&ban.reason));
            return Err(banned.map_or(Refusal::NotResumable, |reason| Refusal::Banned { reason }));
        };
        let oldest = session.ticket_n.saturating_sub(u64::from(!session.ticket_settled));
        if ticket_n < oldest || session.is_over(ctx) {
            return Err(Refusal::NotResumable);
        }
        if session.token_expires_at <= ctx.now.unix_ms {
            return Err(Refusal::TokenExpired);
        }
        let rolled_back = match claim.map(|claim| (claim, self.history.judge(self.stamp(), claim))) {
            None | Some((_, Verdict::Reached)) => None,
            Some((_, Verdict::Behind)) => return Err(Refusal::Behind),
            Some((claim, Verdict::RolledBack(to))) => Some((claim, Some(to))),
            Some((claim, Verdict::Unknown)) => Some((claim, None)),
        };
        let replaced = match session.link {
            LinkState::Pending { .. } => self.replaced_by(ctx, id, &session.device)?,
            LinkState::Attached | LinkState::Detached { .. } => Vec::new(),
        };
        let what = match session.link {
            LinkState::Pending { .. } => What::Bound,
            LinkState::Attached | LinkState::Detached { .. } => What::Resumed,
        };
        let ended = self.remove_all(ctx, replaced, &EndReason::Replaced);
        let session = self.session_mut(id)?;
        let had_link = session.link == LinkState::Attached;
        session.link = LinkState::Attached;
        session.ticket_n = session.ticket_n.max(ticket_n).saturating_add(1);
        session.ticket_settled = false;
        session.active_at = ctx.now.unix_ms;
        session.idle = false;
        let ticket_n = session.ticket_n;
        if had_link {
            self.note_ahead(ctx.now.unix_ms, Some(id), what);
        } else {
            self.version = self.version.next();
            self.note(ctx.now.unix_ms, Some(id), what);
            self.link_moved(id);
            self.show(ctx);
        }
        Ok(Attached { ticket_n, had_link, rolled_back, ended })
    }

    pub(super) fn remove_all(
        &mut self,
        ctx: Context<'_>,
        ids: Vec<SessionId>,
        reason: &EndReason,
    ) -> Vec<Ended> {
        ids.into_iter().filter_map(|id| self.remove(ctx, id, reason.clone())).collect()
    }

    /// The link of a session dropped, closed with this code: its time starts to run.
    ///
    /// # Errors
    /// [`Refusal::NoSession`].
    pub fn detach(&mut self, ctx: Context<'_>, id: SessionId, code: u16) -> Result<(), Refusal> {
        let session = self.session_mut(id)?;
        if session.link == LinkState::Attached {
            session.link = LinkState::Detached { since: ctx.now.unix_ms };
            self.version = self.version.next();
            self.note(ctx.now.unix_ms, Some(id), What::LinkLost { code });
            self.link_moved(id);
            self.show(ctx);
        }
        Ok(())
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`Refusal::NoSession`].
    pub fn end(&mut self, ctx: Context<'_>, id: SessionId, reason: EndReason) -> Result<Ended, Refusal> {
        let ended = self.remove(ctx, id, reason).ok_or(Refusal::NoSession)?;
        self.show(ctx);
        Ok(ended)
    }

    fn remove(&mut self, ctx: Context<'_>, id: SessionId, reason: EndReason) -> Option<Ended> {
        let at = self.sessions.iter().position(|session| session.id == id)?;
        let session = self.sessions.remove(at);
        self.version = self.version.next();
        self.note(ctx.now.unix_ms, Some(id), What::Ended(reason.clone()));
        // Lists are stored in the order of the sessions: one that leaves moves the others.
        let has_lists = |session: &Session| !session.watches.is_empty();
        if has_lists(&session) || self.sessions.iter().any(has_lists) || !self.rooms.is_empty() {
            self.lists_version = self.version;
        }
        self.leave_all_rooms(id);
        if self.sessions.is_empty() {
            self.state = super::Document::default();
            self.state_stamp = self.stamp();
        }
        Some(Ended { session, reason })
    }

    /// New credentials on the live link. What they open is what may be entered from now on; rooms that the session is
    /// in it stays in.
    ///
    /// # Errors
    /// [`Refusal::NoSession`], [`Refusal::Banned`], [`Refusal::TokenRevoked`].
    pub fn refresh(
        &mut self,
        ctx: Context<'_>,
        id: SessionId,
        token_expires_at: u64,
        token_issued_at: u64,
        grants: Box<[RoomPattern]>,
    ) -> Result<(), Refusal> {
        self.admits(ctx, token_issued_at)?;
        let session = self.session_mut(id)?;
        (session.token_expires_at, session.grants) = (token_expires_at, grants);
        self.accept(ctx, id, None)
    }

    /// Lets time do its work: ends what is over, shows who left, marks who is idle.
    pub fn elapse(&mut self, ctx: Context<'_>) -> Elapsed {
        let over: Vec<SessionId> =
            self.sessions.iter().filter(|session| session.is_over(ctx)).map(|session| session.id).collect();
        let ended = self.remove_all(ctx, over, &EndReason::Expired);
        let mut token_expired = Vec::new();
        for session in &mut self.sessions {
            if session.link == LinkState::Attached && session.token_expires_at <= ctx.now.unix_ms {
                token_expired.push(session.id);
            }
            if session.idle_at(ctx.rules).is_some_and(|at| at <= ctx.now.unix_ms) {
                session.idle = true;
            }
        }
        self.show(ctx);
        Elapsed { ended, token_expired }
    }

    /// After a load: links of the former home are gone, and their sessions get a full TTL.
    pub fn detach_all(&mut self, now: Now) {
        for session in &mut self.sessions {
            if session.link == LinkState::Attached {
                session.link = LinkState::Detached { since: now.unix_ms };
            }
        }
    }

    /// Ends every session without a word: for a record that had ended and was brought back by a store that lost writes.
    pub fn end_all(&mut self, ctx: Context<'_>) {
        let ids: Vec<SessionId> = self.sessions.iter().map(|session| session.id).collect();
        self.remove_all(ctx, ids, &EndReason::Expired);
        self.version = self.version.next();
        self.show(ctx);
    }

    /// Meets a record that the store held already though this one began without a base: the version goes above both,
    /// the stored line becomes history, and the login policy is judged again over the sessions of both. Returns
    /// those that had to go.
    pub fn merge(&mut self, stored: Self, ctx: Context<'_>) -> Vec<Ended> {
        let mut history = stored.history;
        history.append(stored.epoch, stored.version);
        self.history = history;
        self.version = self.version.max(stored.version).next();
        self.renumber_notes();
        self.view.ver = Stamp::new(self.epoch, self.view.ver.version.max(stored.view.ver.version).next());
        self.view.last_seen_unix_ms = self.view.last_seen_unix_ms.max(stored.view.last_seen_unix_ms);
        let mut before = stored.sessions;
        before.retain(|session| !session.is_over(ctx));
        if self.state.is_empty() && !before.is_empty() {
            (self.state, self.state_stamp) = (stored.state, self.stamp());
        }
        let ours = std::mem::replace(&mut self.sessions, before);
        // Their links were another home's.
        self.detach_all(ctx.now);
        self.lists_changed();
        let mut ended = self.admit_again(ctx, ours);
        self.take_in_rooms(stored.rooms);
        self.inherit_bars(stored.bars);
        ended.extend(self.enforce_ban(ctx));
        self.show(ctx);
        ended
    }

    /// When the last of its sessions runs out, unless touched before (Unix ms). Attached ones count from now.
    #[must_use]
    pub fn expires_at(&self, ctx: Context<'_>) -> u64 {
        self.sessions.iter().map(|session| session.expires_at(ctx)).max().unwrap_or(ctx.now.unix_ms)
    }
}

impl Session {
    /// When it runs out, if nothing happens from now on (Unix ms).
    #[must_use]
    pub fn expires_at(&self, ctx: Context<'_>) -> u64 {
        let ttl = millis(ctx.rules.session_ttl);
        match self.link {
            LinkState::Attached => ctx.now.unix_ms.saturating_add(ttl),
            LinkState::Detached { since } => since.saturating_add(ttl),
            LinkState::Pending { until } => until,
        }
    }

    pub(super) fn is_over(&self, ctx: Context<'_>) -> bool {
        self.link != LinkState::Attached && self.expires_at(ctx) <= ctx.now.unix_ms
    }

    fn idle_at(&self, rules: &Rules) -> Option<u64> {
        let watched = self.link == LinkState::Attached && self.status == Status::Online && !self.idle;
        let after = millis(rules.away_after);
        (watched && after > 0).then(|| self.active_at.saturating_add(after))
    }

    /// When time next does something to it (Unix ms).
    pub(super) fn next_deadline(&self, ctx: Context<'_>) -> u64 {
        match self.link {
            LinkState::Attached => {
                self.idle_at(ctx.rules).map_or(self.token_expires_at, |at| at.min(self.token_expires_at))
            }
            LinkState::Pending { until } => until,
            LinkState::Detached { since } => {
                let grace = since.saturating_add(millis(ctx.rules.presence_grace));
                let end = self.expires_at(ctx);
                if grace > ctx.now.unix_ms { grace.min(end) } else { end }
            }
        }
    }
}
