//! Whether a JWT is good, and what it claims: signature, issuer, audience and times. `gate` asks for players and
//! `service` for services, each with settings of its own. Says nothing of who may do what; never takes a key, or the
//! name of an algorithm, from the token itself.

mod keys;

use std::sync::Arc;

use jsonwebtoken::{decode, decode_header};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::clock::{Now, millis};
use crate::config;
use crate::files::{Fault, Named, Reread, Watched};
pub use keys::algorithm;
use keys::{KeySet, Rules};

/// Longest token: more than any issuer writes, and little enough to look at.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Why a token is not taken: for the log alone.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not a JWT, a wrong signature, a wrong issuer or audience, a claim missing.
    #[error("{0}")]
    Jwt(#[from] jsonwebtoken::errors::Error),
    /// What a token calls critical must be understood (RFC 7515, section 4.1.11), and we know no extension.
    #[error("its header has critical extensions that we do not know")]
    Critical,
    /// No key of ours has its `kid`.
    #[error("no key of this name is known")]
    UnknownKey,
    /// Over the limit.
    #[error("longer than a token may be")]
    TooLong,
    /// It was good once.
    #[error("expired")]
    Expired,
    /// Its time has not come.
    #[error("not valid yet")]
    NotYet,
}

/// What a good token says.
#[derive(Debug)]
pub struct Claimed<C> {
    /// What its kind of token claims.
    pub claims: C,
    /// When it ends, leeway included: a token taken in its last moment is good for that moment.
    pub expires_at_unix_ms: u64,
    /// When it was issued; 0 if it does not say.
    pub issued_at_unix_ms: u64,
}

/// Times are numbers of seconds, with a fraction if the issuer likes (RFC 7519, section 2).
#[derive(Deserialize)]
struct Timed<C> {
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
    #[serde(flatten)]
    claims: C,
}

/// Judges JWTs of one kind.
pub struct Verifier {
    keys: Keys,
    leeway_ms: u64,
}

enum Keys {
    Fixed(Arc<KeySet>),
    File(Arc<Reread<KeySet>>),
}

/// Says nothing of the keys.
impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Verifier").field(&self.keys().algorithms()).finish()
    }
}

impl Verifier {
    /// Reads the key or the key set; `None` where no key is configured.
    ///
    /// # Errors
    /// [`Fault`] names the setting and the file.
    pub fn from_settings(jwt: &config::Jwt<'_>) -> Result<Option<Self>, Fault> {
        let rules = Rules::of(jwt);
        let named = |name: &str, path: &std::path::Path| vec![Named::new(jwt.setting(name), path)];
        let keys = if let Some(secret) = jwt.secret {
            Keys::Fixed(Arc::new(KeySet::of_secret(secret, &rules)))
        } else if let Some(path) = jwt.key_file {
            let algorithm = jwt.algorithm();
            let read =
                move |files: &[Named], read: &[Vec<u8>]| KeySet::of_pem(algorithm, files, read, &rules);
            Keys::File(Arc::new(Reread::open(named("jwt_key_file", path), read)?))
        } else if let Some(path) = jwt.jwks_file {
            let read = move |files: &[Named], read: &[Vec<u8>]| KeySet::of_jwks(files, read, &rules);
            Keys::File(Arc::new(Reread::open(named("jwks_file", path), read)?))
        } else {
            return Ok(None);
        };
        let leeway_ms = millis(jwt.leeway);
        Ok(Some(Self { keys, leeway_ms }))
    }

    /// The file that its keys come from, to be looked at.
    #[must_use]
    pub fn file(&self) -> Option<Arc<dyn Watched>> {
        match &self.keys {
            Keys::Fixed(_) => None,
            Keys::File(file) => Some(Arc::clone(file) as Arc<dyn Watched>),
        }
    }

    fn keys(&self) -> Arc<KeySet> {
        match &self.keys {
            Keys::Fixed(keys) => Arc::clone(keys),
            Keys::File(file) => file.get(),
        }
    }

    /// The claims of a good token.
    ///
    /// # Errors
    /// [`Refusal`], which is not for whoever sent it.
    pub fn verify<C: DeserializeOwned>(&self, token: &str, now: Now) -> Result<Claimed<C>, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::TooLong);
        }
        let header = decode_header(token)?;
        if header.crit.is_some() {
            return Err(Refusal::Critical);
        }
        let keys = self.keys();
        let key = keys.find(header.kid.as_deref()).ok_or(Refusal::UnknownKey)?;
        let Timed { exp, nbf, iat, claims } = decode(token, &key.key, &key.validation)?.claims;
        let expires_at_unix_ms = unix_ms(exp).saturating_add(self.leeway_ms);
        if now.unix_ms >= expires_at_unix_ms {
            return Err(Refusal::Expired);
        }
        let latest_ms = now.unix_ms.saturating_add(self.leeway_ms);
        if [nbf, iat].into_iter().flatten().any(|from| unix_ms(from) > latest_ms) {
            return Err(Refusal::NotYet);
        }
        let issued_at_unix_ms = iat.map(unix_ms).unwrap_or_default();
        Ok(Claimed { claims, expires_at_unix_ms, issued_at_unix_ms })
    }
}

/// Seconds as milliseconds; below zero and above all bounds the nearest that there is.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float to integer saturates")]
fn unix_ms(seconds: f64) -> u64 {
    (seconds * 1_000.0) as u64
}

#[cfg(test)]
mod tests;
