//! Messages that the store keeps until a client has seen them: under which number each was sent to one session, and
//! which the client has seen since. Owned by a mailbox, made when the first such message is sent.

/// Most that are known as under way: as many as the store keeps for a player. Her other sessions may see messages and
/// so make place for more, while this one's client never says what it has seen; of the oldest a repeat does no harm.
const UNDER_WAY_MAX: usize = 100;

/// What one session knows of them.
#[derive(Debug, Default)]
pub(super) struct Kept {
    sent: Vec<(u64, u128)>,
    seen: Vec<u128>,
}

impl Kept {
    /// What was known of them elsewhere: no more than could be known here.
    pub(super) fn known(sent: Vec<(u64, u128)>, seen: Vec<u128>) -> Option<Self> {
        let most = UNDER_WAY_MAX;
        (sent.len() <= most && seen.len() <= 2 * most).then_some(Self { sent, seen })
    }

    /// What was sent under which number and is not seen, and what is seen.
    pub(super) fn all(&self) -> (&[(u64, u128)], &[u128]) {
        (&self.sent, &self.seen)
    }

    /// Whether this message was sent and not seen yet.
    pub(super) fn is_under_way(&self, id: u128) -> bool {
        self.sent.iter().any(|(_, sent)| *sent == id)
    }

    pub(super) fn sent(&mut self, seq: u64, id: u128) {
        if self.sent.len() >= UNDER_WAY_MAX {
            self.sent.remove(0);
        }
        self.sent.push((seq, id));
    }

    /// The client has seen everything up to here.
    pub(super) fn seen_up_to(&mut self, seq: u64) {
        let seen = self.sent.extract_if(.., |(sent, _)| *sent <= seq);
        self.seen.extend(seen.map(|(_, id)| id));
    }

    /// Numbers are given anew: what was sent may be sent again under another.
    pub(super) fn renumber(&mut self) {
        self.sent.clear();
    }

    pub(super) fn take_seen(&mut self) -> Vec<u128> {
        std::mem::take(&mut self.seen)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.seen.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_never_says_what_it_has_seen_costs_no_more_than_a_full_queue() {
        let mut kept = Kept::default();
        let most = UNDER_WAY_MAX as u64;
        for seq in 1..=3 * most {
            kept.sent(seq, seq.into());
        }
        assert_eq!(kept.sent.len(), UNDER_WAY_MAX);
        assert!(kept.is_under_way((2 * most + 1).into()) && !kept.is_under_way((2 * most).into()));
        kept.seen_up_to(3 * most);
        assert_eq!(kept.take_seen().len(), UNDER_WAY_MAX);
    }
}
