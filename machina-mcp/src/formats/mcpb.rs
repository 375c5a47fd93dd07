//! The manifest of an MCP bundle (0.3 and 0.4). What the bundle asks its user
//! for becomes a reference to an environment variable; where the bundle lies
//! must be said by the option `__dirname`.

use machina_core::{Endpoint, ServiceSpec, Tag};
use serde_json::{Map, Value, json};

use super::endpoint;
use super::entry::{Entry, kind};
use super::importer::Importer;
use super::note::field;
use super::placeholder::{Input, can_be_default, variable_name};

pub(super) fn read(root: Value, importer: &mut Importer<'_>) {
    let Value::Object(mut root) = root else { return };
    let Some(name) = root.shift_remove("name").as_ref().and_then(Value::as_str).map(str::to_owned) else {
        return importer.notes.error("name", "must be the name of the bundle");
    };
    if let Some(config) = root.shift_remove("user_config") {
        let lists = user_config(config, importer);
        expand_lists(&mut root, &lists);
    }
    importer.entry(String::new(), &name, Value::Object(root), manifest);
}

fn manifest(entry: &mut Entry<'_>, spec: &mut ServiceSpec) {
    entry.skip(&["$schema", "manifest_version", "dxt_version"], "it says how to read the rest");
    about(entry, spec);
    let Some(mut server) = entry.nested("server") else {
        return entry.notes.error("server", "is missing: it says how the server is started");
    };
    if let Some(found) = run(&mut server) {
        endpoint::give(spec, found);
    }
    server.finish();
}

fn about(entry: &mut Entry<'_>, spec: &mut ServiceSpec) {
    spec.title = entry.text("display_name").or(spec.title.take());
    spec.version = entry.text("version");
    spec.description = entry.text("description").unwrap_or_default();
    if let Some(mut author) = entry.nested("author") {
        spec.owner = author.text("name");
        author.skip(&["email", "url"], "there is no place for it");
        author.finish();
    }
    match entry.peek("repository") {
        Some(Value::String(_)) => spec.repository_url = entry.text("repository"),
        _ => {
            if let Some(mut repository) = entry.nested("repository") {
                spec.repository_url = repository.text("url");
                repository.skip(&["type"], "there is no place for it");
                repository.finish();
            }
        }
    }
    spec.documentation_url = entry.text("documentation");
    if spec.documentation_url.is_none() {
        spec.documentation_url = entry.text("homepage");
    }
    for word in entry.list("keywords") {
        match Tag::new(&word) {
            Ok(tag) if !spec.tags.contains(&tag) => spec.tags.push(tag),
            Ok(_) => {}
            Err(_) => entry.notes.warn(entry.at("keywords"), "holds a word that is no tag, not imported"),
        }
    }
    let kept = ["long_description", "homepage", "support", "license", "privacy_policies"];
    entry.set_aside(&kept, "mcpb", &mut spec.metadata);
    entry.skip(&["icon", "icons", "screenshots", "localization", "_meta"], "it is for a host's display");
    let listed = ["tools", "tools_generated", "prompts", "prompts_generated"];
    entry.skip(&listed, "the server itself is asked for what it offers");
    entry.pass_over(&["compatibility"], "whether the runtimes fit is not checked");
}

/// How the server is started: as `mcp_config` says, or by its type.
fn run(server: &mut Entry<'_>) -> Option<Endpoint> {
    let form = server.text("type").unwrap_or_default();
    let entry_point = server.text("entry_point");
    if let Some(mut config) = server.nested("mcp_config") {
        platform(&mut config);
        let command = config.text("command");
        let found = match command {
            Some(command) => {
                let command = config.rewrite(&config.at("command"), &within_bundle(command));
                Some(endpoint::stdio(&mut config, command).into())
            }
            None => {
                config.notes.error(config.at("command"), "is missing: name the program to start");
                None
            }
        };
        config.finish();
        return found;
    }
    let Some(entry_point) = entry_point else {
        server.notes.error(server.at("entry_point"), "is missing, and so is `mcp_config`: one must say what to start");
        return None;
    };
    let file = format!("${{__dirname}}/{entry_point}");
    let (command, args) = match form.as_str() {
        "uv" => ("uv".to_owned(), json!(["run", "--directory", "${__dirname}", entry_point])),
        "node" => ("node".to_owned(), json!([file])),
        "python" => ("python3".to_owned(), json!([file])),
        "binary" => (file, json!([])),
        _ => {
            server.notes.error(server.at("type"), "must be `node`, `python`, `binary` or `uv`");
            return None;
        }
    };
    server.notes.info(server.at("mcp_config"), format!("is absent: started as a server of the type {form}"));
    let path = server.at("entry_point");
    let mut made = server.inner(path, Map::from_iter([("args".to_owned(), args)]));
    let command = made.rewrite(&made.at("command"), &command);
    Some(endpoint::stdio(&mut made, command).into())
}

/// A relative path is one within the bundle.
fn within_bundle(command: String) -> String {
    let relative = command.contains(['/', '\\']) && !command.starts_with(['/', '\\', '$', '~']);
    let drive = command.as_bytes().get(1) == Some(&b':');
    if relative && !drive { format!("${{__dirname}}/{command}") } else { command }
}

/// Lets what is said for this platform take the place of what is said for all.
fn platform(config: &mut Entry<'_>) {
    let name = match std::env::consts::OS {
        "macos" => "darwin",
        "windows" => "win32",
        other => other,
    };
    let Some(mut overrides) = config.table("platform_overrides") else { return };
    let path = field(&config.at("platform_overrides"), name);
    match overrides.shift_remove(name) {
        Some(Value::Object(mine)) => {
            config.notes.info(path, "applies on this platform; those of other platforms are not imported");
            config.overlay(mine);
        }
        Some(other) => config.notes.error(path, format!("is {}, must be an object", kind(&other))),
        None => config.notes.info(config.at("platform_overrides"), format!("none is for this platform ({name})")),
    }
}

/// Declares what the user is asked for; answers with the lists among the defaults.
fn user_config(config: Value, importer: &mut Importer<'_>) -> Map<String, Value> {
    let mut lists = Map::new();
    let Value::Object(config) = config else {
        importer.notes.error("user_config", "must be an object with an entry for each value");
        return lists;
    };
    for (id, value) in config {
        let path = field("user_config", &id);
        let Value::Object(fields) = value else {
            importer.notes.error(path, "must be an object");
            continue;
        };
        let mut entry = Entry::new(path, fields, &importer.placeholders, &mut importer.notes);
        let (input, list) = user_value(&mut entry, &id);
        entry.finish();
        if !importer.placeholders.is_given(&format!("user_config.{id}")) {
            lists.extend(list.map(|list| (id.clone(), list)));
        }
        importer.placeholders.inputs.insert(id, input);
    }
    lists
}

fn user_value(entry: &mut Entry<'_>, id: &str) -> (Input, Option<Value>) {
    let about = entry.text("description").or_else(|| entry.text("title")).unwrap_or_default();
    let required = entry.flag("required").unwrap_or_default();
    let sensitive = entry.flag("sensitive").unwrap_or_default();
    let default = entry.take("default").filter(|_| !sensitive);
    entry.skip(&["title", "type", "multiple", "min", "max"], "the value is taken as it is given");
    let list = default.clone().filter(Value::is_array);
    let default = match default {
        Some(Value::String(text)) => Some(text),
        Some(Value::Array(_)) | None => None,
        Some(other) => Some(other.to_string()),
    };
    let name = variable_name(id);
    let message = format!("set the environment variable {name} ({about})");
    let usable = default.as_deref().is_none_or(can_be_default);
    let default = default.filter(|default| can_be_default(default));
    if !usable {
        entry.notes.warn(entry.at("default"), "holds a placeholder, and a default cannot: not imported");
    }
    if required && default.is_none() && list.is_none() {
        entry.notes.warn(&entry.path, message);
    } else {
        let otherwise = if list.is_some() { "its default is imported" } else { "its default applies otherwise" };
        entry.notes.info(&entry.path, format!("{message}; {otherwise}"));
    }
    let default = default.or_else(|| (!required).then(String::new));
    (Input { default }, list)
}

/// An argument that stands for a list becomes the elements of its default.
fn expand_lists(root: &mut Map<String, Value>, lists: &Map<String, Value>) {
    let args = root.get_mut("server").and_then(|server| server.pointer_mut("/mcp_config/args"));
    let Some(Value::Array(args)) = args else { return };
    let expand = |arg: Value| {
        let id = arg.as_str().and_then(|arg| arg.strip_prefix("${user_config.")).and_then(|arg| arg.strip_suffix('}'));
        match id.and_then(|id| lists.get(id)).and_then(Value::as_array) {
            Some(items) => items.clone(),
            None => vec![arg],
        }
    };
    *args = std::mem::take(args).into_iter().flat_map(expand).collect();
}
