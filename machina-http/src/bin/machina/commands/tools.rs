//! `tools` and `find`.

use machina_core::{Result, ToolReport};
use serde_json::Value;

use crate::App;
use crate::cli;
use crate::exit::Ended;
use crate::output::short;
use crate::reach::Reached;

pub(crate) async fn list(app: &App, args: &cli::Tools, reached: &Reached) -> Result<Ended> {
    let tools = reached.tools(args.service.as_deref()).await?;
    if app.output.is_json() {
        app.output.json(&tools);
        return Ok(Ended::Well);
    }
    if tools.is_empty() {
        app.output.line("No tools are known. Those of a server are listed when it was first reached: machina health");
        return Ok(Ended::Well);
    }
    let mut columns = app.output.columns(&["SERVICE", "TOOL", "DESCRIPTION"]);
    for tool in &tools {
        columns.row([tool.service.to_string(), name(tool), description(tool)]);
    }
    app.output.table(columns);
    Ok(Ended::Well)
}

pub(crate) async fn find(app: &App, args: &cli::Find, reached: &Reached) -> Result<Ended> {
    let found = reached.registry.find_tools(&args.text.join(" "), args.limit).await?;
    if app.output.is_json() {
        app.output.json(&found);
        return Ok(Ended::Well);
    }
    if found.is_empty() {
        app.output.line("No tool fits.");
        return Ok(Ended::Well);
    }
    let mut columns = app.output.columns(&["#SCORE", "SERVICE", "TOOL", "DESCRIPTION"]);
    for tool in &found {
        let score = tool.score.map(|score| format!("{score:.2}")).unwrap_or_default();
        columns.row([score, tool.service.to_string(), name(tool), description(tool)]);
    }
    app.output.table(columns);
    Ok(Ended::Well)
}

fn text(tool: &ToolReport, field: &str) -> String {
    tool.definition.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn name(tool: &ToolReport) -> String {
    text(tool, "name")
}

/// The first sentence; whole definitions are in the JSON.
fn description(tool: &ToolReport) -> String {
    let text = text(tool, "description");
    let text = text.trim();
    let first = text.split_once(". ").map_or(text, |(first, _)| first);
    short(first.split("\n\n").next().unwrap_or_default(), 100)
}
