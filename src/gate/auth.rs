//! Whether a token is good, and whose it is. The handshake and `refresh` ask; the only place that says yes or no.
//! Never tells the client which rule a token broke: that goes to the log, at debug.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::clock::{Now, millis};
use crate::config::Settings;
use crate::files::{Fault, Watched};
use crate::ids::{PlayerId, RoomNameError, RoomPattern};
use crate::jwt::{self, Claimed, Verifier};
use crate::session::Vouched;

/// What a development token starts with.
pub(super) const DEV_PREFIX: &str = "dev:";

/// Why a token is not taken. The two differ for the client: a new token may help, or nothing will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Not a token of ours, whatever the reason.
    #[error("the token is not valid")]
    Invalid,
    /// It was good once.
    #[error("the token has expired")]
    Expired,
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whose it is.
    pub player: PlayerId,
    /// When it ends, leeway included: a token taken in its last moment is good for that moment.
    pub expires_at_unix_ms: u64,
    /// Rooms that it opens.
    pub rooms: Box<[RoomPattern]>,
    /// When it was issued, for refusing those before some time; 0 if it does not say.
    pub issued_at_unix_ms: u64,
}

impl From<Identity> for Vouched {
    fn from(identity: Identity) -> Self {
        let Identity { player, expires_at_unix_ms, issued_at_unix_ms, rooms } = identity;
        Self { player, expires_at_unix_ms, issued_at_unix_ms, rooms }
    }
}

/// Judges tokens; made once.
#[derive(Debug)]
pub struct Authenticator {
    dev_ttl_ms: Option<u64>,
    jwt: Option<Verifier>,
    rooms_max: usize,
}

impl Authenticator {
    /// Reads the keys and fixes the rules.
    ///
    /// # Errors
    /// [`Fault`] names the setting and the file.
    pub fn from_settings(settings: &Settings) -> Result<Self, Fault> {
        let dev_ttl_ms = settings.dev_tokens_taken().then(|| millis(settings.auth.dev_token_ttl));
        let jwt = Verifier::from_settings(&settings.auth.jwt())?;
        Ok(Self { dev_ttl_ms, jwt, rooms_max: settings.auth.token_rooms_max })
    }

    /// The file that its keys come from, to be looked at.
    #[must_use]
    pub fn file(&self) -> Option<Arc<dyn Watched>> {
        self.jwt.as_ref().and_then(Verifier::file)
    }

    /// Judges a token.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] (4500) or [`AuthError::Expired`] (4251).
    pub fn verify(&self, token: &str, now: Now) -> Result<Identity, AuthError> {
        let outcome = match (token.strip_prefix(DEV_PREFIX), self.dev_ttl_ms, &self.jwt) {
            (Some(player), Some(ttl_ms), _) => development(player, ttl_ms, now),
            (None, _, Some(jwt)) => {
                let claimed = jwt.verify(token, now).map_err(Refusal::from);
                claimed.and_then(|claimed| identity(claimed, self.rooms_max))
            }
            _ => Err(Refusal::Kind),
        };
        outcome.map_err(|refusal| {
            tracing::debug!(operation = "auth", status = %refusal, "token refused");
            match refusal {
                Refusal::Jwt(jwt::Refusal::Expired) => AuthError::Expired,
                _ => AuthError::Invalid,
            }
        })
    }
}

/// Why a token was refused, for the log alone.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("tokens of this kind are not taken here")]
    Kind,
    #[error(transparent)]
    Jwt(#[from] jwt::Refusal),
    #[error("it is a service's")]
    Service,
    #[error("its subject is not a player: {0}")]
    Subject(#[from] crate::ids::IdError),
    #[error("it names more rooms than auth.token_rooms_max")]
    TooManyRooms,
    #[error("it names a room that cannot be: {0}")]
    Room(#[from] RoomNameError),
}

fn development(player: &str, ttl_ms: u64, now: Now) -> Result<Identity, Refusal> {
    Ok(Identity {
        player: PlayerId::parse(player)?,
        expires_at_unix_ms: now.unix_ms.saturating_add(ttl_ms),
        rooms: Box::default(),
        issued_at_unix_ms: now.unix_ms,
    })
}

/// What a player's token claims.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    rooms: Vec<String>,
    /// What a service's token has and a player's has not, so that neither is ever taken for the other.
    scopes: Option<IgnoredAny>,
}

fn identity(claimed: Claimed<Claims>, rooms_max: usize) -> Result<Identity, Refusal> {
    let Claimed { claims, expires_at_unix_ms, issued_at_unix_ms } = claimed;
    if claims.scopes.is_some() {
        return Err(Refusal::Service);
    }
    // They are kept with the session: so they are bounded, and none is kept that could open nothing.
    if claims.rooms.len() > rooms_max {
        return Err(Refusal::TooManyRooms);
    }
    let rooms = claims.rooms.iter().map(|claim| RoomPattern::parse(claim)).collect::<Result<_, _>>()?;
    Ok(Identity { player: PlayerId::parse(&claims.sub)?, expires_at_unix_ms, rooms, issued_at_unix_ms })
}

#[cfg(test)]
mod tests;
