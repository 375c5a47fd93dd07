//! The control interface of the farm, on a port of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use machina_core::Tasks;
use machina_tests::farm::{Executed, InFlight, Order, Sizes};
use tokio::net::TcpListener;

use crate::instance::Instance;
use crate::ledger::Ledger;

/// The most that one batch of orders may hold, in bytes.
const ORDERS_MAX: usize = 4 * 1024 * 1024;

/// What is controlled.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    pub(crate) instances: Arc<Vec<Arc<Instance>>>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) tasks: Tasks,
}

/// Serves the interface in the background; returns its address.
pub(crate) async fn serve(control: Control) -> std::io::Result<String> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = format!("http://{}", listener.local_addr()?);
    let tasks = control.tasks.clone();
    let router = Router::new()
        .route("/orders", post(orders))
        .route("/executions", get(executions))
        .route("/sizes", get(sizes))
        .layer(DefaultBodyLimit::max(ORDERS_MAX))
        .with_state(control);
    tasks.spawn("control", async move {
        let _ = axum::serve(listener, router).await;
    });
    Ok(address)
}

async fn orders(
    State(control): State<Control>,
    Json(orders): Json<Vec<Order>>,
) -> Result<Json<Vec<InFlight>>, (StatusCode, String)> {
    let mut in_flight = Vec::new();
    for order in orders {
        let instance = control.instances.get(order.instance).ok_or_else(|| {
            let count = control.instances.len();
            (StatusCode::NOT_FOUND, format!("there is no instance {}; there are {count}", order.instance))
        })?;
        in_flight.push(instance.obey(order.behaviour, &control.tasks).await);
    }
    Ok(Json(in_flight))
}

async fn executions(State(control): State<Control>) -> Json<HashMap<String, Executed>> {
    Json(control.ledger.executions())
}

async fn sizes(State(control): State<Control>) -> Json<HashMap<String, Sizes>> {
    Json(control.ledger.sizes())
}
