//! Sessions on the threshold: in the record already, while their clients have no mailbox in which an end could be
//! told. Why one ended meanwhile is kept for whoever opens it. Used by `opening` and by all that ends sessions; holds
//! one entry for each login under way, and none longer.

use std::sync::Arc;

use dashmap::DashMap;

use super::record::Refusal;
use crate::events::EndReason;
use crate::ids::SessionId;

/// All of them.
#[derive(Default)]
pub(super) struct Threshold {
    sessions: DashMap<SessionId, Option<EndReason>, ahash::RandomState>,
}

impl Threshold {
    /// A session is about to be in its record.
    pub(super) fn enter(self: &Arc<Self>, session: SessionId) -> Entering {
        self.sessions.insert(session, None);
        Entering { session, threshold: Arc::clone(self) }
    }

    /// A session has ended; nothing to do for one that is not on the threshold.
    pub(super) fn ended(&self, session: SessionId, reason: &EndReason) {
        if let Some(mut ended) = self.sessions.get_mut(&session) {
            ended.get_or_insert_with(|| reason.clone());
        }
    }
}

/// A session on the threshold, until this is dropped: its client has a mailbox then, or there is no session.
pub struct Entering {
    session: SessionId,
    threshold: Arc<Threshold>,
}

impl Entering {
    /// What its client is told if somebody ended it with a word for her.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self.threshold.sessions.get(&self.session)?.as_ref()? {
            EndReason::Kicked { code, reason } => {
                Some(Refusal::Kicked { code: *code, reason: reason.as_ref().into() })
            }
            EndReason::Banned { reason } => Some(Refusal::Banned { reason: Arc::clone(reason) }),
            EndReason::Logout | EndReason::Expired | EndReason::Replaced | EndReason::SessionLimit => None,
        }
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        self.threshold.sessions.remove(&self.session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    #[test]
    fn the_first_word_about_an_end_is_kept_while_its_session_is_on_the_threshold() {
        let threshold = Arc::<Threshold>::default();
        let session = SessionId::generate(ShardId::FIRST, 1);
        let kicked = EndReason::Kicked { code: 4502, reason: "cheating".into() };
        threshold.ended(session, &kicked);
        let entering = threshold.enter(session);
        assert_eq!(entering.refusal(), None, "nobody was on the threshold");
        threshold.ended(session, &kicked);
        threshold.ended(session, &EndReason::Logout);
        let told = Refusal::Kicked { code: 4502, reason: "cheating".into() };
        assert_eq!(entering.refusal(), Some(told));
        drop(entering);
        assert!(threshold.sessions.is_empty());
    }
}
