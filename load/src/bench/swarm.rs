//! Thousands of links in one thread, as cheap as they can be: one epoll, one read buffer, no task a link. The client
//! side of every bench. Checks that frames are whole; what they say is the caller's.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use socket2::{Domain, Socket, Type};

use super::BenchError;
use super::frames::{Frame, next_frame};

/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;
/// Events of one wait.
const EVENTS: usize = 1024;
/// Upgrades under way at a time while a crowd connects.
const CONNECTING_MAX: usize = 256;
/// A connect without an answer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

/// How links begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// With the first byte.
    Raw,
    /// With a WebSocket upgrade.
    Upgrade,
}

/// What happened to a link.
#[derive(Debug)]
pub enum Heard<'a> {
    /// It is open.
    Opened,
    /// Frames came, all in one read.
    Frames(Frames<'a>),
    /// It has ended.
    Ended,
}

/// Whole frames, one after the other.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let (frame, rest) = next_frame(self.bytes)?;
        self.bytes = rest;
        Some(frame)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Upgrading,
    Open,
    Ended,
}

#[derive(Debug)]
struct Link {
    stream: Option<TcpStream>,
    phase: Phase,
    /// The beginning of what is not whole yet.
    left: Vec<u8>,
}

/// Links to one server.
pub struct Swarm {
    epoll: OwnedFd,
    addr: SocketAddr,
    opening: Opening,
    links: Vec<Link>,
    events: Vec<Event>,
    read: Vec<u8>,
}

impl Swarm {
    /// No links yet.
    ///
    /// # Errors
    /// The system's.
    pub fn new(addr: SocketAddr, opening: Opening) -> Result<Self, BenchError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let (events, read) = (Vec::with_capacity(EVENTS), vec![0; READ_BYTES]);
        Ok(Self { epoll, addr, opening, links: Vec::new(), events, read })
    }

    /// How many links there are or were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Begins one more link, which [`Swarm::hear`] will tell to be open; its number.
    ///
    /// # Errors
    /// The system's.
    pub fn begin(&mut self) -> Result<usize, BenchError> {
        let at = self.links.len();
        self.links.push(Link { stream: None, phase: Phase::Ended, left: Vec::new() });
        self.begin_again(at)?;
        Ok(at)
    }

    /// Begins a link anew under the number of one that has ended.
    ///
    /// # Errors
    /// The system's.
    pub fn begin_again(&mut self, at: usize) -> Result<(), BenchError> {
        let socket = Socket::new(Domain::for_address(self.addr), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&self.addr.into()) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            done => done?,
        }
        let stream = TcpStream::from(socket);
        let interest = EventFlags::OUT | EventFlags::IN;
        epoll::add(&self.epoll, &stream, EventData::new_u64(at as u64), interest).map_err(io::Error::from)?;
        if let Some(link) = self.links.get_mut(at) {
            *link = Link { stream: Some(stream), phase: Phase::Connecting, left: Vec::new() };
        }
        Ok(())
    }

    /// Makes so many links and waits until all are open.
    ///
    /// # Errors
    /// One does not open in time.
    pub fn open(&mut self, count: usize) -> Result<(), BenchError> {
        let target = self.links.len() + count;
        let (mut under_way, until) = (0, Instant::now() + CONNECT_PATIENCE);
        while self.links.len() < target || under_way > 0 {
            while self.links.len() < target && under_way < CONNECTING_MAX {
                self.begin()?;
                under_way += 1;
            }
            let mut opened = 0;
            self.hear(Duration::from_millis(100), |_, _, heard| match heard {
                Heard::Opened => {
                    opened += 1;
                    Ok(())
                }
                Heard::Frames(_) => Ok(()),
                Heard::Ended => Err(BenchError::Void("a link ended while it was opened".into())),
            })?;
            under_way -= opened;
            if Instant::now() > until {
                return Err(BenchError::Void(format!("{under_way} links did not open in time")));
            }
        }
        Ok(())
    }

    /// Writes to a link, whole.
    ///
    /// # Errors
    /// The link is broken, or the server does not read.
    pub fn write(&self, at: usize, bytes: &[u8]) -> Result<(), BenchError> {
        match self.links.get(at).and_then(|link| link.stream.as_ref()) {
            Some(stream) => write(stream, bytes),
            None => Err(BenchError::Void(format!("link {at} is gone"))),
        }
    }

    /// Ends links at once: each is reset, and nothing is said.
    pub fn reset(&mut self, at: std::ops::Range<usize>) {
        for link in self.links.get_mut(at).into_iter().flatten() {
            if let Some(stream) = link.stream.take() {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
            (link.phase, link.left) = (Phase::Ended, Vec::new());
        }
    }

    /// Waits for something to happen, at most so long, and tells it link by link; the link's stream takes answers. Says
    /// how many links had something.
    ///
    /// # Errors
    /// The caller's, or the system's.
    pub fn hear(
        &mut self,
        wait: Duration,
        mut on: impl FnMut(usize, &TcpStream, Heard<'_>) -> Result<(), BenchError>,
    ) -> Result<usize, BenchError> {
        let wait = Timespec::try_from(wait).unwrap_or_default();
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let events = std::mem::take(&mut self.events);
        let heard = events.len();
        for event in &events {
            let at = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            let Some(link) = self.links.get_mut(at) else { continue };
            link.wake(&self.epoll, at, self.opening, &mut self.read, &mut on)?;
        }
        self.events = events;
        Ok(heard)
    }
}

impl Link {
    fn wake(
        &mut self,
        epoll: &OwnedFd,
        at: usize,
        opening: Opening,
        read: &mut [u8],
        on: &mut impl FnMut(usize, &TcpStream, Heard<'_>) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let Some(stream) = &self.stream else { return Ok(()) };
        if self.phase == Phase::Connecting {
            if let Some(error) = stream.take_error()? {
                return Err(BenchError::Void(format!("link {at} was refused: {error}")));
            }
            epoll::modify(epoll, stream, EventData::new_u64(at as u64), EventFlags::IN)
                .map_err(io::Error::from)?;
            if opening == Opening::Raw {
                self.phase = Phase::Open;
                return on(at, stream, Heard::Opened);
            }
            self.phase = Phase::Upgrading;
            return write(stream, UPGRADE);
        }
        let mut reader = stream;
        let new = match reader.read(read) {
            Ok(0) => None,
            Ok(count) => read.get(..count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => None,
        };
        let Some(new) = new else {
            self.phase = Phase::Ended;
            on(at, stream, Heard::Ended)?;
            self.stream = None;
            return Ok(());
        };
        if self.phase == Phase::Upgrading {
            self.left.extend_from_slice(new);
            let Some(end) = self.left.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                return Ok(());
            };
            if !self.left.starts_with(b"HTTP/1.1 101") {
                let said = String::from_utf8_lossy(&self.left);
                return Err(BenchError::Void(format!(
                    "no upgrade: {}",
                    said.lines().next().unwrap_or_default()
                )));
            }
            self.phase = Phase::Open;
            self.left.drain(..end + 4);
            on(at, stream, Heard::Opened)?;
            if self.left.is_empty() {
                return Ok(());
            }
            let left = std::mem::take(&mut self.left);
            return self.frames(at, &left, on);
        }
        if self.left.is_empty() {
            return self.frames(at, new, on);
        }
        let mut all = std::mem::take(&mut self.left);
        all.extend_from_slice(new);
        self.frames(at, &all, on)
    }

    fn frames(
        &mut self,
        at: usize,
        bytes: &[u8],
        on: &mut impl FnMut(usize, &TcpStream, Heard<'_>) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let Some(stream) = &self.stream else { return Ok(()) };
        let mut rest = bytes;
        while let Some((_, after)) = next_frame(rest) {
            rest = after;
        }
        self.left.extend_from_slice(rest);
        let whole = bytes.get(..bytes.len() - rest.len()).unwrap_or_default();
        if whole.is_empty() { Ok(()) } else { on(at, stream, Heard::Frames(Frames { bytes: whole })) }
    }
}

/// Writes whole. Loopback takes what a bench says at once; where it does not, the server does not read.
///
/// # Errors
/// As said.
pub fn write(mut stream: &TcpStream, bytes: &[u8]) -> Result<(), BenchError> {
    match stream.write(bytes) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(BenchError::Void("the server does not read what it is sent".into())),
        Err(error) => Err(BenchError::Void(format!("a link broke: {error}"))),
    }
}

/// The request that upgrades a connection, whichever server it is.
pub(super) const UPGRADE: &[u8] =
    b"GET /v1/connect HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
Sec-WebSocket-Protocol: hearth.v1.msgpack\r\n\r\n";
