//! Tickets: `n` and HMAC-SHA256(cluster ticket secret, session, n), as URL-safe text. Pure. What `n` a resume may
//! present is the record's to judge; here is only what is genuine. RFC 2104 for the MAC.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::ids::SessionId;

/// Makes and checks tickets.
#[derive(Clone)]
pub struct TicketKey {
    keyed: Hmac<Sha256>,
}

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketKey(***)")
    }
}

impl TicketKey {
    /// The key of a cluster; `None` when the secret is shorter than 16 bytes.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Option<Self> {
        if secret.len() < 16 {
            return None;
        }
        Hmac::new_from_slice(secret).ok().map(|keyed| Self { keyed })
    }

    /// The ticket of a session with this number.
    #[must_use]
    pub fn sign(&self, session: SessionId, n: u64) -> String {
        let mut bytes = Vec::with_capacity(40);
        bytes.extend_from_slice(&n.to_be_bytes());
        bytes.extend_from_slice(&self.mac(session, n).finalize().into_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The number of a genuine ticket of this session; compared in constant time.
    #[must_use]
    pub fn open(&self, session: SessionId, ticket: &str) -> Option<u64> {
        let bytes = URL_SAFE_NO_PAD.decode(ticket).ok()?;
        let (n, mac) = bytes.split_first_chunk::<8>()?;
        let n = u64::from_be_bytes(*n);
        self.mac(session, n).verify_slice(mac).ok()?;
        Some(n)
    }

    fn mac(&self, session: SessionId, n: u64) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(session.as_bytes());
        mac.update(&n.to_be_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    #[test]
    fn a_ticket_opens_for_its_session_only() {
        let key = TicketKey::from_secret(&[7; 32]).unwrap();
        let (ann, bob) = (SessionId::generate(ShardId::FIRST, 1), SessionId::generate(ShardId::FIRST, 1));
        let ticket = key.sign(ann, 3);
        assert_eq!(key.open(ann, &ticket), Some(3));
        assert_eq!(key.open(bob, &ticket), None);
        assert_eq!(TicketKey::from_secret(&[8; 32]).unwrap().open(ann, &ticket), None);
        for forged in ["", "AAAA", &ticket[..ticket.len() - 2], &format!("{ticket}AA")] {
            assert_eq!(key.open(ann, forged), None);
        }
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert!(TicketKey::from_secret(&[7; 15]).is_none());
    }
}
