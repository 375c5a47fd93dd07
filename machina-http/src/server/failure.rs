//! What a handler answers when it cannot do what was asked, and the one place
//! that maps the kinds of errors to HTTP.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use machina_core::{Error, ErrorKind, Revision};

use crate::problem::{Fields, MEDIA_TYPE, NOT_REGISTERED, ProblemDocument};

/// An error, and the part of the request that it is about.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    error: Error,
    part: Part,
}

/// Parts of a request. HTTP tells apart what is one kind to the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The path and the names in it, or the request as a whole.
    Request,
    /// Parameters after `?`.
    Parameters,
    /// Headers.
    Headers,
    /// The header with the idempotency key, beside the request that it came with.
    Key,
    /// A body that cannot be read as JSON.
    Syntax,
    /// A body that is JSON, and not what it should be.
    Record,
    /// The same, in a request whose `If-Match` names a revision.
    Revision,
    /// The method.
    Method,
    /// The length of the body.
    Length,
    /// The type of the body.
    MediaType,
    /// The time that the body took to arrive.
    Arrival,
    /// The request line and the headers together, before they were read.
    Head,
    /// The address in the request line, before it was read.
    Address,
    /// The service or instance that a heartbeat is for.
    Registration,
}

impl Part {
    /// A body that is to be taken if the service is at this revision.
    pub(super) const fn of_body(expected: Option<Revision>) -> Self {
        if expected.is_some() { Self::Revision } else { Self::Record }
    }

    /// A removal that is to be done if the service is at this revision.
    pub(super) const fn of_removal(expected: Option<Revision>) -> Self {
        if expected.is_some() { Self::Revision } else { Self::Request }
    }
}

impl Failure {
    /// A failure about this part of the request.
    pub(super) fn of(part: Part) -> impl Fn(Error) -> Self {
        move |error| Self { error, part }
    }

    /// What went wrong.
    pub(super) fn error(&self) -> &Error {
        &self.error
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        status(self.error.kind(), self.part)
    }

    /// The status and the body of the answer to the request `id`.
    pub(super) fn document(&self, id: &str) -> (StatusCode, Vec<u8>) {
        let status = status(self.error.kind(), self.part);
        let fields = match self.part {
            Part::Request | Part::Parameters | Part::Method | Part::Address | Part::Registration => Fields::Parameters,
            Part::Headers | Part::Key | Part::MediaType | Part::Head => Fields::Headers,
            Part::Syntax | Part::Record | Part::Revision | Part::Length | Part::Arrival => Fields::Body,
        };
        let mut document = ProblemDocument::of(&self.error, status.as_u16(), id, fields);
        if (self.error.kind(), self.part) == (ErrorKind::NotFound, Part::Registration) {
            document = document.with_code(NOT_REGISTERED);
        }
        (status, serde_json::to_vec(&document).unwrap_or_default())
    }

    /// The answer to the request `id`.
    pub(super) fn render(&self, id: &str) -> Response {
        let (status, body) = self.document(id);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(after) = self.error.context().retry_after_ms {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.div_ceil(1000)));
        }
        response
    }
}

/// The HTTP status of an error.
///
/// `invalid` is 422 where a body was read as JSON and says something wrong, and
/// 400 where it is no JSON or the parameters or headers are wrong; HTTP has
/// numbers of its own for a method, length, type or slowness that it does not
/// like. `conflict` is 412 where the request named the revision.
const fn status(kind: ErrorKind, part: Part) -> StatusCode {
    match (kind, part) {
        (ErrorKind::Invalid, Part::Record | Part::Revision | Part::Key) => StatusCode::UNPROCESSABLE_ENTITY,
        (ErrorKind::Invalid, Part::Method) => StatusCode::METHOD_NOT_ALLOWED,
        (ErrorKind::Invalid, Part::Length) => StatusCode::PAYLOAD_TOO_LARGE,
        (ErrorKind::Invalid, Part::MediaType) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        (ErrorKind::Invalid, Part::Head) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        (ErrorKind::Invalid, Part::Address) => StatusCode::URI_TOO_LONG,
        (ErrorKind::Invalid, _) => StatusCode::BAD_REQUEST,
        (ErrorKind::Unauthenticated, _) => StatusCode::UNAUTHORIZED,
        (ErrorKind::Forbidden, _) => StatusCode::FORBIDDEN,
        (ErrorKind::NotFound, _) => StatusCode::NOT_FOUND,
        (ErrorKind::Conflict, Part::Revision) => StatusCode::PRECONDITION_FAILED,
        (ErrorKind::Conflict, _) => StatusCode::CONFLICT,
        (ErrorKind::Unavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
        (ErrorKind::Unreachable | ErrorKind::Lost | ErrorKind::Rejected, _) => StatusCode::BAD_GATEWAY,
        (ErrorKind::Timeout, Part::Arrival) => StatusCode::REQUEST_TIMEOUT,
        (ErrorKind::Timeout, _) => StatusCode::GATEWAY_TIMEOUT,
        (ErrorKind::Overloaded, _) => StatusCode::TOO_MANY_REQUESTS,
        (ErrorKind::Unsupported, _) => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, part: Part::Request }
    }
}

/// Only marks the response: [`finished`](super::answer::finished) knows the id of
/// the request and renders it.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = status(self.error.kind(), self.part).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers in the column "HTTP" of the table in `errors.md`, by code. The
    /// first one is that of the kind, the others those of certain parts.
    fn documented() -> Vec<(String, Vec<u16>)> {
        let page = include_str!("../../../docs/reference/errors.md");
        let mut table = page.lines().skip_while(|line| !line.starts_with("| code |"));
        let cells = |row: &str| row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let column = cells(table.next().unwrap()).iter().position(|name| name == "HTTP").unwrap();
        let rows = table.skip(1).take_while(|line| line.starts_with('|')).map(cells);
        rows.map(|row| {
            let numbers = row[column].split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
            (row[1].trim_matches('`').to_owned(), numbers.collect())
        })
        .collect()
    }

    #[test]
    fn every_kind_has_the_statuses_of_the_table() {
        let documented = documented();
        assert_eq!(documented.len(), ErrorKind::ALL.len());
        for (kind, (code, mut numbers)) in ErrorKind::ALL.iter().zip(documented) {
            assert_eq!(kind.code(), code);
            assert_eq!(numbers.first(), Some(&status(*kind, Part::Request).as_u16()), "{kind}");
            let mut mapped = PARTS.map(|part| status(*kind, part).as_u16()).to_vec();
            for list in [&mut numbers, &mut mapped] {
                list.sort_unstable();
                list.dedup();
            }
            assert_eq!(mapped, numbers, "{kind}");
        }
    }

    const PARTS: [Part; 14] = [
        Part::Request,
        Part::Parameters,
        Part::Headers,
        Part::Key,
        Part::Syntax,
        Part::Record,
        Part::Revision,
        Part::Method,
        Part::Length,
        Part::MediaType,
        Part::Arrival,
        Part::Head,
        Part::Address,
        Part::Registration,
    ];

    #[test]
    fn the_part_of_the_request_makes_the_difference() {
        let table = [
            (ErrorKind::Invalid, Part::Parameters, 400),
            (ErrorKind::Invalid, Part::Headers, 400),
            (ErrorKind::Invalid, Part::Key, 422),
            (ErrorKind::Invalid, Part::Syntax, 400),
            (ErrorKind::Invalid, Part::Record, 422),
            (ErrorKind::Invalid, Part::Revision, 422),
            (ErrorKind::Invalid, Part::Method, 405),
            (ErrorKind::Invalid, Part::Length, 413),
            (ErrorKind::Invalid, Part::MediaType, 415),
            (ErrorKind::Invalid, Part::Head, 431),
            (ErrorKind::Invalid, Part::Address, 414),
            (ErrorKind::Conflict, Part::Record, 409),
            (ErrorKind::Conflict, Part::Revision, 412),
            (ErrorKind::NotFound, Part::Revision, 404),
            (ErrorKind::Timeout, Part::Arrival, 408),
            (ErrorKind::Timeout, Part::Record, 504),
        ];
        for (kind, part, expected) in table {
            assert_eq!(status(kind, part).as_u16(), expected, "{kind} {part:?}");
        }
    }

    #[test]
    fn a_failure_says_when_to_come_back() {
        let error = Error::unavailable("no instance").retry_after(std::time::Duration::from_millis(2100));
        let response = Failure::from(error).render("1");
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        assert_eq!(response.headers()[CONTENT_TYPE], MEDIA_TYPE);
    }
}
