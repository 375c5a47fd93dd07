//! The OpenAPI document of everything that the server answers to. The schemas
//! are derived from the types; what the operations have in common is said once.
//! `docs/reference/openapi.json` is this document, and a test compares them.

mod alerts;
mod aliases;
mod around;
mod operation;
mod parts;
mod schemas;
mod services;
mod store;
mod tools;

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::extract::{Parameters, has_already};
use super::failure::Failure;
use super::written::header_value;

/// What the paths are sorted by.
const TAGS: [(&str, &str); 13] = [
    ("Services", "What is registered"),
    ("Instances", "Where services run"),
    ("Running services", "Health, maintenance, heartbeats, history"),
    ("Tools", "To find and to call them"),
    ("Groups", "Named selections of tools"),
    ("Connecting hosts", "How MCP hosts are configured"),
    ("Changes", "What changes, as it happens"),
    ("Alerts", "What a person is told, and whom it reaches"),
    ("Followers", "What a Machina reads and commits that follows this one"),
    ("Server", "The server itself"),
    ("MCP", "The same for MCP hosts"),
    ("MCP registry", "The same as the official registry would list it"),
    ("Aliases", "The paths of the documents that Machina was made after"),
];

/// The text of the document, and its `ETag`.
static DOCUMENT: LazyLock<(Bytes, String)> = LazyLock::new(|| {
    let text = document().to_string();
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    (text.into(), format!("\"{:x}\"", hasher.finish()))
});

/// Everything that the server answers to, as an OpenAPI 3.1 document.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for operation in operations() {
        let item = paths.entry(operation.path.clone()).or_insert_with(|| json!({}));
        let method = operation.method;
        item[method] = operation.document();
    }
    let problems = operation::PROBLEMS
        .into_iter()
        .map(|(status, what)| (format!("Problem{status}"), operation::problem(status, what)));
    let tags: Vec<Value> =
        TAGS.into_iter().map(|(name, description)| json!({"name": name, "description": description})).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Machina",
            "summary": "A registry of MCP servers",
            "description": "Every request may send `X-Request-Id`. Unknown parameters and fields are errors that name \
                them. Errors are problem documents (RFC 9457). Secrets are shown as `********`; sent back, that means \
                \"as before\".",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE")},
        },
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "responses": problems.collect::<Map<_, _>>(),
            "parameters": parts::parameters(),
            "headers": parts::headers(),
        },
    })
}

fn operations() -> impl Iterator<Item = operation::Operation> {
    let own = [services::operations(), tools::operations(), alerts::operations(), store::operations()];
    let all = own.into_iter().chain([around::operations(), aliases::operations()]);
    all.flatten()
}

pub(super) async fn serve(parameters: Parameters, headers: HeaderMap) -> Result<Response, Failure> {
    parameters.none()?;
    let (text, etag) = &*DOCUMENT;
    let mut response = if has_already(&headers, etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, "application/json")], text.clone()).into_response()
    };
    response.headers_mut().insert(ETAG, header_value(etag)?);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}
