//! Codex: TOML with a table `[mcp_servers.NAME]`. It fills in no placeholders
//! and names variables instead; each name becomes a reference.

use machina_core::{Endpoint, Sensitive, SensitiveMap, ServiceSpec};
use serde_json::Value;

use super::endpoint::{self, Transport};
use super::entry::{Entry, kind};
use super::importer::Importer;
use super::note::{element, field};
use super::placeholder::{is_name, reference};

const OF_THE_HOST: [&str; 5] =
    ["enabled_tools", "disabled_tools", "default_tools_approval_mode", "supports_parallel_tool_calls", "scopes"];

pub(super) fn read(root: Value, importer: &mut Importer<'_>) {
    let Value::Object(mut root) = root else { return };
    let servers = root.shift_remove("mcp_servers").unwrap_or_default();
    importer.entries("mcp_servers", servers, server);
    importer.foreign("", &root);
}

fn server(entry: &mut Entry<'_>, spec: &mut ServiceSpec) {
    match (entry.resolved("command"), entry.resolved("url")) {
        (Some(command), None) => program(entry, spec, command),
        (None, Some(url)) => address(entry, spec, url),
        (Some(_), Some(_)) => entry.notes.error(&entry.path, "has both `command` and `url`: leave one of them"),
        (None, None) => {
            let needed = "needs `command`, the program to start, or `url`, the address of the server";
            entry.notes.error(&entry.path, needed);
        }
    }
    endpoint::admin_state(entry, spec);
    if let Some(required) = entry.flag("required") {
        spec.required = required;
    }
    if let Some(title) = entry.text("name") {
        spec.title = Some(title);
    }
    timeouts(entry, spec);
    entry.set_aside(&OF_THE_HOST, "codex", &mut spec.metadata);
    entry.pass_over(&["tools"], "what a user has approved is the host's business");
    entry.pass_over(&["oauth", "oauth_resource"], "a sign-in is not carried over: give a header with a token");
    entry.pass_over(&["experimental_environment"], "where Codex starts it has no meaning here");
}

fn program(entry: &mut Entry<'_>, spec: &mut ServiceSpec, command: String) {
    let mut stdio = endpoint::stdio(entry, command);
    let path = entry.at("env_vars");
    for (index, item) in entry.array("env_vars").unwrap_or_default().into_iter().enumerate() {
        let path = element(&path, index);
        let name = match &item {
            Value::Object(named) => named.get("name").and_then(Value::as_str),
            other => other.as_str(),
        };
        match name.filter(|name| is_name(name)) {
            Some(name) => {
                let value = Sensitive::secret(reference(name, None));
                stdio.env.entry(name.to_owned()).or_insert(value);
            }
            None => entry.notes.error(path, "must be the name of an environment variable"),
        }
    }
    entry.pass_over(&["bearer_token_env_var", "http_headers", "env_http_headers"], "a program has no headers");
    endpoint::give(spec, stdio.into());
}

fn address(entry: &mut Entry<'_>, spec: &mut ServiceSpec, url: String) {
    let mut found = endpoint::remote(entry, Transport::Http, url);
    if let Endpoint::Http(http) = &mut found {
        headers(entry, &mut http.headers);
    }
    entry.pass_over(&["env_vars"], "only a program takes it, and this is an address");
    endpoint::give(spec, found);
}

fn headers(entry: &mut Entry<'_>, headers: &mut SensitiveMap) {
    for (name, value) in entry.resolved_table("http_headers") {
        headers.insert(name, Sensitive::secret(value));
    }
    let path = entry.at("env_http_headers");
    for (name, value) in entry.table("env_http_headers").unwrap_or_default() {
        match value.as_str().filter(|variable| is_name(variable)) {
            Some(variable) => {
                headers.insert(name, Sensitive::secret(reference(variable, None)));
            }
            None => {
                let message = format!("is {}, must be the name of an environment variable", kind(&value));
                entry.notes.error(field(&path, &name), message);
            }
        }
    }
    if let Some(variable) = entry.text("bearer_token_env_var") {
        if is_name(&variable) {
            let value = format!("Bearer {}", reference(&variable, None));
            headers.insert("Authorization".to_owned(), Sensitive::secret(value));
        } else {
            entry.notes.error(entry.at("bearer_token_env_var"), "must be the name of an environment variable");
        }
    }
    if let Some(token) = entry.text("bearer_token") {
        headers.insert("Authorization".to_owned(), Sensitive::secret(format!("Bearer {token}")));
    }
}

fn timeouts(entry: &mut Entry<'_>, spec: &mut ServiceSpec) {
    if let Some(seconds) = entry.number("tool_timeout_sec") {
        endpoint::call_timeout(entry, "tool_timeout_sec", seconds, spec);
    }
    for (key, per_second) in [("startup_timeout_sec", 1.0), ("startup_timeout_ms", 1000.0)] {
        if let Some(number) = entry.number(key) {
            let grace = endpoint::within(entry, key, number / per_second, 1.0, 900.0);
            spec.health_policy.startup_grace.get_or_insert(grace);
        }
    }
}
