//! The doors of a server of several nodes, and which of them is the wrong one: where a player is not at home. Knows of
//! homes what anybody may know: the nodes by name, and the house's own placement of shards on them.

use hearth::home::placement::{Placement, node_of};
use hearth::ids::{PlayerId, RoomName, SessionId, ShardId};
use serde_json::Value;

/// The nodes of a cluster. With so many shards ann, bea and cem, of whom most stories tell, are each at home at another.
pub(crate) const NODES: [&str; 3] = ["west", "east", "south"];
/// Few: each is a lease to be taken and given back, which is most of what starting and stopping costs.
pub(crate) const SHARDS: u16 = 16;

/// How a client at the wrong node comes to her home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// She is told where it is, and goes there.
    Redirected,
    /// She is carried there.
    Relayed,
}

/// Where clients and services come in at one node.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) node: &'static str,
    pub(crate) url: String,
    pub(crate) service_url: String,
}

/// The doors of all nodes, each of which takes its part of the shards.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    all: Vec<Door>,
    placement: Placement,
    way: Way,
}

impl Doors {
    pub(crate) fn new(all: Vec<Door>, shards: u16, way: Way) -> Self {
        Self { all, placement: Placement::of(shards).unwrap(), way }
    }

    pub(crate) const fn way(&self) -> Way {
        self.way
    }

    /// Where this shard is not at home.
    pub(crate) fn wrong_for(&self, shard: ShardId) -> &Door {
        let nodes = self.all.iter().map(|door| door.node);
        let home = node_of(shard, nodes.clone()).unwrap();
        let at = nodes.clone().position(|node| node == home).unwrap();
        &self.all[(at + 1) % self.all.len()]
    }

    /// Whether this shard is at home behind that door.
    pub(crate) fn is_home(&self, shard: ShardId, url: &str) -> bool {
        let home = node_of(shard, self.all.iter().map(|door| door.node));
        self.all.iter().any(|door| door.url == url && Some(door.node) == home)
    }

    /// The shard of a player, if she is one.
    pub(crate) fn shard_of(&self, player: &str) -> Option<ShardId> {
        PlayerId::parse(player).ok().map(|player| self.placement.shard_of(&player))
    }

    /// A player of each shard.
    pub(crate) fn one_of_each_shard(&self) -> Vec<String> {
        let of = |shard| {
            let mut names = (0..).map(|number| format!("nobody-{number}"));
            names.find(|name| self.shard_of(name) == Some(shard)).unwrap()
        };
        self.placement.all().map(of).collect()
    }

    /// The shard of whoever says this first: `login` or `resume`. `None` if it names nobody.
    pub(crate) fn shard_of_first(&self, op: &str, body: &Value) -> Option<ShardId> {
        match op {
            "login" => self.shard_of(&player_of(body["token"].as_str()?)?),
            "resume" => SessionId::parse(body["session"].as_str()?).ok().map(|session| session.shard()),
            _ => None,
        }
    }

    /// The shard that a call of a service is about: of a player, a session or a room. `None` if it is about none.
    pub(crate) fn shard_of_call(&self, path: &str, body: Option<&Value>) -> Option<ShardId> {
        let path = path.split('?').next()?;
        let mut parts = path.trim_start_matches('/').split('/').skip(1);
        match (parts.next()?, parts.next()) {
            ("players", Some(player)) => self.shard_of(player),
            ("rooms", Some(room)) => {
                RoomName::parse(room).ok().map(|room| self.placement.shard_of_room(&room))
            }
            ("sessions", Some(session)) => SessionId::parse(session).ok().map(|session| session.shard()),
            ("sessions", None) => self.shard_of(body?["player"].as_str()?),
            _ => None,
        }
    }
}

/// Whom a token is for, good or not.
fn player_of(token: &str) -> Option<String> {
    if let Some(player) = token.strip_prefix("dev:") {
        return Some(player.to_owned());
    }
    let claims: Value = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
    Some(claims["sub"].as_str()?.to_owned())
}

#[test]
fn ann_bea_and_cem_are_at_home_at_three_nodes() {
    let placement = Placement::of(SHARDS).unwrap();
    let home = |player| node_of(placement.shard_of(&PlayerId::parse(player).unwrap()), NODES).unwrap();
    assert_eq!(["cem", "ann", "bea"].map(home), NODES);
}
