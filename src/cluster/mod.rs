//! Who else is there: the live nodes of the cluster, as the store tells at every heartbeat. Called by `home`, which
//! places shards on them, and by `service`, which shows them. Knows no shard and no player.

mod members;
mod snapshot;

pub use members::{JoinError, MemberSettings, Members};
pub use snapshot::Snapshot;

pub use crate::store::{Formats, Holds, Member, Says, Seen};
