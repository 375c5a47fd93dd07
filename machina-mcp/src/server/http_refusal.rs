//! Answers over HTTP that carry no stream: refusals, documents and nothing at all.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use machina_core::{Era, Error};

use super::errors;
use super::http_body::AnswerBody;
use super::in_flight::overloaded;
use super::rpc::{self, Fault, INVALID_REQUEST, Id, Rejected, SERVER_ERROR};

/// The methods that the endpoint takes.
const METHODS: &str = "GET, POST, DELETE, OPTIONS";

/// A request that is not answered with what it asked for.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    id: Option<Id>,
    fault: Fault,
    allowed: &'static str,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: i64, why: impl Into<String>) -> Self {
        Self { status, id: None, fault: Fault::new(code, why), allowed: METHODS }
    }

    /// The same, of the request `id`.
    pub(super) fn of(self, id: &Id) -> Self {
        Self { id: Some(id.clone()), ..self }
    }

    /// A malformed request, which may not even have an id.
    pub(super) fn bad(id: Option<&Id>, fault: Fault) -> Self {
        Self { id: id.cloned(), fault, ..Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "") }
    }

    /// A method that is not taken here; these are.
    pub(super) fn method(allowed: &'static str, why: &str) -> Self {
        Self { allowed, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, why) }
    }

    /// Not now: `most` of the kind are there already.
    pub(super) fn busy(most: usize) -> Self {
        Self { fault: overloaded(most), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER_ERROR, "") }
    }

    pub(super) fn no_session() -> Self {
        let why = "there is no such session, or it has ended: send `initialize` again";
        Self::new(StatusCode::NOT_FOUND, SERVER_ERROR, why)
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer that says so.
    pub(super) fn response(self) -> Response<AnswerBody> {
        let mut response = document(self.status, rpc::answer(self.id.as_ref(), Err(self.fault)));
        let more = match self.status {
            StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, self.allowed)),
            StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Some((RETRY_AFTER, "1")),
            _ => None,
        };
        if let Some((name, value)) = more {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let fault = errors::fault(&error, Era::Modern);
        Self { fault, ..Self::new(errors::status(&error), SERVER_ERROR, "") }
    }
}

impl From<Rejected> for Refusal {
    fn from(Rejected { id, fault }: Rejected) -> Self {
        Self::bad(id.as_ref(), fault)
    }
}

/// One JSON document.
pub(super) fn document(status: StatusCode, text: String) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A status and nothing else.
pub(super) fn empty(status: StatusCode) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(Bytes::new()));
    *response.status_mut() = status;
    response
}
