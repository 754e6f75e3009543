//! The one thread that writes the embedded store: it takes whatever waits in a bounded queue, carries it out in one
//! transaction, syncs once, and answers all of it. Started by `embedded::open`. It outlives every failing disk:
//! it refuses, opens the file again and goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use redb::{Database, ReadableDatabase};
use tokio::sync::{mpsc, oneshot};

use super::file::Folder;
use super::stock::{self, StockAnswer, StockAsk, StockSweep};
use super::tables::{SweepCursor, WriteTables, read_metas};
use crate::clock;
use crate::ids::{PlayerId, ShardId};
use crate::store::judge::{self, Meta};
use crate::store::{
    AcquireRequest, Acquired, Commit, Committed, Holder, QueueAdded, QueuedMessage, StoreError, Which,
};

/// Requests that may wait for the writer; beyond, callers wait until their deadline.
pub(super) const QUEUE_OPS_MAX: usize = 256;
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// About a tenth of a millisecond of reading.
const SWEEP_ROWS_MAX: usize = 512;
const REOPEN_BACKOFF_MIN: Duration = Duration::from_millis(250);
const REOPEN_BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What the writer is asked.
#[derive(Debug)]
pub(super) enum Ask {
    Acquire(AcquireRequest),
    Commit(Commit),
    QueueAdd {
        shard: ShardId,
        holder: Holder,
        player: PlayerId,
        message: QueuedMessage,
        most: usize,
    },
    QueueRemove {
        shard: ShardId,
        holder: Holder,
        player: PlayerId,
        which: Which,
    },
    /// Whatever services keep beside players.
    Stock(StockAsk),
    /// Write a cluster-wide value unless there is one.
    Agree {
        name: &'static str,
        proposal: Vec<u8>,
    },
    /// Write a cluster-wide value.
    Put {
        name: &'static str,
        value: Vec<u8>,
    },
    Close,
}

/// What it answers, in the same order.
#[derive(Debug)]
pub(super) enum Answer {
    Acquired(Acquired),
    Committed(Committed),
    Agreed(Vec<u8>),
    Queued(QueueAdded),
    Removed(bool),
    Stock(StockAnswer),
    Done,
}

/// One request and where its answer goes. An answer that nobody waits for any more is dropped.
pub(super) struct Op {
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Result<Answer, StoreError>>,
}

/// What the writer shares with readers and with renewals.
pub(super) struct Shared {
    /// `None` while the file is closed: after the end, and between a failure and the next try.
    pub(super) database: RwLock<Option<Database>>,
    /// Every shard's meta, with the holders, which exist only here. The writer alone changes what is also on disk;
    /// a renewal or release changes the holder, in nanoseconds, and never waits for a disk.
    pub(super) metas: Mutex<HashMap<ShardId, Meta>>,
}

impl Shared {
    pub(super) fn of(database: Database) -> Result<Arc<Self>, redb::Error> {
        let metas = HashMap::from_iter(metas_of(&database)?);
        Ok(Arc::new(Self { database: RwLock::new(Some(database)), metas: Mutex::new(metas) }))
    }
}

/// The writer's state.
pub(super) struct Writer {
    folder: Folder,
    shared: Arc<Shared>,
    sweep: SweepCursor,
    stock_sweep: StockSweep,
    sweep_due: Instant,
    failures_in_a_row: u32,
    reopen_due: Instant,
}

impl Writer {
    pub(super) fn new(folder: Folder, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        Self {
            folder,
            shared,
            sweep: SweepCursor::default(),
            stock_sweep: StockSweep::default(),
            sweep_due: now,
            failures_in_a_row: 0,
            reopen_due: now,
        }
    }

    /// Works until it is asked to close or nobody can ask any more.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Op>) {
        let mut group = Vec::new();
        let mut closing = None;
        while closing.is_none()
            && let Some(first) = queue.blocking_recv()
        {
            let mut next = Some(first);
            while let Some(op) = next {
                if matches!(op.ask, Ask::Close) {
                    closing = Some(op.reply);
                    break;
                }
                group.push(op);
                next = if group.len() < QUEUE_OPS_MAX { queue.try_recv().ok() } else { None };
            }
            if !group.is_empty() {
                self.answer(std::mem::take(&mut group));
            }
        }
        // In this order: whoever hears the answer may open the folder at once.
        let closed = self.shared.database.write().take().map_or(Ok(()), Database::close);
        drop(self);
        if let Some(reply) = closing {
            let _ = reply.send(closed.map(|()| Answer::Done).map_err(|error| refused(&error)));
        }
    }

    fn answer(&mut self, group: Vec<Op>) {
        let answers = self.open_again().and_then(|()| {
            self.write(&group).map_err(|error| {
                self.fail(&error);
                error.to_string()
            })
        });
        match answers {
            Ok(answers) => {
                self.failures_in_a_row = 0;
                for (op, answer) in group.into_iter().zip(answers) {
                    let _ = op.reply.send(Ok(answer));
                }
            }
            Err(error) => {
                for op in group {
                    let _ = op.reply.send(Err(StoreError::Refused(error.clone())));
                }
            }
        }
    }

    /// Carries out a group in one transaction; nothing of it is durable unless all of it is.
    fn write(&mut self, group: &[Op]) -> Result<Vec<Answer>, redb::Error> {
        let shared = Arc::clone(&self.shared);
        let database = shared.database.read();
        let Some(database) = database.as_ref() else { return Err(redb::Error::DatabaseClosed) };
        let now_ms = clock::now().unix_ms;
        let txn = database.begin_write()?;
        let mut answers = Vec::with_capacity(group.len());
        let mut is_dirty = false;
        {
            let mut tables = WriteTables::open(&txn)?;
            for op in group {
                let (answer, writes) = match &op.ask {
                    Ask::Stock(ask) => {
                        let (answer, writes) = stock::carry_out(&txn, ask, now_ms)?;
                        (Answer::Stock(answer), writes)
                    }
                    ask => self.carry_out(ask, &mut tables, now_ms)?,
                };
                is_dirty |= writes;
                answers.push(answer);
            }
            if is_dirty && self.sweep_due <= Instant::now() {
                tables.sweep(&mut self.sweep, now_ms, SWEEP_ROWS_MAX)?;
                stock::sweep(&txn, &mut self.stock_sweep, now_ms, SWEEP_ROWS_MAX)?;
                self.sweep_due = Instant::now() + SWEEP_INTERVAL;
            }
        }
        if is_dirty {
            txn.commit()?
        } else {
            txn.abort()?
        }
        Ok(answers)
    }

    fn carry_out(
        &self,
        ask: &Ask,
        tables: &mut WriteTables<'_>,
        now_ms: u64,
    ) -> Result<(Answer, bool), redb::Error> {
        Ok(match ask {
            Ask::Acquire(request) => {
                let (acquired, changed) = {
                    let mut metas = self.shared.metas.lock();
                    let (acquired, changed) = judge::acquire(metas.get(&request.shard), request, now_ms);
                    if let Some(meta) = &changed {
                        metas.insert(request.shard, meta.clone());
                    }
                    (acquired, changed)
                };
                match changed {
                    // Only a grant changes what the file holds.
                    Some(meta) if matches!(acquired, Acquired::Granted(_)) => {
                        tables.put_meta(request.shard, &meta)?;
                        (Answer::Acquired(acquired), true)
                    }
                    _ => (Answer::Acquired(acquired), false),
                }
            }
            Ask::Commit(commit) => self.commit(commit, tables, now_ms)?,
            Ask::QueueAdd { shard, holder, player, message, most } => {
                if !judge::holds(self.shared.metas.lock().get(shard), holder) {
                    return Ok((Answer::Queued(QueueAdded::Fenced), false));
                }
                let added = tables.absent.add(*shard, player, message, *most, now_ms)?;
                (Answer::Queued(added), added == QueueAdded::Added)
            }
            Ask::QueueRemove { shard, holder, player, which } => {
                let held = judge::holds(self.shared.metas.lock().get(shard), holder);
                if held {
                    tables.absent.remove(*shard, player, which)?;
                }
                (Answer::Removed(held), held)
            }
            Ask::Agree { name, proposal } => (Answer::Agreed(tables.agree(name, proposal)?), true),
            Ask::Put { name, value } => {
                tables.put_cluster(name, value)?;
                (Answer::Done, true)
            }
            // Neither comes here: `write` and `run` see to them.
            Ask::Stock(_) | Ask::Close => (Answer::Done, false),
        })
    }

    fn commit(
        &self,
        commit: &Commit,
        tables: &mut WriteTables<'_>,
        now_ms: u64,
    ) -> Result<(Answer, bool), redb::Error> {
        let meta = match judge::fence(self.shared.metas.lock().get(&commit.shard), commit) {
            Ok(meta) => meta.clone(),
            Err(refusal) => return Ok((Answer::Committed(refusal), false)),
        };
        let (committed, after) = tables.commit(&meta, commit, now_ms)?;
        if let Some(shared) = self.shared.metas.lock().get_mut(&commit.shard) {
            shared.flush_seq = after.flush_seq;
            shared.version_max = after.version_max;
        }
        Ok((Answer::Committed(committed), true))
    }

    /// After an I/O error the database answers nothing any more: let go of it, and try again later.
    fn fail(&mut self, error: &dyn std::fmt::Display) {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let doublings = self.failures_in_a_row.saturating_sub(2).min(8);
        let backoff = match self.failures_in_a_row {
            1 => Duration::ZERO,
            _ => (REOPEN_BACKOFF_MIN * 2_u32.pow(doublings)).min(REOPEN_BACKOFF_MAX),
        };
        self.reopen_due = Instant::now() + backoff;
        tracing::warn!(
            operation = "store.write",
            status = %error,
            failures_in_a_row = self.failures_in_a_row,
            "the embedded store cannot write; the file is opened again"
        );
        // Dropping is all there is to do: closing reports the same error again.
        drop(self.shared.database.write().take());
    }

    /// Opens the file if it is closed, and its time has come. The error is why the store refuses.
    fn open_again(&mut self) -> Result<(), String> {
        if self.shared.database.read().is_some() {
            return Ok(());
        }
        if Instant::now() < self.reopen_due {
            return Err("its disk failed a moment ago".to_owned());
        }
        let reopened = self.folder.reopen().map_err(|error| error.to_string()).and_then(|database| {
            let metas = metas_of(&database).map_err(|error| error.to_string())?;
            Ok((database, metas))
        });
        match reopened {
            Ok((database, metas)) => {
                self.take_over_metas(metas);
                *self.shared.database.write() = Some(database);
                tracing::warn!(operation = "store.open", "the embedded store is open again");
                Ok(())
            }
            Err(error) => {
                self.fail(&error);
                Err(error)
            }
        }
    }

    /// What the file says is what counts; a holder stays where the epoch did.
    fn take_over_metas(&self, stored: Vec<(ShardId, Meta)>) {
        let mut metas = self.shared.metas.lock();
        let before = std::mem::take(&mut *metas);
        for (shard, mut meta) in stored {
            if let Some(held) = before.get(&shard).filter(|held| held.epoch == meta.epoch) {
                meta.holder.clone_from(&held.holder);
                meta.until_ms = held.until_ms;
                meta.previous_owner.clone_from(&held.previous_owner);
            }
            metas.insert(shard, meta);
        }
    }
}

fn metas_of(database: &Database) -> Result<Vec<(ShardId, Meta)>, redb::Error> {
    read_metas(&database.begin_read()?)
}

fn refused(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Refused(error.to_string())
}
