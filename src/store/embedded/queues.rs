//! The tables of what concerns players who are not here: messages that wait for them, and who of them is banned.
//! Inside a transaction that the writer owns. Never commits and never reads a clock.

use std::ops::Bound;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::ids::{PlayerId, ShardId};
use crate::store::{BanMark, LiveCursor, QUEUE_BYTES_MAX, QueueAdded, QueuedMessage, Which};

/// Shard, player and number to id, when it runs out (Unix ms), body.
const QUEUES: TableDefinition<'static, QueueKey, QueueRow> = TableDefinition::new("queues");
/// Shard and player to when the ban ends (Unix ms).
const BANS: TableDefinition<'static, (u16, &str), u64> = TableDefinition::new("bans");

type QueueKey = (u16, &'static str, u64);
type QueueRow = (u128, u64, &'static [u8]);

/// A message that waits, without its body.
struct Waits {
    number: u64,
    id: u128,
    ends: u64,
    bytes: usize,
}

/// Both tables, open for writing.
pub(super) struct Absent<'txn> {
    queues: Table<'txn, QueueKey, QueueRow>,
    bans: Table<'txn, (u16, &'static str), u64>,
}

impl<'txn> Absent<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self { queues: txn.open_table(QUEUES)?, bans: txn.open_table(BANS)? })
    }

    /// Changes the list of banned players.
    pub(super) fn mark(
        &mut self,
        shard: ShardId,
        player: &PlayerId,
        mark: BanMark,
    ) -> Result<(), redb::Error> {
        let key = (shard.number(), player.as_str());
        match mark {
            BanMark::Unmoved => {}
            BanMark::Until(ends) => {
                self.bans.insert(key, ends)?;
            }
            BanMark::Lifted => {
                self.bans.remove(key)?;
            }
        }
        Ok(())
    }

    /// The player's record is forgotten, and with it her place among the banned.
    pub(super) fn forget(&mut self, shard: u16, player: &str) -> Result<(), redb::Error> {
        self.bans.remove((shard, player))?;
        Ok(())
    }

    /// Puts a message behind those that wait, unless it waits already or too many do. Those that have run out make
    /// room.
    pub(super) fn add(
        &mut self,
        shard: ShardId,
        player: &PlayerId,
        message: &QueuedMessage,
        most: usize,
        now_ms: u64,
    ) -> Result<QueueAdded, redb::Error> {
        let (shard, player) = (shard.number(), player.as_str());
        let waiting = self.waiting(shard, player)?;
        let is_live = |ends: u64| ends > now_ms;
        let live = || waiting.iter().filter(|waits| is_live(waits.ends));
        if live().any(|waits| waits.id == message.id) {
            return Ok(QueueAdded::Repeat);
        }
        let bytes: usize = live().map(|waits| waits.bytes).sum();
        if live().count() >= most || bytes + message.body.len() > QUEUE_BYTES_MAX {
            return Ok(QueueAdded::Full);
        }
        for waits in &waiting {
            if !is_live(waits.ends) {
                self.queues.remove((shard, player, waits.number))?;
            }
        }
        let next = waiting.last().map_or(0, |waits| waits.number) + 1;
        let row = (message.id, message.expires_at_unix_ms, &message.body[..]);
        self.queues.insert((shard, player, next), row)?;
        Ok(QueueAdded::Added)
    }

    /// Forgets messages of a player.
    pub(super) fn remove(
        &mut self,
        shard: ShardId,
        player: &PlayerId,
        which: &Which,
    ) -> Result<(), redb::Error> {
        let (shard, player) = (shard.number(), player.as_str());
        for waits in self.waiting(shard, player)? {
            if matches!(which, Which::These(ids) if !ids.contains(&waits.id)) {
                continue;
            }
            self.queues.remove((shard, player, waits.number))?;
        }
        Ok(())
    }

    fn waiting(&self, shard: u16, player: &str) -> Result<Vec<Waits>, redb::Error> {
        let rows = self.queues.range((shard, player, 0)..=(shard, player, u64::MAX))?;
        rows.map(|row| {
            let (key, row) = row?;
            let (id, ends, body) = row.value();
            Ok(Waits { number: key.value().2, id, ends, bytes: body.len() })
        })
        .collect()
    }

    /// Forgets messages that have run out, looking at no more than `rows_max` a step; where to go on.
    pub(super) fn sweep(
        &mut self,
        after: Option<(u16, String, u64)>,
        now_ms: u64,
        rows_max: usize,
    ) -> Result<Option<(u16, String, u64)>, redb::Error> {
        let (mut run_out, mut last, mut seen) = (Vec::new(), None, 0);
        {
            let after = after.as_ref().map(|(shard, player, number)| (*shard, player.as_str(), *number));
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            for row in self.queues.range::<(u16, &str, u64)>((from, Bound::Unbounded))?.take(rows_max) {
                let (key, row) = row?;
                let (shard, player, number) = key.value();
                if row.value().1 <= now_ms {
                    run_out.push((shard, player.to_owned(), number));
                }
                seen += 1;
                if seen == rows_max {
                    last = Some((shard, player.to_owned(), number));
                }
            }
        }
        for (shard, player, number) in run_out {
            self.queues.remove((shard, player.as_str(), number))?;
        }
        Ok(last)
    }
}

/// The messages that wait for a player and have not run out, the oldest first.
pub(super) fn read_queue(
    txn: &ReadTransaction,
    shard: ShardId,
    player: &PlayerId,
    now_ms: u64,
) -> Result<Vec<QueuedMessage>, redb::Error> {
    let table = txn.open_table(QUEUES)?;
    let (shard, player) = (shard.number(), player.as_str());
    let mut messages = Vec::new();
    for row in table.range((shard, player, 0)..=(shard, player, u64::MAX))? {
        let (_, row) = row?;
        let (id, expires_at_unix_ms, body) = row.value();
        if expires_at_unix_ms > now_ms {
            messages.push(QueuedMessage { id, expires_at_unix_ms, body: Bytes::copy_from_slice(body) });
        }
    }
    Ok(messages)
}

/// Names of banned players of a shard, in their order, at most `limit`; and where to go on.
pub(super) fn banned_names(
    txn: &ReadTransaction,
    shard: ShardId,
    after: Option<&LiveCursor>,
    limit: usize,
) -> Result<(Vec<String>, Option<LiveCursor>), redb::Error> {
    let table = txn.open_table(BANS)?;
    let number = shard.number();
    let from = after.map_or(Bound::Included((number, "")), |cursor| {
        Bound::Excluded((number, cursor.after_player.as_str()))
    });
    let to = number.checked_add(1).map_or(Bound::Unbounded, |next| Bound::Excluded((next, "")));
    let mut names = Vec::new();
    for row in table.range::<(u16, &str)>((from, to))?.take(limit) {
        names.push(row?.0.value().1.to_owned());
    }
    let next = names.last().filter(|_| names.len() == limit);
    let next = next.map(|last| LiveCursor { after_unix_ms: 0, after_player: last.clone() });
    Ok((names, next))
}
