//! What a commit counts, and what is sent of it.

use super::*;
use crate::ids::{PlayerId, ShardId};
use crate::store::{COMMIT_RECORDS_MAX, Entry};

/// The record with the longest names that brings along all that a record can.
fn record(number: usize) -> CommitRecord {
    CommitRecord {
        player: PlayerId::parse(&format!("{number:x>64}")).unwrap(),
        base: Version::of(u64::MAX - 1),
        version: Version::of(u64::MAX),
        keep: Keep::Live { expires_at_unix_ms: 9_999_999_999_999 },
        ttl: Duration::from_secs(u64::MAX),
        restore: true,
        known: true,
        p: Bytes::from_static(&[7; 100]),
        w: Some(Bytes::from_static(&[7; 100])),
        ban: BanMark::Until(BAN_END_MAX),
        entries: vec![Entry {
            version: Version::of(7),
            goes: Goes::Both,
            body: Bytes::from_static(&[7; 50]),
        }],
    }
}

#[test]
fn a_commit_counts_all_that_is_sent_of_it() {
    let keys = Layout::of_cluster(&"c".repeat(32)).unwrap().shard(ShardId::numbered(4_095).unwrap());
    let sent = |records: Vec<CommitRecord>| {
        let commit = Commit {
            shard: ShardId::numbered(4_095).unwrap(),
            owner: Owner::named("node-1#1"),
            epoch: Epoch::of(1 << 52),
            generation: Generation::of(u64::MAX),
            flush_seq: FlushSeq::of(1 << 52),
            flush_seq_acked: FlushSeq::of(1 << 52),
            remember: Duration::from_secs(1),
            records,
        };
        let mut command = redis::cmd("EVALSHA");
        write_commit(&mut command, &keys, &commit);
        command.get_packed_command().len()
    };
    let bare = |number| CommitRecord { entries: Vec::new(), ..record(number) };
    for records in
        [(0..COMMIT_RECORDS_MAX).map(record).collect::<Vec<_>>(), (0..COMMIT_RECORDS_MAX).map(bare).collect()]
    {
        let counted: usize = records.iter().map(CommitRecord::bytes).sum();
        let sent = sent(records) - sent(Vec::new());
        assert!(sent <= counted, "{sent} bytes are sent, {counted} counted");
        assert!(counted <= 2 * sent + COMMIT_RECORDS_MAX * crate::store::ENTRY_BYTES, "{sent} {counted}");
    }
}
