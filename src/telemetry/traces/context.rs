//! Where something stands in a trace, as W3C Trace Context says it: `traceparent` (level 1, with the second flag of level
//! 2), `tracestate`. Called by whoever takes calls from others. Pure; what cannot be read is no context, and harms no call.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::sync::Arc;

/// Most bytes of a `tracestate` that is handed on, and most entries of it: the standard asks for as many.
const STATE_BYTES_MAX: usize = 512;
const STATE_ENTRIES_MAX: usize = 32;
const SAMPLED: u8 = 1;
/// The id was drawn at random, all of its last seven bytes.
const RANDOM: u8 = 2;

/// A trace. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// A new one.
    #[must_use]
    pub fn draw() -> Self {
        Self(NonZeroU128::new(rand::random()).unwrap_or(NonZeroU128::MIN))
    }

    /// Its last eight bytes: what sampling goes by.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    pub const fn low(self) -> u64 {
        self.0.get() as u64
    }

    /// As it goes over the wire.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A span. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// A new one.
    #[must_use]
    pub fn draw() -> Self {
        Self(NonZeroU64::new(rand::random()).unwrap_or(NonZeroU64::MIN))
    }

    /// As it goes over the wire.
    #[must_use]
    pub const fn bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A span of a trace, and what is known of whether it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    flags: u8,
}

impl Context {
    /// The first span of a new trace.
    #[must_use]
    pub fn root(is_sampled: impl FnOnce(TraceId) -> bool) -> Self {
        let trace = TraceId::draw();
        Self { trace, span: SpanId::draw(), flags: RANDOM }.sampled(is_sampled(trace))
    }

    /// A new span under this one.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span: SpanId::draw(), ..self }
    }

    /// The same, kept or not.
    #[must_use]
    pub const fn sampled(self, is_sampled: bool) -> Self {
        let flags = if is_sampled { self.flags | SAMPLED } else { self.flags & !SAMPLED };
        Self { flags, ..self }
    }

    /// Whether it is kept.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Its flags, as they go over the wire.
    #[must_use]
    pub const fn flags(self) -> u8 {
        self.flags
    }

    /// Reads a `traceparent` or `traceresponse`. A later version is read as far as this one goes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut next = |digits| hex(parts.next()?, digits);
        let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        let has_more = parts.next().is_some();
        if version == 0xff || version == 0 && has_more {
            return None;
        }
        let flags = u8::try_from(flags).ok()? & (SAMPLED | RANDOM);
        let trace = TraceId(NonZeroU128::new(trace)?);
        let span = SpanId(NonZeroU64::new(u64::try_from(span).ok()?)?);
        Some(Self { trace, span, flags })
    }
}

/// As `traceparent` and `traceresponse` have it.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// So many digits in lower case, and nothing else.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_good = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_good.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// The span under which something is done, wherever that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The span.
    pub context: Context,
    /// What other systems have said of the trace: handed on as it came.
    pub state: Option<Arc<str>>,
}

impl Parent {
    /// Reads the headers of a call, each as often as it came. Of two different spans none can be the parent.
    #[must_use]
    pub fn read<'a>(
        mut traceparents: impl Iterator<Item = &'a [u8]>,
        tracestates: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Self> {
        let first = traceparents.next().filter(|_| traceparents.next().is_none())?;
        let context = Context::parse(std::str::from_utf8(first).ok()?.trim_ascii())?;
        Some(Self { context, state: state(tracestates) })
    }
}

fn state<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Arc<str>> {
    let mut all = String::new();
    for value in values {
        let value = std::str::from_utf8(value).ok()?.trim_ascii();
        let join = if all.is_empty() || value.is_empty() { "" } else { "," };
        if all.len() + join.len() + value.len() > STATE_BYTES_MAX {
            return None;
        }
        all = [all.as_str(), join, value].concat();
    }
    let is_entry = |entry: &str| entry.trim_ascii().is_empty() || entry.contains('=');
    let is_plain = all.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    let is_good = is_plain && all.split(',').all(is_entry) && all.split(',').count() <= STATE_ENTRIES_MAX;
    (is_good && !all.is_empty()).then(|| all.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn read(parents: &[&str], states: &[&str]) -> Option<Parent> {
        Parent::read(parents.iter().map(|text| text.as_bytes()), states.iter().map(|text| text.as_bytes()))
    }

    #[test]
    fn what_the_standard_shows_is_read_and_written_the_same() {
        for (flags, is_sampled) in [("00", false), ("01", true), ("02", false), ("03", true)] {
            let text = format!("00-{TRACE}-{SPAN}-{flags}");
            let context = Context::parse(&text).expect(&text);
            assert_eq!((context.to_string(), context.is_sampled()), (text, is_sampled));
            assert_eq!((context.trace.to_string(), context.span.to_string()), (TRACE.into(), SPAN.into()));
        }
        // Flags that this version does not know are not handed on.
        let told = Context::parse(&format!("00-{TRACE}-{SPAN}-ff")).expect("flags");
        assert_eq!(told.to_string(), format!("00-{TRACE}-{SPAN}-03"));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for later in ["01", "cc", "fe"] {
            for rest in ["", "-", "-what-the-future-will-be-like"] {
                let text = format!("{later}-{TRACE}-{SPAN}-01{rest}");
                let context = Context::parse(&text).expect(&text);
                assert_eq!(context.to_string(), format!("00-{TRACE}-{SPAN}-01"), "{text}");
            }
            assert_eq!(Context::parse(&format!("{later}-{TRACE}-{SPAN}-01.what")), None);
        }
    }

    #[test]
    fn what_is_malformed_is_none() {
        let (zeros, upper) = ("0".repeat(32), TRACE.to_uppercase());
        for wrong in [
            String::new(),
            "00".into(),
            "-".repeat(4),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-001"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("000-{TRACE}-{SPAN}-01"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
            format!("00-{TRACE}0-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.get(1..).unwrap()),
            format!("00-+{}-{SPAN}-01", TRACE.get(1..).unwrap()),
            format!("00-{TRACE}-{SPAN}0-01"),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("00-{TRACE}-{SPAN}-01 x"),
            format!("00-{}é-{SPAN}-01", TRACE.get(2..).unwrap()),
        ] {
            assert_eq!(Context::parse(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_call_has_one_parent_or_none() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(read(&[&good], &[]).map(|parent| parent.context.to_string()), Some(good.clone()));
        assert!(read(&[&format!(" {good}\t")], &[]).is_some(), "a header's white space is not its value's");
        assert_eq!(read(&[], &["a=1"]), None);
        assert_eq!(read(&[&good, &good], &[]), None);
        assert_eq!(read(&["x"], &["a=1"]), None);
    }

    #[test]
    fn a_state_is_handed_on_as_it_came_or_not_at_all() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        let of = |states: &[&str]| read(&[&good], states).and_then(|parent| parent.state);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["", " "]), None);
        assert_eq!(
            of(&["congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"]).as_deref(),
            Some("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")
        );
        assert_eq!(of(&["a=1", "b@c=2"]).as_deref(), Some("a=1,b@c=2"));
        let long = format!("a={}", "x".repeat(STATE_BYTES_MAX));
        let many = vec!["a=1"; STATE_ENTRIES_MAX + 1].join(",");
        for wrong in ["no entry", "a=1,b", "a=\u{e9}", "a=1\nb=2", &long, &many] {
            assert_eq!(of(&[wrong]), None, "{wrong}");
        }
    }

    #[test]
    fn a_child_is_another_span_of_the_same_trace() {
        let root = Context::root(|_| true);
        let child = root.child();
        assert_eq!((child.trace, child.is_sampled()), (root.trace, true));
        assert_ne!(child.span, root.span);
        assert_ne!(Context::root(|_| false).trace, root.trace);
        assert_eq!(Context::parse(&root.to_string()), Some(root));
        assert!(!root.sampled(false).is_sampled());
    }
}
