//! The processes of a bench: `hearth`, a floor, `redis-server`. Each is started on its core, in a folder and on ports
//! of its own, and ended by its process id when the value is dropped. Called by the benches; measures nothing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::cores::{self, Cores};
use super::{BenchError, usage};

/// How long a process may take until it is ready, and until it has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    said: BufReader<ChildStdout>,
    told: Option<ChildStdin>,
    name: &'static str,
    folder: TempDir,
}

impl Process {
    /// Starts a program on these cores, in an empty folder of its own.
    fn start(
        name: &'static str,
        cores: &[usize],
        program: &Path,
        arguments: &[String],
    ) -> Result<Self, BenchError> {
        let folder = tempfile::Builder::new().prefix("hearth-bench-").tempdir()?;
        let log = std::fs::File::create(folder.path().join("stderr"))?;
        let mut child = cores::on(cores, || {
            let mut command = Command::new(program);
            command.args(arguments).current_dir(folder.path());
            // Settings of whoever starts the bench are not the bench's.
            for (name, _) in
                std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"HEARTH_"))
            {
                command.env_remove(name);
            }
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
            command.spawn().map_err(|error| {
                BenchError::Setup(format!("{} cannot be started: {error}", program.display()))
            })
        })?;
        let (Some(said), told) = (child.stdout.take(), child.stdin.take()) else {
            return Err(BenchError::Setup(format!("{name} has no standard output")));
        };
        Ok(Self { child, said: BufReader::new(said), told, name, folder })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu_time(&self) -> Result<Duration, BenchError> {
        usage::cpu_time(self.pid()).map_err(|error| self.ended(&error))
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_bytes(&self) -> Result<u64, BenchError> {
        usage::resident_bytes(self.pid()).map_err(|error| self.ended(&error))
    }

    /// The next line that it says.
    ///
    /// # Errors
    /// It has ended.
    pub fn line(&mut self) -> Result<String, BenchError> {
        let mut line = String::new();
        match self.said.read_line(&mut line) {
            Ok(1..) => Ok(line),
            Ok(0) => Err(self.ended(&"it said no more")),
            Err(error) => Err(self.ended(&error)),
        }
    }

    /// Tells it a line.
    ///
    /// # Errors
    /// It has ended.
    pub fn tell(&mut self, line: &str) -> Result<(), BenchError> {
        let told = self.told.as_mut().map(|told| writeln!(told, "{line}").and_then(|()| told.flush()));
        match told {
            Some(Ok(())) => Ok(()),
            _ => Err(self.ended(&"it does not listen")),
        }
    }

    /// The rest of the first line that begins so.
    fn announced(&mut self, start: &str) -> Result<String, BenchError> {
        loop {
            if let Some(rest) = self.line()?.trim().strip_prefix(start) {
                return Ok(rest.trim().to_owned());
            }
        }
    }

    /// What it has left in its folder under names that begin so; what was numbered last stands last.
    ///
    /// # Errors
    /// The system's.
    pub fn files(&self, start: &str) -> Result<Vec<PathBuf>, BenchError> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.folder.path())? {
            names.extend(entry?.file_name().into_string());
        }
        names.retain(|name| name.starts_with(start));
        names.sort_by_key(|name| (name.len(), name.clone()));
        Ok(names.into_iter().map(|name| self.folder.path().join(name)).collect())
    }

    fn ended(&self, why: &dyn std::fmt::Display) -> BenchError {
        let log = std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(30).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n  ");
        BenchError::Setup(format!("{} ended too early ({why}); its last words:\n  {last}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // By its id, which is ours until it was waited for. Asked first: a server gives its leases back.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `hearth` of the workspace, on the server's core.
#[derive(Debug)]
pub struct Hearth {
    /// The process.
    pub process: Process,
    /// Where players connect.
    pub clients: SocketAddr,
    /// Where services connect.
    pub services: SocketAddr,
}

/// The service key that every bench's server takes.
pub const SERVICE_KEY: &str = "bench-service-key";

impl Hearth {
    /// Starts it on a Redis. Limits are far away: a bench that meets one is void. All else is as configured by default,
    /// but for `settings`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(cores: Cores, redis: &Redis, settings: &[(&str, &str)]) -> Result<Self, BenchError> {
        Self::of("hearth", &[cores.server], redis, settings)
    }

    /// The same on both cores, as one of several.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_anywhere(
        cores: Cores,
        redis: &Redis,
        settings: &[(&str, &str)],
    ) -> Result<Self, BenchError> {
        Self::of("hearth", &[cores.server, cores.client], redis, settings)
    }

    /// The same with a crowd of players in its own process: an example of this package.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_crowd(cores: Cores, redis: &Redis, settings: &[(&str, &str)]) -> Result<Self, BenchError> {
        Self::of("examples/crowd", &[cores.server, cores.client], redis, settings)
    }

    /// The same under valgrind's callgrind, which counts what it executes; it leaves what it is told to dump in files that begin
    /// with `callgrind.out`.
    ///
    /// # Errors
    /// It does not start, or valgrind is not installed.
    pub fn start_under_callgrind(
        cores: Cores,
        redis: &Redis,
        settings: &[(&str, &str)],
    ) -> Result<Self, BenchError> {
        let mut arguments = vec![
            "--tool=callgrind".to_owned(),
            "--callgrind-out-file=callgrind.out".to_owned(),
            workspace_binary("hearth")?.display().to_string(),
        ];
        arguments.extend(arguments_of(redis, settings));
        Self::started("hearth", &[cores.server], Path::new("valgrind"), &arguments)
    }

    fn of(
        program: &'static str,
        cores: &[usize],
        redis: &Redis,
        settings: &[(&str, &str)],
    ) -> Result<Self, BenchError> {
        Self::started(program, cores, &workspace_binary(program)?, &arguments_of(redis, settings))
    }

    fn started(
        name: &'static str,
        cores: &[usize],
        program: &Path,
        arguments: &[String],
    ) -> Result<Self, BenchError> {
        let mut process = Process::start(name, cores, program, arguments)?;
        let clients = address(&process.announced("clients")?)?;
        let services = address(&process.announced("services")?)?;
        Ok(Self { process, clients, services })
    }
}

/// What a bench's server is started with.
fn arguments_of(redis: &Redis, settings: &[(&str, &str)]) -> Vec<String> {
    let store = format!("redis://{}", redis.addr);
    let given = [
        ("client_addr", "127.0.0.1:0"),
        ("service_addr", "127.0.0.1:0"),
        ("cluster.name", "bench"),
        ("store", &store),
        ("redis.ignore_shortfalls", "true"),
        ("service_key", SERVICE_KEY),
    ];
    let far = ["link_frames", "state", "presence", "watch", "query", "send", "room", "service_requests"];
    let far =
        far.iter().flat_map(|kind| ["per_s", "burst"].map(|bound| format!("limits.{kind}_{bound}=1000000")));
    let given = given.iter().chain(settings).map(|(name, value)| format!("{name}={value}"));
    far.chain(given).flat_map(|set| ["--set".to_owned(), set]).collect()
}

/// A floor: this program itself, as `load floor NAME`, on the server's core.
#[derive(Debug)]
pub struct Floor {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Floor {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(cores: Cores, name: &str) -> Result<Self, BenchError> {
        let arguments = ["floor".to_owned(), name.to_owned()];
        let program = std::env::current_exe()?;
        let mut process = Process::start("the floor", &[cores.server], &program, &arguments)?;
        let addr = address(&process.announced("listening on")?)?;
        Ok(Self { process, addr })
    }
}

/// A driver of the store, on the server's core: an example of this package.
///
/// # Errors
/// It does not start.
pub fn start_driver(cores: Cores, arguments: &[String]) -> Result<Process, BenchError> {
    Process::start("the driver", &[cores.server], &workspace_binary("examples/flush_driver")?, arguments)
}

/// What Redis keeps on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing.
    None,
    /// `appendonly yes`, `appendfsync everysec`.
    AofEverySecond,
}

/// A `redis-server` of a bench's own, on the client's core.
#[derive(Debug)]
pub struct Redis {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Redis {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// It is not installed, or does not answer.
    pub fn start(cores: Cores, persistence: Persistence) -> Result<Self, BenchError> {
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let appends = if persistence == Persistence::None { "no" } else { "yes" };
        let port = addr.port().to_string();
        // A rewrite of the append-only file in a measured window would be noise of its own.
        let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", appends]
            .into_iter()
            .chain(["--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0", "--logfile", "log"])
            .chain(["--maxmemory-policy", "noeviction", "--dir", "."])
            .map(str::to_owned);
        let arguments: Vec<String> = arguments.collect();
        let process = Process::start("redis-server", &[cores.client], Path::new("redis-server"), &arguments)?;
        let redis = Self { process, addr };
        let until = Instant::now() + PATIENCE;
        while redis.connect().and_then(|mut connection| connection.command(&[b"PING"])).is_err() {
            if Instant::now() > until {
                return Err(redis.process.ended(&"it does not answer"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(redis)
    }

    /// A plain blocking connection.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn connect(&self) -> Result<Resp, BenchError> {
        let stream = TcpStream::connect(self.addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Resp { stream: BufReader::new(stream), out: Vec::new() })
    }
}

/// One blocking connection to Redis that speaks as much RESP as floors need.
#[derive(Debug)]
pub struct Resp {
    stream: BufReader<TcpStream>,
    out: Vec<u8>,
}

impl Resp {
    /// Adds a command to those that [`Resp::exchange`] will send.
    pub fn add(&mut self, words: &[&[u8]]) {
        // Writing into a Vec cannot fail.
        let _ = write!(self.out, "*{}\r\n", words.len());
        for word in words {
            let _ = write!(self.out, "${}\r\n", word.len());
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// Sends what was added, and reads so many simple answers (a line, or one bulk string).
    ///
    /// # Errors
    /// An error is among the answers, or the connection is broken.
    pub fn exchange(&mut self, answers: usize) -> Result<Vec<u8>, BenchError> {
        self.stream.get_mut().write_all(&self.out)?;
        self.out.clear();
        let mut last = Vec::new();
        for _ in 0..answers {
            last.clear();
            self.stream.read_until(b'\n', &mut last)?;
            match last.first() {
                Some(b'+' | b':') => {}
                Some(b'$') => {
                    let len =
                        std::str::from_utf8(&last).ok().and_then(|line| line.get(1..)?.trim().parse().ok());
                    let len: usize = len.ok_or_else(|| BenchError::Void("Redis has no such value".into()))?;
                    last.resize(len + 2, 0);
                    self.stream.read_exact(&mut last)?;
                }
                _ => return Err(BenchError::Void(format!("Redis: {}", String::from_utf8_lossy(&last)))),
            }
        }
        Ok(last)
    }

    /// One command and its answer.
    ///
    /// # Errors
    /// As [`Resp::exchange`].
    pub fn command(&mut self, words: &[&[u8]]) -> Result<Vec<u8>, BenchError> {
        self.add(words);
        self.exchange(1)
    }
}

/// The address in `ws://HOST:PORT/…`, `http://HOST:PORT` or `HOST:PORT`.
fn address(url: &str) -> Result<SocketAddr, BenchError> {
    let host = url.split("//").last().and_then(|rest| rest.split('/').next()).unwrap_or_default();
    host.parse().map_err(|_| BenchError::Setup(format!("no address: {url}")))
}

/// A program of the workspace beside this one.
fn workspace_binary(name: &str) -> Result<PathBuf, BenchError> {
    let here = std::env::current_exe()?;
    let path = here.parent().unwrap_or(Path::new(".")).join(name);
    if path.exists() {
        return Ok(path);
    }
    Err(BenchError::Setup(format!("{} is missing: it is built beside this program", path.display())))
}

/// Brings what benches start up to date, where cargo started this program; else what lies beside it is measured.
///
/// # Errors
/// It does not build.
pub fn build_workspace() -> Result<(), BenchError> {
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(()) };
    for what in [
        ["-p", "hearth", "--bin", "hearth"],
        ["-p", "load", "--example", "flush_driver"],
        ["-p", "load", "--example", "crowd"],
    ] {
        let status =
            Command::new(&cargo).args(["build", "--release", "--locked", "--quiet"]).args(what).status()?;
        if !status.success() {
            return Err(BenchError::Setup(format!("cargo build {} failed", what.join(" "))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_what_a_server_says() {
        for url in ["ws://127.0.0.1:7700/v1/connect", "http://127.0.0.1:7700", "127.0.0.1:7700"] {
            assert_eq!(address(url).unwrap().to_string(), "127.0.0.1:7700");
        }
        assert!(address("wss://play.example/v1").is_err());
    }
}
