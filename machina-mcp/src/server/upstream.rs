//! What goes to services and comes back: calls of tools, and requests for what
//! they publish besides. Adds what MCP says of an error, and judges no answer.

use machina_core::{CallOptions, Error, Result, Router, Scoped, ServiceName, ToolCall, UpstreamRequest};
use serde_json::Value;

use super::logging::signed;
use super::rpc::{METHOD_NOT_FOUND, Object, Request};

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
/// Whatever the facade says.
pub(super) async fn carry(scoped: &Scoped, call: &ToolCall, options: &CallOptions) -> Result<Object> {
    let options = &*signed(options, &call.service);
    let report = scoped.call(call, options).await.map_err(|error| explained(scoped, call, error))?;
    Ok(report.annotated().0)
}

/// Asks a service for something that it publishes.
///
/// # Errors
/// Whatever the facade says.
pub(super) async fn ask(
    scoped: &Scoped,
    service: &ServiceName,
    request: &UpstreamRequest,
    options: &CallOptions,
) -> Result<Object> {
    scoped.request(service.as_str(), request, &signed(options, service)).await
}

/// The error of a call, with what the definition of the tool says about it.
fn explained(scoped: &Scoped, call: &ToolCall, error: Error) -> Error {
    if error.context().upstream_code != Some(METHOD_NOT_FOUND) {
        return error;
    }
    let view = scoped.service(call.service.as_str());
    let definition = view.as_ref().ok().and_then(|view| view.tool(call.tool.as_str()));
    match definition.map(|offered| offered.tool.definition()["execution"]["taskSupport"].take()) {
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
}
