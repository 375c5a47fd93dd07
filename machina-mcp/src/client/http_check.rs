//! Looks at what a service declares to be looked at besides MCP: an HTTP address
//! that must answer with one of some statuses, or a port that must take a
//! connection. Refuses to follow a redirect, which is an answer, and to read more
//! of a body than leaves the connection fit for use.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use machina_core::{Error, HealthEndpoint, Phase, Result, Target};
use tokio::time::{sleep, timeout};
use url::Url;

use super::connectors::{not_mine, told};
use super::guard::{Clients, Guard};
use super::http_direct::Broken;
use super::http_link::not_received;
use super::http_response::{NotReceived, Received};
use super::status::retry_after;

/// How much of a body is read, in bytes, and for how long.
const BODY_BYTES_MAX: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// What is declared about an instance, filled in.
pub(super) struct Declared<'a> {
    pub(super) target: &'a Target,
    /// Where it is, if that is an address.
    pub(super) own: Option<Url>,
    pub(super) headers: HeaderMap,
    /// How long a connection may take.
    pub(super) connect_timeout: Duration,
}

impl Declared<'_> {
    /// Looks once at `endpoint`.
    pub(super) async fn look(&self, clients: &Clients, endpoint: &HealthEndpoint, expected: &[u16]) -> Result<()> {
        let url = match endpoint.address() {
            Some(url) => url,
            None => self.on_own_origin(endpoint)?,
        };
        let looked = match endpoint.is_tcp() {
            true => self.dial(&url).await,
            false => self.get(clients, url, expected).await,
        };
        looked.map_err(|error| told(self.target, error))
    }

    fn on_own_origin(&self, endpoint: &HealthEndpoint) -> Result<Url> {
        let Some(own) = &self.own else { return Err(not_mine(self.target)) };
        let url = own.join(endpoint.as_str()).ok().filter(|url| url.origin() == own.origin());
        let wrong = || Error::invalid_field("health_policy.endpoints", "must be a path on the origin of the instance");
        url.ok_or_else(wrong)
    }

    async fn dial(&self, url: &Url) -> Result<()> {
        let guard = Guard::new(self.target.reach.clone());
        let (host, port) = url.host().zip(url.port_or_known_default()).expect("a health endpoint names a port");
        let limit = self.connect_timeout;
        let dialled = tokio::select! {
            dialled = guard.dial(&host, port) => dialled,
            () = sleep(limit) => Err(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("no connection within {limit:?}"),
            )),
        };
        dialled.map(drop).map_err(|error| not_received(url, NotReceived::Direct(Broken::Connecting(error))))
    }

    async fn get(&self, clients: &Clients, url: Url, expected: &[u16]) -> Result<()> {
        let mut get = clients.for_url(&url, &self.target.reach)?.get(url.clone());
        // What is told to the instance in confidence is told to nobody else.
        if self.own.as_ref().is_some_and(|own| own.origin() == url.origin()) {
            get = get.headers(self.headers.clone());
        }
        let mut response = Received::from(get.send().await.map_err(|error| not_received(&url, error.into()))?);
        let outcome = judged(&response, expected);
        drain(&mut response).await;
        outcome
    }
}

/// What the status of an answer says where one of `expected` should be.
fn judged(response: &Received, expected: &[u16]) -> Result<()> {
    let status = response.status();
    let code = status.as_u16();
    if expected.contains(&code) || expected.is_empty() && status.is_success() {
        return Ok(());
    }
    let wanted = match expected {
        [] => "200 to 299".to_owned(),
        expected => expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
    };
    let message = format!("the health endpoint was answered with HTTP {code}, expected was {wanted}");
    let error = match status {
        StatusCode::TOO_MANY_REQUESTS => Error::overloaded(message),
        _ => Error::rejected(message),
    };
    let error = error.at(Phase::Refused).with(|context| context.upstream_status = Some(code));
    Err(match retry_after(response.headers(), machina_core::now()) {
        Some(after) if status == StatusCode::TOO_MANY_REQUESTS => error.retry_after(after),
        _ => error,
    })
}

/// Reads a short body to its end, so that its connection can be used again.
async fn drain(response: &mut Received) {
    let reading = async {
        let mut left = BODY_BYTES_MAX;
        while let Ok(Some(chunk)) = response.chunk().await {
            match left.checked_sub(chunk.len()) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    // The status was what mattered.
    let _ = timeout(BODY_TIMEOUT, reading).await;
}
