//! Settings that are one of a few names. `table` names the types, rooms match on them. Holds no logic.

use super::table::Leaf;
use super::values::{Raw, Read};

macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// The name used in the settings.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl Read for $name {
            fn read(raw: &Raw, _: &Leaf) -> Result<Self, String> {
                const NAMES: &[&str] = &[$($text),*];
                let text = match raw {
                    Raw::Truth(true) => "true",
                    Raw::Truth(false) => "false",
                    raw => raw.text()?,
                };
                match text {
                    $($text => Ok(Self::$variant),)*
                    text => Err(Self::refusal(text)
                        .unwrap_or_else(|| format!("must be one of {}, not {text:?}", NAMES.join(", ")))),
                }
            }
        }
    };
}

/// What a choice says to a name that it does not take, where "one of …" would not help.
trait Refusal {
    fn refusal(_text: &str) -> Option<String> {
        None
    }
}

choice! {
    /// Whether `dev:<player>` tokens are taken.
    DevTokens {
        /// Only while no JWT key is configured and clients connect over loopback.
        Auto = "auto",
        /// Yes; refused on any address but loopback.
        On = "true",
        /// No.
        Off = "false",
    }
}
impl Refusal for DevTokens {}

choice! {
    /// How a JWT is signed; exactly one is taken.
    JwtAlgorithm {
        /// HMAC with SHA-256 over a shared secret.
        Hs256 = "HS256",
        /// RSA PKCS#1 v1.5 with SHA-256.
        Rs256 = "RS256",
        /// ECDSA over P-256 with SHA-256.
        Es256 = "ES256",
        /// Ed25519.
        EdDsa = "EdDSA",
    }
}
impl Refusal for JwtAlgorithm {}

choice! {
    /// What a second login of the same player does.
    LoginPolicy {
        /// Ends the older session, which is told 4504.
        Replace = "replace",
        /// Is refused with `session_limit`, as long as the older one is attached or within the presence grace.
        Reject = "reject",
    }
}
impl Refusal for LoginPolicy {
    fn refusal(text: &str) -> Option<String> {
        (text == "per_device" || text.starts_with("many"))
            .then(|| format!("{text:?} is not built into this version yet: use replace or reject"))
    }
}

choice! {
    /// How log lines look.
    LogFormat {
        /// One readable line an event.
        Text = "text",
        /// One JSON object an event.
        Json = "json",
    }
}
impl Refusal for LogFormat {}
