//! The tables of the embedded store and what a commit does to them, inside a transaction that the writer owns.
//! The verdicts are `judge`'s; here they are carried out. Never commits and never reads a clock.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::entries::{Entries, TimelineCursor};
use super::queues::Absent;
use crate::ids::{Epoch, FlushSeq, Generation, Owner, PlayerId, ShardId, Version};
use crate::store::judge::{self, Meta, Verdict};
use crate::store::{
    Bits, Commit, CommitRecord, Committed, Keep, LiveCursor, LivePage, RecordStatus, StoredRecord,
};

/// Shard to epoch, flush counter, generation, highest ended version, owner. Who holds the lease is not here: a
/// process that ended has lost its leases with the folder's lock.
const META: TableDefinition<'static, u16, (u64, u64, u64, u64, &str)> = TableDefinition::new("meta");
/// Shard and player to the time (Unix ms) when the store may forget it, score in `LIVE`, epoch, version, body.
const RECORDS: TableDefinition<'static, (u16, &str), RecordRow> = TableDefinition::new("records");
/// Shard and player to watches and rooms; forgotten with the record.
const WATCHES: TableDefinition<'static, (u16, &str), &[u8]> = TableDefinition::new("watches");
/// Shard, expiry (Unix ms), player: the index of live players.
const LIVE: TableDefinition<'static, (u16, u64, &str), ()> = TableDefinition::new("live");
/// What concerns no shard: the format, the agreed configuration, the probe.
const CLUSTER: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("cluster");

type RecordRow = (u64, Option<u64>, u64, u64, &'static [u8]);

/// What a stored row says besides its body.
#[derive(Debug, Clone, Copy)]
struct RowHead {
    forget_at_ms: u64,
    score: Option<u64>,
    epoch: Epoch,
    version: Version,
}

/// Where the last step of the sweep ended, among records, among messages and among timelines.
#[derive(Debug, Clone, Default)]
pub(super) struct SweepCursor(Option<(u16, String)>, Option<(u16, String, u64)>, Option<TimelineCursor>);

/// All tables, open for writing.
pub(super) struct WriteTables<'txn> {
    meta: Table<'txn, u16, (u64, u64, u64, u64, &'static str)>,
    records: Table<'txn, (u16, &'static str), RecordRow>,
    watches: Table<'txn, (u16, &'static str), &'static [u8]>,
    live: Table<'txn, (u16, u64, &'static str), ()>,
    cluster: Table<'txn, &'static str, &'static [u8]>,
    pub(super) absent: Absent<'txn>,
    entries: Entries<'txn>,
}

impl<'txn> WriteTables<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            meta: txn.open_table(META)?,
            records: txn.open_table(RECORDS)?,
            watches: txn.open_table(WATCHES)?,
            live: txn.open_table(LIVE)?,
            cluster: txn.open_table(CLUSTER)?,
            absent: Absent::open(txn)?,
            entries: Entries::open(txn)?,
        })
    }

    pub(super) fn put_meta(&mut self, shard: ShardId, meta: &Meta) -> Result<(), redb::Error> {
        let row = (
            meta.epoch.number(),
            meta.flush_seq.number(),
            meta.generation.number(),
            meta.version_max.number(),
            meta.owner.as_str(),
        );
        self.meta.insert(shard.number(), row)?;
        Ok(())
    }

    /// A cluster-wide value, written only if there is none; returns the one in force.
    pub(super) fn agree(&mut self, name: &str, proposal: &[u8]) -> Result<Vec<u8>, redb::Error> {
        if let Some(stored) = self.cluster.get(name)? {
            return Ok(stored.value().to_vec());
        }
        self.cluster.insert(name, proposal)?;
        Ok(proposal.to_vec())
    }

    pub(super) fn put_cluster(&mut self, name: &str, value: &[u8]) -> Result<(), redb::Error> {
        self.cluster.insert(name, value)?;
        Ok(())
    }

    /// Carries out a batch whose fence holds; returns its statuses and the shard's new meta, which is written, too.
    pub(super) fn commit(
        &mut self,
        meta: &Meta,
        commit: &Commit,
        now_ms: u64,
    ) -> Result<(Committed, Meta), redb::Error> {
        let mut meta = Meta { flush_seq: commit.flush_seq, ..meta.clone() };
        let mut statuses = Vec::with_capacity(commit.records.len());
        for record in &commit.records {
            let row = self.head(commit.shard, &record.player)?;
            let stored = row.filter(|row| row.forget_at_ms > now_ms);
            let verdict = judge::record(commit.epoch, record, stored.map(|row| (row.epoch, row.version)));
            if verdict.writes() {
                if stored.is_none() {
                    // What outlived its record in the file is forgotten with it.
                    self.watches.remove((commit.shard.number(), record.player.as_str()))?;
                }
                self.write(commit, record, row, now_ms)?;
                if record.keep != Keep::Unmoved {
                    self.absent.mark(commit.shard, &record.player, record.ban)?;
                }
                meta.version_max = judge::version_max_after(meta.version_max, record);
            }
            let forget_at_ms = now_ms.saturating_add(millis(commit.remember));
            for entry in &record.entries {
                if judge::writes_entry(verdict, entry, stored.map(|row| row.version)) {
                    self.entries.write((commit.shard, commit.epoch), &record.player, entry, forget_at_ms)?;
                }
            }
            statuses.push(self.status(verdict, commit.shard, &record.player)?);
        }
        self.put_meta(commit.shard, &meta)?;
        Ok((Committed::Done(statuses), meta))
    }

    fn head(&self, shard: ShardId, player: &PlayerId) -> Result<Option<RowHead>, redb::Error> {
        let row = self.records.get((shard.number(), player.as_str()))?;
        Ok(row.map(|row| head_of(row.value())))
    }

    fn write(
        &mut self,
        commit: &Commit,
        record: &CommitRecord,
        before: Option<RowHead>,
        now_ms: u64,
    ) -> Result<(), redb::Error> {
        let (shard, player) = (commit.shard.number(), record.player.as_str());
        let old_score = before.and_then(|row| row.score);
        let ttl_ms = millis(record.ttl);
        let (score, forget_at_ms) = match record.keep {
            Keep::Unmoved => (old_score, before.map_or(0, |row| row.forget_at_ms)),
            Keep::Live { expires_at_unix_ms } => (Some(expires_at_unix_ms), now_ms.saturating_add(ttl_ms)),
            Keep::Remainder | Keep::Erase => (None, now_ms.saturating_add(ttl_ms)),
        };
        if old_score != score {
            if let Some(old_score) = old_score {
                self.live.remove((shard, old_score, player))?;
            }
            if let Some(score) = score {
                self.live.insert((shard, score, player), ())?;
            }
        }
        if record.keep == Keep::Erase {
            self.records.remove((shard, player))?;
        } else {
            let row = (forget_at_ms, score, commit.epoch.number(), record.version.number(), &record.p[..]);
            self.records.insert((shard, player), row)?;
        }
        match &record.w {
            _ if record.keep == Keep::Unmoved => {}
            Some(w) if score.is_some() && !w.is_empty() => {
                self.watches.insert((shard, player), &w[..])?;
            }
            None if score.is_some() => {}
            _ => {
                self.watches.remove((shard, player))?;
            }
        }
        Ok(())
    }

    fn status(
        &self,
        verdict: Verdict,
        shard: ShardId,
        player: &PlayerId,
    ) -> Result<RecordStatus, redb::Error> {
        Ok(match verdict {
            Verdict::Applied => RecordStatus::Applied,
            Verdict::Same => RecordStatus::Same,
            Verdict::Repaired => RecordStatus::Repaired,
            Verdict::Restored => RecordStatus::Restored,
            Verdict::Gone => RecordStatus::Gone,
            Verdict::Exists => {
                match stored_record(&self.records, &self.watches, shard.number(), player.as_str(), 0)? {
                    Some(stored) => RecordStatus::Exists(stored),
                    // The verdict was made from that very row.
                    None => return Err(redb::Error::Corrupted("a record vanished in a transaction".into())),
                }
            }
        })
    }

    /// Forgets what has run out, looking at no more than `rows_max` records a step.
    pub(super) fn sweep(
        &mut self,
        cursor: &mut SweepCursor,
        now_ms: u64,
        rows_max: usize,
    ) -> Result<usize, redb::Error> {
        let mut run_out = Vec::new();
        let mut last = None;
        {
            let after = cursor.0.as_ref().map(|(shard, player)| (*shard, player.as_str()));
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let range = self.records.range::<(u16, &str)>((from, Bound::Unbounded))?;
            let mut seen = 0;
            for row in range.take(rows_max) {
                let (key, value) = row?;
                let (shard, player) = key.value();
                let head = head_of(value.value());
                if head.forget_at_ms <= now_ms {
                    run_out.push((shard, player.to_owned(), head.score));
                }
                seen += 1;
                if seen == rows_max {
                    last = Some((shard, player.to_owned()));
                }
            }
        }
        for (shard, player, score) in &run_out {
            let player = player.as_str();
            self.records.remove((*shard, player))?;
            self.watches.remove((*shard, player))?;
            self.absent.forget(*shard, player)?;
            if let Some(score) = score {
                self.live.remove((*shard, *score, player))?;
            }
        }
        cursor.0 = last;
        cursor.1 = self.absent.sweep(cursor.1.take(), now_ms, rows_max)?;
        cursor.2 = self.entries.sweep(cursor.2.take(), now_ms, rows_max)?;
        Ok(run_out.len())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn head_of(row: (u64, Option<u64>, u64, u64, &[u8])) -> RowHead {
    let (forget_at_ms, score, epoch, version, _) = row;
    RowHead { forget_at_ms, score, epoch: Epoch::of(epoch), version: Version::of(version) }
}

fn stored_record(
    records: &impl ReadableTable<(u16, &'static str), RecordRow>,
    watches: &impl ReadableTable<(u16, &'static str), &'static [u8]>,
    shard: u16,
    player: &str,
    now_ms: u64,
) -> Result<Option<StoredRecord>, redb::Error> {
    let Some(row) = records.get((shard, player))? else { return Ok(None) };
    let (forget_at_ms, _, epoch, version, body) = row.value();
    if forget_at_ms <= now_ms {
        return Ok(None);
    }
    let w = watches.get((shard, player))?.map(|w| Bytes::copy_from_slice(w.value()));
    let p = Bytes::copy_from_slice(body);
    Ok(Some(StoredRecord { epoch: Epoch::of(epoch), version: Version::of(version), p, w }))
}

/// The tables that are read outside the writer.
pub(super) struct ReadTables {
    records: ReadOnlyTable<(u16, &'static str), RecordRow>,
    watches: ReadOnlyTable<(u16, &'static str), &'static [u8]>,
    live: ReadOnlyTable<(u16, u64, &'static str), ()>,
}

impl ReadTables {
    pub(super) fn open(txn: &ReadTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            records: txn.open_table(RECORDS)?,
            watches: txn.open_table(WATCHES)?,
            live: txn.open_table(LIVE)?,
        })
    }

    pub(super) fn player(
        &self,
        shard: ShardId,
        player: &str,
        now_ms: u64,
    ) -> Result<Option<StoredRecord>, redb::Error> {
        stored_record(&self.records, &self.watches, shard.number(), player, now_ms)
    }

    /// Whoever is remembered in a shard.
    pub(super) fn known(&self, shard: ShardId, now_ms: u64) -> Result<Bits, redb::Error> {
        let number = shard.number();
        let to = number.checked_add(1).map_or(Bound::Unbounded, |next| Bound::Excluded((next, "")));
        let mut known = Bits::default();
        for row in self.records.range::<(u16, &str)>((Bound::Included((number, "")), to))? {
            let (key, value) = row?;
            if head_of(value.value()).forget_at_ms > now_ms
                && let Ok(player) = PlayerId::parse(key.value().1)
            {
                known.add(&player);
            }
        }
        Ok(known)
    }

    /// The records of players that an index named.
    pub(super) fn page_of(
        &self,
        shard: ShardId,
        names: &[String],
        next: Option<LiveCursor>,
        now_ms: u64,
    ) -> Result<LivePage, redb::Error> {
        let mut page = LivePage { next, ..LivePage::default() };
        for name in names {
            match (PlayerId::parse(name), self.player(shard, name, now_ms)?) {
                (Ok(player), Some(stored)) => page.records.push((player, stored)),
                _ => page.missing += 1,
            }
        }
        Ok(page)
    }

    pub(super) fn live_page(
        &self,
        shard: ShardId,
        after: Option<&LiveCursor>,
        limit: usize,
        now_ms: u64,
    ) -> Result<LivePage, redb::Error> {
        let number = shard.number();
        let from = match after {
            Some(cursor) => Bound::Excluded((number, cursor.after_unix_ms, cursor.after_player.as_str())),
            None => Bound::Included((number, 0, "")),
        };
        let to = match number.checked_add(1) {
            Some(next) => Bound::Excluded((next, 0, "")),
            None => Bound::Unbounded,
        };
        let mut page = LivePage::default();
        let mut names = 0;
        for row in self.live.range::<(u16, u64, &str)>((from, to))?.take(limit) {
            let (key, _) = row?;
            let (_, score, name) = key.value();
            names += 1;
            if names == limit {
                page.next = Some(LiveCursor { after_unix_ms: score, after_player: name.to_owned() });
            }
            let stored = self.player(shard, name, now_ms)?;
            match (PlayerId::parse(name), stored) {
                (Ok(player), Some(stored)) => page.records.push((player, stored)),
                _ => page.missing += 1,
            }
        }
        Ok(page)
    }
}

/// Every shard's meta, nobody holding it.
pub(super) fn read_metas(txn: &ReadTransaction) -> Result<Vec<(ShardId, Meta)>, redb::Error> {
    let mut metas = Vec::new();
    for row in txn.open_table(META)?.iter()? {
        let (shard, row) = row?;
        let Some(shard) = ShardId::numbered(shard.value()) else { continue };
        let (epoch, flush_seq, generation, version_max, owner) = row.value();
        let meta = Meta {
            epoch: Epoch::of(epoch),
            holder: None,
            until_ms: 0,
            owner: Owner::named(owner),
            previous_owner: None,
            flush_seq: FlushSeq::of(flush_seq),
            generation: Generation::of(generation),
            version_max: Version::of(version_max),
        };
        metas.push((shard, meta));
    }
    Ok(metas)
}

/// A cluster-wide value.
pub(super) fn read_cluster(txn: &ReadTransaction, name: &str) -> Result<Option<Vec<u8>>, redb::Error> {
    let table = txn.open_table(CLUSTER)?;
    let value = table.get(name)?.map(|value| value.value().to_vec());
    Ok(value)
}

#[cfg(test)]
mod tests {
    use redb::{Database, ReadableDatabase, ReadableTableMetadata};

    use super::*;

    const NOW_MS: u64 = 1_790_000_000_000;

    fn shard(number: u16) -> ShardId {
        ShardId::numbered(number).unwrap()
    }

    fn meta() -> Meta {
        let owner = Owner::named("a#1");
        Meta {
            epoch: Epoch::of(5),
            holder: Some(owner.clone()),
            until_ms: u64::MAX,
            owner,
            previous_owner: None,
            flush_seq: FlushSeq::ZERO,
            generation: Generation::of(7),
            version_max: Version::ZERO,
        }
    }

    fn commit(number: u16, records: Vec<(String, Duration, Keep)>) -> Commit {
        let record = |(name, ttl, keep): (String, Duration, Keep)| CommitRecord {
            player: PlayerId::parse(&name).unwrap(),
            base: Version::ZERO,
            version: Version::of(1),
            keep,
            ttl,
            restore: false,
            known: false,
            p: Bytes::from("p"),
            w: Some(Bytes::from("w")),
            ban: crate::store::BanMark::Unmoved,
            entries: Vec::new(),
        };
        Commit {
            shard: shard(number),
            owner: Owner::named("a#1"),
            epoch: Epoch::of(5),
            generation: Generation::of(7),
            flush_seq: FlushSeq::of(1),
            flush_seq_acked: FlushSeq::ZERO,
            remember: Duration::from_secs(600),
            records: records.into_iter().map(record).collect(),
        }
    }

    fn in_memory() -> Database {
        Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap()
    }

    #[test]
    fn the_sweep_forgets_what_has_run_out_and_nothing_else() {
        let database = in_memory();
        let txn = database.begin_write().unwrap();
        let live = Keep::Live { expires_at_unix_ms: 9 };
        let (short, long) = (Duration::from_millis(10), Duration::from_secs(600));
        {
            let mut tables = WriteTables::open(&txn).unwrap();
            for number in [3, 4] {
                let records = (0..20).map(|n| {
                    let ttl = if n % 4 == 0 { short } else { long };
                    (format!("p{n}"), ttl, if n % 2 == 0 { live } else { Keep::Remainder })
                });
                tables.commit(&meta(), &commit(number, records.collect()), NOW_MS).unwrap();
            }
            let mut cursor = SweepCursor::default();
            let steps = (0..7).map(|_| tables.sweep(&mut cursor, NOW_MS + 10, 7).unwrap());
            assert_eq!(steps.sum::<usize>(), 10, "two shards, every fourth of twenty");
        }
        txn.commit().unwrap();
        let read = database.begin_read().unwrap();
        assert_eq!(read.open_table(RECORDS).unwrap().len().unwrap(), 30);
        assert_eq!(read.open_table(WATCHES).unwrap().len().unwrap(), 10);
        assert_eq!(read.open_table(LIVE).unwrap().len().unwrap(), 10);
    }
}
