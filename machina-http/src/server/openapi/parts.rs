//! What operations refer to: parameters, headers, and small schemas.

use serde_json::{Map, Value, json};

pub(super) fn text() -> Value {
    json!({"type": "string"})
}

pub(super) fn number(least: u32, most: u32, default: Option<u32>) -> Value {
    let mut schema = json!({"type": "integer", "minimum": least, "maximum": most});
    if let Some(default) = default {
        schema["default"] = default.into();
    }
    schema
}

/// A duration such as `30s`.
pub(super) fn duration(example: &str) -> Value {
    json!({"type": "string", "examples": [example]})
}

/// Parameters that several operations have, by name.
pub(super) fn parameters() -> Map<String, Value> {
    let key = json!({"type": "string", "pattern": "^[!-~]{1,255}$"});
    let parameters = [
        ("service", "path", "Its name or its id; a slash in a name is written `%2F`", text()),
        ("instance", "path", "The id of the instance", text()),
        ("group", "path", "The name of the group", text()),
        ("tool", "path", "The name of the tool", text()),
        ("cursor", "query", "`next_cursor` of the page before, with the same filters", text()),
        (
            "If-Match",
            "header",
            "The `ETag` of an earlier answer, such as `\"7.5d20f1c3\"`: only at that revision",
            text(),
        ),
        ("If-None-Match", "header", "The `ETag` of an earlier answer: only if it is another now", text()),
        (
            "Idempotency-Key",
            "header",
            "Makes it safe to send the request again: a new one for each request, such as a UUID",
            key,
        ),
        ("Last-Event-ID", "header", "The id of the last event that was read; counts before `since`", text()),
    ];
    let described = parameters.map(|(name, place, description, schema)| {
        let parameter = json!({"name": name, "in": place, "required": place == "path", "description": description,
            "schema": schema});
        (name.to_owned(), parameter)
    });
    described.into_iter().collect()
}

/// Headers of answers, by name.
pub(super) fn headers() -> Map<String, Value> {
    let number = || json!({"type": "integer", "minimum": 0});
    let headers = [
        ("X-Request-Id", "The id of the request: that which it brought, or a new one", text()),
        ("ETag", "`\"<revision>.<hash>\"`, for `If-Match` and `If-None-Match`", text()),
        ("X-Machina-Revision", "The revision that the answer stands at", number()),
        ("Location", "Where it is", text()),
        ("Link", "The next page, `rel=\"next\"`", text()),
        ("Retry-After", "When to come back, in seconds", number()),
        ("Idempotency-Replayed", "`true` if this is the answer to an earlier request with the same key", text()),
        ("Content-Encoding", "`gzip`", text()),
        ("Content-Security-Policy", "Nothing from elsewhere", text()),
    ];
    let described = headers
        .map(|(name, description, schema)| (name.to_owned(), json!({"description": description, "schema": schema})));
    described.into_iter().collect()
}
