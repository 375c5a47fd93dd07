//! JSON-RPC 2.0 as raw values: what a server wrote is kept as it is, unknown
//! fields and key order included. Refuses to interpret results; that is the
//! caller's part.

use machina_core::json::strict_from_slice;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A JSON object.
pub(crate) type Object = Map<String, Value>;

/// JSON-RPC: there is no such method.
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
/// MCP 2026-07-28: the headers do not match the body.
pub(crate) const HEADER_MISMATCH: i64 = -32020;
/// MCP 2026-07-28: a client capability that was not declared is required.
pub(crate) const MISSING_CAPABILITY: i64 = -32021;
/// MCP 2026-07-28: the protocol version is not supported.
pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;

/// A notification that carries a line of a server's log.
pub(crate) const LOG_MESSAGE: &str = "notifications/message";

/// The error member of a response.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RpcError {
    /// The JSON-RPC code; 0 if the server sent none.
    pub(crate) code: i64,
    /// What the server says went wrong.
    pub(crate) message: String,
    /// What it adds for programs.
    pub(crate) data: Option<Value>,
    /// Whether it is ours: the answer came, and is not one that may be read.
    pub(crate) unreadable: bool,
}

/// One message from a server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Incoming {
    /// The answer to a request of ours. `id` is `None` if the server could not read the id.
    Response { id: Option<u64>, outcome: Result<Value, RpcError> },
    /// A request that we must answer under the same `id`.
    Request { id: Value, method: String },
    /// A message that wants no answer.
    Notification { method: String, params: Value },
}

impl Incoming {
    /// The messages in `bytes`: one, or those of a batch. Empty if it is not JSON-RPC 2.0.
    pub(crate) fn parse(bytes: &[u8]) -> Vec<Self> {
        match strict_from_slice(bytes) {
            Ok(Value::Array(batch)) => batch.into_iter().filter_map(Self::from_value).collect(),
            Ok(value) => Self::from_value(value).into_iter().collect(),
            Err(why) => Self::unreadable(bytes, &why).into_iter().collect(),
        }
    }

    /// The failure that an answer stands for which has a key twice or is nested too
    /// deep: whoever waits for it is told at once, not when its time is up.
    fn unreadable(bytes: &[u8], why: &serde_json::Error) -> Option<Self> {
        #[derive(Deserialize)]
        struct Head {
            jsonrpc: String,
            id: Value,
            method: Option<IgnoredAny>,
        }
        let head: Head = serde_json::from_slice(bytes).ok()?;
        let outcome = Err(RpcError { code: 0, message: why.to_string(), data: None, unreadable: true });
        let is_answer = head.jsonrpc == "2.0" && head.method.is_none();
        is_answer.then(|| Self::Response { id: our_id(&head.id), outcome })
    }

    fn from_value(value: Value) -> Option<Self> {
        let Value::Object(mut message) = value else { return None };
        if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return None;
        }
        let id = message.remove("id");
        if let Some(Value::String(method)) = message.remove("method") {
            let params = message.remove("params").unwrap_or(Value::Null);
            return Some(match id {
                Some(id) if !id.is_null() => Self::Request { id, method },
                _ => Self::Notification { method, params },
            });
        }
        let id = id.as_ref().and_then(our_id);
        if let Some(error) = message.remove("error").filter(|e| !e.is_null()) {
            return Some(Self::Response { id, outcome: Err(RpcError::from_value(error)) });
        }
        message.remove("result").map(|result| Self::Response { id, outcome: Ok(result) })
    }
}

impl RpcError {
    fn from_value(mut error: Value) -> Self {
        let message = match error.get("message") {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => "the server gave no message".to_owned(),
        };
        let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
        let data = error.get_mut("data").map(Value::take).filter(|data| !data.is_null());
        Self { code, message, data, unreadable: false }
    }
}

/// The id of a request of ours, which some servers give back as a string.
fn our_id(id: &Value) -> Option<u64> {
    id.as_u64().or_else(|| id.as_str()?.parse().ok())
}

/// The bytes of a request.
pub(crate) fn request(id: u64, method: &str, params: &Object) -> Vec<u8> {
    encode(&Outgoing { jsonrpc: "2.0", id: Some(id), method, params })
}

/// The bytes of a notification.
pub(crate) fn notification(method: &str, params: &Object) -> Vec<u8> {
    encode(&Outgoing { jsonrpc: "2.0", id: None, method, params })
}

/// The bytes of `notifications/cancelled` for the request `id`.
pub(crate) fn cancellation(id: u64, params: &Object) -> Vec<u8> {
    let mut params = params.clone();
    params.insert("requestId".into(), id.into());
    params.insert("reason".into(), "the caller no longer waits".into());
    notification("notifications/cancelled", &params)
}

/// The answer to a request of a server. Machina has no roots, cannot sample and
/// cannot ask a person: whatever needs that is an unknown method.
pub(crate) fn reply(id: &Value, method: &str) -> Vec<u8> {
    match method {
        "ping" => encode(&json!({"jsonrpc": "2.0", "id": id, "result": {}})),
        "roots/list" => encode(&json!({"jsonrpc": "2.0", "id": id, "result": {"roots": []}})),
        _ => encode(&json!({"jsonrpc": "2.0", "id": id, "error": {
            "code": METHOD_NOT_FOUND, "message": "Method not found"}})),
    }
}

/// Whether a notification says that a list has changed.
pub(crate) fn is_change(method: &str) -> bool {
    matches!(
        method,
        "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed"
    )
}

/// A request or a notification of ours.
#[derive(Serialize)]
struct Outgoing<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    method: &'a str,
    params: &'a Object,
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("values have a JSON form")
}

/// The id of the answer that an over-long line carries, read from its first and
/// last bytes: the two orders in which the common SDKs write a response.
pub(crate) fn id_of_truncated(head: &[u8], tail: &[u8]) -> Option<u64> {
    let squeeze =
        |bytes: &[u8]| -> String { String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_whitespace()).collect() };
    let (head, tail) = (squeeze(head), squeeze(tail));
    let leading = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    if let Some(rest) = head.strip_prefix(r#"{"jsonrpc":"2.0","id":"#).or_else(|| head.strip_prefix(r#"{"id":"#)) {
        return leading(rest).parse().ok();
    }
    let body = tail.strip_suffix(r#","jsonrpc":"2.0"}"#).or_else(|| tail.strip_suffix('}'))?;
    body.rsplit_once(r#""id":"#)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_unknown_fields_and_key_order_of_a_result() {
        let text = r#"{"jsonrpc":"2.0","id":7,"result":{"z":1,"a":{"y":2,"b":3}}}"#;
        let [Incoming::Response { id: Some(7), outcome: Ok(result) }] = &Incoming::parse(text.as_bytes())[..] else {
            panic!("not a response");
        };
        assert_eq!(result.to_string(), r#"{"z":1,"a":{"y":2,"b":3}}"#);
    }

    #[test]
    fn what_is_not_json_rpc_is_no_message() {
        for junk in [
            "",
            "hello",
            "42",
            "null",
            "[]",
            r#"{"level":"info","msg":"up"}"#,
            r#"{"jsonrpc":"1.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0"}"#,
            "\u{1b}[31mred",
        ] {
            assert_eq!(Incoming::parse(junk.as_bytes()), [], "{junk}");
        }
    }

    #[test]
    fn an_answer_with_a_key_twice_or_too_deep_is_a_failure_of_its_request() {
        let deep = format!(r#"{{"jsonrpc":"2.0","id":4,"result":{}{}}}"#, "[".repeat(65), "]".repeat(65));
        let deeper = format!(r#"{{"result":{}{},"jsonrpc":"2.0","id":4}}"#, "[".repeat(100_000), "]".repeat(100_000));
        for (text, why) in [
            (r#"{"jsonrpc":"2.0","id":4,"result":{"isError":false,"isError":true}}"#, "`isError` is there twice"),
            (r#"{"jsonrpc":"2.0","id":"4","error":{"code":1,"\u0063ode":2}}"#, "`code` is there twice"),
            (r#"{"jsonrpc":"2.0","id":4,"result":{},"result":[]}"#, "`result` is there twice"),
            (&deep, "more than 64 deep"),
            (&deeper, "more than 64 deep"),
        ] {
            let [Incoming::Response { id: Some(4), outcome: Err(error) }] = &Incoming::parse(text.as_bytes())[..]
            else {
                panic!("no failure: {text:.80}");
            };
            assert!(error.unreadable && error.message.contains(why), "{error:?}");
        }
        for junk in [
            r#"{"jsonrpc":"2.0","id":4,"id":5,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":4,"method":"ping","params":{"a":1,"a":2}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"a":1,"a":2}}"#,
            r#"{"a":1,"a":2}"#,
        ] {
            assert_eq!(Incoming::parse(junk.as_bytes()), [], "{junk}");
        }
    }

    #[test]
    fn tells_the_kinds_apart() {
        let parse = |text: &str| Incoming::parse(text.as_bytes());
        assert_eq!(
            parse(r#"{"jsonrpc":"2.0","id":"s1","method":"roots/list"}"#),
            [Incoming::Request { id: json!("s1"), method: "roots/list".into() }]
        );
        assert_eq!(
            parse(r#"{"jsonrpc":"2.0","method":"n","params":{"a":1}}"#),
            [Incoming::Notification { method: "n".into(), params: json!({"a": 1}) }]
        );
        assert_eq!(
            parse(
                r#"[{"jsonrpc":"2.0","id":"3","error":{"code":-32602,"message":"no","data":[1]}},{"jsonrpc":"2.0","id":null,"error":{}}]"#
            ),
            [
                Incoming::Response {
                    id: Some(3),
                    outcome: Err(RpcError {
                        code: -32602,
                        message: "no".into(),
                        data: Some(json!([1])),
                        unreadable: false
                    })
                },
                Incoming::Response {
                    id: None,
                    outcome: Err(RpcError {
                        code: 0,
                        message: "the server gave no message".into(),
                        data: None,
                        unreadable: false
                    })
                },
            ]
        );
    }

    #[test]
    fn answers_only_what_machina_can_do() {
        let answer = |method| -> Value { serde_json::from_slice(&reply(&json!("x"), method)).unwrap() };
        assert_eq!(answer("ping")["result"], json!({}));
        assert_eq!(answer("roots/list")["result"], json!({"roots": []}));
        for method in ["sampling/createMessage", "elicitation/create", "log"] {
            assert_eq!(answer(method)["error"]["code"], METHOD_NOT_FOUND);
            assert_eq!(answer(method)["id"], "x");
        }
    }

    #[test]
    fn finds_the_id_of_an_answer_that_was_too_long() {
        assert_eq!(id_of_truncated(br#"{"jsonrpc": "2.0", "id": 12, "result": {"#, b"}}"), Some(12));
        assert_eq!(id_of_truncated(br#"{"result":{"content":"#, br#"]},"jsonrpc":"2.0","id":34}"#), Some(34));
        assert_eq!(id_of_truncated(b"xxxxxxxx", b"yyyyyyy"), None);
        assert_eq!(id_of_truncated(br#"{"result":{"#, br#""id":"abc"}"#), None);
    }
}
