//! What goes into the watch once a second, and what the last ten seconds of it come to. Pure: times are arguments, and
//! what was counted since the process began is told apart by looking twice.

use std::collections::VecDeque;
use std::sync::Arc;

use super::spread::Spread;
use super::totals::Totals;
use crate::telemetry::process::Process;

/// Readings that are kept: five minutes of them.
const READINGS_MAX: usize = 300;
/// Over how long rates and shares are looked at.
pub(super) const WINDOW_MS: u64 = 10_000;
/// Half of what lies between two readings.
const HALF_SECOND_MS: u64 = 500;
/// Rooms that are told by name.
pub const ROOMS_MAX: usize = 10;

/// Addresses that are told by name.
const ADDRESSES_MAX: usize = 3;
/// Below this share of all nobody is named for them: they come from everywhere.
const NAMED_FROM: f64 = 0.01;

/// Who was refused in one second.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refused {
    /// How often anybody was, as far as it was counted by address.
    pub all: u64,
    /// The addresses that were most often, with how often at least.
    pub addresses: Vec<(Arc<str>, u64)>,
}

/// One second's numbers of a node.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reading {
    /// When (monotonic ms).
    pub mono_ms: u64,
    /// When (Unix ms).
    pub unix_ms: u64,
    /// What the metrics say.
    pub totals: Totals,
    /// What the process takes.
    pub process: Process,
    /// Sessions.
    pub sessions: u64,
    /// Player records in memory.
    pub players: u64,
    /// Links of clients.
    pub links: u64,
    /// How late letters to the slowest other node are, ms.
    pub mail_lag_ms: u64,
    /// Nodes that have vanished since the reading before, by name.
    pub vanished: Vec<String>,
    /// Shards that were written again from memory because the store had lost what it acknowledged, for as long as that is told.
    pub store_lost_shards: u64,
    /// Frames put into outboxes since the reading before, of the rooms that made most of them.
    pub rooms: Vec<(Arc<str>, u64)>,
    /// Whose logins and connections were refused for being too many since the reading before.
    pub flooding: Refused,
    /// Who did not keep to the protocol since the reading before.
    pub misbehaving: Refused,
}

/// What ten seconds come to. Rates are a second's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figures {
    /// How long they were.
    pub over_ms: u64,
    /// Commands answered.
    pub acks: f64,
    /// Logins, however they ended.
    pub logins: f64,
    /// Resumes, however they ended.
    pub resumes: f64,
    /// Frames put into outboxes.
    pub pushes: f64,
    /// Requests refused for being too fast, or because there was too much to do.
    pub refused: f64,
    /// Calls of services.
    pub service_calls: f64,
    /// Commands, logins, resumes and calls together.
    pub requests: f64,
    /// How many of those there were in all.
    pub ended: u64,
    /// How many of those failed by our fault.
    pub failed: u64,
    /// From a command to its ack.
    pub applied: Spread,
    /// From a command to its durable ack.
    pub durable: Spread,
    /// How long commits took.
    pub commit: Spread,
    /// How long calls took.
    pub service: Spread,
    /// Logins refused for being too many.
    pub logins_refused: f64,
    /// Closes and handshakes of clients that do not keep to the protocol.
    pub bad_clients: f64,
    /// Links closed for reading too slowly: how many.
    pub slow: u64,
    /// The rooms that made most pushes, the first one most.
    pub rooms: Vec<(Arc<str>, f64)>,
    /// The addresses that made most of the refused logins, each with its share, 0 to 1.
    pub flooding: Vec<(Arc<str>, f64)>,
    /// The same of the bad clients.
    pub misbehaving: Vec<(Arc<str>, f64)>,
    /// Processor time, in percent of one core.
    pub cpu_percent: Option<f64>,
}

impl Figures {
    /// What the room with most pushes made of all, 0 to 1.
    #[must_use]
    pub fn hottest_share(&self) -> f64 {
        // The two are not read at the same moment.
        self.rooms
            .first()
            .map_or(0.0, |(_, rate)| if *rate > 0.0 { rate / self.pushes.max(*rate) } else { 0.0 })
    }
}

/// The last five minutes, the newest reading last.
#[derive(Debug, Default)]
pub(super) struct Readings(VecDeque<Reading>);

impl Readings {
    /// One more; the oldest goes when there are too many.
    pub(super) fn put(&mut self, reading: Reading) {
        while self.0.len() >= READINGS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(reading);
    }

    /// The newest one.
    pub(super) fn newest(&self) -> Option<&Reading> {
        self.0.back()
    }

    /// Those that are not older than so long before the newest one, the newest first.
    pub(super) fn last(&self, ms: u64) -> impl Iterator<Item = &Reading> {
        let from_ms = self.newest().map_or(0, |newest| newest.mono_ms.saturating_sub(ms));
        self.0.iter().rev().take_while(move |reading| reading.mono_ms >= from_ms)
    }

    /// So many of them, the oldest first, at even distances over this time; `None` if they do not reach so far back.
    pub(super) fn spaced(&self, ms: u64, count: u64) -> Option<Vec<&Reading>> {
        let newest = self.newest()?;
        let oldest = self.0.front()?;
        let step_ms = ms / count.max(1);
        if newest.mono_ms.saturating_sub(oldest.mono_ms) < ms {
            return None;
        }
        let at = |back: u64| {
            // The nearest one: seconds are not all alike, and none must be taken twice.
            let until_ms = newest.mono_ms.saturating_sub(back * step_ms) + HALF_SECOND_MS;
            let after = self.0.partition_point(|reading| reading.mono_ms <= until_ms);
            self.0.get(after.saturating_sub(1))
        };
        (0..=count).rev().map(at).collect()
    }

    /// What the last ten seconds come to; nothing after the first reading.
    pub(super) fn figures(&self) -> Option<Figures> {
        let newest = self.newest()?;
        let oldest = self.last(WINDOW_MS).last()?;
        let over_ms = newest.mono_ms.saturating_sub(oldest.mono_ms);
        if over_ms == 0 {
            return None;
        }
        let (now, then) = (&newest.totals, &oldest.totals);
        let more = |count: fn(&Totals) -> u64| count(now).saturating_sub(count(then));
        let rate = |count: fn(&Totals) -> u64| more(count) as f64 * 1_000.0 / over_ms as f64;
        let spread = |of: fn(&Totals) -> &Spread| of(now).since(of(then));
        let requests: fn(&Totals) -> u64 =
            |totals| totals.acks + totals.logins + totals.resumes + totals.service_calls;
        let cpu_ms = newest.process.cpu_ms.zip(oldest.process.cpu_ms);
        Some(Figures {
            over_ms,
            acks: rate(|totals| totals.acks),
            logins: rate(|totals| totals.logins),
            resumes: rate(|totals| totals.resumes),
            pushes: rate(|totals| totals.pushes),
            refused: rate(|totals| totals.refused),
            service_calls: rate(|totals| totals.service_calls),
            requests: rate(requests),
            ended: more(requests),
            failed: more(|totals| totals.failed),
            applied: spread(|totals| &totals.applied),
            durable: spread(|totals| &totals.durable),
            commit: spread(|totals| &totals.commit),
            service: spread(|totals| &totals.service),
            logins_refused: rate(|totals| totals.logins_refused),
            bad_clients: rate(|totals| totals.bad_clients),
            slow: more(|totals| totals.slow),
            rooms: self.rooms(oldest.mono_ms, over_ms),
            flooding: self.worst(oldest.mono_ms, |reading| &reading.flooding),
            misbehaving: self.worst(oldest.mono_ms, |reading| &reading.misbehaving),
            cpu_percent: cpu_ms.map(|(now, then)| now.saturating_sub(then) as f64 * 100.0 / over_ms as f64),
        })
    }

    /// Those after that.
    fn since(&self, after_ms: u64) -> impl Iterator<Item = &Reading> {
        self.0.iter().rev().take_while(move |reading| reading.mono_ms > after_ms)
    }

    /// Which rooms made most pushes after that.
    fn rooms(&self, after_ms: u64, over_ms: u64) -> Vec<(Arc<str>, f64)> {
        let pushes = summed(self.since(after_ms).flat_map(|reading| &reading.rooms));
        let rate =
            |(room, count): &(&Arc<str>, u64)| (Arc::clone(room), *count as f64 * 1_000.0 / over_ms as f64);
        pushes.iter().take(ROOMS_MAX).map(rate).collect()
    }

    /// Which addresses made most refusals after that, each with its share of them.
    fn worst(&self, after_ms: u64, refused: fn(&Reading) -> &Refused) -> Vec<(Arc<str>, f64)> {
        let all: u64 = self.since(after_ms).map(|reading| refused(reading).all).sum();
        let sums = summed(self.since(after_ms).flat_map(|reading| &refused(reading).addresses));
        let share =
            |(address, count): &(&Arc<str>, u64)| (Arc::clone(address), *count as f64 / all.max(1) as f64);
        sums.iter().take(ADDRESSES_MAX).map(share).filter(|(_, share)| *share >= NAMED_FROM).collect()
    }
}

/// Each name once, with all of its counts; the one with most comes first.
fn summed<'a>(counts: impl Iterator<Item = &'a (Arc<str>, u64)>) -> Vec<(&'a Arc<str>, u64)> {
    let mut sums: Vec<(&Arc<str>, u64)> = Vec::new();
    for (name, count) in counts {
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum = sum.saturating_add(*count),
            None => sums.push((name, *count)),
        }
    }
    sums.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64, acks: u64) -> Reading {
        Reading { mono_ms, totals: Totals { acks, ..Totals::default() }, ..Reading::default() }
    }

    #[test]
    fn rates_are_those_of_the_last_ten_seconds() {
        let mut readings = Readings::default();
        readings.put(at(1_000, 50));
        assert_eq!(readings.figures(), None, "one look says nothing");
        readings.put(at(2_000, 150));
        let first = readings.figures().unwrap();
        assert_eq!((first.acks, first.requests, first.ended, first.over_ms), (100.0, 100.0, 100, 1_000));
        for second in 3..=30 {
            readings.put(at(second * 1_000, 150 + (second - 2) * 10));
        }
        let figures = readings.figures().unwrap();
        assert_eq!((figures.acks, figures.over_ms, figures.cpu_percent), (10.0, 10_000, None));
    }

    #[test]
    fn no_more_than_five_minutes_are_kept() {
        let mut readings = Readings::default();
        (0..1_000).for_each(|second| readings.put(at(second * 1_000, second)));
        assert_eq!(readings.0.len(), READINGS_MAX);
        assert_eq!(readings.last(u64::MAX).count(), READINGS_MAX);
        assert_eq!(readings.last(5_000).count(), 6);
        let acks: Vec<u64> =
            readings.spaced(40_000, 4).unwrap().iter().map(|reading| reading.totals.acks).collect();
        assert_eq!(acks, [959, 969, 979, 989, 999]);
        assert!(readings.spaced(300_000, 4).is_none(), "not so far back");
        let mut late = Readings::default();
        [1_000, 2_009, 3_001, 4_008, 5_000].iter().for_each(|ms| late.put(at(*ms, *ms)));
        let each: Vec<u64> = late.spaced(4_000, 4).unwrap().iter().map(|reading| reading.mono_ms).collect();
        assert_eq!(each, [1_000, 2_009, 3_001, 4_008, 5_000]);
    }

    #[test]
    fn who_was_refused_most_is_named_with_the_share_and_a_crowd_is_not() {
        let mut readings = Readings::default();
        let refused = |all, addresses: &[(&str, u64)]| {
            let addresses = addresses.iter().map(|(address, count)| (Arc::from(*address), *count)).collect();
            Refused { all, addresses }
        };
        let [worst, other, third] = ["203.0.113.7", "2001:db8:0:1::/64", "198.51.100.9"];
        for second in 0..=20 {
            let flooding = match second {
                // Long ago.
                0..=10 => refused(1_000, &[(third, 1_000)]),
                11..=15 => refused(100, &[(worst, 96), (other, 4)]),
                _ => refused(100, &[(other, 6), (worst, 90), ("192.0.2.1", 1)]),
            };
            readings.put(Reading {
                flooding,
                misbehaving: refused(10_000, &[(worst, 9)]),
                ..at(second * 1_000, 0)
            });
        }
        let figures = readings.figures().unwrap();
        let told: Vec<(&str, f64)> = figures.flooding.iter().map(|(who, share)| (&**who, *share)).collect();
        assert_eq!(told, [(worst, 0.93), (other, 0.05)]);
        assert_eq!(figures.misbehaving, [], "they come from everywhere");
    }

    #[test]
    fn rooms_are_added_up_and_the_busiest_comes_first() {
        let mut readings = Readings::default();
        for second in 0..=5 {
            let rooms = [("guild", 30), (if second % 2 == 0 { "even" } else { "odd" }, 10)];
            let rooms = rooms.map(|(room, pushes)| (Arc::from(room), pushes)).to_vec();
            readings.put(Reading { rooms, ..at(second * 1_000, 0) });
        }
        let rooms = readings.figures().unwrap().rooms;
        let told: Vec<(&str, f64)> = rooms.iter().map(|(room, pushes)| (&**room, *pushes)).collect();
        assert_eq!(told, [("guild", 30.0), ("odd", 6.0), ("even", 4.0)]);
    }
}
