//! The schemas of the document: those of the types, where a type is what goes
//! over the wire, and what a reader gets, which is put together from them.

use machina_core::{
    AlertsReport, Discovered, Event, Explanation, GroupMember, GroupReport, GroupSpec, HealthReport, Heartbeat,
    Instance, ServiceHealth, ServiceSpec, ToolReport,
};
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::super::{alerts, calls, connect, history, operate, services, status, tools};
use crate::mutations::{Deregister, PinTools, SetAdminState, Update};
use crate::problem::ProblemDocument;
use crate::stored::{Committed, StoredBatch};

/// A reference to a schema of the document.
pub(super) fn of(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// One page of an answer.
pub(super) fn page_of(name: &str) -> Value {
    let cursor = "Send it back as `cursor` for the next page; null on the last one";
    json!({
        "type": "object",
        "required": ["items", "next_cursor", "revision"],
        "properties": {
            "items": {"type": "array", "items": of(name)},
            "next_cursor": {"type": ["string", "null"], "description": cursor},
            "revision": of("Revision"),
        },
    })
}

/// Every schema, by name.
pub(super) fn all() -> Map<String, Value> {
    let mut found = Vec::new();
    add::<ServiceSpec>(&mut found);
    add::<Instance>(&mut found);
    add::<HealthReport>(&mut found);
    add::<ServiceHealth>(&mut found);
    add::<services::HealthAnswer>(&mut found);
    add::<history::History>(&mut found);
    add::<Explanation>(&mut found);
    add::<Heartbeat>(&mut found);
    add::<operate::Maintenance>(&mut found);
    add::<Update>(&mut found);
    add::<Deregister>(&mut found);
    add::<SetAdminState>(&mut found);
    add::<PinTools>(&mut found);
    add::<Discovered>(&mut found);
    add::<connect::Connection>(&mut found);
    add::<ToolReport>(&mut found);
    add::<tools::Search>(&mut found);
    add::<tools::Found>(&mut found);
    add::<GroupSpec>(&mut found);
    add::<GroupMember>(&mut found);
    add::<GroupReport>(&mut found);
    add::<calls::Named>(&mut found);
    add::<calls::Unnamed>(&mut found);
    add::<Event>(&mut found);
    add::<AlertsReport>(&mut found);
    add::<alerts::AlertTest>(&mut found);
    add::<alerts::AlertTests>(&mut found);
    add::<status::Status>(&mut found);
    add::<ProblemDocument>(&mut found);
    add::<StoredBatch>(&mut found);
    add::<Committed>(&mut found);
    let mut schemas = Map::new();
    for (name, schema) in found {
        schemas.entry(name).or_insert_with(|| plain(json!(schema)));
    }
    let group = merged(&schemas, "GroupReport");
    schemas.insert("GroupReport".to_owned(), group);
    // Where the path has the name, it need not be repeated.
    let mut declaration = schemas["GroupSpec"].clone();
    declaration["required"] = json!([]);
    schemas.insert("GroupDeclaration".to_owned(), declaration);
    for (name, schema) in [("InstanceReport", instance_report(&schemas)), ("ServiceReport", service_report(&schemas))] {
        schemas.insert(name.to_owned(), schema);
    }
    schemas.insert("Mutations".to_owned(), mutations());
    schemas.insert("CallResult".to_owned(), call_result());
    schemas.insert("BulkResult".to_owned(), bulk_result());
    schemas.sort_keys();
    schemas
}

fn add<T: ToSchema>(found: &mut Vec<(String, RefOr<Schema>)>) {
    found.push((T::name().into_owned(), <T as PartialSchema>::schema()));
    T::schemas(found);
}

/// The same with descriptions in which links are words.
fn plain(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(object) => {
            for (key, value) in object.iter_mut() {
                match value {
                    Value::String(text) if key == "description" => *text = text.replace("[`", "`").replace("`]", "`"),
                    value => *value = plain(value.take()),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| *value = plain(value.take())),
        _ => {}
    }
    schema
}

/// A schema that is made of others, as one object: those refuse fields that they
/// do not know, and so cannot be put together as they are.
fn merged(schemas: &Map<String, Value>, name: &str) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for part in schemas[name]["allOf"].as_array().into_iter().flatten() {
        let known = part["$ref"].as_str().and_then(|name| schemas.get(name.rsplit('/').next()?));
        let part = known.unwrap_or(part);
        properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
        required.extend(part["required"].as_array().cloned().unwrap_or_default());
    }
    json!({"type": "object", "description": schemas[name]["description"], "properties": properties,
        "required": required})
}

/// What is declared, and what a reader gets besides.
fn report(declared: &Value, description: &str, more: &Value, always: &[&str]) -> Value {
    let mut report = declared.clone();
    if let (Some(properties), Some(more)) = (report["properties"].as_object_mut(), more.as_object()) {
        properties.extend(more.clone());
    }
    report["description"] = description.into();
    report["required"] = json!(always);
    report
}

fn instance_report(schemas: &Map<String, Value>) -> Value {
    let more = json!({
        "health": of("HealthReport"),
        "protocol_version": {"type": "string", "description": "The revision of MCP it speaks, where that is known"},
    });
    let always = ["id", "weight", "admin_state", "health"];
    report(&schemas["Instance"], "An instance as a reader sees it. Secrets are masked.", &more, &always)
}

fn service_report(schemas: &Map<String, Value>) -> Value {
    let time = |what: &str| json!({"type": "string", "format": "date-time", "description": what});
    let more = json!({
        "id": of("ServiceId"),
        "enabled": {"type": "boolean", "description": "Whether its admin state is `enabled`"},
        "instances": {"type": "array", "items": of("InstanceReport"), "description": "Where it runs."},
        "revision": of("Revision"),
        "created_at": time("When it was registered"),
        "updated_at": time("When it was last changed"),
        "updated_by": {"type": "string", "description": "Who last changed it"},
        "status": of("Status"),
        "health": of("HealthReport"),
        "tool_count": {"type": "integer", "minimum": 0, "description": "How many tools it offers"},
    });
    let always = [
        "id",
        "name",
        "build_type",
        "origin",
        "required",
        "build_priority",
        "admin_state",
        "access_level",
        "instances",
        "enabled",
        "revision",
        "created_at",
        "updated_at",
        "updated_by",
        "status",
        "health",
        "tool_count",
    ];
    let description = "A service as a reader sees it: what was declared, and what is observed. Secrets are masked.";
    report(&schemas["ServiceSpec"], description, &more, &always)
}

fn call_result() -> Value {
    let how = json!({
        "type": "object",
        "required": ["instance", "attempts", "duration_ms", "tried"],
        "properties": {
            "instance": of("InstanceId"),
            "attempts": {"type": "integer", "minimum": 0},
            "duration_ms": {"type": "number", "minimum": 0},
            "tried": {"type": "array", "items": {"type": "object"}},
            "age_ms": {"type": "integer", "minimum": 0, "description": "Of an answer that was kept."},
        },
    });
    json!({
        "type": "object",
        "description": "The result of MCP, word for word, with `_meta` saying how it was come by. With `isError` the \
            tool has answered that it failed.",
        "required": ["_meta"],
        "properties": {
            "content": {"type": "array", "items": {"type": "object"}},
            "structuredContent": {},
            "isError": {"type": "boolean"},
            "_meta": {"type": "object", "required": ["dev.machina/call"], "properties": {"dev.machina/call": how}},
        },
    })
}

fn mutations() -> Value {
    let kinds = [
        ("register", "ServiceSpec"),
        ("put", "ServiceSpec"),
        ("update", "Update"),
        ("deregister", "Deregister"),
        ("set_admin_state", "SetAdminState"),
        ("pin_tools", "PinTools"),
    ];
    let kinds = kinds.map(|(kind, schema)| {
        json!({"type": "object", "additionalProperties": false, "required": [kind], "properties": {kind: of(schema)}})
    });
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["mutations"],
        "properties": {"mutations": {"type": "array", "items": {"oneOf": kinds}}},
    })
}

fn bulk_result() -> Value {
    json!({
        "type": "object",
        "required": ["revision", "services"],
        "properties": {
            "revision": of("Revision"),
            "services": {"type": "array", "items": of("ServiceReport"), "description": "Those that were put"},
        },
    })
}
