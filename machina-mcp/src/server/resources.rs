//! `machina://services/{name}`: what there is to know about a service, for people
//! and models. Refuses to show a secret: locations come masked from the core.

use std::fmt::Write as _;

use machina_core::{Era, Error, Query, Registry, Result, Scoped, ServiceView, Status};
use serde_json::{Map, Value, json};

use super::errors;
use super::protocol::{FRESH, Reply, STATIC};
use super::rpc::{Fault, INVALID_PARAMS, Object, shown};
use super::tools::first_line;

const PREFIX: &str = "machina://services/";
const MARKDOWN: &str = "text/markdown";
/// How many services a page of the list has.
const PAGE: u32 = 100;

/// What `resources/templates/list` answers.
pub(crate) fn templates() -> Reply {
    let template = json!({
        "uriTemplate": format!("{PREFIX}{{+name}}"),
        "name": "service",
        "title": "Documentation of a service",
        "description": "Description, status, instances and tools of one service",
        "mimeType": MARKDOWN,
    });
    Reply::cached(json!({"resourceTemplates": [template]}), STATIC)
}

/// What `resources/list` answers: one resource per service.
pub(crate) fn list(scoped: &Scoped, params: &Object, era: Era) -> Result<Reply, Fault> {
    let cursor = match params.get("cursor") {
        None | Some(Value::Null) => None,
        Some(Value::String(cursor)) => Some(cursor.clone()),
        Some(_) => return Err(Fault::new(INVALID_PARAMS, "cursor: must be a string")),
    };
    let query = Query { cursor, limit: Some(PAGE), ..Query::default() };
    let page = scoped.services(&query).map_err(|error| errors::fault(&error, era))?;
    let resources = page.items.iter().map(|view| {
        let spec = &view.service().spec;
        let mut resource = Map::from_iter([
            ("uri".to_owned(), json!(format!("{PREFIX}{}", spec.name))),
            ("name".to_owned(), json!(spec.name)),
            ("mimeType".to_owned(), json!(MARKDOWN)),
        ]);
        if let Some(title) = &spec.title {
            resource.insert("title".to_owned(), json!(title));
        }
        if !spec.description.is_empty() {
            resource.insert("description".to_owned(), json!(first_line(&spec.description)));
        }
        Value::Object(resource)
    });
    let mut result = json!({"resources": resources.collect::<Vec<_>>()});
    if let Some(cursor) = page.next_cursor {
        result["nextCursor"] = cursor.into();
    }
    Ok(Reply::cached(result, FRESH))
}

/// What `resources/read` answers.
pub(crate) async fn read(scoped: &Scoped, params: &Object, era: Era) -> Result<Reply, Fault> {
    let Some(uri) = params.get("uri").and_then(Value::as_str) else {
        return Err(Fault::new(INVALID_PARAMS, format!("uri: must be a string such as \"{PREFIX}time\"")));
    };
    let text = match uri.strip_prefix(PREFIX) {
        Some(name) => document(scoped, name).await,
        None => Err(Error::not_found(format!("there is no resource `{}`; there are {PREFIX}{{name}}", shown(uri)))),
    };
    let text = text.map_err(|error| {
        let mut fault = errors::fault(&error, era);
        if let Some(data) = &mut fault.data {
            data["uri"] = uri.into();
        }
        fault
    })?;
    Ok(Reply::cached(json!({"contents": [{"uri": uri, "mimeType": MARKDOWN, "text": text}]}), FRESH))
}

async fn document(scoped: &Scoped, name: &str) -> Result<String> {
    let view = scoped.service(name)?;
    let health = scoped.health(name).await?;
    let mut text = String::new();
    head(&mut text, &view);
    let _ = writeln!(text, "\n## Status\n\n{}{}\n", health.status.as_str(), because(&health.health.reason.message));
    let _ = writeln!(text, "## Instances\n");
    for instance in &health.instances {
        let version = instance.protocol_version.as_deref().map(|v| format!(", MCP {v}")).unwrap_or_default();
        let reason =
            if instance.status == Status::Healthy { String::new() } else { because(&instance.health.reason.message) };
        let _ = writeln!(text, "- `{}`: {}{version}{reason}", instance.location, instance.status.as_str());
    }
    let _ = writeln!(text, "\n## Tools\n");
    for offered in view.tools() {
        let _ = writeln!(text, "- `{}`: {}", offered.tool.name(), first_line(offered.tool.description()));
    }
    Ok(text)
}

fn head(text: &mut String, view: &ServiceView) {
    let spec = &view.service().spec;
    let _ = writeln!(text, "# {}", spec.title.as_deref().unwrap_or(spec.name.as_str()));
    let tags = spec.tags.iter().map(machina_core::Tag::as_str).collect::<Vec<_>>().join(", ");
    let facts = [
        ("Service", Some(format!("`{}`", spec.name))),
        ("Version", spec.version.clone()),
        ("Tags", (!tags.is_empty()).then_some(tags)),
        ("Documentation", spec.documentation_url.clone()),
        ("Source", spec.repository_url.clone()),
    ];
    text.push('\n');
    for (name, fact) in facts {
        if let Some(fact) = fact {
            let _ = writeln!(text, "- {name}: {fact}");
        }
    }
    if !spec.description.is_empty() {
        let _ = writeln!(text, "\n{}", spec.description);
    }
}

fn because(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({})", message.replace('\n', " ")) }
}
