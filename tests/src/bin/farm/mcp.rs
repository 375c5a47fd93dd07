//! The protocol, of both eras, as far as a registry needs it. Knows nothing of
//! connections: it says what is asked, and what a good server would answer.

use std::time::Duration;

use machina_tests::farm::{Class, Cut};
use serde_json::{Map, Value, json};

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
/// The longest that a call may take, in milliseconds.
const MS_MAX: u64 = 600_000;

/// What a message asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Nothing that wants an answer.
    Nothing,
    /// A session of the older era; with its answer.
    Session(Value),
    /// Something that has this answer, within a session of the older era if `in_session`.
    Simple { answer: Value, status: u16, in_session: bool },
    /// A stream of changes, which begins with this event.
    Changes(Value),
    /// A call.
    Call(Call),
}

/// A call of a tool.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) class: Class,
    /// What names it, over all attempts.
    pub(crate) id: String,
    /// How long it takes.
    pub(crate) takes: Duration,
    pub(crate) cut: Option<Cut>,
    pub(crate) answer: Value,
    pub(crate) in_session: bool,
}

/// Which eras an instance speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Eras {
    pub(crate) legacy: bool,
    pub(crate) modern: bool,
}

/// What one instance says of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speaker {
    pub(crate) eras: Eras,
    /// Whether it announces changes of its tools.
    pub(crate) announces: bool,
}

impl Speaker {
    /// What `message` asks for; an error is the answer to a call that is none.
    pub(crate) fn asked(self, message: &Value, further: &[Value]) -> Asked {
        let (Some(id), Some(method)) = (message.get("id"), message["method"].as_str()) else { return Asked::Nothing };
        let params = message["params"].as_object().cloned().unwrap_or_default();
        let modern = params.get("_meta").is_some_and(|meta| meta["io.modelcontextprotocol/protocolVersion"] == MODERN);
        let result = |result: Value| {
            let answer = json!({"jsonrpc": "2.0", "id": id, "result": finished(result, modern, method)});
            Asked::Simple { answer, status: 200, in_session: !modern }
        };
        let error = |status: u16, code: i64, message: &str| {
            let answer = json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}});
            Asked::Simple { answer, status, in_session: false }
        };
        let spoken = if modern || method == "server/discover" { self.eras.modern } else { self.eras.legacy };
        if !spoken {
            return error(if modern { 404 } else { 400 }, -32601, "Method not found");
        }
        match method {
            "initialize" => Asked::Session(json!({"jsonrpc": "2.0", "id": id, "result": {
                "protocolVersion": LEGACY, "capabilities": self.capabilities(), "serverInfo": info()}})),
            "server/discover" => result(json!({"supportedVersions": [MODERN], "capabilities": self.capabilities()})),
            "ping" if !modern => result(json!({})),
            "tools/list" => {
                let tools: Vec<Value> = Class::ALL.into_iter().map(definition).chain(further.iter().cloned()).collect();
                result(json!({"tools": tools}))
            }
            "subscriptions/listen" if modern && self.announces => Asked::Changes(json!({
                "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {
                    "notifications": {"toolsListChanged": true},
                    "_meta": {"io.modelcontextprotocol/subscriptionId": id}}})),
            "tools/call" => match call(&params) {
                Ok((class, named, takes, cut)) => {
                    let text = json!({"content": [{"type": "text", "text": "done"}]});
                    let answer = json!({"jsonrpc": "2.0", "id": id, "result": finished(text, modern, method)});
                    Asked::Call(Call { class, id: named, takes, cut, answer, in_session: !modern })
                }
                Err(why) => error(200, -32602, &why),
            },
            _ => error(if modern { 404 } else { 200 }, -32601, "Method not found"),
        }
    }

    fn capabilities(self) -> Value {
        json!({"tools": {"listChanged": self.announces}})
    }
}

fn info() -> Value {
    json!({"name": "farm", "version": env!("CARGO_PKG_VERSION")})
}

/// A result with what every one of its era has.
fn finished(mut result: Value, modern: bool, method: &str) -> Value {
    if modern {
        result["resultType"] = json!("complete");
        result["_meta"] = json!({"io.modelcontextprotocol/serverInfo": info()});
        if method != "tools/call" {
            result["ttlMs"] = json!(600_000);
            result["cacheScope"] = json!("private");
        }
    }
    result
}

fn definition(class: Class) -> Value {
    json!({
        "name": class.tool(),
        "description": "Is counted, takes its time, and is done.",
        "inputSchema": {"type": "object", "required": ["id"], "properties": {
            "id": {"type": "string", "description": "Names the call over all attempts"},
            "ms": {"type": "integer", "minimum": 0, "description": "How long it takes"},
            "cut": {"type": "string", "description": "What becomes of the first attempt"},
            "load": {"type": "string", "description": "What makes the request longer"},
        }},
        "annotations": {
            "readOnlyHint": class == Class::ReadOnly,
            "idempotentHint": matches!(class, Class::ReadOnly | Class::Idempotent),
        },
    })
}

fn call(params: &Map<String, Value>) -> Result<(Class, String, Duration, Option<Cut>), String> {
    let tool = params.get("name").and_then(Value::as_str).unwrap_or_default();
    let class = Class::of_tool(tool).ok_or_else(|| format!("Unknown tool: {tool}"))?;
    let argument = |name: &str| params.get("arguments").and_then(|arguments| arguments.get(name));
    let id = argument("id").and_then(Value::as_str).ok_or("id must be a string")?.to_owned();
    let ms = argument("ms").and_then(Value::as_u64).unwrap_or_default().min(MS_MAX);
    let cut = argument("cut").and_then(Value::as_str).map(str::parse).transpose()?;
    Ok((class, id, Duration::from_millis(ms), cut))
}
