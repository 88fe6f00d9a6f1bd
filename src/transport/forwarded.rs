//! Who a request comes from, when proxies stand before the server.
//!
//! Imports `config`'s list of those whose word is taken (`realtime.trusted_proxies`).

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use hyper::header::HeaderMap;

use crate::config::Proxies;

/// Whoever has connected to this server: a client, or the last of the proxies before it.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Its address; empty for a Unix socket.
    pub ip: &'a str,
    /// Whether it speaks TLS with this server.
    pub secure: bool,
}

/// The client behind the proxies.
#[derive(Debug, PartialEq, Eq)]
pub struct Client<'a> {
    /// Its address; empty for a Unix socket that no proxy stands at.
    pub ip: Cow<'a, str>,
    /// Whether it speaks TLS with the first of them, or with this server when there is none.
    pub secure: bool,
}

/// Finds it.
///
/// Each proxy adds the address of whom it serves at the right of `X-Forwarded-For`, so the client is the right-most one
/// that is no trusted proxy: what stands left of it is the client's own word.
pub fn client<'a>(headers: &HeaderMap, peer: Peer<'a>, trusted: &Proxies) -> Client<'a> {
    let mut client = Client {
        ip: peer.ip.into(),
        secure: peer.secure,
    };
    if !trusted.trusts(peer.ip) {
        return client;
    }
    for hop in items(headers, "x-forwarded-for") {
        let Some(address) = address(hop) else { break };
        let address = address.to_canonical().to_string();
        let ours = trusted.trusts(&address);
        client.ip = address.into();
        if !ours {
            break;
        }
    }
    if let Some(scheme) = items(headers, "x-forwarded-proto").next() {
        client.secure = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss");
    }
    client
}

/// The items of a list header, the last one first.
fn items<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    lines
        .into_iter()
        .rev()
        // What cannot be read is an item that fits nothing, and must not be passed over.
        .flat_map(|line| line.to_str().unwrap_or("?").rsplit(','))
        .map(str::trim)
}

/// Some proxies add the port.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(hop).parse() {
        return Some(address);
    }
    hop.parse::<SocketAddr>().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn plain(ip: &str) -> Peer<'_> {
        Peer { ip, secure: false }
    }

    fn ip(peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        let trusted = Proxies::parse("127.0.0.1, ::1, unix, 10.0.0.0/8").unwrap();
        client(&headers, plain(peer), &trusted).ip.into_owned()
    }

    #[test]
    fn the_client_is_the_last_one_that_is_no_proxy() {
        assert_eq!(ip("127.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(ip("", &["192.0.2.1"]), "192.0.2.1");
        // The client has sent a header of its own.
        assert_eq!(
            ip("127.0.0.1", &["1.1.1.1, 192.0.2.1, 10.0.0.7"]),
            "192.0.2.1"
        );
        assert_eq!(
            ip("127.0.0.1", &["1.1.1.1", "192.0.2.1", "10.0.0.7"]),
            "192.0.2.1"
        );
        // All are ours: a client of the inner network.
        assert_eq!(ip("127.0.0.1", &["10.0.0.9, 10.0.0.7"]), "10.0.0.9");
        assert_eq!(ip("127.0.0.1", &["192.0.2.1:5000"]), "192.0.2.1");
        assert_eq!(ip("127.0.0.1", &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(ip("127.0.0.1", &["::ffff:192.0.2.1"]), "192.0.2.1");
    }

    #[test]
    fn nobody_else_is_believed() {
        assert_eq!(ip("192.0.2.9", &["10.0.0.1"]), "192.0.2.9");
        assert_eq!(ip("127.0.0.1", &["10.0.0.1, unknown"]), "127.0.0.1");
        assert_eq!(ip("127.0.0.1", &["8.8.8.8, ?, 10.0.0.7"]), "10.0.0.7");
        assert_eq!(ip("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(ip("", &[]), "");
    }

    #[test]
    fn tls_ends_at_a_trusted_proxy() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        let trusted = Proxies::parse("127.0.0.1").unwrap();
        assert!(client(&headers, plain("127.0.0.1"), &trusted).secure);
        assert!(!client(&headers, plain("127.0.0.2"), &trusted).secure);
    }

    #[test]
    fn tls_ends_here_when_no_proxy_says_otherwise() {
        let trusted = Proxies::parse("127.0.0.1").unwrap();
        let secure = |ip, headers: &HeaderMap| {
            let peer = Peer { ip, secure: true };
            client(headers, peer, &trusted).secure
        };
        let mut headers = HeaderMap::new();
        assert!(secure("127.0.0.1", &headers));
        headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
        assert!(!secure("127.0.0.1", &headers));
        assert!(secure("127.0.0.2", &headers));
    }
}
