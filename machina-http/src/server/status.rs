//! Whether the server lives, whether it is ready, and how the registry is: what a
//! status page needs in one answer.

use axum::Extension;
use axum::extract::State;
use machina_core::{
    Error, HealthState, Overview, Reason, Scoped, ScratchStanding, ServiceHealth, ServiceName, StoreStanding,
    Timestamp, now,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::App;
use super::extract::{Caller, Parameters};
use super::failure::Failure;
use super::listen::Stopping;

/// How many services that are not healthy are named.
const NAMED_MAX: usize = 200;

/// How everything is, at one moment.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ServerStatus)]
pub(super) struct Status {
    name: &'static str,
    version: &'static str,
    /// The worst status of the services that are in use, in one word.
    status: machina_core::Status,
    started_at: Timestamp,
    uptime_s: i64,
    /// The moment of which this is true.
    as_of: Timestamp,
    store: StoreStatus,
    #[serde(flatten)]
    overview: Overview,
    /// The services that are in use and not healthy, by name; at most 200.
    not_healthy: Vec<NotHealthy>,
}

/// Whether the registry can serve, and how what is shown stands to the store.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct StoreStatus {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(flatten)]
    standing: StoreStanding,
    /// Whether the Redis that replicas share beside the store is connected; absent
    /// where there is none. It is never needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<ScratchStanding>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct NotHealthy {
    service: ServiceName,
    status: machina_core::Status,
    state: HealthState,
    reason: Reason,
    since: Timestamp,
}

pub(super) async fn status(
    State(app): State<App>,
    Caller(caller): Caller,
    parameters: Parameters,
) -> Result<axum::Json<Status>, Failure> {
    parameters.none()?;
    let failing = app.machina.ready().await.err();
    let detail = failing.map(|error| error.message().to_owned());
    let (standing, redis) = (app.machina.standing(), app.machina.scratch_standing());
    let store = StoreStatus { ready: detail.is_none(), detail, standing, redis };
    let (as_of, overview) = (now(), caller.overview());
    Ok(axum::Json(Status {
        name: "machina",
        version: env!("CARGO_PKG_VERSION"),
        status: overview.worst(),
        started_at: app.started_at,
        uptime_s: as_of.duration_since(app.started_at).as_secs(),
        as_of,
        store,
        not_healthy: not_healthy(&caller),
        overview,
    }))
}

fn not_healthy(caller: &Scoped) -> Vec<NotHealthy> {
    use machina_core::Status::{Degraded, Unhealthy, Unknown};
    let (_, services) = caller.snapshot();
    let found = services.iter().filter(|view| matches!(view.status(), Degraded | Unhealthy | Unknown));
    let named = found.take(NAMED_MAX).map(|view| {
        let ServiceHealth { service, status, health, .. } = ServiceHealth::from(&**view);
        NotHealthy { service, status, state: health.state, reason: health.reason, since: health.since }
    });
    named.collect()
}

/// The process runs. Depends on nothing, so that a slow store gets nobody killed.
pub(super) async fn live() -> axum::Json<Value> {
    axum::Json(json!({"status": "alive"}))
}

/// The server can serve, and was not told to stop. With `?verbose`, what it serves and
/// how old that may be: one of several replicas is ready though it cannot reach the store.
pub(super) async fn ready(
    State(app): State<App>,
    parameters: Parameters,
    stopping: Option<Extension<Stopping>>,
) -> Result<axum::Json<Value>, Failure> {
    let verbose = parameters.only(&["verbose"])?.take("verbose").is_some();
    if stopping.is_some_and(|Extension(stopping)| stopping.is_announced()) {
        return Err(Error::unavailable("the server was told to stop").into());
    }
    app.machina.ready().await?;
    let standing = app.machina.standing();
    let checks = json!({
        "store": if standing.stale { "stale" } else { "ok" }, "revision": standing.revision, "as_of": standing.as_of,
        "lag_ms": standing.lag_ms, "replica": standing.replica, "services": app.machina.view().len(),
        "started_at": app.started_at, "redis": redis(app.machina.scratch_standing()),
    });
    Ok(axum::Json(if verbose { json!({"status": "ready", "checks": checks}) } else { json!({"status": "ready"}) }))
}

/// What is shared beside the store is never needed, so it makes no server unready.
fn redis(standing: Option<ScratchStanding>) -> Value {
    standing.map_or(
        Value::Null,
        |ScratchStanding { connected, since }| json!({"status": if connected { "ok" } else { "away" }, "since": since}),
    )
}
