//! Drives the house's own `home` and store, without links and without a network but Redis: so that what a flush costs
//! is measured and nothing else. Started by `load bench flush`, which tells it rounds on standard input and reads what
//! it used from standard output. Never judges.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth::app::settings::home_settings;
use hearth::clock;
use hearth::cluster::Members;
use hearth::config::Settings;
use hearth::events::{Events, Status};
use hearth::home::record::state::Patch;
use hearth::home::record::stored::FORMAT;
use hearth::home::{Cell, Home, Login};
use hearth::ids::{Owner, PlayerId, SessionId};
use hearth::store::{ClusterConfig, OpenOptions, Stance, open};
use hearth::tasks::Tasks;
use load::bench::usage;
use serde_json::json;

/// Few, so that commits are full: as in a server of a hundred thousand players.
const SHARDS: u16 = 8;
const PLAYERS: usize = 8_192;
/// Logins at a time.
const LOGINS: usize = 256;
/// So that a stored record is one of 200 B.
const STATE_BYTES: usize = 48;
const PATIENCE: Duration = Duration::from_secs(30);

/// The server's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;

/// A session and the number of its last change.
struct Player {
    cell: Arc<Cell>,
    session: SessionId,
    cseq: u64,
}

fn main() -> Result<(), Failure> {
    let url = std::env::args().nth(1).ok_or("flush_driver redis://HOST:PORT")?;
    // As the server does it; the time of a flush is what this driver asks for, and nothing else.
    let settings = Settings::from_toml(&format!(
        "store = {url:?}\n[cluster]\nname = \"bench\"\nshards = {SHARDS}\n[home]\nflush_interval_ms = 10000\nlease_ttl_ms = 30000"
    ))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(drive(&url, &settings))
}

async fn drive(url: &str, settings: &Settings) -> Result<(), Failure> {
    let options = OpenOptions { cluster: "bench".to_owned(), ..OpenOptions::default() };
    let store = open(url, options).await?;
    let proposal =
        ClusterConfig { shards: SHARDS, format_min: FORMAT, format_max: FORMAT, ticket_secret: vec![7; 32] };
    let cluster = store.agree_config(proposal, Stance::Insists, Duration::ZERO).await?.config;
    let tasks = Tasks::new();
    let members = Members::alone(Owner::boot("flush-driver"), Arc::clone(&store));
    let events = Arc::new(Events::default());
    let home = Home::start(home_settings(settings), cluster, members, store, events, None, tasks.clone())?;
    if home.wait_owned(PATIENCE).await > 0 {
        return Err("the shards do not come".into());
    }
    let mut players = log_in(&home).await?;
    // The first commits carry watches and filter bits; they are not what is measured.
    round(&home, &mut players, 2).await?;
    say(&json!({"ready": true, "record_bytes": record_bytes(&players)}))?;
    for line in std::io::stdin().lock().lines() {
        let repeats: u32 = line?.trim().parse()?;
        let figures = round(&home, &mut players, repeats).await?;
        say(&figures)?;
    }
    home.release().await;
    Ok(())
}

/// Everybody, in as few commits as may be.
async fn log_in(home: &Arc<Home>) -> Result<Vec<Player>, Failure> {
    let mut players = Vec::with_capacity(PLAYERS);
    while players.len() < PLAYERS {
        let logins = (players.len()..players.len() + LOGINS).map(|number| async move {
            let player = PlayerId::parse(&format!("bench-player-{number:06}"))?;
            let opened = home.login(Login {
                player,
                device: "pc".into(),
                status: Status::Online,
                token_issued_at_unix_ms: clock::now().unix_ms,
                grants: Box::default(),
                token_expires_at_unix_ms: clock::now().unix_ms + 86_400_000,
                pending: false,
            });
            let opened = opened.await?;
            Ok::<_, Failure>(Player { cell: opened.cell, session: opened.session, cseq: 0 })
        });
        players.extend(futures_util::future::try_join_all(logins).await?);
    }
    Ok(players)
}

/// Changes every player, then flushes, so often; what the flushes alone have used.
async fn round(home: &Home, players: &mut [Player], repeats: u32) -> Result<serde_json::Value, Failure> {
    let (me, mut used, mut took) = (std::process::id(), Duration::ZERO, Duration::ZERO);
    for _ in 0..repeats {
        for player in players.iter_mut() {
            change(home, player)?;
        }
        let (before, began) = (usage::cpu_time(me)?, Instant::now());
        if !home.flush_all(PATIENCE).await {
            return Err("the store does not take it".into());
        }
        took += began.elapsed();
        used += usage::cpu_time(me)?.saturating_sub(before);
    }
    let records = u64::from(repeats) * players.len() as u64;
    Ok(json!({"records": records, "cpu_ns": used.as_nanos() as u64, "took_ns": took.as_nanos() as u64}))
}

fn change(home: &Home, player: &mut Player) -> Result<(), Failure> {
    player.cseq += 1;
    // MessagePack text of a length that fits one byte.
    let mut value = vec![0xd9, STATE_BYTES as u8];
    value.extend(format!("{:0>width$}", player.cseq, width = STATE_BYTES).into_bytes());
    let patch = Patch { set: vec![("save", value.into_boxed_slice())], ..Patch::default() };
    let (session, cseq) = (player.session, Some(player.cseq));
    home.apply(&player.cell, clock::now(), |record, ctx| record.patch(ctx, session, &patch, cseq))?;
    Ok(())
}

/// A record as it is stored: epoch and version in 16 digits each, then the body.
fn record_bytes(players: &[Player]) -> usize {
    let body = players.first().and_then(|player| player.cell.read(|record| record.encode_p().len()));
    32 + body.unwrap_or(0)
}

fn say(figures: &serde_json::Value) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{figures}")?;
    Ok(out.flush()?)
}
