//! Writes tokens, as a game's login service would: the mirror of `auth`, for trying things out. `cli` and tests
//! call it; the server itself never does.

use std::path::{Path, PathBuf};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;

use super::auth::DEV_PREFIX;
use crate::clock::Now;
use crate::config::{JwtAlgorithm, Settings};
use crate::ids::PlayerId;
use crate::jwt::algorithm;

/// Why no token can be written.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// Neither a key nor development tokens.
    #[error(
        "auth: there is nothing to sign with: set auth.jwt_secret, or a file of public keys and give --key-file"
    )]
    NoKey,
    /// The settings name public keys; signing takes a private one.
    #[error("tokens are signed with a private key: give its PEM file with --key-file")]
    NoPrivateKey,
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
        /// The algorithm.
        algorithm: JwtAlgorithm,
        /// Why.
        source: jsonwebtoken::errors::Error,
    },
    /// The private key is of no kind that a key set may hold.
    #[error("--key-file: {} holds no private key of RSA, EC or Ed25519 as PKCS #8 PEM", .0.display())]
    KeyKind(PathBuf),
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
    /// Which key of a set signed it.
    pub kid: Option<String>,
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
    let (named, key) = match (&auth.jwt_secret, key_file) {
        (Some(secret), _) => (JwtAlgorithm::Hs256, EncodingKey::from_secret(secret.expose().as_bytes())),
        (None, Some(path)) => private_key(auth.jwt_algorithm, path)?,
        (None, None) => return Err(MintError::NoPrivateKey),
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
    let header = Header { kid: grant.kid.clone(), ..Header::new(algorithm(named)) };
    encode(&header, &claims, &key).map_err(|source| MintError::Key { algorithm: named, source })
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

/// The key, and what it signs with: the configured algorithm, or without one the first whose key it is.
fn private_key(named: Option<JwtAlgorithm>, path: &Path) -> Result<(JwtAlgorithm, EncodingKey), MintError> {
    let pem = std::fs::read(path).map_err(|source| MintError::File { path: path.to_path_buf(), source })?;
    if let Some(named) = named {
        let key = private_key_of(named, &pem);
        return key.map(|key| (named, key)).map_err(|source| MintError::Key { algorithm: named, source });
    }
    [JwtAlgorithm::Es256, JwtAlgorithm::EdDsa, JwtAlgorithm::Rs256]
        .into_iter()
        .find_map(|named| Some((named, private_key_of(named, &pem).ok()?)))
        .ok_or_else(|| MintError::KeyKind(path.to_path_buf()))
}

fn private_key_of(named: JwtAlgorithm, pem: &[u8]) -> Result<EncodingKey, jsonwebtoken::errors::Error> {
    match named {
        JwtAlgorithm::Hs256 => Ok(EncodingKey::from_secret(pem)),
        JwtAlgorithm::Rs256 => EncodingKey::from_rsa_pem(pem),
        JwtAlgorithm::Es256 => EncodingKey::from_ec_pem(pem),
        JwtAlgorithm::EdDsa => EncodingKey::from_ed_pem(pem),
    }
}
