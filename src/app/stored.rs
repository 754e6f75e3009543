//! What a server finds in its store before any room is built: whether it can be trusted, what the cluster has agreed on,
//! whether it was closed for players. Called by the composition root alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{FORMATS, ServeError, settings};
use crate::clock;
use crate::cluster::{JoinError, Member, Members, Says};
use crate::config::{Settings, StoreTarget};
use crate::files::Named;
use crate::home::record;
use crate::ids::Owner;
use crate::maintenance::{Closed, Maintenance};
use crate::store::{self, Agreed, ClusterConfig, OpenOptions, Shortfall, Stance, Store, StoreError};
use crate::tasks::{Tasks, Vitals};

/// All of it.
pub(super) struct Stored {
    pub(super) store: Arc<dyn Store>,
    pub(super) shortfalls: Vec<Shortfall>,
    pub(super) cluster: ClusterConfig,
    pub(super) maintenance: Arc<Maintenance>,
}

impl Stored {
    pub(super) async fn open(settings: &Settings, vitals: &Vitals) -> Result<Self, ServeError> {
        let store = open_store(settings, vitals).await?;
        let shortfalls = checked_shortfalls(settings, &store).await?;
        let cluster = agreed_cluster(settings, &store).await?;
        let maintenance = Arc::new(stored_maintenance(&store).await?);
        Ok(Self { store, shortfalls, cluster, maintenance })
    }
}

/// Makes this process a member of the cluster that the store keeps.
pub(super) async fn join(
    settings: &Settings,
    node: &str,
    (url, peer): (String, Option<String>),
    store: &Arc<dyn Store>,
    tasks: &Tasks,
) -> Result<Arc<Members>, JoinError> {
    let says = Says { url, peer, formats: FORMATS, traces: true, ..Says::default() };
    let me = Member { owner: Owner::boot(node), says };
    Members::join(settings::member_settings(settings), me, Arc::clone(store), tasks).await
}

async fn open_store(settings: &Settings, vitals: &Vitals) -> Result<Arc<dyn Store>, ServeError> {
    let options = OpenOptions { vitals: vitals.clone(), ..options(settings)? };
    Ok(store::open(&url(settings), options).await?)
}

/// What is wrong with how the store is named, as far as that can be told without asking anybody.
pub(super) fn check_store(settings: &Settings) -> Result<(), ServeError> {
    Ok(store::check(&url(settings), &options(settings)?)?)
}

fn url(settings: &Settings) -> String {
    match &settings.store {
        StoreTarget::Embedded { dir } => format!("embedded:{}", dir.display()),
        StoreTarget::Redis { url } => url.expose().to_owned(),
    }
}

fn options(settings: &Settings) -> Result<OpenOptions, ServeError> {
    // With the embedded store nobody asks for it.
    let ca_file = settings.redis.ca_file.as_deref().filter(|_| settings.store.is_redis());
    Ok(OpenOptions {
        cluster: settings.cluster.name.as_ref().map(|name| name.as_str().to_owned()).unwrap_or_default(),
        connect_deadline: settings.redis.connect_timeout,
        response_deadline: settings.redis.response_timeout,
        // As often as a lease is renewed.
        probe_within: settings.home.lease_ttl / 3,
        replicated_to: settings.redis.replicated_to,
        redis_ca_pem: ca_file.map(read_authority).transpose()?,
        ..OpenOptions::default()
    })
}

fn read_authority(file: &Path) -> Result<Vec<u8>, ServeError> {
    let (named, path) = (Named::new("redis.ca_file", file), file.display());
    let pem = std::fs::read(file);
    let pem = pem.map_err(|error| named.fault(format!("cannot read {path}: {error}")))?;
    store::judge_authority(&pem).map_err(|reason| named.fault(format!("{path}: {reason}")))?;
    Ok(pem)
}

async fn checked_shortfalls(
    settings: &Settings,
    store: &Arc<dyn Store>,
) -> Result<Vec<Shortfall>, ServeError> {
    let shortfalls = store.shortfalls().await?;
    for shortfall in &shortfalls {
        tracing::warn!(operation = "start", setting = shortfall.setting, "{}", shortfall.message);
    }
    match shortfalls.iter().find(|shortfall| shortfall.fatal) {
        Some(fatal) if !settings.redis.ignore_shortfalls => Err(ServeError::Shortfall(fatal.message.clone())),
        _ => Ok(shortfalls),
    }
}

/// Whether the server was closed for players when it stopped, and is to stay so.
async fn stored_maintenance(store: &Arc<dyn Store>) -> Result<Maintenance, ServeError> {
    let closed = store.notice().await?.and_then(|stored| match serde_json::from_slice::<Closed>(&stored) {
        Ok(closed) => Some(closed),
        Err(error) => {
            tracing::warn!(operation = "start", status = %error, "a stored maintenance cannot be read: open");
            None
        }
    });
    if let Some(closed) = closed.as_ref().filter(|closed| !closed.is_over(clock::now())) {
        tracing::warn!(operation = "start", until = closed.until, "closed for players, as before the start");
    }
    Ok(Maintenance::new(closed))
}

/// How long a cluster is being founded. A store where nothing is written may have just lost everything, while nodes live
/// on that hold leases and a secret in memory: at their next renewal they find it, and write all of it again. A node that
/// took shards before that would take them from living homes. As long as a lease: by then each of these has renewed,
/// however often it had to try, or has stopped to answer.
fn founding(settings: &Settings) -> Duration {
    settings.home.lease_ttl
}

/// What the cluster has agreed on, once that is settled.
async fn founded_cluster(
    store: &Arc<dyn Store>,
    proposal: ClusterConfig,
    within: Duration,
) -> Result<ClusterConfig, StoreError> {
    loop {
        let Agreed { config, founded_in } =
            store.agree_config(proposal.clone(), Stance::Founds, within).await?;
        if founded_in.is_zero() {
            return Ok(config);
        }
        let wait_ms = record::millis(founded_in);
        tracing::info!(
            operation = "start",
            wait_ms,
            "the store holds no cluster of this name: waiting whether any node lives that knows one"
        );
        tokio::time::sleep(founded_in).await;
    }
}

async fn agreed_cluster(settings: &Settings, store: &Arc<dyn Store>) -> Result<ClusterConfig, ServeError> {
    let proposal = ClusterConfig {
        shards: settings.cluster.shards,
        format_min: FORMATS.writes,
        format_max: FORMATS.writes,
        ticket_secret: rand::random::<[u8; 32]>().to_vec(),
    };
    let agreed = founded_cluster(store, proposal, founding(settings)).await?;
    if agreed.shards != settings.cluster.shards {
        return Err(ServeError::Cluster(format!(
            "cluster.shards is {}, but this cluster was made with {}: that is fixed, set it to {}",
            settings.cluster.shards, agreed.shards, agreed.shards
        )));
    }
    agreed.admits(FORMATS).map_err(ServeError::Cluster)?;
    Ok(agreed)
}
