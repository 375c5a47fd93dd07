//! A registry in another process, behind the same traits as one in this one.
//! Holds no state and no rule: every answer, and every error, is the server's.

mod alerts;
mod events;
mod exchange;
mod frames;
mod lines;
mod registry;
mod store;

use std::time::Duration;

use machina_core::{Discovered, Error, HealthSlots, Heartbeat, InstanceId, Overview, Page, Query, Result};
use reqwest::redirect::Policy;
use serde::Deserialize;
use url::Url;

pub use store::RemoteStore;

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

    /// Whether the server is a Machina whose answers this client understands: one
    /// of the same version but for what only mends it.
    ///
    /// # Errors
    /// [`Unsupported`](machina_core::ErrorKind::Unsupported) for another version,
    /// [`Rejected`](machina_core::ErrorKind::Rejected) for what is no Machina,
    /// [`Unreachable`](machina_core::ErrorKind::Unreachable) for nothing at all.
    pub async fn check_version(&self) -> Result<()> {
        let status: Identity = self.read(&["status"], &[]).await?;
        if status.name != "machina" {
            return Err(self.foreign(http::StatusCode::OK));
        }
        if line_of(&status.version) == line_of(VERSION) {
            return Ok(());
        }
        let (base, theirs) = (&self.base, status.version);
        Err(Error::unsupported(format!(
            "the Machina at {base} has version {theirs}, and this is {VERSION}: use a client of its version"
        )))
    }

    /// Says that an instance that registered itself is alive; its lease begins
    /// anew. It may be left out where the service has one such instance.
    ///
    /// # Errors
    /// [`NotFound`](machina_core::ErrorKind::NotFound) when there is no such
    /// service or instance (any more): register again.
    pub async fn heartbeat(&self, service: &str, instance: Option<InstanceId>) -> Result<Heartbeat> {
        let id = instance.map(|id| id.to_string());
        let path = match &id {
            Some(id) => vec!["services", service, "instances", id, "heartbeat"],
            None => vec!["services", service, "heartbeat"],
        };
        self.post(&path, &serde_json::json!({}), None).await
    }

    /// The health of a service in the last `slots` slots of length `slot`.
    ///
    /// # Errors
    /// [`NotFound`](machina_core::ErrorKind::NotFound);
    /// [`Invalid`](machina_core::ErrorKind::Invalid) unless there are 1 to 366
    /// slots of 1 minute to 31 days.
    pub async fn health_slots(&self, service: &str, slots: u32, slot: Duration) -> Result<HealthSlots> {
        let pairs = [("slots", slots.to_string()), ("slot", format!("{}ms", slot.as_millis()))];
        let answer: WithHistory = self.read(&["services", service, "health"], &pairs).await?;
        Ok(answer.history)
    }

    /// One page of the services that `query` asks for and that can be reached now,
    /// with where.
    ///
    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid) for a limit out of range or a
    /// cursor of another query.
    pub async fn discover(&self, query: &Query) -> Result<Page<Discovered>> {
        self.read(&["discover"], &query.to_pairs()).await
    }

    /// The registry in numbers.
    ///
    /// # Errors
    /// Whatever the server says, or [`Unreachable`](machina_core::ErrorKind::Unreachable).
    pub async fn overview(&self) -> Result<Overview> {
        self.read(&["status"], &[]).await
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Deserialize)]
struct Identity {
    name: String,
    version: String,
}

#[derive(Deserialize)]
struct WithHistory {
    history: HealthSlots,
}

/// What has to be the same in two versions that understand one another: the first
/// number, and before 1.0 the second too.
fn line_of(version: &str) -> (&str, &str) {
    let (major, rest) = version.split_once('.').unwrap_or((version, ""));
    let minor = rest.split('.').next().unwrap_or_default();
    if major == "0" { (major, minor) } else { (major, "") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_only_mend_are_compatible() {
        for (a, b) in [("0.1.0", "0.1.9"), ("1.2.3", "1.9.0"), ("0.1.0-rc.1", "0.1.2")] {
            assert_eq!(line_of(a), line_of(b), "{a} {b}");
        }
        for (a, b) in [("0.1.0", "0.2.0"), ("1.0.0", "2.0.0"), ("0.1.0", "1.1.0"), ("", "0.1.0")] {
            assert_ne!(line_of(a), line_of(b), "{a} {b}");
        }
    }

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
