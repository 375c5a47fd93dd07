//! The JSON Schema of the configuration, made of the list of keys and of the
//! defaults: both are held against the types by a test.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::keys::{KEYS, Key};

/// The schema that `config schema` prints.
pub(crate) fn schema() -> Value {
    let mut properties = Map::new();
    let mut sections: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for key in KEYS.iter() {
        match key.path.split_once('.') {
            Some((section, name)) => {
                sections.entry(section).or_default().insert(name.to_owned(), property(key));
            }
            None => {
                properties.insert(key.path.to_owned(), property(key));
            }
        }
    }
    for (section, keys) in sections {
        properties
            .insert(section.to_owned(), json!({"type": "object", "additionalProperties": false, "properties": keys}));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration of machina",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn property(key: &Key) -> Value {
    let default = key.default();
    let mut property = match &default {
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(_) => json!({"type": "integer", "minimum": 0}),
        Value::Array(_) if key.path == "services" => {
            json!({"type": "array", "items": {"type": "object", "required": ["name"],
                   "properties": {"name": {"type": "string"}, "instances": {"type": "array"}}}})
        }
        Value::Array(_) if key.path == "groups" => {
            json!({"type": "array", "items": {"type": "object", "required": ["name"],
                   "properties": {"name": {"type": "string"}, "members": {"type": "array"}}}})
        }
        Value::Array(_) if key.path == "alerts.channels" => {
            json!({"type": "array", "items": {"type": "object", "required": ["name"],
                   "properties": {"name": {"type": "string"}, "minimum_level": {"type": "string"}}}})
        }
        Value::Array(_) if key.path == "access.command_templates" => {
            json!({"type": "array", "items": {"type": "object", "required": ["command"],
                   "properties": {"command": {"type": "string"}, "args": {"type": "array"}}}})
        }
        Value::Array(_) if key.path == "alerts.quiet_hours" => {
            json!({"type": "array", "items": {"type": "object", "required": ["from", "to"],
                   "properties": {"from": {"type": "string"}, "to": {"type": "string"}}}})
        }
        Value::Array(_) if !key.choices.is_empty() => json!({"type": "array", "items": {"enum": key.choices}}),
        Value::Array(_) => json!({"type": "array", "items": {"type": "string"}}),
        _ if !key.choices.is_empty() => json!({"enum": key.choices}),
        _ => json!({"type": "string"}),
    };
    property["description"] = key.doc.as_ref().into();
    if !default.is_null() {
        property["default"] = default;
    }
    property
}
