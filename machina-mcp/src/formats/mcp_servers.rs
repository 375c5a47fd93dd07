//! `mcpServers`, as Claude Desktop, Claude Code, Cursor, Gemini CLI, Windsurf,
//! Cline and others write it. They differ in the name of an address and in
//! placeholders; one reader takes the union.

use machina_core::ServiceSpec;
use serde_json::{Map, Value};

use super::endpoint::{self, Transport};
use super::entry::Entry;
use super::importer::Importer;
use super::note::field;
use super::placeholder::Syntax;

/// What a host may do with the tools of a server: its own business, kept for it.
const OF_THE_HOST: [&str; 12] = [
    "alwaysAllow",
    "alwaysLoad",
    "autoApprove",
    "autoStart",
    "allowedTools",
    "enabledTools",
    "disabledTools",
    "includeTools",
    "excludeTools",
    "tools",
    "trust",
    "watchPaths",
];

const SIGN_IN: [&str; 6] = ["oauth", "auth", "authorization", "authProviderType", "authentication", "headersHelper"];

pub(super) fn read(root: Value, importer: &mut Importer<'_>) {
    let Value::Object(mut root) = root else { return };
    let Some(servers) = root.shift_remove("mcpServers") else {
        // The servers alone, without the key around them.
        return importer.entries("", Value::Object(root), |entry, spec| read_entry(entry, spec, "mcpServers", None));
    };
    let gemini = of_gemini(&root, &servers);
    if gemini {
        importer.placeholders.syntax = Syntax::BareDollar;
    }
    let plain_url = gemini.then_some(Transport::Sse);
    importer.entries("mcpServers", servers, |entry, spec| read_entry(entry, spec, "mcpServers", plain_url));
    servers_of_projects(&mut root, importer);
    importer.foreign("", &root);
}

/// Gemini CLI alone gives `url` the meaning "SSE" and fills in `$NAME`: it is
/// told by keys that no other host has.
fn of_gemini(root: &Map<String, Value>, servers: &Value) -> bool {
    let settings = ["selectedAuthType", "contextFileName", "general", "security", "telemetry", "coreTools"];
    let own = ["httpUrl", "includeTools", "excludeTools", "trust", "authProviderType"];
    let entries = servers.as_object();
    settings.iter().any(|key| root.contains_key(*key))
        || entries.is_some_and(|servers| servers.values().any(|entry| own.iter().any(|key| entry.get(*key).is_some())))
}

/// Claude Code keeps servers of single projects beside those of the user.
fn servers_of_projects(root: &mut Map<String, Value>, importer: &mut Importer<'_>) {
    let Some(Value::Object(projects)) = root.get("projects") else { return };
    for (project, settings) in projects {
        if settings["mcpServers"].as_object().is_some_and(|servers| !servers.is_empty()) {
            let path = field(&field("projects", project), "mcpServers");
            importer.notes.warn(path, "servers of a single project are not imported: import its own file");
        }
    }
    root.shift_remove("projects");
}

/// One server. `section` is where in the metadata the host's own switches go.
pub(super) fn read_entry(entry: &mut Entry<'_>, spec: &mut ServiceSpec, section: &str, plain_url: Option<Transport>) {
    if let Some(found) = endpoint::read(entry, plain_url) {
        endpoint::give(spec, found);
    }
    common(entry, spec, section);
}

/// The fields of an entry that are not its endpoint.
pub(super) fn common(entry: &mut Entry<'_>, spec: &mut ServiceSpec, section: &str) {
    endpoint::admin_state(entry, spec);
    timeout(entry, spec);
    if let Some(description) = entry.text("description") {
        spec.description = description;
    }
    for key in ["title", "displayName", "name"] {
        if let Some(title) = entry.text(key) {
            spec.title = Some(title);
        }
    }
    if let Some(version) = entry.text("version") {
        spec.version = Some(version);
    }
    entry.set_aside(&OF_THE_HOST, section, &mut spec.metadata);
    entry.pass_over(&["envFile"], "files of variables are not read: put the variables into `env` or set them");
    entry.pass_over(&SIGN_IN, "a sign-in is not carried over: give a header with a token");
    entry.pass_over(&["sandbox", "sandboxEnabled", "dev"], "it is a way of starting that only the host has");
    entry.skip(&["gallery", "icon", "icons", "extensionName", "_meta"], "it is for the host's own display");
}

/// Some hosts count in milliseconds, some in seconds: no host waits a thousand
/// seconds or less than a second by default.
fn timeout(entry: &mut Entry<'_>, spec: &mut ServiceSpec) {
    let Some(number) = entry.number("timeout").filter(|number| *number > 0.0) else { return };
    let (seconds, unit) = if number >= 1000.0 { (number / 1000.0, "milliseconds") } else { (number, "seconds") };
    entry.notes.info(entry.at("timeout"), format!("read as {unit}; became routing_policy.timeout"));
    endpoint::call_timeout(entry, "timeout", seconds, spec);
}
