//! The filter of players ever seen, as Redis keeps it: two bitmaps and what the shard's meta says of them. Redis may lose a
//! bitmap alone, where its policy is to evict: then nobody is to be denied, and what shows it is the mark that the lost
//! one had.

use bytes::Bytes;

use super::RedisStore;
use crate::ids::ShardId;
use crate::store::layout::ShardKeys;
use crate::store::{Bits, Filter, StoreError, StoredFilter};

impl RedisStore {
    pub(super) async fn filter(&self, shard: ShardId) -> Result<StoredFilter, StoreError> {
        let keys = self.keys(shard);
        // First when it was begun: should it be rotated in between, that one is taken for older than it is, and the store
        // knows better.
        let (meta, mut begun) = (keys.meta(), redis::cmd("HMGET"));
        begun.arg(&meta).arg("known_at").arg("known_ttl").arg("known_ttl_old").arg("f");
        let mut begun = self.read(&meta, &begun).await?;
        let mut number = || Ok::<_, StoreError>(begun.bytes()?.as_deref().and_then(decimal));
        let (since_unix_ms, keeps_ms, old_keeps_ms, flushes) = (number()?, number()?, number()?, number()?);
        let mut bitmaps = redis::cmd("MGET");
        bitmaps.arg(keys.known()).arg(keys.known_old());
        let mut bitmaps = self.read(&meta, &bitmaps).await?;
        let (current, old) = (bitmaps.bytes()?, bitmaps.bytes()?);
        let is_begun = current.as_deref().is_some_and(Bits::is_marked);
        let has_none = flushes.unwrap_or(0) == 0 && current.is_none() && old.is_none();
        let is_whole = if has_none { self.is_bare(&keys).await? } else { is_begun && old.is_some() };
        let bits = |bitmap: Option<Bytes>| Bits::of_bitmap(bitmap.as_deref().unwrap_or_default());
        Ok(StoredFilter {
            filter: Filter::of(bits(current), bits(old)),
            is_whole,
            is_begun,
            since_unix_ms,
            keeps_ms: keeps_ms.unwrap_or(0),
            old_keeps_ms: old_keeps_ms.unwrap_or(0),
        })
    }

    /// Whether nobody was ever written in a shard: where the meta is lost, too, its other keys tell.
    async fn is_bare(&self, keys: &ShardKeys) -> Result<bool, StoreError> {
        let (events, mut others) = (keys.events(), redis::cmd("EXISTS"));
        others.arg(&events).arg(keys.expiry()).arg(keys.bans());
        Ok(self.read(&events, &others).await?.number()? == 0)
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
