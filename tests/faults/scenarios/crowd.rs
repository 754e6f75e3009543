//! Thousands of players on links that say nothing, each crowd in a process of its own: the descriptors of one do not last for
//! both ends of all, and when it is killed all links end at once. Used by F14, which starts this program again as the crowd.

use std::io::BufRead as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use load::bench::swarm::{Heard, Opening, Swarm, write};
use load::bench::{BenchError, words};

/// The word that makes this program a crowd.
const WORD: &str = "be-a-crowd";
const ENTERED: &str = "all are there";
/// Logins under way at a time: others are to be served meanwhile.
const UNDER_WAY_MAX: usize = 16;
/// Who is refused for now tries again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A running crowd; its links end with the value.
pub(crate) struct Crowd {
    process: Child,
}

impl Crowd {
    /// Logs in those whose names stand in this file, at their home; ends when all are there. Blocks.
    pub(crate) fn enter(home: SocketAddr, names: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(WORD).arg(home.to_string()).arg(names).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut crowd = Self { process: command.spawn().unwrap() };
        let said = std::io::BufReader::new(crowd.process.stdout.take().unwrap()).lines().next();
        assert!(said.is_some_and(|said| said.is_ok_and(|said| said == ENTERED)), "not all were let in");
        crowd
    }

    /// `kill -9`: the kernel ends all links.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Is a crowd, if that is what the command line says, until it is killed.
pub(crate) fn is_asked_for(mut words: impl Iterator<Item = String>) -> Option<ExitCode> {
    (words.next()? == WORD).then(|| match stay(&words.next().unwrap(), &words.next().unwrap()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crowd: {error}");
            ExitCode::FAILURE
        }
    })
}

fn stay(home: &str, names: &str) -> Result<(), BenchError> {
    let names: Vec<String> = std::fs::read_to_string(names)?.lines().map(str::to_owned).collect();
    let home = home.parse().map_err(|_| BenchError::Setup(format!("{home} is no address")))?;
    let mut swarm = Swarm::new(home, Opening::Upgrade)?;
    let mut entering = Entering { is_in: vec![false; names.len()], left: names.len(), again: Vec::new() };
    let mut under_way = 0;
    while entering.left > 0 {
        while swarm.len() < names.len() && under_way < UNDER_WAY_MAX {
            swarm.begin()?;
            under_way += 1;
        }
        let left = entering.left;
        swarm.hear(LOOK_INTERVAL, |at, stream, heard| entering.hears(at, stream, heard, &names[at]))?;
        under_way -= left - entering.left;
        let now = Instant::now();
        for at in entering.again.extract_if(.., |(due, _)| *due <= now).map(|(_, at)| at).collect::<Vec<_>>()
        {
            swarm.reset(at..at + 1);
            swarm.begin_again(at)?;
        }
    }
    println!("{ENTERED}");
    loop {
        swarm.hear(Duration::from_secs(1), |_, _, _| Ok(()))?;
    }
}

/// Who is in, and who tries again and when.
struct Entering {
    is_in: Vec<bool>,
    left: usize,
    again: Vec<(Instant, usize)>,
}

impl Entering {
    /// A busy server may refuse one for now.
    fn hears(
        &mut self,
        at: usize,
        stream: &TcpStream,
        heard: Heard<'_>,
        name: &str,
    ) -> Result<(), BenchError> {
        let is_welcome = match heard {
            Heard::Opened => return write(stream, &words::login(name)),
            Heard::Frames(mut frames) => frames.any(|frame| words::ready(&frame).is_ok()),
            Heard::Ended if self.is_in[at] => {
                return Err(BenchError::Void(format!("the link of {name} has ended")));
            }
            Heard::Ended => false,
        };
        if self.is_in[at] {
            return Ok(());
        }
        if is_welcome {
            self.is_in[at] = true;
            self.left -= 1;
        } else if self.again.iter().all(|(_, waits)| *waits != at) {
            self.again.push((Instant::now() + AGAIN_AFTER, at));
        }
        Ok(())
    }
}
