//! The paths of the documents that Machina was made after. What they take and
//! answer is said in `docs/reference/sources.md`; here is that they are there.

use serde_json::json;

use super::operation::Operation;

/// Method, path, operation, what it does.
const ALIASES: [(&str, &str, &str, &str); 22] = [
    ("get", "/health", "source_health", "As `/livez`"),
    ("get", "/api/services", "source_list_services", "Every service"),
    ("get", "/api/services/{service}", "source_get_service", "A service"),
    ("get", "/api/services/by-type/{build_type}", "source_list_by_type", "The services of a build type"),
    ("get", "/api/services/{service}/config", "source_get_config", "The configuration of a service"),
    ("put", "/api/services/{service}/config", "source_put_config", "Changes the configuration of a service"),
    ("post", "/api/services/{service}/toggle", "source_toggle", "Switches a service off, or on"),
    ("get", "/api/services/{service}/health", "source_get_service_health", "The health of a service"),
    ("post", "/api/services/{service}/call", "source_call", "Calls a tool: `{\"tool\", \"args\"}`"),
    ("get", "/api/health", "source_overall_health", "How many services are how"),
    ("get", "/api/health/status.json", "source_status_document", "The health of all services, for monitors"),
    ("get", "/api/health/{service}", "source_get_health", "The health of a service"),
    ("get", "/api/build/priority/{level}", "source_list_by_priority", "The services of a priority"),
    ("get", "/api/build/required", "source_list_required", "The services that are required"),
    ("post", "/api/build/deploy/{service}", "source_deploy", "Refused: Machina does not deploy services"),
    ("post", "/mcp/list_tools", "source_list_tools", "The tools of services in use"),
    ("post", "/mcp/find_tool", "source_find_tool", "The tools that fit a text"),
    ("post", "/mcp/call_tool", "source_call_tool", "Calls a tool by its name alone"),
    ("post", "/api/registry/register", "source_register_server", "Registers a server"),
    ("get", "/api/registry/servers", "source_list_servers", "Every server"),
    ("get", "/api/registry/servers/{server}", "source_get_server", "A server with its tools"),
    ("post", "/api/jobs/health-check", "source_check_all", "Checks every service"),
];

/// Of the third document, under the prefix of the API.
const DISCOVERY: [(&str, &str, &str, &str); 3] = [
    ("post", "/api/v1/services/register", "source_register_itself", "A service registers itself"),
    ("get", "/api/v1/services/discover", "source_discover", "Services by company, region, capabilities and status"),
    ("put", "/api/v1/services/{service}/health", "source_report_health", "A service reports on itself"),
];

pub(super) fn operations() -> Vec<Operation> {
    ALIASES.into_iter().chain(DISCOVERY).map(described).collect()
}

fn described((method, path, id, summary): (&'static str, &str, &'static str, &'static str)) -> Operation {
    let mut operation = Operation::new(method, path, "Aliases", id, summary)
        .says("An alias; see `docs/reference/sources.md`. New programs use `/api/v1`.")
        .answers(200, "As the document prints it", &json!({}), &[]);
    for name in ["build_type", "level", "server"] {
        if path.contains(&format!("{{{name}}}")) {
            operation = operation.in_path(name, "As the document has it", json!({"type": "string"}));
        }
    }
    if method != "get" {
        operation = operation
            .answers(201, "As the document prints it", &json!({}), &[])
            .refuses(&[401, 404, 408, 409, 412, 413, 415, 422, 429, 501, 502, 503, 504]);
    }
    if path.starts_with("/api/registry/") || path.starts_with("/api/jobs/") {
        let form = json!({"type": "object", "required": ["error"], "properties": {
            "error": {"type": "string"}, "code": {"type": "string"}, "details": {"type": "array"}}});
        return operation.in_its_own_form(&form);
    }
    operation
}
