//! A certificate for 127.0.0.1 and the authority that signed it, made anew for each test that asks.

use std::path::PathBuf;

use hearth::rig::TlsFiles;
use tempfile::TempDir;

pub(crate) struct Certificates {
    folder: TempDir,
}

impl Certificates {
    pub(crate) fn make() -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = rcgen::Issuer::from_params(&authority, &authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".into(), "localhost".into()];
        let certificate = rcgen::CertificateParams::new(names).unwrap();
        let certificate_pem = certificate.signed_by(&key, &issuer).unwrap().pem();
        let made = Self { folder: tempfile::tempdir().unwrap() };
        for (name, text) in
            [("ca.pem", &authority_pem), ("cert.pem", &certificate_pem), ("key.pem", &key.serialize_pem())]
        {
            std::fs::write(made.path(name), text).unwrap();
        }
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The files that a server is given.
    pub(crate) fn files(&self) -> TlsFiles {
        let [certificate, key, authority] = ["cert.pem", "key.pem", "ca.pem"].map(|name| self.path(name));
        TlsFiles { certificate, key, authority }
    }

    /// What a client must trust, PEM.
    pub(crate) fn authority(&self) -> Vec<u8> {
        std::fs::read(self.path("ca.pem")).unwrap()
    }
}
