//! Whether a process is the node whose name it was given: by the ports at which it listens, as Linux tells them in `/proc`. Reads
//! only; asked once, before anything is broken.

use std::collections::{BTreeMap, BTreeSet};

/// The state of a socket that listens, in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// What the ports of a process say of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sameness {
    /// It listens where that node does.
    Same,
    /// It listens where another one does.
    Other {
        /// Which.
        node: String,
        /// At which port.
        port: u16,
    },
    /// Nobody can tell, for this reason.
    Unknown(&'static str),
}

/// Looks at a process. `ports` are those of each node, as it is called from here.
pub(super) fn looked_at(pid: i32, name: &str, ports: &BTreeMap<String, BTreeSet<u16>>) -> Sameness {
    let net = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net"));
    match (net("self"), net(&pid.to_string())) {
        (Ok(own), Ok(its)) if own == its => {}
        // Ports of another namespace are called otherwise here.
        (Ok(_), Ok(_)) => return Sameness::Unknown("it is in a network of its own, as in a container"),
        _ => return Sameness::Unknown("the system does not tell its sockets"),
    }
    let Some(inodes) = sockets(pid) else {
        return Sameness::Unknown("the system does not tell its sockets");
    };
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")));
    let tables = tables.into_iter().filter_map(Result::ok).collect::<String>();
    judge(name, &listening(&tables, &inodes), ports)
}

/// The numbers of its sockets; none where they are another user's.
fn sockets(pid: i32) -> Option<BTreeSet<u64>> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let links = descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.ok()?.path()).ok());
    let inode =
        |link: std::path::PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    Some(links.filter_map(inode).collect())
}

/// The ports at which one of these sockets listens.
fn listening(tables: &str, inodes: &BTreeSet<u64>) -> BTreeSet<u16> {
    let port = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?.parse().ok()?);
        let port = u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok()?;
        (*state == LISTENS && inodes.contains(&inode)).then_some(port)
    };
    tables.lines().filter_map(port).collect()
}

/// A node may have its ports in common with nodes of other machines: whoever listens at one of its own is taken for it.
fn judge(name: &str, listens: &BTreeSet<u16>, ports: &BTreeMap<String, BTreeSet<u16>>) -> Sameness {
    let common = |node: &str| ports.get(node).and_then(|ports| ports.intersection(listens).next().copied());
    if common(name).is_some() {
        return Sameness::Same;
    }
    let other = ports.keys().find_map(|node| common(node).map(|port| (node.clone(), port)));
    match other {
        Some((node, port)) => Sameness::Other { node, port },
        None => Sameness::Unknown("it listens at no port at which a node is called"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
         0: 0100007F:1E78 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 111 1 x 100 0 0 10 0\n\
         1: 0100007F:1E7B 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 222 1 x 100 0 0 10 0\n\
         2: 0100007F:1E78 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000 0 333 1 x 20 4 30 10 -1\n\
         0: 00000000000000000000000000000000:1E79 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 1000 0 444 1 x\n";

    fn ports() -> BTreeMap<String, BTreeSet<u16>> {
        let node = |name: &str, ports: [u16; 2]| (name.to_owned(), BTreeSet::from(ports));
        BTreeMap::from([node("a", [7_800, 7_801]), node("b", [7_803, 7_804])])
    }

    #[test]
    fn only_a_sockets_own_listening_ports_count() {
        assert_eq!(listening(TABLE, &BTreeSet::from([111, 333, 444])), BTreeSet::from([7_800, 7_801]));
        assert!(listening(TABLE, &BTreeSet::from([333])).is_empty());
    }

    #[test]
    fn who_listens_where_another_node_does_is_that_one() {
        let judged = |name, listens: &[u16]| judge(name, &listens.iter().copied().collect(), &ports());
        assert_eq!(judged("a", &[7_800]), Sameness::Same);
        assert_eq!(judged("a", &[7_804]), Sameness::Other { node: "b".into(), port: 7_804 });
        // Nodes of several machines are called at the same ports.
        assert_eq!(judged("a", &[7_801, 7_803]), Sameness::Same);
        assert!(matches!(judged("a", &[6_379]), Sameness::Unknown(_)));
    }

    #[test]
    fn this_very_process_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ports = BTreeSet::from([listener.local_addr().unwrap().port()]);
        let me = i32::try_from(std::process::id()).unwrap();
        let ports = BTreeMap::from([("me".to_owned(), ports)]);
        assert_eq!(looked_at(me, "me", &ports), Sameness::Same);
        assert!(matches!(looked_at(me, "you", &ports), Sameness::Other { node, .. } if node == "me"));
    }
}
