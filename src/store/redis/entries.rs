//! Reading what commits wrote beside the records: a player's timeline, and the events of shards. On connections of their
//! own where they are long. Called by `RedisStore` alone; writing is `commit.lua`'s.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::future::join_all;
use redis::{Cmd, Value};

use super::RedisStore;
use super::lanes::Purpose;
use super::reply::{Reply, corrupt};
use crate::ids::{PlayerId, ShardId};
use crate::store::entries::check_count;
use crate::store::{
    EVENT_SHARDS_MAX, EVENTS_PER_SHARD_MAX, EventPlace, EventsRead, ShardEvents, StoreError, StoredEvent,
    TIMELINE_MAX,
};

impl RedisStore {
    pub(super) async fn read_timeline(
        &self,
        shard: ShardId,
        player: &PlayerId,
    ) -> Result<Vec<Bytes>, StoreError> {
        let key = self.keys(shard).timeline(player).concat();
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&key).arg("+").arg("-").arg("COUNT").arg(TIMELINE_MAX);
        let mut reply = Reply::of(self.routes.query(Purpose::Reads, &key, &command).await?)?;
        let mut bodies = Vec::with_capacity(reply.len());
        while reply.len() > 0 {
            bodies.push(Entry::read(&mut reply)?.body);
        }
        bodies.reverse();
        Ok(bodies)
    }

    /// One command where one server has all shards, else one a shard, all at a time: what one of them does not answer keeps
    /// nobody from what the others did.
    pub(super) async fn read_events(
        &self,
        after: &[(ShardId, EventPlace)],
    ) -> Result<EventsRead, StoreError> {
        check_count(after.len())?;
        let keys: Vec<String> = after.iter().map(|(shard, _)| self.keys(*shard).events()).collect();
        let named: Vec<(&str, EventPlace)> =
            keys.iter().zip(after).map(|(key, (_, place))| (key.as_str(), *place)).collect();
        let each = if self.routes.is_cluster() { 1 } else { EVENT_SHARDS_MAX };
        let asked = named.chunks(each).map(async |streams| {
            let Some((key, _)) = streams.first() else { return Ok(Value::Nil) };
            self.routes.query(Purpose::Streams, key, &read_behind(streams)).await
        });
        let shards: HashMap<&str, ShardId> =
            keys.iter().zip(after).map(|(key, (shard, _))| (key.as_str(), *shard)).collect();
        let (mut read, mut refused) = (EventsRead::default(), None);
        for (answer, asked) in join_all(asked).await.into_iter().zip(after.chunks(each)) {
            match answer.and_then(|answer| events_of(answer, &shards)) {
                Ok(found) => read.found.extend(found),
                // What cannot be read is no silence that ends by itself.
                Err(error @ StoreError::Corrupt(_)) => return Err(error),
                Err(error) => {
                    read.unanswered.extend(asked.iter().map(|(shard, _)| *shard));
                    refused = Some(error);
                }
            }
        }
        refused.filter(|_| read.unanswered.len() == after.len()).map_or(Ok(read), Err)
    }

    pub(super) async fn last_events(
        &self,
        shards: &[ShardId],
    ) -> Result<Vec<Option<EventPlace>>, StoreError> {
        check_count(shards.len())?;
        let asked = shards.iter().map(async |shard| {
            let key = self.keys(*shard).events();
            let mut command = redis::cmd("XREVRANGE");
            command.arg(&key).arg("+").arg("-").arg("COUNT").arg(1);
            let mut reply = Reply::of(self.routes.query(Purpose::Streams, &key, &command).await?)?;
            if reply.len() == 0 {
                return Ok(EventPlace::START);
            }
            Ok(Entry::read(&mut reply)?.into_event()?.place)
        });
        let answers = join_all(asked).await;
        if answers.iter().any(Result::is_ok) {
            return Ok(answers.into_iter().map(Result::ok).collect());
        }
        answers.into_iter().map(|answer| answer.map(Some)).collect()
    }
}

/// What one XREAD found.
fn events_of(answer: Value, shards: &HashMap<&str, ShardId>) -> Result<Vec<ShardEvents>, StoreError> {
    let Value::Array(streams) = answer else { return Ok(Vec::new()) };
    let mut found = Vec::with_capacity(streams.len());
    for stream in streams {
        let mut stream = Reply::of(stream)?;
        let key = stream.word()?;
        let shard = *shards.get(key.as_str()).ok_or_else(|| corrupt(&key))?;
        let mut entries = stream.nested()?;
        let mut events = Vec::with_capacity(entries.len());
        while entries.len() > 0 {
            events.push(Entry::read(&mut entries)?.into_event()?);
        }
        found.push(ShardEvents { shard, events });
    }
    Ok(found)
}

fn read_behind(streams: &[(&str, EventPlace)]) -> Cmd {
    let mut command = redis::cmd("XREAD");
    command.arg("COUNT").arg(EVENTS_PER_SHARD_MAX).arg("STREAMS");
    for (key, _) in streams {
        command.arg(key);
    }
    for (_, place) in streams {
        command.arg(format!("{}-{}", place.epoch, place.number));
    }
    command
}

/// One entry of a stream: its id, and its fields `e` and, of an event, `p` and perhaps `a`.
struct Entry {
    id: String,
    body: Bytes,
    player: Option<String>,
    after: Option<u64>,
}

impl Entry {
    fn read(entries: &mut Reply) -> Result<Self, StoreError> {
        let mut entry = entries.nested()?;
        let id = entry.word()?;
        let mut fields = entry.nested()?;
        let (mut body, mut player, mut after) = (None, None, None);
        while fields.len() > 0 {
            match fields.word()?.as_str() {
                "e" => body = fields.bytes()?,
                "p" => player = Some(fields.word()?),
                "a" => after = Some(fields.number()?),
                // A later version's.
                _ => drop(fields.bytes()?),
            }
        }
        let body = body.ok_or_else(|| corrupt("an entry without a body"))?;
        Ok(Self { id, body, player, after })
    }

    fn into_event(self) -> Result<StoredEvent, StoreError> {
        let place = self.id.split_once('-').and_then(|(epoch, number)| {
            Some(EventPlace { epoch: epoch.parse().ok()?, number: number.parse().ok()? })
        });
        let place = place.ok_or_else(|| corrupt(&self.id))?;
        let player = self.player.as_deref().unwrap_or_default();
        let player = PlayerId::parse(player).map_err(|_| corrupt(player))?;
        Ok(StoredEvent { place, player, body: self.body, after: self.after })
    }
}
