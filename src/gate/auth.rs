//! Whether a token is good, and whose it is. The handshake and `refresh` ask; the only place that says yes or no.
//! Never tells the client which rule a token broke: that goes to the log, at debug.

use std::path::PathBuf;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use crate::clock::Now;
use crate::config::{self, JwtAlgorithm, Settings};
use crate::ids::PlayerId;

/// What a development token starts with.
pub(super) const DEV_PREFIX: &str = "dev:";

/// Why the configured key cannot be used. A fault of the configuration: nothing may start with it.
#[derive(Debug, thiserror::Error)]
pub enum AuthSetupError {
    /// The key file cannot be read.
    #[error("auth.jwt_key_file: cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds no public key of the algorithm.
    #[error("auth.jwt_key_file: {} holds no public key for {}: {source}", path.display(), algorithm.as_str())]
    Key {
        /// The file.
        path: PathBuf,
        /// The configured algorithm.
        algorithm: JwtAlgorithm,
        /// Why.
        source: jsonwebtoken::errors::Error,
    },
}

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
    pub rooms: Vec<String>,
    /// When it was issued, for refusing those before some time; 0 if it does not say.
    pub issued_at_unix_ms: u64,
}

/// Judges tokens; made once.
pub struct Authenticator {
    dev_ttl_ms: Option<u64>,
    jwt: Option<Jwt>,
}

struct Jwt {
    key: DecodingKey,
    validation: Validation,
    leeway_ms: u64,
}

/// Says nothing of the key.
impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let algorithms = self.jwt.as_ref().map(|jwt| &jwt.validation.algorithms);
        f.debug_struct("Authenticator")
            .field("dev_ttl_ms", &self.dev_ttl_ms)
            .field("jwt", &algorithms)
            .finish()
    }
}

impl Authenticator {
    /// Reads the key and fixes the rules.
    ///
    /// # Errors
    /// [`AuthSetupError`] names the setting and the file.
    pub fn from_settings(settings: &Settings) -> Result<Self, AuthSetupError> {
        let auth = &settings.auth;
        let dev_ttl_ms = settings.dev_tokens_taken().then(|| millis(auth.dev_token_ttl));
        let named = auth.jwt_algorithm.unwrap_or(JwtAlgorithm::Hs256);
        let key = match (&auth.jwt_secret, &auth.jwt_key_file) {
            (Some(secret), _) => Some(DecodingKey::from_secret(secret.expose().as_bytes())),
            (None, Some(path)) => Some(public_key(named, path)?),
            (None, None) => None,
        };
        let jwt = key.map(|key| Jwt { key, validation: rules(named, auth), leeway_ms: millis(auth.leeway) });
        Ok(Self { dev_ttl_ms, jwt })
    }

    /// Judges a token.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] (4500) or [`AuthError::Expired`] (4251).
    pub fn verify(&self, token: &str, now: Now) -> Result<Identity, AuthError> {
        let outcome = match (token.strip_prefix(DEV_PREFIX), self.dev_ttl_ms, &self.jwt) {
            (Some(player), Some(ttl_ms), _) => development(player, ttl_ms, now),
            (None, _, Some(jwt)) => jwt.verify(token, now),
            _ => Err(Refusal::Kind),
        };
        outcome.map_err(|refusal| {
            tracing::debug!(operation = "auth", status = %refusal, "token refused");
            match refusal {
                Refusal::Expired => AuthError::Expired,
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
    #[error("{0}")]
    Jwt(jsonwebtoken::errors::Error),
    #[error("its header has critical extensions that we do not know")]
    Critical,
    #[error("expired")]
    Expired,
    #[error("not valid yet")]
    NotYet,
    #[error("its subject is not a player: {0}")]
    Subject(#[from] crate::ids::IdError),
}

fn development(player: &str, ttl_ms: u64, now: Now) -> Result<Identity, Refusal> {
    Ok(Identity {
        player: PlayerId::parse(player)?,
        expires_at_unix_ms: now.unix_ms.saturating_add(ttl_ms),
        rooms: Vec::new(),
        issued_at_unix_ms: now.unix_ms,
    })
}

/// Times are numbers of seconds, with a fraction if the issuer likes (RFC 7519, section 2).
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
    #[serde(default)]
    rooms: Vec<String>,
}

impl Jwt {
    fn verify(&self, token: &str, now: Now) -> Result<Identity, Refusal> {
        let claims = self.claims(token)?;
        let expires_at_unix_ms = unix_ms(claims.exp).saturating_add(self.leeway_ms);
        if now.unix_ms >= expires_at_unix_ms {
            return Err(Refusal::Expired);
        }
        let latest_ms = now.unix_ms.saturating_add(self.leeway_ms);
        if [claims.nbf, claims.iat].into_iter().flatten().any(|from| unix_ms(from) > latest_ms) {
            return Err(Refusal::NotYet);
        }
        Ok(Identity {
            player: PlayerId::parse(&claims.sub)?,
            expires_at_unix_ms,
            rooms: claims.rooms,
            issued_at_unix_ms: claims.iat.map(unix_ms).unwrap_or_default(),
        })
    }

    /// The claims of a token whose signature, algorithm, issuer and audience are good.
    fn claims(&self, token: &str) -> Result<Claims, Refusal> {
        let header = decode_header(token).map_err(Refusal::Jwt)?;
        // What a token calls critical must be understood (RFC 7515, section 4.1.11), and we know no extension.
        if header.crit.is_some() {
            return Err(Refusal::Critical);
        }
        decode::<Claims>(token, &self.key, &self.validation).map(|data| data.claims).map_err(Refusal::Jwt)
    }
}

/// What the library checks for us: all but the times, which are ours to compare with `now`.
fn rules(named: JwtAlgorithm, auth: &config::Auth) -> Validation {
    let mut validation = Validation::new(algorithm(named));
    let mut required = vec!["exp", "sub"];
    validation.validate_exp = false;
    validation.validate_nbf = false;
    if let Some(issuer) = &auth.jwt_issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    if let Some(audience) = &auth.jwt_audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn public_key(named: JwtAlgorithm, path: &std::path::Path) -> Result<DecodingKey, AuthSetupError> {
    let pem =
        std::fs::read(path).map_err(|source| AuthSetupError::File { path: path.to_path_buf(), source })?;
    let key = match named {
        // The settings do not let a secret come from a file of keys.
        JwtAlgorithm::Hs256 => Err(ErrorKind::InvalidKeyFormat.into()),
        JwtAlgorithm::Rs256 => DecodingKey::from_rsa_pem(&pem),
        JwtAlgorithm::Es256 => DecodingKey::from_ec_pem(&pem),
        JwtAlgorithm::EdDsa => DecodingKey::from_ed_pem(&pem),
    };
    // A key of the right family but the wrong curve shows only when it is used.
    key.and_then(|key| jsonwebtoken::crypto::verify("", b"", &key, algorithm(named)).map(|_| key))
        .map_err(|source| AuthSetupError::Key { path: path.to_path_buf(), algorithm: named, source })
}

pub(super) const fn algorithm(named: JwtAlgorithm) -> Algorithm {
    match named {
        JwtAlgorithm::Hs256 => Algorithm::HS256,
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Es256 => Algorithm::ES256,
        JwtAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}

/// Seconds as milliseconds; below zero and above all bounds the nearest that there is.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float to integer saturates")]
fn unix_ms(seconds: f64) -> u64 {
    (seconds * 1_000.0) as u64
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
