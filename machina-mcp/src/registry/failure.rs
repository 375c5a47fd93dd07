//! What is answered to a request that cannot be: `error` as the specification of
//! the registry API has it, and beside it the fields of a problem document, which
//! the official registry sends.

use http::StatusCode;
use machina_core::{Error, ErrorKind};
use serde_json::{Value, json};

/// A refusal, and the part of the request that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    detail: String,
    /// Such as `query.limit`.
    location: Option<String>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), location: None }
    }

    /// A parameter that is wrong.
    pub(super) fn parameter(name: &str, detail: &str) -> Self {
        let location = Some(format!("query.{name}"));
        Self { status: StatusCode::BAD_REQUEST, detail: format!("{name} {detail}"), location }
    }

    pub(super) fn body(&self) -> Value {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let mut body =
            json!({ "error": self.detail, "title": title, "status": self.status.as_u16(), "detail": self.detail });
        if let Some(location) = &self.location {
            body["errors"] = json!([{ "message": self.detail, "location": location }]);
        }
        body
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::Unavailable | ErrorKind::Timeout => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::warn!(%error, "the registry cannot be read");
            return Self::new(status, "the registry cannot be read now");
        }
        Self::new(status, error.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_error_say_the_same() {
        let body = Failure::parameter("limit", "must be 1 to 100").body();
        assert_eq!(body["error"], "limit must be 1 to 100");
        assert_eq!(
            (&body["detail"], &body["status"], &body["title"]),
            (&body["error"], &json!(400), &json!("Bad Request"))
        );
        assert_eq!(body["errors"][0]["location"], "query.limit");
    }

    #[test]
    fn what_went_wrong_inside_is_not_told() {
        let failure = Failure::from(Error::internal("the table is broken"));
        assert_eq!(failure.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!failure.body().to_string().contains("table"));
        for (error, status) in [
            (Error::unauthenticated("x"), 401),
            (Error::forbidden("x"), 403),
            (Error::not_found("x"), 404),
            (Error::overloaded("x"), 429),
            (Error::unavailable("x"), 503),
            (Error::invalid_field("a", "x"), 400),
        ] {
            assert_eq!(Failure::from(error).status.as_u16(), status);
        }
    }
}
