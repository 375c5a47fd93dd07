//! What every format shares: one service per entry, a valid name for each, no
//! name twice, and the settings of a host that are not about servers.

use std::collections::BTreeMap;

use machina_core::{BuildType, Endpoint, Instance, ServiceName, ServiceSpec};
use serde_json::{Map, Value};

use super::entry::{Entry, kind};
use super::note::{Notes, field};
use super::placeholder::Placeholders;
use super::{Format, Import, ImportOptions};

/// So many foreign keys are named one by one; more are a file about something else.
const FOREIGN_MAX: usize = 5;

pub(super) struct Importer<'a> {
    format: Format,
    pub(super) placeholders: Placeholders<'a>,
    pub(super) notes: Notes,
    services: Vec<ServiceSpec>,
    taken: BTreeMap<ServiceName, String>,
}

impl<'a> Importer<'a> {
    pub(super) fn new(format: Format, options: &'a ImportOptions, notes: Notes) -> Self {
        Self { format, placeholders: Placeholders::new(options), notes, services: Vec::new(), taken: BTreeMap::new() }
    }

    pub(super) fn finish(self) -> Import {
        Import { format: self.format, services: self.services, notes: self.notes.into_vec() }
    }

    /// Reads each entry of `servers`, the object at `path`, into a service.
    pub(super) fn entries(
        &mut self,
        path: &str,
        servers: Value,
        read: impl Fn(&mut Entry<'_>, &mut ServiceSpec) + Copy,
    ) {
        let Value::Object(servers) = servers else {
            self.notes.error(path, format!("is {}, must be an object with a server for each name", kind(&servers)));
            return;
        };
        if servers.is_empty() {
            self.notes.warn(path, "holds no server");
        }
        for (name, value) in servers {
            self.entry(field(path, &name), &name, value, read);
        }
    }

    /// Reads one entry into a service; whatever is wrong with it is an error
    /// note, and then there is no service.
    pub(super) fn entry(
        &mut self,
        path: String,
        name: &str,
        value: Value,
        read: impl FnOnce(&mut Entry<'_>, &mut ServiceSpec),
    ) {
        let Value::Object(fields) = value else {
            self.notes.error(path, format!("is {}, must be an object", kind(&value)));
            return;
        };
        let errors = self.notes.errors();
        let (service_name, converted) = match service_name(name) {
            Ok(found) => found,
            Err(message) => return self.notes.error(path, message),
        };
        let mut spec = match ServiceSpec::new(service_name.as_str()) {
            Ok(spec) => spec,
            Err(error) => return self.notes.error(path, error.message()),
        };
        spec.build_type = BuildType::External;
        if converted {
            spec.title = Some(name.chars().take(200).collect());
            self.notes.info(&path, format!("the name became `{service_name}`; the title keeps the original"));
        }
        let mut entry = Entry::new(path.clone(), fields, &self.placeholders, &mut self.notes);
        read(&mut entry, &mut spec);
        entry.finish();
        if self.notes.errors() == errors {
            self.add(path, spec);
        }
    }

    /// Adds a service that was read at `path`, if it is valid and its name is free.
    pub(super) fn add(&mut self, path: String, spec: ServiceSpec) {
        if let Err(error) = spec.validate() {
            for problem in &error.context().problems {
                self.notes.error(&path, format!("{} {}", problem.field, problem.detail));
            }
            return;
        }
        if let Some(first) = self.taken.get(&spec.name) {
            let message = format!("the service name `{}` is already that of {first}: rename one of them", spec.name);
            return self.notes.error(path, message);
        }
        if let Some(place) = masked(&spec) {
            let message = format!(
                "{place} holds a mask in place of a secret: only a registry that has the secret \
                                   already can take it, otherwise put ${{env:NAME}} there"
            );
            self.notes.warn(&path, message);
        }
        self.taken.insert(spec.name.clone(), path);
        self.services.push(spec);
    }

    /// What the object at `path` holds besides servers.
    pub(super) fn foreign(&mut self, path: &str, rest: &Map<String, Value>) {
        let keys: Vec<_> = rest.keys().filter(|key| *key != "$schema" && !key.starts_with("//")).collect();
        if keys.len() <= FOREIGN_MAX {
            for key in keys {
                self.notes.warn(field(path, key), "unknown key, not imported");
            }
            return;
        }
        let named: Vec<_> = keys.iter().take(FOREIGN_MAX).map(|key| field("", key)).collect();
        let message = format!("{} other settings of the host are not imported: {}, …", keys.len(), named.join(", "));
        self.notes.info(path, message);
    }
}

/// The first place where a mask stands instead of a value.
fn masked(spec: &ServiceSpec) -> Option<String> {
    let in_env = spec.env.iter().find(|(_, value)| value.is_mask()).map(|(name, _)| format!("env.{name}"));
    in_env.or_else(|| {
        let in_instance = |instance: &Instance| match &instance.endpoint {
            Endpoint::Stdio(stdio) => stdio.env.values().chain(&stdio.args).any(|value| value.is_mask()),
            Endpoint::Http(http) | Endpoint::Sse(http) => {
                http.headers.values().chain([&http.url]).any(|value| value.is_mask())
            }
            Endpoint::WebSocket(socket) => socket.url.is_mask(),
            _ => false,
        };
        spec.instances.iter().position(in_instance).map(|index| format!("instances[{index}]"))
    })
}

/// A service name out of any name, and whether it had to be changed.
fn service_name(name: &str) -> Result<(ServiceName, bool), String> {
    if let Ok(name) = ServiceName::new(name) {
        return Ok((name, false));
    }
    let converted = match name.split_once('/') {
        Some((namespace, rest)) if !rest.contains('/') => match (part(namespace), part(rest)) {
            (namespace, rest) if namespace.is_empty() => rest,
            (namespace, rest) if rest.is_empty() => namespace,
            (namespace, rest) => format!("{namespace}/{rest}"),
        },
        _ => part(name),
    };
    match ServiceName::new(&converted) {
        Ok(converted) => Ok((converted, true)),
        Err(_) => Err("the name holds no letter a-z or digit to make a service name of: rename it".to_owned()),
    }
}

fn part(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        let c = if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' };
        if c != '-' || !out.ends_with('-') {
            out.push(c);
        }
    }
    let edge = |c: char| !c.is_ascii_alphanumeric();
    let kept: String = out.trim_matches(edge).chars().take(100).collect();
    kept.trim_end_matches(edge).to_owned()
}
