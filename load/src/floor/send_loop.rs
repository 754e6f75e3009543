//! The raw fan-out: the first link says, each time, how long to wait and which bytes; they go to every other link with
//! one `send` each; then it says so. What the kernel takes for so many writes, and nothing else.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Largest push that can be asked for.
const PUSH_BYTES_MAX: usize = 64 * 1024;

pub(super) fn serve(listener: &TcpListener) -> io::Result<()> {
    let (mut control, _) = listener.accept()?;
    let mut links: Vec<TcpStream> = Vec::new();
    listener.set_nonblocking(true)?;
    loop {
        // Wait in ms and length, both big-endian; then the bytes.
        let mut head = [0; 8];
        control.read_exact(&mut head)?;
        let [w0, w1, w2, w3, l0, l1, l2, l3] = head;
        let wait = Duration::from_millis(u32::from_be_bytes([w0, w1, w2, w3]).into());
        let len = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(PUSH_BYTES_MAX)];
        control.read_exact(&mut bytes)?;
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nodelay(true)?;
            links.push(stream);
        }
        std::thread::sleep(wait);
        for link in links.iter_mut().filter(|_| !bytes.is_empty()) {
            link.write_all(&bytes)?;
        }
        control.write_all(&[1])?;
    }
}
