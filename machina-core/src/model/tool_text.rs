//! The definition of a tool as the text that it is kept as: a tree of JSON values
//! takes six times as much memory, and nearly nobody looks into most of it. What is
//! asked for often is found once, and read from where it stands; everything else is
//! parsed anew by whoever asks.
//!
//! Refuses to judge: [`Tool::parse`](super::Tool::parse) says what a definition must be.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::{Deserialize, IgnoredAny};
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::name::Tag;
use super::tool::ToolHints;

/// A definition: an object with a name and a schema, as compact JSON.
#[derive(Debug, Clone)]
pub(super) struct ToolText {
    json: Box<str>,
    /// Of the top level, or else of the annotations.
    title: Words,
    description: Words,
    input_schema: Range<u32>,
    output_schema: Range<u32>,
    hints: ToolHints,
}

/// Words in a definition, which stand there as they are unless JSON escapes them.
#[derive(Debug, Clone)]
enum Words {
    None,
    There(u32, u32),
    Escaped(Box<str>),
}

/// The members of a definition that are looked for.
#[derive(serde::Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    title: Option<&'a RawValue>,
    #[serde(borrow, default)]
    description: Option<&'a RawValue>,
    #[serde(borrow, rename = "inputSchema")]
    input_schema: &'a RawValue,
    #[serde(borrow, rename = "outputSchema", default)]
    output_schema: Option<&'a RawValue>,
    #[serde(borrow, default)]
    annotations: Option<&'a RawValue>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Labels {
    tags: Value,
    #[serde(rename = "_meta")]
    meta: Value,
}

impl ToolText {
    /// What `json` says, and the name in it. `None` unless it is an object with a name
    /// and a schema, and not longer than 4 GiB.
    pub(super) fn of(json: &str) -> Option<(Self, Cow<'_, str>)> {
        u32::try_from(json.len()).ok()?;
        let members: Members<'_> = serde_json::from_str(json).ok()?;
        let annotations: Value =
            members.annotations.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        let hint = |name: &str| annotations[name].as_bool().unwrap_or(false);
        let title = match Words::of(members.title, json) {
            Words::None => annotations["title"].as_str().map_or(Words::None, |title| Words::Escaped(title.into())),
            title => title,
        };
        let schema = |raw: Option<&RawValue>| raw.map_or(0..0, |raw| place(raw.get(), json));
        let text = Self {
            json: json.into(),
            title,
            description: Words::of(members.description, json),
            input_schema: schema(Some(members.input_schema)),
            output_schema: schema(members.output_schema.filter(|raw| raw.get() != "null")),
            hints: ToolHints { read_only: hint("readOnlyHint"), idempotent: hint("idempotentHint") },
        };
        Some((text, members.name))
    }

    /// All of it.
    pub(super) fn json(&self) -> &str {
        &self.json
    }

    /// All of it, with another name in the place of the one that it has.
    pub(super) fn renamed(&self, name: &str) -> Box<RawValue> {
        #[derive(serde::Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            name: &'a RawValue,
        }
        let before: Named<'_> = serde_json::from_str(&self.json).expect("a definition has a name");
        let Range { start, end } = place(before.name.get(), &self.json);
        let length = u32::try_from(self.json.len()).unwrap_or(u32::MAX);
        let (head, tail) = (part(&self.json, &(0..start)), part(&self.json, &(end..length)));
        let json = format!("{head}{}{tail}", Value::from(name));
        RawValue::from_string(json).expect("a string in the place of another leaves JSON")
    }

    pub(super) fn title(&self) -> Option<&str> {
        self.title.get(&self.json)
    }

    pub(super) fn description(&self) -> Option<&str> {
        self.description.get(&self.json)
    }

    pub(super) fn hints(&self) -> ToolHints {
        self.hints
    }

    /// The schema of the arguments, as JSON.
    pub(super) fn input_schema(&self) -> &str {
        part(&self.json, &self.input_schema)
    }

    /// The schema of what the tool answers, as JSON; empty where there is none.
    pub(super) fn output_schema(&self) -> &str {
        part(&self.json, &self.output_schema)
    }

    /// The names of the arguments.
    pub(super) fn arguments(&self) -> Vec<String> {
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct Schema {
            properties: BTreeMap<String, IgnoredAny>,
        }
        let schema: Schema = serde_json::from_str(self.input_schema()).unwrap_or_default();
        schema.properties.into_keys().collect()
    }

    /// Tags that the server put on the tool.
    pub(super) fn tags(&self) -> Vec<Tag> {
        if !self.json.contains("\"tags\"") {
            return Vec::new();
        }
        let Labels { tags, meta } = serde_json::from_str(&self.json).unwrap_or_default();
        [&tags, &meta["_fastmcp"]["tags"], &meta["fastmcp"]["tags"]]
            .into_iter()
            .filter_map(Value::as_array)
            .flatten()
            .filter_map(|tag| Tag::new(tag.as_str()?).ok())
            .collect()
    }
}

/// The tree that a part of a definition is; null for what is not there.
pub(super) fn tree(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}

/// Two are equal whose trees are: the order of keys is not what a server says.
impl PartialEq for ToolText {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json || tree(&self.json) == tree(&other.json)
    }
}

/// As the tree that it is, whatever it is written as.
impl Serialize for ToolText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        tree(&self.json).serialize(serializer)
    }
}

impl Words {
    fn of(raw: Option<&RawValue>, json: &str) -> Self {
        let Some(raw) = raw.map(RawValue::get).filter(|raw| raw.starts_with('"')) else { return Self::None };
        let mut parser = serde_json::Deserializer::from_str(raw);
        match Cow::<'_, str>::deserialize(&mut parser) {
            Ok(_) if !raw.contains('\\') => {
                let Range { start, end } = place(raw, json);
                Self::There(start + 1, end - 1)
            }
            Ok(words) => Self::Escaped(words.into()),
            Err(_) => Self::None,
        }
    }

    fn get<'a>(&'a self, json: &'a str) -> Option<&'a str> {
        match self {
            Self::None => None,
            Self::There(start, end) => Some(part(json, &(*start..*end))),
            Self::Escaped(words) => Some(words),
        }
    }
}

/// Where in `json` that part of it stands.
fn place(part: &str, json: &str) -> Range<u32> {
    let start = (part.as_ptr() as usize).saturating_sub(json.as_ptr() as usize);
    let number = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
    number(start)..number(start + part.len())
}

fn part<'a>(json: &'a str, place: &Range<u32>) -> &'a str {
    json.get(place.start as usize..place.end as usize).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn text(definition: &Value) -> ToolText {
        ToolText::of(&definition.to_string()).unwrap().0
    }

    #[test]
    fn what_is_looked_for_is_found_where_it_stands() {
        let schema = json!({"type": "object", "properties": {"b": {"description": "\"}"}, "a": {}}});
        let definition = json!({"name": "t", "_meta": {"fastmcp": {"tags": ["x"]}}, "description": "Größe", "tags": ["y"],
            "inputSchema": schema, "outputSchema": {"type": "object"},
            "annotations": {"title": "A \"title\"", "readOnlyHint": true, "idempotentHint": "yes"}});
        let text = text(&definition);
        assert_eq!((text.title(), text.description()), (Some("A \"title\""), Some("Größe")));
        assert_eq!(tree(text.input_schema()), schema);
        assert_eq!(text.output_schema(), r#"{"type":"object"}"#);
        assert_eq!(text.arguments(), ["a", "b"]);
        assert_eq!(text.tags().iter().map(Tag::as_str).collect::<Vec<_>>(), ["y", "x"]);
        assert_eq!(text.hints(), ToolHints { read_only: true, idempotent: false });
        assert_eq!(text.json(), definition.to_string());
        let renamed: Value = serde_json::from_str(text.renamed("n\"ew").get()).unwrap();
        assert_eq!(renamed.to_string(), definition.to_string().replace(r#""t""#, r#""n\"ew""#));
    }

    #[test]
    fn what_is_of_another_type_is_not_there() {
        let text = text(&json!({"name": "t", "title": 1, "description": ["a"], "tags": "a", "_meta": 5,
            "inputSchema": {"properties": [1]}, "outputSchema": null, "annotations": "none"}));
        assert_eq!((text.title(), text.description(), text.output_schema()), (None, None, ""));
        assert!(text.arguments().is_empty() && text.tags().is_empty());
        assert_eq!(text.hints(), ToolHints::default());
    }

    #[test]
    fn the_order_of_keys_makes_no_difference() {
        let one = text(&json!({"name": "t", "inputSchema": {"a": 1, "b": 2}}));
        assert_eq!(one, text(&json!({"inputSchema": {"b": 2, "a": 1}, "name": "t"})));
        assert_ne!(one, text(&json!({"name": "t", "inputSchema": {"a": 1, "b": 3}})));
    }

    proptest! {
        #[test]
        fn any_words_are_read_as_they_were_written(title in any::<Option<String>>(), description in any::<String>()) {
            let mut definition = json!({"name": "t", "description": description, "inputSchema": {}});
            if let Some(title) = &title {
                definition["title"] = title.as_str().into();
            }
            let text = text(&definition);
            prop_assert_eq!(text.title(), title.as_deref());
            prop_assert_eq!(text.description(), Some(description.as_str()));
        }
    }
}
