//! What a handler request says of the client whose events it carries: the CGI/1.1 parameters of its handshake.
//!
//! Imports `config`, `message` and `wire::fastcgi`.

use crate::config::Config;
use crate::message::{ConnectionInfo, Transport};
use crate::wire::events::{MARK_PARAM, Mark, SECRET_PARAM};
use crate::wire::fastcgi::Request;

/// What is the same in all requests.
pub(super) fn common(config: &Config, secret: &str) -> Request {
    let mut request = Request::default();
    let handler = config.handler.as_deref();
    let script = handler
        .map(|path| path.to_string_lossy())
        .unwrap_or_default();
    let directory = handler.and_then(|path| path.parent());
    let root = config.docroot.as_deref().or(directory);
    let name = script.rsplit('/').next().unwrap_or_default();
    request.param("GATEWAY_INTERFACE", "CGI/1.1");
    request.param("SERVER_PROTOCOL", "HTTP/1.1");
    let software = concat!("realtime/", env!("CARGO_PKG_VERSION"));
    request.param("SERVER_SOFTWARE", software);
    request.param("SCRIPT_FILENAME", &script);
    for path in ["SCRIPT_NAME", "DOCUMENT_URI"] {
        request.param_of(&[path], &["/", name]);
    }
    if let Some(root) = root {
        request.param("DOCUMENT_ROOT", &root.to_string_lossy());
    }
    // For php-cgi, which else thinks that it was called by mistake.
    request.param("REDIRECT_STATUS", "200");
    // Not a form: PHP is to leave the body alone.
    request.param("CONTENT_TYPE", "application/octet-stream");
    request.param(SECRET_PARAM, secret);
    request
}

/// What is this request's own. Without a client it only asks which handlers there are.
pub(super) fn add(
    request: &mut Request,
    mark: &Mark,
    client: Option<&ConnectionInfo>,
    body: usize,
) {
    let mut digits = [0; 2 * size_of::<Mark>()];
    let hex = hex(mark, &mut digits);
    request.param(MARK_PARAM, hex);
    request.param("CONTENT_LENGTH", &body.to_string());
    let Some(client) = client else {
        request.param("REQUEST_METHOD", "GET");
        request.param("REQUEST_URI", "/");
        request.param("QUERY_STRING", "");
        return;
    };
    let method = match client.transport {
        Transport::Http => "POST",
        _ => "GET",
    };
    request.param("REQUEST_METHOD", method);
    request.param("REQUEST_URI", client.target());
    request.param("QUERY_STRING", client.query());
    // As nginx calls a client on a Unix socket: nothing may take it for one on this machine's network.
    let ip = if client.ip.is_empty() {
        "unix:"
    } else {
        &client.ip
    };
    request.param("REMOTE_ADDR", ip);
    let host = client.headers().find(|(name, _)| *name == "host");
    let (name, port) = split_host(host.map_or("", |(_, host)| host));
    request.param("SERVER_NAME", name);
    let scheme = if client.secure { "https" } else { "http" };
    let default = if client.secure { "443" } else { "80" };
    request.param("SERVER_PORT", port.unwrap_or(default));
    request.param("REQUEST_SCHEME", scheme);
    if client.secure {
        request.param("HTTPS", "on");
    }
    headers(request, client);
}

/// Each name once, as `HTTP_NAME`. What is not a plain name is left out: `x_forwarded_for` would pass for
/// `x-forwarded-for`. So is `proxy`, which many programs would take for the environment's (httpoxy), and what describes
/// the handshake's own body.
fn headers(request: &mut Request, client: &ConnectionInfo) {
    let all: Vec<(&str, &str)> = client.headers().collect();
    for (index, (name, _)) in all.iter().enumerate() {
        let plain = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !plain
            || matches!(*name, "proxy" | "content-length" | "content-type")
            || all[..index].iter().any(|(earlier, _)| earlier == name)
        {
            continue;
        }
        let same = all[index..].iter().filter(|(other, _)| other == name);
        let separator = if *name == "cookie" { "; " } else { ", " };
        request.header(name, same.map(|(_, value)| *value), separator);
    }
}

fn hex<'a>(mark: &Mark, digits: &'a mut [u8; 2 * size_of::<Mark>()]) -> &'a str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in digits.chunks_exact_mut(2).zip(mark) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    std::str::from_utf8(digits).expect("hexadecimal digits are ASCII")
}

/// A `Host` header's name and port.
fn split_host(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => {
            (name, Some(port))
        }
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ConnectionId;

    fn has(bytes: &[u8], text: &str) -> bool {
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    }

    #[test]
    fn a_handshake_becomes_an_ordinary_request() {
        let headers: [(&str, &[u8]); 9] = [
            ("host", b"chat.example:8443"),
            ("cookie", b"a=1"),
            ("cookie", b"b=2"),
            ("x-app", b"1"),
            ("x-app", b"2"),
            ("x_app", b"forged"),
            ("proxy", b"http://evil"),
            ("content-type", b"application/json"),
            ("content-length", b"99"),
        ];
        let mut client = ConnectionInfo::new(
            ConnectionId::new(0, 1),
            0,
            Transport::WebSocket,
            "192.0.2.7",
            "/ws?room=5",
            headers.into_iter(),
        );
        client.secure = true;
        let config = Config::load(|name| {
            (name == "realtime.handler").then(|| "/app/realtime.php".to_owned())
        })
        .unwrap();
        let mut request = common(&config, "s3cret");
        add(&mut request, &[0xab; 16], Some(&client), 7);
        let bytes = request.bytes(b"");
        for expected in [
            "SCRIPT_FILENAME/app/realtime.php",
            "DOCUMENT_ROOT/app",
            "SCRIPT_NAME/realtime.php",
            "REQUEST_METHODGET",
            "REQUEST_URI/ws?room=5",
            "QUERY_STRINGroom=5",
            "REMOTE_ADDR192.0.2.7",
            "SERVER_NAMEchat.example",
            "SERVER_PORT8443",
            "HTTPSon",
            "HTTP_HOSTchat.example:8443",
            "HTTP_COOKIEa=1; b=2",
            "HTTP_X_APP1, 2",
            "CONTENT_LENGTH7",
            "REALTIME_SECRETs3cret",
            "REALTIME_MARKabababab",
        ] {
            assert!(has(&bytes, expected), "{expected}");
        }
        for forged in ["forged", "evil", "HTTP_CONTENT", "application/json"] {
            assert!(!has(&bytes, forged), "{forged}");
        }
    }

    #[test]
    fn hosts() {
        assert_eq!(split_host("a.example:80"), ("a.example", Some("80")));
        assert_eq!(split_host("[::1]"), ("[::1]", None));
        assert_eq!(split_host("[::1]:80"), ("[::1]", Some("80")));
        assert_eq!(split_host(""), ("", None));
    }
}
