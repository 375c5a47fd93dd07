//! VS Code: `servers` with `inputs` in an `mcp.json`, or both under `mcp` in the
//! settings. An input becomes a reference to an environment variable, because a
//! service is started without anyone to ask.

use serde_json::Value;

use super::entry::Entry;
use super::importer::Importer;
use super::mcp_servers::read_entry;
use super::note::{element, field};
use super::placeholder::{Input, can_be_default, variable_name};

pub(super) fn read(root: Value, importer: &mut Importer<'_>) {
    let Value::Object(mut root) = root else { return };
    let in_settings = !root.contains_key("servers");
    let (path, mut section) = match root.get_mut("mcp") {
        Some(Value::Object(mcp)) if in_settings => ("mcp", std::mem::take(mcp)),
        _ => ("", std::mem::take(&mut root)),
    };
    let inputs = section.shift_remove("inputs").unwrap_or_default();
    read_inputs(&field(path, "inputs"), inputs, importer);
    let servers = section.shift_remove("servers").unwrap_or_default();
    importer.entries(&field(path, "servers"), servers, |entry, spec| read_entry(entry, spec, "vscode", None));
    importer.foreign(path, &section);
    root.shift_remove("mcp");
    importer.foreign("", &root);
}

fn read_inputs(path: &str, inputs: Value, importer: &mut Importer<'_>) {
    let items = match inputs {
        Value::Null => return,
        Value::Array(items) => items,
        _ => return importer.notes.error(path, "must be an array of inputs"),
    };
    let mut found = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let path = element(path, index);
        let Value::Object(fields) = item else {
            importer.notes.error(path, "must be an object with `id`");
            continue;
        };
        let mut entry = Entry::new(path, fields, &importer.placeholders, &mut importer.notes);
        found.extend(read_input(&mut entry));
        entry.finish();
    }
    importer.placeholders.inputs.extend(found);
}

fn read_input(entry: &mut Entry<'_>) -> Option<(String, Input)> {
    let Some(id) = entry.text("id") else {
        entry.notes.error(&entry.path, "needs `id`");
        return None;
    };
    let form = entry.text("type");
    let description = entry.text("description").unwrap_or_default();
    let password = entry.flag("password").unwrap_or_default();
    let default = entry.text("default").filter(|_| !password);
    if default.as_deref().is_some_and(|default| !can_be_default(default)) {
        entry.notes.warn(entry.at("default"), "holds a placeholder, and a default cannot: not imported");
    }
    let default = default.filter(|default| can_be_default(default));
    entry.skip(&["options"], "any value is taken");
    let name = variable_name(&id);
    let about = if description.is_empty() { String::new() } else { format!(" ({})", description.trim()) };
    let otherwise = if default.is_some() { "; its default applies otherwise" } else { "" };
    entry.notes.warn(&entry.path, format!("set the environment variable {name}{about}{otherwise}"));
    if form.as_deref() == Some("command") {
        entry.pass_over(&["command", "args"], "a command of the editor cannot be run");
    }
    Some((id, Input { default }))
}
