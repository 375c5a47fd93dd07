//! `Mcp-Param-*`: arguments that a tool of the stateless era wants repeated in
//! HTTP headers, marked `x-mcp-header` in its input schema. Refuses nothing by
//! itself: an argument that does not fit into a header is left to the server.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::wire::Object;

/// How deep a schema is searched for marks.
const DEPTH_MAX: usize = 16;

/// The keyword in a schema.
const MARK: &str = "x-mcp-header";

/// One argument that goes into a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParamHeader {
    path: Vec<String>,
    header: String,
}

impl ParamHeader {
    /// The name of the header.
    pub(crate) fn header(&self) -> &str {
        &self.header
    }

    /// The argument, if it is there and a header can carry it.
    pub(crate) fn argument<'a>(&self, arguments: &'a Object) -> Option<&'a Value> {
        let (first, rest) = self.path.split_first()?;
        let argument = rest.iter().try_fold(arguments.get(first)?, |value, key| value.get(key))?;
        matches!(argument, Value::String(_) | Value::Bool(_) | Value::Number(_)).then_some(argument)
    }
}

/// The marks of an input schema: those on properties, and on properties of properties.
pub(crate) fn of_schema(schema: &Value) -> Vec<ParamHeader> {
    let mut found = Vec::new();
    collect(schema, &mut Vec::new(), &mut found);
    found
}

/// The same of a schema in JSON, which is parsed only if it may have any.
pub(crate) fn of_schema_text(schema: &str) -> Vec<ParamHeader> {
    if schema.contains(MARK) { of_schema(&serde_json::from_str(schema).unwrap_or_default()) } else { Vec::new() }
}

fn collect(schema: &Value, path: &mut Vec<String>, found: &mut Vec<ParamHeader>) {
    let Some(properties) = schema["properties"].as_object().filter(|_| path.len() < DEPTH_MAX) else { return };
    for (name, property) in properties {
        path.push(name.clone());
        if let Some(header) = property[MARK].as_str().filter(|header| !header.is_empty()) {
            found.push(ParamHeader { path: path.clone(), header: format!("Mcp-Param-{header}") });
        }
        collect(property, path, found);
        path.pop();
    }
}

/// The headers for these arguments; absent and composite ones have none.
pub(crate) fn values(headers: &[ParamHeader], arguments: &Object) -> Vec<(String, String)> {
    headers
        .iter()
        .filter_map(|marked| {
            let argument = marked.argument(arguments)?;
            let text = argument.as_str().map_or_else(|| encoded(&argument.to_string()), encoded);
            Some((marked.header.clone(), text))
        })
        .collect()
}

/// The header `Mcp-Name` of a request, for the methods that have one.
pub(crate) fn name_of(method: &str, params: &Object) -> Option<String> {
    let key = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return None,
    };
    params.get(key)?.as_str().map(encoded)
}

/// Text as a header carries it: as it is, or in base64 where it could not survive.
fn encoded(text: &str) -> String {
    let fits = text.bytes().all(|b| (0x20..=0x7e).contains(&b)) && text.trim_matches([' ', '\t']) == text;
    let looks_encoded = text.starts_with("=?base64?") && text.ends_with("?=");
    if fits && !looks_encoded {
        return text.to_owned();
    }
    format!("=?base64?{}?=", BASE64_STANDARD.encode(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn marked_arguments_become_headers() {
        let schema = json!({"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "plain": {"type": "string"},
            "deep": {"properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
            "items": {"items": {"properties": {"no": {"x-mcp-header": "No"}}}},
        }});
        let headers = of_schema(&schema);
        let Value::Object(arguments) = json!({"region": "eu", "plain": "x", "deep": {"n": 7}}) else { panic!() };
        let want = [("Mcp-Param-Region", "eu"), ("Mcp-Param-N", "7")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(values(&headers, &arguments), want);
        assert_eq!(values(&headers, &Object::new()), []);
    }

    #[test]
    fn what_a_header_cannot_carry_is_encoded() {
        assert_eq!(encoded("plain text"), "plain text");
        assert_eq!(encoded(""), "");
        assert_eq!(encoded("grün"), "=?base64?Z3LDvG4=?=");
        assert_eq!(encoded(" led"), "=?base64?IGxlZA==?=");
        assert_eq!(encoded("=?base64?eA==?="), "=?base64?PT9iYXNlNjQ/ZUE9PT89?=");
    }

    #[test]
    fn the_name_of_a_request_depends_on_its_method() {
        let Value::Object(params) = json!({"name": "t", "uri": "u"}) else { panic!() };
        assert_eq!(name_of("tools/call", &params).as_deref(), Some("t"));
        assert_eq!(name_of("resources/read", &params).as_deref(), Some("u"));
        assert_eq!(name_of("tools/list", &params), None);
    }
}
