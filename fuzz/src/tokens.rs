//! What a `login` presents: a token, forged or signed by a login service that says strange things.

use std::sync::OnceLock;

use hearth::clock::Now;
use hearth::config::Settings;
use hearth::gate::auth::Authenticator;
use jsonwebtoken::{Algorithm, EncodingKey};

const SECRET: &str = "a secret of thirty-two bytes, ok";
const NOW: Now = Now { mono_ms: 1_000, unix_ms: 1_790_000_000_000 };

fn authenticator() -> &'static Authenticator {
    static MADE: OnceLock<Authenticator> = OnceLock::new();
    MADE.get_or_init(|| {
        let text = format!("[auth]\njwt_secret = \"{SECRET}\"\ndev_tokens = false\n");
        match Settings::from_toml(&text).map(|settings| Authenticator::from_settings(&settings)) {
            Ok(Ok(made)) => made,
            _ => panic!("these settings are good"),
        }
    })
}

/// The first byte chooses: the rest is a whole token, or claims that are signed as they are, or header and claims.
pub fn tokens(mut bytes: &[u8]) {
    let kind = super::byte(&mut bytes) % 3;
    let text = String::from_utf8_lossy(bytes);
    let token = match kind {
        0 => text.into_owned(),
        1 => signed(r#"{"alg":"HS256","typ":"JWT"}"#, &text),
        _ => {
            let (header, claims) = text.split_once('\n').unwrap_or((&text, ""));
            signed(header, claims)
        }
    };
    let Ok(identity) = authenticator().verify(&token, NOW) else { return };
    assert!(kind != 0 || is_signed(&token), "a token that was not signed is taken: {token}");
    assert!(identity.expires_at_unix_ms > NOW.unix_ms, "{identity:?}");
    assert!(!token.starts_with("dev:"), "{identity:?}");
}

fn signed(header: &str, claims: &str) -> String {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = mac(&message);
    format!("{message}.{signature}")
}

/// The kept corpus may hold a token that was signed once.
fn is_signed(token: &str) -> bool {
    token.rsplit_once('.').is_some_and(|(message, signature)| mac(message) == signature)
}

fn mac(message: &str) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    match jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256) {
        Ok(signature) => signature,
        Err(error) => panic!("HMAC takes any message: {error}"),
    }
}
