//! Writes tokens, as a game's login service would: the mirror of `auth`, for trying things out. `cli` and tests
//! call it; the server itself never does.

use std::path::{Path, PathBuf};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;

use super::auth::{DEV_PREFIX, algorithm};
use crate::clock::Now;
use crate::config::{JwtAlgorithm, Settings};
use crate::ids::PlayerId;

/// Why no token can be written.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// Neither a key nor development tokens.
    #[error(
        "auth: there is nothing to sign with: set auth.jwt_secret, or auth.jwt_key_file and give --key-file"
    )]
    NoKey,
    /// The settings name a public key; signing takes the private one.
    #[error("{} is signed with a private key: give its PEM file with --key-file", .0.as_str())]
    NoPrivateKey(JwtAlgorithm),
    /// The private key cannot be read.
    #[error("--key-file: cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The private key is not one of the algorithm's, or not PEM.
    #[error("--key-file: not a private key for {}: {source}", algorithm.as_str())]
    Key {
        /// The configured algorithm.
        algorithm: JwtAlgorithm,
        /// Why.
        source: jsonwebtoken::errors::Error,
    },
}

/// What a token says.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Whose it is.
    pub player: PlayerId,
    /// How long it lasts.
    pub ttl_s: u64,
    /// Rooms that it opens.
    pub rooms: Vec<String>,
}

/// Writes a token that a server with these settings takes: signed if a key is configured, else `dev:<player>`.
///
/// # Errors
/// [`MintError`] says what is missing.
pub fn mint(
    settings: &Settings,
    grant: &Grant,
    key_file: Option<&Path>,
    now: Now,
) -> Result<String, MintError> {
    let auth = &settings.auth;
    if !settings.has_jwt_key() {
        let taken = settings.dev_tokens_taken();
        return if taken { Ok(format!("{DEV_PREFIX}{}", grant.player)) } else { Err(MintError::NoKey) };
    }
    let named = auth.jwt_algorithm.unwrap_or(JwtAlgorithm::Hs256);
    let key = match (&auth.jwt_secret, key_file) {
        (Some(secret), _) => EncodingKey::from_secret(secret.expose().as_bytes()),
        (None, Some(path)) => private_key(named, path)?,
        (None, None) => return Err(MintError::NoPrivateKey(named)),
    };
    let now_s = now.unix_ms / 1_000;
    let claims = Claims {
        sub: grant.player.as_str(),
        iat: now_s,
        exp: now_s.saturating_add(grant.ttl_s),
        iss: auth.jwt_issuer.as_deref(),
        aud: auth.jwt_audience.as_deref(),
        rooms: &grant.rooms,
    };
    encode(&Header::new(algorithm(named)), &claims, &key)
        .map_err(|source| MintError::Key { algorithm: named, source })
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    rooms: &'a [String],
}

fn private_key(named: JwtAlgorithm, path: &Path) -> Result<EncodingKey, MintError> {
    let pem = std::fs::read(path).map_err(|source| MintError::File { path: path.to_path_buf(), source })?;
    let key = match named {
        JwtAlgorithm::Hs256 => Ok(EncodingKey::from_secret(&pem)),
        JwtAlgorithm::Rs256 => EncodingKey::from_rsa_pem(&pem),
        JwtAlgorithm::Es256 => EncodingKey::from_ec_pem(&pem),
        JwtAlgorithm::EdDsa => EncodingKey::from_ed_pem(&pem),
    };
    key.map_err(|source| MintError::Key { algorithm: named, source })
}
