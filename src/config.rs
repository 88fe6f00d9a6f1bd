//! The settings: raw text as php.ini gives it ([`SETTINGS`], [`check_value`]), then one checked [`Config`].
//!
//! Nothing past [`Config::load`] checks a setting again. Imports `ids` and `selector`.

mod address;
mod apps;
mod peers;
mod secrets;
mod settings;

use std::path::PathBuf;
use std::time::Duration;

pub use self::address::ListenAddress;
pub use self::apps::{App, Apps, MasterKey};
pub use self::peers::{Origins, Proxies};
pub use self::secrets::{KeySource, PrivateUrl, Secrets, without_password};
pub use self::settings::{InvalidSetting, LOG_LEVELS, SETTINGS, Setting, check_value, find};
use self::settings::{parse_bool, parse_bytes, parse_mode};
use crate::ids::Pattern;
use crate::selector::Base;

/// What a client may send in a second; 0 is any number.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Messages.
    pub messages: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Rate {
    /// Whether anybody may send what it likes.
    pub fn is_none(self) -> bool {
        self.messages == 0 && self.bytes == 0
    }
}

/// Where the history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryKind {
    /// In memory.
    Memory,
    /// In memory and in `realtime.data_dir`.
    Disk,
}

/// When what is on disk is made safe from a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before it is acknowledged.
    Always,
    /// Once a second.
    Interval,
    /// When the system does it by itself.
    Never,
}

/// The settings, checked. Sizes are bytes.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: ListenAddress,
    /// The server's certificate and its chain in PEM: clients then speak TLS (https, wss); read again when it changes.
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key in PEM, in tls_cert's file when none; read again when it changes.
    pub tls_key: Option<PathBuf>,
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
    /// Tokens and users that rt_revoke() remembers until their tokens have expired; users for good with a realtime.mercure_subscriber_key.
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
    /// Where the history is kept: in memory alone, or in data_dir as well, from where it comes back after a crash.
    pub history: HistoryKind,
    /// The directory, of this server alone, in which realtime.history = disk keeps messages and revoked tokens.
    pub data_dir: Option<PathBuf>,
    /// When what is kept on disk is made safe from a power cut: before it is acknowledged, once a second, or never.
    pub fsync: Fsync,
    /// Channels whose newest message each new subscriber gets at once, beside those whose names begin with `cache-`,
    /// `private-cache-` or `presence-cache-`.
    pub cache_channels: Vec<Pattern>,
    /// Bytes of newest messages over all of these channels.
    pub cache_bytes: usize,
    /// Members of one presence channel.
    pub presence_members: usize,
    /// What others may know of one member (a token's `info`).
    pub presence_info: usize,
    /// Bytes of members over all presence channels.
    pub presence_bytes: usize,
    /// How long a member stays without a connection: who comes back within it was never away.
    pub presence_grace: Duration,
    /// The applications that speak the Pusher protocol; without one it is not spoken.
    pub pusher_app: Apps,
    /// From it come the keys of `private-encrypted-` channels, which PHP gives to those who may read there.
    pub pusher_master_key: MasterKey,
    /// Where what happens on the channels is told, in Pusher's way.
    pub pusher_webhook: Option<PrivateUrl>,
    /// Whether Pusher clients are told how many subscribe to a channel.
    pub pusher_subscription_count: bool,
    /// Client events that one Pusher client may send in a second; 0 is any number.
    pub pusher_client_rate: usize,
    /// What proves the tokens of Mercure's publishers; without it nobody publishes by POST.
    pub mercure_publisher_key: KeySource,
    /// What proves the tokens of Mercure's subscribers.
    pub mercure_subscriber_key: KeySource,
    /// Whose names Mercure's clients use: those of its versions 0.x, or of 1.0.
    pub mercure_version: usize,
    /// The address of the Mercure hub, for which tokens of version 1.0 are (`aud`) and to which topics may be relative.
    pub mercure_url: Option<String>,
    /// Who issues Mercure tokens of version 1.0 (`iss`).
    pub mercure_issuer: Option<String>,
    /// Whether Mercure's subscribers need no token for updates that are not private.
    pub mercure_anonymous: bool,
    /// Whether Mercure's subscriptions are told as updates, and listed by its subscription API.
    pub mercure_subscriptions: bool,
    /// Different patterns (`*`, URI templates) that the subscribers of one thread may have.
    pub max_patterns: usize,
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
        let data_dir = path("realtime.data_dir")?;
        let history = match raw("realtime.history")?.as_str() {
            "disk" => HistoryKind::Disk,
            _ => HistoryKind::Memory,
        };
        if history == HistoryKind::Disk && data_dir.is_none() {
            return Err(InvalidSetting {
                setting: find("realtime.data_dir").expect("it is in SETTINGS"),
                value: String::new(),
            });
        }
        for name in ["realtime.mercure_url", "realtime.mercure_issuer"] {
            // Else whoever has the key for another hub would have it for this one.
            if raw("realtime.mercure_version")? == "1" && raw(name)?.is_empty() {
                return Err(InvalidSetting {
                    setting: find(name).expect("it is in SETTINGS"),
                    value: String::new(),
                });
            }
        }
        Ok(Self {
            listen: ListenAddress::parse(&raw("realtime.listen")?).expect("checked"),
            tls_cert: path("realtime.tls_cert")?,
            tls_key: path("realtime.tls_key")?,
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
            history,
            data_dir,
            fsync: match raw("realtime.fsync")?.as_str() {
                "always" => Fsync::Always,
                "never" => Fsync::Never,
                _ => Fsync::Interval,
            },
            cache_channels: Pattern::parse_list(&raw("realtime.cache_channels")?).expect("checked"),
            cache_bytes: bytes("realtime.cache_bytes")?,
            presence_members: count("realtime.presence_members")?,
            presence_info: bytes("realtime.presence_info")?,
            presence_bytes: bytes("realtime.presence_bytes")?,
            presence_grace: seconds("realtime.presence_grace")?,
            pusher_app: Apps::parse(&raw("realtime.pusher_app")?).expect("checked"),
            pusher_master_key: MasterKey::parse(&raw("realtime.pusher_master_key")?)
                .expect("checked"),
            pusher_webhook: text("realtime.pusher_webhook")?
                .map(|url: String| PrivateUrl(url.into())),
            pusher_subscription_count: parse_bool(&raw("realtime.pusher_subscription_count")?)
                .expect("checked"),
            pusher_client_rate: count("realtime.pusher_client_rate")?,
            mercure_publisher_key: KeySource::parse(&raw("realtime.mercure_publisher_key")?)
                .expect("checked"),
            mercure_subscriber_key: KeySource::parse(&raw("realtime.mercure_subscriber_key")?)
                .expect("checked"),
            mercure_version: count("realtime.mercure_version")?,
            mercure_url: text("realtime.mercure_url")?,
            mercure_issuer: text("realtime.mercure_issuer")?,
            mercure_anonymous: parse_bool(&raw("realtime.mercure_anonymous")?).expect("checked"),
            mercure_subscriptions: parse_bool(&raw("realtime.mercure_subscriptions")?)
                .expect("checked"),
            max_patterns: count("realtime.max_patterns")?,
            docroot: path("realtime.docroot")?,
            log: path("realtime.log")?,
            log_level: raw("realtime.log_level")?,
        })
    }
}

impl Config {
    /// Whether clients of the Mercure protocol are served.
    pub fn has_mercure(&self) -> bool {
        self.mercure_publisher_key.is_set() || self.mercure_subscriber_key.is_set()
    }

    /// What Mercure's topics may be relative to; `None` where its clients use the names of version 0.
    pub fn mercure_base(&self) -> Option<Base> {
        let url = self.mercure_url.as_deref();
        url.filter(|_| self.mercure_version == 1).and_then(Base::of)
    }

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
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mercure_1_needs_to_know_for_whom_tokens_are() {
        let load = |given: &[(&str, &str)]| {
            let of = |name: &str| given.iter().find(|(its, _)| *its == name);
            Config::load(|name| of(name).map(|(_, value)| (*value).to_owned()))
        };
        let version = ("realtime.mercure_version", "1");
        let url = ("realtime.mercure_url", "https://h/.well-known/mercure");
        let issuer = ("realtime.mercure_issuer", "us");
        for (given, missing) in [
            (vec![version], "realtime.mercure_url"),
            (vec![version, url], "realtime.mercure_issuer"),
        ] {
            assert_eq!(load(&given).unwrap_err().setting.name, missing);
        }
        let config = load(&[version, url, issuer]).unwrap();
        assert_eq!(config.mercure_base(), Base::of("https://h"));
        assert_eq!(load(&[url, issuer]).unwrap().mercure_base(), None);
    }

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
}
