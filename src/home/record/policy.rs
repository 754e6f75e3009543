//! The login policy: which sessions of a player may stand beside one another, and who has to go for a newcomer.
//! Pure; part of the record. Judged at a login, when a service-made session is taken up, and when two records meet.

use super::{Context, Ended, LinkState, Record, Refusal, Session};
use crate::events::EndReason;
use crate::ids::SessionId;

/// Most sessions of one player beside one another, whatever the policy: under `per_device` her clients choose the
/// devices' names.
pub const SESSIONS_MAX: usize = 32;

/// What happens when a player logs in who has a session already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginPolicy {
    /// The newer login replaces the older session.
    Replace,
    /// The newer login is refused while the older session is attached or has dropped less than the grace ago.
    Reject,
    /// The newer login replaces the older session of the same device; other devices stay.
    PerDevice,
    /// So many sessions: one more is refused while all of them are attached or have dropped less than the grace ago,
    /// else it replaces the one that has been away the longest.
    Many(usize),
}

impl LoginPolicy {
    /// Sessions that may stand beside one another.
    const fn most(self) -> usize {
        match self {
            Self::Replace | Self::Reject => 1,
            Self::PerDevice => SESSIONS_MAX,
            Self::Many(most) => most,
        }
    }

    /// Whether a newcomer on one device ends a session on the other, however alive that is.
    fn ends(self, older: &str, newer: &str) -> bool {
        match self {
            Self::Replace => true,
            Self::Reject | Self::Many(_) => false,
            Self::PerDevice => older == newer,
        }
    }
}

impl Record {
    /// Whom a newcomer on this device replaces, unless it is refused. Changes nothing. Sessions that still wait for
    /// their first link stand beside all others until they get it; the newcomer itself may be one of them.
    ///
    /// # Errors
    /// [`Refusal::SessionLimit`].
    pub(super) fn replaced_by(
        &self,
        ctx: Context<'_>,
        newcomer: SessionId,
        device: &str,
    ) -> Result<Vec<SessionId>, Refusal> {
        let policy = ctx.rules.login_policy;
        let others = self
            .sessions
            .iter()
            .filter(|session| session.id != newcomer && !matches!(session.link, LinkState::Pending { .. }));
        let (replaced, mut staying): (Vec<&Session>, Vec<&Session>) =
            others.partition(|session| policy.ends(&session.device, device));
        let mut replaced: Vec<SessionId> = replaced.into_iter().map(|session| session.id).collect();
        let too_many = (staying.len() + 1).saturating_sub(policy.most());
        if too_many > 0 {
            staying.retain(|session| !session.holds_its_place(ctx));
            if staying.len() < too_many {
                return Err(Refusal::SessionLimit);
            }
            staying.sort_by_key(|session| session.away_since());
            replaced.extend(staying.into_iter().take(too_many).map(|session| session.id));
        }
        Ok(replaced)
    }

    /// Judges the policy again over the sessions of two records that met: each of `ours` comes as a newcomer to the
    /// older ones that stand here. Returns those that had to go.
    pub(super) fn admit_again(&mut self, ctx: Context<'_>, ours: Vec<Session>) -> Vec<Ended> {
        let mut ended = Vec::new();
        for session in ours {
            let judged = match session.link {
                LinkState::Pending { .. } => Ok(Vec::new()),
                _ => self.replaced_by(ctx, session.id, &session.device),
            };
            match judged {
                Ok(replaced) => {
                    // The newcomer is here before the others go: the player is never without a session.
                    self.sessions.push(session);
                    ended.extend(self.remove_all(ctx, replaced, &EndReason::Replaced));
                }
                Err(_) => ended.push(Ended { session, reason: EndReason::SessionLimit }),
            }
        }
        ended
    }
}

impl Session {
    /// Whether no newcomer may take its place under a policy that counts. One whose token ran out is told to log in
    /// afresh, and must be able to.
    fn holds_its_place(&self, ctx: Context<'_>) -> bool {
        self.is_present(ctx) && !self.is_over(ctx) && self.token_expires_at > ctx.now.unix_ms
    }

    /// Since when it has no link, for the order in which sessions make room; the longest away first.
    const fn away_since(&self) -> u64 {
        match self.link {
            LinkState::Detached { since } => since,
            LinkState::Attached | LinkState::Pending { .. } => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests;
