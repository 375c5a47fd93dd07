//! A registry in another process, behind the same traits as one in this one.
//! Holds no state and no rule: every answer, and every error, is the server's.

mod events;
mod exchange;
mod frames;
mod registry;

use std::time::Duration;

use machina_core::{Error, Overview, Result};
use reqwest::redirect::Policy;
use url::Url;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A registry that is reached over HTTP: [`Registry`](machina_core::Registry) and
/// [`Router`](machina_core::Router) over the REST API of
/// [`router`](crate::router()). Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
}

impl Client {
    /// A client of the server at `base_url`, such as `http://127.0.0.1:8000`,
    /// perhaps with a path that the API is nested under. Does not connect yet.
    ///
    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid) for anything but an `http`
    /// or `https` address without credentials, query and fragment.
    pub fn new(base_url: &str) -> Result<Self> {
        let wrong = |detail: &str| Error::invalid_field("url", detail);
        let base = Url::parse(base_url).map_err(|_| wrong("must be an address such as http://127.0.0.1:8000"))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(wrong("must begin with http:// or https://"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("must not have credentials in it"));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(wrong("must end with the path"));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(Policy::none())
            // What is asked is said by its address, and never by the environment.
            .no_proxy()
            .user_agent(concat!("machina/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::internal("the HTTP client cannot be set up").caused_by(error))?;
        Ok(Self { http, base })
    }

    /// The address of the server.
    #[must_use]
    pub fn base_url(&self) -> &str {
        self.base.as_str()
    }

    /// The registry in numbers.
    ///
    /// # Errors
    /// Whatever the server says, or [`Unreachable`](machina_core::ErrorKind::Unreachable).
    pub async fn overview(&self) -> Result<Overview> {
        self.read(&["status"], &[]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_taken() {
        for good in ["http://127.0.0.1:8000", "https://machina.example/registry/", "http://[::1]:1"] {
            Client::new(good).unwrap();
        }
        let wrong =
            ["", "127.0.0.1:8000", "ftp://a/", "http://", "http://u:p@a/", "http://u@a/", "http://a/?b", "http://a/#b"];
        for wrong in wrong {
            let error = Client::new(wrong).unwrap_err();
            assert_eq!(error.context().problems[0].field, "url", "{wrong}");
            assert!(!error.message().contains("u:p"), "{error}");
        }
    }
}
