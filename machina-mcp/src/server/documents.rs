//! The document about a service: what there is to know about it, for people and
//! models. Refuses to show a secret: locations come masked from the core.

use std::fmt::Write as _;

use machina_core::{Registry, Result, Scoped, ServiceView, Status};

use super::published::{Kind, published};
use super::tools::first_line;
use super::uris;

/// What kind of text it is.
pub(super) const MARKDOWN: &str = "text/markdown";

/// The document about the service of this name.
///
/// # Errors
/// [`NotFound`](machina_core::ErrorKind::NotFound).
pub(super) async fn document(scoped: &Scoped, name: &str) -> Result<String> {
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
    others(&mut text, &view);
    Ok(text)
}

/// Prompts and resources, where there are any.
fn others(text: &mut String, view: &ServiceView) {
    let name = view.service().name().as_str();
    for (kind, title) in
        [(Kind::Prompt, "Prompts"), (Kind::Resource, "Resources"), (Kind::Template, "Resource templates")]
    {
        let entries = published(view, kind);
        if !entries.is_empty() {
            let _ = writeln!(text, "\n## {title}\n");
        }
        for entry in entries {
            let key = if kind == Kind::Prompt { entry.key.to_owned() } else { uris::of_service(name, entry.key) };
            let description = entry.definition.get("description").and_then(|text| text.as_str()).unwrap_or_default();
            let _ = writeln!(text, "- `{key}`: {}", first_line(description));
        }
    }
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
