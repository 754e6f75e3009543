//! A server with players on it, and what an attack does to them and to it: the players' p99, the server's memory, its
//! descriptors. One siege at a time, so that nobody measures another's noise.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::MutexGuard;

use crate::harness::patience::{PATIENCE, until};
use crate::harness::player::Player;
use crate::harness::server::{Server, Starting};
use crate::harness::socket::Encoding;
use crate::harness::stages::Stage;

/// Players who do nothing wrong.
const OTHERS: usize = 8;
/// How long each of them waits between an ack and the next change.
const PACE: Duration = Duration::from_millis(25);
/// Acks that a p99 is taken from.
const ACKS: usize = 250;
/// An attack goes on at least this long.
const ATTACK: Duration = Duration::from_millis(800);
/// The others' p99 may grow to this many times what it was, and by this much more: two cores, and who knows what else
/// runs on them. An attack that stalls a server stalls it for longer.
const SLOWER: (u32, Duration) = (5, Duration::from_millis(250));
/// Noise comes and goes, harm stays: so many times is an attack measured before it counts as one.
const ATTEMPTS: usize = 3;

/// What may be left of an attack's memory when it is over: an allocator gives back late, and the watch over the node keeps five
/// minutes of what it sees. A hundred and sixty who wait for a lock left 9 MiB the first time and 12 after the eighth.
const LEFT_MIB: u64 = 18;

static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A server under siege.
pub(crate) struct Siege {
    // First: they must be done before the server goes.
    others: Others,
    pub(crate) server: Server,
    _alone: MutexGuard<'static, ()>,
}

/// What is known of the server from outside.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    memory_kib: u64,
    descriptors: usize,
}

impl Siege {
    /// A server with these settings, and the others at play on it.
    pub(crate) async fn lay(settings: &[(&str, &str)]) -> Self {
        let set = |starting: Starting, (name, value): &(&str, &str)| starting.with(name, value);
        Self::on(settings.iter().fold(Server::on(Stage::Embedded), set)).await
    }

    /// The same on a server of the caller's making.
    pub(crate) async fn on(starting: Starting) -> Self {
        let alone = ALONE.lock().await;
        let server = starting.start();
        let others = Others::play_on(server.url());
        // Whatever is allocated once has been by now.
        others.acks_after(0).await;
        Self { others, server, _alone: alone }
    }

    /// Attacks until enough is known. `memory_mib` is how much more memory the server may hold meanwhile.
    pub(crate) async fn under<A: AsyncFn()>(&self, name: &str, memory_mib: u64, attack: A) {
        for _ in 0..ATTEMPTS {
            if self.is_borne(name, memory_mib, &attack).await {
                return;
            }
        }
        panic!("{name}: the others were harmed each time");
    }

    /// One attack; whether the others hardly felt it. What it costs the server is no matter of noise, and must be right.
    async fn is_borne<A: AsyncFn()>(&self, name: &str, memory_mib: u64, attack: &A) -> bool {
        let calm = p99(&self.others.acks_after(self.others.count()).await);
        let before = self.figures();
        let (during, peak) = self.attack(attack).await;
        let after = self.aftermath(before).await;
        let mib = |kib: u64| kib.saturating_sub(before.memory_kib) as f64 / 1024.0;
        let told = format!(
            "{name}: p99 {calm:.1?} -> {during:.1?}; memory +{:.1} MiB at most, +{:.1} left; descriptors +{}",
            mib(peak.memory_kib),
            mib(after.memory_kib),
            peak.descriptors.saturating_sub(before.descriptors),
        );
        println!("{told}");
        assert!(mib(peak.memory_kib) <= memory_mib as f64, "{told}");
        assert!(mib(after.memory_kib) <= LEFT_MIB as f64, "{told}");
        during <= calm * SLOWER.0 + SLOWER.1
    }

    /// The others' p99 while the attack went on, and the most that it took.
    async fn attack<A: AsyncFn()>(&self, attack: &A) -> (Duration, Figures) {
        let (from, began) = (self.others.count(), Instant::now());
        let peak = Cell::new(Figures::default());
        let fight = async {
            while began.elapsed() < ATTACK || self.others.count() < from + ACKS {
                attack().await;
            }
        };
        let watch = async {
            loop {
                let (now, most) = (self.figures(), peak.get());
                peak.set(Figures {
                    memory_kib: now.memory_kib.max(most.memory_kib),
                    descriptors: now.descriptors.max(most.descriptors),
                });
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = fight => {}
            () = watch => {}
        }
        (p99(&self.others.acks_after(from).await), peak.get())
    }

    /// Every descriptor is given back; memory as far as an allocator gives back.
    async fn aftermath(&self, before: Figures) -> Figures {
        let gone = async || (self.figures().descriptors <= before.descriptors).then_some(());
        until("the descriptors of the attack to be closed", gone).await;
        self.figures()
    }

    fn figures(&self) -> Figures {
        let process = PathBuf::from(format!("/proc/{}", self.server.pid()));
        let status = std::fs::read_to_string(process.join("status")).expect("the server lives");
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        Figures {
            memory_kib: memory.trim().trim_end_matches(" kB").parse().unwrap(),
            descriptors: std::fs::read_dir(process.join("fd")).unwrap().count(),
        }
    }

    /// Descriptors that the server has open.
    pub(crate) fn descriptors(&self) -> usize {
        self.figures().descriptors
    }

    /// Processor time that the server has used.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // USER_HZ is 100 on every Linux that counts.
        Duration::from_millis(ticks * 10)
    }

    /// Waits until so many links have been closed with this code.
    pub(crate) async fn until_closed(&self, code: u16, at_least: u64) {
        let label = format!("code=\"{code}\"");
        self.server.until_metric("hearth_closes_total", &label, at_least).await;
    }
}

/// Players on a thread of their own, so that an attack's own work is not what slows them.
struct Others {
    acks: Arc<Mutex<Vec<Duration>>>,
    is_over: Arc<AtomicBool>,
    lives: Option<JoinHandle<()>>,
}

impl Others {
    fn play_on(url: &str) -> Self {
        let (acks, is_over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (url, their_acks, end) = (url.to_owned(), Arc::clone(&acks), Arc::clone(&is_over));
        let lives = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let lives = (0..OTHERS).map(|n| live(n, &url, &their_acks, &end));
            runtime.block_on(futures_util::future::join_all(lives));
        });
        Self { acks, is_over, lives: Some(lives) }
    }

    fn count(&self) -> usize {
        self.acks.lock().len()
    }

    /// Enough acks after so many.
    async fn acks_after(&self, from: usize) -> Vec<Duration> {
        let began = Instant::now();
        while self.count() < from + ACKS {
            assert!(began.elapsed() < PATIENCE * 2, "the others are no longer answered");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.acks.lock()[from..].to_vec()
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let lived = self.lives.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(lived, Some(Ok(()))), "one of the others was disturbed");
        }
    }
}

/// Changes her state again and again; none of it may be lost, and nobody may close her link.
async fn live(n: usize, url: &str, acks: &Mutex<Vec<Duration>>, is_over: &AtomicBool) {
    let encoding = if n.is_multiple_of(2) { Encoding::Json } else { Encoding::MessagePack };
    let mut player = Player::connect(url, encoding).await;
    player.login(&format!("other-{n}")).await;
    let mut cseq = 0;
    while !is_over.load(Ordering::Relaxed) {
        cseq += 1;
        let began = Instant::now();
        player.patch(json!({"incr": {"n": 1}, "cseq": cseq})).await;
        acks.lock().push(began.elapsed());
        tokio::time::sleep(PACE).await;
    }
    assert_eq!(player.state().await["n"], cseq);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_is_noticed() {
    let siege = Siege::lay(&[]).await;
    let attack = async || {
        siege.server.pause();
        tokio::time::sleep(Duration::from_millis(900)).await;
        siege.server.go_on();
        tokio::time::sleep(Duration::from_millis(400)).await;
    };
    let is_borne = siege.is_borne("a server that stands still", 8, &attack).await;
    assert!(!is_borne, "players wait for a second, and the measure sees nothing");
}

fn p99(acks: &[Duration]) -> Duration {
    let mut sorted = acks.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)]
}
