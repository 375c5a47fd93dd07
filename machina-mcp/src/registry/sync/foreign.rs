//! An entry as the other registry has it, read with suspicion: it says how to
//! reach a server and what that is good for, and nothing about who may see or
//! manage it here.

use machina_core::{AccessLevel, ServiceName, ServiceSpec, Timestamp};
use serde_json::{Value, json};

use crate::formats::import_listed;

const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";
/// How many characters of a name or a reason are shown.
const SHOWN_MAX: usize = 200;

#[derive(Debug)]
pub(super) struct Foreign {
    /// The name there.
    pub(super) server: String,
    /// The name here; a reason if it can have none.
    pub(super) name: Result<ServiceName, String>,
    /// Whether it is gone there.
    pub(super) deleted: bool,
    /// Whether it is the latest version of its server.
    pub(super) latest: bool,
    pub(super) updated_at: Option<Timestamp>,
    /// What it would be here; a reason if it says nothing that can be used.
    pub(super) spec: Result<ServiceSpec, String>,
}

impl Foreign {
    pub(super) fn read(mut entry: Value, prefix: &str) -> Self {
        let official = entry.get("_meta").and_then(|meta| meta.get(OFFICIAL)).cloned().unwrap_or_default();
        let server = match entry.get_mut("server") {
            Some(server) => server.take(),
            None => entry,
        };
        let named = server.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = name_here(&named, prefix);
        let deleted = official.get("status").and_then(Value::as_str) == Some("deleted");
        let spec = match (&name, deleted) {
            (Ok(name), false) => spec(server, name),
            _ => Err("is not registered".to_owned()),
        };
        Self {
            server: shown(&named),
            name,
            deleted,
            latest: official.get("isLatest") != Some(&Value::Bool(false)),
            updated_at: official.get("updatedAt").and_then(Value::as_str).and_then(|at| at.parse().ok()),
            spec,
        }
    }
}

/// The name that a server gets here.
pub(super) fn name_here(name: &str, prefix: &str) -> Result<ServiceName, String> {
    let name = if prefix.ends_with('/') { name.replace('/', ".") } else { name.to_owned() };
    let full = format!("{prefix}{name}");
    ServiceName::new(&full).map_err(|_| format!("`{}` cannot be the name of a service here", shown(&full)))
}

fn spec(server: Value, name: &ServiceName) -> Result<ServiceSpec, String> {
    let mut import = import_listed(json!({ "server": server }));
    let why = || import.errors().next().map_or("says nothing", |note| note.message.as_str());
    if import.services.is_empty() {
        return Err(shown(why()));
    }
    let mut spec = import.services.remove(0);
    spec.name = name.clone();
    spec.tenant = None;
    spec.access_level = AccessLevel::default();
    spec.required = false;
    // An operator vouches for the registry, not for where everyone in it leads.
    spec.instances.iter_mut().for_each(|instance| instance.from_outside = true);
    spec.validate().map_err(|error| shown(error.message()))?;
    Ok(spec)
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, status: &str, latest: bool) -> Value {
        let remotes = json!([{"type": "sse", "url": "https://a.example/sse"}]);
        json!({
            "server": {"name": name, "description": "d", "version": "1", "remotes": remotes},
            "_meta": {OFFICIAL: {"status": status, "isLatest": latest, "updatedAt": "2026-01-01T00:00:00Z"}},
        })
    }

    #[test]
    fn an_entry_is_read_with_its_prefix() {
        let foreign = Foreign::read(entry("io.x/y", "active", true), "");
        assert_eq!(foreign.spec.unwrap().name.as_str(), "io.x/y");
        assert!(foreign.latest && !foreign.deleted && foreign.updated_at.is_some());
        assert_eq!(Foreign::read(entry("io.x/y", "active", true), "acme/").name.unwrap().as_str(), "acme/io.x.y");
        assert_eq!(Foreign::read(entry("io.x/y", "active", true), "acme-").name.unwrap().as_str(), "acme-io.x/y");
        assert!(Foreign::read(entry("io.x/y", "deleted", false), "").deleted);
        let bare = Foreign::read(entry("io.x/y", "", true)["server"].clone(), "");
        assert!(bare.latest && bare.updated_at.is_none() && bare.spec.is_ok());
    }

    #[test]
    fn what_it_says_about_rights_does_not_count() {
        let mut listed = entry("io.x/y", "active", true);
        listed["server"]["_meta"] = json!({crate::formats::PUBLISHER_PROVIDED: {crate::formats::EXTENSION: {
            "name": "other", "tenant": "acme", "access_level": "diamond", "required": true, "tags": ["kept"],
        }}});
        let spec = Foreign::read(listed, "").spec.unwrap();
        assert_eq!((spec.name.as_str(), spec.tenant, spec.required), ("io.x/y", None, false));
        assert_eq!((spec.access_level, spec.tags.len()), (AccessLevel::default(), 1));
        assert!(spec.instances.iter().all(|instance| instance.from_outside));
    }

    #[test]
    fn nonsense_has_a_reason() {
        for (entry, part) in [
            (json!(7), "cannot be the name"),
            (json!({"server": {"name": "a b/c"}}), "cannot be the name"),
            (json!({"server": {"name": "a/b", "description": 7}}), "must be text"),
            (json!({"server": {"name": "a/b"}}), "none of its packages"),
            (json!({"server": {"name": "a/b", "remotes": [{"type": "sse", "url": "file:///x"}]}}), "sse.url"),
        ] {
            let foreign = Foreign::read(entry, "");
            let why = foreign.name.err().or(foreign.spec.err()).unwrap();
            assert!(why.contains(part), "{why}");
        }
    }
}
