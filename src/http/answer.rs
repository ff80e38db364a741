//! Answers that are not rows: errors, all in one shape (`domain.md section 8`).

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A request that is not answered with rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// No token, or one that is no good: 401.
    Unauthorized(String),
    /// A good token that lacks the scope: 403.
    Forbidden(String),
    /// A parameter is wrong: 400. The message names parameter, value and rule.
    BadRequest(String),
    /// There is no such path: 404.
    NotFound(String),
    /// The path does not take this method: 405.
    MethodNotAllowed(String),
    /// The URL is too long: 414.
    UriTooLong(String),
    /// The headers are too large: 431.
    HeadersTooLarge(String),
    /// Something does not answer, and may soon: 503.
    Unavailable(&'static str),
    /// A fault of ours: 500. What it was stands in the log.
    Internal,
}

/// How long a client should wait before it asks again, in seconds.
const RETRY_AFTER: &str = "2";

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (code, error, message) = match &self {
            Refused::Unauthorized(message) => (StatusCode::UNAUTHORIZED, "Unauthorized", message.as_str()),
            Refused::Forbidden(message) => (StatusCode::FORBIDDEN, "Forbidden", message.as_str()),
            Refused::BadRequest(message) => (StatusCode::BAD_REQUEST, "Bad Request", message.as_str()),
            Refused::NotFound(message) => (StatusCode::NOT_FOUND, "Not Found", message.as_str()),
            Refused::MethodNotAllowed(message) => {
                (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed", message.as_str())
            }
            Refused::UriTooLong(message) => (StatusCode::URI_TOO_LONG, "URI Too Long", message.as_str()),
            Refused::HeadersTooLarge(message) => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Request Header Fields Too Large", message.as_str())
            }
            Refused::Unavailable(message) => (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable", *message),
            Refused::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error", "see the service's log"),
        };
        let mut response = json_response(code, json!({"error": error, "message": message}).to_string());
        let headers = response.headers_mut();
        match self {
            Refused::Unauthorized(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Refused::MethodNotAllowed(_) => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            Refused::Unavailable(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
            }
            _ => {}
        }
        response
    }
}

/// A JSON body that nobody may keep.
pub(super) fn json_response(code: StatusCode, body: impl Into<Body>) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body.into())
        .into_response()
}
