//! A log told as lives: from one fresh login to the next, cut into segments by every notice of a rollback, with each
//! change and the line of history that it belongs to. Used by the checkers; judges nothing.
//!
//! Numbers (`cseq`) lost in a rollback are used again, so a number names a change only within a line. A change answered in
//! segment `j` under number `q` took effect in the latest segment `i ≤ j` whose rollback left less than `q`: its birth.

use std::collections::HashMap;

use protocol::request::{Ack, Status};
use protocol::{ErrorCode, Stamp};

use crate::history::{Entry, Notice, Opened, Operation, RING_SLOTS, Value, What};

/// One life of a player's state, as its bot saw it.
#[derive(Debug)]
pub struct Life<'a> {
    /// Which bot.
    pub process: u32,
    /// The bot's whole log.
    pub log: &'a [Entry],
    /// The position of its first entry, a `ready`.
    pub start: usize,
    /// Segments, the first one from the login.
    pub segments: Vec<Segment>,
    /// Changes that took effect or may have, in the order asked.
    pub changes: Vec<Change>,
    /// Writes that were refused: their `k`.
    pub refused: Vec<u64>,
    /// Reads of the whole state.
    pub reads: Vec<Read<'a>>,
    /// Every `ready`, with its position.
    pub readies: Vec<(usize, &'a Opened)>,
    /// Every `durable` notice: position, segment, `cseq`.
    pub durables: Vec<(usize, usize, u64)>,
    /// How it ended.
    pub end: End<'a>,
    /// The counter before the first write, where the log tells it.
    pub base: Option<i64>,
    /// The numbers of the writes in each segment's line, sorted.
    lines: Vec<Vec<u64>>,
}

/// The time between two rollbacks.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// The position of the notice.
    pub start: usize,
    /// The highest `cseq` that survived.
    pub survived: u64,
    /// Whether the server said so; else only its `cseq` fell.
    pub told: bool,
}

/// How a life ended.
#[derive(Debug, Clone, Copy)]
pub enum End<'a> {
    /// With the log.
    Log,
    /// The bot logged out.
    Logout,
    /// A `resume` was refused: the position, and what it claimed.
    Turned(usize, &'a Notice),
    /// Otherwise: the server closed it, or a login took its place.
    Other,
}

/// A session that was refused before its time: with all that was acked in it, since her state goes with her last session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Early {
    /// The position of the refusal.
    pub at: usize,
    /// How long it had no link at most, ms, and how long it was to outlive that.
    pub away_ms: u64,
    /// See above.
    pub resume_ms: u64,
    /// The server said that the store has lost it.
    pub told: bool,
}

/// One change.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its `k`: the order asked.
    pub k: u64,
    /// A write, else a change of presence.
    pub is_write: bool,
    /// Positions in the log.
    pub invoked: usize,
    /// Where its outcome stands.
    pub answered: usize,
    /// The segment of `answered`.
    pub segment: usize,
    /// The segment in which it took effect.
    pub birth: usize,
    /// Its number in that line; 0 if it was never sent.
    pub cseq: u64,
    /// Nobody knows whether it took effect.
    pub is_unknown: bool,
    /// The answer's fields.
    pub stamp: Option<Stamp>,
    /// The level reached.
    pub ack: Option<Ack>,
    /// It had taken effect before this answer.
    pub dup: bool,
    /// The counter in the answer.
    pub counter: Option<i64>,
    /// The `cseq` of the latest `ready` before the answer.
    pub ready_cseq: u64,
    /// From which position on it is known to be durable.
    pub durable_from: Option<usize>,
}

/// One read of the whole state.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    /// Positions in the log.
    pub invoked: usize,
    /// Where its answer stands.
    pub answered: usize,
    /// The segment of `answered`.
    pub segment: usize,
    /// Where the record stood.
    pub stamp: Stamp,
    /// The counter.
    pub counter: i64,
    /// The write in each slot.
    pub ring: &'a [u64],
}

impl Change {
    /// Whether it is part of the line of `segment`.
    #[must_use]
    pub fn lives_in(&self, life: &Life<'_>, segment: usize) -> bool {
        self.cseq > 0
            && self.birth <= segment
            && life
                .segments
                .get(self.birth + 1..=segment)
                .unwrap_or(&[])
                .iter()
                .all(|s| self.cseq <= s.survived)
    }

    /// Acknowledged in an answer that stands before `position`.
    #[must_use]
    pub fn acked_before(&self, position: usize) -> bool {
        !self.is_unknown && self.answered < position
    }

    /// Its slot in the ring.
    #[must_use]
    pub fn slot(&self) -> u64 {
        self.k % RING_SLOTS
    }
}

impl Read<'_> {
    /// The write that a slot shows; 0 for none.
    #[must_use]
    pub fn in_slot(&self, slot: u64) -> u64 {
        usize::try_from(slot).ok().and_then(|slot| self.ring.get(slot)).copied().unwrap_or(0)
    }
}

impl Life<'_> {
    /// How its session was refused before its time, if it was.
    #[must_use]
    pub fn ended_early(&self) -> Option<Early> {
        let End::Turned(at, Notice::Turned { code, claim: Some(claim), lost }) = self.end else {
            return None;
        };
        let resume_ms = self.readies.last().map_or(0, |(_, opened)| opened.resume_ms);
        let is_early = *code == ErrorCode::NotResumable && claim.away_ms < resume_ms;
        is_early.then_some(Early { at, away_ms: claim.away_ms, resume_ms, told: *lost })
    }

    /// Writes that can be part of the line of `segment` up to number `cseq`: at least, at most. They differ by writes that
    /// had no answer when the segment ended: each may have taken effect in it, was lost, and went out again.
    #[must_use]
    pub fn rank(&self, segment: usize, cseq: u64, k: u64) -> (i64, i64) {
        let least = self.lines.get(segment).map_or(0, |line| line.partition_point(|number| *number <= cseq));
        let is_last = segment + 1 >= self.segments.len();
        let loose = |w: &&Change| w.is_write && w.k < k && w.segment > segment && w.birth > segment;
        let loose = if is_last { 0 } else { self.changes.iter().filter(loose).count() };
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        (count(least), count(least + loose))
    }
}

/// Cuts one log into lives.
#[must_use]
pub fn of(process: u32, log: &[Entry]) -> Vec<Life<'_>> {
    let mut lives: Vec<Life<'_>> = Vec::new();
    let mut asked: HashMap<u64, (usize, &Operation)> = HashMap::new();
    for (at, entry) in log.iter().enumerate() {
        if let What::Notice { notice: Notice::Ready(opened) } = &entry.what
            && !opened.resumed
        {
            lives.push(Life::starting(process, log, at));
        }
        if let What::Invoke { id, operation } = &entry.what {
            asked.insert(*id, (at, operation));
        } else if let Some(life) = lives.last_mut() {
            life.take(at, &entry.what, &mut asked);
        }
    }
    // What has no outcome at all may have taken effect in the life in which it was asked.
    for (invoked, operation) in asked.into_values() {
        if let Some(life) = lives.iter_mut().rfind(|life| life.start <= invoked) {
            life.take_change(log.len(), invoked, operation, |change| change.is_unknown = true);
        }
    }
    for life in &mut lives {
        life.changes.sort_by_key(|change| change.k);
        life.find_births();
        life.find_lines();
        life.find_durable();
        life.find_base();
    }
    lives
}

impl<'a> Life<'a> {
    fn starting(process: u32, log: &'a [Entry], start: usize) -> Self {
        Self {
            process,
            log,
            start,
            segments: vec![Segment { start, survived: 0, told: true }],
            changes: Vec::new(),
            refused: Vec::new(),
            reads: Vec::new(),
            readies: Vec::new(),
            durables: Vec::new(),
            end: End::Log,
            base: None,
            lines: Vec::new(),
        }
    }

    fn segment(&self) -> usize {
        self.segments.len().saturating_sub(1)
    }

    fn take(&mut self, at: usize, what: &'a What, asked: &mut HashMap<u64, (usize, &'a Operation)>) {
        match what {
            What::Notice { notice } => self.take_notice(at, notice),
            What::Invoke { .. } => {}
            What::Ok { id, cseq, stamp, ack, dup, value, .. } => {
                let Some((invoked, operation)) = asked.remove(id) else { return };
                match (operation, value) {
                    (Operation::Read, Value::State { counter, ring }) => self.reads.push(Read {
                        invoked,
                        answered: at,
                        segment: self.segment(),
                        stamp: stamp.unwrap_or_default(),
                        counter: *counter,
                        ring,
                    }),
                    (Operation::Logout, _) => self.end = End::Logout,
                    _ => self.take_change(at, invoked, operation, |change| {
                        change.cseq = cseq.unwrap_or(0);
                        change.stamp = *stamp;
                        change.ack = *ack;
                        change.dup = *dup;
                        change.counter = match value {
                            Value::Counter(counter) => Some(*counter),
                            _ => None,
                        };
                    }),
                }
            }
            What::Fail { id, cseq, applied, .. } => {
                let Some((invoked, operation)) = asked.remove(id) else { return };
                match operation {
                    Operation::Write { k, .. } if !applied => self.refused.push(*k),
                    _ if !applied => {}
                    _ => self.take_change(at, invoked, operation, |change| {
                        change.cseq = cseq.unwrap_or(0);
                        change.ack = Some(Ack::Applied);
                    }),
                }
            }
            What::Unknown { id, cseq } => {
                let Some((invoked, operation)) = asked.remove(id) else { return };
                if matches!(operation, Operation::Logout) {
                    self.end = End::Logout;
                }
                self.take_change(at, invoked, operation, |change| {
                    change.cseq = cseq.unwrap_or(0);
                    change.is_unknown = true;
                });
            }
        }
    }

    fn take_change(
        &mut self,
        at: usize,
        invoked: usize,
        operation: &Operation,
        fill: impl FnOnce(&mut Change),
    ) {
        let (k, is_write) = match operation {
            Operation::Write { k, .. } => (*k, true),
            Operation::Presence { k, .. } => (*k, false),
            _ => return,
        };
        let mut change = Change {
            k,
            is_write,
            invoked,
            answered: at,
            segment: self.segment(),
            birth: 0,
            cseq: 0,
            is_unknown: false,
            stamp: None,
            ack: None,
            dup: false,
            counter: None,
            ready_cseq: self.readies.last().map_or(0, |(_, opened)| opened.cseq),
            durable_from: None,
        };
        fill(&mut change);
        self.changes.push(change);
    }

    fn take_notice(&mut self, at: usize, notice: &'a Notice) {
        match notice {
            Notice::Ready(opened) => {
                self.readies.push((at, opened));
                if !opened.resumed {
                    return;
                }
                // Whatever was refused before was only for a while.
                self.end = End::Log;
                let told = opened.rolled_back.is_some();
                if told || opened.cseq < self.highest_acked() {
                    self.segments.push(Segment { start: at, survived: opened.cseq, told });
                }
            }
            Notice::RolledBack(lost) => {
                self.segments.push(Segment { start: at, survived: lost.cseq, told: true });
            }
            Notice::Durable { cseq, .. } => self.durables.push((at, self.segment(), *cseq)),
            Notice::Turned { claim: Some(_), .. } => self.end = End::Turned(at, notice),
            Notice::Ended { wanted: false, .. } => self.end = End::Other,
            _ => {}
        }
    }

    /// The highest number acknowledged in the present line.
    fn highest_acked(&self) -> u64 {
        let since = self.segment();
        let survived = self.segments.last().map_or(0, |segment| segment.survived);
        let acked = |change: &&Change| !change.is_unknown && change.segment == since;
        self.changes.iter().filter(acked).map(|change| change.cseq).max().unwrap_or(0).max(survived)
    }

    fn find_births(&mut self) {
        for change in &mut self.changes {
            let left_less = |segment: &Segment| segment.survived < change.cseq;
            let until = self.segments.get(..=change.segment).unwrap_or(&[]);
            change.birth = until.iter().rposition(left_less).unwrap_or(0);
        }
    }

    fn find_lines(&mut self) {
        let line = |segment| {
            let mut line: Vec<u64> = self
                .changes
                .iter()
                .filter(|change| change.is_write && change.lives_in(self, segment))
                .map(|change| change.cseq)
                .collect();
            line.sort_unstable();
            line
        };
        self.lines = (0..self.segments.len()).map(line).collect();
    }

    fn find_durable(&mut self) {
        let mut found = Vec::with_capacity(self.changes.len());
        for change in &self.changes {
            let acked = (!change.is_unknown && change.ack >= Some(Ack::Durable)).then_some(change.answered);
            // Notices stand in the log's order, and one soon after the answer speaks for the change: in an hour's log
            // whoever looks from the beginning looks for minutes.
            let earlier = self.durables.partition_point(|(at, ..)| !change.acked_before(*at));
            let later = self.durables.get(earlier..).unwrap_or(&[]);
            let told = later
                .iter()
                .find(|(_, segment, cseq)| change.cseq <= *cseq && change.lives_in(self, *segment));
            found.push(acked.or(told.map(|(at, ..)| *at)));
        }
        for (change, durable_from) in self.changes.iter_mut().zip(found) {
            change.durable_from = durable_from;
        }
    }

    /// What the counter was before: read by the first read, if no write was asked before it; else inferred from the first
    /// answer.
    fn find_base(&mut self) {
        let writes = || self.changes.iter().filter(|change| change.is_write);
        let first_asked = writes().map(|write| write.invoked).min();
        let first_read = self.reads.first();
        self.base = match (first_read, first_asked) {
            (Some(read), asked) if asked.is_none_or(|asked| read.answered < asked) => Some(read.counter),
            _ => writes()
                .filter(|write| !write.dup && !write.is_unknown)
                .min_by_key(|write| write.answered)
                .and_then(|write| {
                    let (least, most) = self.rank(write.segment, write.cseq, write.k);
                    (least == most).then_some(write.counter? - least)
                }),
        };
    }
}

/// What `status` an operation set, by its `k`.
#[must_use]
pub fn statuses(log: &[Entry]) -> HashMap<u64, Status> {
    log.iter()
        .filter_map(|entry| match &entry.what {
            What::Invoke { operation: Operation::Presence { k, status }, .. } => Some((*k, *status)),
            _ => None,
        })
        .collect()
}
