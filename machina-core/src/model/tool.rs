//! Tools: what a server publishes, what a caller sends, and what comes back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::arguments::ArgumentSchema;
use super::name::{ServiceName, Tag, ToolName};
use super::suspicious::suspicious;
use super::tool_text::{ToolText, tree};
use crate::error::{Error, Result};

/// The largest tool definition that is accepted, in bytes of JSON.
const DEFINITION_BYTES_MAX: usize = 64 * 1024;

/// One tool as its server publishes it. The definition is kept whole: unknown
/// fields and the order of keys survive.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tool {
    name: ToolName,
    hash: ToolHash,
    definition: ToolText,
    #[serde(skip)]
    arguments: ArgumentSchema,
    #[serde(skip)]
    suspicious: Box<[String]>,
}

/// Hex SHA-256 of a definition in canonical form.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ToolHash([u8; 64]);

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
        let json = definition.to_string();
        let bytes = json.len();
        if bytes > DEFINITION_BYTES_MAX {
            let detail = format!("must have at most {DEFINITION_BYTES_MAX} bytes of JSON, has {bytes}");
            return Err(Error::invalid_field("tool", detail));
        }
        let (text, _) = ToolText::of(&json).ok_or_else(|| Error::invalid_field("tool", "cannot be read"))?;
        Ok(Self::new(name, hash_of(object)?, text))
    }

    /// A tool that was accepted and kept: what [`Tool::parse`] made of this
    /// definition, which is compact JSON, with the hash that it had. It is not taken
    /// anew, as that would take most of the time in which a registry is opened.
    ///
    /// # Errors
    /// As [`Tool::parse`], and for a definition that is no JSON.
    pub fn kept(definition: &str, hash: &str) -> Result<Self> {
        let known = ToolText::of(definition).filter(|(text, _)| {
            let objects = [text.input_schema(), text.output_schema()]
                .iter()
                .all(|schema| matches!(schema.as_bytes().first(), None | Some(b'{')));
            objects && definition.len() <= DEFINITION_BYTES_MAX
        });
        let tool = known
            .zip(ToolHash::read(hash))
            .and_then(|((text, name), hash)| Some(Self::new(ToolName::new(&name).ok()?, hash, text)));
        if let Some(tool) = tool {
            return Ok(tool);
        }
        let no_json = |error| Error::invalid_field("tool", "must be JSON").caused_by(error);
        Self::parse(serde_json::from_str(definition).map_err(no_json)?)
    }

    fn new(name: ToolName, hash: ToolHash, definition: ToolText) -> Self {
        let texts =
            [("name", Some(name.as_str())), ("description", definition.description()), ("title", definition.title())];
        let texts = texts.into_iter().filter_map(|(field, text)| Some((field, text?)));
        let suspicious = texts.flat_map(|(field, text)| suspicious(field, text)).collect();
        Self { name, hash, definition, arguments: ArgumentSchema::default(), suspicious }
    }

    /// Its name, unique within its server.
    #[must_use]
    pub fn name(&self) -> &ToolName {
        &self.name
    }

    /// Hex SHA-256 of what a caller relies on; changes when the tool changes.
    #[must_use]
    pub fn hash(&self) -> &str {
        self.hash.as_str()
    }

    /// The definition as the server sent it; parsed anew each time.
    #[must_use]
    pub fn definition(&self) -> Value {
        tree(self.definition.json())
    }

    /// The definition as the server sent it, as compact JSON.
    #[must_use]
    pub fn definition_text(&self) -> &str {
        self.definition.json()
    }

    /// The definition as the server sent it, but with another name in its place.
    #[must_use]
    pub fn renamed(&self, name: &str) -> Box<RawValue> {
        self.definition.renamed(name)
    }

    /// The title for people, where there is one.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.definition.title()
    }

    /// The description; empty where there is none.
    #[must_use]
    pub fn description(&self) -> &str {
        self.definition.description().unwrap_or_default()
    }

    /// Characters in the name, title or description that a reader does not see, or
    /// takes for others.
    #[must_use]
    pub fn suspicious(&self) -> &[String] {
        &self.suspicious
    }

    /// The JSON Schema of the arguments; parsed anew each time.
    #[must_use]
    pub fn input_schema(&self) -> Value {
        tree(self.definition.input_schema())
    }

    /// The same as compact JSON.
    #[must_use]
    pub fn input_schema_text(&self) -> &str {
        self.definition.input_schema()
    }

    /// The JSON Schema of what the tool answers, where there is one, as compact JSON.
    #[must_use]
    pub fn output_schema_text(&self) -> Option<&str> {
        Some(self.definition.output_schema()).filter(|schema| !schema.is_empty())
    }

    /// The names of the arguments, in alphabetical order.
    #[must_use]
    pub fn argument_names(&self) -> Vec<String> {
        self.definition.arguments()
    }

    /// Holds the arguments of a call against the schema. One that could cost too
    /// much, or refers to something outside itself, judges nothing.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), not sent, naming each argument that is
    /// wrong and what would be right.
    pub fn check_arguments(&self, arguments: &Map<String, Value>) -> Result<()> {
        self.arguments.check(|| self.input_schema(), arguments)
    }

    /// What the server says about the tool's effects.
    #[must_use]
    pub fn hints(&self) -> ToolHints {
        self.definition.hints()
    }

    /// Tags that the server put on the tool (FastMCP's `_meta._fastmcp.tags`, or `tags`).
    #[must_use]
    pub fn tags(&self) -> Vec<Tag> {
        self.definition.tags()
    }
}

impl ToolHash {
    fn of(bytes: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 64];
        for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(Sha256::digest(bytes)) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        Self(digits)
    }

    /// `None` unless it is one.
    fn read(text: &str) -> Option<Self> {
        let digits: [u8; 64] = text.as_bytes().try_into().ok()?;
        digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).then_some(Self(digits))
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits are ASCII")
    }
}

impl Serialize for ToolHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

fn hash_of(object: &Map<String, Value>) -> Result<ToolHash> {
    const RELIED_UPON: [&str; 6] = ["name", "title", "description", "inputSchema", "outputSchema", "annotations"];
    let relied: BTreeMap<&str, &Value> = RELIED_UPON.iter().filter_map(|key| Some((*key, object.get(*key)?))).collect();
    let canonical = serde_json_canonicalizer::to_vec(&relied)
        .map_err(|error| Error::invalid_field("tool", format!("has no canonical form: {error}")))?;
    Ok(ToolHash::of(&canonical))
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
    use crate::error::ErrorKind;
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
    fn the_hash_is_the_one_that_pins_were_made_of() {
        let definition = json!({"name": "t", "title": "T", "description": "é", "inputSchema": {"b": 1.50, "a": [true]},
            "outputSchema": null, "annotations": {"readOnlyHint": true}, "x": 1});
        let expected = "62be0596a808a523fb7efd42f5bd65b7a06f670e078a86cd1df819c30b22bd3f";
        assert_eq!(Tool::parse(definition).unwrap().hash(), expected);
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        let tool = Tool::parse(definition()).unwrap();
        let kept = Tool::kept(tool.definition_text(), tool.hash()).unwrap();
        assert_eq!(kept, tool);
        assert_eq!(kept.hints(), tool.hints());
        // A hash that is none is taken anew.
        assert_eq!(Tool::kept(tool.definition_text(), "0").unwrap(), tool);
        for wrong in
            ["{", "[]", r#"{"name":"t"}"#, r#"{"name":"t","inputSchema":[]}"#, r#"{"name":"","inputSchema":{}}"#]
        {
            assert_eq!(Tool::kept(wrong, tool.hash()).unwrap_err().kind(), ErrorKind::Invalid, "{wrong}");
        }
    }

    #[test]
    fn a_key_that_comes_twice_counts_as_it_came_last() {
        let twice = r#"{"name":"a","inputSchema":{},"name":"b"}"#;
        assert_eq!(Tool::kept(twice, &"0".repeat(64)).unwrap().name().as_str(), "b");
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
