//! `GET /inclusive-usage-balances`: token, parameters, rows, page.

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics::histogram;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tracing::{error, warn};

use super::answer::{Refused, json_response};
use super::auth::Keys;
use super::grammar::{self, Query};
use super::rows::Rows;
use super::{Limits, body, docs, openapi, rows, server};
use crate::domain::Calendar;
use crate::store::{Answer, Store, StoreError};
use crate::telemetry::Health;
use crate::telemetry::metrics::HTTP_DURATION;

/// The path of the query.
pub(super) const PATH: &str = "/inclusive-usage-balances";
/// The time up to which all that Kafka held is in the answer.
const APPLIED: HeaderName = HeaderName::from_static("headroom-applied");

/// What the query answers from.
pub struct QueryOptions {
    /// Where balances are.
    pub store: Arc<dyn Store>,
    /// Where local days begin.
    pub calendar: Calendar,
    /// What tokens are held against.
    pub keys: Keys,
    /// Where it is told how the keys are.
    pub health: Health,
    /// What a client may take.
    pub limits: Limits,
    /// How long the store may take.
    pub patience: Duration,
}

/// What the answers share.
pub(super) struct Shared {
    options: QueryOptions,
    /// Places for requests that are being answered.
    room: Arc<Semaphore>,
}

/// How long answers may take once it is to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves until `stop` turns true.
pub async fn serve_query(
    listener: TcpListener,
    options: QueryOptions,
    stop: watch::Receiver<bool>,
) -> Result<(), std::io::Error> {
    let limits = options.limits;
    let keeping = options.keys.clone().keep(options.health.clone());
    tokio::select! {
        served = server::serve(listener, router(options), stop, limits, FAREWELL) => served,
        () = keeping => Ok(()),
    }
}

/// The routes of the query's server.
pub(super) fn router(options: QueryOptions) -> Router {
    let limits = options.limits;
    let no_method = || async { Refused::MethodNotAllowed("this path takes GET and HEAD".to_owned()) };
    Router::new()
        .route(PATH, get(balances).fallback(no_method))
        .route(openapi::PATH, get(openapi::document).fallback(no_method))
        .route(docs::PATH, get(docs::page).fallback(no_method))
        .fallback(|uri: Uri| async move {
            let path: String = uri.path().chars().take(100).collect();
            Refused::NotFound(format!("{path}: there is nothing here; try {PATH} or {}", docs::PATH))
        })
        .layer(middleware::from_fn(move |request, next| limit_head(limits, request, next)))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| Refused::Internal.into_response()))
        .layer(middleware::from_fn(measure))
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn(accept_identity))
        .with_state(Arc::new(Shared { options, room: Arc::new(Semaphore::new(limits.answers)) }))
}

/// Refuses a head that is too large; of one that is far too large the server itself says so.
async fn limit_head(limits: Limits, request: Request, next: Next) -> Response {
    let (length, most) = (request.uri().path_and_query().map_or(0, |text| text.as_str().len()), limits.url_bytes);
    if length > most {
        return Refused::UriTooLong(format!("the URL has {length} bytes; {most} are the most")).into_response();
    }
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    let (length, most) = (headers.sum::<usize>() + length, limits.head_bytes);
    if length > most {
        let line = format!("the URL and the headers have {length} bytes; {most} are the most");
        return Refused::HeadersTooLarge(line).into_response();
    }
    next.run(request).await
}

/// Leaves only what is said of compression in `Accept-Encoding`. Whoever wants no answer as it is, nor any that there is,
/// gets it as it is: RFC 9110 allows that, and the query has no 406 (`domain.md section 8`).
async fn accept_identity(mut request: Request, next: Next) -> Response {
    let headers = request.headers_mut();
    let given = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let codings = given.flat_map(|value| value.split(',')).map(str::trim).filter(|coding| {
        let name = coding.split(';').next().unwrap_or_default().trim();
        name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("br")
    });
    let codings = codings.collect::<Vec<&str>>().join(", ");
    match HeaderValue::from_str(&codings) {
        Ok(value) if !codings.is_empty() => drop(headers.insert(header::ACCEPT_ENCODING, value)),
        _ => drop(headers.remove(header::ACCEPT_ENCODING)),
    }
    next.run(request).await
}

/// Records how long each answer took, by a route that does not depend on what was asked.
async fn measure(request: Request, next: Next) -> Response {
    let began = Clock::now();
    let route =
        [PATH, openapi::PATH, docs::PATH].into_iter().find(|path| *path == request.uri().path()).unwrap_or("other");
    let method = match request.method().as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        _ => "other",
    };
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    histogram!(HTTP_DURATION, "route" => route, "method" => method, "status" => status).record(began.elapsed());
    response
}

async fn balances(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Result<Response, Refused> {
    let patience = shared.options.limits.answer_time;
    match tokio::time::timeout(patience, answer(shared, uri, headers)).await {
        Ok(answered) => answered,
        Err(_) => {
            warn!("query: not answered within {patience:?}");
            Err(Refused::Unavailable("the answer takes too long now; ask again"))
        }
    }
}

async fn answer(shared: Arc<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, Refused> {
    let mut tokens = headers.get_all(header::AUTHORIZATION).iter();
    let token = tokens.next();
    if tokens.next().is_some() {
        return Err(Refused::Unauthorized("Authorization: is given twice".to_owned()));
    }
    let grant = shared.options.keys.judge(token.map(HeaderValue::as_bytes)).await?;
    let query = grammar::read(uri.query().unwrap_or_default()).map_err(Refused::BadRequest)?;
    // A slow store gives many quick refusals, not a pile of requests that wait.
    let place = shared.room.clone().try_acquire_owned();
    let place = place.map_err(|_| Refused::Unavailable("too many requests are being answered now; ask again"))?;
    let question = rows::question(&query, &grant, &shared.options.calendar, wants_count(&headers));
    let reading = tokio::time::timeout(shared.options.patience, shared.options.store.read(&question));
    let read = reading.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the query takes too long".to_owned())));
    let answer = read.map_err(|error| match error {
        StoreError::Unavailable(line) => {
            warn!("query: {line}");
            Refused::Unavailable("the store does not answer; ask again")
        }
        StoreError::Failed(line) => {
            error!("query: {line}");
            Refused::Internal
        }
    })?;
    page(&shared.options, query, answer, place)
}

/// Whether the `Prefer` headers ask for the number of all rows. Of a preference given twice the first holds (RFC 7240).
fn wants_count(headers: &HeaderMap) -> bool {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(members).map(|preference| {
        // What follows a semicolon are parameters of a preference, not further ones.
        let preference = preference.split(';').next().unwrap_or_default();
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        (name.trim(), value.trim().trim_matches('"'))
    });
    let count = preferences.find(|(name, _)| name.eq_ignore_ascii_case("count"));
    count.is_some_and(|(_, value)| value.eq_ignore_ascii_case("exact"))
}

/// The members of a header's list: a comma within quotes parts none (RFC 9110, 5.6).
fn members(list: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    list.split(move |character| {
        let parts = character == ',' && !quoted;
        quoted ^= character == '"' && !escaped;
        escaped = quoted && character == '\\' && !escaped;
        parts
    })
}

fn page(
    options: &QueryOptions,
    query: Query,
    answer: Answer,
    place: OwnedSemaphorePermit,
) -> Result<Response, Refused> {
    let link = links(&query, answer.further);
    let rows = Rows::new(query, options.calendar.clone(), answer.rows, answer.accounts);
    let mut response = json_response(StatusCode::OK, body::of(rows, place)?);
    let headers = response.headers_mut();
    if let Ok(link) = HeaderValue::from_str(&link) {
        headers.insert(header::LINK, link);
    }
    if let Some(value) = answer.applied_at.and_then(|at| HeaderValue::from_str(&at.to_string()).ok()) {
        headers.insert(APPLIED, value);
    }
    if let Some(total) = answer.total {
        headers.insert("x-total-count", HeaderValue::from(total));
        headers.insert("preference-applied", HeaderValue::from_static("count=exact"));
    }
    Ok(response)
}

/// `first` always, `prev` from page 2, `next` when a further row exists; all other parameters are kept (RFC 8288).
fn links(query: &Query, further: bool) -> String {
    let link = |page: i32, relation: &str| format!("<{PATH}?page={page}&{}>; rel=\"{relation}\"", query.others);
    let mut links = vec![link(1, "first")];
    if query.page > 1 {
        links.push(link(query.page - 1, "prev"));
    }
    if further {
        links.push(link(query.page.saturating_add(1), "next"));
    }
    links.join(", ")
}
