//! What the app answers beside values: the page, its events, and how the app is.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{
    ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    HeaderValue, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::answer::{PATH, data, error, json};
use super::metrics::Ended;
use super::shared::Shared;
use super::view::State as Health;

/// How often the page is told how things are.
const PERIOD: Duration = Duration::from_secs(1);
/// How often a connection that nothing happens on is kept alive by a comment.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The paths that there are.
pub fn router(app: Arc<Shared>) -> Router {
    Router::new()
        .route(PATH, get(value))
        .route("/data/{*key}", get(value))
        .route("/", get(page))
        .route("/events", get(events))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(not_allowed)
        .fallback(not_found)
        .with_state(app)
}

async fn value(State(app): State<Arc<Shared>>, request: Request) -> Response {
    data(&app, &request.into_parts().0).await
}

async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "not-found", "There is no such path: ask for /data/KEY.")
}

async fn not_allowed() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "method", "Only GET and HEAD are answered here.")
}

async fn page(State(app): State<Arc<Shared>>, request: Request) -> Response {
    let Ok(nonce) = app.host.random_hex(16) else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "There is no file left to open.");
    };
    let language = request.headers().get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let (html, language) = app.page.answer(request.uri().query(), language, &nonce);
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut response = Response::new(Body::from(html));
    let headers = response.headers_mut();
    let fixed = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_LANGUAGE, language),
        (VARY, "Accept-Language"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

async fn events(State(app): State<Arc<Shared>>) -> Response {
    let Some(stream) = app.hub.listen(status(&app)) else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many listen already.");
    };
    let mut response = Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy in between is not to collect them.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response.headers_mut().extend([unbuffered]);
    response
}

/// Tells the page how things are: every second while somebody listens, and at once when they change.
pub async fn tell_status(app: Arc<Shared>) {
    loop {
        let _ = tokio::time::timeout(PERIOD, app.nodes.changed.notified()).await;
        if app.hub.heard() {
            app.hub.tell("status", status(&app));
        }
    }
}

/// How things are.
fn status(app: &Shared) -> String {
    let (metrics, section, view) = (&app.metrics, &app.settings.section, app.nodes.view());
    let [hit, miss, shared, bypass, failed] =
        [Ended::Hit, Ended::Miss, Ended::Shared, Ended::Bypass, Ended::Error].map(|at| metrics.ended(at));
    let answered = hit + miss + shared + bypass;
    let ratio = (answered > 0).then(|| (hit as f64 / answered as f64 * 1e4).round() / 1e4);
    let status = json!({
        "schema": 1,
        "ttl": section.ttl.as_secs_f64(),
        "slow": section.slow.as_secs_f64(),
        "source": section.source.kind(),
        "prefix": section.prefix,
        "read_from": section.read_from,
        "ready": view.master.is_some(),
        "requests": { "hit": hit, "miss": miss, "shared": shared, "bypass": bypass, "error": failed },
        "slow_reads": metrics.slow_reads.load(Relaxed),
        "hit_ratio": ratio,
        "cold_ms": metrics.last_ms(Ended::Miss),
        "warm_ms": metrics.last_ms(Ended::Hit),
        "nodes": view.status(),
    });
    status.to_string()
}

async fn healthz(State(app): State<Arc<Shared>>) -> Response {
    let section = &app.settings.section;
    let slow = section.slow.as_secs_f64();
    // A whole number of seconds is one in JSON, too.
    let slow = if slow.fract() == 0.0 { json!(section.slow.as_secs()) } else { json!(slow) };
    let health = json!({
        "status": "ok",
        "app": "redis-tp",
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "ttl": section.ttl.as_secs(),
        "slow": slow,
        "source": section.source.kind(),
        "prefix": section.prefix,
        "read_from": section.read_from,
    });
    json(StatusCode::OK, health.to_string().into())
}

async fn readyz(State(app): State<Arc<Shared>>) -> Response {
    let view = app.nodes.view();
    match view.master.and_then(|id| view.node(id)) {
        Some(master) => {
            let ready = json!({ "status": "ready", "master": master.node.name });
            json(StatusCode::OK, ready.to_string().into())
        }
        None => {
            let not = json!({ "status": "no-cache", "reason": view.lack() });
            json(StatusCode::SERVICE_UNAVAILABLE, not.to_string().into())
        }
    }
}

async fn metrics(State(app): State<Arc<Shared>>) -> Response {
    let view = app.nodes.view();
    let up: Vec<_> =
        view.nodes.iter().map(|seen| (seen.node.name.clone(), seen.state == Health::Up)).collect();
    let mut response = Response::new(Body::from(app.metrics.text(&up, app.host.resident())));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
