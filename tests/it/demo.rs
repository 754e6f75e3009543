//! What is promised about `hearth demo`: one command, and there is a server with players who live; Ctrl-C, and nothing
//! of it is left.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::patience::{PATIENCE, until};
use crate::harness::player::Player;
use crate::harness::socket::Encoding;

const PLAYERS: u32 = 8;

/// The command, and the lines that it says.
struct Demo {
    child: Child,
    said: Receiver<String>,
}

impl Demo {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HEARTH_"))
        {
            command.env_remove(name);
        }
        // What a shell holds for a real server.
        command.env("HEARTH_STORE", "embedded:/nowhere/real").env("HEARTH_CLIENT_ADDR", "127.0.0.1:1");
        command.args(["demo", "--players", &PLAYERS.to_string(), "--set", "cluster.shards=16"]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, said) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, said }
    }

    /// The next line that has this in it.
    fn line(&self, with: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.said.recv_timeout(left).unwrap_or_else(|_| panic!("no line says {with:?}"));
            if line.contains(with) {
                return line;
            }
        }
    }

    /// Ctrl-C; the exit code.
    fn interrupt(&mut self) -> Option<i32> {
        let signal = ["-s", "INT", &self.child.id().to_string()].map(str::to_owned);
        assert!(Command::new("kill").args(signal).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the demo does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a printed call answers, as a person would run it.
fn answer_of(call: &str) -> Value {
    let output = Command::new("sh").args(["-c", call]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{call} says nothing"))
}

#[tokio::test]
async fn the_demo_shows_players_who_live_and_leaves_nothing_behind() {
    let mut demo = Demo::start();
    let url = demo.line("clients ").trim().trim_start_matches("clients").trim().to_owned();
    let store = demo.line("store ").trim().trim_start_matches("store").trim().to_owned();
    let folder = PathBuf::from(store.strip_prefix("embedded:").expect("the embedded store"));
    assert!(folder.exists(), "{store}");
    let (of_one, of_all) = (demo.line("/v1/players/"), demo.line("/v1/stats"));

    // Its own calls show that players are here.
    until("all players", async || (answer_of(&of_all)["players"]["online"] == PLAYERS).then_some(())).await;
    let one = answer_of(&of_one);
    assert_eq!(one["player"], hearth::demo::name_of(0), "{one}");

    // Who watches them sees them go into a match and come out of it, and hears them in their rooms.
    let mut ann = Player::connect(&url, Encoding::Json).await;
    ann.login("ann").await;
    let names: Vec<String> = (0..PLAYERS).map(hearth::demo::name_of).collect();
    ann.does("watch", json!({"players": names})).await;
    let mut bea = Player::connect(&url, Encoding::MessagePack).await;
    bea.login("bea").await;
    let roster = bea.does("room.join", json!({"room": "hall:0", "cseq": 1})).await;
    assert!(roster["count"].as_u64().unwrap() > 1, "{roster}");
    let mut seen_of_one = Vec::new();
    while !(seen_of_one.contains(&"playing".to_owned()) && seen_of_one.contains(&"online".to_owned())) {
        let push = ann.expect_push("presence").await;
        let items = push["items"].as_array().unwrap().iter();
        let of_one = items.filter(|item| item["player"] == names[0]);
        seen_of_one.extend(of_one.map(|item| item["status"].as_str().unwrap().to_owned()));
    }

    // It tells what goes on, in figures.
    let words: Vec<String> = demo.line("acks").split_whitespace().map(str::to_owned).collect();
    assert_eq!(words[0], "players");
    assert!(words[1].parse::<u32>().is_ok_and(|players| players <= PLAYERS), "{words:?}");

    assert_eq!(demo.interrupt(), Some(0));
    demo.line("go home");
    assert!(!folder.exists() && !folder.parent().unwrap().exists(), "{store} is left behind");
}

#[test]
fn a_demo_that_cannot_be_is_refused_in_one_line() {
    for (arguments, named) in [
        (&["demo", "--players", "0"][..], "--players"),
        (&["demo", "--players", "100000"], "--players"),
        (&["demo", "--set", "auth.dev_tokens=false"], "demo: auth"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_hearth")).args(arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{told}");
        assert!(told.contains(named), "{named} is not in {told}");
    }
}
