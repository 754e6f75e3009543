//! The way of one node to its Redis: carries connections until it is dropped, which breaks them all, or until it goes
//! silent, which nobody is told of.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Which ways are silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    None,
    Replies,
    BothWays,
}

pub(crate) struct Bridge {
    pub(crate) url: String,
    silence: watch::Sender<Silence>,
    _traffic: JoinSet<()>,
}

impl Bridge {
    pub(crate) async fn to(url: &str) -> Self {
        let target = url.strip_prefix("redis://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let (silence, silent) = watch::channel(Silence::None);
        let mut traffic = JoinSet::new();
        traffic.spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let (target, silent) = (target.clone(), silent.clone());
                carried.spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    let ((asks, replies_to), (replies, asks_of)) = (near.into_split(), far.into_split());
                    let asking = carry(asks, asks_of, silent.clone(), |silence| silence == Silence::BothWays);
                    let replying = carry(replies, replies_to, silent, |silence| silence != Silence::None);
                    tokio::select! {
                        () = asking => {}
                        () = replying => {}
                    }
                });
            }
        });
        Self { url, silence, _traffic: traffic }
    }

    /// From now on.
    pub(crate) fn falls_silent(&self, silence: Silence) {
        self.silence.send(silence).unwrap();
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut silent: watch::Receiver<Silence>,
    is_silent: impl Fn(Silence) -> bool,
) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut bytes).await else { return };
        if silent.wait_for(|silence| !is_silent(*silence)).await.is_err() {
            return;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
