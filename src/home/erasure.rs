//! Forgetting a player: her sessions end, her record and all that waits for her leave the store. What stays is what
//! names nobody (the shard's highest version, the bits of its filter), so that a later life of the same id never
//! shows an older version than the one before.

use std::sync::Arc;

use super::record::{Context, Ended, Record, Refusal};
use super::{Barred, Home, HomeError};
use crate::events::EndReason;
use crate::ids::PlayerId;
use crate::store::Which;

/// What becomes of a ban when its player is erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BanAtErasure {
    /// A banned player is not erased.
    Refuse,
    /// All but the ban goes.
    Keep,
    /// The ban goes, too.
    Lift,
}

impl Home {
    /// Erases a player in memory. Done when her messages and blobs are forgotten, too ([`Home::forget_all_messages`], [`Home::erase_blobs`]), and the
    /// record's commit is durable: the caller sees to both.
    ///
    /// # Errors
    /// [`Refusal::Banned`], as `bans` says; [`HomeError`] else. Nothing was done then.
    pub async fn erase(
        &self,
        player: &PlayerId,
        reason: EndReason,
        bans: BanAtErasure,
    ) -> Result<Barred, HomeError> {
        let may_go = |record: &Record, ctx: Context<'_>| match record.ban_now(ctx.now.unix_ms) {
            Some(ban) if bans == BanAtErasure::Refuse => {
                Err(Refusal::Banned { reason: Arc::clone(&ban.reason) })
            }
            _ => Ok(()),
        };
        let (cell, (sessions, stamp)) = self
            .change_hot_or_cold(player, may_go, |cell, now| {
                let applied = self.apply(cell, now, |record, ctx| {
                    may_go(record, ctx)?;
                    let ended: Vec<Ended> = record.erase(ctx, &reason, bans == BanAtErasure::Keep);
                    self.revocations.forget(cell.player(), cell.shard().id());
                    if bans == BanAtErasure::Lift {
                        self.bans.lift(cell.player());
                    }
                    Ok(ended)
                })?;
                Ok((self.ended_of(cell, applied.value), applied.stamp))
            })
            .await?;
        Ok(Barred { cell, stamp, sessions })
    }

    /// Forgets all that waits for a player. After the record, so that whoever was asked to keep a message before is
    /// heard, and nothing waits when this returns.
    ///
    /// # Errors
    /// [`HomeError`]; the same call again forgets the rest.
    pub async fn forget_all_messages(&self, player: &PlayerId) -> Result<(), HomeError> {
        self.forget_messages(player, Which::All).await
    }
}
