//! `config check`, `config print` and `config schema`.

use machina_core::{Error, Result};
use machina_mcp::formats::Severity;
use serde_json::{Map, Value, json};

use crate::App;
use crate::cli;
use crate::declare;
use crate::exit::Ended;
use crate::settings::{Effective, schema};

pub(crate) fn run(app: &App, command: &cli::Config) -> Result<Ended> {
    match command {
        cli::Config::Schema => app.output.json(&schema()),
        cli::Config::Check { .. } => return check(app),
        cli::Config::Print => {
            let effective = app.settings()?;
            if app.output.is_json() {
                app.output.json(&document(&effective));
            } else {
                app.output.text(&text(&effective));
            }
        }
    }
    Ok(Ended::Well)
}

/// Looks at everything that `serve` looks at before it opens anything: the
/// settings, and every file that they import.
fn check(app: &App) -> Result<Ended> {
    let effective = app.settings()?;
    let paths = &effective.settings.import;
    let read = paths.iter().map(|path| declare::read(app, std::slice::from_ref(path)));
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for outcome in read {
        match outcome {
            Ok(found) => files.extend(found),
            Err(error) => problems.extend(error.context().problems.iter().cloned()),
        }
    }
    if !problems.is_empty() {
        return Err(Error::invalid_fields(problems));
    }
    if app.output.is_json() {
        let errors = files.iter().flat_map(|file| file.import.errors().map(move |note| (&file.path, note)));
        let errors: Vec<_> = errors.map(|(path, note)| json!({"path": path, "note": note})).collect();
        app.output.json(&json!({"problems": [], "left_out": errors}));
        return Ok(if errors.is_empty() { Ended::Well } else { Ended::Partly });
    }
    if declare::remarks(app, &files, Severity::Warning) {
        app.output.line("The configuration is valid, except for entries that would be left out.");
        return Ok(Ended::Partly);
    }
    app.output.line("The configuration is valid.");
    Ok(Ended::Well)
}

fn document(effective: &Effective) -> Value {
    let mut settings = Map::new();
    for (path, value, source) in effective.entries() {
        settings.insert(path, json!({"value": value, "source": source}));
    }
    settings.into()
}

/// The lists of records, which come last: each is a table of its own.
const RECORDS: [&str; 2] = ["services", "groups"];

/// The configuration as TOML, with a remark on where each value comes from.
fn text(effective: &Effective) -> String {
    let entries = effective.entries();
    let (top, sections): (Vec<_>, Vec<_>) = entries.iter().partition(|(path, ..)| !path.contains('.'));
    let mut lines: Vec<String> = top
        .iter()
        .filter(|(path, ..)| !RECORDS.contains(&path.as_str()))
        .map(|(path, value, source)| line(path, value, source))
        .collect();
    let mut section = "";
    for (path, value, source) in sections {
        let (name, key) = path.split_once('.').unwrap_or(("", path));
        if name != section {
            section = name;
            lines.push(format!("\n[{name}]"));
        }
        lines.push(line(key, value, source));
    }
    for (list, records, source) in top.iter().filter(|(path, ..)| RECORDS.contains(&path.as_str())) {
        for record in records.as_array().into_iter().flatten() {
            let body = toml::to_string(&json!({list: [record]})).unwrap_or_else(|_| format!("# {record}\n"));
            lines.push(format!("\n# {source}\n{}", body.trim_end()));
        }
    }
    lines.join("\n")
}

fn line(key: &str, value: &Value, source: &str) -> String {
    match toml::Value::try_from(value) {
        Ok(value) => format!("{key} = {value}  # {source}"),
        Err(_) => format!("# {key} is not set"),
    }
}
