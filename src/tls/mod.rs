//! TLS for clients (`realtime.tls_cert`, `realtime.tls_key`), for those who have no proxy in front.
//!
//! [`Tls`] has the certificate at hand and takes a new one when the files change: handshakes after that get the new one,
//! and whoever is connected stays. [`Session`] is the TLS of one connection; `socket` reads and writes through it, on the
//! thread of the connection's shard. [`files`] reads what the operator gave. Imports `config`.

mod files;
mod session;

use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use tokio::sync::Semaphore;

use self::files::Files;
pub use self::files::TlsError;
use self::session::Room;
pub use self::session::{NotTls, Session};
use crate::config::Config;

/// The answer to a client that is not even let into the handshake: an alert (RFC 8446, section 6), fatal, internal_error.
pub const REFUSAL: &[u8] = &[0x15, 3, 3, 0, 2, 2, 80];

/// The one protocol that is spoken inside (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// What one server does about TLS.
#[derive(Debug)]
pub struct Tls {
    // Read at each handshake, written when the files have changed.
    current: RwLock<Arc<ServerConfig>>,
    files: Files,
}

impl Tls {
    /// Reads what `config` names. `None` when TLS is off.
    pub fn new(config: &Config) -> Result<Option<Self>, TlsError> {
        let Some(files) = Files::of(config)? else {
            return Ok(None);
        };
        let current = RwLock::new(Arc::new(offer(&files)?));
        Ok(Some(Self { current, files }))
    }

    /// What the next handshake offers.
    pub fn offer(&self) -> Arc<ServerConfig> {
        let current = self.current.read();
        // What is in it is whole at any time.
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what is in the files, if they have changed. Once a second or so.
    pub fn keep_house(&self) {
        if !self.files.have_changed() {
            return;
        }
        match offer(&self.files) {
            Ok(new) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                tracing::info!("the certificate (realtime.tls_cert) was read again");
            }
            Err(error) => tracing::error!("{error}; the certificate that was read before stays"),
        }
    }
}

/// Reads the files. Tickets of before are worth nothing with what this returns: who resumes with one goes through the
/// whole handshake, and sees the new certificate.
fn offer(files: &Files) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(default_provider());
    let certified = files.read(&provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Library)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Clients keep what it takes to resume, sealed with a key that changes every six hours: no memory of ours.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new().map_err(TlsError::Library)?;
    Ok(config)
}

/// What the TLS connections of one shard share.
#[derive(Debug)]
pub struct Desk {
    room: Rc<Room>,
    turn: Semaphore,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            room: Rc::default(),
            turn: Semaphore::new(1),
        }
    }
}

impl Desk {
    /// A connection that is about to begin.
    pub fn session(&self, offer: Arc<ServerConfig>) -> Result<Session, rustls::Error> {
        Session::new(offer, self.room.clone())
    }

    /// One at a time takes a step of a handshake, which may take a millisecond: when thousands connect at once, what is
    /// published is delivered between any two of them.
    pub fn turn(&self) -> &Semaphore {
        &self.turn
    }
}
