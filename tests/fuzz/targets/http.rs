//! A request's head: its query and cursors, who it says it comes from, its token, its origin and its handshake.
#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use realtime::config::{Origins, Proxies};
use realtime::ids::{CHANNEL_MAX, Channel, ConnectionId, Pattern, Position};
use realtime::message::{ConnectionInfo, Transport};
use realtime::transport::fuzzing;
use realtime_fuzz::within;

static PROXIES: LazyLock<Proxies> =
    LazyLock::new(|| Proxies::parse("10.0.0.0/8, 2001:db8::/32, unix").expect("proxies"));
static ORIGINS: LazyLock<Origins> =
    LazyLock::new(|| Origins::parse("https://a.example, https://*.b.example").expect("origins"));

fuzz_target!(|input: &[u8]| {
    // The target, then a header a line.
    let mut lines = input.split(|byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let headers = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    });
    let Some(parts) = fuzzing::parts(target, headers) else {
        return;
    };
    let room = 32 * input.len() + 16_384;
    if let Ok(asked) = within(room, || fuzzing::query(&parts)) {
        assert!(asked.channels.len() <= 1000);
        for (index, channel) in asked.channels.iter().enumerate() {
            assert!((1..=CHANNEL_MAX).contains(&channel.as_str().len()));
            assert!(!asked.channels[..index].contains(channel));
        }
        assert!(asked.timeout.is_none_or(|timeout| timeout.as_secs() <= 60));
        if let Some(since) = asked.since {
            names(&since);
        }
    }
    for peer in [
        "10.1.2.3",
        "::ffff:10.1.2.3",
        "192.0.2.1",
        "2001:db8::7",
        "",
    ] {
        let (ip, secure) = within(room, || fuzzing::client(&parts, peer, &PROXIES));
        if !PROXIES.trusts(peer) {
            assert!(ip == peer && !secure, "a stranger is believed");
        }
        assert!(ip == peer || ip.parse::<IpAddr>().is_ok());
    }
    for any in [true, false] {
        if let Ok(answer) = within(room, || fuzzing::handshake(&parts, any)) {
            assert_eq!(answer["sec-websocket-accept"].len(), 28);
            if let Some(protocol) = answer.get("sec-websocket-protocol") {
                assert!(
                    !protocol.as_bytes().starts_with(b"realtime.token."),
                    "a token is told"
                );
            }
        }
    }
    for secure in [true, false] {
        trusted(&parts, secure);
    }
    within(room, || fuzzing::token(&parts, "realtime_token"));
    head(&parts);
});

/// A page with its user's cookies is one of this host, or on the list; and came by TLS where that is spoken.
fn trusted(parts: &hyper::http::request::Parts, secure: bool) {
    let Some(origin) = parts.headers.get("origin") else {
        return;
    };
    if !fuzzing::is_trusted(parts, &ORIGINS, secure) {
        return;
    }
    let origin = origin
        .to_str()
        .expect("a trusted origin is text")
        .to_lowercase();
    let host = parts
        .headers
        .get("host")
        .and_then(|host| host.to_str().ok());
    let bare = |name: &str| name.replace(":80", "").replace(":443", "");
    let same = host.is_some_and(|host| bare(&origin).ends_with(&bare(&host.to_lowercase())));
    let listed = origin == "https://a.example" || origin.ends_with(".b.example");
    assert!(same || listed, "{origin} is trusted at {host:?}");
    assert!(
        !secure || origin.starts_with("https://"),
        "{origin} is trusted by TLS"
    );
}

/// All that a client may send as the name of something.
fn names(text: &str) {
    if let Ok(position) = text.parse::<Position>() {
        assert_eq!(position.text().parse(), Ok(position));
    }
    if let Ok(id) = text.parse::<ConnectionId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.socket_id().parse(), Ok(id));
        assert!(text.contains('.') || id.to_string() == text);
    }
    let pattern = Pattern::parse(text);
    if let Ok(channel) = Channel::parse(text) {
        let pattern = pattern.expect("a name is a pattern");
        assert!(pattern.matches(channel.as_str()));
    } else if let Ok(pattern) = pattern {
        let some = text.replace('*', "xyz");
        let none = text.replace('*', "");
        assert!(pattern.matches(&some) && pattern.matches(&none));
        assert!(!pattern.matches(&format!("{none}!")) || text.ends_with('*'));
    }
}

/// What PHP sees of the request is what was sent.
fn head(parts: &hyper::http::request::Parts) {
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let headers = || {
        parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
    };
    let id = ConnectionId::from_bits(1);
    let info = ConnectionInfo::new(id, 1, Transport::Sse, "192.0.2.1", target, headers());
    assert_eq!(info.target(), target);
    let read: Vec<_> = info.headers().collect();
    assert_eq!(read.len(), parts.headers.len());
    for ((name, value), (sent, bytes)) in read.iter().zip(headers()) {
        assert_eq!(*name, sent);
        assert_eq!(*value, String::from_utf8_lossy(bytes));
    }
    let again = ConnectionInfo::from_head(id, Transport::Sse, "192.0.2.1", info.head());
    assert!(again.headers().eq(info.headers()));
    assert_eq!((again.path(), again.query()), (info.path(), info.query()));
}
