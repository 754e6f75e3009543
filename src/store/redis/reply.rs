//! A reply of Redis, taken apart from front to back. Whatever does not fit is an error, never a default.

use bytes::Bytes;
use redis::Value;

use crate::store::{StoreError, layout};

/// What is left of a reply.
pub(super) struct Reply(std::vec::IntoIter<Value>);

impl Reply {
    /// A reply of one value or of many.
    pub(super) fn of(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            Value::Nil => Err(corrupt("nothing")),
            single => Ok(Self(vec![single].into_iter())),
        }
    }

    /// How many values are left.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The next value, a reply of its own.
    pub(super) fn nested(&mut self) -> Result<Self, StoreError> {
        match self.0.next() {
            Some(Value::Array(values)) => Ok(Self(values.into_iter())),
            other => Err(corrupt(&format!("{other:?}"))),
        }
    }

    /// The next value's bytes; `None` for nil.
    pub(super) fn bytes(&mut self) -> Result<Option<Bytes>, StoreError> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(Some(Bytes::from(bytes))),
            Some(Value::SimpleString(text)) => Ok(Some(Bytes::from(text))),
            Some(Value::Int(number)) => Ok(Some(Bytes::from(number.to_string()))),
            Some(Value::Okay) => Ok(Some(Bytes::from_static(b"OK"))),
            Some(Value::Nil) => Ok(None),
            other => Err(corrupt(&format!("{other:?}"))),
        }
    }

    /// The next value as text.
    pub(super) fn word(&mut self) -> Result<String, StoreError> {
        let bytes = self.bytes()?.ok_or_else(|| corrupt("nil"))?;
        String::from_utf8(bytes.into()).map_err(|error| corrupt(&error.to_string()))
    }

    /// The next value as a decimal number.
    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        let word = self.word()?;
        word.parse().map_err(|_| corrupt(&word))
    }

    /// The next value as a decimal number that may be below zero.
    pub(super) fn signed(&mut self) -> Result<i64, StoreError> {
        let word = self.word()?;
        word.parse().map_err(|_| corrupt(&word))
    }

    /// The next value as 16 hex digits.
    pub(super) fn hex(&mut self) -> Result<u64, StoreError> {
        let word = self.word()?;
        layout::parse_hex16(word.as_bytes()).ok_or_else(|| corrupt(&word))
    }
}

/// The answer was another than the question's.
pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("unexpected reply {:.100}", what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(values: Vec<Value>) -> Reply {
        Reply::of(Value::Array(values)).unwrap()
    }

    #[test]
    fn a_reply_is_taken_from_the_front() {
        let text = |text: &str| Value::BulkString(text.into());
        let mut reply = reply(vec![text("done"), Value::Int(7), text("00000000000000ff"), Value::Nil]);
        assert_eq!(reply.word().unwrap(), "done");
        assert_eq!(reply.number().unwrap(), 7);
        assert_eq!(reply.hex().unwrap(), 255);
        assert_eq!(reply.bytes().unwrap(), None);
        assert!(reply.bytes().is_err(), "there is no more");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(Reply::of(Value::Nil).is_err());
        assert!(reply(vec![Value::Nil]).word().is_err());
        assert!(reply(vec![Value::BulkString(b"-1".to_vec())]).number().is_err());
        assert!(reply(vec![Value::BulkString(b"ff".to_vec())]).hex().is_err());
        assert!(reply(vec![Value::BulkString(vec![0xff])]).word().is_err());
        assert!(reply(vec![Value::Array(vec![])]).bytes().is_err());
    }
}
