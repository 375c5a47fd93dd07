//! Records for tests.

use std::sync::Arc;

use machina_core::{
    Batch, Change, Definitions, Entry, InstanceId, Revision, Service, ServiceId, ServiceSpec, Timestamp, Tool, What,
};
use serde_json::json;

/// A service with two instances and five secrets.
pub(crate) fn service(name: &str) -> Service {
    let json = json!({
        "name": name, "tags": ["b", "a"], "required": true, "admin_state": "maintenance", "capabilities": ["tell"],
        "admin_reason": "a new disk", "config": {"z": 1, "a": 2},
        "env": {"TOKEN": "canary-1"}, "instances": [
            {"id": InstanceId::generate(), "region": "eu",
             "stdio": {"command": "serve", "args": ["--token", "canary-2", "-v"], "env": {"KEY": "canary-3"}}},
            {"id": InstanceId::generate(), "lease_ttl": "1m 30s", "admin_state": "draining", "admin_reason": "too hot",
             "http": {"url": "https://u:canary-4@h.example/mcp", "headers": {"Authorization": "canary-5"}}}],
    });
    of(ServiceSpec::from_value(json).unwrap())
}

/// A service with nothing but a name.
pub(crate) fn plain(name: &str) -> Service {
    of(ServiceSpec::new(name).unwrap())
}

fn of(spec: ServiceSpec) -> Service {
    Service {
        id: ServiceId::generate(),
        spec,
        revision: Revision::ZERO,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        updated_by: "alice".to_owned(),
    }
}

pub(crate) fn put(service: &Service) -> Change {
    Change::PutService(Arc::new(service.clone()))
}

pub(crate) fn put_tools(service: &Service, instance: usize, tools: usize) -> Change {
    let tool = |index| {
        let schema = json!({"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "number"}}});
        let definition = json!({"name": format!("t{index}"), "x-unknown": true, "description": "Does\0 it.",
                                "annotations": {"title": "It"}, "tags": ["k"], "inputSchema": schema});
        Arc::new(Tool::parse(definition).unwrap())
    };
    let definitions = Definitions {
        protocol_version: "2025-11-25".to_owned(),
        server_info: json!({"name": "s"}),
        instructions: Some("Ask\0 nicely.".to_owned()),
        capabilities: json!({}),
        tools: (0..tools).map(tool).collect(),
        rejected: Vec::new(),
        prompts: vec![json!({"name": "p"})],
        resources: Vec::new(),
        resource_templates: Vec::new(),
        listed_at: Timestamp::UNIX_EPOCH,
    };
    let instance = service.spec.instances[instance].id;
    Change::PutDefinitions { service: service.id, instance, definitions: Arc::new(definitions) }
}

pub(crate) fn batch(changes: impl IntoIterator<Item = Change>) -> Batch {
    Batch { changes: changes.into_iter().collect(), ..Batch::default() }
}

pub(crate) fn audit() -> Entry {
    let what =
        What::Audit { principal: "bob".to_owned(), action: "register".to_owned(), detail: json!({"z": 1, "a": 2}) };
    Entry { at: Timestamp::UNIX_EPOCH, service: Some("a".parse().unwrap()), instance: None, what }
}
