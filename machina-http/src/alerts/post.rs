//! One POST to an address whose path may be a secret.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use machina_core::{Error, ErrorKind, Phase, Result, Sensitive};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Response};
use url::Url;

use super::Fields;

/// Where messages are posted to.
pub(super) struct Post {
    http: reqwest::Client,
    url: Url,
    /// The part of the address that may be shown.
    host: String,
}

impl Post {
    /// `target` names the kind of the channel, and `url` where it posts to.
    pub(super) fn new(
        target: &str,
        url: &Sensitive,
        ca_file: Option<&Path>,
        timeout: Duration,
        fields: &Fields<'_>,
    ) -> Result<Self> {
        let field = format!("{target}.url");
        let text = fields.secret(&field, url)?;
        let url =
            Url::parse(text.expose()).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| fields.wrong(&field, "must be an http:// or https:// address"))?;
        let certificates = certificates(&format!("{target}.ca_file"), ca_file, fields)?;
        let http = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(Policy::none())
            .no_proxy()
            // Messages are few: a connection that waits for the next is of no use.
            .pool_max_idle_per_host(0)
            .tls_certs_merge(certificates)
            .user_agent(concat!("machina/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::internal("the HTTP client cannot be set up").caused_by(error))?;
        let host = url.origin().ascii_serialization();
        Ok(Self { http, url, host })
    }

    /// Sends `body`, which is JSON.
    pub(super) async fn send(&self, body: Vec<u8>, headers: HeaderMap) -> Result<()> {
        let request = self.http.post(self.url.clone()).headers(headers).header(CONTENT_TYPE, "application/json");
        let response = request.body(body).send().await.map_err(|error| self.broken(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        Err(self.refused(status, retry_after(&response)))
    }

    fn refused(&self, status: StatusCode, retry_after: Option<Duration>) -> Error {
        let host = &self.host;
        let (kind, message) = match status.as_u16() {
            429 => (ErrorKind::Overloaded, format!("{host} answered {status}")),
            408 | 425 | 500.. => (ErrorKind::Unavailable, format!("{host} answered {status}")),
            401 | 403 => (ErrorKind::Forbidden, format!("{host} answered {status}: it refuses the credentials")),
            300..=399 => (ErrorKind::Rejected, format!("{host} answered {status}, and redirects are not followed")),
            _ => (ErrorKind::Rejected, format!("{host} answered {status}")),
        };
        let error = Error::new(kind, message).at(Phase::Refused);
        retry_after.into_iter().fold(error, Error::retry_after)
    }

    /// There was no answer.
    fn broken(&self, error: &reqwest::Error) -> Error {
        let host = &self.host;
        // The last cause: those before it name the whole address.
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        if error.is_timeout() {
            Error::timeout(format!("{host} did not answer in time")).at(Phase::MaybeExecuted)
        } else if error.is_connect() {
            Error::unreachable(format!("{host} cannot be reached: {cause}")).at(Phase::NotSent)
        } else {
            Error::lost(format!("the exchange with {host} broke off: {cause}")).at(Phase::MaybeExecuted)
        }
    }
}

fn certificates(field: &str, file: Option<&Path>, fields: &Fields<'_>) -> Result<Vec<Certificate>> {
    let pem = fields.certificates(field, file)?;
    let certificates = Certificate::from_pem_bundle(&pem).ok().filter(|found| found.is_empty() == file.is_none());
    certificates.ok_or_else(|| fields.wrong(field, "must be a file of certificates in PEM form"))
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post").field("host", &self.host).finish_non_exhaustive()
    }
}
