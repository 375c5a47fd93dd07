//! Tools: what a server publishes, what a caller sends, and what comes back.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::arguments::ArgumentSchema;
use super::name::{ServiceName, Tag, ToolName};
use super::suspicious::suspicious;
use crate::error::{Error, Result};

/// The largest tool definition that is accepted, in bytes of JSON.
const DEFINITION_BYTES_MAX: usize = 64 * 1024;

/// One tool as its server publishes it. The definition is kept whole: unknown
/// fields and the order of keys survive.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tool {
    name: ToolName,
    /// Hex SHA-256 of the definition in canonical form.
    hash: String,
    /// The definition, word for word.
    definition: Value,
    #[serde(skip)]
    arguments: ArgumentSchema,
    #[serde(skip)]
    suspicious: Vec<String>,
}

/// What a server says about a tool's effects. Hints: only to be believed where
/// the operator says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ToolHints {
    /// The tool changes nothing.
    pub read_only: bool,
    /// Calling it twice has the effect of calling it once.
    pub idempotent: bool,
}

impl Tool {
    /// Checks one entry of a server's `tools/list`.
    ///
    /// The hash is SHA-256 over the RFC 8785 canonical JSON of name, title,
    /// description, schemas and annotations: the part that a model or a caller
    /// relies on.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when the entry is not an object,
    /// has no valid name, has a schema that is not an object, or is too large.
    pub fn parse(definition: Value) -> Result<Self> {
        let object = definition.as_object().ok_or_else(|| Error::invalid_field("tool", "must be an object"))?;
        let name = object.get("name").and_then(Value::as_str);
        let name = ToolName::new(name.ok_or_else(|| Error::invalid_field("name", "must be a string"))?)?;
        if !object.get("inputSchema").is_some_and(Value::is_object) {
            return Err(Error::invalid_field("inputSchema", "must be a JSON Schema object"));
        }
        if object.get("outputSchema").is_some_and(|schema| !schema.is_object() && !schema.is_null()) {
            return Err(Error::invalid_field("outputSchema", "must be a JSON Schema object"));
        }
        let bytes = definition.to_string().len();
        if bytes > DEFINITION_BYTES_MAX {
            let detail = format!("must have at most {DEFINITION_BYTES_MAX} bytes of JSON, has {bytes}");
            return Err(Error::invalid_field("tool", detail));
        }
        let hash = hash_of(object)?;
        let mut tool = Self { name, hash, definition, arguments: ArgumentSchema::default(), suspicious: Vec::new() };
        tool.suspicious = tool.look_closer();
        Ok(tool)
    }

    /// Its name, unique within its server.
    #[must_use]
    pub fn name(&self) -> &ToolName {
        &self.name
    }

    /// Hex SHA-256 of what a caller relies on; changes when the tool changes.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The definition as the server sent it.
    #[must_use]
    pub fn definition(&self) -> &Value {
        &self.definition
    }

    /// The title for people, where there is one.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.definition["title"].as_str().or_else(|| self.definition["annotations"]["title"].as_str())
    }

    /// The description; empty where there is none.
    #[must_use]
    pub fn description(&self) -> &str {
        self.definition["description"].as_str().unwrap_or_default()
    }

    /// Characters in the name, title or description that a reader does not see, or
    /// takes for others.
    #[must_use]
    pub fn suspicious(&self) -> &[String] {
        &self.suspicious
    }

    fn look_closer(&self) -> Vec<String> {
        let texts = [("name", self.name.as_str()), ("description", self.description())];
        let title = self.title().map(|title| ("title", title));
        texts.into_iter().chain(title).flat_map(|(field, text)| suspicious(field, text)).collect()
    }

    /// The JSON Schema of the arguments.
    #[must_use]
    pub fn input_schema(&self) -> &Value {
        &self.definition["inputSchema"]
    }

    /// Holds the arguments of a call against the schema. One that could cost too
    /// much, or refers to something outside itself, judges nothing.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), not sent, naming each argument that is
    /// wrong and what would be right.
    pub fn check_arguments(&self, arguments: &Map<String, Value>) -> Result<()> {
        self.arguments.check(self.input_schema(), arguments)
    }

    /// What the server says about the tool's effects.
    #[must_use]
    pub fn hints(&self) -> ToolHints {
        let hint = |name: &str| self.definition["annotations"][name].as_bool().unwrap_or(false);
        ToolHints { read_only: hint("readOnlyHint"), idempotent: hint("idempotentHint") }
    }

    /// Tags that the server put on the tool (FastMCP's `_meta._fastmcp.tags`, or `tags`).
    #[must_use]
    pub fn tags(&self) -> Vec<Tag> {
        let meta = &self.definition["_meta"];
        [&self.definition["tags"], &meta["_fastmcp"]["tags"], &meta["fastmcp"]["tags"]]
            .into_iter()
            .filter_map(Value::as_array)
            .flatten()
            .filter_map(|tag| Tag::new(tag.as_str()?).ok())
            .collect()
    }
}

fn hash_of(object: &Map<String, Value>) -> Result<String> {
    const RELIED_UPON: [&str; 6] = ["name", "title", "description", "inputSchema", "outputSchema", "annotations"];
    let relied: Map<String, Value> =
        RELIED_UPON.iter().filter_map(|key| Some(((*key).to_owned(), object.get(*key)?.clone()))).collect();
    let canonical = serde_json_canonicalizer::to_vec(&relied)
        .map_err(|error| Error::invalid_field("tool", format!("has no canonical form: {error}")))?;
    Ok(Sha256::digest(canonical).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// The service that offers the tool.
    pub service: ServiceName,
    /// The tool.
    pub tool: ToolName,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

/// What a tool answered: MCP's `CallToolResult`, word for word. A result that
/// says `isError` is an answer too, not an [`Error`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ToolResult(pub Map<String, Value>);

impl ToolResult {
    /// Whether the tool says that it failed.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.0.get("isError").and_then(Value::as_bool).unwrap_or(false)
    }

    /// The text of the answer: its text blocks, joined by newlines.
    #[must_use]
    pub fn text(&self) -> String {
        let blocks = self.0.get("content").and_then(Value::as_array).into_iter().flatten();
        blocks.filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition() -> Value {
        json!({"name": "t", "x-unknown": 1, "inputSchema": {"type": "object", "b": 1, "a": 2},
               "annotations": {"readOnlyHint": true}})
    }

    #[test]
    fn the_definition_keeps_unknown_fields_and_key_order() {
        let tool = Tool::parse(definition()).unwrap();
        assert_eq!(tool.definition().to_string(), definition().to_string());
        assert!(tool.hints().read_only && !tool.hints().idempotent);
    }

    #[test]
    fn the_hash_ignores_key_order_and_unknown_fields_and_sees_the_rest() {
        let base = Tool::parse(definition()).unwrap();
        let mut reordered = definition();
        reordered["inputSchema"] = json!({"a": 2, "b": 1, "type": "object"});
        reordered["x-unknown"] = json!(2);
        assert_eq!(Tool::parse(reordered).unwrap().hash(), base.hash());
        let mut changed = definition();
        changed["description"] = json!("new");
        assert_ne!(Tool::parse(changed).unwrap().hash(), base.hash());
        assert_eq!(base.hash().len(), 64);
    }

    #[test]
    fn malformed_definitions_say_which_field() {
        let long = json!({"name": "t", "inputSchema": {}, "description": "x".repeat(DEFINITION_BYTES_MAX)});
        let cases = [
            (json!(1), "tool"),
            (json!({"inputSchema": {}}), "name"),
            (json!({"name": "", "inputSchema": {}}), "tool"),
            (json!({"name": "t"}), "inputSchema"),
            (json!({"name": "t", "inputSchema": {}, "outputSchema": 1}), "outputSchema"),
            (long, "tool"),
        ];
        for (definition, field) in cases {
            assert_eq!(Tool::parse(definition).unwrap_err().context().problems[0].field, field);
        }
    }
}
