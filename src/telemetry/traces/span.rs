//! What is told of something that was done: built when it has ended, and only if it is kept. Holds no payload, no token and
//! no key: names, places and outcomes.

use std::borrow::Cow;
use std::time::SystemTime;

use super::context::{Context, Parent};

/// Which side of a call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What somebody outside asked for.
    Server,
    /// What was asked of somebody outside.
    Client,
    /// Neither.
    Internal,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A number.
    Whole(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

macro_rules! whole {
    ($($number:ty),*) => { $(
        impl From<$number> for Value {
            fn from(number: $number) -> Self {
                Self::Whole(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
    )* };
}
whole!(u16, u32, u64, usize);

/// What it was, without when and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub(super) name: Cow<'static, str>,
    pub(super) kind: Kind,
    pub(super) attributes: Vec<(&'static str, Value)>,
}

impl Span {
    /// Of this kind. Names are few: whom it concerned is an attribute.
    #[must_use]
    pub fn new(kind: Kind, name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), kind, attributes: Vec::new() }
    }

    /// With one attribute more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// With one more, if it is known.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

/// One that is kept, on its way out.
#[derive(Debug, Clone)]
pub(super) struct Finished {
    pub(super) span: Span,
    pub(super) context: Context,
    pub(super) parent: Option<Parent>,
    /// The parent is another process's.
    pub(super) is_parent_remote: bool,
    pub(super) began: SystemTime,
    pub(super) ended: SystemTime,
    /// What went wrong, in one word of few (`error.type`).
    pub(super) failed: Option<Cow<'static, str>>,
}
