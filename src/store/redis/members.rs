//! Signs of life, by `members.lua`. Called by `RedisStore`. An entry that cannot be read keeps no node that lives from
//! hearing of the others; a node does not begin beside it, for it may be in the wrong place.

use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use redis::Cmd;

use super::RedisStore;
use super::lane::Repeat;
use super::lanes::Purpose;
use super::reply::{Reply, corrupt};
use super::scripts::ttl_ms;
use crate::ids::Owner;
use crate::store::StoreError;
use crate::store::members::{Beat, Heartbeat, MEMBERS_MAX, Member, Says, Seen};

/// Between two lines about entries that cannot be read: they are seen at every heartbeat.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// When entries that cannot be read were last told of.
#[derive(Default)]
pub(super) struct Oddities(Mutex<Option<Instant>>);

impl Oddities {
    fn tell(&self, key: &str, names: &[String]) {
        let mut told = self.0.lock();
        if names.is_empty() || told.is_some_and(|told| told.elapsed() < TOLD_EVERY) {
            return;
        }
        *told = Some(Instant::now());
        tracing::warn!(
            operation = "members",
            key,
            ?names,
            "what it says of these cannot be read and is left out: is another program using this cluster.name?"
        );
    }
}

impl RedisStore {
    pub(super) async fn beat(&self, heartbeat: &Heartbeat) -> Result<Beat, StoreError> {
        let Heartbeat { member, joins, ttl } = heartbeat;
        let says = serde_json::to_string(&member.says)
            .map_err(|error| StoreError::Refused(format!("a member that cannot be written: {error}")))?;
        let verb = if *joins { "join" } else { "beat" };
        let mut reply = self.say(&member.owner, verb, *ttl, &says).await?;
        let key = self.layout.nodes();
        match reply.word()?.as_str() {
            "members" => {
                let (seen, odd) = seen(&mut reply)?;
                if let Some(name) = odd.first().filter(|_| *joins) {
                    // It has joined already: nobody shall wait for it.
                    let _ = self.bid_farewell(&member.owner).await;
                    return Err(foreign(&key, name));
                }
                self.oddities.tell(&key, &odd);
                Ok(Beat::Members(seen))
            }
            "superseded" => Ok(Beat::Superseded { by: Owner::named(&reply.word()?) }),
            "full" => Ok(Beat::Full),
            "unreadable" => {
                let name = reply.bytes()?.unwrap_or_default();
                Err(foreign(&key, &String::from_utf8_lossy(&name)))
            }
            other => Err(corrupt(other)),
        }
    }

    pub(super) async fn bid_farewell(&self, owner: &Owner) -> Result<(), StoreError> {
        self.say(owner, "leave", Duration::ZERO, "").await.map(drop)
    }

    async fn say(&self, owner: &Owner, verb: &str, ttl: Duration, says: &str) -> Result<Reply, StoreError> {
        let key = self.layout.nodes();
        let arguments = |command: &mut Cmd| {
            command.arg(&key).arg(owner.node()).arg(owner.as_str()).arg(verb).arg(ttl_ms(ttl));
            command.arg(MEMBERS_MAX).arg(says);
        };
        let call = self.scripts.members.with(&key, 1, &arguments);
        Reply::of(self.routes.eval(Purpose::Heartbeats, Repeat::Once, call).await?)
    }
}

/// Who lives, and the names of what cannot be read.
fn seen(reply: &mut Reply) -> Result<(Vec<Seen>, Vec<String>), StoreError> {
    let mut seen = Vec::with_capacity((reply.len() / 3).min(MEMBERS_MAX));
    let mut odd = Vec::new();
    while reply.len() > 0 {
        let mut bytes = || reply.bytes().map(Option::unwrap_or_default);
        let (name, age, says) = (bytes()?, bytes()?, bytes()?);
        match read(&name, &age, &says) {
            Some(member) => seen.push(member),
            None => odd.push(format!("{:.64}", String::from_utf8_lossy(&name))),
        }
    }
    Ok((seen, odd))
}

fn read(owner: &Bytes, age: &Bytes, says: &Bytes) -> Option<Seen> {
    let says: Says = serde_json::from_slice(says).ok()?;
    let age = Duration::from_millis(str::from_utf8(age).ok()?.parse().ok()?);
    let owner = Owner::named(str::from_utf8(owner).ok()?);
    Some(Seen { member: Member { owner, says }, age })
}

fn foreign(key: &str, name: &str) -> StoreError {
    StoreError::Corrupt(format!(
        "what {key} says of {name:.64} cannot be read: is another program using this cluster.name?"
    ))
}
