//! Every setting as php.ini knows it, with its default, and the check of one value.
//!
//! Read by `Config::load` and, for php.ini's own table, by `php`. Imports the values' own parsers.

use super::secrets::without_password;
use super::{Apps, KeySource, ListenAddress, MasterKey, Origins, Proxies, Secrets};
use crate::ids::Pattern;

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
    Patterns,
    Socket,
    Mode,
    Count(u64, u64),
    Bytes(u64, u64),
    Seconds(f64, f64),
    Origins,
    Directory,
    Path,
    OneOf(&'static [&'static str]),
    Secrets,
    Keys,
    Apps,
    MasterKey,
    Url,
    Text,
}

impl Setting {
    /// What may be shown in the place of this value of it; `None` when it is nothing that must not be.
    pub fn shown(&self, value: &str) -> Option<String> {
        let shown = match self.kind {
            _ if value.is_empty() => return None,
            _ if self.is_secret() => NOT_SHOWN.to_owned(),
            Kind::Url => without_password(value),
            _ => return None,
        };
        (shown != value).then_some(shown)
    }

    /// Whether there are values of it that nobody may be shown.
    pub fn has_secrets(&self) -> bool {
        self.is_secret() || matches!(self.kind, Kind::Url)
    }

    fn is_secret(&self) -> bool {
        matches!(
            self.kind,
            Kind::Secrets | Kind::Keys | Kind::Apps | Kind::MasterKey
        )
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

/// What stands in the place of a secret.
const NOT_SHOWN: &str = "set, and not shown";

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
    setting(
        "realtime.tls_cert",
        "",
        Kind::Path,
        "a PEM file's absolute path, or empty for no TLS",
    ),
    setting(
        "realtime.tls_key",
        "",
        Kind::Path,
        "a PEM file's absolute path, or empty for that of realtime.tls_cert",
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
        "realtime.history",
        "memory",
        Kind::OneOf(&["memory", "disk"]),
        "memory or disk",
    ),
    setting(
        "realtime.data_dir",
        "",
        Kind::Path,
        "the absolute path of a directory, which realtime.history = disk needs, or empty",
    ),
    setting(
        "realtime.fsync",
        "interval",
        Kind::OneOf(&["always", "interval", "never"]),
        "always, interval or never",
    ),
    setting(
        "realtime.mercure_publisher_key",
        "",
        Kind::Keys,
        "a secret of at least 32 bytes of text that does not begin with /, a comma-separated list of them, or the absolute path of a file with public keys (PEM or a JWK set); or empty",
    ),
    setting(
        "realtime.mercure_subscriber_key",
        "",
        Kind::Keys,
        "a secret of at least 32 bytes of text that does not begin with /, a comma-separated list of them, or the absolute path of a file with public keys (PEM or a JWK set); or empty",
    ),
    setting("realtime.mercure_version", "0", Kind::Count(0, 1), "0 or 1"),
    setting(
        "realtime.mercure_url",
        "",
        Kind::Url,
        "a URL that begins with http:// or https://, which realtime.mercure_version = 1 needs, or empty",
    ),
    setting(
        "realtime.mercure_issuer",
        "",
        Kind::Text,
        "a text, which realtime.mercure_version = 1 needs, or empty",
    ),
    setting("realtime.mercure_anonymous", "0", Kind::Bool, "0 or 1"),
    setting("realtime.mercure_subscriptions", "0", Kind::Bool, "0 or 1"),
    setting(
        "realtime.max_patterns",
        "1000",
        Kind::Count(0, 1_000_000),
        "0 to 1000000",
    ),
    setting(
        "realtime.cache_channels",
        "",
        Kind::Patterns,
        "patterns of channel names, separated by blanks, in which * stands for anything; or empty",
    ),
    setting(
        "realtime.cache_bytes",
        "16M",
        Kind::Bytes(0, 1 << 40),
        "0 to 1024G",
    ),
    setting(
        "realtime.presence_members",
        "1000",
        Kind::Count(1, 1_000_000),
        "1 to 1000000",
    ),
    setting(
        "realtime.presence_info",
        "1K",
        Kind::Bytes(0, 64 << 10),
        "0 to 64K",
    ),
    setting(
        "realtime.presence_bytes",
        "16M",
        Kind::Bytes(4096, 1 << 40),
        "4K to 1024G",
    ),
    setting(
        "realtime.presence_grace",
        "5",
        Kind::Seconds(0.0, 3600.0),
        "0 to 3600 seconds",
    ),
    setting(
        "realtime.pusher_app",
        "",
        Kind::Apps,
        "id:key:secret with a secret of at least 16 bytes, or a comma-separated list of them, or empty",
    ),
    setting(
        "realtime.pusher_master_key",
        "",
        Kind::MasterKey,
        "32 bytes in base64, or empty",
    ),
    setting(
        "realtime.pusher_webhook",
        "",
        Kind::Url,
        "a URL that begins with http:// or https://, or empty",
    ),
    setting(
        "realtime.pusher_subscription_count",
        "0",
        Kind::Bool,
        "0 or 1",
    ),
    setting(
        "realtime.pusher_client_rate",
        "10",
        Kind::Count(0, 1_000_000),
        "0 (no limit) to 1000000 a second",
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
        Kind::OneOf(&LOG_LEVELS),
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
        Kind::Patterns => Pattern::parse_list(value).is_ok(),
        Kind::Socket => value.is_empty() || (value.starts_with('/') && value.len() <= 100),
        Kind::Mode => parse_mode(value).is_some(),
        Kind::Count(min, max) => value.parse::<u64>().is_ok_and(|n| (min..=max).contains(&n)),
        Kind::Bytes(min, max) => parse_bytes(value).is_some_and(|n| (min..=max).contains(&n)),
        Kind::Seconds(min, max) => value.parse::<f64>().is_ok_and(|n| (min..=max).contains(&n)),
        Kind::Origins => Origins::parse(value).is_some(),
        Kind::Directory | Kind::Path => value.is_empty() || value.starts_with('/'),
        Kind::OneOf(words) => words.contains(&value),
        Kind::Secrets => Secrets::parse(value).is_some(),
        Kind::Keys => KeySource::parse(value).is_some(),
        Kind::Apps => Apps::parse(value).is_some(),
        Kind::MasterKey => MasterKey::parse(value).is_some(),
        Kind::Url => value.is_empty() || is_url(value),
        Kind::Text => value.len() <= 1000 && !value.chars().any(char::is_control),
    };
    if ok {
        return Ok(());
    }
    let value = if setting.is_secret() {
        // It may be a secret all the same, only a short one; and what is said here ends in logs.
        format!("{} bytes that are not shown", value.len())
    } else {
        setting.shown(value).unwrap_or_else(|| value.to_owned())
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

/// Whether `text` is the address of an HTTP server that can be called.
fn is_url(text: &str) -> bool {
    let parsed = text.parse::<hyper::Uri>();
    parsed
        .is_ok_and(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some())
}

pub fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Some(true),
        "" | "0" | "off" | "no" | "false" => Some(false),
        _ => None,
    }
}

pub fn parse_mode(text: &str) -> Option<u32> {
    let mode = u32::from_str_radix(text, 8).ok()?;
    (mode & !0o666 == 0 && mode & 0o600 == 0o600).then_some(mode)
}

/// A number of bytes with PHP's shorthand (`K`, `M`, `G`).
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
