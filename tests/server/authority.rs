//! An authority that signs certificates for `test.example`, and clients that trust it alone.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// One authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// A new certificate and its key, in PEM.
    pub fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["test.example".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Clients that trust it.
    pub fn clients(&self) -> Arc<ClientConfig> {
        self.clients_with(rustls::DEFAULT_VERSIONS)
    }

    /// The same with these versions of TLS.
    pub fn clients_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root: CertificateDer<'static> = self.0.der().clone();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// Files with a certificate and its key.
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    /// New ones in `directory`.
    pub fn write(directory: &Path, authority: &Authority) -> Self {
        let files = Self {
            certificate: directory.join("cert.pem"),
            key: directory.join("key.pem"),
        };
        files.renew(authority);
        files
    }

    /// Writes others in their place, as certbot does: beside, and renamed. Returns the certificate.
    pub fn renew(&self, authority: &Authority) -> CertificateDer<'static> {
        use rustls::pki_types::pem::PemObject;
        let (certificate, key) = authority.issue();
        put(&self.certificate, &certificate);
        put(&self.key, &key);
        CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()
    }

    /// As settings.
    pub fn settings(&self) -> [(&'static str, &str); 2] {
        [
            ("realtime.tls_cert", self.certificate.to_str().unwrap()),
            ("realtime.tls_key", self.key.to_str().unwrap()),
        ]
    }
}

/// Puts a file in another's place.
pub fn put(file: &Path, content: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// With the environment's REALTIME_TEST_TLS every test's server speaks TLS, and every client: the same tests then say the
/// same of TLS.
pub fn of_all() -> Option<&'static Authority> {
    all().as_ref().map(|(authority, ..)| authority)
}

/// The files of those servers.
pub fn files_of_all() -> Option<&'static Files> {
    all().as_ref().map(|(_, files, _)| files)
}

fn all() -> &'static Option<(Authority, Files, tempfile::TempDir)> {
    static ALL: OnceLock<Option<(Authority, Files, tempfile::TempDir)>> = OnceLock::new();
    ALL.get_or_init(|| {
        std::env::var_os("REALTIME_TEST_TLS")?;
        let directory = crate::harness::directory();
        let authority = Authority::new();
        let files = Files::write(directory.path(), &authority);
        Some((authority, files, directory))
    })
}
