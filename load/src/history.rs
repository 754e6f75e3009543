//! What happened in a run: the history that checkers judge and `--history` writes as JSON lines.
//! Written by bots, one log each in the order of its link; read by checkers and figures. Holds no judgement.

use std::sync::Arc;

use protocol::reply::Rollback;
use protocol::request::{Ack, Status};
use protocol::{ErrorCode, Stamp};
use serde::{Deserialize, Serialize};

/// Keys of the ring of operation ids in a player's state: write `k` goes to slot `k mod RING_SLOTS`.
pub const RING_SLOTS: u64 = 64;

/// One thing that one process saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Microseconds since the run began. Of an `invoke`: when it was due.
    pub at_us: u64,
    /// Which bot; a service counts above the bots.
    pub process: u32,
    /// The session, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Arc<str>>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What a process saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// An operation was begun.
    Invoke {
        /// Its number, unique in the process.
        id: u64,
        /// What it asks.
        operation: Operation,
    },
    /// It was carried out.
    Ok {
        /// Which.
        id: u64,
        /// The change's number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cseq: Option<u64>,
        /// Where the record stood.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stamp: Option<Stamp>,
        /// What the answer promises.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ack: Option<Ack>,
        /// Given while the store was unreachable.
        #[serde(default, skip_serializing_if = "is_false")]
        prov: bool,
        /// It had taken effect before.
        #[serde(default, skip_serializing_if = "is_false")]
        dup: bool,
        /// What was read.
        #[serde(default, skip_serializing_if = "Value::is_none")]
        value: Value,
    },
    /// It was refused.
    Fail {
        /// Which.
        id: u64,
        /// The change's number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cseq: Option<u64>,
        /// Why.
        code: ErrorCode,
        /// It took effect all the same.
        #[serde(default, skip_serializing_if = "is_false")]
        applied: bool,
    },
    /// Nobody knows.
    Unknown {
        /// Which.
        id: u64,
        /// The number it went under last.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cseq: Option<u64>,
    },
    /// Something that nobody asked for.
    Notice {
        /// What.
        notice: Notice,
    },
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Operation {
    /// `state.patch`: the counter `n` + 1, and `k` into its slot of the ring.
    Write {
        /// Unique in the process, from 1, in the order asked.
        k: u64,
        /// The level asked for.
        ack: Ack,
    },
    /// `presence.set` with `k` in the activity.
    Presence {
        /// Unique in the process, from 1, in the order asked.
        k: u64,
        /// The status.
        status: Status,
    },
    /// `state.get` of everything, at least as new as what is known.
    Read,
    /// `watch`.
    Watch {
        /// Which processes.
        subjects: Vec<u32>,
    },
    /// `logout`.
    Logout,
    /// `room.join`.
    Join {
        /// Which of the run's rooms.
        room: u32,
    },
    /// `room.send` to the bot's room.
    Say {
        /// Unique in the process, from 1, in the order asked.
        s: u64,
    },
    /// A service's message to a process.
    Message {
        /// To which.
        to: u32,
        /// Unique in the run.
        m: u64,
    },
    /// A service's presence query.
    Query,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// Nothing.
    #[default]
    None,
    /// The counter after a write.
    Counter(i64),
    /// The whole state.
    State {
        /// The counter.
        counter: i64,
        /// The write in each slot of the ring; 0 where there is none.
        ring: Box<[u64]>,
    },
    /// Presence of others.
    Presences(Vec<Item>),
    /// Sessions that a message reached.
    Delivered(u32),
}

impl Value {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Presence of another process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Which.
    pub subject: u32,
    /// The item's own counter.
    pub ver: Stamp,
    /// The status shown.
    pub status: Status,
    /// The `k` of the activity shown; 0 if none, or if a session of another run has set it.
    pub k: u64,
}

/// What a process was told unasked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "snake_case")]
pub enum Notice {
    /// `ready`.
    Ready(Box<Opened>),
    /// A `login` or `resume` was refused.
    Turned {
        /// Why.
        code: ErrorCode,
        /// What the `resume` claimed; none for a login.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claim: Option<Claim>,
        /// All that was acked in the session is gone, and the client was told so.
        #[serde(default, skip_serializing_if = "is_false")]
        lost: bool,
    },
    /// The link is gone.
    Down {
        /// The close code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
        /// The bot did it, in this way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        on_purpose: Option<Drop>,
        /// How long the bot means to stay away, ms.
        #[serde(default)]
        stay_ms: u64,
    },
    /// Another node is the player's home: the bot goes there.
    Redirected {
        /// Which.
        node: String,
    },
    /// `moved`: the same, on a live link.
    Moved {
        /// Which.
        node: String,
    },
    /// `rolled_back` on a live link.
    RolledBack(Rollback),
    /// `durable`.
    Durable {
        /// Up to here.
        stamp: Stamp,
        /// The highest change in it.
        cseq: u64,
    },
    /// `mode`.
    Mode {
        /// Its name.
        mode: String,
    },
    /// `presence`.
    Presence {
        /// Its number.
        seq: u64,
        /// What is news.
        items: Vec<Item>,
    },
    /// `message`.
    Message {
        /// Its number.
        seq: u64,
        /// Its id.
        id: String,
        /// The sender's own name for it; 0 if it is none of ours.
        m: u64,
        /// The id had come before.
        repeat: bool,
    },
    /// `message`, in a room, from one of the run's own.
    Heard {
        /// Its number.
        seq: u64,
        /// Who spoke.
        from: u32,
        /// Which of the speaker's words.
        s: u64,
        /// The id had come before.
        repeat: bool,
    },
    /// Pushes are missing that nobody announced.
    SeqGap {
        /// The one that should have come.
        expected: u64,
        /// The one that came.
        came: u64,
    },
    /// The client has stopped.
    Ended {
        /// The close code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
        /// The bot wanted it.
        wanted: bool,
        /// For people.
        reason: String,
    },
}

/// A `ready`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Opened {
    /// An old session was taken up.
    pub resumed: bool,
    /// Where the record stands.
    pub stamp: Stamp,
    /// The highest change applied.
    pub cseq: u64,
    /// Which node, with its boot.
    pub node: String,
    /// How long the session outlives its link.
    pub resume_ms: u64,
    /// Twice this long a dead link may look alive.
    pub heartbeat_ms: u64,
    /// How long it took: of a login from the wish for it, of a resume from the wish to be back.
    pub took_us: u64,
    /// Pushes sent again.
    pub replayed: u32,
    /// Pushes are lost, and the client was told.
    pub missed: bool,
    /// Changes are lost, and the client was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<Rollback>,
    /// Whom the session watches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watching: Vec<u32>,
    /// What the `resume` claimed; none after a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
}

/// What a `resume` claimed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Claim {
    /// The latest stamp known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
    /// How long the session had no link at most, ms.
    pub away_ms: u64,
    /// How long at least, ms.
    pub away_at_least_ms: u64,
}

/// How a bot lost its link on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drop {
    /// The connection was reset.
    Reset,
    /// The connection ended without a word.
    Cut,
    /// The connection stayed open and silent.
    Abandon,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if wants a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// All logs of a run, each in the order of its process.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    /// One log a process; the place is the process's number.
    pub logs: Vec<Vec<Entry>>,
}

impl History {
    /// The log of a process; empty if there is none.
    #[must_use]
    pub fn log(&self, process: u32) -> &[Entry] {
        usize::try_from(process).ok().and_then(|at| self.logs.get(at)).map_or(&[], Vec::as_slice)
    }

    /// Every entry with its process's log, log by log.
    pub fn processes(&self) -> impl Iterator<Item = (u32, &[Entry])> {
        (0..).zip(self.logs.iter().map(Vec::as_slice))
    }

    /// Writes everything as JSON lines, by time.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write(&self, mut out: impl std::io::Write) -> std::io::Result<()> {
        let mut all: Vec<&Entry> = self.logs.iter().flatten().collect();
        all.sort_by_key(|entry| entry.at_us);
        for entry in all {
            serde_json::to_writer(&mut out, entry)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_written_as_lines_that_read_back() {
        let entry = |at_us, what| Entry { at_us, process: 0, session: Some("s".into()), what };
        let lines = vec![
            entry(1, What::Invoke { id: 1, operation: Operation::Write { k: 1, ack: Ack::Durable } }),
            entry(
                2,
                What::Ok {
                    id: 1,
                    cseq: Some(1),
                    stamp: Some((1, 2)),
                    ack: Some(Ack::Durable),
                    prov: false,
                    dup: false,
                    value: Value::Counter(1),
                },
            ),
            entry(3, What::Notice { notice: Notice::Ready(Box::default()) }),
            entry(
                4,
                What::Notice { notice: Notice::RolledBack(Rollback { from: (1, 2), to: None, cseq: 0 }) },
            ),
        ];
        let history = History { logs: vec![lines.clone()] };
        let mut out = Vec::new();
        history.write(&mut out).unwrap();
        let read: Vec<Entry> = std::str::from_utf8(&out)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(read, lines);
    }
}
