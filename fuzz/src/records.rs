//! What a store gives back: records that may be torn, of another version, or somebody's joke.

use bytes::Bytes;
use hearth::home::record::Record;
use hearth::ids::{Epoch, Version};
use hearth::store::StoredRecord;

/// Two bytes say how long `p` is, the rest is `w`. A record that can be read is stored as it was read.
pub fn records(mut bytes: &[u8]) {
    let length = usize::from(u16::from_be_bytes([super::byte(&mut bytes), super::byte(&mut bytes)]));
    let (p, w) = bytes.split_at(length.min(bytes.len()));
    let (epoch, version) = (Epoch::of(7), Version::of(9));
    let stored = StoredRecord {
        epoch,
        version,
        p: Bytes::copy_from_slice(p),
        w: (!w.is_empty()).then(|| Bytes::copy_from_slice(w)),
    };
    let Ok(record) = Record::decode(&stored) else { return };
    let again = StoredRecord { epoch, version, p: record.encode_p(), w: Some(record.encode_w()) };
    match Record::decode(&again) {
        Ok(read) => assert_eq!(read, record),
        Err(fault) => panic!("what was stored cannot be read: {fault}"),
    }
}
