//! A response, whichever client brought it.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

use super::http_direct::{Broken, DirectResponse};

/// A response whose body is still to be read.
#[derive(Debug)]
pub(super) enum Received {
    /// Over the full client.
    Full(reqwest::Response),
    /// Over a connection of our own.
    Direct(DirectResponse),
}

/// Why a response, or the rest of one, did not come.
#[derive(Debug)]
pub(super) enum NotReceived {
    Full(reqwest::Error),
    Direct(Broken),
}

impl From<reqwest::Error> for NotReceived {
    fn from(error: reqwest::Error) -> Self {
        Self::Full(error)
    }
}

impl From<reqwest::Response> for Received {
    fn from(response: reqwest::Response) -> Self {
        Self::Full(response)
    }
}

impl Received {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Full(response) => response.status(),
            Self::Direct(response) => response.head.status(),
        }
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        match self {
            Self::Full(response) => response.headers(),
            Self::Direct(response) => response.head.headers(),
        }
    }

    /// The next piece of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, NotReceived> {
        match self {
            Self::Full(response) => response.chunk().await.map_err(NotReceived::Full),
            Self::Direct(response) => {
                response.chunk().await.map_err(|error| NotReceived::Direct(Broken::Exchanging(error)))
            }
        }
    }

    /// What the body says it is; empty if it does not say.
    pub(super) fn content_type(&self) -> &str {
        self.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default()
    }

    /// Whether it is a stream of events.
    pub(super) fn is_stream(&self) -> bool {
        self.status().is_success() && self.content_type().starts_with("text/event-stream")
    }
}
