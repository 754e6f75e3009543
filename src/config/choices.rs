//! Settings that are one of a few names. `table` names the types, rooms match on them. Holds no logic but reading.

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
                    text => Err(format!("must be one of {}, not {text:?}", NAMES.join(", "))),
                }
            }
        }
    };
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

choice! {
    /// How log lines look.
    LogFormat {
        /// One readable line an event.
        Text = "text",
        /// One JSON object an event.
        Json = "json",
    }
}

/// The largest number that `many(n)` takes; `per_device` stops there, too.
const SESSIONS_MAX: u8 = 32;

/// What a second login of the same player does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginPolicy {
    /// Ends the older session, which is told 4504.
    Replace,
    /// Is refused with `session_limit`, as long as the older one is attached or within the presence grace.
    Reject,
    /// Ends the older session of the same device.
    PerDevice,
    /// Stands beside the others, so many of them.
    Many(u8),
}

impl Read for LoginPolicy {
    fn read(raw: &Raw, _: &Leaf) -> Result<Self, String> {
        let text = raw.text()?.trim();
        let many = text.strip_prefix("many(").and_then(|text| text.strip_suffix(')'));
        match (text, many.map(|most| most.trim().parse())) {
            ("replace", _) => Ok(Self::Replace),
            ("reject", _) => Ok(Self::Reject),
            ("per_device", _) => Ok(Self::PerDevice),
            (_, Some(Ok(most @ 1..=SESSIONS_MAX))) => Ok(Self::Many(most)),
            (_, Some(_)) => {
                Err(format!("many takes a number from 1 to {SESSIONS_MAX}, as in many(3), not {text:?}"))
            }
            _ => Err(format!("must be one of replace, reject, per_device, many(n), not {text:?}")),
        }
    }
}
