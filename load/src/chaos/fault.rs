//! What may be broken, one thing at a time, each in several ways: a process, a link, or whatever a pair of commands is about.
//! Only breaks and mends; when and for how long is `run`'s.

use std::io;
use std::path::PathBuf;

use rand::Rng as _;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;

use super::ChaosError;
use super::commands;
use super::file::{self, FileError, Pair};
use super::link::{self, Link, Weathers};
use super::options::Options;
use super::process::{End, Process, Start, no_program};

/// Why something could not be broken, or mended.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// The process is not there.
    #[error("process {pid} ({name}) is gone, and nobody here has ended it")]
    Gone {
        /// What it is called.
        name: String,
        /// Its number.
        pid: i32,
    },
    /// It cannot be signalled.
    #[error("process {pid} ({name}) cannot be signalled: {source}")]
    Signal {
        /// What it is called.
        name: String,
        /// Its number.
        pid: i32,
        /// What the system says.
        source: io::Error,
    },
    /// What it says cannot be kept.
    #[error("process {name}: {} cannot be written: {source}", log.display())]
    Log {
        /// What it is called.
        name: String,
        /// Where what it says was to go.
        log: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is to start it cannot.
    #[error("process {name}: --start cannot start it: {why}")]
    NoProgram {
        /// What it is called.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A proxy cannot be had.
    #[error("link {name}: {what}")]
    Link {
        /// What it is called.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A command failed.
    #[error("fault {name}: its {which} failed ({how}){}{said}", if said.is_empty() { "" } else { "; it said:\n" })]
    Command {
        /// What it is called.
        name: String,
        /// `break`, `mend` or `start`.
        which: &'static str,
        /// How it ended.
        how: String,
        /// The end of what it said.
        said: String,
    },
}

/// Deals out so many cards, each once in an order of chance, and begins anew.
#[derive(Debug)]
pub(super) struct Deck {
    cards: usize,
    left: Vec<usize>,
}

impl Deck {
    pub(super) const fn of(cards: usize) -> Self {
        Self { cards, left: Vec::new() }
    }

    /// The next one; 0 where there are none.
    pub(super) fn deal(&mut self, rng: &mut SmallRng) -> usize {
        if self.left.is_empty() {
            self.left.extend(0..self.cards);
            self.left.shuffle(rng);
        }
        self.left.pop().unwrap_or(0)
    }
}

/// A way to break something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Process(End),
    Link(Weathers),
    Commands,
}

#[derive(Debug)]
enum Means {
    Process(Process),
    Link(Link),
    Commands(Pair),
}

/// Something that may be broken.
#[derive(Debug)]
pub(super) struct Fault {
    /// What the user calls it.
    pub(super) name: String,
    /// For how long, ms: at least, at most.
    for_ms: [u64; 2],
    means: Means,
    ways: Vec<Way>,
    deck: Deck,
}

impl Fault {
    fn new(name: &str, for_ms: [u64; 2], means: Means, ways: Vec<Way>) -> Self {
        let deck = Deck::of(ways.len());
        Self { name: name.to_owned(), for_ms, means, ways, deck }
    }

    /// How it is broken next, and for how many milliseconds.
    pub(super) fn next(&mut self, rng: &mut SmallRng) -> (Way, u64) {
        let way = self.deck.deal(rng);
        let [least, most] = self.for_ms;
        (self.ways.get(way).copied().unwrap_or(Way::Commands), rng.random_range(least..=most))
    }

    /// What is said of it.
    pub(super) fn says(&self, way: Way) -> String {
        let name = &self.name;
        match way {
            Way::Process(End::Stop) => format!("{name} is stopped"),
            Way::Process(End::Kill) => format!("kill -9 of {name}"),
            Way::Link(way) => format!("link {name} {}", way.says()),
            Way::Commands => name.clone(),
        }
    }

    /// Whether what is acked `applied` may be lost in it, if that is told. Of a process only where it is a node's: one that is
    /// stopped for half its lease or more may be taken for dead.
    pub(super) fn ends_memory(&self, way: Way, for_ms: u64, lease_ms: u64, is_node: bool) -> bool {
        match (&self.means, way) {
            (Means::Commands(pair), _) => pair.ends_memory,
            (_, Way::Process(End::Kill)) => is_node,
            (_, Way::Process(End::Stop)) => is_node && for_ms >= lease_ms / 2,
            _ => false,
        }
    }

    /// Breaks it.
    pub(super) async fn breaks(&mut self, way: Way) -> Result<(), FaultError> {
        match (&mut self.means, way) {
            (Means::Process(process), Way::Process(how)) => process.end(how).await,
            (Means::Link(link), Way::Link(how)) => {
                link.turn(how);
                Ok(())
            }
            (Means::Commands(pair), _) => commands::run(pair, true).await,
            // Each has its own ways.
            _ => Ok(()),
        }
    }

    /// Mends it.
    pub(super) async fn mends(&mut self) -> Result<(), FaultError> {
        match &mut self.means {
            Means::Process(process) => process.go_on().await,
            Means::Link(link) => {
                link.heal();
                Ok(())
            }
            Means::Commands(pair) => commands::run(pair, false).await,
        }
    }

    /// What is still wrong with it, and what its owner can do; `is_mended`: the last time it was broken, it was mended. A process
    /// is looked at in any case: others may have ended it.
    pub(super) fn wrong(&self, is_mended: bool) -> Option<String> {
        match &self.means {
            Means::Process(process) => process.wrong(),
            Means::Commands(pair) if !is_mended => {
                Some(format!("{} was not mended; do it yourself: {}", self.name, pair.mend))
            }
            // A proxy ends with us.
            Means::Commands(_) | Means::Link(_) => None,
        }
    }

    /// The process's number now, if it is one.
    pub(super) fn pid(&self) -> Option<u32> {
        match &self.means {
            Means::Process(process) => Some(process.pid()),
            _ => None,
        }
    }

    /// What a link has hindered so far in this way; none for what is no link.
    pub(super) fn hindered(&self, way: Way) -> Option<u64> {
        match (&self.means, way) {
            (Means::Link(link), Way::Link(way)) => Some(link.hindered(way)),
            _ => None,
        }
    }
}

/// All that the user has named. Proxies stand from here on.
pub(super) async fn all(options: &Options, seed: u64) -> Result<Vec<Fault>, ChaosError> {
    let mut faults = Vec::new();
    for (place, (name, pid)) in options.pid.iter().enumerate() {
        let before = options.pid.iter().take(place).find(|(_, other)| other == pid);
        if let Some((other, _)) = before {
            let (pid, name, other) = (*pid, name.clone(), other.clone());
            return Err(ChaosError::SameProcess { pid, name, other });
        }
        let log = options.out.join(format!("{name}.log"));
        let command = options.start.iter().find(|(of, _)| of == name);
        if let Some(why) = command.and_then(|(_, command)| no_program(command)) {
            return Err(FaultError::NoProgram { name: name.clone(), why }.into());
        }
        let start = command.map(|(_, command)| Start::of(command, &log)).transpose();
        let start =
            start.map_err(|source| FaultError::Log { name: name.clone(), log: log.clone(), source })?;
        let mut ways = vec![Way::Process(End::Stop)];
        ways.extend(start.is_some().then_some(Way::Process(End::Kill)));
        let process = Process::of(name, *pid, start)?;
        faults.push(Fault::new(name, file::for_ms(), Means::Process(process), ways));
    }
    if let Some((name, _)) =
        options.start.iter().find(|(name, _)| options.pid.iter().all(|(of, _)| of != name))
    {
        return Err(ChaosError::StartsNothing(name.clone()));
    }
    if let Some(path) = &options.faults {
        let failed = |fault: FileError| ChaosError::File { path: path.clone(), fault };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.into()))?;
        for pair in file::read(&text).map_err(failed)? {
            let (name, for_ms) = (pair.name.clone(), pair.for_ms);
            faults.push(Fault::new(&name, for_ms, Means::Commands(pair), vec![Way::Commands]));
        }
    }
    for road in &options.proxy {
        let link = Link::over(road, seed).await?;
        let ways = link::ALL.map(Way::Link).to_vec();
        faults.push(Fault::new(&road.name, file::for_ms(), Means::Link(link), ways));
    }
    let mut names: Vec<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
    names.sort_unstable();
    if let Some([name, _]) = names.array_windows().find(|[name, next]| name == next) {
        return Err(ChaosError::SameName((*name).to_owned()));
    }
    if faults.is_empty() { Err(ChaosError::NoFault) } else { Ok(faults) }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn each_card_comes_once_before_any_comes_again_and_a_seed_makes_the_order() {
        let deal = |seed| {
            let (mut rng, mut deck) = (SmallRng::seed_from_u64(seed), Deck::of(7));
            (0..21).map(|_| deck.deal(&mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(deal(3), deal(3));
        assert_ne!(deal(3), deal(4));
        for round in deal(3).chunks(7) {
            let mut round = round.to_vec();
            round.sort_unstable();
            assert_eq!(round, (0..7).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn what_was_not_mended_is_said_and_one_process_has_one_name() {
        let text = "[[fault]]\nname = 'x'\nbreak = 'y'\nmend = 'unpause it'";
        let pair = Means::Commands(file::read(text).unwrap().remove(0));
        let fault = Fault::new("x", [1, 2], pair, vec![Way::Commands]);
        assert_eq!(fault.wrong(true), None);
        assert_eq!(fault.wrong(false).unwrap(), "x was not mended; do it yourself: unpause it");
        let me = std::process::id();
        let line = format!("load chaos --url ws://a --service http://a --key k --pid a={me} --pid b={me}");
        let line = <crate::options::Line as clap::Parser>::try_parse_from(line.split_whitespace()).unwrap();
        let Some(crate::options::Command::Chaos(options)) = line.command else { panic!("no command") };
        let error = all(&options, 1).await.unwrap_err().to_string();
        assert_eq!(error, format!("process {me} is named twice, as b and as a"));
    }

    #[test]
    fn only_what_ends_a_nodes_memory_excuses_anything() {
        let pair = |more: &str| {
            let text = format!("[[fault]]\nname = 'x'\nbreak = 'y'\nmend = 'z'\n{more}");
            Fault::new(
                "x",
                [1, 2],
                Means::Commands(file::read(&text).unwrap().remove(0)),
                vec![Way::Commands],
            )
        };
        assert!(!pair("").ends_memory(Way::Commands, 60_000, 6_000, true));
        assert!(pair("ends_memory = true").ends_memory(Way::Commands, 1, 6_000, false));
        let me = i32::try_from(std::process::id()).unwrap();
        let process =
            Fault::new("x", [1, 2], Means::Process(Process::of("x", me, None).unwrap()), Vec::new());
        let ends = |how, for_ms, is_node| process.ends_memory(Way::Process(how), for_ms, 6_000, is_node);
        assert!(ends(End::Kill, 1, true) && ends(End::Stop, 3_000, true));
        assert!(
            !ends(End::Stop, 2_999, true) && !ends(End::Kill, 1, false) && !ends(End::Stop, 60_000, false)
        );
    }
}
