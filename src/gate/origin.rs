//! Which web pages may connect. A browser sends cookies and reaches loopback on behalf of any page, and says which
//! one only in `Origin`; the upgrade asks here. Pure.

use crate::config::{AllowedOrigin, Settings};

/// The allow-list, made once.
#[derive(Debug, Clone)]
pub struct OriginPolicy {
    allowed: Vec<AllowedOrigin>,
    loopback: bool,
}

impl OriginPolicy {
    /// Takes the list from the settings.
    #[must_use]
    pub fn from_settings(settings: &Settings) -> Self {
        Self { allowed: settings.auth.origins_allowed.clone(), loopback: settings.is_on_loopback() }
    }

    /// Whether a request with this `Origin` header may be upgraded; `None` where it has no such header, which is
    /// never a browser. The `Host` header is not asked: a page whose name was pointed at our address has the same one.
    #[must_use]
    pub fn allows(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if self.allowed.is_empty() {
            return self.loopback && is_loopback_page(origin);
        }
        self.allowed.iter().any(|allowed| match allowed {
            AllowedOrigin::Any => true,
            AllowedOrigin::Exact(allowed) => allowed.eq_ignore_ascii_case(origin),
        })
    }
}

fn is_loopback_page(origin: &str) -> bool {
    let Some((_, rest)) = origin.split_once("://") else { return false };
    let host = match rest.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => rest.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(toml: &str) -> OriginPolicy {
        OriginPolicy::from_settings(&Settings::from_toml(toml).expect("good settings"))
    }

    #[test]
    fn native_clients_always_pass() {
        for toml in ["", "client_addr = \"0.0.0.0:1\"", "[auth]\norigins_allowed = [\"https://a.example\"]"] {
            assert!(policy(toml).allows(None), "{toml}");
        }
    }

    #[test]
    fn on_loopback_pages_from_loopback_pass_and_no_others() {
        let policy = policy("");
        for origin in ["http://localhost:8000", "http://127.0.0.1", "https://[::1]:3000", "http://LOCALHOST"]
        {
            assert!(policy.allows(Some(origin)), "{origin}");
        }
        for origin in [
            "https://evil.example",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "http://evil.example:80",
            "null",
            "",
            "localhost",
        ] {
            assert!(!policy.allows(Some(origin)), "{origin}");
        }
    }

    #[test]
    fn elsewhere_an_empty_list_refuses_every_page() {
        let policy = policy("client_addr = \"0.0.0.0:7700\"");
        assert!(!policy.allows(Some("http://localhost:8000")));
        assert!(!policy.allows(Some("https://game.example.com")));
    }

    #[test]
    fn a_list_is_exact() {
        let policy =
            policy("[auth]\norigins_allowed = [\"https://Game.example.com:443\", \"http://localhost:80\"]");
        assert!(policy.allows(Some("https://game.example.com")));
        assert!(policy.allows(Some("http://localhost")));
        for origin in
            ["http://game.example.com", "https://game.example.com:8443", "https://a.game.example.com", "null"]
        {
            assert!(!policy.allows(Some(origin)), "{origin}");
        }
    }

    #[test]
    fn a_star_takes_all() {
        assert!(policy("[auth]\norigins_allowed = [\"*\"]").allows(Some("https://anywhere.example")));
    }
}
