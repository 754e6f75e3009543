//! The client address in cipher: certificate and key from their PEM files, judged before anything starts. `app`
//! makes it, the listener uses it. Never reloads: a new certificate takes a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem};

use crate::config;

/// Why the certificate cannot be used. A fault of the configuration: nothing may start with it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("{setting}: cannot read {}: {source}", path.display())]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The file is PEM but holds no certificate, or no private key.
    #[error("{setting}: there is no {wanted} in {}", path.display())]
    Missing {
        /// The setting that names it.
        setting: &'static str,
        /// What it should hold.
        wanted: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not go together, or are of a kind that we do not know.
    #[error("tls.cert_file, tls.key_file: they cannot be used together: {0}")]
    Pair(#[source] rustls::Error),
}

/// The TLS side of the listener; `None` when no certificate is configured.
///
/// # Errors
/// [`TlsError`] names the setting and the file.
pub fn server_config(tls: &config::Tls) -> Result<Option<Arc<ServerConfig>>, TlsError> {
    let (Some(cert_file), Some(key_file)) = (&tls.cert_file, &tls.key_file) else { return Ok(None) };
    let chain = chain(cert_file)?;
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|error| fault("tls.key_file", "private key", key_file, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(TlsError::Pair)?;
    // A WebSocket starts as HTTP/1.1; a client that offers h2 first must not get it.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    const SETTING: &str = "tls.cert_file";
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| fault(SETTING, "certificate", path, error))?;
    if chain.is_empty() {
        return Err(fault(SETTING, "certificate", path, pem::Error::NoItemsFound));
    }
    Ok(chain)
}

fn fault(setting: &'static str, wanted: &'static str, path: &Path, source: pem::Error) -> TlsError {
    let path = path.to_path_buf();
    match source {
        pem::Error::NoItemsFound => TlsError::Missing { setting, wanted, path },
        source => TlsError::File { setting, path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    struct Files {
        folder: tempfile::TempDir,
        certificate: rcgen::CertifiedKey<rcgen::KeyPair>,
    }

    impl Files {
        fn new() -> Self {
            let certificate =
                rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
            Self { folder: tempfile::tempdir().expect("a folder"), certificate }
        }

        fn write(&self, name: &str, text: &str) -> Option<PathBuf> {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).expect("write");
            Some(path)
        }

        fn good(&self) -> config::Tls {
            config::Tls {
                cert_file: self.write("cert.pem", &self.certificate.cert.pem()),
                key_file: self.write("key.pem", &self.certificate.signing_key.serialize_pem()),
            }
        }
    }

    #[test]
    fn without_files_there_is_no_tls() {
        assert!(server_config(&config::Tls { cert_file: None, key_file: None }).expect("no fault").is_none());
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_certificate_gets_through() {
        let files = Files::new();
        let server = server_config(&files.good()).expect("good files").expect("configured");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(files.certificate.cert.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (near, far) = tokio::io::duplex(16 * 1024);
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let acceptor = tokio_rustls::TlsAcceptor::from(server);
        let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        let (mut client, mut server) = (client.expect("client"), server.expect("server"));
        client.write_all(b"hello").await.expect("write");
        client.flush().await.expect("flush");
        let mut read = [0; 5];
        server.read_exact(&mut read).await.expect("read");
        assert_eq!(&read, b"hello");
    }

    #[test]
    fn faults_name_the_setting_and_the_file() {
        let files = Files::new();
        let good = files.good();
        let other = Files::new();
        let told = |tls: config::Tls| server_config(&tls).expect_err("a fault").to_string();

        let missing = told(config::Tls { cert_file: Some("/nowhere/cert.pem".into()), ..good.clone() });
        assert!(missing.starts_with("tls.cert_file: cannot read /nowhere/cert.pem: "), "{missing}");
        let missing = told(config::Tls { key_file: Some("/nowhere/key.pem".into()), ..good.clone() });
        assert!(missing.starts_with("tls.key_file: cannot read /nowhere/key.pem: "), "{missing}");
        let swapped =
            told(config::Tls { cert_file: good.key_file.clone(), key_file: good.cert_file.clone() });
        assert!(swapped.starts_with("tls.cert_file: there is no certificate in "), "{swapped}");
        let keyless = told(config::Tls { key_file: good.cert_file.clone(), ..good.clone() });
        assert!(keyless.starts_with("tls.key_file: there is no private key in "), "{keyless}");
        let mixed = told(config::Tls { key_file: other.good().key_file, ..good });
        assert!(mixed.starts_with("tls.cert_file, tls.key_file: "), "{mixed}");
    }
}
