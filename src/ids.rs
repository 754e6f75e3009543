//! The house's nouns as types: every id and counter is its own type, so none can stand in for another.
//! Called by every room; knows none. Never holds policy: what a stamp *means* across epochs is `home::history`.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// Longest player id, in bytes of UTF-8.
pub const PLAYER_ID_BYTES_MAX: usize = 64;
/// Longest name of a room, in bytes of UTF-8.
pub const ROOM_NAME_BYTES_MAX: usize = 64;
/// Longest name of a blob, in bytes.
pub const BLOB_NAME_BYTES_MAX: usize = 64;
/// Longest name of a lock or a counter, in bytes of UTF-8.
pub const KEY_NAME_BYTES_MAX: usize = 64;
/// Most shards a cluster can have: the shard's number fills the 12 `rand_a` bits of a session id.
pub const SHARDS_MAX: u16 = 4096;

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A player id has at least one byte.
    #[error("a player id must not be empty")]
    Empty,
    /// A player id has at most [`PLAYER_ID_BYTES_MAX`] bytes.
    #[error("a player id has at most 64 bytes")]
    TooLong,
    /// A player id carries no control characters (Unicode category Cc).
    #[error("a player id must not carry control characters")]
    Control,
    /// Not a UUIDv7 in its hyphenated form.
    #[error("not a session id")]
    NotASession,
}

/// The studio's account id: UTF-8, 1 to 64 bytes, no control characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlayerId(Arc<str>);

impl PlayerId {
    /// Checks and takes an id.
    ///
    /// # Errors
    /// [`IdError`] names the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        match text {
            "" => Err(IdError::Empty),
            text if text.len() > PLAYER_ID_BYTES_MAX => Err(IdError::TooLong),
            text if text.chars().any(char::is_control) => Err(IdError::Control),
            text => Ok(Self(Arc::from(text))),
        }
    }

    /// The id as the studio wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for PlayerId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PlayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PlayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

/// Why a text names no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a room's name has 1 to 64 bytes and no control characters")]
pub struct RoomNameError;

/// The name of a room: UTF-8, 1 to 64 bytes, no control characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

impl RoomName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`RoomNameError`].
    pub fn parse(text: &str) -> Result<Self, RoomNameError> {
        let fits = (1..=ROOM_NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if fits { Ok(Self(Arc::from(text))) } else { Err(RoomNameError) }
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

/// Why a text names no lock and no counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a lock or a counter has 1 to 64 bytes, no control characters, and is not all dots")]
pub struct KeyNameError;

/// What game services call a lock or a counter: UTF-8, 1 to 64 bytes, no control characters, not all dots, which stand for
/// other places in a path. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(Arc<str>);

impl KeyName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`KeyNameError`].
    pub fn parse(text: &str) -> Result<Self, KeyNameError> {
        let fits = (1..=KEY_NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        let is_plain = fits && text.chars().any(|c| c != '.');
        if is_plain { Ok(Self(Arc::from(text))) } else { Err(KeyNameError) }
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

/// Why a text names no blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a blob is 1 to 64 of the characters a-z A-Z 0-9 . _ - and not all dots")]
pub struct BlobNameError;

/// The name of a blob of a player: 1 to 64 of `a-z A-Z 0-9 . _ -`, not all dots. So it stands in any path as it is, and a
/// player's id before it is told from it by the last colon. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobName(Arc<str>);

impl BlobName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`BlobNameError`].
    pub fn parse(text: &str) -> Result<Self, BlobNameError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let fits = (1..=BLOB_NAME_BYTES_MAX).contains(&text.len()) && text.chars().all(plain);
        if fits && text.chars().any(|c| c != '.') { Ok(Self(Arc::from(text))) } else { Err(BlobNameError) }
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

/// Rooms that a right opens: one by its name, or with a `*` at the end all whose names begin so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomPattern(Box<str>);

impl RoomPattern {
    /// Checks and takes a pattern.
    ///
    /// # Errors
    /// [`RoomNameError`]: it could open no room.
    pub fn parse(text: &str) -> Result<Self, RoomNameError> {
        RoomName::parse(text).map(|_| Self(text.into()))
    }

    /// Opens every room.
    #[must_use]
    pub fn all() -> Self {
        Self("*".into())
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it opens this room.
    #[must_use]
    pub fn opens(&self, room: &RoomName) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => room.as_str().starts_with(prefix),
            None => *self.0 == *room.0,
        }
    }
}

/// One of the fixed number of partitions of all players.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(u16);

impl ShardId {
    /// The shard with this number; `None` at and above [`SHARDS_MAX`].
    #[must_use]
    pub const fn numbered(number: u16) -> Option<Self> {
        if number < SHARDS_MAX { Some(Self(number)) } else { None }
    }

    /// The first of every cluster.
    pub const FIRST: Self = Self(0);

    /// Its number, from 0.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One login of one player on one device: a UUIDv7 (RFC 9562) whose 12 `rand_a` bits are the shard's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Uuid);

impl SessionId {
    /// A new id for a session of `shard`, made at `unix_ms`.
    #[must_use]
    pub fn generate(shard: ShardId, unix_ms: u64) -> Self {
        let mut random: [u8; 10] = rand::random();
        // rand_a: the low nibble of the first byte and the second byte, after the version nibble.
        let [high, low] = shard.0.to_be_bytes();
        let [first, second, ..] = &mut random;
        *first = high & 0x0f;
        *second = low;
        Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
    }

    /// Reads the hyphenated form.
    ///
    /// # Errors
    /// [`IdError::NotASession`] for anything but a UUID of version 7.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        match Uuid::try_parse(text) {
            Ok(uuid) if uuid.get_version_num() == 7 => Ok(Self(uuid)),
            _ => Err(IdError::NotASession),
        }
    }

    /// Takes the id from its 16 bytes, as it is stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes that are stored and signed.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The shard that the id carries.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        let [_, _, _, _, _, _, high, low, ..] = *self.0.as_bytes();
        ShardId(u16::from_be_bytes([high & 0x0f, low]))
    }

    /// When it was made, Unix ms by the clock of its home.
    #[must_use]
    pub fn made_unix_ms(&self) -> u64 {
        let [a, b, c, d, e, f, ..] = *self.0.as_bytes();
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who holds a lease: `node_id#boot_id`, so that a restarted process is a different owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(Arc<str>);

impl Owner {
    /// A node in this boot, with a fresh random boot id.
    #[must_use]
    pub fn boot(node_id: &str) -> Self {
        Self(Arc::from(format!("{node_id}#{:016x}", rand::random::<u64>())))
    }

    /// An owner as the store names it.
    #[must_use]
    pub fn named(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The node, whichever its boot.
    #[must_use]
    pub fn node(&self) -> &str {
        self.0.rsplit_once('#').map_or(&*self.0, |(node, _)| node)
    }

    /// The boot, whichever its node; empty if it names none.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        self.0.rsplit_once('#').map_or("", |(_, boot)| boot)
    }

    /// `node_id#boot_id`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(u64);

        impl $name {
            /// Before the first.
            pub const ZERO: Self = Self(0);

            /// As read from the store or the wire.
            #[must_use]
            pub const fn of(number: u64) -> Self {
                Self(number)
            }

            /// As written to the store or the wire.
            #[must_use]
            pub const fn number(self) -> u64 {
                self.0
            }

            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// The number of a lease's grant: grows with each grant of a shard, below 2^53 (Lua's doubles).
    Epoch
}
counter! {
    /// A player record's count of accepted changes.
    Version
}
counter! {
    /// The number of a shard's batch: +1 per batch sent, never sent twice in an epoch.
    FlushSeq
}
counter! {
    /// Written when a shard's meta is first made: another one means that the store was emptied or replaced. The time from
    /// which on the store, or the home that wrote it anew, knows what became of the shard (Unix ms), and 22 random bits.
    Generation
}

impl Generation {
    const RANDOM_BITS: u32 = 22;
    const RANDOM_MASK: u64 = (1 << Self::RANDOM_BITS) - 1;

    /// That of a shard of which nothing is known.
    #[must_use]
    pub fn founded(unix_ms: u64) -> Self {
        Self((unix_ms << Self::RANDOM_BITS) | (rand::random::<u64>() & Self::RANDOM_MASK))
    }

    /// Another one for whoever remembers what there was under this one.
    #[must_use]
    pub fn anew(self) -> Self {
        let step = rand::random_range(1..=Self::RANDOM_MASK);
        Self((self.0 & !Self::RANDOM_MASK) | (self.0.wrapping_add(step) & Self::RANDOM_MASK))
    }

    /// From when on it is known what became of the shard, Unix ms by the clock of the home that founded it.
    #[must_use]
    pub const fn founded_unix_ms(self) -> u64 {
        self.0 >> Self::RANDOM_BITS
    }
}

/// Where a player's record stood: the read-your-writes token. Deliberately not ordered: `home::history` judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Stamp {
    /// The epoch of the home that answered.
    pub epoch: Epoch,
    /// The record's version then.
    pub version: Version,
}

impl Stamp {
    /// The stamp at this epoch and version.
    #[must_use]
    pub const fn new(epoch: Epoch, version: Version) -> Self {
        Self { epoch, version }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_player_id_is_what_the_design_says() {
        assert_eq!(PlayerId::parse(""), Err(IdError::Empty));
        assert_eq!(PlayerId::parse(&"x".repeat(65)), Err(IdError::TooLong));
        assert_eq!(PlayerId::parse("a\u{0}b"), Err(IdError::Control));
        assert_eq!(PlayerId::parse("a\u{85}b"), Err(IdError::Control));
        assert!(PlayerId::parse(&"é".repeat(32)).is_ok());
        assert!(PlayerId::parse("{hearth}.s1:p:ann").is_ok());
    }

    #[test]
    fn a_blob_has_a_name_that_stands_in_any_path_and_breaks_no_key() {
        for good in ["a", "save-1.bin", "A_z.9", "...a", &"x".repeat(64)] {
            assert_eq!(BlobName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a:b", "a/b", "a b", "é", "a\n", "{a}", &"x".repeat(65)] {
            assert_eq!(BlobName::parse(bad), Err(BlobNameError), "{bad:?}");
        }
    }

    #[test]
    fn a_room_is_named_and_opened_by_name_or_prefix() {
        let room = |text: &str| RoomName::parse(text);
        assert!(room("").is_err() && room("a\nb").is_err() && room(&"x".repeat(65)).is_err());
        let party = room("party:7").unwrap();
        for (pattern, opens) in [
            ("party:7", true),
            ("party:*", true),
            ("*", true),
            ("party:7*", true),
            ("party:", false),
            ("party:70", false),
            ("guild:*", false),
            ("party:7:*", false),
        ] {
            assert_eq!(RoomPattern::parse(pattern).unwrap().opens(&party), opens, "{pattern}");
        }
        assert_eq!(RoomPattern::parse(""), Err(RoomNameError));
    }

    #[test]
    fn a_session_id_carries_its_shard() {
        for number in [0, 1, 17, 255, 256, 4095] {
            let shard = ShardId::numbered(number).unwrap();
            let session = SessionId::generate(shard, 1_790_000_000_000);
            assert_eq!(session.shard(), shard);
            assert_eq!(SessionId::parse(&session.to_string()), Ok(session));
        }
        assert_eq!(ShardId::numbered(4096), None);
        assert_eq!(SessionId::parse("67e55044-10b1-426f-9247-bb680e5fe0c8"), Err(IdError::NotASession));
    }

    #[test]
    fn a_restarted_node_is_a_different_owner() {
        assert_ne!(Owner::boot("n1"), Owner::boot("n1"));
    }
}
