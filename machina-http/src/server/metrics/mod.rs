//! `/metrics`: the registry in numbers, as OpenMetrics text. Reads what others
//! count, at the moment it is asked; counts nothing but requests itself. Refuses
//! to answer anyone who may not see everything: the numbers are those of all
//! tenants.

mod registry;
mod requests;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use machina_core::Error;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::App;
use super::events::STREAMS_MAX;
use super::extract::{Caller, Parameters};
use super::failure::Failure;

pub(super) use requests::{Asked, Requests};

/// What the text is.
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn scrape(
    State(app): State<App>,
    Caller(caller): Caller,
    parameters: Parameters,
) -> Result<Response, Failure> {
    parameters.none()?;
    let collector = registry::Collector {
        measured: caller.measured()?,
        requests: Arc::clone(&app.requests),
        streams_open: STREAMS_MAX - app.streams.available_permits(),
        started_at: app.started_at,
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|_| Error::internal("the metrics cannot be written"))?;
    Ok(([(CONTENT_TYPE, MEDIA_TYPE)], text).into_response())
}
