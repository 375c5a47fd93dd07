//! The REST API: authenticates, parses, calls one method of the facade, maps the
//! result. Refuses to know anything about health, routing or permissions.

mod alerts;
mod answer;
mod calls;
mod channels;
mod config;
mod connect;
mod connection;
mod cors;
mod discover;
mod docs;
mod entry;
mod events;
mod extensions;
mod extract;
mod failure;
mod groups;
mod guard;
mod history;
mod instances;
mod listen;
mod metrics;
mod once;
mod openapi;
mod operate;
mod pages;
mod place;
mod services;
mod socket;
mod sources;
mod status;
mod store;
mod tools;
mod turned_down;
mod written;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use machina_core::{Machina, Tasks, Timestamp};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

pub use config::ServerConfig;
pub use connect::{ConnectAnswer, ConnectRequest, Snippet};
pub use extensions::Extensions;
use metrics::Requests;
use pages::Pages;

pub use listen::{check_bind, serve};
pub use openapi::document as openapi_document;

/// What every handler can reach.
#[derive(Debug, Clone)]
struct App {
    machina: Machina,
    config: Arc<ServerConfig>,
    /// Calls go on for the moment that cancelling them takes.
    calls: Tasks,
    /// One permit for each stream of events, and for each channel.
    streams: Arc<Semaphore>,
    requests: Arc<Requests>,
    started_at: Timestamp,
    connect: Option<extensions::Connect>,
    pages: Arc<Pages>,
}

/// The REST API of `machina`, to be served or nested.
pub fn router(machina: Machina, config: &ServerConfig) -> Router {
    router_with(machina, config, Extensions::new())
}

/// The same with what a program adds to it; a router such as that of `/mcp` will do.
///
/// # Panics
/// When an extension has a fallback, or a path that the API has.
pub fn router_with(machina: Machina, config: &ServerConfig, extensions: impl Into<Extensions>) -> Router {
    let Extensions { routes, public, connect } = extensions.into();
    let streams = Arc::new(Semaphore::new(events::STREAMS_MAX));
    let (config, started_at) = (Arc::new(config.clone()), machina_core::now());
    let app = App {
        machina,
        config,
        calls: Tasks::new(),
        streams,
        requests: Arc::default(),
        started_at,
        connect,
        pages: Arc::default(),
    };
    let within_time = from_fn_with_state(app.clone(), answer::within_time);
    let api = resources().layer(within_time.clone()).merge(calls());
    let private = Router::new()
        .nest("/api/v1", api)
        .merge(entries().merge(sources::resources()).layer(within_time))
        .merge(sources::calls())
        .merge(channels())
        .with_state(app.clone())
        .merge(routes)
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::method_not_allowed)
        .layer(from_fn_with_state(app.clone(), guard::known_hosts_and_origins));
    let public = public
        .method_not_allowed_fallback(answer::method_not_allowed)
        .layer(from_fn_with_state(app.clone(), guard::known_hosts));
    let private = cors::for_pages(finished(private, &app), &app.config.cors_allowed_origins);
    private.merge(finished(public, &app))
}

/// Answers of one form, whatever happens.
fn finished(router: Router, app: &App) -> Router {
    let finished = from_fn_with_state(Arc::clone(&app.requests), answer::finished);
    router.layer(CatchPanicLayer::custom(answer::panicked)).layer(finished)
}

fn resources() -> Router<App> {
    let service = get(services::get).put(services::put).patch(services::patch).delete(services::delete);
    let instance = get(instances::get).patch(instances::patch).delete(instances::delete);
    let maintenance = post(operate::begin_maintenance).delete(operate::end_maintenance);
    let instance_maintenance = post(operate::begin_instance_maintenance).delete(operate::end_instance_maintenance);
    let instance_heartbeat = post(operate::instance_heartbeat).put(operate::instance_heartbeat);
    Router::new()
        .route("/services", get(services::list).post(services::create))
        .route("/groups", get(groups::list).post(groups::create))
        .route("/groups/{group}", get(groups::get).put(groups::put).delete(groups::delete))
        .route("/groups/{group}/connect", get(connect::group))
        .route("/connect", get(connect::everything))
        .route("/discover", get(discover::discover))
        .route("/services:bulk", post(services::bulk))
        .route("/services/{service}", service)
        .route("/services/{service}/instances", get(instances::list).post(instances::create))
        .route("/services/{service}/instances/{instance}", instance)
        .route("/services/{service}/instances/{instance}/maintenance", instance_maintenance)
        .route("/services/{service}/instances/{instance}/heartbeat", instance_heartbeat)
        .route("/services/{service}/maintenance", maintenance)
        .route("/services/{service}/heartbeat", post(operate::heartbeat).put(operate::heartbeat))
        .route("/services/{service}/connect", get(connect::service))
        .route("/services/{service}/health", get(services::health))
        .route("/services/{service}/history", get(history::read))
        .route("/services/{service}/explain", get(calls::explain))
        .route("/services/{service}/tools", get(tools::of_service))
        .route("/services/{service}/tools/{tool}", get(tools::get))
        .route("/tools", get(tools::list))
        .route("/tools:find", post(tools::find))
        .route("/events", get(events::stream))
        .route("/alerts", get(alerts::list))
        .route("/status", get(status::status))
        .route("/store/image", get(store::image))
        .route("/store/changes", get(store::changes))
        .route("/store/batches", post(store::commit))
}

/// Calls and probes have limits of their own, and may take longer than other requests.
fn calls() -> Router<App> {
    Router::new()
        .route("/alerts/test", post(alerts::test))
        .route("/services/{service}/checks", post(operate::check))
        .route("/services/{service}/call", post(calls::call))
        .route("/services/{service}/tools/{tool}/call", post(calls::call_tool))
}

/// What changes, over WebSockets: without an end, and without a limit of time.
fn channels() -> Router<App> {
    Router::new().route("/ws/health", get(channels::health)).route("/ws/config", get(channels::config))
}

fn entries() -> Router<App> {
    Router::new()
        .route("/", get(entry::entry))
        .route("/livez", get(status::live))
        .route("/metrics", get(metrics::scrape))
        .route("/openapi.json", get(openapi::serve))
        .route("/docs", get(docs::entry))
        .route("/docs/", get(docs::page))
        .route("/docs/{file}", get(docs::file))
        .route("/readyz", get(status::ready))
        .route("/healthz", get(status::ready))
}
