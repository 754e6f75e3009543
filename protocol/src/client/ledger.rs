//! Requests without an answer, in the order they were asked, and the numbers (`cseq`) of the changes among them.
//! Pure; kept by the driver. Never decides when to send, only what, and under which number.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::sync::oneshot;

use super::event::Answered;
use crate::Encoding;
use crate::codec;
use crate::request::{Op, Request};

/// The handshake's own `ref`; the ledger's begin above it.
pub(crate) const HANDSHAKE_REFERENCE: u32 = 1;
/// How often a change is numbered anew because of `cseq_gap` before its caller is told.
const GAP_REPAIRS_MAX: u32 = 3;

/// Where an answer goes.
#[derive(Debug)]
pub(crate) enum Slot {
    /// Among the events, under the caller's tag.
    Stream(u64),
    /// To a typed call that waits.
    Call(oneshot::Sender<Answered>),
    /// Nowhere: the client's own ping.
    Own,
}

/// One request without an answer.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) request: Request<'static>,
    pub(crate) slot: Slot,
    pub(crate) due: Instant,
    pub(crate) sent_first: Option<Instant>,
    /// On the present link.
    pub(crate) sent: Option<Instant>,
    pub(crate) sends: u32,
    cseq: Option<u64>,
    gap_repairs: u32,
}

impl Entry {
    /// The number it went under last.
    pub(crate) fn cseq(&self) -> Option<u64> {
        self.cseq
    }
}

/// All requests without an answer.
#[derive(Debug)]
pub(crate) struct Ledger {
    entries: BTreeMap<u32, Entry>,
    next_reference: u32,
    next_cseq: u64,
    /// Changes up to this number have taken effect: the server said so.
    applied: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), next_reference: HANDSHAKE_REFERENCE + 1, next_cseq: 1, applied: 0 }
    }
}

impl Ledger {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes a request in; it is sent by [`Ledger::write`].
    pub(crate) fn add(&mut self, request: Request<'static>, slot: Slot, due: Instant) -> u32 {
        let entry =
            Entry { request, slot, due, sent_first: None, sent: None, sends: 0, cseq: None, gap_repairs: 0 };
        self.put(entry)
    }

    fn put(&mut self, entry: Entry) -> u32 {
        let reference = self.next_reference;
        // A link would need weeks of a thousand requests a second to come around; by then the old ones have answers.
        self.next_reference = reference.checked_add(1).unwrap_or(HANDSHAKE_REFERENCE + 1);
        self.entries.insert(reference, entry);
        reference
    }

    /// Encodes one request, numbered if it is a change.
    pub(crate) fn write(&mut self, reference: u32, encoding: Encoding, now: Instant) -> Option<Vec<u8>> {
        let entry = self.entries.get_mut(&reference)?;
        if entry.cseq.is_none()
            && let Some(field) = cseq_field(&mut entry.request)
        {
            *field = Some(self.next_cseq);
            entry.cseq = Some(self.next_cseq);
            self.next_cseq += 1;
        }
        entry.sent = Some(now);
        entry.sent_first.get_or_insert(now);
        entry.sends += 1;
        let mut frame = Vec::new();
        codec::encode_request(encoding, &mut frame, reference, &entry.request);
        Some(frame)
    }

    /// Takes an answered request out. A `ref` that is not there was given up: the request goes under another.
    pub(crate) fn take(&mut self, reference: u32) -> Option<Entry> {
        self.entries.remove(&reference)
    }

    /// What was asked under this `ref`.
    pub(crate) fn op(&self, reference: u32) -> Option<Op> {
        self.entries.get(&reference).map(|entry| entry.request.op())
    }

    /// Whether a logout is under way: should the session be gone, then that is why.
    pub(crate) fn is_leaving(&self) -> bool {
        self.entries.values().any(|entry| entry.request.op() == Op::Logout && entry.sends > 0)
    }

    /// When the oldest request on the present link was sent.
    pub(crate) fn oldest_sent(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.sent).min()
    }

    /// A session is open on a new link: nothing has been sent on it, and the server has applied changes up to
    /// `cseq`. What is to be sent, in order: everything; changes it has applied already get their answer once more.
    pub(crate) fn resumed(&mut self, cseq: u64) -> Vec<u32> {
        self.entries.retain(|_, entry| !matches!(entry.slot, Slot::Own));
        for entry in self.entries.values_mut() {
            entry.sent = None;
            entry.gap_repairs = 0;
        }
        self.applied = cseq;
        self.number_from(cseq);
        self.entries.keys().copied().collect()
    }

    /// A new session: what was sent in the old one cannot get its answer any more. What was not, goes on.
    pub(crate) fn started_anew(&mut self) -> Vec<Entry> {
        (self.next_cseq, self.applied) = (1, 0);
        self.entries.extract_if(.., |_, entry| entry.sends > 0).map(|(_, entry)| entry).collect()
    }

    /// Gives everything up.
    pub(crate) fn clear(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries).into_values().collect()
    }

    /// Whether this number has taken effect, whatever is answered when it is sent again.
    pub(crate) fn has_applied(&self, cseq: u64) -> bool {
        cseq <= self.applied
    }

    /// The change numbered `cseq` was refused, so those sent behind it were too. What is to be sent again, in order.
    pub(crate) fn refused(&mut self, cseq: u64) -> Vec<u32> {
        self.renumber(cseq.saturating_sub(1))
    }

    /// Changes above `cseq` are gone on the server (`rolled_back` on a live link). What is to be sent again.
    pub(crate) fn rolled_back(&mut self, cseq: u64) -> Vec<u32> {
        self.applied = cseq;
        self.renumber(cseq)
    }

    /// The server says that it waits for `expected`. What is to be sent again; `None` if it has been tried enough.
    pub(crate) fn gap(&mut self, reference: u32, expected: u64) -> Option<Vec<u32>> {
        let entry = self.entries.get_mut(&reference)?;
        entry.gap_repairs += 1;
        if entry.gap_repairs > GAP_REPAIRS_MAX || entry.cseq.is_none_or(|cseq| cseq <= expected) {
            return None;
        }
        let applied = expected.saturating_sub(1);
        self.number_from(applied);
        let behind = |(reference, entry): (&u32, &Entry)| {
            entry.cseq.is_some_and(|cseq| cseq > applied).then_some(*reference)
        };
        let behind: Vec<u32> = self.entries.iter().filter_map(behind).collect();
        Some(self.anew(&behind))
    }

    /// Numbers the changes above `applied` without holes. Returns those of them whose number moved.
    fn number_from(&mut self, applied: u64) -> Vec<u32> {
        self.next_cseq = applied + 1;
        let mut moved = Vec::new();
        for (reference, entry) in &mut self.entries {
            let Some(cseq) = entry.cseq.filter(|cseq| *cseq > applied) else { continue };
            if cseq != self.next_cseq {
                moved.push(*reference);
                entry.cseq = Some(self.next_cseq);
                if let Some(field) = cseq_field(&mut entry.request) {
                    *field = entry.cseq;
                }
            }
            self.next_cseq += 1;
        }
        moved
    }

    fn renumber(&mut self, applied: u64) -> Vec<u32> {
        let moved = self.number_from(applied);
        self.anew(&moved)
    }

    /// Gives the chosen requests a fresh `ref` each, so that answers to their former frames are told apart.
    fn anew(&mut self, chosen: &[u32]) -> Vec<u32> {
        let taken: Vec<Entry> =
            chosen.iter().filter_map(|reference| self.entries.remove(reference)).collect();
        taken.into_iter().map(|entry| self.put(entry)).collect()
    }
}

/// The `cseq` of a change; `None` for what is no change.
fn cseq_field<'a>(request: &'a mut Request<'static>) -> Option<&'a mut Option<u64>> {
    match request {
        Request::StatePatch(body) => Some(&mut body.cseq),
        Request::PresenceSet(body) => Some(&mut body.cseq),
        Request::Send(body) => Some(&mut body.cseq),
        Request::RoomJoin(body) => Some(&mut body.cseq),
        Request::RoomLeave(body) => Some(&mut body.cseq),
        Request::RoomSend(body) => Some(&mut body.cseq),
        Request::RoomMeta(body) => Some(&mut body.cseq),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Ping, StatePatch};

    fn patch() -> Request<'static> {
        Request::StatePatch(StatePatch::default())
    }

    /// A ledger with so many sent changes, numbered from 1.
    fn sent(changes: usize) -> (Ledger, Vec<u32>) {
        let mut ledger = Ledger::default();
        let references: Vec<u32> =
            (0..changes).map(|_| ledger.add(patch(), Slot::Stream(0), Instant::now())).collect();
        for reference in &references {
            ledger.write(*reference, Encoding::Json, Instant::now()).unwrap();
        }
        (ledger, references)
    }

    fn numbers(ledger: &Ledger) -> Vec<Option<u64>> {
        ledger.entries.values().map(Entry::cseq).collect()
    }

    fn written(ledger: &mut Ledger, reference: u32) -> (u32, Option<u64>) {
        let frame = ledger.write(reference, Encoding::Json, Instant::now()).unwrap();
        match codec::decode_request(Encoding::Json, &frame).unwrap() {
            (reference, Request::StatePatch(patch)) => (reference, patch.cseq),
            (reference, _) => (reference, None),
        }
    }

    #[test]
    fn changes_are_numbered_when_they_are_sent_and_reads_are_not() {
        let mut ledger = Ledger::default();
        let first = ledger.add(patch(), Slot::Stream(0), Instant::now());
        let ping = ledger.add(Request::Ping(Ping::default()), Slot::Stream(0), Instant::now());
        let second = ledger.add(patch(), Slot::Stream(0), Instant::now());
        assert_eq!(written(&mut ledger, first), (2, Some(1)));
        assert_eq!(written(&mut ledger, ping), (3, None));
        assert_eq!(written(&mut ledger, second), (4, Some(2)));
        assert_eq!(written(&mut ledger, second), (4, Some(2)), "sent again under its number");
        assert_eq!(ledger.take(second).unwrap().sends, 2);
    }

    #[test]
    fn after_a_resume_everything_goes_out_again_under_its_number() {
        let (mut ledger, references) = sent(3);
        ledger.take(references[0]);
        let waiting = ledger.add(patch(), Slot::Stream(0), Instant::now());
        // The second was applied, its answer lost; the third never arrived.
        let again = ledger.resumed(2);
        assert_eq!(again, [references[1], references[2], waiting]);
        let numbers: Vec<_> = again.iter().map(|reference| written(&mut ledger, *reference).1).collect();
        assert_eq!(numbers, [Some(2), Some(3), Some(4)]);
    }

    #[test]
    fn after_a_rollback_the_lost_numbers_are_used_again() {
        let (mut ledger, references) = sent(5);
        for answered in &references[..3] {
            ledger.take(*answered);
        }
        // 3 was acked and lost; 4 and 5 had no answer.
        let again = ledger.resumed(2);
        assert_eq!(numbers(&ledger), [Some(3), Some(4)]);
        assert_eq!(again.len(), 2);
        assert_eq!(written(&mut ledger, again[0]).1, Some(3));
    }

    #[test]
    fn behind_a_refused_change_all_move_up_under_a_new_ref() {
        let (mut ledger, references) = sent(3);
        ledger.take(references[0]);
        let again = ledger.refused(1);
        assert_eq!(numbers(&ledger), [Some(1), Some(2)]);
        assert!(again.iter().all(|reference| !references.contains(reference)));
        assert!(ledger.take(references[1]).is_none(), "its gap answer is nobody's");
        assert_eq!(written(&mut ledger, again[0]), (again[0], Some(1)));
        let next = ledger.add(patch(), Slot::Stream(0), Instant::now());
        assert_eq!(written(&mut ledger, next).1, Some(3));
    }

    #[test]
    fn a_refused_last_change_gives_its_number_to_the_next() {
        let (mut ledger, references) = sent(1);
        ledger.take(references[0]);
        assert!(ledger.refused(1).is_empty());
        let next = ledger.add(patch(), Slot::Stream(0), Instant::now());
        assert_eq!(written(&mut ledger, next).1, Some(1));
    }

    #[test]
    fn what_ready_covers_has_taken_effect_though_its_repetition_is_refused() {
        let (mut ledger, _) = sent(3);
        ledger.resumed(2);
        assert!(ledger.has_applied(2) && !ledger.has_applied(3));
        ledger.rolled_back(1);
        assert!(!ledger.has_applied(2));
        ledger.started_anew();
        assert!(!ledger.has_applied(1));
    }

    #[test]
    fn a_gap_is_repaired_a_few_times_and_then_told() {
        let (mut ledger, references) = sent(2);
        ledger.take(references[0]);
        let mut reference = references[1];
        // A server that forgot the first one.
        let again = ledger.gap(reference, 1).unwrap();
        assert_eq!((again.len(), numbers(&ledger)), (1, vec![Some(1)]));
        reference = again[0];
        assert_eq!(ledger.gap(reference, 1), None, "it has the number that is asked for");
    }

    #[test]
    fn a_live_rollback_moves_only_what_has_another_number_now() {
        let (mut ledger, references) = sent(4);
        ledger.take(references[0]);
        ledger.take(references[1]);
        assert!(ledger.rolled_back(2).is_empty());
        assert_eq!(numbers(&ledger), [Some(3), Some(4)]);
        let again = ledger.rolled_back(1);
        assert_eq!(numbers(&ledger), [Some(2), Some(3)]);
        assert_eq!(again.len(), 2);
    }

    #[test]
    fn a_new_session_knows_nothing_of_the_old_requests() {
        let (mut ledger, _) = sent(2);
        assert_eq!(ledger.started_anew().len(), 2);
        let next = ledger.add(patch(), Slot::Stream(0), Instant::now());
        assert_eq!(written(&mut ledger, next).1, Some(1));
    }
}
