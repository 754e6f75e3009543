//! What this machine is called, for a node that was given no name. Asked once at start; a machine that does not say is
//! called `host`.

use std::path::Path;

/// Where the system says its name.
const PLACES: [&str; 2] = ["/proc/sys/kernel/hostname", "/etc/hostname"];
/// So that the port still fits into a name.
const HOST_BYTES_MAX: usize = 56;

/// The node's name: host and client port.
pub(super) fn node_name(client_port: u16) -> String {
    let said = PLACES.iter().find_map(|place| std::fs::read_to_string(Path::new(place)).ok());
    format!("{}-{client_port}", plain(&said.unwrap_or_default()))
}

/// The host's name as it may stand in a node's.
fn plain(said: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let plain = said.trim().chars().map(|c| if allowed(c) { c } else { '-' });
    let plain: String = plain.take(HOST_BYTES_MAX).collect();
    if plain.is_empty() { "host".to_owned() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_makes_a_node_whatever_it_is_called() {
        assert_eq!(plain("play-3.example.com\n"), "play-3.example.com");
        assert_eq!(plain("Zo\u{eb}'s machine#1"), "Zo--s-machine-1");
        assert_eq!(plain(" \n"), "host");
        assert_eq!(plain(&"x".repeat(300)).len(), HOST_BYTES_MAX);
        let name = node_name(7700);
        assert!(name.ends_with("-7700") && name.len() <= 64 && !name.contains('#'), "{name}");
    }
}
