//! Signs of life, by `members.lua`. Called by `RedisStore`.

use std::time::Duration;

use redis::Cmd;

use super::RedisStore;
use super::lane::Repeat;
use super::lanes::Purpose;
use super::reply::{Reply, corrupt};
use super::scripts::ttl_ms;
use crate::ids::Owner;
use crate::store::StoreError;
use crate::store::members::{Beat, Heartbeat, MEMBERS_MAX, Member, Says, Seen};

impl RedisStore {
    pub(super) async fn beat(&self, heartbeat: &Heartbeat) -> Result<Beat, StoreError> {
        let Heartbeat { member, joins, ttl } = heartbeat;
        let says = serde_json::to_string(&member.says)
            .map_err(|error| StoreError::Refused(format!("a member that cannot be written: {error}")))?;
        self.members(&member.owner, if *joins { "join" } else { "beat" }, *ttl, &says).await
    }

    pub(super) async fn bid_farewell(&self, owner: &Owner) -> Result<(), StoreError> {
        self.members(owner, "leave", Duration::ZERO, "").await.map(drop)
    }

    async fn members(
        &self,
        owner: &Owner,
        verb: &str,
        ttl: Duration,
        says: &str,
    ) -> Result<Beat, StoreError> {
        let key = self.layout.nodes();
        let arguments = |command: &mut Cmd| {
            command.arg(&key).arg(owner.node()).arg(owner.as_str()).arg(verb).arg(ttl_ms(ttl));
            command.arg(MEMBERS_MAX).arg(says);
        };
        let call = self.scripts.members.with(&key, 1, &arguments);
        let mut reply = Reply::of(self.routes.eval(Purpose::Leases, Repeat::Once, call).await?)?;
        match reply.word()?.as_str() {
            "members" => seen(&mut reply, &key).map(Beat::Members),
            "superseded" => Ok(Beat::Superseded { by: Owner::named(&reply.word()?) }),
            "full" => Ok(Beat::Full),
            "unreadable" => Err(foreign(&key, &reply.word()?)),
            other => Err(corrupt(other)),
        }
    }
}

fn seen(reply: &mut Reply, key: &str) -> Result<Vec<Seen>, StoreError> {
    let mut seen = Vec::with_capacity((reply.len() / 3).min(MEMBERS_MAX));
    while reply.len() > 0 {
        let owner = Owner::named(&reply.word()?);
        let age = Duration::from_millis(reply.number()?);
        let says: Says = serde_json::from_str(&reply.word()?).map_err(|_| foreign(key, owner.node()))?;
        seen.push(Seen { member: Member { owner, says }, age });
    }
    Ok(seen)
}

fn foreign(key: &str, name: &str) -> StoreError {
    StoreError::Corrupt(format!(
        "what {key} says of {name:.64} cannot be read: is another program using this cluster.name?"
    ))
}
