//! An endpoint out of the fields that hosts name it by: `command` with its
//! arguments, or one of the names for an address.

use std::path::PathBuf;
use std::time::Duration;

use machina_core::{
    AdminState, BuildType, Endpoint, HttpEndpoint, Instance, Sensitive, ServiceSpec, StdioEndpoint, UrlEndpoint,
};

use super::entry::Entry;
use super::note::element;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Stdio,
    Http,
    Sse,
    WebSocket,
}

/// Names for an address, and what each says about the transport behind it.
const ADDRESSES: [(&str, Option<Transport>); 4] =
    [("httpUrl", Some(Transport::Http)), ("serverUrl", None), ("url", None), ("sseUrl", Some(Transport::Sse))];

/// The endpoint of an entry as most hosts write it. `plain_url` is what `url`
/// without a type means to this host, if that is certain.
pub(super) fn read(entry: &mut Entry<'_>, plain_url: Option<Transport>) -> Option<Endpoint> {
    let errors = entry.notes.errors();
    let stated = stated_transport(entry);
    let command = entry.resolved("command");
    let mut addresses: Vec<_> =
        ADDRESSES.iter().filter_map(|(key, transport)| Some((*key, *transport, entry.resolved(key)?))).collect();
    if entry.notes.errors() > errors {
        return None;
    }
    let wants_command = stated == Some(Transport::Stdio) || (stated.is_none() && addresses.is_empty());
    match command {
        Some(command) if wants_command => {
            for (key, ..) in addresses {
                entry.notes.warn(entry.at(key), "not imported: the type is stdio");
            }
            return Some(Endpoint::Stdio(stdio(entry, command)));
        }
        Some(_) if stated.is_none() => {
            let message = format!("has both `command` and `{}`: leave one of them", addresses[0].0);
            entry.notes.error(&entry.path, message);
            return None;
        }
        Some(_) => entry.notes.warn(entry.at("command"), "not imported: the type is that of an address"),
        None => {}
    }
    if addresses.is_empty() || stated == Some(Transport::Stdio) {
        let needed = match stated {
            Some(Transport::Stdio) => "needs `command`, the program to start",
            Some(_) => "needs `url`, the address of the server",
            None => "needs `command`, the program to start, or `url`, the address of the server",
        };
        entry.notes.error(&entry.path, needed);
        return None;
    }
    let (key, implied, url) = addresses.remove(0);
    for (other, ..) in addresses {
        entry.notes.warn(entry.at(other), format!("not imported: `{key}` is used"));
    }
    let transport = stated.or(implied).or(plain_url).unwrap_or_else(|| guess(entry, key, &url));
    Some(remote(entry, transport, url))
}

fn stated_transport(entry: &mut Entry<'_>) -> Option<Transport> {
    for key in ["type", "transport", "transportType"] {
        if let Some(word) = entry.text(key) {
            let found = transport(&word);
            if found.is_none() {
                entry.notes.error(entry.at(key), "must be `stdio`, `http` (or `streamable-http`), `sse` or `ws`");
            }
            return found;
        }
    }
    None
}

pub(super) fn transport(word: &str) -> Option<Transport> {
    match word.to_ascii_lowercase().replace(['_', '-'], "").as_str() {
        "stdio" | "local" | "command" => Some(Transport::Stdio),
        "http" | "https" | "streamablehttp" | "httpstream" | "remote" => Some(Transport::Http),
        "sse" => Some(Transport::Sse),
        "ws" | "wss" | "websocket" => Some(Transport::WebSocket),
        _ => None,
    }
}

fn guess(entry: &mut Entry<'_>, key: &str, url: &str) -> Transport {
    if url.starts_with("ws://") || url.starts_with("wss://") {
        return Transport::WebSocket;
    }
    let path = url.split(['?', '#']).next().unwrap_or(url);
    if !path.trim_end_matches('/').ends_with("/sse") {
        return Transport::Http;
    }
    entry.notes.info(entry.at(key), "ends with /sse and is read as SSE; write \"type\": \"http\" if it is not");
    Transport::Sse
}

/// The endpoint of `command` with the `args`, `env` and `cwd` of the entry.
pub(super) fn stdio(entry: &mut Entry<'_>, command: String) -> StdioEndpoint {
    let args = entry.resolved_list("args");
    let first = command.split_whitespace().next().unwrap_or_default();
    if args.is_empty() && first.len() < command.trim().len() && !first.contains(['/', '\\']) {
        let message = "holds white space, and no shell takes it apart: put the arguments into `args`";
        entry.notes.warn(entry.at("command"), message);
    }
    let mut endpoint = StdioEndpoint::new(command, args);
    endpoint.env = entry.resolved_table("env").into_iter().map(|(n, v)| (n, Sensitive::secret(v))).collect();
    endpoint.cwd = entry.resolved("cwd").map(PathBuf::from);
    fill_from_own_env(entry, &mut endpoint);
    entry.pass_over(&["headers"], "a program has no headers");
    endpoint
}

/// Some programs fill in placeholders of their arguments from their own
/// variables. A connector fills them in first, so they get the value here.
fn fill_from_own_env(entry: &mut Entry<'_>, endpoint: &mut StdioEndpoint) {
    for (index, arg) in endpoint.args.iter_mut().enumerate() {
        for (name, value) in &endpoint.env {
            let placeholder = format!("${{{name}}}");
            if arg.expose().contains(&placeholder) && value.expose() != placeholder {
                *arg = Sensitive::secret(arg.expose().replace(&placeholder, value.expose()));
                let path = element(&entry.at("args"), index);
                entry.notes.info(path, format!("{placeholder} got the value that `env` gives to it"));
            }
        }
    }
}

/// The endpoint at `url` with the `headers` of the entry.
pub(super) fn remote(entry: &mut Entry<'_>, transport: Transport, url: String) -> Endpoint {
    entry.pass_over(&["args", "env", "cwd"], "only a program takes it, and this is an address");
    let mut http = HttpEndpoint::new(url);
    if transport == Transport::WebSocket {
        entry.pass_over(&["headers"], "a WebSocket takes no headers here");
        return Endpoint::WebSocket(UrlEndpoint { url: http.url });
    }
    http.headers = entry.resolved_table("headers").into_iter().map(|(n, v)| (n, Sensitive::secret(v))).collect();
    match transport {
        Transport::Sse => Endpoint::Sse(http),
        _ => Endpoint::Http(http),
    }
}

/// Gives the service this endpoint as its instance.
pub(super) fn give(spec: &mut ServiceSpec, endpoint: Endpoint) {
    if let Endpoint::Stdio(stdio) = &endpoint
        && matches!(program(&stdio.command), "docker" | "podman" | "nerdctl")
    {
        spec.build_type = BuildType::Docker;
    }
    spec.instances.push(Instance::new(endpoint));
}

/// The name of a program without its directory and `.exe`.
fn program(command: &str) -> &str {
    let name = command.rsplit(['/', '\\']).next().unwrap_or(command);
    name.strip_suffix(".exe").unwrap_or(name)
}

/// `disabled` and `enabled`, whichever the host has.
pub(super) fn admin_state(entry: &mut Entry<'_>, spec: &mut ServiceSpec) {
    let off = entry.flag("disabled");
    let on = entry.flag("enabled");
    if off.is_some() && off == on {
        entry.notes.error(entry.at("enabled"), "contradicts `disabled`: leave one of them");
    }
    if off == Some(true) || on == Some(false) {
        spec.admin_state = AdminState::Disabled;
    }
}

/// How long a call may take, out of `seconds`; kept within what is allowed.
pub(super) fn call_timeout(entry: &mut Entry<'_>, key: &str, seconds: f64, spec: &mut ServiceSpec) {
    let timeout = within(entry, key, seconds, 0.01, 600.0);
    spec.routing_policy.timeout = Some(timeout);
}

/// `seconds` as a duration; if it lies outside of what is allowed, a note says so.
pub(super) fn within(entry: &mut Entry<'_>, key: &str, seconds: f64, least: f64, most: f64) -> Duration {
    let kept = seconds.clamp(least, most);
    if (kept - seconds).abs() > f64::EPSILON {
        entry.notes.warn(entry.at(key), format!("lies outside of {least} s to {most} s; {kept} s is used"));
    }
    Duration::try_from_secs_f64(kept).unwrap_or(Duration::from_secs(60))
}
