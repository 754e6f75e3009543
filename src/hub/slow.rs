//! Who reads too slowly, for whoever looks: the latest few, by name. Noted where a link is closed for it or is about to
//! be, which is rare; decides nothing.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::Mailbox;
use crate::ids::{PlayerId, SessionId};

/// Most of them; the oldest goes.
const READERS_MAX: usize = 32;
/// How long each is told of.
const TOLD_FOR_MS: u64 = 60_000;

/// A session that is slow to take what is pushed to it.
#[derive(Debug, Clone)]
pub struct SlowReader {
    /// Whose.
    pub player: PlayerId,
    /// Which.
    pub session: SessionId,
    /// Pushes that waited for it.
    pub waiting: usize,
    /// Its link was closed for it.
    pub closed: bool,
    /// When (monotonic ms).
    pub at_ms: u64,
}

/// The latest, the newest first.
#[derive(Default)]
pub(super) struct SlowReaders(Mutex<VecDeque<SlowReader>>);

impl SlowReaders {
    /// One more, or the same once more.
    pub(super) fn note(&self, mailbox: &Mailbox, closed: bool, at_ms: u64) {
        let (player, session, waiting) = (mailbox.player().clone(), mailbox.session(), mailbox.waiting());
        let mut readers = self.0.lock();
        readers.retain(|reader| reader.session != session);
        readers.truncate(READERS_MAX - 1);
        readers.push_front(SlowReader { player, session, waiting, closed, at_ms });
    }

    /// Those of the last minute, the latest first.
    pub(super) fn since(&self, now_ms: u64) -> Vec<SlowReader> {
        let readers = self.0.lock();
        let is_recent = |reader: &&SlowReader| now_ms.saturating_sub(reader.at_ms) <= TOLD_FOR_MS;
        readers.iter().filter(is_recent).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    #[test]
    fn the_latest_are_told_once_each_and_for_a_minute() {
        let readers = SlowReaders::default();
        let mailboxes: Vec<Mailbox> = (0..100)
            .map(|n| {
                let player = PlayerId::parse(&format!("p{n}")).unwrap();
                Mailbox::new(SessionId::generate(ShardId::FIRST, n), player, 0)
            })
            .collect();
        mailboxes.iter().for_each(|mailbox| readers.note(mailbox, false, 10));
        mailboxes.iter().take(1).for_each(|mailbox| readers.note(mailbox, true, 20));
        mailboxes.iter().take(1).for_each(|mailbox| readers.note(mailbox, true, 30));
        let told = readers.since(40);
        assert_eq!(told.len(), READERS_MAX);
        assert_eq!((told[0].player.as_str(), told[0].closed, told[1].player.as_str()), ("p0", true, "p99"));
        assert_eq!(readers.since(60_020).len(), 1);
    }
}
