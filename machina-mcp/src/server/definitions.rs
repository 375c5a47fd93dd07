//! The five tools by which a host reaches every tool there is, as it lists them.
//! Written for a model: when to use each, and what comes next. They never change.

use std::sync::{Arc, LazyLock};

use machina_core::Status;
use serde_json::{Value, json};

use super::aliases::ALIASES;
use super::listing::Listing;
use super::protocol::{Reply, STATIC};
use super::rpc::{Fault, INVALID_PARAMS, Object};

/// How many services, and how many tools, a page has at most.
pub(crate) const SERVICES_MAX: u32 = 200;
pub(crate) const TOOLS_MAX: u32 = 500;
/// How many tools a search returns: at most, and when nothing is said.
pub(crate) const FOUND_MAX: u32 = 50;
pub(crate) const FOUND_DEFAULT: u32 = 5;
/// How many services or tools a page has when nothing is said.
pub(crate) const PAGE_DEFAULT: u32 = 50;

/// One of the five tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetaTool {
    ListServices,
    ListTools,
    FindTool,
    DescribeTool,
    CallTool,
}

impl MetaTool {
    /// The tool of this name; three names of earlier gateways are understood too.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "list_services" => Self::ListServices,
            "list_tools" => Self::ListTools,
            "find_tool" => Self::FindTool,
            "describe_tool" => Self::DescribeTool,
            "call_tool" => Self::CallTool,
            _ => ALIASES.iter().find(|(alias, _)| *alias == name)?.1,
        })
    }

    fn definition(self) -> Value {
        match self {
            Self::ListServices => list_services(),
            Self::ListTools => list_tools(),
            Self::FindTool => find_tool(),
            Self::DescribeTool => describe_tool(),
            Self::CallTool => call_tool(),
        }
    }
}

/// The names, for messages.
pub(crate) const NAMES: &str = "list_services, list_tools, find_tool, describe_tool and call_tool";

/// In the order in which they are listed.
const ALL: [MetaTool; 5] =
    [MetaTool::FindTool, MetaTool::CallTool, MetaTool::ListServices, MetaTool::ListTools, MetaTool::DescribeTool];

/// What `tools/list` answers, with the names of earlier gateways or without. All
/// are on one page, so no cursor was ever given out.
pub(super) fn page(params: &Object, aliases: bool) -> Result<Reply, Fault> {
    match params.get("cursor") {
        None | Some(Value::Null) => Ok(Reply::listed(listing(aliases).whole(), Object::new(), STATIC)),
        Some(_) => Err(Fault::new(INVALID_PARAMS, "cursor: is not one of this server")),
    }
}

fn listing(aliases: bool) -> &'static Arc<Listing> {
    static PLAIN: LazyLock<Arc<Listing>> = LazyLock::new(|| listed(&[]));
    static WITH_ALIASES: LazyLock<Arc<Listing>> = LazyLock::new(|| listed(&ALIASES));
    if aliases { &WITH_ALIASES } else { &PLAIN }
}

fn listed(aliases: &[(&'static str, MetaTool)]) -> Arc<Listing> {
    let mut listing = Listing::new("tools");
    let aliases = aliases.iter().map(|(name, tool)| alias(name, *tool));
    for (place, tool) in ALL.into_iter().map(MetaTool::definition).chain(aliases).enumerate() {
        listing.push_own("", place, &tool);
    }
    listing.finished()
}

/// The definition of `tool` under another name, and in few words.
fn alias(name: &str, tool: MetaTool) -> Value {
    let mut definition = tool.definition();
    let same = format!("Same as `{}`.", definition["name"].as_str().unwrap_or_default());
    definition["name"] = name.into();
    definition["description"] = same.into();
    // A title would be that of another tool, and have a model wonder which.
    if let Some(definition) = definition.as_object_mut() {
        definition.shift_remove("title");
    }
    if let Some(annotations) = definition["annotations"].as_object_mut() {
        annotations.shift_remove("title");
    }
    definition
}

fn find_tool() -> Value {
    let found = json!({
        "service": {"type": "string"},
        "tool": {"type": "string"},
        "description": {"type": "string"},
        "score": {"type": "number", "description": "Higher fits better; comparable within one answer."},
        "input_schema": {"type": "object", "description": "JSON Schema of the tool's arguments."},
    });
    json!({
        "name": "find_tool",
        "title": "Find a tool",
        "description": "Searches the tools of all services by what you want to do. Start here. Returns the best \
            matches with their input schemas, ready for `call_tool`.",
        "inputSchema": input(json!({
            "query": {"type": "string", "description": "A few words about the task, such as \"current time in a city\"."},
            "limit": count(FOUND_MAX, FOUND_DEFAULT),
        }), &["query"]),
        "outputSchema": output(json!({
            "tools": items(found, &["service", "tool", "description", "score", "input_schema"]),
            "hint": {"type": "string"},
        }), &["tools"]),
        "annotations": reading("Find a tool"),
    })
}

fn call_tool() -> Value {
    json!({
        "name": "call_tool",
        "title": "Call a tool",
        "description": "Calls one tool of one service and returns its result unchanged. Take `service`, `tool` and the \
            shape of `arguments` from `find_tool` or `describe_tool`. A wrong call comes back with what to correct.",
        "inputSchema": input(json!({
            "service": {"type": "string", "description": "The service that offers the tool."},
            "tool": {"type": "string", "description": "The name of the tool."},
            "arguments": {"type": "object", "description": "The tool's own arguments, as its input schema says.",
                "default": {}, "additionalProperties": true},
        }), &["service", "tool"]),
        "annotations": {"title": "Call a tool", "readOnlyHint": false, "openWorldHint": true},
    })
}

fn list_services() -> Value {
    let status: Vec<&str> = Status::ALL.iter().map(|status| status.as_str()).collect();
    let service = json!({
        "service": {"type": "string"},
        "description": {"type": "string"},
        "status": {"type": "string", "enum": status},
        "tool_count": {"type": "integer"},
    });
    json!({
        "name": "list_services",
        "title": "List services",
        "description": "Lists the services with their status and number of tools. Use it to see what there is; to do \
            something, `find_tool` is shorter. Next: `list_tools` with a service.",
        "inputSchema": input(json!({
            "text": {"type": "string", "description": "Words that all occur in name, title, description or tags."},
            "tag": {"type": "string", "description": "A tag that the services have; several separated by commas."},
            "status": {"type": "string", "enum": status},
            "cursor": cursor(),
            "limit": count(SERVICES_MAX, PAGE_DEFAULT),
        }), &[]),
        "outputSchema": output(json!({
            "services": items(service, &["service", "description", "status", "tool_count"]),
            "next_cursor": {"type": "string"},
        }), &["services"]),
        "annotations": reading("List services"),
    })
}

fn list_tools() -> Value {
    let tool = json!({
        "service": {"type": "string"},
        "tool": {"type": "string"},
        "description": {"type": "string"},
    });
    json!({
        "name": "list_tools",
        "title": "List tools",
        "description": "Lists tools with the first line of their descriptions: those of one service, or all, page by \
            page. Next: `describe_tool` for the arguments of one, then `call_tool`.",
        "inputSchema": input(json!({
            "service": {"type": "string", "description": "Only the tools of this service."},
            "cursor": cursor(),
            "limit": count(TOOLS_MAX, PAGE_DEFAULT),
        }), &[]),
        "outputSchema": output(json!({
            "tools": items(tool, &["service", "tool", "description"]),
            "next_cursor": {"type": "string"},
        }), &["tools"]),
        "annotations": reading("List tools"),
    })
}

fn describe_tool() -> Value {
    json!({
        "name": "describe_tool",
        "title": "Describe a tool",
        "description": "Returns the whole definition of one tool, word for word: description, input and output schema, \
            annotations. Use it before `call_tool` when `find_tool` did not say enough.",
        "inputSchema": input(json!({
            "service": {"type": "string", "description": "The service that offers the tool."},
            "tool": {"type": "string", "description": "The name of the tool."},
        }), &["service", "tool"]),
        "outputSchema": output(json!({
            "service": {"type": "string"},
            "definition": {"type": "object"},
        }), &["service", "definition"]),
        "annotations": reading("Describe a tool"),
    })
}

fn input(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn output(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required})
}

fn items(properties: Value, required: &[&str]) -> Value {
    json!({"type": "array", "items": output(properties, required)})
}

fn count(most: u32, default: u32) -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": most, "default": default})
}

fn cursor() -> Value {
    json!({"type": "string", "description": "`next_cursor` of the page before."})
}

fn reading(title: &str) -> Value {
    json!({"title": title, "readOnlyHint": true, "idempotentHint": true, "openWorldHint": false})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(aliases: bool) -> Vec<Value> {
        let entries = listing(aliases).whole();
        serde_json::from_str(&format!("[{}]", entries.text())).unwrap()
    }

    #[test]
    fn every_listed_tool_is_known_and_only_call_tool_may_write() {
        let all = listed(false);
        assert_eq!(all.len(), 5);
        for tool in all {
            let name = tool["name"].as_str().unwrap();
            assert!(MetaTool::of(name).is_some() && NAMES.contains(name), "{name}");
            assert_eq!(tool["annotations"]["readOnlyHint"], name != "call_tool", "{name}");
            assert_eq!(tool.get("outputSchema").is_none(), name == "call_tool", "{name}");
            assert!(tool["description"].as_str().unwrap().len() < 300, "{name}");
        }
    }

    #[test]
    fn an_alias_is_the_same_tool_in_few_words() {
        let all = listed(true);
        assert_eq!(all.len(), 8);
        for alias in &all[5..] {
            let tool = MetaTool::of(alias["name"].as_str().unwrap()).unwrap().definition();
            assert_eq!(alias["inputSchema"], tool["inputSchema"]);
            assert_eq!(alias.get("outputSchema"), tool.get("outputSchema"));
            assert_eq!(alias["description"], format!("Same as `{}`.", tool["name"].as_str().unwrap()));
            assert!(alias.get("title").is_none() && alias["annotations"].get("title").is_none());
        }
    }
}
