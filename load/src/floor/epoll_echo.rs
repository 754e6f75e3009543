//! The raw echo: epoll, one read, one write of the same bytes. No WebSocket, no runtime, no allocation a message.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// The listener's mark among the events; links are numbered from 0.
const LISTENER: u64 = u64::MAX;

pub(super) fn serve(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut links: Vec<Option<TcpStream>> = Vec::new();
    let mut events = Vec::with_capacity(1024);
    let mut bytes = vec![0; 64 * 1024];
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            let number = event.data.u64();
            if number == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    epoll::add(&epoll, &stream, EventData::new_u64(links.len() as u64), EventFlags::IN)?;
                    links.push(Some(stream));
                }
                continue;
            }
            let Some(link) = usize::try_from(number).ok().and_then(|at| links.get_mut(at)) else { continue };
            if link.as_mut().is_some_and(|stream| !echo(stream, &mut bytes)) {
                *link = None;
            }
        }
    }
}

/// Whether the link lives on.
fn echo(stream: &mut TcpStream, bytes: &mut [u8]) -> bool {
    match stream.read(bytes) {
        Ok(0) => false,
        Ok(count) => bytes.get(..count).is_some_and(|bytes| stream.write_all(bytes).is_ok()),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
