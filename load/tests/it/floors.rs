//! Floors do what benches take them for; and a bench refuses to measure what is not worth it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use load::bench::frames::push_frame;
use load::bench::swarm::{Heard, Opening, Swarm};

const PATIENCE: Duration = Duration::from_secs(20);

/// A floor of a test's own, ended by its id.
struct Floor {
    child: Child,
    addr: SocketAddr,
}

impl Floor {
    fn start(name: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
        let mut child = command.args(["floor", name]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on ").unwrap().parse().unwrap();
        Self { child, addr }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn message(bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    push_frame(&mut frame, bytes);
    frame
}

/// Payloads by link, until there are so many.
fn heard(swarm: &mut Swarm, count: usize) -> Vec<(usize, Vec<u8>)> {
    let (mut came, until) = (Vec::new(), Instant::now() + PATIENCE);
    while came.len() < count {
        assert!(Instant::now() < until, "only {} of {count} came", came.len());
        swarm
            .hear(Duration::from_millis(100), |at, _, heard| {
                let Heard::Frames(frames) = heard else { panic!("link {at}: {heard:?}") };
                came.extend(frames.map(|frame| (at, frame.payload.to_vec())));
                Ok(())
            })
            .unwrap();
    }
    came.sort();
    came
}

#[test]
fn both_echoes_give_back_what_they_get() {
    for (name, opening) in [("echo-epoll", Opening::Raw), ("echo-tungstenite", Opening::Upgrade)] {
        let floor = Floor::start(name);
        let mut swarm = Swarm::new(floor.addr, opening).unwrap();
        swarm.open(3).unwrap();
        for at in 0..3 {
            let both = [message(&[at as u8; 64]), message(&[100; 300])].concat();
            swarm.write(at, &both).unwrap();
        }
        let expected: Vec<_> =
            (0..3).flat_map(|at| [(at, vec![at as u8; 64]), (at, vec![100; 300])]).collect();
        assert_eq!(heard(&mut swarm, 6), expected, "{name}");
    }
}

#[test]
fn the_send_loop_sends_to_all_but_the_one_who_asks() {
    let floor = Floor::start("send-loop");
    let mut control = TcpStream::connect(floor.addr).unwrap();
    control.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut swarm = Swarm::new(floor.addr, Opening::Raw).unwrap();
    swarm.open(5).unwrap();
    let frame = message(b"tick");
    let order = [&0_u32.to_be_bytes()[..], &(frame.len() as u32).to_be_bytes()[..], &frame[..]].concat();
    for _ in 0..2 {
        control.write_all(&order).unwrap();
        control.read_exact(&mut [0]).unwrap();
        let expected: Vec<_> = (0..5).map(|at| (at, b"tick".to_vec())).collect();
        assert_eq!(heard(&mut swarm, 5), expected);
    }
}

#[test]
#[cfg(debug_assertions)]
fn an_unoptimised_build_measures_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_load")).args(["bench", "idle"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--release"));
}
