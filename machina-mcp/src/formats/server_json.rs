//! `server.json` of the official registry (schema 2025-12-11), one or a list as
//! the registry answers. A server may be had in several ways; the first that
//! works is enabled and the others are kept disabled, because they are
//! alternatives and not replicas.

use machina_core::{AdminState, Endpoint, Instance, ServiceSpec};
use serde_json::Value;

use super::endpoint::{self, Transport};
use super::entry::Entry;
use super::importer::Importer;
use super::note::{element, field};
use super::package::{self, Scope};

pub(super) fn read(root: Value, importer: &mut Importer<'_>) {
    let Value::Object(mut root) = root else { return };
    match root.shift_remove("servers") {
        Some(Value::Array(servers)) => {
            for (index, server) in servers.into_iter().enumerate() {
                listed(element("servers", index), server, importer);
            }
            root.shift_remove("metadata");
            importer.foreign("", &root);
        }
        _ => listed(String::new(), Value::Object(root), importer),
    }
}

/// A server, alone or as `server` beside what the registry says of it.
fn listed(path: String, mut value: Value, importer: &mut Importer<'_>) {
    if let Some(Value::Object(server)) = value.get_mut("server").map(Value::take) {
        return one(field(&path, "server"), Value::Object(server), importer);
    }
    one(path, value, importer);
}

fn one(path: String, mut value: Value, importer: &mut Importer<'_>) {
    let name = value.as_object_mut().and_then(|server| server.shift_remove("name"));
    match name.as_ref().and_then(Value::as_str) {
        Some(name) => importer.entry(path, name, value, server),
        None => importer.notes.error(field(&path, "name"), "must be a name such as io.github.user/server"),
    }
}

fn server(entry: &mut Entry<'_>, spec: &mut ServiceSpec) {
    spec.title = entry.text("title").or(spec.title.take());
    spec.description = entry.text("description").unwrap_or_default();
    spec.version = entry.text("version");
    spec.documentation_url = entry.text("websiteUrl");
    if let Some(mut repository) = entry.nested("repository") {
        spec.repository_url = repository.text("url");
        repository.skip(&["source", "id", "subfolder"], "there is no place for it");
        repository.finish();
    }
    entry.set_aside(&["status"], "server.json", &mut spec.metadata);
    entry.skip(&["$schema", "_meta", "icons"], "it says nothing about how to reach the server");
    let scope = Scope::of(&spec.name);
    let mut ways = Vec::new();
    entry.each("packages", |way| ways.extend(package::read(way, &scope).map(|found| (way.path.clone(), found))));
    entry.each("remotes", |way| ways.extend(remote(way, &scope).map(|found| (way.path.clone(), found))));
    for (path, found) in ways {
        add_way(entry, spec, &path, found);
    }
    if spec.instances.is_empty() {
        entry.notes.error(&entry.path, "none of its packages and remotes can be used here");
    }
}

fn add_way(entry: &mut Entry<'_>, spec: &mut ServiceSpec, path: &str, found: Endpoint) {
    if spec.instances.is_empty() {
        return endpoint::give(spec, found);
    }
    let mut instance = Instance::new(found);
    instance.admin_state = AdminState::Disabled;
    spec.instances.push(instance);
    entry.notes.info(path, "is another way to the same server: imported as a disabled instance");
}

fn remote(entry: &mut Entry<'_>, scope: &Scope) -> Option<Endpoint> {
    let word = entry.text("type").unwrap_or_default();
    let Some(transport) = endpoint::transport(&word).filter(|found| *found != Transport::Stdio) else {
        entry.notes.error(entry.at("type"), "must be `streamable-http` or `sse`");
        return None;
    };
    let Some(template) = entry.text("url") else {
        entry.notes.error(entry.at("url"), "is missing: it is the address of the server");
        return None;
    };
    let variables = entry.table("variables").unwrap_or_default();
    let url = package::fill(entry, &template, variables, scope);
    let headers = package::pairs(entry, "headers", scope);
    let mut found = endpoint::remote(entry, transport, url);
    if let Endpoint::Http(http) | Endpoint::Sse(http) = &mut found {
        http.headers = headers;
    }
    Some(found)
}
