//! What goes to services and comes back: calls of tools, and requests for what
//! they publish besides. Refuses an answer that is not the result which was
//! asked for: Machina tells services that it can neither ask a person nor follow
//! a task, so one that does not care breaks the protocol.

use machina_core::{CallOptions, Error, Outcome, Result, Router, Scoped, ServiceName, ToolCall, UpstreamRequest};
use serde_json::Value;

use super::logging::signed;
use super::rpc::{METHOD_NOT_FOUND, Object, Request, shown};

/// The keys in `_meta` that carry the context of a trace (W3C Trace Context and
/// Baggage), and how long a value of each may be.
const TRACE: [(&str, usize); 3] = [("traceparent", 512), ("tracestate", 2048), ("baggage", 8192)];

/// The trace context of a request, for the `_meta` of what it leads to.
pub(super) fn trace(request: &Request) -> Object {
    let fitting = |(key, most): (&str, usize)| {
        let value = request.meta(key)?.as_str().filter(|value| value.len() <= most)?;
        Some((key.to_owned(), Value::from(value)))
    };
    TRACE.into_iter().filter_map(fitting).collect()
}

/// Carries a call to a service; the result is the upstream's own.
///
/// # Errors
/// Whatever the facade says; [`Rejected`](machina_core::ErrorKind::Rejected) for
/// an answer that is no result.
pub(super) async fn carry(scoped: &Scoped, call: &ToolCall, options: &CallOptions) -> Result<Object> {
    let of_call = |error: Error| {
        error.with(|context| {
            context.service = Some(call.service.to_string());
            context.tool = Some(call.tool.to_string());
        })
    };
    let options = &*signed(options, &call.service);
    let report = scoped.call(call, options).await.map_err(|error| explained(scoped, call, error))?;
    let (instance, attempts) = (report.instance, report.attempts.len());
    let result = complete(report.annotated().0, call.tool.as_str()).map_err(|error| {
        of_call(error).with(|context| {
            context.instance = Some(instance.to_string());
            context.attempts = u32::try_from(attempts).ok();
        })
    })?;
    Ok(result)
}

/// Asks a service for something that it publishes.
///
/// # Errors
/// As [`carry`].
pub(super) async fn ask(
    scoped: &Scoped,
    service: &ServiceName,
    request: &UpstreamRequest,
    options: &CallOptions,
) -> Result<Object> {
    let options = &*signed(options, service);
    let result = match scoped.request(service.as_str(), request, options).await? {
        Value::Object(result) => complete(result, &request.method),
        _ => Err(Error::rejected(format!("the answer to {} is not an object", request.method))),
    };
    result.map_err(|error| error.with(|context| context.service = Some(service.to_string())))
}

/// `result`, unless it is something else than the result of `what`.
fn complete(result: Object, what: &str) -> Result<Object> {
    let instead = match result.get("resultType").and_then(Value::as_str) {
        Some("complete") => return Ok(result),
        Some("input_required") => {
            "asks for input (`input_required`), which Machina told it that it cannot give".to_owned()
        }
        Some("task") => "began a task, which Machina told it that it cannot follow".to_owned(),
        Some(other) => format!("is of the type `{}`, which Machina does not know", shown(other)),
        // The older era has no types; a task is told by its handle.
        None if result.contains_key("content")
            || !result.get("task").is_some_and(|task| task["taskId"].is_string()) =>
        {
            return Ok(result);
        }
        None => "began a task, which Machina told it that it cannot follow".to_owned(),
    };
    let error = Error::rejected(format!("the answer to `{}` is no result: it {instead}", shown(what)));
    // It was sent and taken; what has been done, and what still will be, nobody says.
    Err(error.with(|context| context.outcome = Some(Outcome::Unknown)))
}

/// The error of a call, with what the definition of the tool says about it.
fn explained(scoped: &Scoped, call: &ToolCall, error: Error) -> Error {
    if error.context().upstream_code != Some(METHOD_NOT_FOUND) {
        return error;
    }
    let view = scoped.service(call.service.as_str());
    let definition = view.as_ref().ok().and_then(|view| view.tool(call.tool.as_str()));
    match definition.map(|offered| &offered.tool.definition()["execution"]["taskSupport"]) {
        Some(support) if support == "required" => {
            let message =
                format!("`{}` runs as a task only, and Machina carries no tasks: {}", call.tool, error.message());
            Error::new(error.kind(), message).with(|context| *context = error.context().clone())
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::rpc::{Id, object};
    use serde_json::json;

    #[test]
    fn the_context_of_a_trace_is_taken_out_of_what_a_host_says() {
        let of = |meta: Value| {
            let id = Id::of(&json!(1)).unwrap();
            trace(&Request { id, method: "tools/call".to_owned(), params: object(json!({"_meta": meta})) })
        };
        let all = json!({"traceparent": "00-a-b-01", "tracestate": "x=1", "baggage": "k=v"});
        assert_eq!(Value::Object(of(all.clone())), all);
        let mut more = all.clone();
        more["progressToken"] = json!(7);
        more["com.example/secret"] = json!("s");
        assert_eq!(Value::Object(of(more)), all);
        assert_eq!(of(json!({"traceparent": 7, "baggage": "x".repeat(8193)})), Object::new());
        assert_eq!(of(json!("odd")), Object::new());
    }

    #[test]
    fn only_a_result_passes_for_one() {
        for result in [
            json!({"content": []}),
            json!({"resultType": "complete"}),
            json!({"messages": []}),
            json!({"content": [], "task": {"taskId": "a word of the tool"}}),
            json!({"task": "a word of the server"}),
        ] {
            assert_eq!(complete(object(result.clone()), "t").unwrap(), object(result));
        }
        for (result, said) in [
            (json!({"resultType": "input_required", "inputRequests": {}, "requestState": "s"}), "asks for input"),
            (json!({"resultType": "task", "taskId": "1"}), "began a task"),
            (json!({"resultType": "hologram", "content": []}), "`hologram`"),
            (json!({"task": {"taskId": "1", "status": "working"}}), "began a task"),
        ] {
            let error = complete(object(result), "t").unwrap_err();
            assert_eq!((error.kind().code(), error.context().outcome), ("rejected", Some(Outcome::Unknown)));
            assert!(error.message().contains(said), "{error}");
        }
    }
}
