//! The operator's files: a certificate with its chain, and its private key, both in PEM (RFC 7468).
//!
//! Imports `config`.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use crate::config::Config;

/// The largest file, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Why there is no TLS. The operator's to mend, all but the last.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Half of the settings.
    #[error("realtime.tls_key is set and realtime.tls_cert is not: set both, or neither")]
    NoCertificate,
    /// A file cannot be used.
    #[error("cannot take the {what} in {} ({setting}): {why}", .file.display())]
    File {
        /// What it should have.
        what: &'static str,
        /// Which file.
        file: PathBuf,
        /// Who named it.
        setting: &'static str,
        /// In words; nothing of what is in the file.
        why: String,
    },
    /// Both can be read, and do not belong together.
    #[error(
        "the private key in {} (realtime.tls_key) is not that of the first certificate in {} (realtime.tls_cert)",
        .key.display(),
        .certificate.display()
    )]
    Mismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
    },
    /// The library refuses, or the system gives no random numbers.
    #[error("cannot prepare TLS: {0}")]
    Library(Error),
}

/// Both files, which may be one.
#[derive(Debug)]
pub struct Files {
    certificate: PathBuf,
    key: PathBuf,
    // Taken by the one thread that keeps house.
    seen: Mutex<Seen>,
}

/// Which versions of the files.
#[derive(Debug)]
struct Seen {
    /// Were read, successfully or not.
    read: Versions,
    /// Were there at the last look.
    last: Versions,
}

/// What tells one content of a file from the next without reading it; none when it is not there.
type Version = Option<(SystemTime, u64, u64, i64)>;
type Versions = [Version; 2];

impl Files {
    /// Those that `config` names. `None` when it names none.
    pub fn of(config: &Config) -> Result<Option<Self>, TlsError> {
        let certificate = match (&config.tls_cert, &config.tls_key) {
            (Some(certificate), _) => certificate.clone(),
            (None, Some(_)) => return Err(TlsError::NoCertificate),
            (None, None) => return Ok(None),
        };
        let key = config.tls_key.clone().unwrap_or(certificate.clone());
        let now = [version(&certificate), version(&key)];
        Ok(Some(Self {
            certificate,
            key,
            seen: Mutex::new(Seen {
                read: now,
                last: now,
            }),
        }))
    }

    /// Whether they are others than those that were read last, and the same as at the last look: while one of them is
    /// being written, or is there already and the other is not, nothing is to be read. Each change is told once.
    pub fn have_changed(&self) -> bool {
        let now = [version(&self.certificate), version(&self.key)];
        // Whole between any two statements.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let still = std::mem::replace(&mut seen.last, now) == now;
        still && std::mem::replace(&mut seen.read, now) != now
    }

    /// Reads both.
    pub fn read(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let of_certificate = |why| TlsError::File {
            what: "certificate",
            file: self.certificate.clone(),
            setting: "realtime.tls_cert",
            why,
        };
        let of_key = |why| TlsError::File {
            what: "private key",
            file: self.key.clone(),
            setting: if self.key == self.certificate {
                "realtime.tls_cert, as realtime.tls_key is not set"
            } else {
                "realtime.tls_key"
            },
            why,
        };
        let chain = certificates(&content(&self.certificate).map_err(of_certificate)?)
            .map_err(of_certificate)?;
        let key = private_key(&content(&self.key).map_err(of_key)?).map_err(of_key)?;
        match CertifiedKey::from_der(chain, key, provider) {
            Ok(certified) => Ok(certified),
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                Err(TlsError::Mismatch {
                    key: self.key.clone(),
                    certificate: self.certificate.clone(),
                })
            }
            Err(error @ Error::InvalidCertificate(_)) => Err(of_certificate(error.to_string())),
            Err(error) => Err(of_key(error.to_string())),
        }
    }
}

fn version(file: &Path) -> Version {
    let metadata = file.metadata().ok()?;
    Some((
        metadata.modified().ok()?,
        metadata.len(),
        metadata.ino(),
        metadata.ctime_nsec(),
    ))
}

fn content(file: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            // SAFETY: geteuid() reads a number of this process and cannot fail.
            let user = unsafe { libc::geteuid() };
            return format!("user {user}, as whom the server runs, may not read it");
        }
        error.to_string()
    };
    let opened = File::open(file).map_err(failed)?;
    let mut content = Vec::new();
    let read = opened.take(FILE_MAX + 1).read_to_end(&mut content);
    match read.map_err(failed)? as u64 {
        0 => Err("it is empty".to_owned()),
        1..=FILE_MAX => Ok(content),
        _ => Err(format!("it has more than {FILE_MAX} bytes")),
    }
}

fn certificates(content: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    let chain = chain.map_err(|_| "it is damaged: PEM does not read like that".to_owned())?;
    match chain.is_empty() {
        true => Err("it has no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned()),
        false => Ok(chain),
    }
}

fn private_key(content: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(content).map_err(|_| {
        let text = String::from_utf8_lossy(content);
        if text.contains("ENCRYPTED") {
            "it is encrypted, and nobody is there to type its passphrase: `openssl pkey` takes it away".to_owned()
        } else {
            "it has no private key in PEM (-----BEGIN PRIVATE KEY-----)".to_owned()
        }
    })
}
