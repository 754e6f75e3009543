//! What a set of keys promises: which token it judges, and which set is one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::config::Settings;

const NOW: Now = Now { mono_ms: 5, unix_ms: 1_800_000_000_000 };

#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
}

/// A key pair of one kind.
struct Pair {
    algorithm: Algorithm,
    private: EncodingKey,
    public: Value,
}

impl Pair {
    fn ec(kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key pair");
        let point = pair.public_key_raw();
        let (x, y) = point[1..].split_at(32);
        Self {
            algorithm: Algorithm::ES256,
            private: EncodingKey::from_ec_der(&pair.serialize_der()),
            public: json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": BASE64.encode(x), "y": BASE64.encode(y)}),
        }
    }

    fn ed(kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key pair");
        let x = BASE64.encode(pair.public_key_raw());
        Self {
            algorithm: Algorithm::EdDSA,
            private: EncodingKey::from_ed_der(&pair.serialize_der()),
            public: json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x, "use": "sig", "alg": "EdDSA"}),
        }
    }

    fn rsa(kid: &str) -> Self {
        let path =
            [env!("CARGO_MANIFEST_DIR"), "tests", "keys", "rsa.pem"].iter().collect::<std::path::PathBuf>();
        let private = EncodingKey::from_rsa_pem(&std::fs::read(path).expect("a test key")).expect("a key");
        let public =
            jsonwebtoken::jwk::Jwk::from_encoding_key(&private, Algorithm::RS256).expect("a public key");
        let mut public = serde_json::to_value(public).expect("JSON");
        public["kid"] = json!(kid);
        Self { algorithm: Algorithm::RS256, private, public }
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.public[name] = value;
        self
    }

    fn token(&self, kid: Option<&str>) -> String {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(self.algorithm) };
        let claims = json!({"sub": "ann", "exp": NOW.unix_ms / 1_000 + 60});
        encode(&header, &claims, &self.private).expect("a token")
    }
}

struct Set {
    folder: tempfile::TempDir,
    verifier: Verifier,
}

fn open(folder: &tempfile::TempDir, text: &str) -> Result<Verifier, Fault> {
    let path = folder.path().join("keys.json");
    std::fs::write(&path, text).expect("write");
    let settings = Settings::from_toml(&format!("[auth]\njwks_file = {path:?}")).expect("good settings");
    Verifier::from_settings(&settings.auth.jwt()).map(|verifier| verifier.expect("configured"))
}

impl Set {
    fn of(pairs: &[&Pair]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let verifier = open(&folder, &text(pairs)).expect("a good set");
        Self { folder, verifier }
    }

    async fn rewrite(&self, text: &str) {
        std::fs::write(self.folder.path().join("keys.json"), text).expect("write");
        let file = self.verifier.file().expect("a file");
        file.look().await;
        file.look().await;
    }

    fn takes(&self, token: &str) -> bool {
        self.verifier.verify::<Claims>(token, NOW).is_ok_and(|claimed| claimed.claims.sub == "ann")
    }
}

fn text(pairs: &[&Pair]) -> String {
    json!({"keys": pairs.iter().map(|pair| pair.public.clone()).collect::<Vec<_>>()}).to_string()
}

#[test]
fn a_token_is_judged_by_the_key_that_it_names() {
    let (rsa, ec, ed) = (Pair::rsa("r"), Pair::ec("e"), Pair::ed("d"));
    let set = Set::of(&[&rsa, &ec, &ed]);
    for (pair, kid) in [(&rsa, "r"), (&ec, "e"), (&ed, "d")] {
        assert!(set.takes(&pair.token(Some(kid))), "{kid}");
        for wrong in [None, Some("x"), Some(""), Some("E")] {
            assert!(!set.takes(&pair.token(wrong)), "{kid} as {wrong:?}");
        }
    }
    // Each key judges its own algorithm alone.
    assert!(!set.takes(&ec.token(Some("d"))) && !set.takes(&rsa.token(Some("e"))));
    assert!(!set.takes(&Pair::ec("e").token(Some("e"))), "of the same name, but not ours");
    let secret = EncodingKey::from_secret(ec.public["x"].as_str().expect("x").as_bytes());
    let forged = Pair { algorithm: Algorithm::HS256, private: secret, public: Value::Null };
    for kid in ["r", "e", "d"] {
        assert!(!set.takes(&forged.token(Some(kid))));
        let part = |value: Value| BASE64.encode(value.to_string());
        let claims = part(json!({"sub": "ann", "exp": NOW.unix_ms / 1_000 + 60}));
        assert!(!set.takes(&format!("{}.{claims}.", part(json!({"alg": "none", "kid": kid})))));
    }
}

#[test]
fn the_only_key_needs_no_name() {
    let ec = Pair::ec("e");
    let set = Set::of(&[&ec]);
    assert!(
        set.takes(&ec.token(None)) && set.takes(&ec.token(Some("e"))) && !set.takes(&ec.token(Some("x")))
    );
}

#[tokio::test]
async fn keys_come_and_go_with_the_file() {
    let (old, new) = (Pair::ec("old"), Pair::ed("new"));
    let set = Set::of(&[&old]);
    let (of_old, of_new) = (old.token(Some("old")), new.token(Some("new")));
    assert!(set.takes(&of_old) && !set.takes(&of_new));
    set.rewrite(&text(&[&old, &new])).await;
    assert!(set.takes(&of_old) && set.takes(&of_new));
    set.rewrite(&text(&[&new])).await;
    assert!(!set.takes(&of_old) && set.takes(&of_new));
    // What is broken, or empty, changes nothing and is told.
    for broken in ["{\"keys\": [", "{\"keys\": []}", ""] {
        set.rewrite(broken).await;
        assert!(set.takes(&of_new), "{broken}");
        let fault = set.verifier.file().expect("a file").fault().expect("a fault");
        assert_eq!(fault.setting, "auth.jwks_file");
    }
    set.rewrite(&text(&[&new])).await;
    assert_eq!(set.verifier.file().expect("a file").fault(), None);
}

#[test]
fn keys_for_other_uses_and_of_unknown_kinds_are_passed_over() {
    let (ours, theirs) = (Pair::ec("ours"), Pair::ec("theirs"));
    let others = [
        Pair::ec("theirs").with("use", json!("enc")),
        Pair::ec("theirs").with("key_ops", json!(["deriveKey"])),
        Pair::ec("theirs").with("crv", json!("secp256k1")),
        Pair::ec("theirs").with("kty", json!("XYZ")),
    ];
    for other in &others {
        let set = Set::of(&[&ours.with_name("ours"), other]);
        assert!(set.takes(&ours.token(Some("ours"))) && !set.takes(&theirs.token(Some("theirs"))));
    }
}

impl Pair {
    /// The same public key under a name.
    fn with_name(&self, kid: &str) -> Self {
        let mut public = self.public.clone();
        public["kid"] = json!(kid);
        Self { algorithm: self.algorithm, private: self.private.clone(), public }
    }
}

#[test]
fn a_set_that_cannot_be_right_is_refused_by_name() {
    let nameless = || {
        let mut pair = Pair::ec("");
        pair.public.as_object_mut().expect("a map").remove("kid");
        pair
    };
    let many: Vec<Pair> = (0..101).map(|n| Pair::ed(&n.to_string())).collect();
    let many: Vec<&Pair> = many.iter().collect();
    for (set, named) in [
        (text(&[&Pair::ec("a"), &Pair::ed("a")]), "stands twice"),
        (text(&[&nameless(), &nameless()]), "needs a kid"),
        (text(&[&Pair::ec("a").with("alg", json!("HS256"))]), "alg must be one of ES256"),
        (text(&[&Pair::ec("a").with("d", json!("secret"))]), "private"),
        (text(&[&Pair::ec("a").with("kty", json!("oct"))]), "shared secret"),
        (text(&[&Pair::ec("a").with("x", json!("AAAA"))]), "key 1: not a key for ES256"),
        (text(&[&Pair::rsa("a").with("n", json!("AQAB"))]), "RSA key"),
        (text(&[&Pair::ec("a").with("use", json!("enc"))]), "no key in it"),
        (text(&many), "more than 100"),
        ("[]".to_owned(), "not a JSON Web Key Set"),
        ("{\"keys\": [1]}".to_owned(), "key 1: not an object"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let told = open(&folder, &set).expect_err("a fault").to_string();
        assert!(told.starts_with("auth.jwks_file: ") && told.contains(named), "{named} is not in {told}");
    }
}
