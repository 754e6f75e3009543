//! The names of the table as rooms use them: by its type a name says what can be done with it, and it makes handles. Made at
//! construction, used on hot paths. A label that the table does not declare, or a value that it does not have, is a bug that
//! every build but a release finds.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata};

use super::row;

/// A name that counts up. Rooms call [`Name::handle`], [`Name::with`] or [`Name::by`] once.
pub type CounterName = Name<Counter>;
/// A name that goes up and down.
pub type GaugeName = Name<Gauge>;
/// A name whose values are distributed.
pub type HistogramName = Name<Histogram>;

/// The name of a metric, and by its type what can be done with it.
#[derive(Debug)]
pub struct Name<H> {
    pub(super) name: &'static str,
    pub(super) handle: fn(&Key) -> H,
}

impl<H> Name<H> {
    /// The name as Prometheus sees it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.name
    }

    /// The handle without labels.
    #[must_use]
    pub fn handle(&self) -> H {
        self.made(Key::from_static_name(self.name))
    }

    /// The handle with these labels.
    #[must_use]
    pub fn with(&self, labels: &[(&'static str, &'static str)]) -> H {
        let labels: Vec<Label> =
            labels.iter().map(|(name, value)| Label::from_static_parts(name, value)).collect();
        self.made(Key::from_parts(self.name, labels))
    }

    /// The handle with these labels, whose values are known when it is made: few, or the caller sees to that.
    #[must_use]
    pub fn of_each(&self, labels: &[(&'static str, String)]) -> H {
        let labels: Vec<Label> =
            labels.iter().map(|(name, value)| Label::new(*name, value.clone())).collect();
        self.made(Key::from_parts(self.name, labels))
    }

    /// One handle for each value of a label, beside labels that all of them carry; and one more, `other`, for a
    /// value that is none of them.
    #[must_use]
    pub fn by(
        &self,
        label: &'static str,
        values: &[&'static str],
        also: &[(&'static str, &'static str)],
    ) -> Family<H> {
        let make = |value| {
            let labels: Vec<_> = also.iter().copied().chain([(label, value)]).collect();
            self.with(&labels)
        };
        Family { handles: values.iter().map(|value| (*value, make(*value))).collect(), other: make(OTHER) }
    }

    /// The same, each handle made when it is first asked for, beside one label that all of them carry.
    #[must_use]
    pub fn by_use(
        self,
        label: &'static str,
        values: &[&'static str],
        also: (&'static str, &'static str),
    ) -> SparseFamily<H> {
        let handles = values.iter().map(|value| (*value, OnceLock::new())).collect();
        SparseFamily { name: self, label, also, handles, other: OnceLock::new() }
    }

    fn made(&self, key: Key) -> H {
        debug_assert!(is_declared(&key), "{key} is not as the table of metrics has it");
        (self.handle)(&key)
    }
}

/// The value of a label that is none of those the table declares.
const OTHER: &str = "other";

/// Whether the key has all the labels of its row, no other, and values that the row has.
fn is_declared(key: &Key) -> bool {
    let Some(row) = row(key.name()) else { return false };
    row.labels.len() == key.labels().len()
        && key.labels().all(|label| {
            let declared = row.labels.iter().find(|(name, _)| *name == label.key());
            declared.is_some_and(|(_, values)| label.value() == OTHER || values.admit(label.value()))
        })
}

/// Handles of one metric by the value of one label. Finding one allocates nothing.
#[derive(Debug)]
pub struct Family<H> {
    handles: Box<[(&'static str, H)]>,
    other: H,
}

impl<H> Family<H> {
    /// The handle of a value.
    #[must_use]
    pub fn of(&self, value: &str) -> &H {
        self.handles.iter().find(|(known, _)| *known == value).map_or(&self.other, |(_, handle)| handle)
    }
}

/// The same where most values never come: a series is there from its first use on, so that `/metrics` does not show
/// hundreds of zeros. Finding one that was used before allocates nothing.
#[derive(Debug)]
pub struct SparseFamily<H> {
    name: Name<H>,
    label: &'static str,
    also: (&'static str, &'static str),
    handles: Box<[(&'static str, OnceLock<H>)]>,
    other: OnceLock<H>,
}

impl<H> SparseFamily<H> {
    /// The handle of a value.
    pub fn of(&self, value: &str) -> &H {
        let known = self.handles.iter().find(|(known, _)| *known == value);
        let (value, handle) = known.map_or((OTHER, &self.other), |(value, handle)| (*value, handle));
        handle.get_or_init(|| self.name.with(&[self.also, (self.label, value)]))
    }
}

/// A histogram of what comes so often that every sixteenth is enough: samples wait in memory until they are taken into
/// buckets.
#[derive(Debug)]
pub struct Sampled {
    histogram: Histogram,
    count: AtomicU32,
}

impl Sampled {
    const EVERY: u32 = 16;

    /// Of this histogram. The first value is recorded.
    #[must_use]
    pub const fn of(histogram: Histogram) -> Self {
        Self { histogram, count: AtomicU32::new(0) }
    }

    /// One more value.
    pub fn record(&self, value: f64) {
        if self.count.fetch_add(1, Ordering::Relaxed).is_multiple_of(Self::EVERY) {
            self.histogram.record(value);
        }
    }
}

pub(super) fn counter(key: &Key) -> Counter {
    metrics::with_recorder(|recorder| recorder.register_counter(key, &metadata()))
}

pub(super) fn gauge(key: &Key) -> Gauge {
    metrics::with_recorder(|recorder| recorder.register_gauge(key, &metadata()))
}

pub(super) fn histogram(key: &Key) -> Histogram {
    metrics::with_recorder(|recorder| recorder.register_histogram(key, &metadata()))
}

const fn metadata() -> Metadata<'static> {
    Metadata::new(module_path!(), Level::INFO, None)
}

#[cfg(test)]
mod tests {
    use super::super::{CLOSES, COMMITS, LINKS_OPEN, RATE_LIMITED};
    use super::*;

    #[test]
    #[should_panic(expected = "is not as the table of metrics has it")]
    fn a_label_that_is_not_declared_is_found() {
        let _ = LINKS_OPEN.with(&[("player", "ann")]);
    }

    #[test]
    #[should_panic(expected = "is not as the table of metrics has it")]
    fn a_value_that_is_not_declared_is_found() {
        let _ = COMMITS.with(&[("outcome", "who knows")]);
    }

    #[test]
    #[should_panic(expected = "is not as the table of metrics has it")]
    fn a_label_that_is_missing_is_found() {
        let _ = RATE_LIMITED.handle();
    }

    #[test]
    fn what_is_declared_is_made() {
        let _ = (LINKS_OPEN.handle(), COMMITS.with(&[("outcome", "done")]), CLOSES.with(&[("code", "4000")]));
        let _ = COMMITS.by("outcome", &["done"], &[]);
    }

    #[test]
    fn of_what_is_sampled_every_sixteenth_is_recorded() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let sampled = Sampled::of(super::super::FLUSH_BATCH_RECORDS.handle());
            (0..33).for_each(|_| sampled.record(1.0));
        });
        let text = recorder.handle().render();
        assert!(text.contains("hearth_flush_batch_records_count 3"), "{text}");
    }
}
