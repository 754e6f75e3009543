//! The tables of players' blobs, and what is done to them inside a transaction that the writer owns. What a rule needs to
//! know stands beside the bodies, so that none is read to judge. Never commits and never reads a clock.

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use crate::ids::{PlayerId, ShardId};
use crate::store::{
    Blob, BlobKey, BlobPut, BlobRemoved, BlobTag, BlobUse, BlobWritten, Precondition, StoreError,
};

/// Shard, player and name to tag, content type and body.
const BLOBS: TableDefinition<'static, BlobKeyRow, BlobRow> = TableDefinition::new("blobs");
/// The same to tag and bytes of the body.
const SIZES: TableDefinition<'static, BlobKeyRow, (u128, u64)> = TableDefinition::new("blob_sizes");

type BlobKeyRow = (u16, &'static str, &'static str);
type BlobRow = (u128, &'static str, &'static [u8]);

/// Makes the tables that a file does not have yet.
pub(super) fn make(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(BLOBS)?;
    txn.open_table(SIZES)?;
    Ok(())
}

/// Writes a blob; and whether it did.
pub(super) fn put(txn: &WriteTransaction, put: &BlobPut) -> Result<(BlobWritten, bool), redb::Error> {
    let BlobPut { key, blob, precondition, quota } = put;
    let (shard, player, name) = (key.shard.number(), key.player.as_str(), key.name.as_str());
    let mut sizes = txn.open_table(SIZES)?;
    let stored = sizes.get((shard, player, name))?.map(|row| row.value());
    let tag = stored.map(|(tag, _)| BlobTag::of(tag));
    if !precondition.holds(tag) {
        return Ok((BlobWritten::Unmet { stored: tag }, false));
    }
    let mut has = BlobUse::default();
    for row in sizes.range((shard, player, "")..)? {
        let (key, row) = row?;
        if (key.value().0, key.value().1) != (shard, player) {
            break;
        }
        has = BlobUse { bytes: has.bytes.saturating_add(row.value().1), count: has.count + 1 };
    }
    let bytes = u64::try_from(blob.body.len()).unwrap_or(u64::MAX);
    let (after, may_be) = has.with(bytes, stored.map(|(_, bytes)| bytes), *quota);
    if !may_be {
        return Ok((BlobWritten::Full(after), false));
    }
    sizes.insert((shard, player, name), (blob.tag.bits(), bytes))?;
    let row = (blob.tag.bits(), &*blob.content_type, &blob.body[..]);
    txn.open_table(BLOBS)?.insert((shard, player, name), row)?;
    Ok((if stored.is_some() { BlobWritten::Replaced } else { BlobWritten::Made }, true))
}

/// Removes a blob; and whether it did.
pub(super) fn remove(
    txn: &WriteTransaction,
    key: &BlobKey,
    precondition: &Precondition,
) -> Result<(BlobRemoved, bool), redb::Error> {
    let key = (key.shard.number(), key.player.as_str(), key.name.as_str());
    let mut sizes = txn.open_table(SIZES)?;
    let stored = sizes.get(key)?.map(|row| BlobTag::of(row.value().0));
    let Some(stored) = stored else { return Ok((BlobRemoved::Missing, false)) };
    if !precondition.holds(Some(stored)) {
        return Ok((BlobRemoved::Unmet { stored }, false));
    }
    sizes.remove(key)?;
    txn.open_table(BLOBS)?.remove(key)?;
    Ok((BlobRemoved::Removed, true))
}

/// Removes all of a player's; whether there were any.
pub(super) fn erase(txn: &WriteTransaction, shard: ShardId, player: &PlayerId) -> Result<bool, redb::Error> {
    let (shard, player) = (shard.number(), player.as_str());
    let (mut sizes, mut blobs) = (txn.open_table(SIZES)?, txn.open_table(BLOBS)?);
    let mut names = Vec::new();
    for row in sizes.range((shard, player, "")..)? {
        let (key, _) = row?;
        let (of_shard, of_player, name) = key.value();
        if (of_shard, of_player) != (shard, player) {
            break;
        }
        names.push(name.to_owned());
    }
    for name in &names {
        sizes.remove((shard, player, name.as_str()))?;
        blobs.remove((shard, player, name.as_str()))?;
    }
    Ok(!names.is_empty())
}

/// A blob.
pub(super) fn read(txn: &ReadTransaction, key: &BlobKey) -> Result<Option<Blob>, redb::Error> {
    let table = txn.open_table(BLOBS)?;
    let row = table.get((key.shard.number(), key.player.as_str(), key.name.as_str()))?;
    Ok(row.map(|row| {
        let (tag, content_type, body) = row.value();
        Blob { tag: BlobTag::of(tag), content_type: content_type.into(), body: Bytes::copy_from_slice(body) }
    }))
}

/// One that is larger than may be, which nobody asks for.
pub(super) fn too_large() -> StoreError {
    StoreError::Refused(format!("a blob has at most {} bytes", crate::store::blobs::BLOB_BYTES_MAX))
}
