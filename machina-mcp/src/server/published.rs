//! What services publish besides tools, as far as hosts can use it: prompts,
//! resources and resource templates. A malformed entry is left out, so that it
//! does not spoil the list of all others.

use machina_core::ServiceView;
use serde_json::Value;

use super::rpc::Object;

/// The largest definition that is listed, in bytes of JSON.
const DEFINITION_BYTES_MAX: usize = 64 * 1024;

/// A kind of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Prompt,
    Resource,
    Template,
}

impl Kind {
    /// The member that tells an entry from the others of its server.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Prompt => "name",
            Self::Resource => "uri",
            Self::Template => "uriTemplate",
        }
    }

    fn of(self, definitions: &machina_core::Definitions) -> &[Value] {
        match self {
            Self::Prompt => &definitions.prompts,
            Self::Resource => &definitions.resources,
            Self::Template => &definitions.resource_templates,
        }
    }
}

/// An entry, and its key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published<'a> {
    pub(super) key: &'a str,
    pub(super) definition: &'a Object,
}

/// The entries of a service: the union over its instances, in the order of the
/// first that publishes them.
pub(super) fn published(view: &ServiceView, kind: Kind) -> Vec<Published<'_>> {
    let mut seen = std::collections::HashSet::new();
    view.instances()
        .filter_map(|(_, seen)| seen.definitions.as_deref())
        .flat_map(|definitions| kind.of(definitions))
        .filter_map(|entry| well_formed(entry, kind))
        .filter(|entry| seen.insert(entry.key))
        .collect()
}

/// Whether an instance of the service completes arguments.
pub(super) fn completes(view: &ServiceView) -> bool {
    let definitions = view.instances().filter_map(|(_, seen)| seen.definitions.as_deref());
    definitions.into_iter().any(|definitions| definitions.capabilities["completions"].is_object())
}

fn well_formed(entry: &Value, kind: Kind) -> Option<Published<'_>> {
    let definition = entry.as_object()?;
    let key = definition.get(kind.key())?.as_str().filter(|key| !key.is_empty())?;
    let text = |member: &str| definition.get(member).is_none_or(Value::is_string);
    let texts = definition.get("name").is_some_and(Value::is_string)
        && ["title", "description", "mimeType"].into_iter().all(text);
    let arguments = kind != Kind::Prompt || definition.get("arguments").is_none_or(Value::is_array);
    (texts && arguments && entry.to_string().len() <= DEFINITION_BYTES_MAX).then_some(Published { key, definition })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_entry_that_a_host_cannot_read_is_left_out() {
        let good = json!({"name": "p", "x-more": [1], "arguments": [{"name": "a"}]});
        assert_eq!(well_formed(&good, Kind::Prompt).unwrap().key, "p");
        assert_eq!(well_formed(&json!({"name": "r", "uri": "a:b"}), Kind::Resource).unwrap().key, "a:b");
        for (bad, kind) in [
            (json!("p"), Kind::Prompt),
            (json!({"title": "p"}), Kind::Prompt),
            (json!({"name": ""}), Kind::Prompt),
            (json!({"name": "p", "description": null}), Kind::Prompt),
            (json!({"name": "p", "arguments": {}}), Kind::Prompt),
            (json!({"name": "r"}), Kind::Resource),
            (json!({"uri": "a:b"}), Kind::Resource),
            (json!({"name": "r", "uri": "a:b"}), Kind::Template),
            (json!({"name": "r", "uri": "a:b", "text": "x".repeat(DEFINITION_BYTES_MAX)}), Kind::Resource),
        ] {
            assert!(well_formed(&bad, kind).is_none(), "{bad}");
        }
    }
}
