//! Traces: what is done for a call, over all nodes that do it, as spans for a collector (OTLP). Rooms begin a [`Work`] and
//! end it; whether it is kept is decided at its end: if its trace is sampled, if it failed by the house's own fault, or if
//! it was slow; of those that are kept for what became of them alone, so many a second. Until then it is a few numbers, and
//! nothing is built of it; without a collector there is not even that.
//! `app` starts the exporter. Knows no room; never waits, and never fails what it watches.
//!
//! Within [`during`] a task knows under which span it works: children and other nodes are told from there.

mod allowance;
mod collector;
mod context;
mod exporter;
mod otlp;
mod span;

use std::borrow::Cow;
use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use futures_util::future::Either;
use metrics::Counter;
use tokio::sync::mpsc;

pub use collector::{Collector, CollectorError};
pub use context::{Context, Parent, SpanId, TraceId};
pub use exporter::Exporter;
pub use span::{Kind, Span, Value};

use super::metrics::TRACE_SPANS;
use super::sampling::{RATIO, Ratio};
use allowance::Allowance;
use exporter::QUEUE_MAX;
use span::Finished;

/// What is to be known before traces are kept.
pub struct TraceSettings {
    /// Who takes them.
    pub collector: Collector,
    /// The share of traces that is kept whatever becomes of them, 0 to 1.
    pub sample_ratio: f64,
    /// What takes as long is kept.
    pub slow: Duration,
    /// The node's name.
    pub node: String,
    /// The cluster's, if it has one.
    pub cluster: Option<String>,
}

/// The traces of this process are kept already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the traces of this process are kept elsewhere")]
pub struct Taken;

/// Takes spans, and decides whether they are kept.
struct Tracer {
    queue: mpsc::Sender<Finished>,
    slow: Duration,
    ratio: &'static Ratio,
    /// For what is kept only because it failed or was slow: when the store is away that is all there is.
    troubles: Allowance,
    dropped: Counter,
    limited: Counter,
}

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Keeps traces from now on, for good. The exporter is to be run by a task.
///
/// # Errors
/// [`Taken`]: that was done before.
pub fn start(settings: TraceSettings) -> Result<Exporter, Taken> {
    let (queue, spans) = mpsc::channel(QUEUE_MAX);
    let counter = |outcome| TRACE_SPANS.with(&[("outcome", outcome)]);
    let tracer = Tracer {
        queue,
        slow: settings.slow,
        ratio: &RATIO,
        troubles: Allowance::new(Instant::now()),
        dropped: counter("dropped"),
        limited: counter("limited"),
    };
    TRACER.set(tracer).map_err(|_| Taken)?;
    RATIO.set_base(settings.sample_ratio);
    Ok(Exporter::new(settings, spans))
}

/// Something that is done, and may become a span.
#[derive(Debug)]
pub struct Work {
    context: Context,
    parent: Option<Parent>,
    is_parent_remote: bool,
    began: Instant,
    ended: Option<Instant>,
    /// It waits for others as long as it was asked to: how long it takes says nothing.
    is_patient: bool,
    /// Whatever becomes of it: a child is.
    is_kept: AtomicBool,
}

/// Under what a task works.
struct Here {
    parent: Parent,
    /// It is another process's span.
    is_remote: bool,
    is_kept: AtomicBool,
}

tokio::task_local! {
    static HERE: Here;
}

/// Whether traces are kept.
#[must_use]
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// The span under which this task works.
#[must_use]
pub fn here() -> Option<Parent> {
    HERE.try_with(|here| here.parent.clone()).ok()
}

/// The same, and whether it is another process's.
fn here_of() -> Option<(Parent, bool)> {
    HERE.try_with(|here| (here.parent.clone(), here.is_remote)).ok()
}

/// The span under which this task works is kept, whatever becomes of it: something under it is.
pub fn keep_here() {
    let _ = HERE.try_with(|here| here.is_kept.store(true, Ordering::Relaxed));
}

/// Begins something under the span under which this task works, or under what a caller has said, or a new trace. `None`
/// while no traces are kept.
#[must_use]
pub fn begin(caller: Option<Parent>) -> Option<Work> {
    let tracer = TRACER.get()?;
    Some(tracer.begin(here_of().or_else(|| caller.map(|caller| (caller, true)))))
}

/// Begins something if this task works under a span.
#[must_use]
pub fn begin_here() -> Option<Work> {
    let tracer = TRACER.get()?;
    here_of().map(|here| tracer.begin(Some(here)))
}

/// Begins a trace if the next one is to be kept. Where most are not, this is a load and a few shifts.
#[must_use]
pub fn begin_sampled() -> Option<Work> {
    RATIO.takes_next().then(|| Work::under(None, Context::root(|_| true)))
}

/// Begins a trace that is kept only if it fails or is slow.
#[must_use]
pub fn begin_unsampled() -> Option<Work> {
    is_on().then(|| Work::under(None, Context::root(|_| false)))
}

/// Carries something out as a part of the work. Not async fns, here and below: each would hold the future once more, also
/// where nothing is traced.
pub fn during<F: Future>(work: Option<&Work>, future: F) -> impl Future<Output = F::Output> {
    let Some(work) = work else { return Either::Left(future) };
    let state = work.parent.as_ref().and_then(|parent| parent.state.clone());
    let parent = Parent { context: work.context, state };
    let whole = future.map(move |output| {
        let is_kept = HERE.try_with(|here| here.is_kept.load(Ordering::Relaxed)).unwrap_or(false);
        work.is_kept.fetch_or(is_kept, Ordering::Relaxed);
        output
    });
    Either::Right(HERE.scope(Here { parent, is_remote: false, is_kept: AtomicBool::new(false) }, whole))
}

/// Carries something out under another process's span.
pub fn under<F: Future>(caller: Option<Parent>, future: F) -> impl Future<Output = F::Output> {
    let Some(parent) = caller else { return Either::Left(future) };
    Either::Right(HERE.scope(Here { parent, is_remote: true, is_kept: AtomicBool::new(false) }, future))
}

impl Tracer {
    fn begin(&self, parent: Option<(Parent, bool)>) -> Work {
        let context = match &parent {
            Some((parent, _)) => parent.context.child(),
            None => Context::root(|trace| self.ratio.takes(trace.low())),
        };
        Work::under(parent, context)
    }

    /// A place for a span among those that wait for the collector. Full, or too many that are kept for what became of them:
    /// it is dropped and counted, nobody waits.
    fn place(&self, why: Kept) -> Option<mpsc::Permit<'_, Finished>> {
        let Ok(place) = self.queue.try_reserve() else {
            self.dropped.increment(1);
            return None;
        };
        if why == Kept::ForTrouble && !self.troubles.take(Instant::now()) {
            self.limited.increment(1);
            return None;
        }
        Some(place)
    }
}

/// Why a span is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// Its trace is sampled, or something under it is kept.
    Anyway,
    /// It failed, or was slow.
    ForTrouble,
}

impl Work {
    fn under(parent: Option<(Parent, bool)>, context: Context) -> Self {
        let (parent, is_parent_remote) = parent.unzip();
        Self {
            context,
            parent,
            is_parent_remote: is_parent_remote.unwrap_or(false),
            began: Instant::now(),
            ended: None,
            is_patient: false,
            is_kept: AtomicBool::new(false),
        }
    }

    /// Its place in its trace.
    #[must_use]
    pub const fn context(&self) -> Context {
        self.context
    }

    /// It may take as long as it was asked to wait: it is kept for being slow no more.
    #[must_use]
    pub fn patient(self, is_patient: bool) -> Self {
        Self { is_patient, ..self }
    }

    /// Says from when on it went, and for how long.
    #[must_use]
    pub fn lasting(self, began: Instant, took: Duration) -> Self {
        Self { began, ended: Some(began + took), ..self }
    }

    /// It is kept, whatever becomes of it.
    pub fn keep(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }

    /// Whether it is kept, if it ends now and so: what was promised is held.
    #[must_use]
    pub fn promises(&self, has_failed: bool) -> bool {
        let Some(tracer) = TRACER.get() else { return false };
        match self.why_kept(tracer.slow, has_failed) {
            None => false,
            Some(Kept::Anyway) => true,
            Some(Kept::ForTrouble) => {
                let is_kept = tracer.troubles.take(Instant::now());
                self.is_kept.fetch_or(is_kept, Ordering::Relaxed);
                is_kept
            }
        }
    }

    fn why_kept(&self, slow: Duration, has_failed: bool) -> Option<Kept> {
        if self.context.is_sampled() || self.is_kept.load(Ordering::Relaxed) {
            return Some(Kept::Anyway);
        }
        let took = || self.ended.map_or_else(|| self.began.elapsed(), |ended| ended - self.began);
        (has_failed || !self.is_patient && took() >= slow).then_some(Kept::ForTrouble)
    }

    /// Ends it. `failed` says what went wrong by the house's own fault, in one word of few; `span` tells of it, and is asked
    /// only if it is kept. Says whether it is.
    pub fn end(self, failed: Option<Cow<'static, str>>, span: impl FnOnce() -> Span) -> bool {
        let Some(tracer) = TRACER.get() else { return false };
        let why = self.why_kept(tracer.slow, failed.is_some());
        let Some(place) = why.and_then(|why| tracer.place(why)) else { return false };
        // What it is a part of is kept with it, where this process can say so.
        keep_here();
        place.send(self.finished(failed, span()));
        true
    }

    fn finished(self, failed: Option<Cow<'static, str>>, span: Span) -> Finished {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let at = |instant| wall.checked_sub(now.saturating_duration_since(instant)).unwrap_or(UNIX_EPOCH);
        Finished {
            span,
            // Kept for what became of it: whoever reads it need not know why.
            context: self.context.sampled(true),
            parent: self.parent,
            is_parent_remote: self.is_parent_remote,
            began: at(self.began),
            ended: self.ended.map_or(wall, at),
            failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_secs(3_600);

    fn parent(is_sampled: bool) -> Parent {
        Parent { context: Context::root(|_| is_sampled), state: Some("a=1".into()) }
    }

    fn tracer(ratio: f64) -> (Tracer, mpsc::Receiver<Finished>) {
        static NONE: Ratio = Ratio::of(0.0);
        static ALL: Ratio = Ratio::of(1.0);
        let (queue, spans) = mpsc::channel(2);
        let ratio = if ratio > 0.0 { &ALL } else { &NONE };
        let [dropped, limited] = [Counter::noop(), Counter::noop()];
        let troubles = Allowance::new(Instant::now());
        (Tracer { queue, slow: SLOW, ratio, troubles, dropped, limited }, spans)
    }

    #[test]
    fn a_new_trace_is_sampled_by_the_share_and_a_part_of_one_as_its_caller_says() {
        for (ratio, all) in [(0.0, false), (1.0, true)] {
            let (tracer, _) = tracer(ratio);
            let root = tracer.begin(None);
            assert_eq!((root.context.is_sampled(), root.parent.is_none()), (all, true));
            for is_sampled in [false, true] {
                let caller = parent(is_sampled);
                let work = tracer.begin(Some((caller.clone(), true)));
                assert_eq!(work.context.trace, caller.context.trace);
                assert_eq!(work.context.is_sampled(), is_sampled);
                assert_eq!(work.parent, Some(caller));
            }
        }
    }

    #[test]
    fn what_is_not_sampled_is_kept_if_it_failed_or_was_slow_or_a_part_of_it_was_kept() {
        let (tracer, _) = tracer(0.0);
        let work = || tracer.begin(None);
        let now = Instant::now();
        let why = |work: Work, slow, has_failed| work.why_kept(slow, has_failed);
        assert_eq!(why(work(), SLOW, false), None);
        assert_eq!(why(work(), SLOW, true), Some(Kept::ForTrouble));
        assert_eq!(why(work(), Duration::ZERO, false), Some(Kept::ForTrouble));
        assert_eq!(why(work().lasting(now, SLOW), SLOW, false), Some(Kept::ForTrouble));
        assert_eq!(why(work().lasting(now, SLOW).patient(true), SLOW, false), None);
        assert_eq!(why(work().lasting(now, SLOW - Duration::from_nanos(1)), SLOW, false), None);
        let parts = work();
        parts.keep();
        assert_eq!(why(parts, SLOW, true), Some(Kept::Anyway));
        assert_eq!(why(tracer.begin(Some((parent(true), true))), SLOW, true), Some(Kept::Anyway));
    }

    #[test]
    fn what_is_not_traced_makes_no_future_larger() {
        let large = async {
            let held = [7_u8; 4_096];
            tokio::task::yield_now().await;
            held.len()
        };
        let bare = size_of_val(&large);
        let whole = size_of_val(&during(None, large));
        assert!(whole < bare + 512, "{bare} bytes have become {whole}");
    }

    #[tokio::test]
    async fn what_is_done_under_a_span_is_its_child_and_keeps_it() {
        let (tracer, _) = tracer(0.0);
        let caller = parent(false);
        let work = tracer.begin(Some((caller.clone(), true)));
        assert!(here().is_none());
        let own = work.context;
        during(Some(&work), async {
            let told = here().expect("a span");
            assert_eq!((told.context, told.state), (own, caller.state.clone()));
            let child = tracer.begin(here_of());
            assert_eq!(child.context.trace, caller.context.trace);
            assert_eq!(child.parent.as_ref().map(|parent| parent.context), Some(own));
            assert!(!child.is_parent_remote);
            keep_here();
        })
        .await;
        assert!(here().is_none() && work.why_kept(SLOW, false) == Some(Kept::Anyway));
        let other = tracer.begin(None);
        during(Some(&other), async {}).await;
        assert_eq!(other.why_kept(SLOW, false), None);
        let remote = under(Some(caller.clone()), async { tracer.begin(here_of()) }).await;
        assert!(remote.is_parent_remote && remote.parent == Some(caller));
        assert_eq!(under(None, async { here() }).await, None);
        assert_eq!(during(None, async { here() }).await, None);
    }

    #[test]
    fn a_span_says_when_it_was_and_of_what_it_is_a_part() {
        let (tracer, _) = tracer(1.0);
        let began = Instant::now() - Duration::from_secs(7);
        let work = tracer.begin(Some((parent(true), false))).lasting(began, Duration::from_secs(2));
        let context = work.context;
        let finished = work.finished(Some("internal".into()), Span::new(Kind::Client, "commit"));
        assert_eq!(finished.context, context);
        assert_eq!(finished.ended.duration_since(finished.began).unwrap(), Duration::from_secs(2));
        let ago = SystemTime::now().duration_since(finished.began).unwrap();
        assert!(ago >= Duration::from_secs(7) && ago < Duration::from_secs(60), "{ago:?}");
        assert_eq!(finished.failed.as_deref(), Some("internal"));
    }

    #[test]
    fn more_than_may_wait_is_dropped() {
        let (tracer, mut spans) = tracer(1.0);
        let keep = |why| {
            let Some(place) = tracer.place(why) else { return false };
            place.send(tracer.begin(None).finished(None, Span::new(Kind::Internal, "x")));
            true
        };
        assert_eq!([keep(Kept::Anyway), keep(Kept::Anyway), keep(Kept::Anyway)], [true, true, false]);
        assert_eq!(std::iter::from_fn(|| spans.try_recv().ok()).count(), 2);
        // Of those that failed so many are kept, and what is sampled has its place all the same.
        let failed = (0..10_000).filter(|_| keep(Kept::ForTrouble) && spans.try_recv().is_ok()).count();
        assert!((200..5_000).contains(&failed), "{failed}");
        assert!(keep(Kept::Anyway));
    }
}
