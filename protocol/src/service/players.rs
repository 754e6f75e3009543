//! Sessions and players: made, looked at, changed, kept out.

use std::time::Duration;

use reqwest::Method;

use super::{
    Ban, Banned, CALL_TIMEOUT, Kick, Kicked, Made, Open, PlayerView, Queried, Query, Service, ServiceError,
    SessionView, Timeline, WatchList, WatchesListed, body_of, millis, sent,
};
use crate::Stamp;
use crate::reply::Changed;
use crate::request::StatePatch;

/// What becomes of a ban when its player is erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtErasure {
    /// A banned player is not erased.
    #[default]
    Refuse,
    /// It stays, and nothing else does.
    KeepBan,
    /// It is forgotten, too.
    LiftBan,
}

impl Service {
    /// Makes a session for a client that is to come.
    ///
    /// # Errors
    /// [`ServiceError`]; [`crate::ErrorCode::SessionLimit`] while too many of the player's wait.
    pub async fn open_session(&self, open: &Open<'_>) -> Result<Made, ServiceError> {
        body_of(sent(self.call(Method::POST, &["sessions"])?.json(open)).await?).await
    }

    /// A session.
    ///
    /// # Errors
    /// [`ServiceError`]; [`crate::ErrorCode::NotFound`] where there is none.
    pub async fn session(&self, session: &str) -> Result<SessionView, ServiceError> {
        body_of(sent(self.call(Method::GET, &["sessions", session])?).await?).await
    }

    /// Logs a session out for good, durably.
    ///
    /// # Errors
    /// [`ServiceError`]; [`crate::ErrorCode::NotFound`] where there is none.
    pub async fn log_out(&self, session: &str) -> Result<(), ServiceError> {
        sent(self.call(Method::DELETE, &["sessions", session])?).await.map(drop)
    }

    /// All that is known of a player.
    ///
    /// # Errors
    /// [`ServiceError`]; [`crate::ErrorCode::NotFound`] where nothing is.
    pub async fn player(&self, player: &str) -> Result<PlayerView, ServiceError> {
        body_of(sent(self.call(Method::GET, &["players", player])?).await?).await
    }

    /// The same, not older than a stamp: waits for that up to `wait` (10 s at most).
    ///
    /// # Errors
    /// [`ServiceError`]; [`crate::ErrorCode::Behind`] where it is not reached in time, [`crate::ErrorCode::RolledBack`] where it
    /// never will be.
    pub async fn player_at_least(
        &self,
        player: &str,
        (epoch, version): Stamp,
        wait: Duration,
    ) -> Result<PlayerView, ServiceError> {
        let request = self.request(Method::GET, &["players", player], wait + CALL_TIMEOUT)?;
        let stamp = format!("{epoch}.{version}");
        let asked = [("min_stamp", stamp), ("wait_ms", millis(wait).to_string())];
        body_of(sent(request.query(&asked)).await?).await
    }

    /// Erases everything about a player, durably. The same call again does no harm.
    ///
    /// # Errors
    /// [`ServiceError`]; [`crate::ErrorCode::Banned`] with [`AtErasure::Refuse`] while she is.
    pub async fn erase(&self, player: &str, ban: AtErasure) -> Result<(), ServiceError> {
        let request = self.call(Method::DELETE, &["players", player])?;
        let request = match ban {
            AtErasure::Refuse => request,
            AtErasure::KeepBan => request.query(&[("ban", "keep")]),
            AtErasure::LiftBan => request.query(&[("ban", "lift")]),
        };
        sent(request).await.map(drop)
    }

    /// A player's latest comings and goings.
    ///
    /// # Errors
    /// [`ServiceError`]; [`crate::ErrorCode::NotFound`] where nothing is known of her.
    pub async fn timeline(&self, player: &str) -> Result<Timeline, ServiceError> {
        body_of(sent(self.call(Method::GET, &["players", player, "timeline"])?).await?).await
    }

    /// Changes a player's state. A `cseq` means nothing here.
    ///
    /// # Errors
    /// [`ServiceError`]; [`crate::ErrorCode::StateConflict`] where `if_state` names another state,
    /// [`crate::ErrorCode::NotFound`] without a session.
    pub async fn patch_state(&self, player: &str, patch: &StatePatch<'_>) -> Result<Changed, ServiceError> {
        body_of(sent(self.call(Method::PATCH, &["players", player, "state"])?.json(patch)).await?).await
    }

    /// Sets or changes whom a player watches, durably.
    ///
    /// # Errors
    /// [`ServiceError`]; [`crate::ErrorCode::NotFound`] without a session.
    pub async fn put_watches(
        &self,
        player: &str,
        list: &WatchList<'_>,
    ) -> Result<WatchesListed, ServiceError> {
        body_of(sent(self.call(Method::PUT, &["players", player, "watches"])?.json(list)).await?).await
    }

    /// Ends every session of a player, durably.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn kick(&self, player: &str, kick: &Kick<'_>) -> Result<Kicked, ServiceError> {
        body_of(sent(self.call(Method::POST, &["players", player, "kick"])?.json(kick)).await?).await
    }

    /// Keeps a player out, durably.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn ban(&self, player: &str, ban: &Ban<'_>) -> Result<Banned, ServiceError> {
        body_of(sent(self.call(Method::PUT, &["players", player, "ban"])?.json(ban)).await?).await
    }

    /// Lets a player in again.
    ///
    /// # Errors
    /// [`ServiceError`]; [`crate::ErrorCode::NotFound`] where she is not banned.
    pub async fn lift_ban(&self, player: &str) -> Result<(), ServiceError> {
        sent(self.call(Method::DELETE, &["players", player, "ban"])?).await.map(drop)
    }

    /// The presence of up to a thousand players.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn query(&self, query: &Query<'_>) -> Result<Queried, ServiceError> {
        body_of(sent(self.call(Method::POST, &["presence", "query"])?.json(query)).await?).await
    }
}
