//! The client address in cipher: certificate and key from their PEM files, judged before anything starts and again when
//! they change. `app` makes it, the listener asks for what is in force at each handshake; links that are up stay as
//! they are. A pair that does not go together, as while one of the files is being replaced, is never used.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use metrics::Gauge;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::clock;
use crate::config;
use crate::files::{Fault, Named, Reread, Watched};
use crate::telemetry::metrics::TLS_CERTIFICATE_DAYS_LEFT;

/// From so few days on it is said that a certificate runs out.
const DAYS_LEFT_MIN: i64 = 14;
const DAY_S: i64 = 24 * 3_600;
const CERT_FILE: &str = "tls.cert_file";
const KEY_FILE: &str = "tls.key_file";

/// What new links are greeted with.
pub struct Certificates {
    pair: Reread<Pair>,
    days_left: Gauge,
    /// The warning that was logged last.
    told: Mutex<Option<Fault>>,
}

struct Pair {
    config: Arc<ServerConfig>,
    /// When the first certificate of the chain to run out does so (Unix seconds).
    not_after_s: i64,
}

impl Certificates {
    /// Reads the files; `None` when no certificate is configured.
    ///
    /// # Errors
    /// [`Fault`] names the setting and the file.
    pub fn from_settings(tls: &config::Tls) -> Result<Option<Arc<Self>>, Fault> {
        let (Some(cert_file), Some(key_file)) = (&tls.cert_file, &tls.key_file) else { return Ok(None) };
        let files = vec![Named::new(CERT_FILE, cert_file), Named::new(KEY_FILE, key_file)];
        let pair = Reread::open(files, read)?;
        let days_left = TLS_CERTIFICATE_DAYS_LEFT.handle();
        Ok(Some(Arc::new(Self { pair, days_left, told: Mutex::default() })))
    }

    /// The TLS side of a new link.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.pair.get().config)
    }

    /// What is to be said of the time that is left.
    fn judge(&self, now_s: i64) -> Option<Fault> {
        let days_left = self.pair.get().not_after_s.saturating_sub(now_s).div_euclid(DAY_S);
        #[allow(clippy::cast_precision_loss, reason = "a number of days")]
        self.days_left.set(days_left as f64);
        let message = match days_left {
            ..0 => "the certificate has run out: clients refuse it; put a new one in its place".to_owned(),
            0..DAYS_LEFT_MIN => format!("the certificate runs out in {days_left} days"),
            _ => return None,
        };
        Some(Fault { setting: CERT_FILE.to_owned(), message })
    }

    /// Logs what changed since the last look.
    fn tell(&self) {
        let fault = self.judge(now_s());
        let mut told = self.told.lock();
        if *told != fault {
            if let Some(Fault { setting, message }) = &fault {
                tracing::warn!(operation = "tls", setting, "{message}");
            }
            *told = fault;
        }
    }
}

impl Watched for Certificates {
    fn look(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            self.pair.look().await;
            self.tell();
        })
    }

    fn fault(&self) -> Option<Fault> {
        self.pair.fault().or_else(|| self.judge(now_s()))
    }
}

fn now_s() -> i64 {
    i64::try_from(clock::now().unix_ms / 1_000).unwrap_or(i64::MAX)
}

fn read(files: &[Named], read: &[Vec<u8>]) -> Result<Pair, Fault> {
    let ([cert_file, key_file], [cert_pem, key_pem]) = (files, read) else {
        return Err(Fault { setting: CERT_FILE.to_owned(), message: "not a pair of files".to_owned() });
    };
    let chain = chain(cert_file, cert_pem)?;
    let key =
        PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| fault("private key", key_file, &error))?;
    let not_after_s = not_after_s(&chain).ok_or_else(|| {
        cert_file.fault(format!("{} holds what is no certificate", cert_file.path.display()))
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| Fault {
            setting: format!("{CERT_FILE}, {KEY_FILE}"),
            message: format!("they cannot be used together: {error}"),
        })?;
    // A WebSocket starts as HTTP/1.1; a client that offers h2 first must not get it.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Pair { config: Arc::new(config), not_after_s })
}

fn chain(file: &Named, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| fault("certificate", file, &error))?;
    if chain.is_empty() {
        return Err(fault("certificate", file, &pem::Error::NoItemsFound));
    }
    Ok(chain)
}

fn not_after_s(chain: &[CertificateDer<'_>]) -> Option<i64> {
    let ends = chain.iter().map(|der| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(certificate.validity().not_after.timestamp())
    });
    ends.collect::<Option<Vec<_>>>()?.into_iter().min()
}

fn fault(wanted: &str, file: &Named, error: &pem::Error) -> Fault {
    let path = file.path.display();
    file.fault(match error {
        pem::Error::NoItemsFound => format!("there is no {wanted} in {path}"),
        error => format!("cannot read {path}: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

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
        assert!(
            Certificates::from_settings(&config::Tls { cert_file: None, key_file: None })
                .expect("no fault")
                .is_none()
        );
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_certificate_gets_through() {
        let files = Files::new();
        let server =
            Certificates::from_settings(&files.good()).expect("good files").expect("configured").config();
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
        let told = |tls: config::Tls| Certificates::from_settings(&tls).err().expect("a fault").to_string();

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

    #[tokio::test]
    async fn a_new_pair_is_taken_when_both_halves_are_there() {
        let (old, new) = (Files::new(), Files::new());
        let certificates = Certificates::from_settings(&old.good()).expect("good files").expect("configured");
        let before = certificates.config();
        let look = async || {
            for _ in 0..2 {
                certificates.look().await;
            }
            certificates.fault().map(|fault| fault.message)
        };
        assert_eq!(look().await, None);
        // Half of the new pair is there.
        old.write("cert.pem", &new.certificate.cert.pem());
        let told = look().await.expect("a fault");
        assert!(told.contains("together") && told.contains("stays in force"), "{told}");
        assert!(Arc::ptr_eq(&before, &certificates.config()));
        old.write("key.pem", &new.certificate.signing_key.serialize_pem());
        assert_eq!(look().await, None);
        assert!(!Arc::ptr_eq(&before, &certificates.config()));
    }

    #[test]
    fn a_certificate_that_runs_out_is_told_in_time() {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(2031, 1, 31);
        let signing_key = rcgen::KeyPair::generate().expect("a key");
        let cert = params.self_signed(&signing_key).expect("a certificate");
        let files = Files {
            folder: tempfile::tempdir().expect("a folder"),
            certificate: rcgen::CertifiedKey { cert, signing_key },
        };
        let certificates =
            Certificates::from_settings(&files.good()).expect("good files").expect("configured");
        let not_after_s = certificates.pair.get().not_after_s;
        let at =
            |days_left: i64| certificates.judge(not_after_s - days_left * DAY_S).map(|fault| fault.message);
        assert_eq!(at(DAYS_LEFT_MIN), None);
        assert_eq!(at(13).as_deref(), Some("the certificate runs out in 13 days"));
        assert!(at(-1).expect("told").starts_with("the certificate has run out"));
    }
}
