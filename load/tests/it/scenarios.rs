//! Scenarios of files, played by the command against a real node: what they leave behind, and with which exit code they end.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// A node of the server's own code, without a crowd. It ends with this.
struct Node {
    child: Child,
    _tells: ChildStdin,
    _said: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
    clients: String,
    services: String,
}

impl Node {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("store=embedded:{}", folder.path().join("data").display());
        let program = Path::new(env!("CARGO_BIN_EXE_load")).with_file_name("examples").join("crowd");
        let mut command = Command::new(program);
        for set in [&store, "client_addr=127.0.0.1:0", "service_addr=127.0.0.1:0"] {
            command.args(["--set", set]);
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("examples/crowd is missing: cargo build -p load --example crowd");
        let (tells, mut said) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (mut clients, mut services) = (String::new(), String::new());
        while clients.is_empty() || services.is_empty() {
            let mut line = String::new();
            assert!(said.read_line(&mut line).unwrap() > 0, "it has ended");
            for word in line.split_whitespace() {
                if word.starts_with("ws://") && clients.is_empty() {
                    word.clone_into(&mut clients);
                } else if word.starts_with("http://") && services.is_empty() {
                    word.clone_into(&mut services);
                }
            }
        }
        Self { child, _tells: tells, _said: said, _folder: folder, clients, services }
    }

    /// Plays a scenario here, short and with few bots.
    fn plays(&self, scenario: &str, more: &[&str]) -> Output {
        let mut load = Command::new(env!("CARGO_BIN_EXE_load"));
        load.args(["run", scenario, "--players", "20", "--url", &self.clients]);
        load.args(["--service-url", &self.services, "--pid", &self.child.id().to_string()]);
        load.args(more).env_remove("HEARTH_SERVICE_KEY").output().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(of: &[u8]) -> String {
    String::from_utf8_lossy(of).into_owned()
}

#[test]
fn a_raid_that_is_played_leaves_a_page_and_its_numbers() {
    let (node, out) = (Node::start(), tempfile::tempdir().unwrap());
    let folder = out.path().join("raid");
    let more = ["--seconds-scale", "0.12", "--seed", "5", "--out", folder.to_str().unwrap()];
    // How fast a machine is that does other things as well is no promise: the scenario's own times are.
    let raid =
        include_str!("../../scenarios/guild-raid.toml").replace("applied < 50 ms", "applied < 60000 ms");
    let raid = raid
        .replace("watcher < 300 ms", "watcher < 60000 ms")
        .replace("member < 300 ms", "member < 60000 ms");
    let file = out.path().join("patient-raid.toml");
    std::fs::write(&file, raid).unwrap();
    let done = node.plays(file.to_str().unwrap(), &more);
    let (said, warned) = (text(&done.stdout), text(&done.stderr));
    assert_eq!(done.status.code(), Some(0), "{said}\n{warned}");
    assert!(said.contains("PASSED: 0 broken promises") && said.contains("say to member"), "{said}");
    assert!(warned.contains(" answers/s · "), "a line now and then: {warned}");

    let told: Value = serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap();
    assert_eq!((&told["format"], &told["passed"], &told["seed"]), (&1.into(), &true.into(), &5.into()));
    let phases: Vec<_> = told["phases"].as_array().unwrap().iter().map(|phase| &phase["name"]).collect();
    assert_eq!(phases, ["gather", "the raid", "the boss", "loot", "last words"]);
    let counts = &told["figures"]["counts"];
    for name in ["writes", "durable_acks", "resumes", "items", "heard", "logins"] {
        assert!(counts[name].as_u64().unwrap() > 0, "no {name}: {counts}");
    }
    let sum = |of: &Value| of.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum(&told["over_time"]["resumes"]), counts["resumes"].as_u64().unwrap());
    assert_eq!(sum(&told["over_time"]["logins"]), 20);
    let server = told["server"].as_array().unwrap();
    assert!(server.iter().any(|look| look["memory_bytes"].as_u64() > Some(1_000_000)), "{server:?}");
    assert!(server.iter().any(|look| look["links"].as_u64() == Some(20)), "{server:?}");
    assert!(told["thresholds"].as_array().unwrap().iter().all(|threshold| threshold["holds"] == true));

    // Beside itself it differs in nothing.
    let report = folder.join("report.json");
    let mut load = Command::new(env!("CARGO_BIN_EXE_load"));
    let done = load.arg("compare").args([&report, &report]).args(["--fail-over", "1%"]).output().unwrap();
    let said = text(&done.stdout);
    assert!(
        done.status.success() && said.contains("write applied, p99 ms") && said.contains("  noise"),
        "{said}"
    );
    assert!(!said.contains("SLOWER") && !said.contains("faster"), "{said}");

    let page = std::fs::read_to_string(folder.join("report.html")).unwrap();
    for part in ["✓ PASSED", "the boss", "Acks of writes", "Latency by percentile", "Memory", "load run "] {
        assert!(page.contains(part), "{part} is not in the page");
    }
    assert!(page.matches("<polyline").count() > 15 && !page.contains("<script"));
}

#[test]
fn a_threshold_that_does_not_hold_fails_the_run() {
    let (node, out) = (Node::start(), tempfile::tempdir().unwrap());
    let file = out.path().join("too-much.toml");
    let text_of = "title = \"more than there is\"\nthresholds = [\"p99 applied < 0 ms\", \"no broken promise\"]\n\
                   [[phase]]\nname = \"a\"\nseconds = 3\nwithin_s = 1\nevery_ms = { write = 100, presence = 500 }\n";
    std::fs::write(&file, text_of).unwrap();
    let page = out.path().join("page.html");
    let done = node.plays(file.to_str().unwrap(), &["--quiet", "--report", page.to_str().unwrap()]);
    let (said, warned) = (text(&done.stdout), text(&done.stderr));
    assert_eq!(done.status.code(), Some(1), "{said}\n{warned}");
    assert!(said.is_empty() && warned.contains("MISSED  p99 applied: "), "{warned}");
    assert!(warned.contains("1 thresholds missed, though no promise was seen broken"), "{warned}");
    assert!(std::fs::read_to_string(&page).unwrap().contains("✗ missed"));
    assert!(out.path().join("page.json").exists());
}

#[test]
fn a_run_that_is_told_to_end_judges_what_was_seen_and_does_not_pass() {
    let (node, out) = (Node::start(), tempfile::tempdir().unwrap());
    let json = out.path().join("told.json");
    let mut load = Command::new(env!("CARGO_BIN_EXE_load"));
    load.args([
        "run",
        "launch-day",
        "--players",
        "20",
        "--url",
        &node.clients,
        "--json",
        json.to_str().unwrap(),
    ]);
    let mut load = load.args(["--plain"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The first line comes while bots are at work.
    let mut warned = BufReader::new(load.stderr.take().unwrap());
    let mut line = String::new();
    warned.read_line(&mut line).unwrap();
    assert!(line.contains("early birds"), "{line}");
    let pid = rustix::process::Pid::from_child(&load);
    // As `timeout` does it: the process, and then its group.
    for _ in 0..2 {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let done = load.wait_with_output().unwrap();
    let said = text(&done.stdout);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("cut short: it was told to end") && said.contains("FAILED"), "{said}");
    let told: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(
        (&told["cut_short"], &told["broken"], &told["unfinished"]),
        (&true.into(), &0.into(), &0.into())
    );
}

#[test]
fn a_terminal_is_given_back_whatever_ends_the_run() {
    // Nobody listens there: the run is given up while its screen is shown.
    let line =
        format!("{} run steady --players 2 --url ws://127.0.0.1:1/v1/connect", env!("CARGO_BIN_EXE_load"));
    let mut script = Command::new("script");
    let done =
        script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null()).output().unwrap();
    let said = text(&done.stdout);
    let at = |part: &str| said.rfind(part).unwrap_or_else(|| panic!("{part:?} is not in {said}"));
    assert_eq!(done.status.code(), Some(1), "{said}");
    let (taken, given_back, told) = (at("\u{1b}[?1049h"), at("\u{1b}[?1049l"), at("no server answers"));
    assert!(taken < given_back && given_back < told && at("\u{1b}[?25h") < told, "{said}");
}

#[test]
fn what_cannot_be_written_or_asked_is_refused_before_the_run() {
    let (node, out) = (Node::start(), tempfile::tempdir().unwrap());
    let nowhere = out.path().join("no").join("x.json");
    let refused = |more: &[&str]| {
        let done = node.plays("steady", more);
        assert_eq!((done.status.code(), done.stdout.len()), (Some(2), 0), "{more:?}");
        text(&done.stderr)
    };
    let nowhere = nowhere.to_str().unwrap();
    assert!(refused(&["--json", nowhere]).contains(nowhere));
    let said = refused(&["--service-key", "wrong"]);
    assert!(
        said.contains("--service-key") && said.contains(&node.services) && said.contains("401"),
        "{said}"
    );
    assert!(refused(&["--pid", "99999999"]).contains("--pid 99999999"));
}

#[test]
fn a_scenario_that_is_none_is_refused_with_its_field() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("mine.toml");
    let refused = |text_of: &str| {
        std::fs::write(&file, text_of).unwrap();
        let mut load = Command::new(env!("CARGO_BIN_EXE_load"));
        let done = load.args(["run", file.to_str().unwrap()]).output().unwrap();
        assert_eq!((done.status.code(), done.stdout.len()), (Some(2), 0));
        text(&done.stderr)
    };
    let said = refused("title = \"a\"\n[[phase]]\nname = \"b\"\nseconds = 5\nonlin = 0.5\n");
    assert!(said.contains("mine.toml: line 5: phase[0].onlin: unknown field `onlin`"), "{said}");
    let said = refused("title = \"a\"\n[[phase]]\nname = \"b\"\nseconds = 5\nonline = 5\n");
    assert!(said.contains("phase 1: online is 5: 0 to 1"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}
