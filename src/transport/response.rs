//! Responses: JSON, files and errors, with the client's fault or ours told by the status.
//!
//! Imports `session`'s refusals.

use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::Body;
use crate::session::Denied;

/// An HTTP answer that says what was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// The code of php/docs/protocol.md.
    pub code: &'static str,
    /// In words.
    pub message: String,
    /// The channel that it is about as the request named it, since a request may name several.
    pub channel: Option<String>,
}

impl Refusal {
    /// A refusal.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            channel: None,
        }
    }

    /// The same, saying which channel it is about.
    pub fn about(self, channel: &str) -> Self {
        Self {
            channel: Some(channel.to_owned()),
            ..self
        }
    }

    /// The request is wrong.
    pub fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let status = match denied {
            Denied::Forbidden => StatusCode::FORBIDDEN,
            Denied::NoHandler | Denied::Gone => StatusCode::SERVICE_UNAVAILABLE,
            Denied::HandlerFailed => StatusCode::BAD_GATEWAY,
            Denied::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Denied::Busy => StatusCode::TOO_MANY_REQUESTS,
            Denied::TooManySubscriptions => StatusCode::BAD_REQUEST,
            Denied::TooManyMembers => StatusCode::SERVICE_UNAVAILABLE,
            Denied::TooLarge | Denied::InfoTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Denied::NotStored => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self::new(status, denied.code(), denied.to_string())
    }
}

impl From<Refusal> for Response<Body> {
    fn from(refusal: Refusal) -> Self {
        let mut object = serde_json::json!({
            "error": { "code": refusal.code, "message": refusal.message },
        });
        if let Some(channel) = &refusal.channel {
            object["error"]["channel"] = channel.clone().into();
        }
        let mut response = json(refusal.status, object.to_string().into());
        match refusal.status {
            StatusCode::UPGRADE_REQUIRED => {
                let headers = response.headers_mut();
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(
                    header::SEC_WEBSOCKET_VERSION,
                    HeaderValue::from_static("13"),
                );
            }
            StatusCode::UNAUTHORIZED => {
                let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
                let headers = response.headers_mut();
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// A JSON answer, which nobody may cache.
pub fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = full(status, "application/json", body);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An answer with `body`.
pub fn full(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Full(Some(body).filter(|body| !body.is_empty())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
