//! opencode: `mcp` with `local` and `remote` servers, named directly under it or
//! under `mcp.servers` (version 2).

use machina_core::{Endpoint, Sensitive, ServiceSpec};
use serde_json::Value;

use super::endpoint::{self, Transport};
use super::entry::Entry;
use super::importer::Importer;
use super::placeholder::Syntax;

pub(super) fn read(root: Value, importer: &mut Importer<'_>) {
    let Value::Object(mut root) = root else { return };
    importer.placeholders.syntax = Syntax::Braces;
    match root.shift_remove("mcp").unwrap_or_default() {
        Value::Object(mut mcp) if mcp.get("servers").is_some_and(|servers| !is_entry(servers)) => {
            let servers = mcp.shift_remove("servers").unwrap_or_default();
            importer.entries("mcp.servers", servers, server);
            importer.foreign("mcp", &mcp);
        }
        mcp => importer.entries("mcp", mcp, server),
    }
    importer.foreign("", &root);
}

/// Whether `servers` is a server that has this name.
fn is_entry(servers: &Value) -> bool {
    servers.get("type").is_some_and(Value::is_string)
}

fn server(entry: &mut Entry<'_>, spec: &mut ServiceSpec) {
    let stated = entry.text("type");
    match stated.as_deref() {
        Some("local") => local(entry, spec),
        Some("remote") => remote(entry, spec),
        None if entry.has("command") => local(entry, spec),
        None if entry.has("url") => remote(entry, spec),
        Some(_) => entry.notes.error(entry.at("type"), "must be `local` or `remote`"),
        None => {
            let needed = "needs `type` and `command`, the program to start with its arguments, or `url`";
            entry.notes.error(&entry.path, needed);
        }
    }
    endpoint::admin_state(entry, spec);
    entry.set_aside(&["timeout"], "opencode", &mut spec.metadata);
    entry.pass_over(&["oauth"], "a sign-in is not carried over: give a header with a token");
}

fn local(entry: &mut Entry<'_>, spec: &mut ServiceSpec) {
    let mut argv = if entry.peek("command").is_some_and(Value::is_string) {
        entry.resolved("command").into_iter().collect()
    } else {
        entry.resolved_list("command")
    };
    if argv.is_empty() {
        let needed = "must be an array of the program and its arguments, such as [\"npx\", \"-y\", \"package\"]";
        entry.notes.error(entry.at("command"), needed);
        return;
    }
    let command = argv.remove(0);
    let mut stdio = endpoint::stdio(entry, command);
    stdio.args.splice(0..0, machina_core::StdioEndpoint::new("", argv).args);
    for (name, value) in entry.resolved_table("environment") {
        stdio.env.insert(name, Sensitive::secret(value));
    }
    entry.pass_over(&["url"], "the type is local");
    endpoint::give(spec, stdio.into());
}

fn remote(entry: &mut Entry<'_>, spec: &mut ServiceSpec) {
    let Some(url) = entry.resolved("url") else {
        entry.notes.error(&entry.path, "needs `url`, the address of the server");
        return;
    };
    let endpoint: Endpoint = endpoint::remote(entry, Transport::Http, url);
    entry.pass_over(&["command", "environment"], "the type is remote");
    endpoint::give(spec, endpoint);
}
