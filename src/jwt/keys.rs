//! The keys that tokens are judged by: a shared secret, a public key as PEM, or a set of them as RFC 7517 writes it.
//! `jwt` makes them. Each key has exactly one algorithm, fixed here, whatever a token says of itself.

use base64::Engine as _;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

use crate::config::{self, JwtAlgorithm, Secret};
use crate::files::{Fault, Named};

/// Most keys in a set: two a rotation are usual.
const KEYS_MAX: usize = 100;
/// Bits of an RSA key: fewer can be broken, more cost a login too much.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// What every token of a kind must carry, besides its signature.
pub(super) struct Rules {
    issuer: Option<String>,
    audience: Option<String>,
}

impl Rules {
    pub(super) fn of(jwt: &config::Jwt<'_>) -> Self {
        Self { issuer: jwt.issuer.map(str::to_owned), audience: jwt.audience.map(str::to_owned) }
    }

    /// What the library checks for us: all but the times, which are ours to compare with `now`.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        let mut required = vec!["exp", "sub"];
        validation.validate_exp = false;
        validation.validate_nbf = false;
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

/// One key and what it judges.
pub(super) struct Key {
    kid: Option<String>,
    pub(super) key: DecodingKey,
    pub(super) validation: Validation,
}

/// All keys of one kind of token.
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// Whether a token's `kid` says which one: so in a set, not where there is one key without a name.
    is_named: bool,
}

impl KeySet {
    pub(super) fn of_secret(secret: &Secret, rules: &Rules) -> Self {
        Self::of_one(DecodingKey::from_secret(secret.expose().as_bytes()), Algorithm::HS256, rules)
    }

    pub(super) fn of_pem(
        named: JwtAlgorithm,
        files: &[Named],
        read: &[Vec<u8>],
        rules: &Rules,
    ) -> Result<Self, Fault> {
        let (Some(file), Some(pem)) = (files.first(), read.first()) else { return Ok(Self::empty()) };
        let key = match named {
            // The settings do not let a secret come from a file of keys.
            JwtAlgorithm::Hs256 => Err(ErrorKind::InvalidKeyFormat.into()),
            JwtAlgorithm::Rs256 => DecodingKey::from_rsa_pem(pem),
            JwtAlgorithm::Es256 => DecodingKey::from_ec_pem(pem),
            JwtAlgorithm::EdDsa => DecodingKey::from_ed_pem(pem),
        };
        let key = key.and_then(|key| tried(key, algorithm(named))).map_err(|error| {
            let (path, named) = (file.path.display(), named.as_str());
            file.fault(format!("{path} holds no public key for {named}: {error}"))
        })?;
        Ok(Self::of_one(key, algorithm(named), rules))
    }

    /// Keys for other uses, and of kinds that we do not know, are passed over, as RFC 7517 section 5 asks.
    pub(super) fn of_jwks(files: &[Named], read: &[Vec<u8>], rules: &Rules) -> Result<Self, Fault> {
        let (Some(file), Some(json)) = (files.first(), read.first()) else { return Ok(Self::empty()) };
        let fault = |message: String| file.fault(format!("{}: {message}", file.path.display()));
        // The library's error may repeat what it read.
        let set: Set = serde_json::from_slice(json)
            .map_err(|error| fault(format!("not a JSON Web Key Set (line {})", error.line())))?;
        if set.keys.len() > KEYS_MAX {
            return Err(fault(format!("more than {KEYS_MAX} keys")));
        }
        let mut keys: Vec<Key> = Vec::new();
        for (at, value) in set.keys.into_iter().enumerate() {
            match Given::read(value).and_then(|given| given.key(rules)) {
                Ok(Some(key)) => keys.push(key),
                Ok(None) => {}
                Err(message) => return Err(fault(format!("key {}: {message}", at + 1))),
            }
        }
        if keys.is_empty() {
            return Err(fault("no key in it is one for signatures that we know".to_owned()));
        }
        for (at, key) in keys.iter().enumerate() {
            if key.kid.is_none() && keys.len() > 1 {
                return Err(fault("where there are several keys, each needs a kid".to_owned()));
            }
            if keys.iter().take(at).any(|other| other.kid == key.kid) {
                return Err(fault(format!(
                    "the kid {:?} stands twice",
                    key.kid.as_deref().unwrap_or_default()
                )));
            }
        }
        Ok(Self { keys, is_named: true })
    }

    fn of_one(key: DecodingKey, algorithm: Algorithm, rules: &Rules) -> Self {
        let key = Key { kid: None, key, validation: rules.validation(algorithm) };
        Self { keys: vec![key], is_named: false }
    }

    const fn empty() -> Self {
        Self { keys: Vec::new(), is_named: false }
    }

    /// The key for a token. One without a `kid` is judged by the only key that there is, if there is only one.
    pub(super) fn find(&self, kid: Option<&str>) -> Option<&Key> {
        match (kid, self.keys.as_slice()) {
            (Some(kid), keys) if self.is_named => keys.iter().find(|key| key.kid.as_deref() == Some(kid)),
            (_, [only]) => Some(only),
            _ => None,
        }
    }

    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        self.keys.iter().flat_map(|key| key.validation.algorithms.iter().copied()).collect()
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// One key of a set, as it is written.
struct Given(Value);

impl Given {
    fn read(value: Value) -> Result<Self, String> {
        if value.is_object() { Ok(Self(value)) } else { Err("not an object".to_owned()) }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// The key, `None` if it is none for us, or what is wrong with it.
    fn key(mut self, rules: &Rules) -> Result<Option<Key>, String> {
        if self.text("kty") == Some("oct") {
            return Err("a shared secret has no place in a set of public keys".to_owned());
        }
        if self.0.get("d").is_some() {
            return Err("a private key has no place here: write its public half".to_owned());
        }
        let Some(algorithm) = self.for_signatures().then(|| self.algorithm()).transpose()?.flatten() else {
            return Ok(None);
        };
        self.check_size()?;
        let kid = self.text("kid").map(str::to_owned);
        // We have judged it; the library knows fewer names, and would refuse the key for one that it does not.
        if let Some(members) = self.0.as_object_mut() {
            members.retain(|name, _| ["kty", "crv", "x", "y", "n", "e"].contains(&name.as_str()));
        }
        let jwk: Jwk = serde_json::from_value(self.0).map_err(|_| "a part of it is missing".to_owned())?;
        let key = DecodingKey::from_jwk(&jwk).and_then(|key| tried(key, algorithm));
        let key = key.map_err(|error| format!("not a key for {algorithm:?}: {error}"))?;
        Ok(Some(Key { kid, key, validation: rules.validation(algorithm) }))
    }

    fn for_signatures(&self) -> bool {
        let for_use = self.text("use").is_none_or(|named| named == "sig");
        let for_ops = self.0.get("key_ops").and_then(Value::as_array);
        for_use && for_ops.is_none_or(|ops| ops.iter().any(|op| op == "verify"))
    }

    /// Its one algorithm: the one that it names, if that goes with its kind, else the usual one of its kind.
    fn algorithm(&self) -> Result<Option<Algorithm>, String> {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let family: &[(&str, Algorithm)] = match (self.text("kty"), self.text("crv")) {
            (Some("RSA"), _) => &[
                ("RS256", RS256),
                ("RS384", RS384),
                ("RS512", RS512),
                ("PS256", PS256),
                ("PS384", PS384),
                ("PS512", PS512),
            ],
            (Some("EC"), Some("P-256")) => &[("ES256", ES256)],
            (Some("EC"), Some("P-384")) => &[("ES384", ES384)],
            (Some("OKP"), Some("Ed25519")) => &[("EdDSA", EdDSA)],
            _ => return Ok(None),
        };
        match self.text("alg") {
            None => Ok(family.first().map(|(_, usual)| *usual)),
            Some(named) => {
                let found = family.iter().find(|(name, _)| *name == named);
                found.map(|(_, algorithm)| Some(*algorithm)).ok_or_else(|| {
                    let known: Vec<&str> = family.iter().map(|(name, _)| *name).collect();
                    format!("alg must be one of {} for a key of this kind", known.join(", "))
                })
            }
        }
    }

    fn check_size(&self) -> Result<(), String> {
        let Some(modulus) = self.text("n") else { return Ok(()) };
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(modulus);
        let bytes = bytes.map_err(|_| "n is not base64url".to_owned())?;
        let leading = bytes.iter().take_while(|byte| **byte == 0).count();
        let bits = (bytes.len() - leading) * 8;
        if RSA_BITS.contains(&bits) {
            return Ok(());
        }
        Err(format!("an RSA key has {} to {} bits, not {bits}", RSA_BITS.start(), RSA_BITS.end()))
    }
}

/// The key, if it can judge a signature at all: one of the right family but the wrong curve shows only when it is used.
fn tried(key: DecodingKey, algorithm: Algorithm) -> Result<DecodingKey, jsonwebtoken::errors::Error> {
    jsonwebtoken::crypto::verify("", b"", &key, algorithm).map(|_| key)
}

/// What the library calls an algorithm of the settings.
#[must_use]
pub const fn algorithm(named: JwtAlgorithm) -> Algorithm {
    match named {
        JwtAlgorithm::Hs256 => Algorithm::HS256,
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Es256 => Algorithm::ES256,
        JwtAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}
