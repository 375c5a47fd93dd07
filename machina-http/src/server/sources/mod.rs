//! The paths that the documents which Machina was made after print, as aliases:
//! each file translates the names and shapes of one document and calls the same
//! facade as the API. Refuses to hold logic, state or rules of its own; what such
//! a path means is in `docs/reference/sources.md`.

mod catalogue;
mod design;
mod discovery;
mod platform;
mod toolbox;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post, put};
use machina_core::{Error, ErrorKind, Problem, Query, Result, Revision, Scoped, ServiceView};

use super::{App, status};

/// What is answered within the time of a request.
pub(super) fn resources() -> Router<App> {
    Router::new()
        .route("/health", get(status::live))
        .merge(of_services())
        .route("/mcp/list_tools", post(toolbox::list))
        .route("/mcp/find_tool", post(toolbox::find))
        .route("/api/v1/services/register", post(discovery::register))
        .route("/api/v1/services/discover", get(discovery::discover))
        .route("/api/v1/services/{service}/health", put(discovery::report))
        .route("/api/registry/register", post(catalogue::register))
        .route("/api/registry/servers", get(catalogue::list))
        .route("/api/registry/servers/{server}", get(catalogue::get))
}

/// What takes as long as instances take.
pub(super) fn calls() -> Router<App> {
    Router::new()
        .route("/api/services/{service}/call", post(design::call))
        .route("/mcp/call_tool", post(toolbox::call))
        .route("/api/jobs/health-check", post(catalogue::check_all))
}

fn of_services() -> Router<App> {
    Router::new()
        .route("/api/services", get(platform::list))
        .route("/api/services/{service}", get(platform::get))
        .route("/api/services/by-type/{build_type}", get(platform::by_type))
        .route("/api/services/{service}/config", get(platform::config).put(platform::configure))
        .route("/api/services/{service}/toggle", post(platform::toggle))
        .route("/api/services/{service}/health", get(design::health))
        .route("/api/health", get(platform::overall))
        .route("/api/health/status.json", get(platform::status_document))
        .route("/api/health/{service}", get(platform::health))
        .route("/api/build/priority/{level}", get(platform::by_priority))
        .route("/api/build/required", get(platform::required))
        .route("/api/build/deploy/{service}", post(platform::deploy))
}

/// How many services are read at a time.
const PAGE: u32 = 200;

/// Every service that `query` asks for, on however many pages: these documents
/// have lists without pages. There are at most `limits.services_max`.
fn every(caller: &Scoped, query: Query) -> Result<(Revision, Vec<Arc<ServiceView>>)> {
    let mut query = Query { limit: Some(PAGE), cursor: None, ..query };
    let mut services = Vec::new();
    loop {
        let page = caller.services(&query)?;
        services.extend(page.items);
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            return Ok((page.revision, services));
        }
    }
}

/// The same error, with the fields of the record under the names that the
/// document has for them.
fn renamed(error: Error, names: &[(&str, &str)]) -> Error {
    if error.kind() != ErrorKind::Invalid || error.context().problems.is_empty() {
        return error;
    }
    let rename = |problem: &Problem| {
        let field = names.iter().find_map(|(ours, theirs)| {
            let rest = problem.field.strip_prefix(ours)?;
            (rest.is_empty() || rest.starts_with(['.', '['])).then(|| format!("{theirs}{rest}"))
        });
        Problem { field: field.unwrap_or_else(|| problem.field.clone()), detail: problem.detail.clone() }
    };
    let (service, problems) = (error.context().service.clone(), error.context().problems.iter().map(rename));
    Error::invalid_fields(problems.collect()).with(|context| context.service = service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_renamed_whole() {
        let problem = |field: &str| Problem { field: field.to_owned(), detail: "is wrong".to_owned() };
        let error = Error::invalid_fields(["title", "titles", "tags[0]", "x"].map(problem).to_vec());
        let error = renamed(error, &[("title", "display_name"), ("tags", "metadata.tags")]);
        let fields: Vec<_> = error.context().problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["display_name", "titles", "metadata.tags[0]", "x"]);
        assert!(error.message().starts_with("display_name: is wrong"), "{error}");
        assert_eq!(renamed(Error::conflict("taken"), &[("a", "b")]).message(), "taken");
    }
}
