//! What Machina's own tools do: each reads its arguments, asks the facade once,
//! and writes a short answer. No rule of the registry is in here.

use machina_core::{
    CallOptions, Error, Query, Registry, Result, ServiceName, ToolCall, ToolName, ToolQuery, ToolReport,
};
use serde_json::{Map, Value, json};

use super::arguments::Arguments;
use super::audience::Audience;
use super::definitions::{FOUND_DEFAULT, FOUND_MAX, MetaTool, PAGE_DEFAULT, SERVICES_MAX, TOOLS_MAX};
use super::rpc::{Object, object};
use super::upstream::carry;

/// How many characters of a description a list shows, and a search.
const LISTED_MAX: usize = 160;
const FOUND_TEXT_MAX: usize = 600;

/// Runs `tool`; the result is MCP's `CallToolResult`.
///
/// # Errors
/// Whatever the facade says; [`Invalid`](machina_core::ErrorKind::Invalid) for
/// arguments that are wrong.
pub(super) async fn run(
    tool: MetaTool,
    audience: &Audience,
    arguments: Object,
    options: &CallOptions,
) -> Result<Object> {
    let arguments = Arguments::new(arguments);
    match tool {
        MetaTool::ListServices => list_services(audience, arguments).map(structured),
        MetaTool::ListTools => list_tools(audience, arguments).await.map(structured),
        MetaTool::FindTool => find_tool(audience, arguments).await.map(structured),
        MetaTool::DescribeTool => describe_tool(audience, arguments).await.map(structured),
        MetaTool::CallTool => call_tool(audience, arguments, options).await,
    }
}

fn list_services(audience: &Audience, mut arguments: Arguments) -> Result<Value> {
    let texts = ["text", "tag", "status", "cursor"].map(|name| (name, arguments.text(name)));
    let limit = arguments.count("limit", SERVICES_MAX).unwrap_or(PAGE_DEFAULT).to_string();
    arguments.finish()?;
    let given = texts.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    let page = audience.page_of_services(&Query::from_pairs(given.chain([("limit", limit.as_str())]))?)?;
    let services = page.items.iter().map(|view| {
        let spec = &view.service().spec;
        json!({
            "service": spec.name,
            "description": first_line(&spec.description),
            "status": view.status(),
            "tool_count": audience.count_tools(view),
        })
    });
    Ok(listing("services", services.collect(), page.next_cursor))
}

async fn list_tools(audience: &Audience, mut arguments: Arguments) -> Result<Value> {
    let query = ToolQuery {
        service: arguments.text("service"),
        cursor: arguments.text("cursor"),
        limit: Some(arguments.count("limit", TOOLS_MAX).unwrap_or(PAGE_DEFAULT)),
    };
    arguments.finish()?;
    if let Some(service) = &query.service {
        audience.must_have(service, None)?;
    }
    let page = audience.page_of_tools(&query).await?;
    let tools = page.items.iter().map(
        |tool| json!({"service": tool.service, "tool": name_of(tool), "description": first_line(description_of(tool))}),
    );
    Ok(listing("tools", tools.collect(), page.next_cursor))
}

async fn find_tool(audience: &Audience, mut arguments: Arguments) -> Result<Value> {
    let query = arguments.required("query");
    let limit = arguments.count("limit", FOUND_MAX).unwrap_or(FOUND_DEFAULT);
    arguments.finish()?;
    let found = audience.find_tools(&query, limit as usize).await?;
    let tools: Vec<Value> = found
        .iter()
        .map(|tool| {
            json!({
                "service": tool.service,
                "tool": name_of(tool),
                "description": shortened(description_of(tool), FOUND_TEXT_MAX),
                "score": (f64::from(tool.score.unwrap_or_default()) * 100.0).round() / 100.0,
                "input_schema": tool.definition.get("inputSchema"),
            })
        })
        .collect();
    if tools.is_empty() {
        let hint = "No tool fits these words. Try others, or browse with `list_services`.";
        return Ok(json!({"tools": tools, "hint": hint}));
    }
    Ok(json!({ "tools": tools }))
}

async fn describe_tool(audience: &Audience, mut arguments: Arguments) -> Result<Value> {
    let service = arguments.required("service");
    let tool = arguments.required("tool");
    arguments.finish()?;
    audience.must_have(&service, Some(&tool))?;
    let report = audience.scoped().tool(&service, &tool).await?;
    Ok(json!({"service": report.service, "definition": report.definition}))
}

async fn call_tool(audience: &Audience, mut arguments: Arguments, options: &CallOptions) -> Result<Object> {
    let (service, tool) = (arguments.required("service"), arguments.required("tool"));
    let service = arguments.parse("service", &service, ServiceName::new);
    let tool = arguments.parse("tool", &tool, ToolName::new);
    let inner = arguments.object("arguments");
    arguments.finish()?;
    let (Some(service), Some(tool)) = (service, tool) else {
        return Err(Error::invalid("service and tool are missing"));
    };
    audience.must_have(service.as_str(), Some(tool.as_str()))?;
    carry(audience.scoped(), &ToolCall { service, tool, arguments: inner }, options).await
}

/// A page of a list.
fn listing(name: &str, items: Vec<Value>, next_cursor: Option<String>) -> Value {
    let mut page = Map::from_iter([(name.to_owned(), Value::Array(items))]);
    if let Some(cursor) = next_cursor {
        page.insert("next_cursor".to_owned(), cursor.into());
    }
    Value::Object(page)
}

/// A result both for programs and, word for word, as text.
fn structured(value: Value) -> Object {
    object(json!({"content": [{"type": "text", "text": value.to_string()}], "structuredContent": value}))
}

/// The name of a tool.
pub(super) fn name_of(tool: &ToolReport) -> &str {
    tool.definition.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn description_of(tool: &ToolReport) -> &str {
    tool.definition.get("description").and_then(Value::as_str).unwrap_or_default()
}

/// The first line that says something.
pub(crate) fn first_line(text: &str) -> String {
    shortened(text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default(), LISTED_MAX)
}

fn shortened(text: &str, most: usize) -> String {
    let text = text.trim();
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_cut_between_characters() {
        assert_eq!(first_line("\n  Says the time. \nMore."), "Says the time.");
        assert_eq!(shortened("grün", 3), "grü…");
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(first_line(""), "");
    }
}
