//! How an [`Error`] looks to a host. [`mapped`] is the one table; the rest of
//! this file only dresses it.

use http::StatusCode;
use machina_core::{Era, Error, ErrorKind, Outcome};
use serde_json::{Value, json};

use super::rpc::{
    Fault, INTERNAL_ERROR, INVALID_PARAMS, MISSING_CAPABILITY, Object, RESOURCE_NOT_FOUND, SERVER_ERROR, object,
};

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
    let mut result = told(error, mapped(error.kind()).advice);
    result.insert("structuredContent".to_owned(), details(error));
    result.insert("isError".to_owned(), true.into());
    result
}

/// The same for a tool of a service: what structured content it may have is for
/// its own output schema to say, so the error goes into `_meta`. The tools that
/// advice names are not there. That the service wants a capability which hosts
/// declare is for the program and not for the model: a fault.
pub(crate) fn upstream_result(error: &Error, era: Era) -> Result<Object, Fault> {
    if let Some(fault) = lacking(error, era) {
        return Err(fault);
    }
    let mut result = told(error, "");
    result.insert("_meta".to_owned(), json!({ "dev.machina/error": details(error) }));
    result.insert("isError".to_owned(), true.into());
    Ok(result)
}

fn told(error: &Error, advice: &str) -> Object {
    let uncertain = error.context().outcome == Some(Outcome::Unknown);
    let more = if uncertain { "The tool may have run: repeat the call only if that does no harm." } else { advice };
    let text = [&*error.to_string(), more].join("\n");
    object(json!({"content": [{"type": "text", "text": text.trim_end()}]}))
}

fn details(error: &Error) -> Value {
    json!({"code": error.kind().code(), "message": error.message(), "context": error.context()})
}

/// The JSON-RPC error of a request that is no tool call.
pub(crate) fn fault(error: &Error, era: Era) -> Fault {
    if let Some(fault) = lacking(error, era) {
        return fault;
    }
    let code = match (error.kind(), era) {
        (ErrorKind::NotFound, Era::Legacy) => RESOURCE_NOT_FOUND,
        (ErrorKind::Rejected, _) => upstream_code(error, era).unwrap_or(SERVER_ERROR),
        (kind, _) => mapped(kind).code,
    };
    let data = json!({"code": error.kind().code(), "context": error.context()});
    Fault { data: Some(Box::new(data)), ..Fault::new(code, error.message()) }
}

/// The fault of a request that its service refuses because a capability of the
/// host is missing, in the words of the service: which one, is in its data.
fn lacking(error: &Error, era: Era) -> Option<Fault> {
    let context = error.context();
    let missing = era == Era::Modern && context.upstream_code == Some(MISSING_CAPABILITY);
    let fault = || Fault {
        data: context.upstream_data.clone().filter(Value::is_object).map(Box::new),
        ..Fault::malformed(MISSING_CAPABILITY, error.message())
    };
    missing.then(fault)
}

/// What the upstream said, where it is about what was asked for and not about
/// the protocol between it and Machina.
fn upstream_code(error: &Error, era: Era) -> Option<i64> {
    match (error.context().upstream_code?, era) {
        (RESOURCE_NOT_FOUND, Era::Modern) => Some(INVALID_PARAMS),
        (code @ (RESOURCE_NOT_FOUND | INVALID_PARAMS | INTERNAL_ERROR), _) => Some(code),
        _ => None,
    }
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

    #[test]
    fn an_upstreams_own_code_is_passed_on_where_it_is_about_the_request() {
        let of = |code, era| {
            let error = Error::rejected("no").with(|context| context.upstream_code = Some(code));
            fault(&error, era).code
        };
        assert_eq!((of(-32602, Era::Legacy), of(-32603, Era::Modern)), (-32602, -32603));
        assert_eq!((of(-32002, Era::Legacy), of(-32002, Era::Modern)), (-32002, -32602));
        assert_eq!((of(-32601, Era::Modern), of(-32022, Era::Modern)), (SERVER_ERROR, SERVER_ERROR));
    }

    #[test]
    fn a_capability_that_is_missing_is_a_fault_in_the_stateless_era_only() {
        let data = json!({"requiredCapabilities": {"sampling": {}}});
        let of = |data: Option<Value>| {
            Error::rejected("no sampling").with(|context| {
                context.upstream_code = Some(MISSING_CAPABILITY);
                context.upstream_data = data;
            })
        };
        let error = of(Some(data.clone()));
        for told in [fault(&error, Era::Modern), upstream_result(&error, Era::Modern).unwrap_err()] {
            assert_eq!((told.code, told.malformed), (MISSING_CAPABILITY, true));
            assert_eq!(told.data.as_deref(), Some(&data));
        }
        assert_eq!(fault(&of(Some(json!("odd"))), Era::Modern).data, None);
        assert_eq!(upstream_result(&error, Era::Legacy).unwrap()["isError"], true);
        assert_eq!(fault(&error, Era::Legacy).code, SERVER_ERROR);
        let other = of(None).with(|context| context.upstream_code = Some(INVALID_PARAMS));
        assert!(upstream_result(&other, Era::Modern).is_ok(), "an error of the tool is for the model");
    }

    #[test]
    fn advice_is_given_where_the_tools_are_that_it_names() {
        let missing = Error::not_found("no such tool");
        assert!(tool_result(&missing)["content"][0]["text"].as_str().unwrap().contains("find_tool"));
        let flat = upstream_result(&missing, Era::Modern).unwrap();
        assert_eq!(flat["content"][0]["text"], "not_found: no such tool");
        assert_eq!(
            (&flat["_meta"]["dev.machina/error"]["code"], flat.get("structuredContent")),
            (&json!("not_found"), None)
        );
    }
}
