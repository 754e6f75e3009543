//! Who may not come in: a ban, and tokens that were revoked. Rare, so a record holds them in a box or not at all.
//! Pure; part of the record. Kept in the remainder, because that is when they matter most.

use std::sync::Arc;
use std::time::Duration;

use super::notes::What;
use super::{Context, Ended, Record, Refusal};
use crate::events::EndReason;
use crate::home::history::History;
use crate::ids::{SessionId, Version};
use crate::store::{BAN_END_MAX, BanMark};

/// How long the store keeps a ban that does not end.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// How long the store lists who was kept out by a revocation: a home that takes the shard has it in memory from the
/// start, for a store that loses its data later. Longer than most tokens last, and short enough that a shard's list is
/// read in a moment.
const LISTED_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// What keeps a player out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bars {
    /// No login, whatever the token.
    pub ban: Option<Ban>,
    /// No token that was issued before, Unix ms; 0 refuses none.
    pub revoked_before: u64,
    /// The store's list of who is kept out does not say so yet (not stored).
    pub unlisted: bool,
    /// Nothing of the player is to be remembered, unless she comes back (not stored).
    pub erased: bool,
}

/// A player is not wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// When it ends by itself, Unix ms; never if absent.
    pub until: Option<u64>,
    /// For people, the player among them.
    pub reason: Arc<str>,
    /// When it began, Unix ms.
    pub since: u64,
    /// The sessions that it ended: who comes back to one of them is told why it is gone.
    pub cut: Box<[SessionId]>,
}

impl Ban {
    /// Whether it holds now.
    #[must_use]
    pub fn holds(&self, now_unix_ms: u64) -> bool {
        self.until.is_none_or(|until| now_unix_ms < until)
    }
}

impl Record {
    /// The ban that holds now.
    #[must_use]
    pub fn ban_now(&self, now_unix_ms: u64) -> Option<&Ban> {
        self.bars.as_ref()?.ban.as_ref().filter(|ban| ban.holds(now_unix_ms))
    }

    /// Tokens issued before this time are refused (Unix ms); 0 if none are.
    #[must_use]
    pub fn revoked_before(&self) -> u64 {
        self.bars.as_ref().map_or(0, |bars| bars.revoked_before)
    }

    /// Whether a token that was issued then may open or keep a session. One that does not say when counts as issued
    /// at the beginning of time.
    ///
    /// # Errors
    /// [`Refusal::Banned`], [`Refusal::TokenRevoked`].
    pub fn admits(&self, ctx: Context<'_>, token_issued_at: u64) -> Result<(), Refusal> {
        if let Some(ban) = self.ban_now(ctx.now.unix_ms) {
            return Err(Refusal::Banned { reason: Arc::clone(&ban.reason) });
        }
        if token_issued_at < self.revoked_before() { Err(Refusal::TokenRevoked) } else { Ok(()) }
    }

    /// Ends every session, and from now on refuses tokens issued before `revoke_before`: in one step, so that no
    /// login with an old token comes in between. An earlier revocation is never taken back.
    pub fn kick(&mut self, ctx: Context<'_>, reason: &EndReason, revoke_before: Option<u64>) -> Vec<Ended> {
        if let Some(revoke_before) = revoke_before.filter(|before| *before > self.revoked_before()) {
            let bars = self.bars_mut();
            (bars.revoked_before, bars.unlisted, bars.erased) = (revoke_before, true, false);
            self.version = self.version.next();
        }
        let ended = self.remove_all(ctx, self.session_ids(), reason);
        self.show(ctx);
        ended
    }

    /// Bans the player, or changes the ban that there is: ends every session, and refuses every login until it ends.
    pub fn ban(&mut self, ctx: Context<'_>, until: Option<u64>, reason: &str) -> Vec<Ended> {
        let reason: Arc<str> = reason.into();
        let before = self.ban_now(ctx.now.unix_ms);
        let since = before.map_or(ctx.now.unix_ms, |ban| ban.since);
        let cut_before = before.map(|ban| ban.cut.clone()).unwrap_or_default();
        let ids = self.session_ids();
        let cut = if ids.is_empty() { cut_before } else { ids.clone().into_boxed_slice() };
        self.put_ban(Ban { until, reason: Arc::clone(&reason), since, cut });
        self.version = self.version.next();
        let ended = self.remove_all(ctx, ids, &EndReason::Banned { reason });
        self.show(ctx);
        ended
    }

    /// Ends the ban.
    ///
    /// # Errors
    /// [`Refusal::NotBanned`].
    pub fn lift_ban(&mut self, ctx: Context<'_>) -> Result<(), Refusal> {
        if self.ban_now(ctx.now.unix_ms).is_none() {
            return Err(Refusal::NotBanned);
        }
        self.drop_ban();
        self.version = self.version.next();
        Ok(())
    }

    /// Takes over what keeps the player out of an older record: none of it is lost, and what was said last holds.
    pub(super) fn inherit_bars(&mut self, older: Option<Box<Bars>>) {
        let Some(older) = older else { return };
        let bars = self.bars_mut();
        bars.revoked_before = bars.revoked_before.max(older.revoked_before);
        if let (None, Some(ban)) = (&bars.ban, older.ban) {
            self.put_ban(ban);
        }
    }

    /// Holds a ban that the store has lost.
    pub fn keep_ban(&mut self, ctx: Context<'_>, ban: Ban) {
        if self.ban_now(ctx.now.unix_ms).is_none() {
            self.put_ban(ban);
        }
    }

    /// Refuses tokens that were issued before a revocation that the store has lost; 0: there is none.
    pub fn keep_revocation(&mut self, before: u64) {
        if before > self.revoked_before() {
            let bars = self.bars_mut();
            (bars.revoked_before, bars.unlisted) = (before, true);
        }
    }

    /// What the store's list of who is kept out must be told with this record. With `anew`, also what it was told.
    #[must_use]
    pub fn ban_mark(&self, now_unix_ms: u64, anew: bool) -> BanMark {
        let Some(bars) = self.bars.as_ref().filter(|bars| bars.unlisted || anew) else {
            return BanMark::Unmoved;
        };
        let banned = self.ban_now(now_unix_ms).map(|ban| ban.until.unwrap_or(BAN_END_MAX));
        let revoked = (bars.revoked_before > 0).then(|| now_unix_ms.saturating_add(LISTED_MS));
        banned.max(revoked).map_or(BanMark::Lifted, |ends| BanMark::Until(ends.min(BAN_END_MAX)))
    }

    /// The store's list of who is kept out has been told.
    pub fn ban_listed(&mut self) {
        if let Some(bars) = self.bars.as_mut() {
            bars.unlisted = false;
            self.drop_empty_bars();
        }
    }

    /// What of the bars its strings do not say: that the store's list of who is kept out is behind, and that nothing is to
    /// be remembered.
    #[must_use]
    pub fn unsaid(&self) -> (bool, bool) {
        self.bars.as_ref().map_or((false, false), |bars| (bars.unlisted, bars.erased))
    }

    /// Says so of a record that was made of its strings.
    pub fn leaves_unsaid(&mut self, unlisted: bool, erased: bool) {
        if unlisted || erased {
            let bars = self.bars_mut();
            (bars.unlisted, bars.erased) = (unlisted, erased);
        }
    }

    /// Forgets all of the player but the counters that must not run backwards, and, if asked, the ban.
    pub fn erase(&mut self, ctx: Context<'_>, reason: &EndReason, keeps_ban: bool) -> Vec<Ended> {
        let ended = self.remove_all(ctx, self.session_ids(), reason);
        self.show(ctx);
        self.history = History::default();
        self.forget_view();
        let keeps_ban = keeps_ban && self.ban_now(ctx.now.unix_ms).is_some();
        let bars = self.bars_mut();
        let unlisted = bars.unlisted || bars.revoked_before > 0 || (bars.ban.is_some() && !keeps_ban);
        if keeps_ban {
            (bars.revoked_before, bars.unlisted) = (0, unlisted);
        } else {
            *bars = Bars { unlisted, erased: true, ..Bars::default() };
        }
        self.version = self.version.next();
        self.note(ctx.now.unix_ms, None, What::Forget);
        ended
    }

    /// Lifts the version above one that the record had before the store lost it.
    pub fn stands_above(&mut self, version: Version) {
        self.version = self.version.max(version).next();
    }

    /// How much longer than other players this one is to be remembered at least, from now on.
    #[must_use]
    pub fn barred_for(&self, now_unix_ms: u64) -> Duration {
        match self.ban_now(now_unix_ms).map(|ban| ban.until) {
            None => Duration::ZERO,
            Some(None) => FOR_EVER,
            Some(Some(until)) => Duration::from_millis(until - now_unix_ms).min(FOR_EVER),
        }
    }

    /// Ends every session if a ban holds: for records that met.
    pub(super) fn enforce_ban(&mut self, ctx: Context<'_>) -> Vec<Ended> {
        let Some(reason) = self.ban_now(ctx.now.unix_ms).map(|ban| Arc::clone(&ban.reason)) else {
            return Vec::new();
        };
        self.remove_all(ctx, self.session_ids(), &EndReason::Banned { reason })
    }

    /// Whether nothing of the player is to be remembered.
    #[must_use]
    pub fn is_erased(&self) -> bool {
        self.bars.as_ref().is_some_and(|bars| bars.erased)
    }

    /// The player is here: a ban that ended by itself and an erasure are over.
    pub(super) fn bars_are_down(&mut self, ctx: Context<'_>) {
        if let Some(bars) = self.bars.as_mut() {
            bars.erased = false;
        }
        if self.ban_now(ctx.now.unix_ms).is_none() {
            self.drop_ban();
        }
    }

    fn drop_ban(&mut self) {
        let Some(bars) = self.bars.as_mut() else { return };
        if bars.ban.take().is_some() {
            bars.unlisted = true;
        }
        self.drop_empty_bars();
    }

    fn put_ban(&mut self, ban: Ban) {
        let bars = self.bars_mut();
        (bars.ban, bars.unlisted, bars.erased) = (Some(ban), true, false);
    }

    fn drop_empty_bars(&mut self) {
        if self.bars.as_deref() == Some(&Bars::default()) {
            self.bars = None;
        }
    }

    fn bars_mut(&mut self) -> &mut Bars {
        self.bars.get_or_insert_default()
    }

    fn session_ids(&self) -> Vec<SessionId> {
        self.sessions.iter().map(|session| session.id).collect()
    }
}

#[cfg(test)]
mod tests;
