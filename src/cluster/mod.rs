//! Who else is there: the live nodes of the cluster, as the store tells at every heartbeat. Called by `home`, which
//! places shards on them, and by `service`, which shows them. Knows no shard and no player.

pub mod dial;
mod link;
mod links;
mod members;
pub mod pass;
mod post;
mod snapshot;

pub use link::SUBPROTOCOL as PEER_SUBPROTOCOL;
pub use links::{CallError, Correspondent, Links};
pub use members::{JoinError, MemberSettings, Members};
pub use post::Topic;
pub use snapshot::Snapshot;

pub use crate::store::{Formats, Holds, Member, Says, Seen};
