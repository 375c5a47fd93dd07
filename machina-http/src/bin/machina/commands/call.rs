//! `call`.

use machina_core::{CallOptions, CallReport, Error, Result, ServiceName, ToolCall, ToolName};
use serde_json::{Map, Value, json};

use crate::App;
use crate::cli;
use crate::exit::Ended;
use crate::reach::Reached;

pub(crate) async fn run(app: &App, args: &cli::Call, reached: &Reached) -> Result<Ended> {
    let schema = match reached.registry.tool(&args.service, &args.tool).await {
        Ok(tool) => tool.definition.get("inputSchema").cloned().unwrap_or_default(),
        // A server that was never reached has no definitions; the call will tell.
        Err(_) => Value::Null,
    };
    let call = ToolCall {
        service: ServiceName::new(&args.service)?,
        tool: ToolName::new(&args.tool)?,
        arguments: arguments(&args.arguments, args.stdin.as_deref(), &schema)?,
    };
    let options = CallOptions { timeout: args.timeout, ..CallOptions::default() };
    let report = reached.router.call(&call, &options).await?;
    let failed = report.result.is_error();
    show(app, report);
    Ok(Ended::well_if(!failed))
}

/// Takes `-` for what comes on stdin: before anything is opened, for it may be long in coming.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid) for what is no text.
pub(crate) fn read_stdin(args: &mut cli::Call) -> Result<()> {
    if args.arguments == ["-"] {
        let text = std::io::read_to_string(std::io::stdin());
        let wrong = |error| Error::invalid_field("arguments", format!("cannot be read from stdin: {error}"));
        args.stdin = Some(text.map_err(wrong)?);
    }
    Ok(())
}

/// The arguments of a call: a JSON object, or `KEY=VALUE` pairs.
fn arguments(words: &[String], stdin: Option<&str>, schema: &Value) -> Result<Map<String, Value>> {
    let object = |text: &str| {
        serde_json::from_str(text).map_err(|error| {
            Error::invalid_field("arguments", format!("must be a JSON object or KEY=VALUE pairs: {error}"))
        })
    };
    match (stdin, words) {
        (Some(text), _) => object(text),
        (None, [word]) if word.trim_start().starts_with(['{', '[', '"']) => object(word),
        (None, words) => words.iter().map(|word| pair(word, schema)).collect(),
    }
}

/// One pair. The value is read as JSON, or as text where it is none, or where the
/// tool wants text.
fn pair(word: &str, schema: &Value) -> Result<(String, Value)> {
    let (name, text) = word.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
        let detail = format!("`{}` is neither KEY=VALUE nor a JSON object", word.escape_debug());
        Error::invalid_field("arguments", detail)
    })?;
    let value = match schema["properties"][name]["type"].as_str() {
        Some("string") => text.into(),
        _ => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    };
    Ok((name.to_owned(), value))
}

fn show(app: &App, report: CallReport) {
    if app.output.is_json() {
        return app.output.json(&report.annotated());
    }
    let content = report.result.0.get("content").and_then(Value::as_array).cloned().unwrap_or_default();
    for block in &content {
        app.output.text(&block_text(block));
    }
    if content.is_empty()
        && let Some(structured) = report.result.0.get("structuredContent")
    {
        app.output.json(structured);
    }
}

/// A block of an answer as text; what is no text is only named.
fn block_text(block: &Value) -> String {
    if let Some(text) = block["text"].as_str().or_else(|| block["resource"]["text"].as_str()) {
        return text.to_owned();
    }
    let kind = block["type"].as_str().unwrap_or("unknown");
    let mime = block["mimeType"].as_str().or_else(|| block["resource"]["mimeType"].as_str()).unwrap_or_default();
    match (block["uri"].as_str(), block["data"].as_str()) {
        (Some(uri), _) => format!("[{kind} {uri}]"),
        (None, Some(data)) => format!("[{kind} {mime}, {} bytes of base64; --json shows it]", data.len()),
        (None, None) => json!(block).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn arguments_are_an_object_or_pairs() {
        let schema = json!({"properties": {"id": {"type": "string"}, "n": {"type": "integer"}}});
        let object = arguments(&words(&[r#"{"a": [1]}"#]), None, &schema).unwrap();
        assert_eq!(Value::from(object), json!({"a": [1]}));
        let pairs = arguments(&words(&["id=7", "n=7", "x=[1]", "y=a=b", "z="]), None, &schema).unwrap();
        assert_eq!(Value::from(pairs), json!({"id": "7", "n": 7, "x": [1], "y": "a=b", "z": ""}));
        assert!(arguments(&[], None, &schema).unwrap().is_empty());
        for wrong in ["[1]", "{", "abc", "=1"] {
            let error = arguments(&words(&[wrong]), None, &schema).unwrap_err();
            assert_eq!(error.context().problems[0].field, "arguments", "{wrong}");
        }
    }
}
