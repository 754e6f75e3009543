//! `state.get` and `state.patch`: the player's small shared state. Pure; part of the record.

use super::{Admission, Context, Record, Refusal};
use crate::ids::{SessionId, Stamp};

/// Most bytes of a key.
pub const STATE_KEY_BYTES_MAX: usize = 64;

/// A change of the state: `set` first, then `unset`, then `incr`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch<'a> {
    /// Keys to write, values as MessagePack.
    pub set: Vec<(&'a str, Box<[u8]>)>,
    /// Keys to remove.
    pub unset: Vec<&'a str>,
    /// Keys to add to.
    pub incr: Vec<(&'a str, i64)>,
    /// Only if the state still stands there.
    pub if_state: Option<Stamp>,
}

/// What a patch did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patched {
    /// Whether it was new.
    pub admission: Admission,
    /// Where the record stands.
    pub stamp: Stamp,
    /// Where the state last changed.
    pub state_stamp: Stamp,
    /// What `incr` made of its keys (present values on a repeat).
    pub counted: Vec<(Box<str>, i64)>,
}

impl Record {
    /// Carries a patch out, whole or not at all.
    ///
    /// # Errors
    /// [`Refusal::CseqGap`], [`Refusal::StateConflict`], [`Refusal::TooLarge`], [`Refusal::BadRequest`],
    /// [`Refusal::NoSession`]; a refused patch uses no counter.
    pub fn patch(
        &mut self,
        ctx: Context<'_>,
        id: SessionId,
        patch: &Patch<'_>,
        cseq: Option<u64>,
    ) -> Result<Patched, Refusal> {
        if self.admit(ctx, id, cseq)? == Admission::Repeat {
            self.touch_activity(ctx, id)?;
            return Ok(self.patched(Admission::Repeat, self.present_counts(patch)));
        }
        let done = self.patch_state(ctx, patch)?;
        if let Err(refusal) = self.accept(ctx, id, cseq) {
            self.undo(done.before);
            return Err(refusal);
        }
        Ok(self.stand_at(done))
    }

    /// The same from a service: without a session's counter.
    ///
    /// # Errors
    /// As [`Record::patch`]; [`Refusal::NoSession`] when the player has no session at all.
    pub fn patch_by_service(&mut self, ctx: Context<'_>, patch: &Patch<'_>) -> Result<Patched, Refusal> {
        if self.sessions.is_empty() {
            return Err(Refusal::NoSession);
        }
        let done = self.patch_state(ctx, patch)?;
        self.version = self.version.next();
        Ok(self.stand_at(done))
    }

    /// The state stands at the present version now, if it is another one than before.
    fn stand_at(&mut self, done: Done<'_>) -> Patched {
        let mut before = done.before;
        // What a key held before its first step stands first among its own.
        before.sort_by_key(|(key, _)| *key);
        before.dedup_by_key(|(key, _)| *key);
        if before.iter().any(|(key, value)| self.state.get(key) != value.as_deref()) {
            self.state_stamp = self.stamp();
        }
        self.patched(Admission::New, done.counted)
    }

    /// Takes the steps back, the latest first.
    fn undo(&mut self, before: Vec<Step<'_>>) {
        for (key, value) in before.into_iter().rev() {
            match value {
                Some(value) => drop(self.state.set(key, value)),
                None => drop(self.state.unset(key)),
            }
        }
    }

    fn patched(&self, admission: Admission, counted: Vec<(Box<str>, i64)>) -> Patched {
        Patched { admission, stamp: self.stamp(), state_stamp: self.state_stamp, counted }
    }

    fn present_counts(&self, patch: &Patch<'_>) -> Vec<(Box<str>, i64)> {
        let present = |key: &str| self.state.get(key).and_then(read_integer);
        patch.incr.iter().filter_map(|(key, _)| Some(((*key).into(), present(key)?))).collect()
    }

    /// Carries the patch out in place; whatever is refused leaves the state as it was.
    fn patch_state<'a>(&mut self, ctx: Context<'_>, patch: &Patch<'a>) -> Result<Done<'a>, Refusal> {
        if patch.if_state.is_some_and(|seen| seen != self.state_stamp) {
            return Err(Refusal::StateConflict { state_stamp: self.state_stamp });
        }
        // What is written alone must fit: a flood of keys is refused before it costs anything.
        let set = patch.set.iter().map(|(key, value)| key.len() + 2 + value.len());
        // The shortest number takes a byte.
        let counted =
            patch.incr.iter().map(|(key, _)| if self.state.get(key).is_none() { key.len() + 3 } else { 0 });
        let written: usize = set.chain(counted).sum();
        if written > ctx.rules.state_bytes_max {
            return Err(TOO_LARGE);
        }
        let steps = patch.set.len() + patch.unset.len() + patch.incr.len();
        let mut done =
            Done { before: Vec::with_capacity(steps), counted: Vec::with_capacity(patch.incr.len()) };
        if let Err(refusal) = self.take_steps(ctx, patch, &mut done) {
            self.undo(done.before);
            return Err(refusal);
        }
        Ok(done)
    }

    fn take_steps<'a>(
        &mut self,
        ctx: Context<'_>,
        patch: &Patch<'a>,
        done: &mut Done<'a>,
    ) -> Result<(), Refusal> {
        for (key, value) in &patch.set {
            done.before.push((key, self.state.set(checked_key(key)?, value.clone())));
        }
        for key in &patch.unset {
            done.before.push((key, self.state.unset(key)));
        }
        for (key, by) in &patch.incr {
            let before = match self.state.get(checked_key(key)?) {
                None => 0,
                Some(value) => read_integer(value).ok_or(Refusal::BadRequest("incr needs an integer"))?,
            };
            let after = before.checked_add(*by).ok_or(Refusal::BadRequest("incr passes the range of i64"))?;
            done.before.push((key, self.state.set(key, write_integer(after))));
            done.counted.push(((*key).into(), after));
        }
        if self.state.encoded_bytes() > ctx.rules.state_bytes_max { Err(TOO_LARGE) } else { Ok(()) }
    }
}

const TOO_LARGE: Refusal =
    Refusal::TooLarge("the state would pass its limit (`state_bytes` among the limits that `ready` names)");

/// A key that was written or removed, with what it held.
type Step<'a> = (&'a str, Option<Box<[u8]>>);

/// What a patch has done to the state.
struct Done<'a> {
    before: Vec<Step<'a>>,
    /// What `incr` made of its keys.
    counted: Vec<(Box<str>, i64)>,
}

fn checked_key(key: &str) -> Result<&str, Refusal> {
    match key.len() {
        0 => Err(Refusal::BadRequest("a state key must not be empty")),
        1..=STATE_KEY_BYTES_MAX => Ok(key),
        _ => Err(Refusal::TooLarge("a state key has at most 64 bytes")),
    }
}

fn read_integer(value: &[u8]) -> Option<i64> {
    rmp_serde::from_slice(value).ok()
}

fn write_integer(number: i64) -> Box<[u8]> {
    // An integer always encodes.
    rmp_serde::to_vec(&number).unwrap_or_default().into_boxed_slice()
}
