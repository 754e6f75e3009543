//! What `session` measures: handles made once, at construction. Names and meanings stand in `telemetry::metrics`.

use std::time::Duration;

use metrics::{Counter, Histogram};
use protocol::codes::{CloseCode, ErrorCode};
use protocol::request::Op;

use super::answer::{Answer, Body};
use crate::telemetry::metrics::{ACK_SECONDS, CLOSES, COMMANDS, Family, LIMITS, RATE_LIMITED, SparseFamily};

/// The room's handles.
pub(super) struct Meters {
    /// By op, in the order of [`Op::ALL`], those that clients send; then by outcome.
    commands: Box<[Option<SparseFamily<Counter>>]>,
    /// What had to wait and was refused then.
    refused_later: SparseFamily<Counter>,
    closes: Box<[(u16, Counter)]>,
    closed_otherwise: Counter,
    limited: Family<Counter>,
    acks_applied: Histogram,
    acks_durable: Histogram,
}

impl Meters {
    pub(super) fn new() -> Self {
        let outcomes: Vec<&'static str> =
            ["ok", "later", "dup"].into_iter().chain(ErrorCode::ALL.iter().map(|code| code.name())).collect();
        let command =
            |op: &Op| op.is_request().then(|| COMMANDS.by_use("outcome", &outcomes, ("op", op.name())));
        let ack = |level| ACK_SECONDS.with(&[("level", level)]);
        // Label values live as long as the process: one small text a close code.
        let close = |code: &CloseCode| {
            let label: &'static str = Box::leak(code.number().to_string().into_boxed_str());
            (code.number(), CLOSES.with(&[("code", label)]))
        };
        Self {
            commands: Op::ALL.iter().map(command).collect(),
            refused_later: COMMANDS.by_use("outcome", &outcomes, ("op", "later")),
            closes: CloseCode::ALL.iter().map(close).collect(),
            closed_otherwise: CLOSES.with(&[("code", "other")]),
            limited: RATE_LIMITED.by("kind", LIMITS, &[]),
            acks_applied: ack("applied"),
            acks_durable: ack("durable"),
        }
    }

    /// A command was carried out.
    pub(super) fn command(&self, op: Op, answer: &Answer) {
        let outcome = match answer {
            Answer::Ok(Body::Changed(changed)) if changed.dup == Some(true) => "dup",
            Answer::Ok(Body::Roster(roster)) if roster.dup == Some(true) => "dup",
            Answer::Ok(_) | Answer::Logout => "ok",
            Answer::Later(_) | Answer::Again(_) => "later",
            Answer::Error(error) => error.code.name(),
            Answer::Gone => ErrorCode::NotResumable.name(),
        };
        self.count(op, outcome);
    }

    /// A command was refused before the house looked at it.
    pub(super) fn refused(&self, op: Op, code: ErrorCode) {
        self.count(op, code.name());
    }

    fn count(&self, op: Op, outcome: &str) {
        if let Some(Some(family)) = self.commands.get(op as usize) {
            family.of(outcome).increment(1);
        }
    }

    /// A command that had to wait has come to this.
    pub(super) fn settled(&self, answer: &Answer) {
        if let Answer::Error(error) = answer {
            self.refused_later.of(error.code.name()).increment(1);
        }
    }

    /// A request was refused for being too fast, by this limit.
    pub(super) fn too_fast(&self, limit: &str) {
        self.limited.of(limit).increment(1);
    }

    /// A link was closed with this code.
    pub(super) fn closed(&self, code: u16) {
        let known = self.closes.iter().find(|(known, _)| *known == code);
        known.map_or(&self.closed_otherwise, |(_, counter)| counter).increment(1);
    }

    /// What one wake-up brought was answered and written after this long.
    pub(super) fn applied(&self, took: Duration) {
        self.acks_applied.record(took.as_secs_f64());
    }

    /// A change became durable after this long.
    pub(super) fn durable(&self, took: Duration) {
        self.acks_durable.record(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use protocol::reply::{Empty, ErrorBody};

    use super::*;

    #[test]
    fn ops_stand_in_the_order_of_all() {
        for (at, op) in Op::ALL.iter().enumerate() {
            assert_eq!(*op as usize, at, "{op:?}");
        }
    }

    #[test]
    fn commands_are_counted_by_what_clients_send_and_what_came_of_it() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let meters = Meters::new();
            meters.command(Op::Watch, &Answer::Ok(Body::Empty(Empty {})));
            meters.command(Op::Watch, &Answer::Ok(Body::Empty(Empty {})));
            let refused = |code| Answer::Error(Box::new(ErrorBody::new(code, "no")));
            meters.command(Op::Watch, &refused(ErrorCode::TooLarge));
            meters.settled(&refused(ErrorCode::StoreUnavailable));
            meters.settled(&Answer::Ok(Body::Empty(Empty {})));
        });
        let text = recorder.handle().render();
        let mut series: Vec<_> =
            text.lines().filter(|line| line.starts_with("hearth_commands_total")).collect();
        series.sort_unstable();
        let expected = [
            r#"hearth_commands_total{op="later",outcome="store_unavailable"} 1"#,
            r#"hearth_commands_total{op="watch",outcome="ok"} 2"#,
            r#"hearth_commands_total{op="watch",outcome="too_large"} 1"#,
        ];
        assert_eq!(series, expected);
    }
}
