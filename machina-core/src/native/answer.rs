//! What a function gives back becomes what a tool answers.

use serde_json::{Map, Value, json};

use crate::model::ToolResult;

impl ToolResult {
    /// An answer of one text block.
    pub fn of_text(text: impl Into<String>) -> Self {
        let mut result = Map::new();
        result.insert("content".to_owned(), json!([{"type": "text", "text": text.into()}]));
        Self(result)
    }

    /// A value as an answer: an object also as `structuredContent`, a string as
    /// the text that it is, anything else as JSON.
    #[must_use]
    pub fn of_value(value: Value) -> Self {
        if let Value::String(text) = value {
            return Self::of_text(text);
        }
        let Self(mut result) = Self::of_text(value.to_string());
        if value.is_object() {
            result.insert("structuredContent".to_owned(), value);
        }
        Self(result)
    }

    /// The answer of a tool that says it failed, and why.
    pub fn failed(message: impl Into<String>) -> Self {
        let Self(mut result) = Self::of_text(message);
        result.insert("isError".to_owned(), Value::Bool(true));
        Self(result)
    }
}

impl From<Value> for ToolResult {
    fn from(value: Value) -> Self {
        Self::of_value(value)
    }
}

impl From<String> for ToolResult {
    fn from(text: String) -> Self {
        Self::of_text(text)
    }
}

impl From<&str> for ToolResult {
    fn from(text: &str) -> Self {
        Self::of_text(text)
    }
}

impl From<f64> for ToolResult {
    fn from(number: f64) -> Self {
        Self::of_value(number.into())
    }
}

impl From<()> for ToolResult {
    fn from((): ()) -> Self {
        let mut result = Map::new();
        result.insert("content".to_owned(), json!([]));
        Self(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_an_answer() {
        let object = ToolResult::from(json!({"sum": 3}));
        assert_eq!((object.text().as_str(), &object.0["structuredContent"]), (r#"{"sum":3}"#, &json!({"sum": 3})));
        for (answer, text) in [
            (ToolResult::from(json!("as it is")), "as it is"),
            (ToolResult::from("words"), "words"),
            (ToolResult::from(json!([1, 2])), "[1,2]"),
            (ToolResult::from(1.5), "1.5"),
            (ToolResult::from(json!(null)), "null"),
            (ToolResult::from(()), ""),
        ] {
            assert_eq!(answer.text(), text);
            assert!(!answer.0.contains_key("structuredContent") && !answer.is_error(), "{answer:?}");
        }
        let failed = ToolResult::failed("no such account");
        assert!(failed.is_error() && failed.text() == "no such account");
    }
}
