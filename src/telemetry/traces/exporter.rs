//! Spans on their way to the collector: one task, batches, nobody who waits for it. While the collector does not answer the
//! oldest are tried again and the newest fall out of the queue, which is counted; a stop gives what is left a second.

use std::future::Future;
use std::time::Duration;

use metrics::Counter;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::mpsc;

use super::TraceSettings;
use super::collector::{Collector, Posted};
use super::otlp;
use super::span::Finished;
use crate::telemetry::metrics::TRACE_SPANS;

/// Spans that wait.
pub(super) const QUEUE_MAX: usize = 4_096;
/// Spans of one request.
const BATCH_MAX: usize = 512;
/// How long a batch that is not full waits for others: full ones follow each other at once.
const GATHER: Duration = Duration::from_secs(1);
/// Before a batch is tried again: twice as long each time.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// What a stop gives what is left.
const LAST: Duration = Duration::from_millis(800);

/// The task.
pub struct Exporter {
    collector: Collector,
    resource: Resource,
    spans: mpsc::Receiver<Finished>,
    batch: Vec<Finished>,
    sent: Counter,
    refused: Counter,
    dropped: Counter,
    /// What was said last of a collector that does not take them.
    told: Option<&'static str>,
}

impl Exporter {
    pub(super) fn new(settings: TraceSettings, spans: mpsc::Receiver<Finished>) -> Self {
        let counter = |outcome| TRACE_SPANS.with(&[("outcome", outcome)]);
        Self {
            resource: otlp::resource(&settings),
            collector: settings.collector,
            spans,
            batch: Vec::new(),
            sent: counter("sent"),
            refused: counter("refused"),
            dropped: counter("dropped"),
            told: None,
        }
    }

    /// Sends what comes until it is asked to stop, and then what is left, within a second.
    pub async fn run(mut self, stopping: impl Future<Output = ()>) {
        let mut stopping = std::pin::pin!(stopping);
        loop {
            let goes_on = tokio::select! {
                biased;
                () = &mut stopping => false,
                goes_on = self.send_next() => goes_on,
            };
            if !goes_on {
                break;
            }
        }
        let _ = tokio::time::timeout(LAST, self.send_rest()).await;
        let left = self.batch.len() + std::iter::from_fn(|| self.spans.try_recv().ok()).count();
        self.dropped.increment(left as u64);
    }

    /// One batch; says whether more can come. Where it is given up half-way nothing is lost.
    async fn send_next(&mut self) -> bool {
        if self.batch.is_empty() && self.spans.recv_many(&mut self.batch, BATCH_MAX).await == 0 {
            return false;
        }
        if self.batch.len() < BATCH_MAX {
            tokio::time::sleep(GATHER).await;
        }
        self.fill();
        let mut wait = RETRY_MIN;
        while !self.send().await {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
        true
    }

    /// What is left; of a collector that does not answer there is no next time.
    async fn send_rest(&mut self) {
        loop {
            self.fill();
            if self.batch.is_empty() || !self.send().await {
                return;
            }
        }
    }

    fn fill(&mut self) {
        let room = BATCH_MAX.saturating_sub(self.batch.len());
        self.batch.extend(std::iter::from_fn(|| self.spans.try_recv().ok()).take(room));
    }

    /// Sends the batch. `false`: to be tried again.
    async fn send(&mut self) -> bool {
        let count = self.batch.len();
        match self.collector.post(otlp::request(&self.resource, &self.batch)).await {
            Posted::Taken { refused } => {
                let refused = refused.min(count);
                self.sent.increment((count - refused) as u64);
                self.refused.increment(refused as u64);
                if self.told.take().is_some() {
                    tracing::info!(operation = "traces", status = "ok", "the collector takes traces again");
                }
            }
            Posted::Refused(why) => {
                self.refused.increment(count as u64);
                self.tell(&why, "the collector refuses traces: they are dropped");
            }
            Posted::Later(why) => {
                self.tell(
                    &why,
                    "the collector does not take traces: tried again, and the newest are dropped meanwhile",
                );
                return false;
            }
        }
        self.batch.clear();
        true
    }

    /// Once, until it becomes something else.
    fn tell(&mut self, status: &str, what: &'static str) {
        if self.told.replace(what) != Some(what) {
            tracing::warn!(operation = "traces", status, collector = ?self.collector, "{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::traces::context::Context;
    use crate::telemetry::traces::span::{Kind, Span};
    use std::time::SystemTime;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    fn finished() -> Finished {
        let at = SystemTime::now();
        Finished {
            span: Span::new(Kind::Internal, "x"),
            context: Context::root(|_| true),
            parent: None,
            is_parent_remote: false,
            began: at,
            ended: at,
            failed: None,
        }
    }

    fn exporter(port: u16) -> (mpsc::Sender<Finished>, Exporter) {
        let (queue, spans) = mpsc::channel(QUEUE_MAX);
        let settings = TraceSettings {
            collector: Collector::at(&format!("http://127.0.0.1:{port}")).unwrap(),
            sample_ratio: 1.0,
            slow: Duration::from_secs(1),
            node: "a".to_owned(),
            cluster: None,
        };
        (queue, Exporter::new(settings, spans))
    }

    /// Answers so many calls, each with this status, and says how many bytes of bodies came.
    async fn collect(listener: TcpListener, status: &str, calls: usize) -> usize {
        let mut bodies = 0;
        for _ in 0..calls {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).await.unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
            assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).await.unwrap();
            bodies += body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        bodies
    }

    #[tokio::test]
    async fn a_stop_sends_what_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (queue, exporter) = exporter(listener.local_addr().unwrap().port());
        for _ in 0..BATCH_MAX + 1 {
            queue.try_send(finished()).unwrap();
        }
        let (bodies, ()) = tokio::join!(collect(listener, "200 OK", 2), exporter.run(async {}));
        assert!(bodies > BATCH_MAX * 30, "{bodies}");
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_an_absence_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (_queue, mut sender) = exporter(port);
        sender.batch.push(finished());
        let (_, is_done) = tokio::join!(collect(listener, "400 Bad Request", 1), sender.send());
        assert!(is_done && sender.batch.is_empty());
        let refuses = sender.told;
        assert!(refuses.is_some());
        // Nobody listens there any more.
        sender.batch.push(finished());
        assert!(!sender.send().await && sender.batch.len() == 1);
        // What becomes of them is another thing now, and is said.
        let is_away = sender.told;
        assert!(is_away.is_some() && is_away != refuses);
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (_, is_done) = tokio::join!(collect(listener, "503 Service Unavailable", 1), sender.send());
        assert!(!is_done && sender.batch.len() == 1 && sender.told == is_away);
        let again = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (_, is_done) = tokio::join!(collect(again, "200 OK", 1), sender.send());
        assert!(is_done && sender.batch.is_empty() && sender.told.is_none());
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_a_collector_that_says_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (queue, exporter) = exporter(listener.local_addr().unwrap().port());
        queue.try_send(finished()).unwrap();
        let stopped = tokio::time::timeout(Duration::from_secs(30), exporter.run(async {}));
        stopped.await.expect("an end");
    }
}
