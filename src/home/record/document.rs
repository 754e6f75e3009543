//! A player's state: keys and values in key order, each value kept as the MessagePack it arrived as. Compact, because
//! every session has one. Pure; called by `record::state`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Opaque bytes that are stored as MessagePack's binary type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blob(pub Box<[u8]>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Blob;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.into()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// A small sorted map.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Document(Vec<(Box<str>, Blob)>);

impl Document {
    /// The value of a key, as MessagePack.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        let at = self.place(key).ok()?;
        self.0.get(at).map(|(_, value)| &*value.0)
    }

    /// All entries, by key.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(key, value)| (&**key, &*value.0))
    }

    /// Writes a key; what it held.
    pub fn set(&mut self, key: &str, value: Box<[u8]>) -> Option<Box<[u8]>> {
        match self.place(key) {
            Ok(at) => self.0.get_mut(at).map(|(_, old)| std::mem::replace(&mut old.0, value)),
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (key.into(), Blob(value)));
                None
            }
        }
    }

    /// Removes a key, if it is there; what it held.
    pub fn unset(&mut self, key: &str) -> Option<Box<[u8]>> {
        self.place(key).ok().map(|at| self.0.remove(at).1.0)
    }

    /// The size of the whole as a MessagePack map, within a few bytes.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        self.0.iter().map(|(key, value)| key.len() + 2 + value.0.len()).sum()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(key))
    }
}
