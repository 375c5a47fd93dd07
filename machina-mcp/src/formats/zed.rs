//! Zed: `context_servers` in its settings, in the older form (`command` is an
//! object) and the newer flat one.

use machina_core::ServiceSpec;
use serde_json::Value;

use super::endpoint::{self, Transport};
use super::entry::Entry;
use super::importer::Importer;
use super::mcp_servers::{common, read_entry};

pub(super) fn read(root: Value, importer: &mut Importer<'_>) {
    let Value::Object(mut root) = root else { return };
    let servers = root.shift_remove("context_servers").unwrap_or_default();
    importer.entries("context_servers", servers, server);
    importer.foreign("", &root);
}

fn server(entry: &mut Entry<'_>, spec: &mut ServiceSpec) {
    let source = entry.text("source");
    if entry.has("settings") {
        entry.pass_over(&["settings"], "they are for an extension of Zed");
    }
    entry.skip(&["remote"], "where Zed runs it has no meaning here");
    if let Some(Value::Object(_)) = entry.peek("command") {
        older(entry, spec);
        common(entry, spec, "zed");
    } else if !entry.has("command") && !entry.has("url") {
        let by_extension = source.as_deref() == Some("extension");
        let needed = "needs `command`, the program to start, or `url`, the address of the server";
        let message = if by_extension {
            format!("an extension of Zed knows how to start it; {needed}")
        } else {
            needed.to_owned()
        };
        entry.notes.error(&entry.path, message);
        common(entry, spec, "zed");
    } else {
        read_entry(entry, spec, "zed", Some(Transport::Http));
    }
}

fn older(entry: &mut Entry<'_>, spec: &mut ServiceSpec) {
    let Some(mut command) = entry.nested("command") else { return };
    match command.resolved("path") {
        Some(path) => {
            let stdio = endpoint::stdio(&mut command, path);
            endpoint::give(spec, stdio.into());
        }
        None => command.notes.error(command.at("path"), "is missing: name the program to start"),
    }
    command.finish();
}
