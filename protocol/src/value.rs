//! Any value that both encodings can say: what games put into `data`, `state`, `activity` and `meta`.
//! Bounded in depth while it is read ([`crate::limits::VALUE_DEPTH_MAX`]), so that no frame can exhaust a stack.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

use crate::limits::VALUE_DEPTH_MAX;

/// A value of MessagePack or JSON.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// `null`, nil.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// An integer that fits i64.
    Int(i64),
    /// An integer above i64.
    Uint(u64),
    /// A finite number with a fraction. (MessagePack's NaN and infinities become `null` in JSON.)
    Float(f64),
    /// A text.
    Str(String),
    /// Bytes; in JSON a text in standard base64.
    Bin(Vec<u8>),
    /// A list.
    List(Vec<Self>),
    /// A map with text keys; of repeated keys the last one counts.
    Map(BTreeMap<String, Self>),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::Uint(number) => serializer.serialize_u64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Str(text) => serializer.serialize_str(text),
            Self::Bin(bytes) if serializer.is_human_readable() => {
                serializer.serialize_str(&STANDARD.encode(bytes))
            }
            Self::Bin(bytes) => serializer.serialize_bytes(bytes),
            Self::List(items) => items.serialize(serializer),
            Self::Map(entries) => entries.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Bounded { depth_left: VALUE_DEPTH_MAX }.deserialize(deserializer)
    }
}

impl Value {
    /// Reads MessagePack that was accepted and wrapped by this program: a few levels deeper than what a peer may send.
    pub(crate) fn of_own_msgpack(bytes: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
        Bounded { depth_left: VALUE_DEPTH_MAX + 4 }.deserialize(&mut reader)
    }
}

/// Reads a value that may nest `depth_left` levels.
#[derive(Clone, Copy)]
struct Bounded {
    depth_left: usize,
}

impl Bounded {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(0) | None => Err(E::custom("values nest too deep")),
            Some(depth_left) => Ok(Self { depth_left }),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Bounded {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with text keys")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or(Value::Uint(number), Value::Int))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Str(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::Str(text))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bin(bytes.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut entries = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            entries.insert(key, map.next_value_seed(inner)?);
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_bounded_the_same_in_both_encodings() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(serde_json::from_str::<Value>(&nested(VALUE_DEPTH_MAX)).is_ok());
        assert!(serde_json::from_str::<Value>(&nested(VALUE_DEPTH_MAX + 1)).is_err());
        let packed = |depth: usize| [vec![0x91; depth - 1], vec![1]].concat();
        assert!(rmp_serde::from_slice::<Value>(&packed(VALUE_DEPTH_MAX)).is_ok());
        assert!(rmp_serde::from_slice::<Value>(&packed(VALUE_DEPTH_MAX + 1)).is_err());
    }

    #[test]
    fn bytes_become_base64_in_json() {
        assert_eq!(serde_json::to_string(&Value::Bin(vec![1, 2, 3])).unwrap(), r#""AQID""#);
        assert_eq!(rmp_serde::to_vec(&Value::Bin(vec![1, 2, 3])).unwrap(), [0xc4, 3, 1, 2, 3]);
    }
}
