//! Messages that the store keeps until a client has seen them: under which number each was sent to one session, and
//! which the client has seen since. Owned by a mailbox, made when the first such message is sent.

/// What one session knows of them; bounded, because no more are kept for a player than the store takes.
#[derive(Debug, Default)]
pub(super) struct Kept {
    sent: Vec<(u64, u128)>,
    seen: Vec<u128>,
}

impl Kept {
    /// Whether this message was sent and not seen yet.
    pub(super) fn is_under_way(&self, id: u128) -> bool {
        self.sent.iter().any(|(_, sent)| *sent == id)
    }

    pub(super) fn sent(&mut self, seq: u64, id: u128) {
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
