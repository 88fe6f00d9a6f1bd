//! The client libraries, and the static files of `realtime.docroot`: pages and what belongs to them, never programs.
//!
//! Imports `config`.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use percent_encoding::percent_decode_str;

use super::body::Body;
use super::response::{self, Refusal};
use crate::config::Config;

/// The largest file that is served, in bytes.
const FILE_MAX: u64 = 16 << 20;

/// What is served, by ending. Anything else (.php, .env, .sql …) is not there.
const TYPES: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("webp", "image/webp"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("avif", "image/avif"),
    ("wasm", "application/wasm"),
    ("pdf", "application/pdf"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("ico", "image/x-icon"),
    ("woff2", "font/woff2"),
    ("txt", "text/plain; charset=utf-8"),
];

/// Answers with a client library.
pub fn client(parts: &Parts, library: &'static str) -> Response<Body> {
    const TAG: &str = concat!("\"", env!("CARGO_PKG_VERSION"), "\"");
    let known = parts
        .headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tag| tag == TAG);
    let mut response = if known {
        let mut response = Response::new(Body::Full(None));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let body = Bytes::from_static(library.as_bytes());
        response::full(StatusCode::OK, "text/javascript; charset=utf-8", body)
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, HeaderValue::from_static(TAG));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // A module is fetched with CORS even where it may be shown to anybody.
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    response
}

/// Answers with a file.
pub async fn serve(config: &Config, parts: &Parts) -> Result<Response<Body>, Refusal> {
    let path = parts.uri.path().to_owned();
    let not_found = || {
        let message = "nothing here: see /ws, /raw/{channel}, /sse, /stream, /poll, /publish, \
                       /history, /presence, /app/{key} (with realtime.pusher_app), /realtime.js, /healthz";
        Refusal::new(StatusCode::NOT_FOUND, "not_found", message)
    };
    let root = config.docroot.clone().ok_or_else(not_found)?;
    let read = tokio::task::spawn_blocking(move || read(&root, &path));
    match read.await {
        Ok(Some((content_type, bytes))) => {
            let mut response = response::full(StatusCode::OK, content_type, bytes.into());
            let no_cache = HeaderValue::from_static("no-cache");
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, no_cache);
            Ok(response)
        }
        Ok(None) => Err(not_found()),
        Err(error) => {
            tracing::error!(%error, "reading a file of realtime.docroot failed");
            let message = "the file could not be read";
            Err(Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                message,
            ))
        }
    }
}

fn read(root: &Path, path: &str) -> Option<(&'static str, Vec<u8>)> {
    let path = percent_decode_str(path).decode_utf8().ok()?;
    let relative: PathBuf = path.split('/').filter(|part| !part.is_empty()).collect();
    // Also without this check no link or `..` leads out: see below. It keeps .git and .env private.
    if path.split('/').any(|part| part.starts_with('.')) || path.contains('\0') {
        return None;
    }
    let root = root.canonicalize().ok()?;
    let mut file = root.join(relative).canonicalize().ok()?;
    if file.is_dir() {
        file = file.join("index.html").canonicalize().ok()?;
    }
    if !file.starts_with(&root) {
        return None;
    }
    let ending = file.extension()?.to_str()?;
    let content_type = TYPES.iter().find(|(known, _)| *known == ending)?.1;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > FILE_MAX {
        return None;
    }
    Some((content_type, std::fs::read(file).ok()?))
}
