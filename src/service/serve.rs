//! The API's port: a capped number of connections, none of which may idle for long. `app` runs it as a task. Every
//! connection ends with the call that it is in when the house stops.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use super::{Service, router};
use crate::clock;
use crate::limits::Descriptors;
use crate::tasks::{self, Tasks};

/// Connections at a time; further ones wait in the kernel's backlog. Services keep few and use them long.
const CONNECTIONS_MAX: usize = 1_024;
/// How long a connection may carry nothing, between calls or within one. Longer than any call waits.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// How long to wait when the process has no descriptor left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the API until the tasks are asked to stop and the calls under way are answered.
pub async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    descriptors: Arc<Descriptors>,
    stop: &Tasks,
) {
    let (stopping, waits) = (stop.clone(), Arc::clone(&service));
    let listener = Capped {
        listener,
        room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        descriptors,
        is_exhausted: false,
    };
    let serving = axum::serve(listener, router(service)).with_graceful_shutdown(async move {
        stopping.stopping().await;
        waits.end_waits();
    });
    if let Err(error) = serving.await {
        tracing::error!(operation = "service", status = %error, "the service API has ended");
    }
}

/// A listener that accepts only while there is room.
struct Capped {
    listener: TcpListener,
    room: Arc<Semaphore>,
    /// Whether any are left.
    descriptors: Arc<Descriptors>,
    /// The last one was not accepted, and that was said.
    is_exhausted: bool,
}

impl Listener for Capped {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            tasks::rest();
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else {
                return std::future::pending().await;
            };
            tasks::rest();
            let accepted = self.listener.accept().await;
            tasks::beat();
            match accepted {
                Ok((stream, peer)) => {
                    self.is_exhausted = false;
                    return (Connection::new(stream, permit), peer);
                }
                Err(error) => {
                    self.descriptors.refused(&error, clock::now());
                    if !std::mem::replace(&mut self.is_exhausted, true) {
                        tracing::warn!(operation = "service", status = %error, "cannot accept");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when nothing has gone either way for too long.
struct Connection {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit) -> Self {
        // Answers are small and whole: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        Self { stream, idle: Box::pin(tokio::time::sleep(IDLE_MAX)), _permit: permit }
    }

    /// Sets the clock anew when something went through, and ends the connection when it has run down.
    fn judge<T>(&mut self, cx: &mut Context<'_>, went: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if went.is_ready() {
            self.idle.as_mut().reset(Instant::now() + IDLE_MAX);
            return went;
        }
        ready!(self.idle.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let went = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.judge(cx, went)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let went = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, went)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let went = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, went)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
