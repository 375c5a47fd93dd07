//! JSON-RPC 2.0 as a server hears and speaks it, as raw values. Refuses batches,
//! which MCP dropped, and ids that are neither a string nor an integer.

use machina_core::json::strict_from_slice;
use serde_json::{Map, Number, Value, json};

/// A JSON object.
pub(crate) type Object = Map<String, Value>;

/// The message is not JSON.
pub(crate) const PARSE_ERROR: i64 = -32700;
/// The message is no JSON-RPC request.
pub(crate) const INVALID_REQUEST: i64 = -32600;
/// There is no such method.
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters are wrong.
pub(crate) const INVALID_PARAMS: i64 = -32602;
/// The server failed.
pub(crate) const INTERNAL_ERROR: i64 = -32603;
/// The server cannot take the request now.
pub(crate) const SERVER_ERROR: i64 = -32000;
/// Until 2025-11-25: there is no such resource.
pub(crate) const RESOURCE_NOT_FOUND: i64 = -32002;
/// 2026-07-28: the headers do not match the body.
pub(crate) const HEADER_MISMATCH: i64 = -32020;
/// 2026-07-28: a capability that the client did not declare is required.
pub(crate) const MISSING_CAPABILITY: i64 = -32021;
/// 2026-07-28: the protocol version is not supported.
pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;

/// The id of a request, given back as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Id {
    Text(String),
    Whole(Number),
}

impl Id {
    /// An id, if `value` can be one.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Number(number) if !number.is_f64() => Some(Self::Whole(number.clone())),
            _ => None,
        }
    }

    /// The id as JSON.
    pub(crate) fn value(&self) -> Value {
        match self {
            Self::Text(text) => Value::String(text.clone()),
            Self::Whole(number) => Value::Number(number.clone()),
        }
    }
}

/// What wants an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) id: Id,
    pub(crate) method: String,
    pub(crate) params: Object,
}

impl Request {
    /// A member of the `_meta` of the parameters.
    pub(crate) fn meta(&self, key: &str) -> Option<&Value> {
        self.params.get("_meta")?.get(key)
    }
}

/// One message from a host.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Message {
    /// It wants an answer.
    Request(Request),
    /// It wants none.
    Notification { method: String, params: Object },
    /// An answer, although nothing was asked.
    Response,
}

/// The error that a request is answered with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Option<Box<Value>>,
    /// The request itself is malformed, not only unsuccessful: HTTP says 400.
    pub(crate) malformed: bool,
}

impl Fault {
    /// A fault of a well-formed request.
    pub(crate) fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None, malformed: false }
    }

    /// A fault of a malformed request.
    pub(crate) fn malformed(code: i64, message: impl Into<String>) -> Self {
        Self { malformed: true, ..Self::new(code, message) }
    }

    /// [`METHOD_NOT_FOUND`].
    pub(crate) fn no_method(method: &str) -> Self {
        Self::new(METHOD_NOT_FOUND, format!("there is no method `{}`", shown(method)))
    }
}

/// What cannot be taken as a message, and the id it is answered under.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rejected {
    pub(crate) id: Option<Id>,
    pub(crate) fault: Fault,
}

impl Message {
    /// The message in `bytes`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Rejected> {
        let reject = |id, code, why: String| Err(Rejected { id, fault: Fault::malformed(code, why) });
        let mut message = match strict_from_slice(bytes) {
            Ok(Value::Object(message)) => message,
            Ok(Value::Array(_)) => return reject(None, INVALID_REQUEST, "batches are not supported".to_owned()),
            Ok(_) => return reject(None, INVALID_REQUEST, "a message must be an object".to_owned()),
            Err(error) => return reject(None, PARSE_ERROR, format!("the message cannot be read as JSON: {error}")),
        };
        let raw_id = message.remove("id");
        let id = raw_id.as_ref().and_then(Id::of);
        if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return reject(id, INVALID_REQUEST, "`jsonrpc` must be \"2.0\"".to_owned());
        }
        let method = match message.remove("method") {
            Some(Value::String(method)) => method,
            None if message.contains_key("result") || message.contains_key("error") => return Ok(Self::Response),
            _ => return reject(id, INVALID_REQUEST, "`method` must be a string".to_owned()),
        };
        let params = match message.remove("params") {
            None => Object::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return reject(id, INVALID_PARAMS, "`params` must be an object".to_owned()),
        };
        match (raw_id, id) {
            (None, _) => Ok(Self::Notification { method, params }),
            (Some(_), Some(id)) => Ok(Self::Request(Request { id, method, params })),
            (Some(_), None) => reject(None, INVALID_REQUEST, "`id` must be a string or an integer".to_owned()),
        }
    }
}

/// The text of the answer to the request `id`.
pub(crate) fn answer(id: Option<&Id>, outcome: Result<Object, Fault>) -> String {
    let id = id.map_or(Value::Null, Id::value);
    match outcome {
        Ok(result) => {
            let text = serde_json::to_string(&result).expect("values have a JSON form");
            of_parts(&id, &[&text])
        }
        Err(Fault { code, message, data, .. }) => {
            let mut error = json!({"code": code, "message": message});
            if let Some(data) = data {
                error["data"] = *data;
            }
            json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string()
        }
    }
}

/// The same, where the text of the result is there already, in parts.
pub(crate) fn answer_of_parts(id: &Id, result: &[&str]) -> String {
    of_parts(&id.value(), result)
}

fn of_parts(id: &Value, result: &[&str]) -> String {
    let id = id.to_string();
    let (before, after) = (r#"{"jsonrpc":"2.0","id":"#, r#","result":"#);
    let length = result.iter().map(|part| part.len()).sum::<usize>() + before.len() + id.len() + after.len() + 1;
    let mut text = String::with_capacity(length);
    for part in [before, &id, after].iter().chain(result).chain(&["}"]) {
        text.push_str(part);
    }
    text
}

/// The text of a notification.
pub(crate) fn notification(method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()
}

/// Whether answering a request of this method may take its time; the others are
/// answered from a snapshot.
pub(crate) fn may_wait(method: &str) -> bool {
    !matches!(
        method,
        "initialize"
            | "server/discover"
            | "ping"
            | "tools/list"
            | "prompts/list"
            | "resources/list"
            | "resources/templates/list"
    )
}

/// Text of a caller, short and printable enough to be quoted in a message.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    let cut: String = text.chars().take(SHOWN_MAX).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{}{more}", cut.escape_debug())
}

/// The members of an object; none, if `value` is something else.
pub(crate) fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(text: &str) -> (i64, Option<Id>) {
        let rejected = Message::parse(text.as_bytes()).unwrap_err();
        (rejected.fault.code, rejected.id)
    }

    #[test]
    fn tells_requests_notifications_and_responses_apart() {
        let parse = |text: &str| Message::parse(text.as_bytes()).unwrap();
        let Message::Request(request) = parse(r#"{"jsonrpc":"2.0","id":"a","method":"m","params":{"_meta":{"k":1}}}"#)
        else {
            panic!("not a request");
        };
        assert_eq!((request.method.as_str(), request.meta("k")), ("m", Some(&json!(1))));
        assert_eq!(
            parse(r#"{"jsonrpc":"2.0","method":"n"}"#),
            Message::Notification { method: "n".into(), params: Object::new() }
        );
        assert_eq!(parse(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), Message::Response);
    }

    #[test]
    fn what_is_no_message_says_why_under_its_id() {
        let id = Id::of(&json!(7));
        assert_eq!(code_of("{"), (PARSE_ERROR, None));
        assert_eq!(code_of(r#"{"jsonrpc":"2.0","id":7,"method":"m","id":8}"#), (PARSE_ERROR, None));
        assert_eq!(
            code_of(r#"{"jsonrpc":"2.0","id":7,"method":"m","params":{"a":[{"b":1,"b":1}]}}"#),
            (PARSE_ERROR, None)
        );
        assert_eq!(code_of("[]"), (INVALID_REQUEST, None));
        assert_eq!(code_of("7"), (INVALID_REQUEST, None));
        assert_eq!(code_of(r#"{"id":7,"method":"m"}"#), (INVALID_REQUEST, id.clone()));
        assert_eq!(code_of(r#"{"jsonrpc":"2.0","id":7}"#), (INVALID_REQUEST, id.clone()));
        assert_eq!(code_of(r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#), (INVALID_REQUEST, None));
        assert_eq!(code_of(r#"{"jsonrpc":"2.0","id":1.5,"method":"m"}"#), (INVALID_REQUEST, None));
        assert_eq!(code_of(r#"{"jsonrpc":"2.0","id":7,"method":"m","params":[]}"#), (INVALID_PARAMS, id));
    }

    #[test]
    fn an_answer_gives_the_id_back_and_keeps_key_order() {
        let id = Id::of(&json!("x"));
        let result = object(json!({"z": 1, "a": 2}));
        assert_eq!(answer(id.as_ref(), Ok(result)), r#"{"jsonrpc":"2.0","id":"x","result":{"z":1,"a":2}}"#);
        let fault = Fault::no_method("a\nb");
        assert!(answer(None, Err(fault)).contains(r#""id":null,"error":{"code":-32601"#));
    }
}
