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
    /// A page of another origin where any may connect: as nobody, without the cookies that its browser sends along.
    Any,
    /// A page that is not allowed.
    Foreign,
}

/// Judges a request by its headers. `secure` when it came over TLS of this server's own: then a page that did not is of
/// another origin. (Which of both the pages behind a proxy use is not known here.)
pub fn judge(headers: &HeaderMap, allowed: &Origins, secure: bool) -> Verdict {
    let otherwise = if allowed.any() {
        Verdict::Any
    } else {
        Verdict::Foreign
    };
    let Some(origin) = headers.get(header::ORIGIN) else {
        // No browser, or a page that only embeds the answer: browsers say so here, and name no origin.
        return if is_embedded_elsewhere(headers) {
            otherwise
        } else {
            Verdict::Same
        };
    };
    let Ok(text) = origin.to_str() else {
        return otherwise;
    };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let same = text
        .split_once("://")
        .zip(host)
        .is_some_and(|((scheme, from), host)| {
            (scheme == "https" || !secure) && same_host(scheme, from, host)
        });
    if same {
        Verdict::Same
    } else if allowed.names(text) {
        Verdict::Listed(origin.clone())
    } else {
        otherwise
    }
}

/// Adds what a browser wants to see before it shows the answer to a page of another origin.
pub fn add_cors(headers: &mut HeaderMap, verdict: &Verdict) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    match verdict {
        Verdict::Listed(origin) => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        Verdict::Any => {
            let any = HeaderValue::from_static("*");
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
        }
        Verdict::Same | Verdict::Foreign => {}
    }
}

/// Adds the answer to a preflight request.
pub fn add_preflight(headers: &mut HeaderMap) {
    let set = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Content-Type, Last-Event-ID, Authorization, Cache-Control",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    for (name, value) in set {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// An image, a script or a frame of another site: its page cannot read the answer, but the browser sends cookies with it.
fn is_embedded_elsewhere(headers: &HeaderMap) -> bool {
    let says = |name: &str, values: &[&str]| {
        headers
            .get(name)
            .is_some_and(|value| values.iter().any(|known| value == known))
    };
    // A link that is followed is a navigation of a whole page; a frame's is not. Browsers that do not say which are old.
    let is_page = says("sec-fetch-mode", &["navigate"])
        && (!headers.contains_key("sec-fetch-dest") || says("sec-fetch-dest", &["document"]));
    says("sec-fetch-site", &["cross-site", "same-site"]) && !is_page
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
            judge(&headers, &allowed, false)
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

    #[test]
    fn a_page_without_tls_is_no_page_of_a_server_with_it() {
        let judge = |origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            headers.insert(header::HOST, HeaderValue::from_static("a.example"));
            super::judge(&headers, &Origins::default(), true)
        };
        assert_eq!(judge("https://a.example"), Verdict::Same);
        assert_eq!(judge("http://a.example"), Verdict::Foreign);
    }

    #[test]
    fn what_another_site_embeds_is_foreign() {
        let none = Origins::default();
        let verdict = |site: &'static str, mode: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("sec-fetch-site", HeaderValue::from_static(site));
            headers.insert("sec-fetch-mode", HeaderValue::from_static(mode));
            judge(&headers, &none, false)
        };
        assert_eq!(verdict("same-origin", "no-cors"), Verdict::Same);
        assert_eq!(verdict("none", "navigate"), Verdict::Same);
        assert_eq!(verdict("cross-site", "navigate"), Verdict::Same);
        assert_eq!(verdict("cross-site", "no-cors"), Verdict::Foreign);
        assert_eq!(verdict("same-site", "no-cors"), Verdict::Foreign);
        let frame = |dest: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("sec-fetch-site", HeaderValue::from_static("cross-site"));
            headers.insert("sec-fetch-mode", HeaderValue::from_static("navigate"));
            headers.insert("sec-fetch-dest", HeaderValue::from_static(dest));
            judge(&headers, &none, false)
        };
        assert_eq!(frame("document"), Verdict::Same);
        assert_eq!(frame("iframe"), Verdict::Foreign);
        assert_eq!(frame("embed"), Verdict::Foreign);
    }
}
