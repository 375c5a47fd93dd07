//! `/docs`: the document as a page, made of files that are part of the program.
//! Refuses to load anything from elsewhere.

use std::sync::{Arc, LazyLock};

use axum::extract::OriginalUri;
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue};
use machina_core::Error;
use utoipa_swagger_ui::{Config, SwaggerFile};

use super::extract::{InPath, Parameters};
use super::failure::{Failure, Part};

/// Only what comes from this server. The page sets styles of its own making.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The document, relative to the page; and nobody is asked whether it is valid.
static CONFIG: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("../openapi.json").validator_url("none").use_base_layout()));

pub(super) async fn entry(OriginalUri(uri): OriginalUri) -> Redirect {
    Redirect::permanent(&format!("{}/", uri.path()))
}

pub(super) async fn page(parameters: Parameters, headers: HeaderMap) -> Result<Response, Failure> {
    parameters.none()?;
    answer("index.html", &headers)
}

pub(super) async fn file(InPath(name): InPath<String>, headers: HeaderMap) -> Result<Response, Failure> {
    answer(&name, &headers)
}

fn answer(name: &str, headers: &HeaderMap) -> Result<Response, Failure> {
    let found = utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG));
    let found = found.map_err(|error| Error::internal(format!("the page cannot be written: {error}")))?;
    let no_file = || Error::not_found(format!("`/docs` has no file `{}`", name.escape_debug()));
    let SwaggerFile { bytes, content_type, gzpipped, .. } = found.ok_or_else(no_file)?;
    let mut response = bytes.into_owned().into_response();
    let set = response.headers_mut();
    let media = HeaderValue::from_str(&content_type).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    set.insert(CONTENT_TYPE, media);
    set.insert(CONTENT_SECURITY_POLICY, POLICY);
    set.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    set.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if gzpipped {
        if !takes_gzip(headers) {
            let error = Error::invalid_field(ACCEPT_ENCODING.as_str(), "must allow gzip");
            return Err(Failure::of(Part::Headers)(error));
        }
        set.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        set.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    Ok(response)
}

/// Whether the client can read what is stored: everyone who says nothing can.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let Some(accepted) = headers.get(ACCEPT_ENCODING) else { return true };
    let accepted = accepted.to_str().unwrap_or_default();
    accepted.split(',').any(|coding| {
        let (coding, weight) = coding.split_once(';').unwrap_or((coding, ""));
        matches!(coding.trim(), "gzip" | "*") && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}
