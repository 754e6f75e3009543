//! Keeping players out: kick, revocation, ban. Works for players whom nobody has seen yet, too: then their record is
//! made. What it comes to is durable when the caller has waited for it, and survives in the remainder.

use std::collections::HashMap;
use std::sync::Arc;

use super::opening::Admission;
use super::record::{Context, Ended, Record, Refusal};
use super::records::Cell;
use super::shard::Shard;
use super::{Home, HomeError};
use crate::clock::{self, Now};
use crate::events::EndReason;
use crate::ids::{PlayerId, Stamp, Version};
use crate::store::COMMIT_RECORDS_MAX;

/// A player who was kept out.
pub struct Barred {
    /// Her record.
    pub cell: Arc<Cell>,
    /// Where it stands.
    pub stamp: Stamp,
    /// How many sessions were ended.
    pub sessions: usize,
}

/// Tries until a record stays where it was found: it may leave between opening and command.
const TRIES: usize = 4;

impl Home {
    /// Ends every session of a player, and refuses tokens issued before `revoke_before` from now on. Without the
    /// latter there is nothing to do for a player who is not here.
    ///
    /// # Errors
    /// [`HomeError`]; nothing was done then.
    pub async fn kick(
        &self,
        player: &PlayerId,
        reason: EndReason,
        revoke_before: Option<u64>,
    ) -> Result<Option<Barred>, HomeError> {
        if revoke_before.is_none() && self.find_serving(player).await?.is_none() {
            return Ok(None);
        }
        // In the store there is nobody to kick; what is revoked already needs no writing.
        let revokes = |record: &Record, _: Context<'_>| {
            let is_news = revoke_before.is_some_and(|before| before > record.revoked_before());
            if is_news { Ok(()) } else { Err(Refusal::NoSession) }
        };
        let kicked = self
            .change_hot_or_cold(player, revokes, |cell, now| {
                let applied = self.apply(cell, now, |record, ctx| {
                    let ended = record.kick(ctx, &reason, revoke_before);
                    self.hold_bars(cell.shard(), cell.player(), record, now);
                    Ok(ended)
                })?;
                Ok((self.ended_of(cell, applied.value), applied.stamp))
            })
            .await;
        match kicked {
            Ok((cell, (sessions, stamp))) => Ok(Some(Barred { cell, stamp, sessions })),
            Err(HomeError::Refused(Refusal::NoSession)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Why a player is banned, if she is: also when her record has left memory since.
    #[must_use]
    pub fn banned_for(&self, player: &PlayerId) -> Option<Arc<str>> {
        self.bans.of_player(player, clock::now().unix_ms).map(|ban| ban.reason)
    }

    /// Bans a player until then (Unix ms; for ever if absent), or changes the ban that there is.
    ///
    /// # Errors
    /// [`HomeError`]; nothing was done then.
    pub async fn ban(
        &self,
        player: &PlayerId,
        until: Option<u64>,
        reason: &str,
    ) -> Result<Barred, HomeError> {
        if !self.bans.has_room_for(player, clock::now().unix_ms) {
            return Err(HomeError::Overloaded);
        }
        let (cell, (sessions, stamp)) = self
            .change_hot_or_cold(
                player,
                |_, _| Ok(()),
                |cell, now| {
                    let applied = self.apply(cell, now, |record, ctx| {
                        let ended = record.ban(ctx, until, reason);
                        self.hold_bars(cell.shard(), cell.player(), record, now);
                        Ok(ended)
                    })?;
                    Ok((self.ended_of(cell, applied.value), applied.stamp))
                },
            )
            .await?;
        Ok(Barred { cell, stamp, sessions })
    }

    /// Ends a player's ban.
    ///
    /// # Errors
    /// [`Refusal::NotBanned`], and [`HomeError`] else; nothing was done then.
    pub async fn lift_ban(&self, player: &PlayerId) -> Result<Barred, HomeError> {
        let is_banned = |record: &Record, ctx: Context<'_>| {
            record.ban_now(ctx.now.unix_ms).map(|_| ()).ok_or(Refusal::NotBanned)
        };
        let (cell, stamp) = self
            .change_hot_or_cold(player, is_banned, |cell, now| {
                let lifted = self.apply(cell, now, |record, ctx| {
                    record.lift_ban(ctx)?;
                    self.bans.lift(cell.player());
                    Ok(())
                });
                Ok(lifted?.stamp)
            })
            .await?;
        Ok(Barred { cell, stamp, sessions: 0 })
    }

    /// Who is kept out of a shard, as this node has it in memory, and where their records stood.
    pub(super) fn barred_of(&self, shard: &Shard) -> HashMap<PlayerId, Version> {
        let mut barred: HashMap<_, _> = self.revocations.of_shard(shard.id()).into_iter().collect();
        for (player, ban) in self.bans.of_shard(shard.id(), clock::now().unix_ms) {
            let version = barred.entry(player).or_default();
            *version = ban.version.max(*version);
        }
        barred
    }

    /// After the store lost writes: what it says of banned players, and of those whose tokens were revoked, who are not
    /// in memory is written anew. Returns those for whom that is to be tried again.
    pub(super) async fn put_back_bars(
        &self,
        shard: &Shard,
        barred: HashMap<PlayerId, Version>,
    ) -> HashMap<PlayerId, Version> {
        let mut owed = HashMap::new();
        let barred: Vec<_> = barred.into_iter().collect();
        for barred in barred.chunks(COMMIT_RECORDS_MAX) {
            let mut last = None;
            for (player, version) in barred {
                match self.put_back_bar(shard, player, *version).await {
                    Ok(cell) => last = cell.or(last),
                    // It will not read better another time, and opening it said so.
                    Err(HomeError::Corrupt) => {}
                    Err(_) => {
                        owed.insert(player.clone(), *version);
                    }
                }
            }
            // Not faster than the store takes them. What it does not take stays in memory and is tried again there.
            if let Some(cell) = last {
                let _ = self.durable(&cell).await;
            }
        }
        if !owed.is_empty() {
            let (shard, players) = (shard.id().number(), owed.len());
            // Why, `tidings` tells once for all shards: leases or commits fail.
            tracing::debug!(operation = "repair", shard, players, "not put back yet: tried again");
        }
        owed
    }

    async fn put_back_bar(
        &self,
        shard: &Shard,
        player: &PlayerId,
        version: Version,
    ) -> Result<Option<Arc<Cell>>, HomeError> {
        // What is hot is written anew with all the others.
        if self.records.player(player).is_some() {
            return Ok(None);
        }
        // A shard that does not answer now makes everybody wait for nothing.
        if !shard.serves(clock::now().mono_ms) {
            return Err(self.not_home());
        }
        let cell = self.open(player, Admission::Ours, |_, _| Ok(())).await?;
        self.apply(&cell, clock::now(), |record, _| {
            record.stands_above(version);
            Ok(())
        })?;
        Ok(Some(cell))
    }

    /// Opens a record, which `admit` may refuse before it is made hot, and changes it.
    pub(super) async fn change_hot_or_cold<T>(
        &self,
        player: &PlayerId,
        admit: impl Fn(&Record, Context<'_>) -> Result<(), Refusal>,
        change: impl Fn(&Arc<Cell>, Now) -> Result<T, HomeError>,
    ) -> Result<(Arc<Cell>, T), HomeError> {
        self.serving(self.shard(self.placement.shard_of(player))?).await?;
        for _ in 0..TRIES {
            let cell = self.open(player, Admission::Ours, &admit).await?;
            match change(&cell, clock::now()) {
                Err(HomeError::NotHome { .. }) => {}
                Err(error) => return Err(error),
                Ok(value) => return Ok((cell, value)),
            }
        }
        Err(self.not_home())
    }

    /// Keeps in memory, beside a record, what it says of who is kept out.
    pub(super) fn hold_bars(&self, shard: &Shard, player: &PlayerId, record: &Record, now: Now) {
        if let Some(ban) = record.ban_now(now.unix_ms) {
            self.bans.put(player, shard.id(), ban, record.version);
        }
        if record.revoked_before() > 0 {
            self.revocations.put(player, shard.id(), record.revoked_before(), record.version);
        }
    }

    pub(super) fn ended_of(&self, cell: &Cell, ended: Vec<Ended>) -> usize {
        let sessions = ended.len();
        self.ended(cell, ended);
        sessions
    }
}
