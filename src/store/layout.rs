//! The one place for key names and for the shape of a stored record. Every Redis wrapper takes its keys here; the
//! scripts get them as KEYS and build none. The tag comes first in a key, so no player id can forge one.

use std::io::{self, Write};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::ids::{BlobName, Epoch, KeyName, PlayerId, ShardId, Version};

/// Longest cluster name, in bytes.
pub const CLUSTER_NAME_BYTES_MAX: usize = 32;
/// Bytes before a record's body: 16 lower-case hex digits of epoch, 16 of version.
pub const RECORD_HEADER_BYTES: usize = 32;
/// Bits of a shard's filter of players ever seen. 64 KiB a shard; with four bits a player, one lookup in a hundred
/// passes wrongly at 50,000 players a shard (12.8 million over 256 shards), one in thirteen at 100,000.
pub const KNOWN_BITS: u64 = 1 << 19;
/// Bits that one player sets in the filter.
pub const KNOWN_BITS_PER_PLAYER: usize = 4;
/// Bits that a filter which was begun as one has set from the start, the first of all: no filter that was lost and grows again
/// player by player ever has all of them. They tell nothing of players.
pub const KNOWN_MARK_BITS: u64 = 64;
/// Not zero: the hash with seed zero names the shard, so within a shard its remainder is the same for everybody.
const KNOWN_SEED: u64 = 1;

/// Why a text is no cluster name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cluster name is 1 to 32 of the characters a-z A-Z 0-9 . _ -")]
pub struct ClusterNameError;

/// The key names of one cluster. Two clusters on one Redis never share a key.
#[derive(Debug, Clone)]
pub struct Layout {
    cluster: String,
}

impl Layout {
    /// The layout of the cluster with this name.
    ///
    /// # Errors
    /// [`ClusterNameError`] for an empty or long name and for any character that could break a hash tag.
    pub fn of_cluster(name: &str) -> Result<Self, ClusterNameError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > CLUSTER_NAME_BYTES_MAX || !name.chars().all(allowed) {
            return Err(ClusterNameError);
        }
        Ok(Self { cluster: name.to_owned() })
    }

    /// `<cluster>:cfg`, a hash: what all nodes agree on.
    #[must_use]
    pub fn config(&self) -> String {
        format!("{}:cfg", self.cluster)
    }

    /// `<cluster>:nodes`, a hash: live nodes by name, each `deadline heard-at owner what-it-says` (Unix ms, JSON).
    #[must_use]
    pub fn nodes(&self) -> String {
        format!("{}:nodes", self.cluster)
    }

    /// `<cluster>:probe`, a string: what readiness writes and reads back.
    #[must_use]
    pub fn probe(&self) -> String {
        format!("{}:probe", self.cluster)
    }

    /// `<cluster>:rl:<subject>`, a string: how far a limit of the cluster as a whole is used up for somebody.
    #[must_use]
    pub fn rate(&self, subject: u64) -> String {
        format!("{}:rl:{subject:016x}", self.cluster)
    }

    /// `<cluster>:cnt:{<name>}`, a string: a counter of game services. A name that would break the tag stands behind one.
    #[must_use]
    pub fn counter(&self, name: &KeyName) -> String {
        self.tagged("cnt", name)
    }

    /// `<cluster>:once:{<name>}:<id>`, a string: what a change of this counter made of it, for when it comes again.
    #[must_use]
    pub fn counted(&self, name: &KeyName, id: u128) -> String {
        format!("{}:{id:032x}", self.tagged("once", name))
    }

    fn tagged(&self, kind: &str, name: &KeyName) -> String {
        if name.as_str().starts_with('}') {
            return format!("{}:{kind}:}}:{{_}}:{name}", self.cluster);
        }
        format!("{}:{kind}:{{{name}}}", self.cluster)
    }

    /// `<cluster>:lock:{<name>}`, a hash: a lock of game services (`token`, and while it is held `owner until ttl`).
    #[must_use]
    pub fn lock(&self, name: &KeyName) -> String {
        format!("{}:lock:{{{name}}}", self.cluster)
    }

    /// The keys of one shard, which all share its hash tag.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> ShardKeys {
        ShardKeys { prefix: format!("{{{}.s{shard}}}:", self.cluster) }
    }
}

/// The keys of one shard.
#[derive(Debug, Clone)]
pub struct ShardKeys {
    prefix: String,
}

impl ShardKeys {
    /// `…:m`, a hash: the shard's meta (`epoch holder until owner prev f gen vmax`; `known_at known_ttl known_ttl_old`: since
    /// when the filter's generation counts, and how long those in it and in the former one are kept at most; `ev`: how
    /// many events there were).
    #[must_use]
    pub fn meta(&self) -> String {
        self.named("m")
    }

    /// `…:x`, a zset: live players by expiry (Unix ms).
    #[must_use]
    pub fn expiry(&self) -> String {
        self.named("x")
    }

    /// `…:known`, a bitmap of [`KNOWN_BITS`]: the filter of players ever seen. Its first [`KNOWN_MARK_BITS`] are all set,
    /// unless it was lost and grew again.
    #[must_use]
    pub fn known(&self) -> String {
        self.named("known")
    }

    /// `…:known.old`, a bitmap: the filter's former generation.
    #[must_use]
    pub fn known_old(&self) -> String {
        self.named("known.old")
    }

    /// `…:ev`, a stream: the shard's events, each under its epoch and number.
    #[must_use]
    pub fn events(&self) -> String {
        self.named("ev")
    }

    /// `…:bans`, a zset: who is kept out, by the end of the ban (Unix ms; [`super::BAN_END_MAX`] for never), or by when a
    /// revocation need not be known from the start any more.
    #[must_use]
    pub fn bans(&self) -> String {
        self.named("bans")
    }

    /// `…:q:<player>`, a list: messages that wait for the player, each its id in 32 hex digits, when it runs out in
    /// 16 decimal ones (Unix ms), and its body.
    #[must_use]
    pub fn queue(&self, player: &PlayerId) -> String {
        [&self.prefix, "q:", player.as_str()].concat()
    }

    /// `…:b:<player>:<name>`, a string: a blob of the player: its tag in 32 hex digits, two of the length of its content type,
    /// that, and its body. No name has a colon: what stands before the last one is the player.
    #[must_use]
    pub fn blob(&self, player: &PlayerId, name: &BlobName) -> String {
        [&self.prefix, "b:", player.as_str(), ":", name.as_str()].concat()
    }

    /// `…:bs:<player>`, a hash: the sizes of her blobs by name, for her quota and for forgetting her.
    #[must_use]
    pub fn blob_sizes(&self, player: &PlayerId) -> String {
        [&self.prefix, "bs:", player.as_str()].concat()
    }

    /// `…:t:<player>`, a stream: the player's timeline. In parts, as [`Self::record`].
    #[must_use]
    pub fn timeline<'a>(&'a self, player: &'a PlayerId) -> [&'a str; 3] {
        [&self.prefix, "t:", player.as_str()]
    }

    /// `…:p:<player>`, a string: the player record. In parts, so that a batch writes it straight into its buffer.
    #[must_use]
    pub fn record<'a>(&'a self, player: &'a PlayerId) -> [&'a str; 3] {
        [&self.prefix, "p:", player.as_str()]
    }

    /// `…:w:<player>`, a string: the player's watches and rooms. In parts, as [`Self::record`].
    #[must_use]
    pub fn watches<'a>(&'a self, player: &'a PlayerId) -> [&'a str; 3] {
        [&self.prefix, "w:", player.as_str()]
    }

    fn named(&self, name: &str) -> String {
        [self.prefix.as_str(), name].concat()
    }
}

/// A number as the record header, the generation and `vmax` carry it: 16 lower-case hex digits, so that the order of
/// the strings is the order of the numbers and no double of Lua's ever rounds one.
#[must_use]
pub fn hex16(number: u64) -> String {
    String::from_utf8_lossy(&digits16(number)).into_owned()
}

/// The same, without going through the machinery of formatting: each record of a commit carries four.
fn digits16(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (digit, shift) in digits.iter_mut().zip((0..16_u32).rev()) {
        let nibble = (number >> (4 * shift)) as u8 & 15;
        *digit = nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
    }
    digits
}

/// Reads what [`hex16`] wrote; `None` for anything else, upper case included.
#[must_use]
pub fn parse_hex16(digits: &[u8]) -> Option<u64> {
    let plain = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    if digits.len() != 16 || !digits.iter().all(plain) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Writes the string that is stored: header, then body.
///
/// # Errors
/// Those of the writer.
pub fn write_record(out: &mut dyn Write, epoch: Epoch, version: Version, body: &[u8]) -> io::Result<()> {
    out.write_all(&digits16(epoch.number()))?;
    out.write_all(&digits16(version.number()))?;
    out.write_all(body)
}

/// Takes a stored string apart; the body shares the string's memory. `None` if the header is not ours.
#[must_use]
pub fn decode_record(record: &Bytes) -> Option<(Epoch, Version, Bytes)> {
    let epoch = parse_hex16(record.get(..16)?)?;
    let version = parse_hex16(record.get(16..RECORD_HEADER_BYTES)?)?;
    Some((Epoch::of(epoch), Version::of(version), record.slice(RECORD_HEADER_BYTES..)))
}

/// The bits of `known` that stand for this player: double hashing over xxh3-64 with seed 1.
#[must_use]
pub fn known_bits(player: &PlayerId) -> [u64; KNOWN_BITS_PER_PLAYER] {
    let hash = xxh3_64_with_seed(player.as_str().as_bytes(), KNOWN_SEED);
    let start = hash & 0xffff_ffff;
    // Odd, so that the steps visit different bits of a power of two.
    let step = (hash >> 32) | 1;
    let mut bits = [0; KNOWN_BITS_PER_PLAYER];
    for (bit, at) in bits.iter_mut().zip(0_u64..) {
        *bit = start.wrapping_add(step.wrapping_mul(at)) % KNOWN_BITS;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode_record(epoch: Epoch, version: Version, body: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        write_record(&mut record, epoch, version, body).unwrap();
        record
    }

    fn player(text: &str) -> PlayerId {
        PlayerId::parse(text).unwrap()
    }

    #[test]
    fn keys_are_named_as_the_design_says() {
        let layout = Layout::of_cluster("hearth").unwrap();
        let keys = layout.shard(ShardId::numbered(17).unwrap());
        assert_eq!(keys.meta(), "{hearth.s17}:m");
        assert_eq!(keys.expiry(), "{hearth.s17}:x");
        assert_eq!(keys.known(), "{hearth.s17}:known");
        assert_eq!(keys.known_old(), "{hearth.s17}:known.old");
        assert_eq!(keys.events(), "{hearth.s17}:ev");
        assert_eq!(keys.bans(), "{hearth.s17}:bans");
        assert_eq!(keys.queue(&player("ann")), "{hearth.s17}:q:ann");
        let save = BlobName::parse("save").unwrap();
        assert_eq!(keys.blob(&player("ann"), &save), "{hearth.s17}:b:ann:save");
        assert_eq!(keys.blob_sizes(&player("ann")), "{hearth.s17}:bs:ann");
        assert_eq!(keys.timeline(&player("ann")).concat(), "{hearth.s17}:t:ann");
        assert_eq!(keys.record(&player("ann")).concat(), "{hearth.s17}:p:ann");
        assert_eq!(keys.watches(&player("ann")).concat(), "{hearth.s17}:w:ann");
        assert_eq!(layout.config(), "hearth:cfg");
        assert_eq!(layout.nodes(), "hearth:nodes");
        assert_eq!(layout.probe(), "hearth:probe");
        assert_eq!(layout.lock(&KeyName::parse("shop").unwrap()), "hearth:lock:{shop}");
        let swords = KeyName::parse("swords").unwrap();
        assert_eq!(layout.counter(&swords), "hearth:cnt:{swords}");
        assert_eq!(layout.counted(&swords, 255), format!("hearth:once:{{swords}}:{:032x}", 255));
        let broken = KeyName::parse("}{").unwrap();
        assert_eq!(layout.counter(&broken), "hearth:cnt:}:{_}:}{");
        assert_eq!(layout.counted(&broken, 0), format!("hearth:once:}}:{{_}}:}}{{:{:032x}", 0));
    }

    #[test]
    fn a_player_cannot_forge_a_tag() {
        let keys = Layout::of_cluster("c").unwrap().shard(ShardId::numbered(1).unwrap());
        let bob = player("{c.s2}:p:bob");
        let key = keys.record(&bob).concat();
        let tag = key.split_once('{').unwrap().1.split_once('}').unwrap().0;
        assert_eq!(tag, "c.s1");
    }

    #[test]
    fn a_cluster_name_cannot_break_a_tag() {
        for name in ["", "a b", "a}b", "{a", "a:b", "é", &"x".repeat(33)] {
            assert_eq!(Layout::of_cluster(name).unwrap_err(), ClusterNameError, "{name:?}");
        }
        assert!(Layout::of_cluster("Hearth-1.eu_west").is_ok());
    }

    #[test]
    fn a_record_reads_back_and_its_header_is_fixed_width() {
        let record = Bytes::from(encode_record(Epoch::of(0x1a2), Version::of(u64::MAX), b"body"));
        assert_eq!(&record[..], b"00000000000001a2ffffffffffffffffbody");
        let (epoch, version, body) = decode_record(&record).unwrap();
        assert_eq!((epoch.number(), version.number(), &body[..]), (0x1a2, u64::MAX, &b"body"[..]));
        assert!(decode_record(&Bytes::from(encode_record(Epoch::ZERO, Version::ZERO, b""))).is_some());
    }

    #[test]
    fn a_header_that_is_not_ours_is_refused() {
        for text in
            ["", "00000000000001a2", "00000000000001A20000000000000001x", "+0000000000001a20000000000000001"]
        {
            assert_eq!(decode_record(&Bytes::from(text)), None, "{text:?}");
        }
    }

    #[test]
    fn the_order_of_hex_is_the_order_of_numbers() {
        let numbers = [0, 1, 9, 10, 15, 16, 255, 256, 1 << 52, u64::MAX];
        assert!(numbers.windows(2).all(|pair| hex16(pair[0]) < hex16(pair[1])));
        assert!(numbers.iter().all(|&n| parse_hex16(hex16(n).as_bytes()) == Some(n)));
    }

    #[test]
    fn the_filter_sets_the_same_bits_for_ever() {
        // Golden: a change here makes every stored filter forget everybody.
        assert_eq!(known_bits(&player("ann")), [386_524, 476_561, 42_310, 132_347]);
        assert_eq!(known_bits(&player("zoë")), [283_067, 126_238, 493_697, 336_868]);
    }

    #[test]
    fn the_filter_is_spread_within_one_shard() {
        let mut seen = std::collections::HashSet::new();
        let shard = |p: &PlayerId| xxh3_64_with_seed(p.as_str().as_bytes(), 0) % 256;
        let players = (0..256_000).map(|n| player(&format!("player-{n}"))).filter(|p| shard(p) == 7);
        let count = players.inspect(|p| seen.extend(known_bits(p))).count();
        assert!(count > 800, "{count}");
        // About 4,000 bits drawn of 524,288: nearly all differ.
        assert!(seen.len() * 100 > count * KNOWN_BITS_PER_PLAYER * 98, "{} of {count}", seen.len());
    }
}
