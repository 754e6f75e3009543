//! Pure: which slot of a Redis Cluster a key lies in, and who holds which slot. Called by `cluster`.

use redis::Value;

use super::reply::Reply;
use super::topology::Address;
use crate::store::StoreError;

/// How many slots a cluster has.
pub(super) const SLOTS: u16 = 16_384;

/// Who holds which slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotMap {
    masters: Vec<Address>,
    /// For each slot a place in `masters`; past its end: nobody.
    holders: Vec<u16>,
}

impl SlotMap {
    /// Nobody holds anything.
    pub(super) fn empty() -> Self {
        Self { masters: Vec::new(), holders: vec![u16::MAX; usize::from(SLOTS)] }
    }

    /// Reads the answer to CLUSTER SLOTS of the node at `asked`.
    pub(super) fn read(answer: Value, asked: &Address) -> Result<Self, StoreError> {
        let mut map = Self::empty();
        let mut ranges = Reply::of(answer)?;
        while ranges.len() > 0 {
            let mut range = ranges.nested()?;
            let (from, to) = (range.number()?, range.number()?);
            // The first node of a range is its master: where, on which port, with which id.
            let mut node = range.nested()?;
            let host = node.bytes()?.map(|host| String::from_utf8_lossy(&host).into_owned());
            let host =
                host.filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| asked.host.clone());
            let port = node.number()?;
            let (Ok(from), Ok(to), Ok(port)) = (u16::try_from(from), u16::try_from(to), u16::try_from(port))
            else {
                return Err(StoreError::Corrupt(format!(
                    "{asked} tells of slots {from} to {to} on port {port}"
                )));
            };
            let place = map.place(Address { host, port });
            let held = map.holders.iter_mut().take(usize::from(to) + 1).skip(usize::from(from));
            held.for_each(|holder| *holder = place);
        }
        Ok(map)
    }

    /// Who holds the slot.
    pub(super) fn holder(&self, slot: u16) -> Option<&Address> {
        self.masters.get(self.place_of(slot)?)
    }

    /// Where who holds the slot stands among [`Self::masters`].
    pub(super) fn place_of(&self, slot: u16) -> Option<usize> {
        let place = usize::from(*self.holders.get(usize::from(slot))?);
        (place < self.masters.len()).then_some(place)
    }

    /// A node said who holds the slot now.
    pub(super) fn assign(&mut self, slot: u16, to: Address) {
        let place = self.place(to);
        if let Some(holder) = self.holders.get_mut(usize::from(slot)) {
            *holder = place;
        }
    }

    /// Those who hold slots.
    pub(super) fn masters(&self) -> &[Address] {
        &self.masters
    }

    /// How many slots somebody holds.
    pub(super) fn covered(&self) -> usize {
        self.holders.iter().filter(|holder| usize::from(**holder) < self.masters.len()).count()
    }

    fn place(&mut self, master: Address) -> u16 {
        let place = self.masters.iter().position(|known| *known == master).unwrap_or_else(|| {
            self.masters.push(master);
            self.masters.len() - 1
        });
        u16::try_from(place).unwrap_or(u16::MAX)
    }
}

/// The slot of a key: CRC16 of its hash tag, or of all of it.
pub(super) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    crc16(hashed.as_bytes()) % SLOTS
}

/// CRC-16/XMODEM, bit by bit: a tag has a dozen bytes.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // The first is the check value of the specification, the others are what CLUSTER KEYSLOT says.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [("foo", 12_182), ("{foo}bar", 12_182), ("{user1000}.following", 3_443)] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
        assert_eq!(slot_of("foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of("foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
        assert_eq!(slot_of("foo{bar}{zap}"), crc16(b"bar") % SLOTS);
    }

    fn at(port: u16) -> Address {
        Address { host: "127.0.0.1".into(), port }
    }

    fn range(from: i64, to: i64, host: Value, port: i64) -> Value {
        let node = Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec())]);
        let replica = Value::Array(vec![Value::BulkString(b"10.9.9.9".to_vec()), Value::Int(9)]);
        Value::Array(vec![Value::Int(from), Value::Int(to), node, replica])
    }

    #[test]
    fn a_map_is_read_and_moved() {
        let host = || Value::BulkString(b"127.0.0.1".to_vec());
        let answer = Value::Array(vec![
            range(0, 99, host(), 1),
            range(200, 16_383, host(), 2),
            range(100, 149, Value::Nil, 3),
        ]);
        let mut map = SlotMap::read(answer, &at(9)).unwrap();
        let holders = [0, 99, 100, 149, 150, 199, 200, 16_383].map(|slot| map.holder(slot).map(|at| at.port));
        assert_eq!(holders, [Some(1), Some(1), Some(3), Some(3), None, None, Some(2), Some(2)]);
        assert_eq!((map.covered(), map.masters().len()), (16_384 - 50, 3));
        map.assign(150, at(4));
        map.assign(0, at(2));
        assert_eq!([150, 0, 1].map(|slot| map.holder(slot).map(|at| at.port)), [Some(4), Some(2), Some(1)]);
        assert_eq!(map.holder(SLOTS), None);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for answer in [
            Value::Nil,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 70_000, Value::Nil, 1)]),
            Value::Array(vec![range(0, 1, Value::Nil, 70_000)]),
        ] {
            assert!(SlotMap::read(answer, &at(9)).is_err());
        }
    }
}
