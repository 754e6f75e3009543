//! What is promised about `hearth top`: it shows whoever runs a cluster what is going on in it, as text where nobody looks at
//! a terminal, and says plainly why it cannot; and it gives a terminal back as it was.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use crate::harness::nodes::KEY;
use crate::harness::patience::until;
use crate::harness::server::Server;
use crate::harness::signals::signal;
use crate::harness::stages::Stage;

/// `hearth top`, and nothing of what the shell holds.
fn top(arguments: &[&str], key: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HEARTH_")) {
        command.env_remove(name);
    }
    command.envs(key.map(|key| ("HEARTH_SERVICE_KEY", key))).arg("top").args(arguments).output().unwrap()
}

/// What it prints.
fn printed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The exit code, and the line that says why.
fn refused(output: &Output) -> (Option<i32>, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.stdout.is_empty() && said.lines().count() == 1, "{said}");
    (output.status.code(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_picture_as_text_shows_who_is_in_and_what_they_say() {
    let server = Server::on(Stage::Embedded).with("service_key", KEY).with("node_id", "hall").start();
    let url = server.service_url().to_owned();
    let mut ann = server.login("ann").await;
    ann.shows("playing").await;
    let text = until("the player to be seen", async || {
        let text = printed(&top(&["--once", &url], Some(KEY)));
        text.contains("playing 1").then_some(text)
    })
    .await;
    let host = url.strip_prefix("http://").unwrap();
    for said in [
        host,
        "✓ Nothing is wrong.",
        "players   1 ",
        "sessions  1 · 1 link",
        "embedded answers",
        "shards",
        "hall ",
    ] {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    // Where standard output is no terminal, nobody has to say so; and the key may lie in a file.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    let text = printed(&top(&["--service-url", &url, "--key-file", file.to_str().unwrap()], None));
    assert!(text.contains("players   1 "), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_with_a_wrong_key_or_at_a_wrong_place_is_told_so() {
    let server = Server::on(Stage::Embedded).with("service_key", KEY).start();
    let url = server.service_url().to_owned();
    let players = server.url().replacen("ws://", "http://", 1);
    let players = players.split("/v1").next().unwrap().to_owned();
    for (arguments, key, code, why) in [
        (&["--once", &url][..], Some("another key"), 64, "refuses the key (401)"),
        (&[&url], Some("another key"), 64, "refuses the key (401)"),
        (&[&url], None, 64, "HEARTH_SERVICE_KEY"),
        (&[&url, "--key-file", "/nowhere/key"], None, 64, "--key-file: /nowhere/key"),
        (&["127.0.0.1:7701"], Some(KEY), 64, "such as http://127.0.0.1:7701"),
        (&["https://127.0.0.1:7701"], Some(KEY), 64, "TLS is not supported"),
        (&[&url], Some("one\nline more"), 64, "HEARTH_SERVICE_KEY"),
        (&[&players], Some(KEY), 64, "does not answer as a hearth server does"),
        (&["http://127.0.0.1:1"], Some(KEY), 69, "does not answer (Connection refused"),
    ] {
        let (exit, said) = refused(&top(arguments, key));
        assert!(
            exit == Some(code) && said.starts_with("hearth: ") && said.contains(why),
            "{arguments:?}: {exit:?} {said}"
        );
    }
}

/// A terminal of 80 columns and 24 rows, on which a shell runs `hearth top`, with what is written to it.
struct Screen {
    /// `script`, which has the terminal.
    child: Child,
    /// Has how it ended, also when nothing can be written to the terminal any more.
    folder: tempfile::TempDir,
    written: Arc<Mutex<String>>,
}

impl Screen {
    /// Shows this server; the shell says how the terminal is set before and after.
    fn showing(url: &str) -> Self {
        let top = format!("sh -c 'echo pid $$; exec {} top {url}'", env!("CARGO_BIN_EXE_hearth"));
        let folder = tempfile::tempdir().unwrap();
        let code = folder.path().join("code");
        // The shell outlives its terminal, and tells how what it ran has ended.
        let ended = format!("code=$?; echo $code >{}; echo ended $code", code.display());
        let line = format!(
            "trap '' HUP; stty rows 24 cols 80; echo before $(stty -g); {top}; {ended}; echo after $(stty -g)"
        );
        let mut child = Command::new("script")
            .args(["-qfc", &line, "/dev/null"])
            .env("HEARTH_SERVICE_KEY", KEY)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script, of util-linux");
        let written = Arc::new(Mutex::new(String::new()));
        let (mut out, writes) = (child.stdout.take().unwrap(), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut gulp = [0; 4_096];
            while let Ok(read @ 1..) = out.read(&mut gulp) {
                writes.lock().unwrap().push_str(&String::from_utf8_lossy(&gulp[..read]));
            }
        });
        Self { child, folder, written }
    }

    fn written(&self) -> String {
        self.written.lock().unwrap().clone()
    }

    async fn says(&self, what: &str) {
        until(what, async || self.written().contains(what).then_some(())).await;
    }

    /// The rest of the line that begins so.
    fn line(&self, name: &str) -> String {
        let written = self.written();
        let line = written
            .lines()
            .find_map(|line| line.split_once(name))
            .unwrap_or_else(|| panic!("{name} in {written:?}"));
        line.1.trim().to_owned()
    }

    fn pid(&self) -> u32 {
        self.line("pid ").parse().unwrap()
    }

    /// It has ended in order, and the terminal is as it was.
    async fn is_given_back(&self) {
        self.says("after ").await;
        until("all of the last line", async || {
            (self.line("after ").len() == self.line("before ").len()).then_some(())
        })
        .await;
        assert_eq!((self.line("ended ").as_str(), self.line("after ")), ("0", self.line("before ")));
        // The other screen was taken and left, and the cursor hidden and shown.
        let written = self.written();
        for (taken, left) in [("\u{1b}[?1049h", "\u{1b}[?1049l"), ("\u{1b}[?25l", "\u{1b}[?25h")] {
            assert!(written.rfind(left) > written.rfind(taken) && written.contains(taken), "{written:?}");
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_given_back_as_it_was() {
    let mut server = Server::on(Stage::Embedded).with("service_key", KEY).start();
    let screens = [(); 4].map(|()| Screen::showing(server.service_url()));
    for screen in &screens {
        // Word by word: what stands between two was empty before.
        screen.says("Nothing").await;
    }
    let [mut pressed, ended, quit, mut gone] = screens;
    pressed.child.stdin.as_mut().unwrap().write_all(b"q").unwrap();
    pressed.is_given_back().await;
    // A server that is gone ends nothing.
    server.kill9();
    ended.says("trying").await;
    signal(ended.pid(), "TERM");
    ended.is_given_back().await;
    signal(quit.pid(), "QUIT");
    quit.is_given_back().await;
    // Nor does it outlive its terminal, whoever took that away; and that is no failure.
    let pid = gone.pid();
    gone.child.kill().unwrap();
    until("it to end with its terminal", async || {
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
        stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
    })
    .await;
    let code = until("how it ended", async || {
        let code = std::fs::read_to_string(gone.folder.path().join("code")).unwrap_or_default();
        code.ends_with('\n').then_some(code)
    })
    .await;
    assert_eq!(code.trim(), "0");
}
