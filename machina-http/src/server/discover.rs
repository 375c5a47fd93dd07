//! `/discover`: where services can be reached right now, for programs that talk to
//! them themselves.

use axum::extract::OriginalUri;
use axum::response::Response;
use http::HeaderMap;
use machina_core::Query;

use super::extract::{Caller, Parameters};
use super::failure::{Failure, Part};
use super::written::paged;

pub(super) async fn discover(
    Caller(caller): Caller,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let wrong = Failure::of(Part::Parameters);
    let pairs = parameters.pairs().map(|(name, value)| (if name == "company" { "tenant" } else { name }, value));
    let query = Query::from_pairs(pairs).map_err(&wrong)?;
    paged(&uri, &parameters, &headers, &caller.discover(&query).map_err(&wrong)?)
}
