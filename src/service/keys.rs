//! Who may call, and what: service keys with their scopes. `door` asks. Keys are kept as digests and compared in
//! constant time; neither a key nor its digest is ever shown.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::Secret;

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

/// One service's key.
pub struct Key {
    name: Box<str>,
    digest: [u8; 32],
    scopes: u8,
}

impl Key {
    /// A key that opens these scopes. Its name is what clients see as the sender of a message and what the audit
    /// lines say; no control characters.
    #[must_use]
    pub fn new(name: &str, secret: &Secret, scopes: &[Scope]) -> Self {
        let scopes = scopes.iter().fold(0, |all, scope| all | *scope as u8);
        Self { name: name.into(), digest: Sha256::digest(secret.expose()).into(), scopes }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it opens a scope.
    #[must_use]
    pub const fn opens(&self, scope: Scope) -> bool {
        self.scopes & scope as u8 != 0
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.name)
    }
}

/// All keys that are taken.
#[derive(Debug, Default)]
pub struct Keys(Vec<Arc<Key>>);

impl Keys {
    /// The one key to begin with, which opens everything; without it no call is taken.
    #[must_use]
    pub fn bootstrap(secret: Option<&Secret>) -> Self {
        secret.map(|secret| Key::new("bootstrap", secret, Scope::ALL)).into_iter().collect()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key that was presented. Every one is compared, and by digest, so that neither which one nor how much of
    /// it was right can be told from the time it took.
    #[must_use]
    pub fn find(&self, presented: &[u8]) -> Option<&Arc<Key>> {
        let presented: [u8; 32] = Sha256::digest(presented).into();
        self.0.iter().fold(
            None,
            |found, key| {
                if bool::from(key.digest.ct_eq(&presented)) { Some(key) } else { found }
            },
        )
    }
}

impl FromIterator<Key> for Keys {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        Self(keys.into_iter().map(Arc::new).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_all_of_it() {
        let keys: Keys =
            [("shop", "s3cret-shop", &[Scope::Read][..]), ("match", "s3cret-match", &[Scope::Push])]
                .into_iter()
                .map(|(name, secret, scopes)| Key::new(name, &Secret::new(secret), scopes))
                .collect();
        let found = keys.find(b"s3cret-shop").unwrap();
        assert_eq!(found.name(), "shop");
        assert!(found.opens(Scope::Read) && !found.opens(Scope::Push) && !found.opens(Scope::Admin));
        for wrong in ["", "s3cret", "s3cret-shop ", "S3cret-shop", "shop"] {
            assert!(keys.find(wrong.as_bytes()).is_none(), "{wrong}");
        }
        assert!(Keys::bootstrap(None).is_empty());
    }

    #[test]
    fn a_key_is_never_shown() {
        let keys = Keys::bootstrap(Some(&Secret::new("s3cret")));
        assert_eq!(format!("{keys:?}"), r#"Keys([Key("bootstrap")])"#);
    }
}
