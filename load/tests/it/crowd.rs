//! What is promised of the node that has a crowd in its own process: players come in without a socket, and hear what any do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

struct Node {
    child: Child,
    tells: ChildStdin,
    said: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Node {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("store=embedded:{}", folder.path().join("data").display());
        let program = Path::new(env!("CARGO_BIN_EXE_load")).with_file_name("examples").join("crowd");
        let mut command = Command::new(program);
        for set in [&store, "client_addr=127.0.0.1:0", "service_addr=127.0.0.1:0", "limits.room_burst=1000"] {
            command.args(["--set", set]);
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("examples/crowd is missing: cargo build -p load --example crowd");
        let (tells, said) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, tells, said, _folder: folder }
    }

    fn does(&mut self, line: &str) -> Value {
        writeln!(self.tells, "{line}").unwrap();
        loop {
            let mut said = String::new();
            assert!(self.said.read_line(&mut said).unwrap() > 0, "it has ended");
            if said.starts_with('{') {
                return serde_json::from_str(&said).unwrap();
            }
        }
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_crowd_comes_in_without_sockets_and_hears_of_each_other() {
    let mut node = Node::start();
    assert_eq!(node.does("enter 1")["entered"], 1);
    let before = node.descriptors();
    assert_eq!(node.does("enter 99")["entered"], 99);
    assert!(node.descriptors() < before + 50, "{before} and {}", node.descriptors());
    assert_eq!(node.does("join hall")["answers"], 100);
    // Whoever was in hears of those who came, with the next tick.
    let until = Instant::now() + PATIENCE;
    while node.does("tell")["room_pushes"]["sum"].as_f64().unwrap() == 0.0 {
        assert!(Instant::now() < until, "nobody hears of anybody");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(node.does("leave hall 10")["answers"], 10);
    assert_eq!(node.does("watch somebody")["answers"], 100);
    assert!(node.does("dance")["fault"].as_str().unwrap().starts_with("dance: "));
    // No room has such a name, and a crowd that was refused something measures nothing any more.
    assert!(node.does(&format!("join {} 1", "a".repeat(65)))["fault"].is_string());
    assert!(node.does("tell")["fault"].is_string());
}
