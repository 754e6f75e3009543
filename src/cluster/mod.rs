//! Who else is there, and what nodes say to each other: the live members, as the store tells at every heartbeat, and the
//! peer links between them. Called by every room that has its like on other nodes, and by `gate`, which lets them in.
//! Carries bodies that are opaque here; decides nothing about shards or players.

pub mod dial;
mod link;
mod links;
mod members;
mod meters;
pub mod pass;
mod post;
mod reach;
mod refusals;
mod snapshot;

pub use link::SUBPROTOCOL as PEER_SUBPROTOCOL;
pub use links::{CallError, Correspondent, Links};
pub use members::{JoinError, MemberSettings, Members};
pub use post::Topic;
pub use reach::Unreached;
pub use snapshot::Snapshot;

pub use crate::store::{Formats, Holds, Member, Says, Seen};
