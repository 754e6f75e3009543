//! The settings of one kind of JWT, players' or services': the same names in two sections. `jwt` makes a verifier of
//! them; here is what must hold between them. Pure.

use std::path::Path;
use std::time::Duration;

use super::choices::JwtAlgorithm;
use super::sources::Reader;
use super::table::{Auth, ServiceAuth, Settings};
use super::values::Secret;

/// HS256 wants a secret as long as its hash (RFC 7518, section 3.2).
pub(super) const SECRET_BYTES_MIN: usize = 32;

/// How JWTs of one kind are judged.
#[derive(Debug, Clone, Copy)]
pub struct Jwt<'a> {
    section: &'static str,
    named: Option<JwtAlgorithm>,
    /// The shared secret.
    pub secret: Option<&'a Secret>,
    /// One public key.
    pub key_file: Option<&'a Path>,
    /// Several of them.
    pub jwks_file: Option<&'a Path>,
    /// The `iss` asked for.
    pub issuer: Option<&'a str>,
    /// The `aud` asked for.
    pub audience: Option<&'a str>,
    /// How far clocks may lie apart.
    pub leeway: Duration,
}

impl Auth {
    /// How players' JWTs are judged.
    #[must_use]
    pub fn jwt(&self) -> Jwt<'_> {
        Jwt {
            section: "auth",
            named: self.jwt_algorithm,
            secret: self.jwt_secret.as_ref(),
            key_file: self.jwt_key_file.as_deref(),
            jwks_file: self.jwks_file.as_deref(),
            issuer: self.jwt_issuer.as_deref(),
            audience: self.jwt_audience.as_deref(),
            leeway: self.leeway,
        }
    }
}

impl ServiceAuth {
    /// How services' JWTs are judged. Clocks may lie as far apart as those of players' issuers.
    #[must_use]
    pub fn jwt(&self, auth: &Auth) -> Jwt<'_> {
        Jwt {
            section: "service",
            named: self.jwt_algorithm,
            secret: self.jwt_secret.as_ref(),
            key_file: self.jwt_key_file.as_deref(),
            jwks_file: self.jwks_file.as_deref(),
            issuer: self.jwt_issuer.as_deref(),
            audience: self.jwt_audience.as_deref(),
            leeway: auth.leeway,
        }
    }
}

impl Jwt<'_> {
    /// A setting of this kind, by its whole name.
    #[must_use]
    pub fn setting(&self, name: &str) -> String {
        format!("{}.{name}", self.section)
    }

    /// The one algorithm of a secret or a single key.
    #[must_use]
    pub fn algorithm(&self) -> JwtAlgorithm {
        self.named.unwrap_or(JwtAlgorithm::Hs256)
    }

    /// Whether there is anything to judge with.
    #[must_use]
    pub const fn has_key(&self) -> bool {
        self.secret.is_some() || self.key_file.is_some() || self.jwks_file.is_some()
    }

    /// Notes every broken relation within one kind.
    fn check(&self, loopback: bool, reader: &mut Reader) {
        let [algorithm, secret, key_file, jwks_file] =
            ["jwt_algorithm", "jwt_secret", "jwt_key_file", "jwks_file"].map(|name| self.setting(name));
        let (algorithm, secret, key_file, jwks_file) = (&*algorithm, &*secret, &*key_file, &*jwks_file);
        let symmetric = matches!(self.named, None | Some(JwtAlgorithm::Hs256));
        let given = [self.secret.is_some(), self.key_file.is_some(), self.jwks_file.is_some()];
        if given.into_iter().filter(|given| *given).count() > 1 {
            let told = format!("{secret}, {key_file} and {jwks_file} exclude each other");
            reader.relation(&[secret, key_file, jwks_file], &told);
        } else if self.jwks_file.is_some() && self.named.is_some() {
            let told = format!("does not go with {jwks_file}: there each key has its own");
            reader.relation(&[algorithm, jwks_file], &told);
        } else if self.secret.is_some() && !symmetric {
            let told = format!("goes with {key_file} (a public key); {secret} goes with HS256");
            reader.relation(&[algorithm, secret], &told);
        } else if self.key_file.is_some() && symmetric {
            let told = format!("must be RS256, ES256 or EdDSA with {key_file}; HS256 goes with {secret}");
            reader.relation(&[algorithm, key_file], &told);
        } else if self.named.is_some() && !self.has_key() {
            let told = format!("has no key: set {secret} (HS256) or {key_file} (the others)");
            reader.relation(&[algorithm, secret, key_file], &told);
        }
        if self.secret.is_some_and(|secret| secret.expose().len() < SECRET_BYTES_MIN) && !loopback {
            let told = format!("must be at least {SECRET_BYTES_MIN} bytes long on any address but loopback");
            reader.relation(&[secret, "client_addr"], &told);
        }
    }
}

/// Notes every broken relation. Who can sign for players must not be able to sign for services.
pub(super) fn check(settings: &Settings, reader: &mut Reader) {
    let (players, services) = (settings.auth.jwt(), settings.service.jwt(&settings.auth));
    players.check(settings.is_on_loopback(), reader);
    services
        .check(settings.is_on_loopback() && settings.service_addr.ip().to_canonical().is_loopback(), reader);
    let same = |one: Option<&Path>, other: Option<&Path>| one.is_some() && one == other;
    let same_secret = players.secret.is_some() && players.secret == services.secret;
    let same_file = same(players.key_file, services.key_file) || same(players.jwks_file, services.jwks_file);
    let told_apart = match (players.audience, services.audience) {
        (Some(of_players), Some(of_services)) => of_players != of_services,
        _ => false,
    };
    if same_secret {
        reader.relation(
            &["service.jwt_secret", "auth.jwt_secret"],
            "must not be auth.jwt_secret: whoever signs for players could sign for services",
        );
    } else if same_file && !told_apart {
        reader.relation(
            &["service.jwt_audience", "auth.jwt_audience"],
            "with keys that sign for players, too, auth.jwt_audience and service.jwt_audience must be set and differ",
        );
    }
}
