//! The settings: raw text as php.ini gives it ([`SETTINGS`], [`check_value`]), then one checked [`Config`].
//!
//! Nothing past [`Config::load`] checks a setting again. Imports nothing of this crate.

mod secrets;

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

pub use self::secrets::Secrets;

/// One setting as php.ini knows it.
#[derive(Debug)]
pub struct Setting {
    /// Its name, with the `realtime.` in front.
    pub name: &'static str,
    /// Its default, as it would stand in php.ini.
    pub default: &'static str,
    /// What values it takes; completes "must be ...".
    pub takes: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Bool,
    Address,
    MaybeAddress,
    Name,
    Proxies,
    Socket,
    Mode,
    Count(u64, u64),
    Bytes(u64, u64),
    Seconds(f64, f64),
    Origins,
    Directory,
    Path,
    Level,
    Secrets,
    Text,
}

impl Setting {
    /// Whether nobody may be shown its value.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secrets)
    }
}

const fn setting(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    takes: &'static str,
) -> Setting {
    Setting {
        name,
        default,
        takes,
        kind,
    }
}

/// The names of the log levels, quietest first.
pub const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Every setting, in the order that `php --ri realtime` shows.
pub const SETTINGS: &[Setting] = &[
    setting(
        "realtime.listen",
        "127.0.0.1:8080",
        Kind::Address,
        "host:port, [ipv6]:port or unix:/path",
    ),
    setting("realtime.autostart", "1", Kind::Bool, "0 or 1"),
    setting("realtime.allow_root", "0", Kind::Bool, "0 or 1"),
    setting(
        "realtime.threads",
        "0",
        Kind::Count(0, 64),
        "0 (one for each processor, at most 4) to 64",
    ),
    setting(
        "realtime.socket",
        "",
        Kind::Socket,
        "an absolute path of at most 100 bytes, or empty for /tmp/realtime-<uid>/hub.sock",
    ),
    setting(
        "realtime.socket_mode",
        "0600",
        Kind::Mode,
        "an octal file mode from 0600 to 0666",
    ),
    setting(
        "realtime.socket_group",
        "",
        Kind::Name,
        "the name of a group, or empty",
    ),
    setting(
        "realtime.handler",
        "",
        Kind::Path,
        "a PHP file's absolute path, or empty",
    ),
    setting(
        "realtime.fastcgi",
        "",
        Kind::MaybeAddress,
        "host:port, [ipv6]:port or unix:/path, or empty for the pool that started the server",
    ),
    setting(
        "realtime.handler_concurrency",
        "4",
        Kind::Count(1, 1024),
        "1 to 1024",
    ),
    setting(
        "realtime.handler_timeout",
        "30",
        Kind::Seconds(0.1, 3600.0),
        "0.1 to 3600 seconds",
    ),
    setting(
        "realtime.handler_queue",
        "100",
        Kind::Count(1, 100_000),
        "1 to 100000 messages",
    ),
    setting(
        "realtime.state_size",
        "4K",
        Kind::Bytes(0, 1 << 20),
        "0 to 1M",
    ),
    setting(
        "realtime.allowed_origins",
        "",
        Kind::Origins,
        "a comma-separated list of origins (https://app.example, https://*.app.example) or *",
    ),
    setting(
        "realtime.secret",
        "",
        Kind::Secrets,
        "a secret of at least 32 bytes of text, or a comma-separated list of them, of which the first signs; or empty",
    ),
    setting(
        "realtime.token_keys",
        "",
        Kind::Path,
        "the absolute path of a file with public keys (PEM or a JWK set), or empty",
    ),
    setting(
        "realtime.token_audience",
        "",
        Kind::Text,
        "a text, or empty",
    ),
    setting(
        "realtime.token_cookie",
        "realtime_token",
        Kind::Name,
        "the name of a cookie, or empty for none",
    ),
    setting(
        "realtime.max_token_ttl",
        "86400",
        Kind::Seconds(1.0, 31_536_000.0),
        "1 to 31536000 seconds",
    ),
    setting(
        "realtime.max_revocations",
        "100000",
        Kind::Count(1, 10_000_000),
        "1 to 10000000",
    ),
    setting("realtime.client_events", "0", Kind::Bool, "0 or 1"),
    setting(
        "realtime.trusted_proxies",
        "127.0.0.1, ::1, unix",
        Kind::Proxies,
        "a comma-separated list of addresses, networks (10.0.0.0/8) and the word unix",
    ),
    setting(
        "realtime.max_connections",
        "10000",
        Kind::Count(1, 10_000_000),
        "1 to 10000000",
    ),
    setting(
        "realtime.max_connections_per_address",
        "1000",
        Kind::Count(0, 10_000_000),
        "0 (no limit) to 10000000",
    ),
    setting(
        "realtime.max_connections_per_user",
        "100",
        Kind::Count(0, 10_000_000),
        "0 (no limit) to 10000000",
    ),
    setting(
        "realtime.rate_messages",
        "100",
        Kind::Count(0, 1_000_000),
        "0 (no limit) to 1000000 a second",
    ),
    setting(
        "realtime.rate_bytes",
        "256K",
        Kind::Bytes(0, 1 << 40),
        "0 (no limit) to 1024G a second",
    ),
    setting(
        "realtime.max_message_size",
        "64K",
        Kind::Bytes(128, 1 << 30),
        "128 bytes to 1G",
    ),
    setting(
        "realtime.compress_min",
        "256",
        Kind::Bytes(0, 1 << 30),
        "0 (no compression) to 1G",
    ),
    setting(
        "realtime.max_backlog",
        "1M",
        Kind::Bytes(1024, 1 << 30),
        "1K to 1G",
    ),
    setting(
        "realtime.max_subscriptions",
        "100",
        Kind::Count(1, 100_000),
        "1 to 100000",
    ),
    setting(
        "realtime.queue_bytes",
        "16M",
        Kind::Bytes(64 << 10, 1 << 32),
        "64K to 4G",
    ),
    setting(
        "realtime.ping_interval",
        "25",
        Kind::Seconds(1.0, 3600.0),
        "1 to 3600 seconds",
    ),
    setting(
        "realtime.handshake_timeout",
        "10",
        Kind::Seconds(0.1, 300.0),
        "0.1 to 300 seconds",
    ),
    setting(
        "realtime.timeout",
        "1",
        Kind::Seconds(0.01, 60.0),
        "0.01 to 60 seconds",
    ),
    setting(
        "realtime.linger",
        "10",
        Kind::Seconds(0.0, 3600.0),
        "0 to 3600 seconds",
    ),
    setting(
        "realtime.drain",
        "5",
        Kind::Seconds(0.0, 300.0),
        "0 to 300 seconds",
    ),
    setting(
        "realtime.retry",
        "2",
        Kind::Seconds(0.0, 3600.0),
        "0 to 3600 seconds",
    ),
    setting(
        "realtime.history_size",
        "100",
        Kind::Count(0, 1_000_000),
        "0 to 1000000 messages",
    ),
    setting(
        "realtime.history_ttl",
        "300",
        Kind::Seconds(0.0, 31_536_000.0),
        "0 to 31536000 seconds",
    ),
    setting(
        "realtime.history_bytes",
        "64M",
        Kind::Bytes(0, 1 << 40),
        "0 to 1024G",
    ),
    setting(
        "realtime.docroot",
        "",
        Kind::Directory,
        "a directory of static files to serve, or empty",
    ),
    setting(
        "realtime.log",
        "",
        Kind::Path,
        "a file's absolute path, or empty for PHP's error_log",
    ),
    setting(
        "realtime.log_level",
        "warn",
        Kind::Level,
        "off, error, warn, info, debug or trace",
    ),
];

/// Looks a setting up by its full name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Checks one value as php.ini or `ini_set()` gives it; the error says what is allowed.
pub fn check_value(setting: &'static Setting, value: &str) -> Result<(), InvalidSetting> {
    let value = value.trim();
    let ok = match setting.kind {
        Kind::Bool => parse_bool(value).is_some(),
        Kind::Address => ListenAddress::parse(value).is_some(),
        Kind::MaybeAddress => value.is_empty() || ListenAddress::parse(value).is_some(),
        Kind::Name => !value.contains(|c: char| c.is_whitespace() || c == ':' || c == '/'),
        Kind::Proxies => Proxies::parse(value).is_some(),
        Kind::Socket => value.is_empty() || (value.starts_with('/') && value.len() <= 100),
        Kind::Mode => parse_mode(value).is_some(),
        Kind::Count(min, max) => value.parse::<u64>().is_ok_and(|n| (min..=max).contains(&n)),
        Kind::Bytes(min, max) => parse_bytes(value).is_some_and(|n| (min..=max).contains(&n)),
        Kind::Seconds(min, max) => value.parse::<f64>().is_ok_and(|n| (min..=max).contains(&n)),
        Kind::Origins => Origins::parse(value).is_some(),
        Kind::Directory | Kind::Path => value.is_empty() || value.starts_with('/'),
        Kind::Level => LOG_LEVELS.contains(&value),
        Kind::Secrets => Secrets::parse(value).is_some(),
        Kind::Text => value.len() <= 1000 && !value.chars().any(char::is_control),
    };
    if ok {
        return Ok(());
    }
    let value = if setting.is_secret() {
        // It may be a secret all the same, only a short one; and what is said here ends in logs.
        format!("{} bytes that are not shown", value.len())
    } else {
        value.to_owned()
    };
    Err(InvalidSetting { setting, value })
}

/// A setting with a value that it does not take: the operator's to mend.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} must be {}, \"{value}\" given", setting.name, setting.takes)]
pub struct InvalidSetting {
    /// Which setting.
    pub setting: &'static Setting,
    /// What it was set to.
    pub value: String,
}

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

/// Which `Origin`s beside the server's own host may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    list: Vec<Box<str>>,
}

impl Origins {
    /// Takes a comma-separated list, or `*`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut origins = Self::default();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            if item == "*" {
                origins.any = true;
            } else {
                let (scheme, host) = item.split_once("://")?;
                if scheme.is_empty() || host.is_empty() || host.contains('/') {
                    return None;
                }
                origins.list.push(item.to_ascii_lowercase().into());
            }
        }
        Some(origins)
    }

    /// Whether any page may connect: `*` is on the list.
    pub fn any(&self) -> bool {
        self.any
    }

    /// Whether `origin` (`scheme://host[:port]`) is on the list, by name or by `*.`.
    pub fn names(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.list
            .iter()
            .any(|allowed| match allowed.split_once("://*.") {
                Some((scheme, domain)) => origin.split_once("://").is_some_and(|(s, host)| {
                    s == scheme
                        && host
                            .strip_suffix(domain)
                            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
                }),
                None => **allowed == *origin,
            })
    }
}

/// Who may say in `X-Forwarded-For` for whom it asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    unix: bool,
    networks: Vec<(IpAddr, u8)>,
}

impl Proxies {
    /// Takes a comma-separated list of addresses, networks and `unix`, which stands for any peer on a Unix socket.
    pub fn parse(text: &str) -> Option<Self> {
        let mut proxies = Self::default();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            if item == "unix" {
                proxies.unix = true;
                continue;
            }
            let (address, bits) = item
                .split_once('/')
                .map_or((item, None), |(address, bits)| (address, Some(bits)));
            let address: IpAddr = address.parse().ok()?;
            let width = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(width), |bits| bits.parse().ok())?;
            if bits > width {
                return None;
            }
            proxies.networks.push((address, bits));
        }
        Some(proxies)
    }

    /// Whether the peer with this address is one; the empty address is a Unix socket's.
    pub fn trusts(&self, address: &str) -> bool {
        if address.is_empty() {
            return self.unix;
        }
        let Ok(address) = address.parse::<IpAddr>() else {
            return false;
        };
        let prefix = |ip: IpAddr, bits: u8| match ip {
            IpAddr::V4(ip) => u32::from(ip)
                .checked_shr(32 - u32::from(bits))
                .map_or(0, u128::from),
            IpAddr::V6(ip) => u128::from(ip)
                .checked_shr(128 - u32::from(bits))
                .unwrap_or(0),
        };
        let address = address.to_canonical();
        self.networks.iter().any(|&(network, bits)| {
            network.is_ipv4() == address.is_ipv4() && prefix(network, bits) == prefix(address, bits)
        })
    }
}

/// What a client may send in a second; 0 is any number.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Messages.
    pub messages: usize,
    /// Bytes.
    pub bytes: usize,
}

/// The settings, checked. Sizes are bytes.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: ListenAddress,
    /// Whether a web SAPI starts the server by itself.
    pub autostart: bool,
    /// Whether the server that a web SAPI starts may run as root.
    pub allow_root: bool,
    /// Threads that serve clients; at least 1.
    pub threads: usize,
    /// The control socket's path.
    pub socket: PathBuf,
    /// The control socket's file mode.
    pub socket_mode: u32,
    /// The group that owns the control socket's file; the process's own when none.
    pub socket_group: Option<String>,
    /// The PHP file that PHP-FPM runs for what clients do.
    pub handler: Option<PathBuf>,
    /// Where the pool that runs the handler listens; the pool that started the server when none.
    pub fastcgi: Option<ListenAddress>,
    /// Handler requests at a time; keep it below the pool's pm.max_children.
    pub handler_concurrency: usize,
    /// How long one handler request may take.
    pub handler_timeout: Duration,
    /// Messages of one connection that may wait for the handler.
    pub handler_queue: usize,
    /// What one connection may keep in `$connection->state`.
    pub state_size: usize,
    /// What signs tokens (HS256) and proves them; without it, and without token_keys, there are no tokens.
    pub secret: Secrets,
    /// A file with public keys (RS256, ES256) that prove tokens of another issuer; read again when it changes.
    pub token_keys: Option<PathBuf>,
    /// The `aud` that a token must have; one without `aud` when none.
    pub token_audience: Option<String>,
    /// The cookie in which a token may come.
    pub token_cookie: Option<String>,
    /// The longest life of a token; one that has a longer is refused.
    pub max_token_ttl: Duration,
    /// Tokens and users that rt_revoke() remembers until their tokens have expired.
    pub max_revocations: usize,
    /// Whether subscribers of `private-` and `presence-` channels may send `client-` events to each other, past PHP.
    pub client_events: bool,
    /// Whose word on the client's address (X-Forwarded-For) is taken.
    pub trusted_proxies: Proxies,
    /// Whose pages may connect, beside those of the server's own host.
    pub allowed_origins: Origins,
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections of one address, or of one /64 network of IPv6, at a time; those of trusted_proxies are not counted.
    pub max_connections_per_address: usize,
    /// Connections of one user (a token's `sub`) at a time.
    pub max_connections_per_user: usize,
    /// Messages that one connection may send; ten seconds' worth at once, then it is read that slowly.
    pub rate_messages: usize,
    /// Bytes that one connection may send, decompressed; ten seconds' worth at once, then it is read that slowly.
    pub rate_bytes: usize,
    /// The largest message, either way.
    pub max_message_size: usize,
    /// The smallest message that is compressed for WebSocket clients that offer it.
    pub compress_min: usize,
    /// What may wait for one slow connection.
    pub max_backlog: usize,
    /// Channels that one connection may subscribe to.
    pub max_subscriptions: usize,
    /// What may wait between PHP and the server, each way.
    pub queue_bytes: usize,
    /// After how much silence a connection is pinged.
    pub ping_interval: Duration,
    /// How long a request head, a body or a handler's verdict on a connection may take.
    pub handshake_timeout: Duration,
    /// How long a PHP call may wait for the server.
    pub timeout: Duration,
    /// How long a server that a web SAPI started waits for the next PHP process when PHP has ended.
    pub linger: Duration,
    /// Over how long a server that hands over to a new one closes its clients.
    pub drain: Duration,
    /// What EventSource is told to wait before it reconnects.
    pub retry: Duration,
    /// Messages kept for each channel.
    pub history_size: usize,
    /// How long a message is kept.
    pub history_ttl: Duration,
    /// Bytes of history over all channels.
    pub history_bytes: usize,
    /// Pages and their assets, up to 16 MiB each, served beside the server's own paths; never programs.
    pub docroot: Option<PathBuf>,
    /// The log file; PHP's error_log when none, else standard error.
    pub log: Option<PathBuf>,
    /// How much is logged: one of [`LOG_LEVELS`].
    pub log_level: String,
}

impl Config {
    /// Checks everything that `get` returns; a setting for which it returns `None` has its default.
    pub fn load(get: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidSetting> {
        let raw = |name: &str| -> Result<String, InvalidSetting> {
            let setting = find(name).expect("every setting that is read is in SETTINGS");
            let value = get(name).unwrap_or_else(|| setting.default.to_owned());
            check_value(setting, &value)?;
            Ok(value.trim().to_owned())
        };
        let count = |name| Ok(raw(name)?.parse::<usize>().expect("checked"));
        let bytes = |name| Ok(parse_bytes(&raw(name)?).expect("checked") as usize);
        let seconds = |name| {
            Ok(Duration::from_secs_f64(
                raw(name)?.parse::<f64>().expect("checked"),
            ))
        };
        let path = |name| {
            Ok(Some(raw(name)?)
                .filter(|p| !p.is_empty())
                .map(PathBuf::from))
        };
        let text = |name| Ok(Some(raw(name)?).filter(|text| !text.is_empty()));
        Ok(Self {
            listen: ListenAddress::parse(&raw("realtime.listen")?).expect("checked"),
            autostart: parse_bool(&raw("realtime.autostart")?).expect("checked"),
            allow_root: parse_bool(&raw("realtime.allow_root")?).expect("checked"),
            socket_group: Some(raw("realtime.socket_group")?).filter(|group| !group.is_empty()),
            handler: path("realtime.handler")?,
            fastcgi: ListenAddress::parse(&raw("realtime.fastcgi")?),
            handler_concurrency: count("realtime.handler_concurrency")?,
            handler_timeout: seconds("realtime.handler_timeout")?,
            handler_queue: count("realtime.handler_queue")?,
            state_size: bytes("realtime.state_size")?,
            trusted_proxies: Proxies::parse(&raw("realtime.trusted_proxies")?).expect("checked"),
            secret: Secrets::parse(&raw("realtime.secret")?).expect("checked"),
            token_keys: path("realtime.token_keys")?,
            token_audience: text("realtime.token_audience")?,
            token_cookie: text("realtime.token_cookie")?,
            max_token_ttl: seconds("realtime.max_token_ttl")?,
            max_revocations: count("realtime.max_revocations")?,
            client_events: parse_bool(&raw("realtime.client_events")?).expect("checked"),
            max_connections_per_address: count("realtime.max_connections_per_address")?,
            max_connections_per_user: count("realtime.max_connections_per_user")?,
            rate_messages: count("realtime.rate_messages")?,
            rate_bytes: bytes("realtime.rate_bytes")?,
            linger: seconds("realtime.linger")?,
            drain: seconds("realtime.drain")?,
            threads: match count("realtime.threads")? {
                0 => std::thread::available_parallelism().map_or(1, |n| n.get().min(4)),
                n => n,
            },
            socket: path("realtime.socket")?.unwrap_or_else(default_socket),
            socket_mode: parse_mode(&raw("realtime.socket_mode")?).expect("checked"),
            allowed_origins: Origins::parse(&raw("realtime.allowed_origins")?).expect("checked"),
            max_connections: count("realtime.max_connections")?,
            max_message_size: bytes("realtime.max_message_size")?,
            compress_min: bytes("realtime.compress_min")?,
            max_backlog: bytes("realtime.max_backlog")?,
            max_subscriptions: count("realtime.max_subscriptions")?,
            queue_bytes: bytes("realtime.queue_bytes")?,
            ping_interval: seconds("realtime.ping_interval")?,
            handshake_timeout: seconds("realtime.handshake_timeout")?,
            timeout: seconds("realtime.timeout")?,
            retry: seconds("realtime.retry")?,
            history_size: count("realtime.history_size")?,
            history_ttl: seconds("realtime.history_ttl")?,
            history_bytes: bytes("realtime.history_bytes")?,
            docroot: path("realtime.docroot")?,
            log: path("realtime.log")?,
            log_level: raw("realtime.log_level")?,
        })
    }
}

impl Config {
    /// What one connection may send in a second.
    pub fn rate(&self) -> Rate {
        Rate {
            messages: self.rate_messages,
            bytes: self.rate_bytes,
        }
    }

    /// The control socket's file mode. Naming a group lets it in.
    pub fn control_mode(&self) -> u32 {
        match self.socket_group {
            Some(_) => self.socket_mode | 0o060,
            None => self.socket_mode,
        }
    }

    /// Whether processes of other users may use the control socket: the file's mode then says which.
    pub fn lets_others_in(&self) -> bool {
        self.control_mode() & 0o066 != 0
    }
}

/// The control socket of this user when `realtime.socket` is empty.
///
/// Not under /run/user: php-fpm's and cron's users have no such directory, and all must agree.
pub fn default_socket() -> PathBuf {
    // SAFETY: geteuid() reads a number of this process and cannot fail.
    let uid = unsafe { libc::geteuid() };
    PathBuf::from(format!("/tmp/realtime-{uid}/hub.sock"))
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Some(true),
        "" | "0" | "off" | "no" | "false" => Some(false),
        _ => None,
    }
}

fn parse_mode(text: &str) -> Option<u32> {
    let mode = u32::from_str_radix(text, 8).ok()?;
    (mode & !0o666 == 0 && mode & 0o600 == 0o600).then_some(mode)
}

/// A number of bytes with PHP's shorthand (`K`, `M`, `G`).
fn parse_bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        let config = Config::load(|_| None).unwrap();
        assert_eq!(config.listen, ListenAddress::Tcp("127.0.0.1:8080".into()));
        assert_eq!(config.max_message_size, 64 << 10);
        assert_eq!(config.history_bytes, 64 << 20);
    }

    #[test]
    fn an_error_says_what_is_allowed() {
        let error =
            Config::load(|name| (name == "realtime.max_backlog").then(|| "12".into())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "realtime.max_backlog must be 1K to 1G, \"12\" given"
        );
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = "0123456789abcdef0123456789abcde";
        let load =
            |value: String| Config::load(|name| (name == "realtime.secret").then(|| value.clone()));
        let error = load(secret.to_owned()).unwrap_err();
        assert!(error.to_string().contains("31 bytes that are not shown"));
        assert!(!format!("{error} {error:?}").contains("0123"));
        let config = load(format!("{secret}f, {secret}g")).unwrap();
        assert!(!format!("{config:?}").contains("0123"));
        assert!(load(format!("{secret}f,short")).is_err());
    }

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

    #[test]
    fn origins() {
        let origins = Origins::parse("https://a.example, https://*.b.example").unwrap();
        assert!(origins.names("https://A.example"));
        assert!(origins.names("https://x.b.example"));
        assert!(!origins.names("https://b.example"));
        assert!(!origins.names("https://xb.example"));
        assert!(!origins.names("http://a.example"));
        assert!(!origins.names("https://a.example.evil"));
        assert!(Origins::parse("a.example").is_none());
    }
}
