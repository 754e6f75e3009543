//! The tables of what services keep beside players, and what is done to them inside a transaction that the writer owns:
//! each is opened when it is needed, so that a batch of records does not pay for them. Never commits and never reads a
//! clock.

use std::ops::Bound::{Excluded, Unbounded};

use redb::{ReadableTable, ReadableTableMetadata as _, Table, TableDefinition, Value, WriteTransaction};

use super::blobs;
use crate::clock::millis;
use crate::ids::{KeyName, PlayerId, ShardId};
use crate::store::counters::{self, CHANGE_REMEMBERED, Count, CountChange};
use crate::store::locks::{self, Hold, Lock};
use crate::store::{
    BlobKey, BlobPut, BlobRemoved, BlobWritten, Counted, CounterRequest, LockAcquired, LockOwner,
    LockRequest, LockToken, Precondition,
};

/// Name to value and when it is forgotten (Unix ms), if ever.
const COUNTERS: TableDefinition<'static, &str, (i64, Option<u64>)> = TableDefinition::new("counters");

/// Name and the change's own to what it made of the counter, and when that may be forgotten (Unix ms).
const COUNTED: TableDefinition<'static, &str, (i64, u64)> = TableDefinition::new("counted");

/// Name to token; owner, until (Unix ms) and ttl (ms) while it is held; and when the token may be forgotten (Unix ms).
const LOCKS: TableDefinition<'static, &str, LockRow> = TableDefinition::new("locks");

type LockRow = (u64, Option<(u128, u64, u64)>, u64);

/// What the writer is asked.
#[derive(Debug)]
pub(super) enum StockAsk {
    Count(CounterRequest),
    Acquire(LockRequest),
    Renew(LockRequest),
    Release(KeyName, LockOwner),
    PutBlob(BlobPut),
    RemoveBlob(BlobKey, Precondition),
    EraseBlobs(ShardId, PlayerId),
}

/// What it answers, in the same order.
#[derive(Debug)]
pub(super) enum StockAnswer {
    Counted(Counted),
    Acquired(LockAcquired),
    Renewed(Option<LockToken>),
    Released(bool),
    Put(BlobWritten),
    Removed(BlobRemoved),
    Erased,
}

/// Makes the tables that a file does not have yet.
pub(super) fn make(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(COUNTERS)?;
    txn.open_table(COUNTED)?;
    txn.open_table(LOCKS)?;
    blobs::make(txn)
}

/// Carries out one request; and whether it wrote anything.
pub(super) fn carry_out(
    txn: &WriteTransaction,
    ask: &StockAsk,
    now_ms: u64,
) -> Result<(StockAnswer, bool), redb::Error> {
    Ok(match ask {
        StockAsk::Count(request) => {
            let (counted, writes) = count(txn, request, now_ms)?;
            (StockAnswer::Counted(counted), writes)
        }
        StockAsk::Acquire(request) => {
            // The clock has milliseconds: below them the last token counts on.
            let now_us = now_ms.saturating_mul(1_000);
            let of = |stored: Option<&Lock>| locks::acquire(stored, request, now_us);
            let (acquired, writes) = change_lock(txn, &request.name, now_ms, of)?;
            (StockAnswer::Acquired(acquired), writes)
        }
        StockAsk::Renew(request) => {
            let of = |stored: Option<&Lock>| locks::renew(stored, request, now_ms);
            let (renewed, writes) = change_lock(txn, &request.name, now_ms, of)?;
            (StockAnswer::Renewed(renewed), writes)
        }
        StockAsk::Release(name, owner) => {
            let of = |stored: Option<&Lock>| locks::release(stored, *owner, now_ms);
            let (released, writes) = change_lock(txn, name, now_ms, of)?;
            (StockAnswer::Released(released), writes)
        }
        StockAsk::PutBlob(put) => {
            let (written, writes) = blobs::put(txn, put)?;
            (StockAnswer::Put(written), writes)
        }
        StockAsk::RemoveBlob(key, precondition) => {
            let (removed, writes) = blobs::remove(txn, key, precondition)?;
            (StockAnswer::Removed(removed), writes)
        }
        StockAsk::EraseBlobs(shard, player) => (StockAnswer::Erased, blobs::erase(txn, *shard, player)?),
    })
}

fn count(
    txn: &WriteTransaction,
    request: &CounterRequest,
    now_ms: u64,
) -> Result<(Counted, bool), redb::Error> {
    let mut table = txn.open_table(COUNTERS)?;
    let name = request.name.as_str();
    let stored = table.get(name)?.map(|row| row.value());
    let stored = stored.map(|(value, expires_at_ms)| Count { value, expires_at_ms });
    let is_live = |count: &Count| count.expires_at_ms.is_none_or(|at| at > now_ms);
    // No name holds a NUL.
    let once = request.remembered_as().map(|id| format!("{name}\0{id:032x}"));
    let mut remembered = txn.open_table(COUNTED)?;
    let first = match &once {
        Some(once) => remembered.get(once.as_str())?.map(|row| row.value()),
        None => None,
    };
    let first = first.filter(|(_, forget_at_ms)| *forget_at_ms > now_ms).map(|(value, _)| value);
    let (counted, change) = counters::count(stored.filter(is_live), first, request, now_ms);
    if let (Some(once), Counted::At { value, .. }, true) = (&once, counted, change != CountChange::Keep) {
        let forget_at_ms = now_ms.saturating_add(millis(CHANGE_REMEMBERED));
        remembered.insert(once.as_str(), (value, forget_at_ms))?;
    }
    match change {
        CountChange::Keep => return Ok((counted, false)),
        CountChange::Put(count) => drop(table.insert(name, (count.value, count.expires_at_ms))?),
        CountChange::Remove => drop(table.remove(name)?),
    }
    Ok((counted, true))
}

/// What a rule makes of a stored lock, written.
fn change_lock<T>(
    txn: &WriteTransaction,
    name: &KeyName,
    now_ms: u64,
    rule: impl FnOnce(Option<&Lock>) -> (T, Option<Lock>),
) -> Result<(T, bool), redb::Error> {
    let mut table = txn.open_table(LOCKS)?;
    let row = table.get(name.as_str())?.map(|row| row.value());
    let stored = row.map(lock_of).filter(|lock| lock.forget_at_ms > now_ms);
    let (answer, changed) = rule(stored.as_ref());
    if let Some(Lock { token, hold, forget_at_ms }) = changed {
        let hold = hold.map(|hold| (hold.owner.digest(), hold.until_ms, hold.ttl_ms));
        table.insert(name.as_str(), (token.number(), hold, forget_at_ms))?;
    }
    Ok((answer, changed.is_some()))
}

fn lock_of((token, hold, forget_at_ms): LockRow) -> Lock {
    let of = |(owner, until_ms, ttl_ms)| Hold { owner: LockOwner::of(owner), until_ms, ttl_ms };
    Lock { token: LockToken::of(token), hold: hold.map(of), forget_at_ms }
}

/// Where the last step of the sweep ended.
#[derive(Debug, Clone, Default)]
pub(super) struct StockSweep {
    counters: Option<String>,
    counted: Option<String>,
    locks: Option<String>,
}

/// However many rows there are, the sweep has looked at each after so many steps: where more come than `rows_max` a step,
/// they would grow without a bound else.
const SWEEP_STEPS: u64 = 64;

/// Forgets what has run out, looking at no more than `rows_max` of each kind a step, or one in [`SWEEP_STEPS`] where that is more.
pub(super) fn sweep(
    txn: &WriteTransaction,
    cursor: &mut StockSweep,
    now_ms: u64,
    rows_max: usize,
) -> Result<(), redb::Error> {
    let has_ended = |(_, expires_at_ms): (i64, Option<u64>)| expires_at_ms.is_some_and(|at| at <= now_ms);
    cursor.counters = sweep_one(&mut txn.open_table(COUNTERS)?, cursor.counters.take(), rows_max, has_ended)?;
    let is_past = |(_, forget_at_ms): (i64, u64)| forget_at_ms <= now_ms;
    cursor.counted = sweep_one(&mut txn.open_table(COUNTED)?, cursor.counted.take(), rows_max, is_past)?;
    let is_old = |(_, _, forget_at_ms): LockRow| forget_at_ms <= now_ms;
    cursor.locks = sweep_one(&mut txn.open_table(LOCKS)?, cursor.locks.take(), rows_max, is_old)?;
    Ok(())
}

/// One step in one table; where to go on.
fn sweep_one<V: for<'a> Value<SelfType<'a> = V> + 'static>(
    table: &mut Table<'_, &'static str, V>,
    after: Option<String>,
    rows_max: usize,
    is_over: impl Fn(V) -> bool,
) -> Result<Option<String>, redb::Error> {
    let (mut over, mut last, mut seen) = (Vec::new(), None, 0);
    let part = usize::try_from(table.len()?.div_ceil(SWEEP_STEPS)).unwrap_or(usize::MAX);
    let rows_max = rows_max.max(part);
    let from = after.as_deref().map_or(Unbounded, Excluded);
    for row in table.range::<&str>((from, Unbounded))?.take(rows_max) {
        let (name, row) = row?;
        if is_over(row.value()) {
            over.push(name.value().to_owned());
        }
        seen += 1;
        last = (seen == rows_max).then(|| name.value().to_owned());
    }
    for name in over {
        table.remove(name.as_str())?;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use redb::Database;

    use super::*;

    const NOW_MS: u64 = 1_790_000_000_000;

    #[test]
    fn the_sweep_forgets_what_has_run_out_and_nothing_else() {
        let database =
            Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
        let txn = database.begin_write().unwrap();
        make(&txn).unwrap();
        for n in 0..20_u64 {
            let name = KeyName::parse(&format!("n{n}")).unwrap();
            let ttl = Duration::from_millis(if n % 4 == 0 { 10 } else { 1_000_000 });
            let ttl_of_counter = (n % 2 == 0).then_some(ttl);
            let count = CounterRequest {
                name: name.clone(),
                by: 1,
                min: None,
                max: None,
                ttl: ttl_of_counter,
                once: Some(7),
            };
            carry_out(&txn, &StockAsk::Count(count), NOW_MS).unwrap();
            let take = LockRequest { name, owner: LockOwner::of(n.into()), ttl };
            carry_out(&txn, &StockAsk::Acquire(take), NOW_MS).unwrap();
        }
        let mut cursor = StockSweep::default();
        let mut sweeps = |now_ms| (0..4).for_each(|_| sweep(&txn, &mut cursor, now_ms, 7).unwrap());
        let left = || {
            let counters = txn.open_table(COUNTERS).unwrap().len().unwrap();
            let counted = txn.open_table(COUNTED).unwrap().len().unwrap();
            (counters, counted, txn.open_table(LOCKS).unwrap().len().unwrap())
        };
        sweeps(NOW_MS + 9);
        assert_eq!(left(), (20, 20, 20));
        sweeps(NOW_MS + 10);
        assert_eq!(left(), (15, 20, 20), "a token is remembered for longer than its lock lasts");
        sweeps(NOW_MS + 10 + 3_600_000);
        assert_eq!(left(), (10, 0, 15));
    }

    #[test]
    fn the_sweep_keeps_up_however_many_come() {
        let database =
            Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
        let txn = database.begin_write().unwrap();
        make(&txn).unwrap();
        let (mut cursor, mut most) = (StockSweep::default(), 0);
        let name = KeyName::parse("swords").unwrap();
        for step in 0..1_200_u64 {
            let now_ms = NOW_MS + step * 1_000;
            for change in 0..20 {
                let (name, once) = (name.clone(), Some(u128::from(step * 20 + change)));
                let change = CounterRequest { name, by: 1, min: None, max: None, ttl: None, once };
                carry_out(&txn, &StockAsk::Count(change), now_ms).unwrap();
            }
            sweep(&txn, &mut cursor, now_ms, 7).unwrap();
            most = most.max(txn.open_table(COUNTED).unwrap().len().unwrap());
        }
        // A change is remembered for 300 s, and a sweep takes 64 at most.
        assert!(most <= 20 * (300 + 2 * SWEEP_STEPS), "{most}");
    }
}
