//! `server.json` of the official registry (schema 2025-12-11), one or a list as
//! the registry answers. A server may be had in several ways; the first that
//! works is enabled and the others are kept disabled, because they are
//! alternatives and not replicas. What such a document cannot say stands in an
//! extension of our own, which [`server_json`](super::server_json()) writes: with
//! it, a service comes back as it was.

use machina_core::{AdminState, Endpoint, Instance, ServiceSpec};
use serde_json::{Map, Value};

use super::endpoint::{self, Transport};
use super::entry::Entry;
use super::importer::Importer;
use super::note::{Notes, element, field};
use super::package::{self, Scope};
use super::{Format, Import, ImportOptions};

/// Where a publisher may say what the format has no field for.
pub(crate) const PUBLISHER_PROVIDED: &str = "io.modelcontextprotocol.registry/publisher-provided";
/// The fields of a record that the other fields of the document do not say; `null`
/// for one that the record does not have.
pub(crate) const EXTENSION: &str = "dev.machina/service";

/// Reads one document, or one entry of a list of the registry.
pub(crate) fn import_listed(entry: Value) -> Import {
    let options = ImportOptions::default();
    let mut importer = Importer::new(Format::ServerJson, &options, Notes::default());
    listed(String::new(), entry, &mut importer);
    importer.finish()
}

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
    entry.skip(&["$schema", "icons"], "it says nothing about how to reach the server");
    let extension = extension(entry);
    let scope = Scope::of(&spec.name);
    let mut ways = Vec::new();
    entry.each("packages", |way| ways.extend(package::read(way, &scope).map(|found| (way.path.clone(), found))));
    entry.each("remotes", |way| ways.extend(remote(way, &scope).map(|found| (way.path.clone(), found))));
    for (path, found) in ways {
        add_way(entry, spec, &path, found);
    }
    if let Some(extension) = &extension {
        overlay(entry, spec, extension);
    }
    let says_none = extension.is_some_and(|extension| extension.contains_key("instances"));
    if spec.instances.is_empty() && !says_none {
        entry.notes.error(&entry.path, "none of its packages and remotes can be used here");
    }
}

/// What the document says in our own extension; other extensions are passed over.
fn extension(entry: &mut Entry<'_>) -> Option<Map<String, Value>> {
    let mut meta = entry.take("_meta")?;
    match meta.get_mut(PUBLISHER_PROVIDED)?.get_mut(EXTENSION)?.take() {
        Value::Object(extension) => Some(extension),
        _ => {
            let path = field(&field(&entry.at("_meta"), PUBLISHER_PROVIDED), EXTENSION);
            entry.notes.warn(path, "not imported: must be an object with fields of a service record");
            None
        }
    }
}

/// Lets the fields of the extension take the place of what was read without it.
fn overlay(entry: &mut Entry<'_>, spec: &mut ServiceSpec, extension: &Map<String, Value>) {
    let mut record = spec.exposed();
    let Some(fields) = record.as_object_mut() else { return };
    for (name, value) in extension {
        if value.is_null() {
            fields.shift_remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    match ServiceSpec::from_value(record) {
        Ok(whole) => *spec = whole,
        Err(error) => {
            let path = field(&field(&entry.at("_meta"), PUBLISHER_PROVIDED), EXTENSION);
            let fields: Vec<_> = error.context().problems.iter().map(|problem| problem.field.as_str()).collect();
            let message = format!("not imported: these fields make no service record: {}", fields.join(", "));
            entry.notes.warn(path, message);
        }
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
