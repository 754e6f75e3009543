//! A client who asks at a node that is not her home: told where it is, or carried there. A home known wrongly is looked
//! for once more; past that she is told to come again. Called by `handshake`; nobody is sent on from the peer port.

use protocol::ErrorCode;
use protocol::reply::{ErrorBody, Redirect};

use super::handshake::{Asks, Door, NotIn};
use super::listener::Gate;
use super::relay::Way;
use crate::cluster::Member;
use crate::cluster::dial::NoWay;
use crate::ids::ShardId;
use crate::session::EnterError;
use crate::session::Whereabouts;

/// When to come again if the home was found and cannot be reached.
const RETRY_MS: u64 = 500;

/// `Ok` if this node is the shard's home.
pub(super) async fn way(gate: &Gate, shard: ShardId, asks: &Asks) -> Result<(), NotIn> {
    let mut last = None;
    for is_second in [false, true] {
        if is_second {
            gate.sessions.forget_whereabouts(shard).await;
        }
        let member = match gate.sessions.whereabouts(shard).await {
            Whereabouts::Here => return Ok(()),
            Whereabouts::Nowhere { retry_after_ms } => return Err(not_home(retry_after_ms)),
            Whereabouts::At(member) => member,
        };
        if asks.door == Door::Peers {
            continue;
        }
        if !asks.relay {
            return Err(NotIn::Elsewhere(Redirect {
                url: member.says.url.clone(),
                node: member.owner.node().to_owned(),
            }));
        }
        match open(gate, shard, &member, asks).await {
            Ok(way) => return Err(NotIn::Onward(way)),
            Err(error) => last = Some((member, error)),
        }
    }
    if let Some((member, error)) = last {
        // One a client: that a live node cannot be reached is told once, by the links to it.
        tracing::debug!(operation = "relay", shard = shard.number(), to = %member.owner, status = %error);
    }
    Err(not_home(RETRY_MS))
}

async fn open(gate: &Gate, shard: ShardId, member: &Member, asks: &Asks) -> Result<Way, NoWay> {
    Way::open(&gate.peers, member, shard, asks.encoding, asks.ip).await
}

fn not_home(retry_after_ms: u64) -> NotIn {
    let body = ErrorBody::new(ErrorCode::NotHome, "the home of this player cannot answer now");
    NotIn::Refused(EnterError { body: body.after(retry_after_ms), close: None })
}
