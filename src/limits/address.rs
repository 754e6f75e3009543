//! What counts as one address: limits count by it, and operators are told by it who is refused. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 address, or the /64 of an IPv6 address, which is what one customer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Address {
    /// All of it.
    V4(u32),
    /// The upper half.
    V6(u64),
}

impl Address {
    /// Whichever way the socket names it.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Self::V6(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

impl fmt::Display for Address {
    /// As firewalls take it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(bits) => Ipv4Addr::from_bits(*bits).fmt(f),
            // Not to be shut out with all of it: this machine.
            Self::V6(0) => f.write_str("::1"),
            Self::V6(upper) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*upper) << 64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_as_it_is_counted() {
        let told = |ip: &str| Address::of(ip.parse().unwrap()).to_string();
        assert_eq!(told("203.0.113.7"), "203.0.113.7");
        assert_eq!(told("::ffff:203.0.113.7"), "203.0.113.7");
        assert_eq!(told("2001:db8:0:1:ffff::2"), "2001:db8:0:1::/64");
        assert_eq!(told("::1"), "::1");
    }
}
