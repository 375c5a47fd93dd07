//! The text of each host's file.

use std::collections::BTreeSet;

use machina_core::{Error, ErrorKind, Result};
use serde_json::{Map, Value, json};

use super::export::Client;
use super::host_entry::{HostEntry, Piece, Secrets, Way, pieces};
use super::note::Notes;
use super::placeholder::variable_name;

pub(super) fn render(client: Client, entries: &[HostEntry], secrets: &Secrets, notes: &mut Notes) -> Result<String> {
    let secrets = secrets.names();
    let mut servers = Map::new();
    for entry in entries {
        let mut writer = Writer { client, entry, secrets: &secrets, notes: &mut *notes, unfilled: BTreeSet::new() };
        if let Some(server) = writer.server() {
            servers.insert(entry.name.clone(), Value::Object(server));
        }
        writer.say_unfilled();
    }
    match client {
        Client::Codex => toml::to_string_pretty(&json!({ "mcp_servers": servers })).map_err(|error| unwritable(&error)),
        Client::VsCode => pretty(&vscode(servers, &secrets)),
        Client::Zed => pretty(&json!({ "context_servers": servers })),
        Client::OpenCode => {
            notes.info("mcp.servers", "is the form of opencode 2; in version 1 the servers stand directly under `mcp`");
            pretty(&json!({ "$schema": "https://opencode.ai/config.json", "mcp": { "servers": servers } }))
        }
        _ => pretty(&json!({ "mcpServers": servers })),
    }
}

/// Secrets are asked for: VS Code keeps what its user answers in a safe place.
fn vscode(servers: Map<String, Value>, secrets: &BTreeSet<&str>) -> Value {
    let ask =
        |name: &&str| json!({ "type": "promptString", "id": input_id(name), "description": *name, "password": true });
    let inputs: Vec<_> = secrets.iter().map(ask).collect();
    if inputs.is_empty() { json!({ "servers": servers }) } else { json!({ "inputs": inputs, "servers": servers }) }
}

fn input_id(variable: &str) -> String {
    variable.to_ascii_lowercase().replace('_', "-")
}

fn pretty(value: &Value) -> Result<String> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| unwritable(&error))?;
    text.push('\n');
    Ok(text)
}

fn unwritable(error: &dyn std::error::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("the configuration cannot be written: {error}"))
}

/// Writes one server for one host.
struct Writer<'a> {
    client: Client,
    entry: &'a HostEntry,
    secrets: &'a BTreeSet<&'a str>,
    notes: &'a mut Notes,
    /// Variables whose reference the host leaves as it is.
    unfilled: BTreeSet<String>,
}

impl Writer<'_> {
    fn server(&mut self) -> Option<Map<String, Value>> {
        let entry = self.entry;
        let mut server = Map::new();
        if !self.switch(&mut server) {
            return None;
        }
        match &entry.way {
            Way::Program { command, args, env, cwd } => {
                self.program(&mut server, command, args);
                self.env(&mut server, env);
                self.cwd(&mut server, cwd.as_deref());
            }
            Way::Address { sse, url, headers } => {
                let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                match self.client {
                    Client::ClaudeDesktop => self.bridge(&mut server, *sse, url, &headers),
                    Client::Codex if *sse => {
                        self.notes.error(&entry.name, "is reached by SSE, which Codex does not speak: left out");
                        return None;
                    }
                    Client::Codex => self.codex_address(&mut server, url, &headers),
                    _ => self.address(&mut server, *sse, url, &headers),
                }
            }
        }
        self.timeouts(&mut server);
        Some(server)
    }

    /// Whether a disabled service is written, and how its host is told.
    fn switch(&mut self, server: &mut Map<String, Value>) -> bool {
        if self.client == Client::Zed {
            server.insert("source".to_owned(), "custom".into());
        }
        if !self.entry.disabled {
            return true;
        }
        let (key, value) = match self.client {
            Client::Zed | Client::Codex => ("enabled", false),
            Client::Windsurf | Client::OpenCode => ("disabled", true),
            _ => {
                self.notes.info(&self.entry.name, "is not enabled, and the host has no switch for it: left out");
                return false;
            }
        };
        server.insert(key.to_owned(), value.into());
        true
    }

    fn program(&mut self, server: &mut Map<String, Value>, command: &str, args: &[String]) {
        let command = self.text(command);
        let args: Vec<_> = args.iter().map(|arg| self.text(arg)).collect();
        match self.client {
            Client::OpenCode => {
                server.insert("type".to_owned(), "local".into());
                let argv: Vec<_> = std::iter::once(command).chain(args).collect();
                server.insert("command".to_owned(), argv.into());
            }
            client => {
                if matches!(client, Client::ClaudeCode | Client::VsCode) {
                    server.insert("type".to_owned(), "stdio".into());
                }
                server.insert("command".to_owned(), command.into());
                server.insert("args".to_owned(), args.into());
            }
        }
    }

    fn env(&mut self, server: &mut Map<String, Value>, env: &std::collections::BTreeMap<String, String>) {
        let mut written = Map::new();
        let mut forwarded = Vec::new();
        for (name, value) in env {
            if self.client == Client::Codex && refers_to(value) == Some(name.as_str()) {
                forwarded.push(name.clone());
            } else {
                written.insert(name.clone(), self.text(value).into());
            }
        }
        let key = if self.client == Client::OpenCode { "environment" } else { "env" };
        if !forwarded.is_empty() {
            server.insert("env_vars".to_owned(), forwarded.into());
        }
        if !written.is_empty() {
            server.insert(key.to_owned(), written.into());
        }
    }

    fn cwd(&mut self, server: &mut Map<String, Value>, cwd: Option<&str>) {
        let Some(cwd) = cwd else { return };
        let takes = matches!(self.client, Client::VsCode | Client::Codex | Client::Gemini | Client::OpenCode);
        if takes {
            let cwd = self.text(cwd);
            server.insert("cwd".to_owned(), cwd.into());
        } else {
            self.notes.warn(&self.entry.name, "the host takes no working directory: it is not written");
        }
    }

    fn address(&mut self, server: &mut Map<String, Value>, sse: bool, url: &str, headers: &[(&str, &str)]) {
        let url = self.text(url);
        let word = match self.client {
            Client::ClaudeCode | Client::VsCode => Some(if sse { "sse" } else { "http" }),
            Client::Cursor | Client::Windsurf if sse => Some("sse"),
            Client::OpenCode => Some("remote"),
            _ => None,
        };
        if self.client == Client::Zed && sse {
            self.notes.warn(&self.entry.name, "is reached by SSE, which Zed may not speak");
        }
        if let Some(word) = word {
            server.insert("type".to_owned(), word.into());
        }
        let key = match self.client {
            Client::Gemini if !sse => "httpUrl",
            Client::Windsurf => "serverUrl",
            _ => "url",
        };
        server.insert(key.to_owned(), url.into());
        if !headers.is_empty() {
            let headers: Map<_, _> =
                headers.iter().map(|(name, value)| ((*name).to_owned(), self.text(value).into())).collect();
            server.insert("headers".to_owned(), headers.into());
        }
    }

    /// Claude Desktop starts programs only: `mcp-remote` reaches the address.
    fn bridge(&mut self, server: &mut Map<String, Value>, sse: bool, url: &str, headers: &[(&str, &str)]) {
        let mut args = vec!["-y".to_owned(), "mcp-remote".to_owned(), self.text(url)];
        if sse {
            args.extend(["--transport".to_owned(), "sse-only".to_owned()]);
        }
        let mut env = Map::new();
        for (name, value) in headers {
            let variable = variable_name(name);
            args.extend(["--header".to_owned(), format!("{name}:${{{variable}}}")]);
            env.insert(variable, self.text(value).into());
        }
        server.insert("command".to_owned(), "npx".into());
        server.insert("args".to_owned(), args.into());
        if !env.is_empty() {
            server.insert("env".to_owned(), env.into());
        }
        self.notes.info(
            &self.entry.name,
            "is an address, and the host starts programs only: reached through `npx mcp-remote`",
        );
    }

    fn codex_address(&mut self, server: &mut Map<String, Value>, url: &str, headers: &[(&str, &str)]) {
        let url = self.text(url);
        server.insert("url".to_owned(), url.into());
        let (mut written, mut named) = (Map::new(), Map::new());
        for (name, value) in headers {
            if let Some(variable) = refers_to(value) {
                named.insert((*name).to_owned(), variable.into());
            } else if let Some(variable) = bearer(name, value) {
                server.insert("bearer_token_env_var".to_owned(), variable.into());
            } else {
                written.insert((*name).to_owned(), self.text(value).into());
            }
        }
        for (key, headers) in [("http_headers", written), ("env_http_headers", named)] {
            if !headers.is_empty() {
                server.insert(key.to_owned(), headers.into());
            }
        }
    }

    fn timeouts(&mut self, server: &mut Map<String, Value>) {
        let call = self.entry.call_timeout;
        match self.client {
            Client::Gemini => {
                let millis = call.and_then(|timeout| u64::try_from(timeout.as_millis()).ok());
                server.extend(millis.map(|millis| ("timeout".to_owned(), millis.into())));
            }
            Client::Codex => {
                for (key, limit) in [("tool_timeout_sec", call), ("startup_timeout_sec", self.entry.startup_timeout)] {
                    server.extend(limit.map(|limit| (key.to_owned(), limit.as_secs_f64().into())));
                }
            }
            _ if call.is_some() => {
                self.notes.info(&self.entry.name, "the limit of its calls is Machina's own and is not written");
            }
            _ => {}
        }
    }

    /// `text` with its references in the host's form.
    fn text(&mut self, text: &str) -> String {
        let mut out = String::new();
        for piece in pieces(text) {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Variable { name, default } => {
                    let written = self.variable(name, default);
                    out.push_str(&written);
                }
            }
        }
        out
    }

    fn variable(&mut self, name: &str, default: Option<&str>) -> String {
        match (self.client, default) {
            (Client::ClaudeCode | Client::Gemini, Some(default)) => return format!("${{{name}:-{default}}}"),
            (Client::ClaudeCode | Client::Gemini, None) => return format!("${{{name}}}"),
            (Client::ClaudeDesktop | Client::Zed | Client::Codex, Some(default)) => {
                self.notes.info(
                    &self.entry.name,
                    format!("the host fills in no variables: the default of {name} is written"),
                );
                return default.to_owned();
            }
            (Client::ClaudeDesktop | Client::Zed | Client::Codex, None) => {
                self.unfilled.insert(name.to_owned());
                return format!("${{{name}}}");
            }
            (_, Some(_)) => {
                self.notes.warn(&self.entry.name, format!("the host knows no defaults: set {name}"));
            }
            _ => {}
        }
        match self.client {
            Client::OpenCode => format!("{{env:{name}}}"),
            Client::VsCode if self.secrets.contains(name) => format!("${{input:{}}}", input_id(name)),
            _ => format!("${{env:{name}}}"),
        }
    }

    fn say_unfilled(&mut self) {
        for name in std::mem::take(&mut self.unfilled) {
            let message = format!("the host fills in no variables: put the value in the place of ${{{name}}}");
            self.notes.warn(&self.entry.name, message);
        }
    }
}

/// The variable that is the whole of `text`.
fn refers_to(text: &str) -> Option<&str> {
    match pieces(text).as_slice() {
        [Piece::Variable { name, default: None }] => Some(*name),
        _ => None,
    }
}

fn bearer<'a>(name: &str, value: &'a str) -> Option<&'a str> {
    let token = value.strip_prefix("Bearer ").filter(|_| name.eq_ignore_ascii_case("authorization"))?;
    refers_to(token)
}
