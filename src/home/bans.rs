//! The bans of this node's players in memory, beside their records: a second copy for a store that lost writes, and
//! the answer to clients who come back to a session that a ban ended. Called by `home` alone; never decides what a
//! ban means, which is `record::bars`.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::record::bars::Ban;
use crate::ids::{PlayerId, SessionId, ShardId, Version};

/// A ban and where the record stood that carries it.
#[derive(Debug, Clone)]
pub(super) struct HeldBan {
    pub(super) ban: Ban,
    pub(super) version: Version,
    shard: ShardId,
}

#[derive(Default)]
struct Held {
    players: HashMap<PlayerId, HeldBan, ahash::RandomState>,
    /// Sessions that a ban ended.
    cut: HashMap<SessionId, PlayerId, ahash::RandomState>,
}

/// All of them.
pub(super) struct Bans {
    held: Mutex<Held>,
    most: usize,
}

impl Bans {
    /// Room for `most` new ones; those that a store brings always find room.
    pub(super) fn new(most: usize) -> Self {
        Self { held: Mutex::default(), most }
    }

    /// Whether one more player may be banned.
    pub(super) fn has_room_for(&self, player: &PlayerId, now_unix_ms: u64) -> bool {
        let mut held = self.held.lock();
        if held.players.len() >= self.most {
            held.forget(|_, held| !held.ban.holds(now_unix_ms));
        }
        held.players.len() < self.most || held.players.contains_key(player)
    }

    /// A player is banned. May be called under her record's lock.
    pub(super) fn put(&self, player: &PlayerId, shard: ShardId, ban: &Ban, version: Version) {
        let mut held = self.held.lock();
        held.forget_player(player);
        for session in &ban.cut {
            held.cut.insert(*session, player.clone());
        }
        held.players.insert(player.clone(), HeldBan { ban: ban.clone(), version, shard });
    }

    /// A player is no longer banned. May be called under her record's lock.
    pub(super) fn lift(&self, player: &PlayerId) {
        self.held.lock().forget_player(player);
    }

    /// The ban of a player that holds now.
    pub(super) fn of_player(&self, player: &PlayerId, now_unix_ms: u64) -> Option<Ban> {
        let held = self.held.lock();
        held.players.get(player).map(|held| &held.ban).filter(|ban| ban.holds(now_unix_ms)).cloned()
    }

    /// Why a session was ended, if a ban that still holds ended it.
    pub(super) fn of_session(&self, session: SessionId, now_unix_ms: u64) -> Option<Arc<str>> {
        let held = self.held.lock();
        let ban = &held.players.get(held.cut.get(&session)?)?.ban;
        ban.holds(now_unix_ms).then(|| Arc::clone(&ban.reason))
    }

    /// All that hold now, of one shard. Walks them all: for Repair only.
    pub(super) fn of_shard(&self, shard: ShardId, now_unix_ms: u64) -> Vec<(PlayerId, HeldBan)> {
        let held = self.held.lock();
        let ours = held.players.iter().filter(|(_, held)| held.shard == shard && held.ban.holds(now_unix_ms));
        ours.map(|(player, held)| (player.clone(), held.clone())).collect()
    }

    /// The shard is somebody else's.
    pub(super) fn forget_shard(&self, shard: ShardId) {
        self.held.lock().forget(|_, held| held.shard == shard);
    }
}

impl Held {
    fn forget_player(&mut self, player: &PlayerId) {
        if let Some(before) = self.players.remove(player) {
            before.ban.cut.iter().for_each(|session| {
                self.cut.remove(session);
            });
        }
    }

    fn forget(&mut self, is_over: impl Fn(&PlayerId, &HeldBan) -> bool) {
        self.players.retain(|player, held| !is_over(player, held));
        let players = &self.players;
        self.cut.retain(|_, player| players.contains_key(player));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn player(name: &str) -> PlayerId {
        PlayerId::parse(name).unwrap()
    }

    fn ban(until: Option<u64>, cut: &[SessionId]) -> Ban {
        Ban { until, reason: "cheating".into(), since: 1, cut: cut.into() }
    }

    #[test]
    fn who_comes_back_to_a_session_that_a_ban_ended_is_told_as_long_as_it_holds() {
        let bans = Bans::new(10);
        let session = SessionId::generate(ShardId::FIRST, 1);
        bans.put(&player("ann"), ShardId::FIRST, &ban(Some(100), &[session]), Version::of(7));
        assert_eq!(bans.of_session(session, 99).as_deref(), Some("cheating"));
        assert_eq!(bans.of_session(session, 100), None);
        assert_eq!(bans.of_session(SessionId::generate(ShardId::FIRST, 1), 99), None);
        bans.lift(&player("ann"));
        assert_eq!((bans.of_session(session, 99), bans.of_player(&player("ann"), 99)), (None, None));
    }

    #[test]
    fn what_has_run_out_makes_room_for_one_more() {
        let bans = Bans::new(2);
        bans.put(&player("ann"), ShardId::FIRST, &ban(Some(100), &[]), Version::of(1));
        bans.put(&player("bea"), ShardId::FIRST, &ban(None, &[]), Version::of(1));
        assert!(!bans.has_room_for(&player("cem"), 99));
        assert!(bans.has_room_for(&player("bea"), 99), "a ban may always be changed");
        assert!(bans.has_room_for(&player("cem"), 100));
        assert_eq!(bans.of_shard(ShardId::FIRST, 100).len(), 1);
    }

    #[test]
    fn a_lost_shard_takes_its_bans_along() {
        let bans = Bans::new(2);
        let other = ShardId::numbered(1).unwrap();
        let session = SessionId::generate(other, 1);
        bans.put(&player("ann"), ShardId::FIRST, &ban(None, &[]), Version::of(1));
        bans.put(&player("bea"), other, &ban(None, &[session]), Version::of(1));
        bans.forget_shard(other);
        assert!(bans.of_player(&player("ann"), 1).is_some());
        assert_eq!((bans.of_player(&player("bea"), 1), bans.of_session(session, 1)), (None, None));
    }
}
