//! Somebody who follows the events of all shards: where she stands in each, what is missing between there and what comes
//! next, and how all of it is said as server-sent events. Pure; `events` reads the store for it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use protocol::calls::Happened as HappenedView;
use serde::Serialize;

use super::checkpoint;
use super::timeline;
use crate::home::record::notes::Happened;
use crate::home::{EVENT_SHARDS_MAX, EVENTS_PER_SHARD_MAX, EventPlace, EventsRead, ShardEvents};
use crate::ids::ShardId;

/// One who follows.
#[derive(Debug)]
pub(super) struct Follower {
    /// By shard.
    places: Vec<EventPlace>,
    /// Shards of which nothing is known now: their server did not answer. They are caught up with when it does.
    silent: BTreeSet<ShardId>,
    /// Those of them whose place has not been compared with what there is: they are not read before.
    uncompared: BTreeSet<ShardId>,
}

/// What is said at once, and what it says of how far behind it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Server-sent events.
    pub(super) text: String,
    /// How many events of players are in it, or alarms.
    pub(super) events: usize,
    /// How often something is missing.
    pub(super) gaps: usize,
    /// When the oldest event of a player among them happened (Unix ms).
    pub(super) oldest_at: Option<u64>,
    /// More is there already.
    pub(super) has_more: bool,
}

#[derive(Serialize)]
struct EventView<'a> {
    shard: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    player: Option<&'a str>,
    #[serde(flatten)]
    happened: Option<HappenedView>,
    /// How many events of the shard are not told, because they are cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
}

#[derive(Serialize)]
struct CheckpointView<'a> {
    checkpoint: &'a str,
    lag_ms: u64,
    behind: bool,
    /// Shards that could not be looked at, as players are named whose home cannot be reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<u16>,
}

impl Follower {
    /// One who stands at these places.
    pub(super) const fn at(places: Vec<EventPlace>) -> Self {
        Self { places, silent: BTreeSet::new(), uncompared: BTreeSet::new() }
    }

    /// All shards with the places in them, in as many parts as it takes calls to read behind them.
    pub(super) fn parts(&self) -> usize {
        self.places.len().div_ceil(EVENT_SHARDS_MAX)
    }

    /// One of the parts; without the silent ones, unless they are to be asked again.
    pub(super) fn part(&self, part: usize, asks_silent: bool) -> Vec<(ShardId, EventPlace)> {
        let numbered = (0_u16..).zip(&self.places).skip(part * EVENT_SHARDS_MAX).take(EVENT_SHARDS_MAX);
        let all = numbered.filter_map(|(shard, place)| Some((ShardId::numbered(shard)?, *place)));
        let left_out = if asks_silent { &self.uncompared } else { &self.silent };
        all.filter(|(shard, _)| !left_out.contains(shard)).collect()
    }

    /// Those that must be compared before they are read.
    pub(super) fn uncompared(&self) -> Vec<ShardId> {
        self.uncompared.iter().copied().collect()
    }

    /// Shards of which nothing is known now.
    pub(super) const fn silent(&self) -> &BTreeSet<ShardId> {
        &self.silent
    }

    /// Whether nothing is known of any.
    pub(super) fn is_silent(&self) -> bool {
        self.silent.len() >= self.places.len()
    }

    /// Compares where she stands with the last events that there are. A place ahead of its shard is of events that the
    /// store has lost: she goes on from what there is. Those without an answer are to be compared before they are read.
    pub(super) fn compare(&mut self, last: impl IntoIterator<Item = (ShardId, Option<EventPlace>)>) -> Chunk {
        let mut chunk = Chunk::default();
        for (shard, last) in last {
            let Some(place) = self.places.get_mut(usize::from(shard.number())) else { continue };
            let Some(last) = last else {
                self.silent.insert(shard);
                self.uncompared.insert(shard);
                continue;
            };
            self.silent.remove(&shard);
            self.uncompared.remove(&shard);
            if last < *place {
                *place = last;
                chunk.lost(shard.number());
            }
        }
        chunk
    }

    /// Takes in what was read behind her places in the shards that were asked for.
    pub(super) fn take(&mut self, asked: &[(ShardId, EventPlace)], read: EventsRead) -> Chunk {
        for (shard, _) in asked {
            self.silent.remove(shard);
        }
        self.silent.extend(read.unanswered);
        let mut chunk = Chunk::default();
        for ShardEvents { shard, events } in read.found {
            let Some(place) = self.places.get_mut(usize::from(shard.number())) else { continue };
            chunk.has_more |= events.len() >= EVENTS_PER_SHARD_MAX;
            for event in events {
                let after = event.after.unwrap_or(event.place.number.saturating_sub(1));
                // Behind a jump a new home goes on from where the store was: what its last one told beyond that is lost. One that
                // goes on itself writes it again.
                let is_forked = event.place.epoch > place.epoch && after < place.number;
                if event.place.number <= place.number || is_forked {
                    // Counted anew, or from further back: the store has lost what was told.
                    chunk.lost(shard.number());
                } else if after > place.number {
                    chunk.cut_off(shard.number(), after - place.number);
                }
                *place = event.place;
                chunk.tell(shard.number(), event.player.as_str(), Happened::read(&event.body));
            }
        }
        chunk
    }

    /// Where she stands now, as a checkpoint.
    pub(super) fn checkpoint(&self, cluster: u32, lag_ms: u64, behind: bool) -> String {
        let checkpoint = checkpoint::write(cluster, &self.places);
        let unknown = self.silent.iter().map(|shard| shard.number()).collect();
        let data = CheckpointView { checkpoint: &checkpoint, lag_ms, behind, unknown };
        let data = serde_json::to_string(&data).unwrap_or_default();
        format!("event: checkpoint\nid: {checkpoint}\ndata: {data}\n\n")
    }
}

impl Chunk {
    pub(super) const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// How long ago the oldest of them happened.
    pub(super) fn age_ms(&self, unix_ms: u64) -> u64 {
        self.oldest_at.map_or(0, |at| unix_ms.saturating_sub(at))
    }

    fn lost(&mut self, shard: u16) {
        self.gaps += 1;
        self.say("resync", &EventView { shard, player: None, happened: None, missed: None });
    }

    fn cut_off(&mut self, shard: u16, missed: u64) {
        self.gaps += 1;
        self.say("gap", &EventView { shard, player: None, happened: None, missed: Some(missed) });
    }

    fn tell(&mut self, shard: u16, player: &str, happened: Option<Happened<'_>>) {
        self.events += 1;
        let at = happened.as_ref().map(|happened| happened.at);
        self.oldest_at = self.oldest_at.into_iter().chain(at).min();
        let happened = happened.map(timeline::view);
        // What cannot be read is not kept from anybody: she is to be looked at.
        let name = match happened.as_ref().map_or("resync", |happened| &happened.kind) {
            "presence" => "presence",
            "resync" => "resync",
            _ => "session",
        };
        self.say(name, &EventView { shard, player: Some(player), happened, missed: None });
    }

    /// One event more. It has no id of its own: whoever comes back does so with the last checkpoint.
    pub(super) fn say(&mut self, name: &str, view: &impl Serialize) {
        let data = serde_json::to_string(view).unwrap_or_default();
        let _ = write!(self.text, "event: {name}\ndata: {data}\n\n");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::home::StoredEvent;
    use crate::ids::PlayerId;

    fn at(epoch: u64, number: u64) -> EventPlace {
        EventPlace { epoch, number }
    }

    fn shard(number: u16) -> ShardId {
        ShardId::numbered(number).unwrap()
    }

    fn read<const N: usize>(found: [ShardEvents; N]) -> EventsRead {
        EventsRead { found: found.into(), unanswered: Vec::new() }
    }

    fn last<const N: usize>(
        places: [Option<EventPlace>; N],
    ) -> impl Iterator<Item = (ShardId, Option<EventPlace>)> {
        (0..).map(shard).zip(places)
    }

    fn events(number: u16, places: impl IntoIterator<Item = (u64, u64)>) -> ShardEvents {
        let event = |(epoch, number)| StoredEvent {
            place: at(epoch, number),
            player: PlayerId::parse("ann").unwrap(),
            body: Bytes::from_static(b"of a later version"),
            after: None,
        };
        ShardEvents { shard: shard(number), events: places.into_iter().map(event).collect() }
    }

    /// The events of a chunk: name and data.
    fn said(chunk: &Chunk) -> Vec<(String, Value)> {
        let said = chunk.text.split_terminator("\n\n").map(|event| {
            let (name, data) = event.split_once("\ndata: ").unwrap();
            (name.strip_prefix("event: ").unwrap().to_owned(), serde_json::from_str(data).unwrap())
        });
        said.collect()
    }

    #[test]
    fn what_follows_is_told_and_what_is_missing_between_is_said() {
        let mut follower = Follower::at(vec![at(5, 10), EventPlace::START]);
        let chunk = follower.take(&[], read([events(0, [(5, 11), (7, 12)]), events(1, [(5, 1)])]));
        assert_eq!((chunk.events, chunk.gaps, chunk.has_more), (3, 0, false));
        let chunk = follower.take(&[], read([events(0, [(7, 20), (7, 21)]), events(1, [(9, 400)])]));
        assert_eq!((chunk.events, chunk.gaps), (3, 2));
        let names: Vec<_> = said(&chunk).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["gap", "resync", "resync", "gap", "resync"]);
        let said = said(&chunk);
        assert_eq!(said[0].1, json!({"shard": 0, "missed": 7}));
        assert_eq!(said[1].1, json!({"shard": 0, "player": "ann"}));
        assert_eq!(said[3].1, json!({"shard": 1, "missed": 398}));
    }

    #[test]
    fn numbers_that_were_left_out_are_no_gap_and_what_is_cut_off_before_them_is() {
        for (from, missed) in [(7, Some(3)), (9, Some(1)), (10, None), (12, None)] {
            let mut follower = Follower::at(vec![at(5, from)]);
            let mut found = events(0, [(5, 4_107), (5, 4_108)]);
            // The last before the jump was the tenth; what came behind it, and was read by somebody, the store has lost.
            found.events[0].after = Some(10);
            let chunk = follower.take(&[], read([found]));
            assert_eq!((chunk.events, chunk.gaps), (2, usize::from(missed.is_some())), "{from}");
            if let Some(missed) = missed {
                assert_eq!(said(&chunk)[0].1, json!({"shard": 0, "missed": missed}), "{from}");
            }
        }
    }

    #[test]
    fn what_a_dead_home_told_and_the_store_has_lost_is_told_behind_a_jump_too() {
        for (from, resync) in
            [(at(5, 110), true), (at(5, 101), true), (at(5, 100), false), (at(9, 110), false)]
        {
            let mut follower = Follower::at(vec![from]);
            let mut found = events(0, [(9, 4_197)]);
            found.events[0].after = Some(100);
            let chunk = follower.take(&[], read([found]));
            assert_eq!((chunk.events, chunk.gaps), (1, usize::from(resync)), "{from:?}");
            if resync {
                assert_eq!(said(&chunk)[0], ("resync".to_owned(), json!({"shard": 0})), "{from:?}");
            }
        }
    }

    #[test]
    fn a_store_that_counts_anew_is_told_as_that() {
        let mut follower = Follower::at(vec![at(5, 10)]);
        for places in [(9, 1), (11, 1), (12, 0)] {
            let chunk = follower.take(&[], read([events(0, [places])]));
            assert_eq!((chunk.events, chunk.gaps), (1, 1), "{places:?}");
            assert_eq!(said(&chunk)[0], ("resync".to_owned(), json!({"shard": 0})), "{places:?}");
        }
        assert_eq!(follower.part(0, false), [(ShardId::FIRST, at(12, 0))]);
    }

    #[test]
    fn a_place_ahead_of_its_shard_goes_back_and_says_so() {
        let mut follower = Follower::at(vec![at(5, 10), at(5, 10), at(5, 10), at(5, 10)]);
        let chunk = follower.compare(last([at(5, 10), at(5, 9), at(6, 1), EventPlace::START].map(Some)));
        let shards: Vec<_> = said(&chunk).into_iter().map(|(_, data)| data["shard"].clone()).collect();
        assert_eq!((shards, chunk.gaps), (vec![json!(1), json!(3)], 2));
        let places: Vec<_> = follower.part(0, false).into_iter().map(|(_, place)| place).collect();
        assert_eq!(places, [at(5, 10), at(5, 9), at(5, 10), EventPlace::START]);
    }

    #[test]
    fn shards_are_read_in_parts_and_none_is_left_out() {
        for shards in [1, 63, 64, 65, 256, 4_096] {
            let follower = Follower::at(vec![EventPlace::START; shards]);
            let read: Vec<_> = (0..follower.parts()).flat_map(|part| follower.part(part, false)).collect();
            let numbers: Vec<_> = read.iter().map(|(shard, _)| usize::from(shard.number())).collect();
            assert_eq!(numbers, (0..shards).collect::<Vec<_>>());
        }
        let full = events(0, (1..=EVENTS_PER_SHARD_MAX as u64).map(|number| (5, number)));
        assert!(Follower::at(vec![EventPlace::START]).take(&[], read([full])).has_more);
    }

    #[test]
    fn a_shard_that_does_not_answer_is_named_and_left_alone_and_caught_up_with() {
        let mut follower = Follower::at(vec![at(5, 10), at(5, 20)]);
        let asked = follower.part(0, false);
        let chunk = follower
            .take(&asked, EventsRead { found: vec![events(1, [(5, 21)])], unanswered: vec![shard(0)] });
        assert_eq!((chunk.events, chunk.gaps), (1, 0));
        assert_eq!(follower.part(0, false), [(shard(1), at(5, 21))]);
        assert!(follower.checkpoint(7, 0, false).contains(r#""unknown":[0]"#));
        assert!(!follower.is_silent());
        let asked = follower.part(0, true);
        assert_eq!(asked, [(shard(0), at(5, 10)), (shard(1), at(5, 21))]);
        let chunk = follower.take(&asked, read([events(0, [(5, 11)])]));
        assert_eq!((chunk.events, chunk.gaps), (1, 0));
        assert!(!follower.checkpoint(7, 0, false).contains("unknown"));
    }

    #[test]
    fn a_place_is_compared_before_its_shard_is_read_however_late_that_answers() {
        let mut follower = Follower::at(vec![at(5, 10), at(5, 20)]);
        assert!(follower.compare(last([None, Some(at(5, 20))])).is_empty());
        assert_eq!(follower.uncompared(), [shard(0)]);
        assert_eq!(follower.part(0, true), [(shard(1), at(5, 20))]);
        let chunk = follower.compare([(shard(0), Some(at(5, 7)))]);
        assert_eq!(said(&chunk), [("resync".to_owned(), json!({"shard": 0}))]);
        assert_eq!(follower.part(0, false), [(shard(0), at(5, 7)), (shard(1), at(5, 20))]);
        assert!(follower.uncompared().is_empty() && follower.silent().is_empty());
    }
}
