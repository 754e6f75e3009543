//! One login or resume, from its frame to what came of it, for the log and as a trace: a line for each session that begins
//! or is taken up again. Who is refused is told of in numbers, and in the log where somebody looks closer. Called by
//! `handshake`. Never a token or a ticket.

use std::future::Future;
use std::time::Instant;

use super::handshake::{NotIn, outcome_of};
use crate::session::Entered;
use crate::telemetry::traces::{self, Kind, Span, Work};

/// A player who comes.
pub(super) struct Arrival {
    operation: &'static str,
    began: Instant,
    work: Option<Work>,
}

impl Arrival {
    pub(super) fn begin(operation: &'static str) -> Self {
        Self { operation, began: Instant::now(), work: traces::begin(None) }
    }

    /// Lets her in, or does not.
    pub(super) fn during<F: Future>(&self, letting_in: F) -> impl Future<Output = F::Output> {
        traces::during(self.work.as_ref(), letting_in)
    }

    /// Tells what came of it.
    pub(super) fn end(self, outcome: &Result<Entered, NotIn>) {
        let (operation, status) = (self.operation, outcome_of(outcome));
        let fault = match outcome {
            Err(NotIn::Refused(refused)) if refused.body.code.is_ours() => Some(status.into()),
            _ => None,
        };
        let told = outcome.as_ref().ok().map(|entered| (entered.player(), entered.session()));
        let (player, session) = told.unzip();
        let trace = self.work.as_ref().map(|work| work.context().trace);
        let is_kept = self.work.is_some_and(|work| {
            work.end(fault, || {
                Span::new(Kind::Server, operation)
                    .with("hearth.outcome", status)
                    .with_some("hearth.player", player.map(|player| player.as_str().to_owned()))
                    .with_some("hearth.session", session.map(|session| session.to_string()))
            })
        });
        let trace_id = trace.filter(|_| is_kept).map(tracing::field::display);
        let duration_ms = self.began.elapsed().as_secs_f64() * 1_000.0;
        let (player, session) = (player.map(tracing::field::display), session.map(tracing::field::display));
        if outcome.is_ok() {
            tracing::info!(operation, status, player, session, duration_ms, trace_id, "a player is here");
        } else {
            tracing::debug!(operation, status, duration_ms, trace_id, "a player is not let in here");
        }
    }
}
