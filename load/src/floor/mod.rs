//! Floors: servers that do as little as can be done, to measure ours against. Started by the benches as `load floor
//! NAME` on the server's core; each says where it listens and ends with its process. Never part of the server.

mod epoll_echo;
mod send_loop;
mod tungstenite_echo;

use std::net::{SocketAddr, TcpListener};

use clap::{Args, ValueEnum};
use socket2::{Domain, Socket, Type};

/// As deep as the server's.
const BACKLOG: i32 = 4_096;

/// A server to measure against.
#[derive(Debug, Clone, Copy, Args)]
pub struct Options {
    /// Which.
    pub floor: Floor,
    /// Where it listens; 0 takes a free port, which is printed.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
}

/// Which floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Floor {
    /// One thread, epoll, read and write of the same bytes.
    EchoEpoll,
    /// tokio and tungstenite with small buffers, one `send` a message.
    EchoTungstenite,
    /// The bytes that its first link gives go to all other links, one `send` each.
    SendLoop,
}

/// Serves until the process ends.
///
/// # Errors
/// The system's.
pub fn run(options: Options) -> std::io::Result<()> {
    let listener = listen(options.port)?;
    println!("listening on {}", listener.local_addr()?);
    match options.floor {
        Floor::EchoEpoll => epoll_echo::serve(&listener),
        Floor::EchoTungstenite => tungstenite_echo::serve(listener),
        Floor::SendLoop => send_loop::serve(&listener),
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
