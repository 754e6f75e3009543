//! A server that is kept busy with changes: so many on the way on each link, the next one said as soon as one is answered. The
//! same code drives floor and ours. Used by `ack` and `sight`; every answer is checked.

use std::time::{Duration, Instant};

use super::BenchError;
use super::swarm::{Heard, Opening, Swarm, write};
use super::words::{self, Answer, Change, FIRST_REFERENCE, is_ack};

/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an answer must look like.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answers {
    /// What was said.
    Echo,
    /// A firm ack with so many fields.
    Ack(u8),
}

/// The links.
pub(super) struct Driven {
    pub(super) swarm: Swarm,
    /// How many changes each link has said, and how many were answered.
    said: Vec<u32>,
    answered: Vec<u32>,
    bytes: Vec<u8>,
}

impl Driven {
    pub(super) fn start(
        addr: std::net::SocketAddr,
        opening: Opening,
        links: usize,
    ) -> Result<Self, BenchError> {
        Ok(Self {
            swarm: Swarm::new(addr, opening)?,
            said: vec![0; links],
            answered: vec![0; links],
            bytes: Vec::new(),
        })
    }

    /// Says the first changes of each link.
    pub(super) fn begin(&mut self, change: &mut Change, in_flight: u32) -> Result<(), BenchError> {
        (0..self.said.len()).try_for_each(|at| self.begin_on(at, change, in_flight))
    }

    /// The same of one link.
    pub(super) fn begin_on(
        &mut self,
        at: usize,
        change: &mut Change,
        in_flight: u32,
    ) -> Result<(), BenchError> {
        let mut bytes = Vec::new();
        self.say(at, in_flight, change, &mut bytes);
        self.swarm.write(at, &bytes)
    }

    /// Hears what came, and says as much again; how many were answered.
    pub(super) fn turn(
        &mut self,
        change: &mut Change,
        answers: Answers,
        goes_on: bool,
    ) -> Result<u64, BenchError> {
        let (said, answered, mut count) = (&mut self.said, &mut self.answered, 0);
        let bytes = &mut self.bytes;
        self.swarm.hear(Duration::from_millis(100), |at, stream, heard| {
            let (Heard::Frames(frames), Some(said), Some(answered)) =
                (heard, said.get_mut(at), answered.get_mut(at))
            else {
                return Err(BenchError::Void(format!("link {at} ended")));
            };
            let before = *answered;
            for frame in frames {
                if answers.fits(frame.payload, answered.wrapping_add(1)) {
                    *answered += 1;
                } else {
                    words::judge(&frame).and_then(other_push)?;
                }
            }
            let came = *answered - before;
            count += u64::from(came);
            if !goes_on || came == 0 {
                return Ok(());
            }
            bytes.clear();
            for _ in 0..came {
                *said += 1;
                change.push(bytes, *said);
            }
            write(stream, bytes)
        })?;
        Ok(count)
    }

    fn say(&mut self, at: usize, count: u32, change: &mut Change, bytes: &mut Vec<u8>) {
        if let Some(said) = self.said.get_mut(at) {
            for _ in 0..count {
                *said += 1;
                change.push(bytes, *said);
            }
        }
    }

    /// Waits for the last answers.
    pub(super) fn drain(&mut self, change: &mut Change, answers: Answers) -> Result<(), BenchError> {
        let until = Instant::now() + PATIENCE;
        while self.said != self.answered {
            self.turn(change, answers, false)?;
            if Instant::now() > until {
                return Err(BenchError::Void("the last answers did not come".into()));
            }
        }
        Ok(())
    }
}

impl Answers {
    fn fits(self, payload: &[u8], n: u32) -> bool {
        match self {
            Self::Ack(fields) => is_ack(payload, n, fields),
            // The change's own reference comes back in its place.
            Self::Echo => payload.get(3..7) == Some(&FIRST_REFERENCE.wrapping_add(n).to_be_bytes()),
        }
    }
}

/// What may come between acks.
fn other_push(answer: Answer) -> Result<(), BenchError> {
    match answer {
        Answer::Other => Ok(()),
        answer => Err(BenchError::Void(format!("not the ack of the change in line: {answer:?}"))),
    }
}
