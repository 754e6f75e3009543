//! Structured logs on standard error: for people as text, for machines as one JSON object a line. `cli` starts them
//! once, and ends them with the process. A thread of their own writes them: who reads standard error slowly makes nobody
//! wait, and loses lines beyond those that fit the queue, which are counted. The convention for every event of the house:
//!
//! - `operation`: what was being done, a verb of the protocol or the name of a task; always there;
//! - `status`: how it ended (`ok`, an error code, a close code); `duration_ms`: how long it took;
//! - `player`, `session`, `shard`, `epoch`, `peer`: whom it concerns, as fields, never inside the text;
//! - `trace_id`: of which trace it is a part, as a field or through the span `call{trace_id}`, in which each call of a service
//!   and each question of another node is answered.
//!
//! `warn` means that somebody should look, `error` that a promise was broken; one event a change of state. The level can be
//! changed while the process runs; what is not wanted costs as little then as before, since each place in the code
//! remembers whether it is.

use std::fmt;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::field::{RecordFields, VisitOutput as _};
use tracing_subscriber::fmt::format::{DefaultVisitor, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::{EnvFilter, fmt as lines, reload};

/// The targets of lines that are written whatever anybody asks for over the API: who changed what, and what is wrong.
const WATCHED: [&str; 2] = ["audit", "alarm"];
/// The `service` of every line.
const SERVICE: &str = "hearth";
/// The field that says how something ended.
const STATUS: &str = "status";

/// Lines that wait to be written.
const LINES_MAX: usize = 16_384;
/// How long the end of the process waits for those that are left.
const LAST: Duration = Duration::from_secs(2);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Why nothing will be logged, or not otherwise.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The directives are not a filter.
    #[error("log.level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// They single out lines that are written whatever is asked for.
    #[error("lines of audit and alarm are written whatever is asked for")]
    Watched,
    /// Somebody else set the process's logs before.
    #[error("the logs of this process are set already")]
    Taken,
    /// Nobody has started them here.
    #[error("the logs of this process are not its own")]
    Foreign,
}

/// What the node is called, once that is known.
static NODE: OnceLock<String> = OnceLock::new();
/// What is logged, once the logs are started.
static LEVEL: OnceLock<Level> = OnceLock::new();

/// Who writes the lines, until the end.
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);
/// The lines that found no room.
static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// The lines that are left are written when it goes.
#[must_use]
pub struct Logs(());

impl Drop for Logs {
    fn drop(&mut self) {
        finish();
    }
}

/// Writes the lines that are left, within two seconds; later ones are lost. For the end of the process alone.
pub fn finish() {
    let Some(writer) = WRITER.lock().take() else { return };
    let (written, waiting) = mpsc::channel::<()>();
    // On a thread of its own: whoever ends the process does so in time, also where nobody reads standard error.
    let ended = std::thread::Builder::new().name("log_end".to_owned()).spawn(move || {
        drop(writer);
        drop(written);
    });
    if ended.is_ok() {
        let _ = waiting.recv_timeout(LAST);
    }
}

/// How many lines were dropped, because standard error is read too slowly.
#[must_use]
pub fn lost() -> u64 {
    LOST.get().map_or(0, |lost| u64::try_from(lost.dropped_lines()).unwrap_or(u64::MAX))
}

/// Lines to this writer, over a queue; beyond it they are dropped.
fn queue(lines_max: usize, to: impl std::io::Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(lines_max);
    builder.thread_name("log").finish(to)
}

/// What is logged, and what the settings say.
struct Level {
    filter: reload::Handle<EnvFilter, Registry>,
    configured: String,
    now: Mutex<String>,
}

/// Says what the node is called, where that was not known when the logs were started.
pub fn name_node(node_id: &str) {
    let _ = NODE.set(node_id.to_owned());
}

/// Starts the logs of this process, for good: until what is returned goes.
///
/// # Errors
/// [`LogsError`]; the logs are then as they were.
pub fn start(lines: Lines, directives: &str, node_id: &str) -> Result<Logs, LogsError> {
    let (filter, handle) = reload::Layer::new(filter(directives)?);
    let (queue, writer) = queue(LINES_MAX, std::io::stderr());
    let lost = queue.error_counter();
    let dispatch = subscriber(lines, filter, node_id, queue);
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| LogsError::Taken)?;
    *WRITER.lock() = Some(writer);
    let logs = Logs(());
    let now = Mutex::new(directives.to_owned());
    let level = Level { filter: handle, configured: directives.to_owned(), now };
    LOST.set(lost).map_err(|_| LogsError::Taken)?;
    LEVEL.set(level).map_err(|_| LogsError::Taken)?;
    Ok(logs)
}

/// The directives that are in force, and those of the settings; `None` if the logs are not this process's own.
#[must_use]
pub fn level() -> Option<(String, &'static str)> {
    let level = LEVEL.get()?;
    Some((level.now.lock().clone(), level.configured.as_str()))
}

/// Logs by other directives from now on; `None`: by those of the settings. Only those can turn off what tells of changes
/// and of alarms.
///
/// # Errors
/// [`LogsError`]; the level is then as it was.
pub fn set_level(directives: Option<&str>) -> Result<(), LogsError> {
    let level = LEVEL.get().ok_or(LogsError::Foreign)?;
    let filter = directives.map_or_else(|| filter(&level.configured).map_err(Into::into), lent)?;
    let directives = directives.unwrap_or(&level.configured);
    let mut now = level.now.lock();
    level.filter.reload(filter).map_err(|_| LogsError::Foreign)?;
    directives.clone_into(&mut now);
    Ok(())
}

/// Audit lines are written whatever the level, unless they are turned off by name.
fn filter(directives: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::try_new(format!("audit=info,{directives}"))
}

/// Directives that hold for a while: whoever may change them must not be able to do so, or anything else, unseen.
fn lent(directives: &str) -> Result<EnvFilter, LogsError> {
    // A directive for some lines of a target, by their fields, goes before one for all of it.
    if WATCHED.iter().any(|target| directives.contains(&format!("{target}["))) {
        return Err(LogsError::Watched);
    }
    let mut filter = EnvFilter::try_new(directives)?;
    for target in WATCHED {
        filter = filter.add_directive(format!("{target}=info").parse()?);
    }
    Ok(filter)
}

fn subscriber<W>(
    format: Lines,
    filter: reload::Layer<EnvFilter, Registry>,
    node_id: &str,
    writer: W,
) -> tracing::Dispatch
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filtered = tracing_subscriber::registry().with(filter);
    match format {
        Lines::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let layer = lines::layer().with_writer(writer).fmt_fields(TextFields);
            filtered.with(layer.with_ansi(colours).with_target(false)).into()
        }
        Lines::Json => {
            let layer = lines::layer().with_writer(writer).fmt_fields(JsonFields::new()).with_ansi(false);
            filtered.with(layer.event_format(JsonLines { node: node_id.to_owned() })).into()
        }
    }
}

/// Fields as `name=value`, so that a line can be taken apart: a value that is not one word is quoted, whichever way the event
/// gave it. Texts always are; what an event gives by how it is displayed (an error, an id) would not be.
struct TextFields;

impl<'w> FormatFields<'w> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut quoting = Quoting(DefaultVisitor::new(writer, true));
        fields.record(&mut quoting);
        quoting.0.finish()
    }
}

struct Quoting<'w>(DefaultVisitor<'w>);

impl Visit for Quoting<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.record_str(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            return self.0.record_debug(field, value);
        }
        let text = format!("{value:?}");
        let splits = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '=');
        if text.is_empty() || text.contains(splits) {
            self.0.record_debug(field, &text);
        } else {
            self.0.record_debug(field, value);
        }
    }
}

/// One flat object a line: spans put their fields beside those of the event, so that `player` is found in one place.
struct JsonLines {
    node: String,
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        for span in context.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>();
            if let Some(Ok(Value::Object(fields))) = fields.map(|fields| serde_json::from_str(&fields.fields))
            {
                line.extend(fields);
            }
        }
        event.record(&mut Fields(&mut line));
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let metadata = event.metadata();
        for (name, value) in [
            ("timestamp", timestamp.as_str()),
            ("level", metadata.level().as_str()),
            ("service", SERVICE),
            ("node", NODE.get().unwrap_or(&self.node)),
            ("target", metadata.target()),
        ] {
            line.insert(name.to_owned(), Value::from(value));
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Takes an event's fields as JSON values.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value> + ToString) {
        // An index of logs knows one type a field, and most of what ends says how in a word.
        let value = if field.name() == STATUS { value.to_string().into() } else { value.into() };
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // Below a nanosecond there is only how binary fractions are written.
        let is_time = field.name().ends_with("_ms");
        self.put(field, if is_time { (value * 1e6).round() / 1e6 } else { value });
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::level_filters::LevelFilter;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("a lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(lines: Lines, directives: &str, events: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let (filter, _) = reload::Layer::new(filter(directives).expect("a filter"));
        let dispatch = subscriber(lines, filter, "node-7", move || writer.clone());
        tracing::dispatcher::with_default(&dispatch, events);
        String::from_utf8(memory.0.lock().expect("a lock").clone()).expect("UTF-8")
    }

    /// Takes nothing before it is told to.
    struct Stuck(mpsc::Receiver<()>, Memory);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_does_not_wait_for_who_reads_and_what_fits_is_written_at_the_end() {
        let (go, stuck) = mpsc::channel();
        let memory = Memory::default();
        let (queue, writer) = queue(8, Stuck(stuck, memory.clone()));
        let lost = queue.error_counter();
        let (filter, _) = reload::Layer::new(filter("info").expect("a filter"));
        let dispatch = subscriber(Lines::Json, filter, "node-7", queue);
        tracing::dispatcher::with_default(&dispatch, || {
            (0..100).for_each(|number| tracing::info!(operation = "x", number, "a line"));
        });
        let dropped = lost.dropped_lines();
        assert!((90..=92).contains(&dropped), "{dropped}: eight wait, and one or two are with the writer");
        drop(go);
        drop(writer);
        let text = String::from_utf8(memory.0.lock().expect("a lock").clone()).expect("UTF-8");
        assert_eq!(text.lines().count(), 100 - dropped, "{text}");
    }

    #[test]
    fn a_line_of_json_has_every_field_in_one_place() {
        let text = logged(Lines::Json, "info", || {
            let span = tracing::info_span!("session", player = "ada", session = %"0190");
            span.in_scope(|| {
                tracing::warn!(
                    operation = "login",
                    duration_ms = 12_u64,
                    status = "ok",
                    again = true,
                    "welcome"
                );
            });
        });
        let line: Value = serde_json::from_str(&text).expect("one line of JSON");
        for (field, value) in [
            ("service", Value::from("hearth")),
            ("node", Value::from("node-7")),
            ("level", Value::from("WARN")),
            ("operation", Value::from("login")),
            ("duration_ms", Value::from(12)),
            ("status", Value::from("ok")),
            ("again", Value::from(true)),
            ("player", Value::from("ada")),
            ("session", Value::from("0190")),
            ("message", Value::from("welcome")),
        ] {
            assert_eq!(line[field], value, "{field} in {text}");
        }
        assert!(line["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn a_line_of_text_can_be_taken_apart() {
        let text = logged(Lines::Text, "info", || {
            let span = tracing::info_span!("session", player = %"ann status=\"ok\"");
            span.in_scope(|| {
                let error = std::io::Error::other("the store cannot be reached: refused");
                tracing::warn!(operation = "flush", status = %error, reason = "no link", epoch = %7, shards = 3, "a text");
            });
        });
        for told in [
            r#"player="ann status=\"ok\"""#,
            r#"operation="flush""#,
            r#"status="the store cannot be reached: refused""#,
            r#"reason="no link""#,
            "epoch=7",
            "shards=3",
            " a text ",
        ] {
            assert!(text.contains(told), "{told} is not in {text}");
        }
    }

    #[test]
    fn the_filter_holds() {
        for lines in [Lines::Text, Lines::Json] {
            let text = logged(lines, "warn,hearth::telemetry=debug", || {
                tracing::trace!(operation = "x", "too fine");
                tracing::debug!(operation = "x", "wanted");
                tracing::info!(target: "other", operation = "x", "not wanted");
            });
            assert!(
                text.contains("wanted") && !text.contains("not wanted") && !text.contains("fine"),
                "{text}"
            );
        }
    }

    #[test]
    fn audit_lines_are_written_at_every_level_unless_turned_off() {
        let of = |directives| {
            logged(Lines::Text, directives, || {
                tracing::info!(target: "audit", operation = "kick", "a change");
                tracing::info!(target: "other", operation = "x", "another");
            })
        };
        for directives in ["error", "off", "warn,hearth=debug"] {
            let text = of(directives);
            assert!(text.contains("a change") && !text.contains("another"), "{directives}: {text}");
        }
        assert!(!of("info,audit=off").contains("a change"));
    }

    #[test]
    fn directives_that_are_lent_turn_off_no_audit_line_and_no_alarm() {
        let of = |directives: &str| {
            let memory = Memory::default();
            let writer = memory.clone();
            let (filter, _) = reload::Layer::new(lent(directives).expect("a filter"));
            let dispatch = subscriber(Lines::Text, filter, "node-7", move || writer.clone());
            tracing::dispatcher::with_default(&dispatch, || {
                tracing::info!(target: "audit", operation = "kick", key = "ops", "a change");
                tracing::warn!(target: "alarm", operation = "watch", "an alarm");
                tracing::info!(target: "other", operation = "x", "another");
            });
            String::from_utf8(memory.0.lock().expect("a lock").clone()).expect("UTF-8")
        };
        for directives in ["off", "audit=off,alarm=off", "error,a=off", "off,[{key}]=off", "audit=error"] {
            let text = of(directives);
            assert!(text.contains("a change") && text.contains("an alarm"), "{directives}: {text}");
            assert!(!text.contains("another"), "{directives}: {text}");
        }
        for sly in ["audit[{key}]=off", "info,alarm[{operation}]=off"] {
            assert!(matches!(lent(sly), Err(LogsError::Watched)), "{sly}");
        }
    }

    #[test]
    fn a_field_has_one_type_in_json_and_no_more_digits_than_it_means() {
        let text = logged(Lines::Json, "info", || {
            tracing::info!(
                operation = "link",
                status = 4000_u16,
                duration_ms = 0.015_271_999_999_999_999,
                "x"
            );
            tracing::info!(operation = "login", status = "ok", duration_ms = 12.5, "x");
        });
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let of = |name: &str| lines.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
        assert_eq!(of("status"), ["4000", "ok"]);
        assert_eq!(of("duration_ms"), [0.015_272, 12.5]);
    }

    #[test]
    fn a_line_break_in_a_field_makes_no_line() {
        let text = logged(Lines::Json, "info", || {
            tracing::info!(operation = "login", player = "a\n{\"level\":\"ERROR\"}", "x");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn a_level_that_is_changed_holds_at_every_place_at_once_and_its_end_leaves_no_trace() {
        let memory = Memory::default();
        let (writer, (filter, handle)) =
            (memory.clone(), reload::Layer::new(filter("info").expect("a filter")));
        let hint = |of: &EnvFilter| tracing_subscriber::Layer::<Registry>::max_level_hint(of);
        assert_eq!(handle.with_current(hint).expect("a filter"), Some(LevelFilter::INFO));
        let dispatch = subscriber(Lines::Json, filter, "node-7", move || writer.clone());
        let say = |word| tracing::debug!(operation = "x", "{word}");
        tracing::dispatcher::with_default(&dispatch, || {
            say("before");
            handle.reload(super::filter("debug").expect("a filter")).expect("the layer");
            say("meanwhile");
            handle.reload(super::filter("info").expect("a filter")).expect("the layer");
            say("after");
        });
        assert_eq!(handle.with_current(hint).expect("a filter"), Some(LevelFilter::INFO));
        let text = String::from_utf8(memory.0.lock().expect("a lock").clone()).expect("UTF-8");
        assert!(text.contains("meanwhile") && !text.contains("before") && !text.contains("after"), "{text}");
    }

    #[test]
    fn a_line_within_a_call_names_its_trace() {
        for lines in [Lines::Json, Lines::Text] {
            let text = logged(lines, "warn", || {
                tracing::error_span!("call", trace_id = "4bf9")
                    .in_scope(|| tracing::warn!(operation = "x", "y"));
            });
            assert!(text.contains(r#""trace_id":"4bf9""#) || text.contains(r#"trace_id="4bf9""#), "{text}");
        }
    }
}
