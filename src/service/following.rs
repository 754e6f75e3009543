//! Somebody who follows the events of all shards: where she stands in each, what is missing between there and what comes
//! next, and how all of it is said as server-sent events. Pure; `events` reads the store for it.

use std::fmt::Write as _;

use serde::Serialize;

use super::checkpoint;
use super::timeline::HappenedView;
use crate::home::record::notes::Happened;
use crate::home::{EVENT_SHARDS_MAX, EVENTS_PER_SHARD_MAX, EventPlace, ShardEvents};
use crate::ids::ShardId;

/// One who follows.
#[derive(Debug)]
pub(super) struct Follower {
    /// By shard.
    places: Vec<EventPlace>,
}

/// What is said at once, and what it says of how far behind it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Server-sent events.
    pub(super) text: String,
    /// How many events of players are in it.
    pub(super) events: usize,
    /// How often something is missing.
    pub(super) gaps: usize,
    /// When the oldest of them happened (Unix ms).
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
}

impl Follower {
    /// One who stands at these places.
    pub(super) const fn at(places: Vec<EventPlace>) -> Self {
        Self { places }
    }

    /// All shards with the places in them, in as many parts as it takes calls to read behind them.
    pub(super) fn parts(&self) -> usize {
        self.places.len().div_ceil(EVENT_SHARDS_MAX)
    }

    /// One of the parts.
    pub(super) fn part(&self, part: usize) -> Vec<(ShardId, EventPlace)> {
        let numbered = (0_u16..).zip(&self.places).skip(part * EVENT_SHARDS_MAX).take(EVENT_SHARDS_MAX);
        numbered.filter_map(|(shard, place)| Some((ShardId::numbered(shard)?, *place))).collect()
    }

    /// Compares where she stands with the last events that there are. A place ahead of its shard is of events that the
    /// store has lost: she goes on from what there is.
    pub(super) fn compare(&mut self, last: &[EventPlace]) -> Chunk {
        let mut chunk = Chunk::default();
        for ((shard, place), last) in (0_u16..).zip(&mut self.places).zip(last) {
            if last < place {
                *place = *last;
                chunk.lost(shard);
            }
        }
        chunk
    }

    /// Takes in what was read behind her places.
    pub(super) fn take(&mut self, read: Vec<ShardEvents>) -> Chunk {
        let mut chunk = Chunk::default();
        for ShardEvents { shard, events } in read {
            let Some(place) = self.places.get_mut(usize::from(shard.number())) else { continue };
            chunk.has_more |= events.len() >= EVENTS_PER_SHARD_MAX;
            for event in events {
                match event.place.number.checked_sub(place.number) {
                    // Counted anew, or from further back: the store has lost what was told.
                    None | Some(0) => chunk.lost(shard.number()),
                    Some(1) => {}
                    Some(ahead) => chunk.cut_off(shard.number(), ahead - 1),
                }
                *place = event.place;
                chunk.tell(shard.number(), event.player.as_str(), Happened::read(&event.body));
            }
        }
        chunk
    }

    /// Where she stands now, as a checkpoint.
    pub(super) fn checkpoint(&self, lag_ms: u64, behind: bool) -> String {
        let checkpoint = checkpoint::write(&self.places);
        let data = CheckpointView { checkpoint: &checkpoint, lag_ms, behind };
        let data = serde_json::to_string(&data).unwrap_or_default();
        format!("event: checkpoint\nid: {checkpoint}\ndata: {data}\n\n")
    }
}

impl Chunk {
    pub(super) const fn is_empty(&self) -> bool {
        self.text.is_empty()
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
        let happened = happened.map(HappenedView::of);
        // What cannot be read is not kept from anybody: she is to be looked at.
        let name = match happened.as_ref().map_or("resync", |happened| &happened.kind) {
            "presence" => "presence",
            "resync" => "resync",
            _ => "session",
        };
        self.say(name, &EventView { shard, player: Some(player), happened, missed: None });
    }

    fn say(&mut self, name: &str, view: &EventView<'_>) {
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

    fn events(shard: u16, places: impl IntoIterator<Item = (u64, u64)>) -> ShardEvents {
        let event = |(epoch, number)| StoredEvent {
            place: at(epoch, number),
            player: PlayerId::parse("ann").unwrap(),
            body: Bytes::from_static(b"of a later version"),
        };
        ShardEvents {
            shard: ShardId::numbered(shard).unwrap(),
            events: places.into_iter().map(event).collect(),
        }
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
        let chunk = follower.take(vec![events(0, [(5, 11), (7, 12)]), events(1, [(5, 1)])]);
        assert_eq!((chunk.events, chunk.gaps, chunk.has_more), (3, 0, false));
        let chunk = follower.take(vec![events(0, [(7, 20), (7, 21)]), events(1, [(9, 400)])]);
        assert_eq!((chunk.events, chunk.gaps), (3, 2));
        let names: Vec<_> = said(&chunk).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["gap", "resync", "resync", "gap", "resync"]);
        let said = said(&chunk);
        assert_eq!(said[0].1, json!({"shard": 0, "missed": 7}));
        assert_eq!(said[1].1, json!({"shard": 0, "player": "ann"}));
        assert_eq!(said[3].1, json!({"shard": 1, "missed": 398}));
    }

    #[test]
    fn a_store_that_counts_anew_is_told_as_that() {
        let mut follower = Follower::at(vec![at(5, 10)]);
        for places in [(9, 1), (11, 1), (12, 0)] {
            let chunk = follower.take(vec![events(0, [places])]);
            assert_eq!((chunk.events, chunk.gaps), (1, 1), "{places:?}");
            assert_eq!(said(&chunk)[0], ("resync".to_owned(), json!({"shard": 0})), "{places:?}");
        }
        assert_eq!(follower.part(0), [(ShardId::FIRST, at(12, 0))]);
    }

    #[test]
    fn a_place_ahead_of_its_shard_goes_back_and_says_so() {
        let mut follower = Follower::at(vec![at(5, 10), at(5, 10), at(5, 10), at(5, 10)]);
        let chunk = follower.compare(&[at(5, 10), at(5, 9), at(6, 1), EventPlace::START]);
        let shards: Vec<_> = said(&chunk).into_iter().map(|(_, data)| data["shard"].clone()).collect();
        assert_eq!((shards, chunk.gaps), (vec![json!(1), json!(3)], 2));
        let places: Vec<_> = follower.part(0).into_iter().map(|(_, place)| place).collect();
        assert_eq!(places, [at(5, 10), at(5, 9), at(5, 10), EventPlace::START]);
    }

    #[test]
    fn shards_are_read_in_parts_and_none_is_left_out() {
        for shards in [1, 63, 64, 65, 256, 4_096] {
            let follower = Follower::at(vec![EventPlace::START; shards]);
            let read: Vec<_> = (0..follower.parts()).flat_map(|part| follower.part(part)).collect();
            let numbers: Vec<_> = read.iter().map(|(shard, _)| usize::from(shard.number())).collect();
            assert_eq!(numbers, (0..shards).collect::<Vec<_>>());
        }
        let full = events(0, (1..=EVENTS_PER_SHARD_MAX as u64).map(|number| (5, number)));
        assert!(Follower::at(vec![EventPlace::START]).take(vec![full]).has_more);
    }
}
