//! The player of the model: she writes where she is attached, remembers the highest stamp that she was told and what was
//! acked, and comes back to any node that answers.

use hearth::home::history::{History, Verdict};
use hearth::home::lease::Event;
use hearth::ids::{Stamp, Version};

use super::Protocol;
use super::node::Held;
use super::store::{Batch, Record};
use super::world::{Broken, Seen, World};

/// One player, one client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Player {
    /// Where her link is.
    pub(crate) at: Option<usize>,
    /// Her session, once `ready` has come.
    pub(crate) session: Option<u8>,
    /// The version at which her login is stored: `ready` waits for it.
    waits_for: Option<Version>,
    logins: u8,
    stamp: Option<Stamp>,
    /// Changes that were acked and have not been told as lost: one bit each.
    pub(crate) acked: u8,
    /// Of these, the ones that were acked as `durable`.
    pub(crate) durable: u8,
    changes: u8,
}

impl Player {
    pub(crate) fn loses_link_to(&mut self, at: usize) {
        if self.at == Some(at) {
            (self.at, self.waits_for) = (None, None);
        }
    }

    /// Whether she may ask for things at her node.
    pub(crate) const fn is_ready(&self) -> bool {
        self.at.is_some() && self.waits_for.is_none()
    }

    /// A commit has come back at a node.
    pub(crate) fn hears_of_commit(&mut self, at: usize, batch: &Batch, held: Option<&Held>) {
        if self.at != Some(at) || held.is_none_or(|held| held.record.session != batch.record.session) {
            return;
        }
        match self.waits_for {
            Some(version) if batch.record.version >= version => {
                (self.waits_for, self.session) = (None, Some(batch.record.session));
                self.stamp = held.map(|held| held.record.stamp());
            }
            Some(_) => {}
            None => self.durable |= batch.record.changes & self.acked,
        }
    }
}

impl World {
    /// A change, acked as applied: the highest that a home may say before the store has answered.
    pub(crate) fn write(&mut self, protocol: &Protocol) -> bool {
        let Some(at) = self.player.at.filter(|_| self.player.is_ready()) else { return false };
        let (now_ms, node) = (self.now_ms(), &mut self.nodes[at]);
        if !node.serves(now_ms, protocol.guards) {
            return false;
        }
        let Some(held) = node.held.as_mut() else { return false };
        let bit = 1 << self.player.changes;
        self.player.changes += 1;
        held.record.version = held.record.version.next();
        held.record.changes |= bit;
        held.dirty = true;
        self.player.acked |= bit;
        self.player.stamp = Some(held.record.stamp());
        true
    }

    /// She comes to a node that answers.
    pub(crate) fn come(&mut self, protocol: &Protocol, at: usize) -> bool {
        let now_ms = self.now_ms();
        if self.player.at == Some(at) || !self.nodes[at].serves(now_ms, protocol.guards) {
            return false;
        }
        let session = self.player.session;
        let is_known = self.nodes[at].held.as_ref().is_some_and(|held| Some(held.record.session) == session);
        if is_known {
            self.resume(protocol, at);
        } else {
            self.log_in(protocol, at);
        }
        true
    }

    /// As `Record::attach`, which judges her stamp.
    fn resume(&mut self, protocol: &Protocol, at: usize) {
        let Some(held) = &self.nodes[at].held else { return };
        let (record, claim) = (held.record.clone(), self.player.stamp);
        let claim = claim.filter(|_| protocol.guards.stamps);
        let verdict = claim.map(|claim| record.history.judge(record.stamp(), claim));
        let lost = self.player.acked & !record.changes;
        match verdict {
            // One of a grant that the store has lost, and as high as the line that went on without it was just then.
            Some(Verdict::Reached) if lost != 0 && claim.is_some_and(|claim| self.has_lost(claim.epoch)) => {
                protocol.saw(Seen::Mistaken);
                self.is_told(protocol, at, record.changes);
            }
            None | Some(Verdict::Reached) if lost != 0 => self.breaks(Broken::Silent),
            None | Some(Verdict::Reached) => {}
            Some(Verdict::RolledBack(_) | Verdict::Unknown) if lost == 0 && self.losses == 0 => {
                self.breaks(Broken::FalseAlarm);
            }
            Some(Verdict::Behind) => self.breaks(Broken::Behind),
            Some(Verdict::RolledBack(_) | Verdict::Unknown) => self.is_told(protocol, at, record.changes),
        }
        (self.player.at, self.player.waits_for) = (Some(at), None);
        self.player.stamp = Some(record.stamp());
    }

    /// She is told that changes are gone: all that are not there. Of a store that has lost a grant, or that a
    /// lease was extended, two homes may go on for a while, and what is told then may be more than the store has lost.
    fn is_told(&mut self, protocol: &Protocol, at: usize, there: u8) {
        if self.player.acked & !there != 0 {
            protocol.saw(Seen::Told);
        }
        let is_newest = self.nodes[at].lease.epoch() == self.newest();
        if is_newest && !self.has_lost_a_grant() && self.player.durable & !there & !self.lost_by_store != 0 {
            self.breaks(Broken::DurableLost);
        }
        self.player.acked &= there;
        self.player.durable &= there;
    }

    /// Her session is gone, as she is told (`not_resumable`): a new one, as `Home::open` and `Record::login` make it.
    fn log_in(&mut self, protocol: &Protocol, at: usize) {
        self.is_told(protocol, at, 0);
        self.player.session = None;
        let node = &mut self.nodes[at];
        let Some(fence) = node.fence else { return };
        if let Some(by) = self.store.record.as_ref().map(|record| record.epoch).filter(|by| *by > fence.epoch)
            && node.held.is_none()
        {
            return self.step(protocol, at, Event::Overtaken { epoch: by });
        }
        let held = node.held.get_or_insert_with(|| match self.store.record.clone() {
            Some(mut record) => {
                let base = record.version;
                record.take_over(fence.epoch);
                record.version = record.version.next();
                Held { record, base, restore: false, dirty: true }
            }
            None => {
                let (epoch, version) = (fence.epoch, fence.version_max);
                let record = Record { epoch, version, history: History::default(), session: 0, changes: 0 };
                Held { record, base: Version::ZERO, restore: false, dirty: true }
            }
        });
        let player = &mut self.player;
        player.logins += 1;
        held.record.version = held.record.version.next();
        (held.record.session, held.record.changes, held.dirty) = (player.logins, 0, true);
        (player.at, player.session) = (Some(at), None);
        player.waits_for = Some(held.record.version);
        player.stamp = None;
    }
}
