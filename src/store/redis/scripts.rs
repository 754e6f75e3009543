//! The Lua scripts and their typed wrappers, the only callers of the scripts: what goes in is a request of the trait,
//! what comes out its answer. The contracts are in the head of each script.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, RedisWrite, Value};

use super::lane::Repeat;
use super::lanes::Purpose;
use super::reply::{Reply, corrupt};
use super::routes::Routes;
use crate::ids::{Epoch, FlushSeq, Generation, Owner, Version};
use crate::store::layout::{self, Layout, ShardKeys};
use crate::store::{
    AcquireRequest, Acquired, BAN_END_MAX, BanMark, Bits, Commit, CommitRecord, Committed, EVENTS_MAX, Goes,
    Grant, Holder, Keep, NextGeneration, QUEUE_BYTES_MAX, QueueAdded, QueuedMessage, RateRequest, RateTaken,
    RecordStatus, Released, Renewed, Rotated, Stance, StoreError, StoredRecord, TIMELINE_MAX, Which,
};

/// One script in two files: the records and what is listed of them, then the entries that go with them.
const COMMIT: &str = concat!(include_str!("../lua/commit.lua"), include_str!("../lua/commit_entries.lua"));
/// Before the records of a commit.
const COMMIT_KEYS: usize = 4;
/// Redis refuses an expiry of zero, in the middle of a script; and one that overflows its clock.
const TTL_MS_MIN: u64 = 1;
const TTL_MS_MAX: u64 = 100 * 366 * 24 * 60 * 60 * 1000;

/// The latest time that 16 decimal digits can say.
const DIGITS_16_MAX: u64 = 9_999_999_999_999_999;

/// A script and its hash.
pub(super) struct Script {
    body: &'static str,
    hash: String,
}

impl Script {
    fn new(body: &'static str) -> Self {
        Self { body, hash: redis::Script::new(body).get_hash().to_owned() }
    }

    /// A call with this many keys, of which `key` is the first.
    pub(super) fn with<'a>(
        &'a self,
        key: &'a str,
        keys: usize,
        arguments: &'a (dyn Fn(&mut Cmd) + Sync),
    ) -> ScriptCall<'a> {
        ScriptCall { script: self, key, keys, arguments, size: Size::default() }
    }
}

/// A script with its keys and arguments, which are written once more if the server asks for the body.
#[derive(Clone, Copy)]
pub(super) struct ScriptCall<'a> {
    script: &'a Script,
    /// The first of its keys, which all lie in one slot.
    key: &'a str,
    keys: usize,
    arguments: &'a (dyn Fn(&mut Cmd) + Sync),
    size: Size,
}

/// How much a call is likely to hold, so that its buffer does not grow and move.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    arguments: usize,
    bytes: usize,
}

impl<'a> ScriptCall<'a> {
    pub(super) const fn key(&self) -> &'a str {
        self.key
    }

    pub(super) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.script.hash)
    }

    pub(super) fn by_body(&self) -> Cmd {
        self.command("EVAL", self.script.body)
    }

    fn command(&self, verb: &str, script: &str) -> Cmd {
        let mut command = Cmd::with_capacity(self.size.arguments, self.size.bytes + script.len());
        command.arg(verb).arg(script).arg(self.keys);
        (self.arguments)(&mut command);
        command
    }
}

/// The one that finds out whether changes are taken, and is no verb of the store's.
pub(super) fn probe() -> Script {
    Script::new(include_str!("../lua/probe.lua"))
}

/// All scripts, hashed once.
pub(super) struct Scripts {
    pub(super) lease_acquire: Script,
    pub(super) lease_renew: Script,
    pub(super) lease_look: Script,
    pub(super) members: Script,
    lease_release: Script,
    commit: Script,
    pub(super) confirm: Script,
    config_agree: Script,
    queue_add: Script,
    queue_remove: Script,
    known_rotate: Script,
    rate: Script,
    pub(super) counter: Script,
    pub(super) lock_acquire: Script,
    pub(super) lock_renew: Script,
    pub(super) lock_release: Script,
    pub(super) lock_cancel: Script,
    pub(super) blob_put: Script,
    pub(super) blob_remove: Script,
    pub(super) blobs_erase: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            lease_acquire: Script::new(include_str!("../lua/lease_acquire.lua")),
            lease_renew: Script::new(include_str!("../lua/lease_renew.lua")),
            lease_look: Script::new(include_str!("../lua/lease_look.lua")),
            members: Script::new(include_str!("../lua/members.lua")),
            lease_release: Script::new(include_str!("../lua/lease_release.lua")),
            commit: Script::new(COMMIT),
            confirm: Script::new(include_str!("../lua/confirm.lua")),
            config_agree: Script::new(include_str!("../lua/config_agree.lua")),
            queue_add: Script::new(include_str!("../lua/queue_add.lua")),
            queue_remove: Script::new(include_str!("../lua/queue_remove.lua")),
            known_rotate: Script::new(include_str!("../lua/known_rotate.lua")),
            rate: Script::new(include_str!("../lua/rate.lua")),
            counter: Script::new(include_str!("../lua/counter.lua")),
            lock_acquire: Script::new(include_str!("../lua/lock_acquire.lua")),
            lock_renew: Script::new(include_str!("../lua/lock_renew.lua")),
            lock_release: Script::new(include_str!("../lua/lock_release.lua")),
            lock_cancel: Script::new(include_str!("../lua/lock_cancel.lua")),
            blob_put: Script::new(include_str!("../lua/blob_put.lua")),
            blob_remove: Script::new(include_str!("../lua/blob_remove.lua")),
            blobs_erase: Script::new(include_str!("../lua/blobs_erase.lua")),
        }
    }

    pub(super) async fn lease_acquire(
        &self,
        routes: &Routes,
        layout: &Layout,
        request: &AcquireRequest,
    ) -> Result<Acquired, StoreError> {
        let meta = layout.shard(request.shard).meta();
        let arguments = |command: &mut Cmd| write_acquire(command, &meta, request);
        let call = self.lease_acquire.with(&meta, 1, &arguments);
        acquired(&mut Reply::of(routes.eval(Purpose::Leases, Repeat::Once, call).await?)?)
    }

    pub(super) async fn lease_renew(
        &self,
        routes: &Routes,
        keys: &ShardKeys,
        owner: &Owner,
        epoch: Epoch,
        ttl: Duration,
    ) -> Result<Renewed, StoreError> {
        let meta = keys.meta();
        let arguments = |command: &mut Cmd| {
            command.arg(&meta).arg(owner.as_str()).arg(epoch.number()).arg(ttl_ms(ttl));
        };
        let call = self.lease_renew.with(&meta, 1, &arguments);
        renewed(&mut Reply::of(routes.eval(Purpose::Renewals, Repeat::Once, call).await?)?)
    }

    pub(super) async fn lease_release(
        &self,
        routes: &Routes,
        keys: &ShardKeys,
        owner: &Owner,
        epoch: Epoch,
    ) -> Result<Released, StoreError> {
        let meta = keys.meta();
        let arguments = |command: &mut Cmd| {
            command.arg(&meta).arg(owner.as_str()).arg(epoch.number());
        };
        let call = self.lease_release.with(&meta, 1, &arguments);
        let mut reply = Reply::of(routes.eval(Purpose::Leases, Repeat::Never, call).await?)?;
        match reply.word()?.as_str() {
            "released" => Ok(Released::Released),
            "run_out" => Ok(Released::RunOut),
            "not_mine" => Ok(Released::NotMine),
            other => Err(corrupt(other)),
        }
    }

    /// Batches of different shards, sent together; an answer each, in their order.
    pub(super) async fn commit_all(
        &self,
        routes: &Routes,
        layout: &Layout,
        commits: &[&Commit],
    ) -> Vec<Result<Committed, StoreError>> {
        let keys: Vec<_> = commits.iter().map(|commit| layout.shard(commit.shard)).collect();
        let metas: Vec<_> = keys.iter().map(ShardKeys::meta).collect();
        let arguments: Vec<_> = commits
            .iter()
            .zip(&keys)
            .map(|(commit, keys)| move |command: &mut Cmd| write_commit(command, keys, commit))
            .collect();
        let calls = commits.iter().zip(&metas).zip(&arguments);
        let calls: Vec<_> = calls
            .map(|((commit, meta), write)| ScriptCall {
                size: size_of(commit),
                ..self.commit.with(meta, commit_keys(commit), write)
            })
            .collect();
        let answers = routes.eval_all(Purpose::Commits, &calls).await;
        commits.iter().zip(answers).map(|(commit, answer)| committed(answer?, commit)).collect()
    }

    pub(super) async fn queue_add(
        &self,
        routes: &Routes,
        keys: (&str, &str),
        holder: &Holder,
        message: &QueuedMessage,
        most: usize,
    ) -> Result<QueueAdded, StoreError> {
        let QueuedMessage { id, expires_at_unix_ms, body } = message;
        let arguments = |command: &mut Cmd| {
            write_holder(command, keys, holder);
            command.arg(most).arg(QUEUE_BYTES_MAX);
            write_arg(command, |arg| {
                write!(arg, "{id:032x}{:016}", (*expires_at_unix_ms).min(DIGITS_16_MAX))?;
                arg.write_all(body)
            });
        };
        let call = self.queue_add.with(keys.0, 2, &arguments);
        let mut reply = Reply::of(routes.eval(Purpose::Commits, Repeat::Once, call).await?)?;
        match reply.word()?.as_str() {
            "added" => Ok(QueueAdded::Added),
            "repeat" => Ok(QueueAdded::Repeat),
            "full" => Ok(QueueAdded::Full),
            "fenced" => Ok(QueueAdded::Fenced),
            other => Err(corrupt(other)),
        }
    }

    /// Not sent twice: what was taken would be taken again.
    pub(super) async fn rate(
        &self,
        routes: &Routes,
        key: &str,
        request: &RateRequest,
    ) -> Result<RateTaken, StoreError> {
        let arguments = |command: &mut Cmd| {
            command.arg(key).arg(request.per_s.get()).arg(request.burst.get());
            command.arg(request.most).arg(request.least);
        };
        let call = self.rate.with(key, 1, &arguments);
        let mut reply = Reply::of(routes.eval(Purpose::Reads, Repeat::Never, call).await?)?;
        match (reply.number()?, reply.number()?) {
            (0, wait_ms) => Ok(RateTaken::Wait(Duration::from_millis(wait_ms))),
            (taken, _) => Ok(RateTaken::Taken(taken.try_into().unwrap_or(u32::MAX))),
        }
    }

    /// Whether the shard was the holder's.
    pub(super) async fn queue_remove(
        &self,
        routes: &Routes,
        keys: (&str, &str),
        holder: &Holder,
        which: &Which,
    ) -> Result<bool, StoreError> {
        let arguments = |command: &mut Cmd| {
            write_holder(command, keys, holder);
            if let Which::These(ids) = which {
                command.arg("these");
                for id in ids {
                    command.arg(format!("{id:032x}"));
                }
            } else {
                command.arg("all");
            }
        };
        let call = self.queue_remove.with(keys.0, 2, &arguments);
        let mut reply = Reply::of(routes.eval(Purpose::Commits, Repeat::Once, call).await?)?;
        match reply.word()?.as_str() {
            "removed" => Ok(true),
            "fenced" => Ok(false),
            other => Err(corrupt(other)),
        }
    }

    pub(super) async fn known_rotate(
        &self,
        routes: &Routes,
        keys: &ShardKeys,
        holder: &Holder,
        next: &NextGeneration,
    ) -> Result<Rotated, StoreError> {
        let (meta, known, old) = (keys.meta(), keys.known(), keys.known_old());
        let (first, all) = (next.first.to_bitmap(), next.all.as_ref().map(Bits::to_bitmap));
        let arguments = |command: &mut Cmd| {
            command.arg(&meta).arg(&known).arg(&old);
            write_owner(command, holder);
            command.arg(ttl_ms(next.keeps)).arg(&first[..]).arg(all.as_deref().unwrap_or_default());
        };
        let call = self.known_rotate.with(&meta, 3, &arguments);
        let mut reply = Reply::of(routes.eval(Purpose::Upkeep, Repeat::Once, call).await?)?;
        match reply.word()?.as_str() {
            "rotated" => Ok(Rotated::Rotated),
            "young" => Ok(Rotated::Young),
            "fenced" => Ok(Rotated::Fenced),
            other => Err(corrupt(other)),
        }
    }

    /// For how long the cluster is being founded, and the values in force of these fields.
    pub(super) async fn config_agree(
        &self,
        routes: &Routes,
        key: &str,
        (stance, founding): (Stance, Duration),
        fields: &[(&str, Vec<u8>)],
    ) -> Result<Reply, StoreError> {
        let arguments = |command: &mut Cmd| {
            command.arg(key);
            command.arg(match stance {
                Stance::Founds => "founds",
                Stance::Insists => "insists",
            });
            command.arg(ttl_ms(founding));
            for (field, value) in fields {
                command.arg(field).arg(value.as_slice());
            }
        };
        let call = self.config_agree.with(key, 1, &arguments);
        Reply::of(routes.eval(Purpose::Leases, Repeat::Once, call).await?)
    }
}

/// KEYS and ARGV of `lease_acquire.lua`.
pub(super) fn write_acquire(command: &mut Cmd, meta: &str, request: &AcquireRequest) {
    command
        .arg(meta)
        .arg(request.owner.as_str())
        .arg(ttl_ms(request.ttl))
        .arg(request.floor.number())
        .arg(layout::hex16(request.generation_if_new.number()));
}

pub(super) fn acquired(reply: &mut Reply) -> Result<Acquired, StoreError> {
    match reply.word()?.as_str() {
        "granted" => Ok(Acquired::Granted(grant(reply)?)),
        "mine" => Ok(Acquired::AlreadyMine(grant(reply)?)),
        "held" => Ok(Acquired::Held {
            owner: Owner::named(&reply.word()?),
            remaining: Duration::from_millis(reply.number()?),
        }),
        "floor_poisoned" => Ok(Acquired::FloorPoisoned),
        other => Err(corrupt(other)),
    }
}

pub(super) fn renewed(reply: &mut Reply) -> Result<Renewed, StoreError> {
    match reply.word()?.as_str() {
        "renewed" => Ok(Renewed::Renewed {
            flush_seq: FlushSeq::of(reply.number()?),
            generation: Generation::of(reply.hex()?),
        }),
        "regranted" => Ok(Renewed::Regranted {
            flush_seq: FlushSeq::of(reply.number()?),
            generation: Generation::of(reply.hex()?),
        }),
        "fenced" => Ok(Renewed::Fenced { epoch: Epoch::of(reply.number()?) }),
        "rolled_back" => Ok(Renewed::RolledBack),
        other => Err(corrupt(other)),
    }
}

fn grant(reply: &mut Reply) -> Result<Grant, StoreError> {
    Ok(Grant {
        epoch: Epoch::of(reply.number()?),
        flush_seq: FlushSeq::of(reply.number()?),
        generation: Generation::of(reply.hex()?),
        version_max: Version::of(reply.hex()?),
        previous_owner: Some(reply.word()?).filter(|name| !name.is_empty()).map(|name| Owner::named(&name)),
    })
}

/// About what a commit's command takes: exact for records that are unmoved, as most are.
fn size_of(commit: &Commit) -> Size {
    const FIXED: usize = 512;
    let record = |record: &CommitRecord| {
        let moved = if record.keep == Keep::Unmoved { 0 } else { 128 };
        record.bytes() + record.player.as_str().len() + 128 + moved + 64 * record.entries.len()
    };
    let entries: usize = commit.records.iter().map(|record| record.entries.len()).sum();
    Size {
        arguments: 24 + 6 * commit.records.len() + 4 * entries,
        bytes: FIXED + commit.records.iter().map(record).sum::<usize>(),
    }
}

/// How many keys a commit names.
fn commit_keys(commit: &Commit) -> usize {
    let bans = usize::from(bans_of(commit).next().is_some());
    COMMIT_KEYS + commit.records.len() + moving(commit).count() + timelines(commit).count() + bans
}

fn committed(answer: Value, commit: &Commit) -> Result<Committed, StoreError> {
    let mut reply = Reply::of(answer)?;
    match reply.word()?.as_str() {
        "done" => statuses(&mut reply, commit.records.len()).map(Committed::Done),
        "fenced" => Ok(Committed::Fenced { epoch: Epoch::of(reply.number()?) }),
        "stale" => Ok(Committed::Stale { flush_seq: FlushSeq::of(reply.number()?) }),
        "rolled_back" => Ok(Committed::RolledBack),
        "lost" => Ok(Committed::Lost),
        other => Err(corrupt(other)),
    }
}

/// KEYS and ARGV of `commit.lua` and its second half, straight into the command's buffer.
fn write_commit(command: &mut Cmd, keys: &ShardKeys, commit: &Commit) {
    let records = &commit.records;
    let known =
        || (1_usize..).zip(records).filter(|(_, record)| record.known && record.keep != Keep::Unmoved);
    command.arg(keys.meta()).arg(keys.expiry()).arg(keys.known()).arg(keys.events());
    for record in records {
        write_arg(command, |arg| write_parts(arg, keys.record(&record.player)));
    }
    for record in moving(commit) {
        write_arg(command, |arg| write_parts(arg, keys.watches(&record.player)));
    }
    for record in timelines(commit) {
        write_arg(command, |arg| write_parts(arg, keys.timeline(&record.player)));
    }
    if bans_of(commit).next().is_some() {
        command.arg(keys.bans());
    }
    command
        .arg(commit.owner.as_str())
        .arg(commit.epoch.number())
        .arg(layout::hex16(commit.epoch.number()))
        .arg(layout::hex16(commit.generation.number()))
        .arg(commit.flush_seq.number())
        .arg(commit.flush_seq_acked.number())
        .arg(EVENTS_MAX)
        .arg(TIMELINE_MAX)
        .arg(ttl_ms(commit.remember));
    write_arg(command, |arg| records.iter().try_for_each(|record| arg.write_all(&[letter(record)])));
    write_arg(command, |arg| {
        records.iter().try_for_each(|record| layout::write_record(arg, commit.epoch, record.base, &[]))
    });
    command.arg(2 * layout::KNOWN_BITS_PER_PLAYER * known().count()).arg(2 * bans_of(commit).count());
    for record in records {
        write_arg(command, |arg| layout::write_record(arg, commit.epoch, record.version, &record.p));
    }
    for record in moving(commit) {
        let score = match record.keep {
            Keep::Live { expires_at_unix_ms } => expires_at_unix_ms,
            Keep::Unmoved | Keep::Remainder | Keep::Erase => 0,
        };
        command.arg(ttl_ms(record.ttl)).arg(score).arg(record.w.as_deref().unwrap_or_default());
    }
    for (number, record) in known() {
        for bit in layout::known_bits(&record.player) {
            command.arg(number).arg(bit);
        }
    }
    for (number, mark) in bans_of(commit) {
        command.arg(number);
        match mark {
            BanMark::Until(ends) => command.arg(ends.min(BAN_END_MAX)),
            BanMark::Lifted | BanMark::Unmoved => command.arg(""),
        };
    }
    for (number, record) in (1_usize..).zip(records) {
        for entry in &record.entries {
            let goes = match entry.goes {
                Goes::Events => "e",
                Goes::Timeline => "t",
                Goes::Both => "b",
                Goes::Forget => "f",
            };
            command.arg(number).arg(layout::hex16(entry.version.number())).arg(goes).arg(&entry.body[..]);
        }
    }
}

/// The records that move their player's place among the banned, by number.
fn bans_of(commit: &Commit) -> impl Iterator<Item = (usize, BanMark)> {
    let numbered = (1_usize..).zip(&commit.records).filter(|(_, record)| record.keep != Keep::Unmoved);
    numbered.map(|(number, record)| (number, record.ban)).filter(|(_, mark)| *mark != BanMark::Unmoved)
}

/// The records of which more than `p` is written.
fn moving(commit: &Commit) -> impl Iterator<Item = &CommitRecord> {
    commit.records.iter().filter(|record| record.keep != Keep::Unmoved)
}

/// The records with an entry that concerns their player's timeline.
fn timelines(commit: &Commit) -> impl Iterator<Item = &CommitRecord> {
    let concerns = |record: &&CommitRecord| record.entries.iter().any(|entry| entry.goes.is_timeline());
    commit.records.iter().filter(concerns)
}

/// How `commit.lua` is told what to do with a record.
fn letter(record: &CommitRecord) -> u8 {
    let letter = match record.keep {
        Keep::Unmoved => return b'u',
        Keep::Live { .. } if record.w.is_some() => b'w',
        Keep::Live { .. } => b'l',
        Keep::Remainder => b'r',
        Keep::Erase => b'x',
    };
    if record.restore { letter.to_ascii_uppercase() } else { letter }
}

/// One argument, written piece by piece. A command's buffer takes whatever comes.
pub(super) fn write_arg(command: &mut Cmd, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
    let written = write(&mut command.writer_for_next_arg());
    debug_assert!(written.is_ok(), "a buffer in memory");
}

fn write_parts(out: &mut dyn Write, parts: [&str; 3]) -> io::Result<()> {
    parts.iter().try_for_each(|part| out.write_all(part.as_bytes()))
}

fn statuses(reply: &mut Reply, count: usize) -> Result<Vec<RecordStatus>, StoreError> {
    let letters = reply.word()?;
    if letters.len() != count {
        return Err(corrupt(&letters));
    }
    letters
        .chars()
        .map(|letter| match letter {
            'a' => Ok(RecordStatus::Applied),
            's' => Ok(RecordStatus::Same),
            'r' => Ok(RecordStatus::Repaired),
            't' => Ok(RecordStatus::Restored),
            'g' => Ok(RecordStatus::Gone),
            'e' => {
                let (p, w) = (reply.bytes()?, reply.bytes()?);
                Ok(RecordStatus::Exists(stored_record(p.as_ref(), w)?))
            }
            _ => Err(corrupt(&letters)),
        })
        .collect()
}

/// A record as it is stored.
pub(super) fn stored_record(p: Option<&Bytes>, w: Option<Bytes>) -> Result<StoredRecord, StoreError> {
    let (epoch, version, p) = p
        .and_then(layout::decode_record)
        .ok_or_else(|| StoreError::Corrupt("a record without epoch and version".into()))?;
    Ok(StoredRecord { epoch, version, p, w })
}

/// Meta and queue as KEYS, and who writes, as `queue_add.lua` and `queue_remove.lua` begin.
fn write_holder(command: &mut Cmd, (meta, queue): (&str, &str), holder: &Holder) {
    command.arg(meta).arg(queue);
    write_owner(command, holder);
}

/// Who writes.
fn write_owner(command: &mut Cmd, holder: &Holder) {
    command
        .arg(holder.owner.as_str())
        .arg(holder.epoch.number())
        .arg(layout::hex16(holder.generation.number()));
}

/// A message as it is stored; `None` if it is none of ours.
pub(super) fn queued_message(stored: &Bytes) -> Option<QueuedMessage> {
    let text = |from: usize, to: usize| std::str::from_utf8(stored.get(from..to)?).ok();
    Some(QueuedMessage {
        id: u128::from_str_radix(text(0, 32)?, 16).ok()?,
        expires_at_unix_ms: text(32, 48)?.parse().ok()?,
        body: stored.slice(48..),
    })
}

pub(super) fn ttl_ms(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(TTL_MS_MIN, TTL_MS_MAX)
}

#[cfg(test)]
mod tests;
