//! Who may call, and what: service keys with their scopes, and services' JWTs. `door` asks. Keys are kept as digests
//! and compared in constant time; neither a key nor its digest is ever shown.

mod file;

use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

pub use file::{GeneratedKey, generate};

use crate::clock::Now;
use crate::config::{Secret, Settings};
use crate::files::{Fault, Named, Reread, Watched};
use crate::jwt::{Claimed, Refusal, Verifier};

/// Most bytes of a service's name.
const NAME_BYTES_MAX: usize = 64;
/// The name of the key that is a setting of its own.
const BOOTSTRAP: &str = "bootstrap";

/// What a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Looking: every GET, and the presence query.
    Read = 0b0001,
    /// Messages.
    Push = 0b0010,
    /// Sessions and states.
    Write = 0b0100,
    /// Cutting players off.
    Admin = 0b1000,
}

impl Scope {
    /// Every scope.
    pub const ALL: &[Self] = &[Self::Read, Self::Push, Self::Write, Self::Admin];

    /// The scope of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scope| scope.name() == name)
    }

    /// Its name, as the specification has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Push => "push",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// How a service proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// With a key.
    Key,
    /// With a JWT.
    Jwt,
}

impl Via {
    /// Its name in audit lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Jwt => "jwt",
        }
    }
}

/// A service that may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    name: Box<str>,
    scopes: u8,
    via: Via,
}

impl Identity {
    fn new(name: &str, scopes: impl IntoIterator<Item = Scope>, via: Via) -> Self {
        let scopes = scopes.into_iter().fold(0, |all, scope| all | scope as u8);
        Self { name: name.into(), scopes, via }
    }

    /// Its name: what clients see as the sender of a message and what the audit lines say.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it proved that.
    #[must_use]
    pub const fn via(&self) -> Via {
        self.via
    }

    /// Whether it may do what needs a scope.
    #[must_use]
    pub const fn opens(&self, scope: Scope) -> bool {
        self.scopes & scope as u8 != 0
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// One service's key.
pub struct Key {
    identity: Arc<Identity>,
    digest: [u8; 32],
}

impl Key {
    /// A key that opens these scopes.
    #[must_use]
    pub fn new(name: &str, secret: &Secret, scopes: &[Scope]) -> Self {
        Self::of_digest(name, Sha256::digest(secret.expose()).into(), scopes)
    }

    fn of_digest(name: &str, digest: [u8; 32], scopes: &[Scope]) -> Self {
        Self { identity: Arc::new(Identity::new(name, scopes.iter().copied(), Via::Key)), digest }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.identity.name)
    }
}

/// All keys that are taken, and what judges JWTs.
#[derive(Default)]
pub struct Keys {
    fixed: Vec<Key>,
    file: Option<Arc<Reread<Vec<Key>>>>,
    jwt: Option<Verifier>,
}

impl Keys {
    /// The one key to begin with, which opens everything, those of the file, and the keys of JWTs.
    ///
    /// # Errors
    /// [`Fault`] names the setting and the file.
    pub fn from_settings(settings: &Settings) -> Result<Self, Fault> {
        let file = settings.service.keys_file.as_ref().map(|path| {
            let named = vec![Named::new("service.keys_file", path)];
            Reread::open(named, file::read).map(Arc::new)
        });
        Ok(Self {
            file: file.transpose()?,
            jwt: Verifier::from_settings(&settings.service.jwt(&settings.auth))?,
            ..Self::bootstrap(settings.service_key.as_ref())
        })
    }

    /// The one key to begin with alone; without it no call is taken.
    #[must_use]
    pub fn bootstrap(secret: Option<&Secret>) -> Self {
        secret.map(|secret| Key::new(BOOTSTRAP, secret, Scope::ALL)).into_iter().collect()
    }

    /// The files that they come from, to be looked at.
    pub fn files(&self) -> impl Iterator<Item = Arc<dyn Watched>> {
        let file = self.file.as_ref().map(|file| Arc::clone(file) as Arc<dyn Watched>);
        file.into_iter().chain(self.jwt.as_ref().and_then(Verifier::file))
    }

    /// Whether nothing can be good.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.file.is_none() && self.jwt.is_none()
    }

    /// Who presents this. Every key is compared, and by digest, so that neither which one nor how much of it was
    /// right can be told from the time it took.
    #[must_use]
    pub fn find(&self, presented: &[u8], now: Now) -> Option<Arc<Identity>> {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        let file = self.file.as_ref().map(|file| file.get());
        let of_file = file.iter().flat_map(|keys| keys.iter());
        let found = self.fixed.iter().chain(of_file).fold(None, |found, key| {
            if bool::from(key.digest.ct_eq(&digest)) { Some(&key.identity) } else { found }
        });
        found.cloned().or_else(|| self.find_jwt(presented, now))
    }

    fn find_jwt(&self, presented: &[u8], now: Now) -> Option<Arc<Identity>> {
        let jwt = self.jwt.as_ref()?;
        let token = std::str::from_utf8(presented).ok().filter(|text| text.split('.').count() == 3)?;
        match identity(jwt.verify(token, now)) {
            Ok(identity) => Some(Arc::new(identity)),
            Err(refusal) => {
                tracing::debug!(operation = "auth", status = %refusal, "a service's token refused");
                None
            }
        }
    }
}

/// What a service's token claims. One without `scopes` is a player's.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    scopes: Vec<String>,
}

fn identity(verified: Result<Claimed<Claims>, Refusal>) -> Result<Identity, String> {
    let Claims { sub, scopes } = verified.map_err(|refusal| refusal.to_string())?.claims;
    if !is_name(&sub) {
        return Err("its subject is not a service's name".to_owned());
    }
    // A name that we do not know opens nothing.
    Ok(Identity::new(&sub, scopes.iter().filter_map(|name| Scope::named(name)), Via::Jwt))
}

/// How many there are, and no more.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("fixed", &self.fixed)
            .field("file", &self.file.as_ref().map(|file| file.get()))
            .field("jwt", &self.jwt)
            .finish()
    }
}

impl FromIterator<Key> for Keys {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        Self { fixed: keys.into_iter().collect(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;

    const NOW: Now = Now { mono_ms: 5, unix_ms: 1_800_000_000_000 };
    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_key_is_found_by_all_of_it() {
        let keys: Keys =
            [("shop", "s3cret-shop", &[Scope::Read][..]), ("match", "s3cret-match", &[Scope::Push])]
                .into_iter()
                .map(|(name, secret, scopes)| Key::new(name, &Secret::new(secret), scopes))
                .collect();
        let found = keys.find(b"s3cret-shop", NOW).unwrap();
        assert_eq!((found.name(), found.via()), ("shop", Via::Key));
        assert!(found.opens(Scope::Read) && !found.opens(Scope::Push) && !found.opens(Scope::Admin));
        for wrong in ["", "s3cret", "s3cret-shop ", "S3cret-shop", "shop"] {
            assert!(keys.find(wrong.as_bytes(), NOW).is_none(), "{wrong}");
        }
        assert!(Keys::bootstrap(None).is_empty());
    }

    #[test]
    fn a_key_is_never_shown() {
        let keys = Keys::bootstrap(Some(&Secret::new("s3cret")));
        assert!(format!("{keys:?}").starts_with(r#"Keys { fixed: [Key("bootstrap")]"#), "{keys:?}");
    }

    fn with_jwt(more: &str) -> Keys {
        let toml = format!("[service]\njwt_secret = {SECRET:?}\n{more}");
        Keys::from_settings(&Settings::from_toml(&toml).unwrap()).unwrap()
    }

    fn signed(claims: &Value) -> String {
        encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    }

    fn claims() -> Value {
        json!({"sub": "shop", "exp": NOW.unix_ms / 1_000 + 60, "scopes": ["read", "push", "dance"]})
    }

    #[test]
    fn a_token_of_a_service_opens_the_scopes_that_it_claims() {
        let found = with_jwt("").find(signed(&claims()).as_bytes(), NOW).unwrap();
        assert_eq!((found.name(), found.via()), ("shop", Via::Jwt));
        assert!(found.opens(Scope::Read) && found.opens(Scope::Push));
        assert!(!found.opens(Scope::Write) && !found.opens(Scope::Admin));
    }

    #[test]
    fn a_token_that_is_no_services_opens_nothing() {
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            signed(&claims)
        };
        let keys = with_jwt("");
        for token in [
            // A player's has no scopes.
            with("scopes", Value::Null),
            with("scopes", json!("read")),
            with("exp", json!(NOW.unix_ms / 1_000 - 61)),
            with("exp", Value::Null),
            with("sub", json!("")),
            with("sub", json!("a\nb")),
            with("sub", json!("x".repeat(65))),
            with("aud", json!("somebody else")),
            with("nbf", json!(NOW.unix_ms / 1_000 + 120)),
            format!("{}x", signed(&claims())),
            "a.b.c".to_owned(),
        ] {
            assert!(keys.find(token.as_bytes(), NOW).is_none(), "{token}");
        }
        let strict = with_jwt("jwt_issuer = \"ops\"\njwt_audience = \"hearth\"");
        assert!(strict.find(signed(&claims()).as_bytes(), NOW).is_none());
        let mut good = claims();
        (good["iss"], good["aud"]) = (json!("ops"), json!("hearth"));
        assert!(strict.find(signed(&good).as_bytes(), NOW).is_some());
        // Without a key of its own no JWT is good, and the players' key is not one.
        let players = format!("[auth]\njwt_secret = {SECRET:?}");
        let keys = Keys::from_settings(&Settings::from_toml(&players).unwrap()).unwrap();
        assert!(keys.find(signed(&claims()).as_bytes(), NOW).is_none());
    }
}
