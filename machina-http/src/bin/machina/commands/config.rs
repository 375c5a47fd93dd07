//! `config check`, `config print` and `config schema`.

use machina_core::Result;
use serde_json::{Map, Value, json};

use crate::App;
use crate::cli;
use crate::exit::Ended;
use crate::settings::{Effective, schema};

pub(crate) fn run(app: &App, command: cli::Config) -> Result<Ended> {
    if command == cli::Config::Schema {
        app.output.json(&schema());
        return Ok(Ended::Well);
    }
    let effective = app.settings(&[], None)?;
    match (command, app.output.is_json()) {
        (cli::Config::Print, true) => app.output.json(&document(&effective)),
        (cli::Config::Print, false) => app.output.text(&text(&effective)),
        (_, true) => app.output.json(&json!({"problems": []})),
        (_, false) => app.output.line("The configuration is valid."),
    }
    Ok(Ended::Well)
}

fn document(effective: &Effective) -> Value {
    let mut settings = Map::new();
    for (path, value, source) in effective.entries() {
        settings.insert(path, json!({"value": value, "source": source}));
    }
    settings.into()
}

/// The configuration as TOML, with a remark on where each value comes from.
fn text(effective: &Effective) -> String {
    let entries = effective.entries();
    let (top, sections): (Vec<_>, Vec<_>) = entries.iter().partition(|(path, ..)| !path.contains('.'));
    let mut lines: Vec<String> = top
        .iter()
        .filter(|(path, ..)| path != "services")
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
    for (_, services, source) in top.iter().filter(|(path, ..)| path == "services") {
        for service in services.as_array().into_iter().flatten() {
            let body = toml::to_string(&json!({"services": [service]})).unwrap_or_else(|_| format!("# {service}\n"));
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
