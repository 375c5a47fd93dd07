//! The REST API: authenticates, parses, calls one method of the facade, maps the
//! result. Refuses to know anything about health, routing or permissions.

mod answer;
mod calls;
mod config;
mod entry;
mod events;
mod extract;
mod failure;
mod guard;
mod history;
mod instances;
mod listen;
mod operate;
mod services;
mod status;
mod tools;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use machina_core::{Machina, Tasks};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

pub use config::ServerConfig;
pub use listen::{check_bind, serve};

/// What every handler can reach.
#[derive(Debug, Clone)]
struct App {
    machina: Machina,
    config: Arc<ServerConfig>,
    /// Calls go on for the moment that cancelling them takes.
    calls: Tasks,
    /// One permit for each stream of events.
    streams: Arc<Semaphore>,
}

/// The REST API of `machina`, to be served or nested.
pub fn router(machina: Machina, config: &ServerConfig) -> Router {
    router_with(machina, config, Router::new())
}

/// The same with further routes, such as `/mcp`, that share its protection
/// against foreign hosts and origins, its request ids and its answer to panics.
/// Limits on bodies and on time are theirs to set.
///
/// # Panics
/// When `extra` has a fallback, or a path that the API has.
pub fn router_with(machina: Machina, config: &ServerConfig, extra: Router) -> Router {
    let streams = Arc::new(Semaphore::new(events::STREAMS_MAX));
    let app = App { machina, config: Arc::new(config.clone()), calls: Tasks::new(), streams };
    let within_time = from_fn_with_state(app.clone(), answer::within_time);
    let api = resources().layer(within_time.clone()).merge(calls());
    Router::new()
        .nest("/api/v1", api)
        .merge(entries().layer(within_time))
        .with_state(app.clone())
        .merge(extra)
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::method_not_allowed)
        .layer(from_fn_with_state(app, guard::known_hosts_only))
        .layer(CatchPanicLayer::custom(answer::panicked))
        .layer(from_fn(answer::finished))
}

fn resources() -> Router<App> {
    let service = get(services::get).put(services::put).patch(services::patch).delete(services::delete);
    let instance = get(instances::get).patch(instances::patch).delete(instances::delete);
    let maintenance = post(operate::begin_maintenance).delete(operate::end_maintenance);
    Router::new()
        .route("/services", get(services::list).post(services::create))
        .route("/services:bulk", post(services::bulk))
        .route("/services/{service}", service)
        .route("/services/{service}/instances", get(instances::list).post(instances::create))
        .route("/services/{service}/instances/{instance}", instance)
        .route("/services/{service}/maintenance", maintenance)
        .route("/services/{service}/health", get(services::health))
        .route("/services/{service}/history", get(history::read))
        .route("/services/{service}/explain", get(calls::explain))
        .route("/services/{service}/tools", get(tools::of_service))
        .route("/services/{service}/tools/{tool}", get(tools::get))
        .route("/tools", get(tools::list))
        .route("/tools:find", post(tools::find))
        .route("/events", get(events::stream))
        .route("/status", get(status::overview))
}

/// Calls and probes have limits of their own, and may take longer than other requests.
fn calls() -> Router<App> {
    Router::new()
        .route("/services/{service}/checks", post(operate::check))
        .route("/services/{service}/call", post(calls::call))
        .route("/services/{service}/tools/{tool}/call", post(calls::call_tool))
}

fn entries() -> Router<App> {
    Router::new()
        .route("/", get(entry::entry))
        .route("/livez", get(status::live))
        .route("/readyz", get(status::ready))
        .route("/healthz", get(status::ready))
}
