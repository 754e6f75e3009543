//! A record that its home could not bring to the store, on its way to the next home: how it is packed, and whether it or
//! what is stored is the truth. Pure. Packed by `yielding`, weighed by `loading`. The history rule decides: what continues
//! the stored line wins, since all that was acked is in it; of anything else the stored one is the truth, and who was
//! told more hears so at the next resume.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::history::Verdict;
use super::pulling::{read, write_named};
use super::record::document::Blob;
use super::record::notes::{Happened, NOTES_MAX};
use super::record::{Context, Ended, Record};
use super::records::Slot;
use crate::ids::{Epoch, Version};
use crate::store::StoredRecord;

/// A record as homes send it: by the names of its fields, so that later versions can add some.
#[derive(Debug, Serialize, Deserialize)]
struct Packed {
    epoch: u64,
    version: u64,
    /// What of it the store was known to have; zero = nothing.
    base: u64,
    p: Blob,
    w: Blob,
    /// What the strings do not say: the store's list of the banned is behind, and nothing is to be remembered.
    unlisted: bool,
    erased: bool,
    /// What happened to the player and is not stored.
    #[serde(default)]
    notes: Vec<Blob>,
}

/// A record that came from the home before.
#[derive(Debug)]
pub(super) struct Salvaged {
    record: Record,
    base: Version,
}

/// What is the truth of a player.
#[derive(Debug)]
pub(super) enum Truth {
    /// The salvaged record, held under the new epoch; these of its sessions had to go where two records met.
    Salvaged(Box<Record>, Vec<Ended>),
    /// The stored one, and it is what was salvaged: nothing was lost.
    Stored,
    /// The stored one, of another line or further on: what only the salvaged one had is lost.
    Another,
}

/// Whether the store is not known to have a record as it is.
pub(super) fn is_unstored(slot: &Slot) -> bool {
    !slot.gone && (slot.restore || slot.record.version > slot.base)
}

/// A record that the store is not known to have as it is, for the next home; from the node `here`.
pub(super) fn pack(slot: &Slot, here: &str) -> Option<Bytes> {
    is_unstored(slot).then(|| {
        let record = &slot.record;
        let (unlisted, erased) = record.unsaid();
        write_named(&Packed {
            epoch: record.epoch.number(),
            version: record.version.number(),
            base: slot.base.number(),
            p: Blob(record.encode_p().to_vec().into()),
            w: Blob(record.encode_w().to_vec().into()),
            unlisted,
            erased,
            notes: record.notes.iter().map(|note| Blob(note.happened(here).body().to_vec().into())).collect(),
        })
    })
}

impl Salvaged {
    /// `None`: it cannot be read, or is of no epoch before this one.
    pub(super) fn unpack(body: &[u8], held_under: Epoch) -> Option<Self> {
        let packed: Packed = read(body)?;
        let stored = StoredRecord {
            epoch: Epoch::of(packed.epoch),
            version: Version::of(packed.version),
            p: Bytes::from(packed.p.0),
            w: Some(Bytes::from(packed.w.0)),
        };
        if stored.epoch >= held_under {
            return None;
        }
        let mut record = Record::decode(&stored).ok()?;
        record.leaves_unsaid(packed.unlisted, packed.erased);
        let notes = packed.notes.iter().take(NOTES_MAX);
        record.notes.precede(notes.filter_map(|note| Happened::read(&note.0)?.into_note()));
        Some(Self { record, base: Version::of(packed.base) })
    }

    /// Where it stands.
    #[cfg(test)]
    pub(super) const fn stamp(&self) -> crate::ids::Stamp {
        self.record.stamp()
    }

    /// Says what is the truth, where the store has this much of the player.
    pub(super) fn weigh(self, stored: Option<Record>, held_under: Epoch, ctx: Context<'_>) -> Truth {
        let Self { mut record, base } = self;
        let mut ended = Vec::new();
        if let Some(stored) = stored {
            match record.history.judge(record.stamp(), stored.stamp()) {
                Verdict::Reached if stored.stamp() == record.stamp() => return Truth::Stored,
                // The store holds a record of hers that it could not show when this one was begun, of the same epoch: what
                // that says of tokens and former epochs must not be lost.
                Verdict::Reached if base == Version::ZERO && !record.shares_a_session_with(&stored) => {
                    ended = record.merge(stored, ctx);
                }
                Verdict::Reached => {}
                // It was begun while the store could not say that it knew her: the two meet, as at a commit.
                Verdict::Unknown if base == Version::ZERO && stored.epoch < record.epoch => {
                    ended = record.merge(stored, ctx);
                }
                Verdict::Unknown | Verdict::Behind | Verdict::RolledBack(_) => return Truth::Another,
            }
        }
        record.take_over(held_under);
        record.detach_all(ctx.now);
        Truth::Salvaged(Box::new(record), ended)
    }
}

#[cfg(test)]
mod tests;
