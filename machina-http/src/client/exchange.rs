//! One request and its answer; what went wrong, in the words of the core.

use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_TYPE, IF_MATCH};
use machina_core::{Error, ErrorKind, Phase, Result, Revision};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::Client;
use crate::problem::{MEDIA_TYPE, ProblemDocument};

/// How long a request that is not a call may take.
const TIMEOUT: Duration = Duration::from_secs(40);

/// How many bytes an answer may have.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

impl Client {
    /// Reads a resource.
    pub(super) async fn read<T: DeserializeOwned>(&self, path: &[&str], pairs: &[(&str, String)]) -> Result<T> {
        let mut url = self.url(path)?;
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        self.exchange(self.http.request(Method::GET, url).timeout(TIMEOUT)).await
    }

    /// Posts `body`, within `timeout` or the time that any request may take.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
        timeout: Option<Duration>,
    ) -> Result<T> {
        let request = self.http.request(Method::POST, self.url(path)?).json(body);
        self.exchange(request.timeout(timeout.unwrap_or(TIMEOUT))).await
    }

    /// Replaces a resource with `body`, if it is at the revision `expected`.
    pub(super) async fn put<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
        expected: Option<Revision>,
    ) -> Result<T> {
        let request = self.http.request(Method::PUT, self.url(path)?).json(body);
        self.exchange(if_at(request, expected).timeout(TIMEOUT)).await
    }

    /// Removes a resource, if it is at the revision `expected`; returns the
    /// revision at which it is gone.
    pub(super) async fn delete(&self, path: &[&str], expected: Option<Revision>) -> Result<Revision> {
        let request = self.http.request(Method::DELETE, self.url(path)?);
        let response = self.accepted(if_at(request, expected).timeout(TIMEOUT)).await?;
        let revision = response.headers().get("x-machina-revision").and_then(|value| value.to_str().ok()?.parse().ok());
        revision.map(Revision).ok_or_else(|| self.foreign(response.status()))
    }

    /// The address of a resource: each name becomes one segment of the path.
    pub(super) fn url(&self, path: &[&str]) -> Result<Url> {
        if path.iter().any(|name| matches!(*name, "" | "." | "..")) {
            return Err(Error::not_found("an empty name, `.` or `..` names nothing"));
        }
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Error::invalid_field("url", "must be able to have a path"))?
            .pop_if_empty()
            .extend(["api", "v1"])
            .extend(path);
        Ok(url)
    }

    async fn exchange<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let response = self.accepted(request).await?;
        let status = response.status();
        let bytes = self.body_of(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.foreign(status).caused_by(error))
    }

    /// The head of the answer, if it says that all went well.
    pub(super) async fn accepted(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| self.broken(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let problem = content_type.is_some_and(|value| value.starts_with(MEDIA_TYPE));
        let bytes = self.body_of(response).await?;
        match serde_json::from_slice::<ProblemDocument>(&bytes) {
            Ok(document) if problem => Err(document.into_error()),
            _ => Err(self.foreign(status)),
        }
    }

    async fn body_of(&self, mut response: Response) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(error))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                let message = format!("the answer has more than {ANSWER_BYTES_MAX} bytes");
                return Err(Error::rejected(message).at(Phase::Answered));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// There was no whole answer.
    pub(super) fn broken(&self, error: reqwest::Error) -> Error {
        let error = error.without_url();
        let (kind, phase) = if error.is_connect() {
            (ErrorKind::Unreachable, Phase::NotSent)
        } else if error.is_timeout() {
            (ErrorKind::Timeout, Phase::MaybeExecuted)
        } else if error.is_builder() {
            (ErrorKind::Invalid, Phase::NotSent)
        } else {
            (ErrorKind::Lost, Phase::MaybeExecuted)
        };
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let message = match kind {
            ErrorKind::Unreachable => format!("no server answers at {}: {cause}", self.base),
            _ => format!("the exchange with {} broke off: {cause}", self.base),
        };
        Error::new(kind, message).at(phase).caused_by(error)
    }

    /// Something answered that is no server of Machina's, or one of another version.
    pub(super) fn foreign(&self, status: StatusCode) -> Error {
        let message = format!("{} answered {status}, and not as a server of this version does", self.base);
        Error::rejected(message).at(Phase::Answered).with(|context| context.upstream_status = Some(status.as_u16()))
    }
}

/// The request, to be done only if what it is about is at the revision `expected`.
fn if_at(request: RequestBuilder, expected: Option<Revision>) -> RequestBuilder {
    match expected {
        Some(revision) => request.header(IF_MATCH, format!("\"{revision}\"")),
        None => request,
    }
}
