//! How an [`Error`] looks to a host. [`mapped`] is the one table; the rest of
//! this file only dresses it.

use http::StatusCode;
use machina_core::{Era, Error, ErrorKind, Outcome};
use serde_json::json;

use super::rpc::{Fault, INTERNAL_ERROR, INVALID_PARAMS, Object, RESOURCE_NOT_FOUND, SERVER_ERROR, object};

/// What a kind of error is, in each of the languages that hosts understand.
struct Mapped {
    /// Of an HTTP answer that carries no JSON-RPC result.
    status: StatusCode,
    /// Of a JSON-RPC error.
    code: i64,
    /// What a model may do about it.
    advice: &'static str,
}

fn mapped(kind: ErrorKind) -> Mapped {
    let of = |status, code, advice| Mapped { status, code, advice };
    match kind {
        ErrorKind::Invalid => of(StatusCode::BAD_REQUEST, INVALID_PARAMS, "Correct the arguments and try again."),
        ErrorKind::Unauthenticated => of(StatusCode::UNAUTHORIZED, SERVER_ERROR, ""),
        ErrorKind::Forbidden => of(StatusCode::FORBIDDEN, SERVER_ERROR, ""),
        ErrorKind::NotFound => of(
            StatusCode::NOT_FOUND,
            INVALID_PARAMS,
            "`find_tool` searches all tools; `list_services` and `list_tools` say what there is.",
        ),
        ErrorKind::Conflict => of(StatusCode::CONFLICT, SERVER_ERROR, ""),
        ErrorKind::Unavailable => {
            of(StatusCode::SERVICE_UNAVAILABLE, SERVER_ERROR, "Try again later, or find another tool.")
        }
        ErrorKind::Unreachable | ErrorKind::Lost => of(StatusCode::BAD_GATEWAY, SERVER_ERROR, ""),
        ErrorKind::Timeout => of(StatusCode::GATEWAY_TIMEOUT, SERVER_ERROR, ""),
        ErrorKind::Overloaded => of(StatusCode::TOO_MANY_REQUESTS, SERVER_ERROR, "Try again a little later."),
        ErrorKind::Rejected => {
            of(StatusCode::BAD_GATEWAY, SERVER_ERROR, "`describe_tool` says which arguments the tool takes.")
        }
        ErrorKind::Unsupported => of(StatusCode::NOT_IMPLEMENTED, SERVER_ERROR, ""),
        _ => of(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL_ERROR, ""),
    }
}

/// The result of a tool that could not do what was asked: readable by a model,
/// so that it can do better.
pub(crate) fn tool_result(error: &Error) -> Object {
    let context = error.context();
    let uncertain = context.outcome == Some(Outcome::Unknown);
    let effect = if uncertain { "The tool may have run: repeat the call only if that does no harm." } else { "" };
    let parts = [&*error.to_string(), effect, mapped(error.kind()).advice];
    let text = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n");
    object(json!({
        "content": [{"type": "text", "text": text}],
        "structuredContent": {"code": error.kind().code(), "message": error.message(), "context": context},
        "isError": true,
    }))
}

/// The same for a tool of a service: what structured content it may have is for
/// its own output schema to say, so the error goes into `_meta`.
pub(crate) fn upstream_result(error: &Error) -> Object {
    let mut result = tool_result(error);
    if let Some(structured) = result.shift_remove("structuredContent") {
        result.insert("_meta".to_owned(), json!({ "dev.machina/error": structured }));
    }
    result
}

/// The JSON-RPC error of a request that is no tool call.
pub(crate) fn fault(error: &Error, era: Era) -> Fault {
    let code = match (error.kind(), era) {
        (ErrorKind::NotFound, Era::Legacy) => RESOURCE_NOT_FOUND,
        (kind, _) => mapped(kind).code,
    };
    let data = json!({"code": error.kind().code(), "context": error.context()});
    Fault { data: Some(Box::new(data)), ..Fault::new(code, error.message()) }
}

/// The HTTP status of a request that is not let in.
pub(crate) fn status(error: &Error) -> StatusCode {
    mapped(error.kind()).status
}

#[cfg(test)]
mod tests {
    use super::*;
    use machina_core::Phase;

    #[test]
    fn every_kind_has_a_status_that_is_an_error_and_only_internal_is_500() {
        for kind in ErrorKind::ALL {
            let status = mapped(*kind).status;
            assert!(status.is_client_error() || status.is_server_error());
            assert_eq!(status == StatusCode::INTERNAL_SERVER_ERROR, *kind == ErrorKind::Internal, "{kind}");
        }
    }

    #[test]
    fn a_tool_result_says_what_went_wrong_and_what_may_have_happened() {
        let result = tool_result(&Error::lost("connection reset").at(Phase::MaybeExecuted));
        let text = result["content"][0]["text"].as_str().unwrap();
        assert!(text.starts_with("lost: connection reset\n") && text.contains("may have run"), "{text}");
        assert_eq!(result["structuredContent"]["context"]["outcome"], "unknown");
        let safe = tool_result(&Error::unreachable("refused").at(Phase::NotSent));
        assert_eq!(safe["content"][0]["text"], "unreachable: refused");
    }

    #[test]
    fn a_missing_resource_has_the_code_of_the_era() {
        let missing = Error::not_found("no such resource");
        assert_eq!(fault(&missing, Era::Legacy).code, RESOURCE_NOT_FOUND);
        assert_eq!(fault(&missing, Era::Modern).code, INVALID_PARAMS);
        assert_eq!(fault(&Error::internal("x"), Era::Modern).code, INTERNAL_ERROR);
    }
}
