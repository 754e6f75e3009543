//! Blobs of players: what is asked and answered, what a tag is, and the rules as pure functions. The embedded store runs on
//! them; `blob_put.lua` and `blob_remove.lua` say the same and are compared with them. Never writes.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::ids::{BlobName, PlayerId, ShardId};

/// Most bytes of a blob that a store takes.
pub const BLOB_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of a blob's content type.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// What is stored, in 128 bits: the head of a SHA-256 over content type and body. Two blobs with one tag are the same, byte
/// for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlobTag(u128);

impl BlobTag {
    /// The tag with these bits.
    #[must_use]
    pub const fn of(bits: u128) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }

    fn of_content(content_type: &str, body: &[u8]) -> Self {
        let mut hash = Sha256::new();
        // No content type holds a NUL, so that none runs together with a body.
        hash.update(content_type.as_bytes());
        hash.update([0]);
        hash.update(body);
        Self(hash.finalize().iter().take(16).fold(0, |bits, byte| bits << 8 | u128::from(*byte)))
    }
}

/// A blob with its tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// What it is, in short.
    pub tag: BlobTag,
    /// As its writer said.
    pub content_type: Arc<str>,
    /// The content.
    pub body: Bytes,
}

impl Blob {
    /// A blob of this content. Hashes all of it: a large one takes milliseconds.
    #[must_use]
    pub fn new(content_type: &str, body: Bytes) -> Self {
        Self { tag: BlobTag::of_content(content_type, &body), content_type: Arc::from(content_type), body }
    }
}

/// Which blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobKey {
    /// The player's shard, by which the store places what is hers.
    pub shard: ShardId,
    /// Whose.
    pub player: PlayerId,
    /// Its name among hers.
    pub name: BlobName,
}

/// Tags that a caller names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tags {
    /// Of whatever is stored.
    Any,
    /// These.
    These(Vec<BlobTag>),
}

impl Tags {
    fn name(&self, stored: Option<BlobTag>) -> bool {
        stored.is_some_and(|stored| match self {
            Self::Any => true,
            Self::These(tags) => tags.contains(&stored),
        })
    }
}

/// What must be stored, or must not be, for a change to be made (RFC 9110, sections 13.1.1 and 13.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Precondition {
    /// One of these must be.
    pub is: Option<Tags>,
    /// None of these may be.
    pub is_not: Option<Tags>,
}

impl Precondition {
    /// Whether it holds of what is stored.
    #[must_use]
    pub fn holds(&self, stored: Option<BlobTag>) -> bool {
        self.is.as_ref().is_none_or(|tags| tags.name(stored))
            && !self.is_not.as_ref().is_some_and(|tags| tags.name(stored))
    }
}

/// What the blobs of one player may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobQuota {
    /// Bytes of all bodies.
    pub bytes_max: u64,
    /// How many.
    pub count_max: u64,
}

/// What the blobs of one player come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlobUse {
    /// Bytes of all bodies.
    pub bytes: u64,
    /// How many.
    pub count: u64,
}

impl BlobUse {
    /// What they would come to with one of this many bytes in the place of another one, or beside the others; and whether
    /// that may be: what shrinks, or stays as large, always may.
    #[must_use]
    pub fn with(self, bytes: u64, in_place_of: Option<u64>, quota: BlobQuota) -> (Self, bool) {
        let before = in_place_of.unwrap_or(0);
        let after = Self {
            bytes: self.bytes.saturating_sub(before).saturating_add(bytes),
            count: self.count.saturating_add(u64::from(in_place_of.is_none())),
        };
        let has_room = after.count <= quota.count_max || in_place_of.is_some();
        (after, has_room && (after.bytes <= quota.bytes_max || in_place_of.is_some() && bytes <= before))
    }
}

/// Writes a blob.
#[derive(Debug, Clone)]
pub struct BlobPut {
    /// Where.
    pub key: BlobKey,
    /// What; at most [`BLOB_BYTES_MAX`] bytes.
    pub blob: Blob,
    /// In the place of what.
    pub precondition: Precondition,
    /// Within what.
    pub quota: BlobQuota,
}

/// The answer to [`super::Store::blob_put`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobWritten {
    /// There was none of that name.
    Made,
    /// There was one.
    Replaced,
    /// The precondition does not hold; nothing was written.
    Unmet {
        /// What is stored.
        stored: Option<BlobTag>,
    },
    /// The player's quota would be passed; nothing was written.
    Full(BlobUse),
}

/// The answer to [`super::Store::blob_remove`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobRemoved {
    /// It is gone.
    Removed,
    /// There was none.
    Missing,
    /// The precondition does not hold; nothing was removed.
    Unmet {
        /// What is stored.
        stored: BlobTag,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_tells_contents_and_their_types_apart_and_stays_as_it_is() {
        let tag =
            |content_type: &str, body: &'static [u8]| Blob::new(content_type, Bytes::from_static(body)).tag;
        // Golden: callers keep tags.
        assert_eq!(format!("{:032x}", tag("text/plain", b"hi").bits()), GOLDEN);
        assert_ne!(tag("text/plain", b"hi"), tag("text/html", b"hi"));
        assert_ne!(tag("a", b"bc"), tag("ab", b"c"));
        assert_eq!(tag("a", b""), tag("a", b""));
    }

    const GOLDEN: &str = "43fc6a37d37c97d488d05dae28689cb8";

    #[test]
    fn a_precondition_is_judged_as_the_rfc_says() {
        let (one, two) = (BlobTag::of(1), BlobTag::of(2));
        let these = |tags: &[BlobTag]| Some(Tags::These(tags.to_vec()));
        for (is, is_not, stored, holds) in [
            (None, None, None, true),
            (None, None, Some(one), true),
            (Some(Tags::Any), None, None, false),
            (Some(Tags::Any), None, Some(one), true),
            (None, Some(Tags::Any), None, true),
            (None, Some(Tags::Any), Some(one), false),
            (these(&[one, two]), None, Some(two), true),
            (these(&[one]), None, Some(two), false),
            (these(&[one]), None, None, false),
            (these(&[]), None, Some(one), false),
            (None, these(&[one]), Some(two), true),
            (None, these(&[one]), Some(one), false),
            (these(&[one]), these(&[one]), Some(one), false),
        ] {
            let precondition = Precondition { is, is_not };
            assert_eq!(precondition.holds(stored), holds, "{precondition:?} {stored:?}");
        }
    }

    #[test]
    fn a_quota_bounds_what_grows() {
        let quota = BlobQuota { bytes_max: 10, count_max: 2 };
        let have = |bytes, count| BlobUse { bytes, count };
        for (before, bytes, in_place_of, may) in [
            (have(0, 0), 10, None, true),
            (have(0, 0), 11, None, false),
            (have(6, 1), 4, None, true),
            (have(6, 1), 5, None, false),
            (have(2, 2), 1, None, false),
            (have(2, 2), 9, Some(1), true),
            (have(2, 2), 10, Some(1), false),
            // Of a quota that was lowered.
            (have(30, 5), 7, Some(8), true),
            (have(30, 5), 8, Some(8), true),
            (have(30, 5), 9, Some(8), false),
            (have(3, 2), 0, None, false),
        ] {
            assert_eq!(before.with(bytes, in_place_of, quota).1, may, "{before:?} {bytes} {in_place_of:?}");
        }
        assert_eq!(have(6, 2).with(5, Some(4), quota).0, have(7, 2));
    }
}
