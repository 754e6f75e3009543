//! How a record becomes hot and a session gets its link: login, resume, detach. A cold player is loaded once however
//! many ask. `ready` after a login leaves only after its commit; a resume needs none.

use std::sync::Arc;

use super::entering::Entering;
use super::record::sessions::Login as RecordLogin;
use super::record::{Context, LoginPolicy, Record, Refusal};
use super::records::Cell;
use super::shard::Shard;
use super::{Home, HomeError};
use crate::clock::{self, Now};
use crate::events::{EndReason, Status};
use crate::ids::{PlayerId, RoomName, RoomPattern, SessionId, Stamp};
use crate::store::{Reach, StoreError, StoredRecord};

/// Records that may be opened beyond the limit, to ban, revoke and erase while it is full of players. They leave again
/// with their commits.
const RESERVE: usize = 256;

/// For whom a cold record is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// A player who wants to be here.
    Players,
    /// The house itself: it must be able to keep players out also when there is no place left.
    Ours,
}

impl Admission {
    const fn reserve(self) -> usize {
        match self {
            Self::Players => 0,
            Self::Ours => RESERVE,
        }
    }
}

/// Who wants a session.
#[derive(Debug, Clone)]
pub struct Login {
    /// The player.
    pub player: PlayerId,
    /// The device's name.
    pub device: Box<str>,
    /// The status to start with.
    pub status: Status,
    /// When the token runs out, Unix ms.
    pub token_expires_at_unix_ms: u64,
    /// When the token was issued, Unix ms; 0 if it does not say.
    pub token_issued_at_unix_ms: u64,
    /// Rooms that the token opens.
    pub grants: Box<[RoomPattern]>,
    /// Made by a service: no link yet.
    pub pending: bool,
}

/// A new session.
pub struct Opened {
    /// The player's record.
    pub cell: Arc<Cell>,
    /// The session's id.
    pub session: SessionId,
    /// Its first ticket.
    pub ticket: String,
    /// Where the record stands.
    pub stamp: Stamp,
    /// The store does not have it, and is known to be away.
    pub is_provisional: bool,
    /// Held until the client has a mailbox.
    pub entering: Entering,
}

/// Who wants a session back.
#[derive(Debug, Clone)]
pub struct Resume<'a> {
    /// The session's id.
    pub session: SessionId,
    /// The ticket.
    pub ticket: &'a str,
    /// The highest stamp that the client has seen.
    pub claim: Option<Stamp>,
}

/// A session taken up again.
pub struct Resumed {
    /// The player's record.
    pub cell: Arc<Cell>,
    /// The next ticket.
    pub ticket: String,
    /// Where the record stands.
    pub stamp: Stamp,
    /// Acked changes that are gone: from, and what survived.
    pub rolled_back: Option<(Stamp, Option<Stamp>)>,
    /// The highest counter applied.
    pub cseq: u64,
    /// Whom the session watches.
    pub watches: Vec<PlayerId>,
    /// The rooms that the session is in.
    pub rooms: Vec<RoomName>,
    /// When the token runs out, Unix ms.
    pub token_expires_at_unix_ms: u64,
}

impl Home {
    /// Opens a session and waits for its commit, unless the store is known to be away: then it is served from memory, and
    /// what the store holds of her is met when it is back.
    ///
    /// # Errors
    /// [`HomeError`]; after any error there is no session.
    pub async fn login(&self, login: Login) -> Result<Opened, HomeError> {
        let shard = Arc::clone(self.shard(self.placement.shard_of(&login.player))?);
        self.serving(&shard).await?;
        // A login replaces the older session at once and is known to the store a moment later: if the store takes
        // nothing, the older one must not go for nothing. A store that is away refuses nothing: it will take it.
        // One that was full is asked by the next login, once its breaker lets changes through: where nothing is dirty,
        // nothing else would find out.
        if !shard.is_cut_off() && (shard.commits_fail() || shard.is_held_back()) {
            return Err(self.takes_nothing(&shard));
        }
        let mut tries = 0;
        loop {
            let cell = self
                .open(&login.player, Admission::Players, |record, ctx| {
                    record.admits(ctx, login.token_issued_at_unix_ms)
                })
                .await?;
            let now = clock::now();
            let session = SessionId::generate(shard.id(), now.unix_ms);
            let entering = self.entering.enter(session);
            match self.try_login(&cell, session, &login, now) {
                // The record left between opening and command: rare, so few tries are plenty.
                Err(HomeError::NotHome { .. }) if tries < 3 => tries += 1,
                Err(error) => return Err(error),
                Ok((ticket_n, stamp)) => {
                    let is_provisional = match self.stored(&cell).await {
                        Ok(is_stored) => !is_stored,
                        Err(error) => {
                            let _ = self.end(&cell, session, EndReason::Logout, clock::now());
                            let banned =
                                || self.banned_for(&login.player).map(|reason| Refusal::Banned { reason });
                            return Err(match (entering.refusal().or_else(banned), error) {
                                (Some(refusal), _) => refusal.into(),
                                (None, HomeError::NotDurable) => self.takes_nothing(&shard),
                                (None, error) => error,
                            });
                        }
                    };
                    self.stands(&cell, session, &login, &entering)?;
                    let ticket = self.tickets.sign(session, ticket_n);
                    return Ok(Opened { cell, session, ticket, stamp, is_provisional, entering });
                }
            }
        }
    }

    /// What a login hears whose shard's store takes no change.
    fn takes_nothing(&self, shard: &Shard) -> HomeError {
        let reach = self.store.reach(shard.id());
        HomeError::Store(match reach {
            Reach::Full => StoreError::HeldBack { reach, cause: self.faults.commits.words().into() },
            // Since its commits fail, one has.
            _ => self.faults.commits.last().unwrap_or(StoreError::Timeout),
        })
    }

    /// Waits for a login's commit; `false` if the store is away, whether that was known before or turns out meanwhile.
    async fn stored(&self, cell: &Arc<Cell>) -> Result<bool, HomeError> {
        if cell.shard().is_cut_off() {
            return Ok(false);
        }
        match self.durable(cell).await {
            Ok(()) => Ok(true),
            Err(HomeError::NotDurable) if cell.shard().is_cut_off() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the newcomer may stay after its commit: a merge, a ban or a kick may have come while that was under
    /// way, and a stored record may have brought a revocation along.
    fn stands(
        &self,
        cell: &Arc<Cell>,
        session: SessionId,
        login: &Login,
        entering: &Entering,
    ) -> Result<(), HomeError> {
        if let Some(refusal) = entering.refusal() {
            return Err(refusal.into());
        }
        let now = clock::now();
        let gone = match self.settings.rules.login_policy {
            LoginPolicy::Replace | LoginPolicy::PerDevice => Refusal::NoSession,
            LoginPolicy::Reject | LoginPolicy::Many(_) => Refusal::SessionLimit,
        };
        let judged = cell.read(|record| {
            record.admits(self.context(now), login.token_issued_at_unix_ms)?;
            record.session(session).map(|_| ()).ok_or_else(|| gone.clone())
        });
        // A record without sessions has left memory with its commit; if a ban ended them, that is known beside it.
        let left =
            || self.banned_for(cell.player()).map_or(gone.clone(), |reason| Refusal::Banned { reason });
        judged.unwrap_or_else(|| Err(left())).map_err(|refusal| {
            let _ = self.end(cell, session, EndReason::Logout, now);
            refusal.into()
        })
    }

    fn try_login(
        &self,
        cell: &Arc<Cell>,
        session: SessionId,
        login: &Login,
        now: Now,
    ) -> Result<(u64, Stamp), HomeError> {
        let pending_until =
            login.pending.then(|| now.plus_ms(super::record::millis(self.settings.pending)).unix_ms);
        let request = RecordLogin {
            session,
            device: login.device.clone(),
            status: login.status,
            token_expires_at: login.token_expires_at_unix_ms,
            token_issued_at: login.token_issued_at_unix_ms,
            grants: login.grants.clone(),
            pending_until,
        };
        // Indexed first: whoever sees the session in the record must find it.
        self.records.index(session, cell);
        match self.apply(cell, now, |record, ctx| record.login(ctx, request)) {
            Ok(applied) => {
                self.ended(cell, applied.value.ended);
                Ok((applied.value.ticket_n, applied.stamp))
            }
            Err(error) => {
                self.records.unindex(session);
                Err(error)
            }
        }
    }

    /// Takes a session up again. `attached` runs under the record's lock, so that the end of the link before cannot
    /// come between; it hears the player, whether a service had made the session for this first link, and whom the
    /// session watches, by names that it may replace by equal ones in memory that is shared. It must be short and take
    /// no record.
    ///
    /// # Errors
    /// [`HomeError`]; a refused resume changes nothing.
    pub async fn resume(
        &self,
        resume: Resume<'_>,
        attached: impl FnOnce(&PlayerId, bool, &mut [PlayerId]),
    ) -> Result<Resumed, HomeError> {
        let not_resumable = HomeError::Refused(Refusal::NotResumable);
        // No home could say otherwise: it is refused here, wherever the session is at home.
        let Some(ticket_n) = self.tickets.open(resume.session, resume.ticket) else {
            return Err(not_resumable);
        };
        let shard = self.shard(resume.session.shard())?;
        self.serving(shard).await?;
        let Some(cell) = self.records.session(resume.session) else {
            let banned = self.bans.of_session(resume.session, clock::now().unix_ms);
            let gone = || self.why_gone(shard, resume.session);
            return Err(banned.map_or_else(gone, |reason| Refusal::Banned { reason }).into());
        };
        let applied = self.apply(&cell, clock::now(), |record, ctx| {
            let was_pending = record
                .session(resume.session)
                .is_some_and(|session| matches!(session.link, super::record::LinkState::Pending { .. }));
            let taken_up = record.attach(ctx, resume.session, ticket_n, resume.claim)?;
            let session = record.session_mut(resume.session)?;
            attached(cell.player(), was_pending, &mut session.watches);
            let (cseq, watches, expires_at) =
                (session.cseq, session.watches.clone(), session.token_expires_at);
            let rooms = record.rooms_of(resume.session).cloned().collect();
            Ok((taken_up, cseq, watches, rooms, expires_at))
        })?;
        let (attached, cseq, watches, rooms, token_expires_at_unix_ms) = applied.value;
        self.ended(&cell, attached.ended);
        Ok(Resumed {
            ticket: self.tickets.sign(resume.session, attached.ticket_n),
            cell,
            stamp: applied.stamp,
            rolled_back: attached.rolled_back,
            cseq,
            watches,
            rooms,
            token_expires_at_unix_ms,
        })
    }

    /// The link of a session dropped, closed with this code. Nothing to do if the session is gone.
    pub fn detach(&self, cell: &Arc<Cell>, session: SessionId, code: u16, now: Now) {
        let _ = self.apply(cell, now, |record, ctx| record.detach(ctx, session, code));
    }

    /// The record of a player, hot from now on, unless `admit` refuses a cold one. Whoever opens a record changes it:
    /// what has no session leaves memory with its commit. A player who comes while the store is away gets a first record,
    /// above all that the shard ever stored: what there is of her is looked for later (`blind`).
    pub(super) async fn open(
        &self,
        player: &PlayerId,
        admission: Admission,
        admit: impl Fn(&Record, Context<'_>) -> Result<(), Refusal>,
    ) -> Result<Arc<Cell>, HomeError> {
        if let Some(cell) = self.records.player(player) {
            return Ok(cell);
        }
        if !self.records.has_room(admission.reserve()) {
            return Err(HomeError::Overloaded);
        }
        let line = self.loading_line(player).ok_or(HomeError::Overloaded)?;
        let waiting = tokio::time::timeout(self.settings.hold + self.settings.durable_wait, line.lock());
        let _turn = waiting.await.map_err(|_| HomeError::Overloaded)?;
        // Whoever waited in line finds what the one before loaded.
        if let Some(cell) = self.records.player(player) {
            return Ok(cell);
        }
        let shard = self.shard(self.placement.shard_of(player))?;
        let fence = shard.fence().ok_or_else(|| self.not_home())?;
        let blindly = || (admission == Admission::Players && shard.is_cut_off()).then_some(None);
        let stored = match blindly() {
            Some(stored) => stored,
            None => match self.stored_of(shard, player).await {
                Err(error) => blindly().ok_or(error)?,
                Ok(stored) => Some(stored),
            },
        };
        let is_blind = stored.is_none();
        let stored = stored.flatten().map(|stored| (player.clone(), stored));
        if self.is_overtaken(shard, fence.epoch, &stored) {
            return Err(self.not_home());
        }
        let (record, base) = match stored {
            None => (Record::first(fence.epoch, fence.version_max), crate::ids::Version::ZERO),
            Some((_, stored)) => {
                let mut record = Record::decode(&stored).map_err(|error| {
                    tracing::error!(operation = "open", %player, status = %error, "a record cannot be read");
                    HomeError::Corrupt
                })?;
                record.take_over(fence.epoch);
                // A live record that is not in memory had ended here: its commit is what the store lost.
                record.end_all(self.context(clock::now()));
                (record, stored.version)
            }
        };
        let mut record = record;
        let now = clock::now();
        // A store that lost a ban does not lift it, and one that lost a revocation lets no old token in.
        if let Some(ban) = self.bans.of_player(player, now.unix_ms) {
            record.keep_ban(self.context(now), ban);
        }
        record.keep_revocation(self.revocations.of_player(player, shard.id()));
        admit(&record, self.context(now))?;
        // The lease may have moved while the store was read, and its records may be on their way into memory.
        let still_ours = || {
            let ours = shard.fence().is_some_and(|present| present.epoch == fence.epoch);
            ours && shard.serves(clock::now().mono_ms)
        };
        if !still_ours() {
            return Err(self.not_home());
        }
        let cell = Arc::new(Cell::new(player.clone(), Arc::clone(shard), record, base, now));
        if is_blind {
            // Before anybody can change it, and so before a batch can carry it.
            shard.opened_blind(Arc::clone(&cell));
        }
        let cell = self.records.insert(cell);
        if !still_ours() {
            self.records.remove_if(player, |slot| slot.record.sessions.is_empty());
            return Err(self.not_home());
        }
        Ok(cell)
    }

    async fn stored_of(&self, shard: &Shard, player: &PlayerId) -> Result<Option<StoredRecord>, HomeError> {
        let loaded = self.store.load_players(shard.id(), vec![player.clone()]).await;
        Ok(loaded.map_err(HomeError::Store)?.into_iter().next().flatten())
    }
}
