//! Logins of one player at several nodes at once, and what becomes of each: `logins.rs` and scenario F15 hold the login policy
//! against it. Knows how to log in, to stay and to go; promises nothing.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

use crate::harness::nodes::KEY;
use crate::harness::patience::PATIENCE;
use crate::harness::server::Server;
use crate::harness::service::Service;
use crate::harness::socket::{Encoding, Heard, Socket};

/// Three logins at once come so often, and so many times: a hundred a second, for three seconds.
pub(crate) const BETWEEN: Duration = Duration::from_millis(30);
pub(crate) const ROUNDS: usize = 100;

/// What became of a login.
#[derive(Debug)]
pub(crate) enum Fate {
    /// Not let in: the error's code, and the close that followed.
    Refused(String, Option<u16>),
    /// Let in at the one time, and closed at the other with this.
    Closed(Option<u16>, Instant, Instant),
    /// Let in at the one time, and went of her own will at the other.
    Left(Instant, Instant),
    /// Let in with this session at this time, and there to the end.
    Stands(String, Instant),
}

/// Sends a login to this node, and to wherever it sends her; the answer that lets her in or does not.
pub(crate) async fn login_at(node: &str, body: &Value, encoding: Encoding) -> (Socket, String, Value) {
    let mut url = node.to_owned();
    for _ in 0..3 {
        let mut socket = Socket::open(&url, encoding).await;
        socket.send("login", 1, body).await;
        match socket.hear().await {
            Heard::Frame(answer) if answer.op == "redirect" => {
                url = answer.body["url"].as_str().unwrap().to_owned();
            }
            Heard::Frame(answer) => return (socket, answer.op, answer.body),
            Heard::Closed(code) => panic!("closed with {code:?} and not answered"),
        }
    }
    panic!("sent on and on");
}

/// How the link ends, which must be told before.
pub(crate) async fn end_of(socket: &mut Socket) -> Option<u16> {
    let mut bye = None;
    loop {
        match socket.hear_within(PATIENCE * 2).await.expect("neither a word nor an end") {
            Heard::Frame(frame) if frame.op == "bye" => bye = frame.body["code"].as_u64(),
            Heard::Frame(_) => {}
            Heard::Closed(code) => {
                assert_eq!(code.map(u64::from), bye, "every close is told before");
                return code;
            }
        }
    }
}

/// Whether the link answers.
pub(crate) async fn answers(socket: &mut Socket) -> bool {
    socket.send("ping", 9, &json!({})).await;
    loop {
        match socket.hear().await {
            Heard::Frame(frame) if frame.number == 9 => return true,
            Heard::Frame(_) => {}
            Heard::Closed(_) => return false,
        }
    }
}

/// Logs in and stays: to the end, or for a while.
pub(crate) async fn lives(
    node: Arc<str>,
    round: usize,
    device: &str,
    stay: Option<Duration>,
    mut end: watch::Receiver<bool>,
) -> Fate {
    // All four ways by turns: carried or sent on, in both encodings.
    let encoding = [Encoding::Json, Encoding::MessagePack][round / 2 % 2];
    let body = json!({"token": "dev:ann", "device": device, "relay": round.is_multiple_of(2)});
    let (mut socket, op, body) = login_at(&node, &body, encoding).await;
    if op == "error" {
        let code = body["code"].as_str().unwrap().to_owned();
        // Who may try again on the same link is not sent away.
        let close = if code == "not_home" { None } else { end_of(&mut socket).await };
        return Fate::Refused(code, close);
    }
    assert_eq!(op, "ready", "{body}");
    let came = Instant::now();
    let session = body["session"].as_str().unwrap().to_owned();
    let stays = async {
        match stay {
            Some(stay) => tokio::time::sleep(stay).await,
            None => drop(end.wait_for(|ended| *ended).await),
        }
    };
    tokio::select! {
        code = end_of(&mut socket) => return Fate::Closed(code, came, Instant::now()),
        () = stays => {}
    }
    if stay.is_none() {
        let stands = answers(&mut socket).await;
        return if stands { Fate::Stands(session, came) } else { Fate::Closed(None, came, Instant::now()) };
    }
    let left = Instant::now();
    socket.send("logout", 2, &json!({})).await;
    match end_of(&mut socket).await {
        Some(1000) => Fate::Left(came, left),
        code => Fate::Closed(code, came, Instant::now()),
    }
}

/// Her sessions, as a node tells them.
pub(crate) async fn sessions(node: &Server) -> Vec<Value> {
    let (status, told) = Service::of(node, KEY).get("/v1/players/ann").await;
    match status {
        200 => told["sessions"].as_array().unwrap().clone(),
        404 => Vec::new(),
        _ => panic!("{status}: {told}"),
    }
}

/// Logins at all nodes at once, so many times; what became of each. At no time has she more than `most` sessions, and
/// all who have to go are told before anybody asks who is left.
pub(crate) async fn storm(
    nodes: &[impl Borrow<Server>],
    rounds: usize,
    devices: [&'static str; 3],
    stay: Option<Duration>,
    most: usize,
) -> Vec<Fate> {
    let (ends, end) = watch::channel(false);
    let urls: Vec<Arc<str>> = nodes.iter().map(|node| node.borrow().url().into()).collect();
    let mut logins = JoinSet::new();
    let mut ticks = tokio::time::interval(BETWEEN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let began = Instant::now();
    for round in 0..rounds {
        ticks.tick().await;
        for (node, device) in urls.iter().zip(devices) {
            logins.spawn(lives(Arc::clone(node), round, device, stay, end.clone()));
        }
        if round % 5 == 0 {
            let seen = sessions(nodes[round % nodes.len()].borrow()).await;
            assert!(seen.len() <= most, "{seen:?}");
        }
    }
    println!("{} logins in {:?}", rounds * nodes.len(), began.elapsed());
    let standing = if stay.is_none() { most } else { 0 };
    let mut fates = Vec::new();
    while logins.len() > standing {
        let told = timeout(PATIENCE, logins.join_next()).await;
        fates.push(told.expect("who has to go is told").unwrap().unwrap());
    }
    ends.send_replace(true);
    fates.extend(logins.join_all().await);
    fates
}

/// The sessions that stand at the end are those that every node tells of; all others went as the policy says.
pub(crate) async fn hold(
    nodes: &[impl Borrow<Server>],
    fates: &[Fate],
    refused: u16,
    closed: Option<u16>,
) -> usize {
    let mut standing = Vec::new();
    for fate in fates {
        match fate {
            Fate::Stands(session, _) => standing.push(session.as_str()),
            Fate::Left(..) => {}
            Fate::Refused(code, close) => {
                assert_eq!((code.as_str(), *close), ("session_limit", Some(refused)));
            }
            Fate::Closed(code, ..) => assert_eq!((*code, closed.is_some()), (closed, true)),
        }
    }
    standing.sort_unstable();
    for node in nodes {
        let told = sessions(node.borrow()).await;
        let mut told: Vec<_> = told.iter().map(|told| told["session"].as_str().unwrap()).collect();
        told.sort_unstable();
        assert_eq!(told, standing);
    }
    standing.len()
}

/// How many were there at a time of those who left of their own will.
pub(crate) fn most_at_a_time(fates: &[Fate]) -> usize {
    let mut moves = Vec::new();
    for fate in fates {
        if let Fate::Left(came, left) = fate {
            moves.extend([(*came, 1_isize), (*left, -1)]);
        }
    }
    println!("{} were let in", moves.len() / 2);
    assert!(moves.len() > 10, "{} came and went", moves.len() / 2);
    moves.sort_unstable();
    let counts = moves.into_iter().scan(0, |here, (_, moved)| {
        *here += moved;
        Some(*here)
    });
    counts.max().unwrap().try_into().unwrap()
}
