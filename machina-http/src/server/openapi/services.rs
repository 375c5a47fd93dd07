//! Services and instances, and what is said to them while they run.

use serde_json::{Value, json};

use super::operation::Operation;
use super::parts::{duration, number, text};
use super::schemas::{of, page_of};

const TAG: &str = "Services";
const INSTANCES: &str = "Instances";
const RUNNING: &str = "Running services";

/// The headers of an answer that stands at a revision and can be asked for again.
pub(super) const TAGGED: [&str; 2] = ["ETag", "X-Machina-Revision"];
const MADE: [&str; 4] = ["ETag", "X-Machina-Revision", "Location", "Idempotency-Replayed"];
const PATCH: [&str; 2] = ["application/merge-patch+json", "application/json"];

pub(super) fn operations() -> Vec<Operation> {
    [of_services(), of_one(), of_instances(), running()].into_iter().flatten().collect()
}

fn record() -> Value {
    json!({"name": "docs", "title": "Documentation", "tags": ["web"],
        "instances": [{"http": {"url": "https://docs.example/mcp"}, "weight": 1, "region": "eu", "zone": "a"}],
        "health_policy": {"interval": "30s"}})
}

fn of_services() -> Vec<Operation> {
    let mutations =
        json!({"mutations": [{"put": {"name": "a"}}, {"set_admin_state": {"name": "a", "admin_state": "draining"}}]});
    vec![
        filtered(Operation::new("get", "/api/v1/services", TAG, "list_services", "One page of services"))
            .unless_known()
            .answers(200, "The page", &page_of("ServiceReport"), &["ETag", "X-Machina-Revision", "Link"]),
        Operation::new("post", "/api/v1/services", TAG, "register_service", "Registers a service")
            .says(
                "Refused with 403, unless `access.allow_stdio_registration` is set: a `stdio` instance, and an endpoint \
                 with a placeholder such as `${env:NAME}`. Refused with 403, unless `egress.allow` lists the network: an \
                 address of this machine or of a private network.",
            )
            .once()
            .takes(of("ServiceSpec"), &record())
            .answers(201, "The service as it was registered", &of("ServiceReport"), &MADE)
            .refuses(&[409]),
        Operation::new("post", "/api/v1/services:bulk", TAG, "change_services", "Several changes at once, all or none")
            .once()
            .takes(of("Mutations"), &mutations)
            .answers(200, "What came of it", &of("BulkResult"), &["X-Machina-Revision", "Idempotency-Replayed"])
            .refuses(&[404, 409]),
        filtered(Operation::new("get", "/api/v1/discover", TAG, "discover", "Where services can be reached right now"))
            .says("For programs that talk to services themselves. Only what takes calls, and only where.")
            .query("company", "Short for `tenant`", text())
            .unless_known()
            .answers(200, "The page", &page_of("Discovered"), &["ETag", "X-Machina-Revision", "Link"]),
    ]
}

/// The parameters that say which services.
fn filtered(operation: Operation) -> Operation {
    let words = |words: &[&str]| json!({"type": "array", "items": {"type": "string", "enum": words}});
    let texts = || json!({"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 64}});
    let statuses = ["healthy", "degraded", "unhealthy", "unknown", "disabled", "maintenance"];
    let types = ["fastmcp", "fastapi", "external", "conversion", "docker", "other"];
    let orders = ["name", "created_at", "updated_at", "build_priority", "status"];
    let orders: Vec<String> = orders.iter().flat_map(|order| [(*order).to_owned(), format!("-{order}")]).collect();
    operation
        .query("text", "Words that all occur in name, title, description, category or tags", text())
        .query("name", "The name; with `*` at the end, how it begins", text())
        .query("build_type", "With one of these", words(&types))
        .query("build_priority", "With one of these", words(&["HIGH", "MEDIUM", "LOW"]))
        .query("status", "With one of these", words(&statuses))
        .query("tags", "That have all of these", texts())
        .query("capability", "That have all of these", texts())
        .query("required", "Whether they are required", json!({"type": "boolean"}))
        .query("enabled", "Whether they are enabled", json!({"type": "boolean"}))
        .query("region", "With an instance there", text())
        .query("environment", "Of this environment", text())
        .query("tenant", "Of this tenant", text())
        .query("category", "Of this category", text())
        .query("tool", "That offer this tool", text())
        .query(
            "order",
            "What they are sorted by; `-` reverses it",
            json!({"type": "string", "enum": orders, "default": "name"}),
        )
        .query("limit", "How many on a page", number(1, 200, Some(50)))
        .with(&["cursor"])
}

fn of_one() -> Vec<Operation> {
    const PATH: &str = "/api/v1/services/{service}";
    let changed = json!({"title": null, "enabled": false, "labels": {"team": "clocks"}});
    vec![
        Operation::new("get", PATH, TAG, "get_service", "A service").unless_known().answers(
            200,
            "The service",
            &of("ServiceReport"),
            &TAGGED,
        ),
        Operation::new("put", PATH, TAG, "replace_service", "Replaces the declaration of a service")
            .says("What a reader got may be changed and sent back whole: what only a reader gets is passed over.")
            .at_revision()
            .takes(of("ServiceSpec"), &record())
            .answers(200, "The service as it is now", &of("ServiceReport"), &TAGGED),
        Operation::new("patch", PATH, TAG, "change_service", "Changes a service by a merge patch (RFC 7396)")
            .at_revision()
            .takes_as(&PATCH, json!({"type": "object"}), &changed)
            .answers(200, "The service as it is now", &of("ServiceReport"), &TAGGED),
        Operation::new("delete", PATH, TAG, "remove_service", "Removes a service").at_revision().answers_bare(
            204,
            "It is gone",
            &["X-Machina-Revision"],
        ),
    ]
}

fn of_instances() -> Vec<Operation> {
    const ALL: &str = "/api/v1/services/{service}/instances";
    const ONE: &str = "/api/v1/services/{service}/instances/{instance}";
    let instance = json!({"http": {"url": "https://docs.example/mcp"}, "zone": "b"});
    let items = json!({"type": "object", "required": ["items"],
        "properties": {"items": {"type": "array", "items": of("InstanceReport")}}});
    vec![
        Operation::new("get", ALL, INSTANCES, "list_instances", "Where a service runs").unless_known().answers(
            200,
            "All of them",
            &items,
            &TAGGED,
        ),
        Operation::new("post", ALL, INSTANCES, "add_instance", "Adds a place where a service runs")
            .at_revision()
            .once()
            .takes(of("Instance"), &instance)
            .answers(201, "The instance as it was added", &of("InstanceReport"), &MADE),
        Operation::new("get", ONE, INSTANCES, "get_instance", "An instance").unless_known().answers(
            200,
            "The instance",
            &of("InstanceReport"),
            &TAGGED,
        ),
        Operation::new("patch", ONE, INSTANCES, "change_instance", "Changes an instance by a merge patch (RFC 7396)")
            .says("An instance that is then reached in another way is another one: the answer has its new `id`.")
            .at_revision()
            .takes_as(&PATCH, json!({"type": "object"}), &json!({"weight": 2, "zone": null}))
            .answers(200, "The instance as it is now", &of("InstanceReport"), &TAGGED),
        Operation::new("delete", ONE, INSTANCES, "remove_instance", "Removes an instance").at_revision().answers_bare(
            204,
            "It is gone",
            &["X-Machina-Revision"],
        ),
    ]
}

fn running() -> Vec<Operation> {
    let why = || json!({"reason": "the disk is replaced"});
    let service = "/api/v1/services/{service}";
    let at = |rest: &str| format!("{service}/{rest}");
    let maintenance = [
        ("maintenance", "ServiceReport", "begin_maintenance", "end_maintenance"),
        (
            "instances/{instance}/maintenance",
            "InstanceReport",
            "begin_instance_maintenance",
            "end_instance_maintenance",
        ),
    ];
    let maintenance = maintenance.into_iter().flat_map(|(path, schema, begin, end)| {
        [
            Operation::new("post", &at(path), RUNNING, begin, "Takes it out of use; it is probed still")
                .may_take(of("Maintenance"), &why())
                .answers(200, "As it is now", &of(schema), &TAGGED)
                .refuses(&[409]),
            Operation::new("delete", &at(path), RUNNING, end, "Takes it back into use, if it was in maintenance")
                .answers(200, "As it is now", &of(schema), &TAGGED)
                .refuses(&[409]),
        ]
    });
    let heartbeats = [
        ("post", "heartbeat", "send_heartbeat"),
        ("put", "heartbeat", "put_heartbeat"),
        ("post", "instances/{instance}/heartbeat", "send_instance_heartbeat"),
        ("put", "instances/{instance}/heartbeat", "put_instance_heartbeat"),
    ];
    let heartbeats = heartbeats.into_iter().map(|(method, path, id)| {
        Operation::new(method, &at(path), RUNNING, id, "Says that it is alive")
            .says("404 `service-not-registered` means: register again. Without an instance, the service has one lease.")
            .takes_nothing()
            .answers(200, "Its lease", &of("Heartbeat"), &[])
            .refuses(&[409, 422])
    });
    let mut all = vec![
        Operation::new("post", &at("checks"), RUNNING, "check_service", "Probes every instance now")
            .takes_nothing()
            .answers(200, "The health that was found", &of("ServiceHealth"), &[]),
        Operation::new("get", &at("health"), RUNNING, "get_health", "The health of a service and of each instance")
            .query("slots", "How many slots of history", number(1, 366, None))
            .query("slot", "How long each slot is, 1 minute to 31 days", duration("24h"))
            .answers(200, "The health, over time where that was asked", &of("HealthAnswer"), &[]),
        history(&at("history")),
        Operation::new("get", &at("explain"), RUNNING, "explain", "Where a call would go, and why")
            .query("tool", "The tool that would be called", text())
            .answers(200, "Why", &of("Explanation"), &[]),
    ];
    all.extend(maintenance.chain(heartbeats));
    all
}

fn history(path: &str) -> Operation {
    let kinds =
        json!({"type": "string", "enum": ["transition", "sample", "call", "alert", "audit"], "default": "transition"});
    Operation::new("get", path, RUNNING, "get_history", "What the journal says about a service, newest first")
        .query("kind", "What to read", kinds)
        .query("instance", "Only about this instance", json!({"type": "string", "format": "uuid"}))
        .query("since", "Only at or after this time", json!({"type": "string", "format": "date-time"}))
        .query("limit", "How many on a page", number(1, 1000, Some(100)))
        .with(&["cursor"])
        .answers(200, "The page", &of("History"), &[])
        .refuses(&[501])
}
