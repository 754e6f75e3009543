//! Blobs of players on Redis: the scripts' wrappers, their only callers, and how a blob stands in its string. All that is a
//! player's shares her shard's tag. Called by `RedisStore`.

use bytes::Bytes;
use redis::Cmd;

use super::RedisStore;
use super::lane::Repeat;
use super::lanes::Purpose;
use super::reply::{Reply, corrupt};
use super::scripts::write_arg;
use crate::ids::{BlobName, PlayerId, ShardId};
use crate::store::blobs::{BLOB_BYTES_MAX, CONTENT_TYPE_BYTES_MAX};
use crate::store::{
    Blob, BlobKey, BlobPut, BlobRemoved, BlobTag, BlobUse, BlobWritten, Precondition, StoreError, Tags,
};

/// Before the content type: 32 hex digits of tag, two of its length.
const HEAD_BYTES: usize = 34;
const TAG_BYTES: usize = 32;
/// A blob of which nobody knows yet how large it is.
const ANY_BLOB: Purpose = Purpose::Blobs { bytes: BLOB_BYTES_MAX };
/// None, but on the same way: what is removed must not come back with a write that was sent before.
const NO_BLOB: Purpose = Purpose::Blobs { bytes: 0 };
/// How often what a player has is looked at while she is erased: others may write meanwhile.
const ERASE_ROUNDS: usize = 8;

impl RedisStore {
    /// Not sent twice: the second one might find its own work in the place of what it is to replace.
    pub(super) async fn put_blob(&self, put: &BlobPut) -> Result<BlobWritten, StoreError> {
        let BlobPut { key, blob, precondition, quota } = put;
        if blob.body.len() > BLOB_BYTES_MAX || blob.content_type.len() > CONTENT_TYPE_BYTES_MAX {
            return Err(StoreError::Refused(format!("a blob has at most {BLOB_BYTES_MAX} bytes")));
        }
        let (sizes, string) = self.blob_keys(key);
        let arguments = |command: &mut Cmd| {
            command.arg(&sizes).arg(&string).arg(key.name.as_str());
            write_arg(command, |arg| {
                write!(arg, "{:032x}{:02x}{}", blob.tag.bits(), blob.content_type.len(), blob.content_type)?;
                arg.write_all(&blob.body)
            });
            command.arg(blob.body.len());
            write_precondition(command, precondition);
            command.arg(quota.bytes_max).arg(quota.count_max);
        };
        let call = self.scripts.blob_put.with(&sizes, 2, &arguments);
        let mut reply = Reply::of(
            self.routes.eval(Purpose::Blobs { bytes: blob.body.len() }, Repeat::Never, call).await?,
        )?;
        match reply.word()?.as_str() {
            "made" => Ok(BlobWritten::Made),
            "replaced" => Ok(BlobWritten::Replaced),
            "unmet" => Ok(BlobWritten::Unmet { stored: tag_if_any(&reply.word()?)? }),
            "full" => Ok(BlobWritten::Full(BlobUse { bytes: reply.number()?, count: reply.number()? })),
            other => Err(corrupt(other)),
        }
    }

    pub(super) async fn read_blob(&self, key: &BlobKey) -> Result<Option<Blob>, StoreError> {
        let string = self.blob_keys(key).1;
        // A whole list, so that nothing there is a reply, too.
        let mut command = redis::cmd("MGET");
        command.arg(&string);
        let mut reply = Reply::of(self.routes.query(ANY_BLOB, &string, &command).await?)?;
        let read = |stored: &Bytes| {
            blob_of(stored).ok_or_else(|| StoreError::Corrupt("a blob without tag and type".into()))
        };
        reply.bytes()?.as_ref().map(read).transpose()
    }

    /// Not sent twice: the second one would find it missing.
    pub(super) async fn remove_blob(
        &self,
        key: &BlobKey,
        precondition: &Precondition,
    ) -> Result<BlobRemoved, StoreError> {
        let (sizes, string) = self.blob_keys(key);
        let arguments = |command: &mut Cmd| {
            command.arg(&sizes).arg(&string).arg(key.name.as_str());
            write_precondition(command, precondition);
        };
        let call = self.scripts.blob_remove.with(&sizes, 2, &arguments);
        let mut reply = Reply::of(self.routes.eval(NO_BLOB, Repeat::Never, call).await?)?;
        match reply.word()?.as_str() {
            "removed" => Ok(BlobRemoved::Removed),
            "missing" => Ok(BlobRemoved::Missing),
            "unmet" => match tag_if_any(&reply.word()?)? {
                Some(stored) => Ok(BlobRemoved::Unmet { stored }),
                None => Err(corrupt("a tag")),
            },
            other => Err(corrupt(other)),
        }
    }

    pub(super) async fn erase_blobs(&self, shard: ShardId, player: &PlayerId) -> Result<(), StoreError> {
        let keys = self.keys(shard);
        let sizes = keys.blob_sizes(player);
        for _ in 0..ERASE_ROUNDS {
            let mut command = redis::cmd("HKEYS");
            command.arg(&sizes);
            let mut reply = Reply::of(self.routes.query(NO_BLOB, &sizes, &command).await?)?;
            let mut names = Vec::with_capacity(reply.len());
            while reply.len() > 0 {
                let name = reply.word()?;
                names.push(BlobName::parse(&name).map_err(|_| corrupt(&name))?);
            }
            if names.is_empty() {
                return Ok(());
            }
            let arguments = |command: &mut Cmd| {
                command.arg(&sizes);
                for name in &names {
                    command.arg(keys.blob(player, name));
                }
                for name in &names {
                    command.arg(name.as_str());
                }
            };
            let call = self.scripts.blobs_erase.with(&sizes, 1 + names.len(), &arguments);
            let mut left = Reply::of(self.routes.eval(NO_BLOB, Repeat::Once, call).await?)?;
            if left.number()? == 0 {
                return Ok(());
            }
        }
        Err(StoreError::Refused("others write this player's blobs as fast as they are erased".into()))
    }

    /// Where the sizes are, and the blob.
    fn blob_keys(&self, BlobKey { shard, player, name }: &BlobKey) -> (String, String) {
        let keys = self.keys(*shard);
        (keys.blob_sizes(player), keys.blob(player, name))
    }
}

/// Both parts of a precondition, as `blob_put.lua` and `blob_remove.lua` read them.
fn write_precondition(command: &mut Cmd, precondition: &Precondition) {
    for tags in [&precondition.is, &precondition.is_not] {
        match tags {
            None => command.arg(""),
            Some(Tags::Any) => command.arg("*"),
            // Something that names nothing, where there is nothing to name.
            Some(Tags::These(tags)) if tags.is_empty() => command.arg("-"),
            Some(Tags::These(tags)) => {
                let tags: Vec<_> = tags.iter().map(|tag| format!("{:032x}", tag.bits())).collect();
                command.arg(tags.join(","))
            }
        };
    }
}

fn tag_if_any(text: &str) -> Result<Option<BlobTag>, StoreError> {
    if text.is_empty() {
        return Ok(None);
    }
    let bits = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == TAG_BYTES);
    bits.map(|bits| Some(BlobTag::of(bits))).ok_or_else(|| corrupt(text))
}

/// A stored blob; its body shares the string's memory. `None` if it is none of ours.
fn blob_of(stored: &Bytes) -> Option<Blob> {
    let text = |from: usize, to: usize| std::str::from_utf8(stored.get(from..to)?).ok();
    let tag = BlobTag::of(u128::from_str_radix(text(0, TAG_BYTES)?, 16).ok()?);
    let body_at = HEAD_BYTES + usize::from(u8::from_str_radix(text(TAG_BYTES, HEAD_BYTES)?, 16).ok()?);
    let content_type = text(HEAD_BYTES, body_at)?.into();
    Some(Blob { tag, content_type, body: stored.slice(body_at..) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_blob_of_ours_is_not_read_as_one() {
        let tag = "0".repeat(TAG_BYTES);
        let read = |text: String| blob_of(&Bytes::from(text));
        let blob = read(format!("{tag}03a/bbody")).unwrap();
        assert_eq!((&*blob.content_type, &blob.body[..]), ("a/b", &b"body"[..]));
        assert_eq!(read(format!("{tag}03a/b")).unwrap().body.len(), 0);
        for broken in ["", &tag, &format!("{tag}zz"), &format!("{tag}04a/b"), &"g".repeat(40)] {
            assert!(read(broken.to_owned()).is_none(), "{broken}");
        }
    }
}
