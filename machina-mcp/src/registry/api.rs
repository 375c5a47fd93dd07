//! The API as a service that any HTTP server can mount at `/v0.1` and `/v0`.
//! Reads only: every other method is refused.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, VARY, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use machina_core::{Result, Scoped};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::config::RegistryConfig;
use super::failure::Failure;
use super::listing::Listing;
use super::names::Names;
use super::parameters::Parameters;
use super::tombstones::Tombstones;

const METHODS: &str = "GET, HEAD, OPTIONS";

type Admit = dyn Fn(&Parts) -> Result<Scoped> + Send + Sync;

/// The read side of the registry API: a service to mount at `/v0.1` and `/v0`,
/// with or without these in the path that it sees. Cheap to clone; every clone is
/// the same API.
///
/// It answers to web pages of every origin that its configuration admits, which
/// hosts rely on: whatever protects the rest of a server against foreign pages
/// must let them pass here.
#[derive(Clone)]
pub struct RegistryApi {
    inner: Arc<Inner>,
}

struct Inner {
    admit: Box<Admit>,
    config: RegistryConfig,
    tombstones: Tombstones,
}

/// The API for whom `admit` lets in, each of whom sees what the handle that it
/// returns may see. An error of `admit` is the answer.
pub fn registry_api(
    admit: impl Fn(&Parts) -> Result<Scoped> + Send + Sync + 'static,
    config: RegistryConfig,
) -> RegistryApi {
    RegistryApi { inner: Arc::new(Inner { admit: Box::new(admit), config, tombstones: Tombstones::default() }) }
}

impl fmt::Debug for RegistryApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryApi").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl<B> tower_service::Service<Request<B>> for RegistryApi {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        let (parts, _) = request.into_parts();
        Box::pin(async move { Ok(inner.serve(&parts).await) })
    }
}

impl Inner {
    async fn serve(&self, parts: &Parts) -> Response<Full<Bytes>> {
        let mut response = match parts.method {
            Method::OPTIONS => empty(StatusCode::NO_CONTENT),
            Method::GET | Method::HEAD => self.read(parts).await.unwrap_or_else(|failure| refused(&failure)),
            _ => {
                let why = "this registry is read here: services are registered over its own API";
                refused(&Failure::new(StatusCode::METHOD_NOT_ALLOWED, why))
            }
        };
        self.allow_pages(&parts.headers, response.headers_mut(), parts.method == Method::OPTIONS);
        response
    }

    async fn read(&self, parts: &Parts) -> Result<Response<Full<Bytes>>, Failure> {
        let scoped = (self.admit)(parts)?;
        let parameters = Parameters::parse(parts.uri.query().unwrap_or_default())?;
        let names = Names { scoped: &scoped, namespace: &self.config.namespace };
        let for_foreign_page = parts.headers.get(ORIGIN).is_some_and(is_foreign);
        let listing = Listing { scoped: &scoped, names, tombstones: &self.tombstones, for_foreign_page };
        let document = match Route::of(parts.uri.path()) {
            Some(Route::Servers) => return Ok(json(StatusCode::OK, listing.page(&parameters.list()?).await?)),
            Some(Route::Versions(name)) => listing.versions(&name, parameters.include_deleted()?).await?,
            Some(Route::Version(name, version)) => {
                listing.version(&name, &version, parameters.include_deleted()?).await?
            }
            Some(Route::Health) => json!({ "status": "ok" }),
            Some(Route::Ping) => json!({ "pong": true }),
            Some(Route::About) => json!({ "version": env!("CARGO_PKG_VERSION") }),
            None => return Err(Failure::new(StatusCode::NOT_FOUND, "the registry API has no such path")),
        };
        Ok(json(StatusCode::OK, document.to_string()))
    }

    /// Tells a browser whether the page that asks may read the answer.
    fn allow_pages(&self, asked: &HeaderMap, answer: &mut HeaderMap, preflight: bool) {
        let origin = asked.get(ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
        answer.insert(VARY, HeaderValue::from_static("origin"));
        let Some(allowed) = self.config.admits(origin).and_then(|allowed| HeaderValue::from_str(allowed).ok()) else {
            return;
        };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if preflight {
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*, authorization"));
            answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
        }
    }
}

/// Whether a page is of another machine than this one, or does not say of which.
fn is_foreign(origin: &HeaderValue) -> bool {
    let url = origin.to_str().ok().and_then(|origin| url::Url::parse(origin).ok());
    !url.is_some_and(|url| match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    })
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Servers,
    Versions(String),
    Version(String, String),
    Health,
    Ping,
    About,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        let mut segments: Vec<_> = path.trim_matches('/').split('/').map(decoded).collect::<Option<_>>()?;
        if matches!(segments.first().map(String::as_str), Some("v0" | "v0.1")) {
            segments.remove(0);
        }
        let segments: Vec<_> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["servers"] => Some(Self::Servers),
            ["health"] => Some(Self::Health),
            ["ping"] => Some(Self::Ping),
            ["version"] => Some(Self::About),
            // A name has one slash, which some send as it is.
            ["servers", name @ .., "versions"] if is_name(name) => Some(Self::Versions(name.join("/"))),
            ["servers", name @ .., "versions", version] if is_name(name) => {
                Some(Self::Version(name.join("/"), (*version).to_owned()))
            }
            _ => None,
        }
    }
}

fn is_name(segments: &[&str]) -> bool {
    matches!(segments.len(), 1 | 2) && segments.iter().all(|segment| !segment.is_empty())
}

fn decoded(segment: &str) -> Option<String> {
    Some(percent_decode_str(segment).decode_utf8().ok()?.into_owned())
}

fn refused(failure: &Failure) -> Response<Full<Bytes>> {
    let body: Value = failure.body();
    let mut response = json(failure.status, body.to_string());
    let more = match failure.status {
        StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, METHODS)),
        StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
        _ => None,
    };
    if let Some((name, value)) = more {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_and_without_the_version_of_the_api() {
        for prefix in ["/v0", "/v0.1", ""] {
            let of = |path: &str| Route::of(&format!("{prefix}{path}"));
            assert_eq!(of("/servers"), Some(Route::Servers));
            assert_eq!(of("/servers/"), Some(Route::Servers));
            assert_eq!(of("/servers/a%2Fb/versions"), Some(Route::Versions("a/b".to_owned())));
            assert_eq!(of("/servers/a/b/versions"), Some(Route::Versions("a/b".to_owned())));
            let version = |name: &str, version: &str| Some(Route::Version(name.to_owned(), version.to_owned()));
            assert_eq!(of("/servers/a%2Fb/versions/1.0.0%2B2"), version("a/b", "1.0.0+2"));
            assert_eq!(of("/servers/a/versions/versions/latest"), version("a/versions", "latest"));
            assert_eq!(of("/ping"), Some(Route::Ping));
            for none in
                ["/", "/servers/a%2Fb", "/servers//versions", "/servers/a/b/c/versions", "/servers/%ff/versions", "/x"]
            {
                assert_eq!(of(none), None, "{none}");
            }
        }
    }
}
