//! One redis-server, as a server or as a sentinel: its folder, its configuration file, its process. Hurt by process id
//! (killed, stopped, continued, started again on the same data), and ended by a guard that outlives whoever started it.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Common, RigError, failed, wait_for};

/// Starts the server and waits on its own input: when that ends, because whoever started it let go of it or died, the
/// server is killed by its id and its folder is removed, with the set's own when it is the last in it. `keep` keeps the folder.
const GUARD: &str = r#"
dir=$1; shift
"$0" "$@" </dev/null >/dev/null 2>&1 &
server=$!
echo $server
read -r word
kill -9 $server 2>/dev/null
wait $server 2>/dev/null
[ "$word" = keep ] && exit
rm -rf "$dir"
rmdir "${dir%/*}" 2>/dev/null
"#;
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection over loopback is made at once, or not.
const LISTENS_WITHIN: Duration = Duration::from_millis(500);
/// How much of a log is shown.
const LOG_LINES: usize = 15;

/// The files of a TLS certificate, PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, for 127.0.0.1.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority that signed it.
    pub authority: PathBuf,
}

/// A running redis-server.
pub struct Server {
    dir: PathBuf,
    port: u16,
    tls_port: Option<u16>,
    password: Option<String>,
    is_sentinel: bool,
    guard: Child,
    pid: String,
}

impl Server {
    /// Starts one with these lines in its configuration file, and waits until it answers.
    ///
    /// # Errors
    /// [`RigError`].
    pub(super) fn start(
        common: &Common,
        is_sentinel: bool,
        (port, tls_port): (u16, u16),
        lines: &[(String, String)],
    ) -> Result<Self, RigError> {
        let dir = common.dir.join(port.to_string());
        std::fs::create_dir_all(&dir).map_err(failed(format!("{} cannot be made", dir.display())))?;
        let file = dir.join("redis.conf");
        let text = configuration(common, is_sentinel, &dir, (port, tls_port), lines);
        std::fs::write(&file, text).map_err(failed(format!("{} cannot be written", file.display())))?;
        let (guard, pid) = spawn(&dir, is_sentinel)?;
        let tls_port = common.tls.is_some().then_some(tls_port);
        let server = Self { dir, port, tls_port, password: common.password.clone(), is_sentinel, guard, pid };
        server.wait_until_it_answers()?;
        Ok(server)
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The port that clients use: the one with TLS, if there is one.
    #[must_use]
    pub fn client_port(&self) -> u16 {
        self.tls_port.unwrap_or(self.port)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> &str {
        &self.pid
    }

    /// Whether it listens; a stopped process does.
    #[must_use]
    pub fn listens(&self) -> bool {
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], self.port)), LISTENS_WITHIN).is_ok()
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// One command, over its plain port as the user `default`.
    ///
    /// # Errors
    /// [`RigError::Refused`] with whatever went wrong.
    pub fn query<T: redis::FromRedisValue>(&self, words: &[&str]) -> Result<T, RigError> {
        let login = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| _ = command.arg(word));
        let asked =
            redis::Client::open(format!("redis://{login}127.0.0.1:{}", self.port)).and_then(|client| {
                let mut connection = client.get_connection_with_timeout(COMMAND_TIMEOUT)?;
                connection.set_read_timeout(Some(COMMAND_TIMEOUT))?;
                command.query::<T>(&mut connection)
            });
        asked.map_err(|source| RigError::Refused { port: self.port, command: words.join(" "), source })
    }

    /// Whether a command's answer, as text, holds this.
    #[must_use]
    pub fn says(&self, words: &[&str], text: &str) -> bool {
        self.query::<String>(words).is_ok_and(|answer| answer.contains(text))
    }

    /// How many replicas follow it, have caught up and have said so.
    #[must_use]
    pub fn replicas_online(&self) -> usize {
        let info = self.query::<String>(&["INFO", "replication"]).unwrap_or_default();
        let is_online = |line: &&str| line.contains("state=online") && !line.contains("offset=0,");
        info.lines().filter(|line| line.starts_with("slave")).filter(is_online).count()
    }

    /// `kill -9`, and waits until nobody listens any more.
    ///
    /// # Errors
    /// [`RigError`] when it goes on.
    pub fn kill(&self) -> Result<(), RigError> {
        self.signal("KILL")?;
        let port = self.port;
        wait_for("its end", self, || std::net::TcpStream::connect(("127.0.0.1", port)).is_err())
    }

    /// Starts again on the same data and ports, after [`Self::kill`].
    ///
    /// # Errors
    /// [`RigError`].
    pub fn start_again(&mut self) -> Result<(), RigError> {
        self.dismiss("keep");
        (self.guard, self.pid) = spawn(&self.dir, self.is_sentinel)?;
        self.wait_until_it_answers()
    }

    /// Stops the process without ending it: connections stay open and nothing is answered.
    ///
    /// # Errors
    /// [`RigError`].
    pub fn pause(&self) -> Result<(), RigError> {
        self.signal("STOP")
    }

    /// Lets a stopped process go on.
    ///
    /// # Errors
    /// [`RigError`].
    pub fn go_on(&self) -> Result<(), RigError> {
        self.signal("CONT")
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).copied().collect::<Vec<_>>().join("\n")
    }

    fn signal(&self, name: &str) -> Result<(), RigError> {
        let status = Command::new("kill").args(["-s", name, &self.pid]).stderr(Stdio::null()).status();
        status.map(drop).map_err(failed(format!("process {} cannot be sent {name}", self.pid)))
    }

    fn wait_until_it_answers(&self) -> Result<(), RigError> {
        let what = format!("an answer of redis-server on port {}", self.port);
        let mut is_taken = false;
        wait_for(&what, self, || {
            is_taken = self.is_taken();
            is_taken || self.query::<String>(&["PING"]).is_ok()
        })?;
        if is_taken { Err(RigError::Taken { port: self.port }) } else { Ok(()) }
    }

    /// Whether somebody else listens on one of its ports: it has given up, or who answers is not it.
    fn is_taken(&self) -> bool {
        let is_it = format!("process_id:{}\r\n", self.pid);
        let is_other = self.query::<String>(&["INFO", "server"]).is_ok_and(|answer| !answer.contains(&is_it));
        is_other || self.log_end().contains("Address already in use")
    }

    fn dismiss(&mut self, word: &str) {
        if let Some(mut input) = self.guard.stdin.take() {
            let _ = writeln!(input, "{word}");
        }
        let _ = self.guard.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.dismiss("");
    }
}

fn spawn(dir: &Path, is_sentinel: bool) -> Result<(Child, String), RigError> {
    let known = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    known.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => RigError::Missing,
        _ => failed("redis-server cannot be started")(error),
    })?;
    let mut command = Command::new("sh");
    command.args(["-c", GUARD, "redis-server"]).arg(dir).arg(dir.join("redis.conf"));
    if is_sentinel {
        command.arg("--sentinel");
    }
    // In a group of its own: what is typed at the terminal ends whoever started it first, and it cleans up behind.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut guard = command.spawn().map_err(failed("sh cannot be started"))?;
    let mut pid = String::new();
    if let Some(output) = guard.stdout.take() {
        BufReader::new(output).read_line(&mut pid).map_err(failed("the server's process id is not known"))?;
    }
    Ok((guard, pid.trim().to_owned()))
}

fn configuration(
    common: &Common,
    is_sentinel: bool,
    dir: &Path,
    (port, tls_port): (u16, u16),
    lines: &[(String, String)],
) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| _ = writeln!(text, "{name} {value}");
    let quoted = |path: &Path| format!("{:?}", path.to_string_lossy());
    line("bind", "127.0.0.1");
    line("port", &port.to_string());
    line("dir", &quoted(dir));
    line("logfile", &quoted(&dir.join("log")));
    if let Some(tls) = &common.tls {
        line("tls-port", &tls_port.to_string());
        line("tls-cert-file", &quoted(&tls.certificate));
        line("tls-key-file", &quoted(&tls.key));
        line("tls-ca-cert-file", &quoted(&tls.authority));
        line("tls-auth-clients", "no");
        line("tls-replication", "yes");
    }
    if let Some(password) = &common.password {
        line("requirepass", password);
    }
    if !is_sentinel {
        line("save", "\"\"");
        line("maxmemory-policy", "noeviction");
        line("appendonly", "yes");
        // A replica that takes over or comes back must not first wait for others to come along.
        line("repl-diskless-sync-delay", "0");
        if let Some(password) = &common.password {
            line("masterauth", password);
        }
        common.settings.iter().for_each(|(name, value)| line(name, value));
    }
    lines.iter().for_each(|(name, value)| line(name, value));
    text
}
