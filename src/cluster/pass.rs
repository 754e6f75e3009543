//! What one node shows another to be let in at the peer port: who it is, whom it means, what it wants, and a MAC over
//! all of it that only members of the cluster can make (HMAC-SHA256, RFC 2104). Pure;
//! `dial` makes it, `gate` checks it. A pass is good for a minute, for one node and one purpose. It can be shown again in
//! that minute: whoever copies one from the wire gains what it asked for and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// How far the clocks of two nodes may be apart, and how old a pass may be.
const LEEWAY_MS: u64 = 60_000;
/// Separates the MAC's use here from every other use of the same secret.
const PURPOSE: &[u8] = b"hearth peer pass 1";
/// What is signed for a mark; no pass begins so.
const MARK: &[u8] = b"mark";

/// The key that members of a cluster share.
#[derive(Clone)]
pub struct ClusterKey {
    keyed: Hmac<Sha256>,
}

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey(***)")
    }
}

/// Why a pass is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PassError {
    /// Not made with this cluster's key, or for something else.
    #[error("the pass was not made by a member of this cluster, or for something else")]
    Forged,
    /// Made too long ago, or by a node whose clock is wrong.
    #[error("the pass is not of this minute: do the nodes' clocks agree?")]
    Stale,
}

impl ClusterKey {
    /// The key that follows from the cluster's secret, which all members read from the store; `None` for a secret shorter
    /// than 16 bytes.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Option<Self> {
        if secret.len() < 16 {
            return None;
        }
        let mut derived = Hmac::<Sha256>::new_from_slice(secret).ok()?;
        derived.update(PURPOSE);
        Hmac::new_from_slice(&derived.finalize().into_bytes()).ok().map(|keyed| Self { keyed })
    }

    /// What texts of this cluster are told by from those of any other. No secret, and nothing to prove anything with.
    #[must_use]
    pub fn mark(&self) -> u32 {
        let mut keyed = self.keyed.clone();
        keyed.update(MARK);
        let mac = keyed.finalize().into_bytes();
        mac.iter().take(4).fold(0, |mark, byte| mark << 8 | u32::from(*byte))
    }

    /// A pass for these words: who asks, who is asked, and for what.
    #[must_use]
    pub fn sign(&self, words: &[&str], now_unix_ms: u64) -> String {
        let nonce: [u8; 12] = rand::random();
        let (when, nonce) = (now_unix_ms.to_string(), URL_SAFE_NO_PAD.encode(nonce));
        let mac = self.mac(words, &when, &nonce).finalize().into_bytes();
        format!("{when}.{nonce}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    /// Whether a pass is one for these words; compared in constant time.
    ///
    /// # Errors
    /// [`PassError`].
    pub fn check(&self, pass: &str, words: &[&str], now_unix_ms: u64) -> Result<(), PassError> {
        let mut parts = pass.splitn(3, '.');
        let (Some(when), Some(nonce), Some(mac)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(PassError::Forged);
        };
        let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| PassError::Forged)?;
        self.mac(words, when, nonce).verify_slice(&mac).map_err(|_| PassError::Forged)?;
        let when: u64 = when.parse().map_err(|_| PassError::Forged)?;
        if when.abs_diff(now_unix_ms) > LEEWAY_MS { Err(PassError::Stale) } else { Ok(()) }
    }

    /// Every part with its length, so that no two lists of words look alike.
    fn mac(&self, words: &[&str], when: &str, nonce: &str) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        for part in words.iter().copied().chain([when, nonce]) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    #[test]
    fn a_cluster_has_one_mark_and_another_has_another() {
        let [one, again, other] = [7, 7, 8].map(|byte| ClusterKey::from_secret(&[byte; 32]).unwrap().mark());
        assert_eq!(one, again);
        assert_ne!(one, other);
    }

    #[test]
    fn a_pass_is_good_for_its_words_its_cluster_and_its_minute() {
        let key = ClusterKey::from_secret(&[7; 32]).unwrap();
        let words = ["a#1", "b#2", "/v1/relay", "17"];
        let pass = key.sign(&words, NOW);
        assert!(pass.len() < 100);
        assert_eq!(key.check(&pass, &words, NOW + 59_000), Ok(()));
        assert_eq!(key.check(&pass, &words, NOW - 59_000), Ok(()));
        assert_eq!(key.check(&pass, &words, NOW + 61_000), Err(PassError::Stale));
        for others in [["b#2", "a#1", "/v1/relay", "17"], ["a#1", "b#2", "/v1/relay", "18"]] {
            assert_eq!(key.check(&pass, &others, NOW), Err(PassError::Forged));
        }
        assert_eq!(key.check(&pass, &["a#1b", "#2", "/v1/relay", "17"], NOW), Err(PassError::Forged));
        let stranger = ClusterKey::from_secret(&[8; 32]).unwrap();
        assert_eq!(stranger.check(&pass, &words, NOW), Err(PassError::Forged));
    }

    #[test]
    fn a_pass_that_was_touched_is_forged() {
        let key = ClusterKey::from_secret(&[7; 32]).unwrap();
        let pass = key.sign(&["a"], NOW);
        for at in 0..pass.len() {
            let mut bytes = pass.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let touched = String::from_utf8(bytes).unwrap();
            // The last character of base64 carries two bits that count for nothing.
            assert!(key.check(&touched, &["a"], NOW).is_err() || at + 1 == pass.len(), "{touched}");
        }
        for broken in ["", ".", "..", "1.2", "x.y.z"] {
            assert_eq!(key.check(broken, &["a"], NOW), Err(PassError::Forged));
        }
        assert!(ClusterKey::from_secret(&[7; 15]).is_none());
    }
}
