//! A POST to the application, over HTTP/1.1 and a connection of its own.
//!
//! Imports `config`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::without_password;

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of an answer is read, in bytes: nobody looks at it.
const ANSWER_MAX: usize = 64 << 10;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The operator's to mend.
    #[error("{0:?} is not an http:// or https:// address")]
    Address(String),
    /// The operator's to mend.
    #[error("no certificates prove who answers: {0}")]
    Roots(String),
    /// The other side, or the way there.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The other side.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// The other side.
    #[error("no answer within {PATIENCE:?}")]
    Late,
}

/// Where calls go.
pub struct Target {
    uri: Uri,
    host: String,
    port: u16,
    /// For https.
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// What is sent.
pub struct Call {
    /// Beside those of every request.
    pub headers: Vec<(&'static str, String)>,
    /// The content.
    pub body: Bytes,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Target {
    /// Takes a URL.
    pub fn parse(url: &str) -> Result<Self, CallError> {
        let wrong = || CallError::Address(without_password(url));
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']);
        let host = host.to_owned();
        let tls = if secure {
            let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
            Some((connector()?, name))
        } else {
            None
        };
        Ok(Self {
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            host,
            uri,
            tls,
        })
    }

    /// Calls.
    pub async fn post(&self, call: &Call) -> Result<StatusCode, CallError> {
        let called = tokio::time::timeout(PATIENCE, self.call(call));
        called.await.unwrap_or(Err(CallError::Late))
    }

    async fn call(&self, call: &Call) -> Result<StatusCode, CallError> {
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let stream: Box<dyn Stream> = match &self.tls {
            Some((connector, name)) => Box::new(connector.connect(name.clone(), socket).await?),
            None => Box::new(socket),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the answer, as there is no second request.
        let driven = tokio::task::spawn_local(connection);
        let answered = async {
            let answer = sender.send_request(self.request(call)).await?;
            let status = answer.status();
            // So that the other side is not cut off while it writes.
            let _ = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            Ok(status)
        };
        let result = answered.await;
        driven.abort();
        result
    }

    fn request(&self, call: &Call) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = Method::POST;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().expect("it is part of a URI");
        let headers = request.headers_mut();
        let host = self.uri.authority().map_or("", |host| host.as_str());
        // What is before the @ is for nobody's eyes.
        let host = host.rsplit('@').next().unwrap_or_default();
        let values = call
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain([
                ("host", host),
                ("user-agent", "realtime"),
                ("connection", "close"),
            ]);
        for (name, value) in values {
            // All of them are printable ASCII.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(header::HeaderName::from_static(name), value);
            }
        }
        request
    }
}

/// With the certificates that the machine trusts.
fn connector() -> Result<TlsConnector, CallError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(ToString::to_string);
        let why = why.unwrap_or_else(|| "install the package ca-certificates".to_owned());
        return Err(CallError::Roots(why));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| CallError::Roots(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
