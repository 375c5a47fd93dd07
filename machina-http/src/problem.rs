//! The JSON form of an error (RFC 9457), which the server writes and the client
//! reads. It loses nothing of an [`Error`] but its cause.

use machina_core::{Error, ErrorContext, ErrorKind, Outcome, Phase, Problem};
use serde::{Deserialize, Serialize};

/// The media type of [`ProblemDocument`].
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// Where the codes are explained; each is a fragment of it.
const EXPLAINED: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/reference/errors.md");

/// The code of a heartbeat for what is not registered (any more): a kind of
/// `not_found` that says what to do.
pub(crate) const NOT_REGISTERED: &str = "service-not-registered";

/// An error as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemDocument {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    detail: String,
    /// The request, by its `x-request-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    code: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Wrong>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
    /// The instance of the service; `instance` already has a meaning in RFC 9457.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    phase: Option<Phase>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream_status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream_code: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream_data: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stderr_tail: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    hard: bool,
}

/// One wrong field: of the body, by JSON Pointer; or a parameter or a header, by
/// its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = WrongField)]
struct Wrong {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    detail: String,
}

/// What the fields of an error are fields of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fields {
    Body,
    Parameters,
    Headers,
}

impl ProblemDocument {
    /// The document for `error`, answered with `status` to the request `id`.
    pub(crate) fn of(error: &Error, status: u16, id: &str, fields: Fields) -> Self {
        let (kind, context) = (error.kind(), error.context().clone());
        Self {
            kind: format!("{EXPLAINED}#{}", kind.code()),
            title: title(kind).to_owned(),
            status,
            detail: error.message().to_owned(),
            instance: Some(id.to_owned()),
            code: kind.code().to_owned(),
            errors: context.problems.into_iter().map(|problem| Wrong::of(problem, fields)).collect(),
            service: context.service,
            tool: context.tool,
            instance_id: context.instance,
            phase: context.phase,
            outcome: context.outcome,
            attempts: context.attempts,
            retry_after_ms: context.retry_after_ms,
            upstream_status: context.upstream_status,
            upstream_code: context.upstream_code,
            upstream_data: context.upstream_data,
            stderr_tail: context.stderr_tail,
            hard: context.hard,
        }
    }

    /// The same with another code than that of the error's kind.
    pub(crate) fn with_code(self, code: &str) -> Self {
        Self { kind: format!("{EXPLAINED}#{code}"), code: code.to_owned(), ..self }
    }

    /// The error that the document was made of. A code of a later version is
    /// [`ErrorKind::Internal`].
    pub(crate) fn into_error(self) -> Error {
        let kind = match &*self.code {
            NOT_REGISTERED => ErrorKind::NotFound,
            code => ErrorKind::from_code(code).unwrap_or(ErrorKind::Internal),
        };
        Error::new(kind, self.detail).with(|context| {
            *context = ErrorContext {
                problems: self.errors.into_iter().map(Wrong::into_problem).collect(),
                service: self.service,
                tool: self.tool,
                instance: self.instance_id,
                phase: self.phase,
                outcome: self.outcome,
                attempts: self.attempts,
                tried: Vec::new(),
                retry_after_ms: self.retry_after_ms,
                upstream_status: self.upstream_status,
                upstream_code: self.upstream_code,
                upstream_data: self.upstream_data,
                stderr_tail: self.stderr_tail,
                hard: self.hard,
            }
        })
    }
}

impl Wrong {
    fn of(problem: Problem, fields: Fields) -> Self {
        let (mut pointer, mut parameter, mut header) = (None, None, None);
        match fields {
            Fields::Body => pointer = Some(pointer_of(&problem.field)),
            Fields::Parameters => parameter = Some(problem.field),
            Fields::Headers => header = Some(problem.field),
        }
        Self { pointer, parameter, header, detail: problem.detail }
    }

    fn into_problem(self) -> Problem {
        let named = self.parameter.or(self.header);
        let field = named.or_else(|| self.pointer.as_deref().map(field_of)).unwrap_or_default();
        Problem { field, detail: self.detail }
    }
}

/// `instances[0].weight` as `#/instances/0/weight`; `body` is the whole of it.
fn pointer_of(field: &str) -> String {
    if field == "body" {
        return "#".to_owned();
    }
    let mut pointer = "#".to_owned();
    for name in field.split(['.', '[', '/']) {
        let name = name.strip_suffix(']').unwrap_or(name);
        pointer.push('/');
        pointer.push_str(&name.replace('~', "~0"));
    }
    pointer
}

/// `#/instances/0/weight` as `instances[0].weight`.
fn field_of(pointer: &str) -> String {
    let path = pointer.strip_prefix('#').unwrap_or(pointer);
    let Some(path) = path.strip_prefix('/') else { return "body".to_owned() };
    let mut field = String::new();
    for name in path.split('/') {
        let name = name.replace("~1", "/").replace("~0", "~");
        if !field.is_empty() && !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
            field.push_str(&format!("[{name}]"));
        } else {
            field.push_str(if field.is_empty() { "" } else { "." });
            field.push_str(&name);
        }
    }
    field
}

/// The same few words for every error of a kind.
const fn title(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid => "The request is malformed",
        ErrorKind::Unauthenticated => "Who are you?",
        ErrorKind::Forbidden => "You may not do this",
        ErrorKind::NotFound => "There is no such thing",
        ErrorKind::Conflict => "A precondition failed",
        ErrorKind::Unavailable => "Nothing can take the request now",
        ErrorKind::Unreachable => "The instance could not be reached",
        ErrorKind::Lost => "The outcome of the call is not known",
        ErrorKind::Timeout => "No answer came in time",
        ErrorKind::Overloaded => "Slow down",
        ErrorKind::Rejected => "The instance answered with an error",
        ErrorKind::Unsupported => "This server cannot do that",
        _ => "Something is broken in this server",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_pointers_and_back() {
        let cases = [
            ("instances[0].weight", "#/instances/0/weight"),
            ("body", "#"),
            ("name", "#/name"),
            ("mutations[12].put", "#/mutations/12/put"),
            ("a~b", "#/a~0b"),
        ];
        for (field, pointer) in cases {
            assert_eq!(pointer_of(field), pointer);
            assert_eq!(field_of(pointer), field);
        }
        assert_eq!(pointer_of("env/TOKEN"), "#/env/TOKEN", "the place of a secret");
    }

    #[test]
    fn nothing_of_an_error_is_lost() {
        let error = Error::lost("connection reset").at(Phase::MaybeExecuted).with(|context| {
            context.problems.push(Problem { field: "instances[0].weight".into(), detail: "is 0".into() });
            context.service = Some("a".into());
            context.tool = Some("b".into());
            context.instance = Some("c".into());
            context.attempts = Some(2);
            context.retry_after_ms = Some(1500);
            context.upstream_status = Some(503);
            context.upstream_code = Some(-32000);
            context.upstream_data = Some(serde_json::json!({"why": [1]}));
            context.stderr_tail = Some("boom".into());
            context.hard = true;
        });
        for fields in [Fields::Body, Fields::Parameters, Fields::Headers] {
            let document = ProblemDocument::of(&error, 502, "request-1", fields);
            let text = serde_json::to_string(&document).unwrap();
            let read: ProblemDocument = serde_json::from_str(&text).unwrap();
            assert_eq!(read, document);
            let back = read.into_error();
            assert_eq!((back.kind(), back.message()), (error.kind(), error.message()));
            assert_eq!(back.context(), error.context());
        }
    }

    #[test]
    fn an_unknown_code_is_an_internal_error() {
        let mut document = ProblemDocument::of(&Error::invalid("x"), 400, "1", Fields::Body);
        document.code = "of_a_later_version".into();
        assert_eq!(document.into_error().kind(), ErrorKind::Internal);
    }
}
