//! The tool registry (source 002): `list_tools`, `find_tool` and `call_tool`, in
//! which a tool has one name and belongs to no service. A tool that several
//! services offer is `service__tool` here; every other one keeps its own name.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use jiff::Timestamp;
use machina_core::{
    CallReport, Error, Query, Registry, Result as CoreResult, Scoped, ServiceName, ServiceView, Tag, Tool, ToolCall,
    ToolName, ToolResult,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::App;
use super::super::calls::{answered, options};
use super::super::extract::{Caller, Json, Parameters};
use super::super::failure::{Failure, Part};
use super::super::once::Keyed;
use super::every;

/// How many tools a list has at most: it has no pages.
const LISTED_MAX: usize = 10_000;

/// What a search asks for when it does not say.
const FOUND_DEFAULT: usize = 5;
const THRESHOLD_DEFAULT: f32 = 0.7;

const SEPARATOR: &str = "__";

/// How long the name of a tool with that of its service before it may be: longer
/// than any is. Each separator in a name is looked at.
const NAME_CHARS_MAX: usize = 400;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    category: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Search {
    query: String,
    limit: Option<usize>,
    threshold: Option<f32>,
    /// Words are what is searched by, with it and without.
    #[serde(rename = "use_hybrid")]
    _use_hybrid: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    tool_name: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

/// A tool of a list.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    name: String,
    description: String,
    category: Option<String>,
    tags: Vec<Tag>,
    input_schema: Value,
    version: Option<String>,
    created_at: Timestamp,
}

/// A tool that was found.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    name: String,
    description: String,
    category: Option<String>,
    similarity: f32,
    input_schema: Value,
}

/// What came of a call.
#[derive(Debug, Serialize)]
struct Called {
    success: bool,
    result: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    duration_ms: u64,
}

pub(super) async fn list(
    Caller(caller): Caller,
    parameters: Parameters,
    body: Json,
) -> Result<axum::Json<Vec<Listed>>, Failure> {
    parameters.none()?;
    let Filter { category, tags } = body.typed()?;
    let (_, services) = every(&caller, Query { enabled: Some(true), ..Query::default() })?;
    let names = Names::of(&services);
    let mut listed = Vec::new();
    for view in services.iter().filter(|view| category.is_none() || view.service().spec.category == category) {
        for tool in view.tools().iter().map(|offered| &offered.tool) {
            let own = tags_of(view, tool);
            if tags.iter().all(|tag| own.contains(tag)) {
                listed.push(Listed::of(view, tool, own, &names));
            }
        }
    }
    if listed.len() > LISTED_MAX {
        let detail = format!("{} tools are more than a list of {LISTED_MAX}: ask for some of them", listed.len());
        return Err(Failure::of(Part::Record)(Error::invalid_field("category", detail)));
    }
    Ok(axum::Json(listed))
}

pub(super) async fn find(
    Caller(caller): Caller,
    parameters: Parameters,
    body: Json,
) -> Result<axum::Json<Vec<Found>>, Failure> {
    parameters.none()?;
    let wrong = Failure::of(Part::Record);
    let Search { query, limit, threshold, .. } = body.typed()?;
    let threshold = threshold.unwrap_or(THRESHOLD_DEFAULT);
    if !(0.0..=1.0).contains(&threshold) {
        return Err(wrong(Error::invalid_field("threshold", format!("must be 0 to 1, is {threshold}"))));
    }
    let hits = caller.find_tools(&query, limit.unwrap_or(FOUND_DEFAULT)).await;
    let hits = hits.map_err(|error| wrong(super::renamed(error, &[("text", "query")])))?;
    // A score says nothing by itself, only compared with that of the best.
    let best = hits.first().and_then(|hit| hit.score).unwrap_or_default();
    let mut found = Vec::new();
    for hit in &hits {
        let similarity = hit.score.filter(|_| best > 0.0).map_or(0.0, |score| score / best);
        // A service may go while its tools are looked through.
        let Ok(view) = caller.service(hit.service.as_str()) else { continue };
        let tool = hit.definition.get("name").and_then(Value::as_str).and_then(|name| view.tool(name));
        if let Some(tool) = tool.filter(|_| similarity >= threshold) {
            found.push(Found::of(&caller, &view, &tool.tool, similarity)?);
        }
    }
    Ok(axum::Json(found))
}

pub(super) async fn call(
    State(app): State<App>,
    Caller(caller): Caller,
    parameters: Parameters,
    headers: HeaderMap,
    keyed: Keyed,
    body: Json,
) -> Result<Response, Failure> {
    parameters.none()?;
    let keyed = keyed.with(&body.0);
    let Call { tool_name, arguments } = body.typed()?;
    let (service, tool) = resolved(&caller, &tool_name)?;
    let (call, options) = (ToolCall { service, tool, arguments }, options(None, None, &headers)?);
    answered(app, caller, call, options, keyed, |outcome| outcome.map(Called::of)).await
}

/// How often each name of a tool occurs.
struct Names<'a>(HashMap<&'a str, usize>);

impl<'a> Names<'a> {
    fn of(services: &'a [Arc<ServiceView>]) -> Self {
        let mut counts = HashMap::new();
        for offered in services.iter().flat_map(|view| view.tools()) {
            *counts.entry(offered.tool.name().as_str()).or_default() += 1;
        }
        Self(counts)
    }

    fn name(&self, view: &ServiceView, tool: &Tool) -> String {
        let alone = self.0.get(tool.name().as_str()).is_none_or(|count| *count == 1);
        name_of(view, tool, alone)
    }
}

/// A name with the separator in it always has a prefix, lest it be read as one.
fn name_of(view: &ServiceView, tool: &Tool, alone: bool) -> String {
    let own = tool.name().as_str();
    if alone && !own.contains(SEPARATOR) {
        own.to_owned()
    } else {
        format!("{}{SEPARATOR}{own}", view.service().name())
    }
}

/// Services in use that offer a tool of this name: one, or more than one.
fn offering(caller: &Scoped, tool: &str) -> CoreResult<Vec<Arc<ServiceView>>> {
    let query = Query { tool: Some(tool.to_owned()), enabled: Some(true), limit: Some(2), ..Query::default() };
    Ok(caller.services(&query)?.items)
}

/// The service and the tool that a name means.
fn resolved(caller: &Scoped, name: &str) -> Result<(ServiceName, ToolName), Failure> {
    if name.len() > NAME_CHARS_MAX {
        let detail = format!("must have at most {NAME_CHARS_MAX} characters, has {}", name.chars().count());
        return Err(Failure::of(Part::Record)(Error::invalid_field("tool_name", detail)));
    }
    let mut found = Vec::new();
    for (at, _) in name.match_indices(SEPARATOR) {
        let (service, tool) = (&name[..at], &name[at + SEPARATOR.len()..]);
        let view = caller.service(service).ok().filter(|view| view.service().name().as_str() == service);
        found.extend(view.filter(|view| view.tool(tool).is_some()).map(|view| (view, tool)));
    }
    if found.is_empty() {
        found.extend(offering(caller, name)?.into_iter().map(|view| (view, name)));
    }
    match found.as_slice() {
        [(view, tool)] => Ok((view.service().name().clone(), ToolName::new(tool)?)),
        [] => {
            let shown = name.escape_debug();
            let error = Error::not_found(format!("no tool is named `{shown}`; `/mcp/list_tools` lists them"));
            Err(error.with(|context| context.tool = Some(name.to_owned())).into())
        }
        several => {
            let names = several.iter().map(|(view, tool)| format!("`{}{SEPARATOR}{tool}`", view.service().name()));
            let names = names.collect::<Vec<_>>().join(" or ");
            let detail = format!("several services offer a tool of this name: say {names}");
            Err(Failure::of(Part::Record)(Error::invalid_field("tool_name", detail)))
        }
    }
}

/// The tags of a tool: its own, and those of its service.
fn tags_of(view: &ServiceView, tool: &Tool) -> Vec<Tag> {
    let mut tags = tool.tags();
    let more = view.service().spec.tags.iter().filter(|tag| !tags.contains(tag)).cloned().collect::<Vec<_>>();
    tags.extend(more);
    tags
}

/// What the tool answered: its structured content, or else all of its content.
fn value_of(mut result: ToolResult) -> Value {
    match result.0.remove("structuredContent") {
        Some(value) if !value.is_null() => value,
        _ => json!({"content": result.0.remove("content").unwrap_or_else(|| json!([]))}),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a duration in whole milliseconds")]
fn rounded(milliseconds: f64) -> u64 {
    milliseconds.round() as u64
}

impl Listed {
    fn of(view: &ServiceView, tool: &Tool, tags: Vec<Tag>, names: &Names<'_>) -> Self {
        let service = view.service();
        Self {
            name: names.name(view, tool),
            description: tool.description().to_owned(),
            category: service.spec.category.clone(),
            tags,
            input_schema: tool.input_schema(),
            version: service.spec.version.clone(),
            created_at: service.created_at,
        }
    }
}

impl Called {
    fn of(report: CallReport) -> Self {
        let failed = report.result.is_error();
        Self {
            success: !failed,
            error: failed.then(|| report.result.text()),
            result: value_of(report.result),
            duration_ms: rounded(report.duration_ms),
        }
    }
}

impl Found {
    fn of(caller: &Scoped, view: &ServiceView, tool: &Tool, similarity: f32) -> CoreResult<Self> {
        let alone = offering(caller, tool.name().as_str())?.len() < 2;
        Ok(Self {
            name: name_of(view, tool, alone),
            description: tool.description().to_owned(),
            category: view.service().spec.category.clone(),
            similarity,
            input_schema: tool.input_schema(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_what_the_tool_answered() {
        let value = |result: Value| value_of(serde_json::from_value(result).unwrap());
        let content = json!([{"type": "text", "text": "8"}]);
        assert_eq!(value(json!({"content": content, "structuredContent": {"value": 8}})), json!({"value": 8}));
        assert_eq!(value(json!({"content": content})), json!({"content": content}));
        assert_eq!(value(json!({})), json!({"content": []}));
    }
}
