//! A checkpoint of the events: how far somebody has read in every shard, as one opaque text. Pure. Homes take their
//! shards at about the same time, so epochs are written as what they lie above the lowest of them; shards that never had
//! an event take no room. With 256 shards it has about two thousand characters, with 4,096 about thirty thousand.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use crate::home::EventPlace;

/// How it is written.
const FORMAT: u8 = 2;
/// Numbers of places stay below this: what the store counts with holds no more.
const NUMBER_MAX: u64 = 1 << 53;
/// The longest text that can be one: 4,096 shards, 16 bytes each, and a head.
pub(super) const CHECKPOINT_CHARS_MAX: usize = 90_000;

/// Why a text is no checkpoint of this cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a checkpoint that this cluster gave, or oldest")]
pub(super) struct NoCheckpoint;

/// The places as a text of the cluster that has this mark.
pub(super) fn write(cluster: u32, places: &[EventPlace]) -> String {
    let floor = places.iter().map(|place| place.epoch).filter(|epoch| *epoch > 0).min().unwrap_or(0);
    let mut bytes = vec![FORMAT];
    put(&mut bytes, cluster.into());
    put(&mut bytes, places.len() as u64);
    put(&mut bytes, floor);
    let mut rest = places;
    while let Some((place, others)) = rest.split_first() {
        if *place == EventPlace::START {
            let run = rest.iter().take_while(|place| **place == EventPlace::START).count();
            put(&mut bytes, 0);
            put(&mut bytes, run as u64);
            rest = rest.get(run..).unwrap_or_default();
        } else {
            put(&mut bytes, place.epoch.saturating_sub(floor) + 1);
            put(&mut bytes, place.number);
            rest = others;
        }
    }
    BASE64.encode(bytes)
}

/// The places that a text says, for the cluster of this mark and so many shards.
pub(super) fn read(text: &str, cluster: u32, shards: usize) -> Result<Vec<EventPlace>, NoCheckpoint> {
    if text.len() > CHECKPOINT_CHARS_MAX {
        return Err(NoCheckpoint);
    }
    let bytes = BASE64.decode(text).map_err(|_| NoCheckpoint)?;
    let (format, mut rest) = bytes.split_first().ok_or(NoCheckpoint)?;
    if *format != FORMAT || take(&mut rest)? != u64::from(cluster) || take(&mut rest)? != shards as u64 {
        return Err(NoCheckpoint);
    }
    let floor = take(&mut rest)?;
    let mut places = Vec::with_capacity(shards);
    while places.len() < shards {
        let (above, number) = (take(&mut rest)?, take(&mut rest)?);
        if above == 0 {
            let left = shards - places.len();
            let run = usize::try_from(number).ok().filter(|run| (1..=left).contains(run));
            places.extend(std::iter::repeat_n(EventPlace::START, run.ok_or(NoCheckpoint)?));
        } else {
            let epoch = floor.checked_add(above - 1).filter(|epoch| *epoch < NUMBER_MAX);
            let number = Some(number).filter(|number| *number < NUMBER_MAX);
            let (epoch, number) = epoch.zip(number).ok_or(NoCheckpoint)?;
            places.push(EventPlace { epoch, number });
        }
    }
    if rest.is_empty() { Ok(places) } else { Err(NoCheckpoint) }
}

/// Seven bits a byte, the lowest first.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Result<u64, NoCheckpoint> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(NoCheckpoint)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(NoCheckpoint)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: u32 = 0xfeed_beef;

    fn at(epoch: u64, number: u64) -> EventPlace {
        EventPlace { epoch, number }
    }

    #[test]
    fn it_is_short_and_never_longer_than_it_may_be() {
        // A cluster that has run for a month, its shards taken at any time in it, ten million events in each.
        let now = 1_790_000_000_000;
        let places = |shards: u64| -> Vec<_> {
            (0..shards).map(|shard| at(now - shard * 7_919 % 2_592_000_000, 10_000_000 + shard)).collect()
        };
        assert!(write(CLUSTER, &places(256)).len() < 3_200, "{}", write(CLUSTER, &places(256)).len());
        assert!(write(CLUSTER, &places(4_096)).len() < 52_000, "{}", write(CLUSTER, &places(4_096)).len());
        assert!(write(CLUSTER, &[EventPlace::START; 4_096]).len() < 24);
        let longest: Vec<_> =
            (0..4_096).map(|n| if n == 0 { at(1, 1) } else { at(NUMBER_MAX - 1, NUMBER_MAX - 1) }).collect();
        let text = write(CLUSTER, &longest);
        assert!(text.len() <= CHECKPOINT_CHARS_MAX, "{}", text.len());
        assert_eq!(read(&text, CLUSTER, 4_096), Ok(longest));
    }

    #[test]
    fn what_this_cluster_did_not_give_is_none() {
        let text = write(CLUSTER, &[at(5, 7), EventPlace::START, at(9, 1)]);
        assert_eq!(read(&text, CLUSTER + 1, 3), Err(NoCheckpoint));
        for shards in [0, 1, 2, 4, 4_096] {
            assert_eq!(read(&text, CLUSTER, shards), Err(NoCheckpoint), "{shards}");
        }
        for length in 0..text.len() {
            assert_eq!(read(&text[..length], CLUSTER, 3), Err(NoCheckpoint), "{length}");
        }
        for text in ["", "oldest", "%%%", &format!("{text}AA"), &"A".repeat(CHECKPOINT_CHARS_MAX + 1)] {
            assert_eq!(read(text, CLUSTER, 3), Err(NoCheckpoint), "{text:.20}");
        }
    }

    proptest! {
        #[test]
        fn every_checkpoint_reads_back(
            places in prop::collection::vec(
                prop_oneof![Just((0, 0)), (1..NUMBER_MAX, 1..NUMBER_MAX)],
                1..400,
            )
        ) {
            let places: Vec<_> = places.into_iter().map(|(epoch, number)| at(epoch, number)).collect();
            prop_assert_eq!(read(&write(CLUSTER, &places), CLUSTER, places.len()), Ok(places));
        }

        #[test]
        fn nothing_that_is_read_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), shards in 0..300_usize) {
            if let Ok(places) = read(&BASE64.encode(&bytes), CLUSTER, shards) {
                prop_assert_eq!(places.len(), shards);
            }
        }
    }
}
