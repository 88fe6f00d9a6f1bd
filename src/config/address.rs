//! Where something listens: a TCP host and port, or a Unix socket.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// Where the server listens for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP host and port, not yet resolved; port 0 takes any free one.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Takes `host:port`, `[ipv6]:port`, a bare `:port` (loopback) or `unix:/path`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            let fits = path.starts_with('/') && path.len() <= 100 && !path.contains('\0');
            return fits.then(|| Self::Unix(path.into()));
        }
        let (host, port) = text.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.contains(':') && !bracketed {
            return None;
        }
        if host.chars().any(|c| c.is_whitespace() || c == '/') {
            return None;
        }
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        Some(Self::Tcp(format!("{host}:{port}")))
    }

    /// The addresses to bind; asks the resolver when the host is a name.
    pub fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        match self {
            Self::Tcp(text) => Ok(text.to_socket_addrs()?.collect()),
            Self::Unix(_) => Ok(Vec::new()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(text) => f.write_str(text),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert!(ListenAddress::parse("unix:/run/x.sock").is_some());
        assert!(ListenAddress::parse("[::1]:0").is_some());
        assert_eq!(
            ListenAddress::parse(":80").unwrap().to_string(),
            "127.0.0.1:80"
        );
        for bad in [
            "",
            "8080",
            "localhost",
            "unix:x",
            "::1:80",
            "a b:80",
            "h:99999",
        ] {
            assert_eq!(ListenAddress::parse(bad), None, "{bad}");
        }
    }
}
