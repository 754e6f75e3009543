//! The peer port: where other nodes of the cluster connect, never clients. Whoever comes shows a pass; then a peer link
//! goes to `cluster`, and a relayed client is greeted as one at the client port, under her own address. Started by `app`
//! where there can be other nodes.

use std::net::IpAddr;
use std::sync::Arc;

use protocol::Encoding;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::Request as Upgraded;
use tokio_tungstenite::tungstenite::http::StatusCode;

use super::crowd::{Crowd, Patience};
use super::handshake::{self, Door, Greeted};
use super::listener::{Gate, OUT_OF_DESCRIPTORS};
use super::upgrade::{NotUpgraded, Refusal, Taken, upgrade};
use crate::clock;
use crate::cluster::dial::{
    Asked, HEADER_CLIENT, HEADER_NODE, HEADER_PASS, HEADER_SHARD, PEER_PATH, RELAY_PATH,
};
use crate::cluster::pass::ClusterKey;
use crate::cluster::{Links, PEER_SUBPROTOCOL};
use crate::ids::{Owner, ShardId};
use crate::tasks::{self, Tasks};

/// What the peer port needs to know.
pub struct Peers {
    /// What makes and checks passes.
    pub key: ClusterKey,
    /// This node and boot.
    pub me: Owner,
    /// Where peer links go.
    pub links: Arc<Links>,
}

/// Who comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Comes {
    /// A node.
    Node(Owner),
    /// A client whom another node brings.
    Client { ip: IpAddr, encoding: Encoding },
}

impl Gate {
    /// Accepts other nodes until asked to stop.
    pub async fn run_peers(self: Arc<Self>, listener: TcpListener, stop: Tasks) {
        let crowd = Crowd::new(self.handshakes_max, self.upgrade.timeout, stop.clone());
        let mut is_exhausted = false;
        loop {
            let accepted = async {
                let place = crowd.place().await;
                listener.accept().await.map(|(stream, _)| (stream, place))
            };
            tasks::rest();
            let accepted = tokio::select! {
                biased;
                () = stop.stopping() => return,
                accepted = accepted => accepted,
            };
            tasks::beat();
            match accepted {
                Ok((stream, place)) => {
                    is_exhausted = false;
                    let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
                        self.meters.failures.of("links_max").increment(1);
                        continue;
                    };
                    let _ = stream.set_nodelay(true);
                    let (gate, mut patience) = (Arc::clone(&self), place.taken());
                    self.links.spawn("handshake", async move {
                        if let Some((link, ip)) = gate.bring_in(stream, &mut patience).await {
                            link.spawn(&gate, ip, permit);
                        }
                    });
                }
                Err(error) => {
                    self.meters.failures.of("accept").increment(1);
                    self.descriptors.refused(&error, clock::now());
                    if !std::mem::replace(&mut is_exhausted, true) {
                        tracing::warn!(operation = "accept_peer", status = %error, "cannot accept");
                    }
                    tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
                }
            }
        }
    }

    async fn bring_in(
        self: &Arc<Self>,
        stream: TcpStream,
        patience: &mut Patience,
    ) -> Option<(Greeted<TcpStream>, IpAddr)> {
        let upgraded =
            upgrade(stream, &self.upgrade, patience.over(), |request| self.judge_peer(request)).await;
        match upgraded {
            Ok((ws, Comes::Client { ip, encoding })) => {
                let greeted = handshake::greeted(self, Door::Peers, (ws, encoding), ip, patience).await;
                greeted.map(|greeted| (greeted, ip))
            }
            Ok((ws, Comes::Node(from))) => {
                if let Some(stream) = ws.into_inner().into_inner() {
                    self.peers.links.accept(from, stream);
                }
                None
            }
            Err(NotUpgraded::Gone | NotUpgraded::TimedOut) => None,
            Err(NotUpgraded::Refused(stream, refusal)) => {
                patience.leaves(refusal.answer(stream)).await;
                None
            }
        }
    }

    fn judge_peer(&self, request: &Upgraded) -> Result<Taken<Comes>, Refusal> {
        let refuse = |status, why| Err(Refusal::new(status, why));
        let peers = &self.peers;
        let path = request.uri().path();
        if path != RELAY_PATH && path != PEER_PATH {
            return refuse(StatusCode::NOT_FOUND, "nodes connect here; clients have an address of their own");
        }
        let header = |name| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default()
        };
        let (from, shard, client) = (header(HEADER_NODE), header(HEADER_SHARD), header(HEADER_CLIENT));
        let asked = Asked { path, subprotocol: "", shard, client };
        let pass = header(HEADER_PASS);
        if let Err(error) = peers.key.check(pass, &asked.words(from, peers.me.as_str()), clock::now().unix_ms)
        {
            tracing::debug!(operation = "accept_peer", from, status = %error, "a node is not let in");
            return refuse(StatusCode::FORBIDDEN, "this pass is not good here");
        }
        let spoken = header("sec-websocket-protocol");
        if path == PEER_PATH {
            return if spoken == PEER_SUBPROTOCOL {
                Ok(Taken { subprotocol: Some(PEER_SUBPROTOCOL), known: Comes::Node(Owner::named(from)) })
            } else {
                refuse(StatusCode::BAD_REQUEST, "this version speaks hearth.peer.v1")
            };
        }
        let (Ok(ip), Some(shard)) =
            (client.parse::<IpAddr>(), shard.parse().ok().and_then(ShardId::numbered))
        else {
            return refuse(StatusCode::BAD_REQUEST, "a relayed client has an address and a shard");
        };
        if !self.sessions.is_home_of(shard) {
            return refuse(StatusCode::MISDIRECTED_REQUEST, "this node is not the home of that shard");
        }
        let Some(encoding) = Encoding::of_subprotocol(spoken) else {
            return refuse(StatusCode::BAD_REQUEST, "speak hearth.v1.msgpack or hearth.v1.json");
        };
        let known = Comes::Client { ip: ip.to_canonical(), encoding };
        Ok(Taken { subprotocol: Some(encoding.subprotocol()), known })
    }
}
