//! The tables of what commits write beside the records: the events of shards, and the timelines of players. Inside a
//! transaction that the writer owns. Never commits and never reads a clock.

use std::ops::Bound;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::ids::{Epoch, PlayerId, ShardId};
use crate::store::{
    EVENTS_MAX, EVENTS_PER_SHARD_MAX, Entry, EventPlace, Goes, ShardEvents, StoredEvent, TIMELINE_MAX,
};

/// Shard, epoch and number to player and body.
const EVENTS: TableDefinition<'static, EventKey, EventRow> = TableDefinition::new("events_by_epoch");
/// Shard, player and number to the time (Unix ms) when it is forgotten, and body.
const TIMELINES: TableDefinition<'static, TimelineKey, TimelineRow> = TableDefinition::new("timelines");

type EventKey = (u16, u64, u64);
type EventRow = (&'static str, &'static [u8]);
type TimelineKey = (u16, &'static str, u64);
type TimelineRow = (u64, &'static [u8]);

/// Where a sweep of the timelines goes on.
pub(super) type TimelineCursor = (u16, String, u64);

/// Both tables, open for writing.
pub(super) struct Entries<'txn> {
    events: Table<'txn, EventKey, EventRow>,
    timelines: Table<'txn, TimelineKey, TimelineRow>,
}

impl<'txn> Entries<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self { events: txn.open_table(EVENTS)?, timelines: txn.open_table(TIMELINES)? })
    }

    /// Writes one entry of a player. The timeline is forgotten at that time, Unix ms.
    pub(super) fn write(
        &mut self,
        (shard, epoch): (ShardId, Epoch),
        player: &PlayerId,
        entry: &Entry,
        forget_at_ms: u64,
    ) -> Result<(), redb::Error> {
        if entry.goes.is_event() {
            self.tell(shard, epoch, player, &entry.body)?;
        }
        match entry.goes {
            Goes::Events => Ok(()),
            Goes::Forget => self.forget(shard.number(), player.as_str()),
            Goes::Timeline | Goes::Both => self.note(shard, player, &entry.body, forget_at_ms),
        }
    }

    fn tell(
        &mut self,
        shard: ShardId,
        epoch: Epoch,
        player: &PlayerId,
        body: &[u8],
    ) -> Result<(), redb::Error> {
        let shard = shard.number();
        let last = self.events.range(all_of(shard))?.next_back().transpose()?;
        let last = last.map_or(EventPlace::START, |(key, _)| place_of(key.value()));
        let place = last.next(epoch);
        self.events.insert((shard, place.epoch, place.number), (player.as_str(), body))?;
        if place.number > EVENTS_MAX {
            let first = self.events.range(all_of(shard))?.next().transpose()?.map(|(key, _)| key.value());
            if let Some(first) = first.filter(|first| place.number - first.2 >= EVENTS_MAX) {
                self.events.remove(first)?;
            }
        }
        Ok(())
    }

    fn note(
        &mut self,
        shard: ShardId,
        player: &PlayerId,
        body: &[u8],
        forget_at_ms: u64,
    ) -> Result<(), redb::Error> {
        let (shard, player) = (shard.number(), player.as_str());
        let numbers = self.numbers(shard, player)?;
        let next = numbers.last().map_or(0, |last| last + 1);
        self.timelines.insert((shard, player, next), (forget_at_ms, body))?;
        let over = (numbers.len() + 1).saturating_sub(TIMELINE_MAX);
        for number in numbers.into_iter().take(over) {
            self.timelines.remove((shard, player, number))?;
        }
        Ok(())
    }

    fn forget(&mut self, shard: u16, player: &str) -> Result<(), redb::Error> {
        for number in self.numbers(shard, player)? {
            self.timelines.remove((shard, player, number))?;
        }
        Ok(())
    }

    fn numbers(&self, shard: u16, player: &str) -> Result<Vec<u64>, redb::Error> {
        let rows = self.timelines.range((shard, player, 0)..=(shard, player, u64::MAX))?;
        rows.map(|row| Ok(row?.0.value().2)).collect()
    }

    /// Forgets entries of timelines whose time has come, looking at no more than `rows_max` a step; where to go on.
    pub(super) fn sweep(
        &mut self,
        after: Option<TimelineCursor>,
        now_ms: u64,
        rows_max: usize,
    ) -> Result<Option<TimelineCursor>, redb::Error> {
        let (mut run_out, mut last, mut seen) = (Vec::new(), None, 0);
        {
            let after = after.as_ref().map(|(shard, player, number)| (*shard, player.as_str(), *number));
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            for row in self.timelines.range::<(u16, &str, u64)>((from, Bound::Unbounded))?.take(rows_max) {
                let (key, row) = row?;
                let (shard, player, number) = key.value();
                if row.value().0 <= now_ms {
                    run_out.push((shard, player.to_owned(), number));
                }
                seen += 1;
                if seen == rows_max {
                    last = Some((shard, player.to_owned(), number));
                }
            }
        }
        for (shard, player, number) in run_out {
            self.timelines.remove((shard, player.as_str(), number))?;
        }
        Ok(last)
    }
}

fn all_of(shard: u16) -> std::ops::RangeInclusive<EventKey> {
    (shard, 0, 0)..=(shard, u64::MAX, u64::MAX)
}

const fn place_of((_, epoch, number): EventKey) -> EventPlace {
    EventPlace { epoch, number }
}

/// The timeline of a player, the oldest entry first.
pub(super) fn read_timeline(
    txn: &ReadTransaction,
    shard: ShardId,
    player: &PlayerId,
    now_ms: u64,
) -> Result<Vec<Bytes>, redb::Error> {
    let table = txn.open_table(TIMELINES)?;
    let (shard, player) = (shard.number(), player.as_str());
    let mut bodies = Vec::new();
    for row in table.range((shard, player, 0)..=(shard, player, u64::MAX))? {
        let (_, row) = row?;
        let (forget_at_ms, body) = row.value();
        if forget_at_ms > now_ms {
            bodies.push(Bytes::copy_from_slice(body));
        }
    }
    Ok(bodies)
}

/// Events of shards behind a place in each.
pub(super) fn read_events(
    txn: &ReadTransaction,
    after: &[(ShardId, EventPlace)],
) -> Result<Vec<ShardEvents>, redb::Error> {
    let table = txn.open_table(EVENTS)?;
    let mut found = Vec::new();
    for (shard, place) in after {
        let number = shard.number();
        let from = Bound::Excluded((number, place.epoch, place.number));
        let to = Bound::Included((number, u64::MAX, u64::MAX));
        let mut events = Vec::new();
        for row in table.range::<EventKey>((from, to))?.take(EVENTS_PER_SHARD_MAX) {
            let (key, row) = row?;
            let (player, body) = row.value();
            let player = PlayerId::parse(player)
                .map_err(|_| redb::Error::Corrupted("an event of nobody".to_owned()))?;
            let body = Bytes::copy_from_slice(body);
            // What is committed here is not lost any more, so no number is left out.
            events.push(StoredEvent { place: place_of(key.value()), player, body, after: None });
        }
        if !events.is_empty() {
            found.push(ShardEvents { shard: *shard, events });
        }
    }
    Ok(found)
}

/// The place of the last event of each shard.
pub(super) fn last_events(txn: &ReadTransaction, shards: &[ShardId]) -> Result<Vec<EventPlace>, redb::Error> {
    let table = txn.open_table(EVENTS)?;
    let last = |shard: &ShardId| {
        let last = table.range(all_of(shard.number()))?.next_back().transpose()?;
        Ok(last.map_or(EventPlace::START, |(key, _)| place_of(key.value())))
    };
    shards.iter().map(last).collect()
}

#[cfg(test)]
mod tests {
    use redb::{Database, ReadableDatabase};

    use super::*;
    use crate::ids::Version;

    const NOW_MS: u64 = 1_790_000_000_000;

    fn shard(number: u16) -> ShardId {
        ShardId::numbered(number).unwrap()
    }

    fn player(name: &str) -> PlayerId {
        PlayerId::parse(name).unwrap()
    }

    fn entry(goes: Goes) -> Entry {
        Entry { version: Version::of(1), goes, body: Bytes::from("e") }
    }

    fn in_memory() -> Database {
        Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap()
    }

    #[test]
    fn the_events_of_a_shard_are_capped_and_their_numbers_go_on() {
        let database = in_memory();
        let txn = database.begin_write().unwrap();
        {
            let mut entries = Entries::open(&txn).unwrap();
            let mut tell = |number: u16, epoch: u64, count: usize| {
                for _ in 0..count {
                    let place = (shard(number), Epoch::of(epoch));
                    entries.write(place, &player("ann"), &entry(Goes::Events), 0).unwrap();
                }
            };
            tell(3, 5, 8_000);
            tell(4, 5, 4_000);
            tell(3, 9, 4_000);
        }
        txn.commit().unwrap();
        let read = database.begin_read().unwrap();
        let last = last_events(&read, &[shard(3), shard(4), shard(5)]).unwrap();
        let at = |epoch, number| EventPlace { epoch, number };
        assert_eq!(last, [at(9, 12_000), at(5, 4_000), EventPlace::START]);
        let events = read_events(&read, &[(shard(3), EventPlace::START), (shard(5), at(1, 7))]).unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].events[0].place, at(5, 2_001));
        assert_eq!(events[0].events.len(), EVENTS_PER_SHARD_MAX);
    }

    #[test]
    fn entries_of_timelines_are_forgotten_when_their_time_has_come() {
        let database = in_memory();
        let txn = database.begin_write().unwrap();
        {
            let mut entries = Entries::open(&txn).unwrap();
            for (name, ends) in [("ann", NOW_MS + 10), ("bob", NOW_MS + 600)] {
                for _ in 0..20 {
                    let place = (shard(3), Epoch::of(5));
                    entries.write(place, &player(name), &entry(Goes::Timeline), ends).unwrap();
                }
            }
            let mut cursor = None;
            for _ in 0..7 {
                cursor = entries.sweep(cursor, NOW_MS + 10, 7).unwrap();
            }
            assert_eq!(entries.numbers(3, "ann").unwrap().len(), 0);
            assert_eq!(entries.numbers(3, "bob").unwrap().len(), 20);
        }
        txn.commit().unwrap();
        let read = database.begin_read().unwrap();
        assert_eq!(read_timeline(&read, shard(3), &player("bob"), NOW_MS).unwrap().len(), 20);
        assert_eq!(read_timeline(&read, shard(3), &player("bob"), NOW_MS + 600).unwrap().len(), 0);
    }
}
