//! Which tokens are taken, and which are not, whatever they say of themselves.

use std::path::PathBuf;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;
use crate::gate::token::{Grant, MintError, mint};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: Now = Now { mono_ms: 5, unix_ms: 1_800_000_000_000 };
const NOW_S: u64 = NOW.unix_ms / 1_000;

fn settings(auth: &str) -> Settings {
    Settings::from_toml(&format!("[auth]\n{auth}")).expect("good settings")
}

fn hs256(more: &str) -> Authenticator {
    Authenticator::from_settings(&settings(&format!("jwt_secret = \"{SECRET}\"\n{more}")))
        .expect("a good secret")
}

fn key_path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "keys", name].iter().collect()
}

fn signed(claims: &Value) -> String {
    signed_as(&Header::new(Algorithm::HS256), claims)
}

fn signed_as(header: &Header, claims: &Value) -> String {
    encode(header, claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token")
}

fn good() -> Value {
    json!({"sub": "ada", "exp": NOW_S + 3_600})
}

fn with(field: &str, value: Value) -> Value {
    let mut claims = good();
    claims[field] = value;
    claims
}

fn grant() -> Grant {
    Grant {
        player: PlayerId::parse("ada").expect("an id"),
        ttl_s: 60,
        rooms: vec!["guild:7".into()],
        kid: None,
    }
}

/// A key pair of one algorithm in files, and settings that name the public half.
struct Keys {
    folder: tempfile::TempDir,
    settings: Settings,
}

impl Keys {
    fn new(named: &str, private: &str, public: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("private.pem"), private).expect("write");
        let path = folder.path().join("public.pem");
        std::fs::write(&path, public).expect("write");
        let settings = settings(&format!("jwt_algorithm = {named:?}\njwt_key_file = {path:?}"));
        Self { folder, settings }
    }

    fn generated(named: &str, algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
        let pair = rcgen::KeyPair::generate_for(algorithm).expect("a key pair");
        Self::new(named, &pair.serialize_pem(), &pair.public_key_pem())
    }

    fn rsa() -> Self {
        let read = |name| std::fs::read_to_string(key_path(name)).expect("a test key");
        Self::new("RS256", &read("rsa.pem"), &read("rsa.pub.pem"))
    }

    fn token(&self) -> String {
        let private = self.folder.path().join("private.pem");
        mint(&self.settings, &grant(), Some(&private), NOW).expect("a token")
    }

    fn authenticator(&self) -> Authenticator {
        Authenticator::from_settings(&self.settings).expect("a good key")
    }
}

#[test]
fn a_token_of_each_algorithm_is_taken() {
    let secret = settings(&format!("jwt_secret = {SECRET:?}\njwt_algorithm = \"HS256\""));
    let token = mint(&secret, &grant(), None, NOW).expect("a token");
    let mut judged = vec![(Authenticator::from_settings(&secret).expect("a good secret"), token)];
    for keys in [
        Keys::rsa(),
        Keys::generated("ES256", &rcgen::PKCS_ECDSA_P256_SHA256),
        Keys::generated("EdDSA", &rcgen::PKCS_ED25519),
    ] {
        judged.push((keys.authenticator(), keys.token()));
    }
    for (authenticator, token) in &judged {
        let identity = authenticator.verify(token, NOW);
        assert_eq!(
            identity,
            Ok(Identity {
                player: PlayerId::parse("ada").expect("an id"),
                expires_at_unix_ms: NOW.unix_ms + 60_000 + 60_000,
                rooms: [RoomPattern::parse("guild:7").expect("a room")].into(),
                issued_at_unix_ms: NOW.unix_ms,
            }),
            "{authenticator:?}"
        );
    }
    // None takes a token of another's.
    for (at, (authenticator, _)) in judged.iter().enumerate() {
        for (_, token) in judged.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, pair)| pair) {
            assert_eq!(authenticator.verify(token, NOW), Err(AuthError::Invalid), "{authenticator:?}");
        }
    }
}

#[test]
fn a_key_of_the_same_kind_but_not_ours_signs_nothing() {
    for (named, algorithm) in [("ES256", &rcgen::PKCS_ECDSA_P256_SHA256), ("EdDSA", &rcgen::PKCS_ED25519)] {
        let (ours, theirs) = (Keys::generated(named, algorithm), Keys::generated(named, algorithm));
        assert_eq!(ours.authenticator().verify(&theirs.token(), NOW), Err(AuthError::Invalid), "{named}");
    }
    let other =
        encode(&Header::default(), &good(), &EncodingKey::from_secret(b"another secret")).expect("a token");
    assert_eq!(hs256("").verify(&other, NOW), Err(AuthError::Invalid));
}

#[test]
fn a_public_key_used_as_a_secret_signs_nothing() {
    let keys = Keys::rsa();
    for name in ["rsa.pub.pem", "rsa.pem"] {
        let pem = std::fs::read(key_path(name)).expect("a test key");
        for secret in [pem.clone(), pem.trim_ascii().to_vec()] {
            let forged = encode(&Header::new(Algorithm::HS256), &good(), &EncodingKey::from_secret(&secret));
            assert_eq!(keys.authenticator().verify(&forged.expect("a token"), NOW), Err(AuthError::Invalid));
        }
    }
}

#[test]
fn an_unsigned_token_is_not_one() {
    use base64::Engine as _;
    let part = |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let signature = signed(&good()).rsplit('.').next().expect("a signature").to_owned();
    for alg in ["none", "None", "NONE", "", "HS512", "RS256"] {
        for signature in ["", signature.as_str()] {
            let forged = format!("{}.{}.{signature}", part(json!({"alg": alg, "typ": "JWT"})), part(good()));
            assert_eq!(hs256("").verify(&forged, NOW), Err(AuthError::Invalid), "{alg:?}");
        }
    }
}

#[test]
fn what_is_not_a_token_is_refused() {
    let token = signed(&good());
    let cut = token.get(..token.len() - 1).expect("ascii");
    for text in [
        "",
        ".",
        "..",
        "a.b.c",
        "dev:",
        "dev:ada",
        "Bearer x",
        cut,
        &format!("{token}.x"),
        &format!(" {token}"),
    ] {
        assert_eq!(hs256("").verify(text, NOW), Err(AuthError::Invalid), "{text}");
    }
}

#[test]
fn times_are_judged_by_the_given_clock_with_leeway() {
    let at = |s: u64| Now { unix_ms: s * 1_000, ..NOW };
    let token = signed(&json!({"sub": "ada", "exp": NOW_S, "nbf": NOW_S - 100, "iat": NOW_S - 100}));
    let auth = hs256("");
    assert!(auth.verify(&token, at(NOW_S + 59)).is_ok());
    assert_eq!(auth.verify(&token, at(NOW_S + 60)), Err(AuthError::Expired));
    assert!(auth.verify(&token, at(NOW_S - 160)).is_ok());
    assert_eq!(auth.verify(&token, at(NOW_S - 161)), Err(AuthError::Invalid));
    let strict = hs256("leeway_ms = 0");
    assert_eq!(strict.verify(&token, at(NOW_S)), Err(AuthError::Expired));
    // A token from the future, by its issue alone.
    assert_eq!(auth.verify(&signed(&with("iat", json!(NOW_S + 61))), NOW), Err(AuthError::Invalid));
    assert_eq!(auth.verify(&signed(&with("nbf", json!(NOW_S + 61))), NOW), Err(AuthError::Invalid));
    // Fractions are allowed; nonsense is not.
    assert!(auth.verify(&signed(&with("exp", json!(NOW_S as f64 + 0.5))), NOW).is_ok());
    for nonsense in [json!(-1), json!("tomorrow"), json!(null), json!([NOW_S + 60])] {
        assert_eq!(auth.verify(&signed(&with("exp", nonsense)), NOW), Err(AuthError::Invalid));
    }
}

#[test]
fn a_token_without_an_end_is_refused() {
    assert_eq!(hs256("").verify(&signed(&json!({"sub": "ada"})), NOW), Err(AuthError::Invalid));
}

#[test]
fn the_subject_must_be_a_player() {
    for sub in [json!(""), json!("a\u{0}b"), json!("x".repeat(65)), json!(7), json!(null)] {
        assert_eq!(
            hs256("").verify(&signed(&with("sub", sub.clone())), NOW),
            Err(AuthError::Invalid),
            "{sub}"
        );
    }
    assert_eq!(hs256("").verify(&signed(&json!({"exp": NOW_S + 60})), NOW), Err(AuthError::Invalid));
    assert!(hs256("").verify(&signed(&with("sub", json!("x".repeat(64)))), NOW).is_ok());
}

#[test]
fn issuer_and_audience_must_be_the_configured_ones() {
    let auth = hs256("jwt_issuer = \"login\"\njwt_audience = \"hearth\"");
    let claims =
        |iss: Value, aud: Value| signed(&json!({"sub": "ada", "exp": NOW_S + 60, "iss": iss, "aud": aud}));
    assert!(auth.verify(&claims(json!("login"), json!("hearth")), NOW).is_ok());
    assert!(auth.verify(&claims(json!("login"), json!(["shop", "hearth"])), NOW).is_ok());
    for (iss, aud) in [
        (json!("other"), json!("hearth")),
        (json!("login"), json!("shop")),
        (json!(null), json!("hearth")),
        (json!("login"), json!(null)),
        (json!("login"), json!([])),
    ] {
        assert_eq!(
            auth.verify(&claims(iss.clone(), aud.clone()), NOW),
            Err(AuthError::Invalid),
            "{iss} {aud}"
        );
    }
    assert_eq!(auth.verify(&signed(&good()), NOW), Err(AuthError::Invalid));
    // Without a configured audience a token for somebody else is not for us.
    assert_eq!(hs256("").verify(&signed(&with("aud", json!("shop"))), NOW), Err(AuthError::Invalid));
    assert!(hs256("").verify(&signed(&with("iss", json!("anybody"))), NOW).is_ok());
}

#[test]
fn critical_extensions_are_refused() {
    let header = Header { crit: Some(vec!["exp".into()]), ..Header::new(Algorithm::HS256) };
    assert_eq!(hs256("").verify(&signed_as(&header, &good()), NOW), Err(AuthError::Invalid));
}

#[test]
fn a_token_of_a_service_is_no_players() {
    for scopes in [json!(["read"]), json!([]), json!("read")] {
        assert_eq!(hs256("").verify(&signed(&with("scopes", scopes)), NOW), Err(AuthError::Invalid));
    }
}

#[test]
fn rooms_are_optional_and_must_be_texts() {
    assert_eq!(hs256("").verify(&signed(&good()), NOW).expect("good").rooms, Box::default());
    let identity = hs256("").verify(&signed(&with("rooms", json!(["a", "b"]))), NOW).expect("good");
    assert_eq!(identity.rooms.iter().map(RoomPattern::as_str).collect::<Vec<_>>(), ["a", "b"]);
    let names: Vec<String> = (0..65).map(|n| format!("r{n}")).collect();
    for rooms in [json!([""]), json!(["x".repeat(65)]), json!(names)] {
        assert_eq!(hs256("").verify(&signed(&with("rooms", rooms)), NOW), Err(AuthError::Invalid));
    }
    assert_eq!(hs256("").verify(&signed(&with("rooms", json!("a"))), NOW), Err(AuthError::Invalid));
    let few = hs256("token_rooms_max = 1");
    assert!(few.verify(&signed(&with("rooms", json!(["a"]))), NOW).is_ok());
    assert_eq!(few.verify(&signed(&with("rooms", json!(["a", "b"]))), NOW), Err(AuthError::Invalid));
}

#[test]
fn development_tokens_name_any_player_and_only_where_they_are_on() {
    let on = Authenticator::from_settings(&settings("")).expect("no key");
    let identity = on.verify("dev:ada:b", NOW).expect("a development token");
    assert_eq!(identity.player.as_str(), "ada:b");
    assert_eq!(identity.expires_at_unix_ms, NOW.unix_ms + 86_400_000);
    for bad in ["dev:", "dev:a\u{7}", "ada", "DEV:ada"] {
        assert_eq!(on.verify(bad, NOW), Err(AuthError::Invalid), "{bad:?}");
    }
    let off = Authenticator::from_settings(&settings("dev_tokens = false")).expect("no key");
    assert_eq!(off.verify("dev:ada", NOW), Err(AuthError::Invalid));
    let beside_a_key = hs256("dev_tokens = true");
    assert!(beside_a_key.verify("dev:ada", NOW).is_ok());
    assert!(beside_a_key.verify(&signed(&good()), NOW).is_ok());
}

#[test]
fn a_bad_key_file_is_a_fault_at_start() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key pair");
    let wrong_curve = Keys::new("ES256", &pair.serialize_pem(), &pair.public_key_pem());
    let rsa = std::fs::read_to_string(key_path("rsa.pub.pem")).expect("a test key");
    for keys in [
        wrong_curve,
        Keys::new("ES256", "", &rsa),
        Keys::new("EdDSA", "", &rsa),
        Keys::new("RS256", "", "not PEM"),
    ] {
        let told = Authenticator::from_settings(&keys.settings).expect_err("a fault").to_string();
        assert!(told.contains("holds no public key for"), "{told}");
    }
    let nowhere = settings("jwt_algorithm = \"RS256\"\njwt_key_file = \"/nowhere/key.pem\"");
    let told = Authenticator::from_settings(&nowhere).expect_err("a fault").to_string();
    assert!(told.starts_with("auth.jwt_key_file: cannot read /nowhere/key.pem: "), "{told}");
}

#[test]
fn minting_says_what_it_needs() {
    let development = mint(&settings(""), &grant(), None, NOW).expect("a development token");
    assert_eq!(development, "dev:ada");
    assert!(matches!(mint(&settings("dev_tokens = false"), &grant(), None, NOW), Err(MintError::NoKey)));
    let keys = Keys::rsa();
    assert!(matches!(mint(&keys.settings, &grant(), None, NOW), Err(MintError::NoPrivateKey)));
    let public = key_path("rsa.pub.pem");
    assert!(matches!(mint(&keys.settings, &grant(), Some(&public), NOW), Err(MintError::Key { .. })));
}
