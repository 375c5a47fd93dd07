//! Records that set what a store is most likely to lose.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::alerts::AlertMessageKind;
use crate::model::{
    Definitions, Instance, InstanceId, RejectedTool, Revision, Service, ServiceId, ServiceName, ServiceSpec, Tool,
};
use crate::route::Attempt;
use crate::store::{Change, Entry, What};

/// A fixed time and some seconds; with milliseconds, as all records have.
pub(in crate::testing) fn time(seconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_750_000_000_250 + seconds * 1000).expect("the time is in range")
}

pub(in crate::testing) fn service(name: &str) -> Service {
    Service {
        id: ServiceId::generate(),
        spec: ServiceSpec::new(name).expect("the name is valid"),
        revision: Revision::ZERO,
        created_at: time(0),
        updated_at: time(0),
        updated_by: "alice".to_owned(),
    }
}

pub(in crate::testing) fn with_instances(name: &str, ids: &[InstanceId]) -> Service {
    let instance = |id: &InstanceId| -> Instance {
        let json = json!({"id": id, "http": {"url": "https://time.example/mcp"}});
        serde_json::from_value(json).expect("the instance is valid")
    };
    let mut service = service(name);
    service.spec.instances = ids.iter().map(instance).collect();
    service
}

/// A service with every field set, five of them secrets.
pub(super) fn full_service() -> Service {
    let json = json!({
        "name": "io.github.user/full", "title": "Full", "description": "Ünïcode \"quoted\"\n", "version": "1.2.3",
        "build_type": "fastmcp", "origin": "internal", "required": true, "build_priority": "HIGH",
        "admin_state": "maintenance", "tags": ["z", "a"], "category": "time", "capabilities": ["y", "b"],
        "environment": "staging", "tenant": "acme", "access_level": "sapphire", "owner": "bob",
        "repository_url": "https://git.example/full", "documentation_url": "https://docs.example/full",
        "health_policy": {"interval": "10s"}, "routing_policy": {"trust_annotations": true},
        "config": {"z": 1, "a": {"y": [1.0, null], "b": "x"}}, "env": {"TOKEN": "hunter2", "REF": "${env:TOKEN}"},
        "labels": {"l": "1"}, "metadata": {"n": 2, "m": 1},
        "instances": [
            {"id": InstanceId::generate(), "weight": 7, "region": "eu", "zone": "a", "labels": {"k": "v"},
             "admin_state": "draining",
             "stdio": {"command": "serve", "args": ["--token", "s3cret", "-v"], "env": {"KEY": "k3y"}, "cwd": "/srv"}},
            {"id": InstanceId::generate(),
             "http": {"url": "https://u:p4ss@time.example/mcp", "headers": {"Authorization": "Bearer b3arer"}}},
            {"id": InstanceId::generate(), "from_outside": true, "websocket": {"url": "wss://time.example/mcp"}},
            {"id": InstanceId::generate(), "in_process": {}},
        ],
    });
    let spec = ServiceSpec::from_value(json).expect("the service is valid");
    Service { spec, updated_by: "bob".to_owned(), updated_at: time(5), ..service("full") }
}

/// Three tools, the second of this name, in no order, and everything else.
pub(super) fn definitions(name: &str) -> Arc<Definitions> {
    let tool = |definition: Value| Arc::new(Tool::parse(definition).expect("the tool is valid"));
    Arc::new(Definitions {
        protocol_version: "2025-11-25".to_owned(),
        server_info: json!({"version": "1", "name": "s"}),
        instructions: Some("Use it.".to_owned()),
        capabilities: json!({"tools": {"listChanged": true}, "experimental": {}}),
        tools: vec![
            tool(json!({
                "name": "zz top", "x-unknown": {"z": 1, "a": 1.5}, "description": "Ü", "title": "T",
                "inputSchema": {"type": "object", "properties": {"z": {}, "a": {}}},
                "outputSchema": {"type": "object"}, "_meta": {"fastmcp": {"tags": ["t"]}},
            })),
            tool(json!({"name": name, "inputSchema": {}})),
            tool(json!({"inputSchema": {}, "name": "mm"})),
        ],
        rejected: vec![
            RejectedTool { name: Some("r".to_owned()), reason: "has no schema".to_owned() },
            RejectedTool { name: None, reason: "has no name".to_owned() },
        ],
        prompts: vec![json!({"name": "p2", "z": 1, "a": 2}), json!({"name": "p1"})],
        resources: vec![json!({"uri": "file:///b", "name": "b"})],
        resource_templates: vec![json!({"uriTemplate": "file:///{x}", "name": "x"})],
        listed_at: time(7),
    })
}

fn entry(second: i64, what: What) -> Entry {
    Entry { at: time(second), service: None, instance: None, what }
}

pub(super) fn transition(second: i64) -> Entry {
    let what = What::Transition { from: "healthy".to_owned(), to: "suspect".to_owned(), reason: "timeout".to_owned() };
    entry(second, what)
}

pub(super) fn sample(second: i64) -> Entry {
    let error = (second % 2 == 0).then(|| "timed out".to_owned());
    entry(second, What::Sample { outcome: "fail".to_owned(), response_time_ms: Some(1.25), error })
}

pub(super) fn rollup(second: i64) -> Entry {
    let what = What::Rollup { since: time(0), passes: 2880, failures: 3, durations: vec![2000, 880, 0] };
    entry(second, what)
}

fn attempt(second: i64) -> Attempt {
    let error = if second % 2 == 0 { json!("timeout") } else { Value::Null };
    let attempt = json!({"instance": InstanceId::generate(), "duration_ms": 6.25, "bytes_sent": 80, "error": error,
        "phase": "maybe_executed", "outcome": "unknown", "hedge": second % 3 == 0});
    serde_json::from_value(attempt).expect("is an attempt")
}

pub(super) fn call(second: i64) -> Entry {
    let what = What::Call {
        tool: "now".to_owned(),
        principal: "alice".to_owned(),
        duration_ms: 12.5,
        attempts: 2,
        success: second % 2 == 0,
        error: (second % 2 != 0).then(|| "timeout".to_owned()),
        tried: vec![attempt(second), attempt(second + 1)],
        arguments: (second % 2 == 0).then(|| json!({"zone": "Europe/Zürich", "also": [1.5, null, "\u{0}"]})),
    };
    entry(second, what)
}

pub(super) fn alert(second: i64) -> Entry {
    let alert = json!({"id": InstanceId::generate(), "rule": "service_down", "level": "critical", "service": "time",
        "summary": "`time` is down", "since": time(second), "fired_at": time(second)});
    let alert = Box::new(serde_json::from_value(alert).expect("is an alert"));
    let message = AlertMessageKind::Escalated;
    entry(second, What::Alert { channel: "mail".to_owned(), message, alert })
}

pub(super) fn audit(second: i64) -> Entry {
    let detail = json!({"z": second, "a": ["x"]});
    entry(second, What::Audit { principal: "alice".to_owned(), action: "update".to_owned(), detail })
}

pub(in crate::testing) fn put(service: &Service) -> Change {
    Change::PutService(Arc::new(service.clone()))
}

pub(super) fn put_definitions(service: &Service, instance: InstanceId, definitions: &Arc<Definitions>) -> Change {
    Change::PutDefinitions { service: service.id, instance, definitions: Arc::clone(definitions) }
}

pub(in crate::testing) fn delete(service: &Service) -> Change {
    Change::DeleteService { id: service.id, name: service.name().clone() }
}

pub(super) fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("the name is valid")
}
