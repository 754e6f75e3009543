//! From a store's URL to a store. Called by `app` at start and by tests; every fault is one line that says what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::embedded::EmbeddedStore;
use super::layout::ClusterNameError;
use super::redis::RedisStore;
use super::{Store, StoreError};
use crate::tasks::Vitals;

/// How a store is opened, besides its URL.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The cluster's name, first part of every key: 1 to 32 of `a-z A-Z 0-9 . _ -`. Required with Redis, so that two
    /// clusters never share keys by accident; the embedded store, one cluster a folder, does not use it.
    pub cluster: String,
    /// How long making a connection may take, TLS and AUTH included. Redis only.
    pub connect_deadline: Duration,
    /// How long a call may wait for its answer once connected. Redis only; the embedded store waits for its disk, 5 s.
    pub response_deadline: Duration,
    /// A server that does not answer is left alone for so long at most before it is tried again, and for no longer than 5 s:
    /// about as long as between two renewals of a lease, or leases that could be had again wait for their turn. Redis only.
    pub probe_within: Duration,
    /// On how many replicas a write must be before [`Store::replicated`] says so. Redis only.
    pub replicated_to: u32,
    /// The certificate authority of a `rediss://` server, PEM, where it is not one that everybody trusts.
    pub redis_ca_pem: Option<Vec<u8>>,
    /// Who is told if the store's own tasks or its thread die.
    pub vitals: Vitals,
}

impl Default for OpenOptions {
    /// No cluster name; one second to connect, one second to answer; tried again within five; one replica; the well-known certificate authorities; nobody is
    /// told.
    fn default() -> Self {
        Self {
            cluster: String::new(),
            connect_deadline: Duration::from_secs(1),
            response_deadline: Duration::from_secs(1),
            probe_within: Duration::from_secs(5),
            replicated_to: 1,
            redis_ca_pem: None,
            vitals: Vitals::default(),
        }
    }
}

/// Why there is no store. The message is one line that says what to do; it never carries a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no store that we know.
    #[error(
        "the store {scheme:?} is not known: use embedded:DIR, redis://HOST:PORT, redis+sentinel://HOST:PORT,…/MASTER or redis+cluster://HOST:PORT,… (rediss for TLS)"
    )]
    UnknownScheme {
        /// What stands before the colon.
        scheme: String,
    },
    /// The URL cannot be read.
    #[error("the store's {scheme} URL cannot be read ({reason}): write {form}")]
    BadUrl {
        /// What stands before the colon.
        scheme: String,
        /// What is wrong with the rest.
        reason: String,
        /// How it is written.
        form: &'static str,
    },
    /// An authority for what is not encrypted.
    #[error(
        "redis.ca_file is set, but the store's {scheme} URL is not one with TLS: write rediss, or unset it"
    )]
    NotEncrypted {
        /// What stands before the colon.
        scheme: String,
    },
    /// A cluster on Redis needs a name.
    #[error("cluster.name is {name:?}, and with Redis it is required: {source}")]
    ClusterName {
        /// The name as given.
        name: String,
        /// The rule.
        source: ClusterNameError,
    },
    /// No server answers, or it does not let us in.
    #[error("no usable Redis at {address} ({source}): start it there, or correct the store's URL")]
    NoServer {
        /// Where, without any password.
        address: String,
        /// What happened.
        source: StoreError,
    },
    /// The folder belongs to a running server.
    #[error(
        "the data folder {} is in use by another hearth server{}: stop that one, or give this one a folder of its own",
        dir.display(), in_process(pid)
    )]
    FolderLocked {
        /// The folder.
        dir: PathBuf,
        /// Its process, if it could be told.
        pid: String,
    },
    /// The folder cannot be made, read or written.
    #[error("the data folder {} cannot be used ({source}): check that it may be written and has room", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The database file is not ours, or broken.
    #[error("{} cannot be read ({reason}): put a backup in its place, or move it away to start empty", file.display())]
    Damaged {
        /// The file or its folder.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl OpenError {
    /// Whether it is the settings that are wrong, whatever runs outside.
    #[must_use]
    pub const fn is_of_settings(&self) -> bool {
        match self {
            Self::UnknownScheme { .. }
            | Self::BadUrl { .. }
            | Self::NotEncrypted { .. }
            | Self::ClusterName { .. } => true,
            Self::NoServer { .. }
            | Self::FolderLocked { .. }
            | Self::Folder { .. }
            | Self::Damaged { .. } => false,
        }
    }
}

fn in_process(pid: &str) -> String {
    if pid.is_empty() { String::new() } else { format!(" (process {pid})") }
}

/// Opens the store that `url` names: `embedded:DIR`, `redis://…`, `redis+unix://…`, `redis+sentinel://…` or
/// `redis+cluster://…` (each but the socket also with TLS, as `rediss…`).
///
/// It does not look at the server's settings: ask [`Store::shortfalls`] before serving.
///
/// # Errors
/// [`OpenError`]; nothing stays open then.
pub async fn open(url: &str, options: OpenOptions) -> Result<Arc<dyn Store>, OpenError> {
    match kind_of(url)? {
        Kind::Embedded(dir) => open_embedded(dir, options.vitals).await,
        Kind::Redis => Ok(Arc::new(RedisStore::open(url, &options).await?)),
    }
}

/// Every fault that [`open`] would find without asking anybody.
///
/// # Errors
/// [`OpenError`], of those that are of the settings.
pub fn check(url: &str, options: &OpenOptions) -> Result<(), OpenError> {
    match kind_of(url)? {
        Kind::Embedded(_) => Ok(()),
        Kind::Redis => RedisStore::check(url, options),
    }
}

/// Whether this can be the certificate authority of a server; what is wrong with it if not.
///
/// # Errors
/// The text says what, without the name of the file.
pub fn judge_authority(pem: &[u8]) -> Result<(), String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(|error| error.to_string())?;
    if certificates.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    let is_one = |der: &CertificateDer<'_>| X509Certificate::from_der(der).is_ok();
    if certificates.iter().all(is_one) { Ok(()) } else { Err("it holds what is no certificate".to_owned()) }
}

enum Kind<'a> {
    Embedded(&'a Path),
    Redis,
}

fn kind_of(url: &str) -> Result<Kind<'_>, OpenError> {
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    match scheme {
        "embedded" if !rest.is_empty() => Ok(Kind::Embedded(Path::new(rest))),
        "redis" | "rediss" | "redis+unix" | "unix" | "valkey" | "valkeys" | "valkey+unix"
        | "redis+sentinel" | "rediss+sentinel" | "redis+cluster" | "rediss+cluster" => Ok(Kind::Redis),
        _ => Err(OpenError::UnknownScheme { scheme: scheme.to_owned() }),
    }
}

async fn open_embedded(dir: &Path, vitals: Vitals) -> Result<Arc<dyn Store>, OpenError> {
    let owned = dir.to_owned();
    let opening = tokio::task::spawn_blocking(move || EmbeddedStore::open_under(&owned, vitals));
    match opening.await {
        Ok(opened) => Ok(Arc::new(opened?)),
        // redb trusts a file that was closed in order, and panics where such a file was altered.
        Err(panicked) => Err(OpenError::Damaged { file: dir.to_owned(), reason: panicked.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(url: &str) -> String {
        let options = OpenOptions { cluster: "c".into(), ..OpenOptions::default() };
        let message = open(url, options).await.err().map(|error| error.to_string()).unwrap();
        assert!(!message.contains('\n') && !message.contains("secret"), "{message}");
        message
    }

    #[tokio::test]
    async fn an_unknown_store_is_told_which_there_are() {
        for url in
            ["", "data", "/var/lib/hearth", "embedded", "embedded:", "postgres://u:secret@h", "memory:"]
        {
            let message = refused(url).await;
            assert!(message.contains("embedded:DIR") && message.contains("redis://"), "{url}: {message}");
        }
    }

    #[tokio::test]
    async fn a_broken_url_is_told_how_to_write_one() {
        for url in ["redis:", "redis://", "redis://:secret@host:port", "redis://:secret@h/db"] {
            assert!(refused(url).await.contains("redis://[USER:PASSWORD@]HOST:PORT[/DB]"), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_settings_is_found_without_asking_anybody() {
        let named = |name: &str| OpenOptions { cluster: name.into(), ..OpenOptions::default() };
        let long = "x".repeat(33);
        for (url, name) in [
            ("postgres://h", "c"),
            ("redis://h:99999", "c"),
            ("redis+sentinel://h:1", "c"),
            ("redis://127.0.0.1:1", ""),
            ("redis://127.0.0.1:1", long.as_str()),
        ] {
            assert!(check(url, &named(name)).unwrap_err().is_of_settings(), "{url} {name}");
        }
        let with_authority = OpenOptions { redis_ca_pem: Some(Vec::new()), ..named("c") };
        assert!(matches!(check("redis://h", &with_authority), Err(OpenError::NotEncrypted { .. })));
        for url in ["embedded:/nowhere/at/all", "redis://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/main"] {
            assert!(check(url, &named("c")).is_ok(), "{url}");
        }
    }

    #[test]
    fn an_authority_is_a_certificate_at_least() {
        let garbage = "-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nbm90IG9uZQ==\n-----END PRIVATE KEY-----\n";
        for (pem, why) in
            [("", "no certificate in it"), (key, "no certificate in it"), (garbage, "is no certificate")]
        {
            assert!(judge_authority(pem.as_bytes()).unwrap_err().contains(why), "{pem}");
        }
    }

    #[tokio::test]
    async fn a_redis_needs_a_cluster_name() {
        let error = open("redis://127.0.0.1:1", OpenOptions::default()).await.err().unwrap();
        assert!(matches!(error, OpenError::ClusterName { .. }), "{error}");
    }
}
