//! Which pages may talk to the server: the Origin check (RFC 6455, section 10.2) and CORS (the Fetch standard).
//!
//! Imports `config`'s list of origins.

use hyper::header::{self, HeaderMap, HeaderValue};

use crate::config::Origins;

/// What a request's `Origin` allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No browser, or a page of the same host.
    Same,
    /// A page of another origin that is on the list: the answer must name it.
    Listed(HeaderValue),
    /// A page that is not allowed.
    Foreign,
}

/// Judges a request by its headers.
pub fn judge(headers: &HeaderMap, allowed: &Origins) -> Verdict {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Verdict::Same;
    };
    let Ok(text) = origin.to_str() else {
        return Verdict::Foreign;
    };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let same = text
        .split_once("://")
        .zip(host)
        .is_some_and(|((scheme, from), host)| same_host(scheme, from, host));
    if same {
        Verdict::Same
    } else if allowed.allows(text) {
        Verdict::Listed(origin.clone())
    } else {
        Verdict::Foreign
    }
}

/// Adds what a browser wants to see before it shows the answer to a page of another origin.
pub fn add_cors(headers: &mut HeaderMap, verdict: &Verdict) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Verdict::Listed(origin) = verdict {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
}

/// Adds the answer to a preflight request.
pub fn add_preflight(headers: &mut HeaderMap) {
    let set = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Content-Type, Last-Event-ID, Authorization",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    for (name, value) in set {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// `Origin` never has the default port, `Host` may (behind some proxies).
fn same_host(scheme: &str, from: &str, host: &str) -> bool {
    let default = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let bare = |name: &str| {
        name.strip_suffix(default)
            .unwrap_or(name)
            .to_ascii_lowercase()
    };
    bare(from) == bare(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_host_and_listed_origins() {
        let allowed = Origins::parse("https://other.example").unwrap();
        let verdict = |origin: &'static str, host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            headers.insert(header::HOST, HeaderValue::from_static(host));
            judge(&headers, &allowed)
        };
        assert_eq!(
            verdict("http://a.example:8080", "a.example:8080"),
            Verdict::Same
        );
        assert_eq!(verdict("https://A.example", "a.example:443"), Verdict::Same);
        assert_eq!(verdict("http://a.example", "b.example"), Verdict::Foreign);
        assert_eq!(
            verdict("http://a.example:81", "a.example:80"),
            Verdict::Foreign
        );
        assert_eq!(verdict("null", "a.example"), Verdict::Foreign);
        assert!(matches!(
            verdict("https://other.example", "a.example"),
            Verdict::Listed(_)
        ));
    }
}
