//! The traces of what players ask: most commands are over before a trace could be of use, so that only those that are
//! sampled, fail by the server's own fault, or wait become one. Called by `link`. One that is none of these costs a load
//! and a few shifts.

use std::borrow::Cow;
use std::sync::Arc;

use protocol::ErrorCode;
use protocol::request::Op;

use super::Attachment;
use super::answer::Answer;
use crate::home::Cell;
use crate::ids::SessionId;
use crate::telemetry::traces::{self, Kind, Span, Work};

/// The trace of a command that is carried out.
pub(super) struct CommandTrace {
    op: Op,
    /// Boxed, since most are none and all are handed on.
    work: Option<Box<Work>>,
}

impl CommandTrace {
    pub(super) fn begin(op: Op) -> Self {
        Self { op, work: traces::begin_sampled().map(Box::new) }
    }

    /// It was answered at once.
    pub(super) fn end(self, me: &Attachment, answer: &Answer) {
        let fault = fault_of(answer);
        // Done within its wake-up: nothing of it was slow.
        let failed = || fault.as_ref().and_then(|_| traces::begin_unsampled());
        let Some(work) = self.work.map(|work| *work).or_else(failed) else { return };
        WaitTrace::of(self.op, work, me).end_with(fault);
    }

    /// It is answered later. `None` while no traces are kept.
    pub(super) fn waits(self, me: &Attachment) -> Option<WaitTrace> {
        let work = self.work.map(|work| *work).or_else(traces::begin_unsampled)?;
        Some(WaitTrace::of(self.op, work, me))
    }
}

/// The trace of a command whose answer waits: for a commit, for another node. It ends however its link does: whoever says
/// her last seldom stays to hear what came of it.
pub(super) struct WaitTrace {
    op: Op,
    /// None once it is told.
    work: Option<Work>,
    cell: Arc<Cell>,
    session: SessionId,
}

impl WaitTrace {
    fn of(op: Op, work: Work, me: &Attachment) -> Self {
        Self { op, work: Some(work), cell: Arc::clone(&me.cell), session: me.session }
    }

    pub(super) const fn work(&self) -> Option<&Work> {
        self.work.as_ref()
    }

    /// It has waited, and this came of it. A command that is carried out only now goes on.
    pub(super) fn settles(mut self, answer: &Answer) -> Option<CommandTrace> {
        if matches!(answer, Answer::Again(_)) {
            return Some(CommandTrace { op: self.op, work: self.work.take().map(Box::new) });
        }
        let fault = fault_of(answer);
        self.end_with(fault);
        None
    }

    fn end_with(mut self, fault: Option<Cow<'static, str>>) {
        self.tell(fault);
    }

    fn tell(&mut self, fault: Option<Cow<'static, str>>) {
        let Some(work) = self.work.take() else { return };
        work.end(fault, || span(self.op.name(), &self.cell, self.session));
    }
}

impl Drop for WaitTrace {
    fn drop(&mut self) {
        // Nobody waits for the answer any more, which is nobody's fault here.
        self.tell(None);
    }
}

/// The trace of requests that wait until the shard answers again.
pub(super) struct HoldTrace(Work);

impl HoldTrace {
    /// `None` while no traces are kept.
    pub(super) fn begin() -> Option<Self> {
        traces::begin_sampled().or_else(traces::begin_unsampled).map(Self)
    }

    pub(super) fn end(self, me: &Attachment, in_vain: bool) {
        let fault = in_vain.then(|| ErrorCode::NotHome.name().into());
        self.0.end(fault, || span("hold", &me.cell, me.session));
    }
}

fn span(name: &'static str, cell: &Cell, session: SessionId) -> Span {
    Span::new(Kind::Server, name)
        .with("hearth.player", cell.player().as_str().to_owned())
        .with("hearth.session", session.to_string())
        .with("hearth.shard", cell.shard().id().number())
}

fn fault_of(answer: &Answer) -> Option<Cow<'static, str>> {
    match answer {
        Answer::Error(body) => body.code.is_ours().then(|| body.code.name().into()),
        _ => None,
    }
}
