//! What operators ask: `/metrics`, `/health/live` and `/health/ready` (`domain.md section 9`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{Limits, server};
use crate::telemetry::Health;

/// What the admin server shows.
pub struct AdminOptions {
    /// Renders all metrics in Prometheus' text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// How the parts are.
    pub health: Health,
}

/// How long answers may take once it is to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves until `stop` turns true.
pub async fn serve_admin(
    listener: TcpListener,
    options: AdminOptions,
    stop: watch::Receiver<bool>,
) -> Result<(), std::io::Error> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .with_state(Arc::new(options));
    server::serve(listener, router, stop, Limits::default(), FAREWELL).await
}

async fn metrics(State(options): State<Arc<AdminOptions>>) -> Response {
    let text = (options.metrics)();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Whether another start would not help; parts that are away are shown, and do not decide it.
async fn live(State(options): State<Arc<AdminOptions>>) -> Response {
    answer(options.health.is_live(), named(options.health.parts()))
}

/// Whether every part is well.
async fn ready(State(options): State<Arc<AdminOptions>>) -> Response {
    answer(options.health.is_ready(), named(options.health.parts()))
}

/// Each part, and what is wrong with it.
fn named(parts: BTreeMap<&'static str, Option<String>>) -> Map<String, Value> {
    let state = |fault: Option<String>| match fault {
        None => json!({"status": "ok"}),
        Some(why) => json!({"status": "fault", "message": why}),
    };
    parts.into_iter().map(|(part, fault)| (part.to_owned(), state(fault))).collect()
}

fn answer(well: bool, parts: Map<String, Value>) -> Response {
    let (code, status) = if well { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "fault") };
    let body = json!({"status": status, "parts": parts}).to_string();
    (code, [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}
